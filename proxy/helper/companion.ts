/** The program beside us (`cmd`): started once its files are there, told of new ones, and ended with us. */
import type { Log } from '../../core/log.ts';
import { isStop } from '../../core/tasks.ts';
import type { Clock } from '../../spiffe/clock.ts';
import { Latest } from '../../spiffe/latest.ts';
import type { Change } from './keeper.ts';
import { type End, type Environment, environmentOf, start, type Started, stop } from './program.ts';
import type { Kind } from './settings.ts';

export interface CompanionSettings {
  readonly command: readonly string[];
  readonly renewSignal: NodeJS.Signals | undefined;
  readonly renewOn: readonly Kind[];
  /** After its end: wait for the next renewal, start it anew, or end with it. */
  readonly onExit: 'oneshot' | 'restart' | 'exit';
  readonly restartDelayMs: number;
  /** How long it may take to end when we end, before it is killed. */
  readonly stopMs: number;
}

export interface CompanionParts {
  readonly log: Log;
  readonly clock: Clock;
  readonly env: Environment;
  /** What ended us: it ends the program too. */
  readonly stopSignal: () => NodeJS.Signals;
}

export class Companion {
  readonly #settings: CompanionSettings;
  readonly #parts: CompanionParts;
  /** Counts renewals that it should hear of; 0 until the first complete set of files. */
  readonly #renewals = new Latest(0);
  #change: Change | undefined;
  #running: Started | undefined;
  #delivered = 0;

  constructor(settings: CompanionSettings, parts: CompanionParts) {
    this.#settings = settings;
    this.#parts = parts;
  }

  /** Undefined while it does not run. */
  get pid(): number | undefined {
    return this.#running?.child.pid;
  }

  /** Its files are all there: from now on it may run. */
  begin(): void {
    if (this.#renewals.value === 0) this.#renewals.set(1);
  }

  hear(change: Change): void {
    if (change.event !== 'renewed' || !this.#settings.renewOn.includes(change.kind)) return;
    this.#change = change;
    if (this.#renewals.value > 0) this.#renewals.set(this.#renewals.value + 1);
  }

  /** Hands a signal on. */
  signal(name: NodeJS.Signals): void {
    this.#running?.child.kill(name);
  }

  /** Ends with the signal's reason after the program has ended; with `exit`, gives the end that the program chose itself. */
  async run(signal: AbortSignal): Promise<End> {
    const { onExit, restartDelayMs, stopMs, command } = this.#settings;
    const { clock, env, stopSignal } = this.#parts;
    try {
      for await (const renewals of this.#renewals.changes(signal)) {
        if (renewals === this.#delivered) continue;
        this.#delivered = renewals;
        if (this.#running) {
          this.#tell();
          continue;
        }
        for (;;) {
          const started = await this.#start(command, environmentOf(env, this.#change ? [this.#change] : []));
          if (!started) {
            if (onExit === 'exit') return NOT_STARTED;
          } else if (onExit === 'oneshot') {
            void this.#watch(started);
            break;
          } else {
            const end = await this.#follow(started, signal);
            if (onExit === 'exit') return end;
          }
          if (onExit === 'oneshot') break;
          await clock.sleep(restartDelayMs, signal);
        }
      }
      throw signal.reason;
    } catch (error) {
      if (!isStop(error, signal)) throw error;
      if (!this.#running) throw error;
      const end = await stop(this.#running, false, stopMs, clock, stopSignal());
      // a wrapper is as good as what it wraps: its code is ours
      if (onExit === 'exit') return end;
      throw error;
    }
  }

  async #start(command: readonly string[], env: Environment): Promise<Started | undefined> {
    const { log } = this.#parts;
    try {
      this.#running = await start(command, env, false);
      log.info('Command started', { pid: this.#running.child.pid ?? 0 });
      return this.#running;
    } catch (error) {
      log.error('Command could not be started', { path: command[0] ?? '', error });
      return undefined;
    }
  }

  #tell(): void {
    const { renewSignal } = this.#settings;
    if (renewSignal === undefined) return;
    this.signal(renewSignal);
    this.#parts.log.debug('Command signalled', { pid: this.pid ?? 0 });
  }

  async #watch(started: Started): Promise<End> {
    const end = await started.ended;
    this.#running = undefined;
    this.#parts.log.info('Command ended', { pid: started.child.pid ?? 0, exit: end.signal ?? `code ${end.code}` });
    return end;
  }

  /** Waits for its end, and tells it of renewals meanwhile. Throws the signal's reason when that aborts; the program runs on then. */
  async #follow(started: Started, signal: AbortSignal): Promise<End> {
    const ended = this.#watch(started);
    const over = new AbortController();
    const either = AbortSignal.any([signal, over.signal]);
    const telling = (async () => {
      for await (const renewals of this.#renewals.changes(either)) {
        if (renewals === this.#delivered) continue;
        this.#delivered = renewals;
        this.#tell();
      }
    })().catch(() => {});
    await Promise.race([ended, telling]);
    over.abort();
    await telling;
    signal.throwIfAborted();
    return await ended;
  }
}

/** As a shell has it for a command that can't be run. */
const NOT_STARTED: End = { code: 127, signal: null };
