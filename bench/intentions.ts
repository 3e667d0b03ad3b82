/** Intentions: what a check costs with 10,000 of them, beside the plain way of looking at each, and what reading their file costs. Exits 1 when a limit is exceeded. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Intention, Intentions } from '../core/intention.ts';
import { readIntentionFile } from '../core/intention-settings.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { Random } from '../test/fuzz/random.ts';
import { naive } from '../test/core/naive-intentions.ts';
import { main, median, quantile, type Row } from './figures/figure.ts';

const RULES = 10_000;
const PEERS = 100;
const TURNS = 21;
const LIMIT_US = 20;

/** `--checks N` for a short run. */
const { values } = parseArgs({ options: { checks: { type: 'string', default: '200000' } }, strict: false });
const CHECKS = Number(values.checks);

const random = new Random(6);
const service = (n: number) => `spiffe://example.org/ns/ns-${n % 40}/sa/svc-${n}`;

/** As a company has them: most of them name two services, some a whole namespace, a few everybody; one in twenty is in trial. */
function rules(): Intention[] {
  const made = new Map<string, Intention>();
  const add = (source: string, destination: string, one: Partial<Intention> = {}) => {
    const rule: Intention = { id: `rule-${made.size}`, source, destination, action: 'allow', shadow: random.oneIn(20), ...one };
    if (made.size < RULES && !made.has(`${source} ${destination}`)) made.set(`${source} ${destination}`, rule);
  };
  add('spiffe://example.org/**', 'spiffe://example.org/ns/ns-0/**', { action: 'deny', shadow: false });
  for (let n = 0; n < 40; n++) {
    add(`spiffe://example.org/ns/ns-${n}/**`, `spiffe://example.org/ns/ns-${n}/sa/*`);
    add(`spiffe://far.test/ns/ns-${n}/sa/*`, `spiffe://example.org/ns/ns-${n}/**`, { action: 'deny' });
    add(`spiffe://example.org/ns/ns-${n}/sa/*`, 'spiffe://example.org/ns/*/sa/dns');
    add('spiffe://*/**', `spiffe://example.org/ns/ns-${n}/sa/public`);
  }
  while (made.size < RULES) add(service(random.int(2000)), service(random.int(2000)), { action: random.oneIn(10) ? 'deny' : 'allow' });
  return [...made.values()];
}

const written = rules();
const intentions = Intentions.from(written, { default: 'deny' });

/** Half of the calls have an intention of their own; the others go anywhere, also to those of whom nothing is written. */
function calls(): (readonly [SpiffeId, SpiffeId])[] {
  const peers = Array.from({ length: PEERS }, (_, n) =>
    SpiffeId.parse(n % 10 === 9 ? `spiffe://far.test/ns/ns-${n % 40}/sa/svc` : service(random.int(2100))),
  );
  const exact = written.filter(({ source, destination }) => !source.includes('*') && !destination.includes('*'));
  return Array.from({ length: 4096 }, (_, n) => {
    const rule = random.pick(exact);
    return n % 2 === 0 ? [SpiffeId.parse(rule.source), SpiffeId.parse(rule.destination)] : [random.pick(peers), random.pick(peers)];
  });
}

const asked = calls();

/** Microseconds of CPU for one, the median of the turns, and of the slowest turn in ten. */
function cost(checks: number, check: (source: SpiffeId, destination: SpiffeId) => unknown): readonly [typical: number, slow: number] {
  const each = Math.max(1, Math.ceil(checks / TURNS));
  const seen: number[] = [];
  for (let turn = -2; turn < TURNS; turn++) {
    const cpu = process.cpuUsage();
    for (let n = 0; n < each; n++) check(...(asked[n % asked.length] as readonly [SpiffeId, SpiffeId]));
    const { user, system } = process.cpuUsage(cpu);
    if (turn >= 0) seen.push((user + system) / each);
  }
  return [median(seen), quantile(seen, 0.9)];
}

