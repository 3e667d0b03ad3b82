/** JWT bundles (SPIFFE Trust Domain and Bundle §4): the keys that sign the JWT-SVIDs of a trust domain. Immutable. Needs no Node. */
import { type Reason, SpiffeError, under } from '../errors.ts';
import type { TrustDomain } from '../id.ts';
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from '../json.ts';
import { type EcJwk, type JwtKeyKind, type RsaJwk, readJwk } from './jwk.ts';

/** Who has the JWT authorities of a trust domain; undefined: nobody here trusts it. */
export interface JwtBundleSource {
  /** Asked at each validation; must not wait. What it throws comes through. */
  jwtBundle(trustDomain: TrustDomain): JwtBundle | undefined;
}

/** A bundle document of a trust domain with thousands of authorities; what a stranger may make us read. */
export const MAX_BUNDLE_BYTES = 4 * 1024 * 1024;

function invalid(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('BUNDLE_INVALID', reason, why);
}

/** A key that signs JWT-SVIDs of its trust domain. */
export class JwtAuthority {
  /** `kid`. */
  readonly keyId: string;
  readonly kind: JwtKeyKind;
  /** The key and nothing else: no `use`, no `kid`. */
  readonly jwk: EcJwk | RsaJwk;

  private constructor(keyId: string, kind: JwtKeyKind, jwk: EcJwk | RsaJwk) {
    this.keyId = keyId;
    this.kind = kind;
    this.jwk = Object.freeze(jwk);
  }

  /** @param jwk public; its `use` and `kid` are not looked at. Throws BUNDLE_INVALID, also for a kind of key that JWT-SVIDs cannot use. */
  static fromJwk(keyId: string, jwk: JsonObject): JwtAuthority {
    const made = JwtAuthority.ofKnownKind(keyId, jwk);
    if (!made) throw invalid('KEY_UNSUPPORTED', `a key of kty ${JSON.stringify(jwk['kty'])} that JWT-SVIDs cannot use`);
    return made;
  }

  /** The same; undefined for a kind of key that readers pass over. Throws BUNDLE_INVALID. */
  static ofKnownKind(keyId: string, jwk: JsonObject): JwtAuthority | undefined {
    const read = readJwk(jwk);
    if (!read) return undefined;
    if (keyId === '') throw invalid('BUNDLE_KID_MISSING', 'a JWT authority without kid');
    return new JwtAuthority(keyId, read.kind, read.jwk);
  }

  /** The same key, whatever it is called. */
  hasKeyOf(other: JwtAuthority): boolean {
    const { jwk: a } = this;
    const { jwk: b } = other;
    return a.kty === 'EC' ? b.kty === 'EC' && a.crv === b.crv && a.x === b.x && a.y === b.y : b.kty === 'RSA' && a.n === b.n && a.e === b.e;
  }
}

/** The JWT authorities of one trust domain. */
export class JwtBundle implements JwtBundleSource {
  readonly trustDomain: TrustDomain;
  /** By key id, in the order given. Empty: no token of this trust domain is accepted. */
  readonly authorities: ReadonlyMap<string, JwtAuthority>;

  /** Throws BUNDLE_INVALID when two different keys have one key id. */
  constructor(trustDomain: TrustDomain, authorities: Iterable<JwtAuthority>) {
    this.trustDomain = trustDomain;
    const byId = new Map<string, JwtAuthority>();
    for (const authority of authorities) {
      const known = byId.get(authority.keyId);
      if (known && !known.hasKeyOf(authority))
        throw invalid('BUNDLE_KID_REPEATED', `two keys with the key id ${JSON.stringify(authority.keyId)}`);
      byId.set(authority.keyId, authority);
    }
    this.authorities = byId;
  }

  /**
   * A JWK Set: as the Workload API sends it, or a SPIFFE bundle document. `use` may be absent, `jwt-svid` or `sig`; keys of another use are passed
   * over (AMB-4). At most 4 MiB. Throws BUNDLE_INVALID.
   */
  static fromJwks(trustDomain: TrustDomain, json: string | Uint8Array): JwtBundle {
    return under('BUNDLE_INVALID', `JWT bundle of ${trustDomain}`, () => {
      const keys = readKeys(readDocument(json));
      return new JwtBundle(
        trustDomain,
        jwtAuthoritiesOf(keys, (use) => use === undefined || use === 'jwt-svid' || use === 'sig'),
      );
    });
  }

