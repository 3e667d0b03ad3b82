/** What every store must do, whatever keeps the rows. Run by each implementation's test. */
import { createHash } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import type { Entry } from '../../core/entry.ts';
import type { Node, Store, StoredBundle } from '../../server/store/store.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';

const NOW = 1_780_000_000_000;
const td = TrustDomain.parse('example.org');
const id = (path: string) => SpiffeId.of(td, path);
const sha = (text: string) => createHash('sha256').update(text).digest();

export function entry(name: string, over: Partial<Entry> = {}): Entry {
  return {
    id: name,
    spiffeId: id(`/${name}`),
    parentId: id('/agent'),
    selectors: [{ type: 'unix', value: `uid:${name}` }],
    x509SvidTtlMs: 0,
    jwtSvidTtlMs: 0,
    federatesWith: [],
    admin: false,
    downstream: false,
    expiresAtMs: 0,
    dnsNames: [],
    revision: 0,
    storeSvid: false,
    hint: '',
    createdAtMs: NOW,
    disableX509SvidPrefetch: false,
    jwtSvidIncludeJti: false,
    ...over,
  };
}

export function node(name: string, over: Partial<Node> = {}): Node {
  return {
    id: `spiffe://example.org/spire/agent/join_token/${name}`,
    attestationType: 'join_token',
    current: { serial: '1', notAfterMs: NOW + 1000, sha256: 'aa' },
    next: undefined,
    banned: false,
    canReattest: false,
    selectors: [],
    agentVersion: '',
    record: undefined,
    attestedAtMs: NOW,
    ...over,
  };
}

const bundle = (name: string): StoredBundle => ({
  trustDomain: name,
  x509Authorities: [{ der: Buffer.from('der'), tainted: false }],
  jwtAuthorities: [{ keyId: 'k', spkiDer: Buffer.from('spki'), notAfterMs: NOW, tainted: true }],
  refreshHintSeconds: 60,
  sequence: 1,
});

async function all<T>(pages: AsyncIterable<readonly T[]>): Promise<T[]> {
  const rows: T[] = [];
  for await (const page of pages) rows.push(...page);
  return rows;
}

