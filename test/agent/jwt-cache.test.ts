/** JWT-SVIDs that the agent keeps: when the server is asked, and when it is not. */
import { beforeEach, describe, expect, test } from 'vitest';
import { JwtCache } from '../../agent/jwt-cache.ts';
import { fail } from '../../core/errors.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import { FakeClock } from '../fakes/clock.ts';
import { CountingLog } from '../fakes/log.ts';
import { type Entry, type Realm, realm, registration, trustDomain } from './rig.ts';

const never = new AbortController().signal;
const LIFE_MS = 300_000;

let clock: FakeClock;
let home: Realm;
let log: CountingLog;
let cache: JwtCache;
/** What the server was asked for. */
let asked: { readonly entryId: string; readonly audience: readonly string[] }[];
/** Whether the server can. */
let online: boolean;
/** What it waits for before it answers. */
let held: Promise<unknown>;
let stop: AbortController;

const web = (over: Entry = {}) => ({ ...registration('1', '/web', over), revision: over.revision ?? 1 });

beforeEach(async () => {
  clock = new FakeClock();
  home = await realm(trustDomain.name, clock.now());
  log = new CountingLog();
  asked = [];
  online = true;
  held = Promise.resolve();
  stop = new AbortController();
  cache = make();
});

function make({ maxSize = 100, subject = SpiffeId.of(trustDomain, '/web') } = {}): JwtCache {
  return new JwtCache({
    sign: async (entryId, audience) => {
      asked.push({ entryId, audience });
      await held;
      if (!online) throw fail('UNAVAILABLE', 'the server is away');
      const issuedAtMs = clock.now();
      const token = await home.jwt(subject, audience, { exp: (issuedAtMs + LIFE_MS) / 1000, nonce: asked.length });
      return { token, issuedAtMs, expiresAtMs: issuedAtMs + LIFE_MS };
    },
    clock,
    log,
    maxSize,
    hitTimeoutMs: 5_000,
    signal: stop.signal,
  });
}
/** Nobody hears from the server until what this gives is called. */
function hold(): () => void {
  let release = () => {};
  held = new Promise<void>((done) => {
    release = done;
  });
  return () => release();
}
const fetch = (audience: readonly string[] = ['db'], entry = web()) => cache.fetch(entry, audience, never);

describe('a token is kept', () => {
  test('for one entry and one set of audiences, whatever their order', async () => {
    const token = await fetch(['a', 'b']);
    expect(await fetch(['b', 'a'])).toBe(token);
    expect(asked).toEqual([{ entryId: '1', audience: ['a', 'b'] }]);
    expect(await fetch(['a'])).not.toBe(token);
    expect(await fetch(['a,b'])).not.toBe(token);
    expect(asked).toHaveLength(3);
    expect(cache.size).toBe(3);
  });

  test('for one revision of the entry, one entry and one SPIFFE ID', async () => {
    const token = await fetch();
    expect(await fetch(['db'], web({ revision: 2 }))).not.toBe(token);
    expect(await fetch(['db'], { ...web(), id: '2' })).not.toBe(token);
    await expect(fetch(['db'], { ...web(), spiffeId: SpiffeId.of(trustDomain, '/other') })).rejects.toMatchObject({ code: 'SVID_INVALID' });
  });

  test('until the entry is gone, or everything is', async () => {
    const token = await fetch();
    const other = await fetch(['db'], { ...web(), id: '2' });
    cache.forget('1');
    expect(cache.size).toBe(1);
    expect(await fetch(['db'], { ...web(), id: '2' })).toBe(other);
    expect(await fetch()).not.toBe(token);
    cache.clear();
    expect(cache.size).toBe(0);
  });

  test('only as long as there is room: the one that was used longest ago goes first', async () => {
    cache = make({ maxSize: 2 });
    const [a] = [await fetch(['a']), await fetch(['b'])];
    await fetch(['a']);
    await fetch(['c']);
    expect(cache.size).toBe(2);
    expect(await fetch(['a'])).toBe(a);
    expect(asked).toHaveLength(3);
    await fetch(['b']);
    expect(asked).toHaveLength(4);
  });

  test('never when the entry wants a jti: each is one of its own', async () => {
    const entry = web({ jwtSvidIncludeJti: true });
    expect(await fetch(['db'], entry)).not.toBe(await fetch(['db'], entry));
    expect(cache.size).toBe(0);
  });
});

describe('a token is renewed', () => {
  test('between 45 and 55 of a hundred parts of its life', async () => {
    const token = await fetch();
    await clock.advance(LIFE_MS * 0.44);
    expect(await fetch()).toBe(token);
    await clock.advance(LIFE_MS * 0.12);
    expect(await fetch()).not.toBe(token);
    expect(asked).toHaveLength(2);
  });

  test('by one question, however many ask', async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, () => fetch()));
    expect(new Set(answers).size).toBe(1);
    expect(asked).toHaveLength(1);
  });

  test('also for the others when the one who asked first goes away', async () => {
    const resolve = hold();
    const first = new AbortController();
    const left = cache.fetch(web(), ['db'], first.signal);
    const stays = fetch();
    first.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    resolve();
    expect(await stays).toBe(await fetch());
    expect(asked).toHaveLength(1);
  });
});

describe('while the server is away', () => {
  test('a token is served to its end and not beyond; then it is said what is wrong', async () => {
    const token = await fetch();
    online = false;
    await clock.advance(LIFE_MS * 0.6);
    expect(await fetch()).toBe(token);
    expect(log.warnings).toBe(1);
    await clock.advance(LIFE_MS * 0.4 - 1);
    expect(await fetch()).toBe(token);
    await clock.advance(1);
    await expect(fetch()).rejects.toMatchObject({ code: 'UNAVAILABLE', message: 'the server is away' });
    expect(cache.size).toBe(0);
    online = true;
    expect(await fetch()).not.toBe(token);
  });

  test('it is not asked at each fetch, and asked again after a while', async () => {
    await fetch();
    online = false;
    await clock.advance(LIFE_MS * 0.6);
    for (let count = 0; count < 10; count++) await fetch();
    expect(asked).toHaveLength(2);
    online = true;
    await clock.advance(1_200);
    await fetch();
    expect(asked).toHaveLength(3);
  });

  test('a failure is not kept', async () => {
    online = false;
    await expect(fetch()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    online = true;
    await fetch();
    expect(asked).toHaveLength(2);
  });

  test('a caller whose token is still good waits no longer than he must, and the answer that comes late is kept', async () => {
    const token = await fetch();
    await clock.advance(LIFE_MS * 0.6);
    const resolve = hold();
    const waiting = fetch();
    await clock.advance(4_999);
    let answered = false;
    void waiting.then(() => (answered = true));
    await clock.advance(0);
    expect(answered).toBe(false);
    await clock.advance(1);
    expect(await waiting).toBe(token);
    resolve();
    await expect.poll(() => fetch()).not.toBe(token);
    expect(asked).toHaveLength(2);
  });

  test('a token that ends while the server is asked is not served', async () => {
    const token = await fetch();
    await clock.advance(LIFE_MS - 2_000);
    hold();
    const waiting = fetch();
    waiting.catch(() => {});
    await clock.advance(5_000);
    await expect(waiting).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    expect(token).not.toBe('');
  });
});

test('a token that the server signed for somebody else is not served', async () => {
  cache = make({ subject: SpiffeId.of(trustDomain, '/db') });
  await expect(fetch()).rejects.toMatchObject({ code: 'SVID_INVALID' });
  expect(cache.size).toBe(0);
});
