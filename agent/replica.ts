/** The agent's copy of what the server lets it serve: entries and bundles, and everybody told who lives by them. */
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { type Bundle, BundleSet } from '../spiffe/bundle/bundle.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { Change, EntryCache, Registration } from './cache.ts';
import type { Replica } from './sync.ts';

export interface LocalReplicaOptions {
  readonly trustDomain: TrustDomain;
  readonly cache: EntryCache;
  readonly log: Log;
  readonly onEntries: (changes: readonly Change[]) => void;
  readonly onBundles: () => void;
  /** The own bundle has other X.509 authorities: it is to be kept over a restart. */
  readonly onOwn: (own: Bundle) => void;
  readonly onIssuers: (issuers: readonly Certificate[]) => void;
  readonly onSynced: () => void;
}

export class LocalReplica implements Replica {
  readonly #options: LocalReplicaOptions;
  #bundles = new BundleSet();

  constructor(options: LocalReplicaOptions) {
    this.#options = options;
  }

  get bundles(): BundleSet {
    return this.#bundles;
  }

  get own(): Bundle | undefined {
    return this.#bundles.get(this.#options.trustDomain);
  }

  /** From disk, or of the attestation: not news that must be kept. */
  start(own: Bundle): void {
    this.#bundles = this.#bundles.with(own);
    this.#options.onBundles();
  }

  digest(): Buffer {
    return this.#options.cache.digest();
  }

  get(id: string): Registration | undefined {
    return this.#options.cache.get(id);
  }

  *ids(): Generator<string, void, void> {
    for (const { id } of this.#options.cache.all()) yield id;
  }

  apply(upserts: readonly Registration[], removed: readonly string[]): void {
    const { cache, log, onEntries } = this.#options;
    const changes = cache.apply(upserts, removed);
    if (changes.length === 0) return;
    for (const { before, after } of changes) {
      const one = after ?? before;
      if (one)
        log.debug(after ? (before ? 'Entry updated' : 'Entry created') : 'Entry removed', {
          entry_id: one.id,
          spiffe_id: one.spiffeId.toString(),
        });
    }
    onEntries(changes);
  }

  /** Throws BUNDLE_INVALID rather than to forget by whom the server itself is known. */
  applyBundles(bundles: readonly Bundle[], removed: readonly string[], complete: boolean): void {
    const { trustDomain, onBundles, onOwn } = this.#options;
    const before = this.#bundles;
    const sent = new Map(bundles.map((bundle) => [bundle.trustDomain.name, bundle]));
    const own = sent.get(trustDomain.name) ?? this.own;
    if (!own || own.x509.isEmpty) throw fail('BUNDLE_INVALID', 'the server sent its own bundle without an X.509 authority');
    const gone = new Set(removed);
    const kept = complete ? [] : [...before].filter(({ trustDomain: { name } }) => !sent.has(name) && !gone.has(name));
    const others = [...kept, ...sent.values()].filter((bundle) => !bundle.trustDomain.equals(trustDomain));
    const after = new BundleSet([own, ...others]);
    const known = this.own;
    if (after.equals(before)) return;
    this.#bundles = after;
    if (!known?.x509.equals(own.x509)) onOwn(own);
    onBundles();
  }

  applyIssuers(issuers: readonly Certificate[]): void {
    this.#options.onIssuers(issuers);
  }

  federatesWith(): readonly TrustDomain[] {
    const { cache, trustDomain } = this.#options;
    const found = new Map<string, TrustDomain>();
    for (const { federatesWith } of cache.all()) for (const domain of federatesWith) found.set(domain.name, domain);
    found.delete(trustDomain.name);
    return [...found.values()];
  }

  synced(): void {
    this.#options.onSynced();
  }
}
