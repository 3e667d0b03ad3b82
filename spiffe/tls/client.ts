/** The client's side of SPIFFE TLS over a connection of its own: mTLS, TLS, or mTLS towards the Web PKI. */
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { type Clock, systemClock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { LiveConnections } from './live.ts';
import { checkMode, type ClientMode } from './mode.ts';
import { connectTls, connectWebTls } from './tls.ts';

/** What a client goes by: a mode, and how connections end. */
export type TlsClientSettings = ClientMode & {
  /** Default: the system's. */
  readonly clock?: Clock | undefined;
  /** Connections stay when an SVID ends or the server's trust goes. Default false: they are told at 60 to 70 % of their life, and end with the SVIDs. */
  readonly keep?: boolean | undefined;
  /** Told of connections that end because trust has gone. Default: nobody. */
  readonly log?: Logger | undefined;
  /** Told why a connection that was good ends within a second: the server, or our own identity, is not trusted any more. */
  readonly onUntrusted?: ((socket: TLSSocket, error: unknown) => void) | undefined;
};

/** Whom to connect to. */
export interface Dial {
  /** A DNS name or an IP address: where the server is. Only in `mtls-web` does it say who must answer. */
  readonly host: string;
  readonly port: number;
  /** Protocols to offer, the best first. Default: none. */
  readonly alpn?: readonly string[] | undefined;
  /** Ends the dialling, not the connection. */
  readonly signal?: AbortSignal | undefined;
  /** Instead of a TCP connection of our own. */
  readonly socket?: Socket | undefined;
  /** What is said in plain on the TCP connection before TLS begins, by protocols that want it so. Its failure ends the dialling. */
  readonly prepare?: ((tcp: Socket, signal: AbortSignal | undefined) => Promise<void>) | undefined;
  /** Tells whoever uses the connection that it takes nothing new, and when it ends (milliseconds since 1970): see `keep`. */
  readonly onDrain?: ((socket: TLSSocket, endMs: number) => void) | undefined;
  /** More for `net.connect`, such as `localAddress`. */
  readonly tcp?: Partial<NetConnectOpts> | undefined;
}

/** Dials servers as one client; the sockets that it gives have been verified and authorized. Holds nothing that needs closing. */
export class TlsClient {
  readonly #settings: TlsClientSettings;
  readonly #live: LiveConnections;

  /** Throws REQUEST_INVALID when something is missing. */
  constructor(settings: TlsClientSettings) {
    checkMode('client', settings);
    this.#settings = settings;
    const { authorize, clock, keep, log, onUntrusted } = settings;
    this.#live = new LiveConnections({ source: settings.source, authorize, role: 'client', clock, keep, log, onUntrusted });
  }

  /** Throws what the source, the handshake or the verification refuses; no byte is sent before. The signal ends the dialling alone. */
  async connect(dial: Dial): Promise<TLSSocket> {
    const { host, port, signal, prepare, onDrain } = dial;
    const settings = this.#settings;
    // before a connection is made that could only fail
    const svid = settings.mode === 'tls' ? undefined : settings.source.svid;
    const alpn = dial.alpn && { alpn: dial.alpn };
    const tcp = dial.socket ?? (await connected({ ...dial.tcp, host, port }, signal));
    try {
      await prepare?.(tcp, signal);
    } catch (error) {
      tcp.destroy();
      throw error;
    }
    const tls =
      settings.mode === 'mtls-web'
        ? await connectWebTls(tcp, { svid, host, roots: settings.roots, signal, ...alpn })
        : await connectTls(tcp, {
            svid,
            bundles: settings.source,
            authorize: settings.authorize,
            clock: settings.clock ?? systemClock,
            host,
            signal,
            ...alpn,
          });
    this.#live.add(tls, svid?.notAfterMs, onDrain && ((endMs) => onDrain(tls, endMs)));
    return tls;
  }

  /** Judges the servers of all live connections anew: call it when `authorize` would now answer differently. */
  recheck(): Promise<void> {
    return this.#live.recheck();
  }
}

/** One connection, verified and authorized: data may be written at once. Who asks for it ends it. Throws REQUEST_INVALID when something is missing, else as `TlsClient.connect`. */
export function connectSpiffe(options: TlsClientSettings & Dial): Promise<TLSSocket> {
  return new TlsClient(options).connect(options);
}

/** A TCP connection; closed when the signal aborts before it is there. */
function connected(options: NetConnectOpts, signal: AbortSignal | undefined): Promise<Socket> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const socket = connect(options);
    const end = (error: unknown) => {
      signal?.removeEventListener('abort', abort);
      socket.destroy();
      reject(error);
    };
    const abort = () => end(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    socket.once('error', end);
    socket.once('connect', () => {
      signal?.removeEventListener('abort', abort);
      socket.off('error', end);
      socket.setNoDelay(true);
      resolve(socket);
    });
  });
}
