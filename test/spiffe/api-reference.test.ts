/** docs/api and docs/errors.md are what the sources say, and the sources say what a caller must know: what it is, its unit, how it fails. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Doc, type Entry, type Named, readEntries, ROOT } from '../../tools/api-reference/names.ts';
import { pages } from '../../tools/api-reference/pages.ts';

const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');
const entries = readEntries();
const made = pages(entries);
const committed = [...readdirSync(join(ROOT, 'docs/api')).map((name) => `docs/api/${name}`), 'docs/errors.md'];
const names = [...new Set(entries.flatMap((entry) => entry.names))];

const words = ({ text, params, fails }: Doc) => [...text, ...params.map(([, told]) => told), fails].join(' ').trim();
const pageOf = ({ specifier }: Entry) => [...made.values()].find((text) => text.startsWith(`# ${specifier}\n`)) ?? '';

describe('the pages are what `npm run api` makes of the sources', () => {
  test('none is missing, none is left over', () => expect(committed.toSorted()).toEqual([...made.keys()].toSorted()));
  for (const [file, text] of made) test(file, () => expect(read(file)).toBe(text));
});

describe('every export has its place', () => {
  const { exports } = JSON.parse(read('spiffe/package.json')) as { exports: Readonly<Record<string, unknown>> };
  const subpaths = Object.keys(exports).filter((subpath) => subpath !== './package.json');
  test('each subpath has a page', () =>
    expect(entries.map(({ specifier }) => specifier)).toEqual(subpaths.map((subpath) => posix.join('@warifu/spiffe', subpath))));

  for (const entry of entries) {
    // the compiler's reading of the same file, and ours: what stands at the beginning of its lines
    test(`${entry.specifier}: each name of ${entry.file} is told of`, () => {
      const page = pageOf(entry);
      const written = exportsOf(entry.file);
      expect(written.length).toBeGreaterThan(0);
      expect(entry.names.map(({ name }) => name).toSorted()).toEqual([...new Set(written)].toSorted());
      for (const name of written) expect(page).toMatch(new RegExp(`^## ${name}$|\\[\`${name}\`\\]\\((?:spiffe|jwt|middleware)\\.md#`, 'm'));
    });
  }
});

describe('docstrings', () => {
  test('each export has one', () => expect(names.filter(({ doc }) => doc.text.length === 0).map(where)).toEqual([]));

  test('so has each member that may be left out', () => {
    const silent = names.flatMap((one) =>
      one.members.filter((member) => member.optional && words(member.doc) === '').map((member) => `${where(one)} ${member.name}`),
    );
    expect(silent).toEqual([]);
  });

  test('clocks, loggers, times and sizes that may be left out say what is taken then', () => {
    const defaulted = /^(?:clock|log|random|keep|\w+(?:Ms|Seconds|Bytes|Redirects))$/;
    const options = names.flatMap((one) => [
      ...one.members.filter(({ optional }) => optional).map(({ name, doc }) => [one, name, words(doc)] as const),
      ...[...one.code.matchAll(/(?:\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\n)?\s*readonly (\w+)\?:/g)].map(
        ([, doc = '', name = '']) => [one, name, doc] as const,
      ),
    ]);
    const wanted = options.filter(([, name]) => defaulted.test(name));
    expect(wanted.length).toBeGreaterThan(30);
    expect(wanted.filter(([, , doc]) => !/\bdefault\b/i.test(doc)).map(([one, name]) => `${where(one)} ${name}`)).toEqual([]);
  });

  test('a parameter that they tell of is there', () => {
    const strays = names.flatMap((one) =>
      [{ signature: one.code, doc: one.doc }, ...one.members].flatMap(({ signature, doc }) =>
        doc.params.filter(([name]) => !new RegExp(`\\b${name}\\b`).test(signature)).map(([name]) => `${where(one)} @param ${name}`),
      ),
    );
    expect(strays).toEqual([]);
  });

  test('a time has its unit in its name', () => {
    const signatures = names.flatMap((one) =>
      [one.code, ...one.members.map(({ signature }) => signature)].map((signature) => [where(one), signature] as const),
    );
    const times = signatures.flatMap(([at, signature]) =>
      [
        ...signature.matchAll(
          /\b(\w*(?:timeout|ttl|interval|delay|age|expires|expiry|poll|refresh|tolerance|lifetime|duration|since|(?:not|issued)(?:Before|After|At))\w*)\??: (?:number|bigint)\b/gi,
        ),
      ].map(([, name = '']) => [`${at} ${name}`, name] as const),
    );
    expect(times.length).toBeGreaterThan(15);
    // what kafkajs and Confluent's client call it
    const theirs = ['spiffe/databases/kafka.ts OauthBearerToken lifetime'];
    expect(times.filter(([, name]) => !/(?:Ms|Seconds)$/.test(name)).map(([at]) => at)).toEqual(theirs);
  });

  /** Whose bodies could throw as they are written, and do not: what they call was checked before. */
  const NEVER = new Map([
    ['TrustDomain id', 'its name was parsed'],
    ['BundleSet with', 'no trust domain comes twice'],
    ['BundleSet without', 'no trust domain comes twice'],
    ['Certificate subjectText', 'names were checked by parse'],
    ['Certificate issuerText', 'names were checked by parse'],
    ['Certificate subjectName', 'names were checked by parse'],
    ['EphemeralTrustDomain bundle', 'it makes what it reads'],
    ['EphemeralTrustDomain rotate', 'it makes what it reads'],
    ...['set', 'renew', 'rotate', 'push', 'refuse', 'stall', 'garble'].map(
      (name) => [`FakeWorkloadApi ${name}`, 'what is thrown is the answer to a caller'] as const,
    ),
  ]);
  /** `As \`get\`.`, `see \`X509Source.ready\``: told there. */
  const ELSEWHERE = /\b(?:[Aa]s|see) `/;
  const says = (doc: Doc) => /\b(?:throws?|rejects|refuse[sd]?|fails|failure)\b/i.test(words(doc)) || ELSEWHERE.test(words(doc));
  const refusing = names.flatMap((one) => [
    ...(one.refuses ? [[one.name, one.doc, one] as const] : []),
    ...one.members.filter(({ refuses }) => refuses).map((member) => [`${one.name} ${member.name}`, member.doc, one] as const),
  ]);

  test('what can refuse says how', () => {
    expect(refusing.length).toBeGreaterThan(80);
    const silent = refusing.filter(([what, doc, one]) => !says(doc) && !NEVER.has(what) && !/Every call throws/.test(words(one.doc)));
    expect(silent.map(([what]) => what)).toEqual([]);
  });
  test('what never does though it could is still there', () => {
    const known = new Set(refusing.map(([what]) => what));
    expect([...NEVER.keys()].filter((what) => !known.has(what))).toEqual([]);
  });
});

describe('docs/errors.md', () => {
  const page = read('docs/errors.md');
  const members = (union: string) => {
    const code = names.find(({ name }) => name === union)?.code ?? '';
    return [...code.matchAll(/^ {2}\| '(\w+)'/gm)].map(([, member = '']) => member);
  };
  const rows = new Map(
    [...page.matchAll(/^\| <a id="(\w+)"><\/a>`(\w+)` \| ([^|]+) \| ([^|]+) \|/gm)].map(([, id, name = '', seen = '', next = '']) => [
      name,
      { id, seen, next },
    ]),
  );
  for (const [union, least] of [
    ['Code', 15],
    ['Reason', 100],
  ] as const) {
    test(`each ${union} has a row that says what was seen and what to do`, () => {
      const all = members(union);
      expect(all.length).toBeGreaterThan(least);
      for (const name of all) expect(rows.get(name), name).toMatchObject({ id: name.toLowerCase(), seen: /\w{3}/, next: /\w{3}/ });
    });
  }
  test('no other row is there', () => {
    const all = new Set([...members('Code'), ...members('Reason')]);
    expect([...rows.keys()].filter((name) => !all.has(name))).toEqual([]);
  });
  // what the sources refuse with, compared with what the union allows them to: a reason that nothing gives any more has no row
  test('each reason is given somewhere', () => {
    const sources = readdirSync(ROOT, { recursive: true, encoding: 'utf8', withFileTypes: false })
      .filter(
        (file) =>
          /^(?:spiffe|core|server|agent|plugins|proxy|cli)\/.*\.ts$/.test(file) &&
          file !== 'spiffe/errors.ts' &&
          !file.includes('node_modules'),
      )
      .map(read)
      .join('\n');
    expect(members('Reason').filter((name) => !sources.includes(`'${name}'`))).toEqual([]);
  });
});

test('every link between the pages leads to a heading or a row', () => {
  const anchors = new Map<string, ReadonlySet<string>>();
  const anchorsOf = (file: string) => {
    const known = anchors.get(file);
    if (known) return known;
    const text = made.get(file) ?? read(file);
    const seen = new Map<string, number>();
    const headings = [...text.replaceAll(/^```[\s\S]*?^```/gm, '').matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => {
      const word = heading
        .toLowerCase()
        .replaceAll(/[^\w\- ]/g, '')
        .replaceAll(' ', '-');
      const before = seen.get(word) ?? 0;
      seen.set(word, before + 1);
      return before === 0 ? word : `${word}-${before}`;
    });
    const found = new Set([...headings, ...[...text.matchAll(/<a id="(\w+)">/g)].map(([, id = '']) => id)]);
    anchors.set(file, found);
    return found;
  };
  const dead: string[] = [];
  let all = 0;
  for (const [file, text] of made) {
    for (const [, to = '', anchor] of text.matchAll(/\]\((?!https?:)([^)#]*)#([^)]+)\)/g)) {
      all++;
      const target = to === '' ? file : posix.join(dirname(file), to);
      if (!anchorsOf(target).has(anchor ?? '')) dead.push(`${file} -> ${target}#${anchor}`);
    }
  }
  expect(all).toBeGreaterThan(500);
  expect([...new Set(dead)]).toEqual([]);
});

