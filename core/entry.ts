/** A registration entry: who (selectors, below which parent) gets which SPIFFE ID, and how. */
import type { EntryMask, Entry as WireEntry } from '../proto/gen/spire/api/types/entry.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import type { Selector } from './selector.ts';

/** Immutable. Durations and instants are milliseconds here and seconds on the wire. */
export interface Entry {
  /** 1 to 255 of `-._0-9A-Za-z`; a UUIDv4 unless the caller chose one. */
  readonly id: string;
  readonly spiffeId: SpiffeId;
  readonly parentId: SpiffeId;
  /** At least one; sorted by type, then value; no two alike. */
  readonly selectors: readonly Selector[];
  /** 0: the server's default. */
  readonly x509SvidTtlMs: number;
  /** 0: the server's default. */
  readonly jwtSvidTtlMs: number;
  readonly federatesWith: readonly TrustDomain[];
  readonly admin: boolean;
  readonly downstream: boolean;
  /** 0: never. */
  readonly expiresAtMs: number;
  readonly dnsNames: readonly string[];
  /** Starts at 0; every update adds 1, even one that changes nothing (SPIRE's agents re-issue on it). */
  readonly revision: number;
  readonly storeSvid: boolean;
  /** '' or up to 1024 bytes. */
  readonly hint: string;
  readonly createdAtMs: number;
  readonly disableX509SvidPrefetch: boolean;
  readonly jwtSvidIncludeJti: boolean;
}

/** As `spire.api.types.Entry`. @param mask undefined: everything. The id always. */
export function entryToWire(entry: Entry, mask?: EntryMask): WireEntry {
  const wants = (field: keyof EntryMask) => mask === undefined || mask[field];
  return {
    id: entry.id,
    spiffeId: wants('spiffeId') ? idToWire(entry.spiffeId) : undefined,
    parentId: wants('parentId') ? idToWire(entry.parentId) : undefined,
    selectors: wants('selectors') ? entry.selectors.map(({ type, value }) => ({ type, value })) : [],
    x509SvidTtl: wants('x509SvidTtl') ? seconds(entry.x509SvidTtlMs) : 0,
    federatesWith: wants('federatesWith') ? entry.federatesWith.map(({ name }) => name) : [],
    admin: wants('admin') && entry.admin,
    downstream: wants('downstream') && entry.downstream,
    expiresAt: wants('expiresAt') ? seconds(entry.expiresAtMs) : 0,
    dnsNames: wants('dnsNames') ? [...entry.dnsNames] : [],
    revisionNumber: wants('revisionNumber') ? entry.revision : 0,
    storeSvid: wants('storeSvid') && entry.storeSvid,
    jwtSvidTtl: wants('jwtSvidTtl') ? seconds(entry.jwtSvidTtlMs) : 0,
    hint: wants('hint') ? entry.hint : '',
    createdAt: wants('createdAt') ? seconds(entry.createdAtMs) : 0,
    // absent unless it says something, as SPIRE's server answers for an entry that was created without
    additionalAttributes:
      wants('additionalAttributes') && (entry.disableX509SvidPrefetch || entry.jwtSvidIncludeJti)
        ? { disableX509SvidPrefetch: entry.disableX509SvidPrefetch, jwtSvidIncludeJti: entry.jwtSvidIncludeJti }
        : undefined,
  };
}

function idToWire({ trustDomain, path }: SpiffeId): { trustDomain: string; path: string } {
  return { trustDomain: trustDomain.name, path };
}

function seconds(ms: number): number {
  return Math.floor(ms / 1000);
}
