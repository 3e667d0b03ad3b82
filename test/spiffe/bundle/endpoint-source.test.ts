/** BundleEndpointSource: when it asks, what it takes, what it keeps, and how it ends. Real sockets, a clock that stands still. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Bundle } from '../../../spiffe/bundle/bundle.ts';
import { BundleEndpointSource, type BundleEndpointSourceOptions, type FollowedEndpoint } from '../../../spiffe/bundle/endpoint-source.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { FakeBundleEndpoint, type FakeWebCertificate } from '../../../spiffe/testing/bundle-endpoint.ts';
import type { TestCertificate } from '../../fakes/ca.ts';
import { FakeClock } from '../../fakes/clock.ts';
import { bundleOf, ENDPOINT_ID, NOW, ours, root, setOf, site, svid, theirs, webRoot } from './endpoint-rig.ts';

let publicRoot: TestCertificate;
let one: TestCertificate;
let two: TestCertificate;
let ourRoot: TestCertificate;
let goodSite: FakeWebCertificate;
let web: FakeBundleEndpoint;
let clock: FakeClock;
/** What the logger was told, one for each fetch. */
let told: { level: string; fields: Record<string, unknown> }[];
const open: { close(): unknown }[] = [];

beforeAll(async () => {
  [publicRoot, one, two, ourRoot] = await Promise.all([webRoot(), root(theirs), root(theirs), root(ours)]);
  goodSite = await site(publicRoot);
});
beforeEach(async () => {
  clock = new FakeClock(NOW);
  told = [];
  web = await started({ web: goodSite });
});
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each.close();
});

async function started(options: Parameters<typeof FakeBundleEndpoint.start>[0]): Promise<FakeBundleEndpoint> {
  const endpoint = await FakeBundleEndpoint.start({ clock, ...options });
  open.push(endpoint);
  return endpoint;
}

const hear = (level: string) => (_: string, fields?: object) => void told.push({ level, fields: fields as Record<string, unknown> });
const log = { debug: hear('debug'), info: hear('info'), warn: hear('warn'), error: hear('error') };
const LONG = { interval: 2, timeout: 10_000 };

function overWeb(endpoint = web, more: Partial<FollowedEndpoint> = {}): FollowedEndpoint {
  return { trustDomain: theirs, url: endpoint.url, profile: { type: 'https_web', ca: publicRoot.pem }, ...more };
}

/** Nothing is jittered unless a test says so. */
function following(
  endpoints: readonly FollowedEndpoint[] = [overWeb()],
  more: Partial<BundleEndpointSourceOptions> = {},
): BundleEndpointSource {
  const source = new BundleEndpointSource({ endpoints, clock, log, random: () => 0, ...more });
  open.push(source);
  return source;
}

/** Until that many fetches have ended, one way or the other. */
const fetched = (count: number) => expect.poll(() => told.length, LONG).toBe(count);

/** Lets the time pass that is expected to lead to one more fetch, and not a millisecond less. */
async function fetchedAfter(ms: number): Promise<void> {
  const count = told.length;
  await clock.advance(ms - 1);
  expect([told.length, clock.waiting]).toEqual([count, 1]);
  await clock.advance(1);
  await fetched(count + 1);
}

/** Lets the time pass, and waits for as many fetches as that leads to. */
async function fetchedAfterAll(ms: number, fetches: number): Promise<void> {
  const count = told.length;
  await clock.advance(ms);
  await fetched(count + fetches);
}

const sequenceOf = (source: BundleEndpointSource) => source.get(theirs)?.sequence;
const answer = (sequence?: number, hint?: number, roots = [one]): Bundle => bundleOf(theirs, roots, sequence, hint);

