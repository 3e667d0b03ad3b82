/**
 * 100,000 entries and 1,000 agents: how long entries take to come in, what the server weighs, how soon all agents are back after a restart, and how soon
 * a change reaches a workload among them. 999 of the agents are simulated (one process, a real TLS connection and push stream each), one is real.
 * `--entries N` and `--agents N` for less.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type Fleet, simulate } from './agents.ts';
import { createHouse } from '../../test/e2e/house.ts';
import { startWorkload, type X509Answer } from '../../test/interop/setup.ts';
import { cpuMs, main, median, quantile, quiet, type Row, wall } from './figure.ts';
import { Spire, wireId } from './spire.ts';

const { values } = parseArgs({ options: { entries: { type: 'string' }, agents: { type: 'string' } }, strict: false });
const ENTRIES = Number(values['entries'] ?? 100_000);
const AGENTS = Number(values['agents'] ?? 1_000);
/** Of these, so many are the real agent's. */
const OURS = Math.floor(ENTRIES / 20);
const CHUNK = 5_000;
const ROUNDS = 50;
const REST_MS = 20_000;

function residentMib(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

/** Idle: nothing asked of it, and its memory given back, which takes until the next quiet look (core/heap.ts). */
async function idle(pid: number): Promise<number> {
  await quiet(pid, 1_000);
  let least = residentMib(pid);
  for (let still = 0, looks = 0; still < 25 && looks < 90; looks++) {
    await new Promise((done) => setTimeout(done, 1_000));
    const now = residentMib(pid);
    still = now < least - 1 ? 0 : still + 1;
    least = Math.min(least, now);
  }
  return residentMib(pid);
}

async function restCpu(pids: readonly number[]): Promise<number[]> {
  const before = pids.map(cpuMs);
  await new Promise((done) => setTimeout(done, REST_MS));
  return pids.map((pid, at) => ((cpuMs(pid) - (before[at] ?? 0)) / REST_MS) * 100);
}

export async function scale(program: readonly string[]): Promise<Row[]> {
  const house = await createHouse({ program, logLevel: 'WARN', serverSettings: ['ratelimit { attestation = false signing = false }'] });
  const go = await startWorkload('go');
  let fleet: Fleet | undefined;
  let admin: Spire | undefined;
  try {
    await house.startServer();
    const agent = await house.createAgent();
    await agent.start();
    const rows: Row[] = [
      { what: 'agent: resident, without entries', value: await idle(agent.process.pid), unit: 'MiB', limit: 85 },
      { what: 'server: resident, empty', value: await idle(house.server.pid), unit: 'MiB', limit: 110 },
    ];

    admin = Spire.admin(house.socketPath);
    fleet = await simulate({ house, count: AGENTS - 1 });
    const others = fleet.ids;
    const create = async (entries: readonly object[]) => {
      const answer = await admin?.call('/spire.api.server.entry.v1.Entry/BatchCreateEntry', { entries });
      const bad = answer?.results.find(({ status }) => status.code !== 0);
      if (bad) throw new Error(`create: ${bad.status.message}`);
    };
    const all = Array.from({ length: ENTRIES }, (_, i) => ({
      spiffe_id: wireId(`spiffe://${house.trustDomain}/team-${i % 50}/service-${i}`),
      parent_id: wireId(i < OURS ? agent.id : (others[i % others.length] ?? agent.id)),
      selectors: [
        { type: 'unix', value: `uid:${100_000 + i}` },
        { type: 'unix', value: `user:svc-${i}` },
      ],
    }));
    const created = await wall(async () => {
      for (let at = 0; at < ENTRIES; at += CHUNK) await create(all.slice(at, at + CHUNK));
    });
    rows.push({
      what: `${ENTRIES} entries created, ${CHUNK} a call, while ${AGENTS} agents listen`,
      value: created / 1000,
      unit: 's',
      limit: 15,
    });
    await fleet.quiet();
    await quiet(agent.process.pid, 1_000);
    rows.push({
      what: `server: resident, ${ENTRIES} entries, ${AGENTS} streams`,
      value: await idle(house.server.pid),
      unit: 'MiB',
      limit: 300,
    });

    const open = `spiffe://${house.trustDomain}/open`;
    await house.createEntry({ id: open, parent: agent });
    const watch = go.follow('x509.watch', { addr: agent.address });
    const holds = (id: string) => (answer: X509Answer) => answer.svids.some((svid) => svid.id === id);
    await watch.update(holds(open));
    const [made, gone] = [[], []] as [number[], number[]];
    for (let round = 0; round < ROUNDS; round++) {
      const id = `spiffe://${house.trustDomain}/round/${round}`;
      const entry = {
        spiffe_id: wireId(id),
        parent_id: wireId(agent.id),
        selectors: [{ type: 'unix', value: `uid:${process.getuid?.() ?? 0}` }],
      };
      let from = watch.happenings.length;
      let started = performance.now();
      const [result] = (await admin.call('/spire.api.server.entry.v1.Entry/BatchCreateEntry', { entries: [entry] })).results;
      made.push((await watch.update(holds(id), { from })).atMs - started);
      from = watch.happenings.length;
      started = performance.now();
      await admin.call('/spire.api.server.entry.v1.Entry/BatchDeleteEntry', { ids: [result?.entry.id] });
      gone.push((await watch.update((answer) => !holds(id)(answer), { from })).atMs - started);
    }
    await watch.stop();
    rows.push(
      { what: 'created → SVID at go-spiffe, median', value: median(made), unit: 'ms', limit: 20 },
      { what: 'the same, 99 of 100', value: quantile(made, 0.99), unit: 'ms', limit: 100 },
      { what: 'deleted → gone at go-spiffe, median', value: median(gone), unit: 'ms', limit: 20 },
      { what: 'the same, 99 of 100', value: quantile(gone, 0.99), unit: 'ms', limit: 100 },
    );

    await idle(house.server.pid);
    const [serverRest = 0, agentRest = 0] = await restCpu([house.server.pid, agent.process.pid]);
    rows.push(
      { what: 'server: CPU at rest', value: serverRest, unit: '%', limit: 0.5 },
      { what: 'agent: CPU at rest', value: agentRest, unit: '%', limit: 0.2 },
    );

    await house.server.stop();
    const ready = await wall(() => house.startServer());
    rows.push({ what: `server: start until ready with ${ENTRIES} entries`, value: ready / 1000, unit: 's', limit: 2 });
    const back = await wall(() => fleet?.reconnected() ?? Promise.resolve());
    rows.push({ what: `all ${AGENTS - 1} simulated agents are back and in step`, value: back / 1000, unit: 's', limit: 30 });
    return rows;
  } finally {
    admin?.close();
    await fleet?.close();
    await go.close();
    await house.close();
  }
}

await main(import.meta.url, scale);
