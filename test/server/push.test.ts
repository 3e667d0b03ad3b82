/** Agents that follow have what they are authorized for, at every moment that they can tell: over the real store, memory, wire and TLS. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Entry } from '../../core/entry.ts';
import { digestOf, versionOf } from '../../core/entry-version.ts';
import { silent } from '../../core/log.ts';
import type { Selector } from '../../core/selector.ts';
import { Callers } from '../../server/api/caller.ts';
import { createMemory, type Memory } from '../../server/memory.ts';
import { createPush, type Follower, type Push, type PushParts, type Step } from '../../server/push.ts';
import { openSqlite } from '../../server/store/sqlite.ts';
import type { AgentCertificate, Node, Store, StoredBundle } from '../../server/store/store.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { entry, node } from '../contract/store.ts';
import { FakeClock } from '../fakes/clock.ts';

const trustDomain = TrustDomain.parse('example.org');
const id = (path: string) => SpiffeId.of(trustDomain, path);
const SERVER = id('/spire/server');
const AGENT = node('a').id;
const HOUR_MS = 3_600_000;
/** Nothing is told of issuing authorities. */
const nobody = { value: [] };
const FOLLOW = '/warifu.api.server.push.v1.Push/Follow';

let folder: string;
let clock: FakeClock;
let store: Store;
let memory: Memory;
let push: Push;
let callers: Callers;

async function open(file: string, over: Partial<PushParts> = {}): Promise<void> {
  store = await openSqlite(join(folder, file), clock);
  memory = await createMemory({ store, clock, log: silent, trustDomain });
  push = createPush({ state: memory, issuers: nobody, trustDomain, ...over });
  callers = new Callers({ state: memory, store, clock, adminIds: [] });
}
async function close(): Promise<void> {
  push.close();
  memory.close();
  await store.close();
}
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'warifu-'));
  clock = new FakeClock();
  await open('db');
});
afterEach(async () => {
  await close();
  rmSync(folder, { recursive: true, force: true });
});

const child = (name: string, over: Partial<Entry> = {}): Entry => entry(name, { parentId: SpiffeId.parse(AGENT), ...over });
const uid = (value: string): Selector => ({ type: 'unix', value: `uid:${value}` });
const certificate = (sha256: string): AgentCertificate => ({ serial: '1', sha256, notAfterMs: clock.now() + HOUR_MS });
const attest = async (one: Node) => memory.settled((await store.nodes.attest({ ...one, current: certificate('current') }, {})).seq);
const changeNode = async (agentId: string, how: (stored: Node) => Node) => memory.settled((await store.nodes.update(agentId, how)).seq);
async function add(...entries: Entry[]): Promise<void> {
  for (const outcome of await store.entries.create(entries)) {
    if (!outcome.ok) throw new Error(outcome.message);
    await memory.settled(outcome.seq);
  }
}
async function update(name: string, how: (stored: Entry) => Entry): Promise<void> {
  const [outcome] = await store.entries.update([{ id: name, change: how }]);
  if (!outcome?.ok) throw new Error(outcome?.message);
  await memory.settled(outcome.seq);
}
async function remove(...names: string[]): Promise<void> {
  for (const outcome of await store.entries.delete(names)) if (outcome.ok) await memory.settled(outcome.seq);
}
const bundle = (name: string, keyId: string): StoredBundle => ({
  trustDomain: name,
  x509Authorities: [],
  jwtAuthorities: [{ keyId, spkiDer: Buffer.from('spki'), notAfterMs: 0, tainted: false }],
  refreshHintSeconds: 0,
  sequence: 0,
});
const setBundle = async (name: string, keyId = 'k') => memory.settled((await store.bundles.update(name, () => bundle(name, keyId))).seq);

/** An agent's side: it applies each step in its order, as a real one does, and keeps what it was told. */
class Model {
  readonly follower: Follower;
  readonly told: string[] = [];
  readonly entries = new Map<string, Buffer>();
  readonly bundles = new Map<string, StoredBundle>();
  failure: unknown;
  ended = false;
  cut: unknown;
  /** When false it takes no more steps, as a reader that is slow. */
  reading = true;
  #resume = () => {};
  readonly #asked = new Set<string>();
  readonly #named = new Map<string, Buffer>();