describe('when it asks', () => {
  test('FED-6 FED-7 at once, then ever again after the seconds of the refresh hint', async () => {
    web.setBundle(answer(1, 60));
    following();
    await fetched(1);
    for (let poll = 0; poll < 3; poll++) await fetchedAfter(60_000);
    expect(web.requests).toHaveLength(4);
  });

  test('FED-7 TDB-33 without a hint after 300 seconds', async () => {
    web.setBundle(answer(1));
    following();
    await fetched(1);
    await fetchedAfter(300_000);
  });

  for (const [hint, seconds] of [
    [1, 30],
    [29, 30],
    [31, 31],
    [86_400, 86_400],
    [1_000_000_000, 86_400],
  ] as const) {
    test(`TDB-14 a hint of ${hint} s means ${seconds} s`, async () => {
      web.setBundle(answer(1, hint));
      following();
      await fetched(1);
      await fetchedAfter(seconds * 1000);
    });
  }

  test('TDB-14 floor and ceiling are for the user to set', async () => {
    web.setBundle(answer(1, 1));
    following([overWeb()], { minRefreshMs: 5_000, maxRefreshMs: 20_000 });
    await fetched(1);
    await fetchedAfter(5_000);
    web.setBundle(answer(2, 60));
    await fetchedAfter(5_000);
    await fetchedAfter(20_000);
  });

  test('up to a tenth sooner, so that those who began together do not stay together', async () => {
    web.setBundle(answer(1, 100));
    following([overWeb()], { random: () => 0.5 });
    await fetched(1);
    await fetchedAfter(95_000);
  });

  test('FED-63 after a failure at the next interval, not at once; of an interval of hours after 300 seconds', async () => {
    web.setBundle(answer(1, 60));
    following();
    await fetched(1);
    web.fail();
    for (let poll = 0; poll < 5; poll++) await fetchedAfter(60_000);
    expect(web.requests).toHaveLength(6);
    web.setBundle(answer(2, 7200));
    await fetchedAfter(60_000);
    web.fail();
    await fetchedAfter(7_200_000);
    await fetchedAfter(300_000);
    web.resume();
    await fetchedAfter(300_000);
    await fetchedAfter(7_200_000);
  });

  test('while there is no bundle at all, after 1, 2, 4 … seconds, 300 at the most', async () => {
    web.fail();
    following();
    await fetched(1);
    for (const seconds of [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]) await fetchedAfter(seconds * 1000);
    web.setBundle(answer(1, 60));
    await fetchedAfter(300_000);
    await fetchedAfter(60_000);
  });

  test('those waits are spread by half', async () => {
    web.fail();
    following([overWeb()], { random: () => 0.999 });
    await fetched(1);
    await clock.advance(500);
    expect(told).toHaveLength(1);
    await clock.advance(1);
    await fetched(2);
  });

  test('FED-36 FED-37 each time at the configured URL, whereto it was redirected before', async () => {
    const target = await started({ web: goodSite, bundle: answer(7, 60) });
    web.setBundle(answer(8, 60));
    web.redirect(target.url, 308);
    const source = following();
    await fetched(1);
    expect(sequenceOf(source)).toBe(7n);
    web.resume();
    await fetchedAfter(60_000);
    expect([sequenceOf(source), web.requests.length, target.requests.length]).toEqual([8n, 2, 1]);
  });

  test('FED-66 the logger hears of each: of whom, from where, as whom, with what result', async () => {
    web.setBundle(answer(3, 60));
    following([overWeb(web, { url: `${web.url}?token=secret` })]);
    await fetched(1);
    await fetchedAfter(60_000);
    web.fail();
    await fetchedAfter(60_000);
    const where = { trust_domain: 'partner.example', url: web.url, profile: 'https_web' };
    expect(told).toMatchObject([
      { level: 'info', fields: { ...where, sequence: '3', x509_authorities: 1 } },
      { level: 'debug', fields: { ...where, sequence: '3' } },
      { level: 'warn', fields: { ...where, failures: 1, error: { reason: 'FED_STATUS' } } },
    ]);
    expect(JSON.stringify(told)).not.toContain('secret');
  });
});

