/** The fake Workload API: the truth of a trust domain for our client and for grpc-js, changes told, and bad days on command. */
import { existsSync } from 'node:fs';
import { createConnection } from 'node:net';
import { dirname } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { SpiffeWorkloadAPIDefinition } from '../../../proto/gen/spiffe/workload/workload.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { openChannel } from '../../../spiffe/rpc/channel.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi, type WorkloadState } from '../../../spiffe/testing/workload-api.ts';
import { WorkloadApiClient, type X509Context } from '../../../spiffe/workload-api/client.ts';
import { verifyX509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { FakeClock } from '../../fakes/clock.ts';

const clock = new FakeClock();
const far = EphemeralTrustDomain.create('far.org', { clock });
const farDomain = TrustDomain.parse('far.org');
const HEADER = { 'workload.spiffe.io': 'true' };

async function workload(state: WorkloadState = {}) {
  const domain = EphemeralTrustDomain.create('example.org', { clock });
  const api = await FakeWorkloadApi.start(domain, state);
  const client = new WorkloadApiClient({ address: api.address, clock, backoff: () => 0 });
  onTestFinished(async () => {
    client.close();
    await api[Symbol.asyncDispose]();
  });
  return { domain, api, client };
}

const failure = (promise: PromiseLike<unknown>) =>
  Promise.resolve(promise).then(
    () => 'no error',
    (error: unknown) => error,
  );
const paths = ({ svids }: X509Context) => svids.map((svid) => svid.id.path);

describe('the truth', () => {
  test('of X.509: each identity in order, with its hint, and every bundle', async () => {
    const { domain, api, client } = await workload({
      identities: [{ path: '/web', hint: 'internal', dnsNames: ['web.example.org'], ttlMs: 20_000 }, '/admin'],
      federated: [far],
    });
    const context = await client.fetchX509Context();
    expect(context.svids.map((svid) => [svid.id.path, svid.hint])).toEqual([
      ['/web', 'internal'],
      ['/admin', ''],
    ]);
    expect(context.svids.every((svid, i) => svid.equals(api.svids[i] as (typeof context.svids)[number]))).toBe(true);
    expect(context.svids[0]).toMatchObject({ leaf: { dnsNames: ['web.example.org'] }, notAfterMs: clock.now() + 20_000 });
    for (const svid of context.svids) verifyX509Svid(svid.chain, context.bundles, { nowMs: clock.now() });
    expect(context.bundles.x509Bundle(farDomain)?.equals(far.bundle.x509)).toBe(true);
    const bundles = await client.fetchX509Bundles();
    expect([...bundles].map((one) => one.x509.equals((one.trustDomain.equals(farDomain) ? far : domain).bundle.x509))).toEqual([
      true,
      true,
    ]);
  });

  test('of JWT: a token for each identity or for the one that was asked for, and every bundle; they are valid', async () => {
    const { domain, client } = await workload({ identities: ['/web', { path: '/admin', jwtTtlMs: 60_000 }], federated: [far] });
    const both = await client.fetchJwtSvids({ audience: 'db', extraAudiences: ['cache'] });
    expect(both.map((svid) => [svid.id.path, svid.audience, svid.expiresMs - clock.now()])).toEqual([
      ['/web', ['db', 'cache'], 300_000],
      ['/admin', ['db', 'cache'], 60_000],
    ]);
    const admin = await client.fetchJwtSvid({ audience: 'db', subject: domain.id('/admin') });
    expect(await client.validateJwtSvid({ token: admin.token, audience: 'db' })).toMatchObject({ id: domain.id('/admin') });
    expect((await client.fetchJwtBundles()).jwtBundle(farDomain)?.equals(far.bundle.jwt)).toBe(true);
    const foreign = far.jwtSvid('/x', { audience: 'db' });
    expect(await client.validateJwtSvid({ token: foreign, audience: 'db' })).toMatchObject({ id: far.id('/x') });
  });

  test('is refused where a real agent refuses it', async () => {
    const { domain, client, api } = await workload();
    const { token } = await client.fetchJwtSvid({ audience: 'db' });
    expect(await failure(client.validateJwtSvid({ token, audience: 'cache' }))).toMatchObject({ code: 'REQUEST_INVALID' });
    expect(await failure(client.validateJwtSvid({ token: far.jwtSvid('/x', { audience: 'db' }), audience: 'db' }))).toMatchObject({
      code: 'REQUEST_INVALID',
      message: expect.stringContaining('far.org'),
    });
    expect(await failure(client.fetchJwtSvid({ audience: 'db', subject: domain.id('/other') }))).toMatchObject({ code: 'DENIED' });
    api.set({ identities: [] });
    for (const call of [
      client.fetchX509Context(),
      client.fetchX509Bundles(),
      client.fetchJwtBundles(),
      client.fetchJwtSvid({ audience: 'db' }),
    ])
      expect(await failure(call)).toMatchObject({ code: 'DENIED', message: 'no identity issued' });
  });

  test('is the same over grpc-js; a call without the header, or of an unknown method, is refused', async () => {
    const { api } = await workload();
    const channel = openChannel({ target: api.address });
    onTestFinished(() => channel.close());
    const calls = channel.service(SpiffeWorkloadAPIDefinition);
    for await (const answer of calls.fetchX509SVID({}, { metadata: HEADER })) {
      expect(answer.svids[0]?.spiffeId).toBe('spiffe://example.org/workload');
      break;
    }
    const { svids } = await calls.fetchJWTSVID({ audience: ['db'], spiffeId: '' }, { metadata: HEADER });
    expect(svids).toHaveLength(1);
    for (const metadata of [{}, { 'workload.spiffe.io': 'True' }])
      expect(await failure(calls.fetchJWTSVID({ audience: ['db'], spiffeId: '' }, { metadata }))).toMatchObject({
        code: 'REQUEST_INVALID',
        message: 'security header missing from request',
      });
    expect(await failure(calls.fetchJWTSVID({ audience: [], spiffeId: '' }, { metadata: HEADER }))).toMatchObject({
      code: 'REQUEST_INVALID',
    });
    const wit = calls.fetchWITSVID({ spiffeId: '' }, { metadata: HEADER })[Symbol.asyncIterator]();
    expect(await failure(wit.next())).toMatchObject({ code: 'UNIMPLEMENTED' });
  });

  test('calls are recorded as they came', async () => {
    const { api, client, domain } = await workload();
    await client.fetchJwtSvid({ audience: 'db', extraAudiences: ['cache'], subject: domain.id('/workload') });
    await api.called('FetchJWTSVID');
    const later = api.called('FetchX509SVID', 2);
    await client.fetchX509Context();
    await client.fetchX509Context();
    await later;
    expect(api.calls.map((call) => call.method)).toEqual(['FetchJWTSVID', 'FetchX509SVID', 'FetchX509SVID']);
    expect(api.calls[0]).toMatchObject({
      audience: ['db', 'cache'],
      spiffeId: 'spiffe://example.org/workload',
      headers: { 'workload.spiffe.io': 'true' },
    });
    expect(api.connections).toBe(1);
    expect(await failure(api.called('FetchX509SVID', 3, AbortSignal.abort(new Error('enough'))))).toMatchObject({ message: 'enough' });
  });
});

describe('open streams are told', () => {
  test('of other identities and bundles, of renewal and of rotation', async () => {
    const { domain, api, client } = await workload({ identities: ['/web'] });
    const answers = client.watchX509Context();
    const next = async () => (await answers.next()).value;
    const first = await next();
    expect([paths(first), first.bundles.size]).toEqual([['/web'], 1]);
    api.set({ identities: ['/web', '/admin'], federated: [far] });
    expect(paths(await next())).toEqual(['/web', '/admin']);
    api.set({ federated: [] });
    expect((await next()).bundles.size).toBe(1);
    api.renew();
    const renewed = await next();
    expect([renewed.svids[0]?.leaf.issuer, renewed.svids[0]?.equals(first.svids[0] as (typeof first.svids)[0])]).toEqual([
      first.svids[0]?.leaf.issuer,
      false,
    ]);
    api.rotate();
    const rotated = await next();
    expect(rotated.bundles.x509Bundle(domain.trustDomain)?.authorities).toHaveLength(2);
    expect(rotated.svids[0]?.leaf.issuer).not.toEqual(first.svids[0]?.leaf.issuer);
    domain.retire();
    api.push();
    const retired = await next();
    expect(retired.bundles.x509Bundle(domain.trustDomain)?.authorities).toHaveLength(1);
    verifyX509Svid(retired.svids[0]?.chain ?? [], retired.bundles, { nowMs: clock.now() });
    expect(api.calls).toHaveLength(1);
    await answers.return(undefined as never);
  });
});

describe('a bad day', () => {
  test('late start: nobody listens until start, and the address is known before', async () => {
    const api = new FakeWorkloadApi(EphemeralTrustDomain.create('example.org', { clock }));
    const client = new WorkloadApiClient({ address: api.address, clock });
    expect(await failure(client.fetchX509Context())).toMatchObject({ code: 'UNAVAILABLE' });
    await api.start();
    expect(paths(await client.fetchX509Context())).toEqual(['/workload']);
    client.close();
    await api[Symbol.asyncDispose]();
    expect(existsSync(dirname(api.address.slice('unix://'.length)))).toBe(false);
  });

  test('stop and start: the socket goes, and comes back at the same address; twice is as once', async () => {
    const { api, client } = await workload();
    await client.fetchX509Context();
    const open = failure(client.fetchX509Bundles());
    await open;
    await api.stop();
    await api.stop();
    expect(existsSync(api.address.slice('unix://'.length))).toBe(false);
    expect(await failure(client.fetchX509Context())).toMatchObject({ code: 'UNAVAILABLE' });
    await api.start();
    await api.start();
    expect(paths(await client.fetchX509Context())).toEqual(['/workload']);
    expect(api.connections).toBe(2);
  });

  test('drop: open streams break off, the next connection is taken', async () => {
    const { api, client } = await workload();
    const failures: unknown[] = [];
    const answers = client.watchX509Context({ onError: (error) => failures.push(error) });
    await answers.next();
    api.drop();
    const again = answers.next();
    await clock.advance(0);
    await api.called('FetchX509SVID', 2);
    expect(paths((await again).value)).toEqual(['/workload']);
    expect(failures).toMatchObject([{ code: 'UNAVAILABLE' }]);
    expect(api.connections).toBe(2);
    expect(api.calls[0]?.signal.aborted).toBe(true);
    await answers.return(undefined as never);
  });

  test('deny and refuse: open calls end with that status, later ones too, until resume', async () => {
    const { api, client } = await workload();
    const failures: unknown[] = [];
    const answers = client.watchX509Context({ onError: (error) => failures.push(error) });
    await answers.next();
    const ended = new Promise((resolve) => api.calls[0]?.signal.addEventListener('abort', resolve));
    api.deny();
    await ended;
    expect(await failure(client.fetchJwtSvid({ audience: 'db' }))).toMatchObject({ code: 'DENIED', message: 'no identity issued' });
    api.refuse(14, 'not ready: 100 %');
    expect(await failure(client.fetchX509Bundles())).toMatchObject({ code: 'UNAVAILABLE', message: 'not ready: 100 %' });
    api.resume();
    expect(await client.fetchX509Bundles()).toBeTruthy();
    expect(failures[0]).toMatchObject({ code: 'DENIED' });
    await answers.return(undefined as never);
  });

  test('stall: calls hang until resume; what changed meanwhile is told then', async () => {
    const { api, client } = await workload();
    api.stall();
    const [x509, token] = [client.fetchX509Context(), client.fetchJwtSvid({ audience: 'db' })];
    await api.called('FetchX509SVID');
    await api.called('FetchJWTSVID');
    api.set({ identities: ['/other'] });
    api.resume();
    expect([paths(await x509), (await token).id.path]).toEqual([['/other'], '/other']);
  });

  test('stall: a caller who leaves is seen to leave', async () => {
    const { api, client } = await workload();
    api.stall();
    const stop = new AbortController();
    const call = failure(client.fetchJwtSvid({ audience: 'db', signal: stop.signal }));
    await api.called('FetchJWTSVID');
    const { signal } = api.calls[0] ?? {};
    const left = new Promise((resolve) => signal?.addEventListener('abort', resolve));
    stop.abort();
    await Promise.all([call, left]);
    api.resume();
  });

  test('garble: answers break the rules, in fields or altogether', async () => {
    const { api, client } = await workload();
    for (const [how, code] of [
      ['fields', 'SVID_INVALID'],
      ['octets', 'INTERNAL'],
    ] as const) {
      api.garble(how);
      expect(await failure(client.fetchX509Context())).toMatchObject({ code });
      expect(await failure(client.fetchJwtSvid({ audience: 'db' }))).toMatchObject({ code });
      api.resume();
      expect(paths(await client.fetchX509Context())).toEqual(['/workload']);
    }
  });

  test('a client that speaks no HTTP/2 does no harm', async () => {
    const { api, client } = await workload();
    const socket = createConnection(api.address.slice('unix://'.length));
    await new Promise<void>((resolve) => {
      socket.on('close', () => resolve());
      socket.on('error', () => {});
      socket.resume();
      socket.write('GET / HTTP/1.1\r\n\r\n');
    });
    expect(paths(await client.fetchX509Context())).toEqual(['/workload']);
  });
});
