/** Turns at the one thread that all callers share: when many want it at once, parties take turns, however much each of them wants. */

export class Turns {
  readonly #atOnce: number;
  readonly #waiting = new Map<string, (() => void)[]>();
  #taken = 0;
  #armed = false;

  /** @param atOnce begun in one turn of the event loop; the next turn reads from the sockets first */
  constructor(atOnce = 32) {
    this.#atOnce = atOnce;
  }

  /** Undefined: now. Else it resolves when it is this party's turn. */
  take(party: string): Promise<void> | undefined {
    this.#arm();
    if (this.#waiting.size === 0 && this.#taken < this.#atOnce) {
      this.#taken++;
      return undefined;
    }
    return new Promise((resolve) => {
      const queue = this.#waiting.get(party);
      if (queue) queue.push(resolve);
      else this.#waiting.set(party, [resolve]);
    });
  }

  #arm(): void {
    if (this.#armed) return;
    this.#armed = true;
    setImmediate(() => this.#turn());
  }

  #turn(): void {
    this.#armed = false;
    this.#taken = 0;
    while (this.#taken < this.#atOnce) {
      const [first] = this.#waiting;
      if (!first) return;
      const [party, queue] = first;
      this.#taken++;
      queue.shift()?.();
      // to the end of the line
      this.#waiting.delete(party);
      if (queue.length > 0) this.#waiting.set(party, queue);
    }
    if (this.#waiting.size > 0) this.#arm();
  }
}
