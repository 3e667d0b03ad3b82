/**
 * The SDK beside plain Node: CPU time of a handshake, throughput of undici over warm connections, memory of a source. Both ways in turns, in the same processes,
 * so that what else the machine does falls on both alike.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer as createHttps } from 'node:https';
import { type AddressInfo, connect } from 'node:net';
import { connect as tlsConnect, createServer as createTls, type TLSSocket } from 'node:tls';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Agent, type Dispatcher, request } from 'undici';
import { matchAny } from '../../spiffe/match.ts';
import { X509MemorySource } from '../../spiffe/source/memory-source.ts';
import { X509Source } from '../../spiffe/source/x509-source.ts';
import { EphemeralTrustDomain } from '../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi } from '../../spiffe/testing/workload-api.ts';
import { TlsClient } from '../../spiffe/tls/client.ts';
import { createSpiffeServer } from '../../spiffe/tls/server.ts';
import { SpiffeDispatcher } from '../../spiffe/tls/undici.ts';
import { WorkloadApiClient } from '../../spiffe/workload-api/client.ts';
import { main, median, type Row } from './figure.ts';

const HANDSHAKES = 300;
const REQUESTS = 4_000;
const TURNS = 9;
const SOURCES = 200;

const td = EphemeralTrustDomain.create('example.org');
const ca = td.bundle.x509.authorities.map(
  (one) => `-----BEGIN CERTIFICATE-----\n${one.raw.toString('base64')}\n-----END CERTIFICATE-----\n`,
);
const pemOf = (path: string) => {
  const { certificates, key } = td.x509Svid(path).toPem();
  return { cert: certificates, key, ca, minVersion: 'TLSv1.3' as const };
};
const sourceOf = (path: string) => new X509MemorySource({ svid: td.x509Svid(path), bundles: td.bundle });

async function listening(server: { listen(port: number, host: string): unknown; address(): unknown }): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server as never, 'listening');
  return (server.address() as AddressInfo).port;
}

const ended = (socket: TLSSocket) => {
  socket.destroy();
  return once(socket, 'close');
};

/** Both ends in this process: what one handshake costs client and server together. */
async function handshakes(): Promise<Row[]> {
  const plain = createTls({ ...pemOf('/server'), requestCert: true, rejectUnauthorized: true }, (socket) =>
    socket.on('error', () => {}).end('x'),
  );
  const ours = createSpiffeServer({ source: sourceOf('/server'), authorize: matchAny() }, (socket) =>
    socket.on('error', () => {}).end('x'),
  );
  const [plainPort, oursPort] = await Promise.all([listening(plain), listening(ours)]);
  const client = new TlsClient({ source: sourceOf('/client'), authorize: matchAny() });
  const plainClient = pemOf('/client');
  const ways = {
    plain: async () => {
      const tcp = connect(plainPort, '127.0.0.1');
      const tls = tlsConnect({ ...plainClient, socket: tcp, checkServerIdentity: () => undefined });
      await once(tls, 'data');
      await ended(tls);
    },
    ours: async () => {
      const tls = await client.connect({ host: '127.0.0.1', port: oursPort });
      await once(tls, 'data');
      await ended(tls);
    },
  };
  const [a, b] = await inTurns(ways.plain, ways.ours, HANDSHAKES);
  plain.close();
  ours.close();
  return [
    { what: 'mTLS handshake, node:tls, both ends', value: a, unit: 'µs CPU' },
    { what: 'mTLS handshake, ours, both ends', value: b, unit: 'µs CPU' },
  ];
}

/** The median over the turns of CPU time for one, in microseconds. */
async function inTurns(a: () => Promise<unknown>, b: () => Promise<unknown>, times: number): Promise<[number, number]> {
  const seen: [number[], number[]] = [[], []];
  for (let turn = -1; turn < TURNS; turn++) {
    for (const [i, run] of [a, b].entries()) {
      const cpu = process.cpuUsage();
      for (let n = 0; n < times; n++) await run();
      const used = process.cpuUsage(cpu);
      if (turn >= 0) seen[i as 0 | 1].push((used.user + used.system) / times);
    }
  }
  return [median(seen[0]), median(seen[1])];
}

