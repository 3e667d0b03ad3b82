/** Story 12: the clock of a machine jumps an hour, forward or back. Nobody is handed an SVID whose life is over, nobody asks the server in a storm, and all is well when the clock is right again. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { splitCertificates } from '../../spiffe/x509/certificate.ts';
import type { DaemonOptions } from './daemon.ts';
import { type Agent, createHouse, freePort, type House } from './house.ts';

/** Debian's package faketime; `tools/ci.mjs` sees to it that it is there. */
const LIBRARY = ['x86_64-linux-gnu', 'aarch64-linux-gnu']
  .map((machine) => `/usr/lib/${machine}/faketime/libfaketimeMT.so.1`)
  .find((path) => existsSync(path));
if (!LIBRARY) throw new Error('these stories need the package faketime: apt-get install faketime');

type Machine = 'server' | 'agent';
const HOUR_S = 3_600;
/** How long it is watched after each jump. */
const WATCH_MS = 8_000;

let house: House;
let agent: Agent;
let metricsPort: number;
const offset: Record<Machine, number> = { server: 0, agent: 0 };
afterEach(() => house?.close());

const clockOf = (machine: Machine) => join(house.dir, `${machine}.clock`);
function jump(machine: Machine, seconds: number): void {
  offset[machine] = seconds;
  writeFileSync(clockOf(machine), `${seconds < 0 ? '' : '+'}${seconds}`);
}
/** The wall clock of the machine as it believes; what is measured between two moments goes on undisturbed. */
const ownClock = (machine: Machine): DaemonOptions => ({
  env: {
    LD_PRELOAD: LIBRARY,
    FAKETIME_TIMESTAMP_FILE: clockOf(machine),
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
    DONT_FAKE_MONOTONIC: '1',
  },
});

async function begin(): Promise<void> {
  metricsPort = await freePort();
  // filled in when the folder has its name
  const serverProcess: { env: NonNullable<DaemonOptions['env']> } = { env: {} };
  house = await createHouse({ logLevel: 'INFO', serverProcess });
  writeFileSync(house.serverConf, `${readFileSync(house.serverConf, 'utf8')}\ntelemetry { Prometheus { port = ${metricsPort} } }\n`);
  jump('server', 0);
  jump('agent', 0);
  Object.assign(serverProcess, ownClock('server'));
  await house.startServer();
  agent = await house.createAgent('agent', { attestor: 'x509pop', process: ownClock('agent') });
  await agent.start();
  for (const id of ['/web', '/db', '/cache']) await house.createEntry({ id, parent: agent });
  await expect.poll(async () => (await svids())?.length).toBe(3);
}

/** What the agent hands out now; undefined while it refuses. The command line's own clock is right, so it is not asked to verify. */
async function svids(): Promise<readonly { readonly notBeforeMs: number; readonly notAfterMs: number }[] | undefined> {
  const { stdout } = await house.run('agent', 'api', 'fetch', 'x509', '-output', 'json', '-timeout', '3s', '-socketPath', agent.socketPath);
  if (stdout === '') return undefined;
  const answer = JSON.parse(stdout) as { svids: { x509_svid: string }[] };
  return answer.svids.flatMap(({ x509_svid: chain }) => splitCertificates(Buffer.from(chain, 'base64')).slice(0, 1));
}

/** Calls that cost the server a signature, by its own count. */
async function signatures(): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  const counted = /^spire_server_rpc_(?:svid_v1_svid_(?:batch_new_x509|new_jwt)\w*|agent_v1_agent_(?:attest|renew)_agent)\{[^}]*\} (\d+)/gm;
  return [...text.matchAll(counted)].filter(([line]) => !line.includes('elapsed_time')).reduce((sum, [, count]) => sum + Number(count), 0);
}

/** Watches for a while; gives how many signatures the server was asked for, and how often there were SVIDs. */
async function watch(): Promise<{ readonly signed: number; readonly served: number }> {
  const before = await signatures();
  const end = performance.now() + WATCH_MS;
  let served = 0;
  while (performance.now() < end) {
    const now = Date.now() + offset.agent * 1_000;
    const given = await svids();
    // by the clock of the machine that hands them out
    for (const { notAfterMs } of given ?? []) expect(notAfterMs, 'an SVID whose life is over').toBeGreaterThan(now);
    if (given?.length === 3) served++;
    await new Promise((done) => setTimeout(done, 500));
  }
  return { signed: (await signatures()) - before, served };
}

const rows: readonly [what: string, machines: readonly Machine[], seconds: number][] = [
  ['the server’s clock jumps an hour forward', ['server'], HOUR_S],
  ['the server’s clock jumps an hour back', ['server'], -HOUR_S],
  ['the agent’s clock jumps an hour forward', ['agent'], HOUR_S],
  ['the agent’s clock jumps an hour back', ['agent'], -HOUR_S],
  ['both clocks jump an hour forward', ['server', 'agent'], HOUR_S],
  ['both clocks jump an hour back', ['server', 'agent'], -HOUR_S],
];

for (const [what, machines, seconds] of rows) {
  test(`${what}, and back again`, async () => {
    await begin();
    for (const machine of machines) jump(machine, seconds);
    const away = await watch();
    for (const machine of machines) jump(machine, 0);
    const back = await watch();
    console.log(`${what}: ${away.signed} signatures asked for, ${away.served} answers; back again: ${back.signed}, ${back.served}`);
    // three entries and the agent itself, tried now and then: no storm
    expect(away.signed).toBeLessThan(30);
    expect(back.signed).toBeLessThan(30);
    await expect.poll(async () => (await svids())?.length, { timeout: 60_000, interval: 1_000 }).toBe(3);
    const now = Date.now();
    for (const { notBeforeMs, notAfterMs } of (await svids()) ?? []) {
      expect(notAfterMs).toBeGreaterThan(now);
      if (machines.includes('server') && seconds > 0) continue;
      expect(notBeforeMs).toBeLessThanOrEqual(now);
    }
  }, 150_000);
}
