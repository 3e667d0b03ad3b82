import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createHttp2, type Http2Server, connect as http2Connect } from 'node:http2';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { handOn } from '../../agent/handon.ts';
import { encodePlain, type Field } from '../../agent/hpack.ts';
import { type Clock, systemClock } from '../../spiffe/clock.ts';
import { FakeClock } from '../fakes/clock.ts';

let dir: string;
let http2: Http2Server;
let server: Server;
let clock: Clock;
/** What became of each connection. */
let handed: string[];
let heard: { authority: string | undefined; path: string | undefined; extra: string | undefined; body: number }[];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'handon-'));
  clock = systemClock;
  [handed, heard] = [[], []];
  http2 = createHttp2({ maxHeaderListPairs: 2000, maxSendHeaderBlockLength: 1 << 20 } as object);
  http2.on('stream', (stream, headers) => {
    let body = 0;
    stream.on('data', (chunk: Buffer) => (body += chunk.length));
    stream.on('error', () => {});
    stream.on('end', () => {
      heard.push({ authority: headers[':authority'], path: headers[':path'], extra: headers['x-extra'] as string | undefined, body });
      stream.respond({ ':status': 200 });
      stream.end('answer');
    });
  });
  server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket: Socket) => {
    socket.on('error', () => {});
    handOn(socket, { clock }).then(
      (stream) => {
        handed.push(stream === socket ? 'native' : 'repaired');
        stream.on('error', () => stream.destroy());
        http2.emit('connection', stream);
      },
      (error: { code: string }) => handed.push(error.code),
    );
  });
  await new Promise<void>((resolve) => server.listen(join(dir, 's'), resolve));
});
afterEach(() => {
  server.close();
  rmSync(dir, { recursive: true });
});

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const SETTINGS = frame(4, 0, 0);
function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}
const request = (authority: string | undefined, ...more: Field[]): Field[] => [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/x'],
  ...(authority === undefined ? [] : ([[':authority', authority]] as Field[])),
  ...more,
];

/** Sends raw octets piece by piece and gives the types of the frames that come back on stream 1, with what ended it. */
async function exchange(...pieces: Buffer[]): Promise<{ status: 'answered' | 'reset' | 'ended' }> {
  const socket = connect(join(dir, 's'));
  const answered = new Promise<{ status: 'answered' | 'reset' | 'ended' }>((resolve) => {
    let all = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      all = Buffer.concat([all, chunk]);
      let at = 0;
      while (all.length >= at + 9 && all.length >= at + 9 + all.readUIntBE(at, 3)) {
        if (all.readUInt32BE(at + 5) === 1 && all[at + 3] === 0) resolve({ status: 'answered' });
        if (all.readUInt32BE(at + 5) === 1 && all[at + 3] === 3) resolve({ status: 'reset' });
        at += 9 + all.readUIntBE(at, 3);
      }
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve({ status: 'ended' }));
  });
  for (const piece of pieces) {
    socket.write(piece);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const result = await answered;
  socket.destroy();
  return result;
}

const whole = (authority: string | undefined, ...more: Field[]) => frame(1, 5, 1, encodePlain(request(authority, ...more)));

test('a good authority: the socket itself is handed on (positive twin of the next)', async () => {
  expect(await exchange(Buffer.concat([PREFACE, SETTINGS, whole('localhost')]))).toEqual({ status: 'answered' });
  expect(handed).toEqual(['native']);
  expect(heard).toMatchObject([{ authority: 'localhost', path: '/x' }]);
});

for (const authority of ['/tmp/x.sock', '', undefined, 'a b', 'a\u00e9']) {
  test(`NODE-12: ${JSON.stringify(authority) ?? 'no'} authority, as gRPC for Java sends it: the stream is served all the same`, async () => {
    expect(await exchange(Buffer.concat([PREFACE, SETTINGS, whole(authority)]))).toEqual({ status: 'answered' });
    expect(handed).toEqual(['repaired']);
    expect(heard).toMatchObject([{ authority: 'localhost', path: '/x' }]);
  });
}

test('NODE-12b: a client that waits for SETTINGS gets some, and its answer to them is taken out again', async () => {
  const socket = connect(join(dir, 's'));
  const first = new Promise((resolve) => socket.once('data', resolve));
  socket.write(Buffer.concat([PREFACE, SETTINGS]));
  await first;
  socket.write(Buffer.concat([frame(4, 1, 0), whole('localhost')]));
  await expect.poll(() => heard.length).toBe(1);
  expect(handed).toEqual(['native']);
  socket.destroy();
});

