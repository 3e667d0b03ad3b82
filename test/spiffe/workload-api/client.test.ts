/** The Workload API client against a real gRPC server on a real UNIX socket, whose answers are scripted and whose certificates another hand made. */
import { JwtBundle } from '../../../spiffe/jwt/jwt-bundle.ts';
import { signJwtSvid } from '../../../spiffe/jwt/sign-jwt-svid.ts';
import { sign } from 'node:crypto';
import { createServer, type Server } from 'node:net';
import { afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { fail } from '../../../core/errors.ts';
import type { Implementation } from '../../../core/rpc-types.ts';
import {
  type JWTSVIDResponse,
  type SpiffeWorkloadAPIDefinition,
  X509BundlesResponse,
  X509SVIDResponse,
} from '../../../proto/gen/spiffe/workload/workload.ts';
import { jwtAuthority } from '../../../spiffe/bundle/bundle.ts';
import type { Code } from '../../../spiffe/errors.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { validateJwtSvidSync } from '../../../spiffe/jwt/jwt-svid.ts';
import { Encoded } from '../../../spiffe/rpc/service.ts';
import { WorkloadApiClient, type WorkloadApiClientOptions } from '../../../spiffe/workload-api/client.ts';
import { verifyX509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { NOW_MS, type TestCertificate, testCertificate, testRoot } from '../../fakes/ca.ts';
import { FakeClock } from '../../fakes/clock.ts';
import { FakeWorkloadApi, gone } from '../../fakes/workload-api.ts';

type Answers = Implementation<typeof SpiffeWorkloadAPIDefinition>;
type X509Answer = ReturnType<typeof X509SVIDResponse.create>;
type Svid = X509Answer['svids'][number];

const td = TrustDomain.parse('example.org');
const far = TrustDomain.parse('far.org');
const id = (path: string) => SpiffeId.of(td, path);

let root: TestCertificate;
let farRoot: TestCertificate;
let web: Svid;
let admin: Svid;

async function svidOf(path: string, hint = '', issuer = root): Promise<Svid> {
  const leaf = await testCertificate({ issuer, uris: [`spiffe://example.org${path}`] });
  const pkcs8 = leaf.key.export({ type: 'pkcs8', format: 'der' });
  return { spiffeId: `spiffe://example.org${path}`, x509Svid: leaf.der, x509SvidKey: pkcs8, bundle: root.der, hint };
}

beforeAll(async () => {
  root = await testRoot();
  farRoot = await testRoot({ uris: ['spiffe://far.org'] });
  web = await svidOf('/web', 'internal');
  admin = await svidOf('/admin');
});

const x509 = (svids: readonly Svid[], federated: Record<string, Buffer> = {}): X509Answer => ({
  svids: [...svids],
  crl: [],
  federatedBundles: federated,
});

/** A running API and a client of it; both end with the test. */
async function workload(answers: Answers, options: Omit<WorkloadApiClientOptions, 'address'> = {}) {
  const api = await new FakeWorkloadApi(answers).start();
  const client = new WorkloadApiClient({ address: api.address, ...options });
  onTestFinished(async () => {
    client.close();
    await api[Symbol.asyncDispose]();
  });
  return { api, client };
}

/** Streams these answers, then holds the stream open. */
const holding = <T>(...answers: readonly T[]) =>
  async function* (_: unknown, { signal }: { readonly signal: AbortSignal }): AsyncGenerator<T> {
    yield* answers;
    await gone(signal);
  };

const refusing = (code: Code, message: string) => () => {
  throw fail(code, message);
};

/** A promise, and what fulfils it. */
function later(): { readonly come: Promise<void>; readonly now: () => void } {
  let now = () => {};
  const come = new Promise<void>((resolve) => {
    now = resolve;
  });
  return { come, now };
}

const failure = (promise: PromiseLike<unknown>) =>
  Promise.resolve(promise).then(
    () => 'no error',
    (error: unknown) => error,
  );

/** Lets sockets work until it is so; the test's own limit of time ends it. */
async function until(so: () => boolean): Promise<void> {
  while (!so()) await new Promise((resolve) => setImmediate(resolve));
}

afterEach(() => {
  delete process.env['SPIFFE_ENDPOINT_SOCKET'];
});

describe('the address', () => {
  test('is that of the environment when none is given, and the given one when there is one (WE-10)', async () => {
    const { api } = await workload({ fetchX509SVID: holding(x509([web])) });
    process.env['SPIFFE_ENDPOINT_SOCKET'] = api.address;
    const byEnvironment = new WorkloadApiClient();
    process.env['SPIFFE_ENDPOINT_SOCKET'] = 'unix:///nobody/is/here.sock';
    const byHand = new WorkloadApiClient({ address: api.address });
    for (const client of [byEnvironment, byHand]) {
      expect(String((await client.fetchX509Svid()).id)).toBe('spiffe://example.org/web');
      client.close();
    }
  });

  test('is refused at once when it is missing or malformed (WE-11)', () => {
    expect(() => new WorkloadApiClient()).toThrow('SPIFFE_ENDPOINT_SOCKET is not set');
    expect(() => new WorkloadApiClient({ address: '/run/api.sock' })).toThrow('the scheme must be unix or tcp');
  });

  test('may be TCP, and no proxy of the environment comes between', async () => {
    const { api } = await workload({ fetchX509SVID: holding(x509([web])) });
    const tcp = await bridge(api.address.slice('unix://'.length));
    const before = { ...process.env };
    Object.assign(process.env, { http_proxy: 'http://127.0.0.1:9', no_proxy: '' });
    onTestFinished(() => {
      process.env = before;
      tcp.close();
    });
    const { port } = tcp.address() as { port: number };
    const client = new WorkloadApiClient({ address: `tcp://127.0.0.1:${port}` });
    expect(String((await client.fetchX509Svid()).id)).toBe('spiffe://example.org/web');
    client.close();
  });
});

test('every call says once what it is for (WE-4, WE-7)', async () => {
  const { api, client } = await workload({});
  const audience = 'db';
  await Promise.all([
    failure(client.fetchX509Context()),
    failure(client.fetchX509Bundles()),
    failure(client.fetchJwtBundles()),
    failure(client.fetchJwtSvids({ audience })),
    failure(client.validateJwtSvid({ token: 'x', audience })),
    failure(client.watchX509Context().next()),
    failure(client.watchX509Bundles().next()),
    failure(client.watchJwtBundles().next()),
  ]).then((errors) => {
    for (const error of errors) expect(error).toMatchObject({ code: 'UNIMPLEMENTED' });
  });
  expect(api.calls.map((call) => call.method).sort()).toEqual([
    'FetchJWTBundles',
    'FetchJWTBundles',
    'FetchJWTSVID',
    'FetchX509Bundles',
    'FetchX509Bundles',
    'FetchX509SVID',
    'FetchX509SVID',
    'ValidateJWTSVID',
  ]);
  for (const { header } of api.calls) expect(header).toEqual(['true']);
  expect(api.connections).toBe(1);
});

describe('the X.509 context', () => {
  test('has every SVID with its key, the first being the default (WAPI-21, WAPI-22, WAPI-78, WE-32)', async () => {
    const { client } = await workload({ fetchX509SVID: holding(x509([web, admin])) });
    const { svids, bundles } = await client.fetchX509Context();
    expect(svids.map((svid) => [String(svid.id), svid.hint])).toEqual([
      ['spiffe://example.org/web', 'internal'],
      ['spiffe://example.org/admin', ''],
    ]);
    for (const svid of svids) expect(verifyX509Svid(svid.chain, bundles, { nowMs: NOW_MS }).id.equals(svid.id)).toBe(true);
    expect((await client.fetchX509Svids()).map((svid) => String(svid.id))).toHaveLength(2);
    expect((await client.fetchX509Svid()).id.path).toBe('/web');
  });

  test('has the default fields of an answer without CRLs and federated bundles as empty, and CRLs do no harm (WAPI-25, WAPI-28)', async () => {
    for (const crl of [[], [Buffer.from('no CRL at all')]]) {
      const { client } = await workload({ fetchX509SVID: holding({ ...x509([web]), crl }) });
      expect([...(await client.fetchX509Context()).bundles].map((bundle) => bundle.trustDomain.name)).toEqual(['example.org']);
    }
  });

  test('has the bundles of other trust domains by their IDs, or by their bare names; one without authorities too (WAPI-23, WAPI-24)', async () => {
    const two = Buffer.concat([farRoot.der, root.der]);
    const { client } = await workload({
      fetchX509SVID: holding(x509([web], { 'spiffe://far.org': two, 'bare.org': farRoot.der, 'spiffe://empty.org': Buffer.alloc(0) })),
    });
    const { bundles } = await client.fetchX509Context();
    expect([...bundles].map(({ trustDomain, x509: { authorities } }) => [trustDomain.name, authorities.length])).toEqual([
      ['bare.org', 1],
      ['empty.org', 0],
      ['example.org', 1],
      ['far.org', 2],
    ]);
  });

  test('authenticates X.509-SVIDs only: its bundles have no JWT authority (WAPI-26)', async () => {
    const { client } = await workload({ fetchX509SVID: holding(x509([web])) });
    const { bundles } = await client.fetchX509Context();
    const token = (await jwt('/web', ['db'])).token;
    expect(() => validateJwtSvidSync(token, { audience: ['db'], bundles, clock: { now: () => NOW_MS } })).toThrow(/no JWT authorities/);
  });

  test('of SVIDs with the same hint the first counts, of those without each (WAPI-31)', async () => {
    const svids = await Promise.all(
      ['A:internal', 'B:external', 'C:internal', 'D:', 'E:'].map((one) => {
        const [path = '', hint] = one.split(':');
        return svidOf(`/${path}`, hint);
      }),
    );
    const { client } = await workload({ fetchX509SVID: holding(x509(svids)) });
    expect((await client.fetchX509Svids()).map((svid) => svid.id.path)).toEqual(['/A', '/B', '/D', '/E']);
  });

  test('an SVID is found by its hint, and never another one in its place (WAPI-80)', async () => {
    const { client } = await workload({ fetchX509SVID: holding(x509([admin, web])) });
    expect((await client.fetchX509Svid({ hint: 'internal' })).id.path).toBe('/web');
    expect(await failure(client.fetchX509Svid({ hint: 'external' }))).toMatchObject({ code: 'NOT_FOUND' });
  });

  /** Each a fault in an answer that is right without it. */
  const faults: readonly [what: string, make: () => X509Answer | Encoded, error: object][] = [
    ['no SVID (WAPI-18)', () => x509([]), { code: 'SVID_INVALID', reason: 'WAPI_FIELD_MISSING' }],
    ['no ID', () => x509([{ ...web, spiffeId: '' }]), { reason: 'WAPI_FIELD_MISSING', message: /empty spiffe_id/ }],
    ['no certificate', () => x509([{ ...web, x509Svid: Buffer.alloc(0) }]), { reason: 'WAPI_FIELD_MISSING', message: /empty x509_svid$/ }],
    ['no key', () => x509([{ ...web, x509SvidKey: Buffer.alloc(0) }]), { reason: 'WAPI_FIELD_MISSING', message: /empty x509_svid_key/ }],
    ['no bundle', () => x509([{ ...web, bundle: Buffer.alloc(0) }]), { reason: 'WAPI_FIELD_MISSING', message: /empty bundle/ }],
    ['a second SVID without bundle', () => x509([web, { ...admin, bundle: Buffer.alloc(0) }]), { reason: 'WAPI_FIELD_MISSING' }],
    ['the ID of another', () => x509([{ ...web, spiffeId: 'spiffe://example.org/admin' }]), { reason: 'WAPI_MISMATCH' }],
    ['the key of another', () => x509([{ ...web, x509SvidKey: admin.x509SvidKey }]), { code: 'SVID_INVALID', reason: 'KEY_MISMATCH' }],
    ['a key that is none', () => x509([{ ...web, x509SvidKey: Buffer.from('key') }]), { code: 'SVID_INVALID', reason: 'KEY_MALFORMED' }],
    ['PEM for DER (WAPI-21)', () => x509([{ ...web, x509Svid: Buffer.from(root.pem) }]), { code: 'SVID_INVALID' }],
    [
      'a byte behind the chain',
      () => x509([{ ...web, x509Svid: Buffer.concat([web.x509Svid, Buffer.from([0])]) }]),
      { code: 'SVID_INVALID' },
    ],
    ['a cut bundle', () => x509([{ ...web, bundle: web.bundle.subarray(1) }]), { code: 'BUNDLE_INVALID' }],
    ['another fault behind a hint that came before', () => x509([web, { ...web, x509Svid: Buffer.from([1]) }]), { code: 'SVID_INVALID' }],
    [
      'two bundles of one trust domain',
      () => x509([web, { ...admin, bundle: farRoot.der }]),
      { code: 'BUNDLE_INVALID', reason: 'WAPI_MISMATCH' },
    ],
    ['a federated bundle in place of our own', () => x509([web], { 'spiffe://example.org': farRoot.der }), { reason: 'WAPI_MISMATCH' }],
    ['a federated bundle of no trust domain', () => x509([web], { 'spiffe://Far.org': farRoot.der }), { code: 'ID_INVALID' }],
    ['a federated bundle of a workload', () => x509([web], { 'spiffe://far.org/web': farRoot.der }), { reason: 'WAPI_MISMATCH' }],
    ['a federated bundle of garbage', () => x509([web], { 'spiffe://far.org': Buffer.from('x') }), { code: 'BUNDLE_INVALID' }],
    ['bytes that are no message', () => new Encoded(Buffer.from('0aff', 'hex')), { code: 'INTERNAL' }],
  ];
  for (const [what, make, error] of faults) {
    test(`with ${what} is refused whole`, async () => {
      const { client } = await workload({ fetchX509SVID: holding(make()) });
      const seen = await failure(client.fetchX509Context());
      const { message, ...rest } = error as { message?: RegExp };
      expect(seen).toMatchObject(rest);
      if (message) expect((seen as Error).message).toMatch(message);
    });
  }

  test('a bundle that comes twice and is the same is one bundle', async () => {
    const { client } = await workload({ fetchX509SVID: holding(x509([web, admin], { 'spiffe://example.org': root.der })) });
    expect((await client.fetchX509Context()).bundles.size).toBe(1);
  });
});

describe('a fetch', () => {
  test('takes the first answer and lets the stream go', async () => {
    const { api, client } = await workload({ fetchX509SVID: holding(x509([web]), x509([admin])) });
    expect((await client.fetchX509Svid()).id.path).toBe('/web');
    await until(() => api.calls[0]?.signal.aborted === true);
  });

  for (const [code, status] of [
    ['DENIED', 'no identity issued'],
    ['UNAVAILABLE', 'not ready'],
    ['REQUEST_INVALID', 'security header missing from request'],
  ] as const) {
    test(`throws ${code} with the server's words, and does not try again`, async () => {
      const { api, client } = await workload({
        fetchX509SVID: refusing(code, status),
      });
      expect(await failure(client.fetchX509Context())).toMatchObject({ code, message: status });
      expect(api.calls).toHaveLength(1);
    });
  }

  test('throws UNAVAILABLE when the stream ends without an answer', async () => {
    const { client } = await workload({ async *fetchX509SVID() {} });
    expect(await failure(client.fetchX509Context())).toMatchObject({ code: 'UNAVAILABLE' });
  });

  test('throws UNAVAILABLE when nobody listens', async () => {
    const client = new WorkloadApiClient({ address: 'unix:///nobody/is/here.sock' });
    expect(await failure(client.fetchX509Context())).toMatchObject({ code: 'UNAVAILABLE' });
    client.close();
  });

  test('ends with the reason of its signal, and the server hears of it', async () => {
    const { api, client } = await workload({ fetchX509SVID: holding(), fetchJWTSVID: (_request, { signal }) => gone(signal) });
    for (const fetch of [
      (signal: AbortSignal) => client.fetchX509Context({ signal }),
      (signal: AbortSignal) => client.fetchJwtSvid({ audience: 'db', signal }),
    ]) {
      const stop = new AbortController();
      const count = api.calls.length;
      const ended = failure(fetch(stop.signal));
      await until(() => api.calls.length > count);
      const reason = new Error('enough');
      stop.abort(reason);
      expect(await ended).toBe(reason);
      await until(() => api.calls[count]?.signal.aborted === true);
    }
  });

  test('of a closed client throws CLOSED, and one under way ends so', async () => {
    const { api, client } = await workload({ fetchX509SVID: holding(), fetchJWTSVID: (_request, { signal }) => gone(signal) });
    const ended = [client.fetchX509Context(), client.fetchJwtSvid({ audience: 'db' }), client.watchX509Context().next()].map(failure);
    await until(() => api.calls.length === 3);
    client.close();
    for (const error of await Promise.all(ended)) expect(error).toMatchObject({ code: 'CLOSED' });
    expect(await failure(client.fetchX509Context())).toMatchObject({ code: 'CLOSED' });
    expect(await failure(client.fetchJwtSvid({ audience: 'db' }))).toMatchObject({ code: 'CLOSED' });
    expect(await failure(client.watchJwtBundles().next())).toMatchObject({ code: 'CLOSED' });
  });
});

describe('X.509 bundles', () => {
  const answer = (bundles: Record<string, Buffer>): X509BundlesResponse => ({ crl: [], bundles });

  test('come by trust domain, for a workload without an identity, and validate no token (WAPI-35)', async () => {
    const { client } = await workload({
      fetchX509Bundles: holding(answer({ 'spiffe://example.org': root.der, 'spiffe://far.org': farRoot.der })),
    });
    const bundles = await client.fetchX509Bundles();
    expect([...bundles].map(({ trustDomain }) => trustDomain.name)).toEqual(['example.org', 'far.org']);
    expect(bundles.jwtBundle(td)?.isEmpty).toBe(true);
    const { token } = await jwt('/web', ['db']);
    expect(() => validateJwtSvidSync(token, { audience: ['db'], bundles, clock: { now: () => NOW_MS } })).toThrow(/no JWT authorities/);
  });

  for (const [what, make] of [
    ['none (WAPI-36)', () => ({})],
    ['garbage', () => ({ 'spiffe://example.org': Buffer.from('x') })],
    ['a malformed trust domain', () => ({ 'spiffe://EXAMPLE.org': root.der })],
    ['two that differ, by ID and by bare name', () => ({ 'spiffe://example.org': root.der, 'example.org': farRoot.der })],
  ] as const) {
    test(`with ${what} are refused`, async () => {
      const { client } = await workload({ fetchX509Bundles: holding(answer(make())) });
      expect(await failure(client.fetchX509Bundles())).toMatchObject({ code: expect.stringMatching(/_INVALID$/) });
    });
  }
});

let keys: Awaited<ReturnType<typeof testCertificate>>;
beforeAll(async () => {
  keys = await testCertificate();
});

function jwt(path: string, aud: readonly string[], exp = NOW_MS / 1000 + 300) {
  return signJwtSvid({ alg: 'ES256', kid: 'k', claims: { sub: `spiffe://example.org${path}`, aud, exp } }, async (data) =>
    sign('sha256', data, { key: keys.key, dsaEncoding: 'ieee-p1363' }),
  );
}

const jwtAnswer = async (
  ...tokens: readonly [path: string, hint: string, aud?: readonly string[], exp?: number][]
): Promise<JWTSVIDResponse> => ({
  svids: await Promise.all(
    tokens.map(async ([path, hint, aud = ['db'], exp]) => ({
      spiffeId: `spiffe://example.org${path}`,
      svid: (await jwt(path, aud, exp)).token,
      hint,
    })),
  ),
});

describe('JWT-SVIDs', () => {
  const clock = new FakeClock(NOW_MS);

  test('are asked for by audiences and subject (WAPI-40, WAPI-42)', async () => {
    const asked: unknown[] = [];
    const { client } = await workload(
      {
        fetchJWTSVID: async (request) => {
          asked.push(request);
          return jwtAnswer(['/web', 'internal', request.audience]);
        },
      },
      { clock },
    );
    const svid = await client.fetchJwtSvid({ audience: 'db', extraAudiences: ['cache', 'queue'], subject: id('/web') });
    expect([String(svid.id), svid.audience, svid.hint]).toEqual(['spiffe://example.org/web', ['db', 'cache', 'queue'], 'internal']);
    await client.fetchJwtSvid({ audience: 'db' });
    expect(asked).toEqual([
      { audience: ['db', 'cache', 'queue'], spiffeId: 'spiffe://example.org/web' },
      { audience: ['db'], spiffeId: '' },
    ]);
  });

  test('come for each identity, one per hint, the first being the default (WAPI-41, WAPI-46)', async () => {
    const tokens = await jwtAnswer(['/A', 'internal'], ['/B', 'external'], ['/C', 'internal'], ['/D', ''], ['/E', '']);
    const { client } = await workload({ fetchJWTSVID: async () => tokens }, { clock });
    expect((await client.fetchJwtSvids({ audience: 'db' })).map((svid) => svid.id.path)).toEqual(['/A', '/B', '/D', '/E']);
    expect((await client.fetchJwtSvid({ audience: 'db' })).id.path).toBe('/A');
    expect((await client.fetchJwtSvid({ audience: 'db', hint: 'external' })).id.path).toBe('/B');
    expect(await failure(client.fetchJwtSvid({ audience: 'db', hint: 'other' }))).toMatchObject({ code: 'NOT_FOUND' });
  });

  test('are not asked for without an audience', async () => {
    const { api, client } = await workload({ fetchJWTSVID: () => jwtAnswer(['/web', '']) }, { clock });
    for (const audience of [{ audience: '' }, { audience: 'db', extraAudiences: [''] }]) {
      expect(await failure(client.fetchJwtSvid(audience))).toMatchObject({ code: 'REQUEST_INVALID', reason: 'JWT_EXPECTED_AUDIENCE' });
    }
    expect(api.calls).toEqual([]);
  });

  const edit = async (change: object) => ({ svids: (await jwtAnswer(['/web', ''])).svids.map((one) => ({ ...one, ...change })) });
  const faults: readonly [what: string, make: () => Promise<JWTSVIDResponse>, error: object][] = [
    ['no token at all (WAPI-43)', async () => ({ svids: [] }), { code: 'SVID_INVALID', reason: 'WAPI_FIELD_MISSING' }],
    ['an empty ID (WAPI-44)', () => edit({ spiffeId: '' }), { reason: 'WAPI_FIELD_MISSING' }],
    ['an empty token', () => edit({ svid: '' }), { reason: 'WAPI_FIELD_MISSING' }],
    ['a token that is none', () => edit({ svid: 'a.b' }), { code: 'SVID_INVALID', reason: 'JWT_SERIALIZATION' }],
    ['the token of another', () => edit({ spiffeId: 'spiffe://example.org/admin' }), { reason: 'WAPI_MISMATCH' }],
    ['another subject than was asked for', () => jwtAnswer(['/admin', '']), { reason: 'WAPI_MISMATCH' }],
    ['a token for another audience', () => jwtAnswer(['/web', '', ['cache']]), { reason: 'JWT_AUD_UNEXPECTED' }],
    ['an expired token', () => jwtAnswer(['/web', '', ['db'], NOW_MS / 1000 - 60]), { code: 'SVID_EXPIRED', reason: 'JWT_EXPIRED' }],
  ];
  test('the answer that each of the next tests spoils is taken', async () => {
    const { client } = await workload({ fetchJWTSVID: () => edit({}) }, { clock });
    expect((await client.fetchJwtSvid({ audience: 'db', subject: id('/web') })).id.path).toBe('/web');
  });
  for (const [what, make, error] of faults) {
    test(`with ${what} are refused`, async () => {
      const { client } = await workload({ fetchJWTSVID: make }, { clock });
      expect(await failure(client.fetchJwtSvids({ audience: 'db', subject: id('/web') }))).toMatchObject(error);
    });
  }
});

describe('JWT bundles', () => {
  const jwks = () => Buffer.from(new JwtBundle(td, [jwtAuthority('k', keys.key)]).toJwks());

  test('validate tokens, and no certificate (WAPI-48, WAPI-50)', async () => {
    const { client } = await workload({ fetchJWTBundles: holding({ bundles: { 'spiffe://example.org': jwks() } }) });
    const bundles = await client.fetchJwtBundles();
    const { token } = await jwt('/web', ['db']);
    expect(String(validateJwtSvidSync(token, { audience: ['db'], bundles, clock: { now: () => NOW_MS } }).id)).toBe(
      'spiffe://example.org/web',
    );
    expect(() => verifyX509Svid([web.x509Svid], bundles, { nowMs: NOW_MS })).toThrow(/no authorities/);
  });

  for (const [what, bundles] of [
    ['none (WAPI-49)', {}],
    ['no JSON', { 'spiffe://example.org': Buffer.from('{') }],
    ['no keys', { 'spiffe://example.org': Buffer.from('{}') }],
    ['bytes that are no UTF-8', { 'spiffe://example.org': Buffer.from([0x22, 0xff, 0x22]) }],
    ['a malformed trust domain', { 'spiffe://example.org:80': Buffer.from('{"keys":[]}') }],
  ] as const) {
    test(`with ${what} are refused`, async () => {
      const { client } = await workload({ fetchJWTBundles: holding({ bundles }) });
      expect(await failure(client.fetchJwtBundles())).toMatchObject({ code: expect.stringMatching(/_INVALID$/) });
    });
  }
});

describe('validation by the server', () => {
  const told = { sub: 'spiffe://example.org/web', aud: ['db'], exp: 1 };

  test('gives the ID and the claims that the server vouches for (WAPI-56, WAPI-59)', async () => {
    const asked: unknown[] = [];
    const { client } = await workload({
      validateJWTSVID: async (request) => {
        asked.push(request);
        return { spiffeId: 'spiffe://example.org/web', claims: told };
      },
    });
    const { token } = await jwt('/web', ['db']);
    const valid = await client.validateJwtSvid({ token, audience: 'db' });
    expect([String(valid.id), valid.claims, valid.svid.token]).toEqual(['spiffe://example.org/web', told, token]);
    expect(asked).toEqual([{ audience: 'db', svid: token }]);
  });

  for (const [what, answer] of [
    ['without an ID (WAPI-58)', { spiffeId: '', claims: told }],
    ['without claims (WAPI-58)', { spiffeId: 'spiffe://example.org/web', claims: undefined }],
    ['about another', { spiffeId: 'spiffe://example.org/admin', claims: { ...told, sub: 'spiffe://example.org/admin' } }],
    ["with another's claims", { spiffeId: 'spiffe://example.org/web', claims: { ...told, sub: 'spiffe://example.org/admin' } }],
    ['about no ID', { spiffeId: 'web', claims: { ...told, sub: 'web' } }],
  ] as const) {
    test(`an answer ${what} is refused`, async () => {
      const { client } = await workload({ validateJWTSVID: async () => ({ ...answer, claims: answer.claims && { ...answer.claims } }) });
      const { token } = await jwt('/web', ['db']);
      expect(await failure(client.validateJwtSvid({ token, audience: 'db' }))).toMatchObject({
        code: expect.stringMatching(/_INVALID$/),
      });
    });
  }

  test('a yes for another audience is refused', async () => {
    const { client } = await workload({ validateJWTSVID: async () => ({ spiffeId: 'spiffe://example.org/web', claims: told }) });
    const { token } = await jwt('/web', ['cache']);
    expect(await failure(client.validateJwtSvid({ token, audience: 'db' }))).toMatchObject({ reason: 'JWT_AUD_UNEXPECTED' });
  });

  test('a no comes with the words of the server', async () => {
    const { client } = await workload({
      validateJWTSVID: () => Promise.reject(fail('SVID_INVALID', 'token has expired')),
    });
    expect(await failure(client.validateJwtSvid({ token: 'x', audience: 'db' }))).toMatchObject({
      code: 'REQUEST_INVALID',
      message: 'token has expired',
    });
  });
});

describe('a watch', () => {
  test('yields each answer whole, and keeps nothing of the one before (WAPI-9, WAPI-14, WAPI-15, WAPI-16)', async () => {
    const next = later();
    const { api, client } = await workload({
      async *fetchX509SVID(_request, { signal }) {
        yield x509([web, admin], { 'spiffe://far.org': farRoot.der });
        await next.come;
        yield x509([admin]);
        await gone(signal);
      },
    });
    const values = client.watchX509Context();
    const before = (await values.next()).value;
    expect([before.svids.length, before.bundles.size]).toEqual([2, 2]);
    next.now();
    const after = (await values.next()).value;
    expect([after.svids.map((svid) => svid.id.path), after.bundles.get(far)]).toEqual([['/admin'], undefined]);
    await values.return(undefined as never);
    await until(() => api.calls[0]?.signal.aborted === true);
  });

  test('tells of a malformed answer, keeps the stream, and takes the next one (WAPI-7, WAPI-18)', async () => {
    const { api, client } = await workload({ fetchX509SVID: holding(x509([]), x509([{ ...web, spiffeId: '' }]), x509([web])) });
    const told: unknown[] = [];
    const values = client.watchX509Context({ onError: (error) => told.push(error) });
    expect((await values.next()).value.svids.map((svid) => svid.id.path)).toEqual(['/web']);
    expect(told).toHaveLength(2);
    for (const error of told) expect(error).toMatchObject({ code: 'SVID_INVALID', reason: 'WAPI_FIELD_MISSING' });
    expect(api.calls).toHaveLength(1);
    await values.return(undefined as never);
  });

  test('outlives a restart of the server, a late socket too (WAPI-8, WE-24)', async () => {
    const clock = new FakeClock();
    const { api, client } = await workload({ fetchX509SVID: holding(x509([web])) }, { clock });
    await api.stop();
    const codes: Code[] = [];
    const values = client.watchX509Context({ onError: (error) => codes.push((error as { code: Code }).code) });
    const first = values.next();
    await until(() => clock.waiting === 1);
    await api.start();
    await comes(first, clock);

    const count = codes.length;
    const second = values.next();
    await api.stop();
    await until(() => codes.length > count);
    await api.start();
    await comes(second, clock);
    expect(new Set(codes)).toEqual(new Set(['UNAVAILABLE']));
    await values.return(undefined as never);
  });

  test('waits as it was told between tries, by the clock it was given', async () => {
    const clock = new FakeClock();
    const tries: number[] = [];
    const { api, client } = await workload(
      {
        fetchX509SVID: refusing('DENIED', 'no identity issued'),
      },
      {
        clock,
        backoff: (n) => {
          tries.push(n);
          return n * 10_000;
        },
      },
    );
    const stop = new AbortController();
    const codes: Code[] = [];
    const ended = failure(
      client.watchX509Context({ signal: stop.signal, onError: (error) => codes.push((error as { code: Code }).code) }).next(),
    );
    for (let n = 1; n <= 4; n++) {
      await until(() => clock.waiting === 1);
      await clock.advance(n * 10_000 - 1);
      expect(api.calls).toHaveLength(n);
      await clock.advance(1);
      await until(() => api.calls.length === n + 1);
    }
    await until(() => clock.waiting === 1);
    expect([tries, codes]).toEqual([[1, 2, 3, 4, 5], Array<Code>(5).fill('DENIED')]);
    const reason = new Error('enough');
    stop.abort(reason);
    expect(await ended).toBe(reason);
    expect(clock.waiting).toBe(0);
  });

  test('hears that everything was taken back, and begins anew when it comes again (WAPI-33, WAPI-34)', async () => {
    const clock = new FakeClock();
    const revoked = later();
    let opened = 0;
    const { client } = await workload(
      {
        async *fetchX509SVID(_request, { signal }) {
          yield x509([opened++ === 0 ? web : admin]);
          if (opened > 1) return gone(signal);
          await revoked.come;
          throw fail('DENIED', 'no identity issued');
        },
      },
      { clock },
    );
    const told: unknown[] = [];
    const values = client.watchX509Context({ onError: (error) => told.push(error) });
    expect((await values.next()).value.svids[0]?.id.path).toBe('/web');
    revoked.now();
    await until(() => clock.waiting === 1);
    expect(told).toMatchObject([{ code: 'DENIED', message: 'no identity issued' }]);
    const next = values.next();
    await clock.advance(2000);
    expect((await next).value.svids[0]?.id.path).toBe('/admin');
    await values.return(undefined as never);
  });

  test('ends with INVALID_ARGUMENT, and asks no more (WE-22)', async () => {
    const clock = new FakeClock();
    const { api, client } = await workload(
      {
        fetchX509SVID: refusing('REQUEST_INVALID', 'security header missing from request'),
      },
      { clock },
    );
    expect(await failure(client.watchX509Context().next())).toMatchObject({ code: 'REQUEST_INVALID' });
    await clock.advance(60_000);
    expect(api.calls).toHaveLength(1);
  });

  test('of bundles drops what is no longer sent (WAPI-16, WAPI-39, WAPI-54)', async () => {
    const jwks = Buffer.from('{"keys":[]}');
    const { client } = await workload({
      fetchX509Bundles: holding(
        { crl: [], bundles: { 'spiffe://example.org': root.der, 'spiffe://far.org': farRoot.der } },
        { crl: [], bundles: { 'spiffe://example.org': root.der } },
      ),
      fetchJWTBundles: holding(
        { bundles: { 'spiffe://example.org': jwks, 'spiffe://far.org': jwks } },
        { bundles: { 'spiffe://example.org': jwks } },
      ),
    });
    for (const values of [client.watchX509Bundles(), client.watchJwtBundles()]) {
      for await (const bundles of values) if (!bundles.get(far)) break;
    }
  });

  test('that nobody reads does not hold up the server, and its reader gets the newest', async () => {
    const last = later();
    const { client } = await workload({
      async *fetchX509Bundles(_request, { signal }) {
        // far more than the windows of HTTP/2 hold
        for (let i = 0; i < 300; i++) yield { crl: [], bundles: { 'spiffe://example.org': Buffer.concat(Array(20).fill(root.der)) } };
        yield { crl: [], bundles: { 'spiffe://far.org': farRoot.der } };
        last.now();
        await gone(signal);
      },
    });
    const values = client.watchX509Bundles();
    await values.next();
    await last.come;
    for await (const bundles of values) if (bundles.get(far)) break;
  });
});

/** Lets time pass until it is there. */
async function comes(value: Promise<unknown>, clock: FakeClock): Promise<void> {
  let there = false;
  void value.finally(() => {
    there = true;
  });
  while (!there) await clock.advance(1000);
}

/** A TCP port that leads to a UNIX socket. */
async function bridge(path: string): Promise<Server> {
  const { connect } = await import('node:net');
  const server = createServer((socket) => {
    const inner = connect(path);
    for (const [from, to] of [
      [socket, inner],
      [inner, socket],
    ] as const) {
      from.on('error', () => to.destroy());
      from.pipe(to);
    }
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return server;
}
