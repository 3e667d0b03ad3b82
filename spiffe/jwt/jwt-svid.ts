/** JWT-SVIDs (JWT-SVID, RFC 7515, RFC 7519), validated by the keys of the trust domain that `sub` names. Needs no Node. */
import { asciiBytes, base64url } from '../base64.ts';
import { type Clock, systemClock } from '../clock.ts';
import { type Code, type Reason, SpiffeError, under } from '../errors.ts';
import { SpiffeId } from '../id.ts';
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from '../json.ts';
import { verifyJws, verifyJwsSync } from './jws-verify.ts';
import { isJwtAlgorithm, type JwtAlgorithmName, jwtAlgorithmFits } from './jwt-algorithm.ts';
import type { JwtAuthority, JwtBundleSource } from './jwt-bundle.ts';

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

/** What header and payload say. */
export interface Facts {
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
  /** `exp`, in milliseconds since 1970. */
  readonly expiresMs: number;
  /** `nbf`, in milliseconds since 1970; undefined: the token has none. */
  readonly notBeforeMs: number | undefined;
  /** Told, never judged: nothing is refused for its `iat`. */
  readonly issuedAtMs: number | undefined;
  /** All claims. Integers beyond 2^53 are bigint. */
  readonly claims: JsonObject;
  /** What the server calls this identity; '' for none. */
  readonly hint: string;
  readonly #token: string;

  /** Made by `validateJwtSvid`, `parseJwtSvidUnverified` and `signJwtSvid` only. */
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

  /** Without the token. */
  toJSON(): { readonly id: string; readonly audience: readonly string[]; readonly expiresAt: string; readonly hint: string } {
    return { id: this.id.toString(), audience: this.audience, expiresAt: new Date(this.expiresMs).toISOString(), hint: this.hint };
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `JwtSvid(${this.id}, for ${this.audience.join(' ')}, until ${new Date(this.expiresMs).toISOString()}, token not shown)`;
  }
}

/** What a token is validated against. */
export interface ValidateJwtOptions {
  /** What the validator goes by: one of these must be in `aud`, letter for letter. None is refused (JWT-34). */
  readonly audience: string | readonly string[];
  /** Asked for the bundle of the trust domain that `sub` names, and for no other. */
  readonly bundles: JwtBundleSource;
  /** Default: the system's. */
  readonly clock?: Pick<Clock, 'now'> | undefined;
  /** Leeway on `exp` and `nbf`, in milliseconds. Default 60,000; at most 120,000. */
  readonly clockToleranceMs?: number | undefined;
  /** The longest that `exp` may lie ahead, in milliseconds; the leeway comes on top. Default: no bound but the year 9999. */
  readonly maxLifetimeMs?: number | undefined;
  /** What to do with a token without `kid`. Default `required`: it is refused, as go-spiffe and SPIRE do. `optional`: every key that fits its algorithm is tried (JWT-9). */
  readonly kid?: 'required' | 'optional' | undefined;
}

/**
 * Validates a token by every rule of JWT-SVID §4: `alg` before anything else, then form, dates and audience; `sub` picks the trust domain,
 * and only that domain's JWT authorities are asked.
 * Rejects with SVID_INVALID (form), SVID_EXPIRED (`exp`, `nbf`), SVID_UNTRUSTED (key, signature), BUNDLE_MISSING (no bundle of that domain),
 * REQUEST_INVALID (options that would let anything pass), UNIMPLEMENTED (this runtime cannot check the algorithm or read the key: no word on the
 * signature), or what `bundles` throws.
 */
export async function validateJwtSvid(token: string, options: ValidateJwtOptions): Promise<JwtSvid> {
  const { facts, signed, signature, candidates } = judge(token, options);
  let unable: unknown;
  for (const authority of candidates) {
    try {
      const verdict = verifyJws(facts.header.alg, signed, authority, signature);
      // where it is there already, nobody waits for the next turn
      if (verdict === true || (verdict !== false && (await verdict))) return new JwtSvid(token, facts, '');
    } catch (error) {
      unable ??= error;
    }
  }
  throw unable ?? unsigned(facts);
}

/** The same without waiting, where there is node:crypto (Node, Deno, Bun). Throws UNIMPLEMENTED elsewhere. */
export function validateJwtSvidSync(token: string, options: ValidateJwtOptions): JwtSvid {
  const { facts, signed, signature, candidates } = judge(token, options);
  let unable: unknown;
  for (const authority of candidates) {
    try {
      if (verifyJwsSync(facts.header.alg, signed, authority, signature)) return new JwtSvid(token, facts, '');
    } catch (error) {
      unable ??= error;
    }
  }
  throw unable ?? unsigned(facts);
}

interface Judged {
  readonly facts: Facts;
  readonly signed: Uint8Array;
  readonly signature: Uint8Array;
  /** One or more keys, of the right kind, one of which must have signed. */
  readonly candidates: readonly JwtAuthority[];
}

