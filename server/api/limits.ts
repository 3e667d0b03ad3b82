/** SPIRE's rate limits: a bucket per address and kind of call; who is early waits, who asks for more than a bucket holds is refused. */
import { fail } from '../../core/errors.ts';
import type { Clock } from '../../spiffe/clock.ts';
import type { Limit } from './policy.ts';

/** Calls a second, and at once. */
const RATE: Readonly<Record<Limit, number>> = { attestation: 1, csr: 500, jwt: 500, 'push-key': 500, 'post-status': 10 };
/** How often buckets that are full again are forgotten. */
const SWEEP_MS = 60_000;

interface Bucket {
  readonly rate: number;
  /** Tokens at `atMs`; below zero: promised to those who wait. */
  tokens: number;
  atMs: number;
}

export interface LimitSettings {
  readonly attestation: boolean;
  readonly signing: boolean;
}

export class Limits {
  readonly #settings: LimitSettings;
  readonly #clock: Clock;
  readonly #buckets = new Map<string, Bucket>();
  #sweptAtMs = 0;

  constructor(settings: LimitSettings, clock: Clock) {
    this.#settings = settings;
    this.#clock = clock;
  }

  /** Resolves when `count` calls of this kind may go on. Throws RESOURCE_EXHAUSTED for more at once than the bucket holds, and the signal's reason. */
  async take(limit: Limit, address: string, count: number, signal: AbortSignal): Promise<void> {
    if (limit === 'attestation' && !this.#settings.attestation) return;
    if ((limit === 'csr' || limit === 'jwt') && !this.#settings.signing) return;
    const rate = RATE[limit];
    if (count > rate) throw fail('RESOURCE_EXHAUSTED', `rate (${count}) exceeds burst size (${rate})`);
    const now = this.#clock.monotonic();
    this.#sweep(now);
    const key = `${limit} ${address}`;
    const bucket = this.#buckets.get(key) ?? { rate, tokens: rate, atMs: now };
    bucket.tokens = tokensAt(bucket, now) - count;
    bucket.atMs = now;
    this.#buckets.set(key, bucket);
    if (bucket.tokens >= 0) return;
    try {
      await this.#clock.sleep((-bucket.tokens / rate) * 1000, signal);
    } catch (error) {
      bucket.tokens += count;
      signal.throwIfAborted();
      throw error;
    }
  }

  /** Buckets kept: one per kind and address that was here lately. */
  get size(): number {
    return this.#buckets.size;
  }

  #sweep(now: number): void {
    if (now - this.#sweptAtMs < SWEEP_MS) return;
    this.#sweptAtMs = now;
    for (const [key, bucket] of this.#buckets) if (tokensAt(bucket, now) === bucket.rate) this.#buckets.delete(key);
  }
}

function tokensAt({ rate, tokens, atMs }: Bucket, now: number): number {
  return Math.min(rate, tokens + ((now - atMs) / 1000) * rate);
}
