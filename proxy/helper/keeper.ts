/** Keeps the files of one output: takes what comes, newest wins, writes it, tries again when it can't, and tells those who follow. */
import { join } from 'node:path';
import type { Log } from '../../core/log.ts';
import type { Clock } from '../../spiffe/clock.ts';
import { SpiffeError } from '../../spiffe/errors.ts';
import { Latest } from '../../spiffe/latest.ts';
import { type FileContent, type Place, removeLeftovers, writeFiles } from './files.ts';
import type { Kind } from './settings.ts';
import type { Status } from './status.ts';

/** What to write, made when it is written: what has ended by then is not. */
export interface Offer {
  readonly spiffeId: string | undefined;
  /** Undefined: for ever. */
  readonly expiresMs: number | undefined;
  readonly lifetimeMs: number | undefined;
  /** Throws why these files would be worse than what is there. */
  files(nowMs: number): readonly FileContent[];
}

/** An output has new files, or its files are about to end. */
export interface Change {
  readonly event: 'renewed' | 'expiring';
  readonly output: string;
  readonly kind: Kind;
  readonly directory: string;
  /** Absolute or as the settings have the directory. */
  readonly paths: readonly string[];
  readonly spiffeId: string | undefined;
  readonly expiresMs: number | undefined;
}

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 10_000;

export class Keeper {
  readonly name: string;
  readonly kind: Kind;
  readonly #place: Place;
  readonly #status: Status;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #tell: (change: Change) => void;
  readonly #offers = new Latest<Offer | undefined>(undefined);
  #last: Change | undefined;
  /** Who follows must be told even if nothing is to be written: whoever wrote it may have died before telling. */
  #owed = true;

  constructor(
    place: Place,
    kind: Kind,
    parts: { readonly status: Status; readonly log: Log; readonly clock: Clock; readonly tell: (change: Change) => void },
  ) {
    this.name = place.name;
    this.kind = kind;
    this.#place = place;
    this.#status = parts.status;
    this.#log = parts.log;
    this.#clock = parts.clock;
    this.#tell = parts.tell;
  }

  offer(offer: Offer): void {
    this.#offers.set(offer);
  }

  /** There is nothing to offer, and why. What was written stays. */
  lack(error: unknown): void {
    const status = this.#status.of(this.name);
    const code = error instanceof SpiffeError ? error.code : 'INTERNAL';
    const why = error instanceof Error ? error.message : String(error);
    // each reason once: who waits asks often
    if (status.lack?.code !== code || status.lack?.why !== why) this.#log.warn('No newer files', { output: this.name, error });
    status.lack = { code, why };
    this.#status.changed();
  }

  /** The files of now end soon: those who asked to are told. */
  expiring(): void {
    if (this.#last) this.#tell({ ...this.#last, event: 'expiring' });
  }

  async run(signal: AbortSignal): Promise<void> {
    await removeLeftovers(this.#place);
    for await (const offer of this.#offers.changes(signal)) {
      if (!offer) continue;
      for (let failures = 0; this.#offers.value === offer && !(await this.#write(offer)); failures++)
        await this.#clock.sleep(Math.min(FIRST_RETRY_MS * 2 ** failures, LONGEST_RETRY_MS), signal);
    }
  }

  /** False: it could not be written, and should be tried again. */
  async #write(offer: Offer): Promise<boolean> {
    const status = this.#status.of(this.name);
    let files: readonly FileContent[];
    try {
      files = offer.files(this.#clock.now());
    } catch (error) {
      status.refusals++;
      this.lack(error);
      return true;
    }
    let changed: boolean;
    try {
      changed = await writeFiles(this.#place, files);
    } catch (error) {
      this.#owed = true;
      status.state = 'failed';
      status.failures++;
      status.lack = { code: 'STORE_FAILED', why: (error as Error).message };
      this.#log.error('Files not written', { output: this.name, error });
      this.#status.changed();
      return false;
    }
    const { expiresMs, lifetimeMs, spiffeId } = offer;
    if (changed) status.writes++;
    Object.assign(status, { state: 'written', lack: undefined, writtenMs: this.#clock.now(), expiresMs, lifetimeMs });
    const { name: output, directory } = this.#place;
    this.#last = {
      event: 'renewed',
      output,
      kind: this.kind,
      directory,
      paths: files.map((file) => join(directory, file.name)),
      spiffeId,
      expiresMs,
    };
    const end = expiresMs === undefined ? {} : { expires_at: new Date(expiresMs) };
    if (changed)
      this.#log.info('Files written', { output, path: directory, ...(spiffeId !== undefined && { spiffe_id: spiffeId }), ...end });
    // what waits for the first complete set hears of it before what follows each change
    this.#status.changed();
    if (changed || this.#owed) this.#tell(this.#last);
    this.#owed = false;
    return true;
  }
}
