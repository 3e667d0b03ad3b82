/** Requests of a verified TLS peer: who is at the other end of the connection, or behind the trusted proxy there, and may. */
import { type Clock, systemClock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';
import type { SpiffeId } from '../id.ts';
import type { Logger } from '../logger.ts';
import { type Matcher, requireMatch } from '../match.ts';
import { tlsPeer, type TlsPeer } from '../tls/tls.ts';
import type { ForwardedCaller, X509Caller } from './caller.ts';
import { type Guard, guard, incomingOf, type NodeRequest, oneHeader } from './guard.ts';
import { parseXfcc } from './xfcc.ts';

/** What a guard by certificate goes by. */
export interface RequireSpiffeIdOptions {
  /** Told of every request that is refused, once. Default: nobody. */
  readonly log?: Logger | undefined;
  /** Default: the system's. */
  readonly clock?: Pick<Clock, 'now'> | undefined;
  /** Proxies that end the TLS of others before us. Default: none, and `x-forwarded-client-cert` is not looked at. */
  readonly forwarded?: ForwardedOptions | undefined;
}

/** Which proxies are believed, and how they write. */
export interface ForwardedOptions {
  /**
   * The proxies, by the SPIFFE ID that they show us. What they send is always somebody else's request: their word says whose, whatever trust domain it is of,
   * and without `x-forwarded-client-cert` it is nobody's. Every other peer is its own caller, and that header of its is not looked at.
   */
  readonly trusted: Matcher;
  /** `one` (default): the proxy replaces what it was sent (Envoy's SANITIZE_SET), and more elements than one are refused. `last`: it appends (APPEND_FORWARD). */
  readonly elements?: 'one' | 'last' | undefined;
}

/** There is no registered scheme for certificates; RFC 9110 §15.5.2 wants one all the same. */
const CHALLENGE = 'X509-SVID realm="spiffe"';

/**
 * Lets through requests of a TLS peer whose X.509-SVID was verified by `spiffe/tls`, has not expired since, and whose identity `matcher` allows.
 * Connections that were not verified there, plain ones too, have no caller. Throws REQUEST_INVALID at once for proxies that are no matcher.
 */
export function requireSpiffeId(matcher: Matcher, options?: RequireSpiffeIdOptions & { readonly forwarded?: undefined }): Guard<X509Caller>;
export function requireSpiffeId(matcher: Matcher, options: RequireSpiffeIdOptions): Guard<X509Caller | ForwardedCaller>;
export function requireSpiffeId(matcher: Matcher, options: RequireSpiffeIdOptions = {}): Guard<X509Caller | ForwardedCaller> {
  const { log, clock = systemClock, forwarded } = options;
  if (forwarded && typeof forwarded.trusted !== 'function')
    throw new SpiffeError('REQUEST_INVALID', undefined, 'the trusted proxies must be a matcher, such as matchId(…)');
  const caller = (request: NodeRequest): X509Caller | ForwardedCaller => {
    const peer = callerOf(peerOf(request), clock.now());
    return forwarded && isTrusted(forwarded.trusted, peer.id) ? behind(peer, request, forwarded.elements ?? 'one') : peer;
  };
  return guard<X509Caller | ForwardedCaller>({
    node: caller,
    web: (context) => {
      const incoming = incomingOf(context);
      if (!incoming)
        throw new SpiffeError('UNIMPLEMENTED', undefined, 'no connection to be seen: certificates of callers need @hono/node-server');
      return caller(incoming);
    },
    authorize: matcher,
    challenge: () => CHALLENGE,
    via: 'x509',
    log,
  });
}

/**
 * In HTTP/2 the socket is a Proxy in front of the one that was verified; the session is what whoever serves it may have named.
 * The Proxy binds every method to the real socket, so that `valueOf` gives it.
 */
function peerOf(request: NodeRequest & { readonly stream?: { readonly session?: object | undefined } | null }): TlsPeer | undefined {
  const { socket, stream } = request;
  const session = stream?.session;
  return tlsPeer(socket) ?? (session && tlsPeer(session)) ?? tlsPeer(socket.valueOf());
}

function callerOf(peer: TlsPeer | undefined, nowMs: number): X509Caller {
  if (!peer) throw new SpiffeError('UNAUTHENTICATED', 'X509_CHAIN_EMPTY', 'the connection has no verified peer');
  const { id, certificateSha256, notAfterMs } = peer;
  // was good at the handshake; a connection may outlive it. Written so that a clock without a time lets nobody pass
  if (!(nowMs <= notAfterMs))
    throw new SpiffeError('SVID_EXPIRED', 'X509_EXPIRED', `the certificate of ${id} was good until ${new Date(notAfterMs).toISOString()}`);
  return Object.freeze({ via: 'x509', id, certificateSha256, notAfterMs });
}

function isTrusted(trusted: Matcher, id: SpiffeId): boolean {
  try {
    requireMatch(trusted, id);
    return true;
  } catch {
    return false;
  }
}

function behind(proxy: X509Caller, request: NodeRequest, elements: 'one' | 'last'): ForwardedCaller {
  const header = oneHeader(
    request,
    'x-forwarded-client-cert',
    () => new SpiffeError('UNAUTHENTICATED', 'XFCC_REPEATED', 'more than one x-forwarded-client-cert header'),
  );
  if (header === undefined)
    throw new SpiffeError(
      'UNAUTHENTICATED',
      'XFCC_MISSING',
      `the proxy ${proxy.id} sent no x-forwarded-client-cert: its client showed no certificate`,
    );
  const { id, by, hash } = parseXfcc(header, elements);
  // what another proxy has written was handed on, not written, by this one
  if (by && !by.equals(proxy.id))
    throw new SpiffeError('UNAUTHENTICATED', 'XFCC_BY', `x-forwarded-client-cert is by ${by}, and came from ${proxy.id}`);
  return Object.freeze({ via: 'xfcc', id, proxy, certificateSha256: hash });
}
