/** BundleSource: whom a workload trusts, of both kinds, without an identity of its own. */
import { describe, expect, test } from 'vitest';
import { validateJwtSvidSync } from '../../../spiffe/jwt/jwt-svid.ts';
import { BundleSource } from '../../../spiffe/source/bundle-source.ts';
import { verifyX509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { change, closing, failure, refusal, RETRY_MS, until, workload } from './rig.ts';

describe('the bundles of both kinds', () => {
  test('judge X.509-SVIDs and JWT-SVIDs, of federated trust domains too', async () => {
    const { clock, domain, far, api, options } = await workload();
    api.set({ federated: [far] });
    const source = closing(new BundleSource(options));
    await source.ready();
    for (const of of [domain, far]) {
      expect(verifyX509Svid(of.rawSvid('/web').chainDer, source, { nowMs: clock.now() }).id).toEqual(of.id('/web'));
      expect(validateJwtSvidSync(of.jwtSvid('/web', { audience: 'db' }), { audience: 'db', bundles: source, clock }).id).toEqual(
        of.id('/web'),
      );
    }
    expect(
      [...source.bundles].map((bundle) => [bundle.trustDomain.name, bundle.x509.authorities.length, bundle.jwt.authorities.size]),
    ).toEqual([
      ['example.org', 1, 1],
      ['far.org', 1, 1],
    ]);
    expect(source.waitingFor).toBeUndefined();
  });

  test('that are told no more are gone, and their peers are refused (WAPI-39, WAPI-54)', async () => {
    const { clock, far, api, options } = await workload();
    api.set({ federated: [far] });
    const source = closing(new BundleSource(options));
    await source.ready();
    api.set({ federated: [] });
    await until(() => source.bundles.size === 1);
    expect([source.x509Bundle(far.trustDomain), source.jwtBundle(far.trustDomain)]).toEqual([undefined, undefined]);
    expect(refusal(() => verifyX509Svid(far.rawSvid('/web').chainDer, source, { nowMs: clock.now() }))).toMatchObject({
      code: 'BUNDLE_MISSING',
    });
  });

  test('follow a rotation, through a restart of the agent', async () => {
    const { clock, domain, api, options } = await workload();
    const source = closing(new BundleSource(options));
    await source.ready();
    await api.stop();
    await until(() => clock.waiting === 2);
    expect(source.bundles.size).toBe(1);
    domain.rotate();
    domain.retire();
    await api.start();
    await clock.advance(RETRY_MS);
    const { x509, jwt } = domain.bundle;
    await until(() => source.bundles.x509Bundle(domain.trustDomain)?.equals(x509) === true);
    await until(() => source.bundles.jwtBundle(domain.trustDomain)?.equals(jwt) === true);
  });

  test('stay when an answer is malformed (WAPI-18), go with DENIED, and come back (WAPI-39, WAPI-54)', async () => {
    const { clock, domain, api, options, told } = await workload();
    const source = closing(new BundleSource(options));
    await source.ready();
    api.garble();
    await until(() => told.length === 2);
    expect(source.bundles.size).toBe(1);
    api.deny();
    await until(() => clock.waiting === 2);
    expect(refusal(() => source.bundles)).toMatchObject({ code: 'DENIED' });
    expect([source.x509Bundle(domain.trustDomain), source.jwtBundle(domain.trustDomain)]).toEqual([undefined, undefined]);
    const ready = source.ready();
    api.resume();
    await clock.advance(RETRY_MS);
    await ready;
    expect(source.bundles.size).toBe(1);
  });
});

test('ready says which kind it waits for, and ends at once when one of them never comes', async () => {
  const { api, options } = await workload();
  api.stall();
  const source = closing(new BundleSource(options));
  expect(await failure(source.ready(AbortSignal.abort()))).toMatchObject({
    code: 'UNAVAILABLE',
    message: `no X.509 bundles from the Workload API at ${api.address} yet`,
  });
  await api.called('FetchJWTBundles');
  const ready = failure(source.ready());
  api.refuse(12, 'no JWT here');
  expect(await ready).toMatchObject({ code: 'UNIMPLEMENTED' });
  for await (const _ of source) throw new Error('gave something');
});

test('`for await` gives both kinds at once, then each change, and ends when the source is closed', async () => {
  const { far, api, options } = await workload({ late: true });
  const source = closing(new BundleSource({ ...options, backoff: () => 0 }));
  const seen: number[] = [];
  const read = (async () => {
    for await (const bundles of source) {
      seen.push(bundles.size);
      if (bundles.size === 1) api.set({ federated: [far] });
      else if (bundles.x509Bundle(far.trustDomain)?.isEmpty === false && !bundles.jwtBundle(far.trustDomain)?.isEmpty) void source.close();
    }
  })();
  await api.start();
  const { clock } = options;
  await until(() => {
    void clock.advance(1);
    return seen.length > 0;
  });
  await read;
  expect([seen[0], seen.at(-1)]).toEqual([1, 2]);
});

test('a closed source throws CLOSED at every use, and lets its streams go', async () => {
  const { domain, api, options } = await workload();
  const source = new BundleSource(options);
  const changed = change(source);
  await source.ready();
  await changed;
  await source.close();
  for (const use of [() => source.bundles, () => source.x509Bundle(domain.trustDomain), () => source.jwtBundle(domain.trustDomain)])
    expect(refusal(use)).toMatchObject({ code: 'CLOSED' });
  expect(await failure(source.ready())).toMatchObject({ code: 'CLOSED' });
  expect(source.waitingFor).toBe('the bundle source is closed');
  await until(() => api.calls.every(({ signal }) => signal.aborted));
});
