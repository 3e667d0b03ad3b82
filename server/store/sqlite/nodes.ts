/** Attested agents, and what they have spent, in SQLite. */
import { fail } from '../../../core/errors.ts';
import type { Node, NodeStore } from '../store.ts';
import type { Database } from './database.ts';
import { deleteEntry, insertEntry } from './entries.ts';
import { entryFromRow, nodeFromRow, nodeToRow } from './rows.ts';
import type { JoinTokenStore } from '../store.ts';

export function sqliteNodes(db: Database): NodeStore {
  const row = (id: string) => db.sql('SELECT * FROM nodes WHERE id = ?').get(id);
  const put = (node: Node) =>
    db
      .sql('INSERT OR REPLACE INTO nodes (id, attestation_type, banned, data, record) VALUES (?, ?, ?, ?, ?)')
      .run(node.id, node.attestationType, node.banned ? 1 : 0, nodeToRow(node), node.record ?? null);

  return {
    attest: (node, spend) =>
      db.write((transaction) => {
        const before = row(node.id);
        if (before?.['banned'] === 1) throw fail('DENIED', 'failed to attest: agent is banned');
        if (before && before['attestation_type'] !== node.attestationType) {
          throw fail('DENIED', `failed to attest: ${node.id} belongs to attestation type ${String(before['attestation_type'])}`);
        }
        if (spend.token) spendToken(db, spend.token);
        for (const id of spend.ids ?? []) {
          const { changes } = db
            .sql('INSERT OR IGNORE INTO spent (attestation_type, id, at_ms) VALUES (?, ?, ?)')
            .run(node.attestationType, id, node.attestedAtMs);
          if (changes === 0) throw fail('DENIED', 'failed to attest: this proof has been used before');
        }
        put(node);
        return { seq: transaction.change('node', node.id) };
      }),

    update: (id, change) =>
      db.write((transaction) => {
        const stored = row(id);
        if (!stored) throw fail('NOT_FOUND', 'agent not found');
        const node = { ...change(nodeFromRow(stored)), id };
        put(node);
        return { node, seq: transaction.change('node', id) };
      }),

    delete: (id) =>
      db.write((transaction) => {
        const stored = row(id);
        if (!stored) throw fail('NOT_FOUND', 'agent not found');
        db.sql('DELETE FROM nodes WHERE id = ?').run(id);
        if (stored['attestation_type'] === 'join_token') {
          // the key that spent the token may not come back with it
          db.sql('DELETE FROM join_tokens WHERE value = ? AND spent_by IS NOT NULL').run(id.slice(id.lastIndexOf('/') + 1));
          for (const { data } of db.sql('SELECT data FROM entries WHERE parent_id = ?').all(id)) {
            const entry = entryFromRow(data);
            const [only, ...others] = entry.selectors;
            if (others.length > 0 || only?.type !== 'spiffe_id' || only.value !== id) continue;
            deleteEntry(db, entry.id);
            transaction.change('entry', entry.id);
          }
        }
        return { seq: transaction.change('node', id) };
      }),

    get: (id) =>
      db.read(() => {
        const stored = row(id);
        return stored && nodeFromRow(stored);
      }),

    async *all() {
      for (let after = ''; ; ) {
        const rows = await db.read(() => db.sql('SELECT * FROM nodes WHERE id > ? ORDER BY id LIMIT 5000').all(after));
        if (rows.length === 0) return;
        yield rows.map(nodeFromRow);
        after = String(rows.at(-1)?.['id']);
      }
    },
  };
}

/** The first key that spends a token owns it: the same one may come again until the token expires, another is told what SPIRE tells. */
function spendToken(db: Database, { value, publicKeySha256, nowMs }: { value: string; publicKeySha256: Buffer; nowMs: number }): void {
  const token = db.sql('SELECT expires_at_ms, spent_by FROM join_tokens WHERE value = ?').get(value);
  const spentBy = token?.['spent_by'];
  if (!token || (spentBy instanceof Uint8Array && !publicKeySha256.equals(spentBy))) {
    throw fail('REQUEST_INVALID', 'failed to attest: join token does not exist or has already been used');
  }
  if (Number(token['expires_at_ms']) <= nowMs) throw fail('REQUEST_INVALID', 'join token expired');
  db.sql('UPDATE join_tokens SET spent_by = ? WHERE value = ?').run(publicKeySha256, value);
}

export function sqliteTokens(db: Database): JoinTokenStore {
  return {
    create: (token, alias) =>
      db.write((transaction) => {
        const { changes } = db
          .sql('INSERT OR IGNORE INTO join_tokens (value, expires_at_ms, spent_by) VALUES (?, ?, NULL)')
          .run(token.value, token.expiresAtMs);
        if (changes === 0) throw fail('ALREADY_EXISTS', 'join token already exists');
        if (!alias) return { seq: transaction.seq };
        insertEntry(db, alias);
        return { seq: transaction.change('entry', alias.id) };
      }),
    voidUnspent: () => db.write(() => db.sql('DELETE FROM join_tokens WHERE spent_by IS NULL').run().changes),
    prune: (nowMs) => db.write(() => db.sql('DELETE FROM join_tokens WHERE expires_at_ms <= ?').run(nowMs).changes),
    get: (value) =>
      db.read(() => {
        const token = db.sql('SELECT expires_at_ms, spent_by FROM join_tokens WHERE value = ?').get(value);
        if (!token) return undefined;
        const spentBy = token['spent_by'];
        return { expiresAtMs: Number(token['expires_at_ms']), spentBy: spentBy instanceof Uint8Array ? Buffer.from(spentBy) : undefined };
      }),
  };
}
