/** The status port by itself: who may end the proxy, how it stands those who ask badly, what it says of a backend. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, get, type IncomingMessage, request } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { describe, expect, onTestFinished, test } from 'vitest';
import { silent } from '../../core/log.ts';
import { createMetrics } from '../../proxy/metrics.ts';
import type { StatusSettings } from '../../proxy/process-settings.ts';
import { mergeReadiness, readinessOf } from '../../proxy/readiness.ts';
import { createStatus } from '../../proxy/status.ts';
import { BundleSet } from '../../spiffe/bundle/bundle.ts';
import { systemClock } from '../../spiffe/clock.ts';
import { X509MemorySource } from '../../spiffe/source/memory-source.ts';
import { backend, client, dial, hear, identityOf, memorySource, server, td } from './rig.ts';

async function port(more: Partial<StatusSettings> = {}, running?: Awaited<ReturnType<typeof server>> | Awaited<ReturnType<typeof client>>) {
  const behind = await backend();
  const inbound = running ?? (await server(behind.port, memorySource('/db')));
  const { proxy } = inbound;
  const identities = new Map();
  const metrics = createMetrics({ identities, intentions: undefined, version: '1', clock: systemClock });
  let shut = 0;
  const listen = { kind: 'tcp', host: '127.0.0.1', port: 0 } as const;
  const status = await createStatus({
    about: () => ({ state: proxy.state, lastReloadMs: undefined, listeners: [] }),
    readiness: () => readinessOf({ state: proxy.state, identities }),
    snapshot: () => metrics.snapshot(proxy),
    probe: (signal) => proxy.probe(signal),
    settings: { listen, scheme: 'http', pprof: false, shutdown: true, targetStatus: undefined, ...more },
    prefix: 'p',
    identity: undefined,
    inherited: () => -1,
    shutdown: () => void shut++,
    version: '1',
    log: silent,
    clock: systemClock,
  });
  onTestFinished(async () => {
    metrics.close();
    await status.close();
  });
  return { at: status.port ?? 0, behind, status, shut: () => shut };
}

async function read(response: IncomingMessage) {
  let body = '';
  for await (const piece of response.setEncoding('utf8')) body += String(piece);
  return { status: response.statusCode ?? 0, body };
}
const ask = (at: number, path: string, host = '127.0.0.1') =>
  new Promise<{ status: number; body: string }>((resolve, reject) => {
    get({ port: at, host, path, agent: false }, (response) => read(response).then(resolve, reject)).on('error', reject);
  });
const post = (at: number, host = '127.0.0.1') =>
  new Promise<{ status: number; body: string }>((resolve, reject) => {
    request({ port: at, host, path: '/_shutdown', method: 'POST', agent: false }, (response) => read(response).then(resolve, reject))
      .on('error', reject)
      .end();
  });

describe('POST /_shutdown', () => {
  test('by our own user is obeyed', async () => {
    const { at, shut } = await port();
    expect((await post(at)).status).toBe(200);
    await expect.poll(shut).toBe(1);
  });

  test('without --enable-shutdown is not there', async () => {
    const { at, shut } = await port({ shutdown: false });
    expect((await post(at)).status).toBe(405);
    expect(shut()).toBe(0);
  });

  test('by another user is refused; the same program as our own user is not', async () => {
    const { at, shut } = await port();
    const answer = async (uid: number) => {
      const script = `require('http').request({host:'127.0.0.1',port:${at},path:'/_shutdown',method:'POST'},(r)=>{console.log(r.statusCode);r.resume()}).end()`;
      const child = spawn(process.execPath, ['-e', script], { uid, cwd: '/', stdio: ['ignore', 'pipe', 'inherit'] });
      let said = '';
      child.stdout.on('data', (piece) => (said += String(piece)));
      await once(child, 'close');
      return said.trim();
    };
    const own = process.getuid?.() ?? -1;
    // who is not root can't become another user; then root's part is all that can be seen
    if (own === 0) expect(await answer(65_534)).toBe('403');
    expect(shut()).toBe(0);
    expect(await answer(own)).toBe('200');
    await expect.poll(shut).toBe(1);
  });

  test('from an address of which the kernel tells no owner is refused', async () => {
    const elsewhere = Object.values(networkInterfaces())
      .flat()
      .find((one) => one?.family === 'IPv4' && !one.internal)?.address;
    const { at, shut } = await port({ listen: { kind: 'tcp', host: '0.0.0.0', port: 0 } });
    if (elsewhere !== undefined) expect((await post(at, elsewhere)).status).toBe(403);
    expect(shut()).toBe(0);
    expect((await post(at)).status).toBe(200);
  });
});

describe('who asks badly', () => {
  test('headers of more than 8 KiB are refused, of a little less not', async () => {
    const { at } = await port();
    const say = async (length: number) => {
      const socket = await dial(at);
      socket.write(`GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: ${'a'.repeat(length)}\r\n\r\n`);
      return (await hear(socket)).said.split('\r\n')[0];
    };
    expect(await say(9_000)).toMatch(/^HTTP\/1.1 431 /);
    expect(await say(7_000)).toMatch(/^HTTP\/1.1 200 /);
  });

  test('headers that take longer than five seconds are not waited for', { timeout: 20_000 }, async () => {
    const { at } = await port();
    const socket = await dial(at);
    socket.write('GET /live HTTP/1.1\r\nHost: x\r\n');
    const before = performance.now();
    expect((await hear(socket)).said).toMatch(/^HTTP\/1.1 408 /);
    expect(performance.now() - before).toBeGreaterThan(4_000);
  });

  test('no more than 64 are served at once, and it goes on when they have left', async () => {
    const { at } = await port();
    const idle = await Promise.all(Array.from({ length: 64 }, () => dial(at)));
    await expect(ask(at, '/live')).rejects.toThrow();
    for (const socket of idle) socket.destroy();
    await expect
      .poll(() =>
        ask(at, '/live').then(
          (answer) => answer.status,
          () => 0,
        ),
      )
      .toBe(200);
  });

  test('a body is not waited for', async () => {
    const { at } = await port();
    const socket = await dial(at);
    socket.write('POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nsome');
    const { said } = await hear(socket);
    expect(said).toMatch(/^HTTP\/1.1 405 [\s\S]*connection: close/i);
  });

  test.each(['GET //x /live', 'GET http://[ /live', 'GET /%zz', 'GET *', 'OPTIONS *'])('%s', async (line) => {
    const { at } = await port();
    const socket = await dial(at);
    socket.write(`${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect((await hear(socket)).said).toMatch(/^HTTP\/1.1 40\d /);
    expect((await ask(at, '/live')).status).toBe(200);
  });
});

describe('/_status', () => {
  const status = async (at: number) => JSON.parse((await ask(at, '/_status')).body) as Record<string, unknown>;

  test("is 503 with the backend's fault while that does not listen", async () => {
    const behind = await backend();
    const { at } = await port({}, await server(behind.port, memorySource('/db')));
    expect(await status(at)).toMatchObject({ ok: true, status: 'ok', backend_ok: true, backend_status: 'ok', backend_error: '' });
    behind.server.close();
    for (const socket of behind.sockets) socket.destroy();
    await expect
      .poll(() => status(at), { timeout: 5_000, interval: 200 })
      .toMatchObject({
        ok: false,
        status: 'critical',
        backend_status: 'critical',
        backend_error: expect.stringMatching(/ECONNREFUSED/),
      });
    expect((await ask(at, '/_status')).status).toBe(503);
  });

  test('of a client says whether the server is who it must be', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'));
    const good = await port({}, await client(inbound.port, memorySource('/web')));
    expect(await status(good.at)).toMatchObject({ backend_ok: true });
    const { NOBODY } = await import('../../proxy/access.ts');
    const { parseUriPattern } = await import('../../proxy/uri-pattern.ts');
    const access = { ...NOBODY, uris: [parseUriPattern('spiffe://example.org/another')] };
    const wrong = await port({}, await client(inbound.port, memorySource('/web'), { access }));
    expect(await status(wrong.at)).toMatchObject({ backend_ok: false, backend_error: expect.stringMatching(/is not allowed/) });
  });

  test.each([
    [200, true],
    [204, true],
    [302, false],
    [500, false],
  ])('asks --target-status: %i', async (code, ok) => {
    let asked = 0;
    const health = createServer((_request, response) => {
      asked++;
      response.writeHead(code).end('x'.repeat(100_000));
    }).listen(0, '127.0.0.1');
    await once(health, 'listening');
    onTestFinished(() => void health.close());
    const { at } = await port({ targetStatus: `http://127.0.0.1:${(health.address() as AddressInfo).port}/health` });
    expect(await status(at)).toMatchObject({ backend_ok: ok });
    // many who ask at once ask the backend once
    await Promise.all(Array.from({ length: 20 }, () => status(at)));
    expect(asked).toBe(1);
  });
});

describe('ready', () => {
  const of = (source: X509MemorySource) => readinessOf({ state: 'listening', identities: new Map([['own', identityOf(source)]]) });

  test('with SVID and bundle; not without either, nor when it expired or was taken back', () => {
    const source = memorySource('/db');
    expect(of(source)).toEqual({ ready: true, waitingFor: [] });
    expect(of(new X509MemorySource())).toMatchObject({ ready: false, waitingFor: [expect.stringMatching(/no X.509-SVID/)] });
    expect(of(new X509MemorySource({ svid: td.x509Svid('/db'), bundles: new BundleSet() }))).toEqual({
      ready: false,
      waitingFor: ['the bundle of example.org is empty: nobody of our own trust domain is trusted'],
    });
    source.forget();
    expect(of(source)).toMatchObject({ ready: false, waitingFor: [expect.stringMatching(/taken back/)] });
  });

  test('of several processes when each is; of none never', () => {
    const yes = { ready: true, waitingFor: [] };
    const no = { ready: false, waitingFor: ['an SVID'] };
    expect(mergeReadiness([yes, yes])).toEqual(yes);
    expect(mergeReadiness([yes, no, no])).toEqual(no);
    expect(mergeReadiness([]).ready).toBe(false);
  });
});

test('closing ends what is connected', async () => {
  const { at, status } = await port();
  const socket = connect(at, '127.0.0.1');
  socket.on('error', () => {});
  await once(socket, 'connect');
  const closed = once(socket, 'close');
  await status.close();
  await closed;
  await expect(ask(at, '/live')).rejects.toThrow(/ECONNREFUSED/);
});
