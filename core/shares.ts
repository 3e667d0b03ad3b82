/** Something scarce, shared among parties that may be hostile to each other: who takes much can't take what others need. */
import { fail } from './errors.ts';

/** No party holds more than one part in so many. */
const PARTS = 8;
/** One part in so many is kept for parties that hold nothing yet. */
const RESERVED = 4;

interface Waiting {
  readonly amount: number;
  readonly go: () => void;
}

interface Holding {
  held: number;
  readonly waiting: Waiting[];
}

/** Gives back what was taken; a second call does nothing. */
export type Release = () => void;

/**
 * Counts what each party holds of `capacity` (connections, streams, bytes). A party gets an eighth at the most, and what is beyond three quarters only if it
 * holds nothing: eight parties that take all they can still leave room for a ninth.
 */
export class Shares {
  readonly capacity: number;
  /** The most that one party can hold; at least 1. */
  readonly each: number;
  readonly #parties = new Map<string, Holding>();
  /** Those of which somebody waits; the next to be served first. */
  readonly #waiting = new Set<Holding>();
  #total = 0;

  /** @param each what one party may hold, where that is less than an eighth */
  constructor(capacity: number, each = Number.POSITIVE_INFINITY) {
    this.capacity = capacity;
    this.each = Math.max(1, Math.min(each, Math.floor(capacity / PARTS)));
  }

  get total(): number {
    return this.#total;
  }

  held(party: string): number {
    return this.#parties.get(party)?.held ?? 0;
  }

  /** Undefined: the party, or all together, hold too much. A single thing larger than a share counts as the whole share. */
  take(party: string, amount = 1): Release | undefined {
    const wanted = Math.min(amount, this.each);
    const holding = this.#parties.get(party);
    if (holding && holding.waiting.length > 0) return undefined;
    return this.#fits(holding?.held ?? 0, wanted) ? this.#hold(party, wanted) : undefined;
  }

  /** Waits for its turn among what its own party waits for. Rejects with the signal's reason; `maxWaiting` of one party wait, the next gets RESOURCE_EXHAUSTED. */
  wait(party: string, amount: number, signal: AbortSignal, maxWaiting = Number.POSITIVE_INFINITY): Promise<Release> | Release {
    if (signal.aborted) return Promise.reject(signal.reason);
    const now = this.take(party, amount);
    if (now) return now;
    if ((this.#parties.get(party)?.waiting.length ?? 0) >= maxWaiting)
      throw fail('RESOURCE_EXHAUSTED', 'too much under way for this caller');
    const holding = this.#of(party);
    return new Promise((resolve, reject) => {
      const abort = () => {
        holding.waiting.splice(holding.waiting.indexOf(waiting), 1);
        if (holding.waiting.length === 0) this.#waiting.delete(holding);
        this.#forget(party, holding);
        reject(signal.reason);
      };
      const wanted = Math.min(amount, this.each);
      const waiting: Waiting = {
        amount: wanted,
        go: () => {
          signal.removeEventListener('abort', abort);
          resolve(this.#hold(party, wanted));
        },
      };
      holding.waiting.push(waiting);
      this.#waiting.add(holding);
      signal.addEventListener('abort', abort, { once: true });
    });
  }

  #fits(held: number, wanted: number): boolean {
    const limit = held > 0 ? this.capacity - Math.floor(this.capacity / RESERVED) : this.capacity;
    return held + wanted <= this.each && this.#total + wanted <= limit;
  }

  #of(party: string): Holding {
    const known = this.#parties.get(party);
    if (known) return known;
    const holding: Holding = { held: 0, waiting: [] };
    this.#parties.set(party, holding);
    return holding;
  }

  #hold(party: string, amount: number): Release {
    const holding = this.#of(party);
    holding.held += amount;
    this.#total += amount;
    let given = false;
    return () => {
      if (given) return;
      given = true;
      holding.held -= amount;
      this.#total -= amount;
      this.#wake();
      this.#forget(party, holding);
    };
  }

  /** One of each party in turn. */
  #wake(): void {
    for (const holding of [...this.#waiting]) {
      const [first] = holding.waiting;
      if (!first || !this.#fits(holding.held, first.amount)) continue;
      holding.waiting.shift();
      // to the end of the line
      this.#waiting.delete(holding);
      if (holding.waiting.length > 0) this.#waiting.add(holding);
      first.go();
    }
  }

  #forget(party: string, holding: Holding): void {
    if (holding.held === 0 && holding.waiting.length === 0) this.#parties.delete(party);
  }
}
