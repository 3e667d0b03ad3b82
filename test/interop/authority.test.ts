/** java-spiffe names the socket's raw path as `:authority`, which Node's HTTP/2 resets by itself. Ours hands such connections on. */
import { connect } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createRunningHouse, type Agent, type House } from '../e2e/house.ts';
import { startWorkload, type Workload } from './setup.ts';

let house: House;
let agent: Agent;
let java: Workload;
let go: Workload;
beforeAll(async () => {
  ({ house, agent } = await createRunningHouse({ logLevel: 'INFO' }));
  await house.createEntry({ id: '/authority', parent: agent });
  [java, go] = await Promise.all([startWorkload('java'), startWorkload('go')]);
  await go.holds(agent.address, 'spiffe://example.org/authority');
});
afterAll(async () => {
  await java?.close();
  await go?.close();
  await house?.close();
});

/** A HEADERS frame of FetchX509SVID as gRPC libraries write it, all of it literals without indexing, behind the client's preface. */
function fetchRequest(authority: string | undefined): Buffer {
  const text = (value: string) => {
    const bytes = Buffer.from(value);
    if (bytes.length > 126) throw new Error('longer than one byte can say');
    return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  };
  const field = (name: string, value: string) => Buffer.concat([Buffer.from([0]), text(name), text(value)]);
  const frame = (type: number, flags: number, stream: number, body: Buffer) => {
    const head = Buffer.alloc(9);
    head.writeUIntBE(body.length, 0, 3);
    head.writeUInt8(type, 3);
    head.writeUInt8(flags, 4);
    head.writeUInt32BE(stream, 5);
    return Buffer.concat([head, body]);
  };
  const headers = Buffer.concat([
    field(':method', 'POST'),
    field(':scheme', 'http'),
    field(':path', '/SpiffeWorkloadAPI/FetchX509SVID'),
    ...(authority === undefined ? [] : [field(':authority', authority)]),
    field('content-type', 'application/grpc'),
    field('te', 'trailers'),
    field('workload.spiffe.io', 'true'),
  ]);
  // END_HEADERS; then one empty message and END_STREAM
  return Buffer.concat([
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    frame(4, 0, 0, Buffer.alloc(0)),
    frame(1, 4, 1, headers),
    frame(0, 1, 1, Buffer.alloc(5)),
  ]);
}

/** The type of the first frame that the server sends for stream 1: 1 HEADERS, 3 RST_STREAM. */
function firstAnswer(path: string, request: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => socket.write(request));
    let seen = Buffer.alloc(0);
    socket.on('data', (bytes: Buffer) => {
      seen = Buffer.concat([seen, bytes]);
      while (seen.length >= 9 && seen.length >= 9 + seen.readUIntBE(0, 3)) {
        const [size, type, stream] = [seen.readUIntBE(0, 3), seen.readUInt8(3), seen.readUInt32BE(5)];
        if (stream === 1 && type !== 8) {
          socket.destroy();
          resolve(type);
          return;
        }
        seen = seen.subarray(9 + size);
      }
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed before an answer on stream 1')));
  });
}

test('java-spiffe, with its raw socket path as :authority, is answered on every call', async () => {
  const addr = agent.address;
  expect((await java.call('x509.fetch', { addr })).svids[0]?.id).toBe('spiffe://example.org/authority');
  expect((await java.call('jwt.fetch', { addr, audience: ['db'] })).svids).toHaveLength(1);
  const load = await java.call('load', { addr, kind: 'x509', calls: 200, connections: 1 });
  expect(load).toMatchObject({ good: 200, failures: [] });
});

test('go-spiffe, with a plain :authority, is answered on the same socket at the same time', async () => {
  const addr = agent.address;
  const [fromGo, fromJava] = await Promise.all([
    go.call('load', { addr, kind: 'x509', calls: 200, connections: 20 }),
    java.call('load', { addr, kind: 'x509', calls: 200, connections: 20 }),
  ]);
  expect([fromGo.failures, fromJava.failures]).toEqual([[], []]);
});

for (const [what, authority] of [
  ['the raw path of the socket', '/tmp/agent/public/api.sock'],
  ['localhost', 'localhost'],
  ['a percent-encoded path', 'tmp%2Fagent%2Fapi.sock'],
  ['nothing', ''],
] as const) {
  test(`byte for byte: an :authority of ${what} is answered with HEADERS, not reset`, async () => {
    expect(await firstAnswer(agent.socketPath, fetchRequest(authority))).toBe(1);
  });
}

test('byte for byte: no :authority at all is answered with HEADERS, not reset', async () => {
  expect(await firstAnswer(agent.socketPath, fetchRequest(undefined))).toBe(1);
});
