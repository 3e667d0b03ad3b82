/** JwtSource: tokens kept until half their life is over, one request for all who want the same, and what is done when the agent can't or won't. */
import { describe, expect, test } from 'vitest';
import { validateJwtSvidSync } from '../../../spiffe/jwt/jwt-svid.ts';
import { JwtSource } from '../../../spiffe/source/jwt-source.ts';
import type { WorkloadState } from '../../../spiffe/testing/workload-api.ts';
import { change, closing, failure, refusal, RETRY_MS, until, workload } from './rig.ts';

const TTL_MS = 300_000;
const NEWS = 'Workload API: no newer JWT-SVID, the one at hand serves on';

async function tokens(state: WorkloadState = {}) {
  const rig = await workload(state);
  const source = closing(new JwtSource(rig.options));
  await source.ready();
  const asked = () => rig.api.calls.filter((call) => call.method === 'FetchJWTSVID');
  return { ...rig, source, asked };
}

describe('a token', () => {
  test('is kept until half its life is over, then fetched anew', async () => {
    const { clock, source, asked } = await tokens();
    const first = await source.fetch({ audience: 'db' });
    expect([String(first.id), first.audience]).toEqual(['spiffe://example.org/web', ['db']]);
    clock.jump(TTL_MS / 2 - 1);
    expect(await source.fetch({ audience: 'db' })).toBe(first);
    expect(asked()).toHaveLength(1);
    clock.jump(1);
    const second = await source.fetch({ audience: 'db' });
    expect(second.expiresMs).toBeGreaterThan(first.expiresMs);
    expect(asked()).toHaveLength(2);
  });

  test('is asked for once by all who want it for the same subject and audiences, in any order', async () => {
    const { domain, api, source, asked } = await tokens({ identities: ['/web', '/admin'] });
    api.stall();
    const [web, admin] = ['/web', '/admin'].map((path) => domain.id(path));
    const same = [
      { audience: ['db', 'cache'] },
      { audience: ['cache', 'db', 'cache'] },
      { audience: ['cache', 'db'], hint: undefined },
    ].map((params) => source.fetch(params));
    const others = [{ audience: 'db' }, { audience: ['db', 'cache'], subject: web }, { audience: ['db', 'cache'], subject: admin }].map(
      (params) => source.fetch(params),
    );
    await api.called('FetchJWTSVID', 4);
    api.resume();
    const svids = await Promise.all(same);
    expect(new Set(svids).size).toBe(1);
    expect((await Promise.all(others)).map((svid) => [svid.id.path, svid.audience])).toEqual([
      ['/web', ['db']],
      ['/web', ['cache', 'db']],
      ['/admin', ['cache', 'db']],
    ]);
    expect(asked()).toHaveLength(4);
  });

  test('is chosen by its hint out of one answer, and never another one in its place (WAPI-80)', async () => {
    const { source, asked } = await tokens({ identities: ['/web', { path: '/admin', hint: 'internal' }] });
    expect((await source.fetch({ audience: 'db', hint: 'internal' })).id.path).toBe('/admin');
    expect((await source.fetch({ audience: 'db' })).id.path).toBe('/web');
    expect(await failure(source.fetch({ audience: 'db', hint: 'external' }))).toMatchObject({ code: 'NOT_FOUND' });
    expect(asked()).toHaveLength(1);
  });

  test('of several with different lives is kept by the shortest', async () => {
    const { clock, source, asked } = await tokens({ identities: ['/web', { path: '/admin', jwtTtlMs: 60_000 }] });
    await source.fetch({ audience: 'db' });
    clock.jump(30_000);
    await source.fetch({ audience: 'db' });
    expect(asked()).toHaveLength(2);
  });

  test('without an audience is not asked for', async () => {
    const { source, asked } = await tokens();
    for (const audience of ['', [], ['db', '']])
      expect(await failure(source.fetch({ audience }))).toMatchObject({ code: 'REQUEST_INVALID', reason: 'JWT_EXPECTED_AUDIENCE' });
    expect(asked()).toHaveLength(0);
  });

  test('that was kept first goes first when a thousand are kept', async () => {
    const { source, asked } = await tokens();
    for (let i = 0; i <= 1000; i++) await source.fetch({ audience: `a${i}` });
    expect(asked()).toHaveLength(1001);
    await source.fetch({ audience: 'a1' });
    expect(asked()).toHaveLength(1001);
    await source.fetch({ audience: 'a0' });
    expect(asked()).toHaveLength(1002);
  }, 20_000);
});

