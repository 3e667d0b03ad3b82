/** Whether the helper lives and is ready, and its metrics, over HTTP: on loopback unless told otherwise, or on a UNIX socket. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { fail } from '../../core/errors.ts';
import type { Log } from '../../core/log.ts';
import { listenUnix } from '../../core/unix-socket.ts';
import type { HelperMetrics } from './metrics.ts';
import type { HelperFile } from './settings.ts';
import type { Status } from './status.ts';

export interface Probes {
  /** Of TCP. */
  readonly port: number | undefined;
  close(): Promise<void>;
}

/** Throws FAILED_PRECONDITION or SETTINGS_INVALID when it can't listen there. */
export async function listenProbes(
  settings: HelperFile['health_checks'],
  parts: { readonly status: Status; readonly metrics: HelperMetrics; readonly isReady: () => boolean; readonly log: Log },
): Promise<Probes> {
  const { liveness_path: live, readiness_path: ready, metrics_path: metrics } = settings;
  const { status } = parts;
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const path = (request.url ?? '').split('?')[0];
    if (request.method !== 'GET' && request.method !== 'HEAD') return void response.writeHead(405).end();
    if (path === live) return tell(response, status.live, status);
    if (path === ready) return tell(response, parts.isReady(), status);
    if (path !== metrics) return void response.writeHead(404).end();
    const text = await parts.metrics.text();
    response.writeHead(200, { 'content-type': parts.metrics.contentType }).end(text);
  };
  const server = createServer((request, response) => {
    void answer(request, response).catch(() => response.writeHead(500).end());
  });
  server.requestTimeout = 5_000;
  server.headersTimeout = 5_000;
  server.maxConnections = MAX_CONNECTIONS;
  // a probe never keeps the helper from ending
  const close = async () => {
    server.closeAllConnections();
    await new Promise<void>((done) => server.close(() => done()));
  };
  const { socket_path: path, bind_address: address, bind_port: port } = settings;
  if (path !== undefined) {
    const listener = await listenUnix({
      path,
      mode: 0o600,
      directoryMode: 0o755,
      maxConnections: MAX_CONNECTIONS,
      log: parts.log,
      onConnection: (socket) => {
        server.emit('connection', socket);
        socket.resume();
      },
    });
    return {
      port: undefined,
      async close() {
        await listener.close();
        server.closeAllConnections();
      },
    };
  }
  await new Promise<void>((done, refuse) => {
    server.once('error', (cause) => refuse(fail('FAILED_PRECONDITION', `health_checks ${address}:${port}: ${cause.message}`, { cause })));
    server.listen(port === 0 ? DEFAULT_PORT : port, address, done);
  });
  const bound = server.address();
  return { port: typeof bound === 'object' && bound ? bound.port : undefined, close };
}

const MAX_CONNECTIONS = 64;
/** spiffe-helper takes 0 for "not said". */
const DEFAULT_PORT = 8081;

/** In spiffe-helper's shape, with more about each output beside it. */
function tell(response: ServerResponse, good: boolean, status: Status): void {
  const of = (kind: string) => status.outputs.filter((one) => one.kind === kind);
  const x509 = of('x509');
  const worst = ['failed', 'unwritten', 'written'].find((state) => x509.some((one) => one.state === state));
  const files = {
    ...(worst !== undefined && { x509_write_status: worst }),
    jwt_write_status: Object.fromEntries([...of('jwt'), ...of('bundle')].map((one) => [one.path, one.state])),
  };
  const outputs = Object.fromEntries(
    status.outputs.map((one) => [
      one.name,
      {
        state: one.state,
        ...(one.expiresMs !== undefined && { expires_at: new Date(one.expiresMs).toISOString() }),
        ...(one.alarm !== 'none' && { alarm: one.alarm }),
        ...(one.lack && { lack: one.lack.why }),
      },
    ]),
  );
  const body = JSON.stringify({ status: good ? 'OK' : 'Service Unavailable', health: { file_write_statuses: files }, outputs });
  response.writeHead(good ? 200 : 503, { 'content-type': 'application/json' }).end(body);
}
