/** The Workload API as a workload sees it: real gRPC over a real socket, an attestor that says what the test wants. */
import { JwtBundle } from '../../spiffe/jwt/jwt-bundle.ts';
import { X509Bundle } from '../../spiffe/x509/x509-bundle.ts';
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { fail } from '../../core/errors.ts';
import type { X509SVIDResponse } from '../../proto/gen/spiffe/workload/workload.ts';
import { splitCertificates } from '../../spiffe/x509/certificate.ts';
import { type CallOptions, rpcStatusOf } from '../../spiffe/rpc/calls.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { createRig, header, Reader, realm, type Realm, registration, type Rig, trustDomain } from './rig.ts';

let rig: Rig;
const readers: Reader<unknown>[] = [];
beforeEach(async () => {
  rig = await createRig();
});
afterEach(async () => {
  for (const reader of readers.splice(0)) await reader.close();
  await rig.close();
});

function read<T>(answers: AsyncIterable<T>): Reader<T> {
  const reader = new Reader(answers);
  readers.push(reader);
  return reader;
}
const x509 = (options: CallOptions = header) => read(rig.calls.fetchX509SVID({}, options));
const x509Bundles = (options: CallOptions = header) => read(rig.calls.fetchX509Bundles({}, options));
const jwtBundles = (options: CallOptions = header) => read(rig.calls.fetchJWTBundles({}, options));
const jwt = (audience: string[], spiffeId = '', options: CallOptions = header) => rig.calls.fetchJWTSVID({ audience, spiffeId }, options);
const validate = (svid: string, audience = 'db', options: CallOptions = header) => rig.calls.validateJWTSVID({ audience, svid }, options);
const ids = ({ svids }: Pick<X509SVIDResponse, 'svids'>) => svids.map(({ spiffeId }) => spiffeId.slice('spiffe://example.org'.length));
const apply = (...entries: ReturnType<typeof registration>[]) => rig.workloads.replica.apply(entries, []);
const remove = (...removed: string[]) => rig.workloads.replica.apply([], removed);
/** gRPC's number and text of what a call rejects with. */
async function refusal(call: Promise<unknown>): Promise<unknown> {
  const error: unknown = await call.then(
    () => new Error('it was answered'),
    (reason: unknown) => reason,
  );
  const status = rpcStatusOf(error);
  return status ? [status.code, status.text] : error;
}
const NOBODY = [7, 'no identity issued'];

