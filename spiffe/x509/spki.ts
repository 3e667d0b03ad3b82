/** A public key as SubjectPublicKeyInfo (RFC 5280 §4.1.2.7): what kind it is, and whether it may be used at all. */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { DerReader, derFault, oidKey, oidText, readWhole, TAG } from './der.ts';
import { type Reason, SpiffeError } from '../errors.ts';

export type Curve = 'P-256' | 'P-384' | 'P-521';

/** What a key is, told from its DER alone, before OpenSSL sees it. */
export type KeyKind =
  | { readonly type: 'ec'; readonly curve: Curve }
  | { readonly type: 'rsa' | 'rsa-pss'; readonly bits: number }
  | { readonly type: 'ed25519' }
  /** Something we cannot verify with; a trust anchor may hold such a key, and then signs nothing that we accept. */
  | { readonly type: 'unknown'; readonly algorithm: string };

export interface Spki {
  /** The whole structure. */
  readonly der: Buffer;
  readonly kind: KeyKind;
  /** The contents of the BIT STRING: what a key identifier is the SHA-1 of (RFC 5280 §4.2.1.2). */
  readonly bits: Buffer;
}

const OID = {
  ec: oidKey('1.2.840.10045.2.1'),
  rsa: oidKey('1.2.840.113549.1.1.1'),
  rsaPss: oidKey('1.2.840.113549.1.1.10'),
  ed25519: oidKey('1.3.101.112'),
};
const CURVES: ReadonlyMap<string, { readonly curve: Curve; readonly pointBytes: number }> = new Map([
  [oidKey('1.2.840.10045.3.1.7'), { curve: 'P-256', pointBytes: 65 }],
  [oidKey('1.3.132.0.34'), { curve: 'P-384', pointBytes: 97 }],
  [oidKey('1.3.132.0.35'), { curve: 'P-521', pointBytes: 133 }],
]);

/** Below: broken in practice. Above: a signature check that a stranger can make cost us milliseconds. */
export const MIN_RSA_BITS = 2048;
export const MAX_RSA_BITS = 8192;

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
      ? { type: 'ec', curve: known.curve }
      : { type: 'unknown', algorithm: named === undefined ? 'an explicit curve' : `the curve ${oidText(named)}` };
    if (known) algorithm.close();
    else closeUnknown(algorithm);
    const bits = spki.octetAlignedBits();
    spki.close();
    if (known && (bits.length !== known.pointBytes || bits[0] !== 4))
      throw derFault('KEY_MALFORMED', 'an EC point that is not in uncompressed form');
    return { der, kind, bits };
  }
  if (oid === OID.rsa) {
    if (algorithm.take(TAG.null).length !== 0) throw derFault('KEY_MALFORMED', 'RSA parameters that are not NULL');
    algorithm.close();
  } else if (oid === OID.ed25519) algorithm.close();
  else closeUnknown(algorithm);
  const bits = spki.octetAlignedBits();
  spki.close();
  if (oid === OID.rsa || oid === OID.rsaPss) kind = { type: oid === OID.rsa ? 'rsa' : 'rsa-pss', bits: rsaBits(bits) };
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
function rsaBits(bits: Buffer): number {
  const key = readWhole(bits, TAG.sequence);
  const modulus = key.integer();
  const exponent = key.integer();
  key.close();
  const top = modulus[0] === 0 ? modulus.subarray(1) : modulus;
  const odd = (octets: Buffer) => ((octets[octets.length - 1] as number) & 1) === 1;
  if ((modulus[0] as number) >= 0x80 || top.length === 0 || !odd(modulus))
    throw derFault('KEY_MALFORMED', 'an RSA modulus that is not a positive odd number');
  if ((exponent[0] as number) >= 0x80 || exponent.length > 8 || !odd(exponent) || (exponent.length === 1 && exponent[0] === 1)) {
    throw derFault('KEY_MALFORMED', 'an RSA exponent that is not an odd number from 3 to 2^63');
  }
  return top.length * 8 - Math.clz32(top[0] as number) + 24;
}

/** Why this key may not sign or authenticate, or undefined. */
export function keyWeakness(kind: KeyKind): { readonly reason: Reason; readonly why: string } | undefined {
  if (kind.type === 'unknown') return { reason: 'KEY_UNSUPPORTED', why: `a key of an unsupported kind (${kind.algorithm})` };
  if (kind.type === 'rsa' || kind.type === 'rsa-pss') {
    if (kind.bits < MIN_RSA_BITS) return { reason: 'KEY_WEAK', why: `an RSA key of ${kind.bits} bits, fewer than ${MIN_RSA_BITS}` };
    if (kind.bits > MAX_RSA_BITS) return { reason: 'KEY_TOO_LARGE', why: `an RSA key of ${kind.bits} bits, more than ${MAX_RSA_BITS}` };
  }
  return undefined;
}

/** Has OpenSSL read the key: the point must lie on the curve. Tens of microseconds: keep what it returns. Throws REQUEST_INVALID with KEY_MALFORMED. */
export function importSpki(spki: Spki): KeyObject {
  try {
    return createPublicKey({ key: spki.der, format: 'der', type: 'spki' });
  } catch (cause) {
    throw new SpiffeError('REQUEST_INVALID', 'KEY_MALFORMED', 'a public key that cannot be read', { cause });
  }
}

/** For messages: `EC P-256`, `RSA 2048`. */
export function keyKindText(kind: KeyKind): string {
  if (kind.type === 'ec') return `EC ${kind.curve}`;
  if (kind.type === 'unknown') return kind.algorithm;
  return kind.type === 'ed25519' ? 'Ed25519' : `${kind.type.toUpperCase()} ${kind.bits}`;
}

/** Reads the next value of `reader` as SubjectPublicKeyInfo. */
export function takeSpki(reader: DerReader): Spki {
  return readSpki(reader.raw(TAG.sequence));
}