/** One server of plain Node in another process; undici's Agent and ours ask it in turns over connections that are open already. */
async function throughput(): Promise<Row[]> {
  const server = pemOf('/server');
  const child = fork(new URL(import.meta.url), ['serve'], { env: { ...process.env } });
  child.send({ ...server });
  const [port] = (await once(child, 'message')) as [number];
  const options = { connections: 16, pipelining: 1 };
  const { cert, key } = pemOf('/client');
  const plain = new Agent({ ...options, connect: { cert, key, ca, checkServerIdentity: () => undefined } });
  const ours = new SpiffeDispatcher({ source: sourceOf('/client'), authorize: matchAny(), agent: options });
  const ask = async (dispatcher: Dispatcher): Promise<{ perSecond: number; cpuUs: number }> => {
    const started = performance.now();
    const cpu = process.cpuUsage();
    let left = REQUESTS;
    await Promise.all(
      Array.from({ length: 16 }, async () => {
        while (left-- > 0) {
          const { body } = await request(`https://127.0.0.1:${port}/`, { dispatcher });
          await body.dump();
        }
      }),
    );
    const used = process.cpuUsage(cpu);
    return { perSecond: REQUESTS / ((performance.now() - started) / 1000), cpuUs: (used.user + used.system) / REQUESTS };
  };
  const ratios: number[] = [];
  const rates: [number[], number[]] = [[], []];
  const cpus: [number[], number[]] = [[], []];
  for (let turn = -2; turn < TURNS * 2; turn++) {
    // who goes first changes, too
    const order = turn % 2 === 0 ? ([plain, ours] as const) : ([ours, plain] as const);
    const seen = new Map<Dispatcher, { perSecond: number; cpuUs: number }>();
    for (const one of order) seen.set(one, await ask(one));
    const [a, b] = [seen.get(plain), seen.get(ours)];
    if (turn < 0 || !a || !b) continue;
    ratios.push(a.perSecond / b.perSecond - 1);
    rates[0].push(a.perSecond);
    rates[1].push(b.perSecond);
    cpus[0].push(a.cpuUs);
    cpus[1].push(b.cpuUs);
  }
  await Promise.all([plain.destroy(), ours.destroy()]);
  child.kill();
  return [
    { what: 'undici, warm connections, plain', value: median(rates[0]), unit: 'requests/s' },
    { what: 'undici, warm connections, ours', value: median(rates[1]), unit: 'requests/s' },
    { what: 'undici, CPU of the client for a request, plain', value: median(cpus[0]), unit: 'µs CPU' },
    { what: 'undici, CPU of the client for a request, ours', value: median(cpus[1]), unit: 'µs CPU' },
    { what: 'undici, loss (median of the pairs)', value: median(ratios) * 100, unit: '%', limit: 3 },
  ];
}

function serve(): void {
  process.once('message', (options: object) => {
    const server = createHttps({ ...options, requestCert: true, rejectUnauthorized: true }, (_, response) => void response.end('hello'));
    void listening(server).then((port) => process.send?.(port));
  });
  process.once('disconnect', () => process.exit());
}

/** What sources cost that are ready and wait: each with a connection of its own, and all over one client. */
async function memory(): Promise<Row[]> {
  await using api = await FakeWorkloadApi.start(td);
  const each = async (make: () => X509Source): Promise<number> => {
    const before = used();
    const sources = Array.from({ length: SOURCES }, make);
    await Promise.all(sources.map((source) => source.ready()));
    const after = used();
    await Promise.all(sources.map((source) => source.close()));
    return (after - before) / SOURCES / 1024;
  };
  const client = new WorkloadApiClient({ address: api.address });
  await each(() => new X509Source({ client }));
  const shared = await each(() => new X509Source({ client }));
  client.close();
  const own = await each(() => new X509Source({ address: api.address }));
  return [
    { what: 'X509Source, over a shared client', value: shared, unit: 'KiB heap and buffers, the fake server’s part with it' },
    { what: 'X509Source, with a connection of its own', value: own, unit: 'KiB heap and buffers, the fake server’s part with it' },
  ];
}

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

function used(): number {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

if (process.argv[2] === 'serve') serve();
else await main(import.meta.url, async () => [...(await handshakes()), ...(await throughput()), ...(await memory())]);
