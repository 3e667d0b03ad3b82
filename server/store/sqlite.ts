/** The store in one SQLite file. One server per file: a second one is refused. */
import { fail } from '../../core/errors.ts';
import { lockFile } from '../../core/lock-file.ts';
import type { Clock } from '../../spiffe/clock.ts';
import { sqliteBundles, sqliteChanges, sqliteJournals } from './sqlite/bundles.ts';
import { Database } from './sqlite/database.ts';
import { sqliteEntries } from './sqlite/entries.ts';
import { sqliteNodes, sqliteTokens } from './sqlite/nodes.ts';
import type { Store } from './store.ts';

/** @param path the database's file. Throws FAILED_PRECONDITION when another process has it (with its pid), STORE_FAILED when it can't be used. Who opens it closes it. */
export async function openSqlite(path: string, clock: Clock): Promise<Store> {
  checkNodeApi(process.versions);
  const lock = lockFile(`${path}.lock`, 'the datastore of a server');
  let db: Database;
  try {
    db = new Database(path, clock);
  } catch (error) {
    lock.close();
    throw error;
  }
  return {
    entries: sqliteEntries(db),
    nodes: sqliteNodes(db),
    bundles: sqliteBundles(db),
    tokens: sqliteTokens(db),
    journals: sqliteJournals(db),
    changes: sqliteChanges(db),
    backup: () => db.backup(),
    async close() {
      db.close();
      lock.close();
    },
  };
}

/** better-sqlite3 is made for it. On a Node with an older one it does not refuse: it takes the process down. */
const NODE_API = 10;

/** Throws FAILED_PRECONDITION. */
export function checkNodeApi({ node, napi }: { readonly node: string; readonly napi?: string | undefined }): void {
  if (Number(napi) >= NODE_API) return;
  throw fail(
    'FAILED_PRECONDITION',
    `Node ${node} has Node-API ${napi}, and SQLite needs ${NODE_API}: run the server on Node 22.14 or newer`,
  );
}
