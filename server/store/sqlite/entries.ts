/** Entries in SQLite. */
import { setImmediate } from 'node:timers/promises';
import type { Entry } from '../../../core/entry.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import type { EntryOutcome, EntryStore } from '../store.ts';
import type { Database, Transaction } from './database.ts';
import { entryFromRow, entryToRow, similarity } from './rows.ts';

const PAGE = 5_000;

export function sqliteEntries(db: Database): EntryStore {
  const byId = (id: string) => db.sql('SELECT data FROM entries WHERE id = ?').get(id);

  const put = (entry: Entry, transaction: Transaction): EntryOutcome => {
    insertEntry(db, entry);
    return { ok: true, entry, seq: transaction.change('entry', entry.id) };
  };
  const similar = (entry: Entry) => db.sql('SELECT id, data FROM entries WHERE similarity = ?').get(similarity(entry));

  return {
    create: (drafts) =>
      db.write((transaction) =>
        drafts.map((draft): EntryOutcome => {
          const taken = similar(draft) ?? byId(draft.id);
          if (taken)
            return { ok: false, code: 'ALREADY_EXISTS', message: 'similar entry already exists', entry: entryFromRow(taken['data']) };
          return put(draft, transaction);
        }),
      ),

    update: (changes) =>
      db.write((transaction) =>
        changes.map(({ id, change }): EntryOutcome => {
          const row = byId(id);
          if (!row) return { ok: false, code: 'NOT_FOUND', message: 'entry not found' };
          const stored = entryFromRow(row['data']);
          let next: Entry;
          try {
            next = { ...change(stored), id, createdAtMs: stored.createdAtMs, revision: stored.revision + 1 };
          } catch (error) {
            if (!(error instanceof SpiffeError)) throw error;
            return { ok: false, code: 'REQUEST_INVALID', message: error.message };
          }
          const taken = similar(next);
          if (taken && taken['id'] !== id)
            return { ok: false, code: 'ALREADY_EXISTS', message: 'similar entry already exists', entry: entryFromRow(taken['data']) };
          deleteEntry(db, id);
          return put(next, transaction);
        }),
      ),

    delete: (ids) =>
      db.write((transaction) =>
        ids.map((id): EntryOutcome => {
          const row = byId(id);
          if (!row) return { ok: false, code: 'NOT_FOUND', message: 'entry not found' };
          deleteEntry(db, id);
          return { ok: true, entry: entryFromRow(row['data']), seq: transaction.change('entry', id) };
        }),
      ),

    get: (ids) =>
      db.read(() =>
        db
          .sql('SELECT data FROM entries WHERE id IN (SELECT value FROM json_each(?))')
          .all(JSON.stringify(ids))
          .map((row) => entryFromRow(row['data'])),
      ),

    async *all() {
      for (let after = 0; ; ) {
        const rows = await db.read(() => db.sql('SELECT row, data FROM entries WHERE row > ? ORDER BY row LIMIT ?').all(after, PAGE));
        if (rows.length === 0) return;
        yield rows.map((row) => entryFromRow(row['data']));
        after = Number(rows.at(-1)?.['row']);
        await setImmediate();
      }
    },

    prune: (nowMs) =>
      db.write((transaction) => {
        const rows = db.sql('SELECT id, data FROM entries WHERE expires_at_ms > 0 AND expires_at_ms <= ?').all(nowMs);
        return rows.map((row) => {
          deleteEntry(db, String(row['id']));
          transaction.change('entry', String(row['id']));
          return entryFromRow(row['data']);
        });
      }),
  };
}

export function insertEntry(db: Database, entry: Entry): void {
  db.sql('INSERT INTO entries (id, similarity, parent_id, expires_at_ms, data) VALUES (?, ?, ?, ?, ?)').run(
    entry.id,
    similarity(entry),
    String(entry.parentId),
    entry.expiresAtMs,
    entryToRow(entry),
  );
  for (const domain of entry.federatesWith)
    db.sql('INSERT INTO entry_federation (trust_domain, entry_id) VALUES (?, ?)').run(domain.name, entry.id);
}

export function deleteEntry(db: Database, id: string): void {
  db.sql('DELETE FROM entries WHERE id = ?').run(id);
  db.sql('DELETE FROM entry_federation WHERE entry_id = ?').run(id);
}
