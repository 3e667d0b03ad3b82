/** Each plugin in the box has a page, and the page has the settings that the plugin has: names, what is needed, defaults; no others. */
import { readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import * as z from 'zod';
import type { Plugin } from '../../core/plugin/plugin.ts';
import { keysOf, plugins, readSettings } from '../../core/schema.ts';
import { parseSettings } from '../../core/settings-file.ts';
import { BUILTIN } from '../../plugins/builtin.ts';
import { datastoreSettings } from '../../server/settings.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const read = (file: string) => readFileSync(resolve(ROOT, file), 'utf8');

const bare = (kind: string) => kind.replace(/^(server|agent)-/, '');
const pageOf = ({ kind, name }: Plugin) => `docs/plugins/${bare(kind)}-${name}.md`;

/** The part of a page that is about one side; the whole of it where there are no parts. */
function partOf(page: string, kind: string): string {
  const side = /^(server|agent)-/.exec(kind)?.[1];
  return page.split(/^## /m).find((part) => part.toLowerCase().startsWith(`${side}\n`)) ?? page;
}

interface Row {
  readonly key: string;
  readonly preset: string;
}

/** Of the tables that begin with `| setting |`, or with `| key |`. */
function rowsOf(part: string): Row[] {
  return [...part.matchAll(/^\| (?:setting|key) \| default \|.*\n\|[-|]+\|\n((?:\|.*\n)+)/gm)].flatMap(([, body = '']) =>
    [...body.matchAll(/^\| `(\w+)` \|([^|]*)\|/gm)].map(([, key = '', preset = '']) => ({ key, preset: preset.trim() })),
  );
}

type Shape = Readonly<Record<string, z.ZodType>>;

/** What the schema takes when the key is left out: a value, nothing, or the key is needed. */
function presetOf(schema: z.ZodType): unknown {
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) return schema.def.defaultValue;
  return schema.safeParse(undefined).success ? undefined : 'needed';
}

function hold(part: string, schema: z.ZodType): void {
  const rows = rowsOf(part);
  const { shape } = schema as unknown as { readonly shape: Shape };
  const keys = keysOf(schema);
  expect(rows.map(({ key }) => key).filter((key) => !keys.includes(key))).toEqual([]);
  // what is refused by its name is named in the text
  expect(keys.filter((key) => !part.includes(`\`${key}\``))).toEqual([]);
  for (const { key, preset } of rows) {
    const real = presetOf(shape[key] as z.ZodType);
    const [, told] = /^`(.*)`$/.exec(preset) ?? [];
    if (real === 'needed') expect(`${key}: ${preset}`).toBe(`${key}: needed`);
    else if (real !== undefined) expect(`${key}: ${told}`).toBe(`${key}: ${JSON.stringify(real)}`);
    else expect(`${key}: ${preset}`).not.toBe(`${key}: needed`);
  }
}

test('every plugin has a page, and every page a plugin', () => {
  expect(
    readdirSync(resolve(ROOT, 'docs/plugins'))
      .map((name) => `docs/plugins/${name}`)
      .sort(),
  ).toEqual([...new Set(BUILTIN.map(pageOf))].sort());
});

describe('the page has the settings, what is needed, and the defaults', () => {
  for (const plugin of BUILTIN) {
    const { kind, name, settings } = plugin;
    test(`${kind} "${name}"`, () => hold(partOf(read(pageOf(plugin)), kind), settings));
  }

  test('DataStore "sql"', () => {
    const [, part = ''] = read('docs/configuration.md').split(/^## DataStore "sql"$/m);
    hold(part.split(/^## /m)[0] ?? '', datastoreSettings);
  });
});

describe('what stands in the pages as HCL is what the reader reads', () => {
  for (const page of new Set(BUILTIN.map(pageOf))) {
    test(page, async () => {
      const text = read(page);
      for (const plugin of BUILTIN.filter((one) => pageOf(one) === page)) {
        const [, hcl = ''] = /```hcl\n([\s\S]*?)```/.exec(partOf(text, plugin.kind)) ?? [];
        const file = await parseSettings(`plugins {\n${hcl}}\n`, page, 'hcl');
        const [block] = readSettings(z.object({ plugins }), file).plugins;
        expect(plugin.settings.safeParse(block?.plugin_data).error).toBeUndefined();
      }
    });
  }
});
