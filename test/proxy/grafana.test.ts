/** The dashboard draws what a proxy tells, and nothing that it doesn't: each metric and label is one of a real proxy's after traffic. */
import { globSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { render } from '../../proxy/snapshot.ts';
import { traffic } from './traffic.ts';

const ROOT = resolve(import.meta.dirname, '../..');
/** Given to each sample by who collects it. */
const OF_COLLECTOR = ['job', 'instance'];

/** By the name of a sample, such as `…_bucket`: its labels. */
function told(text: string): Map<string, Set<string>> {
  const names = new Map<string, Set<string>>();
  for (const [, name = '', labels = ''] of text.matchAll(/^([a-z]\w*)(?:\{(.*)\})? \S+$/gm)) {
    const known = names.get(name) ?? new Set(OF_COLLECTOR);
    for (const [, label = ''] of labels.matchAll(/(\w+)="(?:[^"\\]|\\.)*"/g)) known.add(label);
    names.set(name, known);
  }
  return names;
}

interface Used {
  readonly metric: string;
  readonly labels: readonly string[];
}

/** Of an expression, or of `label_values(…)`: metrics with the labels in their braces; and the labels that are grouped by, which some metric in it must have. */
function used(expr: string): { readonly metrics: readonly Used[]; readonly by: readonly string[] } {
  const metrics = [...expr.matchAll(/\b((?:warifu|process)_\w+)(?:\{([^}]*)\})?/g)].map(([, metric = '', inside = '']) => ({
    metric,
    labels: [...inside.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map(([, label = '']) => label),
  }));
  const by = [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list = '']) => list.split(',').map((one) => one.trim()));
  const [, value] = /^label_values\(.*,\s*(\w+)\)$/.exec(expr) ?? [];
  return { metrics, by: value === undefined ? by : [...by, value] };
}

interface Dashboard {
  readonly panels: readonly {
    readonly title: string;
    readonly targets: readonly { readonly expr: string; readonly legendFormat: string }[];
  }[];
  readonly templating: { readonly list: readonly { readonly type: string; readonly query: unknown }[] };
}

const files = globSync('deploy/grafana/*.json', { cwd: ROOT });
test('there is a dashboard', () => expect(files).not.toEqual([]));

describe.each(files)('%s', (file) => {
  const { panels, templating } = JSON.parse(readFileSync(resolve(ROOT, file), 'utf8')) as Dashboard;
  const queries = templating.list.filter(({ type }) => type === 'query').map(({ query }) => (query as { query: string }).query);
  const targets = panels.flatMap((panel) => panel.targets);

  test('uses only metrics and labels that a proxy tells', async () => {
    const { metrics, inbound } = await traffic();
    const real = told(render(metrics.snapshot(inbound.proxy)));
    expect(strangers([...targets.map(({ expr }) => expr), ...queries], real)).toEqual([]);
    // and each legend names labels that are left
    for (const { expr, legendFormat } of targets) {
      const labels = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label = '']) => label);
      const { by, metrics: all } = used(expr);
      const left = by.length > 0 ? by : all.flatMap(({ metric }) => [...(real.get(metric) ?? [])]);
      expect(
        labels.filter((label) => !left.includes(label)),
        expr,
      ).toEqual([]);
    }
  });

  test('draws every family', async () => {
    const { metrics, inbound } = await traffic();
    const families = [...render(metrics.snapshot(inbound.proxy)).matchAll(/^# TYPE (\S+)/gm)].map(([, name = '']) => name);
    const drawn = targets.flatMap(({ expr }) => used(expr).metrics.map(({ metric }) => metric.replace(/_bucket$/, '')));
    expect(families.filter((name) => !drawn.includes(name))).toEqual([]);
  });
});

function strangers(exprs: readonly string[], real: ReadonlyMap<string, ReadonlySet<string>>): readonly string[] {
  return exprs.flatMap((expr) => {
    const { metrics, by } = used(expr);
    const wrong = metrics.flatMap(({ metric, labels }) => {
      const has = real.get(metric);
      return has ? labels.filter((label) => !has.has(label)).map((label) => `${metric}{${label}}`) : [metric];
    });
    const all = new Set(metrics.flatMap(({ metric }) => [...(real.get(metric) ?? [])]));
    return metrics.length === 0
      ? [`nothing in ${expr}`]
      : [...wrong, ...by.filter((label) => !all.has(label)).map((label) => `by ${label} in ${expr}`)];
  });
}

test('a metric, a label and a group that do not exist would be seen', () => {
  const real = told('warifu_a_total{x="1"} 2\nwarifu_b 1\n');
  const of = (expr: string) => strangers([expr], real);
  expect(of('sum by (x) (rate(warifu_a_total{x="1",job="j"}[5m]))')).toEqual([]);
  expect(of('warifu_c')).toEqual(['warifu_c']);
  expect(of('warifu_b{x="1"}')).toEqual(['warifu_b{x}']);
  expect(of('sum by (y) (warifu_b)')).toEqual(['by y in sum by (y) (warifu_b)']);
  expect(of('up')).toEqual(['nothing in up']);
});
