/** A clock that stands still until a test moves it. */
import type { AlarmClock } from '../../spiffe/clock.ts';

interface Waiter {
  readonly at: number;
  readonly wake: () => void;
}

export class FakeClock implements AlarmClock {
  #now: number;
  #monotonic = 0;
  #waiters: Waiter[] = [];

  /** @param now milliseconds since 1970; default 2026-01-01 */
  constructor(now = Date.UTC(2026, 0, 1)) {
    this.#now = now;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiters.length;
  }

  /** Moves the wall clock alone, as an operator or NTP does. */
  jump(ms: number): void {
    this.#now += ms;
  }

  /** Lets `ms` pass: whoever waits wakes in order, and what follows from it happens before the next one wakes. */
  async advance(ms: number): Promise<void> {
    const end = this.#monotonic + ms;
    await settle();
    for (;;) {
      const next = this.#waiters.filter((waiter) => waiter.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.#move(Math.max(next.at, this.#monotonic));
      this.#waiters = this.#waiters.filter((waiter) => waiter !== next);
      next.wake();
      await settle();
    }
    this.#move(end);
    await settle();
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(aborted(signal));
      const abort = () => {
        this.#waiters = this.#waiters.filter((one) => one !== waiter);
        reject(aborted(signal));
      };
      const waiter: Waiter = {
        at: this.#monotonic + Math.max(0, ms),
        wake: () => {
          signal?.removeEventListener('abort', abort);
          resolve();
        },
      };
      this.#waiters.push(waiter);
      signal?.addEventListener('abort', abort, { once: true });
      return undefined;
    });
  }

  after(ms: number, then: () => void): () => void {
    const waiter: Waiter = { at: this.#monotonic + Math.max(0, ms), wake: then };
    this.#waiters.push(waiter);
    return () => void (this.#waiters = this.#waiters.filter((one) => one !== waiter));
  }

  #move(to: number): void {
    this.#now += to - this.#monotonic;
    this.#monotonic = to;
  }
}

/** As Node's timers: an AbortError with the signal's reason as its cause. */
function aborted(signal: AbortSignal | undefined): Error {
  const error = new Error('The operation was aborted', { cause: signal?.reason });
  error.name = 'AbortError';
  return error;
}

/** Lets everything that is ready run. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}
