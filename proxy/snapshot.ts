/** What a proxy has counted, as plain values that go through JSON: several processes' become one, and text for whoever collects it. */
import { FAMILIES, type Family, type FamilyName } from './metric-families.ts';

/** Values of the labels in the family's order, and the value. */
export type Sample = readonly [labels: readonly string[], value: number];

export interface Distribution {
  /** Those of each bucket alone; the last one is of what is above every bound. */
  readonly counts: readonly number[];
  readonly sum: number;
  /** Null while nothing was observed. */
  readonly min: number | null;
  readonly max: number | null;
}
export type DistributionSample = readonly [labels: readonly string[], value: Distribution];

export interface Snapshot {
  readonly values: Readonly<Partial<Record<FamilyName, readonly Sample[]>>>;
  readonly distributions: Readonly<Partial<Record<FamilyName, readonly DistributionSample[]>>>;
}

/** Those of several processes. Of none: nothing. */
export function mergeSnapshots(all: readonly Snapshot[]): Snapshot {
  const values: Partial<Record<FamilyName, readonly Sample[]>> = {};
  const distributions: Partial<Record<FamilyName, readonly DistributionSample[]>> = {};
  for (const name of NAMES) {
    const family: Family = FAMILIES[name];
    if (family.type === 'histogram') {
      const found = all.flatMap((one) => one.distributions[name] ?? []);
      if (found.length > 0) distributions[name] = byLabels(found, addUp);
    } else {
      const found = all.flatMap((one) => one.values[name] ?? []);
      if (found.length > 0) values[name] = byLabels(found, MERGE[family.merge ?? 'sum']);
    }
  }
  return { values, distributions };
}

const NAMES = Object.keys(FAMILIES) as readonly FamilyName[];

const MERGE = { sum: (a: number, b: number) => a + b, min: Math.min, max: Math.max } as const;

function byLabels<T>(
  samples: readonly (readonly [readonly string[], T])[],
  merge: (a: T, b: T) => T,
): readonly (readonly [readonly string[], T])[] {
  const merged = new Map<string, readonly [readonly string[], T]>();
  for (const [labels, value] of samples) {
    const key = JSON.stringify(labels);
    const known = merged.get(key);
    merged.set(key, [labels, known ? merge(known[1], value) : value]);
  }
  return [...merged.values()];
}

function addUp(a: Distribution, b: Distribution): Distribution {
  const either = (pick: (x: number, y: number) => number, x: number | null, y: number | null) =>
    x === null ? y : y === null ? x : pick(x, y);
  return {
    counts: a.counts.map((count, index) => count + (b.counts[index] ?? 0)),
    sum: a.sum + b.sum,
    min: either(Math.min, a.min, b.min),
    max: either(Math.max, a.max, b.max),
  };
}