describe('what it takes', () => {
  test('FED-9 an older sequence is refused, an equal or newer one is not', async () => {
    web.setBundle(answer(5, 60));
    const source = following();
    await fetched(1);
    web.setBundle(answer(4, 60, [two]));
    await fetchedAfter(60_000);
    expect(source.get(theirs)?.equals(answer(5, 60))).toBe(true);
    expect(source.status(theirs)).toMatchObject({ failures: 1, error: { code: 'BUNDLE_INVALID', reason: 'FED_SEQUENCE' } });
    expect(told.at(-1)?.level).toBe('warn');
    web.setBundle(answer(6, 60, [two]));
    await fetchedAfter(60_000);
    expect(source.get(theirs)?.equals(answer(6, 60, [two]))).toBe(true);
    expect(source.status(theirs)).toMatchObject({ failures: 0, error: undefined });
  });

  test('FED-9 sequences are compared as integers of 64 bits', async () => {
    const big = 2n ** 63n;
    web.setBundle(bundleOf(theirs, [one], big + 1n, 60));
    const source = following();
    await fetched(1);
    web.setBundle(bundleOf(theirs, [two], big, 60));
    await fetchedAfter(60_000);
    expect(sequenceOf(source)).toBe(big + 1n);
    web.setBundle(bundleOf(theirs, [two], big + 2n, 60));
    await fetchedAfter(60_000);
    expect(sequenceOf(source)).toBe(big + 2n);
  });

  test('FED-10 without a sequence the newest fetch wins; what came before it still bars the way back', async () => {
    web.setBundle(answer(undefined, 60));
    const source = following();
    await fetched(1);
    web.setBundle(answer(undefined, 60, [two]));
    await fetchedAfter(60_000);
    expect(source.get(theirs)?.equals(answer(undefined, 60, [two]))).toBe(true);
    web.setBundle(answer(5, 60));
    await fetchedAfter(60_000);
    web.setBundle(answer(undefined, 60, [two]));
    await fetchedAfter(60_000);
    expect(source.get(theirs)?.equals(answer(undefined, 60, [two]))).toBe(true);
    web.setBundle(answer(4, 60));
    await fetchedAfter(60_000);
    expect(sequenceOf(source)).toBe(undefined);
    web.setBundle(answer(5, 60));
    await fetchedAfter(60_000);
    expect(sequenceOf(source)).toBe(5n);
  });

  test('another bundle under the same sequence is taken, and its publisher told of', async () => {
    web.setBundle(answer(5, 60));
    const source = following();
    await fetched(1);
    web.setBundle(answer(5, 60, [two]));
    await clock.advance(60_000);
    await fetched(3);
    expect(told.map(({ level }) => level)).toEqual(['info', 'info', 'warn']);
    expect(source.get(theirs)?.equals(answer(5, 60, [two]))).toBe(true);
  });

  const useless: [string, (endpoint: FakeBundleEndpoint) => void, string][] = [
    ['malformed', (it) => it.serve('{"keys":[{"use":"x509-svid","kty":"EC","x5c":["AA"]}]}'), 'BUNDLE_INVALID'],
    ['without keys', (it) => it.serve('{}'), 'BUNDLE_INVALID'],
    ['a web page', (it) => it.serve('<html>'), 'BUNDLE_INVALID'],
    ['too long', (it) => it.oversize(), 'UNAVAILABLE'],
    ['broken off', (it) => it.hangUp('body'), 'UNAVAILABLE'],
    ['status 404', (it) => it.fail(404), 'UNAVAILABLE'],
    ['a redirect to http', (it) => it.redirect('http://localhost/'), 'UNAVAILABLE'],
  ];
  for (const [what, spoil, code] of useless) {
    test(`an answer that is ${what} leaves the bundle as it was, and says since when`, async () => {
      web.setBundle(answer(1, 60));
      const source = following();
      await fetched(1);
      expect(source.status(theirs)).toMatchObject({ ageMs: 0, staleSinceMs: undefined, failures: 0, error: undefined });
      const good = source.get(theirs);
      spoil(web);
      await fetchedAfter(60_000);
      await fetchedAfter(60_000);
      expect(source.get(theirs)).toBe(good);
      expect(source.status(theirs)).toMatchObject({ ageMs: 120_000, staleSinceMs: NOW + 60_000, failures: 2, error: { code } });
      web.setBundle(answer(2, 60));
      await fetchedAfter(60_000);
      expect(sequenceOf(source)).toBe(2n);
      expect(source.status(theirs)).toMatchObject({ ageMs: 0, staleSinceMs: undefined, failures: 0, error: undefined });
    });
  }

  test('TDB-18 an empty bundle is no failure: it takes everything back', async () => {
    web.setBundle(answer(1, 60));
    const source = following();
    await fetched(1);
    web.setBundle(answer(2, 60, []));
    await fetchedAfter(60_000);
    expect([source.x509Bundle(theirs)?.isEmpty, source.status(theirs).failures]).toEqual([true, 0]);
  });

  test("FED-12 FED-19 each trust domain has its own bundle, and nobody else's", async () => {
    const other = await started({ web: goodSite, bundle: bundleOf(ours, [ourRoot]) });
    web.setBundle(answer(1));
    const source = following([overWeb(), overWeb(other, { trustDomain: 'example.org' })]);
    await source.ready();
    const fingerprints = (trustDomain: TrustDomain) => source.x509Bundle(trustDomain)?.authorities.map(({ raw }) => raw);
    expect([fingerprints(theirs), fingerprints(ours)]).toEqual([[one.der], [ourRoot.der]]);
    expect(source.jwtBundle(ours)?.trustDomain).toBe(ours);
    expect(source.x509Bundle(TrustDomain.parse('nobody.example'))).toBe(undefined);
    expect([...source.bundles].map(({ trustDomain }) => trustDomain)).toEqual([ours, theirs]);
  });

  test('FED-8 what was kept from an earlier run is in use at once, and nothing older replaces it', async () => {
    web.fail();
    const kept = answer(5, 60);
    const source = following([overWeb(web, { initial: kept })]);
    await source.ready();
    expect(source.get(theirs)).toBe(kept);
    await fetched(1);
    expect(source.status(theirs)).toMatchObject({ bundle: kept, ageMs: undefined, staleSinceMs: NOW, failures: 1 });
    web.setBundle(answer(4, 60, [two]));
    await fetchedAfter(60_000);
    expect(source.get(theirs)).toBe(kept);
    web.setBundle(answer(6, 60, [two]));
    await fetchedAfter(60_000);
    expect(sequenceOf(source)).toBe(6n);
  });
});