test('a header block before the answer to our SETTINGS: the answer is still taken out', async () => {
  const socket = connect(join(dir, 's'));
  const first = new Promise((resolve) => socket.once('data', resolve));
  socket.write(Buffer.concat([PREFACE, SETTINGS]));
  await first;
  socket.write(Buffer.concat([whole('localhost'), frame(4, 1, 0), frame(4, 1, 0), frame(1, 5, 3, encodePlain(request('/x')))]));
  await expect.poll(() => heard.length).toBe(2);
  expect(handed).toEqual(['repaired']);
  socket.destroy();
});

test('an answer to our SETTINGS on a stream is none: it is not taken out, and Node ends the connection', async () => {
  for (const authority of ['localhost', '/x']) {
    expect(await exchange(Buffer.concat([PREFACE, SETTINGS]), Buffer.concat([frame(4, 1, 3), whole(authority)]))).toEqual({
      status: 'ended',
    });
  }
  expect(heard).toEqual([]);
});

test('octet by octet: padding, priority, continuation and Huffman are understood', async () => {
  // /tmp/x.sock with Huffman would be the same block; here index 1 with a literal, indexed into the table, then used again
  const block = Buffer.concat([encodePlain(request(undefined)), Buffer.from([0x41, 11]), Buffer.from('/tmp/x.sock')]);
  const [one, two, three] = [block.subarray(0, 3), block.subarray(3, 20), block.subarray(20)];
  const padded = Buffer.concat([Buffer.from([4, 0, 0, 0, 0, 16]), one, Buffer.alloc(4)]);
  const octets = Buffer.concat([PREFACE, SETTINGS, frame(1, 1 | 8 | 32, 1, padded), frame(9, 0, 1, two), frame(9, 4, 1, three)]);
  expect(await exchange(...Array.from(octets, (octet) => Buffer.from([octet])))).toEqual({ status: 'answered' });
  expect(heard).toMatchObject([{ authority: 'localhost' }]);
});

test('a list that does not fit into one frame goes on in continuations', async () => {
  const long = 'y'.repeat(17_000);
  const block = encodePlain(request('/tmp/x.sock', ['x-extra', long]));
  const octets = [PREFACE, SETTINGS, frame(1, 1, 1, block.subarray(0, 16_000)), frame(9, 4, 1, block.subarray(16_000))];
  expect(await exchange(Buffer.concat(octets))).toEqual({ status: 'answered' });
  expect(heard[0]?.extra).toBe(long);
});

test('bodies go through, in any pieces', async () => {
  const body = Buffer.alloc(60_000, 7);
  const frames = [
    PREFACE,
    SETTINGS,
    frame(1, 4, 1, encodePlain(request('/x'))),
    ...[0, 16_000, 32_000, 48_000].map((at, i) => frame(0, i === 3 ? 1 : 0, 1, body.subarray(at, at + 16_000))),
  ];
  const octets = Buffer.concat(frames);
  const pieces = Array.from({ length: Math.ceil(octets.length / 7001) }, (_, i) => octets.subarray(i * 7001, (i + 1) * 7001));
  expect(await exchange(...pieces)).toEqual({ status: 'answered' });
  expect(heard[0]?.body).toBe(60_000);
});

const hostile: [what: string, octets: Buffer][] = [
  ['a continuation of nothing', frame(9, 4, 1, Buffer.alloc(3))],
  ['another frame inside a header block', Buffer.concat([frame(1, 0, 1, Buffer.alloc(0)), frame(6, 0, 0, Buffer.alloc(8))])],
  ['a header frame of more than 16 KiB', frame(1, 5, 1, Buffer.alloc(17_000))],
  [
    'a header block without end',
    Buffer.concat([frame(1, 0, 1, Buffer.alloc(0)), ...Array.from({ length: 70 }, () => frame(9, 0, 1, Buffer.alloc(1000)))]),
  ],
  ['ten thousand empty continuations', Buffer.concat([frame(1, 0, 1), ...Array.from({ length: 10_000 }, () => frame(9, 0, 1))])],
  ['padding longer than its frame', frame(1, 4 | 8, 1, Buffer.from([9, 0x82]))],
  ['a broken header block', frame(1, 5, 1, Buffer.from([0x80]))],
  ['a table larger than ours', frame(1, 5, 1, Buffer.from([0x3f, 0xff, 0xff, 0x01]))],
];
for (const [what, octets] of hostile) {
  test(`${what} ends the connection`, async () => {
    expect(await exchange(Buffer.concat([PREFACE, SETTINGS, octets]))).toEqual({ status: 'ended' });
    expect(heard).toEqual([]);
  });
}

