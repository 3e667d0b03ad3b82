/** What serves workloads: entries, SVIDs, views and the Workload API, each told of the others' changes. */
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { Shares } from '../core/shares.ts';
import type { WorkloadAttestor } from '../core/plugin/workload-attestor.ts';
import type { Bundle } from '../spiffe/bundle/bundle.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { CallerAttestor } from './attest.ts';
import { EntryCache } from './cache.ts';
import { createExplainApi } from './explain.ts';
import { JwtCache, type JwtCacheOptions } from './jwt-cache.ts';
import { LocalReplica } from './replica.ts';
import { Svids, type SvidsOptions, type WorkloadKeyType } from './svids.ts';
import { Views } from './views.ts';
import { WorkloadApi } from './workload-api.ts';

export interface WorkloadsOptions {
  readonly trustDomain: TrustDomain;
  readonly attestors: ReadonlyMap<string, WorkloadAttestor>;
  /** Attestations that may be under way. */
  readonly attestations: Shares;
  readonly signX509: SvidsOptions['sign'];
  readonly signJwt: JwtCacheOptions['sign'];
  /** The own bundle has other X.509 authorities. */
  readonly keepOwn: (own: Bundle) => void;
  /** The server told by whom it is issued. */
  readonly keepIssuers: (issuers: readonly Certificate[]) => void;
  readonly keyType: WorkloadKeyType;
  readonly x509CacheSize: number;
  readonly jwtCacheSize: number;
  readonly prefetch: boolean;
  readonly availabilityTargetMs?: number | undefined;
  /** Default 5 s. */
  readonly jwtHitTimeoutMs?: number | undefined;
  readonly allowUnauthenticatedVerifiers: boolean;
  readonly allowedForeignJwtClaims: readonly string[];
  readonly clock: Clock;
  readonly log: Log;
  /** Ends questions to the server that outlive those who asked. */
  readonly signal: AbortSignal;
}

export interface Workloads {
  readonly api: WorkloadApi;
  /** Fed by the sync; before anybody calls it must have been started with the own bundle. */
  readonly replica: LocalReplica;
  /** Signs while its `run` runs. */
  readonly svids: Svids;
  readonly jwts: JwtCache;
  readonly explain: ReturnType<typeof createExplainApi>;
  /** When everything was last known to be as the server has it; 0: never. */
  lastSyncMs(): number;
  /** The server wants this agent no more: nobody gets anything from it any more. */
  forbid(): void;
}

/** A caller whose JWT-SVID is still good does not wait longer than this for a newer one. */
const JWT_HIT_MS = 5_000;

export function createWorkloads(options: WorkloadsOptions): Workloads {
  const { trustDomain, clock, log } = options;
  let lastSyncMs = 0;
  const cache = new EntryCache();
  const views: Views = new Views({
    cache,
    trustDomain,
    bundles: () => replica.bundles,
    svidOf: (one) => svids.get(one),
    isRefused: (id) => svids.isRefused(id),
    onShown: (entries) => svids.want(entries),
  });
  const svids: Svids = new Svids({
    cache,
    sign: options.signX509,
    clock,
    log,
    keyType: options.keyType,
    maxSize: options.x509CacheSize,
    prefetch: options.prefetch,
    availabilityTargetMs: options.availabilityTargetMs,
    isRead: (id) => views.isRead(id),
    onChange: (ids) => views.signed(ids),
  });
  const jwts = new JwtCache({
    sign: options.signJwt,
    clock,
    log,
    maxSize: options.jwtCacheSize,
    hitTimeoutMs: options.jwtHitTimeoutMs ?? JWT_HIT_MS,
    signal: options.signal,
  });
  const attestor = new CallerAttestor({ attestors: options.attestors, underWay: options.attestations, clock, log });
  const api = new WorkloadApi({
    trustDomain,
    attestor,
    nearest: (selectors) => cache.nearest(selectors, 3),
    views,
    jwts,
    clock,
    log,
    allowUnauthenticatedVerifiers: options.allowUnauthenticatedVerifiers,
    allowedForeignJwtClaims: options.allowedForeignJwtClaims,
  });
  const replica: LocalReplica = new LocalReplica({
    trustDomain,
    cache,
    log,
    onEntries: (changes) => {
      for (const { before } of changes) if (before) jwts.forget(before.id);
      // views first: what somebody reads is signed first
      views.applied(changes);
      svids.applied(changes);
    },
    onBundles: () => views.changedAll(),
    onOwn: options.keepOwn,
    onIssuers: options.keepIssuers,
    onSynced: () => {
      lastSyncMs = clock.now();
      api.ready();
      svids.retry();
    },
  });
  return {
    api,
    replica,
    svids,
    jwts,
    lastSyncMs: () => lastSyncMs,
    explain: createExplainApi({ attestor, cache, svids, lastSyncMs: () => lastSyncMs }),
    forbid: () => {
      api.end(fail('DENIED', 'no identity issued'));
      svids.clear();
      jwts.clear();
    },
  };
}
