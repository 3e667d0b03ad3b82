/** Bundles (SPIFFE Trust Domain and Bundle): the authorities of one trust domain, and sets of them by trust domain. Immutable. */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { Certificate, splitCertificates } from '../x509/certificate.ts';
import { under } from '../x509/der.ts';
import { type Reason, SpiffeError } from '../errors.ts';
import type { TrustDomain } from '../id.ts';
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from '../json.ts';
import { importJwk, jwkOf, type PublicJwk } from '../jwt/jwk.ts';
import { formatPem, parsePem } from '../x509/pem.ts';
import { importSpki, keyKindText, keyWeakness, readSpki, type Spki } from '../x509/spki.ts';

/** Who has the X.509 authorities of a trust domain; undefined: nobody here trusts it. */
export interface X509BundleSource {
  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined;
}

export interface JwtBundleSource {
  jwtBundle(trustDomain: TrustDomain): JwtBundle | undefined;
}

/** A bundle document of a trust domain with thousands of authorities; what a stranger may make us read. */
export const MAX_BUNDLE_BYTES = 4 * 1024 * 1024;
const MAX_UINT64 = 2n ** 64n - 1n;

function invalid(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('BUNDLE_INVALID', reason, why);
}

export class X509Bundle implements X509BundleSource {
  readonly trustDomain: TrustDomain;
  /** In the order given, each once. Empty: nothing of this trust domain is trusted (TDB-19). */
  readonly authorities: readonly Certificate[];
  #bySubject: Map<string, Certificate[]> | undefined;

  constructor(trustDomain: TrustDomain, authorities: Iterable<Certificate>) {
    this.trustDomain = trustDomain;
    const seen = new Set<string>();
    const kept: Certificate[] = [];
    for (const authority of authorities) {
      if (seen.has(authority.sha256)) continue;
      seen.add(authority.sha256);
      kept.push(authority);
    }
    this.authorities = Object.freeze(kept);
  }

  /** @param der certificates one behind the other. Throws BUNDLE_INVALID. */
  static fromDer(trustDomain: TrustDomain, der: Uint8Array): X509Bundle {
    return new X509Bundle(
      trustDomain,
      under('BUNDLE_INVALID', `X.509 bundle of ${trustDomain}`, () => splitCertificates(der)),
    );
  }

  /** @param pem CERTIFICATE blocks only; an empty text is an empty bundle. Throws BUNDLE_INVALID. */
  static fromPem(trustDomain: TrustDomain, pem: string | Uint8Array): X509Bundle {
    return under('BUNDLE_INVALID', `X.509 bundle of ${trustDomain}`, () => {
      const blocks = parsePem(pem);
      const stranger = blocks.find((block) => block.label !== 'CERTIFICATE');
      if (stranger) throw invalid('PEM_MALFORMED', `a ${stranger.label} block where only certificates belong`);
      if (blocks.length === 0 && pem.toString().trim() !== '') throw invalid('PEM_MISSING', 'no PEM block found');
      return new X509Bundle(
        trustDomain,
        blocks.map((block) => Certificate.parse(block.der)),
      );
    });
  }

  get isEmpty(): boolean {
    return this.authorities.length === 0;
  }

  has(authority: Certificate): boolean {
    return this.withSubject(authority.subject).some((one) => one.equals(authority));
  }

  /** The authorities of that raw Name: where a path may end. */
  withSubject(subject: Buffer): readonly Certificate[] {
    if (!this.#bySubject) {
      this.#bySubject = new Map();
      for (const authority of this.authorities) {
        const key = authority.subject.toString('latin1');
        const list = this.#bySubject.get(key);
        if (list) list.push(authority);
        else this.#bySubject.set(key, [authority]);
      }
    }
    return this.#bySubject.get(subject.toString('latin1')) ?? [];
  }

  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined {
    return this.trustDomain.equals(trustDomain) ? this : undefined;
  }