  /** No token of this trust domain is accepted. */
  get isEmpty(): boolean {
    return this.authorities.size === 0;
  }

  /** Undefined for every other trust domain. */
  jwtBundle(trustDomain: TrustDomain): JwtBundle | undefined {
    return this.trustDomain.equals(trustDomain) ? this : undefined;
  }

  /** A standard JWK Set without `use`, in the order of the key ids given; the form that `FetchJWTBundles` sends. */
  toJwks(): string {
    return JSON.stringify({ keys: [...this.authorities.values()].map((authority) => jwkEntry(undefined, authority.keyId, authority.jwk)) });
  }

  /** Same trust domain, same keys under the same ids, in any order. */
  equals(other: JwtBundle): boolean {
    if (this === other) return true;
    if (!this.trustDomain.equals(other.trustDomain) || this.authorities.size !== other.authorities.size) return false;
    for (const [keyId, authority] of this.authorities) {
      if (!other.authorities.get(keyId)?.hasKeyOf(authority)) return false;
    }
    return true;
  }
}

/** JWT bundles by trust domain. Immutable. */
export class JwtBundleSet implements JwtBundleSource, Iterable<JwtBundle> {
  readonly #byName: ReadonlyMap<string, JwtBundle>;

  /** A trust domain that comes twice is refused: which one to trust is not ours to guess. Throws BUNDLE_INVALID. */
  constructor(bundles: Iterable<JwtBundle> = []) {
    const byName = new Map<string, JwtBundle>();
    for (const bundle of bundles) {
      if (byName.has(bundle.trustDomain.name)) throw invalid('BUNDLE_REPEATED', `two bundles of ${bundle.trustDomain}`);
      byName.set(bundle.trustDomain.name, bundle);
    }
    this.#byName = byName;
  }

  get size(): number {
    return this.#byName.size;
  }

  /** Undefined: that trust domain is not in the set. */
  jwtBundle(trustDomain: TrustDomain): JwtBundle | undefined {
    return this.#byName.get(trustDomain.name);
  }

  [Symbol.iterator](): Iterator<JwtBundle> {
    return this.#byName.values();
  }
}

export function readDocument(json: string | Uint8Array): JsonObject {
  const document = parseJson(json, { maxBytes: MAX_BUNDLE_BYTES });
  if (!isJsonObject(document)) throw invalid('BUNDLE_KEYS_MISSING', 'not a JSON object');
  return document;
}

export function readKeys(document: JsonObject): readonly JsonObject[] {
  const keys = document['keys'];
  // TDB-15: absent and null are malformed, and not the same as the empty list, which revokes all.
  if (!isJsonArray(keys)) throw invalid('BUNDLE_KEYS_MISSING', 'no authorities found: keys is missing or no array');
  if (!keys.every(isJsonObject)) throw invalid('BUNDLE_JWK', 'an entry of keys that is no object');
  return keys;
}

/** The authorities among the keys of a document whose `use` is wanted; kinds of keys that are not known are passed over. */
export function* jwtAuthoritiesOf(keys: readonly JsonObject[], wanted: (use: JsonValue | undefined) => boolean): Iterable<JwtAuthority> {
  const seen = new Set<string>();
  for (const jwk of keys) {
    if (!wanted(jwk['use'])) continue;
    const keyId = jwk['kid'];
    const authority = JwtAuthority.ofKnownKind(typeof keyId === 'string' ? keyId : '', jwk);
    if (!authority) continue;
    if (seen.has(authority.keyId)) throw invalid('BUNDLE_KID_REPEATED', `the key id ${JSON.stringify(keyId)} twice`);
    seen.add(authority.keyId);
    yield authority;
  }
}

/** In the order of members in which go-jose writes them. */
export function jwkEntry(
  use: string | undefined,
  keyId: string | undefined,
  { kty, ...members }: { readonly kty: string },
): Record<string, unknown> {
  return { ...(use !== undefined && { use }), kty, ...(keyId !== undefined && { kid: keyId }), ...members };
}
