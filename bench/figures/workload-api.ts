/**
 * What the Workload API costs and yields, asked by go-spiffe: X.509-SVIDs over a warm connection and over new ones, JWT-SVIDs of one audience and of a new one each.
 * With `--spire DIR` (spire-server and spire-agent) stock SPIRE is measured in the same run, by the same client, and ours is to be faster by so much.
 */
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { Daemon } from '../../test/e2e/daemon.ts';
import { createHouse } from '../../test/e2e/house.ts';
import { startWorkload, type Ops, type Workload } from '../../test/interop/setup.ts';
import { cpuMs, main, median, quiet, type Row } from './figure.ts';

type Kind = Ops['rate'][0]['kind'];
interface Measured {
  readonly perSecond: number;
  readonly medianMs: number;
  readonly agentMs: number;
  readonly serverMs: number;
}

const WIDTH: Readonly<Record<Kind, number>> = { 'x509.warm': 8, 'x509.new': 1, 'jwt.same': 8, 'jwt.fresh': 8 };
const DURATION_MS = 5_000;
const ROUNDS = 3;

/** Of the rounds the median. Both programs serve while the other is idle. */
async function measure(go: Workload, addr: string, kind: Kind, agentPid: number, serverPid: number): Promise<Measured> {
  // until what is hot is compiled
  await go.call('rate', { addr, kind, width: WIDTH[kind], durationMs: 8_000 });
  const rounds: Measured[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    await quiet(agentPid);
    const before = [cpuMs(agentPid), cpuMs(serverPid)] as const;
    const { calls, elapsedMs, medianMs } = await go.call('rate', { addr, kind, width: WIDTH[kind], durationMs: DURATION_MS });
    rounds.push({
      perSecond: (calls / elapsedMs) * 1_000,
      medianMs,
      agentMs: (cpuMs(agentPid) - before[0]) / calls,
      serverMs: (cpuMs(serverPid) - before[1]) / calls,
    });
  }
  const of = (pick: (one: Measured) => number) => median(rounds.map(pick));
  return {
    perSecond: of((one) => one.perSecond),
    medianMs: of((one) => one.medianMs),
    agentMs: of((one) => one.agentMs),
    serverMs: of((one) => one.serverMs),
  };
}

async function all(go: Workload, program: readonly string[], spire: string | undefined): Promise<Readonly<Record<Kind, Measured>>> {
  const house = await createHouse({ program, logLevel: 'WARN', serverSettings: ['ratelimit { attestation = false signing = false }'] });
  const stock: Daemon[] = [];
  try {
    let serverPid: number;
    if (spire) {
      const server = new Daemon('spire-server', [join(spire, 'spire-server'), 'run', '-config', house.serverConf], { cwd: house.dir });
      stock.push(server);
      await server.accepts(house.socketPath);
      serverPid = server.pid;
    } else serverPid = (await house.startServer()).pid;
    // with the hash of its program in each answer SPIRE would measure SHA-256: it reads the file anew for every call
    const agent = await house.createAgent('agent', { discoverPath: false });
    let agentPid: number;
    if (spire) {
      const daemon = new Daemon('spire-agent', [join(spire, 'spire-agent'), 'run', '-config', agent.conf], { cwd: house.dir });
      stock.push(daemon);
      await daemon.accepts(agent.socketPath);
      agentPid = daemon.pid;
    } else agentPid = (await agent.start()).pid;
    await house.createEntry({ id: '/web', parent: agent });
    await go.holds(agent.address, `spiffe://${house.trustDomain}/web`);
    const kinds: readonly Kind[] = ['x509.warm', 'x509.new', 'jwt.same', 'jwt.fresh'];
    const found: Partial<Record<Kind, Measured>> = {};
    for (const kind of kinds) found[kind] = await measure(go, agent.address, kind, agentPid, serverPid);
    return found as Record<Kind, Measured>;
  } finally {
    for (const daemon of stock.reverse()) await daemon.stop().catch(() => daemon.kill());
    await house.close();
  }
}

export async function workloadApi(program: readonly string[]): Promise<Row[]> {
  const { values } = parseArgs({ options: { spire: { type: 'string' } }, strict: false });
  const spire = typeof values['spire'] === 'string' ? resolve(values['spire']) : undefined;
  const go = await startWorkload('go');
  try {
    const ours = await all(go, program, undefined);
    const rows: Row[] = [
      { what: 'X.509-SVID, warm connection, 8 at a time: agent CPU', value: ours['x509.warm'].agentMs, unit: 'ms', limit: 0.25 },
      { what: 'the same, a second', value: ours['x509.warm'].perSecond, unit: '/s' },
      { what: 'new connection to its first X.509-SVID, median', value: ours['x509.new'].medianMs, unit: 'ms', limit: 1.2 },
      { what: 'the same: agent CPU', value: ours['x509.new'].agentMs, unit: 'ms' },
      { what: 'JWT-SVID of one audience: agent CPU', value: ours['jwt.same'].agentMs, unit: 'ms', limit: 0.2 },
      { what: 'the same, a second', value: ours['jwt.same'].perSecond, unit: '/s' },
      { what: 'JWT-SVID, a new audience each: agent CPU', value: ours['jwt.fresh'].agentMs, unit: 'ms', limit: 0.35 },
      { what: 'the same: server CPU', value: ours['jwt.fresh'].serverMs, unit: 'ms', limit: 0.2 },
      { what: 'the same, a second', value: ours['jwt.fresh'].perSecond, unit: '/s' },
    ];
    if (!spire) return rows;
    const theirs = await all(go, program, spire);
    const beside = (what: string, kind: Kind, factor: number) =>
      rows.push(
        { what: `stock SPIRE, ${what}, a second`, value: theirs[kind].perSecond, unit: '/s' },
        // the most that theirs may be of ours
        {
          what: `  theirs of ours (ours is to be ${factor} times theirs)`,
          value: theirs[kind].perSecond / ours[kind].perSecond,
          unit: '',
          limit: 1 / factor,
        },
        { what: '  their agent’s CPU', value: theirs[kind].agentMs, unit: 'ms' },
      );
    beside('X.509-SVID warm', 'x509.warm', 1.25);
    rows.push({ what: 'stock SPIRE, new connection to first X.509-SVID, median', value: theirs['x509.new'].medianMs, unit: 'ms' });
    beside('JWT-SVID of one audience', 'jwt.same', 1.3);
    beside('JWT-SVID of a new audience', 'jwt.fresh', 1.3);
    return rows;
  } finally {
    await go.close();
  }
}

await main(import.meta.url, workloadApi);
