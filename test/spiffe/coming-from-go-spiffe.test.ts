/** docs/coming-from-go-spiffe.md: each name of theirs has a row, each name of ours is there, each difference has its reason. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Named, readEntries, ROOT } from '../../tools/api-reference/names.ts';

const page = readFileSync(join(ROOT, 'docs/coming-from-go-spiffe.md'), 'utf8');
const { source, packages } = JSON.parse(readFileSync(join(import.meta.dirname, 'coming-from/go-spiffe.json'), 'utf8')) as {
  source: string;
  packages: Readonly<Record<string, readonly string[]>>;
};
const theirs = new Set(Object.values(packages).flat());

const ours = new Map<string, readonly Named[]>();
for (const { names } of readEntries()) for (const one of names) ours.set(one.name, [...(ours.get(one.name) ?? []), one]);
const all = new Set<Named>();
for (const one of [...ours.values()].flat()) reach(one);
/** Options and members, however they are called where they are. */
const words = new Set(
  [...all].flatMap(({ code, members }) => [
    ...members.map(({ name }) => name),
    ...[...code.matchAll(/\breadonly (\w+)\??:|'([\w-]+)'/g)].map(([, option, literal]) => option ?? literal ?? ''),
  ]),
);
const isOurs = (text: string) => {
  const [, name = '', member] = /^(\w+)(?:\.(\w+))?$/.exec(text) ?? [];
  const named = ours.get(name);
  return named !== undefined && (member === undefined || named.some((one) => membersOf(one).has(member)));
};

/** Types that nobody can import, too. */
function reach(one: Named): void {
  if (all.has(one)) return;
  all.add(one);
  one.mentions.forEach(reach);
}

/** Its own, and those of ours that it inherits. */
function membersOf({ members, heritage }: Named): ReadonlySet<string> {
  const inherited = heritage.flatMap((clause) =>
    [...clause.matchAll(/\w+/g)].flatMap(([name]) => ours.get(name) ?? []).flatMap((one) => [...membersOf(one)]),
  );
  return new Set([...members.map(({ name }) => name), ...inherited]);
}

const ticked = (text: string) => [...text.matchAll(/`([^`]+)`/g)].map(([, inner = '']) => inner);
const rowsOf = (part: string) =>
  part
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| |') && !line.startsWith('| go-spiffe |'))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((one) => one.trim()),
    );
const parts = new Map(
  page
    .split(/^## /m)
    .slice(1)
    .map((part) => [part.slice(0, part.indexOf('\n')), part.slice(part.indexOf('\n'))] as const),
);
const matches = (pattern: string, name: string) => new RegExp(`^${pattern.replaceAll('.', '\\.').replaceAll('*', '.*')}$`).test(name);

test('the page is of the version whose names were read', () => {
  const [, version = '?'] = /v(\d+\.\d+\.\d+):/.exec(source) ?? [];
  expect(page).toContain(`[go-spiffe](https://github.com/spiffe/go-spiffe) ${version}`);
  // and that the tests of interoperability speak to
  expect(readFileSync(join(ROOT, 'test/interop/go/go.mod'), 'utf8')).toContain(`go-spiffe/v2 v${version}`);
});

describe.each(Object.entries(packages))('%s', (name, exported) => {
  const rows = rowsOf(parts.get(name) ?? '');
  const patterns = rows.flatMap(([left = '']) => ticked(left));
  test('each name has a row', () => {
    expect(exported.length).toBeGreaterThan(5);
    expect(exported.filter((one) => !patterns.some((pattern) => matches(pattern, one)))).toEqual([]);
  });
  test('no row is about what is not there', () =>
    expect(patterns.filter((pattern) => !exported.some((one) => matches(pattern, one)))).toEqual([]));
  test('no name has two rows', () => {
    const plain = patterns.filter((pattern) => !pattern.includes('*'));
    expect(plain.filter((one, i) => plain.indexOf(one) !== i)).toEqual([]);
  });
  test('each row says what to write, or why there is nothing', () => {
    const empty = rows.filter(
      ([, right = '']) =>
        !/^none: .{10}/.test(right) && (ticked(right).length === 0 || !ticked(right).every((one) => isOurs(one) || words.has(one))),
    );
    expect(empty).toEqual([]);
  });
});

test('every name of ours on the page is there', () => {
  /** Neither theirs nor ours: words of Go, Node, grpc-js, the wire. */
  const foreign =
    /^(?:\(value, error\)|context\.Context|With…|Close|await using|for await|new|undefined|==|JSON\.stringify|AbortSignal|KeyObject|\/\*\*|bindAsync|unix:\/\/foo|x5c|iat|kid|proto|exp\/proto|Accept|close\(\))$/;
  const tokens = rowsOf(page)
    .flatMap(([, ...rest]) => ticked(rest.join(' ')))
    .concat(ticked(page.replaceAll(/^```[\s\S]*?^```/gm, '').replaceAll(/^\|.*$/gm, '')));
  expect(tokens.filter(isOurs).length).toBeGreaterThan(200);
  expect(
    tokens.filter((one) => !isOurs(one) && !words.has(one) && !theirs.has(one) && !foreign.test(one) && !/^test\/.*\.ts$/.test(one)),
  ).toEqual([]);
});

describe('what behaves otherwise', () => {
  const rows = rowsOf(parts.get('What behaves otherwise on purpose') ?? '').filter(([first = '']) => !first.startsWith('---'));
  test('each row has both behaviours and a reason', () => {
    expect(rows.length).toBeGreaterThan(15);
    expect(rows.filter((row) => row.length !== 4 || row.some((one) => one.length < 3))).toEqual([]);
  });
  test('each reason of a refusal, and each code, exists', () => {
    const { code: codes = '' } = ours.get('Code')?.[0] ?? {};
    const { code: reasons = '' } = ours.get('Reason')?.[0] ?? {};
    const prose = page.replaceAll(/^```[\s\S]*?^```/gm, '');
    const named = [...prose.matchAll(/\b[A-Z][A-Z0-9]+_[A-Z0-9_]+\b/g)].map(([one]) => one);
    expect(named.length).toBeGreaterThan(3);
    expect(named.filter((one) => !`${codes}${reasons}`.includes(`'${one}'`))).toEqual([]);
  });
  test('each requirement is a line of docs/spec.md', () => {
    const spec = readFileSync(join(ROOT, 'docs/spec.md'), 'utf8');
    const named = [...page.matchAll(/\b(?:ID|X509|JWT|TDB|FED|WE|WAPI)-\d+\b/g)].map(([one]) => one);
    expect(named.length).toBeGreaterThan(5);
    expect(named.filter((one) => !spec.includes(`| ${one} |`))).toEqual([]);
  });
});
