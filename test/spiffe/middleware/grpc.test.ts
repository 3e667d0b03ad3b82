/** JWT-26: calls of gRPC with a JWT-SVID, over real sockets: who passes, who does not, and what either is told. */
import { once } from 'node:events';
import type { AddressInfo, Server as NetServer } from 'node:net';
import { Client, type ClientOptions, credentials, Metadata, Server, ServerCredentials, status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { matchId, memberOf } from '../../../spiffe/match.ts';
import { requireJwtSvidOfCall, spiffeOf } from '../../../spiffe/middleware/grpc.ts';
import type { RequireJwtSvidOptions } from '../../../spiffe/middleware/require-jwt-svid.ts';
import { JwtSource } from '../../../spiffe/source/jwt-source.ts';
import { X509Source } from '../../../spiffe/source/x509-source.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi } from '../../../spiffe/testing/workload-api.ts';
import { grpcChannelCredentials, grpcListener, grpcPeer, jwtCallCredentials } from '../../../spiffe/tls/grpc.ts';
import { bundles, clock, foreignKey, keptLog, NOW_S, token } from './rig.ts';

const log = keptLog();
const options: RequireJwtSvidOptions = { audience: 'orders', bundles, clock, log, authorize: memberOf('example.org') };

const asIs = (bytes: Buffer): Buffer => bytes;
const METHOD = {
  path: '/test.Test/Who',
  requestStream: false,
  responseStream: false,
  requestSerialize: asIs,
  requestDeserialize: asIs,
  responseSerialize: asIs,
  responseDeserialize: asIs,
} as const;

/** Says who calls; counts the calls that reached it. */
function serverOf(how: RequireJwtSvidOptions) {
  const reached: string[] = [];
  const server = new Server({ interceptors: [requireJwtSvidOfCall(how)] });
  server.addService(
    { Who: METHOD },
    {
      Who: (call: { metadata: Metadata }, done: (error: null, value: Buffer) => void) => {
        const caller = spiffeOf(call.metadata);
        const who = `${String(caller?.id)} via ${String(caller?.via)}, peer ${String(grpcPeer(call)?.id)}`;
        reached.push(who);
        done(null, Buffer.from(who));
      },
    },
  );
  return { server, reached };
}

const bound = (server: Server) =>
  new Promise<number>((done, fail) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => (error ? fail(error) : done(port)));
  });

function call(client: Client, metadata = new Metadata()): Promise<string> {
  return new Promise((done, fail) => {
    client.makeUnaryRequest(METHOD.path, asIs, asIs, Buffer.alloc(0), metadata, (error, value) =>
      error ? fail(error) : done(String(value)),
    );
  });
}

async function listening(server: NetServer): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

const OWN_CHANNEL: ClientOptions = { 'grpc.use_local_subchannel_pool': 1 };
const withAuthorization = (value: string) => {
  const metadata = new Metadata();
  metadata.set('authorization', value);
  return metadata;
};

const REFUSED: readonly (readonly [what: string, metadata: () => Promise<Metadata>, code: status, reason: string])[] = [
  ['no credential', async () => new Metadata(), status.UNAUTHENTICATED, 'HTTP_CREDENTIAL_MISSING'],
  ['another scheme', async () => withAuthorization('Basic dXNlcjpwYXNz'), status.UNAUTHENTICATED, 'HTTP_CREDENTIAL_MISSING'],
  ['a malformed token', async () => withAuthorization('Bearer abc'), status.UNAUTHENTICATED, 'JWT_SERIALIZATION'],
  ['an algorithm that signs nothing', async () => withAuthorization('Bearer eyJhbGciOiJub25lIn0.e30.'), status.UNAUTHENTICATED, 'JWT_ALG'],
  ['an expired token', async () => withAuthorization(`Bearer ${await token({ exp: NOW_S - 120 })}`), status.UNAUTHENTICATED, 'JWT_EXPIRED'],
  [
    'another audience',
    async () => withAuthorization(`Bearer ${await token({ aud: ['payments'] })}`),
    status.UNAUTHENTICATED,
    'JWT_AUD_UNEXPECTED',
  ],
  [
    'our trust domain by the key of another',
    async () => withAuthorization(`Bearer ${await token({}, foreignKey)}`),
    status.UNAUTHENTICATED,
    'JWT_SIGNATURE',
  ],
  [
    'two tokens, both good',
    async () => withAuthorization(`Bearer ${await token()}, Bearer ${await token()}`),
    status.UNAUTHENTICATED,
    'HTTP_AUTHORIZATION',
  ],
  [
    'an identity that may not',
    async () => withAuthorization(`Bearer ${await token({ sub: 'spiffe://other.org/web' }, foreignKey)}`),
    status.PERMISSION_DENIED,
    'ID_NOT_ALLOWED',
  ],
];

const DETAILS: Readonly<Partial<Record<status, string>>> = {
  [status.UNAUTHENTICATED]: 'unauthenticated',
  [status.PERMISSION_DENIED]: 'forbidden',
  [status.UNAVAILABLE]: 'unavailable',
};

afterEach(() => void log.lines.splice(0));

