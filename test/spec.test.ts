/** docs/spec.md is true of the repository, and has all of it: requirements, the files that keep them, the tests that name them. */
import { existsSync, globSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { PROFILE } from '../spiffe/x509/profile.ts';

const ROOT = resolve(import.meta.dirname, '..');
const read = (file: string) => readFileSync(resolve(ROOT, file), 'utf8');

/** Every MUST and MUST NOT of the eight families: none can leave the page unseen. `GEN` has none, nor any SHOULD. */
const MUSTS: Readonly<Record<string, string>> = {
  ID: '1-10 12 15-19 21 23 27-29 33 36',
  X509: '1-3 5-6 8 11 14 16-18 20-22 24 26-27 30 32 34-44 46-47',
  JWT: '1-7 9-10 13-16 19-20 22-24 27-30',
  TDB: '2 5 7 9-10 13 15-17 19 22-23 25-26 29-30 32',
  FED: '1 4 12 14-17 19-22 24-27 30 32-33 35 38-42 44 46-49 52 54-55 57 59 64',
  WE: '3-4 6-18 20-21 28 30',
  WAPI: '1 4-6 9 11-12 14-15 19-24 26-27 29-30 35-36 40-45 48-51 55 58 60-62 64-67 72-74',
};
/** Every SHOULD and SHOULD NOT. */
const SHOULDS: Readonly<Record<string, string>> = {
  ID: '22 30-31',
  X509: '10 12 28 45',
  JWT: '18 25-26',
  TDB: '8 12 21 31',
  FED: '3 5-10 23 28 31 34 36-37 50 53 58 60-61 63',
  WE: '1-2 5 19 22 25 27 31-32',
  WAPI: '7-8 10 16-18 31-32 34 37 39 46-47 52 54 56 59 63 68-69 71 75 77 79',
};
const LEVELS = ['MUST', 'MUST NOT', 'SHOULD', 'SHOULD NOT', 'MAY', 'rec', 'info'];

interface Row {
  readonly id: string;
  readonly level: string;
  readonly words: string;
  readonly keptIn: readonly string[];
  readonly tests: readonly string[];
  /** The last cell, where it names no test. */
  readonly why: string;
}

const filesIn = (cell: string) => [...cell.matchAll(/`([^`]+)`/g)].map(([, file = '']) => file);

const rows: readonly Row[] = read('docs/spec.md')
  .split('\n')
  .filter((line) => /^\| [A-Z]/.test(line))
  .map((line) => {
    const [, id = '', level = '', words = '', files = '', last = ''] = line.split('|').map((cell) => cell.trim());
    const tests = filesIn(last);
    return { id, level, words, keptIn: filesIn(files), tests, why: tests.length === 0 ? last : '' };
  });

/** The numbers that a text names: `X509-12`, `WAPI-21, 22, 23`, `WE-11…17`. */
function numbersIn(text: string): Set<string> {
  const found = new Set<string>();
  for (const [, family = '', first = '', rest = ''] of text.matchAll(/\b(GEN|ID|X509|JWT|TDB|FED|WE|WAPI)-(\d+)((?:, \d+|…\d+)*)/g)) {
    let last = Number(first);
    found.add(`${family}-${last}`);
    for (const [, sign, number] of rest.matchAll(/(, |…)(\d+)/g)) {
      const to = Number(number);
      for (let one = sign === '…' ? last : to; one <= to; one++) found.add(`${family}-${one}`);
      last = to;
    }
  }
  return found;
}

/** The rows of a file of vectors become names of tests in test/spiffe/vectors.test.ts. */
function numbersOfVectors(file: string): Set<string> {
  const { rows: vectors = [] } = JSON.parse(read(file)) as { readonly rows?: readonly { readonly requirement?: string }[] };
  return numbersIn(vectors.map(({ requirement = '' }) => requirement).join(' '));
}

/** The contracts are run by the tests of whoever keeps them. */
const testFiles = globSync(['test/**/*.test.ts', 'test/contract/*.ts', 'test/vectors/*.json'], { cwd: ROOT }).filter(
  (file) => file !== 'test/spec.test.ts',
);
const named = new Map(
  testFiles.sort().map((file) => [file, file.endsWith('.json') ? numbersOfVectors(file) : numbersIn(read(file))] as const),
);

test('lists and ranges of numbers are read as such', () => {
  expect([...numbersIn('WE-25, WAPI-32, 37: X509-1 X509-2 (JWT-3…5), ID-1 TDB-2 GEN-3 but no KID-4, WIT-5 or id-6')]).toEqual([
    'WE-25',
    'WAPI-32',
    'WAPI-37',
    'X509-1',
    'X509-2',
    'JWT-3',
    'JWT-4',
    'JWT-5',
    'ID-1',
    'TDB-2',
    'GEN-3',
  ]);
});

test('no requirement comes twice, each has words and a level', () => {
  expect(rows.length).toBeGreaterThan(191 + 66);
  expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length);
  expect(rows.filter(({ level, words }) => !LEVELS.includes(level) || words === '').map(({ id }) => id)).toEqual([]);
});

function spelled(list: Readonly<Record<string, string>>): string[] {
  return Object.entries(list).flatMap(([family, ranges]) =>
    ranges.split(' ').flatMap((range) => {
      const [from = 0, to = from] = range.split('-').map(Number);
      return Array.from({ length: to - from + 1 }, (_, index) => `${family}-${from + index}`);
    }),
  );
}

for (const [level, list, count] of [
  ['MUST', MUSTS, 191],
  ['SHOULD', SHOULDS, 66],
] as const) {
  test(`every ${level} and ${level} NOT has a row, and no other row says that it is one`, () => {
    const all = spelled(list);
    expect(all).toHaveLength(count);
    const told = rows.filter((row) => [level, `${level} NOT`].includes(row.level)).map(({ id }) => id);
    expect(told.sort()).toEqual(all.sort());
  });
}

test('every family has a row, and no row is of another', () => {
  expect([...new Set(rows.map(({ id }) => id.replace(/-.*/, '')))].sort()).toEqual([
    'FED',
    'GEN',
    'ID',
    'JWT',
    'TDB',
    'WAPI',
    'WE',
    'X509',
  ]);
});

test('every file that is named is there', () => {
  const gone = rows.flatMap(({ id, keptIn, tests }) =>
    [...keptIn, ...tests].filter((file) => !existsSync(resolve(ROOT, file))).map((file) => `${id}: ${file}`),
  );
  expect(gone).toEqual([]);
});

test('every row names a file and a test, or says why not', () => {
  const bare = rows.filter(({ keptIn, tests, why }) =>
    tests.length === 0 ? !/^(not yet|does not bind): \S/.test(why) : keptIn.length === 0,
  );
  expect(bare.map(({ id }) => id)).toEqual([]);
});

describe('each test file names what the page says, and nothing that the page does not say', () => {
  for (const [file, numbers] of named) {
    const told = rows.filter(({ tests }) => tests.includes(file)).map(({ id }) => id);
    if (told.length === 0 && numbers.size === 0) continue;
    test(file, () => expect(told.sort()).toEqual([...numbers].sort()));
  }
});

test('the rules of the profile are rows that name it', () => {
  const kept = new Set(rows.filter(({ keptIn }) => keptIn.includes('spiffe/x509/profile.ts')).map(({ id }) => id));
  expect(PROFILE.map(({ rule }) => rule).filter((rule) => !kept.has(rule))).toEqual([]);
});
