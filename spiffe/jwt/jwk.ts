/** Public keys as JWK (RFC 7517, RFC 7518 §6): written from their DER, read with every member checked. */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { readWhole, TAG } from '../x509/der.ts';
import { type Reason, SpiffeError } from '../errors.ts';
import type { JsonObject, JsonValue } from '../json.ts';
import { type Curve, keyWeakness, readSpki, type Spki } from '../x509/spki.ts';

export type PublicJwk =
  | { readonly kty: 'EC'; readonly crv: Curve; readonly x: string; readonly y: string }
  | { readonly kty: 'RSA'; readonly n: string; readonly e: string }
  | { readonly kty: 'OKP'; readonly crv: 'Ed25519'; readonly x: string };

const COORDINATE_BYTES: Readonly<Record<Curve, number>> = { 'P-256': 32, 'P-384': 48, 'P-521': 66 };
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];

/** Strict: the URL alphabet, no padding, no stray bits. Undefined when it is anything else. */
export function base64url(text: JsonValue | undefined): Buffer | undefined {
  if (typeof text !== 'string') return undefined;
  const bytes = Buffer.from(text, 'base64url');
  return bytes.toString('base64url') === text ? bytes : undefined;
}

/** Undefined: a kind of key that JWK cannot carry, or that we do not know. Never exports through OpenSSL: see `core/x509/key.ts`. */
export function jwkOf(spki: Spki): PublicJwk | undefined {
  const { kind, bits } = spki;
  if (kind.type === 'ec') {
    const size = COORDINATE_BYTES[kind.curve];
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

/**
 * The key of a JWK, of the kinds that JWT-SVIDs use; undefined for one that must be ignored (unknown `kty` or curve: TDB-16, RFC 7517 §5).
 * Throws BUNDLE_INVALID with BUNDLE_JWK for one that is malformed, private, or too weak to be a key.
 */
export function importJwk(jwk: JsonObject): { readonly key: KeyObject; readonly spki: Spki } | undefined {
  const { kty, crv } = jwk as { kty?: JsonValue; crv?: JsonValue };
  if (PRIVATE_MEMBERS.some((member) => member in jwk))
    throw fault('BUNDLE_JWK', 'a private or symmetric key where a public key belongs: its owner must replace it');
  let members: { kty: string; crv?: string; x?: string; y?: string; n?: string; e?: string };
  if (kty === 'EC') {
    if (typeof crv === 'string' && !Object.hasOwn(COORDINATE_BYTES, crv)) return undefined;
    const size = typeof crv === 'string' ? COORDINATE_BYTES[crv as Curve] : undefined;
    const [x, y] = [base64url(jwk['x']), base64url(jwk['y'])];
    if (size === undefined || x?.length !== size || y?.length !== size) throw fault('BUNDLE_JWK', 'an EC key with malformed crv, x or y');
    members = { kty, crv: crv as Curve, x: jwk['x'] as string, y: jwk['y'] as string };
  } else if (kty === 'RSA') {
    if (!base64url(jwk['n'])?.length || !base64url(jwk['e'])?.length) throw fault('BUNDLE_JWK', 'an RSA key with malformed n or e');
    members = { kty, n: jwk['n'] as string, e: jwk['e'] as string };
  } else if (typeof kty === 'string') return undefined;
  else throw fault('BUNDLE_JWK', 'a key without kty');
  try {
    const key = createPublicKey({ format: 'jwk', key: members });
    const spki = readSpki(key.export({ type: 'spki', format: 'der' }));
    const weakness = keyWeakness(spki.kind);
    if (weakness) throw new SpiffeError('BUNDLE_INVALID', weakness.reason, weakness.why);
    return { key, spki };
  } catch (cause) {
    if (cause instanceof SpiffeError && cause.code === 'BUNDLE_INVALID') throw cause;
    throw new SpiffeError('BUNDLE_INVALID', 'BUNDLE_JWK', `a key of kty ${kty} that is no key`, { cause });
  }
}

function fault(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('BUNDLE_INVALID', reason, why);
}