describe('JWT-26 the bearer of a JWT-SVID', () => {
  const { server, reached } = serverOf(options);
  let client: Client;
  beforeAll(async () => {
    client = new Client(`127.0.0.1:${await bound(server)}`, credentials.createInsecure(), OWN_CHANNEL);
  });
  afterEach(() => void reached.splice(0));
  afterAll(() => {
    client.close();
    server.forceShutdown();
  });

  test('passes, and the handler knows who it is', async () => {
    expect(await call(client, withAuthorization(`Bearer ${await token()}`))).toBe('spiffe://example.org/web via jwt, peer undefined');
    expect(log.lines).toEqual([]);
  });

  for (const [what, metadata, code, reason] of REFUSED) {
    test(`${status[code]} for ${what}; why is for the log only`, async () => {
      const error: unknown = await call(client, await metadata()).catch((refused: unknown) => refused);
      expect(error).toMatchObject({ code, details: DETAILS[code] });
      expect(reached).toEqual([]);
      expect(log.lines.map(({ fields }) => fields['reason'])).toEqual([reason]);
    });
  }

  test('a call after one that was refused, on the same connection, is judged by itself', async () => {
    await expect(call(client)).rejects.toMatchObject({ code: status.UNAUTHENTICATED });
    expect(await call(client, withAuthorization(`Bearer ${await token()}`))).toContain('spiffe://example.org/web');
  });

  test('what a client calls itself in other metadata is not who it is', async () => {
    const metadata = withAuthorization(`Bearer ${await token()}`);
    metadata.set('spiffe', 'spiffe://example.org/admin');
    expect(await call(client, metadata)).toContain('spiffe://example.org/web');
  });
});

test('UNAVAILABLE, never a pass, while a source waits for its first bundles', async () => {
  const source = new JwtSource({ address: 'unix:///nobody/listens/here.sock' });
  onTestFinished(() => source.close());
  const { server, reached } = serverOf({ ...options, bundles: source });
  onTestFinished(() => server.forceShutdown());
  const client = new Client(`127.0.0.1:${await bound(server)}`, credentials.createInsecure(), OWN_CHANNEL);
  onTestFinished(() => client.close());
  await expect(call(client, withAuthorization(`Bearer ${await token()}`))).rejects.toMatchObject({
    code: status.UNAVAILABLE,
    details: 'unavailable',
  });
  expect(reached).toEqual([]);
});

test('options that let nobody or anybody pass are refused when the interceptor is made', () => {
  expect(() => requireJwtSvidOfCall({ ...options, authorize: undefined as never })).toThrow(
    expect.objectContaining({ code: 'REQUEST_INVALID' }),
  );
  expect(() => requireJwtSvidOfCall({ ...options, audience: [] })).toThrow(expect.objectContaining({ reason: 'JWT_EXPECTED_AUDIENCE' }));
});

describe('JWT-26 jwtCallCredentials', () => {
  const trustDomain = EphemeralTrustDomain.create('example.org');

  test('sends a JWT-SVID with each call, over a channel that both ends have verified', async () => {
    await using api = await FakeWorkloadApi.start(trustDomain, { identities: ['/web'] });
    await using x509 = await X509Source.open({ address: api.address });
    await using jwt = new JwtSource({ address: api.address });
    await jwt.ready();
    const { server } = serverOf({ audience: 'orders', bundles: jwt, authorize: matchId('spiffe://example.org/web') });
    const listener = grpcListener(server, { source: x509, authorize: memberOf('example.org') });
    const port = await listening(listener);
    const channel = grpcChannelCredentials({ source: x509, authorize: memberOf('example.org') });
    const dial = (audience: string) =>
      new Client(`127.0.0.1:${port}`, credentials.combineChannelCredentials(channel, jwtCallCredentials(jwt, { audience })), OWN_CHANNEL);
    const [right, wrong] = [dial('orders'), dial('payments')];
    onTestFinished(() => {
      right.close();
      wrong.close();
      server.forceShutdown();
      listener.close();
    });
    expect(await call(right)).toBe('spiffe://example.org/web via jwt, peer spiffe://example.org/web');
    expect(await call(right)).toBe('spiffe://example.org/web via jwt, peer spiffe://example.org/web');
    await expect(call(wrong)).rejects.toMatchObject({ code: status.UNAUTHENTICATED, details: 'unauthenticated' });
    // the second call had the token of the first
    expect(api.calls.filter(({ method }) => method === 'FetchJWTSVID').map(({ audience }) => audience)).toEqual([['orders'], ['payments']]);
  });

  test('sends no call without a token', async () => {
    await using api = await FakeWorkloadApi.start(trustDomain, { identities: ['/web'] });
    await using x509 = await X509Source.open({ address: api.address });
    const { server, reached } = serverOf(options);
    const listener = grpcListener(server, { source: x509, authorize: memberOf('example.org') });
    const port = await listening(listener);
    const failing = { fetch: () => Promise.reject(new Error('no token today')) };
    const client = new Client(
      `127.0.0.1:${port}`,
      credentials.combineChannelCredentials(
        grpcChannelCredentials({ source: x509, authorize: memberOf('example.org') }),
        jwtCallCredentials(failing, { audience: 'orders' }),
      ),
      OWN_CHANNEL,
    );
    onTestFinished(() => {
      client.close();
      server.forceShutdown();
      listener.close();
    });
    await expect(call(client)).rejects.toMatchObject({ details: expect.stringContaining('no token today') });
    expect(reached).toEqual([]);
    expect(log.lines).toEqual([]);
  });
});