describe('with entries synced', () => {
  beforeEach(() => rig.workloads.replica.synced());

  const METHODS: readonly (readonly [string, (options: CallOptions) => Promise<unknown>])[] = [
    ['FetchX509SVID', (options) => x509(options).next()],
    ['FetchX509Bundles', (options) => x509Bundles(options).next()],
    ['FetchJWTSVID', (options) => jwt(['db'], '', options)],
    ['FetchJWTBundles', (options) => jwtBundles(options).next()],
    ['ValidateJWTSVID', async (options) => validate(await rig.home.jwt(SpiffeId.of(trustDomain, '/x'), ['db']), 'db', options)],
    ['FetchWITSVID', (options) => read(rig.calls.fetchWITSVID({ spiffeId: '' }, options)).next()],
    ['FetchWITBundles', (options) => read(rig.calls.fetchWITBundles({}, options)).next()],
  ];
  for (const [name, call] of METHODS) {
    test(`WE-8, WE-21: ${name} without the header, or with another value, is INVALID_ARGUMENT before anything else`, async () => {
      apply(registration('1', '/web'));
      rig.selectors = undefined;
      for (const value of [undefined, 'True', 'TRUE', '1', '', 'true,true', 'false']) {
        const metadata: Record<string, string> = value === undefined ? {} : { 'workload.spiffe.io': value };
        expect(await refusal(call({ metadata }))).toEqual([3, 'security header missing from request']);
      }
      rig.selectors = ['a'];
      if (!name.includes('WIT')) await call(header);
    });
  }

  test('GEN-1, WAPI-62: the WIT profile is UNIMPLEMENTED', async () => {
    apply(registration('1', '/web'));
    expect(await refusal(read(rig.calls.fetchWITSVID({ spiffeId: '' }, header)).next())).toMatchObject([12, expect.anything()]);
    expect(await refusal(read(rig.calls.fetchWITBundles({}, header)).next())).toMatchObject([12, expect.anything()]);
  });

  test('WE-25, WAPI-32, 37, 47, 52: a caller that matches nothing is refused at once', async () => {
    apply(registration('1', '/other', { selectors: ['test:b'] }));
    expect(await refusal(x509().next())).toEqual(NOBODY);
    expect(await refusal(x509Bundles().next())).toEqual(NOBODY);
    expect(await refusal(jwtBundles().next())).toEqual(NOBODY);
    expect(await refusal(jwt(['db']))).toEqual(NOBODY);
  });

  test('an entry matches only a caller that has all of its selectors', async () => {
    apply(registration('1', '/one', { selectors: ['test:a', 'test:b'] }));
    expect(await refusal(x509().next())).toEqual(NOBODY);
    rig.selectors = ['a', 'b', 'c'];
    rig.workloads.replica.synced();
    // attested anew: an answer is kept for a second for one connection
    const other = await createRig();
    try {
      other.workloads.replica.synced();
      other.workloads.replica.apply([registration('1', '/one', { selectors: ['test:a', 'test:b'] })], []);
      other.selectors = ['a', 'b', 'c'];
      expect(ids(await read(other.calls.fetchX509SVID({}, header)).next())).toEqual(['/one']);
    } finally {
      for (const reader of readers.splice(0)) await reader.close();
      await other.close();
    }
  });

  test('a caller of whom nobody can tell anything is UNAVAILABLE, not refused', async () => {
    apply(registration('1', '/web'));
    rig.selectors = undefined;
    expect(await refusal(x509().next())).toEqual([14, 'workload attestation failed']);
  });

  test('WAPI-21, 22, 23, 29: an answer has leaf first, a PKCS#8 key that belongs to it, and the bundle', async () => {
    apply(registration('1', '/web', { hint: 'main' }));
    const { svids, crl, federatedBundles } = await x509().next();
    expect(svids).toHaveLength(1);
    const [svid] = svids;
    const [leaf] = splitCertificates(svid?.x509Svid ?? Buffer.alloc(0));
    const key = createPrivateKey({ key: svid?.x509SvidKey ?? Buffer.alloc(0), format: 'der', type: 'pkcs8' });
    expect(createPublicKey(key).export({ type: 'spki', format: 'der' })).toEqual(leaf?.spkiDer);
    expect(leaf?.uris).toEqual(['spiffe://example.org/web']);
    expect(X509Bundle.fromDer(trustDomain, svid?.bundle ?? Buffer.alloc(0)).equals(rig.home.bundle.x509)).toBe(true);
    expect(svid?.hint).toBe('main');
    expect([crl, federatedBundles]).toEqual([[], {}]);
  });

  test('ID-21: an identity of 2,048 bytes comes whole, as X.509-SVID and as JWT-SVID', async () => {
    const path = `/${'a'.repeat(2027)}`;
    apply(registration('1', path));
    const [svid] = (await x509().next()).svids;
    expect(svid?.spiffeId).toHaveLength(2048);
    expect(splitCertificates(svid?.x509Svid ?? Buffer.alloc(0))[0]?.uris).toEqual([`spiffe://example.org${path}`]);
    const [token] = (await jwt(['db'], `spiffe://example.org${path}`)).svids;
    expect((await validate(token?.svid ?? '')).spiffeId).toBe(`spiffe://example.org${path}`);
  });

  test('WAPI-9, 10, 27: an open stream is told of an entry that comes and one that goes, each time the whole state', async () => {
    apply(registration('1', '/web'));
    const stream = x509();
    expect(ids(await stream.next())).toEqual(['/web']);
    apply(registration('2', '/web-2'));
    expect(ids(await stream.next())).toEqual(['/web', '/web-2']);
    remove('1');
    expect(ids(await stream.next())).toEqual(['/web-2']);
  });

  test('WAPI-32: a stream whose last entry goes ends with PERMISSION_DENIED', async () => {
    apply(registration('1', '/web'));
    const [svids, bundles, keys] = [x509(), x509Bundles(), jwtBundles()];
    await Promise.all([svids.next(), bundles.next(), keys.next()]);
    remove('1');
    expect(await refusal(svids.next())).toEqual(NOBODY);
    expect(await refusal(bundles.next())).toEqual(NOBODY);
    expect(await refusal(keys.next())).toEqual(NOBODY);
  });

  test('WAPI-10: what changes nothing for a caller is not sent; the next message is the next change', async () => {
    apply(registration('1', '/web'));
    const stream = x509();
    await stream.next();
    apply(registration('2', '/other', { selectors: ['test:b'] }));
    rig.workloads.replica.synced();
    rig.workloads.replica.applyBundles([rig.home.bundle, (await realm('unseen.org')).bundle], [], true);
    apply(registration('3', '/web-3'));
    expect(ids(await stream.next())).toEqual(['/web', '/web-3']);
  });

  test('an updated entry gets a new SVID with a new key', async () => {
    apply(registration('1', '/web'));
    const stream = x509();
    const before = (await stream.next()).svids[0];
    apply(registration('1', '/web'));
    const after = (await stream.next()).svids[0];
    expect(after?.spiffeId).toBe(before?.spiffeId);
    expect(after?.x509SvidKey.equals(before?.x509SvidKey ?? Buffer.alloc(0))).toBe(false);
  });

  test('a caller that matches an entry which is not signed yet waits on its stream', async () => {
    rig.online = false;
    apply(registration('1', '/web'));
    const answer = x509().next();
    rig.online = true;
    rig.workloads.replica.synced();
    expect(ids(await answer)).toEqual(['/web']);
  });

  test('WAPI-30: of several with one hint the oldest stays; those without are all told', async () => {
    apply(
      registration('1', '/new', { hint: 'internal', createdAtMs: 2_000 }),
      registration('2', '/old', { hint: 'internal', createdAtMs: 1_000 }),
      registration('3', '/none'),
      registration('4', '/none-2'),
    );
    expect(ids(await x509().next())).toEqual(['/old', '/none', '/none-2']);
  });

  test('WAPI-78: the order is that of the entries ids', async () => {
    apply(registration('c', '/3'), registration('a', '/1'), registration('b', '/2'));
    expect(ids(await x509().next())).toEqual(['/1', '/2', '/3']);
  });

  describe('federation', () => {
    let other: Realm;
    const foreign = TrustDomain.parse('other.org');
    beforeEach(async () => {
      other = await realm('other.org');
      rig.workloads.replica.applyBundles([rig.home.bundle, other.bundle], [], true);
    });

    test('WAPI-24, 36, 49: bundles of those that the identities federate with, and always the own one', async () => {
      apply(registration('1', '/web', { federatesWith: [foreign] }));
      expect(Object.keys((await x509().next()).federatedBundles)).toEqual(['spiffe://other.org']);
      expect(Object.keys((await x509Bundles().next()).bundles).sort()).toEqual(['spiffe://example.org', 'spiffe://other.org']);
      const { bundles } = await jwtBundles().next();
      expect(Object.keys(bundles).sort()).toEqual(['spiffe://example.org', 'spiffe://other.org']);
      expect(JwtBundle.fromJwks(foreign, bundles['spiffe://other.org'] ?? '').equals(other.bundle.jwt)).toBe(true);
    });

    test('a bundle that no identity federates with is not told', async () => {
      apply(registration('1', '/web'));
      expect((await x509().next()).federatedBundles).toEqual({});
      expect(Object.keys((await x509Bundles().next()).bundles)).toEqual(['spiffe://example.org']);
      expect(Object.keys((await jwtBundles().next()).bundles)).toEqual(['spiffe://example.org']);
    });

    test('WAPI-10: a bundle that changes is pushed, one that goes is gone', async () => {
      apply(registration('1', '/web', { federatesWith: [foreign] }));
      const stream = x509Bundles();
      const before = (await stream.next()).bundles['spiffe://other.org'];
      rig.workloads.replica.applyBundles([(await realm('other.org')).bundle], [], false);
      const after = (await stream.next()).bundles['spiffe://other.org'];
      expect(after?.equals(before ?? Buffer.alloc(0))).toBe(false);
      rig.workloads.replica.applyBundles([], ['other.org'], false);
      expect(Object.keys((await stream.next()).bundles)).toEqual(['spiffe://example.org']);
    });

    test('WAPI-57: of a token of another trust domain only the SPIFFE claims are told, and only to those who federate with it', async () => {
      const token = await other.jwt(SpiffeId.of(foreign, '/db'), ['db'], { role: 'admin' });
      apply(registration('1', '/web'));
      expect(await refusal(validate(token))).toMatchObject([3, expect.stringContaining('no JWT bundle found')]);
      apply(registration('1', '/web', { federatesWith: [foreign] }));
      const { spiffeId, claims } = await validate(token);
      expect(spiffeId).toBe('spiffe://other.org/db');
      expect(Object.keys(claims ?? {}).sort()).toEqual(['aud', 'exp', 'sub']);
    });
  });

  describe('JWT-SVIDs', () => {
    test('WAPI-40, 41, 44: one for each identity, for the audiences in their order', async () => {
      apply(registration('1', '/web', { hint: 'main' }), registration('2', '/web-2'));
      const { svids } = await jwt(['queue', 'db']);
      expect(svids.map(({ spiffeId, hint }) => [spiffeId, hint])).toEqual([
        ['spiffe://example.org/web', 'main'],
        ['spiffe://example.org/web-2', ''],
      ]);
      const claims: unknown = JSON.parse(Buffer.from(svids[0]?.svid.split('.')[1] ?? '', 'base64url').toString());
      expect(claims).toMatchObject({ sub: 'spiffe://example.org/web', aud: ['queue', 'db'] });
    });

    test('WAPI-42, 47: the one that was asked for, and none that is somebody else’s', async () => {
      apply(registration('1', '/web'), registration('2', '/web-2'), registration('3', '/db', { selectors: ['test:b'] }));
      expect(ids(await jwt(['db'], 'spiffe://example.org/web-2').then(({ svids }) => ({ svids: svids as never })))).toEqual(['/web-2']);
      expect(await refusal(jwt(['db'], 'spiffe://example.org/db'))).toEqual(NOBODY);
    });

    test('WAPI-17: no audience, an empty one, and a malformed SPIFFE ID are INVALID_ARGUMENT', async () => {
      apply(registration('1', '/web'));
      expect(await refusal(jwt([]))).toEqual([3, 'audience must be specified']);
      expect(await refusal(jwt(['']))).toEqual([3, 'audience must be specified']);
      expect(await refusal(jwt(['db'], 'web'))).toMatchObject([3, 'invalid requested SPIFFE ID: scheme is missing or invalid']);
    });

    test('are cached for the same audiences; what the server refuses is UNAVAILABLE with its words', async () => {
      apply(registration('1', '/web'));
      const [first] = (await jwt(['a', 'b'])).svids;
      const [second] = (await jwt(['b', 'a'])).svids;
      expect(second?.svid).toBe(first?.svid);
      rig.online = false;
      expect((await jwt(['a', 'b'])).svids[0]?.svid).toBe(first?.svid);
      expect(await refusal(jwt(['c']))).toEqual([14, 'could not fetch JWT-SVID: the server is away']);
    });

    test('WAPI-55, 56, 58: a good token is validated and its claims told, without any identity', async () => {
      const token = await rig.home.jwt(SpiffeId.of(trustDomain, '/x'), ['db', 'queue'], {
        role: 'admin',
        big: 12345678901234567890n.toString(),
      });
      const { spiffeId, claims } = await validate(token);
      expect(spiffeId).toBe('spiffe://example.org/x');
      expect(claims).toMatchObject({ sub: 'spiffe://example.org/x', aud: ['db', 'queue'], role: 'admin', exp: expect.any(Number) });
    });

    test('WAPI-55, 58: another audience, another signature, another trust domain, nothing: INVALID_ARGUMENT', async () => {
      const id = SpiffeId.of(trustDomain, '/x');
      const token = await rig.home.jwt(id, ['db']);
      const impostor = await (await realm('example.org')).jwt(id, ['db']);
      const stranger = await (await realm('c.test')).jwt(SpiffeId.parse('spiffe://c.test/x'), ['db']);
      const late = await rig.home.jwt(id, ['db'], { exp: 1_700_000_000 });
      for (const bad of [impostor, stranger, late, 'x', `${token}x`])
        expect(await refusal(validate(bad))).toMatchObject([3, expect.any(String)]);
      expect(await refusal(validate(token, 'other'))).toMatchObject([3, expect.stringContaining('audience')]);
      expect(await refusal(validate(token, ''))).toEqual([3, 'audience must be specified']);
      expect(await refusal(validate(''))).toEqual([3, 'svid must be specified']);
    });
  });

  test('an agent that was banned ends every stream and answers nobody', async () => {
    apply(registration('1', '/web'));
    const stream = x509();
    await stream.next();
    rig.workloads.forbid();
    expect(await refusal(stream.next())).toEqual(NOBODY);
    expect(await refusal(x509().next())).toEqual(NOBODY);
    expect(await refusal(jwt(['db']))).toEqual(NOBODY);
    expect(rig.workloads.svids.size).toBe(0);
  });

  test('an agent that stops ends every stream with UNAVAILABLE: clients come again', async () => {
    apply(registration('1', '/web'));
    const stream = x509();
    await stream.next();
    rig.workloads.api.end(fail('UNAVAILABLE', 'the agent is stopping'));
    expect(await refusal(stream.next())).toEqual([14, 'the agent is stopping']);
  });

  test('2,000 callers that fetch and cancel keep their connection', async () => {
    apply(registration('1', '/web'));
    for (let round = 0; round < 2_000; round++) {
      const stream = new Reader(rig.calls.fetchX509SVID({}, header));
      await stream.next();
      await stream.close();
    }
    expect(ids(await x509().next())).toEqual(['/web']);
  }, 30_000);
});