describe('https_spiffe', () => {
  const spiffe = (endpoint: FakeBundleEndpoint, bundles?: ReturnType<typeof setOf>, more: Partial<FollowedEndpoint> = {}) => ({
    trustDomain: theirs,
    url: endpoint.url,
    profile: { type: 'https_spiffe', endpointId: ENDPOINT_ID, bundles } as const,
    ...more,
  });

  test('FED-55 who serves its own bundle is known by the newest good one, and by the configured one only to begin with', async () => {
    const endpoint = await started({ svid: await svid(one), bundle: answer(1, 60, [one, two]) });
    const source = following([spiffe(endpoint, setOf(answer(undefined, undefined, [one])))]);
    await fetched(1);
    endpoint.rotate(await svid(two));
    endpoint.setBundle(answer(2, 60, [two]));
    await fetchedAfter(60_000);
    expect(sequenceOf(source)).toBe(2n);
    // the authority that was configured is not enough any more
    endpoint.rotate(await svid(one));
    endpoint.setBundle(answer(3, 60, [one]));
    await fetchedAfter(60_000);
    expect([sequenceOf(source), source.status(theirs).error?.reason]).toEqual([2n, 'X509_ISSUER_UNKNOWN']);
    endpoint.rotate(await svid(two));
    await fetchedAfter(60_000);
    expect(sequenceOf(source)).toBe(3n);
  });

  test('FED-55 an endpoint that has taken everything back is known by nothing any more', async () => {
    const endpoint = await started({ svid: await svid(one), bundle: answer(1, 60, []) });
    const source = following([spiffe(endpoint, setOf(answer()))]);
    await fetched(1);
    expect(source.x509Bundle(theirs)?.isEmpty).toBe(true);
    endpoint.setBundle(answer(2, 60));
    await fetchedAfter(60_000);
    expect([sequenceOf(source), source.status(theirs).error?.reason]).toEqual([1n, 'X509_BUNDLE_EMPTY']);
  });

  test('FED-8 FED-55 what was kept from an earlier run is such a bundle, with or without one configured', async () => {
    const endpoint = await started({ svid: await svid(two), bundle: answer(2, 60, [two]) });
    const source = following([spiffe(endpoint, undefined, { initial: answer(1, 60, [two]) })]);
    await fetched(1);
    expect(sequenceOf(source)).toBe(2n);
    const misled = following([spiffe(endpoint, setOf(answer(undefined, undefined, [two])), { initial: answer(1, 60, [one]) })]);
    await fetched(2);
    expect(sequenceOf(misled)).toBe(1n);
  });

  test("FED-45 FED-56 an endpoint of another trust domain is known by that one's newest bundle, from its own endpoint", async () => {
    const id = 'spiffe://example.org/bundles';
    const hosted = await started({ svid: await svid(ourRoot, id), bundle: answer(1, 60) });
    web.setBundle(bundleOf(ours, [ourRoot], 1, 60));
    const source = following([
      { trustDomain: theirs, url: hosted.url, profile: { type: 'https_spiffe', endpointId: id } },
      overWeb(web, { trustDomain: ours }),
    ]);
    await fetched(2);
    expect(source.get(ours)?.sequence).toBe(1n);
    // whichever came first, a second later it is there
    if (!source.get(theirs)) await fetchedAfterAll(1_000, 1);
    expect(sequenceOf(source)).toBe(1n);
    const nextRoot = await root(ours);
    web.setBundle(bundleOf(ours, [nextRoot], 2, 60));
    await fetchedAfterAll(60_000, 2);
    expect(source.get(ours)?.sequence).toBe(2n);
    await fetchedAfterAll(60_000, 2);
    expect(source.status(theirs).error?.reason).toBe('X509_ISSUER_UNKNOWN');
    hosted.rotate(await svid(nextRoot, id));
    hosted.setBundle(answer(2, 60));
    await fetchedAfterAll(60_000, 2);
    expect(sequenceOf(source)).toBe(2n);
  });

  test('FED-60 FED-61 the configured URL is asked each time, whatever the endpoint says', async () => {
    const target = await started({ svid: await svid(one), bundle: answer(1, 60) });
    const endpoint = await started({ svid: await svid(one), bundle: answer(1, 60) });
    const source = following([spiffe(endpoint, setOf(answer()))]);
    await fetched(1);
    endpoint.redirect(target.url, 301);
    await fetchedAfter(60_000);
    endpoint.setBundle(answer(2, 60));
    await fetchedAfter(60_000);
    expect([sequenceOf(source), endpoint.requests.length, target.requests.length]).toEqual([2n, 3, 0]);
  });

  test('FED-65 when it fails nothing else is tried', async () => {
    // would do for https_web
    web.setBundle(answer(1));
    following([spiffe(web, setOf(answer()))]);
    await fetched(1);
    expect(told[0]).toMatchObject({
      level: 'warn',
      fields: { endpoint_spiffe_id: ENDPOINT_ID, error: { reason: 'X509_URI_SAN_MISSING' } },
    });
    expect(web.requests).toEqual([]);
  });
});