/** Patterns of the same length with stars everywhere: the search has to look into every branch. */
function crossing(): { intentions: Intentions; source: SpiffeId; destination: SpiffeId } {
  const width = 13;
  const words = Array.from({ length: width }, (_, i) => `w${i}`);
  const pattern = (bits: number) => `spiffe://example.org/${words.map((word, i) => (bits & (1 << i) ? '*' : word)).join('/')}`;
  const all = Array.from({ length: 2 ** width }, (_, bits): Intention => {
    return { id: `x${bits}`, source: 'spiffe://example.org/nobody', destination: pattern(bits), action: 'allow', shadow: false };
  });
  return {
    intentions: Intentions.from(all, { default: 'deny' }),
    source: SpiffeId.parse('spiffe://example.org/web'),
    destination: SpiffeId.parse(pattern(0)),
  };
}

const texts: Readonly<Record<string, string>> = {
  hcl: `${written.map(({ id, source, destination, action, shadow }) => `intention "${id}" {\n  source = "${source}"\n  destination = "${destination}"\n  action = "${action}"\n${shadow ? '  shadow = true\n' : ''}}\n`).join('')}default = "deny"\n`,
  yaml: `intention:\n${written.map(({ id, source, destination, action, shadow }) => `  ${id}: { source: "${source}", destination: "${destination}", action: ${action}, shadow: ${shadow} }\n`).join('')}default: deny\n`,
  json: JSON.stringify({ default: 'deny', intention: Object.fromEntries(written.map(({ id, ...rule }) => [id, rule])) }),
};

async function reading(): Promise<Row[]> {
  const folder = mkdtempSync(join(tmpdir(), 'intentions-'));
  try {
    const rows: Row[] = [];
    for (const [format, text] of Object.entries(texts)) {
      const path = join(folder, `intentions.${format}`);
      writeFileSync(path, text);
      const times: number[] = [];
      for (let turn = 0; turn < 3; turn++) {
        const started = performance.now();
        const { intentions: read } = await readIntentionFile(path);
        times.push(performance.now() - started);
        if (read.version !== intentions.version) throw new Error(`${format}: other intentions were read than were written`);
      }
      rows.push({
        what: `reading ${RULES} intentions, ${format}, ${(statSync(path).size / 2 ** 20).toFixed(1)} MiB`,
        value: median(times),
        unit: 'ms',
      });
    }
    return rows;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

await main(import.meta.url, async () => {
  const reference = naive(written, 'deny');
  const hits = asked.filter(([source, destination]) => intentions.check(source, destination).rule !== undefined).length;
  for (const [source, destination] of asked.slice(0, 200)) {
    if (intentions.check(source, destination).rule?.id !== reference(source, destination).rule?.id)
      throw new Error(`the plain way decides otherwise: ${source} to ${destination}`);
  }
  const [typical, slow] = cost(CHECKS, (source, destination) => intentions.check(source, destination).allowed);
  const [words] = cost(CHECKS / 10, (source, destination) => intentions.check(source, destination).why);
  const [plain] = cost(CHECKS / 2000, (source, destination) => reference(source, destination).allowed);
  const worst = crossing();
  const [all] = cost(CHECKS / 1000, () => worst.intentions.check(worst.source, worst.destination).allowed);
  const building = median(
    Array.from({ length: 5 }, () => {
      const started = performance.now();
      Intentions.from(written, { default: 'deny' });
      return performance.now() - started;
    }),
  );
  return [
    {
      what: `a check, ${RULES} intentions, ${PEERS} peers, ${Math.round((hits / asked.length) * 100)} % have one`,
      value: typical,
      unit: 'µs CPU',
      limit: LIMIT_US,
    },
    { what: 'a check, the slowest turn in ten', value: slow, unit: 'µs CPU', limit: LIMIT_US },
    { what: 'a check and its sentence', value: words, unit: 'µs CPU', limit: LIMIT_US },
    { what: 'a check that looks at each intention, for comparison', value: plain, unit: 'µs CPU' },
    { what: `a check that ${2 ** 13} patterns of one length match`, value: all, unit: 'µs CPU' },
    { what: `making ${RULES} intentions`, value: building, unit: 'ms' },
    ...(await reading()),
  ];
});
