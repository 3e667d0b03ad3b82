/** HTTPS/1.1 with SPIFFE: a server whose requests come from verified clients alone, and an agent whose requests go to verified servers alone. */
import { createServer, type RequestListener, type Server, type ServerOptions } from 'node:http';
import { Agent, type AgentOptions } from 'node:https';
import type { Duplex } from 'node:stream';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { TlsClient, type TlsClientSettings } from './client.ts';
import { feed, type TlsServerSettings } from './server.ts';

const ALPN = ['http/1.1'] as const;

/** Of `createHttpsServer`. */
export type HttpsServerSettings = TlsServerSettings & {
  /** As for `http.createServer`: limits and timeouts of requests. */
  readonly http?: ServerOptions | undefined;
};

/**
 * A genuine server of node:http, for every framework that takes one, fed with verified connections. `tlsPeer(request)` tells who asks. Its event
 * `tlsClientError` tells of each connection that was refused. A connection that is to end answers its next request with `Connection: close`.
 */
export function createHttpsServer(settings: HttpsServerSettings, onRequest?: RequestListener): Server {
  const server = createServer(settings.http ?? {}, onRequest);
  const draining = new WeakSet<object>();
  feed(server, settings, ALPN, (socket, serve) => {
    serve(socket);
    return () => void draining.add(socket);
  });
  server.prependListener('request', (request, response) => {
    if (draining.has(request.socket)) response.setHeader('Connection', 'close');
  });
  return server;
}

/** Of `SpiffeHttpsAgent`. */
export type HttpsAgentSettings = TlsClientSettings & {
  /** As for `https.Agent`: how many connections, how long they are kept. What it says of TLS is not listened to. Default: `keepAlive`. */
  readonly http?: AgentOptions | undefined;
};

/** For `https.request` and whatever takes an agent. A connection is verified and authorized before a byte of a request is sent; none is resumed. `destroy()` ends them all. */
export class SpiffeHttpsAgent extends Agent {
  readonly #client: TlsClient;
  readonly #draining = new WeakSet<object>();

  /** Throws REQUEST_INVALID when something is missing. */
  constructor(settings: HttpsAgentSettings) {
    super({ keepAlive: true, ...settings.http, maxCachedSessions: 0 });
    this.#client = new TlsClient(settings);
  }

  /** For Node's agent, which calls it. Fails as `TlsClient.connect`. */
  override createConnection(
    options: { host?: string | null; port?: string | number | null },
    made: (error: Error | null, socket: Duplex) => void,
  ): undefined {
    const { host, port } = options;
    this.#client
      .connect({ host: host ?? 'localhost', port: Number(port ?? 443), alpn: ALPN, onDrain: (socket) => this.#drain(socket) })
      .then(
        (socket) => made(null, socket),
        (error: unknown) => made(error instanceof Error ? error : new Error(String(error)), undefined as never),
      );
  }

  /** A connection that is to end is not used again. */
  override emit(event: string, ...args: unknown[]): boolean {
    const [socket] = args as [Socket | undefined];
    if (event === 'free' && socket && this.#draining.has(socket)) {
      socket.destroy();
      return true;
    }
    return super.emit(event, ...args);
  }

  /** See `TlsClient.recheck`. */
  recheck(): Promise<void> {
    return this.#client.recheck();
  }

  #drain(socket: TLSSocket): void {
    this.#draining.add(socket);
    for (const free of Object.values(this.freeSockets)) {
      if (!free?.includes(socket)) continue;
      socket.destroy();
      // Node's agent gives a destroyed socket to one more request, until that has emitted `close`
      socket.emit('agentRemove');
    }
  }
}
