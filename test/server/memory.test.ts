/** Entries, nodes and bundles in memory: equal to the tables after any sequence of changes, and telling just those whom a change concerns. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Entry } from '../../core/entry.ts';
import { silent } from '../../core/log.ts';
import type { Selector } from '../../core/selector.ts';
import { createMemory, type Memory } from '../../server/memory.ts';
import type { Touched } from '../../server/state.ts';
import { openSqlite } from '../../server/store/sqlite.ts';
import type { Node, Store } from '../../server/store/store.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { entry, node } from '../contract/store.ts';
import { FakeClock } from '../fakes/clock.ts';

const trustDomain = TrustDomain.parse('example.org');
const id = (path: string) => SpiffeId.of(trustDomain, path);
const SERVER = id('/spire/server');
const AGENT = String(node('a').id);

let folder: string;
let store: Store;
let memory: Memory;
let clock: FakeClock;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'warifu-'));
  clock = new FakeClock();
  store = await openSqlite(join(folder, 'db'), clock);
  memory = await createMemory({ store, clock, log: silent, trustDomain });
});
afterEach(async () => {
  memory.close();
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

const add = async (...entries: Entry[]) => {
  for (const outcome of await store.entries.create(entries)) {
    if (!outcome.ok) throw new Error(outcome.message);
    await memory.settled(outcome.seq);
  }
};
const attest = async (one: Node) => memory.settled((await store.nodes.attest(one, {})).seq);
const idsOf = (agentId: string) => [...memory.authorized(agentId).keys()].sort();
const uid = (value: string): Selector => ({ type: 'unix', value: `uid:${value}` });

describe('what an agent is authorized for', () => {
  test('its children, and theirs, but not those of others', async () => {
    await attest(node('a'));
    await attest(node('b'));
    await add(
      entry('child', { parentId: SpiffeId.parse(AGENT) }),
      entry('grandchild', { parentId: id('/child') }),
      entry('foreign', { parentId: SpiffeId.parse(String(node('b').id)) }),
    );
    expect(idsOf(AGENT)).toEqual(['child', 'grandchild']);
    expect(memory.isAuthorized(AGENT, 'grandchild')).toBe(true);
    expect(memory.isAuthorized(AGENT, 'foreign')).toBe(false);
  });

  test('what hangs on an alias whose selectors the node all has, never the alias itself', async () => {
    await attest(node('a', { selectors: [uid('1'), uid('2')] }));
    await add(
      entry('alias', { parentId: SERVER, selectors: [uid('1'), uid('2')] }),
      entry('below', { parentId: id('/alias') }),
      entry('narrow', { parentId: SERVER, selectors: [uid('1'), uid('3')] }),
      entry('out-of-reach', { parentId: id('/narrow') }),
    );
    expect(idsOf(AGENT)).toEqual(['below']);
    expect(memory.isAuthorized(AGENT, 'below')).toBe(true);
    expect(memory.isAuthorized(AGENT, 'alias')).toBe(false);
    expect(memory.isAuthorized(AGENT, 'out-of-reach')).toBe(false);
  });

  test('nothing when it is banned or unknown; a circle of parents ends', async () => {
    await attest(node('a'));
    await add(
      entry('one', { parentId: SpiffeId.parse(AGENT), spiffeId: id('/one') }),
      entry('two', { parentId: id('/one'), spiffeId: id('/two') }),
      entry('three', { parentId: id('/two'), spiffeId: id('/one'), selectors: [uid('3')] }),
    );
    expect(idsOf(AGENT)).toEqual(['one', 'three', 'two']);
    await memory.settled((await store.nodes.update(AGENT, (stored) => ({ ...stored, banned: true, current: undefined }))).seq);
    expect(idsOf(AGENT)).toEqual([]);
    expect(memory.isAuthorized(AGENT, 'one')).toBe(false);
    expect(idsOf('spiffe://example.org/spire/agent/join_token/nobody')).toEqual([]);
  });

  test('an entry that has ended is gone at that moment, with those below it, and agents hear of it', async () => {
    await attest(node('a'));
    await add(
      entry('short', { parentId: SpiffeId.parse(AGENT), expiresAtMs: clock.now() + 60_000 }),
      entry('below', { parentId: id('/short') }),
      entry('long', { parentId: SpiffeId.parse(AGENT) }),
    );
    const stop = new AbortController();
    const touched: Touched[] = [];
    memory.onApplied((one) => touched.push(one));
    const running = memory.run(stop.signal).catch(() => {});
    expect(idsOf(AGENT)).toEqual(['below', 'long', 'short']);
    await clock.advance(60_000);
    expect(idsOf(AGENT)).toEqual(['long']);
    expect(memory.isAuthorized(AGENT, 'below')).toBe(false);
    expect(touched.map(({ agents }) => Array.from(agents))).toEqual([[AGENT]]);
    stop.abort();
    await running;
  });
});

test('a reader that was away while the change log was pruned reads everything anew, and says so', async () => {
  await add(entry('before'));
  const touched: Touched[] = [];
  memory.onApplied((one) => touched.push(one));
  const other = await createMemory({ store, clock, log: silent, trustDomain });
  other.close();
  await store.entries.create([entry('missed')]);
  await clock.advance(1000);
  await store.changes.prune(clock.now());
  const late = await createMemory({ store, clock, log: silent, trustDomain });
  expect([...late.entries()].map((one) => one.id)).toEqual(['before', 'missed']);
  expect(late.seq).toBe(memory.seq);
  late.close();
});

/** What the words of SPIRE say, without an index. */
function naive(entries: readonly Entry[], nodes: readonly Node[], agentId: string): string[] {
  const one = nodes.find((candidate) => candidate.id === agentId);
  if (!one || one.banned) return [];
  const has = (selector: Selector) => one.selectors.some(({ type, value }) => type === selector.type && value === selector.value);
  const names = new Set([agentId]);
  for (const alias of entries)
    if (String(alias.parentId) === String(SERVER) && alias.selectors.every(has)) names.add(String(alias.spiffeId));
  const found = new Set<string>();
  for (let before = -1; before !== found.size; ) {
    before = found.size;
    for (const candidate of entries) {
      if (!names.has(String(candidate.parentId))) continue;
      found.add(candidate.id);
      names.add(String(candidate.spiffeId));
    }
  }
  return [...found].sort();
}

