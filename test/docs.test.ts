/** What the pages say that can be looked up is so: files that they name, log fields, metrics, parts of health, limits. */
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { agentSettings } from '../agent/settings.ts';
import { AGENT_TYPES, SERVER_TYPES } from '../cli/plugins.ts';
import { readSettings } from '../core/schema.ts';
import { parseSettings } from '../core/settings-file.ts';
import { BUILTIN } from '../plugins/builtin.ts';
import { serverSettings } from '../server/settings.ts';

const ROOT = resolve(import.meta.dirname, '..');
const read = (file: string) => readFileSync(resolve(ROOT, file), 'utf8');
const pages = ['README.md', 'CHANGELOG.md', ...globSync('docs/**/*.md', { cwd: ROOT })].sort();
const operating = read('docs/operating.md');

/** The part of a page under a heading, without the parts below it. */
function part(page: string, heading: string): string {
  const from = page.indexOf(`\n${heading}\n`);
  expect(from).toBeGreaterThan(0);
  return page.slice(from + heading.length + 2).split(/^#{2,} /m)[0] ?? '';
}
const firstCells = (text: string) => [...text.matchAll(/^\| ([^|]*) \|/gm)].map(([, cell = '']) => cell);
const ticked = (text: string) => [...text.matchAll(/`([^`]+)`/g)].map(([, inner = '']) => inner);

const OURS =
  /^(?:agent|bench|cli|conf|core|docs|plugins|proto|server|spiffe|test|tools)\/[\w./-]*\.(?:ts|mjs|md|conf|proto|json|mod|sum|xml|txt|py|go|java)$/;

describe('every file that a page names is there', () => {
  for (const page of pages) {
    test(page, () => {
      const text = read(page);
      const links = [...text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, to = '']) => join(dirname(page), to));
      const named = ticked(text).filter((one) => OURS.test(one) && !one.includes('*'));
      // samples that an operator writes himself
      const own = named.filter((one) => !/^conf\/(?:server|agent)\/(?:server|agent)\.conf$/.test(one));
      expect([...links, ...own].filter((file) => !existsSync(resolve(ROOT, file)))).toEqual([]);
    });
  }
});

test('every dependency is named in docs/decisions', () => {
  const { dependencies, devDependencies } = JSON.parse(read('package.json')) as Record<string, Record<string, string>>;
  const decisions = pages
    .filter((page) => page.startsWith('docs/decisions/'))
    .map(read)
    .join('\n');
  expect(Object.keys({ ...dependencies, ...devDependencies }).filter((name) => !decisions.includes(name))).toEqual([]);
});

describe('whole files that ship or stand in the README start the programs', () => {
  const readme = read('README.md');
  const block = (name: string) => new RegExp(`\`\`\`hcl\\n *# ${name}\\n([\\s\\S]*?)\`\`\``).exec(readme)?.[1] ?? '';
  const files = [
    ['README server.conf', block('server.conf'), 'server'],
    ['README agent.conf', block('agent.conf'), 'agent'],
    ['conf/server.conf', read('conf/server.conf'), 'server'],
    ['conf/agent.conf', read('conf/agent.conf'), 'agent'],
  ] as const;
  for (const [name, text, program] of files) {
    test(name, async () => {
      const file = await parseSettings(text, name, 'hcl');
      const { plugins } = program === 'server' ? readSettings(serverSettings, file) : readSettings(agentSettings, file);
      for (const [type, { least }] of Object.entries(program === 'server' ? SERVER_TYPES : AGENT_TYPES))
        expect(plugins.filter((one) => one.type === type).length).toBeGreaterThanOrEqual(least);
      for (const { type, name: plugin, plugin_data } of plugins.filter((one) => one.type !== 'DataStore')) {
        const kind = type.replace(/[a-z](?=[A-Z])/g, '$&-').toLowerCase();
        const found = BUILTIN.find((one) => one.name === plugin && [kind, `${program}-${kind}`].includes(one.kind));
        expect(found?.settings.safeParse(plugin_data).error?.issues ?? found?.name).toBe(plugin);
      }
    });
  }
});