/** Everything but the signature. */
function judge(token: string, options: ValidateJwtOptions): Judged {
  const { bundles, clockToleranceMs = DEFAULT_CLOCK_TOLERANCE_MS, maxLifetimeMs = Number.POSITIVE_INFINITY, clock = systemClock } = options;
  const audience = typeof options.audience === 'string' ? [options.audience] : options.audience;
  if (!Array.isArray(audience) || audience.length === 0 || audience.some((one) => typeof one !== 'string' || one === '')) {
    throw refuse('REQUEST_INVALID', 'JWT_EXPECTED_AUDIENCE', 'the expected audience is empty: name at least one');
  }
  if (!(clockToleranceMs >= 0 && clockToleranceMs <= MAX_CLOCK_TOLERANCE_MS)) {
    throw refuse('REQUEST_INVALID', 'JWT_EXP', `the clock tolerance must be from 0 to ${MAX_CLOCK_TOLERANCE_MS} ms`);
  }
  if (!(maxLifetimeMs > 0)) throw refuse('REQUEST_INVALID', 'JWT_EXP', 'the longest lifetime must be more than 0 ms');
  const nowMs = clock.now();
  if (!Number.isFinite(nowMs)) throw refuse('REQUEST_INVALID', 'JWT_EXP', 'the clock tells no time');
  const jws = readJws(token);
  const facts = readFacts(jws);
  if (options.kid !== 'optional' && facts.header.kid === undefined) throw invalid('JWT_KID_MISSING', 'the token has no key id');
  if (nowMs - clockToleranceMs >= facts.expiresMs)
    throw refuse('SVID_EXPIRED', 'JWT_EXPIRED', `token has expired: it was good until ${new Date(facts.expiresMs).toISOString()}`);
  if (facts.expiresMs - nowMs > maxLifetimeMs + clockToleranceMs)
    throw invalid('JWT_LIFETIME', `good until ${new Date(facts.expiresMs).toISOString()}, longer than ${maxLifetimeMs} ms from now`);
  if (facts.notBeforeMs !== undefined && nowMs + clockToleranceMs < facts.notBeforeMs) {
    throw refuse('SVID_EXPIRED', 'JWT_NOT_YET_VALID', `not valid before ${new Date(facts.notBeforeMs).toISOString()}`);
  }
  if (!facts.audience.some((one) => audience.includes(one))) {
    throw invalid(
      'JWT_AUD_UNEXPECTED',
      `expected audience in ${JSON.stringify(audience)} (audience=${clip(JSON.stringify(facts.audience))})`,
    );
  }
  return { facts, signed: asciiBytes(jws.signed), signature: jws.signature, candidates: authoritiesFor(facts, bundles) };
}

function unsigned({ id }: Facts): SpiffeError {
  return refuse('SVID_UNTRUSTED', 'JWT_SIGNATURE', `the signature is not that of a JWT authority of ${id.trustDomain}`);
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
    if (!jwtAlgorithmFits(alg, authority.kind))
      throw refuse('SVID_UNTRUSTED', 'JWT_KEY_TYPE', `the JWT authority ${clip(JSON.stringify(kid))} cannot sign ${alg}`);
    return [authority];
  }
  const fitting = [...bundle.authorities.values()].filter((authority) => jwtAlgorithmFits(alg, authority.kind)).slice(-MAX_CANDIDATES);
  if (fitting.length === 0) throw refuse('SVID_UNTRUSTED', 'JWT_KEY_TYPE', `no JWT authority of ${trustDomain} can sign ${alg}`);
  return fitting;
}

interface Jws {
  readonly header: JwtHeader;
  /** header.payload, as it came. */
  readonly signed: string;
  readonly payload: string;
  readonly signature: Uint8Array;
}

/** Header first, and `alg` first of the header: nothing of a token with another algorithm is looked at (JWT-7). */
function readJws(token: string): Jws {
  // the types say so; callers in JavaScript may hand in what a parser of headers gave them
  if (typeof token !== 'string') throw invalid('JWT_SERIALIZATION', 'not a JWS in compact serialization');
  if (token.length > MAX_TOKEN_BYTES) throw invalid('JWT_TOO_LARGE', `longer than ${MAX_TOKEN_BYTES} bytes`);
  const first = token.indexOf('.');
  const second = token.indexOf('.', first + 1);
  if (first <= 0 || second < 0 || token.indexOf('.', second + 1) >= 0)
    throw invalid('JWT_SERIALIZATION', 'not a JWS in compact serialization');
  const header = readHeader(token.slice(0, first));
  const signature = base64url(token.slice(second + 1));
  if (!signature || signature.length === 0) throw invalid('JWT_ENCODING', 'the signature is not base64url');
  return { header, signed: token.slice(0, second), payload: token.slice(first + 1, second), signature };
}

/** All tokens of one key begin alike, so what was read once is not read again. Few, and short: whoever sends others gains nothing by it. */
const headers = new Map<string, JwtHeader>();
const MAX_HEADERS = 64;
const MAX_HEADER_KEPT = 256;

function readHeader(part: string): JwtHeader {
  const known = headers.get(part);
  if (known) return known;
  const header = readPart(part, 'header');
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
  const made: JwtHeader = { alg, kid, typ };
  if (part.length <= MAX_HEADER_KEPT) {
    if (headers.size === MAX_HEADERS) headers.clear();
    headers.set(part, made);
  }
  return made;
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

/** For this room's reader and writer only. */
export function factsOf(header: JwtHeader, claims: JsonObject): Facts {
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

function clip(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}

function refuse(code: Code, reason: Reason, why: string): SpiffeError {
  return new SpiffeError(code, reason, why);
}

function invalid(reason: Reason, why: string): SpiffeError {
  return refuse('SVID_INVALID', reason, why);
}
