/** JWT-SVIDs (JWT-SVID, RFC 7515, RFC 7519): validated by the keys of the trust domain that `sub` names, and signed. */
import { inspect } from 'node:util';
import type { JwtAuthority, JwtBundleSource } from '../bundle/bundle.ts';
import { under } from '../x509/der.ts';
import { type Code, type Reason, SpiffeError } from '../errors.ts';
import { SpiffeId } from '../id.ts';
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from '../json.ts';
import { base64url } from './jwk.ts';
import { isJwtAlgorithm, JWT_ALGORITHMS, type JwtAlgorithmName, jwtAlgorithmFits, verifyJws } from './jwt-algorithm.ts';

/** Above any HTTP server's limit for a header; what a stranger may make us read. */
export const MAX_TOKEN_BYTES = 64 * 1024;
/** AMB-14: the leeway on `exp` and `nbf` unless the caller says otherwise, and the most that it may say. */
export const DEFAULT_CLOCK_TOLERANCE_MS = 60_000;
export const MAX_CLOCK_TOLERANCE_MS = 120_000;
/** Keys that are tried for a token without `kid`. */
const MAX_CANDIDATES = 16;
/** The end of the year 9999, in seconds: later dates cannot be told, and 1e300 is no date. */
const MAX_NUMERIC_DATE = 253_402_300_799;

export interface JwtHeader {
  readonly alg: JwtAlgorithmName;
  readonly kid: string | undefined;
  readonly typ: 'JWT' | 'JOSE' | undefined;
}

interface Facts {
  readonly id: SpiffeId;
  readonly header: JwtHeader;
  readonly audience: readonly string[];
  readonly expiresMs: number;
  readonly notBeforeMs: number | undefined;
  readonly issuedAtMs: number | undefined;
  readonly claims: JsonObject;
}

/** A token and what it says. Immutable; shows no token to a logger, since whoever has it can use it. */
export class JwtSvid {
  /** `sub`. */
  readonly id: SpiffeId;
  readonly header: JwtHeader;
  /** `aud`, one or more. */
  readonly audience: readonly string[];
  readonly expiresMs: number;
  readonly notBeforeMs: number | undefined;
  /** Told, never judged: nothing is refused for its `iat`. */
  readonly issuedAtMs: number | undefined;
  /** All claims. Integers beyond 2^53 are bigint. */
  readonly claims: JsonObject;
  /** What the server calls this identity; '' for none. */
  readonly hint: string;
  readonly #token: string;

  /** Only `validateJwtSvid` and `parseJwtSvidUnverified` make one. */
  constructor(token: string, facts: Facts, hint: string) {
    this.#token = token;
    this.id = facts.id;
    this.header = facts.header;
    this.audience = facts.audience;
    this.expiresMs = facts.expiresMs;
    this.notBeforeMs = facts.notBeforeMs;
    this.issuedAtMs = facts.issuedAtMs;
    this.claims = facts.claims;
    this.hint = hint;
  }

  /** The compact form, as it came. */
  get token(): string {
    return this.#token;
  }

  toJSON(): { readonly id: string; readonly audience: readonly string[]; readonly expiresAt: string; readonly hint: string } {
    return { id: this.id.toString(), audience: this.audience, expiresAt: new Date(this.expiresMs).toISOString(), hint: this.hint };
  }

  [inspect.custom](): string {
    return `JwtSvid(${this.id}, for ${this.audience.join(' ')}, until ${new Date(this.expiresMs).toISOString()}, token not shown)`;
  }
}

export interface ValidateJwtOptions {
  /** One of them must be in `aud`, letter for letter. Empty is refused (JWT-34). */
  readonly audience: readonly string[];
  readonly bundles: JwtBundleSource;
  readonly nowMs: number;
  /** Leeway on `exp` and `nbf`. Default 60,000; at most 120,000. */
  readonly clockToleranceMs?: number;
  /** Refuse tokens without `kid`, as go-spiffe does. Default false: all fitting keys are tried (JWT-9). */
  readonly requireKid?: boolean;
}

/**
 * Validates a token by every rule of JWT-SVID §4: `alg` before anything else, then form, dates and audience; `sub` picks the trust domain,
 * and only that domain's JWT authorities are asked.
 * Throws SVID_INVALID (form), SVID_EXPIRED (`exp`, `nbf`), SVID_UNTRUSTED (key, signature), BUNDLE_MISSING (no bundle of that domain),
 * REQUEST_INVALID (options that would let anything pass).
 */
