/** A Node workload on our own SDK, driven by JSON lines: one request a line on stdin, answers and events on stdout. See docs/interop.md. */
import { once } from 'node:events';
import { type AddressInfo, connect } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { SpiffeWorkloadAPIDefinition, type X509SVIDResponse } from '../../../proto/gen/spiffe/workload/workload.ts';
import { Bundle, BundleSet, JwtBundle, X509Bundle } from '../../../spiffe/bundle.ts';
import { systemClock } from '../../../spiffe/clock.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { type Calls, openChannel, rpcStatusOf } from '../../../spiffe/grpc.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { type JwtSvid, parseJwtSvidUnverified, validateJwtSvid } from '../../../spiffe/jwt-svid.ts';
import { type Authorize, connectTls, TlsServer, tlsPeer } from '../../../spiffe/tls.ts';
import { verifyX509Svid, X509Svid } from '../../../spiffe/x509-svid.ts';

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

/** The workload's identity as one answer gave it, each chain verified against the bundles of the same answer. */
interface Identity {
  readonly svids: readonly X509Svid[];
  readonly bundles: BundleSet;
}

function identityOf(answer: X509SVIDResponse): Identity {
  const bundles = new Map<string, Bundle>();
  const add = (id: string, der: Uint8Array) => {
    const trustDomain = TrustDomain.parseNameOrId(id);
    bundles.set(trustDomain.name, new Bundle(trustDomain, { x509Authorities: X509Bundle.fromDer(trustDomain, der).authorities }));
  };
  for (const [id, der] of Object.entries(answer.federatedBundles)) add(id, der);
  const svids = answer.svids.map((svid) => {
    const parsed = X509Svid.fromDer(svid.x509Svid, svid.x509SvidKey, svid.hint);
    add(parsed.id.trustDomain.name, svid.bundle);
    return parsed;
  });
  const set = new BundleSet(bundles.values());
  for (const svid of svids) verifyX509Svid(svid.chain, set, { nowMs: systemClock.now() });
  return { svids, bundles: set };
}

function told({ svids, bundles }: Identity): object {
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

const HEADER = { 'workload.spiffe.io': 'true' };
type Api = Calls<typeof SpiffeWorkloadAPIDefinition>;

/** The Workload API for as long as `work` runs. */
async function withApi<T>(addr: string, work: (api: Api) => Promise<T>): Promise<T> {
  const channel = openChannel({ target: addr });
  try {
    return await work(channel.service(SpiffeWorkloadAPIDefinition));
  } finally {
    channel.close();
  }
}

async function first<T>(stream: AsyncIterable<T>): Promise<T> {
  for await (const answer of stream) return answer;
  throw new SpiffeError('UNAVAILABLE', undefined, 'the stream ended before its first message');
}

const identity = (addr: string) => withApi(addr, async (api) => identityOf(await first(api.fetchX509SVID({}, { metadata: HEADER }))));

async function jwtBundles(addr: string): Promise<BundleSet> {
  const { bundles } = await withApi(addr, (api) => first(api.fetchJWTBundles({}, { metadata: HEADER })));
  return new BundleSet(
    Object.entries(bundles).map(([id, jwks]) => {
      const trustDomain = TrustDomain.parseNameOrId(id);
      return new Bundle(trustDomain, { jwtAuthorities: JwtBundle.fromJwks(trustDomain, jwks).authorities.values() });
    }),
  );
}

async function fetchJwt({ addr, audience, subject = '' }: Request): Promise<JwtSvid[]> {
  const request = { audience: [...audience], spiffeId: subject };
  const { svids } = await withApi(addr, (api) => api.fetchJWTSVID(request, { metadata: HEADER }));
  return svids.map(({ svid, hint }) => parseJwtSvidUnverified(svid, { hint }));
}

async function watch({ id, addr }: Request, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await withApi(addr, async (api) => {
        for await (const answer of api.fetchX509SVID({}, { metadata: HEADER, signal })) event(id, 'update', told(identityOf(answer)));
      });
    } catch (fault) {
      if (signal.aborted) return;
      event(id, 'error', failure(fault));
    }
    await sleep(50, undefined, { signal }).catch(() => {});
  }
}

/** Admits one SPIFFE ID, or with '' everybody who was verified. */
const only =
  (wanted: string): Authorize =>
  ({ id }) => {
    if (wanted !== '' && !id.equals(SpiffeId.parse(wanted))) {
      throw new SpiffeError('DENIED', undefined, `the peer is ${id}, not ${wanted}`);
    }
  };

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
      const question = { audience: audience[0] ?? '', svid: token ?? '' };
      const { spiffeId } = await withApi(addr, (api) => api.validateJWTSVID(question, { metadata: HEADER }));
      return { id: spiffeId };
    }
    case 'jwt.source': {
      const svid = token ?? (await fetchJwt(request))[0]?.token ?? '';
      return jwtTold(validateJwtSvid(svid, { audience, bundles: await jwtBundles(addr), nowMs: systemClock.now() }));
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
