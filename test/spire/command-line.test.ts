/**
 * The same words typed four times: SPIRE's command line and ours, each on SPIRE's server and agent and on ours, all four houses in the same state.
 * What they print and how they end is the same, but for what intended.ts names with its reason.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { OUR_UID } from '../e2e/house.ts';
import { INTENDED, type Intended, textOf, type Told } from './intended.ts';
import { normal } from './normal.ts';
import { createPair, type Pair, type PairAgent, type Side } from './pair.ts';
import { AGENT_API_STEPS, DENIED_STEPS } from './steps-agent.ts';
import { BANNED_STEPS, ENTRY_STEPS, PARTING_STEPS } from './steps-entry.ts';
import {
  AGENT_STEPS,
  BUNDLE_DELETE_STEPS,
  BUNDLE_STEPS,
  HEALTH_STEPS,
  LOGGER_STEPS,
  MINT_STEPS,
  PURGE_STEPS,
  TOKEN_STEPS,
} from './steps-server.ts';
import type { Step } from './steps.ts';
import { Table } from './table.ts';

interface Place {
  /** How it is called in the table: whose command line, on whose server. */
  readonly name: string;
  readonly cli: Side;
  readonly pair: Pair;
  readonly node: PairAgent;
  readonly guest: PairAgent;
  /** What the house has of its own, by the name that it has in steps. */
  readonly own: Map<string, string>;
}

const PLACES: readonly (readonly [cli: Side, server: Side])[] = [
  ['spire', 'spire'],
  ['warifu', 'spire'],
  ['spire', 'warifu'],
  ['warifu', 'warifu'],
];
const table = new Table();
let places: readonly Place[] = [];