describe('before the first word from the server', () => {
  test('a caller waits, and gets the whole answer', async () => {
    const answer = x509().next();
    apply(registration('1', '/web'));
    apply(registration('2', '/web-2'));
    rig.workloads.replica.synced();
    expect(ids(await answer)).toEqual(['/web', '/web-2']);
  });

  test('WE-23: when it does not come the answer is UNAVAILABLE, never that there is no identity', async () => {
    expect(await refusal(jwt(['db']))).toEqual([14, 'the agent has heard nothing from its server yet']);
  }, 10_000);
});

describe('allow_unauthenticated_verifiers', () => {
  test('lets callers without an identity read the own bundles, and nothing else', async () => {
    await rig.close();
    rig = await createRig({ allowUnauthenticatedVerifiers: true });
    const other = await realm('other.org');
    rig.workloads.replica.applyBundles([rig.home.bundle, other.bundle], [], true);
    rig.workloads.replica.synced();
    expect(Object.keys((await x509Bundles().next()).bundles)).toEqual(['spiffe://example.org']);
    expect(Object.keys((await jwtBundles().next()).bundles)).toEqual(['spiffe://example.org']);
    expect(await refusal(x509().next())).toEqual(NOBODY);
    expect(await refusal(jwt(['db']))).toEqual(NOBODY);
  });
});
