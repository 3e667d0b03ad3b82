/** The one file that reads the wall clock. Everything that needs the time, or waits, takes a Clock. */

/** The time, and waiting. Yours, in tests; everything that needs one takes the system's by default. */
export interface Clock {
  /** Milliseconds since 1970. May jump. */
  now(): number;
  /** Milliseconds from an arbitrary start; never runs back. For ages and durations. */
  monotonic(): number;
  /** Waits; throws the signal's reason when it aborts (or an AbortError around it). Does not keep the process alive when `ref` is false. */
  sleep(ms: number, signal?: AbortSignal, options?: { ref?: boolean }): Promise<void>;
}

/** A clock that also calls: where promises would cost too much, as for each connection. */
export interface AlarmClock extends Clock {
  /** Calls `then` once, in `ms`; what it gives calls that off. Keeps the process alive meanwhile. */
  after(ms: number, then: () => void): () => void;
}

/** setTimeout's limit: longer waits are made of several. */
const LONGEST_MS = 2_147_483_647;

export const systemClock: AlarmClock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sleep(ms, signal, options) {
    for (let left = Math.max(0, ms); ; left -= LONGEST_MS) {
      await wait(Math.min(left, LONGEST_MS), signal, options?.ref ?? true);
      if (left <= LONGEST_MS) return;
    }
  },
  after(ms, then) {
    let left = ms;
    let timer: NodeJS.Timeout;
    const wind = () => {
      const part = Math.min(left, LONGEST_MS);
      left -= part;
      timer = setTimeout(left > 0 ? wind : then, part);
    };
    wind();
    return () => clearTimeout(timer);
  },
};

/** As `setTimeout` of node:timers/promises, without the AbortError that it would make, stack and all, for each wait that is called off: most are. */
function wait(ms: number, signal: AbortSignal | undefined, ref: boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, ms);
    if (!ref) timer.unref();
    signal?.addEventListener('abort', abort, { once: true });
    return undefined;
  });
}