describe('a caller', () => {
  test('who leaves harms no other who waits for the same', async () => {
    const { api, source, asked } = await tokens();
    api.stall();
    const stop = new AbortController();
    const left = failure(source.fetch({ audience: 'db', signal: stop.signal }));
    const stays = source.fetch({ audience: 'db', signal: new AbortController().signal });
    await api.called('FetchJWTSVID');
    const reason = new Error('enough');
    stop.abort(reason);
    expect(await left).toBe(reason);
    api.resume();
    expect((await stays).id.path).toBe('/web');
    expect(asked()).toHaveLength(1);
  });

  test('who is the last to leave calls the request off; the next one asks anew', async () => {
    const { api, source, asked } = await tokens();
    api.stall();
    const stops = [new AbortController(), new AbortController()];
    const left = stops.map(({ signal }) => failure(source.fetch({ audience: 'db', signal })));
    await api.called('FetchJWTSVID');
    const [call] = asked();
    stops[0]?.abort();
    await left[0];
    expect(call?.signal.aborted).toBe(false);
    stops[1]?.abort();
    await left[1];
    const next = source.fetch({ audience: 'db' });
    await until(() => call?.signal.aborted === true);
    api.resume();
    expect((await next).id.path).toBe('/web');
    expect(asked()).toHaveLength(2);
  });

  test('who comes with an aborted signal gets nothing, not even what is kept', async () => {
    const { source } = await tokens();
    await source.fetch({ audience: 'db' });
    const reason = new Error('enough');
    expect(await failure(source.fetch({ audience: 'db', signal: AbortSignal.abort(reason) }))).toBe(reason);
  });
});

