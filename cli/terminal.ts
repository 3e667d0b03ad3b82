/** What a command has to do with the outside: where it writes, what it reads, the environment. Tests lend their own. */
import type { AlarmClock } from '../spiffe/clock.ts';

export interface Terminal {
  /** Data. */
  out(text: string): void;
  /** Words. */
  err(text: string): void;
  /** All of standard input. */
  input(): Promise<Buffer>;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: AlarmClock;
  /** Aborts when the user ends the command (SIGINT, SIGTERM). */
  readonly signal: AbortSignal;
}
