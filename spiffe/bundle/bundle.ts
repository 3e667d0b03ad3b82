/** Bundles (SPIFFE Trust Domain and Bundle): the authorities of one trust domain, and sets of them by trust domain. Immutable. */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { type Reason, SpiffeError, under } from '../errors.ts';
import type { TrustDomain } from '../id.ts';
import { isJsonArray, type JsonObject, type JsonValue } from '../json.ts';
import type { PublicJwk } from '../jwt/jwk.ts';
import { JwtAuthority, JwtBundle, type JwtBundleSource, jwkEntry, jwtAuthoritiesOf, readDocument, readKeys } from '../jwt/jwt-bundle.ts';
import { keyKindText, keyWeakness } from '../key-kind.ts';
import { Certificate } from '../x509/certificate.ts';
import { jwkOf, readSpki } from '../x509/spki.ts';
import { X509Bundle, type X509BundleSource } from '../x509/x509-bundle.ts';

const MAX_UINT64 = 2n ** 64n - 1n;

function invalid(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('BUNDLE_INVALID', reason, why);
}

/** A key as an authority of a bundle. @param key a public or private key, or a SubjectPublicKeyInfo. Throws BUNDLE_INVALID for a kind of key that JWT-SVIDs cannot use. */
export function jwtAuthority(keyId: string, key: KeyObject | Uint8Array): JwtAuthority {
  return under('BUNDLE_INVALID', `JWT authority ${JSON.stringify(keyId.slice(0, 200))}`, () => {
    if (keyId === '') throw invalid('BUNDLE_KID_MISSING', 'the key id is empty');
    const spki = readSpki(
      key instanceof Uint8Array
        ? Buffer.from(key)
        : (key.type === 'private' ? createPublicKey(key) : key).export({ type: 'spki', format: 'der' }),
    );
    const weakness = keyWeakness(spki.kind);
    if (weakness) throw invalid(weakness.reason, weakness.why);
    const jwk = spki.kind.type === 'ec' || spki.kind.type === 'rsa' ? jwkOf(spki) : undefined;
    if (!jwk) throw invalid('KEY_UNSUPPORTED', `a key of ${keyKindText(spki.kind)}`);
    return JwtAuthority.fromJwk(keyId, jwk);
  });
}

/** What a bundle has beside the name of its trust domain. */
export interface BundleFields {
  /** Default: none, and no X.509-SVID is believed. */
  readonly x509Authorities?: Iterable<Certificate>;
  /** Default: none, and no JWT-SVID is believed. */
  readonly jwtAuthorities?: Iterable<JwtAuthority>;
  /** 0 to 2^64−1. Default: not told. */
  readonly sequence?: bigint | number | undefined;
  /** Default 0, which says nothing. */
  readonly refreshHintSeconds?: number | undefined;
}

/** All authorities of a trust domain: a SPIFFE bundle. */
export class Bundle implements X509BundleSource, JwtBundleSource {
  readonly trustDomain: TrustDomain;
  readonly x509: X509Bundle;
  readonly jwt: JwtBundle;
  /** Which of two bundles is the newer: `spiffe_sequence`. Undefined: its publisher does not say. */
  readonly sequence: bigint | undefined;
  /** More than zero; how soon to look again, if anybody asks us. */
  readonly refreshHintSeconds: number | undefined;

  /** Throws BUNDLE_INVALID for a sequence or hint out of range. */
  constructor(trustDomain: TrustDomain, fields: BundleFields = {}) {
    this.trustDomain = trustDomain;
    this.x509 = new X509Bundle(trustDomain, fields.x509Authorities ?? []);
    this.jwt = new JwtBundle(trustDomain, fields.jwtAuthorities ?? []);
    const { sequence, refreshHintSeconds: hint } = fields;
    if (sequence !== undefined) {
      if (typeof sequence === 'number' && !Number.isSafeInteger(sequence))
        throw invalid('BUNDLE_SEQUENCE', 'the sequence is not an integer');
      if (sequence < 0 || BigInt(sequence) > MAX_UINT64) throw invalid('BUNDLE_SEQUENCE', 'the sequence is not from 0 to 2^64-1');
    }
    this.sequence = sequence === undefined ? undefined : BigInt(sequence);
    if (hint !== undefined && (!Number.isSafeInteger(hint) || hint < 0))
      throw invalid('BUNDLE_REFRESH_HINT', 'the refresh hint is not a number of seconds');
    this.refreshHintSeconds = hint === 0 ? undefined : hint;
  }

