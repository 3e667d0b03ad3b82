/** JWT-SVIDs as tokens of SASL/OAUTHBEARER: for a verified broker alone, one for the right audience, from the source's store. */
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { Kafka, logLevel } from 'kafkajs';
import { beforeAll, expect, onTestFinished, test } from 'vitest';
import { kafkajsOptions, kafkaOauthBearer, kafkaTokenRefresh } from '../../../spiffe/databases/kafka.ts';
import { BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { validateJwtSvid } from '../../../spiffe/jwt/jwt-svid.ts';
import { matchId } from '../../../spiffe/match.ts';
import { JwtSource } from '../../../spiffe/source/jwt-source.ts';
import { X509MemorySource } from '../../../spiffe/source/memory-source.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi } from '../../../spiffe/testing/workload-api.ts';

const domain = EphemeralTrustDomain.create('example.org');
const bundles = new BundleSet([domain.bundle]);

async function workload() {
  const api = await FakeWorkloadApi.start(domain, { identities: ['/orders', { path: '/admin', hint: 'admin' }] });
  const source = new JwtSource({ address: api.address });
  onTestFinished(async () => {
    await source.close();
    await api[Symbol.asyncDispose]();
  });
  return { api, source };
}

test('kafkaOauthBearer: a token that a broker can validate, its owner, its end in milliseconds', async () => {
  const { source } = await workload();
  const { mechanism, oauthBearerProvider } = kafkaOauthBearer(source, { audience: 'kafka' });
  const token = await oauthBearerProvider();
  const svid = await validateJwtSvid(token.value, { audience: 'kafka', bundles });
  expect(mechanism).toBe('oauthbearer');
  expect(token).toEqual({ value: token.value, principal: 'spiffe://example.org/orders', lifetime: svid.expiresMs });
});

test('kafkaTokenRefresh: the same, as librdkafka names it', async () => {
  const { source } = await workload();
  const given = await kafkaTokenRefresh(source, { audience: 'kafka', extensions: { logicalCluster: 'lkc-1' } })();
  const svid = await validateJwtSvid(given.tokenValue, { audience: 'kafka', bundles });
  expect(given).toEqual({
    tokenValue: given.tokenValue,
    principal: 'spiffe://example.org/orders',
    lifetime: svid.expiresMs,
    extensions: { logicalCluster: 'lkc-1' },
  });
});

test('a token serves until half its life is over, and brokers that ask together share a request', async () => {
  const { api, source } = await workload();
  const { oauthBearerProvider } = kafkaOauthBearer(source, { audience: 'kafka' });
  const tokens = await Promise.all([oauthBearerProvider(), oauthBearerProvider(), oauthBearerProvider()]);
  tokens.push(await oauthBearerProvider());
  expect(new Set(tokens.map(({ value }) => value)).size).toBe(1);
  expect(api.calls.filter(({ method }) => method === 'FetchJWTSVID')).toMatchObject([{ audience: ['kafka'] }]);
});

test('the identity of a hint, and of no other', async () => {
  const { source } = await workload();
  const admin = kafkaOauthBearer(source, { audience: 'kafka', hint: 'admin' });
  expect(await admin.oauthBearerProvider()).toMatchObject({ principal: 'spiffe://example.org/admin' });
  const nobody = kafkaOauthBearer(source, { audience: 'kafka', hint: 'nobody' });
  await expect(nobody.oauthBearerProvider()).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

test('without an identity there is no token, and the reason is told', async () => {
  const { api, source } = await workload();
  api.deny();
  await expect(kafkaOauthBearer(source, { audience: 'kafka' }).oauthBearerProvider()).rejects.toMatchObject({ code: 'DENIED' });
  await expect(kafkaTokenRefresh(source, { audience: 'kafka' })()).rejects.toMatchObject({ code: 'DENIED' });
});

/** Request of a client: which, and its number; `body` begins behind the header. */
function answered(request: Buffer): Buffer {
  const [key, version] = [request.readInt16BE(4), request.readInt16BE(6)];
  const short = (value: number) => {
    const octets = Buffer.alloc(2);
    octets.writeInt16BE(value);
    return octets;
  };
  const int = (value: number) => {
    const octets = Buffer.alloc(4);
    octets.writeInt32BE(value);
    return octets;
  };
  const body: Record<number, Buffer> = {
    // ApiVersions: of SaslHandshake, ApiVersions and SaslAuthenticate version 0 and 1
    18: Buffer.concat([
      short(0),
      int(3),
      ...[17, 18, 36].flatMap((api) => [short(api), short(0), short(1)]),
      ...(version > 0 ? [int(0)] : []),
    ]),
    17: Buffer.concat([short(0), int(1), short('OAUTHBEARER'.length), Buffer.from('OAUTHBEARER')]),
    // no error, no words, no octets, a session that does not end
    36: Buffer.concat([short(0), short(-1), int(0), ...(version > 0 ? [int(0), int(0)] : [])]),
  };
  const answer = Buffer.concat([int(request.readInt32BE(8)), body[key] ?? Buffer.alloc(0)]);
  return Buffer.concat([int(answer.length), answer]);
}

/** Speaks as much of Kafka's protocol as a client needs to prove who it is. Gives what came. */
async function broker(path: string) {
  const svid = domain.x509Svid(path);
  const { certificates: cert, key } = svid.toPem();
  const received: Buffer[] = [];
  const sockets = new Set<TLSSocket>();
  const server = createTlsServer({ cert, key, requestCert: true, rejectUnauthorized: false }, (socket) => {
    sockets.add(socket);
    let rest = Buffer.alloc(0);
    socket
      .on('error', () => {})
      .on('data', (data: Buffer) => {
        received.push(data);
        rest = Buffer.concat([rest, data]);
        while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
          const end = 4 + rest.readInt32BE(0);
          socket.write(answered(rest.subarray(0, end)));
          rest = rest.subarray(end);
        }
      });
  });
  server.on('tlsClientError', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, words: () => Buffer.concat(received).toString('latin1') };
}

let identity: X509MemorySource;
beforeAll(() => {
  identity = new X509MemorySource({ svid: domain.x509Svid('/orders'), bundles });
});

async function admin(port: number, source: JwtSource) {
  const kafka = new Kafka({
    brokers: [`localhost:${port}`],
    logLevel: logLevel.NOTHING,
    retry: { retries: 0 },
    ...kafkajsOptions(identity, { authorize: matchId('spiffe://example.org/kafka') }),
    sasl: kafkaOauthBearer(source, { audience: 'kafka' }),
  });
  const one = kafka.admin();
  onTestFinished(() => one.disconnect());
  return one.connect();
}

test('kafkajs proves itself to a verified broker by a token for it', async () => {
  const { source } = await workload();
  const { port, words } = await broker('/kafka');
  await admin(port, source);
  const [, token = ''] = /auth=Bearer ([\w.-]+)/.exec(words()) ?? [];
  expect(String((await validateJwtSvid(token, { audience: 'kafka', bundles })).id)).toBe('spiffe://example.org/orders');
});

test('kafkajs gives its token to nobody else of the trust domain', async () => {
  const { api, source } = await workload();
  const { port, words } = await broker('/intruder');
  await expect(admin(port, source)).rejects.toThrow('spiffe://example.org/intruder is not allowed');
  expect(words()).toBe('');
  expect(api.calls.filter(({ method }) => method === 'FetchJWTSVID')).toEqual([]);
});