test('a connection whose first header block is broken is handed to nobody: whoever got it would never hear that it ended', async () => {
  expect(await exchange(Buffer.concat([PREFACE, SETTINGS, frame(1, 5, 1, Buffer.from([0x80]))]))).toEqual({ status: 'ended' });
  expect(await exchange(Buffer.concat([PREFACE, SETTINGS, whole('/tmp/x.sock')]))).toEqual({ status: 'answered' });
  expect(handed).toEqual(['REQUEST_INVALID', 'repaired']);
});

test('a few octets that stand for long header lists are written out as fast as they are read, no faster; none is lost', async () => {
  const value = 'a'.repeat(4000);
  // kept in the table, then sixteen times an index of one octet: 64 KiB each
  const first = Buffer.concat([Buffer.from([0x40]), encodePlain([['x', value]]).subarray(1)]);
  const requests = [frame(1, 5, 1, first), ...Array.from({ length: 2000 }, (_, i) => frame(1, 5, 3 + 2 * i, Buffer.alloc(15, 0x80 | 62)))];
  const connection = new Promise<Duplex>((resolve, reject) => {
    server.removeAllListeners('connection');
    server.once('connection', (socket: Socket) => {
      socket.on('error', () => {});
      handOn(socket, { clock, lookBytes: 0 }).then(resolve, reject);
    });
  });
  const client = connect(join(dir, 's'));
  client.write(PREFACE);
  const stream = await connection;
  client.end(Buffer.concat([SETTINGS, ...requests]));
  await expect.poll(() => stream.readableLength).toBeGreaterThan(64 * 1024);
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(stream.readableLength).toBeLessThan(256 * 1024);
  let [octets, most] = [0, 0];
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    octets += chunk.length;
    most = Math.max(most, stream.readableLength);
  }
  expect(most).toBeLessThan(256 * 1024);
  const list = 15 * encodePlain([['x', value]]).length;
  expect(octets).toBeGreaterThan(2000 * list);
  client.destroy();
}, 20_000);

test('what is not HTTP/2 ends at once', async () => {
  expect(await exchange(Buffer.from('GET / HTTP/1.1\r\n\r\n'))).toEqual({ status: 'ended' });
  expect(handed).toEqual(['REQUEST_INVALID']);
});

test('who says nothing is cut off in time; who said the preface may wait before it calls', async () => {
  const fake = new FakeClock();
  clock = fake;
  const silent = connect(join(dir, 's'));
  const ended = new Promise((resolve) => silent.once('close', resolve));
  await expect.poll(() => fake.waiting).toBe(1);
  const patient = connect(join(dir, 's'));
  const greeted = new Promise((resolve) => patient.once('data', resolve));
  patient.write(PREFACE);
  await greeted;
  await fake.advance(1_000);
  expect(handed).toEqual(['repaired']);
  await fake.advance(9_000);
  silent.resume();
  await ended;
  expect(handed).toEqual(['repaired', 'DEADLINE_EXCEEDED']);
  patient.destroy();
});

test("Node's own client speaks through a repaired connection: many calls, bodies, half-close", async () => {
  const client = http2Connect('http://localhost', { createConnection: () => connect(join(dir, 's')) });
  const calls = Array.from(
    { length: 50 },
    (_, i) =>
      new Promise<string>((resolve, reject) => {
        const call = client.request({ ':method': 'POST', ':path': `/${i}`, ':authority': '/tmp/x.sock', 'x-extra': 'z'.repeat(i) });
        call.setEncoding('utf8');
        let text = '';
        call.on('data', (part: string) => (text += part));
        call.on('end', () => resolve(text));
        call.on('error', reject);
        call.end(Buffer.alloc(1000 * i));
      }),
  );
  expect(new Set(await Promise.all(calls))).toEqual(new Set(['answer']));
  expect(handed).toEqual(['repaired']);
  expect(heard.map(({ body }) => body).sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => 1000 * i));
  client.close();
});

test('hostile octets after the preface never crash', async () => {
  const junk = fc.array(
    fc.oneof(
      fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
      fc
        .tuple(fc.nat(11), fc.nat(255), fc.nat(3), fc.uint8Array({ maxLength: 60 }))
        .map(([type, flags, stream, payload]) => frame(type, flags, stream, Buffer.from(payload))),
    ),
    { minLength: 1, maxLength: 6 },
  );
  await fc.assert(
    fc.asyncProperty(junk, async (pieces) => {
      const socket = connect(join(dir, 's'));
      socket.on('error', () => {});
      const ended = new Promise((resolve) => socket.once('close', resolve));
      socket.resume();
      socket.write(PREFACE);
      for (const piece of pieces) socket.write(piece);
      socket.end();
      await ended;
    }),
    { numRuns: 200 },
  );
  expect(await exchange(Buffer.concat([PREFACE, SETTINGS, whole('/still/here')]))).toEqual({ status: 'answered' });
}, 20_000);
