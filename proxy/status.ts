/** The status port: how the proxy fares, for people, probes and collectors; and, where that was asked for, its end and its profiles, for its own user alone. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { hostname } from 'node:os';
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { AlarmClock } from '../spiffe/clock.ts';
import { BackendHealth } from './backend-health.ts';
import type { Identity } from './identity.ts';
import { listen, type ListenParts } from './listen.ts';
import { peerOf } from './plain-peer.ts';
import type { StatusSettings } from './process-settings.ts';
import type { ProxyState } from './proxy.ts';
import type { Readiness } from './readiness.ts';
import { type GhostunnelMetric, ghostunnelMetrics, PROMETHEUS_TYPE, render, renderGhostunnel, type Snapshot } from './snapshot.ts';

export interface About {
  readonly state: ProxyState;
  readonly lastReloadMs: number | undefined;
  /** What each listener is bound to, and where it hands on. */
  readonly listeners: readonly { readonly name: string; readonly address: string; readonly target: string }[];
}

/** What the port tells of: one process, or several that their parent asks. */
export interface StatusSource {
  about(): About | Promise<About>;
  readiness(): Readiness | Promise<Readiness>;
  snapshot(): Snapshot | Promise<Snapshot>;
  /** Throws why a target can't be reached. */
  probe(signal: AbortSignal): Promise<void>;
}

export interface StatusParts extends StatusSource {
  readonly settings: StatusSettings;
  /** Of ghostunnel's names of metrics. */
  readonly prefix: string;
  /** Whose certificate is shown over https; undefined: there is none. */
  readonly identity: Identity | undefined;
  readonly inherited: ListenParts['inherited'];
  readonly shutdown: () => void;
  readonly version: string;
  readonly log: Log;
  readonly clock: AlarmClock;
}

export interface StatusPort {
  /** With its scheme where it is TCP. */
  readonly address: string;
  readonly port: number | undefined;
  close(): Promise<void>;
}

const LIMITS = { connections: 64, headerBytes: 8 * 1024, headersMs: 5_000, requestMs: 10_000, idleMs: 5_000, handshakeMs: 5_000 };