describe('docs/operating.md', () => {
  test('has every field of a log line, and no others', () => {
    const [, fields = ''] = /interface Fields \{([\s\S]*?)\n\}/.exec(read('core/log.ts')) ?? [];
    const real = [...fields.matchAll(/readonly (\w+)\?:/g)].map(([, name = '']) => name);
    expect(firstCells(part(operating, '## Logs')).flatMap(ticked).sort()).toEqual(real.sort());
  });

  test('has the fields of an audit record', () => {
    const gate = read('server/gate.ts');
    const told = firstCells(part(operating, '### Audit records')).flatMap(ticked);
    for (const field of told.filter((one) => one !== 'msg')) expect(gate).toMatch(new RegExp(`\\b${field}\\b`));
    expect(gate).toContain("log.info('API accessed', { type: 'audit'");
  });

  test('has every metric, and no others', () => {
    const real = globSync('{server,agent,core}/**/*.ts', { cwd: ROOT }).flatMap((file) =>
      [...read(file).matchAll(/\bmetrics\.(?:count|gauge)\('([^']+)'/g)].map(
        ([, name = '']) => `spire_server_${name.replaceAll('.', '_')}`,
      ),
    );
    const told = firstCells(part(operating, '## Metrics')).flatMap(ticked);
    expect(told.filter((name) => !name.includes('<')).sort()).toEqual(real.sort());
  });

  test('has every part of health, and no others', () => {
    const [, checks = ''] = /function checks\([\s\S]*?return \{([\s\S]*?)\n {2}\};/.exec(read('server/server.ts')) ?? [];
    const real = [...checks.matchAll(/^ {4}'?([\w.]+)'?: (?:async )?\(/gm)].map(([, name = '']) => name);
    expect(real.length).toBeGreaterThan(0);
    const told = firstCells(part(operating, '## Health')).flatMap(ticked);
    expect(told.sort()).toEqual([...real, 'agent'].sort());
  });

  /** Where a figure of the page stands in the sources, and the line of the page that tells it. */
  const figures: readonly (readonly [line: RegExp, file: string, source: RegExp, told: (value: number) => string])[] = [
    [/^\| SIGTERM/m, 'server/server.ts', /DRAIN_MS = ([\d_]+)/, (ms) => `up to ${ms / 1000} s`],
    [/^\| SIGTERM/m, 'agent/agent.ts', /DRAIN_MS = ([\d_]+)/, (ms) => `up to ${ms / 1000} s`],
    [/^\| attestation \|/m, 'server/api/limits.ts', /attestation: (\d+)/, (rate) => `${rate} a second`],
    [/^\| X\.509-SVIDs, /m, 'server/api/limits.ts', /csr: (\d+)/, (rate) => `${rate} CSRs a second`],
    [/^\| JWT-SVIDs \|/m, 'server/api/limits.ts', /jwt: (\d+)/, (rate) => `${rate} a second`],
    [/^\| `PostStatus` \|/m, 'server/api/limits.ts', /'post-status': (\d+)/, (rate) => `${rate} a second`],
    [/^\| an attestation dialogue/m, 'server/attestation.ts', /DIALOGUE_MS = ([\d_]+)/, (ms) => `${ms / 1000} s`],
    [/^\| connections to the server/m, 'server/listeners.ts', /MAX_CONNECTIONS = ([\d_]+)/, grouped],
    [/^\| connections to the server/m, 'server/listeners.ts', /MAX_CONNECTIONS_PER_PEER = ([\d_]+)/, (count) => `${count} of each`],
    [/^\| connections to the server/m, 'server/server.ts', /IDLE_MS = (\d+) \* 60_000/, (minutes) => `after ${minutes} minutes`],
    [/^\| connections of everybody else/m, 'server/listeners.ts', /MAX_STRANGERS = ([\d_]+)/, grouped],
    [/^\| connections of everybody else/m, 'server/listeners.ts', /STRANGERS_MESSAGE_BYTES = (\d+) /, (kib) => `${kib} KiB`],
    [/^\| connections of everybody else/m, 'server/listeners.ts', /STRANGERS_STREAMS = ([\d_]+)/, (count) => `under way ${grouped(count)}`],
    [
      /^\| connections of everybody else/m,
      'server/listeners.ts',
      /STRANGERS_STREAMS_PER_CONNECTION = (\d+)/,
      (count) => `${count} of one connection`,
    ],
    [/^\| connections of everybody else/m, 'server/listeners.ts', /STRANGERS_IDLE_MS = ([\d_]+)/, (ms) => `after ${ms / 1000} s`],
    [/^\| connections of everybody else/m, 'server/listeners.ts', /STRANGERS_AGE_MS = ([\d_]+)/, (ms) => `after ${ms / 60_000} minutes`],
    [/^\| connections that have not/m, 'server/listeners.ts', /MAX_HALF_OPEN = ([\d_]+)/, grouped],
    [
      /^\| connections that have not/m,
      'server/listeners.ts',
      /MAX_HANDSHAKES = (\d+)/,
      (count) => `${count} in their handshake, of one address ${count / 8}`,
    ],
    [/^\| connections that have not/m, 'server/listeners.ts', /HANDSHAKE_MS = ([\d_]+)/, (ms) => `each ${ms / 1000} s`],
    [/^\| connections that have not/m, 'server/doorway.ts', /LONGEST_WAIT_MS = ([\d_]+)/, (ms) => `at most ${ms / 1000} s`],
    [/^\| connections to the private socket/m, 'server/listeners.ts', /maxConnections: ([\d_]+)/, grouped],
    [/^\| connections, each with a pidfd/m, 'agent/agent.ts', /MAX_CONNECTIONS = ([\d_]+)/, grouped],
    [/^\| connections, each with a pidfd/m, 'agent/agent.ts', /MAX_CONNECTIONS = ([\d_]+)/, (count) => grouped(count / 8)],
    [/^\| calls and streams under way/m, 'agent/settings.ts', /max_streams: .*default\(([\d_]+)\)/, grouped],
    [/^\| calls and streams under way/m, 'agent/settings.ts', /max_streams: .*default\(([\d_]+)\)/, (count) => grouped(count / 8)],
    [/^\| streams of one connection/m, 'agent/settings.ts', /max_streams_per_connection: .*default\(([\d_]+)\)/, grouped],
    [/^\| calls begun in a second/m, 'agent/settings.ts', /max_messages_per_second: .*default\(([\d_]+)\)/, grouped],
    [/^\| answers that wait for slow/m, 'agent/quotas.ts', /PENDING_BYTES = (\d+) /, (mib) => `${mib} MiB`],
    [/^\| attestations under way/m, 'agent/quotas.ts', /ATTESTATIONS = (\d+)/, String],
    [/^\| a request \|/m, 'agent/listeners.ts', /MAX_REQUEST_BYTES = (\d+) /, (kib) => `${kib} KiB`],
    [/^\| a connection that says nothing/m, 'agent/listeners.ts', /IDLE_MS = (\d+) \* 60_000/, (minutes) => `${minutes} min`],
    [/^\| agent: `Clocks differ/m, 'agent/identity.ts', /SKEW_MS = ([\d_]+)/, (ms) => `more than ${ms / 1000} s`],
    [/a caller waits up to/m, 'agent/workload-api.ts', /FIRST_SYNC_MS = ([\d_]+)/, (ms) => `waits up to ${ms / 1000} s`],
  ];
  for (const [line, file, source, told] of figures) {
    test(`says ${source.source.split(/\W/)[0]} as it stands in ${file}`, () => {
      const value = Number(source.exec(read(file))?.[1]?.replaceAll('_', ''));
      expect(operating.split('\n').find((one) => line.test(one))).toContain(told(value));
    });
  }
});

function grouped(count: number): string {
  return count.toLocaleString('en-US');
}
