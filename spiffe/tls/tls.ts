/**
 * The one place that does TLS. OpenSSL's verdict is off: it pools trust domains, and skips its checks on resumed sessions. Instead the peer's chain is read once,
 * right after the handshake (which has proven that the peer holds the key), and judged by `verifyX509Svid` before a byte is handed on.
 */
import { type X509BundleSource } from '../x509/x509-bundle.ts';
import { constants } from 'node:crypto';
import { isIP, type Socket } from 'node:net';
import {
  checkServerIdentity,
  createSecureContext,
  type DetailedPeerCertificate,
  type SecureContext,
  type SecureContextOptions,
  Server,
  TLSSocket,
  type TlsOptions,
  connect as tlsConnect,
} from 'node:tls';
import { Certificate } from '../x509/certificate.ts';
import { type Clock, systemClock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';
import type { SpiffeId } from '../id.ts';
import { requireMatch } from '../match.ts';
import type { PathOptions } from '../x509/path.ts';
import { verifyX509Svid, type X509Svid } from '../x509/x509-svid.ts';

/** Who a verified peer is. */
export interface TlsPeer {
  readonly id: SpiffeId;
  /** Leaf, the intermediates that led on, the authority (after an insecure handshake: as presented). */
  readonly chain: readonly Certificate[];
  /** SHA-256 of the leaf's DER, hex. */
  readonly certificateSha256: string;
  /** When the leaf ends, in milliseconds since 1970. */
  readonly notAfterMs: number;
}

/** As a `Matcher`, with more to go by. Runs after the peer's SVID was verified. */
export type Authorize = (id: SpiffeId, peer: TlsPeer) => boolean | void;

const peers = new WeakMap<object, TlsPeer>();

/**
 * Who is at the other end: of a socket that this file verified, of an HTTP/2 session or stream over it, of a request or response of node:http and node:http2.
 * Undefined for everything else, and for a peer that showed no certificate.
 */
export function tlsPeer(from: object): TlsPeer | undefined {
  // only what is in the map counts: whatever else these members may hold says nothing
  const { session, stream, socket } = from as { session?: unknown; stream?: unknown; socket?: unknown };
  return known(from) ?? known(session) ?? known((stream as { session?: unknown } | null | undefined)?.session) ?? known(socket);
}

function known(thing: unknown): TlsPeer | undefined {
  return typeof thing === 'object' && thing !== null ? peers.get(thing) : undefined;
}

/** From now on `tlsPeer` tells of this session what it tells of the socket below it, which Node hides behind a proxy. */
export function tlsPeerOver(session: object, socket: TLSSocket): void {
  const peer = peers.get(socket);
  if (peer) peers.set(session, peer);
}

/** SPIFFE's TLS, both ends: 1.3, no tickets, no anchors for OpenSSL to judge by. Given again in full at every swap: Node forgets what is left out. */
const PROTOCOL: SecureContextOptions & { ca: [] } = {
  minVersion: 'TLSv1.3',
  maxVersion: 'TLSv1.3',
  ca: [],
  secureOptions: constants.SSL_OP_NO_TICKET,
};

/** What a web server shows: PEM, leaf first, and its key. */
export interface WebCertificate {
  readonly cert: string;
  readonly key: string;
}

/** The certificates and the key as Node names them. */
function shown(svid: X509Svid | WebCertificate): WebCertificate {
  if ('cert' in svid) return svid;
  const { certificates, key } = svid.toPem();
  return { cert: certificates, key };
}

/** The key leaves us only into a TLS context. */
export function secureContext(svid: X509Svid): SecureContext {
  return createSecureContext({ ...PROTOCOL, ...shown(svid) });
}

const contexts = new WeakMap<X509Svid, SecureContext>();

function contextOf(svid: X509Svid): SecureContext {
  const known = contexts.get(svid);
  if (known) return known;
  const made = secureContext(svid);
  contexts.set(svid, made);
  return made;
}

export interface Judge {
  readonly bundles: X509BundleSource;
  readonly authorize: Authorize;
  readonly clock?: Clock;
  /** Further conditions on the path, such as the issuing certificates it must pass. */
  readonly path?: () => Omit<PathOptions, 'nowMs'>;
}

/** Judges the peer of a finished handshake by the chain it showed; throws SpiffeError. */
function judge(socket: TLSSocket, chainDer: readonly Buffer[], by: Judge): TlsPeer {
  const peer = judgeChain(chainDer, by);
  peers.set(socket, peer);
  return peer;
}

function judgeChain(chainDer: readonly Buffer[], { bundles, authorize, clock = systemClock, path }: Judge): TlsPeer {
  const { id, chain } = verifyX509Svid(chainDer, bundles, { ...path?.(), nowMs: clock.now() });
  const [leaf] = chain;
  if (!leaf) throw new SpiffeError('SVID_INVALID', 'X509_CHAIN_EMPTY', 'the peer showed no certificate');
  const peer: TlsPeer = { id, chain, certificateSha256: leaf.sha256, notAfterMs: leaf.notAfterMs };
  requireMatch(authorize, id, peer);
  return peer;
}

/** The chain as the peer sent it, leaf first; empty when it sent none. To be called once per socket, before anything else looks: Node's getter consumes the chain. */
function presented(socket: TLSSocket): Buffer[] {
  const chain: Buffer[] = [];
  for (let certificate = socket.getPeerX509Certificate(); certificate && chain.length < 9; certificate = certificate.issuerCertificate) {
    chain.push(certificate.raw);
  }
  return chain;
}

/** A client's handshake longer than this is given up. */
const HANDSHAKE_MS = 10_000;

export interface TlsClientOptions extends Judge {
  /** What we show when asked; undefined: nothing. */
  readonly svid: X509Svid | undefined;
  readonly alpn?: readonly string[];
  /** The host as it was dialled: sent as SNI when it is a DNS name. Says nothing about who must answer. */
  readonly host?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** TLS over a connected socket; resolves once the server is verified and authorized. Closes the socket when it is not, or when the signal aborts before. */
export function connectTls(socket: Socket, options: TlsClientOptions): Promise<TLSSocket> {
  return handshake(socket, options, (tls) => judge(tls, presented(tls), options));
}

/**
 * For the first contact of an agent that was told `insecure_bootstrap`: any chain is taken if its leaf names `expected`. Proves nothing of who is there.
 * Gives the presented chain, so that the caller can go on with what it has seen.
 */
export function insecureConnectTls(
  socket: Socket,
  options: {
    readonly expected: SpiffeId;
    readonly svid: X509Svid | undefined;
    readonly alpn?: readonly string[];
    readonly signal?: AbortSignal;
  },
): Promise<TLSSocket> {
  return handshake(socket, options, (tls) => {
    const chain = presented(tls).map((der) => Certificate.parse(der));
    const [leaf] = chain;
    const uris = leaf?.uris ?? [];
    if (!leaf || uris.length !== 1 || uris[0] !== String(options.expected)) {
      throw new SpiffeError(
        'SVID_UNTRUSTED',
        'ID_NOT_MEMBER',
        `unexpected server: wants ${options.expected}, saw ${uris.join(', ') || 'no SPIFFE ID'}`,
      );
    }
    peers.set(tls, {
      id: options.expected,
      chain,
      certificateSha256: leaf.sha256,
      notAfterMs: leaf.notAfterMs,
    });
  });
}

interface Handshake {
  readonly svid: X509Svid | undefined;
  readonly alpn?: readonly string[];
  readonly host?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

function handshake(socket: Socket, options: Handshake, check: (tls: TLSSocket) => void): Promise<TLSSocket> {
  const { svid, alpn, host } = options;
  const tls = tlsConnect({
    ...PROTOCOL,
    socket,
    ...(svid && { secureContext: contextOf(svid) }),
    ...(alpn && { ALPNProtocols: [...alpn] }),
    ...(host !== undefined && isIP(host) === 0 && { servername: host }),
    // judged below, by the bundle of the peer's own trust domain
    rejectUnauthorized: false,
  });
  return finished(tls, options, check);
}

export interface WebTlsClientOptions {
  /** What we show when asked. */
  readonly svid: X509Svid | undefined;
  /** The name or IP address that the server's certificate must have. */
  readonly host: string;
  /** PEM of the authorities to trust. Default: those that Node comes with. */
  readonly roots?: string | readonly string[] | undefined;
  readonly alpn?: readonly string[];
  readonly signal?: AbortSignal | undefined;
}

/** TLS to a server with a certificate of the Web PKI, judged by Node: authority, dates and name. It has no SPIFFE ID, and `tlsPeer` is undefined. */
export function connectWebTls(socket: Socket, options: WebTlsClientOptions): Promise<TLSSocket> {
  const { svid, host, roots, alpn } = options;
  const tls = tlsConnect({
    socket,
    minVersion: 'TLSv1.2',
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
    ...(svid && shown(svid)),
    ...(roots !== undefined && { ca: typeof roots === 'string' ? roots : [...roots] }),
    ...(alpn && { ALPNProtocols: [...alpn] }),
    ...(isIP(host) === 0 && { servername: host }),
    host,
    // with an IP address Node would take the name from `host` only if nothing were given
    checkServerIdentity: (_, certificate) => checkServerIdentity(host, certificate),
    rejectUnauthorized: true,
  });
  return finished(tls, options, () => {
    if (!tls.authorized)
      throw new SpiffeError('SVID_UNTRUSTED', undefined, `the certificate of ${host} is not trusted: ${String(tls.authorizationError)}`);
  });
}

/** For TLS that somebody else makes: whatever the environment says, a connection that OpenSSL does not trust comes to nothing. */
export const VERDICT_ON = { rejectUnauthorized: true } as const;
export type VerdictOn = typeof VERDICT_ON;

/** The same versions as ours, for TLS that somebody else makes. */
export const VERSIONS = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' } as const;

/**
 * Judges a server that OpenSSL has let through, by the chain that Node gives to `checkServerIdentity`: the one shown, led on to one of the anchors. Node does not
 * call it for a connection that OpenSSL refuses, nor on resumed sessions. Throws SpiffeError.
 */
export function judgeServerIdentity(certificate: DetailedPeerCertificate, by: Judge): TlsPeer {
  const chain: Buffer[] = [];
  // an authority that signs itself is its own issuer here
  for (let one = certificate; one?.raw && chain.length < 9 && !chain.at(-1)?.equals(one.raw); one = one.issuerCertificate)
    chain.push(one.raw);
  return judgeChain(chain, by);
}

/** A context whose anchors are these authorities alone, none of which need be a root. */
export function anchoredContext(svid: X509Svid | undefined, authorities: readonly string[]): SecureContext {
  return createSecureContext({ ...PROTOCOL, ...(svid && shown(svid)), ca: [...authorities], allowPartialTrustChain: true });
}

/** The protocol that was agreed on. Who knows no ALPN speaks HTTP/1.1. */
function speaks(tls: TLSSocket, wanted: readonly string[]): boolean {
  return tls.alpnProtocol ? wanted.includes(tls.alpnProtocol) : wanted.includes('http/1.1');
}

function finished(
  tls: TLSSocket,
  options: { readonly alpn?: readonly string[]; readonly signal?: AbortSignal | undefined },
  check: (tls: TLSSocket) => void,
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const limit = AbortSignal.timeout(HANDSHAKE_MS);
    const either = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
    const end = (error: unknown) => {
      either.removeEventListener('abort', abort);
      tls.destroy();
      reject(error);
    };
    const abort = () =>
      end(
        options.signal?.aborted
          ? options.signal.reason
          : new SpiffeError('UNAVAILABLE', undefined, `TLS handshake took longer than ${HANDSHAKE_MS} ms`),
      );
    either.addEventListener('abort', abort, { once: true });
    tls.once('error', end);
    tls.once('close', () => end(new SpiffeError('UNAVAILABLE', undefined, 'the connection ended during the TLS handshake')));
    tls.once('secureConnect', () => {
      try {
        const wanted = options.alpn;
        if (wanted && !speaks(tls, wanted))
          throw new SpiffeError('UNAVAILABLE', undefined, `the server speaks none of ${wanted.join(', ')}`);
        check(tls);
      } catch (error) {
        return end(error);
      }
      either.removeEventListener('abort', abort);
      tls.off('error', end);
      tls.removeAllListeners('close');
      resolve(tls);
    });
  });
}

export interface TlsServerOptions extends Judge {
  readonly svid: X509Svid | WebCertificate;
  /** `required`: a client without a certificate is refused. `optional`: it is handed on, and `tlsPeer` is undefined. `none`: nobody is asked for one. */
  readonly client: 'required' | 'optional' | 'none';
  readonly alpn?: readonly string[];
  /** Default 10 s. */
  readonly handshakeMs?: number;
  /** Verified connections only. */
  readonly onConnection: (socket: TLSSocket) => void;
  /** Told of every connection that came to nothing, and why. */
  readonly onRefused?: (error: unknown, socket: Socket) => void;
}

/** A TLS server that hands on only verified connections. Feed it with accepted sockets (`emit('connection')` via `accept`) or let it listen. */
export class TlsServer {
  readonly server: Server;
  readonly #options: TlsServerOptions;

  constructor(options: TlsServerOptions) {
    this.#options = options;
    this.server = new Server(this.#tlsOptions(options.svid));
    this.server.on('secureConnection', (socket) => this.#handOn(socket));
    this.server.on('tlsClientError', (error, socket) => {
      options.onRefused?.(error, socket);
      socket.destroy();
    });
  }

  /** Serves a TCP connection that somebody else accepted. */
  accept(socket: Socket): void {
    this.server.emit('connection', socket);
  }

  /** From now on new connections see this SVID; those that are open keep theirs. */
  rotate(svid: X509Svid | WebCertificate): void {
    this.server.setSecureContext(this.#tlsOptions(svid));
  }

  #tlsOptions(svid: X509Svid | WebCertificate): TlsOptions {
    return {
      ...PROTOCOL,
      ...shown(svid),
      requestCert: this.#options.client !== 'none',
      // judged in #handOn, by the bundle of the peer's own trust domain
      rejectUnauthorized: false,
      handshakeTimeout: this.#options.handshakeMs ?? HANDSHAKE_MS,
      ...(this.#options.alpn && { ALPNProtocols: [...this.#options.alpn] }),
    };
  }

  #handOn(socket: TLSSocket): void {
    const options = this.#options;
    socket.on('error', () => socket.destroy());
    try {
      if (options.alpn && !speaks(socket, options.alpn)) {
        throw new SpiffeError('REQUEST_INVALID', undefined, `the client speaks none of ${options.alpn.join(', ')}`);
      }
      const chain = presented(socket);
      if (chain.length > 0) judge(socket, chain, options);
      else if (options.client === 'required')
        throw new SpiffeError('UNAUTHENTICATED', 'X509_CHAIN_EMPTY', 'the client showed no certificate');
    } catch (error) {
      options.onRefused?.(error, socket);
      return void socket.destroy();
    }
    options.onConnection(socket);
  }
}