describe('what it refuses to follow', () => {
  const reasons = (endpoints: readonly unknown[], more: Partial<BundleEndpointSourceOptions> = {}) => {
    try {
      following(endpoints as FollowedEndpoint[], more);
      return 'followed';
    } catch (error) {
      return error instanceof SpiffeError ? `${error.code} ${error.reason}` : String(error);
    }
  };
  const spiffe = (endpointId: string, bundles?: unknown) => ({
    trustDomain: theirs,
    url: 'https://localhost:1/',
    profile: { type: 'https_spiffe', endpointId, bundles },
  });

  test('FED-17 an endpoint whose trust domain, URL or profile is missing', () => {
    const { trustDomain, url, profile } = overWeb();
    expect(reasons([{ url, profile }])).toBe('REQUEST_INVALID FED_TRUST_DOMAIN');
    expect(reasons([{ trustDomain, profile }])).toBe('REQUEST_INVALID FED_URL_SCHEME');
    expect(reasons([{ trustDomain, url }])).toBe('REQUEST_INVALID FED_PROFILE');
    expect(reasons([{ trustDomain, url, profile }])).toBe('followed');
  });

  test('FED-41 FED-44 an https_spiffe endpoint that nothing could vouch for', () => {
    expect(reasons([spiffe(ENDPOINT_ID)])).toBe('REQUEST_INVALID FED_ENDPOINT_BUNDLES');
    expect(reasons([spiffe('spiffe://example.org/bundles')])).toBe('REQUEST_INVALID FED_ENDPOINT_BUNDLES');
    expect(reasons([spiffe(ENDPOINT_ID, {})])).toBe('REQUEST_INVALID FED_ENDPOINT_BUNDLES');
    expect(reasons([spiffe(ENDPOINT_ID, setOf(answer()))])).toBe('followed');
    expect(reasons([spiffe('spiffe://example.org/bundles'), overWeb(web, { trustDomain: ours })])).toBe('followed');
  });

  test('two endpoints of one trust domain, also one after the other', () => {
    expect(reasons([overWeb(), overWeb()])).toBe('REQUEST_INVALID FED_REPEATED');
    const source = following();
    expect(() => source.follow(overWeb())).toThrow('two bundle endpoints of partner.example');
    source.follow(overWeb(web, { trustDomain: ours }));
  });

  test('the initial bundle of another trust domain', () => {
    expect(reasons([overWeb(web, { initial: bundleOf(ours, []) })])).toBe('REQUEST_INVALID FED_TRUST_DOMAIN');
    expect(reasons([overWeb(web, { initial: answer() })])).toBe('followed');
  });

  test('limits that are none', () => {
    for (const limits of [{ minRefreshMs: 0 }, { minRefreshMs: 2_000, maxRefreshMs: 1_000 }, { maxRefreshMs: 1e9 }, { timeoutMs: -1 }])
      expect(reasons([overWeb()], limits)).toBe('REQUEST_INVALID FED_LIMIT');
    expect(reasons([overWeb()], { minRefreshMs: 1_000, maxRefreshMs: 1_000 })).toBe('followed');
  });

  test('none at all of those given when one is refused', async () => {
    expect(reasons([overWeb(), overWeb(web, { trustDomain: ours, url: 'http://localhost/' })])).toBe('REQUEST_INVALID FED_URL_SCHEME');
    await clock.advance(0);
    expect([web.requests, clock.waiting]).toEqual([[], 0]);
  });
});

