/** The program with several workers: one port, one status port for all, a worker that dies takes no other's connections with it, and all drain together. */
import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { systemClock } from '../../spiffe/clock.ts';
import { EphemeralTrustDomain } from '../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi } from '../../spiffe/testing/workload-api.ts';
import { Daemon } from '../e2e/daemon.ts';
import { WARIFU } from '../e2e/house.ts';
import { ask, backend, client, dial, hear, identityOf, memorySource } from './rig.ts';

const WORKERS = 3;

async function running(more: readonly string[] = []) {
  const td = EphemeralTrustDomain.create('example.org');
  const api = await FakeWorkloadApi.start(td, { identities: ['/db'] });
  const behind = await backend();
  const proxy = new Daemon('proxy', [
    ...WARIFU,
    ...['proxy', 'server', '--listen', '127.0.0.1:0', '--target', `127.0.0.1:${behind.port}`, '--workers', String(WORKERS)],
    ...['--use-workload-api-addr', api.address, '--allow-uri', 'spiffe://example.org/web', '--log-format', 'json'],
    ...['--status', 'http://127.0.0.1:0', '--close-timeout', '1s', ...more],
  ]);
  onTestFinished(async () => {
    if (!proxy.end) await proxy.stop();
    await api.stop();
  });
  const told = async (what: RegExp) => JSON.parse(await proxy.line(what)) as { address: string };
  const { address: status } = await told(/"status port"/);
  const port = Number((await told(/"listening for connections"/)).address.split(':').pop());
  // one that asks for what this process' sockets are called
  const source = memorySource('/web', td);
  const outbound = await client(port, source, {}, { identities: new Map([['own', identityOf(source)]]) });
  const children = () => readFileSync(`/proc/${proxy.pid}/task/${proxy.pid}/children`, 'utf8').trim().split(' ').map(Number);
  return { proxy, behind, status, outbound, children };
}

const metric = async (status: string, name: string): Promise<number> => {
  const body = await (await fetch(`${status}/metrics`)).text();
  return body
    .split('\n')
    .filter((line) => line.startsWith(name))
    .reduce((sum, line) => sum + Number(line.split(' ').pop()), 0);
};

async function open(port: number): Promise<Socket> {
  const socket = await dial(port);
  socket.write('x');
  await once(socket, 'data');
  return socket;
}

test('they share a port and are counted as one; a worker that dies leaves the others’ connections alone, and is replaced', async () => {
  const { proxy, status, outbound, children } = await running();
  const workers = children();
  expect(workers).toHaveLength(WORKERS);
  expect(JSON.parse(await (await fetch(`${status}/ready`)).text())).toEqual({ ready: true, waiting_for: [] });
  const sockets = await Promise.all(Array.from({ length: 60 }, () => open(outbound.port)));
  expect(await metric(status, 'warifu_proxy_connections_open{')).toBe(60);
  const ends = sockets.map((socket) => hear(socket));
  const ended = new Set<Socket>();
  // a process that is killed ends its connections as one does that has said everything
  for (const socket of sockets) socket.once('end', () => ended.add(socket)).once('close', () => ended.add(socket));
  process.kill(workers[0] ?? 0, 'SIGKILL');
  await proxy.line(/"a worker has died/);
  for (const from = performance.now(); ended.size === 0 || children().length < WORKERS; await systemClock.sleep(50))
    if (performance.now() - from > 10_000) throw new Error('nobody took its place');
  const left = sockets.filter((socket) => !ended.has(socket));
  // whichever worker had none has lost none
  expect(left.length).toBeGreaterThan(0);
  const answers = await Promise.all(
    left.map(async (socket) => {
      const answer = once(socket, 'data');
      socket.write('y');
      return String((await answer)[0]);
    }),
  );
  expect(new Set(answers)).toEqual(new Set(['y']));
  expect(await ask(outbound.port, 'new')).toBe('new');
  for (const socket of sockets) socket.end();
  await Promise.all(ends);
  expect((await proxy.stop()).code).toBe(0);
}, 40_000);

test('told to stop they let connections end, once and together', async () => {
  const { proxy, outbound, children } = await running();
  const socket = await open(outbound.port);
  process.kill(proxy.pid, 'SIGTERM');
  await proxy.line(/"shutdown initiated"/);
  socket.write('still');
  expect(String((await once(socket, 'data'))[0])).toBe('still');
  expect(children().length).toBeGreaterThan(0);
  socket.end();
  expect(await proxy.exited).toMatchObject({ code: 0 });
}, 40_000);

test('told twice, they cut what is open', async () => {
  const { proxy, outbound } = await running();
  const socket = await open(outbound.port);
  const heard = hear(socket);
  process.kill(proxy.pid, 'SIGTERM');
  process.kill(proxy.pid, 'SIGINT');
  await heard;
  expect(await proxy.exited).toMatchObject({ code: 1 });
}, 40_000);

test('one that can’t listen is told once, and nothing is left', async () => {
  const taken = await backend();
  const { proxy } = await (async () => {
    const td = EphemeralTrustDomain.create('example.org');
    const api = await FakeWorkloadApi.start(td, { identities: ['/db'] });
    onTestFinished(() => api.stop());
    return {
      proxy: new Daemon('proxy', [
        ...WARIFU,
        ...['proxy', 'server', '--listen', `127.0.0.1:${taken.port}`, '--target', '127.0.0.1:1', '--workers', '2'],
        ...['--use-workload-api-addr', api.address, '--allow-all'],
      ]),
    };
  })();
  expect(await proxy.exited).toMatchObject({ code: 1 });
}, 40_000);
