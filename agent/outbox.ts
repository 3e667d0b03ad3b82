/** What one side of a dialogue wants to say, in its order: put in when it is known, taken out by the stream. */

export class Outbox<T> implements AsyncIterable<T> {
  readonly #waiting: T[] = [];
  #wake: (() => void) | undefined;

  put(message: T): void {
    this.#waiting.push(message);
    this.#wake?.();
  }

  /** Never ends by itself: the stream is ended by who reads the answers. */
  async *[Symbol.asyncIterator](): AsyncGenerator<T, never, void> {
    for (;;) {
      const next = this.#waiting.shift();
      if (next !== undefined) {
        yield next;
        continue;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