export const PROMETHEUS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/** Prometheus' text. */
export function render({ values, distributions }: Snapshot): string {
  const lines: string[] = [];
  for (const name of NAMES) {
    const family: Family = FAMILIES[name];
    const plain = values[name] ?? [];
    const spread = distributions[name] ?? [];
    if (plain.length === 0 && spread.length === 0) continue;
    lines.push(`# HELP ${name} ${family.help.replaceAll('\\', '\\\\')}`, `# TYPE ${name} ${family.type}`);
    for (const [labels, value] of plain) lines.push(`${name}${labelText(family.labels, labels)} ${value}`);
    for (const [labels, { counts, sum }] of spread) {
      const of = labelText(family.labels, labels);
      let below = 0;
      counts.forEach((count, index) => {
        below += count;
        const bound = family.buckets?.[index];
        lines.push(
          `${name}_bucket${labelText([...family.labels, 'le'], [...labels, bound === undefined ? '+Inf' : String(bound)])} ${below}`,
        );
      });
      lines.push(`${name}_sum${of} ${sum}`, `${name}_count${of} ${below}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

function labelText(names: readonly string[], labels: readonly string[]): string {
  if (names.length === 0) return '';
  return `{${names.map((name, index) => `${name}="${escaped(labels[index] ?? '')}"`).join(',')}}`;
}

function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

/** As ghostunnel names and measures it: times are in nanoseconds. */
export interface GhostunnelMetric {
  readonly metric: string;
  readonly value: number;
}

export function ghostunnelMetrics(snapshot: Snapshot, prefix: string): readonly GhostunnelMetric[] {
  const sum = (name: FamilyName, of: (labels: readonly string[]) => boolean = () => true) =>
    (snapshot.values[name] ?? []).reduce((all, [labels, value]) => (of(labels) ? all + value : all), 0);
  const reason = (...reasons: readonly string[]) =>
    sum('warifu_proxy_connections_ended_total', ([, , one]) => one !== undefined && reasons.includes(one));
  // a target that is not there is no fault of accepting
  const refused = sum(
    'warifu_proxy_connections_ended_total',
    ([, verdict, , fault]) => verdict !== 'allowed' && fault !== 'none' && fault !== 'upstream',
  );
  const shaken = (snapshot.distributions.warifu_proxy_handshake_seconds ?? []).reduce((all, [, one]) => all + countOf(one), 0);
  const all: (readonly [string, number])[] = [
    ['accept.total', sum('warifu_proxy_connections_accepted_total')],
    ['accept.success', shaken + sum('warifu_proxy_plaintext_connections_total')],
    ['accept.error', refused - reason('TLS_TIMEOUT')],
    ['accept.timeout', reason('TLS_TIMEOUT', 'UPSTREAM_TIMEOUT')],
    ['conn.open', sum('warifu_proxy_connections_open')],
    ['conn.timeout', reason('TIMEOUT_CLOSE', 'TIMEOUT_LIFETIME', 'TIMEOUT_IDLE')],
    ...timer('conn.lifetime', snapshot, 'warifu_proxy_connection_seconds'),
    ...timer('conn.handshake', snapshot, 'warifu_proxy_handshake_seconds'),
  ];
  return all.map(([name, value]) => ({ metric: `${prefix}.${name}`, value }));
}

/** The same as Prometheus' text: gauges, as there. */
export function renderGhostunnel(metrics: readonly GhostunnelMetric[]): string {
  return metrics
    .map(({ metric, value }) => {
      const name = metric.replace(/[^A-Za-z0-9_:]/g, '_');
      return `# TYPE ${name} gauge\n${name} ${value}\n`;
    })
    .join('');
}

const NANO = 1e9;

function timer(name: string, { distributions }: Snapshot, family: 'warifu_proxy_connection_seconds' | 'warifu_proxy_handshake_seconds') {
  const { buckets } = FAMILIES[family];
  const all = (distributions[family] ?? []).map(([, one]) => one);
  const empty: Distribution = { counts: Array.from({ length: buckets.length + 1 }, () => 0), sum: 0, min: null, max: null };
  const whole = all.reduce(addUp, empty);
  const count = countOf(whole);
  const nano = (seconds: number | null) => Math.round((seconds ?? 0) * NANO);
  return [
    [`${name}.count`, count],
    [`${name}.min`, nano(whole.min)],
    [`${name}.max`, nano(whole.max)],
    [`${name}.mean`, nano(count === 0 ? 0 : whole.sum / count)],
    ...[50, 75, 95, 99].map((part) => [`${name}.${part}-percentile`, nano(quantile(whole, buckets, part / 100))] as const),
  ] as const;
}

function countOf({ counts }: Distribution): number {
  return counts.reduce((a, b) => a + b, 0);
}

/** Between the bounds of its bucket, as if its values were spread evenly there; never outside of what was seen. */
export function quantile(of: Distribution, buckets: readonly number[], part: number): number {
  const { counts, min, max } = of;
  const count = countOf(of);
  if (count === 0 || min === null || max === null) return 0;
  const rank = part * count;
  let below = 0;
  for (const [index, inside] of counts.entries()) {
    if (inside > 0 && below + inside >= rank) {
      const from = Math.max(min, buckets[index - 1] ?? min);
      const to = Math.min(max, buckets[index] ?? max);
      return from + (Math.max(0, rank - below) / inside) * (to - from);
    }
    below += inside;
  }
  return max;
}
