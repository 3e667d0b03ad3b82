/** Story 14: a process uses the Workload API badly. Another, of the same user in another container, notices nothing. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { SpiffeWorkloadAPIDefinition } from '../../proto/gen/spiffe/workload/workload.ts';
import { openChannel } from '../../spiffe/rpc/channel.ts';
import { type Channel } from '../../spiffe/rpc/calls.ts';
import { type Agent, createRunningHouse, type House, ROOT } from './house.ts';

/** A control group of the kernel for a process; needs root, as CI has it. */
const GROUPS = ['/sys/fs/cgroup/pids', '/sys/fs/cgroup'].find((at) => existsSync(join(at, 'cgroup.procs'))) ?? '/sys/fs/cgroup';
const BOX = join(GROUPS, `warifu-hostile-${process.pid}`);
const MIB = 1024 * 1024;

let house: House;
let agent: Agent;
let atFirst = 0;
let neighbour: ChildProcess | undefined;
const channels: Channel[] = [];

beforeAll(async () => {
  ({ house, agent } = await createRunningHouse({ logLevel: 'INFO' }));
  for (const id of ['/web', '/db']) await house.createEntry({ id, parent: agent });
  mkdirSync(BOX);
  await fetchOften();
  for (const channel of channels.splice(0)) channel.close();
  await new Promise((done) => setTimeout(done, 500));
  atFirst = descriptors();
});
afterEach(async () => {
  neighbour?.kill('SIGKILL');
  if (neighbour && neighbour.exitCode === null && neighbour.signalCode === null) await once(neighbour, 'exit');
  neighbour = undefined;
  // nothing of his is left
  await expect.poll(descriptors, { timeout: 5_000 }).toBe(atFirst);
});
afterAll(async () => {
  for (const channel of channels) channel.close();
  await house?.close();
  rmdirSync(BOX);
});

interface Counts {
  readonly closed: number;
  readonly refused: number;
  readonly answered: number;
  readonly open: number;
}

/** Starts it in its own control group, so that it is another party than we. */
async function start(how: string): Promise<() => Promise<Counts>> {
  const child = spawn(
    '/bin/sh',
    [
      '-c',
      `echo $$ > ${BOX}/cgroup.procs && exec "$@"`,
      'sh',
      process.execPath,
      join(ROOT, 'test/e2e/neighbour.ts'),
      how,
      agent.socketPath,
    ],
    {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    },
  );
  neighbour = child;
  const [said] = (await once(child, 'message')) as [string];
  expect(said).toBe('ready');
  return async () => {
    const answer = once(child, 'message');
    child.send('counts');
    const [counts] = (await answer) as [Counts];
    return counts;
  };
}

function calls() {
  const channel = openChannel({ target: `unix://${agent.socketPath}` });
  channels.push(channel);
  return channel.service(SpiffeWorkloadAPIDefinition);
}
const metadata = { 'workload.spiffe.io': 'true' };

const descriptors = () => readdirSync(`/proc/${agent.process.pid}/fd`).length;

/** Fetches again and again for a second and a half over new connections and an old one; gives how long each took, milliseconds. */
async function fetchOften(): Promise<number[]> {
  const times: number[] = [];
  const old = calls();
  const kept = channels.length;
  const end = performance.now() + 1_500;
  while (performance.now() < end) {
    for (const api of [old, calls()]) {
      const from = performance.now();
      const signal = AbortSignal.timeout(5_000);
      for await (const { svids } of api.fetchX509SVID({}, { signal, metadata })) {
        expect(svids.length).toBe(2);
        break;
      }
      times.push(performance.now() - from);
    }
    for (const channel of channels.splice(kept)) channel.close();
  }
  return times.sort((a, b) => a - b);
}

const residentBytes = () => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${agent.process.pid}/status`, 'latin1'))?.[1]) * 1024;

/** A stream that was open before goes on: an entry that comes now reaches it. */
async function streamGoesOn(during: () => Promise<void>): Promise<void> {
  const stop = new AbortController();
  const seen: number[] = [];
  const reading = (async () => {
    for await (const { svids } of calls().fetchX509SVID({}, { signal: stop.signal, metadata })) seen.push(svids.length);
  })().catch(() => {});
  await expect.poll(() => seen.at(-1)).toBe(2);
  await during();
  const id = await house.createEntry({ id: '/late', parent: agent });
  await expect.poll(() => seen.at(-1), { timeout: 5_000 }).toBe(3);
  await house.deleteEntry(id);
  await expect.poll(() => seen.at(-1), { timeout: 5_000 }).toBe(2);
  stop.abort();
  await reading;
  for (const channel of channels.splice(0)) channel.close();
}

const table: readonly [how: string, check: (counts: Counts) => void][] = [
  [
    'silent',
    ({ open, closed }) => {
      // an eighth of 4,096
      expect(open).toBeLessThanOrEqual(512);
      expect(open).toBeGreaterThan(500);
      expect(open + closed).toBe(1_000);
    },
  ],
  ['half a frame', ({ open }) => expect(open).toBe(200)],
  ['a header of 1 MiB', ({ open }) => expect(open).toBe(0)],
  [
    '2,000 streams',
    ({ answered }) => {
      expect(answered).toBeGreaterThanOrEqual(1_000);
      expect(answered).toBeLessThanOrEqual(2_000);
    },
  ],
  ['2,000 streams that read nothing', () => {}],
  ['calls without end', ({ answered }) => expect(answered).toBeGreaterThan(100)],
];

describe('while a neighbour holds', () => {
  for (const [how, check] of table) {
    test(`${how}: others are served, their streams go on, memory stays bounded`, async () => {
      const before = residentBytes();
      let times: number[] = [];
      await streamGoesOn(async () => {
        const counts = await start(how);
        times = await fetchOften();
        check(await counts());
      });
      // not how fast, but that nobody waits for the neighbour: he is there all the while
      expect(times.length).toBeGreaterThan(10);
      expect(times.at(-1)).toBeLessThan(2_000);
      expect(residentBytes() - before).toBeLessThan(250 * MIB);
      console.log(
        `${how}: ${times.length} fetches, median ${times[times.length >> 1]?.toFixed(1)} ms, worst ${times.at(-1)?.toFixed(1)} ms, ${(residentBytes() / MIB).toFixed(0)} MiB`,
      );
    });
  }

  test('connections that say nothing end by themselves after ten seconds', async () => {
    const counts = await start('silent');
    await expect.poll(async () => (await counts()).open, { timeout: 15_000, interval: 500 }).toBe(0);
  });
});
