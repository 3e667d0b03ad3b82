/** The entry API over the real wire, store and memory. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import Sqlite from 'better-sqlite3';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Entry } from '../../../core/entry.ts';
import { silent } from '../../../core/log.ts';
import { service } from '../../../core/rpc.ts';
import type { CallContext } from '../../../core/rpc-types.ts';
import {
  EntryDefinition,
  ListEntriesRequest_Filter as Filter,
  type SyncAuthorizedEntriesRequest,
  type SyncAuthorizedEntriesResponse,
} from '../../../proto/gen/spire/api/server/entry/v1/entry.ts';
import { EntryMask, Entry as WireEntry } from '../../../proto/gen/spire/api/types/entry.ts';
import { createEntryApi } from '../../../server/api/entry.ts';
import { createMemory, type Memory } from '../../../server/memory.ts';
import { openSqlite } from '../../../server/store/sqlite.ts';
import type { Store } from '../../../server/store/store.ts';
import { openChannel } from '../../../spiffe/rpc/channel.ts';
import { type Calls, type Channel, rpcStatusOf } from '../../../spiffe/rpc/calls.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { type ApiServer, startApiServer } from '../../cli/api-server.ts';
import { entry as storedEntry, node } from '../../contract/store.ts';
import { FakeClock } from '../../fakes/clock.ts';

const trustDomain = TrustDomain.parse('example.org');
const AGENT = node('a').id;
const OTHER = node('b').id;
/** Of calls that are made without the wire; what they don't look at. */
const CALL = {} as CallContext;
const OK = { code: 0, message: 'OK' };
const UUID4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

