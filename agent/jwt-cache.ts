/** JWT-SVIDs of workloads: one for each entry and set of audiences, kept until half of their life and, while the server is away, to their end. */
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { Clock } from '../spiffe/clock.ts';
import { parseJwtSvidUnverified } from '../spiffe/jwt/jwt-svid.ts';
import { until } from './attest.ts';
import type { Registration } from './cache.ts';
import { backoffMs } from './renewal.ts';

export interface IssuedJwt {
  readonly token: string;
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
}

export interface JwtCacheOptions {
  /** Asks the server. */
  readonly sign: (entryId: string, audience: readonly string[], signal: AbortSignal) => Promise<IssuedJwt>;
  readonly clock: Clock;
  readonly log: Log;
  /** Hard. */
  readonly maxSize: number;
  /** How long a caller whose token is still good waits for a newer one. */
  readonly hitTimeoutMs: number;
  readonly signal: AbortSignal;
}

interface Kept extends IssuedJwt {
  readonly entryId: string;
  readonly spiffeId: string;
  readonly renewAtMs: number;
  failures: number;
  /** Monotonic; the server is not asked for this one before. */
  againAtMs: number;
}

export class JwtCache {
  readonly #options: JwtCacheOptions;
  /** Least lately used first. */
  readonly #kept = new Map<string, Kept>();
  readonly #asked = new Map<string, Promise<Kept>>();

  constructor(options: JwtCacheOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#kept.size;
  }

  /** A token for these audiences that has not ended. Throws what the server said when there is none. */
  async fetch(registration: Registration, audience: readonly string[], signal: AbortSignal): Promise<string> {
    const { clock, log } = this.#options;
    // every token with a jti is one of its own
    if (registration.jwtSvidIncludeJti) return (await this.#ask(registration, audience, signal)).token;

    const key = JSON.stringify([registration.id, registration.spiffeId.toString(), registration.revision, [...audience].sort()]);
    const kept = this.#get(key);
    if (kept && clock.now() < kept.renewAtMs) return kept.token;
    if (kept && clock.monotonic() < kept.againAtMs) return kept.token;
    const asked = this.#asked.get(key) ?? this.#join(key, registration, audience);
    if (!kept) return (await until(asked, signal)).token;
    try {
      return (await this.#soon(asked, signal)).token;
    } catch (error) {
      signal.throwIfAborted();
      if (kept.expiresAtMs <= clock.now()) throw error;
      log.warn('Unable to renew JWT-SVID; serving the one that is still good', { spiffe_id: kept.spiffeId, error });
      kept.failures++;
      kept.againAtMs = clock.monotonic() + backoffMs(kept.failures, 1_000, 60_000);
      return kept.token;
    }
  }

  /** The entry is gone, or not what it was. */
  forget(entryId: string): void {
    for (const [key, kept] of this.#kept) if (kept.entryId === entryId) this.#kept.delete(key);
  }

  clear(): void {
    this.#kept.clear();
  }

  #get(key: string): Kept | undefined {
    const kept = this.#kept.get(key);
    if (!kept) return undefined;
    this.#kept.delete(key);
    if (kept.expiresAtMs <= this.#options.clock.now()) return undefined;
    this.#kept.set(key, kept);
    return kept;
  }

  /** One question to the server for all who ask the same; it is not given up when one of them goes away. */
  #join(key: string, registration: Registration, audience: readonly string[]): Promise<Kept> {
    const asked = this.#ask(registration, audience, this.#options.signal).then(
      (kept) => {
        this.#asked.delete(key);
        this.#kept.delete(key);
        this.#kept.set(key, kept);
        for (const oldest of this.#kept.keys()) {
          if (this.#kept.size <= this.#options.maxSize) break;
          this.#kept.delete(oldest);
        }
        return kept;
      },
      (error: unknown) => {
        this.#asked.delete(key);
        throw error;
      },
    );
    // nobody may be left who hears it
    asked.catch(() => {});
    this.#asked.set(key, asked);
    return asked;
  }

  async #ask(registration: Registration, audience: readonly string[], signal: AbortSignal): Promise<Kept> {
    const issued = await this.#options.sign(registration.id, audience, signal);
    const svid = parseJwtSvidUnverified(issued.token);
    if (!svid.id.equals(registration.spiffeId))
      throw fail('SVID_INVALID', `the server signed a JWT-SVID of ${svid.id} for ${registration.spiffeId}`);
    const lifetime = issued.expiresAtMs - issued.issuedAtMs;
    return {
      ...issued,
      entryId: registration.id,
      spiffeId: registration.spiffeId.toString(),
      renewAtMs: issued.expiresAtMs - lifetime * (0.45 + Math.random() * 0.1),
      failures: 0,
      againAtMs: 0,
    };
  }

  async #soon<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
    const { clock, hitTimeoutMs } = this.#options;
    const stop = new AbortController();
    const late = clock.sleep(hitTimeoutMs, stop.signal, { ref: false }).then(
      () => {
        throw fail('DEADLINE_EXCEEDED', `no answer within ${hitTimeoutMs} ms`);
      },
      () => new Promise<never>(() => {}),
    );
    try {
      return await until(Promise.race([promise, late]), signal);
    } finally {
      stop.abort();
    }
  }
}
