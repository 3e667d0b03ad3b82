/** The program itself: `warifu proxy server` with a status port, asked as probes, collectors and scripts ask. */
import { mkdtempSync, rmSync } from 'node:fs';
import { get, request } from 'node:http';
import { get as getTls } from 'node:https';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { EphemeralTrustDomain } from '../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi } from '../../spiffe/testing/workload-api.ts';
import { Daemon } from '../e2e/daemon.ts';
import { WARIFU } from '../e2e/house.ts';
import { ask, backend, client, identityOf, memorySource } from './rig.ts';
import { X509MemorySource } from '../../spiffe/source/memory-source.ts';

interface Heard {
  readonly status: number;
  readonly body: string;
}

function heard(make: (tell: (response: import('node:http').IncomingMessage) => void) => import('node:http').ClientRequest): Promise<Heard> {
  return new Promise((resolve, reject) => {
    make((response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (piece: string) => (body += piece));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    }).on('error', reject);
  });
}

async function running(more: readonly string[], { status = 'http://127.0.0.1:0' } = {}) {
  const td = EphemeralTrustDomain.create('example.org');
  const api = await FakeWorkloadApi.start(td, { identities: ['/db'] });
  const behind = await backend();
  const proxy = new Daemon('proxy', [
    ...WARIFU,
    ...['proxy', 'server', '--listen', '127.0.0.1:0', '--target', `127.0.0.1:${behind.port}`],
    ...['--use-workload-api-addr', api.address, '--allow-uri', 'spiffe://example.org/web', '--log-format', 'json'],
    ...['--status', status, ...more],
  ]);
  onTestFinished(async () => {
    if (!proxy.end) await proxy.stop();
    await api.stop();
  });
  const lines = async (what: string) => JSON.parse(await proxy.line(new RegExp(what))) as { address: string };
  const { address } = await lines('"status port"');
  const at = await lines('"listening for connections"');
  return { td, api, behind, proxy, status: address, port: Number(at.address.split(':').pop()) };
}

/** Through a proxy of ours that shows this path's SVID. */
async function call(td: EphemeralTrustDomain, port: number, path: string): Promise<string> {
  const source: X509MemorySource = memorySource(path, td);
  const outbound = await client(port, source, {}, { identities: new Map([['own', identityOf(source)]]) });
  return ask(outbound.port, 'hello');
}

const HTTP = (url: string) => heard((tell) => get(url, tell));

