/** X.509-SVIDs over time: signed in batches, renewed in the middle of their lives, kept to their end while the server is away. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { EntryCache, type Registration } from '../../agent/cache.ts';
import { renewAtMs } from '../../agent/renewal.ts';
import { type Signed, Svids, type SvidsOptions } from '../../agent/svids.ts';
import { fail } from '../../core/errors.ts';
import { silent } from '../../core/log.ts';
import { FakeClock } from '../fakes/clock.ts';
import { type Realm, realm, registration } from './rig.ts';

const MINUTE = 60_000;
let clock: FakeClock;
let home: Realm;
let cache: EntryCache;
let svids: Svids;
let stop: AbortController;
let running: Promise<void>;
/** Entry ids of each call to the server. */
let calls: string[][];
let online: boolean;
let refused: Set<string>;
const read = new Set<string>();
/** Lifetime that the server gives. */
let ttlMs: number;
/** How far the server's clock is ahead of ours. */
let aheadMs: number;

function make(options: Partial<SvidsOptions> = {}): void {
  svids = new Svids({
    cache,
    async sign(requests) {
      calls.push(requests.map(({ entryId }) => entryId));
      if (!online) throw fail('UNAVAILABLE', 'the server is away');
      return await Promise.all(
        requests.map(async ({ entryId, csr }): Promise<Signed> => {
          const { spiffeId } = cache.get(entryId) as Registration;
          if (refused.has(entryId)) return { error: fail('UNAVAILABLE', 'no') };
          // the authority stands at the fake clock's start: certificates are dated by what the test says
          return {
            chain: await home.chain(spiffeId, csr, {
              notBeforeMs: clock.now() + aheadMs - 10_000,
              notAfterMs: clock.now() + aheadMs + ttlMs,
            }),
          };
        }),
      );
    },
    clock,
    log: silent,
    keyType: 'ec-p256',
    maxSize: 1000,
    isRead: (id) => read.has(id),
    onChange: () => {},
    ...options,
  });
  stop = new AbortController();
  running = svids.run(stop.signal).catch(() => {});
}
beforeEach(async () => {
  clock = new FakeClock();
  home = await realm('example.org', clock.now());
  cache = new EntryCache();
  [calls, online, refused, ttlMs, aheadMs] = [[], true, new Set(), 60 * MINUTE, 0];
  read.clear();
  make();
});
afterEach(async () => {
  stop.abort();
  await running;
});
const apply = (...entries: Registration[]) => svids.applied(cache.apply(entries, []));
/** Signatures are made off the event loop's turns: lets them come. */
async function settled(count: number): Promise<void> {
  for (let turn = 0; turn < 500 && calls.length < count; turn++) await clock.advance(0);
  for (let turn = 0; turn < 50; turn++) await clock.advance(0);
}

test('what comes together is signed in one call', async () => {
  apply(...['1', '2', '3'].map((id) => registration(id, `/${id}`)));
  await settled(1);
  expect(calls).toEqual([['1', '2', '3']]);
  expect(svids.size).toBe(3);
});

test('an SVID is renewed between 45 % and 55 % of its life, once', async () => {
  const entry = registration('1', '/1');
  apply(entry);
  await settled(1);
  const first = svids.get(entry);
  await clock.advance(26 * MINUTE);
  expect(calls).toHaveLength(1);
  await clock.advance(8 * MINUTE);
  await settled(2);
  expect(calls).toHaveLength(2);
  expect(svids.get(entry)?.notAfterMs).toBeGreaterThan(first?.notAfterMs ?? 0);
  expect(svids.get(entry)?.keyPkcs8Der.equals(first?.keyPkcs8Der ?? Buffer.alloc(0))).toBe(false);
});

test('an SVID of eight seconds is not due when it comes: the server is not asked without end', async () => {
  ttlMs = 8_000;
  apply(registration('1', '/1'));
  await settled(1);
  await clock.advance(3_000);
  await settled(1);
  expect(calls).toHaveLength(1);
  await clock.advance(2_000);
  await settled(2);
  expect(calls).toHaveLength(2);
});

