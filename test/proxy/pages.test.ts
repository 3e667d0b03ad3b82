/** The pages about watching a proxy say what is so: reasons, fields, metrics, paths. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { FAMILIES, type Family } from '../../proxy/metric-families.ts';
import { REASONS } from '../../proxy/reasons.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const read = (file: string) => readFileSync(resolve(ROOT, file), 'utf8');
const rows = (text: string) => [...text.matchAll(/^\| (.*) \|$/gm)].map(([, cells = '']) => cells.split(/ \| ?/));
const ticked = (text = '') => [...text.matchAll(/`([^`]+)`/g)].map(([, inner = '']) => inner);
const observability = read('docs/proxy-observability.md');

/** The table of a page whose first head is this. */
function table(page: string, head: string): readonly (readonly string[])[] {
  const [, body = ''] = new RegExp(`^\\| ${head} \\|.*\\n\\|[-|]+\\|\\n((?:\\|.*\\n)+)`, 'm').exec(page) ?? [];
  expect(body).not.toBe('');
  return rows(body);
}

test('docs/proxy-reasons.md has every reason, in its own words, and no other', () => {
  const told = table(read('docs/proxy-reasons.md'), 'reason').map(([name = '', fault, words, first]) => [
    ticked(name)[0],
    fault,
    words,
    first,
  ]);
  expect(told).toEqual(Object.entries(REASONS).map(([name, { fault, words, firstCheck }]) => [name, fault, words, firstCheck]));
});

test('docs/proxy-observability.md has every metric, with its type, labels and words, and no other', () => {
  const told = table(observability, 'metric').map(([name = '', type, labels, help]) => [ticked(name)[0], type, ticked(labels), help]);
  const real: [string, Family][] = Object.entries(FAMILIES);
  expect(told).toEqual(real.map(([name, { type, labels, help }]) => [name, type, labels, help]));
});

test('it has every field of a line, and no other', () => {
  const source = read('proxy/connection-log.ts');
  const [, body = ''] = /export function fieldsOf[\s\S]*?\{\n([\s\S]*?)\n\}\n/.exec(source) ?? [];
  const real = [
    ...[...body.matchAll(/^ {4}(\w+): connection|^ {4}(\w+): verdictOf/gm)].map(([, a, b]) => a ?? b),
    ...[...body.matchAll(/add\('(\w+)'|fields\['(\w+)'\]/g)].map(([, a, b]) => a ?? b),
  ];
  const told = table(observability, 'field').flatMap(([name, meaning = '']) => [
    ...ticked(name),
    ...(meaning.includes('`plaintext`') ? ['plaintext'] : []),
  ]);
  expect(new Set(told)).toEqual(new Set(real));
  expect(new Set(told).size).toBe(told.length);
  expect(told).toContain('bytes_up');
});

test('it has every path that the status port answers', () => {
  const source = read('proxy/status.ts');
  const real = [...source.matchAll(/case '(\/[^']*)'/g)].map(([, path = '']) => path);
  const told = table(observability, 'path').flatMap(([path]) => ticked(path));
  expect(told).toEqual(expect.arrayContaining([...real, 'POST /_shutdown', '/debug/pprof/']));
  expect(real.length).toBeGreaterThan(6);
});
