/** The nine algorithms of JWT-SVID §2.1: one table for signing and for verifying. There is no other way in. Needs no Node. */
import type { Curve, KeyKind } from '../key-kind.ts';

export interface JwtAlgorithm {
  readonly hash: 'sha256' | 'sha384' | 'sha512';
  /** What kind of key; for EC the one curve that the algorithm means. */
  readonly key: { readonly type: 'rsa' } | { readonly type: 'ec'; readonly curve: Curve };
  /** For EC: the exact length of r‖s. A signature in DER is another length or fails. */
  readonly signatureBytes: number | undefined;
  /** RSA only. */
  readonly pss: boolean;
}

/** The nine `alg` that a JWT-SVID may have (JWT-SVID §2.1). */
export const JWT_ALGORITHM_NAMES = ['RS256', 'RS384', 'RS512', 'ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512'] as const;
/** One of the nine. */
export type JwtAlgorithmName = (typeof JWT_ALGORITHM_NAMES)[number];

const rsa = (hash: JwtAlgorithm['hash'], pss: boolean): JwtAlgorithm => ({ hash, key: { type: 'rsa' }, signatureBytes: undefined, pss });
const ec = (hash: JwtAlgorithm['hash'], curve: Curve, signatureBytes: number): JwtAlgorithm => ({
  hash,
  key: { type: 'ec', curve },
  signatureBytes,
  pss: false,
});

export const JWT_ALGORITHMS: Readonly<Record<JwtAlgorithmName, JwtAlgorithm>> = {
  RS256: rsa('sha256', false),
  RS384: rsa('sha384', false),
  RS512: rsa('sha512', false),
  ES256: ec('sha256', 'P-256', 64),
  ES384: ec('sha384', 'P-384', 96),
  ES512: ec('sha512', 'P-521', 132),
  PS256: rsa('sha256', true),
  PS384: rsa('sha384', true),
  PS512: rsa('sha512', true),
};

export function isJwtAlgorithm(name: unknown): name is JwtAlgorithmName {
  return typeof name === 'string' && (JWT_ALGORITHM_NAMES as readonly string[]).includes(name);
}

/** What a key of this kind signs with, as SPIRE chooses; undefined for a kind that JWT-SVIDs do not know (JWT-5). */
export function jwtAlgorithmFor(kind: KeyKind): JwtAlgorithmName | undefined {
  if (kind.type === 'rsa') return 'RS256';
  if (kind.type !== 'ec') return undefined;
  return kind.curve === 'P-256' ? 'ES256' : kind.curve === 'P-384' ? 'ES384' : 'ES512';
}

/** For a `SigningKey` of core: hash, raw r‖s instead of DER, and the RSA padding. */
export function jwtSignOptions(name: JwtAlgorithmName): {
  readonly hash: JwtAlgorithm['hash'];
  readonly ecdsa: 'ieee-p1363';
  readonly rsa: 'pkcs1' | 'pss';
} {
  const { hash, pss } = JWT_ALGORITHMS[name];
  return { hash, ecdsa: 'ieee-p1363', rsa: pss ? 'pss' : 'pkcs1' };
}

/** Whether a key of this kind can have made a signature of this algorithm. */
export function jwtAlgorithmFits(name: JwtAlgorithmName, kind: KeyKind): boolean {
  const { key } = JWT_ALGORITHMS[name];
  return key.type === 'ec' ? kind.type === 'ec' && kind.curve === key.curve : kind.type === 'rsa';
}
