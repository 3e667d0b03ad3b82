/** Public keys as JWK (RFC 7517, RFC 7518 §6), every member checked. Needs no Node. */
import { base64url, base64urlOf } from '../base64.ts';
import { type Reason, SpiffeError } from '../errors.ts';
import type { JsonObject, JsonValue } from '../json.ts';
import { type Curve, type KeyKind, keyWeakness, rsaBits } from '../key-kind.ts';

export type EcJwk = { readonly kty: 'EC'; readonly crv: Curve; readonly x: string; readonly y: string };
export type RsaJwk = { readonly kty: 'RSA'; readonly n: string; readonly e: string };
export type PublicJwk = EcJwk | RsaJwk | { readonly kty: 'OKP'; readonly crv: 'Ed25519'; readonly x: string };

/** The kinds of keys that JWT-SVIDs know (JWT-5). */
export type JwtKeyKind = Extract<KeyKind, { type: 'ec' }> | { readonly type: 'rsa'; readonly bits: number };

/** y² = x³ − 3x + b over p (FIPS 186-4 D.1.2). */
const CURVES: Readonly<Record<Curve, { readonly bytes: number; readonly p: bigint; readonly b: bigint }>> = {
  'P-256': {
    bytes: 32,
    p: 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n,
    b: 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn,
  },
  'P-384': {
    bytes: 48,
    p: 2n ** 384n - 2n ** 128n - 2n ** 96n + 2n ** 32n - 1n,
    b: 0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aefn,
  },
  'P-521': {
    bytes: 66,
    p: 2n ** 521n - 1n,
    b: 0x051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00n,
  },
};
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];

/** How many bytes a coordinate of the curve has. */
export function coordinateBytes(curve: Curve): number {
  return CURVES[curve].bytes;
}

/**
 * The key of a JWK, of the kinds that JWT-SVIDs use; undefined for one that must be ignored (unknown `kty` or curve: TDB-16, RFC 7517 §5).
 * Throws BUNDLE_INVALID with BUNDLE_JWK for one that is malformed or private, KEY_WEAK or KEY_TOO_LARGE for one that may not be used.
 */
export function readJwk(jwk: JsonObject): { readonly kind: JwtKeyKind; readonly jwk: EcJwk | RsaJwk } | undefined {
  const { kty, crv } = jwk as { kty?: JsonValue; crv?: JsonValue };
  if (PRIVATE_MEMBERS.some((member) => member in jwk))
    throw fault('BUNDLE_JWK', 'a private or symmetric key where a public key belongs: its owner must replace it');
  if (kty === 'EC') {
    if (typeof crv === 'string' && !Object.hasOwn(CURVES, crv)) return undefined;
    const curve = typeof crv === 'string' ? CURVES[crv as Curve] : undefined;
    const [x, y] = [base64url(jwk['x']), base64url(jwk['y'])];
    if (!curve || x?.length !== curve.bytes || y?.length !== curve.bytes) throw fault('BUNDLE_JWK', 'an EC key with malformed crv, x or y');
    if (!isOnCurve(crv as Curve, x, y)) throw fault('BUNDLE_JWK', 'a key of kty EC that is no key: the point is not on its curve');
    return { kind: { type: 'ec', curve: crv as Curve }, jwk: { kty, crv: crv as Curve, x: jwk['x'] as string, y: jwk['y'] as string } };
  }
  if (kty === 'RSA') {
    const [n, e] = [base64url(jwk['n']), base64url(jwk['e'])];
    if (!n?.length || !e?.length) throw fault('BUNDLE_JWK', 'an RSA key with malformed n or e');
    // RFC 7518 §6.3.1.1 warns of writers who put a zero in front
    const [modulus, exponent] = [unsigned(n), unsigned(e)];
    const bits = rsaBits(modulus, exponent);
    if (bits === undefined) throw fault('BUNDLE_JWK', 'a key of kty RSA that is no key');
    const kind = { type: 'rsa', bits } as const;
    const weakness = keyWeakness(kind);
    if (weakness) throw fault(weakness.reason, weakness.why);
    return { kind, jwk: { kty, n: base64urlOf(modulus), e: base64urlOf(exponent) } };
  }
  if (typeof kty === 'string') return undefined;
  throw fault('BUNDLE_JWK', 'a key without kty');
}

/** Whether these coordinates are those of a point. Microseconds; a crypto library would tell as well, once it has read the key. */
export function isOnCurve(curve: Curve, xBytes: Uint8Array, yBytes: Uint8Array): boolean {
  const { p, b } = CURVES[curve];
  const [x, y] = [numberOf(xBytes), numberOf(yBytes)];
  return x < p && y < p && (y * y - (x * x * x - 3n * x + b)) % p === 0n;
}

function numberOf(bytes: Uint8Array): bigint {
  let hex = '0x';
  for (const byte of bytes) hex += HEX[byte];
  return BigInt(hex);
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

function unsigned(bytes: Uint8Array): Uint8Array {
  let from = 0;
  while (from < bytes.length - 1 && bytes[from] === 0) from++;
  return bytes.subarray(from);
}

function fault(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('BUNDLE_INVALID', reason, why);
}
