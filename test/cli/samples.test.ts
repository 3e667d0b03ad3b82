/** The sample files that ship, and the forms of the page about configuration, are what the reader reads. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import * as z from 'zod';
import { AGENT_TYPES, type PluginTypes, SERVER_TYPES } from '../../cli/plugins.ts';
import { plugins, readSettings } from '../../core/schema.ts';
import { parseSettings, readSettingsFile } from '../../core/settings-file.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const page = readFileSync(resolve(ROOT, 'docs/configuration.md'), 'utf8');

for (const [name, types] of [
  ['server', SERVER_TYPES],
  ['agent', AGENT_TYPES],
] as const satisfies [string, PluginTypes][]) {
  describe(`conf/${name}.conf`, () => {
    test('reads, and has the plugins that the program must have', async () => {
      const file = await readSettingsFile(resolve(ROOT, `conf/${name}.conf`));
      const settings = readSettings(z.object({ plugins }), file);
      for (const [type, { least, most }] of Object.entries(types)) {
        const count = settings.plugins.filter((block) => block.type === type).length;
        expect(`${type} ${count >= least && count <= most}`).toBe(`${type} true`);
      }
    });
  });
}

test('the YAML of the page reads', async () => {
  const [, yaml = ''] = /```yaml\n([\s\S]*?)```/.exec(page) ?? [];
  expect((await parseSettings(yaml, 'x', 'yaml')).value['plugins']).toMatchObject([{ type: 'KeyManager', name: 'disk' }]);
});

test('the page has the types of plugins and the keys of their blocks, and no others', () => {
  const rows = [...page.matchAll(/^\| (`[^|]*`) \|([^|]*)\|([^|]*)\|$/gm)].map(([, names = '', second = '', third = '']) => ({
    names: [...names.matchAll(/`(\w+)`/g)].map(([, name = '']) => name),
    second: second.trim(),
    third: third.trim(),
  }));
  const many = ({ least, most }: { least: number; most: number }) =>
    least === most ? 'exactly one' : least > 0 ? 'at least one' : most === 1 ? 'at most one' : 'any number';
  const types = rows.filter(({ names }) => names.some((name) => /^[A-Z]/.test(name)));
  expect(Object.fromEntries(types.map(({ names, second, third }) => [names[0], [second, third]]))).toEqual(
    Object.fromEntries(
      [...new Set([...Object.keys(SERVER_TYPES), ...Object.keys(AGENT_TYPES)])].map((type) => [
        type,
        [SERVER_TYPES, AGENT_TYPES].map((table) => (table[type] ? many(table[type]) : '')),
      ]),
    ),
  );
  const keys = rows.filter(({ names }) => names.some((name) => /^(enabled|plugin_)/.test(name))).flatMap(({ names }) => names);
  expect(keys.sort()).toEqual(['enabled', 'plugin_args', 'plugin_checksum', 'plugin_cmd', 'plugin_data', 'plugin_data_file']);
});
