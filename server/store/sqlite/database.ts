/** One SQLite file and its writer: what is written in one turn of the loop shares a transaction, and is on disk before anybody is told. */
import { randomBytes } from 'node:crypto';
import { closeSync, createReadStream, mkdirSync, openSync, readdirSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type CoreError, fail } from '../../../core/errors.ts';
import type { Clock } from '../../../spiffe/clock.ts';
import type { Change } from '../store.ts';
import { MIGRATIONS } from './migrations.ts';

/** What an operation may do inside the transaction. */
export interface Transaction {
  /** Adds a row to the change log; gives its number. */
  change(kind: Change['kind'], id: string): number;
  /** The number of the newest change. */
  readonly seq: number;
}

/** Copied at a time, between other work: some milliseconds. */
const BACKUP_PAGES = 500;
const BACKUP_PIECE_BYTES = 256 * 1024;
/** While another program has the file locked, writes wait this long in all. SQLite's own wait would stop everybody who only reads from memory. */
const LOCKED_MS = 5_000;
const LOCKED_AGAIN_MS = 50;

interface Operation {
  run(transaction: Transaction): unknown;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

export class Database {
  readonly #sqlite: Sqlite.Database;
  readonly #path: string;
  readonly #clock: Clock;
  readonly #statements = new Map<string, Sqlite.Statement>();
  readonly #listeners = new Set<() => void>();
  #queue: Operation[] = [];
  #lockedSinceMs: number | undefined;
  #scheduled = false;
  #closed = false;

  /** @param path a file, made with mode 0600 if it is not there. Throws STORE_FAILED for what is no database of ours, or one from a newer program. */
  constructor(path: string, clock: Clock, migrations: readonly string[] = MIGRATIONS) {
    this.#path = path;
    this.#clock = clock;
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      // copies that a crash left behind hold secrets
      for (const name of readdirSync(dirname(path))) {
        if (name.startsWith(`${basename(path)}.`) && name.endsWith('.backup')) rmSync(join(dirname(path), name), { force: true });
      }
      // SQLite gives its side files the mode of the main one
      closeSync(openSync(path, 'a', 0o600));
      this.#sqlite = new Sqlite(path, { timeout: 5_000 });
      this.#sqlite.pragma('journal_mode = WAL');
      this.#sqlite.pragma('synchronous = FULL');
      this.#sqlite.pragma('foreign_keys = ON');
    } catch (error) {
      throw this.#words(error);
    }
    try {
      this.#migrate(migrations);
      // from here on nobody waits inside of SQLite
      this.#sqlite.pragma('busy_timeout = 0');
    } catch (error) {
      this.#sqlite.close();
      throw this.#words(error);
    }
  }

  /** Prepared once. */
  sql(text: string): Sqlite.Statement<unknown[], Record<string, unknown>> {
    let statement = this.#statements.get(text);
    if (!statement) {
      statement = this.#sqlite.prepare(text);
      this.#statements.set(text, statement);
    }
    return statement as Sqlite.Statement<unknown[], Record<string, unknown>>;
  }

  /** Runs a read now. */
  async read<T>(run: () => T): Promise<T> {
    try {
      this.#checkOpen();
      return run();
    } catch (error) {
      throw this.#words(error);
    }
  }

  /** Runs `run` in the next transaction; resolves once that is on disk. What it throws undoes its own writes and nobody else's. */
  write<T>(run: (transaction: Transaction) => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#queue.push({ run, resolve, reject });
      if (this.#scheduled) return;
      this.#scheduled = true;
      setImmediate(() => this.#flush());
    });
  }

