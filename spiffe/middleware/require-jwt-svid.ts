/** Requests with a JWT-SVID (JWT-SVID §5.2, RFC 6750 §2.1): who sent one that is meant for us, and may. Needs no Node. */
import { SpiffeError } from '../errors.ts';
import { type JwtSvid, MAX_TOKEN_BYTES, validateJwtSvid, validateJwtSvidSync, type ValidateJwtOptions } from '../jwt/jwt-svid.ts';
import type { JwtBundleSource } from '../jwt/jwt-bundle.ts';
import type { Logger } from '../logger.ts';
import type { Matcher } from '../match.ts';
import type { JwtCaller } from './caller.ts';
import { type Guard, guard, type HonoContext, type NodeRequest, oneHeader } from './guard.ts';

/** What tokens are validated against, and who may pass. */
export interface RequireJwtSvidOptions extends ValidateJwtOptions {
  /** Who of those that the token proves may pass; `matchAny()` for everybody of the trust domains in `bundles`. Default: none, it must be said. */
  readonly authorize: Matcher;
  /** Told of every request that is refused, once; never told a token. Default: nobody. */
  readonly log?: Logger | undefined;
}

/** RFC 9110 §11.4, RFC 6750 §2.1: the name in any case, spaces, one token. */
const BEARER = /^bearer +([A-Za-z0-9._~+/-]+=*)$/i;
/** The name and some spaces. */
const MAX_HEADER_BYTES = MAX_TOKEN_BYTES + 64;

/** RFC 6750 §3: a challenge has a parameter, and `error` only when a token was given. */
const NO_TOKEN = 'Bearer realm="spiffe"';
const BAD_TOKEN = 'Bearer realm="spiffe", error="invalid_token"';

/**
 * Lets through requests with `Authorization: Bearer <JWT-SVID>` whose token is valid for `audience` and whose identity `authorize` allows.
 * Tokens in the query, a form or a cookie are not looked at. Throws REQUEST_INVALID at once for options that would let nobody or anybody pass.
 */
export function requireJwtSvid(options: RequireJwtSvidOptions): Guard<JwtCaller> {
  const { authorize, log } = options;
  const { callerOf, callerSoon } = bearers(options);
  return guard<JwtCaller>({
    node: (request) => callerOf(headerOfNode(request)),
    web: (context) => callerSoon(headerOfWeb(context)),
    authorize,
    challenge,
    via: 'jwt',
    log,
  });
}

/** Why the token is no good is for the log. */
export function challenge({ reason }: SpiffeError): string {
  return reason === 'HTTP_CREDENTIAL_MISSING' ? NO_TOKEN : BAD_TOKEN;
}

/** Who an `Authorization` header proves its sender to be, at once or, where there is no Node, soon. Throws REQUEST_INVALID as `requireJwtSvid`. */
export function bearers(options: ValidateJwtOptions): {
  readonly callerOf: (header: string | undefined) => JwtCaller;
  readonly callerSoon: (header: string | undefined) => Promise<JwtCaller>;
} {
  const audience = typeof options.audience === 'string' ? [options.audience] : [...(options.audience ?? [])];
  const how: ValidateJwtOptions = { ...options, audience };
  checkOptions(how);
  return {
    callerOf(header) {
      const token = tokenOf(header);
      try {
        return callerFrom(validateJwtSvidSync(token, how));
      } catch (error) {
        throw orUnready(error, how.bundles);
      }
    },
    async callerSoon(header) {
      const token = tokenOf(header);
      try {
        return callerFrom(await validateJwtSvid(token, how));
      } catch (error) {
        throw orUnready(error, how.bundles);
      }
    },
  };
}

/** By the validator's own word, which comes before it reads a token; nothing is less of one than ''. */
function checkOptions(how: ValidateJwtOptions): void {
  if (typeof how.bundles?.jwtBundle !== 'function')
    throw new SpiffeError('REQUEST_INVALID', undefined, 'who has the JWT bundles is missing: a source, a BundleSet or a Bundle');
  try {
    validateJwtSvidSync('', how);
  } catch (error) {
    if (error instanceof SpiffeError && error.code === 'REQUEST_INVALID') throw error;
  }
}

function callerFrom(svid: JwtSvid): JwtCaller {
  return Object.freeze({ via: 'jwt', id: svid.id, svid, claims: svid.claims });
}

/** A source that has nothing yet, or was closed, finds no bundle of anybody: that is our fault, not the caller's. Sources say what they wait for. */
function orUnready(error: unknown, bundles: JwtBundleSource & { readonly waitingFor?: string | undefined }): unknown {
  const { waitingFor } = bundles;
  return waitingFor !== undefined && error instanceof SpiffeError && error.code === 'BUNDLE_MISSING'
    ? new SpiffeError('UNAVAILABLE', undefined, waitingFor, { cause: error })
    : error;
}

function headerOfNode(request: NodeRequest): string | undefined {
  return oneHeader(
    request,
    'authorization',
    () => new SpiffeError('UNAUTHENTICATED', 'HTTP_AUTHORIZATION_REPEATED', 'more than one Authorization header'),
  );
}

/** Where a header came twice, Fetch has joined both by a comma, which no token has. */
function headerOfWeb({ req }: HonoContext): string | undefined {
  return req.raw.headers.get('authorization') ?? undefined;
}

function tokenOf(header: string | undefined): string {
  if (header === undefined) throw new SpiffeError('UNAUTHENTICATED', 'HTTP_CREDENTIAL_MISSING', 'no Authorization header');
  if (header.length > MAX_HEADER_BYTES)
    throw new SpiffeError('SVID_INVALID', 'JWT_TOO_LARGE', `an Authorization header of more than ${MAX_HEADER_BYTES} bytes`);
  const [, token] = BEARER.exec(header) ?? [];
  if (token !== undefined) return token;
  throw /^[\s,]*bearer(?:[\s,]|$)/i.test(header)
    ? new SpiffeError('UNAUTHENTICATED', 'HTTP_AUTHORIZATION', 'the Authorization header is not "Bearer" and one token')
    : new SpiffeError('UNAUTHENTICATED', 'HTTP_CREDENTIAL_MISSING', 'the Authorization header has another scheme than Bearer');
}
