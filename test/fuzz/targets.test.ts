/** The targets of the fuzzer take what is good, and what was found once is not found again. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { isCoded } from '../../core/errors.ts';
import { faultOfInput, fuzz, type Finding, type Target, wrong } from './fuzzer.ts';

const names = readdirSync(join(import.meta.dirname, 'targets')).map((file) => file.replace(/\.ts$/, ''));

async function load(name: string): Promise<Target> {
  const { default: make } = (await import(`./targets/${name}.ts`)) as { readonly default: () => Target | Promise<Target> };
  return make();
}

/** What a run said, or the code of what it threw. */
async function said(target: Target, input: Buffer): Promise<string> {
  try {
    return await target.run(input);
  } catch (error) {
    if (!isCoded(error)) throw error;
    return `refused: ${error.code}`;
  }
}

describe('every target', () => {
  for (const name of names) {
    test(`${name}: no seed is a finding, and some are accepted`, async () => {
      const target = await load(name);
      const all: string[] = [];
      for (const seed of target.seeds) all.push(await said(target, seed));
      expect(all.some((one) => !one.startsWith('refused'))).toBe(true);
    });
  }
});

const json = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64');
const tag = (text: string, octet: number) => Buffer.concat([Buffer.of(octet), Buffer.from(text)]).toString('base64');

/** Each was a finding. */
const found: readonly [target: string, what: string, base64: string][] = [
  ['jwt', 'an alg that is an object', Buffer.from('eyJhbGciOnsib3IiOjEuNX0sImtpZCI6ImVjIn0..').toString('base64')],
  ['jwt', 'an alg that is a list of objects', Buffer.from('eyJhbGciOltbeyJ4IjpbXX1dXX0..').toString('base64')],
  ['bundle', 'a curve that is an object', json({ keys: [{ kty: 'EC', use: 'jwt-svid', crv: { '': {} } }] })],
  ['bundle', 'a curve that is a list of objects', json({ keys: [{ kty: 'EC', crv: [{ '': 4 }] }] })],
  ['hcl', 'a block with ten thousand labels', tag(`a ${'"" '.repeat(10_000)}{}`, 0)],
  [
    'entry',
    'lists nested without end where text belongs',
    tag(`{"entries":[{"spiffe_id":${'['.repeat(20_000)}${']'.repeat(20_000)}}]}`, 1),
  ],
  ['entry', 'objects nested without end where a list belongs', tag(`{"entries":${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}}`, 1)],
  ['proto', 'a tag of more than 32 bits', 'gICIBgGAgoCAgAE1YYaUGP////8P'],
  ['proto', 'a group that ends as another one', 'EKMGpAakBsIB'],
  ['handon', 'a first header block that is malformed', 'AFBSSSAqIEhUVFAvMi4wDQoNClNNDQoNCgAAAAQAAAAAAAAAAQEFAAAAAYA='],
  ['certificate', 'a tag where a name has text', 'MAMCAQA='],
];

describe('what was found once is no finding any more', () => {
  for (const [name, what, base64] of found) {
    test(`${name}: ${what}`, async () => expect(await faultOfInput(await load(name), Buffer.from(base64, 'base64'))).toBeUndefined());
  }
});

describe('the fuzzer itself', () => {
  const run = async (target: Target, seed: number, seconds: number) => {
    const found: Finding[] = [];
    const options = { name: 't', seed, seconds, running: () => {}, progress: () => {}, found: (one: Finding) => found.push(one) };
    // ends before its time: 20 different findings are enough
    return { found, report: await fuzz(target, options) };
  };
  /** Wrong for each first octet above 0x7f. */
  const broken: Target = {
    seeds: [Buffer.from('seed')],
    run(input) {
      const [first = 0] = input;
      if (first > 0x7f) throw wrong(`octet ${String.fromCharCode(65 + (first % 26))}`);
      return 'fine';
    },
  };

  test('finds what is wrong, once each, as short as it goes', async () => {
    const { found } = await run(broken, 1, 10);
    expect(found.length).toBeGreaterThanOrEqual(10);
    expect(new Set(found.map(({ what }) => what)).size).toBe(found.length);
    for (const { inputBase64 } of found) expect(Buffer.from(inputBase64, 'base64')).toHaveLength(1);
  }, 30_000);

  test('finds nothing where nothing is wrong (positive twin)', async () => {
    const { found, report } = await run({ ...broken, run: (input) => String(input.length > 4) }, 1, 1);
    expect(found).toEqual([]);
    expect(report.executions).toBeGreaterThan(100);
    expect(report.behaviours).toBe(2);
  }, 30_000);
});
