/** docs/cli.md says what the program does, and the program nothing that the page doesn't: commands, flags, defaults. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { LEAVES } from '../../cli/commands.ts';
import type { Flag } from '../../cli/flags.ts';
import { formatDuration } from '../../core/duration.ts';

const page = readFileSync(resolve(import.meta.dirname, '../../docs/cli.md'), 'utf8');
const sections = new Map(
  page
    .split(/^### warifu /m)
    .slice(1)
    .map((section) => [section.slice(0, section.indexOf('\n')), section]),
);

/** The flags that a section names: those of its table with their defaults, and those that every command of the kind has. */
function told(section: string): Map<string, string | undefined> {
  const flags = new Map<string, string | undefined>();
  for (const [, name = '', preset] of section.matchAll(/^\| `--?(\w[\w-]*)[^`]*` \| (?:`([^`]*)`)? *\|/gm)) flags.set(name, preset ?? '');
  for (const [, names = ''] of section.matchAll(/^And ((?:`-[\w-]+`(?:, )?)+)\.$/gm)) {
    for (const [, name = ''] of names.matchAll(/`-([\w-]+)`/g)) flags.set(name, undefined);
  }
  return flags;
}

function presetOf(flag: Flag): string {
  if (flag.kind === 'text') return flag.preset;
  if (flag.kind === 'duration') return formatDuration(flag.preset);
  // nought is no port: the file's counts
  return flag.kind === 'integer' && flag.value !== 'port' ? String(flag.preset) : '';
}

test('the page and the program have the same commands', () => {
  expect([...sections.keys()].sort()).toEqual(LEAVES.map(({ words }) => words).sort());
});

describe('the page and the program have the same flags', () => {
  for (const leaf of LEAVES) {
    const { words } = leaf;
    test(words, async () => {
      const flags = told(sections.get(words) ?? '');
      const command = await leaf.load();
      expect([...flags.keys()].sort()).toEqual(Object.keys(command.flags).sort());
      for (const [name, preset] of flags) {
        const flag = command.flags[name];
        if (flag && preset !== undefined) expect(`-${name} ${preset}`).toBe(`-${name} ${presetOf(flag)}`);
      }
    });
  }
});

test('the reader of the page sees what it should (its own positive twin)', () => {
  expect(told('| `-ttl seconds` | `600` | x |\n| `-admin` |  | y |\n\nAnd `-output`, `-socketPath`.\n')).toEqual(
    new Map([
      ['ttl', '600'],
      ['admin', ''],
      ['output', undefined],
      ['socketPath', undefined],
    ]),
  );
});