  constructor(agentId: string, digest = digestOf([]), sha256 = 'current', checkStanding?: () => void) {
    this.follower = push.follow(agentId, {
      checkStanding: checkStanding ?? (() => callers.checkStanding(agentId, sha256, clock.now() + HOUR_MS, FOLLOW)),
      cut: (error) => {
        this.cut = error;
      },
    });
    void this.#run(digest);
  }

  get digest(): Buffer {
    return digestOf(this.entries);
  }
  get ids(): string[] {
    return [...this.entries.keys()].sort();
  }
  resume(): void {
    this.reading = true;
    this.#resume();
  }

  async #run(digest: Buffer): Promise<void> {
    try {
      for await (const step of this.follower.steps(digest)) {
        this.#apply(step);
        if (!this.reading) {
          await new Promise<void>((resolve) => {
            this.#resume = resolve;
          });
        }
      }
    } catch (error) {
      this.failure = error;
    }
    this.ended = true;
  }

  #apply(step: Step): void {
    if (step.kind === 'same') this.told.push('same');
    else if (step.kind === 'versions') {
      this.told.push(`versions ${step.entries.map((one) => one.id).sort()}${step.more ? ' more' : ''}`);
      for (const one of step.entries) this.#named.set(one.id, versionOf(one));
      if (step.more) return;
      for (const known of [...this.entries.keys()]) if (!this.#named.has(known)) this.entries.delete(known);
      const wanted = [...this.#named].filter(([known, version]) => !this.entries.get(known)?.equals(version)).map(([known]) => known);
      for (const one of wanted) this.#asked.add(one);
      if (wanted.length > 0) void this.follower.want(wanted);
    } else if (step.kind === 'changes') {
      this.told.push(`changes +${step.upserts.map((one) => one.id).sort()} -${[...step.removedIds].sort()}`);
      for (const gone of step.removedIds) this.entries.delete(gone);
      for (const one of step.upserts) {
        for (const { name } of one.federatesWith) {
          if (memory.bundle(name) && !this.bundles.has(name)) throw new Error(`${one.id} came before the bundle of ${name}`);
        }
        this.entries.set(one.id, versionOf(one));
      }
    } else if (step.kind === 'bundles') {
      this.told.push(`bundles +${step.bundles.map((one) => one.trustDomain).sort()} -${[...step.removed].sort()}`);
      if (step.complete) this.bundles.clear();
      for (const one of step.bundles) this.bundles.set(one.trustDomain, one);
      for (const gone of step.removed) this.bundles.delete(gone);
    }
  }

  /** What it was told since it was asked last; everything that is ready has happened before. */
  async news(): Promise<string[]> {
    for (let turn = 0; turn < 10; turn++) await setImmediate();
    return this.told.splice(0);
  }
}

/** A model that has the set of another already. */
async function again(agentId: string, before: Model): Promise<Model> {
  const model = new Model(agentId, before.digest);
  for (const [known, version] of before.entries) model.entries.set(known, version);
  await model.news();
  return model;
}

describe('the greeting', () => {
  test('is “same” when the agent has what we have, and then every bundle that it needs', async () => {
    await attest(node('a'));
    await setBundle('example.org');
    await setBundle('other.test');
    await setBundle('unused.test');
    await add(child('web', { federatesWith: [TrustDomain.parse('other.test')] }), child('db'));
    const authorized = [...memory.authorized(AGENT).values()];
    const model = new Model(AGENT, digestOf(authorized.map((one) => [one.id, versionOf(one)] as const)));
    expect(await model.news()).toEqual(['same', 'bundles +example.org,other.test -']);
  });

  test('is the versions of the whole set when it has not; bodies come on request, of unknown and foreign ids none', async () => {
    await attest(node('a'));
    await attest(node('b'));
    await add(child('web'), child('db'), entry('foreign', { parentId: SpiffeId.parse(node('b').id) }));
    const model = new Model(AGENT);
    expect(await model.news()).toEqual(['versions db,web', 'bundles + -', 'changes +db,web -']);
    await model.follower.want(['web', 'foreign', 'never-was', 'web']);
    expect(await model.news()).toEqual(['changes +web -']);
    await model.follower.want(['foreign']);
    expect(await model.news()).toEqual(['changes + -']);
  });

  test('of an empty set says so, so that an agent that has something drops it', async () => {
    await attest(node('a'));
    const model = new Model(AGENT, digestOf([['gone', Buffer.alloc(16)]]));
    model.entries.set('gone', Buffer.alloc(16));
    expect(await model.news()).toEqual(['versions ', 'bundles + -']);
    expect(model.ids).toEqual([]);
  });

  test('of a large set comes in pages, and is complete', async () => {
    await attest(node('a'));
    const outcomes = await store.entries.create(Array.from({ length: 5_001 }, (_, i) => child(`many-${i}`)));
    await memory.settled(Math.max(...outcomes.map((one) => (one.ok ? one.seq : 0))));
    const model = new Model(AGENT);
    while (model.entries.size < 5_001) await model.news();
    expect(model.digest.equals(digestOf([...memory.authorized(AGENT).values()].map((one) => [one.id, versionOf(one)] as const)))).toBe(
      true,
    );
  });
});