  toDer(): Buffer {
    return Buffer.concat(this.authorities.map((authority) => authority.raw));
  }

  toPem(): string {
    return this.authorities.map((authority) => formatPem('CERTIFICATE', authority.raw)).join('');
  }

  /** Same trust domain, same authorities in any order. */
  equals(other: X509Bundle): boolean {
    if (this === other) return true;
    if (!this.trustDomain.equals(other.trustDomain) || this.authorities.length !== other.authorities.length) return false;
    const mine = new Set(this.authorities.map((authority) => authority.sha256));
    return other.authorities.every((authority) => mine.has(authority.sha256));
  }
}

/** A key that signs JWT-SVIDs of its trust domain. */
export interface JwtAuthority {
  readonly keyId: string;
  readonly publicKey: KeyObject;
  readonly spki: Spki;
}

/** @param key a public key, or its SubjectPublicKeyInfo. Throws BUNDLE_INVALID for a kind of key that JWT-SVIDs cannot use. */
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
    if (spki.kind.type !== 'ec' && spki.kind.type !== 'rsa') throw invalid('KEY_UNSUPPORTED', `a key of ${keyKindText(spki.kind)}`);
    return { keyId, publicKey: key instanceof Uint8Array || key.type === 'private' ? importSpki(spki) : key, spki };
  });
}

export class JwtBundle implements JwtBundleSource {
  readonly trustDomain: TrustDomain;
  /** By key id, in the order given. */
  readonly authorities: ReadonlyMap<string, JwtAuthority>;

  /** Throws BUNDLE_INVALID when two different keys have one key id. */
  constructor(trustDomain: TrustDomain, authorities: Iterable<JwtAuthority>) {
    this.trustDomain = trustDomain;
    const byId = new Map<string, JwtAuthority>();
    for (const authority of authorities) {
      const known = byId.get(authority.keyId);
      if (known && !known.spki.der.equals(authority.spki.der))
        throw invalid('BUNDLE_KID_REPEATED', `two keys with the key id ${JSON.stringify(authority.keyId)}`);
      byId.set(authority.keyId, authority);
    }
    this.authorities = byId;
  }

  /** A standard JWK Set, as the Workload API sends it: `use` may be absent, `jwt-svid` or `sig`; keys of another use are passed over (AMB-4). Throws BUNDLE_INVALID. */
  static fromJwks(trustDomain: TrustDomain, json: string | Uint8Array): JwtBundle {
    return under('BUNDLE_INVALID', `JWT bundle of ${trustDomain}`, () => {
      const keys = readKeys(readDocument(json));
      return new JwtBundle(
        trustDomain,
        jwtAuthorities(keys, (use) => use === undefined || use === 'jwt-svid' || use === 'sig'),
      );
    });
  }

  get isEmpty(): boolean {
    return this.authorities.size === 0;
  }

  jwtBundle(trustDomain: TrustDomain): JwtBundle | undefined {
    return this.trustDomain.equals(trustDomain) ? this : undefined;
  }

  /** A standard JWK Set without `use`, in the order of the key ids given; the form that `FetchJWTBundles` sends. */
  toJwks(): string {
    return JSON.stringify({
      keys: [...this.authorities.values()].map((authority) => jwkEntry(undefined, authority.keyId, authority.spki)),
    });
  }

  equals(other: JwtBundle): boolean {
    if (this === other) return true;
    if (!this.trustDomain.equals(other.trustDomain) || this.authorities.size !== other.authorities.size) return false;
    for (const [keyId, authority] of this.authorities) {
      if (!other.authorities.get(keyId)?.spki.der.equals(authority.spki.der)) return false;
    }
    return true;
  }
}

export interface BundleFields {
  readonly x509Authorities?: Iterable<Certificate>;
  readonly jwtAuthorities?: Iterable<JwtAuthority>;
  /** 0 to 2^64−1. */
  readonly sequence?: bigint | number | undefined;
  readonly refreshHintSeconds?: number | undefined;
}

