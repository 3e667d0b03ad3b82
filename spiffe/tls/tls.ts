/**
 * The one place that does TLS. OpenSSL's verdict is off: it pools trust domains, and skips its checks on resumed sessions. Instead the peer's chain is read once,
 * right after the handshake (which has proven that the peer holds the key), and judged by `verifyX509Svid` before a byte is handed on.
 */
import { type X509BundleSource } from '../x509/x509-bundle.ts';
import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import {
  createSecureContext,
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
  readonly notAfterMs: number;
}

/** As a `Matcher`, with more to go by. Runs after the peer's SVID was verified. */
export type Authorize = (id: SpiffeId, peer: TlsPeer) => boolean | void;

const peers = new WeakMap<object, TlsPeer>();

/** Who is at the other end of a socket that this file verified; undefined for any other socket, and for a client that showed no certificate. */
export function tlsPeer(socket: object): TlsPeer | undefined {
  return peers.get(socket);
}

/** SPIFFE's TLS, both ends: 1.3, no tickets, no anchors for OpenSSL to judge by. Given again in full at every swap: Node forgets what is left out. */
const PROTOCOL: SecureContextOptions & { ca: [] } = {
  minVersion: 'TLSv1.3',
  maxVersion: 'TLSv1.3',
  ca: [],
  secureOptions: constants.SSL_OP_NO_TICKET,
};

/** The certificates and the key as Node names them. */
function shown(svid: X509Svid): { cert: string; key: string } {
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

interface Judge {
  readonly bundles: X509BundleSource;
  readonly authorize: Authorize;
  readonly clock?: Clock;
  /** Further conditions on the path, such as the issuing certificates it must pass. */
  readonly path?: () => Omit<PathOptions, 'nowMs'>;
}

/** Judges the peer of a finished handshake by the chain it showed; throws SpiffeError. */
function judge(socket: TLSSocket, chainDer: readonly Buffer[], { bundles, authorize, clock = systemClock, path }: Judge): TlsPeer {
  const { id, chain } = verifyX509Svid(chainDer, bundles, { ...path?.(), nowMs: clock.now() });
  const [leaf] = chain;
  if (!leaf) throw new SpiffeError('SVID_INVALID', 'X509_CHAIN_EMPTY', 'the peer showed no certificate');
  const peer: TlsPeer = { id, chain, certificateSha256: leaf.sha256, notAfterMs: leaf.notAfterMs };
  requireMatch(authorize, id, peer);
  peers.set(socket, peer);
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
  readonly signal?: AbortSignal;
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

function handshake(
  socket: Socket,
  options: { readonly svid: X509Svid | undefined; readonly alpn?: readonly string[]; readonly signal?: AbortSignal },
  check: (tls: TLSSocket) => void,
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const tls = tlsConnect({
      ...PROTOCOL,
      socket,
      ...(options.svid && { secureContext: contextOf(options.svid) }),
      ...(options.alpn && { ALPNProtocols: [...options.alpn] }),
      // judged below, by the bundle of the peer's own trust domain
      rejectUnauthorized: false,
    });
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
        if (wanted && !wanted.includes(tls.alpnProtocol || ''))
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
  readonly svid: X509Svid;
  /** `required`: a client without a certificate is refused. `optional`: it is handed on, and `tlsPeer` is undefined. */
  readonly client: 'required' | 'optional';
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
  rotate(svid: X509Svid): void {
    this.server.setSecureContext(this.#tlsOptions(svid));
  }

  #tlsOptions(svid: X509Svid): TlsOptions {
    return {
      ...PROTOCOL,
      ...shown(svid),
      requestCert: true,
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
      if (options.alpn && !options.alpn.includes(socket.alpnProtocol || '')) {
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
