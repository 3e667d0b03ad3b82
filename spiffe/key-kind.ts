/** What kinds of public keys there are to us, and which are too weak or too dear to be used. Needs no Node. */
import type { Reason } from './errors.ts';

export type Curve = 'P-256' | 'P-384' | 'P-521';

/** What a key is, told from its encoding alone, before a crypto library sees it. */
export type KeyKind =
  | { readonly type: 'ec'; readonly curve: Curve }
  | { readonly type: 'rsa' | 'rsa-pss'; readonly bits: number }
  | { readonly type: 'ed25519' }
  /** Something we cannot verify with; a trust anchor may hold such a key, and then signs nothing that we accept. */
  | { readonly type: 'unknown'; readonly algorithm: string };

/** Below: broken in practice. Above: a signature check that a stranger can make cost us milliseconds. */
export const MIN_RSA_BITS = 2048;
export const MAX_RSA_BITS = 8192;

/** Why this key may not sign or authenticate, or undefined. */
export function keyWeakness(kind: KeyKind): { readonly reason: Reason; readonly why: string } | undefined {
  if (kind.type === 'unknown') return { reason: 'KEY_UNSUPPORTED', why: `a key of an unsupported kind (${kind.algorithm})` };
  if (kind.type === 'rsa' || kind.type === 'rsa-pss') {
    if (kind.bits < MIN_RSA_BITS) return { reason: 'KEY_WEAK', why: `an RSA key of ${kind.bits} bits, fewer than ${MIN_RSA_BITS}` };
    if (kind.bits > MAX_RSA_BITS) return { reason: 'KEY_TOO_LARGE', why: `an RSA key of ${kind.bits} bits, more than ${MAX_RSA_BITS}` };
  }
  return undefined;
}

/** For messages: `EC P-256`, `RSA 2048`. */
export function keyKindText(kind: KeyKind): string {
  if (kind.type === 'ec') return `EC ${kind.curve}`;
  if (kind.type === 'unknown') return kind.algorithm;
  return kind.type === 'ed25519' ? 'Ed25519' : `${kind.type.toUpperCase()} ${kind.bits}`;
}

/** How many bits the modulus of an RSA key has, or undefined for numbers that no RSA key has. @param modulus and exponent: unsigned, big-endian, without leading zeros. */
export function rsaBits(modulus: Uint8Array, exponent: Uint8Array): number | undefined {
  const [top] = modulus;
  const odd = (octets: Uint8Array) => ((octets.at(-1) ?? 0) & 1) === 1;
  if (top === undefined || top === 0 || !odd(modulus)) return undefined;
  // from 3 to 2^63
  const [first = 0] = exponent;
  if (first === 0 || exponent.length > 8 || (exponent.length === 8 && first >= 0x80) || !odd(exponent)) return undefined;
  if (exponent.length === 1 && first === 1) return undefined;
  return modulus.length * 8 - Math.clz32(top) + 24;
}
