/**
 * The proxy beside haproxy, stunnel and nginx of the distribution, in one run and in turns: CPU time of the proxy alone for a request over a warm connection, for a
 * new mutual TLS connection and for a gigabyte; added latency; memory. Server role: mutual TLS in, plain out. The load pins itself to another core.
 * `--seconds-short`: a few of each, to see that it works.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import type { Readable, Writable } from 'node:stream';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { EphemeralTrustDomain } from '../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi } from '../../spiffe/testing/workload-api.ts';
import { formatPem } from '../../spiffe/x509/pem.ts';
import { type Contestant, haproxy, nginx, ours, type Pki, stunnel } from '../proxy/contestants.ts';
import { cpuMs, main, median, type Row } from './figure.ts';

const { values: options } = parseArgs({ options: { short: { type: 'boolean' } }, strict: false });
const SCALE = options['short'] === true ? 0.02 : 1;
const TURNS = options['short'] === true ? 1 : 3;
const GIB = 1024 ** 3;

class Load {
  readonly #child: ChildProcess & { readonly stdin: Writable; readonly stdout: Readable };
  readonly #lines: AsyncIterator<string>;

  constructor(certificate: string, key: string) {
    this.#child = spawn('taskset', ['-c', '0', process.execPath, join(import.meta.dirname, '../proxy/load.ts'), certificate, key], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async answer(): Promise<Record<string, number>> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('the load has ended');
    const answer = JSON.parse(value) as Record<string, number> & { error?: string };
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer;
  }

  order(order: object): Promise<Record<string, number>> {
    this.#child.stdin.write(`${JSON.stringify(order)}\n`);
    return this.answer();
  }

  stop(): void {
    this.#child.stdin.end();
  }
}

/** PSS and RSS of a process, in MB. */
function memory(pid: number): { readonly pss: number; readonly rss: number } {
  const of = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0) / 1024;
  return { pss: of('Pss'), rss: of('Rss') };
}

/** CPU time of the proxy for what the load is ordered, in milliseconds. */
async function cost(load: Load, contestant: Contestant, order: object): Promise<number> {
  const before = cpuMs(contestant.pid);
  await load.order({ ...order, port: contestant.port });
  return cpuMs(contestant.pid) - before;
}

const WORK = [
  {
    what: 'CPU for 1 KiB and its answer, warm',
    unit: 'µs',
    order: { do: 'requests', count: Math.ceil(60_000 * SCALE), width: 32 },
    units: Math.ceil(60_000 * SCALE),
    per: 1_000,
    warm: 0.3,
  },
  {
    what: 'CPU for a new mTLS connection with one request',
    unit: 'µs',
    order: { do: 'connections', count: Math.ceil(1_500 * SCALE), width: 8 },
    units: Math.ceil(1_500 * SCALE),
    per: 1_000,
    warm: 1,
  },
  {
    what: 'CPU for a GiB, one stream',
    unit: 's',
    order: { do: 'download', bytes: GIB * SCALE, width: 1 },
    units: SCALE,
    per: 1 / 1_000,
    warm: 0.1,
  },
  {
    what: 'CPU for a GiB, eight streams',
    unit: 's',
    order: { do: 'download', bytes: GIB * SCALE, width: 8 },
    units: SCALE,
    per: 1 / 1_000,
    warm: 0.1,
  },
] as const;