test('after any changes it authorizes what the plain reading of the rule does, and tells every agent whose set is another', async () => {
  const name = fc.constantFrom('a', 'b', 'c', 'd', 'e');
  const agent = fc.constantFrom('x', 'y');
  const selectors = fc.subarray([uid('1'), uid('2'), uid('3')], { minLength: 1 });
  const parent = fc.oneof(
    fc.constant(SERVER),
    name.map((one) => id(`/${one}`)),
    agent.map((one) => SpiffeId.parse(node(one).id)),
  );
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ do: fc.constant('put' as const), name, parent, spiffe: name, selectors }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('delete' as const), name }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('attest' as const), agent, selectors, banned: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('evict' as const), agent }) },
  );
  const agents = ['x', 'y'].map((one) => node(one).id);
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      for await (const page of store.nodes.all()) for (const one of page) await store.nodes.delete(one.id);
      await store.entries.delete([...memory.entries()].map((one) => one.id));
      const entries = new Map<string, Entry>();
      const nodes = new Map<string, Node>();
      const told = new Set<string>();
      const stop = memory.onApplied((touched) => {
        for (const one of touched.agents) told.add(one);
      });
      try {
        for (const one of steps) {
          const before = agents.map(idsOf);
          told.clear();
          let seq = 0;
          if (one.do === 'put') {
            const made = entry(one.name, { parentId: one.parent, spiffeId: id(`/${one.spiffe}`), selectors: one.selectors });
            const [outcome] = entries.has(one.name)
              ? await store.entries.update([{ id: one.name, change: (stored) => ({ ...stored, ...made }) }])
              : await store.entries.create([made]);
            if (outcome?.ok) {
              entries.set(one.name, outcome.entry);
              seq = outcome.seq;
            }
          } else if (one.do === 'delete') {
            const [outcome] = await store.entries.delete([one.name]);
            entries.delete(one.name);
            if (outcome?.ok) seq = outcome.seq;
          } else if (one.do === 'attest') {
            const made = node(one.agent, { selectors: one.selectors, attestationType: 'x509pop', banned: one.banned });
            if (nodes.has(made.id)) seq = (await store.nodes.update(made.id, () => made)).seq;
            else seq = (await store.nodes.attest(made, {})).seq;
            nodes.set(made.id, made);
          } else if (nodes.delete(node(one.agent).id)) seq = (await store.nodes.delete(node(one.agent).id)).seq;
          await memory.settled(seq);
          for (const [at, agentId] of agents.entries()) {
            const now = idsOf(agentId);
            expect(now).toEqual(naive([...entries.values()], [...nodes.values()], agentId));
            for (const known of entries.keys()) expect(memory.isAuthorized(agentId, known)).toBe(now.includes(known));
            if (String(now) !== String(before[at])) expect(told).toContain(agentId);
          }
        }
      } finally {
        stop();
      }
    }),
    { numRuns: 60 },
  );
}, 60_000);

test('entries behind an id are those that a walk from the first one would meet behind it', async () => {
  const names = ['a', 'aa', 'b', 'c', 'd-1', 'z'];
  await add(...names.map((name) => entry(name)));
  for (const after of [...names, '', '-', 'ab', 'zz']) {
    expect([...memory.entries(after)].map((one) => one.id)).toEqual(names.filter((name) => name > after));
  }
});
