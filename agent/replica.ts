/** What the agent knows of the server's entries and bundles, and everything that is made of it: changed in one place, told to all who must hear. */
import type { Log } from '../core/log.ts';
import { Bundle, BundleSet } from '../spiffe/bundle.ts';
import type { Clock } from '../spiffe/clock.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { Latest } from '../spiffe/latest.ts';
import { type Change, EntryCache, type Registration } from './cache.ts';
import { type IssuedJwt, JwtCache } from './jwt-cache.ts';
import { type Signed, Svids, type WorkloadKeyType } from './svids.ts';
import type { Replica } from './sync.ts';
import { Views } from './views.ts';

export interface KnownOptions {
  readonly trustDomain: TrustDomain;
  readonly clock: Clock;
  readonly log: Log;
  readonly signX509: (
    requests: readonly { readonly entryId: string; readonly csr: Buffer }[],
    signal: AbortSignal,
  ) => Promise<readonly Signed[]>;
  readonly signJwt: (entryId: string, audience: readonly string[], signal: AbortSignal) => Promise<IssuedJwt>;
  /** The own trust domain's bundle is another. */
  readonly onOwnBundle: (bundle: Bundle) => void;
  readonly keyType: WorkloadKeyType;
  readonly maxX509Svids: number;
  readonly maxJwtSvids: number;
  readonly jwtHitTimeoutMs: number;
  readonly prefetch: boolean;
  readonly availabilityTargetMs: number | undefined;
  readonly signal: AbortSignal;
}

export class Known implements Replica {
  readonly views: Views;
  readonly svids: Svids;
  readonly jwt: JwtCache;
  /** Whether the entries are known. */
  readonly isSynced = new Latest(false);
  /** Wall clock of the last time when everything was as the server has it; 0: never. */
  lastSyncMs = 0;
  readonly #options: KnownOptions;
  readonly #cache = new EntryCache();
  #bundles = new BundleSet();

  constructor(options: KnownOptions) {
    const { trustDomain, clock, log } = options;
    this.#options = options;
    this.views = new Views({
      cache: this.#cache,
      trustDomain,
      bundles: () => this.#bundles,
      svidOf: (registration) => this.svids.get(registration),
      onShown: (entries) => this.svids.want(entries),
    });
    this.svids = new Svids({
      cache: this.#cache,
      sign: options.signX509,
      clock,
      log,
      keyType: options.keyType,
      maxSize: options.maxX509Svids,
      ...(options.availabilityTargetMs !== undefined && { availabilityTargetMs: options.availabilityTargetMs }),
      isRead: (entryId) => this.views.isRead(entryId),
      onChange: (entryIds) => this.views.signed(entryIds),
    });
    this.jwt = new JwtCache({
      sign: options.signJwt,
      clock,
      log,
      maxSize: options.maxJwtSvids,
      hitTimeoutMs: options.jwtHitTimeoutMs,
      signal: options.signal,
    });
  }

  /** The own trust domain's; undefined before the agent knows one. */
  get ownBundle(): Bundle | undefined {
    return this.#bundles.get(this.#options.trustDomain);
  }

  digest(): Buffer {
    return this.#cache.digest();
  }

  get(id: string): Registration | undefined {
    return this.#cache.get(id);
  }

  *ids(): Generator<string, void, void> {
    for (const { id } of this.#cache.all()) yield id;
  }

  apply(upserts: readonly Registration[], removed: readonly string[]): void {
    const { prefetch } = this.#options;
    const changes = this.#cache.apply(prefetch ? upserts : upserts.map((one) => ({ ...one, prefetch: false })), removed);
    if (changes.length === 0) return;
    for (const change of changes) this.#tell(change);
    // the views first: who is read decides what is signed first
    this.views.applied(changes);
    this.svids.applied(changes);
  }

  applyBundles(bundles: readonly Bundle[], removed: readonly string[], complete: boolean): void {
    const { trustDomain, onOwnBundle, log } = this.#options;
    const before = this.#bundles;
    let after = before;
    for (const bundle of bundles) after = after.with(bundle);
    const named = new Set(bundles.map((bundle) => bundle.trustDomain.name));
    for (const { trustDomain: known } of before) {
      const goes = removed.includes(known.name) || (complete && !named.has(known.name));
      // without its own an agent could verify nobody, its server least of all
      if (goes && !known.equals(trustDomain)) after = after.without(known);
    }
    if (after.equals(before)) return;
    this.#bundles = after;
    const [was, is] = [before.get(trustDomain), after.get(trustDomain)];
    if (is && !(was && is.equals(was))) {
      log.debug('Bundle updated', { trust_domain: trustDomain.name });
      onOwnBundle(is);
    }
    this.views.changedAll();
  }

  /** From the attestation, or from disk. JWT authorities come with the first sync. */
  learnOwnBundle(bundle: Bundle): void {
    this.applyBundles([bundle], [], false);
  }

  federatesWith(): readonly TrustDomain[] {
    const domains = new Map<string, TrustDomain>();
    for (const { federatesWith } of this.#cache.all()) for (const one of federatesWith) domains.set(one.name, one);
    return [...domains.values()];
  }

  synced(): void {
    this.lastSyncMs = this.#options.clock.now();
    if (!this.isSynced.value) this.isSynced.set(true);
  }

  /** This agent may serve no more: no key stays. */
  forget(): void {
    this.svids.clear();
    this.jwt.clear();
    this.views.changedAll();
  }

  #tell({ before, after }: Change): void {
    const { log } = this.#options;
    const one = after ?? before;
    if (!one) return;
    if (before) this.jwt.forget(before.id);
    const fields = { entry_id: one.id, spiffe_id: String(one.spiffeId) };
    log.debug(!before ? 'Entry created' : after ? 'Entry updated' : 'Entry removed', fields);
  }
}