test('the README of the package leads to these pages, and to no page that is not there', () => {
  const links = [...read('spiffe/README.md').matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, to = '']) => posix.join('spiffe', to));
  expect(links).toEqual(
    expect.arrayContaining(['docs/api/README.md', 'docs/errors.md', 'docs/coming-from-go-spiffe.md', 'docs/coming-from-node.md']),
  );
  expect(links.filter((file) => !existsSync(join(ROOT, file)))).toEqual([]);
});

function where({ file, name }: Named): string {
  return `${file} ${name}`;
}

/** What a file exports, by the beginnings of its lines. */
function exportsOf(file: string): readonly string[] {
  const source = read(file);
  const lists = [...source.matchAll(/^export (?:type )?\{([^}]*)\}/gm)].flatMap(([, list = '']) => list.split(','));
  return [
    ...lists.flatMap((one) => /^(?:type )?(?:\w+ as )?(\w+)$/.exec(one.trim())?.[1] ?? []),
    ...[...source.matchAll(/^export (?:async )?(?:abstract )?(?:function|class|interface|type|const) (\w+)/gm)].map(
      ([, name = '']) => name,
    ),
    ...[...source.matchAll(/^export \* from '([^']+)'/gm)].flatMap(([, from = '']) => exportsOf(join(dirname(file), from))),
  ];
}
