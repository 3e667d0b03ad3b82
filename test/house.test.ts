/** The house's own law: which room may import which, no circles, and the fences around what is dangerous. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';

const ROOT = resolve(import.meta.dirname, '..');

/** Which room may import which. Every room may import itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  cli: ['server', 'agent', 'proxy', 'plugins', 'core', 'spiffe', 'proto'],
  server: ['core', 'spiffe', 'proto'],
  agent: ['core', 'spiffe', 'proto'],
  proxy: ['core', 'spiffe'],
  plugins: ['core', 'spiffe', 'proto'],
  core: ['spiffe', 'proto'],
  spiffe: ['proto'],
  proto: [],
};

interface Source {
  readonly file: string;
  readonly text: string;
  readonly imports: readonly string[];
}

/** Every import of a source, types and dynamic ones included: big circles begin with types. */
function importsOf(text: string): string[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
  return [...code.matchAll(/(?:\bfrom\s*|\bimport\s*\(\s*|\bimport\s+)['"]([^'"]+)['"]/g)].map((found) => found[1] ?? '');
}

function sourcesOf(root: string, room: string): Source[] {
  if (!existsSync(join(root, room))) return [];
  return readdirSync(join(root, room), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.m?[jt]s$/.test(name) && !/(^|\/)(node_modules|dist)\//.test(name))
    .map((name) => {
      const file = join(room, name);
      const text = readFileSync(join(root, file), 'utf8');
      return { file, text, imports: importsOf(text) };
    });
}

const rooms = Object.keys(MAY_IMPORT);
const house = new Map(rooms.map((room) => [room, sourcesOf(ROOT, room)]));
const sources = [...house.values()].flat();
/** The house without what a machine wrote. */
const written = sources.filter(({ file }) => !file.startsWith('proto/gen/'));

function roomOf(file: string): string {
  return file.split('/')[0] ?? '';
}

function target(from: string, specifier: string): string | undefined {
  return specifier.startsWith('.') ? relative(ROOT, resolve(ROOT, dirname(from), specifier)) : undefined;
}

describe('imports only go down', () => {
  for (const room of rooms) {
    test(`${room}/ imports only ${MAY_IMPORT[room]?.join(', ') || 'itself'}`, () => {
      const wrong = (house.get(room) ?? []).flatMap(({ file, imports }) =>
        imports
          .map((specifier) => [specifier, target(file, specifier)] as const)
          .filter(([, to]) => to !== undefined && roomOf(to) !== room && !MAY_IMPORT[room]?.includes(roomOf(to)))
          .map(([specifier]) => `${file} imports ${specifier}`),
      );
      expect(wrong).toEqual([]);
    });
  }

  test('a plugin imports no other plugin; only the list of what ships names them all', () => {
    const family = (file: string) => file.split('/').slice(0, 3).join('/').replace(/\.ts$/, '');
    const wrong = (house.get('plugins') ?? [])
      .filter(({ file }) => file !== 'plugins/builtin.ts')
      .flatMap(({ file, imports }) =>
        imports
          .filter((s) => {
            const to = target(file, s);
            return to?.startsWith('plugins/') && family(to) !== family(file);
          })
          .map((s) => `${file} imports ${s}`),
      );
    expect(wrong).toEqual([]);
  });

  test('proxy/helper, which holds key bytes, is imported by no other file of the proxy, and imports none', () => {
    const isHelper = (file: string) => file.startsWith('proxy/helper/');
    const wrong = (house.get('proxy') ?? []).flatMap(({ file, imports }) =>
      imports
        .filter((s) => {
          const to = target(file, s);
          return to?.startsWith('proxy/') && isHelper(file) !== isHelper(to);
        })
        .map((s) => `${file} imports ${s}`),
    );
    expect(wrong).toEqual([]);
    expect((house.get('proxy') ?? []).some(({ file }) => isHelper(file))).toBe(true);
  });

  test('inside the house nobody imports an index', () => {
    expect(
      written.flatMap(({ file, imports }) => imports.filter((s) => s.endsWith('/index.ts')).map((s) => `${file} imports ${s}`)),
    ).toEqual([]);
  });

  test('files import each other in no circle, types included', () => {
    const graph = new Map(
      written.map(({ file, imports }) => [file, imports.map((s) => target(file, s)).filter((to): to is string => to !== undefined)]),
    );
    const done = new Set<string>();
    const circles: string[] = [];
    const visit = (file: string, path: string[]) => {
      if (path.includes(file)) return void circles.push([...path.slice(path.indexOf(file)), file].join(' → '));
      if (done.has(file)) return;
      for (const next of graph.get(file) ?? []) visit(next, [...path, file]);
      done.add(file);
    };
    for (const file of graph.keys()) visit(file, []);
    expect(circles).toEqual([]);
  });

  test('the reader of imports sees what it should (its own positive twin)', () => {
    expect(
      importsOf(`import type { A } from './a.ts';\nexport * from "./b.ts";\nconst c = await import('./c.ts');\nimport './d.ts';`),
    ).toEqual(['./a.ts', './b.ts', './c.ts', './d.ts']);
  });
});

/** What only these files may do, and why. */
const FENCES: readonly {
  readonly what: string;
  readonly why: string;
  readonly sign: RegExp;
  readonly only: RegExp;
  readonly within?: RegExp;
}[] = [
  {
    what: 'import grpc-js',
    why: 'one place wraps it',
    sign: /from '@grpc\/grpc-js'/,
    only: /^(core\/rpc[^/]*\.ts|spiffe\/(rpc\/channel|tls\/grpc|middleware\/grpc)\.ts)$/,
  },
  { what: 'import koffi', why: 'one native edge', sign: /['"]koffi['"]/, only: /^core\/native\.ts$/ },
  { what: 'import better-sqlite3', why: 'SQL lives in the store', sign: /['"]better-sqlite3['"]/, only: /^server\/store\// },
  {
    what: 'read the wall clock',
    why: 'time is lent',
    sign: /\bDate\.now\(\)|new Date\(\)|\bperformance\.now\(/,
    only: /^spiffe\/clock\.ts$/,
  },
  // a socket's own timeout, of silence, is not meant
  { what: 'wait by a timer', why: 'time is lent', sign: /(?<!\.)\b(setTimeout|setInterval)\(/, only: /^spiffe\/clock\.ts$/ },
  {
    what: 'switch the verdict of OpenSSL off',
    why: 'one place verifies instead',
    sign: /rejectUnauthorized/,
    only: /^spiffe\/tls\/tls\.ts$/,
  },
  {
    what: 'read the environment',
    why: 'settings come from the command line',
    sign: /process\.env\b/,
    only: /^(cli\/.*|spiffe\/workload-api\/endpoint\.ts)$/,
  },
  { what: 'end the process', why: 'who owns the process ends it', sign: /process\.exit\b/, only: /^cli\// },
  { what: 'write to the console', why: 'logs go through the log', sign: /\bconsole\.(log|error|warn|info)\b/, only: /^cli\// },
  {
    what: 'give types up',
    why: 'they are the first test',
    sign: /\bas any\b|:\s*any\b|@ts-ignore|@ts-expect-error|@ts-nocheck/,
    only: /^$/,
  },
];

describe('fences', () => {
  for (const { what, why, sign, only } of FENCES) {
    test(`only ${only.source === '^$' ? 'nobody' : only.source} may ${what}: ${why}`, () => {
      const wrong = written
        .filter(({ file, text }) => !only.test(file) && sign.test(text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/\/\/.*$/gm, '')))
        .map(({ file }) => file);
      expect(wrong).toEqual([]);
    });
  }
});

test('the first line of each file says what it is', () => {
  expect(
    written
      .filter(({ text, file }) => !/^(#!.*\n)?\/\*\*(?: |\n \* )|^(#!.*\n)?\/\/ /.test(text) && !file.endsWith('.mjs'))
      .map(({ file }) => file),
  ).toEqual([]);
});