/** @param open a new, empty store; closed by its owner. */
export function storeContract(open: () => Promise<Store>): void {
  let store: Store;
  beforeEach(async () => {
    store = await open();
  });

  describe('entries', () => {
    const rich = entry('rich', {
      selectors: [
        { type: 'k8s', value: 'ns:a:b' },
        { type: 'unix', value: 'uid:1' },
      ],
      x509SvidTtlMs: 60_000,
      jwtSvidTtlMs: 30_000,
      federatesWith: [TrustDomain.parse('other.org')],
      admin: true,
      downstream: true,
      expiresAtMs: NOW + 1,
      dnsNames: ['a.example', 'b.example'],
      hint: 'internal',
      disableX509SvidPrefetch: true,
      jwtSvidIncludeJti: true,
    });

    test('come back as they were given', async () => {
      const plain = entry('plain');
      expect(await store.entries.create([rich, plain])).toMatchObject([{ ok: true }, { ok: true }]);
      expect(await store.entries.get(['rich', 'plain', 'none'])).toEqual(expect.arrayContaining([rich, plain]));
      expect(await all(store.entries.all())).toHaveLength(2);
    });

    test('ID-21: a SPIFFE ID of 2048 bytes comes back whole', async () => {
      const longest = entry('longest', { spiffeId: id(`/${'a'.repeat(2027)}`) });
      expect(String(longest.spiffeId)).toHaveLength(2048);
      expect(await store.entries.create([longest])).toMatchObject([{ ok: true }]);
      expect(await store.entries.get(['longest'])).toEqual([longest]);
    });

    test('one that says the same is not made twice, and spoils no other of its batch', async () => {
      const [first, again, taken, other] = await store.entries.create([
        entry('a'),
        entry('a2', { spiffeId: id('/a'), selectors: entry('a').selectors }),
        entry('a', { spiffeId: id('/z') }),
        entry('b'),
      ]);
      expect([first?.ok, again?.ok, taken?.ok, other?.ok]).toEqual([true, false, false, true]);
      expect(again).toMatchObject({ code: 'ALREADY_EXISTS', entry: { id: 'a' } });
      expect(await all(store.entries.all())).toHaveLength(2);
    });

    test('an update raises the revision, even when it changes nothing', async () => {
      await store.entries.create([entry('a')]);
      const [done, missing] = await store.entries.update([
        { id: 'a', change: (stored) => stored },
        { id: 'none', change: (stored) => stored },
      ]);
      expect(done).toMatchObject({ ok: true, entry: { revision: 1 } });
      expect(missing).toMatchObject({ ok: false, code: 'NOT_FOUND' });
      expect(await store.entries.get(['a'])).toMatchObject([{ revision: 1 }]);
    });

    test('a deleted one is gone, and can be made again', async () => {
      await store.entries.create([entry('a')]);
      expect(await store.entries.delete(['a', 'a'])).toMatchObject([{ ok: true }, { ok: false, code: 'NOT_FOUND' }]);
      expect(await store.entries.get(['a'])).toEqual([]);
      expect(await store.entries.create([entry('a')])).toMatchObject([{ ok: true }]);
    });

    test('only what has expired is pruned', async () => {
      await store.entries.create([entry('old', { expiresAtMs: NOW }), entry('new', { expiresAtMs: NOW + 1 }), entry('ever')]);
      expect((await store.entries.prune(NOW)).map((one) => one.id)).toEqual(['old']);
      expect(await all(store.entries.all())).toHaveLength(2);
    });
  });

  describe('the change log', () => {
    test('numbers every change in the order of commits, each once, and says what it speaks of', async () => {
      const [a] = await store.entries.create([entry('a')]);
      const { seq } = await store.nodes.attest(node('n'), {});
      await store.bundles.update('example.org', () => bundle('example.org'));
      await store.entries.delete(['a']);
      const changes = await store.changes.since(0, 100);
      expect(changes.map(({ kind, id: of }) => [kind, of])).toEqual([
        ['entry', 'a'],
        ['node', node('n').id],
        ['bundle', 'example.org'],
        ['entry', 'a'],
      ]);
      expect(changes.map((one) => one.seq)).toEqual([1, 2, 3, 4]);
      expect([a?.ok && a.seq, seq]).toEqual([1, 2]);
      expect(await store.changes.bounds()).toEqual({ newest: 4, oldest: 1 });
      expect(await store.changes.since(2, 1)).toMatchObject([{ seq: 3 }]);
    });

    test('a refused write leaves no row behind', async () => {
      await expect(store.bundles.delete('none', 'restrict')).rejects.toMatchObject({ code: 'NOT_FOUND' });
      await store.entries.delete(['none']);
      expect(await store.changes.since(0, 100)).toEqual([]);
    });

    test('listeners hear of commits that changed something', async () => {
      let heard = 0;
      const stop = store.changes.onCommit(() => heard++);
      await store.entries.delete(['none']);
      expect(heard).toBe(0);
      await store.entries.create([entry('a')]);
      expect(heard).toBe(1);
      stop();
      await store.entries.create([entry('b')]);
      expect(heard).toBe(1);
    });

    test('concurrent writers lose nothing', async () => {
      await Promise.all(Array.from({ length: 50 }, (_, i) => store.entries.create([entry(`e${i}`)])));
      expect((await store.changes.since(0, 100)).map((one) => one.seq)).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
      expect(await all(store.entries.all())).toHaveLength(50);
    });
  });

  describe('join tokens', () => {
    const spend = (value: string, key: string, nowMs = NOW) => ({ token: { value, publicKeySha256: sha(key), nowMs } });
    const gone = { code: 'REQUEST_INVALID', message: 'failed to attest: join token does not exist or has already been used' };

    test('are void all at once, but for those that were spent', async () => {
      for (const value of ['spent', 'one', 'two']) await store.tokens.create({ value, expiresAtMs: NOW + 10 });
      await store.nodes.attest(node('spent'), spend('spent', 'key'));
      expect(await store.tokens.voidUnspent()).toBe(2);
      await expect(store.nodes.attest(node('one'), spend('one', 'key'))).rejects.toMatchObject(gone);
      await expect(store.nodes.attest(node('spent'), spend('spent', 'key'))).resolves.toBeDefined();
    });

    test('belong to the first key that spends them: twice at the same instant gives one agent', async () => {
      await store.tokens.create({ value: 't', expiresAtMs: NOW + 10 });
      const tries = await Promise.allSettled([
        store.nodes.attest(node('t'), spend('t', 'one')),
        store.nodes.attest(node('t'), spend('t', 'two')),
      ]);
      expect(tries.map((one) => one.status)).toEqual(['fulfilled', 'rejected']);
      expect(tries[1]).toMatchObject({ reason: gone });
      await expect(store.nodes.attest(node('t'), spend('t', 'one'))).resolves.toBeDefined();
      expect(await all(store.nodes.all())).toHaveLength(1);
    });

    test('expire, also for the key that spent them', async () => {
      await store.tokens.create({ value: 't', expiresAtMs: NOW + 10 });
      await store.nodes.attest(node('t'), spend('t', 'one', NOW + 9));
      await expect(store.nodes.attest(node('t'), spend('t', 'one', NOW + 10))).rejects.toMatchObject({ message: 'join token expired' });
      expect(await store.tokens.prune(NOW + 10)).toBe(1);
      await expect(store.nodes.attest(node('t'), spend('t', 'one'))).rejects.toMatchObject(gone);
    });

    test('are made once, with their alias', async () => {
      await store.tokens.create({ value: 't', expiresAtMs: NOW }, entry('alias'));
      await expect(store.tokens.create({ value: 't', expiresAtMs: NOW }, entry('alias2'))).rejects.toMatchObject({
        code: 'ALREADY_EXISTS',
      });
      expect(await all(store.entries.all())).toMatchObject([{ id: 'alias' }]);
    });
  });

  describe('nodes', () => {
    test('come back as they were given', async () => {
      const rich = node('n', {
        record: Buffer.from('record'),
        selectors: [{ type: 'a', value: 'b' }],
        next: { serial: '2', notAfterMs: NOW, sha256: 'bb' },
        canReattest: true,
      });
      await store.nodes.attest(rich, {});
      expect(await store.nodes.get(rich.id)).toEqual(rich);
      expect(await store.nodes.get('none')).toBeUndefined();
    });

    test('a banned one stays out; another type cannot take the row over; what is spent is spent', async () => {
      await store.nodes.attest(node('n'), { ids: ['proof'] });
      await expect(store.nodes.attest(node('m'), { ids: ['proof'] })).rejects.toMatchObject({ code: 'DENIED' });
      await expect(store.nodes.attest(node('n', { attestationType: 'x509pop' }), {})).rejects.toMatchObject({ code: 'DENIED' });
      await store.nodes.update(node('n').id, (stored) => ({ ...stored, banned: true, current: undefined }));
      await expect(store.nodes.attest(node('n'), {})).rejects.toMatchObject({
        code: 'DENIED',
        message: 'failed to attest: agent is banned',
      });
      expect(await store.nodes.get(node('m').id)).toBeUndefined();
    });

    test('a deleted one takes its automatic alias along, and no other child', async () => {
      const { id: parent } = node('n');
      await store.nodes.attest(node('n'), {});
      await store.entries.create([
        entry('alias', { parentId: SpiffeId.parse(parent), selectors: [{ type: 'spiffe_id', value: parent }] }),
        entry('child', { parentId: SpiffeId.parse(parent) }),
      ]);
      await store.nodes.delete(parent);
      expect((await all(store.entries.all())).map((one) => one.id)).toEqual(['child']);
      await expect(store.nodes.delete(parent)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    });
  });

  describe('bundles', () => {
    test('TDB-9 TDB-10: the sequence grows with each change of content and only then', async () => {
      const first = await store.bundles.update('example.org', () => bundle('example.org'));
      const same = await store.bundles.update('example.org', () => undefined);
      const next = await store.bundles.update('example.org', (stored) => stored && { ...stored, refreshHintSeconds: 1 });
      expect([first.changed, same.changed, next.changed]).toEqual([true, false, true]);
      expect(next.bundle?.sequence).toBe((first.bundle?.sequence ?? 0) + 1);
      expect(await store.bundles.get('example.org')).toEqual(next.bundle);
      expect(await store.bundles.all()).toHaveLength(1);
    });

    for (const [mode, left] of [
      ['delete', []],
      ['dissociate', [{ id: 'f', federatesWith: [] }]],
    ] as const) {
      test(`deleting one with "${mode}" leaves ${left.length} of its entries`, async () => {
        await store.bundles.update('other.org', () => bundle('other.org'));
        await store.entries.create([entry('f', { federatesWith: [TrustDomain.parse('other.org')] })]);
        await expect(store.bundles.delete('other.org', 'restrict')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
        await store.bundles.delete('other.org', mode);
        expect(await all(store.entries.all())).toMatchObject(left);
        expect(await store.bundles.get('other.org')).toBeUndefined();
      });
    }
  });

  test('the journal keeps one record per authority', async () => {
    const record = {
      kind: 'x509',
      slot: 'A',
      authorityId: 'x',
      status: 'prepared',
      issuedAtMs: NOW,
      notAfterMs: NOW + 1,
      chainDer: [Buffer.from('c')],
      rootsSha256: ['r'],
      spkiDer: Buffer.from('s'),
    } as const;
    await store.journals.save(record);
    await store.journals.save({ ...record, status: 'active' });
    expect(await store.journals.load()).toEqual([{ ...record, status: 'active' }]);
    await store.journals.prune(NOW + 1);
    expect(await store.journals.load()).toEqual([]);
  });
}