test('clocks that differ by most of a lifetime cost a few calls more, not thousands; by more, the server is asked with growing waits', async () => {
  aheadMs = -50 * MINUTE;
  apply(registration('1', '/1'));
  await settled(1);
  await clock.advance(MINUTE);
  await settled(1);
  expect(calls).toHaveLength(1);
  aheadMs = -120 * MINUTE;
  await clock.advance(10 * MINUTE);
  await settled(2);
  expect(calls.length).toBeLessThan(40);
});

test('while the server is away an SVID is served to its end, and no further', async () => {
  const entry = registration('1', '/1');
  apply(entry);
  await settled(1);
  online = false;
  await clock.advance(59 * MINUTE);
  expect(svids.get(entry)).toBeDefined();
  await clock.advance(2 * MINUTE);
  expect(svids.get(entry)).toBeUndefined();
  online = true;
  svids.retry();
  await settled(calls.length + 1);
  expect(svids.get(entry)).toBeDefined();
});

test('an entry that the server would not sign holds up no other, and is asked for again', async () => {
  const [bad, good] = [registration('1', '/1'), registration('2', '/2')];
  refused.add('1');
  apply(bad, good);
  await settled(1);
  expect([svids.get(bad), svids.get(good) !== undefined, svids.isRefused('1')]).toEqual([undefined, true, true]);
  refused.clear();
  svids.retry();
  await settled(2);
  expect([svids.get(bad) !== undefined, svids.isRefused('1')]).toEqual([true, false]);
});

test('a deleted entry takes its SVID with it; one of another SPIFFE ID is never served under the new entry', async () => {
  const entry = registration('1', '/1');
  apply(entry, registration('2', '/2'));
  await settled(1);
  const other = registration('1', '/other');
  apply(other);
  expect(svids.get(other)).toBeUndefined();
  await settled(2);
  expect(svids.get(other)?.spiffeId).toBe('spiffe://example.org/other');
  svids.applied(cache.apply([], ['1', '2']));
  expect(svids.size).toBe(0);
});

test('without prefetch only what is read is signed; the limit is kept but for what is read', async () => {
  stop.abort();
  await running;
  make({ prefetch: false });
  const entries = ['1', '2', '3'].map((id) => registration(id, `/${id}`));
  apply(...entries);
  await settled(0);
  expect(calls).toEqual([]);
  svids.want(entries.slice(1, 2));
  await settled(1);
  expect(calls).toEqual([['2']]);
  stop.abort();
  await running;
  make({ maxSize: 1 });
  read.add('2').add('3');
  svids.want(entries);
  await settled(2);
  expect([svids.get(entries[0] as Registration), svids.size]).toEqual([undefined, 2]);
});

test('the point of renewal keeps an availability target, where 12 hours are left beside it', () => {
  const life = { notBeforeMs: -10_000, notAfterMs: 48 * 60 * MINUTE };
  expect(renewAtMs(life, { random: 0, targetMs: 24 * 60 * MINUTE })).toBe(24 * 60 * MINUTE);
  expect(renewAtMs(life, { random: 1, targetMs: 24 * 60 * MINUTE })).toBe(24 * 60 * MINUTE - 10 * MINUTE);
  expect(renewAtMs(life, { random: 0.5, targetMs: 40 * 60 * MINUTE })).toBe(24 * 60 * MINUTE);
});

test.each([
  ['SVIDs of 30 s', 30_000, 1_000],
  ['SVIDs of an hour', 60 * MINUTE, 70_000],
])('a server that was away is asked while what it signed before still holds: %s', async (_, ttl, withinMs) => {
  ttlMs = ttl;
  const entry = registration('1', '/1');
  apply(entry);
  await settled(1);
  const first = svids.get(entry);
  online = false;
  // due at the latest, then away for most of what is left
  await clock.advance(0.56 * ttl);
  await clock.advance(0.3 * ttl);
  expect(calls.length).toBeGreaterThan(3);
  online = true;
  const before = calls.length;
  await clock.advance(withinMs);
  await settled(before + 1);
  expect(svids.get(entry)).not.toBe(first);
  expect(svids.get(entry)?.notAfterMs).toBeGreaterThan(clock.now());
});

test('(its negative twin: it is not asked without end)', async () => {
  ttlMs = 30_000;
  apply(registration('1', '/1'));
  await settled(1);
  online = false;
  await clock.advance(29_000);
  expect(calls.length).toBeLessThan(30);
});
