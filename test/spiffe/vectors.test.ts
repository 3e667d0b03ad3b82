/** Every vector at its door: accepted or refused, for the one reason; the files are what their recipes make; every reason that an input can have is hit. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { SpiffeError } from '../../spiffe/errors.ts';
import { differentialPage } from '../interop/disagreements.ts';
import { DOORS } from '../vectors/doors.ts';
import { RECIPES } from '../vectors/make.ts';
import { expand, FAMILIES, type Family, type Inputs, readFile, type Row } from '../vectors/row.ts';

/** What became of it, as a row would say it. */
function outcome<F extends Family>(family: F, input: Inputs[F]): Partial<Row> {
  try {
    return { expect: 'accept', sees: DOORS[family](input) };
  } catch (error) {
    // anything else is a bug of ours
    if (!(error instanceof SpiffeError)) throw error;
    return { expect: 'reject', reason: error.reason as Row['reason'] & string };
  }
}

function wanted({ expect: end, reason, sees }: Row, got: Partial<Row>): Partial<Row> {
  if (end === 'reject') return { expect: end, ...(reason !== undefined && { reason }) };
  return { expect: end, sees: sees ?? got.sees ?? '' };
}

for (const family of FAMILIES) {
  describe(family, () => {
    const file = readFile(family);
    for (const row of file.rows) {
      const label = row.requirement === undefined ? row.name : `${row.requirement} ${row.name}`;
      test(`${label} (${row.source})`, () => {
        for (const one of expand({ ...file, rows: [row] })) {
          const got = outcome(family, one.input);
          expect(got, one.name).toEqual(wanted(one, got));
        }
      });
    }

    test('no name comes twice, each refusal has its reason', () => {
      expect(new Set(file.rows.map(({ name }) => name)).size).toBe(file.rows.length);
      expect(file.rows.filter((row) => (row.expect === 'reject') !== (row.reason !== undefined)).map(({ name }) => name)).toEqual([]);
      expect(file.rows.some((row) => row.expect === 'accept')).toBe(true);
    });

    test('the file is what its recipe makes: else run test/vectors/make.ts', () => {
      expect(JSON.parse(JSON.stringify(RECIPES[family]()))).toEqual(file);
    });
  });
}

describe('reasons', () => {
  /** No input alone has them. */
  const ELSEWHERE: Readonly<Record<string, string>> = {
    ID_NOT_MEMBER: 'told by those who know which trust domain it must be: the server, and TLS',
    X509_NOT_THROUGH: 'an issuer that the caller demands',
    X509_OUTLIVES_ISSUER: 'issuing',
    BUNDLE_REPEATED: 'two bundles of one trust domain in a set, each of which is good',
    BUNDLE_TOO_LARGE: 'no reader tells it: a document that is too large is JSON_TOO_LARGE',
    JWT_RUNTIME: 'a runtime that lacks an algorithm: see docs/runtimes.md',
    ENDPOINT_MISSING: 'an environment without the variable',
  };
  const all = [
    ...readFileSync(resolve(import.meta.dirname, '../../spiffe/errors.ts'), 'utf8').matchAll(
      /^ {2}\| '((?:ID|X509|JWT|BUNDLE|ENDPOINT)_\w+)'/gm,
    ),
  ]
    .map(([, reason = '']) => reason)
    .filter((reason) => reason !== 'ID_INVALID' && reason !== 'BUNDLE_INVALID' && reason !== 'BUNDLE_MISSING');
  const hit = new Set<string>(FAMILIES.flatMap((family) => readFile(family).rows.map(({ reason }) => reason ?? '')));

  test('each is hit by a vector, or it is said why not', () => {
    expect(all.length).toBeGreaterThan(90);
    expect(all.filter((reason) => !hit.has(reason)).sort()).toEqual(Object.keys(ELSEWHERE).sort());
  });
});

test('docs/differential.md is what the table of disagreements says: else run test/vectors/make.ts', () => {
  expect(readFileSync(resolve(import.meta.dirname, '../../docs/differential.md'), 'utf8')).toBe(differentialPage());
});
