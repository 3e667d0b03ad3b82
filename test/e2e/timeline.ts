/** What has happened so far, in order, and a way to wait for what has not happened yet: no sleep stands in for an event. */

export class Timeline<T> {
  readonly items: T[] = [];
  readonly #wake = new Set<() => void>();
  #ended: string | undefined;

  push(item: T): void {
    this.items.push(item);
    for (const wake of this.#wake) wake();
  }

  /** Nothing more will happen: who still waits is told why. */
  end(why: string): void {
    this.#ended ??= why;
    for (const wake of this.#wake) wake();
  }

  get length(): number {
    return this.items.length;
  }

  /**
   * The first item at or after `from` (default: the first of all) that satisfies `wanted`; waits for it at most `withinMs` (default 20 s).
   * Throws with `what` and the last items when the time is over or it has ended without it.
   */
  async find(wanted: (item: T) => boolean, options: { what?: string; from?: number; withinMs?: number } = {}): Promise<T> {
    const { what = String(wanted), withinMs = 20_000 } = options;
    let at = options.from ?? 0;
    let late = false;
    let timer: NodeJS.Timeout | undefined;
    let wake = () => {};
    try {
      for (;;) {
        for (; at < this.items.length; at++) {
          const item = this.items[at] as T;
          if (wanted(item)) return item;
        }
        const why = this.#ended ?? (late ? `not within ${withinMs} ms` : undefined);
        if (why !== undefined) {
          const last = this.items.slice(-15).map((item) => (typeof item === 'string' ? item : JSON.stringify(item).slice(0, 400)));
          throw new Error(`${what}: ${why}; the last of ${this.items.length}:\n${last.join('\n')}`);
        }
        await new Promise<void>((resolve) => {
          this.#wake.delete(wake);
          wake = resolve;
          this.#wake.add(wake);
          timer ??= setTimeout(() => {
            late = true;
            for (const each of this.#wake) each();
          }, withinMs);
        });
      }
    } finally {
      clearTimeout(timer);
      this.#wake.delete(wake);
    }
  }
}
