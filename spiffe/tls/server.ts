/** The server's side of SPIFFE TLS: whoever is handed on has been verified and authorized. mTLS, TLS, or a certificate of the Web PKI with mTLS. */
import { createServer, type Server, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { type Clock, systemClock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { matchAny } from '../match.ts';
import type { X509Svid } from '../x509/x509-svid.ts';
import { LiveConnections } from './live.ts';
import { checkMode, type ServerMode } from './mode.ts';
import { TlsServer, type WebCertificate } from './tls.ts';

/** What a server goes by: a mode, and how connections end. */
export type TlsServerSettings = ServerMode & {
  /** Default: the system's. */
  readonly clock?: Clock | undefined;
  /** A handshake longer than this is given up. Default 10 s. */
  readonly handshakeMs?: number | undefined;
  /** Connections stay when an SVID ends or the client's trust goes. Default false: they are told at 85 to 95 % of their life, and end with the SVIDs. */
  readonly keep?: boolean | undefined;
  /** Told of every connection that was refused, and why: the client hears nothing of that. Default: nobody. */
  readonly log?: Logger | undefined;
  /** Told why a connection that was good ends within a second: the client, or our own identity, is not trusted any more. */
  readonly onUntrusted?: ((socket: TLSSocket, error: unknown) => void) | undefined;
};

const HANDSHAKE_MS = 10_000;

export interface Acceptor {
  readonly alpn?: readonly string[] | undefined;
  /** A verified connection; gives how its user is told that it takes nothing new and when it ends, if he can be told. */
  readonly onConnection: (socket: TLSSocket, shown: X509Svid | WebCertificate) => ((endMs: number) => void) | void;
  readonly onRefused?: ((error: unknown, socket: Socket) => void) | undefined;
}

/** Makes of TCP connections verified ones. The newest SVID is shown to each; holds nothing that needs closing. */
export class TlsAcceptor {
  readonly #settings: TlsServerSettings;
  readonly #acceptor: Acceptor;
  readonly #live: LiveConnections;
  readonly #clock: Clock;
  /** One for each SVID, so that a handshake that is under way when the next one comes still knows what it showed. */
  #newest: { readonly tls: TlsServer; readonly shown: X509Svid | WebCertificate } | undefined;

  /** Throws REQUEST_INVALID when something is missing. */
  constructor(settings: TlsServerSettings, acceptor: Acceptor) {
    checkMode('server', settings);
    this.#settings = settings;
    this.#acceptor = acceptor;
    this.#clock = settings.clock ?? systemClock;
    const { source, authorize, clock, keep, log, onUntrusted } = settings;
    this.#live = new LiveConnections({ source, authorize, role: 'server', clock, keep, log, onUntrusted });
  }

  /** Refuses at once when we have no SVID to show. */
  accept(socket: Socket): void {
    let tls: TlsServer;
    try {
      tls = this.#current();
    } catch (error) {
      this.#refused(error, socket);
      socket.destroy();
      return;
    }
    tls.accept(socket);
  }

  /** Judges the clients of all live connections anew: call it when `authorize` would now answer differently. */
  recheck(): Promise<void> {
    return this.#live.recheck();
  }

  #current(): TlsServer {
    const settings = this.#settings;
    const shown = settings.mode === 'mtls-web' ? settings.certificate() : settings.source.svid;
    if (this.#newest && same(shown, this.#newest.shown)) return this.#newest.tls;
    const ends = 'notAfterMs' in shown ? shown.notAfterMs : undefined;
    const tls = new TlsServer({
      svid: shown,
      client: settings.mode === 'tls' ? 'none' : 'required',
      bundles: settings.source,
      authorize: settings.authorize ?? matchAny(),
      clock: this.#clock,
      handshakeMs: settings.handshakeMs ?? HANDSHAKE_MS,
      ...(this.#acceptor.alpn && { alpn: this.#acceptor.alpn }),
      onConnection: (socket) => this.#live.add(socket, ends, this.#acceptor.onConnection(socket, shown) ?? undefined),
      onRefused: (error, socket) => this.#refused(error, socket),
    });
    this.#newest = { tls, shown };
    return tls;
  }

  #refused(error: unknown, socket: Socket): void {
    try {
      this.#settings.log?.warn('Connection refused', { address: socket.remoteAddress, error });
    } catch {
      // the logger is the user's
    }
    this.#acceptor.onRefused?.(error, socket);
  }
}

/** A server whose listener gets verified connections only. Listen and close as any server of node:net; its `tlsClientError` tells of each one refused. */
export function createSpiffeServer(
  settings: TlsServerSettings & { readonly alpn?: readonly string[] | undefined },
  onConnection: (socket: TLSSocket) => void,
): Server {
  const server = createServer({ pauseOnConnect: true });
  const acceptor = new TlsAcceptor(settings, {
    alpn: settings.alpn,
    onConnection,
    onRefused: (error, socket) => void server.emit('tlsClientError', error, socket),
  });
  server.on('connection', (socket) => acceptor.accept(socket));
  return server;
}

/**
 * Puts TLS before a server that handles plain connections, of node:http or node:http2: what it gets are verified ones.
 * @param serve given each one and the server's own handling of it; gives how its user is told that it takes nothing new
 */
export function feed(
  server: Server,
  settings: TlsServerSettings,
  alpn: readonly string[],
  serve: (socket: TLSSocket, handle: (socket: TLSSocket) => void) => (() => void) | void,
): void {
  const handlers = server.listeners('connection');
  server.removeAllListeners('connection');
  const handle = (socket: TLSSocket) => {
    for (const one of handlers) Reflect.apply(one, server, [socket]);
  };
  const acceptor = new TlsAcceptor(settings, {
    alpn,
    onConnection: (socket) => serve(socket, handle),
    onRefused: (error, socket) => void server.emit('tlsClientError', error, socket),
  });
  server.on('connection', (socket) => acceptor.accept(socket));
}

function same(a: X509Svid | WebCertificate, b: X509Svid | WebCertificate): boolean {
  return a === b || ('cert' in a && 'cert' in b && a.cert === b.cert && a.key === b.key);
}