describe('live', () => {
  let model: Model;
  beforeEach(async () => {
    await attest(node('a', { selectors: [uid('1')] }));
    await setBundle('example.org');
    model = new Model(AGENT);
    await model.news();
  });

  test('an entry comes, changes and goes', async () => {
    await add(child('web'));
    expect(await model.news()).toEqual(['changes +web -']);
    await update('web', (stored) => ({ ...stored, hint: 'new' }));
    expect(await model.news()).toEqual(['changes +web -']);
    await remove('web');
    expect(await model.news()).toEqual(['changes + -web']);
  });

  test('a bundle comes before the first entry that federates with it, and goes after the last', async () => {
    await setBundle('other.test');
    expect(await model.news()).toEqual([]);
    await add(child('web', { federatesWith: [TrustDomain.parse('other.test')] }));
    expect(await model.news()).toEqual(['bundles +other.test -', 'changes +web -']);
    await add(child('db', { federatesWith: [TrustDomain.parse('other.test')] }));
    expect(await model.news()).toEqual(['changes +db -']);
    await setBundle('other.test', 'k2');
    expect(await model.news()).toEqual(['bundles +other.test -']);
    await remove('web');
    expect(await model.news()).toEqual(['changes + -web']);
    await update('db', (stored) => ({ ...stored, federatesWith: [] }));
    expect(await model.news()).toEqual(['changes +db -', 'bundles + -other.test']);
  });

  test('our own bundle comes to everybody, others only to those that federate', async () => {
    await setBundle('example.org', 'k2');
    expect(await model.news()).toEqual(['bundles +example.org -']);
    expect(model.bundles.get('example.org')?.jwtAuthorities[0]?.keyId).toBe('k2');
  });

  test('a bundle that is deleted with its links: the entry loses the link, then the bundle goes', async () => {
    await setBundle('other.test');
    await add(child('web', { federatesWith: [TrustDomain.parse('other.test')] }));
    await model.news();
    await memory.settled((await store.bundles.delete('other.test', 'dissociate')).seq);
    expect(await model.news()).toEqual(['changes +web -', 'bundles + -other.test']);
  });

  test('an alias makes an old entry visible, and takes it away again', async () => {
    await add(entry('old', { parentId: id('/alias') }));
    expect(await model.news()).toEqual([]);
    await add(entry('alias', { parentId: SERVER, selectors: [uid('1')] }));
    expect(await model.news()).toEqual(['changes +old -']);
    await remove('alias');
    expect(await model.news()).toEqual(['changes + -old']);
  });

  test('a selector of the node makes an old entry visible, and takes it away again', async () => {
    await add(entry('alias', { parentId: SERVER, selectors: [uid('1'), uid('2')] }), entry('old', { parentId: id('/alias') }));
    expect(await model.news()).toEqual([]);
    await changeNode(AGENT, (stored) => ({ ...stored, selectors: [uid('1'), uid('2')] }));
    expect(await model.news()).toEqual(['changes +old -']);
    await changeNode(AGENT, (stored) => ({ ...stored, selectors: [uid('2')] }));
    expect(await model.news()).toEqual(['changes + -old']);
  });

  test('many changes while the agent reads nothing are one step when it does: the newest', async () => {
    model.reading = false;
    await add(child('first'));
    await model.news();
    for (let i = 0; i < 20; i++) await add(child(`more-${i}`));
    for (let i = 0; i < 20; i++) await remove(`more-${i}`);
    await add(child('last'));
    expect(await model.news()).toEqual([]);
    model.resume();
    expect(await model.news()).toEqual(['changes +last -']);
  });
});

