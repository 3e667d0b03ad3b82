/** What a daemon is given by whoever starts it. */
import type { Clock } from '../spiffe/clock.ts';
import type { Latest } from '../spiffe/latest.ts';
import type { AdjustableLog } from './log-output.ts';
import type { ReadyPlugin } from './plugin/ready.ts';

export interface ProgramParts {
  readonly plugins: readonly ReadyPlugin[];
  readonly log: AdjustableLog;
  readonly clock: Clock;
  /** Aborts: finish what was begun, then end. */
  readonly signal: AbortSignal;
  /** Counts the wishes to read plugins' files again. */
  readonly reloads: Latest<number>;
  readonly version: string;
}
