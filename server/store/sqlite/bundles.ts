/** Bundles, the journal of authorities and the change log in SQLite. */
import { fail } from '../../../core/errors.ts';
import type { BundleStore, Change, ChangeStore, JournalStore } from '../store.ts';
import type { Database } from './database.ts';
import { deleteEntry, insertEntry } from './entries.ts';
import { bundleFromRow, bundleToRow, entryFromRow, journalFromRow, journalToRow } from './rows.ts';

export function sqliteBundles(db: Database): BundleStore {
  const row = (trustDomain: string) => db.sql('SELECT * FROM bundles WHERE trust_domain = ?').get(trustDomain);
  return {
    update: (trustDomain, change) =>
      db.write((transaction) => {
        const found = row(trustDomain);
        const stored = found && bundleFromRow(found);
        const next = change(stored);
        if (!next) return { bundle: stored, changed: false, seq: transaction.seq };
        const bundle = { ...next, trustDomain, sequence: Math.max(next.sequence, (stored?.sequence ?? -1) + 1) };
        db.sql('INSERT OR REPLACE INTO bundles (trust_domain, data) VALUES (?, ?)').run(trustDomain, bundleToRow(bundle));
        return { bundle, changed: true, seq: transaction.change('bundle', trustDomain) };
      }),

    delete: (trustDomain, mode) =>
      db.write((transaction) => {
        if (!row(trustDomain)) throw fail('NOT_FOUND', 'bundle not found');
        const rows = db
          .sql('SELECT data FROM entries WHERE id IN (SELECT entry_id FROM entry_federation WHERE trust_domain = ?)')
          .all(trustDomain);
        if (rows.length > 0 && mode === 'restrict') {
          throw fail('FAILED_PRECONDITION', `cannot delete bundle; federated with ${rows.length} registration entries`);
        }
        for (const { data } of rows) {
          const entry = entryFromRow(data);
          deleteEntry(db, entry.id);
          if (mode === 'dissociate') {
            insertEntry(db, {
              ...entry,
              federatesWith: entry.federatesWith.filter(({ name }) => name !== trustDomain),
              revision: entry.revision + 1,
            });
          }
          transaction.change('entry', entry.id);
        }
        db.sql('DELETE FROM bundles WHERE trust_domain = ?').run(trustDomain);
        return { seq: transaction.change('bundle', trustDomain) };
      }),

    get: (trustDomain) =>
      db.read(() => {
        const found = row(trustDomain);
        return found && bundleFromRow(found);
      }),
    all: () => db.read(() => db.sql('SELECT * FROM bundles ORDER BY trust_domain').all().map(bundleFromRow)),
  };
}

export function sqliteJournals(db: Database): JournalStore {
  return {
    load: () => db.read(() => db.sql('SELECT data FROM journal ORDER BY kind, not_after_ms').all().map(journalFromRow)),
    save: (record) =>
      db.write(() => {
        db.sql('INSERT OR REPLACE INTO journal (kind, authority_id, not_after_ms, data) VALUES (?, ?, ?, ?)').run(
          record.kind,
          record.authorityId,
          record.notAfterMs,
          journalToRow(record),
        );
      }),
    prune: (nowMs) => db.write(() => void db.sql('DELETE FROM journal WHERE not_after_ms <= ?').run(nowMs)),
  };
}

export function sqliteChanges(db: Database): ChangeStore {
  return {
    bounds: () =>
      db.read(() => {
        const newest = Number(db.sql("SELECT value FROM counters WHERE name = 'changes'").get()?.['value'] ?? 0);
        const oldest = db.sql('SELECT min(seq) AS seq FROM changes').get()?.['seq'];
        return { newest, oldest: oldest === null || oldest === undefined ? newest + 1 : Number(oldest) };
      }),
    since: (seq, limit) =>
      db.read(() =>
        db
          .sql('SELECT seq, at_ms, kind, id FROM changes WHERE seq > ? ORDER BY seq LIMIT ?')
          .all(seq, limit)
          .map(
            (row): Change => ({
              seq: Number(row['seq']),
              atMs: Number(row['at_ms']),
              kind: row['kind'] as Change['kind'],
              id: String(row['id']),
            }),
          ),
      ),
    onCommit: (listener) => db.onCommit(listener),
    prune: (beforeMs) => db.write(() => void db.sql('DELETE FROM changes WHERE at_ms < ?').run(beforeMs)),
  };
}
