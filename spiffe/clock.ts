/** The one file that reads the wall clock. Everything that needs the time, or waits, takes a Clock. */
import { setTimeout as sleep } from 'node:timers/promises';

export interface Clock {
  /** Milliseconds since 1970. May jump. */
  now(): number;
  /** Milliseconds from an arbitrary start; never runs back. For ages and durations. */
  monotonic(): number;
  /** Waits; throws the signal's reason (inside Node's AbortError) when it aborts. Does not keep the process alive when `ref` is false. */
  sleep(ms: number, signal?: AbortSignal, options?: { ref?: boolean }): Promise<void>;
}

/** setTimeout's limit: longer waits are made of several. */
const LONGEST_MS = 2_147_483_647;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sleep(ms, signal, options) {
    for (let left = Math.max(0, ms); ; left -= LONGEST_MS) {
      await sleep(Math.min(left, LONGEST_MS), undefined, { ...(signal && { signal }), ref: options?.ref ?? true });
      if (left <= LONGEST_MS) return;
    }
  },
};
