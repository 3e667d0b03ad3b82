/** Follows a stream for ever: opens it, hands on the newest of what it yields, and opens it anew when it ends. */
import { type Clock, systemClock } from './clock.ts';
import { SpiffeError } from './errors.ts';

export interface WatchOptions {
  /** Ends the watch: it throws the signal's reason. */
  readonly signal: AbortSignal;
  readonly clock?: Clock | undefined;
  /** Wait before try n (n = 1 after the first failure, and again after each value), in milliseconds. Default: `linearBackoff()`. */
  readonly delayMs?: ((n: number) => number) | undefined;
  /** Told of each end of the stream, also while the reader is busy: a source hears DENIED here and forgets what was taken back. If it throws, the watch ends with that. */
  readonly onError?: ((error: unknown) => void) | undefined;
  /** Whether the process stays alive while this waits to try again. Default true. */
  readonly ref?: boolean | undefined;
}

/** As go-spiffe: about n seconds, 30 at the most. Spread over a second, so that those who lost the same server don't all come back at once. */
export function linearBackoff(random: () => number = Math.random): (n: number) => number {
  return (n) => (Math.min(n, 29) + random()) * 1000;
}

/**
 * Yields the newest value; a reader who was busy gets no older one. An answer that would be the same next time is final and is thrown: REQUEST_INVALID
 * (WE-22) and UNIMPLEMENTED (WE-27). Everything else, the stream's quiet end too, is told to `onError` and tried again.
 * @param open is to end when its signal aborts; that happens when the reader leaves, and when `signal` aborts.
 */
export async function* watch<T>(open: (signal: AbortSignal) => AsyncIterable<T>, options: WatchOptions): AsyncGenerator<T, never, void> {
  options.signal.throwIfAborted();
  const left = new AbortController();
  const signal = AbortSignal.any([options.signal, left.signal]);
  const slot = new Slot<T>();
  const stop = () => slot.fail(signal.reason);
  signal.addEventListener('abort', stop, { once: true });
  void follow(open, { ...options, signal }, slot).catch((error: unknown) => slot.fail(error));
  try {
    for (;;) yield await slot.take();
  } finally {
    signal.removeEventListener('abort', stop);
    left.abort();
  }
}

async function follow<T>(open: (signal: AbortSignal) => AsyncIterable<T>, options: WatchOptions, slot: Slot<T>): Promise<never> {
  const { signal, clock = systemClock, delayMs = linearBackoff(), onError, ref = true } = options;
  for (let failures = 0; ; ) {
    let end: unknown;
    try {
      for await (const value of open(signal)) {
        signal.throwIfAborted();
        failures = 0;
        slot.put(value);
      }
      end = new SpiffeError('UNAVAILABLE', undefined, 'the server ended the stream');
    } catch (error) {
      end = error;
    }
    signal.throwIfAborted();
    if (isFinal(end)) throw end;
    onError?.(end);
    await clock.sleep(delayMs(++failures), signal, { ref });
  }
}

function isFinal(error: unknown): boolean {
  return error instanceof SpiffeError && (error.code === 'REQUEST_INVALID' || error.code === 'UNIMPLEMENTED');
}

/** Holds one value, the newest, until it is taken; or why there will be none. */
class Slot<T> {
  #value: { readonly value: T } | undefined;
  #failure: { readonly reason: unknown } | undefined;
  #wake: (() => void) | undefined;

  put(value: T): void {
    this.#value = { value };
    this.#wake?.();
  }

  /** The first reason stays. What was not taken is forgotten with it. */
  fail(reason: unknown): void {
    this.#failure ??= { reason };
    this.#wake?.();
  }

  /** For one reader. */
  async take(): Promise<T> {
    for (;;) {
      if (this.#failure) throw this.#failure.reason;
      if (this.#value) {
        const { value } = this.#value;
        this.#value = undefined;
        return value;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
