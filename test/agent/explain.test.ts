/** Why a process has an identity or none: the nearest entries, what each lacks, and who may ask. */
import { afterEach, describe, expect, test } from 'vitest';
import { EntryCache } from '../../agent/cache.ts';
import type { CallContext, Peer } from '../../core/rpc-types.ts';
import { selectorKey } from '../../core/selector.ts';
import { createRig, registration, type Rig } from './rig.ts';

let rig: Rig | undefined;
afterEach(async () => {
  await rig?.close();
  rig = undefined;
});

describe('the nearest entries', () => {
  const cache = new EntryCache();
  cache.apply(
    [
      registration('matches', '/matches', { selectors: ['test:a'] }),
      registration('one-of-three', '/c', { selectors: ['test:a', 'test:x', 'test:y'] }),
      registration('two-of-three', '/b', { selectors: ['test:a', 'test:b', 'test:x'] }),
      registration('none-of-one', '/d', { selectors: ['test:z'] }),
      registration('store', '/s', { selectors: ['test:a', 'test:x'], storeSvid: true }),
    ],
    [],
  );
  const nearest = (count: number) =>
    cache
      .nearest(new Set(['test:a', 'test:b']), count)
      .map(({ registration: { id }, missing }) => `${id} lacks ${missing.map(selectorKey)}`);

  test('are those that lack least, of these those that have most; what matches is not among them', () => {
    expect(nearest(10)).toEqual(['two-of-three lacks test:x', 'none-of-one lacks test:z', 'one-of-three lacks test:x,test:y']);
    expect(nearest(1)).toEqual(['two-of-three lacks test:x']);
  });

  test('are found among many', () => {
    const many = new EntryCache();
    many.apply(
      Array.from({ length: 5_000 }, (_, n) =>
        registration(`e${n}`, `/${n}`, { selectors: [`test:${n}`, ...(n === 3_141 ? ['test:a'] : ['test:q', 'test:r'])] }),
      ),
      [],
    );
    expect(many.nearest(new Set(['test:a']), 2)[0]?.registration.id).toBe('e3141');
  });
});

describe('explain', () => {
  const by = (uid: number): Peer => ({ kind: 'process', pid: 1, uid, gid: 0, pidfd: -1, connection: {} });
  const context = (peer: Peer): CallContext => ({ method: '', peer, metadata: new Map(), signal: AbortSignal.timeout(10_000) });
  const us = process.geteuid?.() ?? 0;
  const ask = (pid: number, peer: Peer = by(us)) => rig?.workloads.explain.process?.({ pid }, context(peer));

  test('says what was found, what the process gets, and what others lack', async () => {
    rig = await createRig();
    rig.workloads.replica.apply([registration('1', '/web'), registration('2', '/db', { selectors: ['test:a', 'test:b'] })], []);
    rig.workloads.replica.synced();
    rig.selectors = ['a'];
    const answer = await ask(process.pid);
    expect(answer).toMatchObject({
      uid: us,
      selectors: [{ type: 'test', value: 'a' }],
      failures: [],
      identities: [{ entryId: '1', spiffeId: 'spiffe://example.org/web' }],
      nearest: [{ entryId: '2', spiffeId: 'spiffe://example.org/db', missing: [{ type: 'test', value: 'b' }] }],
      entryCount: 2,
    });
  });

  test('says which attestor could not tell', async () => {
    rig = await createRig();
    rig.workloads.replica.apply([registration('1', '/web')], []);
    rig.selectors = undefined;
    expect(await ask(process.pid)).toMatchObject({
      selectors: [],
      failures: [{ attestor: 'test', reason: 'nobody knows' }],
      identities: [],
      nearest: [{ entryId: '1' }],
      lastSync: 0,
    });
  });

  test('answers root and the agent’s own user, and nobody else', async () => {
    rig = await createRig();
    await expect(ask(process.pid, by(us + 4242))).rejects.toMatchObject({ code: 'DENIED' });
    await expect(ask(process.pid, by(0))).resolves.toMatchObject({ uid: us });
  });

  test('of a process that is not there, UNAVAILABLE', async () => {
    rig = await createRig();
    await expect(ask(2 ** 22 + 1)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(ask(0)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  });
});