  /** Called after commits that wrote change rows. */
  onCommit(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** A consistent copy of the file, in pieces. What is written while it is made is in it, or not, as a whole. */
  async *backup(): AsyncGenerator<Buffer, void, void> {
    const copy = `${this.#path}.${randomBytes(6).toString('hex')}.backup`;
    try {
      this.#checkOpen();
      closeSync(openSync(copy, 'wx', 0o600));
      await this.#sqlite.backup(copy, { progress: () => BACKUP_PAGES });
      for await (const piece of createReadStream(copy, { highWaterMark: BACKUP_PIECE_BYTES })) yield piece as Buffer;
    } catch (error) {
      throw this.#words(error);
    } finally {
      await rm(copy, { force: true });
    }
  }

  /** What was queued is written first. */
  close(): void {
    this.#flush();
    this.#closed = true;
    this.#sqlite.close();
  }

  #flush(): void {
    this.#scheduled = false;
    if (this.#queue.length === 0 || !this.#begin()) return;
    const operations = this.#queue;
    this.#queue = [];
    const ends: (() => void)[] = [];
    let changed = false;
    try {
      const counter = this.sql("SELECT value FROM counters WHERE name = 'changes'").get();
      const before = Number(counter?.['value'] ?? 0);
      let seq = before;
      const add = this.sql('INSERT INTO changes (seq, at_ms, kind, id) VALUES (?, ?, ?, ?)');
      const now = this.#clock.now();
      const transaction: Transaction = {
        change(kind, id) {
          add.run(++seq, now, kind, id);
          return seq;
        },
        get seq() {
          return seq;
        },
      };
      for (const { run, resolve, reject } of operations) {
        this.sql('SAVEPOINT operation').run();
        try {
          const value = run(transaction);
          this.sql('RELEASE operation').run();
          ends.push(() => resolve(value));
        } catch (error) {
          // a full disk may have rolled back everything by itself
          if (!this.#sqlite.inTransaction) throw error;
          this.sql('ROLLBACK TO operation').run();
          this.sql('RELEASE operation').run();
          ends.push(() => reject(this.#words(error)));
        }
      }
      if (seq !== before) this.sql("UPDATE counters SET value = ? WHERE name = 'changes'").run(seq);
      this.sql('COMMIT').run();
      changed = seq !== before;
    } catch (error) {
      if (!this.#closed && this.#sqlite.inTransaction) this.sql('ROLLBACK').run();
      for (const { reject } of operations) reject(this.#words(error));
      return;
    }
    for (const end of ends) end();
    if (changed) for (const listener of this.#listeners) listener();
  }

  /** Whether the transaction has begun. While another program has the file it is tried again soon; what waits is refused at last. */
  #begin(): boolean {
    const now = this.#clock.monotonic();
    try {
      this.#checkOpen();
      this.sql('BEGIN IMMEDIATE').run();
    } catch (error) {
      this.#lockedSinceMs ??= now;
      const locked = error instanceof Sqlite.SqliteError && error.code.startsWith('SQLITE_BUSY');
      if (locked && now - this.#lockedSinceMs < LOCKED_MS) {
        this.#scheduled = true;
        void this.#clock.sleep(LOCKED_AGAIN_MS).then(() => this.#flush());
        return false;
      }
      this.#lockedSinceMs = undefined;
      const operations = this.#queue;
      this.#queue = [];
      for (const { reject } of operations) reject(this.#words(error));
      return false;
    }
    this.#lockedSinceMs = undefined;
    return true;
  }

  #checkOpen(): void {
    if (this.#closed) throw fail('CLOSED', 'the store is closed');
  }

  #migrate(migrations: readonly string[]): void {
    const foreign = this.#sqlite
      .prepare("SELECT name FROM sqlite_schema WHERE name IN ('registered_entries', 'attested_node_entries')")
      .get();
    if (foreign) {
      throw fail(
        'STORE_FAILED',
        `${this.#path} is the datastore of a SPIRE server, whose tables are others: set connection_string to a file of our own`,
      );
    }
    this.#sqlite.exec('CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)');
    const version = Number(
      (this.#sqlite.prepare('SELECT max(version) AS version FROM schema_version').get() as { version: number | null }).version ?? 0,
    );
    if (version > migrations.length) {
      throw fail(
        'STORE_FAILED',
        `${this.#path} is of schema version ${version}, made by a newer Warifu; this one knows ${migrations.length}: run the newer one, or restore a backup`,
      );
    }
    for (let next = version; next < migrations.length; next++) {
      // one step, one transaction: a crash between two steps goes on where it stopped
      this.#sqlite.transaction(() => {
        this.#sqlite.exec(migrations[next] ?? '');
        this.#sqlite.prepare('INSERT INTO schema_version VALUES (?)').run(next + 1);
      })();
    }
  }

  /** SQLite's codes in words that an operator can act on. */
  #words(error: unknown): unknown {
    if (!(error instanceof Sqlite.SqliteError) && (error as NodeJS.ErrnoException).code?.startsWith('E') !== true) return error;
    const { code, message } = error as { code: string; message: string };
    return this.#failed(code, message, error);
  }

  #failed(code: string, message: string, cause: unknown): CoreError {
    const known = Object.entries(WORDS).find(([prefix]) => code.startsWith(prefix))?.[1];
    return fail('STORE_FAILED', `datastore ${this.#path}: ${known ?? message}`, { cause });
  }
}

const WORDS: Readonly<Record<string, string>> = {
  SQLITE_FULL: 'the disk is full',
  ENOSPC: 'the disk is full',
  SQLITE_BUSY: 'locked by another program',
  SQLITE_READONLY: 'read-only',
  SQLITE_IOERR: 'the disk fails (input/output error)',
  EROFS: 'on a read-only file system',
  EACCES: 'access denied',
  SQLITE_CANTOPEN: 'cannot be opened',
  SQLITE_CORRUPT: 'corrupt: restore a backup',
  SQLITE_NOTADB: 'not a database: restore a backup, or move it away to begin anew',
};