describe('an agent that comes again', () => {
  test('after a deletion while it was away drops what went, with no word of what stayed', async () => {
    await attest(node('a'));
    await add(child('web'), child('db'));
    const first = new Model(AGENT);
    await first.news();
    first.follower.close();
    await remove('web');
    const second = new Model(AGENT, first.digest);
    for (const [known, version] of first.entries) second.entries.set(known, version);
    expect(await second.news()).toEqual(['versions db', 'bundles + -']);
    expect(second.ids).toEqual(['db']);
  });

  test('a restored backup while agents stay connected: each has the older set at once, and later changes reach it', async () => {
    await attest(node('a'));
    await attest(node('b'));
    await setBundle('example.org', 'old');
    await add(child('kept'), child('deleted-later'));
    await close();
    cpSync(join(folder, 'db'), join(folder, 'backup'));
    await open('db');
    await add(child('made-later'));
    await remove('deleted-later');
    await setBundle('example.org', 'new');
    for (let i = 0; i < 5; i++) await update('kept', (stored) => ({ ...stored, hint: `${i}` }));

    // the rows are swapped under those who read them: what a restore of the file, or of PostgreSQL, does
    const backup = await openSqlite(join(folder, 'backup'), clock);
    const newer = store;
    const swapped = { restored: false };
    const one = (key: 'entries' | 'nodes' | 'bundles') => (swapped.restored ? backup[key] : newer[key]);
    const commits = new Set<() => void>();
    const state = await createMemory({
      store: {
        get entries() {
          return one('entries') as Store['entries'];
        },
        get nodes() {
          return one('nodes') as Store['nodes'];
        },
        get bundles() {
          return one('bundles') as Store['bundles'];
        },
        changes: {
          bounds: () => (swapped.restored ? backup : newer).changes.bounds(),
          since: (seq, limit) => (swapped.restored ? backup : newer).changes.since(seq, limit),
          prune: (beforeMs) => (swapped.restored ? backup : newer).changes.prune(beforeMs),
          onCommit: (listener) => {
            commits.add(listener);
            return () => commits.delete(listener);
          },
        },
      },
      clock,
      log: silent,
      trustDomain,
    });
    const stop = backup.changes.onCommit(() => commits.forEach((listener) => listener()));
    push.close();
    memory.close();
    memory = state;
    push = createPush({ state, issuers: nobody, trustDomain });
    callers = new Callers({ state, store: newer, clock, adminIds: [] });
    const model = new Model(AGENT);
    await model.news();
    expect(model.ids).toEqual(['kept', 'made-later']);
    expect(model.bundles.get('example.org')?.jwtAuthorities[0]?.keyId).toBe('new');

    swapped.restored = true;
    for (const listener of commits) listener();
    const said: string[] = [];
    for (let i = 0; i < 50 && said.length < 2; i++) said.push(...(await model.news()));
    expect(said).toEqual(['bundles +example.org -', 'changes +deleted-later,kept -made-later']);
    expect(model.bundles.get('example.org')?.jwtAuthorities[0]?.keyId).toBe('old');
    expect(model.failure).toBeUndefined();
    const [outcome] = await backup.entries.create([child('after')]);
    if (outcome?.ok) await state.settled(outcome.seq);
    expect(await model.news()).toEqual(['changes +after -']);
    stop();
    await backup.close();
  });
});