describe('when the agent', () => {
  test('is away, a token that has not expired serves on, and the agent is asked at half of what is left', async () => {
    const { clock, api, source, told } = await tokens();
    const first = await source.fetch({ audience: 'db' });
    await api.stop();
    await until(() => clock.waiting === 1);
    told.length = 0;
    const trials = () => told.filter(({ message }) => message === NEWS).length;
    clock.jump(TTL_MS / 2);
    expect(await source.fetch({ audience: 'db' })).toBe(first);
    expect(told).toMatchObject([{ message: NEWS, error: { code: 'UNAVAILABLE' } }]);
    clock.jump(TTL_MS / 4 - 1);
    await source.fetch({ audience: 'db' });
    expect(trials()).toBe(1);
    clock.jump(1);
    await source.fetch({ audience: 'db' });
    expect(trials()).toBe(2);
    clock.jump(TTL_MS / 4);
    expect(await failure(source.fetch({ audience: 'db' }))).toMatchObject({ code: 'UNAVAILABLE' });
    expect(await failure(source.fetch({ audience: 'other' }))).toMatchObject({ code: 'UNAVAILABLE' });
  });

  test('answers with what is malformed, the same', async () => {
    const { clock, api, source } = await tokens();
    const first = await source.fetch({ audience: 'db' });
    clock.jump(TTL_MS / 2);
    api.garble();
    expect(await source.fetch({ audience: 'db' })).toBe(first);
    expect(await failure(source.fetch({ audience: 'other' }))).toMatchObject({ code: 'SVID_INVALID' });
  });

  test('says nothing, a token that has not expired serves on after two seconds', async () => {
    const { clock, api, source, asked } = await tokens();
    const first = await source.fetch({ audience: 'db' });
    clock.jump(TTL_MS / 2);
    api.stall();
    const fetched = source.fetch({ audience: 'db' });
    await api.called('FetchJWTSVID', 2);
    await clock.advance(1999);
    let came = false;
    void fetched.then(() => (came = true));
    await clock.advance(0);
    expect(came).toBe(false);
    await clock.advance(1);
    expect(await fetched).toBe(first);
    await until(() => asked()[1]?.signal.aborted === true);
    expect(clock.waiting).toBe(0);
  });

  test('refuses with DENIED, the token is thrown away although it is good', async () => {
    const { clock, api, source } = await tokens();
    await source.fetch({ audience: 'db' });
    clock.jump(TTL_MS / 2);
    api.deny();
    expect(await failure(source.fetch({ audience: 'db' }))).toMatchObject({ code: 'DENIED' });
    await api.stop();
    expect(await failure(source.fetch({ audience: 'db' }))).toMatchObject({ code: 'UNAVAILABLE' });
  });

  test('takes the identity back, every token and bundle goes, and comes again with it (WAPI-54)', async () => {
    const { clock, domain, api, source, asked } = await tokens();
    const { token } = await source.fetch({ audience: 'db' });
    const validate = () => validateJwtSvidSync(token, { audience: 'db', bundles: source, clock });
    expect(validate().id.path).toBe('/web');
    let changed = change(source);
    api.deny();
    await changed;
    expect(await failure(source.fetch({ audience: 'db' }))).toMatchObject({ code: 'DENIED' });
    expect(refusal(validate)).toMatchObject({ code: 'BUNDLE_MISSING' });
    api.resume();
    changed = change(source);
    await clock.advance(RETRY_MS);
    await changed;
    await source.fetch({ audience: 'db' });
    expect(asked()).toHaveLength(3);
    expect(source.jwtBundle(domain.trustDomain)?.equals(domain.bundle.jwt)).toBe(true);
  });

  test('takes the identity back while a newer token is on its way, the old one does not serve on', async () => {
    const { clock, api, source, told } = await tokens();
    await source.fetch({ audience: 'db' });
    clock.jump(TTL_MS / 2);
    api.stall();
    const fetched = failure(source.fetch({ audience: 'db' }));
    await api.called('FetchJWTSVID', 2);
    const cleared = change(source);
    api.deny();
    await Promise.all([cleared, fetched]);
    expect(await fetched).toMatchObject({ code: 'DENIED' });
    await api.stop();
    expect(await failure(source.fetch({ audience: 'db' }))).toMatchObject({ code: 'UNAVAILABLE' });
    expect(told.filter(({ message }) => message === NEWS)).toEqual([]);
  });
});

describe('bundles', () => {
  test('of others are told, and gone when they are told no more; `for await` sees each (WAPI-54)', async () => {
    const { far, api, source } = await tokens();
    const seen: number[] = [];
    for await (const bundles of source) {
      seen.push(bundles.size);
      if (seen.length === 1) api.set({ federated: [far] });
      else if (seen.length === 2) api.set({ federated: [] });
      else break;
    }
    expect(seen).toEqual([1, 2, 1]);
    expect(source.jwtBundle(far.trustDomain)).toBeUndefined();
  });

  test('are what ready waits for', async () => {
    const { api, options } = await workload({ late: true });
    const source = closing(new JwtSource(options));
    expect(await failure(source.ready(AbortSignal.abort()))).toMatchObject({
      code: 'UNAVAILABLE',
      message: `no JWT bundles from the Workload API at ${api.address} yet`,
    });
    expect(source.waitingFor).toBe(`no JWT bundles from the Workload API at ${api.address} yet`);
  });
});

test('a closed source throws CLOSED, also to who waits, and lets the request go', async () => {
  const { domain, api, source, asked } = await tokens();
  await source.fetch({ audience: 'db' });
  api.stall();
  const waits = failure(source.fetch({ audience: 'cache' }));
  await api.called('FetchJWTSVID', 2);
  await source.close();
  expect(await waits).toMatchObject({ code: 'CLOSED' });
  expect(await failure(source.fetch({ audience: 'db' }))).toMatchObject({ code: 'CLOSED' });
  expect(await failure(source.ready())).toMatchObject({ code: 'CLOSED' });
  expect(refusal(() => source.jwtBundle(domain.trustDomain))).toMatchObject({ code: 'CLOSED' });
  await until(() => asked().every(({ signal }) => signal.aborted));
});