  /**
   * A SPIFFE bundle document. Entries with an unknown or missing `use` or an unknown `kty` are passed over (TDB-16, 17, 25), as are X.509 entries
   * without a certificate (X509-46); what is known and malformed refuses the whole. Throws BUNDLE_INVALID.
   */
  static fromJson(trustDomain: TrustDomain, json: string | Uint8Array): Bundle {
    return under('BUNDLE_INVALID', `bundle of ${trustDomain}`, () => Bundle.fromDocument(trustDomain, readDocument(json)));
  }

  /** The same from a document that is part of a larger one. Throws BUNDLE_INVALID. */
  static fromDocument(trustDomain: TrustDomain, document: JsonObject): Bundle {
    const keys = readKeys(document);
    const sequence = document['spiffe_sequence'];
    if (sequence !== undefined && typeof sequence !== 'bigint' && typeof sequence !== 'number')
      throw invalid('BUNDLE_SEQUENCE', 'spiffe_sequence is not an integer');
    const hint = document['spiffe_refresh_hint'];
    if (hint !== undefined && typeof hint !== 'bigint' && !Number.isInteger(hint))
      throw invalid('BUNDLE_REFRESH_HINT', 'spiffe_refresh_hint is not an integer');
    return new Bundle(trustDomain, {
      x509Authorities: x509Authorities(keys),
      jwtAuthorities: jwtAuthoritiesOf(keys, (use) => use === 'jwt-svid'),
      sequence,
      // TDB-14: only a hint. Less than a second means none; more than our numbers hold means long.
      refreshHintSeconds:
        hint === undefined || (hint as number | bigint) <= 0 ? undefined : Math.min(Number(hint), Number.MAX_SAFE_INTEGER),
    });
  }

  /** It has taken everything back: nothing of this trust domain is believed (TDB-19). */
  get isEmpty(): boolean {
    return this.x509.isEmpty && this.jwt.isEmpty;
  }

  /** Undefined for every other trust domain. */
  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined {
    return this.trustDomain.equals(trustDomain) ? this.x509 : undefined;
  }

  /** Undefined for every other trust domain. */
  jwtBundle(trustDomain: TrustDomain): JwtBundle | undefined {
    return this.trustDomain.equals(trustDomain) ? this.jwt : undefined;
  }

  /** The same bundle with other fields. Throws as the constructor. */
  with(fields: BundleFields): Bundle {
    return new Bundle(this.trustDomain, {
      x509Authorities: fields.x509Authorities ?? this.x509.authorities,
      jwtAuthorities: fields.jwtAuthorities ?? this.jwt.authorities.values(),
      sequence: 'sequence' in fields ? fields.sequence : this.sequence,
      refreshHintSeconds: 'refreshHintSeconds' in fields ? fields.refreshHintSeconds : this.refreshHintSeconds,
    });
  }

  /** The SPIFFE bundle document as SPIRE prints it: indented by four, no line feed at the end; equal bundles in equal order give equal text. */
  toJson(): string {
    const keys = [
      // An authority whose key has no JWK form (a curve that we do not know) verifies nothing for anybody here, and is not published.
      ...this.x509.authorities.flatMap((authority) => {
        const jwk = jwkOf(authority.spki);
        return jwk ? [{ ...jwkEntry('x509-svid', undefined, jwk), x5c: [authority.raw.toString('base64')] }] : [];
      }),
      ...[...this.jwt.authorities.values()].map((authority) => jwkEntry('jwt-svid', authority.keyId, authority.jwk)),
    ];
    const members = [
      // JSON.stringify knows no bigint, so the integers are joined by hand.
      ...(this.sequence === undefined ? [] : [`    "spiffe_sequence": ${this.sequence}`]),
      ...(this.refreshHintSeconds === undefined ? [] : [`    "spiffe_refresh_hint": ${this.refreshHintSeconds}`]),
    ];
    const text = JSON.stringify({ keys }, null, 4);
    return members.length === 0 ? text : `${text.slice(0, -2)},\n${members.join(',\n')}\n}`;
  }

