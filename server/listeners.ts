/** Where callers come: TCP with TLS for agents and remote operators, a UNIX socket for those on this machine. */
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { RpcServer } from '../core/rpc.ts';
import { listenUnix } from '../core/unix-socket.ts';
import type { X509BundleSource } from '../spiffe/bundle.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';
import { SpiffeError } from '../spiffe/errors.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { sameAuthority } from '../spiffe/path.ts';
import { type TlsPeer, TlsServer, tlsPeer } from '../spiffe/tls.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';

export interface Listener {
  /** Takes no more connections; those that there are stay. */
  close(): Promise<void>;
}

export interface TlsListenerParts {
  readonly address: string;
  readonly port: number;
  readonly rpc: RpcServer;
  readonly svid: X509Svid;
  readonly bundles: X509BundleSource;
  readonly trustDomain: TrustDomain;
  /** The CA certificates of this server, of now and before. */
  readonly issuers: () => readonly Certificate[];
  readonly isForeignAdmin: (id: SpiffeId) => boolean;
  readonly clock: Clock;
  readonly log: Log;
  /** Ends what waits for certificates to end. */
  readonly signal: AbortSignal;
  /** Handshakes that take longer are given up. Default 10 s. */
  readonly handshakeMs?: number;
}

export interface TlsListener extends Listener {
  readonly port: number;
  /** What new connections see from now on. */
  rotate(svid: X509Svid): void;
}

const MAX_CONNECTIONS = 20_000;
/** Connections that have not finished their handshake; in all, and from one address. */
const MAX_HALF_OPEN = 1_024;
const MAX_HALF_OPEN_PER_ADDRESS = 128;
const HANDSHAKE_MS = 10_000;

/** Throws FAILED_PRECONDITION when the address is taken or is none of ours. */
export async function listenTls(parts: TlsListenerParts): Promise<TlsListener> {
  const { rpc, trustDomain, clock, log, signal } = parts;
  const halfOpen = new HalfOpen();
  const tls = new TlsServer({
    svid: parts.svid,
    client: 'optional',
    alpn: ['h2'],
    bundles: parts.bundles,
    clock,
    handshakeMs: parts.handshakeMs ?? HANDSHAKE_MS,
    authorize: (peer) => authorize(peer, parts),
    onConnection: (socket) => {
      halfOpen.done(socket);
      const peer = tlsPeer(socket);
      if (peer) void endWithCertificate(socket, peer.notAfterMs, clock, signal);
      rpc.accept(socket, {
        kind: 'tls',
        address: addressOf(socket),
        id: peer?.id,
        certificateSha256: peer?.certificateSha256 ?? '',
        notAfterMs: peer?.notAfterMs ?? Number.POSITIVE_INFINITY,
        connection: socket,
      });
    },
    onRefused: (error, socket) => {
      halfOpen.done(socket);
      log.debug('Connection refused', { address: addressOf(socket), error });
    },
  });
  const { server } = tls;
  server.maxConnections = MAX_CONNECTIONS;
  server.on('drop', () => log.warn('Connection refused: too many', { count: MAX_CONNECTIONS }));
  server.on('connection', (socket: Socket) => {
    if (halfOpen.add(socket)) return;
    log.debug('Connection refused: too many unfinished handshakes', { address: addressOf(socket) });
    socket.destroy();
  });
  await new Promise<void>((done, refuse) => {
    server.once('error', (cause) =>
      refuse(fail('FAILED_PRECONDITION', `unable to listen on ${parts.address}:${parts.port}: ${cause.message}`, { cause })),
    );
    server.listen(parts.port, parts.address, done);
  });
  server.on('error', (error) => log.error('The TCP listener failed', { error }));
  const { port } = server.address() as AddressInfo;
  log.info('Starting Server APIs', { address: `${parts.address}:${port}`, network: 'tcp', trust_domain: trustDomain.name });
  return {
    port,
    rotate: (svid) => tls.rotate(svid),
    close: () => new Promise((done) => (server.listening ? (server.close(), done()) : done())),
  };
}

/**
 * After the path was verified: a peer of our own trust domain must have been issued by this server's own authorities. The bundle holds the enterprise's root,
 * and whoever else has an intermediate below it could make certificates in our name. A peer of another trust domain must be named in `admin_ids`.
 */
function authorize({ id, chain }: TlsPeer, { trustDomain, issuers, isForeignAdmin }: TlsListenerParts): void {
  if (!id.memberOf(trustDomain)) {
    if (isForeignAdmin(id)) return;
    throw new SpiffeError('UNAUTHENTICATED', 'ID_NOT_MEMBER', `client ${id} is of another trust domain and not named in admin_ids`);
  }
  const ours = issuers();
  if (chain.slice(1).some((one) => ours.some((issuer) => sameAuthority(issuer, one)))) return;
  throw new SpiffeError('UNAUTHENTICATED', 'PATH_NOT_FOUND', `client ${id} was not issued by this server`);
}

/** No connection outlives the certificate that opened it. */
async function endWithCertificate(socket: TLSSocket, notAfterMs: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const closed = new AbortController();
  socket.once('close', () => closed.abort());
  const either = AbortSignal.any([signal, closed.signal]);
  try {
    // in pieces: the wall clock may jump
    for (let left = notAfterMs - clock.now(); left > 0; left = notAfterMs - clock.now())
      await clock.sleep(Math.min(left, 60_000), either, { ref: false });
    socket.destroy();
  } catch {
    // closed before
  }
}

/** Connections in their handshake. */
class HalfOpen {
  readonly #byPeer = new Map<string, Map<number, Socket>>();
  #count = 0;

  /** False: there are too many. */
  add(socket: Socket): boolean {
    const [address, port] = [addressOf(socket), socket.remotePort ?? 0];
    const ports = this.#byPeer.get(address) ?? new Map<number, Socket>();
    if (this.#count >= MAX_HALF_OPEN || ports.size >= MAX_HALF_OPEN_PER_ADDRESS) return false;
    this.#byPeer.set(address, ports.set(port, socket));
    this.#count++;
    socket.once('close', () => this.#remove(address, port));
    return true;
  }

  /** The TLS socket has another object and the same peer. */
  done(socket: Socket): void {
    this.#remove(addressOf(socket), socket.remotePort ?? 0);
  }

  #remove(address: string, port: number): void {
    const ports = this.#byPeer.get(address);
    if (!ports?.delete(port)) return;
    this.#count--;
    if (ports.size === 0) this.#byPeer.delete(address);
  }
}

function addressOf(socket: Socket): string {
  // IPv4 on a socket of both
  return (socket.remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '');
}

/** The admin socket: whoever may open it may do everything, so only its owner and group can. */
export async function listenAdmin(parts: { readonly path: string; readonly rpc: RpcServer; readonly log: Log }): Promise<Listener> {
  const { path, rpc, log } = parts;
  const listener = await listenUnix({
    path,
    mode: 0o770,
    directoryMode: 0o750,
    maxConnections: 1_024,
    log,
    onConnection: (socket, { pid, uid, gid, pidfd }) => {
      rpc.accept(socket, { kind: 'process', pid, uid, gid, pidfd, connection: socket });
      // it was accepted without reading; whoever reads now stands ready
      socket.resume();
    },
  });
  log.info('Starting Server APIs', { address: listener.path, network: 'unix' });
  return listener;
}
