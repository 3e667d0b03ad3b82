/** docs/configuration.md has every key of the settings and no other; those that only SPIRE has are named as such. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { ZodType } from 'zod';
import { agentSettings } from '../../agent/settings.ts';
import { SETTING_OF as AGENT_FLAGS } from '../../cli/run-agent.ts';
import { SETTING_OF as SERVER_FLAGS } from '../../cli/run-server.ts';
import { keysOf, readSettings } from '../../core/schema.ts';
import { parseSettings } from '../../core/settings-file.ts';
import { serverSettings } from '../../server/settings.ts';

const page = readFileSync(resolve(import.meta.dirname, '../../docs/configuration.md'), 'utf8');

/** The keys of a section's table, and those that its last paragraph says are not there. */
function told(heading: string): { readonly here: Map<string, string>; readonly gone: string[] } {
  const section = page.split(/^## /m).find((one) => one.startsWith(`${heading}\n`)) ?? '';
  const here = new Map(
    [...section.matchAll(/^\| `([\w.[\]*]+)` \| ([^|]*?) *\|/gm)].map(([, key = '', preset = '']) => [key, preset] as const),
  );
  const [, list = ''] = /refused by its name:([\s\S]*)$/.exec(section) ?? [];
  return { here, gone: [...list.matchAll(/`((?:server|agent|telemetry)(?:\.[\w.]+)?)`/g)].map(([, key = '']) => key) };
}

/** What `schema` says of a file that sets only `key`. */
async function faultOf(schema: ZodType, key: string): Promise<string> {
  const file = (await parseSettings('', 'x', 'hcl')).set(key.split('.'), 'x', '-x');
  try {
    readSettings(schema, file);
    return '';
  } catch (error) {
    return (error as Error).message.split('\n').find((line) => line.includes(` ${key}: `)) ?? '';
  }
}

for (const [heading, schema, flags] of [
  ['The server', serverSettings, SERVER_FLAGS],
  ['The agent', agentSettings, AGENT_FLAGS],
] as const) {
  describe(heading, () => {
    const keys = keysOf(schema).filter((key) => !key.startsWith('plugins'));
    const leaves = keys.filter((key) => !keys.some((other) => other.startsWith(`${key}.`)));
    const { here, gone } = told(heading);

    test('every key is on the page, and no other', () => {
      expect([...here.keys(), ...gone].sort()).toEqual([...leaves].sort());
    });

    test('the keys that are said not to be there are refused as such, and only they', async () => {
      const refused: string[] = [];
      for (const key of leaves)
        if (/is a setting of SPIRE that this version does not have|: not supported by this version: /.test(await faultOf(schema, key)))
          refused.push(key);
      expect(refused.sort()).toEqual([...gone].sort());
    });

    test('the keys that are said to be required are', async () => {
      const required: string[] = [];
      for (const section of ['server', 'agent']) {
        if (!keys.includes(section)) continue;
        const error: unknown = await parseSettings(`${section} {}\nplugins {}`, 'x', 'hcl')
          .then((file) => readSettings(schema as ZodType, file))
          .catch((thrown: unknown) => thrown);
        required.push(...[...(error as Error).message.matchAll(/ ([\w.]+): must be configured/g)].map(([, key = '']) => key));
      }
      expect(required.sort()).toEqual(
        [...here]
          .filter(([, preset]) => preset === 'required')
          .map(([key]) => key)
          .sort(),
      );
    });

    test('every flag of run stands for a key that there is', () => {
      for (const [flag, path] of Object.entries(flags)) expect(`-${flag} ${leaves.includes(path.join('.'))}`).toBe(`-${flag} true`);
    });
  });
}