describe('those who wait and listen', () => {
  test('`ready` resolves with the first bundle of each', async () => {
    web.fail();
    const source = following();
    const ready = source.ready();
    await fetched(1);
    expect(source.waitingFor).toBe(
      `no bundle of partner.example from ${web.url} yet: bundle endpoint ${web.url} answered with status 503, not 200`,
    );
    web.setBundle(answer(1));
    await clock.advance(1_000);
    await ready;
    expect(source.waitingFor).toBe(undefined);
  });

  test('when its signal aborts it says which are missing, and why', async () => {
    const dead = await started({ web: goodSite });
    const stalled = await started({ web: goodSite });
    web.setBundle(answer(1));
    dead.fail(500);
    stalled.stall();
    const source = following([
      overWeb(),
      overWeb(dead, { trustDomain: 'dead.example' }),
      overWeb(stalled, { trustDomain: 'stalled.example' }),
    ]);
    const stop = new AbortController();
    const ready = source.ready(stop.signal);
    ready.catch(() => {});
    await fetched(2);
    const reason = new Error('too long');
    stop.abort(reason);
    await expect(ready).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      reason: 'FED_STATUS',
      message: `no bundle of dead.example from ${dead.url} yet: bundle endpoint ${dead.url} answered with status 500, not 200; no bundle of stalled.example from ${stalled.url} yet`,
      cause: reason,
    });
    await expect(source.ready(AbortSignal.abort(reason))).rejects.toThrow('dead.example');
    // a dead endpoint delays no other
    expect(source.get(theirs)?.sequence).toBe(1n);
    expect([...source.bundles]).toHaveLength(1);
  });

  test('a reader gets what there is as soon as there is something, then each change, until the end', async () => {
    web.setBundle(answer(1, 60));
    const source = following();
    const seen: (bigint | undefined)[] = [];
    const reading = (async () => {
      for await (const bundles of source) seen.push(bundles.get(theirs)?.sequence);
    })();
    await expect.poll(() => seen, LONG).toEqual([1n]);
    await fetchedAfter(60_000);
    web.setBundle(answer(2, 60));
    await fetchedAfter(60_000);
    await expect.poll(() => seen, LONG).toEqual([1n, 2n]);
    await source.unfollow(theirs);
    await expect.poll(() => seen, LONG).toEqual([1n, 2n, undefined]);
    await source.close();
    await reading;
    expect(seen).toHaveLength(3);
  });

  test('listeners are called right after each change; what they throw, and a logger that fails, changes nothing', async () => {
    web.setBundle(answer(1, 60));
    const broken = () => {
      told.push({ level: '', fields: {} });
      throw new Error('disk full');
    };
    const source = following([overWeb()], { log: { debug: broken, info: broken, warn: broken, error: broken } });
    const seen: (bigint | undefined)[] = [];
    source.onChange(() => {
      throw new Error('a listener');
    });
    const off = source.onChange(() => seen.push(sequenceOf(source)));
    await fetched(1);
    await fetchedAfter(60_000);
    web.setBundle(answer(2, 60));
    await fetchedAfter(60_000);
    expect(seen).toEqual([1n, 2n]);
    off();
    web.setBundle(answer(3, 60));
    await fetchedAfter(60_000);
    expect(seen).toEqual([1n, 2n]);
    expect(sequenceOf(source)).toBe(3n);
  });
});