describe('warifu proxy server --status', () => {
  test('answers each path over http, and counts what passed', async () => {
    const { td, port, status, proxy } = await running(['--enable-pprof']);
    expect(await call(td, port, '/web')).toBe('hello');
    await call(td, port, '/stranger').catch(() => '');
    await proxy.line(/"POLICY_DENIED"/);
    expect(JSON.parse((await HTTP(`${status}/_status`)).body)).toMatchObject({
      ok: true,
      backend_ok: true,
      message: 'listening',
      status: 'ok',
    });
    expect(await HTTP(`${status}/ready`)).toEqual({ status: 200, body: '{"ready":true,"waiting_for":[]}\n' });
    expect(await HTTP(`${status}/live`)).toEqual({ status: 200, body: 'ok\n' });
    const { body } = await HTTP(`${status}/metrics`);
    expect(body).toContain('warifu_proxy_connections_ended_total{listener="server",verdict="allowed",reason="CLOSED",fault="none"} 1\n');
    expect(body).toContain(
      'warifu_proxy_connections_ended_total{listener="server",verdict="denied",reason="POLICY_DENIED",fault="policy"} 1\n',
    );
    expect(body).toContain('warifu_proxy_peer_connections_total{listener="server",peer="spiffe://example.org/web"} 1\n');
    expect(body).toContain('warifu_proxy_bytes_total{listener="server",direction="up"} 5\n');
    expect(body).not.toContain('stranger');
    const list = JSON.parse((await HTTP(`${status}/_metrics/json`)).body) as { metric: string; value: number }[];
    expect(list).toContainEqual(expect.objectContaining({ metric: 'ghostunnel.accept.total', value: 2 }));
    expect(list).toContainEqual(expect.objectContaining({ metric: 'ghostunnel.accept.error', value: 1 }));
    expect(JSON.parse((await HTTP(`${status}/_metrics?format=json`)).body)).toHaveLength(list.length);
    expect((await HTTP(`${status}/_metrics/prometheus`)).body).toContain('ghostunnel_accept_success 1\n');
    expect((await HTTP(`${status}/debug/pprof/goroutine?debug=1`)).body).toMatch(/^goroutine profile: total \d+\n/);
    expect((await HTTP(`${status}/debug/pprof/profile?seconds=1`)).body).toMatch(/^\{"nodes":\[/);
    expect((await HTTP(`${status}/debug/pprof/cmdline`)).status).toBe(404);
    expect((await HTTP(`${status}/_shutdown`)).status).toBe(404);
    expect((await HTTP(`${status}/elsewhere`)).status).toBe(404);
  });

  test('one line of JSON tells of a connection, who it was and by which flag it was allowed', async () => {
    const { td, port, proxy } = await running([]);
    await call(td, port, '/web');
    const line = JSON.parse(await proxy.line(/"closed pipe"/)) as object;
    expect(line).toMatchObject({
      level: 'info',
      verdict: 'allowed',
      reason: 'CLOSED',
      peer: 'spiffe://example.org/web',
      own: 'spiffe://example.org/db',
      by: 'URI spiffe://example.org/web',
      tls: 'TLSv1.3',
      bytes_up: 5,
      bytes_down: 5,
    });
    expect(proxy.lines.items.filter((one) => one.includes('pipe'))).toHaveLength(1);
    await call(td, port, '/stranger').catch(() => '');
    expect(JSON.parse(await proxy.line(/"error on TLS handshake"/))).toMatchObject({
      level: 'warning',
      verdict: 'denied',
      reason: 'POLICY_DENIED',
      peer: 'spiffe://example.org/stranger',
    });
  });

  test("without a scheme it is https with the proxy's own certificate, which follows the SVID", async () => {
    const { status, td, api } = await running([], { status: '127.0.0.1:0' });
    expect(status).toMatch(/^https:/);
    const ca = td.bundle.x509.toPem();
    const serial = () =>
      new Promise<string>((resolve, reject) => {
        getTls(`${status}/live`, { ca, checkServerIdentity: () => undefined, agent: false }, (response) => {
          const { serialNumber } = (response.socket as import('node:tls').TLSSocket).getPeerCertificate();
          response.resume().on('end', () => resolve(serialNumber));
        }).on('error', reject);
      });
    const first = await serial();
    api.set({ identities: ['/db'] });
    await expect.poll(serial, { timeout: 5_000 }).not.toBe(first);
  });

  test('POST /_shutdown by our own user ends it as SIGTERM does; GET and a page of a browser do not', async () => {
    const { status, proxy } = await running(['--enable-shutdown']);
    const post = (headers: Record<string, string> = {}) =>
      heard((tell) => request(`${status}/_shutdown`, { method: 'POST', headers, agent: false }, tell).end());
    expect((await HTTP(`${status}/_shutdown`)).status).toBe(405);
    expect((await post({ origin: 'https://example.com' })).status).toBe(403);
    expect((await HTTP(`${status}/live`)).status).toBe(200);
    expect((await post()).status).toBe(200);
    expect(await proxy.exited).toEqual({ code: 0, signal: null });
  });

  test('while it drains it is not ready, and says so', async () => {
    const { status, proxy, td, port } = await running(['--shutdown-timeout', '20s']);
    const source = memorySource('/web', td);
    const outbound = await client(port, source);
    const open = connect(outbound.port, '127.0.0.1');
    onTestFinished(() => void open.destroy());
    open.write('hello');
    await new Promise((resolve) => open.once('data', resolve));
    expect((await HTTP(`${status}/ready`)).status).toBe(200);
    proxy.signal('SIGTERM');
    await proxy.line(/shutdown initiated/);
    const { status: code, body } = await HTTP(`${status}/ready`);
    expect(code).toBe(503);
    expect(JSON.parse(body)).toMatchObject({ ready: false, waiting_for: [expect.stringMatching(/stopping/)] });
    expect(JSON.parse((await HTTP(`${status}/_status`)).body)).toMatchObject({ ok: false, message: 'stopping' });
    open.end();
    expect((await proxy.exited).code).toBe(0);
  });

  test('an identity that is taken back makes it not ready, and says why; a new one makes it ready again', async () => {
    const { status, api } = await running([]);
    expect((await HTTP(`${status}/ready`)).status).toBe(200);
    api.deny();
    await expect
      .poll(() => HTTP(`${status}/ready`), { timeout: 10_000 })
      .toEqual({
        status: 503,
        body: expect.stringMatching(/"waiting_for":\[".*no identity issued/),
      });
    api.resume();
    await expect.poll(async () => (await HTTP(`${status}/ready`)).status, { timeout: 20_000 }).toBe(200);
  }, 40_000);

  test('over a UNIX socket', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'status-'));
    onTestFinished(() => rmSync(dir, { recursive: true }));
    const socketPath = join(dir, 's.sock');
    const { status } = await running([], { status: `unix:${socketPath}` });
    expect(status).toBe(`unix:${socketPath}`);
    expect((await heard((tell) => get({ socketPath, path: '/ready' }, tell))).status).toBe(200);
  });

  test('a status port that is taken ends the start with 1', async () => {
    const { status, api, behind } = await running([]);
    const second = new Daemon('second', [
      ...WARIFU,
      ...['proxy', 'server', '--listen', '127.0.0.1:0', '--target', `127.0.0.1:${behind.port}`, '--allow-all'],
      ...['--use-workload-api-addr', api.address, '--status', status],
    ]);
    expect((await second.exited).code).toBe(1);
    expect(second.lines.items.join('\n')).toMatch(/address already in use/);
  });
});
