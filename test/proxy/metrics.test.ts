/** What is counted, how several processes' counts become one, and the texts that are made of them. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcp } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { silent } from '../../core/log.ts';
import type { Connection } from '../../proxy/connection.ts';
import { FAMILIES, type Family } from '../../proxy/metric-families.ts';
import { createMetrics, MAX_LABELS } from '../../proxy/metrics.ts';
import { pushMetrics } from '../../proxy/metrics-push.ts';
import { ghostunnelMetrics, mergeSnapshots, quantile, render, renderGhostunnel, type Snapshot } from '../../proxy/snapshot.ts';
import { systemClock } from '../../spiffe/clock.ts';
import { FakeClock } from '../fakes/clock.ts';
import { td } from './rig.ts';
import { traffic } from './traffic.ts';

/** Every line of Prometheus' text, read strictly: a type before its samples, each family once, values that are numbers. */
function readText(text: string) {
  const types = new Map<string, string>();
  const samples = new Map<string, number>();
  let current = '';
  expect(text.endsWith('\n')).toBe(true);
  for (const line of text.slice(0, -1).split('\n')) {
    const [, name = '', type = ''] = /^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge|histogram)$/.exec(line) ?? [];
    if (name !== '') {
      expect(types.has(name), line).toBe(false);
      types.set(name, type);
      current = name;
    } else if (!/^# HELP [a-zA-Z_:][\w:]* ./.test(line)) {
      const [, of = '', labels = '', value = ''] =
        /^([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)+\})? (-?[\d.]+(?:e[+-]?\d+)?|\+Inf|NaN)$/.exec(line) ?? [];
      expect(of, line).not.toBe('');
      expect([current, `${current}_bucket`, `${current}_sum`, `${current}_count`], line).toContain(of);
      expect(samples.has(of + labels), line).toBe(false);
      samples.set(of + labels, Number(value));
    }
  }
  return { types, samples };
}

test('each family is told after traffic, with its own type', async () => {
  const { metrics, inbound } = await traffic();
  const { types } = readText(render(metrics.snapshot(inbound.proxy)));
  expect(Object.fromEntries(types)).toEqual(Object.fromEntries(Object.entries(FAMILIES).map(([name, { type }]) => [name, type])));
});

test('the numbers are those of the traffic, and of the connection that is open', async () => {
  const { metrics, inbound, source, intentions } = await traffic();
  const { samples } = readText(render(metrics.snapshot(inbound.proxy)));
  expect(Object.fromEntries(samples)).toMatchObject({
    'warifu_proxy_connections_accepted_total{listener="in"}': 4,
    'warifu_proxy_connections_opened_total{listener="in"}': 3,
    'warifu_proxy_connections_open{listener="in"}': 1,
    'warifu_proxy_connections_pending{listener="in"}': 0,
    'warifu_proxy_connections_ended_total{listener="in",verdict="allowed",reason="CLOSED",fault="none"}': 2,
    'warifu_proxy_connections_ended_total{listener="in",verdict="denied",reason="POLICY_DENIED",fault="policy"}': 1,
    'warifu_proxy_bytes_total{listener="in",direction="up"}': 'hello'.length + 'in the clear'.length + 'still here'.length,
    'warifu_proxy_peer_connections_total{listener="in",peer="spiffe://example.org/web"}': 2,
    'warifu_proxy_plaintext_connections_total{listener="in",caller="127.0.0.1"}': 1,
    'warifu_proxy_shadow_denials_total{listener="in",intention="no-web"}': 2,
    'warifu_proxy_handshake_seconds_count{listener="in"}': 2,
    'warifu_proxy_connection_seconds_count{listener="in"}': 2,
    'warifu_proxy_svid_not_after_timestamp_seconds{identity="own",spiffe_id="spiffe://example.org/db"}': source.svid.notAfterMs / 1000,
    'warifu_proxy_svid_rotations_total{identity="own"}': 1,
    warifu_proxy_intentions_rules: 3,
    [`warifu_proxy_intentions_info{version="${intentions.intentions.version}"}`]: 1,
    warifu_proxy_intentions_refused: 0,
    warifu_proxy_ready: 1,
  });
  const [authority] = td.bundle.x509.authorities;
  const bundle = [...samples].find(([name]) => name.startsWith('warifu_proxy_bundle_not_after'));
  expect(bundle?.[1]).toBe((authority?.notAfterMs ?? 0) / 1000);
  // nobody who was refused has a label
  expect([...samples.keys()].join()).not.toContain('stranger');
});

test('an identity that is taken back makes it not ready, and it has no end any more', async () => {
  const { metrics, inbound, source } = await traffic();
  source.forget();
  const { samples } = readText(render(metrics.snapshot(inbound.proxy)));
  expect(samples.get('warifu_proxy_ready')).toBe(0);
  expect([...samples.keys()].some((name) => name.startsWith('warifu_proxy_svid_not_after'))).toBe(false);
});

