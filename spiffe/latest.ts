/** A value that changes: a reader sees the newest and may skip older ones, so no queue grows and none blocks. */

export class Latest<T> {
  #value: T;
  #version = 0;
  #wake = new Set<() => void>();

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  set(value: T): void {
    this.#value = value;
    this.#version++;
    for (const wake of this.#wake) wake();
  }

  /** The value now, then each newer one, until the signal aborts: then it throws the signal's reason. */
  async *changes(signal: AbortSignal): AsyncGenerator<T, never, void> {
    for (let seen = -1; ; ) {
      signal.throwIfAborted();
      if (seen === this.#version) {
        await this.#changed(signal);
      } else {
        seen = this.#version;
        yield this.#value;
      }
    }
  }

  #changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#wake.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#wake.add(done);
      signal.addEventListener('abort', done);
    });
  }
}
