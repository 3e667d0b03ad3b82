/** Where callers come: TCP with TLS for agents and remote operators, a UNIX socket for those on this machine. */
import { type X509BundleSource } from '../spiffe/x509/x509-bundle.ts';
import { type AddressInfo, createServer } from 'node:net';
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { connectionsWithin, openFilesLimit } from '../core/open-files.ts';
import { createRpcServer, type RpcServer, type RpcServerSettings } from '../core/rpc.ts';
import { Shares } from '../core/shares.ts';
import { listenUnix } from '../core/unix-socket.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';
import { SpiffeError } from '../spiffe/errors.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { sameAuthority } from '../spiffe/x509/path.ts';
import { type TlsPeer, TlsServer, tlsPeer } from '../spiffe/tls/tls.ts';
import type { X509Svid } from '../spiffe/x509/x509-svid.ts';
import { addressOf, Doorway, networkOf } from './doorway.ts';
import { Endings } from '../spiffe/tls/endings.ts';

export interface Listener {
  /** Takes no more connections; those that there are stay. */
  close(): Promise<void>;
}

export interface TlsListenerParts {
  readonly address: string;
  readonly port: number;
  /** For peers that `isKnown` says yes to. */
  readonly rpc: RpcServer;
  /** For all others; see `createStrangersRpc`. */
  readonly strangers: RpcServer;
  /** Whether it is an agent, an admin or a downstream server. */
  readonly isKnown: (id: SpiffeId) => boolean;
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
  /** Connections that have not finished their handshake. Default: as many as the limit of open files leaves room for, at most 8,192. */
  readonly halfOpen?: number;
  /** Handshakes that take longer are given up. Default 10 s. */
  readonly handshakeMs?: number;
}

export interface TlsListener extends Listener {
  readonly port: number;
  /** What new connections see from now on. */
  rotate(svid: X509Svid): void;
}

/** Of peers that are known: agents, admins, downstream servers. */
const MAX_CONNECTIONS = 20_000;
/** An agent has one, two while it changes certificates, some that died unnoticed. */
const MAX_CONNECTIONS_PER_PEER = 32;
/** Of everybody else: who shows no certificate, and workloads that show theirs. */
const MAX_STRANGERS = 4_096;
/** Connections that have not finished their handshake, and those of them that have begun it. */
const MAX_HALF_OPEN = 8_192;
const MAX_HANDSHAKES = 256;
const HANDSHAKE_MS = 10_000;
/** Messages, calls and connections of strangers: as much as attestation and reading the bundle need. */
const STRANGERS_MESSAGE_BYTES = 128 * 1024;
const STRANGERS_STREAMS = 4_096;
const STRANGERS_STREAMS_PER_CONNECTION = 16;
const STRANGERS_IDLE_MS = 15_000;
const STRANGERS_AGE_MS = 120_000;

/** Serves those who may do no more than anybody, within bounds that keep them from being a burden to the others. */
export function createStrangersRpc(settings: Pick<RpcServerSettings, 'services' | 'gate' | 'log'>): RpcServer {
  const streams = new Shares(STRANGERS_STREAMS);
  return createRpcServer({
    ...settings,
    maxMessageBytes: STRANGERS_MESSAGE_BYTES,
    maxConcurrentStreams: STRANGERS_STREAMS_PER_CONNECTION,
    maxConnectionIdleMs: STRANGERS_IDLE_MS,
    maxConnectionAgeMs: STRANGERS_AGE_MS,
    admit: (peer) => {
      const release = streams.take(peer.kind === 'tls' ? networkOf(peer.address) : '');
      if (!release) throw fail('RESOURCE_EXHAUSTED', 'too many calls of this address at a time');
      return release;
    },
  });
}

/** Throws FAILED_PRECONDITION when the address is taken or is none of ours. */
export async function listenTls(parts: TlsListenerParts): Promise<TlsListener> {
  const { trustDomain, clock, log, signal } = parts;
  const limit = openFilesLimit();
  const connections = connectionsWithin(limit, { connections: MAX_CONNECTIONS + MAX_HALF_OPEN, each: 1 });
  if (connections < MAX_CONNECTIONS + MAX_HALF_OPEN)
    log.warn('The limit of open files is low: fewer agents can be connected at a time; raise RLIMIT_NOFILE', { count: connections });
  const part = connections / (MAX_CONNECTIONS + MAX_HALF_OPEN);
  const doorway = new Doorway({ waiting: parts.halfOpen ?? Math.floor(MAX_HALF_OPEN * part), handshakes: MAX_HANDSHAKES }, clock, log);
  const known = new Shares(Math.floor(MAX_CONNECTIONS * part), MAX_CONNECTIONS_PER_PEER);
  const strangers = new Shares(Math.floor(MAX_STRANGERS * part));
  const endings = new Endings(clock, signal);
  const tls = new TlsServer({
    svid: parts.svid,
    client: 'optional',
    alpn: ['h2'],
    bundles: parts.bundles,
    clock,
    handshakeMs: parts.handshakeMs ?? HANDSHAKE_MS,
    authorize: (_, peer) => authorize(peer, parts),
    onConnection: (socket) => {
      doorway.done(socket);
      const peer = tlsPeer(socket);
      const isKnown = peer !== undefined && parts.isKnown(peer.id);
      const address = addressOf(socket);
      const release = isKnown ? known.take(String(peer.id)) : strangers.take(networkOf(address));
      if (!release) {
        log.debug('Connection refused: too many of this peer', { address, ...(peer && { spiffe_id: String(peer.id) }) });
        socket.destroy();
        return;
      }
      socket.once('close', release);
      if (peer) endings.add(socket, { endMs: peer.notAfterMs });
      (isKnown ? parts.rpc : parts.strangers).accept(socket, {
        kind: 'tls',
        address,
        id: peer?.id,
        certificateSha256: peer?.certificateSha256 ?? '',
        notAfterMs: peer?.notAfterMs ?? Number.POSITIVE_INFINITY,
        connection: socket,
      });
    },
    onRefused: (error, socket) => {
      doorway.done(socket);
      log.debug('Connection refused', { address: addressOf(socket), error });
    },
  });
  // the kernel asks after those that are silent, which costs us nothing: an agent that vanished is noticed within 70 s
  const server = createServer({ pauseOnConnect: true, keepAlive: true, keepAliveInitialDelay: 60_000 }, (socket) =>
    doorway.enter(socket, () => tls.accept(socket)),
  );
  server.maxConnections = connections;
  server.on('drop', () => log.warn('Connection refused: too many', { count: connections }));
  await new Promise<void>((done, refuse) => {
    server.once('error', (cause) =>
      refuse(fail('FAILED_PRECONDITION', `unable to listen on ${parts.address}:${parts.port}: ${cause.message}`, { cause })),
    );
    // whoever comes when the kernel's queue is full is turned away before we hear of him
    server.listen({ port: parts.port, host: parts.address, backlog: 65_535 }, done);
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