/** All authorities of a trust domain: a SPIFFE bundle. */
export class Bundle implements X509BundleSource, JwtBundleSource {
  readonly trustDomain: TrustDomain;
  readonly x509: X509Bundle;
  readonly jwt: JwtBundle;
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

  /** The same from a document that is part of a larger one. */
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
      jwtAuthorities: jwtAuthorities(keys, (use) => use === 'jwt-svid'),
      sequence,
      // TDB-14: only a hint. Less than a second means none; more than our numbers hold means long.
      refreshHintSeconds:
        hint === undefined || (hint as number | bigint) <= 0 ? undefined : Math.min(Number(hint), Number.MAX_SAFE_INTEGER),
    });
  }

  get isEmpty(): boolean {
    return this.x509.isEmpty && this.jwt.isEmpty;
  }

  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined {
    return this.trustDomain.equals(trustDomain) ? this.x509 : undefined;
  }

  jwtBundle(trustDomain: TrustDomain): JwtBundle | undefined {
    return this.trustDomain.equals(trustDomain) ? this.jwt : undefined;
  }

  /** The same bundle with other fields. */
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
      ...this.x509.authorities
        .filter((authority) => jwkOf(authority.spki) !== undefined)
        .map((authority) => ({ ...jwkEntry('x509-svid', undefined, authority.spki), x5c: [authority.raw.toString('base64')] })),
      ...[...this.jwt.authorities.values()].map((authority) => jwkEntry('jwt-svid', authority.keyId, authority.spki)),
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
      if (byName.has(bundle.trustDomain.name)) throw invalid('BUNDLE_JWK', `two bundles of ${bundle.trustDomain}`);
      byName.set(bundle.trustDomain.name, bundle);
    }
    this.#byName = byName;
  }

  get size(): number {
    return this.#byName.size;
  }

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

function readDocument(json: string | Uint8Array): JsonObject {
  const document = parseJson(json, { maxBytes: MAX_BUNDLE_BYTES });
  if (!isJsonObject(document)) throw invalid('BUNDLE_KEYS_MISSING', 'not a JSON object');
  return document;
}

function readKeys(document: JsonObject): readonly JsonObject[] {
  const keys = document['keys'];
  // TDB-15: absent and null are malformed, and not the same as the empty list, which revokes all.
  if (!isJsonArray(keys)) throw invalid('BUNDLE_KEYS_MISSING', 'no authorities found: keys is missing or no array');
  if (!keys.every(isJsonObject)) throw invalid('BUNDLE_JWK', 'an entry of keys that is no object');
  return keys;
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

function* jwtAuthorities(keys: readonly JsonObject[], wanted: (use: JsonValue | undefined) => boolean): Iterable<JwtAuthority> {
  const seen = new Set<string>();
  for (const jwk of keys) {
    if (!wanted(jwk['use'])) continue;
    const imported = importJwk(jwk);
    if (!imported) continue;
    const keyId = jwk['kid'];
    if (typeof keyId !== 'string' || keyId === '') throw invalid('BUNDLE_KID_MISSING', 'a JWT authority without kid');
    if (seen.has(keyId)) throw invalid('BUNDLE_KID_REPEATED', `the key id ${JSON.stringify(keyId)} twice`);
    seen.add(keyId);
    yield { keyId, publicKey: imported.key, spki: imported.spki };
  }
}

/** In the order of members in which go-jose writes them. */
function jwkEntry(use: string | undefined, keyId: string | undefined, spki: Spki): Record<string, unknown> {
  const key = jwkOf(spki);
  if (!key) throw invalid('KEY_UNSUPPORTED', `a key of ${keyKindText(spki.kind)} has no JWK form`);
  const { kty, ...members } = key;
  return { ...(use !== undefined && { use }), kty, ...(keyId !== undefined && { kid: keyId }), ...members };
}
