/** Writing and signing JWT-SVIDs (JWT-SVID §2 and §3). Checked by the reader before they exist. */
import { type Reason, SpiffeError } from '../errors.ts';
import type { JsonObject } from '../json.ts';
import { JWT_ALGORITHMS, type JwtAlgorithmName } from './jwt-algorithm.ts';
import { factsOf, type JwtHeader, JwtSvid, MAX_TOKEN_BYTES } from './jwt-svid.ts';

export interface JwtSvidTemplate {
  readonly alg: JwtAlgorithmName;
  /** Never empty, though the specification would allow it: go-spiffe and SPIRE refuse tokens without (JWT-8). */
  readonly kid: string;
  readonly claims: JwtClaims;
}

/** `sub`, `aud` and `exp` are what the specification demands; seconds, not milliseconds. */
export interface JwtClaims {
  readonly sub: string;
  readonly aud: readonly string[];
  readonly exp: number;
  readonly iat?: number;
  readonly iss?: string;
  readonly jti?: string;
  readonly [claim: string]: unknown;
}

/**
 * Writes and signs a token in compact form; its header has `alg`, `kid` and `typ` and nothing else (JWT-3). Checked by the reader's own rules.
 * @param sign hashes and signs as `jwtSignOptions(alg)` says: raw r‖s for EC.
 * Throws SVID_INVALID for claims that we would refuse ourselves, and what `sign` throws.
 */
export async function signJwtSvid(template: JwtSvidTemplate, sign: (data: Buffer) => Promise<Uint8Array>): Promise<JwtSvid> {
  const { alg, kid, claims } = template;
  if (kid === '') throw invalid('JWT_KID', 'the key id is empty');
  // JWT-19: others read `exp` as an integer.
  if (!Number.isInteger(claims.exp)) throw invalid('JWT_EXP', 'the exp claim is not an integer');
  const header: JwtHeader = { alg, kid, typ: 'JWT' };
  const payload = JSON.stringify(claims);
  // Before the signature: a token that breaks the rules never exists, not even for us. The text is our own: it needs no strict reader.
  const facts = factsOf(header, JSON.parse(payload) as JsonObject);
  const signed = `${base64urlOf(JSON.stringify(header))}.${base64urlOf(payload)}`;
  const { signatureBytes } = JWT_ALGORITHMS[alg];
  const signature = Buffer.from(await sign(Buffer.from(signed, 'latin1')));
  if (signatureBytes !== undefined && signature.length !== signatureBytes)
    throw invalid('JWT_SIGNATURE', `a signature of ${signature.length} bytes where ${alg} has ${signatureBytes}`);
  const token = `${signed}.${signature.toString('base64url')}`;
  if (token.length > MAX_TOKEN_BYTES) throw invalid('JWT_TOO_LARGE', `longer than ${MAX_TOKEN_BYTES} bytes`);
  return new JwtSvid(token, facts, '');
}

function base64urlOf(text: string): string {
  return Buffer.from(text).toString('base64url');
}

function invalid(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('SVID_INVALID', reason, why);
}