export function validateJwtSvid(token: string, options: ValidateJwtOptions): JwtSvid {
  const { audience, bundles, nowMs, clockToleranceMs = DEFAULT_CLOCK_TOLERANCE_MS } = options;
  if (audience.length === 0 || audience.some((one) => one === '')) {
    throw new SpiffeError('REQUEST_INVALID', 'JWT_EXPECTED_AUDIENCE', 'the expected audience is empty: name at least one');
  }
  if (!(clockToleranceMs >= 0 && clockToleranceMs <= MAX_CLOCK_TOLERANCE_MS) || !Number.isFinite(nowMs)) {
    throw new SpiffeError('REQUEST_INVALID', 'JWT_EXP', `the clock tolerance must be from 0 to ${MAX_CLOCK_TOLERANCE_MS} ms`);
  }
  const jws = readJws(token);
  const facts = readFacts(jws);
  if (options.requireKid && facts.header.kid === undefined) throw invalid('JWT_KID_MISSING', 'the token has no key id');
  if (nowMs - clockToleranceMs >= facts.expiresMs)
    throw refuse('SVID_EXPIRED', 'JWT_EXPIRED', `token has expired: it was good until ${new Date(facts.expiresMs).toISOString()}`);
  if (facts.notBeforeMs !== undefined && nowMs + clockToleranceMs < facts.notBeforeMs) {
    throw refuse('SVID_EXPIRED', 'JWT_NOT_YET_VALID', `not valid before ${new Date(facts.notBeforeMs).toISOString()}`);
  }
  if (!facts.audience.some((one) => audience.includes(one))) {
    throw invalid(
      'JWT_AUD_UNEXPECTED',
      `expected audience in ${JSON.stringify(audience)} (audience=${clip(JSON.stringify(facts.audience))})`,
    );
  }
  const candidates = authoritiesFor(facts, bundles);
  const signed = Buffer.from(jws.signed, 'latin1');
  for (const authority of candidates) {
    if (verifyJws(facts.header.alg, signed, authority.publicKey, jws.signature)) return new JwtSvid(token, facts, '');
  }
  throw refuse('SVID_UNTRUSTED', 'JWT_SIGNATURE', `the signature is not that of a JWT authority of ${facts.id.trustDomain}`);
}

/**
 * Reads a token that somebody else has validated, such as the Workload API from which it came. Every rule of form holds; signature, dates and
 * audience are not looked at. Throws SVID_INVALID.
 */
export function parseJwtSvidUnverified(token: string, options: { readonly hint?: string } = {}): JwtSvid {
  return new JwtSvid(token, readFacts(readJws(token)), options.hint ?? '');
}

/** The keys that may have signed, never more than the trust domain of `sub` has. */
function authoritiesFor(facts: Facts, bundles: JwtBundleSource): readonly JwtAuthority[] {
  const { trustDomain } = facts.id;
  const { alg, kid } = facts.header;
  const bundle = bundles.jwtBundle(trustDomain);
  if (!bundle?.trustDomain.equals(trustDomain))
    throw refuse('BUNDLE_MISSING', 'JWT_BUNDLE_MISSING', `no JWT bundle found for trust domain ${JSON.stringify(trustDomain.name)}`);
  if (bundle.isEmpty)
    throw refuse('SVID_UNTRUSTED', 'JWT_AUTHORITIES_MISSING', `no JWT authorities for trust domain ${JSON.stringify(trustDomain.name)}`);
  if (kid !== undefined) {
    const authority = bundle.authorities.get(kid);
    if (!authority)
      throw refuse(
        'SVID_UNTRUSTED',
        'JWT_AUTHORITY_UNKNOWN',
        `no JWT authority ${clip(JSON.stringify(kid))} found for trust domain ${JSON.stringify(trustDomain.name)}`,
      );
    if (!jwtAlgorithmFits(alg, authority.spki.kind))
      throw refuse('SVID_UNTRUSTED', 'JWT_KEY_TYPE', `the JWT authority ${clip(JSON.stringify(kid))} cannot sign ${alg}`);
    return [authority];
  }
  const fitting = [...bundle.authorities.values()].filter((authority) => jwtAlgorithmFits(alg, authority.spki.kind)).slice(-MAX_CANDIDATES);
  if (fitting.length === 0) throw refuse('SVID_UNTRUSTED', 'JWT_KEY_TYPE', `no JWT authority of ${trustDomain} can sign ${alg}`);
  return fitting;
}

interface Jws {
  readonly header: JwtHeader;
  /** header.payload, as it came. */
  readonly signed: string;
  readonly payload: string;
  readonly signature: Buffer;
}

