/** For things worth a line of the log the first time, and not each of ten thousand times. */
import type { Clock } from '../spiffe/clock.ts';

/** Subjects remembered; beyond it nothing new is said until the interval has passed. */
const MAX_SUBJECTS = 1_000;

export class Seldom {
  readonly #clock: Clock;
  readonly #everyMs: number;
  readonly #atOnce: number;
  #said = new Map<string, number>();
  #sinceMs = 0;

  /** @param atOnce how often in all within one interval */
  constructor(clock: Clock, { everyMs, atOnce }: { readonly everyMs: number; readonly atOnce: number }) {
    this.#clock = clock;
    this.#everyMs = everyMs;
    this.#atOnce = atOnce;
  }

  /** Undefined: not now. Else how often it was held back since it was said last. */
  heldBack(subject: string): number | undefined {
    const now = this.#clock.monotonic();
    if (now - this.#sinceMs >= this.#everyMs) {
      const before = this.#said;
      this.#said = new Map();
      this.#sinceMs = now;
      const count = before.get(subject) ?? 0;
      this.#said.set(subject, 0);
      return Math.max(0, count);
    }
    const count = this.#said.get(subject);
    if (count !== undefined) {
      this.#said.set(subject, count + 1);
      return undefined;
    }
    if (this.#said.size >= Math.min(this.#atOnce, MAX_SUBJECTS)) return undefined;
    this.#said.set(subject, 0);
    return 0;
  }
}