  /** Same authorities, sequence and hint. */
  equals(other: Bundle): boolean {
    return (
      this === other ||
      (this.sameAuthorities(other) && this.sequence === other.sequence && this.refreshHintSeconds === other.refreshHintSeconds)
    );
  }

  /** Same trust domain and keys, whatever sequence and hint say. */
  sameAuthorities(other: Bundle): boolean {
    return this.x509.equals(other.x509) && this.jwt.equals(other.jwt);
  }
}

/** Bundles by trust domain: what a workload trusts. */
export class BundleSet implements X509BundleSource, JwtBundleSource, Iterable<Bundle> {
  readonly #byName: ReadonlyMap<string, Bundle>;

  /** A trust domain that comes twice is refused: which one to trust is not ours to guess. Throws BUNDLE_INVALID. */
  constructor(bundles: Iterable<Bundle> = []) {
    const byName = new Map<string, Bundle>();
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
  get(trustDomain: TrustDomain): Bundle | undefined {
    return this.#byName.get(trustDomain.name);
  }

  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined {
    return this.get(trustDomain)?.x509;
  }

  jwtBundle(trustDomain: TrustDomain): JwtBundle | undefined {
    return this.get(trustDomain)?.jwt;
  }

  /** A new set with this bundle in place of the one of its trust domain. */
  with(bundle: Bundle): BundleSet {
    return new BundleSet([...this.#byName.values()].filter((one) => one.trustDomain.name !== bundle.trustDomain.name).concat(bundle));
  }

  /** A new set; the same bundles when that trust domain was not in it. */
  without(trustDomain: TrustDomain): BundleSet {
    return new BundleSet([...this.#byName.values()].filter((one) => one.trustDomain.name !== trustDomain.name));
  }

  /** By the names of the trust domains, sorted. */
  *[Symbol.iterator](): Iterator<Bundle> {
    for (const name of [...this.#byName.keys()].sort()) yield this.#byName.get(name) as Bundle;
  }

  equals(other: BundleSet): boolean {
    if (this.size !== other.size) return false;
    for (const [name, bundle] of this.#byName) {
      const theirs = other.#byName.get(name);
      if (!theirs?.equals(bundle)) return false;
    }
    return true;
  }
}

function* x509Authorities(keys: readonly JsonObject[]): Iterable<Certificate> {
  for (const jwk of keys) {
    if (jwk['use'] !== 'x509-svid' || !KNOWN_KTY.has(jwk['kty'])) continue;
    const x5c = jwk['x5c'];
    if (x5c === undefined || x5c === null || (isJsonArray(x5c) && x5c.length === 0)) continue;
    const first = isJsonArray(x5c) ? x5c[0] : undefined;
    if (typeof first !== 'string') throw invalid('BUNDLE_X5C', 'x5c is no array of strings');
    const der = Buffer.from(first, 'base64');
    // Standard base64 with padding, not base64url (X509-43).
    if (der.toString('base64') !== first) throw invalid('BUNDLE_X5C', 'x5c is not standard base64');
    const certificate = Certificate.parse(der);
    const expected = jwkOf(certificate.spki);
    if (expected && !sameKey(jwk, expected)) throw invalid('BUNDLE_X5C', `the key beside x5c is not the key of ${certificate}`);
    yield certificate;
  }
}

/** OKP is for certificates only; JWT-SVIDs have no algorithm for it. */
const KNOWN_KTY: ReadonlySet<JsonValue | undefined> = new Set(['EC', 'RSA', 'OKP']);

/** The members that are there must agree; an entry that gives the certificate alone says nothing false. */
function sameKey(jwk: JsonObject, expected: PublicJwk): boolean {
  return Object.entries(expected).every(([member, value]) =>
    member === 'kty' ? jwk[member] === value : jwk[member] === undefined || jwk[member] === value,
  );
}