test('peers beyond the first hundred are others, and callers in the clear', async () => {
  const { observer, snapshot, close } = createMetrics({ identities: new Map(), intentions: undefined, version: '1', clock: systemClock });
  onTestFinished(close);
  for (let n = 0; n < 1_000; n++) {
    const connection = { listener: 'in', peer: { id: `spiffe://example.org/${n}` }, plaintext: true, from: `192.0.${n >> 8}.${n & 255}:1` };
    observer.opened?.(connection as unknown as Connection);
  }
  const { values } = snapshot({ connections: [] as never, state: 'listening', lastReloadMs: undefined });
  for (const name of ['warifu_proxy_peer_connections_total', 'warifu_proxy_plaintext_connections_total'] as const) {
    const samples = values[name] ?? [];
    expect(samples).toHaveLength(MAX_LABELS + 1);
    expect(samples.at(-1)).toEqual([['in', 'other'], 1_000 - MAX_LABELS]);
  }
});

describe('several processes', () => {
  const snapshot = (value: number): Snapshot => ({
    values: {
      warifu_proxy_connections_accepted_total: [[['in'], value]],
      warifu_proxy_connections_open: [[['in'], value]],
      warifu_proxy_ready: [[[], value % 2]],
      warifu_proxy_svid_not_after_timestamp_seconds: [[['own', 'spiffe://example.org/db'], 100 + value]],
      warifu_proxy_event_loop_lag_seconds: [[['99'], value]],
      warifu_proxy_peer_connections_total: [[['in', `spiffe://example.org/${value}`], value]],
    },
    distributions: {
      warifu_proxy_handshake_seconds: [[['in'], { counts: Array.from({ length: 14 }, () => value), sum: value, min: value, max: value }]],
    },
  });

  test('are added up, or the worst of them is told, as each row says', () => {
    const { values, distributions } = mergeSnapshots([snapshot(1), snapshot(2), snapshot(3)]);
    expect(values).toEqual({
      warifu_proxy_connections_accepted_total: [[['in'], 6]],
      warifu_proxy_connections_open: [[['in'], 6]],
      warifu_proxy_ready: [[[], 0]],
      warifu_proxy_svid_not_after_timestamp_seconds: [[['own', 'spiffe://example.org/db'], 101]],
      warifu_proxy_event_loop_lag_seconds: [[['99'], 3]],
      warifu_proxy_peer_connections_total: [1, 2, 3].map((n) => [['in', `spiffe://example.org/${n}`], n]),
    });
    expect(distributions.warifu_proxy_handshake_seconds).toEqual([
      [['in'], { counts: Array.from({ length: 14 }, () => 6), sum: 6, min: 1, max: 3 }],
    ]);
  });

  test('one alone stays what it is, none is nothing, and a real one goes through JSON unchanged', async () => {
    const { metrics, inbound } = await traffic();
    const real = metrics.snapshot(inbound.proxy);
    expect(JSON.parse(JSON.stringify(real))).toEqual(real);
    expect(render(mergeSnapshots([JSON.parse(JSON.stringify(real)) as Snapshot]))).toBe(render(real));
    expect(mergeSnapshots([])).toEqual({ values: {}, distributions: {} });
    expect(readText(render(mergeSnapshots([real, real]))).samples.get('warifu_proxy_connections_accepted_total{listener="in"}')).toBe(8);
  });

  test('every gauge says how', () => {
    const rows: [string, Family][] = Object.entries(FAMILIES);
    expect(rows.filter(([, { type, merge }]) => (type === 'gauge') !== (merge !== undefined)).map(([name]) => name)).toEqual([]);
    expect(rows.filter(([name, { type }]) => (type === 'counter') !== name.endsWith('_total')).map(([name]) => name)).toEqual([]);
  });
});

test('labels that others chose are escaped', () => {
  const text = render({ values: { warifu_proxy_peer_connections_total: [[['in', 'a"b\\c\nd'], 1]] }, distributions: {} });
  expect(text).toContain('{listener="in",peer="a\\"b\\\\c\\nd"} 1\n');
  readText(text);
});