describe('a stream that can’t go on', () => {
  test('because its reader is slow is cut with RESOURCE_EXHAUSTED, and starts again with a digest', async () => {
    await close();
    await open('small', { maxBehind: 3 });
    await attest(node('a'));
    const model = new Model(AGENT);
    await model.news();
    model.reading = false;
    await add(child('taken'));
    await model.news();
    for (let i = 0; i < 3; i++) await add(child(`more-${i}`));
    expect(model.cut).toBeUndefined();
    await add(child('too-many'));
    expect(model.cut).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    expect(push.followers).toBe(0);
    model.resume();
    await model.news();
    expect(model.failure).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    const next = await again(AGENT, model);
    expect(next.ids).toEqual(['more-0', 'more-1', 'more-2', 'taken', 'too-many']);
  });

  test('the same number of changes is no harm to a reader that keeps up', async () => {
    await close();
    await open('small', { maxBehind: 3 });
    await attest(node('a'));
    const model = new Model(AGENT);
    for (let i = 0; i < 20; i++) {
      await add(child(`more-${i}`));
      await model.news();
    }
    expect([model.cut, model.ids.length]).toEqual([undefined, 20]);
  });

  test.each([
    ['banned', () => changeNode(AGENT, (stored) => ({ ...stored, banned: true, current: undefined, next: undefined }))],
    ['evicted', async () => memory.settled((await store.nodes.delete(AGENT)).seq)],
    ['attested anew elsewhere', () => changeNode(AGENT, (stored) => ({ ...stored, current: certificate('elsewhere'), next: undefined }))],
  ])('because the agent was %s ends at once, though it reads nothing; another agent’s goes on', async (_, happens) => {
    await attest(node('a'));
    await attest(node('b'));
    await add(child('web'));
    const [model, other] = [new Model(AGENT), new Model(node('b').id)];
    await model.news();
    await other.news();
    model.reading = false;
    await add(child('secret'));
    await model.news();
    await happens();
    expect(model.cut).toMatchObject({ code: 'DENIED' });
    expect(push.followers).toBe(1);
    model.resume();
    expect(await model.news()).toEqual([]);
    expect(model.failure).toMatchObject({ code: 'DENIED' });
    expect([other.cut, other.ended]).toEqual([undefined, false]);
  });

  test('survives when the next certificate is made and taken into use by another connection, until its own is neither', async () => {
    await attest(node('a'));
    const [older, newer] = [new Model(AGENT), new Model(AGENT, undefined, 'next', () => {})];
    await older.news();
    await changeNode(AGENT, (stored) => ({ ...stored, next: certificate('next') }));
    expect(older.cut).toBeUndefined();
    newer.follower.close();
    const after = new Model(AGENT, undefined, 'next');
    await after.news();
    await changeNode(AGENT, (stored) => ({ ...stored, current: stored.next, next: undefined }));
    expect(older.cut).toMatchObject({ code: 'DENIED' });
    await add(child('web'));
    await after.news();
    expect([after.cut, after.ids]).toEqual([undefined, ['web']]);
  });

  test('because there are too many of one agent: the oldest ends, the newest is served', async () => {
    await attest(node('a'));
    const models = Array.from({ length: 9 }, () => new Model(AGENT));
    for (const one of models) await one.news();
    expect(models.map((one) => one.cut !== undefined)).toEqual([true, ...Array.from({ length: 8 }, () => false)]);
    expect(models[0]?.cut).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    expect(push.followers).toBe(8);
  });

  test('because the server stops: UNAVAILABLE', async () => {
    await attest(node('a'));
    const model = new Model(AGENT);
    await model.news();
    push.close();
    await model.news();
    expect(model.failure).toMatchObject({ code: 'UNAVAILABLE' });
    expect(push.followers).toBe(0);
  });
});

test('of a thousand streams a change that concerns one agent looks at one', async () => {
  const names = Array.from({ length: 1_000 }, (_, i) => `n${i}`);
  for (const outcome of await Promise.all(
    names.map((name) => store.nodes.attest({ ...node(name), current: certificate('current') }, {})),
  )) {
    await memory.settled(outcome.seq);
  }
  const computed: string[] = [];
  const counting: PushParts['state'] = {
    authorized: (agentId) => {
      computed.push(agentId);
      return memory.authorized(agentId);
    },
    bundle: (name) => memory.bundle(name),
    onApplied: (listener) => memory.onApplied(listener),
  };
  push.close();
  push = createPush({ state: counting, issuers: nobody, trustDomain });
  const models = names.map((name) => new Model(node(name).id, undefined, 'current', () => {}));
  for (const one of models) await one.news();
  expect(computed).toHaveLength(1_000);
  computed.length = 0;
  await add(entry('one', { parentId: SpiffeId.parse(node('n500').id) }));
  await models[500]?.news();
  expect(computed).toEqual([node('n500').id]);
  expect(models[500]?.ids).toEqual(['one']);
});