let folder: string;
let clock: FakeClock;
let store: Store;
let memory: Memory;
let server: ApiServer;
let channel: Channel;
let api: Calls<typeof EntryDefinition>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'warifu-'));
  clock = new FakeClock();
  store = await openSqlite(join(folder, 'db'), clock);
  memory = await createMemory({ store, clock, log: silent, trustDomain });
  const agentOf = ({ metadata }: { readonly metadata: ReadonlyMap<string, readonly string[]> }) => metadata.get('agent')?.[0] ?? '';
  server = await startApiServer(
    service(EntryDefinition, createEntryApi({ store, state: memory, trustDomain, clock, log: silent, agentOf })),
  );
  channel = openChannel({ target: `unix://${server.socketPath}`, options: { 'grpc.max_receive_message_length': -1 } });
  api = channel.service(EntryDefinition);
});
afterEach(async () => {
  channel.close();
  await server[Symbol.asyncDispose]();
  memory.close();
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

type Said = Parameters<typeof WireEntry.fromPartial>[0];
const path = (text: string) => ({ trustDomain: 'example.org', path: text });
const agentPath = (agentId: string) => path(SpiffeId.parse(agentId).path);
const wire = (name: string, over: Said = {}): WireEntry =>
  WireEntry.fromPartial({
    id: name,
    parentId: agentPath(AGENT),
    spiffeId: path(`/${name}`),
    selectors: [{ type: 'unix', value: `path:/bin/${name}` }],
    ...over,
  });
const mask = (...fields: (keyof EntryMask)[]) => EntryMask.fromPartial(Object.fromEntries(fields.map((field) => [field, true])));
const create = async (...entries: WireEntry[]) => (await api.batchCreateEntry({ entries, outputMask: undefined })).results;
const update = async (inputMask: EntryMask | undefined, ...entries: WireEntry[]) =>
  (await api.batchUpdateEntry({ entries, inputMask, outputMask: undefined })).results;
const remove = async (...ids: string[]) => (await api.batchDeleteEntry({ ids })).results;
const get = (id: string, outputMask?: EntryMask) => api.getEntry({ id, outputMask });
const list = async (filter?: Parameters<typeof Filter.fromPartial>[0]) => {
  const { entries } = await api.listEntries({
    filter: filter && Filter.fromPartial(filter),
    outputMask: mask(),
    pageSize: 0,
    pageToken: '',
  });
  return entries.map(({ id }) => id);
};

async function known(...names: string[]): Promise<void> {
  for (const trustDomainName of names) {
    const { seq } = await store.bundles.update(trustDomainName, () => ({
      trustDomain: trustDomainName,
      x509Authorities: [],
      jwtAuthorities: [],
      refreshHintSeconds: 0,
      sequence: 0,
    }));
    await memory.settled(seq);
  }
}

async function attested(...names: string[]): Promise<void> {
  for (const name of names) await memory.settled((await store.nodes.attest(node(name), {})).seq);
}

/** Puts many entries of the agent there, sooner than the wire would. */
async function many(count: number, over: Partial<Entry> = {}): Promise<void> {
  const drafts = Array.from({ length: count }, (_, i) =>
    storedEntry(`many-${String(i).padStart(5, '0')}`, { parentId: SpiffeId.parse(AGENT), ...over }),
  );
  const outcomes = await store.entries.create(drafts);
  const last = outcomes.at(-1);
  if (!last?.ok) throw new Error('not written');
  await memory.settled(last.seq);
}

/** How a call failed: gRPC's number and text. */
async function refusal(call: Promise<unknown>): Promise<{ code: number; text: string } | undefined> {
  try {
    await call;
    return undefined;
  } catch (error) {
    const status = rpcStatusOf(error);
    if (!status) throw error;
    return { code: status.code, text: status.text };
  }
}

describe('creating', () => {
  test('answers the entry, which can be read at once and is on disk', async () => {
    await known('partner.org');
    const said = wire('web', {
      id: '',
      x509SvidTtl: 60,
      federatesWith: ['partner.org'],
      dnsNames: ['web.example.org'],
      hint: 'h',
      admin: true,
    });
    const [result] = await create(said);
    expect(result?.status).toEqual(OK);
    const id = result?.entry?.id ?? '';
    expect(id).toMatch(UUID4);
    expect(result?.entry).toEqual({ ...said, id, createdAt: Math.floor(clock.now() / 1000) });
    expect(await get(id)).toEqual(result?.entry);
    expect(await store.entries.get([id])).toHaveLength(1);
  });

  test('takes the id that the caller chose', async () => {
    expect((await create(wire('chosen.id_1')))[0]?.entry?.id).toBe('chosen.id_1');
  });

  test('answers what its mask asks for, and the id always', async () => {
    const { results } = await api.batchCreateEntry({ entries: [wire('web', { hint: 'h' })], outputMask: mask('hint') });
    expect(results).toEqual([{ status: OK, entry: WireEntry.fromPartial({ id: 'web', hint: 'h' }) }]);
  });

  test('judges each item alone, in order', async () => {
    const results = await create(
      wire('one'),
      wire('two', { selectors: [] }),
      wire('three'),
      wire('bad/id'),
      wire('four', { federatesWith: ['stranger.org'] }),
      wire('five'),
    );
    expect(results.map(({ status, entry }) => [status?.code, status?.message, entry?.id])).toEqual([
      [0, 'OK', 'one'],
      [3, 'failed to convert entry: selector list is empty', undefined],
      [0, 'OK', 'three'],
      [3, 'failed to create entry: datastore-validation: invalid registration entry: entry ID contains invalid characters', undefined],
      [13, 'failed to create entry: unable to find federated bundle "spiffe://stranger.org"', undefined],
      [0, 'OK', 'five'],
    ]);
    expect(await list()).toEqual(['five', 'one', 'three']);
  });

  test('of nothing answers nothing', async () => {
    expect(await create()).toEqual([]);
  });

  test('a similar entry tells of the one that is there: earlier, in the same call, or under the same id', async () => {
    const [first] = await create(wire('web', { hint: 'first' }));
    const similar = { code: 6, message: 'similar entry already exists' };
    const again = wire('web', { id: '', hint: 'second', selectors: [...wire('web').selectors, ...wire('web').selectors] });
    const [sameThing, fresh, twin, sameId] = await create(
      again,
      wire('db'),
      wire('db', { id: 'db2' }),
      wire('web', { spiffeId: path('/other') }),
    );
    expect(sameThing).toEqual({ status: similar, entry: first?.entry });
    expect(fresh?.status).toEqual(OK);
    expect(twin).toEqual({ status: similar, entry: fresh?.entry });
    expect(sameId).toEqual({ status: similar, entry: first?.entry });
    expect(await list()).toEqual(['db', 'web']);
  });

  test.each<[what: string, over: Said]>([
    ['parent', { parentId: path('/spire/server') }],
    ['SPIFFE ID', { spiffeId: path('/api') }],
    ['selectors', { selectors: [{ type: 'unix', value: 'uid:1' }] }],
    ['number of selectors', { selectors: [...wire('web').selectors, { type: 'unix', value: 'uid:1' }] }],
  ])('an entry of another %s is not similar', async (_, over) => {
    const results = await create(wire('web'), wire('web', { id: 'two', ...over }));
    expect(results.map(({ status }) => status)).toEqual([OK, OK]);
  });

  test('thousands in one call, all of them there', async () => {
    const entries = Array.from({ length: 5000 }, (_, i) => wire(`e${i}`));
    const results = await create(...entries);
    expect(new Set(results.map(({ status }) => status?.message))).toEqual(new Set(['OK']));
    expect(results.map(({ entry }) => entry?.id)).toEqual(entries.map(({ id }) => id));
    expect(await api.countEntries({ filter: undefined })).toEqual({ count: 5000 });
  });

  test('fails item by item when the datastore fails, and goes on when that is well again', async () => {
    const neighbour = new Sqlite(join(folder, 'db'));
    try {
      neighbour.exec('ALTER TABLE entries RENAME TO elsewhere');
      const [bad, lost] = await create(wire('bad', { selectors: [] }), wire('web'));
      expect(bad).toEqual({ status: { code: 3, message: 'failed to convert entry: selector list is empty' }, entry: undefined });
      expect(lost).toEqual({
        status: { code: 13, message: expect.stringMatching(/^failed to create entry: datastore /) },
        entry: undefined,
      });
      expect((await update(undefined, wire('web')))[0]?.status).toMatchObject({ code: 13 });
      expect((await remove('web'))[0]?.status).toMatchObject({ code: 13 });
      expect(await list()).toEqual([]);
      neighbour.exec('ALTER TABLE elsewhere RENAME TO entries');
      expect((await create(wire('web')))[0]?.status).toEqual(OK);
      expect(await list()).toEqual(['web']);
    } finally {
      neighbour.close();
    }
  });
});

test('a write is answered when those who read see it, not before', async () => {
  let arrive = Promise.resolve();
  const { changes } = store;
  const late = await createMemory({
    store: {
      entries: store.entries,
      nodes: store.nodes,
      bundles: store.bundles,
      changes: {
        bounds: () => changes.bounds(),
        since: (seq, limit) => arrive.then(() => changes.since(seq, limit)),
        onCommit: (listener) => changes.onCommit(listener),
        prune: (beforeMs) => changes.prune(beforeMs),
      },
    },
    clock,
    log: silent,
    trustDomain,
  });
  const slow = createEntryApi({ store, state: late, trustDomain, clock, log: silent, agentOf: () => AGENT });
  const writes: [write: () => Promise<unknown> | undefined, seen: () => boolean][] = [
    [() => slow.batchCreateEntry?.({ entries: [wire('web')], outputMask: undefined }, CALL), () => late.entry('web') !== undefined],
    [
      () => slow.batchUpdateEntry?.({ entries: [wire('web', { hint: 'new' })], inputMask: undefined, outputMask: undefined }, CALL),
      () => late.entry('web')?.hint === 'new',
    ],
    [() => slow.batchDeleteEntry?.({ ids: ['web'] }, CALL), () => late.entry('web') === undefined],
  ];
  for (const [write, seen] of writes) {
    let letArrive = () => {};
    arrive = new Promise((resolve) => {
      letArrive = resolve;
    });
    let answered = false;
    const written = Promise.resolve(write()).then(() => {
      answered = true;
    });
    for (let turn = 0; turn < 20; turn++) await setImmediate();
    expect([answered, seen()]).toEqual([false, false]);
    letArrive();
    await written;
    expect(seen()).toBe(true);
  }
  late.close();
});

describe('updating', () => {
  test('without a mask replaces all that may change', async () => {
    const [before] = await create(wire('web', { hint: 'h', x509SvidTtl: 60, admin: true }));
    await clock.advance(5_000);
    const [after] = await update(undefined, wire('web', { spiffeId: path('/new'), jwtSvidTtl: 30, createdAt: 1, revisionNumber: 77 }));
    expect(after).toEqual({
      status: OK,
      entry: wire('web', { spiffeId: path('/new'), jwtSvidTtl: 30, createdAt: before?.entry?.createdAt ?? 0, revisionNumber: 1 }),
    });
    expect(await get('web')).toEqual(after?.entry);
  });

  test('with a mask changes that alone, and answers what the other mask asks for', async () => {
    await create(wire('web', { hint: 'h', x509SvidTtl: 60 }));
    const { results } = await api.batchUpdateEntry({
      entries: [WireEntry.fromPartial({ id: 'web', x509SvidTtl: 90, hint: 'no' })],
      inputMask: mask('x509SvidTtl'),
      outputMask: mask('x509SvidTtl', 'revisionNumber'),
    });
    expect(results).toEqual([{ status: OK, entry: WireEntry.fromPartial({ id: 'web', x509SvidTtl: 90, revisionNumber: 1 }) }]);
    expect(await get('web')).toMatchObject({ hint: 'h', x509SvidTtl: 90, spiffeId: path('/web') });
  });

  test('raises the revision each time, even for nothing, twice in one call too', async () => {
    await create(wire('web'));
    const results = await update(mask(), wire('web'), wire('web'));
    expect(results.map(({ entry }) => entry?.revisionNumber)).toEqual([1, 2]);
    expect((await get('web')).revisionNumber).toBe(2);
  });

  test('judges each item alone, in order', async () => {
    await known('partner.org');
    await create(
      wire('web', {
        selectors: [
          { type: 'unix', value: 'uid:1' },
          { type: 'k8s', value: 'ns:a' },
        ],
      }),
      wire('db'),
      wire('api'),
    );
    const results = await update(
      undefined,
      wire('nobody'),
      wire('web', { parentId: undefined }),
      wire('web', { federatesWith: ['stranger.org'] }),
      wire('web', { spiffeId: path('/db'), selectors: wire('db').selectors }),
      wire('web', { federatesWith: ['partner.org'] }),
      wire(''),
      wire('db', { x509SvidTtl: -5 }),
      wire('api'),
    );
    expect(results.map(({ status, entry }) => [status?.code, status?.message, entry?.id])).toEqual([
      [5, 'failed to update entry', undefined],
      [3, 'failed to convert entry: invalid parent ID: request must specify SPIFFE ID', undefined],
      [13, 'failed to update entry: unable to find federated bundle "spiffe://stranger.org"', undefined],
      [6, 'failed to update entry: similar entry already exists', undefined],
      [0, 'OK', 'web'],
      [3, expect.stringContaining('invalid spiffe ID'), undefined],
      [3, 'failed to update entry: datastore-validation: invalid registration entry: X509SvidTtl is not set', undefined],
      [0, 'OK', 'api'],
    ]);
  });

  test('asks whether the whole entry is one, not just what is new', async () => {
    const mixed = [
      { type: 'unix', value: 'uid:1' },
      { type: 'k8s', value: 'ns:a' },
    ];
    await create(wire('mixed', { selectors: mixed }), wire('plain'));
    const stores = (id: string) => WireEntry.fromPartial({ id, storeSvid: true });
    const [refused, fine] = await update(mask('storeSvid'), stores('mixed'), stores('plain'));
    expect(refused?.status).toEqual({
      code: 3,
      message:
        'failed to update entry: datastore-validation: invalid registration entry: selector types must be the same when store SVID is enabled',
    });
    expect(fine?.status).toEqual(OK);
    expect(await get('mixed')).toMatchObject({ storeSvid: false, revisionNumber: 0 });
  });
});

describe('deleting', () => {
  test('judges each item alone, in order, and twice is once', async () => {
    await create(wire('web'), wire('db'));
    expect(await remove('web', 'nobody', '', 'web')).toEqual([
      { status: OK, id: 'web' },
      { status: { code: 5, message: 'entry not found' }, id: 'nobody' },
      { status: { code: 3, message: 'missing entry ID' }, id: '' },
      { status: { code: 5, message: 'entry not found' }, id: 'web' },
    ]);
    expect(await list()).toEqual(['db']);
    expect(await refusal(get('web'))).toEqual({ code: 5, text: 'entry not found' });
  });
});

describe('getting', () => {
  test('one entry, all of it or what the mask asks for', async () => {
    const [made] = await create(wire('web', { hint: 'h' }));
    expect(await get('web')).toEqual(made?.entry);
    expect(await get('web', mask('hint'))).toEqual(WireEntry.fromPartial({ id: 'web', hint: 'h' }));
  });

  test('no entry', async () => {
    expect(await refusal(get('web'))).toEqual({ code: 5, text: 'entry not found' });
    expect(await refusal(get(''))).toEqual({ code: 3, text: 'missing ID' });
  });
});

const TYPES = ['a', 'b', 'c'];
const DOMAINS = ['one.org', 'two.org', 'three.org'];

/** What SPIRE means by the modes, said once more and slowly. */
const MODES: [name: string, match: 0 | 1 | 2 | 3, passes: (has: string[], wanted: string[]) => boolean][] = [
  ['exact', 0, (has, wanted) => JSON.stringify([...has].sort()) === JSON.stringify([...new Set(wanted)].sort())],
  ['subset', 1, (has, wanted) => has.length > 0 && has.every((one) => wanted.includes(one))],
  ['superset', 2, (has, wanted) => wanted.every((one) => has.includes(one))],
  ['any', 3, (has, wanted) => wanted.some((one) => has.includes(one))],
];

describe('listing and counting', () => {
  const selectors = (types: readonly string[]) => types.map((type) => ({ type, value: 'v' }));
  const someOf = (from: string[], minLength: number) => fc.subarray(from, { minLength });

  test('by any filters gives what a slow look at every entry gives', async () => {
    await known(...DOMAINS);
    const all = Array.from({ length: 60 }, (_, i) => {
      const three = (list: string[], bits: number) => list.filter((__, bit) => bits & (1 << bit));
      return wire(`e${String(i).padStart(2, '0')}`, {
        parentId: path(`/p${i % 2}`),
        spiffeId: path(`/s${i % 5}`),
        selectors: [
          ...selectors(three(TYPES, (i % 7) + 1)),
          ...(i % 3 === 0 ? [{ type: 'own', value: `${i}` }] : [{ type: 'a', value: 'v' }]),
        ],
        federatesWith: three(DOMAINS, i % 8),
        hint: i % 4 === 0 ? 'here' : '',
        downstream: i % 6 === 0,
      });
    });
    const made = (await create(...all)).flatMap(({ entry, status }) => (status?.code === 0 && entry ? [entry] : []));
    expect(made.length).toBeGreaterThan(40);

    const mode = fc.constantFrom(...MODES);
    const half = { nil: undefined, freq: 2 };
    const filters = fc.record({
      parent: fc.option(fc.constantFrom('/p0', '/p1', '/p2'), half),
      spiffeId: fc.option(fc.constantFrom('/s0', '/s1', '/s9'), half),
      selectors: fc.option(fc.tuple(mode, someOf(TYPES, 1)), half),
      federates: fc.option(fc.tuple(mode, someOf(DOMAINS, 1)), half),
      hint: fc.option(fc.constantFrom('', 'here', 'there'), half),
      downstream: fc.option(fc.boolean(), half),
    });
    let hits = 0;
    await fc.assert(
      fc.asyncProperty(filters, async (by) => {
        const filter = Filter.fromPartial({
          ...(by.parent && { byParentId: path(by.parent) }),
          ...(by.spiffeId && { bySpiffeId: path(by.spiffeId) }),
          // a wanted thing said twice is wanted once
          ...(by.selectors && {
            bySelectors: { match: by.selectors[0][1], selectors: selectors([...by.selectors[1], ...by.selectors[1]]) },
          }),
          ...(by.federates && { byFederatesWith: { match: by.federates[0][1], trustDomains: by.federates[1] } }),
          byHint: by.hint,
          byDownstream: by.downstream,
        });
        const expected = made.filter(
          (entry) =>
            (!by.parent || entry.parentId?.path === by.parent) &&
            (!by.spiffeId || entry.spiffeId?.path === by.spiffeId) &&
            (!by.selectors ||
              by.selectors[0][2](
                entry.selectors.map(({ type, value }) => `${type}:${value}`),
                by.selectors[1].map((type) => `${type}:v`),
              )) &&
            (!by.federates || by.federates[0][2](entry.federatesWith, by.federates[1])) &&
            // SPIRE's command line sends an empty hint and `false` when its flags are not given
            (!by.hint || entry.hint === by.hint) &&
            (!by.downstream || entry.downstream),
        );
        hits += expected.length > 0 ? 1 : 0;
        const ids = expected.map(({ id }) => id).sort();
        expect(await list(filter)).toEqual(ids);
        expect(await api.countEntries({ filter })).toEqual({ count: ids.length });
        const page = await api.listEntries({ filter, outputMask: mask(), pageSize: 3, pageToken: '' });
        expect(page.entries.map(({ id }) => id)).toEqual(ids.slice(0, 3));
      }),
      { numRuns: 300 },
    );
    expect(hits).toBeGreaterThan(30);
  });

  test.each(MODES)('%s: what passes and what does not', async (_, match, passes) => {
    await known(...DOMAINS);
    const kinds = [['a'], ['a', 'b'], ['b', 'c'], ['a', 'b', 'c'], ['c']];
    await create(
      ...kinds.map((types, i) =>
        wire(`e${i}`, { selectors: selectors(types), federatesWith: types.map((type) => DOMAINS[TYPES.indexOf(type)] ?? '') }),
      ),
      wire('alone'),
    );
    const expected = kinds.flatMap((types, i) => (passes(types, ['a', 'b']) ? [`e${i}`] : []));
    expect(expected.length).toBeGreaterThan(0);
    expect(await list({ bySelectors: { match, selectors: selectors(['a', 'b']) } })).toEqual(expected);
    expect(await list({ byFederatesWith: { match, trustDomains: ['one.org', 'spiffe://two.org'] } })).toEqual(expected);
  });

  const malformed: [what: string, filter: Parameters<typeof Filter.fromPartial>[0], text: RegExp][] = [
    ['a parent of nowhere', { byParentId: { path: '/a' } }, /^malformed parent ID filter: .*trust domain is missing$/],
    ['a foreign parent', { byParentId: { trustDomain: 'x.org', path: '/a' } }, /^malformed parent ID filter: .* is not a member of/],
    ['a SPIFFE ID of nowhere', { bySpiffeId: { path: '/a' } }, /^malformed SPIFFE ID filter: .*trust domain is missing$/],
    ['a reserved SPIFFE ID', { bySpiffeId: path('/spire/server') }, /^malformed SPIFFE ID filter: .*reserved namespace$/],
    ['no selectors', { bySelectors: { match: 0, selectors: [] } }, /^malformed selectors filter: empty selector set$/],
    [
      'a selector without a type',
      { bySelectors: { match: 0, selectors: [{ value: 'v' }] } },
      /^malformed selectors filter: missing selector type$/,
    ],
    [
      'an unknown mode',
      { bySelectors: { match: 9 as 0, selectors: [{ type: 'a', value: 'v' }] } },
      /^malformed selectors filter: unknown match behavior 9$/,
    ],
    ['no trust domains', { byFederatesWith: { match: 0, trustDomains: [] } }, /^malformed federates with filter: empty trust domain set$/],
    [
      'a trust domain that is none',
      { byFederatesWith: { match: 0, trustDomains: ['A B'] } },
      /^malformed federates with filter: trust domain characters are limited to /,
    ],
  ];
  test.each(malformed)('refuses %s', async (_, partial, text) => {
    const filter = Filter.fromPartial(partial);
    const expected = { code: 3, text: expect.stringMatching(text) };
    expect(await refusal(api.listEntries({ filter, outputMask: undefined, pageSize: 0, pageToken: '' }))).toEqual(expected);
    expect(await refusal(api.countEntries({ filter }))).toEqual(expected);
  });

  test('of many leaves others their turn', async () => {
    await many(5000);
    const work = createEntryApi({ store, state: memory, trustDomain, clock, log: silent, agentOf: () => AGENT });
    let working = true;
    const counting = work.countEntries?.({ filter: Filter.fromPartial({ byHint: 'none' }) }, CALL);
    void counting?.then(() => {
      working = false;
    });
    let turns = 0;
    for (; working; turns++) await setImmediate();
    expect(turns).toBeGreaterThanOrEqual(10);
    expect(await counting).toEqual({ count: 0 });
  });

  test('answers what the mask asks for', async () => {
    await create(wire('web', { hint: 'h' }));
    const { entries } = await api.listEntries({ filter: undefined, outputMask: mask('hint'), pageSize: 0, pageToken: '' });
    expect(entries).toEqual([WireEntry.fromPartial({ id: 'web', hint: 'h' })]);
  });
});

describe('paging', () => {
  const page = (pageSize: number, pageToken: string) => api.listEntries({ filter: undefined, outputMask: mask(), pageSize, pageToken });

  test('carries a token on every page that is not empty', async () => {
    await many(5);
    const sizes: number[] = [];
    const seen: string[] = [];
    for (let token = ''; ; ) {
      const { entries, nextPageToken } = await page(2, token);
      sizes.push(entries.length);
      seen.push(...entries.map(({ id }) => id));
      token = nextPageToken;
      if (token === '') break;
    }
    expect(sizes).toEqual([2, 2, 1, 0]);
    expect(seen).toEqual(['many-00000', 'many-00001', 'many-00002', 'many-00003', 'many-00004']);
  });

  test('without a size gives everything, whatever the token, and no token', async () => {
    await many(3);
    for (const size of [0, -1]) {
      const { entries, nextPageToken } = await page(size, 'no token of ours');
      expect([entries.length, nextPageToken]).toEqual([3, '']);
    }
  });

  test('refuses a token that is none of ours', async () => {
    await many(3);
    const { nextPageToken } = await page(1, '');
    expect((await page(1, nextPageToken)).entries).toHaveLength(1);
    for (const token of ['Lw', '!', '='])
      expect(await refusal(page(1, token))).toEqual({ code: 3, text: `could not parse token '${token}'` });
  });

  test('gives what is there all the time exactly once, while others come and go', async () => {
    await many(40);
    const stays = await list();
    await create(...Array.from({ length: 20 }, (_, i) => wire(`many-000${i}x`)));
    const seen: string[] = [];
    for (let token = '', turn = 0; ; turn++) {
      const { entries, nextPageToken } = await page(7, token);
      seen.push(...entries.map(({ id }) => id));
      token = nextPageToken;
      if (token === '') break;
      // the one that the token stands on goes too
      await remove(...(entries.at(-1)?.id.endsWith('x') ? [entries.at(-1)?.id ?? ''] : []), `many-000${19 - turn}x`);
      await create(wire(`aaa-${turn}`), wire(`many-000${turn}y`), wire(`zzz-${turn}`));
    }
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen.filter((id) => stays.includes(id))).toEqual(stays);
  });
});

describe('what an agent may read', () => {
  const authorized = (agentId: string, outputMask?: EntryMask) =>
    api.getAuthorizedEntries({ outputMask }, { metadata: { agent: agentId } }).then(({ entries }) => entries);

  /** Sends each request when the answers before it are there. */
  async function* sync(
    agentId: string,
    ...requests: (Partial<SyncAuthorizedEntriesRequest> | (() => Promise<unknown>))[]
  ): AsyncGenerator<SyncAuthorizedEntriesResponse, void, void> {
    let answered = () => {};
    async function* sent() {
      for (const request of requests) {
        const done = new Promise<void>((resolve) => {
          answered = resolve;
        });
        if (typeof request === 'function') {
          await request();
          continue;
        }
        yield { ids: [], outputMask: undefined, ...request };
        await done;
      }
    }
    for await (const answer of api.syncAuthorizedEntries(sent(), { metadata: { agent: agentId } })) {
      yield answer;
      if (!answer.more) answered();
    }
  }
  const all = async (answers: AsyncIterable<SyncAuthorizedEntriesResponse>) => {
    const list: SyncAuthorizedEntriesResponse[] = [];
    for await (const answer of answers) list.push(answer);
    return list;
  };
  const ids = (entries: readonly { readonly id: string }[] | undefined) => entries?.map(({ id }) => id).sort();

  test('is his own entries and those below them, and nobody else has them', async () => {
    await attested('a', 'b');
    await create(wire('mine'), wire('below', { parentId: path('/mine') }), wire('theirs', { parentId: agentPath(OTHER) }));
    expect(ids(await authorized(AGENT))).toEqual(['below', 'mine']);
    expect(ids(await authorized(OTHER))).toEqual(['theirs']);
    expect((await authorized(AGENT)).find(({ id }) => id === 'mine')).toEqual(await get('mine'));
    expect((await authorized(OTHER, mask('spiffeId')))[0]).toEqual(WireEntry.fromPartial({ id: 'theirs', spiffeId: path('/theirs') }));
  });

  test('is nothing for an agent that is banned, or that is none', async () => {
    await attested('a');
    await create(wire('mine'));
    const denied = { code: 7, text: 'authorization denied for method /spire.api.server.entry.v1.Entry/GetAuthorizedEntries' };
    expect(ids(await authorized(AGENT))).toEqual(['mine']);
    await memory.settled((await store.nodes.update(AGENT, (one) => ({ ...one, banned: true, current: undefined }))).seq);
    expect(await refusal(authorized(AGENT))).toEqual(denied);
    expect(await refusal(authorized(OTHER))).toEqual(denied);
  });

  test('comes in one answer, and the end, up to 500 entries', async () => {
    await attested('a');
    await many(499);
    await create(wire('mine', { hint: 'h' }), wire('theirs', { parentId: agentPath(OTHER) }));
    const answers = await all(sync(AGENT, { outputMask: mask('hint', 'revisionNumber') }));
    expect(answers).toHaveLength(1);
    expect(answers[0]).toMatchObject({ entryRevisions: [], more: false });
    expect(answers[0]?.entries).toHaveLength(500);
    expect(answers[0]?.entries.find(({ id }) => id === 'mine')).toEqual(WireEntry.fromPartial({ id: 'mine', hint: 'h' }));
    expect(ids(answers[0]?.entries)).not.toContain('theirs');
  });

  test('comes as one empty answer when there is nothing', async () => {
    await attested('a');
    expect(await all(sync(AGENT, {}))).toEqual([{ entryRevisions: [], entries: [], more: false }]);
  });

  test('beyond 500 entries begins with revisions, in pages; bodies follow on request', async () => {
    await attested('a');
    await many(1201);
    await create(wire('theirs', { parentId: agentPath(OTHER) }));
    await update(mask(), wire('many-00007'));
    const everything = (await list({ byParentId: agentPath(AGENT) })).reverse();
    const [first, second, third, one, none, ...pages] = await all(
      sync(
        AGENT,
        { outputMask: mask('revisionNumber', 'spiffeId') },
        // this mask counts for nothing
        { ids: ['many-00007', 'nobody', 'theirs', '', 'many-00007'], outputMask: mask('hint') },
        { ids: ['theirs'] },
        { ids: everything },
      ),
    );
    expect([first, second, third].map((answer) => [answer?.entryRevisions.length, answer?.entries.length, answer?.more])).toEqual([
      [500, 0, true],
      [500, 0, true],
      [201, 0, false],
    ]);
    const revisions = [first, second, third].flatMap((answer) => answer?.entryRevisions ?? []);
    expect(ids(revisions)).toEqual([...everything].sort());
    const { revisionNumber, createdAt } = await get('many-00007');
    expect(revisionNumber).toBe(1);
    expect(revisions.find(({ id }) => id === 'many-00007')).toEqual({ id: 'many-00007', revisionNumber, createdAt });
    expect(one).toEqual({
      entryRevisions: [],
      entries: [WireEntry.fromPartial({ id: 'many-00007', revisionNumber: 1, spiffeId: path('/many-00007') })],
      more: false,
    });
    expect(none).toEqual({ entryRevisions: [], entries: [], more: false });
    expect(pages.map(({ entries, more }) => [entries.length, more])).toEqual([
      [500, true],
      [500, true],
      [201, false],
    ]);
    expect(ids(pages.flatMap(({ entries }) => entries))).toEqual([...everything].sort());
  });

  test('is what he may have now, though the stream began before', async () => {
    await attested('a');
    await many(501);
    const answers = await all(
      sync(AGENT, {}, { ids: ['many-00001', 'many-00002', 'late'] }, () => Promise.all([remove('many-00001'), create(wire('late'))]), {
        ids: ['many-00001', 'many-00002', 'late'],
      }),
    );
    expect(answers.slice(2).map(({ entries }) => ids(entries))).toEqual([
      ['many-00001', 'many-00002'],
      ['late', 'many-00002'],
    ]);
  });

  test('ends for one who is banned in the middle, and not for another', async () => {
    await attested('a');
    await many(501);
    const ban = async () => memory.settled((await store.nodes.update(AGENT, (one) => ({ ...one, banned: true, current: undefined }))).seq);
    const asked = { ids: ['many-00001'] };
    expect(await all(sync(AGENT, {}, asked, async () => {}, asked))).toHaveLength(4);
    expect(await refusal(all(sync(AGENT, {}, asked, ban, asked)))).toEqual({
      code: 7,
      text: 'authorization denied for method /spire.api.server.entry.v1.Entry/SyncAuthorizedEntries',
    });
  });

  test.each<[what: string, first: Partial<SyncAuthorizedEntriesRequest>, text: string]>([
    ['ids at once', { ids: ['mine'] }, 'specifying IDs on initial request is not supported'],
    ['a mask without the revision', { outputMask: mask('hint') }, 'revision number cannot be masked'],
  ])('refuses %s', async (_, first, text) => {
    await attested('a');
    expect(await refusal(all(sync(AGENT, first)))).toEqual({ code: 3, text });
    expect(await all(sync(AGENT, { outputMask: mask('hint', 'revisionNumber') }))).toHaveLength(1);
  });

  test('refuses one who says nothing', async () => {
    await attested('a');
    expect(await refusal(all(sync(AGENT)))).toMatchObject({ code: 3 });
  });

  test('serves an agent that goes away after the revisions, as those of SPIRE do, and the next one', async () => {
    await attested('a');
    await many(501);
    for (let turn = 0; turn < 3; turn++) {
      const revisions: string[] = [];
      for await (const answer of sync(AGENT, {}, {})) {
        revisions.push(...answer.entryRevisions.map(({ id }) => id));
        if (!answer.more) break;
      }
      expect(revisions).toHaveLength(501);
    }
  });
});
