/** A Node workload on our own SDK, driven by JSON lines: one request a line on stdin, answers and events on stdout. See docs/interop.md. */
import { once } from 'node:events';
import { type AddressInfo, connect } from 'node:net';
import { createInterface } from 'node:readline';
import type { TLSSocket } from 'node:tls';
import { systemClock } from '../../../spiffe/clock.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { rpcStatusOf } from '../../../spiffe/rpc/calls.ts';
import { SpiffeId } from '../../../spiffe/id.ts';
import { matchAny, matchId } from '../../../spiffe/match.ts';
import { type JwtSvid, validateJwtSvid } from '../../../spiffe/jwt/jwt-svid.ts';
import { connectTls, TlsServer, tlsPeer } from '../../../spiffe/tls/tls.ts';
import { WorkloadApiClient, type X509Context } from '../../../spiffe/workload-api/client.ts';
import { verifyX509Svid } from '../../../spiffe/x509/x509-svid.ts';

interface Request {
  readonly id: number;
  readonly op: string;
  readonly addr: string;
  readonly audience: readonly string[];
  readonly subject?: string;
  readonly token?: string;
  readonly to: string;
  readonly peer: string;
  readonly message: string;
  readonly target: number;
}

const stops = new Map<number, AbortController>();
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
const event = (id: number, name: string, data: object) => say({ id, event: name, data });

const NAMES = ['OK', 'CANCELLED', 'UNKNOWN', 'INVALID_ARGUMENT', 'DEADLINE_EXCEEDED', 'NOT_FOUND', 'ALREADY_EXISTS', 'PERMISSION_DENIED'];

function failure(error: unknown): { message: string; code: string } {
  const code = rpcStatusOf(error)?.code;
  return { message: error instanceof Error ? error.message : String(error), code: code === undefined ? '' : (NAMES[code] ?? String(code)) };
}

/** Each chain must lead to the bundles of the same answer. */
function checked(context: X509Context): X509Context {
  for (const svid of context.svids) verifyX509Svid(svid.chain, context.bundles, { nowMs: systemClock.now() });
  return context;
}

function told({ svids, bundles }: X509Context): object {
  return {
    svids: svids.map((svid) => ({
      id: String(svid.id),
      hint: svid.hint,
      chain: svid.chain.map((certificate) => certificate.raw.toString('base64')),
      notAfter: svid.chain[0]?.notAfterMs,
    })),
    bundles: Object.fromEntries([...bundles].map(({ trustDomain, x509 }) => [trustDomain.name, x509.authorities.length])),
  };
}

const jwtTold = (svid: JwtSvid) => ({
  id: String(svid.id),
  hint: svid.hint,
  audience: svid.audience,
  expiry: svid.expiresMs,
  token: svid.token,
});

/** The Workload API for as long as `work` runs. */
async function withApi<T>(address: string, work: (api: WorkloadApiClient) => Promise<T>): Promise<T> {
  const api = new WorkloadApiClient({ address, backoff: () => 50 });
  try {
    return await work(api);
  } finally {
    api.close();
  }
}

const identity = (addr: string) => withApi(addr, async (api) => checked(await api.fetchX509Context()));

async function fetchJwt({ addr, audience, subject = '' }: Request): Promise<readonly JwtSvid[]> {
  const [first = '', ...extraAudiences] = audience;
  const subjectId = subject === '' ? undefined : SpiffeId.parse(subject);
  return withApi(addr, (api) => api.fetchJwtSvids({ audience: first, extraAudiences, subject: subjectId }));
}

async function watch({ id, addr }: Request, signal: AbortSignal): Promise<void> {
  const onError = (fault: unknown) => event(id, 'error', failure(fault));
  await withApi(addr, async (api) => {
    for await (const context of api.watchX509Context({ signal, onError })) event(id, 'update', told(checked(context)));
  }).catch((fault: unknown) => {
    if (!signal.aborted) throw fault;
  });
}