/** Throws FAILED_PRECONDITION when somebody else listens there. Who makes it closes it. */
export async function createStatus(parts: StatusParts): Promise<StatusPort> {
  const { settings, identity, inherited } = parts;
  const port = new Port(parts);
  const server = createServer(
    {
      maxHeaderSize: LIMITS.headerBytes,
      headersTimeout: LIMITS.headersMs,
      requestTimeout: LIMITS.requestMs,
      keepAliveTimeout: LIMITS.idleMs,
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => void port.answer(request, response),
  );
  // it listens through another: without this word it would hold nobody to its times
  server.emit('listening');
  const sockets = new Set<Socket>();
  if (settings.scheme === 'https' && !identity)
    throw fail('SETTINGS_INVALID', 'the status port cannot speak https: this proxy shows no certificate');
  const plain = plainly(server);
  const tls = identity && settings.scheme !== 'http' ? overTls(identity, server) : undefined;
  let serve = tls ?? plain;
  const bound = await listen(settings.listen, { inherited, allowHalfOpen: false }, (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => {});
    serve(socket);
  });
  bound.server.maxConnections = LIMITS.connections;
  // nobody is in between
  const overUnix = typeof bound.server.address() === 'string';
  if (overUnix) serve = plain;
  const secure = serve === tls;
  return {
    address: overUnix ? bound.address : `${secure ? 'https' : 'http'}://${bound.address}`,
    port: bound.port,
    async close() {
      const closed = bound.close();
      server.close();
      server.closeAllConnections();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function plainly(server: Server): (socket: Socket) => void {
  return (socket) => {
    server.emit('connection', socket);
    socket.resume();
  };
}

/** With our own certificate; nobody is asked for his. */
function overTls(identity: Identity, server: Server): (socket: Socket) => void {
  const acceptor = identity.acceptor({
    admit: () => ({ by: 'status', rule: undefined, shadow: undefined, policyVersion: undefined }),
    authenticate: false,
    handshakeMs: LIMITS.handshakeMs,
    keep: false,
    onConnection: ({ socket }) => {
      socket.on('error', () => {});
      server.emit('connection', socket);
      socket.resume();
    },
    onRefused: (_error, socket) => void socket.destroy(),
    onExpiring: (socket) => void socket.end(),
    onUntrusted: () => {},
  });
  return (socket) => acceptor.accept(socket);
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

const TEXT = 'text/plain; charset=utf-8';
const text = (status: number, words: string): Answer => ({ status, type: TEXT, body: `${words}\n` });
const json = (status: number, value: unknown): Answer => ({ status, type: 'application/json', body: `${JSON.stringify(value)}\n` });

class Port {
  readonly #parts: StatusParts;
  readonly #backend: BackendHealth;

  constructor(parts: StatusParts) {
    this.#parts = parts;
    this.#backend = new BackendHealth(parts.settings.targetStatus, (signal) => parts.probe(signal), parts.clock);
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let answer: Answer;
    try {
      answer = await this.#of(request);
    } catch (error) {
      this.#parts.log.warn('status port: a question could not be answered', { error });
      answer = text(500, 'it could not be told');
    }
    const { status, type, body } = answer;
    // a body is not wanted, and not waited for
    if (request.headers['transfer-encoding'] !== undefined || (request.headers['content-length'] ?? '0') !== '0')
      response.setHeader('connection', 'close');
    response.writeHead(status, {
      'content-type': type,
      'content-length': Buffer.byteLength(body),
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      ...(status === 405 && { allow: 'GET, HEAD' }),
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  }

  async #of(request: IncomingMessage): Promise<Answer> {
    const { pathname, searchParams } = new URL(`http://status${request.url?.startsWith('/') ? request.url : '/'}`);
    const { settings } = this.#parts;
    if (pathname === '/_shutdown' && settings.shutdown) return this.#shutdown(request);
    if (request.method !== 'GET' && request.method !== 'HEAD') return text(405, 'only GET is answered here');
    switch (pathname.replace(/(?<=.)\/$/, '')) {
      case '/live':
        return text(200, 'ok');
      case '/ready': {
        const readiness = await this.#parts.readiness();
        return json(readiness.ready ? 200 : 503, { ready: readiness.ready, waiting_for: readiness.waitingFor });
      }
      case '/_status':
        return this.#status();
      case '/metrics':
        return { status: 200, type: PROMETHEUS_TYPE, body: render(await this.#parts.snapshot()) };
      case '/_metrics':
        return this.#ghostunnel(searchParams.get('format') === 'json');
      case '/_metrics/json':
        return this.#ghostunnel(true);
      case '/_metrics/prometheus':
        return this.#ghostunnel(false);
      default:
        if (settings.pprof && /^\/debug\/pprof(?:\/|$)/.test(pathname)) return this.#profile(request, pathname, searchParams);
        return text(404, 'nothing is here');
    }
  }

  async #ghostunnel(asJson: boolean): Promise<Answer> {
    const { prefix, clock } = this.#parts;
    const metrics = ghostunnelMetrics(await this.#parts.snapshot(), prefix);
    if (!asJson) return { status: 200, type: PROMETHEUS_TYPE, body: renderGhostunnel(metrics) };
    return json(200, listOf(metrics, clock.now()));
  }

  async #status(): Promise<Answer> {
    const { version, clock } = this.#parts;
    const { state, lastReloadMs, listeners } = await this.#parts.about();
    const { ready, waitingFor } = await this.#parts.readiness();
    const fault = await this.#backend.fault();
    const ok = ready && fault === undefined;
    return json(ok ? 200 : 503, {
      ok,
      status: ok ? 'ok' : 'critical',
      listen_address: listeners[0]?.address ?? '',
      forward_address: listeners[0]?.target ?? '',
      backend_ok: fault === undefined,
      backend_status: fault === undefined ? 'ok' : 'critical',
      backend_error: fault ?? '',
      time: new Date(clock.now()).toISOString(),
      last_reload: lastReloadMs === undefined ? null : new Date(lastReloadMs).toISOString(),
      hostname: hostname(),
      message: state,
      revision: version,
      compiler: `node ${process.version}`,
      ready,
      waiting_for: waitingFor,
      listeners,
    });
  }

  #shutdown(request: IncomingMessage): Answer {
    if (request.method !== 'POST') return text(405, 'POST ends the proxy');
    const refused = this.#mayNot(request);
    if (refused) return refused;
    this.#parts.log.info('shutdown asked for at the status port');
    // the answer first
    setImmediate(() => this.#parts.shutdown());
    return text(200, 'shutting down');
  }

  async #profile(request: IncomingMessage, path: string, query: URLSearchParams): Promise<Answer> {
    const refused = this.#mayNot(request);
    if (refused) return refused;
    const { profileOf } = await import('./profile.ts');
    return profileOf(path.replace(/^\/debug\/pprof\/?/, ''), query, this.#parts.clock);
  }

  /** Undefined for our own user and root, of this machine. What can't be told is refused; so are pages of a browser, which runs as our user and asks for others. */
  #mayNot(request: IncomingMessage): Answer | undefined {
    const { log } = this.#parts;
    const { origin, 'sec-fetch-site': site } = request.headers;
    if (origin !== undefined || (site !== undefined && site !== 'none')) return text(403, 'not for pages of a browser');
    try {
      const { uid } = peerOf(request.socket);
      if (uid === 0 || uid === process.geteuid?.()) return undefined;
      log.warn('status port: another user may not ask for this', { path: request.url?.slice(0, 100) ?? '', uid });
      return text(403, `user ${uid} may not`);
    } catch (error) {
      log.warn('status port: who asks for this could not be told', { path: request.url?.slice(0, 100) ?? '', error });
      return text(403, 'it could not be told who asks: only our own user may, from this machine');
    }
  }
}

/** ghostunnel's list, as it is answered and pushed. */
export function listOf(metrics: readonly GhostunnelMetric[], nowMs: number): readonly Readonly<Record<string, unknown>>[] {
  const timestamp = Math.floor(nowMs / 1000);
  const host = hostname();
  return metrics.map(({ metric, value }) => ({ timestamp, metric, value, hostname: host }));
}
