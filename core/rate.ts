/** So many a second for each party: who is early waits a little, who goes on is refused, and who does not stop is told apart. */
import type { Clock } from '../spiffe/clock.ts';
import { fail } from './errors.ts';

/** Nobody waits longer than this: beyond it he is refused. */
const LONGEST_WAIT_MS = 1_000;
/** How often buckets that are full again are forgotten. */
const SWEEP_MS = 60_000;

interface Bucket {
  /** What is left at `atMs`; below zero: promised to those who wait. */
  left: number;
  atMs: number;
}

/** Buckets that hold one second's worth, one for each party. 0 a second: no limit. */
export class Rate {
  readonly perSecond: number;
  readonly #clock: Clock;
  readonly #buckets = new Map<string, Bucket>();
  #sweptAtMs = 0;

  constructor(perSecond: number, clock: Clock) {
    this.perSecond = perSecond;
    this.#clock = clock;
  }

  /** Undefined when it may go on at once, else the wait in milliseconds. Throws RESOURCE_EXHAUSTED when that would be longer than a second. */
  take(party: string, count = 1): number | undefined {
    const { perSecond } = this;
    if (perSecond === 0) return undefined;
    const bucket = this.#at(party);
    if (bucket.left - count < -(perSecond * LONGEST_WAIT_MS) / 1000)
      throw fail('RESOURCE_EXHAUSTED', `more than ${perSecond} a second of one caller`);
    bucket.left -= count;
    return bucket.left >= 0 ? undefined : (-bucket.left / perSecond) * 1000;
  }

  /** Resolves when `count` may go on, however long that takes. Throws the signal's reason; what was promised is given back then. */
  async wait(party: string, count: number, signal: AbortSignal): Promise<void> {
    const { perSecond } = this;
    if (perSecond === 0) return;
    const bucket = this.#at(party);
    bucket.left -= count;
    if (bucket.left >= 0) return;
    try {
      await this.#clock.sleep((-bucket.left / perSecond) * 1000, signal, { ref: false });
    } catch (error) {
      bucket.left += count;
      signal.throwIfAborted();
      throw error;
    }
  }

  /** Parties that were here lately. */
  get size(): number {
    return this.#buckets.size;
  }

  #at(party: string): Bucket {
    const now = this.#clock.monotonic();
    this.#sweep(now);
    let bucket = this.#buckets.get(party);
    if (!bucket) {
      bucket = { left: this.perSecond, atMs: now };
      this.#buckets.set(party, bucket);
    }
    bucket.left = this.#leftAt(bucket, now);
    bucket.atMs = now;
    return bucket;
  }

  #leftAt({ left, atMs }: Bucket, now: number): number {
    return Math.min(this.perSecond, left + ((now - atMs) / 1000) * this.perSecond);
  }

  #sweep(now: number): void {
    if (now - this.#sweptAtMs < SWEEP_MS) return;
    this.#sweptAtMs = now;
    for (const [party, bucket] of this.#buckets) if (this.#leftAt(bucket, now) === this.perSecond) this.#buckets.delete(party);
  }
}
