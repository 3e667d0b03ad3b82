/** The SQLite store keeps the contract, alone and when every step yields; and what only a file can do. */
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import Sqlite from 'better-sqlite3';
import { afterEach, describe, expect, test } from 'vitest';
import { checkNodeApi, openSqlite } from '../../../server/store/sqlite.ts';
import type { Store } from '../../../server/store/store.ts';
import { systemClock } from '../../../spiffe/clock.ts';
import { entry, storeContract } from '../../contract/store.ts';

const opened: Store[] = [];
const folders: string[] = [];

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), 'warifu-store-'));
  folders.push(made);
  return made;
}

async function open(path = join(folder(), 'datastore.sqlite3')): Promise<Store> {
  const store = await openSqlite(path, systemClock);
  opened.push(store);
  return store;
}

afterEach(async () => {
  for (const store of opened.splice(0)) await store.close().catch(() => {});
  for (const path of folders.splice(0)) rmSync(path, { recursive: true, force: true });
});

/** Every method takes a turn of the loop before and after: what PostgreSQL will do to callers that hope for less. */
function yielding(store: Store): Store {
  const wrap = <T extends object>(noun: T): T =>
    new Proxy(noun, {
      get(target, name) {
        const method = Reflect.get(target, name) as unknown;
        if (typeof method !== 'function' || name === 'onCommit') return method;
        return (...args: unknown[]) => {
          const result = (method as (...given: unknown[]) => unknown).apply(target, args);
          if (!(result instanceof Promise)) return result;
          const kept = Promise.allSettled([result as Promise<unknown>]);
          return setImmediate()
            .then(() => kept)
            .then(([end]) => (end.status === 'fulfilled' ? end.value : Promise.reject(end.reason as Error)))
            .finally(() => setImmediate());
        };
      },
    });
  return {
    entries: wrap(store.entries),
    nodes: wrap(store.nodes),
    bundles: wrap(store.bundles),
    tokens: wrap(store.tokens),
    journals: wrap(store.journals),
    changes: wrap(store.changes),
    close: () => store.close(),
  };
}

describe('SQLite', () => storeContract(open));
describe('SQLite that yields between any two steps', () => storeContract(async () => yielding(await open())));

describe('the file', () => {
  test('is what survives: a store opened again has the same rows', async () => {
    const path = join(folder(), 'd.sqlite3');
    const before = await open(path);
    await before.entries.create([entry('a')]);
    await before.close();
    const after = await open(path);
    expect(await after.entries.get(['a'])).toEqual([entry('a')]);
    expect(await after.changes.bounds()).toEqual({ newest: 1, oldest: 1 });
  });

  test('and its side files can be read by nobody else', async () => {
    const path = join(folder(), 'd.sqlite3');
    const store = await open(path);
    await store.entries.create([entry('a')]);
    for (const suffix of ['', '-wal', '-shm', '.lock']) expect(statSync(path + suffix).mode & 0o077, suffix).toBe(0);
  });

  test('a second server on it is refused and told the pid of the first; after that one ended it may start', async () => {
    const path = join(folder(), 'd.sqlite3');
    const first = await open(path);
    await expect(open(path)).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining(String(process.pid)) as string,
    });
    await first.close();
    await expect(open(path)).resolves.toBeDefined();
  });

  test('of a newer program is refused', async () => {
    const path = join(folder(), 'd.sqlite3');
    await (await open(path)).close();
    const raw = new Sqlite(path);
    raw.prepare('INSERT INTO schema_version VALUES (999)').run();
    raw.close();
    await expect(open(path)).rejects.toMatchObject({ code: 'STORE_FAILED', message: expect.stringContaining('newer') as string });
  });

  test('that is no database is refused, and left as it is', async () => {
    const path = join(folder(), 'd.sqlite3');
    writeFileSync(path, 'not a database, but long enough to be read as a header of one, were it one '.repeat(20), { mode: 0o600 });
    await expect(open(path)).rejects.toMatchObject({ code: 'STORE_FAILED' });
    expect(statSync(path).size).toBeGreaterThan(1000);
  });

  test('is backed up whole while writes go on, and the copy opens as a store; nothing of it is left beside the file', async () => {
    const [path, copy] = [join(folder(), 'd.sqlite3'), join(folder(), 'copy.sqlite3')];
    const store = await open(path);
    const outcomes = await store.entries.create(Array.from({ length: 2_000 }, (_, i) => entry(`before-${i}`)));
    expect(outcomes.every(({ ok }) => ok)).toBe(true);
    const pieces: Buffer[] = [];
    let during = 0;
    for await (const piece of store.backup?.() ?? []) {
      pieces.push(piece);
      await store.entries.create([entry(`during-${during++}`)]);
    }
    writeFileSync(copy, Buffer.concat(pieces), { mode: 0o600 });
    const restored = await open(copy);
    const ids: string[] = [];
    for await (const page of restored.entries.all()) ids.push(...page.map(({ id }) => id));
    expect(ids.filter((id) => id.startsWith('before-'))).toHaveLength(2_000);
    expect((await restored.changes.bounds()).newest).toBe(ids.length);
    expect(readdirSync(dirname(path)).filter((name) => name.endsWith('.backup'))).toEqual([]);
  });

  test('copies that a crash left behind are removed: they hold secrets', async () => {
    const path = join(folder(), 'd.sqlite3');
    writeFileSync(`${path}.0123456789ab.backup`, 'half a copy');
    await open(path);
    expect(readdirSync(dirname(path)).filter((name) => name.endsWith('.backup'))).toEqual([]);
  });
});

test('a Node on which SQLite would take the process down is told before it does', () => {
  for (const napi of ['9', undefined]) {
    expect(() => checkNodeApi({ node: '22.12.0', napi })).toThrow(/Node 22\.12\.0 .*run the server on Node 22\.14 or newer/);
  }
  for (const napi of ['10', '11']) expect(() => checkNodeApi({ node: '22.14.0', napi })).not.toThrow();
});