async function figure(program: readonly string[]): Promise<Row[]> {
  const folder = mkdtempSync(join(tmpdir(), 'proxy-bench-'));
  const td = EphemeralTrustDomain.create('example.org');
  await using api = await FakeWorkloadApi.start(td, { identities: ['/db'] });
  const write = (name: string, text: string) => {
    writeFileSync(join(folder, name), text, { mode: 0o600 });
    return join(folder, name);
  };
  const pem = (path: string) => td.x509Svid(path).toPem();
  const [db, web] = [pem('/db'), pem('/web')];
  const pki: Pki = {
    root: write('root.pem', td.bundle.x509.authorities.map(({ raw }) => formatPem('CERTIFICATE', raw)).join('')),
    certificate: write('db.pem', db.certificates),
    key: write('db.key', db.key),
    workloadApi: api.address,
  };
  const load = new Load(write('web.pem', web.certificates), write('web.key', web.key));
  const { backend = 0 } = await load.answer();
  const contestants: Contestant[] = [];
  const rows: Row[] = [];
  try {
    contestants.push(
      await ours(program, pki, backend),
      await haproxy(pki, backend),
      await stunnel(pki, backend),
      await nginx(pki, backend),
    );
    for (const { name, version, pid } of contestants) {
      const { pss, rss } = memory(pid);
      console.log(`${name}: ${version}; at rest ${rss.toFixed(0)} MB resident, ${pss.toFixed(0)} MB PSS`);
      if (name === 'warifu') {
        rows.push(
          { what: 'memory at rest, resident', value: rss, unit: 'MB', limit: 64 },
          { what: 'memory at rest, PSS', value: pss, unit: 'MB', limit: 60 },
        );
      }
    }
    for (const { what, unit, order, units, per, warm } of WORK) {
      const seen = new Map<Contestant, number[]>(contestants.map((one) => [one, []]));
      for (const one of contestants) {
        const part = 'count' in order ? { count: Math.ceil(order.count * warm) } : { bytes: Math.ceil(order.bytes * warm) };
        await load.order({ ...order, ...part, port: one.port });
      }
      for (let turn = 0; turn < TURNS; turn++) {
        for (const one of turn % 2 === 0 ? contestants : [...contestants].reverse())
          seen.get(one)?.push(((await cost(load, one, order)) * per) / units);
      }
      const of = (name: string) => median(seen.get(contestants.find((one) => one.name === name) as Contestant) ?? []);
      for (const { name } of contestants) rows.push({ what: `${what}: ${name}`, value: of(name), unit });
      const against = what.includes('new mTLS') ? (['haproxy', 'stunnel'] as const) : (['haproxy'] as const);
      for (const other of against) {
        const limit = what.includes('new mTLS') ? 1 : what.includes('KiB') ? 1.15 : 1.1;
        rows.push({ what: `${what}: ours to ${other}`, value: of('warifu') / of(other), unit: '×', limit });
      }
    }
    const [own] = contestants;
    if (own) {
      const direct = await load.order({ do: 'steady', port: backend, plain: true, count: Math.ceil(8_000 * SCALE), perSecond: 1_000 });
      const through = await load.order({ do: 'steady', port: own.port, count: Math.ceil(8_000 * SCALE), perSecond: 1_000 });
      rows.push(
        {
          what: 'added latency at 1,000 requests/s, median',
          value: (through['medianMs'] ?? 0) - (direct['medianMs'] ?? 0),
          unit: 'ms',
          limit: 0.3,
        },
        {
          what: 'added latency at 1,000 requests/s, 99th of 100',
          value: (through['p99Ms'] ?? 0) - (direct['p99Ms'] ?? 0),
          unit: 'ms',
          limit: 1,
        },
      );
      await load.order({ do: 'download', port: own.port, bytes: Math.ceil(8 * GIB * SCALE), width: 8 });
      rows.push({ what: 'memory after 8 GiB, resident', value: memory(own.pid).rss, unit: 'MB', limit: 120 });
    }
    const held = Math.max(50, Math.ceil(1_000 * SCALE));
    for (const one of contestants) {
      const before = memory(one.pid).pss;
      await load.order({ do: 'idle', port: one.port, count: held });
      const each = ((memory(one.pid).pss - before) * 1024) / held;
      rows.push({
        what: `memory of an idle connection: ${one.name}`,
        value: each,
        unit: 'KB',
        ...(one.name === 'warifu' && { limit: 30 }),
      });
      await load.order({ do: 'drop', port: 0 });
    }
  } finally {
    load.stop();
    for (const one of contestants) await one.stop();
    rmSync(folder, { recursive: true });
  }
  return rows;
}

await main(import.meta.url, figure);
