/** The helper's page has every setting, and the catalogue names tests that are there. */
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as z from 'zod';
import { expect, test } from 'vitest';
import { helperSettings } from '../../../proxy/helper/settings.ts';
import { settingsOf } from './rig.ts';

const ROOT = resolve(import.meta.dirname, '../../..');
const read = (file: string) => readFileSync(resolve(ROOT, file), 'utf8');

/** Every name of a setting, at any depth. */
function keysOf(node: unknown): string[] {
  if (Array.isArray(node)) return node.flatMap(keysOf);
  if (typeof node !== 'object' || node === null) return [];
  return Object.entries(node).flatMap(([key, value]) => [...(key === 'properties' ? Object.keys(value as object) : []), ...keysOf(value)]);
}

test('docs/helper.md has every setting', () => {
  const keys = [...new Set(keysOf(z.toJSONSchema(helperSettings, { unrepresentable: 'any', io: 'input' })))];
  expect(keys.length).toBeGreaterThan(60);
  const told = new Set(
    [...read('docs/helper.md').matchAll(/`([a-z0-9_]+)`|^ *([a-z_]+) = |`output "NAME" \{ (format) = … (directory)/gm)].flatMap(
      ([, ...names]) => names,
    ),
  );
  expect(keys.filter((key) => !told.has(key))).toEqual([]);
});

test('the first column of its tables has no setting that is not one', () => {
  const keys = new Set(keysOf(z.toJSONSchema(helperSettings, { unrepresentable: 'any', io: 'input' })));
  const [settings = ''] = read('docs/helper.md').split('\n## Outputs');
  const cells = [...settings.matchAll(/^\| (`[^|]*) \|/gm)].flatMap(([, cell = '']) =>
    [...cell.matchAll(/`(\w+)`/g)].map(([, name = '']) => name),
  );
  expect(cells.length).toBeGreaterThan(30);
  expect(cells.filter((name) => !keys.has(name))).toEqual([]);
});

test('docs/proxy-catalogue.md names tests of the helper that are there', () => {
  const rows = [...read('docs/proxy-catalogue.md').matchAll(/^\| HP-\d+ \| [^|]+ \| ([^|]+) \|/gm)].map(([, cell = '']) => cell);
  expect(rows).toHaveLength(14);
  for (const named of rows.flatMap((cell) => cell.trim().split('; '))) {
    const [, file = '', name = ''] = /^`([^`]+)`: (.+)$/.exec(named) ?? [];
    expect([named, existsSync(resolve(ROOT, file))]).toEqual([named, true]);
    expect(read(file)).toContain(name);
  }
});

test('the sample of docs/helper.md is a configuration', async () => {
  const [, sample = ''] = /```hcl\n([\s\S]*?)```/.exec(read('docs/helper.md')) ?? [];
  const settings = await settingsOf(sample);
  expect(Object.keys(settings.hook)).toEqual(['nginx']);
  expect(settings.key_file_mode?.bits).toBe(0o640);
});