describe("ghostunnel's names", () => {
  test('are all there, times in nanoseconds', async () => {
    const { metrics, inbound } = await traffic();
    const all = new Map(ghostunnelMetrics(metrics.snapshot(inbound.proxy), 'pre').map(({ metric, value }) => [metric, value]));
    const parts = ['count', 'min', 'max', 'mean', '50-percentile', '75-percentile', '95-percentile', '99-percentile'];
    expect([...all.keys()].sort()).toEqual(
      [
        ...['total', 'success', 'error', 'timeout'].map((name) => `pre.accept.${name}`),
        ...['open', 'timeout'].map((name) => `pre.conn.${name}`),
        ...['lifetime', 'handshake'].flatMap((name) => parts.map((part) => `pre.conn.${name}.${part}`)),
      ].sort(),
    );
    expect(all.get('pre.accept.total')).toBe(4);
    expect(all.get('pre.accept.success')).toBe(3);
    expect(all.get('pre.accept.error')).toBe(1);
    expect(all.get('pre.conn.open')).toBe(1);
    const [min = 0, half = 0, max = 0] = ['min', '50-percentile', 'max'].map((part) => all.get(`pre.conn.handshake.${part}`));
    expect(min).toBeGreaterThan(100_000);
    expect(half).toBeGreaterThanOrEqual(min);
    expect(max).toBeGreaterThanOrEqual(half);
    expect(max).toBeLessThan(10e9);
    readText(renderGhostunnel(ghostunnelMetrics(metrics.snapshot(inbound.proxy), 'pre')));
  });

  test('a quantile lies in its bucket, and within what was seen', () => {
    const bounds = [1, 2, 4];
    expect(quantile({ counts: [0, 10, 0, 0], sum: 15, min: 1.5, max: 1.5 }, bounds, 0.99)).toBe(1.5);
    expect(quantile({ counts: [50, 0, 50, 0], sum: 0, min: 0, max: 4 }, bounds, 0.5)).toBe(1);
    expect(quantile({ counts: [50, 0, 50, 0], sum: 0, min: 0, max: 4 }, bounds, 0.75)).toBe(3);
    expect(quantile({ counts: [0, 0, 0, 2], sum: 20, min: 8, max: 12 }, bounds, 1)).toBe(12);
    expect(quantile({ counts: [0, 0, 0, 0], sum: 0, min: null, max: null }, bounds, 0.5)).toBe(0);
  });
});

describe('pushed', () => {
  const settings = { prefix: 'pre', intervalMs: 30_000, graphite: undefined, url: undefined };
  const snapshot = (): Snapshot => ({ values: { warifu_proxy_connections_accepted_total: [[['in'], 7]] }, distributions: {} });

  test('to Graphite as lines, at each interval, and again after it was away', async () => {
    const heard: string[] = [];
    const make = () =>
      createTcp((socket) => {
        let text = '';
        socket.on('data', (piece) => (text += String(piece)));
        socket.on('end', () => void heard.push(text));
      });
    const first = make().listen(0, '127.0.0.1');
    await once(first, 'listening');
    const { port } = first.address() as AddressInfo;
    const clock = new FakeClock();
    const said: string[] = [];
    const log = { ...silent, warn: (message: string) => void said.push(message), info: (message: string) => void said.push(message) };
    const stop = new AbortController();
    const pushing = pushMetrics({ settings: { ...settings, graphite: { host: '127.0.0.1', port } }, snapshot, log, clock }, stop.signal);
    await clock.advance(29_000);
    expect(heard).toEqual([]);
    await clock.advance(1_000);
    await expect.poll(() => heard.length).toBe(1);
    expect(heard[0]).toContain(`pre.accept.total 7 ${Math.floor(clock.now() / 1000)}\n`);
    expect(heard[0]).toMatch(/^(?:pre\.[\w.-]+ [\d.]+ \d+\n)+$/);
    first.close();
    await once(first, 'close');
    await expect.poll(() => clock.waiting).toBe(1);
    await clock.advance(30_000);
    await expect.poll(() => said).toEqual(['metrics could not be pushed; they are tried again each time']);
    const second = make().listen(port, '127.0.0.1');
    await once(second, 'listening');
    onTestFinished(() => void second.close());
    await expect.poll(() => clock.waiting).toBe(1);
    await clock.advance(30_000);
    await expect.poll(() => heard.length).toBe(2);
    await expect.poll(() => said.length).toBe(2);
    stop.abort();
    await expect(pushing).rejects.toThrow();
  });

  test('as a JSON list by POST', async () => {
    const bodies: string[] = [];
    const server = createServer((request, response) => {
      let body = `${request.method} ${request.headers['content-type']} `;
      request.on('data', (piece) => (body += String(piece)));
      request.on('end', () => {
        bodies.push(body);
        response.end();
      });
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const clock = new FakeClock();
    const stop = new AbortController();
    const url = `http://127.0.0.1:${port}/metrics`;
    const pushing = pushMetrics({ settings: { ...settings, url }, snapshot, log: silent, clock }, stop.signal);
    await clock.advance(30_000);
    await expect.poll(() => bodies.length).toBe(1);
    const [method, type, ...rest] = (bodies[0] ?? '').split(' ');
    expect([method, type]).toEqual(['POST', 'application/json']);
    expect(JSON.parse(rest.join(' '))).toContainEqual({
      metric: 'pre.accept.total',
      value: 7,
      timestamp: Math.floor(clock.now() / 1000),
      hostname: expect.any(String),
    });
    stop.abort();
    await expect(pushing).rejects.toThrow();
  });
});
