/** What a source holds: the newest good value, or why there is none; with those who wait for it, follow it, and are called when it changes. */
import { type Clock, systemClock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';

/** Longer than anybody waits. */
const FOR_EVER_MS = 2 ** 40;

export class Held<T> {
  readonly #what: () => string;
  readonly #clock: Clock;
  readonly #lack: (value: T) => unknown;
  readonly #listeners = new Set<() => void>();
  #value: { readonly value: T } | undefined;
  /** The newest failure since the last good value. */
  #fault: unknown;
  #end: SpiffeError | undefined;

  /**
   * @param what names what is waited for, and from whom; asked when somebody has waited in vain
   * @param lack tells why a good value is of no use yet, so that `ready` waits for the next one; undefined when it is of use
   */
  constructor(what: () => string, clock: Clock = systemClock, lack: (value: T) => unknown = () => undefined) {
    this.#what = what;
    this.#clock = clock;
    this.#lack = lack;
  }

  /** Throws why there is none: what took it away, or UNAVAILABLE while it has not come yet; CLOSED after `end`. */
  get value(): T {
    if (this.#end) throw this.#end;
    if (this.#value) return this.#value.value;
    throw this.#missing();
  }

  /** Undefined while there is none; throws CLOSED after `end`. */
  get newest(): T | undefined {
    if (this.#end) throw this.#end;
    return this.#value?.value;
  }

  /** Nothing comes any more. */
  get ended(): boolean {
    return this.#end !== undefined;
  }

  /** What is missing, and the newest failure; undefined when there is a value that is of use. */
  get waitingFor(): string | undefined {
    if (this.#end) return this.#end.message;
    return this.#isReady() ? undefined : this.#missing().message;
  }

  set(value: T): void {
    if (this.#end) return;
    this.#value = { value };
    this.#fault = undefined;
    this.#tell();
  }

  /** The value stays; who waits for one will hear of this. */
  fail(error: unknown): void {
    this.#fault = error;
  }

  /** The value was taken back, or is not to be used any more. */
  forget(error: unknown): void {
    this.#fault = error;
    const had = this.#value !== undefined;
    this.#value = undefined;
    if (had) this.#tell();
  }

  /** Nothing comes any more. The first reason stays. */
  end(error: SpiffeError): void {
    if (this.#end) return;
    this.#end = error;
    this.#value = undefined;
    this.#tell();
  }

  /** Called right after each change; gives what takes it back. What it throws is dropped: a listener is no gate. */
  onChange(listener: () => void): () => void {
    const own = () => listener();
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  /**
   * Resolves when there is a value that is of use; keeps the process alive until then. When the signal aborts it throws what is waited for, with the code of the newest
   * failure (UNAVAILABLE if there was none) and the signal's reason as cause. Throws at once what is final.
   */
  async ready(signal?: AbortSignal): Promise<void> {
    const stop = new AbortController();
    void this.#clock.sleep(FOR_EVER_MS, stop.signal).catch(() => {});
    try {
      for (;;) {
        if (this.#end) throw this.#end;
        if (this.#isReady()) return;
        if (signal?.aborted) throw this.#missing(signal.reason);
        await this.#changed(signal);
      }
    } finally {
      stop.abort();
    }
  }

  /** The value now, if there is one, then each newer one; ends when the source does, and throws the signal's reason when that aborts. */
  async *changes(signal?: AbortSignal): AsyncGenerator<T, void, void> {
    let seen: { readonly value: T } | undefined;
    while (!this.#end) {
      signal?.throwIfAborted();
      if (this.#value && this.#value !== seen) {
        seen = this.#value;
        yield seen.value;
      } else {
        await this.#changed(signal);
      }
    }
  }

  #isReady(): boolean {
    return this.#value !== undefined && this.#lack(this.#value.value) === undefined;
  }

  #missing(cause?: unknown): SpiffeError {
    // the newest failure says more than what an older answer lacks
    const fault = this.#fault ?? (this.#value && this.#lack(this.#value.value));
    const words = fault instanceof Error ? `: ${fault.message}` : '';
    return new SpiffeError(
      fault instanceof SpiffeError ? fault.code : 'UNAVAILABLE',
      fault instanceof SpiffeError ? fault.reason : undefined,
      `${this.#what()}${words}`,
      { cause: cause ?? fault },
    );
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener();
      } catch {
        // the others are to hear of it too
      }
    }
  }

  #changed(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        off();
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const off = this.onChange(done);
      signal?.addEventListener('abort', done, { once: true });
    });
  }
}