async function createPlace(cli: Side, server: Side): Promise<Place> {
  const pair = await createPair(server, {
    serverSettings: ['agent_ttl = "60s"'],
    // the same names of agents in all four
    settings: (conf) =>
      conf.replace(/(ca_bundle_path = "[^"]*")/, '$1\n    agent_path_template = "/{{ .PluginName }}/{{ .Subject.CommonName }}"\n  '),
  });
  try {
    return await furnish(cli, server, pair);
  } catch (fault) {
    await pair.close();
    throw fault;
  }
}

async function furnish(cli: Side, server: Side, pair: Pair): Promise<Place> {
  const { dir } = pair.house;
  // a node that is here and two that were; in this order, in which SPIRE lists them
  const absent = async (name: string) => {
    const agent = await pair.createAgent(name, server, { attestor: 'x509pop' });
    await agent.start();
    // it has told its version
    await soon(async () =>
      expect(await pair.house.ok('server', 'agent', 'show', '-spiffeID', `spiffe://example.org/spire/agent/x509pop/${name}`)).toContain(
        'Agent version',
      ),
    );
    await agent.process.stop();
    return agent;
  };
  await absent('gone');
  const guest = await absent('guest');
  const node = await pair.createAgent('node', server, { attestor: 'x509pop' });
  await node.start();
  writeFileSync(join(dir, 'broken.conf'), 'server {\n  bind_port = \n');
  const conf = readFileSync(pair.house.serverConf, 'utf8');
  writeFileSync(join(dir, 'unknown.conf'), conf.replace('server {', 'server {\n  bind_prt = "8081"'));
  const own = new Map([
    ['node', 'spiffe://example.org/spire/agent/x509pop/node'],
    ['guest', 'spiffe://example.org/spire/agent/x509pop/guest'],
    ['dir', dir],
    ['me', OUR_UID],
    // it is over, with its minute of grace, when its turn comes
    ['ended-token', await minted(pair, '1s')],
    ['root', readFileSync(pair.house.pki.root, 'utf8')],
  ]);
  return { name: `${cli} on ${server}`, cli, pair, node, guest, own };
}

beforeAll(async () => {
  const made = await Promise.allSettled(PLACES.map(([cli, server]) => createPlace(cli, server)));
  places = made.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  for (const one of made) if (one.status === 'rejected') throw one.reason;
}, 120_000);
afterAll(async () => {
  await Promise.all(places.map(({ pair }) => pair.close()));
  table.write(process.env['WARIFU_SPIRE_TABLE']);
});

async function minted(pair: Pair, ttl: string): Promise<string> {
  return (await pair.house.ok('server', 'jwt', 'mint', '-spiffeID', 'spiffe://example.org/web', '-audience', 'a', '-ttl', ttl)).trim();
}

/** What one house answers, without what is its own. */
async function answer(place: Place, { args, input, bare }: Step): Promise<Told> {
  const filled = (text: string) => text.replace(/\{([a-z][a-z-]*)\}/g, (whole, name: string) => place.own.get(name) ?? whole);
  const { code, stdout, stderr } = await place.pair.run(place.cli, args.map(filled), {
    ...(input !== undefined && { input: filled(input) }),
    ...(bare && { bare }),
    ...(args[0] === 'agent' && { agent: place.node }),
  });
  const names = [
    [place.pair.house.dir, '<dir>'],
    [`:${place.pair.house.port}`, ':<port>'],
  ] as const;
  return { code, stdout: normal(stdout, names), stderr: normal(stderr, names) };
}

/** As long as a stock agent may take to poll. */
const soon = (check: () => Promise<void>) => vi.waitFor(check, { interval: 200, timeout: 30_000 });

const equal = (told: readonly Told[]) => new Set(told.map(textOf)).size === 1;

function compare(steps: readonly Step[]): void {
  for (const step of steps) {
    test(`${step.args.join(' ').slice(0, 120)} (${step.name})`, async () => {
      judge(step, await Promise.all(places.map((place) => answer(place, step))));
    });
  }
}

/** Puts the four answers into the table; throws when they differ for another reason than the step's own, or for none that is left. */
function judge(step: Step, told: readonly Told[]): void {
  const reasons = step.intended ?? [];
  let left = told;
  const stale: string[] = [];
  for (const reason of reasons) {
    const { settle, sometimes }: Intended = INTENDED[reason];
    const settled = left.map((one, i) => settle(one, { cli: PLACES[i]?.[0] ?? 'spire', server: PLACES[i]?.[1] ?? 'spire' }));
    if (!sometimes && JSON.stringify(settled) === JSON.stringify(left)) stale.push(reason);
    left = settled;
  }
  table.add({ step, told, settled: equal(left), reasons: equal(told) ? [] : reasons });
  const [reference, ...others] = left.map(textOf);
  for (const [i, other] of others.entries()) expect(other, `${places[i + 1]?.name}: ${step.args.join(' ')}`).toBe(reference);
  expect(stale, 'a reason that explains nothing').toEqual([]);
}

describe('server entry', () => compare(ENTRY_STEPS));
describe('server bundle', () => {
  beforeAll(async () => {
    for (const { pair, own } of places) own.set('spiffe-bundle', await pair.house.ok('server', 'bundle', 'show', '-format', 'spiffe'));
  });
  compare(BUNDLE_STEPS);
});
describe('server token', () => compare(TOKEN_STEPS));
describe('server agent', () => compare(AGENT_STEPS));
describe('server x509, server jwt', () => compare(MINT_STEPS));
describe('server logger', () => compare(LOGGER_STEPS));
describe('server', () => compare(HEALTH_STEPS));

describe('agent', () => {
  beforeAll(async () => {
    for (const { pair, own } of places) {
      const token = await minted(pair, '1h');
      const [header = '', claims = '', signature = ''] = token.split('.');
      const inverted = signature.startsWith('A') ? `B${signature.slice(1)}` : `A${signature.slice(1)}`;
      const foreign = Buffer.from(Buffer.from(claims, 'base64url').toString('utf8').replace('example.org', 'nobody.test')).toString(
        'base64url',
      );
      own
        .set('token', token)
        .set('forged-token', `${header}.${claims}.${inverted}`)
        .set('foreign-token', `${header}.${foreign}.${signature}`);
    }
    for (const { pair, node: agent, own } of places) {
      const validated = () =>
        pair.run('warifu', ['agent', 'api', 'validate', 'jwt', '-audience', 'a', '-svid', own.get('ended-token') ?? ''], { agent });
      await vi.waitFor(async () => expect((await validated()).code).toBe(1), { interval: 500, timeout: 70_000 });
    }
    for (const { node } of places) await soon(async () => expect(await node.fetched()).toMatch(/\/(web|fed)\n[^]*\/(web|fed)\n/));
  }, 120_000);
  compare(AGENT_API_STEPS);
});

describe('agent api watch', () => {
  // the one command that does not end by itself
  test('prints the first update, and ends when it is interrupted', async () => {
    const step = {
      name: 'the first update',
      args: ['agent', 'api', 'watch'],
      intended: ['mapOrder', 'interrupted'],
    } as const satisfies Step;
    const told = await Promise.all(
      places.map(async (place): Promise<Told> => {
        const fetched = await answer(place, { name: '', args: ['agent', 'api', 'fetch', 'x509'] });
        const watch = place.pair.spawn(place.cli, ['agent', 'api', 'watch', '-socketPath', place.node.socketPath]);
        const length = fetched.stdout
          .trimEnd()
          .replace(/^Hint:.*\n/gm, '')
          .split('\n').length;
        await watch.lines.find(() => true, { from: length - 1, what: `${length} lines of api watch` });
        watch.signal('SIGINT');
        const { code, signal } = await watch.exited;
        const stdout = normal(`${watch.lines.items.join('\n').trimEnd()}\n`, []);
        return { code, stdout, stderr: signal ?? '' };
      }),
    );
    judge(step, told);
  });
});

describe('server agent purge', () => {
  // the node that is here renews what it has
  beforeAll(async () => {
    const expired = (place: Place) => place.pair.house.ok('server', 'agent', 'purge', '-dryRun', '-expiredFor', '0s');
    for (const place of places)
      await vi.waitFor(async () => expect(await expired(place)).toContain('/gone'), { interval: 1000, timeout: 70_000 });
  }, 90_000);
  compare(PURGE_STEPS);
});

describe('server bundle delete', () => compare(BUNDLE_DELETE_STEPS));

describe('agent, of one whom nothing fits', () => {
  beforeAll(async () => {
    for (const { pair } of places) for (const id of ['web', 'fed']) await pair.house.deleteEntry(id);
    for (const { node } of places) await soon(async () => expect(await node.fetched()).toContain('PermissionDenied'));
  });
  compare(DENIED_STEPS);
});

describe('a ban outlives a purge', () => {
  beforeAll(async () => {
    for (const { guest } of places) {
      await guest.start();
      await guest.process.stop();
    }
  });
  compare(BANNED_STEPS);
});

describe('what parts them', () => compare(PARTING_STEPS));