/** Header first, and `alg` first of the header: nothing of a token with another algorithm is looked at (JWT-7). */
function readJws(token: string): Jws {
  if (token.length > MAX_TOKEN_BYTES) throw invalid('JWT_TOO_LARGE', `longer than ${MAX_TOKEN_BYTES} bytes`);
  const first = token.indexOf('.');
  const second = token.indexOf('.', first + 1);
  if (first <= 0 || second < 0 || token.indexOf('.', second + 1) >= 0)
    throw invalid('JWT_SERIALIZATION', 'not a JWS in compact serialization');
  const header = readPart(token.slice(0, first), 'header');
  const { alg, typ, kid } = header as { alg?: JsonValue; typ?: JsonValue; kid?: JsonValue };
  if (!isJwtAlgorithm(alg))
    throw invalid(
      'JWT_ALG',
      alg === undefined
        ? 'the header has no alg'
        : `unsupported token signature algorithm ${typeof alg === 'string' ? clip(JSON.stringify(alg)) : 'that is no text'}`,
    );
  if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE') throw invalid('JWT_TYP', 'token header type not equal to either JWT or JOSE');
  // We understand no critical header, so each is one too many (RFC 7515 §4.1.11). `b64` would change what is signed.
  if ('crit' in header || 'b64' in header) throw invalid('JWT_CRIT', 'a critical header that is not understood');
  if (kid !== undefined && (typeof kid !== 'string' || kid === '')) throw invalid('JWT_KID', 'kid is not a non-empty string');
  const signature = base64url(token.slice(second + 1));
  if (!signature || signature.length === 0) throw invalid('JWT_ENCODING', 'the signature is not base64url');
  return { header: { alg, kid, typ }, signed: token.slice(0, second), payload: token.slice(first + 1, second), signature };
}

function readPart(part: string, what: string): JsonObject {
  const bytes = base64url(part);
  if (!bytes) throw invalid('JWT_ENCODING', `the ${what} is not base64url`);
  const value = under('SVID_INVALID', `the ${what} of the token`, () => parseJson(bytes, { maxBytes: MAX_TOKEN_BYTES, maxDepth: 16 }));
  if (!isJsonObject(value)) throw invalid('JWT_JSON', `the ${what} of the token is no JSON object`);
  return value;
}

function readFacts(jws: Jws): Facts {
  return factsOf(jws.header, readPart(jws.payload, 'payload'));
}

function factsOf(header: JwtHeader, claims: JsonObject): Facts {
  const { sub, aud, exp, nbf, iat } = claims as Partial<Record<'sub' | 'aud' | 'exp' | 'nbf' | 'iat', JsonValue>>;
  const audience = readAudience(aud);
  if (exp === undefined || exp === null) throw invalid('JWT_EXP_MISSING', 'token missing exp claim');
  return {
    id: readSubject(sub),
    header,
    audience,
    expiresMs: numericDateMs(exp, 'JWT_EXP', 'exp'),
    notBeforeMs: nbf === undefined ? undefined : numericDateMs(nbf, 'JWT_NBF', 'nbf'),
    issuedAtMs: typeof iat === 'number' ? iat * 1000 : undefined,
    claims,
  };
}

/** JWT-13. A trust domain's own ID names no workload and is refused, where go-spiffe lets it pass. */
function readSubject(sub: JsonValue | undefined): SpiffeId {
  if (typeof sub !== 'string' || sub === '') throw invalid('JWT_SUB', 'token missing subject claim');
  let id: SpiffeId;
  try {
    id = SpiffeId.parse(sub);
  } catch (cause) {
    throw new SpiffeError('SVID_INVALID', 'JWT_SUB', `token has an invalid subject claim: ${(cause as Error).message}`, { cause });
  }
  if (id.path === '') throw invalid('JWT_SUB', `token has an invalid subject claim: the SPIFFE ID ${id} has no path`);
  return id;
}

function readAudience(aud: JsonValue | undefined): readonly string[] {
  const list = typeof aud === 'string' ? [aud] : aud;
  if (list === undefined || list === null || (isJsonArray(list) && list.length === 0))
    throw invalid('JWT_AUD_MISSING', 'token missing audience claim');
  if (!isJsonArray(list) || !list.every((one): one is string => typeof one === 'string' && one !== '')) {
    throw invalid('JWT_AUD', 'the audience claim is not one or more non-empty strings');
  }
  return list;
}

/** RFC 7519 §2: seconds, perhaps with a fraction. */
function numericDateMs(value: JsonValue, reason: Reason, claim: string): number {
  if (typeof value !== 'number' || Math.abs(value) > MAX_NUMERIC_DATE) throw invalid(reason, `the ${claim} claim is not a date in seconds`);
  return value * 1000;
}

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
 * Writes and signs a token in compact form; its header has `alg`, `kid` and `typ` and nothing else (JWT-3). Checked by the reader of this file.
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

function clip(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}

function refuse(code: Code, reason: Reason, why: string): SpiffeError {
  return new SpiffeError(code, reason, why);
}

function invalid(reason: Reason, why: string): SpiffeError {
  return refuse('SVID_INVALID', reason, why);
}
