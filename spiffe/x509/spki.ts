/** A public key as SubjectPublicKeyInfo (RFC 5280 §4.1.2.7): what kind it is, and whether it may be used at all. */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { SpiffeError } from '../errors.ts';
import { coordinateBytes, type EcJwk, isOnCurve, type PublicJwk, type RsaJwk } from '../jwt/jwk.ts';
import { type Curve, type KeyKind, rsaBits } from '../key-kind.ts';
import { type DerReader, der, derBits, derFault, derOid, derUnsigned, oidKey, oidText, readWhole, TAG } from './der.ts';

export interface Spki {
  /** The whole structure. */
  readonly der: Buffer;
  readonly kind: KeyKind;
  /** The contents of the BIT STRING: what a key identifier is the SHA-1 of (RFC 5280 §4.2.1.2). */
  readonly bits: Buffer;
}

const EC = '1.2.840.10045.2.1';
const RSA = '1.2.840.113549.1.1.1';
const OID = { ec: oidKey(EC), rsa: oidKey(RSA), rsaPss: oidKey('1.2.840.113549.1.1.10'), ed25519: oidKey('1.3.101.112') };
const CURVE_OIDS: Readonly<Record<Curve, string>> = { 'P-256': '1.2.840.10045.3.1.7', 'P-384': '1.3.132.0.34', 'P-521': '1.3.132.0.35' };
const CURVES: ReadonlyMap<string, Curve> = new Map(Object.entries(CURVE_OIDS).map(([curve, oid]) => [oidKey(oid), curve as Curve]));

/** @param der exactly one SubjectPublicKeyInfo. Throws REQUEST_INVALID (DER_ or KEY_ reasons). */
export function readSpki(der: Buffer): Spki {
  const spki = readWhole(der, TAG.sequence);
  const algorithm = spki.enter(TAG.sequence);
  const oid = algorithm.oid();
  let kind: KeyKind;
  if (oid === OID.ec) {
    const named = algorithm.peek() === TAG.oid ? algorithm.oid() : undefined;
    const known = named === undefined ? undefined : CURVES.get(named);
    // Explicit curve parameters end here as well: RFC 5480 §2.1.1 forbids them, and CVE-2020-0601 says why.
    kind = known
      ? { type: 'ec', curve: known }
      : { type: 'unknown', algorithm: named === undefined ? 'an explicit curve' : `the curve ${oidText(named)}` };
    if (known) algorithm.close();
    else closeUnknown(algorithm);
    const bits = spki.octetAlignedBits();
    spki.close();
    if (known && (bits.length !== 1 + 2 * coordinateBytes(known) || bits[0] !== 4))
      throw derFault('KEY_MALFORMED', 'an EC point that is not in uncompressed form');
    // Nobody may hold a leaf whose key the TLS library would be the first to refuse.
    if (known && !isOnCurve(known, bits.subarray(1, 1 + coordinateBytes(known)), bits.subarray(1 + coordinateBytes(known))))
      throw derFault('KEY_MALFORMED', 'an EC point that is not on its curve');
    return { der, kind, bits };
  }
  if (oid === OID.rsa) {
    if (algorithm.take(TAG.null).length !== 0) throw derFault('KEY_MALFORMED', 'RSA parameters that are not NULL');
    algorithm.close();
  } else if (oid === OID.ed25519) algorithm.close();
  else closeUnknown(algorithm);
  const bits = spki.octetAlignedBits();
  spki.close();
  if (oid === OID.rsa || oid === OID.rsaPss) kind = { type: oid === OID.rsa ? 'rsa' : 'rsa-pss', bits: modulusBits(bits) };
  else if (oid === OID.ed25519) {
    if (bits.length !== 32) throw derFault('KEY_MALFORMED', 'an Ed25519 key that is not 32 octets');
    kind = { type: 'ed25519' };
  } else kind = { type: 'unknown', algorithm: oidText(oid) };
  return { der, kind, bits };
}

/** RFC 5280 §4.1.1.2: an algorithm has one value of parameters, or none. */
function closeUnknown(algorithm: DerReader): void {
  if (!algorithm.done) algorithm.any();
  algorithm.close();
}

/** The length of the modulus. A negative, even or absurd key is refused here. */
function modulusBits(bits: Buffer): number {
  const key = readWhole(bits, TAG.sequence);
  const [modulus, exponent] = [positive(key.integer()), positive(key.integer())];
  key.close();
  const length = modulus && exponent && rsaBits(modulus, exponent);
  if (!length) throw derFault('KEY_MALFORMED', 'an RSA key whose modulus or exponent is not a positive odd number of a sane size');
  return length;
}

/** Undefined for a negative number. */
function positive(integer: Buffer): Buffer | undefined {
  const [top] = integer;
  if (top === undefined || top >= 0x80) return undefined;
  return top === 0 ? integer.subarray(1) : integer;
}

/** Undefined: a kind of key that JWK cannot carry, or that we do not know. Never exports through OpenSSL: see `core/x509/key.ts`. */
export function jwkOf({ kind, bits }: Spki): PublicJwk | undefined {
  if (kind.type === 'ec') {
    const size = coordinateBytes(kind.curve);
    return { kty: 'EC', crv: kind.curve, x: bits.toString('base64url', 1, 1 + size), y: bits.toString('base64url', 1 + size) };
  }
  if (kind.type === 'rsa' || kind.type === 'rsa-pss') {
    const key = readWhole(bits, TAG.sequence);
    const unsigned = (octets: Buffer) => (octets[0] === 0 ? octets.subarray(1) : octets).toString('base64url');
    const n = unsigned(key.integer());
    return { kty: 'RSA', n, e: unsigned(key.integer()) };
  }
  return kind.type === 'ed25519' ? { kty: 'OKP', crv: 'Ed25519', x: bits.toString('base64url') } : undefined;
}

/** The SubjectPublicKeyInfo of a JWT authority's key. */
export function spkiOfJwk(jwk: EcJwk | RsaJwk): Buffer {
  const from = (text: string) => Buffer.from(text, 'base64url');
  if (jwk.kty === 'EC') {
    const point = Buffer.concat([Buffer.from([4]), from(jwk.x), from(jwk.y)]);
    return der(TAG.sequence, der(TAG.sequence, derOid(EC), derOid(CURVE_OIDS[jwk.crv])), derBits(point));
  }
  const key = der(TAG.sequence, derUnsigned(from(jwk.n)), derUnsigned(from(jwk.e)));
  return der(TAG.sequence, der(TAG.sequence, derOid(RSA), der(TAG.null)), derBits(key));
}

/** Has OpenSSL read the key: the point must lie on the curve. Tens of microseconds: keep what it returns. Throws REQUEST_INVALID with KEY_MALFORMED. */
export function importSpki(spki: Spki): KeyObject {
  try {
    return createPublicKey({ key: spki.der, format: 'der', type: 'spki' });
  } catch (cause) {
    throw new SpiffeError('REQUEST_INVALID', 'KEY_MALFORMED', 'a public key that cannot be read', { cause });
  }
}

/** Reads the next value of `reader` as SubjectPublicKeyInfo. */
export function takeSpki(reader: DerReader): Spki {
  return readSpki(reader.raw(TAG.sequence));
}