test('whatever happens, an agent that applies each step in its order has what it is authorized for', async () => {
  const agents = ['a', 'b'].map((name) => node(name));
  const others = ['other.test', 'third.test'];
  const parents = [...agents.map((one) => SpiffeId.parse(one.id)), SERVER, id('/s0'), id('/s1'), id('/s2')];
  const selectors = fc.uniqueArray(fc.constantFrom(uid('1'), uid('2')), { minLength: 1 });
  const step = fc.oneof(
    fc.record({
      do: fc.constant('put' as const),
      name: fc.constantFrom('e0', 'e1', 'e2', 'e3', 'e4'),
      spiffe: fc.constantFrom('/s0', '/s1', '/s2'),
      parent: fc.constantFrom(...parents),
      selectors,
      federates: fc.subarray(others),
    }),
    fc.record({ do: fc.constant('delete' as const), name: fc.constantFrom('e0', 'e1', 'e2', 'e3', 'e4') }),
    fc.record({ do: fc.constant('select' as const), agent: fc.constantFrom(...agents), selectors }),
    fc.record({ do: fc.constant('bundle' as const), name: fc.constantFrom('example.org', ...others), key: fc.constantFrom('1', '2') }),
    fc.record({ do: fc.constant('no bundle' as const), name: fc.constantFrom(...others) }),
    fc.record({ do: fc.constant('read' as const), agent: fc.constantFrom(0, 1), reading: fc.boolean() }),
    fc.record({ do: fc.constant('again' as const), agent: fc.constantFrom(0, 1) }),
    fc.record({ do: fc.constant('wait' as const) }),
  );
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      await close();
      await open(`run-${runs++}`);
      for (const one of agents) await attest(one);
      const models = agents.map((one) => new Model(one.id));
      for (const one of steps) {
        if (one.do === 'put') {
          const known = one.federates.filter((name) => memory.bundle(name));
          const made = entry(one.name, {
            parentId: one.parent,
            spiffeId: id(one.spiffe),
            selectors: one.selectors,
            federatesWith: known.map((name) => TrustDomain.parse(name)),
          });
          const [outcome] = memory.entry(one.name)
            ? await store.entries.update([{ id: one.name, change: (stored) => ({ ...stored, ...made }) }])
            : await store.entries.create([made]);
          if (outcome?.ok) await memory.settled(outcome.seq);
        } else if (one.do === 'delete') await remove(one.name);
        else if (one.do === 'select') await changeNode(one.agent.id, (stored) => ({ ...stored, selectors: one.selectors }));
        else if (one.do === 'bundle') await setBundle(one.name, one.key);
        else if (one.do === 'no bundle') {
          if (memory.bundle(one.name)) await memory.settled((await store.bundles.delete(one.name, 'dissociate')).seq);
        } else if (one.do === 'read') {
          const model = models[one.agent];
          if (one.reading) model?.resume();
          else if (model) model.reading = false;
        } else if (one.do === 'again') {
          const [model, agent] = [models[one.agent], agents[one.agent]];
          model?.resume();
          model?.follower.close();
          await model?.news();
          if (model && agent) models[one.agent] = await again(agent.id, model);
        } else for (const model of models) await model.news();
      }
      for (const [at, model] of models.entries()) {
        model.resume();
        await model.news();
        const authorized = memory.authorized(agents[at]?.id ?? '');
        expect(model.failure).toBeUndefined();
        expect(model.ids).toEqual([...authorized.keys()].sort());
        expect(model.digest.equals(digestOf([...authorized.values()].map((one) => [one.id, versionOf(one)] as const)))).toBe(true);
        const needed = new Set(['example.org', ...[...authorized.values()].flatMap((one) => one.federatesWith.map(({ name }) => name))]);
        expect([...model.bundles.keys()].sort()).toEqual([...needed].filter((name) => memory.bundle(name)).sort());
        for (const [name, has] of model.bundles) expect(has).toEqual(memory.bundle(name));
      }
    }),
    { numRuns: 100 },
  );
}, 60_000);
