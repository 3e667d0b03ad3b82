/** A daemon's settings: flags over the file over defaults, plugins by their own schemas, every fault at once. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { SERVER_TYPES } from '../../cli/plugins.ts';
import { loadSettings, type Override } from '../../cli/settings.ts';
import { definePlugin, type Plugin } from '../../core/plugin/plugin.ts';
import { readyOf } from '../../core/plugin/ready.ts';
import { durationMs, path, plugins, port, text } from '../../core/schema.ts';
import { TestTerminal } from './terminal.ts';

const schema = z.strictObject({
  server: z.strictObject({
    trust_domain: text,
    bind_port: port.default(8081),
    ca_ttl: durationMs.default(1),
    log_level: text.default('INFO'),
  }),
  plugins,
});

const started: unknown[] = [];
const shipped: readonly Plugin[] = [
  definePlugin({
    kind: 'server-key-manager',
    name: 'disk',
    settings: z.strictObject({ keys_path: path }),
    start: (settings) => {
      started.push(settings);
      return Promise.resolve({ generate: () => Promise.reject(new Error('no')), get: () => undefined, list: () => [] });
    },
  }),
  definePlugin({
    kind: 'server-key-manager',
    name: 'memory',
    settings: z.strictObject({}),
    start: (): Promise<never> => Promise.reject(new Error('no')),
  }),
  definePlugin({
    kind: 'agent-key-manager',
    name: 'only_agents',
    settings: z.strictObject({}),
    start: (): Promise<never> => Promise.reject(new Error('no')),
  }),
  definePlugin({
    kind: 'server-node-attestor',
    name: 'join_token',
    settings: z.strictObject({}),
    start: (): Promise<never> => Promise.reject(new Error('no')),
  }),
] as readonly Plugin[];

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'warifu-settings-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function load(written: string, overrides: readonly Override[] = [], env?: Record<string, string>) {
  const file = join(folder, 'server.conf');
  await writeFile(file, written);
  return await loadSettings(
    schema,
    SERVER_TYPES,
    shipped,
    { path: file, expandEnv: env !== undefined, overrides },
    new TestTerminal({ env: env ?? {} }),
  );
}

async function faults(written: string): Promise<string[]> {
  const error: unknown = await load(written).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: 'SETTINGS_INVALID' });
  return (error as Error).message.replaceAll(`${folder}/`, '').split('\n');
}

const STORE = 'DataStore "sql" { plugin_data { database_type = "sqlite3" } }';
const DISK = 'KeyManager "disk" { plugin_data { keys_path = "/k" } }';
const server = (inner: string, more = `${STORE}\n${DISK}`) => `server {\n trust_domain = "a"\n${inner}\n}\nplugins {\n${more}\n}\n`;

test('the command line lies over the file, and the file over the defaults', async () => {
  expect((await load(server('bind_port = 1'))).settings.server).toMatchObject({ bind_port: 1, log_level: 'INFO' });
  const over = await load(server('bind_port = 1'), [{ flag: '-serverPort', path: ['server', 'bind_port'], value: 2 }]);
  expect(over.settings.server.bind_port).toBe(2);
});

test('-expandEnv reads the environment, and only with the flag', async () => {
  expect((await load(server('log_level = "$LEVEL"'), [], { LEVEL: 'DEBUG' })).settings.server.log_level).toBe('DEBUG');
  expect((await load(server('log_level = "$LEVEL"'))).settings.server.log_level).toBe('$LEVEL');
});

test("a plugin starts with its own settings; one that is not enabled doesn't", async () => {
  const { plugins: ready } = await load(server('', `${STORE}\n${DISK}\nNodeAttestor "join_token" { enabled = false }`));
  expect(ready.map(({ kind, name }) => `${kind} ${name}`)).toEqual(['server-key-manager disk']);
  await readyOf(ready, 'server-key-manager')[0]?.start({} as never);
  expect(started).toEqual([{ keys_path: '/k' }]);
});

test('plugin_data_file is read instead of plugin_data, and its faults carry its own name', async () => {
  const data = join(folder, 'data.conf');
  await writeFile(data, 'keys_path = "/from/file"');
  const written = server('', `${STORE}\nKeyManager "disk" { plugin_data_file = "${data}" }`);
  const { plugins: ready } = await load(written);
  await ready[0]?.start({} as never);
  expect(started.at(-1)).toEqual({ keys_path: '/from/file' });
  await writeFile(data, '\nkeys_pth = "/x"');
  expect(await faults(written)).toEqual([
    'data.conf: plugins.KeyManager "disk".plugin_data.keys_path: must be configured',
    'data.conf:2:1: plugins.KeyManager "disk".plugin_data.keys_pth: unknown key: did you mean "keys_path"?',
  ]);
});

describe('faults', () => {
  test('of the file and of its plugins are told together', async () => {
    expect(
      await faults(
        server(
          'bind_port = "x"\nca_ttl = 3600',
          `${STORE}\nKeyManager "disk" { plugin_data { key_path = 1 } }\nNodeAttestor "join_tokn" {}\nNodeAtestor "x" {}`,
        ),
      ),
    ).toEqual([
      'server.conf:3:1: server.bind_port: expected a number, found "x"',
      'server.conf:4:1: server.ca_ttl: 3600 has no unit: write "3600s" for seconds, or a duration such as "1h30m"',
      'server.conf:8:21: plugins.KeyManager "disk".plugin_data.keys_path: must be configured',
      'server.conf:8:35: plugins.KeyManager "disk".plugin_data.key_path: unknown key: did you mean "keys_path"?',
      'server.conf:9: plugins.NodeAttestor "join_tokn": there is no such NodeAttestor: did you mean "join_token"?; there are: join_token',
      'server.conf:10: plugins.NodeAtestor "x": unknown type of plugin: did you mean "NodeAttestor"?',
    ]);
  });

  const rows: readonly [what: string, blocks: string, words: RegExp][] = [
    ['no key manager', STORE, /plugin type "KeyManager" constraint not satisfied: expected exactly 1 but got 0/],
    [
      'two key managers',
      `${STORE}\n${DISK}\nKeyManager "memory" {}`,
      /plugin type "KeyManager" constraint not satisfied: expected exactly 1 but got 2/,
    ],
    [
      'a data store of another kind',
      `DataStore "sql" { plugin_data { database_type = "mysql" } }\n${DISK}`,
      /DataStore "sql".plugin_data.database_type: expected sqlite3/,
    ],
    [
      'options in the path of the data store',
      `DataStore "sql" { plugin_data { connection_string = "x?mode=ro" } }\n${DISK}`,
      /must be a path, without options/,
    ],
    ["a plugin of the agent's", `${STORE}\nKeyManager "only_agents" {}`, /there is no such KeyManager.*there are: disk, memory/],
    ['an external plugin', `${STORE}\nKeyManager "disk" { plugin_cmd = "/x" }`, /external plugins \(plugin_cmd\) are not run/],
    [
      'a data file that is not there',
      `${STORE}\nKeyManager "disk" { plugin_data_file = "/nowhere" }`,
      /could not find config file \/nowhere: please use plugin_data_file/,
    ],
  ];
  for (const [what, blocks, words] of rows) test(what, async () => expect((await faults(server('', blocks))).join('\n')).toMatch(words));
});