/** Admits one SPIFFE ID, or with '' everybody who was verified. */
const only = (wanted: string) => (wanted === '' ? matchAny() : matchId(wanted));

async function lineOf(socket: TLSSocket): Promise<string> {
  for await (const line of createInterface({ input: socket })) return line;
  throw new SpiffeError('UNAVAILABLE', undefined, 'the peer closed without a line');
}

/** Serves until stopped: each connection sends one line and gets it back with the SPIFFE ID that we saw. */
async function listen({ id, addr, peer }: Request, signal: AbortSignal): Promise<void> {
  const { svids, bundles } = await identity(addr);
  const [svid] = svids;
  if (!svid) throw new SpiffeError('DENIED', undefined, 'no identity issued');
  const tls = new TlsServer({
    svid,
    bundles,
    authorize: only(peer),
    client: 'required',
    onRefused: (fault) => event(id, 'refused', failure(fault)),
    onConnection: (socket) => {
      const who = String(tlsPeer(socket)?.id);
      lineOf(socket).then(
        (line) => {
          event(id, 'served', { peer: who });
          socket.end(`${who} ${line}\n`);
        },
        (fault: unknown) => event(id, 'refused', failure(fault)),
      );
    },
  });
  tls.server.listen(0, '127.0.0.1');
  await once(tls.server, 'listening');
  event(id, 'listening', { port: (tls.server.address() as AddressInfo).port });
  await once(signal, 'abort');
  tls.server.close();
}

async function dial({ addr, to, peer, message }: Request): Promise<object> {
  const { svids, bundles } = await identity(addr);
  const [host = '', port = ''] = to.split(':');
  const tcp = connect(Number(port), host);
  await once(tcp, 'connect');
  const socket = await connectTls(tcp, { svid: svids[0], bundles, authorize: only(peer) });
  try {
    socket.write(`${message}\n`);
    return { reply: await lineOf(socket), peer: String(tlsPeer(socket)?.id) };
  } finally {
    socket.destroy();
  }
}

async function serve(request: Request, signal: AbortSignal): Promise<object> {
  const { addr, audience, token } = request;
  switch (request.op) {
    case 'hello':
      return { client: 'warifu', pid: process.pid };
    case 'x509.fetch':
    case 'x509.source':
      return told(await identity(addr));
    case 'x509.watch':
      await watch(request, signal);
      return { ended: true };
    case 'jwt.fetch':
      return { svids: (await fetchJwt(request)).map(jwtTold) };
    case 'jwt.validate': {
      const question = { audience: audience[0] ?? '', token: token ?? '' };
      const valid = await withApi(addr, (api) => api.validateJwtSvid(question));
      return { id: String(valid.id) };
    }
    case 'jwt.source': {
      const svid = token ?? (await fetchJwt(request))[0]?.token ?? '';
      return jwtTold(await validateJwtSvid(svid, { audience, bundles: await withApi(addr, (api) => api.fetchJwtBundles()) }));
    }
    case 'mtls.listen':
      await listen(request, signal);
      return { ended: true };
    case 'mtls.dial':
      return dial(request);
    default:
      throw new SpiffeError('REQUEST_INVALID', undefined, `op ${request.op} is not known`);
  }
}

const lines = createInterface({ input: process.stdin });
lines.on('close', () => process.exit(0)); // whoever drove us is gone
lines.on('line', (line) => {
  const request = JSON.parse(line) as Request;
  if (request.op === 'stop') {
    const stop = stops.get(request.target);
    stop?.abort();
    say({ id: request.id, result: { stopped: stop !== undefined } });
    return;
  }
  const stop = new AbortController();
  stops.set(request.id, stop);
  serve(request, stop.signal)
    .then(
      (result) => say({ id: request.id, result }),
      (fault: unknown) => say({ id: request.id, error: failure(fault) }),
    )
    .finally(() => stops.delete(request.id));
});
