/** What deploy/ and its page tell to run is what the program takes: command lines, settings, YAML; and the units are as fenced as the page says. */
import { execFileSync } from 'node:child_process';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { LEAVES } from '../../cli/commands.ts';
import { parseFlags } from '../../cli/flags.ts';
import { CLIENT_FLAGS, SERVER_FLAGS } from '../../cli/proxy-flags.ts';
import { readProxyFlags } from '../../cli/proxy-settings.ts';
import { readSettings } from '../../core/schema.ts';
import { parseSettings } from '../../core/settings-file.ts';
import { helperSettings } from '../../proxy/helper/settings.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const read = (file: string) => readFileSync(resolve(ROOT, file), 'utf8');
const found = (pattern: string) => globSync(pattern, { cwd: ROOT }).sort();
const PAGE = 'docs/proxy-deploy.md';
const UNITS = found('deploy/systemd/*.service');
const MANIFESTS = found('deploy/kubernetes/*.yaml');

type Line = readonly [file: string, words: readonly string[]];
const split = (text: string) => text.trim().split(/\s+/);

/** Every object within a value. */
function* objects(value: unknown): Generator<Readonly<Record<string, unknown>>> {
  if (typeof value !== 'object' || value === null) return;
  if (!Array.isArray(value)) yield value as Readonly<Record<string, unknown>>;
  for (const inner of Object.values(value)) yield* objects(inner);
}

function documents(file: string): unknown[] {
  return parseAllDocuments(read(file)).map((document) => {
    expect(document.errors, file).toEqual([]);
    return document.toJS() as unknown;
  });
}

const LINES: readonly Line[] = [
  ...UNITS.flatMap((file) =>
    [...read(file).matchAll(/^ExecStart=\/usr\/bin\/warifu (.*)$/gm)].map(([, words = '']): Line => [file, split(words)]),
  ),
  ...[PAGE, ...found('deploy/examples/*.md')].flatMap((file) =>
    [...read(file).matchAll(/^warifu (.*)$/gm)].map(([, words = '']): Line => [file, split(words)]),
  ),
  ...MANIFESTS.flatMap((file) =>
    [...objects(documents(file))]
      .filter(({ image }) => String(image).startsWith('warifu:'))
      .map(({ args }): Line => [file, args as readonly string[]]),
  ),
];

/** Throws what the program would say. */
async function take(words: readonly string[]): Promise<void> {
  const commander = () => new Command().exitOverride().configureOutput({ writeErr: () => {} });
  const [first, mode] = words;
  if (first === 'proxy' && (mode === 'server' || mode === 'client')) {
    const { values, given } = parseFlags(mode === 'server' ? SERVER_FLAGS : CLIENT_FLAGS, words.slice(2), commander());
    readProxyFlags({ mode, values, given });
    return;
  }
  const leaf = LEAVES.filter((one) => words.join(' ').startsWith(`${one.words} `)).sort((a, b) => b.words.length - a.words.length)[0];
  if (!leaf) throw new Error(`no such command: ${words.join(' ')}`);
  const command = await leaf.load();
  parseFlags(command.flags, words.slice(leaf.words.split(' ').length), commander(), command.operands);
}

describe('the program takes every command line', () => {
  test('of every file', () => {
    const files = new Set(LINES.map(([file]) => file));
    expect([...UNITS, ...MANIFESTS, ...found('deploy/examples/*.md'), PAGE].filter((file) => !files.has(file))).toEqual([]);
  });
  test.each(LINES)('%s: %j', async (_file, words) => {
    await take(words);
    await expect(take([...words, '--no-such-flag'])).rejects.toThrow('no-such-flag');
  });
});

test('the settings of the helper in its manifest are read', async () => {
  const texts = MANIFESTS.flatMap((file) => [...objects(documents(file))].map((one) => one['helper.conf'])).filter(
    (one) => typeof one === 'string',
  );
  expect(texts.length).toBeGreaterThan(0);
  for (const text of texts) {
    const taken = async (more = '') =>
      readSettings(helperSettings, await parseSettings(`${text}${more}`, 'helper.conf', 'hcl', { octal: true }));
    await expect(taken()).resolves.toBeDefined();
    await expect(taken('\nno_such_setting = "x"')).rejects.toThrow('no_such_setting');
  }
});

test('the page tells the exposure of each unit as systemd does', () => {
  const tool = '/usr/bin/systemd-analyze';
  if (!existsSync(tool)) throw new Error(`this test needs ${tool} (Debian: systemd)`);
  const told = [...read(PAGE).matchAll(/^\| (\S+\.service) \| ([\d.]+) \|$/gm)].map(([, unit, figure]) => [unit, figure]);
  const measured = UNITS.map((file) => {
    const report = execFileSync(tool, ['security', '--offline=true', resolve(ROOT, file)], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return [basename(file), /Overall exposure level for \S+: ([\d.]+)/.exec(report)?.[1]];
  });
  expect(Object.fromEntries(told)).toEqual(Object.fromEntries(measured));
});