describe('the end', () => {
  test('FED-64 of one: its bundle is gone, nothing is fetched any more, the others go on', async () => {
    const other = await started({ web: goodSite, bundle: bundleOf(ours, [ourRoot], 1, 60) });
    web.setBundle(answer(1, 60));
    const source = following([overWeb(), overWeb(other, { trustDomain: ours })]);
    await source.ready();
    await source.unfollow(theirs);
    expect([source.x509Bundle(theirs), source.jwtBundle(theirs), source.bundles.size]).toEqual([undefined, undefined, 1]);
    expect(() => source.status(theirs)).toThrow('no bundle endpoint of partner.example is followed');
    await clock.advance(60_000);
    await other.requested(2);
    expect(web.requests).toHaveLength(1);
    await source.unfollow(theirs);
    source.follow(overWeb());
    await expect.poll(() => sequenceOf(source), LONG).toBe(1n);
  });

  test('of all: every use says so, no timer is left', async () => {
    web.setBundle(answer(1, 60));
    const source = following();
    await source.ready();
    await source.close();
    await source.close();
    expect(source.waitingFor).toBe('the bundle endpoint source is closed');
    for (const use of [
      () => source.get(theirs),
      () => source.x509Bundle(theirs),
      () => source.jwtBundle(theirs),
      () => source.bundles,
      () => source.status(theirs),
    ])
      expect(use).toThrow('closed');
    expect(() => source.follow(overWeb(web, { trustDomain: ours }))).toThrow('closed');
    await expect(source.ready()).rejects.toMatchObject({ code: 'CLOSED' });
    for await (const _ of source) expect.unreachable();
    expect(clock.waiting).toBe(0);
  });

  test('in the middle of a fetch it ends at once, and who waits hears it', async () => {
    web.stall();
    const source = following();
    const ready = source.ready();
    ready.catch(() => {});
    await web.requested(1);
    await source[Symbol.asyncDispose]();
    await expect(ready).rejects.toMatchObject({ code: 'CLOSED' });
    expect([clock.waiting, told]).toEqual([0, []]);
  });

  for (const [what, end] of [
    ['that was closed', 'await source.close();'],
    ['that nobody closed, with a fetch under way', ''],
  ]) {
    test(`a source ${what} keeps no process alive`, async () => {
      web.stall();
      const spiffe = await started({ svid: await svid(one), bundle: answer(1) });
      spiffe.stall();
      const room = resolve(import.meta.dirname, '../../../spiffe/bundle');
      const script = `
        import { BundleEndpointSource } from ${JSON.stringify(`${room}/endpoint-source.ts`)};
        import { Bundle } from ${JSON.stringify(`${room}/bundle.ts`)};
        import { TrustDomain } from ${JSON.stringify(`${room}/../id.ts`)};
        const theirs = TrustDomain.parse('partner.example');
        const bundles = Bundle.fromJson(theirs, ${JSON.stringify(answer(1).toJson())});
        const source = new BundleEndpointSource({ endpoints: [
          { trustDomain: 'a.example', url: ${JSON.stringify(web.url)}, profile: { type: 'https_web', ca: ${JSON.stringify(publicRoot.pem)} } },
          { trustDomain: theirs, url: ${JSON.stringify(spiffe.url)}, profile: { type: 'https_spiffe', endpointId: '${ENDPOINT_ID}', bundles } },
          { trustDomain: 'b.example', url: 'https://localhost:1/', profile: { type: 'https_web' } },
        ] });
        // until both requests are there
        await new Promise((done) => process.stdin.once('data', done));
        process.stdin.destroy();
        ${end}
      `;
      const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: ['pipe', 'inherit', 'inherit'] });
      const exited = once(child, 'exit');
      open.push({ close: () => child.kill() });
      await Promise.all([web.requested(1), spiffe.requested(1)]);
      child.stdin.end('go');
      expect(await exited).toEqual([0, null]);
    });
  }
});
