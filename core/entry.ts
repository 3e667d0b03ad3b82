/** A registration entry: who (selectors, below which parent) gets which SPIFFE ID, and how. */
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
