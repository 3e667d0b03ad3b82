/** The file of intentions of a program that runs: read anew whenever it changes, taken whole or not at all. */
import { stat } from 'node:fs/promises';
import { type Clock, systemClock } from '../spiffe/clock.ts';
import { fail } from './errors.ts';
import type { Intentions } from './intention.ts';
import { readIntentionFile } from './intention-settings.ts';
import { type Log, silent } from './log.ts';

export interface IntentionFileOptions {
  readonly path: string;
  readonly clock?: Clock | undefined;
  /** How often the file is looked at, in milliseconds. Default 1000; 0: only when `reload` asks. */
  readonly pollMs?: number | undefined;
  readonly log?: Log | undefined;
}

const DEFAULT_POLL_MS = 1_000;
/**
 * A changed file is taken when it has not changed any more for so long: written in place, it is shorter for a while than it will be, and what is there of it may
 * well be read, without the intentions that forbid.
 */
const QUIET_MS = 200;
/** Of a read that was asked for: it waits for a file that is being written, but not for ever. */
const TRIES = 5;

/**
 * Looks at the file itself, not at events: those are lost behind the symlinks that atomic swaps are made of. What can't be read leaves the intentions that were
 * read before in force, and `fault` says why. Who opens it closes it.
 */
export class IntentionFile {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #stop = new AbortController();
  readonly #listeners = new Set<() => void>();
  #intentions: Intentions;
  /** Of the file that the intentions are from. */
  #taken: string;
  #refused: { readonly state: string | undefined; readonly error: Error } | undefined;
  #running: Promise<void> = Promise.resolve();
  /** One read at a time: newest wins. */
  #reading: Promise<void> = Promise.resolve();

  private constructor({ path, clock = systemClock, log = silent }: IntentionFileOptions, intentions: Intentions, state: string) {
    this.#path = path;
    this.#clock = clock;
    this.#log = log;
    this.#intentions = intentions;
    this.#taken = state;
  }

  /** Throws SETTINGS_INVALID with every fault, each with its place, when the file can't be read now. */
  static async open(options: IntentionFileOptions): Promise<IntentionFile> {
    const { path, clock = systemClock, pollMs = DEFAULT_POLL_MS } = options;
    const { intentions, state } = await readQuiet(path, clock);
    const file = new IntentionFile(options, intentions, state);
    if (pollMs > 0) file.#running = file.#run(pollMs);
    return file;
  }

  /** The newest that could be read. */
  get intentions(): Intentions {
    return this.#intentions;
  }

  /** Why what is in the file now is not what is in force; undefined when it is. */
  get fault(): Error | undefined {
    return this.#refused?.error;
  }

  /** Called right after intentions that decide otherwise are in force; gives what takes it back. What it throws is dropped: a listener is no gate. */
  onChange(listener: () => void): () => void {
    const own = () => listener();
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  /** Reads the file now. Never rejects: `fault` says what is wrong with it, and who asks tells it. */
  reload(): Promise<void> {
    return this.#alone(async () => {
      let state: string | undefined;
      try {
        state = await stateOf(this.#path);
        const read = await readQuiet(this.#path, this.#clock, this.#stop.signal);
        this.#take(read.intentions, read.state);
      } catch (error) {
        this.#refuse(state, error);
      }
    });
  }

  /** The intentions stay as they are. */
  async close(): Promise<void> {
    this.#stop.abort(new Error('the file of intentions is closed'));
    this.#listeners.clear();
    await Promise.all([this.#running, this.#reading]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run(pollMs: number): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      // ends only because it was told to
      await this.#clock.sleep(pollMs, signal, { ref: false }).catch(() => {});
      await this.#alone(() => this.#look(Math.min(QUIET_MS, pollMs)));
    }
  }

  /** Reads a file that has changed, once it has stopped changing. */
  async #look(quietMs: number): Promise<void> {
    let state: string | undefined;
    try {
      state = await stateOf(this.#path);
      if (state === this.#taken) this.#refused = undefined;
      if (state === this.#taken || state === this.#refused?.state) return;
      await this.#clock.sleep(quietMs, this.#stop.signal, { ref: false });
      const intentions = await readIf(this.#path, state);
      if (intentions) this.#take(intentions, state);
      // it is looked at again
      else this.#refuse(undefined, beingWritten(this.#path));
    } catch (error) {
      const told = this.#refused?.error.message;
      this.#refuse(state, error);
      const fault = this.#refused?.error;
      if (fault && fault.message !== told)
        this.#log.error('intentions refused: those that were read before stay in force', { path: this.#path, error: fault });
    }
  }

  #take(intentions: Intentions, state: string): void {
    if (this.#stop.signal.aborted) return;
    const changed = intentions.version !== this.#intentions.version;
    this.#intentions = intentions;
    this.#taken = state;
    this.#refused = undefined;
    if (!changed) return;
    this.#log.info('intentions read', { path: this.#path, version: intentions.version, count: intentions.rules.length });
    for (const listener of [...this.#listeners]) {
      try {
        listener();
      } catch {
        // the others are to hear of it too
      }
    }
  }

  #refuse(state: string | undefined, error: unknown): void {
    if (this.#stop.signal.aborted) return;
    this.#refused = { state, error: error instanceof Error ? error : new Error(String(error)) };
  }

  #alone(read: () => Promise<void>): Promise<void> {
    return (this.#reading = this.#reading.then(async () => {
      if (!this.#stop.signal.aborted) await read();
    }));
  }
}

/** Throws what is wrong with the file; also that somebody writes it all the time. */
async function readQuiet(
  path: string,
  clock: Clock,
  signal?: AbortSignal,
): Promise<{ readonly intentions: Intentions; readonly state: string }> {
  for (let tries = 1; tries <= TRIES; tries++) {
    if (tries > 1) await clock.sleep(QUIET_MS, signal);
    const state = await stateOf(path);
    const intentions = await readIf(path, state);
    if (intentions) return { intentions, state };
  }
  throw beingWritten(path);
}

/** Undefined when the file has changed since it was in this state, even while it was read: then it says nothing, good or bad. */
async function readIf(path: string, state: string): Promise<Intentions | undefined> {
  const read = await readIntentionFile(path).then(
    ({ intentions }) => ({ intentions }),
    (error: unknown) => ({ error }),
  );
  if ((await stateOf(path)) !== state) return undefined;
  if ('error' in read) throw read.error;
  return read.intentions;
}

function beingWritten(path: string): Error {
  return fail('SETTINGS_INVALID', `${path}: is being written: write another file, and rename it to this name`);
}

/** Equal while nobody has touched or swapped the file. */
async function stateOf(path: string): Promise<string> {
  let found: Awaited<ReturnType<typeof bigStat>>;
  try {
    found = await bigStat(path);
  } catch (error) {
    throw fail('SETTINGS_INVALID', `intentions: ${(error as Error).message}`, { cause: error });
  }
  // reading from a pipe might never end
  if (!found.isFile()) throw fail('SETTINGS_INVALID', `intentions: ${path} is no file`);
  const { dev, ino, size, mtimeNs, ctimeNs } = found;
  return [dev, ino, size, mtimeNs, ctimeNs].join();
}

function bigStat(path: string) {
  return stat(path, { bigint: true });
}
