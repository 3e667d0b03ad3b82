/** What the endpoint asks of a workload, which is next to nothing, and what its first answer is. */
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { X509SVIDResponse } from '../../proto/gen/spiffe/workload/workload.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { createRig, header, Reader, realm, registration, type Rig, trustDomain } from './rig.ts';

let rig: Rig;
beforeEach(async () => {
  rig = await createRig();
  rig.workloads.replica.synced();
});
afterEach(() => rig.close());

const apply = (...entries: ReturnType<typeof registration>[]) => rig.workloads.replica.apply(entries, []);

async function first<T>(answers: AsyncIterable<T>): Promise<T> {
  const reader = new Reader(answers);
  try {
    return await reader.next();
  } finally {
    await reader.close();
  }
}

interface Raw {
  readonly status: number | undefined;
  readonly body: Buffer;
  readonly trailers: Record<string, unknown>;
}

/** One call by Node's own HTTP/2: no gRPC library, no TLS, no credentials. Gives the first message, or the trailers of a refusal. */
async function raw(path: string): Promise<Raw> {
  const session = connectHttp2('http://localhost', { createConnection: () => connect(rig.path) });
  try {
    return await new Promise((done, refuse) => {
      let [status, body, trailers]: [number | undefined, Buffer, Record<string, unknown>] = [undefined, Buffer.alloc(0), {}];
      session.on('error', refuse);
      const stream = session.request({
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        te: 'trailers',
        'workload.spiffe.io': 'true',
      });
      stream.on('error', refuse);
      stream.on('response', (headers) => {
        status = headers[':status'];
        trailers = headers;
      });
      stream.on('trailers', (more) => {
        trailers = more;
      });
      stream.on('data', (chunk: Buffer) => {
        body = Buffer.concat([body, chunk]);
        if (body.length >= 5 && body.length >= 5 + body.readUInt32BE(1)) done({ status, body: body.subarray(5), trailers });
      });
      stream.on('end', () => done({ status, body, trailers }));
      stream.end(Buffer.alloc(5));
    });
  } finally {
    session.destroy();
  }
}

describe('a workload', () => {
  test('WE-3, 9, 18, 20: that speaks HTTP/2 and sends the header gets its SVID: no TLS, no credentials, nothing to do for it', async () => {
    apply(registration('1', '/web'));
    const { status, body } = await raw('/SpiffeWorkloadAPI/FetchX509SVID');
    expect(status).toBe(200);
    expect(X509SVIDResponse.decode(body).svids.map(({ spiffeId }) => spiffeId)).toEqual(['spiffe://example.org/web']);
  });

  test('WAPI-5: finds the service by its bare name, and UNIMPLEMENTED under any other', async () => {
    apply(registration('1', '/web'));
    expect((await raw('/spiffe.workload.SpiffeWorkloadAPI/FetchX509SVID')).trailers['grpc-status']).toBe('12');
  });
});

test('WAPI-1, 11, 12: each RPC of both profiles answers a new caller at once, though nothing has changed for long', async () => {
  apply(registration('1', '/web'));
  await first(rig.calls.fetchX509SVID({}, header));
  const { x509 } = rig.asked;
  expect((await first(rig.calls.fetchX509SVID({}, header))).svids).toHaveLength(1);
  expect(Object.keys((await first(rig.calls.fetchX509Bundles({}, header))).bundles)).toEqual(['spiffe://example.org']);
  expect(Object.keys((await first(rig.calls.fetchJWTBundles({}, header))).bundles)).toEqual(['spiffe://example.org']);
  const { svids } = await rig.calls.fetchJWTSVID({ audience: ['db'], spiffeId: '' }, header);
  const { spiffeId } = await rig.calls.validateJWTSVID({ audience: 'db', svid: svids[0]?.svid ?? '' }, header);
  expect(spiffeId).toBe('spiffe://example.org/web');
  // what is there is served: nobody was asked to sign again
  expect(rig.asked.x509).toBe(x509);
});

test('WAPI-29, 44: each field of an SVID is there but the hint', async () => {
  apply(registration('1', '/web'));
  const { svids } = await first(rig.calls.fetchX509SVID({}, header));
  for (const { spiffeId, x509Svid, x509SvidKey, bundle } of svids)
    for (const field of [spiffeId, x509Svid, x509SvidKey, bundle]) expect(field.length).toBeGreaterThan(0);
  const jwts = (await rig.calls.fetchJWTSVID({ audience: ['db'], spiffeId: '' }, header)).svids;
  expect(jwts.map(({ spiffeId, svid, hint }) => [spiffeId, svid.split('.').length, hint])).toEqual([['spiffe://example.org/web', 3, '']]);
});

test('WAPI-45: of JWT-SVIDs with one hint the oldest entry’s is told, of those without each', async () => {
  apply(
    registration('1', '/new', { hint: 'internal', createdAtMs: 2_000 }),
    registration('2', '/old', { hint: 'internal', createdAtMs: 1_000 }),
    registration('3', '/none'),
    registration('4', '/none-2'),
  );
  const { svids } = await rig.calls.fetchJWTSVID({ audience: ['db'], spiffeId: '' }, header);
  expect(svids.map(({ spiffeId, hint }) => [spiffeId, hint])).toEqual([
    ['spiffe://example.org/old', 'internal'],
    ['spiffe://example.org/none', ''],
    ['spiffe://example.org/none-2', ''],
  ]);
});

test('WAPI-50, 51: a JWT bundle is a JWK set in UTF-8, and holds no key but those of JWT-SVIDs', async () => {
  const foreign = TrustDomain.parse('other.org');
  const other = await realm('other.org');
  rig.workloads.replica.applyBundles([rig.home.bundle, other.bundle], [], true);
  apply(registration('1', '/web', { federatesWith: [foreign] }));
  const { bundles } = await first(rig.calls.fetchJWTBundles({}, header));
  for (const [name, realmOf] of [
    ['example.org', rig.home],
    ['other.org', other],
  ] as const) {
    // each trust domain has X.509 authorities too
    expect(realmOf.bundle.x509.isEmpty).toBe(false);
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bundles[`spiffe://${name}`]);
    const { keys } = JSON.parse(text) as { keys: Record<string, unknown>[] };
    expect(keys.map(({ kid }) => kid)).toEqual([`${name}-1`]);
    expect(keys.some((key) => 'x5c' in key)).toBe(false);
  }
});

test('WAPI-60, 61: a token is judged by the bundle of the trust domain in its subject, and by no other', async () => {
  apply(registration('1', '/web', { federatesWith: [TrustDomain.parse('other.org')] }));
  const other = await realm('other.org');
  rig.workloads.replica.applyBundles([rig.home.bundle, other.bundle], [], true);
  const validate = (svid: string) => rig.calls.validateJWTSVID({ audience: 'db', svid }, header);
  const foreignId = SpiffeId.parse('spiffe://other.org/db');
  expect((await validate(await other.jwt(foreignId, ['db']))).spiffeId).toBe('spiffe://other.org/db');
  // the other's key for an identity of ours, ours for one of the other's
  await expect(validate(await other.jwt(SpiffeId.of(trustDomain, '/x'), ['db']))).rejects.toThrow();
  await expect(validate(await rig.home.jwt(foreignId, ['db']))).rejects.toThrow();
  await expect(validate(await (await realm('c.test')).jwt(SpiffeId.parse('spiffe://c.test/x'), ['db']))).rejects.toThrow(
    /no JWT bundle found/,
  );
});
