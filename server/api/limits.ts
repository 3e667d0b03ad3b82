/** SPIRE's rate limits: a bucket per address and kind of call; who is early waits, who asks for more than a bucket holds is refused. */
import { fail } from '../../core/errors.ts';
import { Rate } from '../../core/rate.ts';
import type { Clock } from '../../spiffe/clock.ts';
import type { Limit } from './policy.ts';

/** Calls a second, and at once. */
const RATE: Readonly<Record<Limit, number>> = { attestation: 1, csr: 500, jwt: 500, 'push-key': 500, 'post-status': 10 };

export interface LimitSettings {
  readonly attestation: boolean;
  readonly signing: boolean;
}

export class Limits {
  readonly #settings: LimitSettings;
  readonly #rates: ReadonlyMap<string, Rate>;

  constructor(settings: LimitSettings, clock: Clock) {
    this.#settings = settings;
    this.#rates = new Map(Object.entries(RATE).map(([limit, perSecond]) => [limit, new Rate(perSecond, clock)]));
  }

  /** Resolves when `count` calls of this kind may go on. Throws RESOURCE_EXHAUSTED for more at once than the bucket holds, and the signal's reason. */
  async take(limit: Limit, address: string, count: number, signal: AbortSignal): Promise<void> {
    if (limit === 'attestation' && !this.#settings.attestation) return;
    if ((limit === 'csr' || limit === 'jwt') && !this.#settings.signing) return;
    const rate = RATE[limit];
    if (count > rate) throw fail('RESOURCE_EXHAUSTED', `rate (${count}) exceeds burst size (${rate})`);
    await this.#rates.get(limit)?.wait(address, count, signal);
  }

  /** Buckets kept: one per kind and address that was here lately. */
  get size(): number {
    return [...this.#rates.values()].reduce((sum, { size }) => sum + size, 0);
  }
}
