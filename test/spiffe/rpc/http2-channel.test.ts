/** gRPC over Node's own HTTP/2, against servers that break its rules one at a time; a good one stands beside them. */
import { spawn } from 'node:child_process';
import { createServer, type Http2Server, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { SpiffeWorkloadAPIDefinition, X509BundlesResponse } from '../../../proto/gen/spiffe/workload/workload.ts';
import { rpcStatusOf } from '../../../spiffe/rpc/calls.ts';
import { FrameReader, frame } from '../../../spiffe/rpc/frame.ts';
import { openHttp2Channel } from '../../../spiffe/rpc/http2-channel.ts';

const ANSWER = X509BundlesResponse.encode(X509BundlesResponse.create({ crl: [Buffer.from('one')] })).finish();
const HEAD = { ':status': 200, 'content-type': 'application/grpc' };

async function serve(onStream: (stream: ServerHttp2Stream) => void): Promise<{ port: number; server: Http2Server }> {
  const server = createServer();
  const sessions = new Set<{ destroy(): void }>();
  server.on('session', (session) => sessions.add(session));
  server.on('sessionError', () => {});
  server.on('stream', (stream) => {
    stream.on('error', () => {});
    onStream(stream);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  onTestFinished(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, server };
}

async function api(onStream: (stream: ServerHttp2Stream) => void, maxMessageBytes?: number) {
  const { port } = await serve(onStream);
  const channel = openHttp2Channel({ address: { host: '127.0.0.1', port }, ...(maxMessageBytes !== undefined && { maxMessageBytes }) });
  onTestFinished(() => channel.close());
  return { channel, calls: channel.service(SpiffeWorkloadAPIDefinition) };
}

async function all<T>(answers: AsyncIterable<T>): Promise<T[]> {
  const seen: T[] = [];
  for await (const answer of answers) seen.push(answer);
  return seen;
}

const ending = (stream: ServerHttp2Stream, trailers: Record<string, string>, ...frames: Uint8Array[]) => {
  stream.respond(HEAD, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  for (const one of frames) stream.write(one);
  stream.end();
};

test('messages come one by one, however they were cut', async () => {
  const octets = Buffer.concat([frame(ANSWER), frame(ANSWER), frame(ANSWER)]);
  const { calls } = await api((stream) =>
    ending(stream, { 'grpc-status': '0' }, octets.subarray(0, 3), octets.subarray(3, 11), octets.subarray(11)),
  );
  expect((await all(calls.fetchX509Bundles({}))).map((one) => String(one.crl[0]))).toEqual(['one', 'one', 'one']);
});

test('any cut of the octets gives the same messages', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 6 }), fc.array(fc.nat(20), { maxLength: 30 }), (messages, cuts) => {
      const octets = Buffer.concat(messages.map(frame));
      const reader = new FrameReader(40);
      const seen: Buffer[] = [];
      let at = 0;
      for (const cut of [...cuts, octets.length]) {
        seen.push(...reader.read(octets.subarray(at, at + cut)));
        at += cut;
      }
      expect(seen).toEqual(messages.map((one) => Buffer.from(one)));
      expect(reader.pending).toBe(0);
    }),
  );
});

/** The rule that a server breaks, and what its caller is told. */
describe.each<[what: string, server: (stream: ServerHttp2Stream) => void, code: string, words: RegExp]>([
  [
    'a status with words',
    (stream) => stream.respond({ ...HEAD, 'grpc-status': '7', 'grpc-message': 'no%20identity%20%C3%A9' }, { endStream: true }),
    'DENIED',
    /^no identity é$/,
  ],
  [
    'a status after messages',
    (stream) => ending(stream, { 'grpc-status': '5', 'grpc-message': '100%' }, frame(Buffer.alloc(0))),
    'NOT_FOUND',
    /^100%$/,
  ],
  ['HTTP 503', (stream) => stream.respond({ ':status': 503 }, { endStream: true }), 'UNAVAILABLE', /HTTP 503/],
  ['HTTP 404', (stream) => stream.respond({ ':status': 404 }, { endStream: true }), 'UNIMPLEMENTED', /HTTP 404/],
  [
    'a web page',
    (stream) => {
      stream.respond({ ':status': 200, 'content-type': 'text/html' });
      stream.end('<html>');
    },
    'INTERNAL',
    /text\/html, not gRPC/,
  ],
  ['no status at all', (stream) => stream.respond(HEAD, { endStream: true }), 'UNAVAILABLE', /ended the stream/],
  ['a compressed message', (stream) => ending(stream, { 'grpc-status': '0' }, Buffer.from([1, 0, 0, 0, 0])), 'UNIMPLEMENTED', /compresses/],
  [
    'a message that is too long',
    (stream) => ending(stream, { 'grpc-status': '0' }, Buffer.from([0, 0, 1, 0, 0])),
    'RESOURCE_EXHAUSTED',
    /65536 bytes/,
  ],
  ['half a message', (stream) => ending(stream, { 'grpc-status': '0' }, frame(ANSWER).subarray(0, 7)), 'INTERNAL', /within a message/],
  [
    'octets that are no message',
    (stream) => ending(stream, { 'grpc-status': '0' }, frame(Buffer.from('ffff', 'hex'))),
    'INTERNAL',
    /malformed/,
  ],
  ['a reset', (stream) => stream.close(11), 'RESOURCE_EXHAUSTED', /HTTP\/2 error 11/],
  [
    'a reset in the middle',
    (stream) => (stream.respond(HEAD), stream.write(frame(ANSWER), () => stream.destroy(new Error('a fault')))),
    'INTERNAL',
    /HTTP\/2 error 2/,
  ],
  ['the end of the connection', (stream) => stream.session?.destroy(), 'UNAVAILABLE', /not available/],
])('%s', (_, server, code, words) => {
  test(`is ${code} to a stream and to a unary call`, async () => {
    const { calls } = await api(server, 1000);
    await expect(all(calls.fetchX509Bundles({}))).rejects.toMatchObject({ code, message: expect.stringMatching(words) });
    await expect(calls.fetchJWTSVID({ audience: ['x'], spiffeId: '' })).rejects.toMatchObject({ code });
  });
});

test('a unary call has exactly one answer', async () => {
  for (const [count, ok] of [
    [0, false],
    [1, true],
    [2, false],
  ] as const) {
    const { calls } = await api((stream) =>
      ending(stream, { 'grpc-status': '0' }, ...Array.from({ length: count }, () => frame(Buffer.alloc(0)))),
    );
    const call = calls.fetchJWTSVID({ audience: ['x'], spiffeId: '' });
    if (ok) await expect(call).resolves.toEqual({ svids: [] });
    else await expect(call).rejects.toMatchObject({ code: 'INTERNAL' });
  }
});

test('nobody there is UNAVAILABLE, with the address and the reason', async () => {
  const channel = openHttp2Channel({ address: { path: '/nobody/is/here.sock' } });
  const error: unknown = await all(channel.service(SpiffeWorkloadAPIDefinition).fetchX509Bundles({})).catch((reason: unknown) => reason);
  expect(error).toMatchObject({
    code: 'UNAVAILABLE',
    message: expect.stringMatching(/^the server at unix:\/\/\/nobody\/is\/here.sock is not available: .*ENOENT/),
  });
  expect(rpcStatusOf(error)?.code).toBe(14);
});

test('after the connection has ended the next call makes another, and after close none', async () => {
  let calls = 0;
  const opened = await api((stream) => {
    if (calls++ === 0) stream.session?.goaway(0);
    ending(stream, { 'grpc-status': '0' }, frame(ANSWER));
  });
  for (let i = 0; i < 3; i++) expect(await all(opened.calls.fetchX509Bundles({}))).toHaveLength(1);
  opened.channel.close();
  await expect(all(opened.calls.fetchX509Bundles({}))).rejects.toMatchObject({ code: 'CLOSED' });
});

test('a signal and a deadline end a call that hangs, and the server sees it cancelled', async () => {
  const resets: (number | undefined)[] = [];
  const { calls } = await api((stream) => stream.once('close', () => resets.push(stream.rstCode)));
  const stop = new AbortController();
  const reason = new Error('enough');
  const waiting = all(calls.fetchX509Bundles({}, { signal: stop.signal }));
  setImmediate(() => stop.abort(reason));
  await expect(waiting).rejects.toBe(reason);
  await expect(all(calls.fetchX509Bundles({}, { deadlineMs: 20 }))).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  await expect.poll(() => resets).toEqual([8, 8]);
});

test('a call that was told not to does not keep the process alive, and one that was not does', async () => {
  const { port } = await serve((stream) => stream.respond(HEAD));
  const run = (ref: boolean) =>
    new Promise<string>((done) => {
      const script = `
        import { openHttp2Channel } from ${JSON.stringify(join(import.meta.dirname, '../../../spiffe/rpc/http2-channel.ts'))};
        import { SpiffeWorkloadAPIDefinition } from ${JSON.stringify(join(import.meta.dirname, '../../../proto/gen/spiffe/workload/workload.ts'))};
        const calls = openHttp2Channel({ address: { host: '127.0.0.1', port: ${port} } }).service(SpiffeWorkloadAPIDefinition);
        void calls.fetchX509Bundles({}, { ref: ${ref} })[Symbol.asyncIterator]().next();
        setTimeout(() => {}, 300);`;
      const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], { stdio: 'inherit' });
      const limit = setTimeout(() => child.kill(), 2_500);
      child.once('close', (code, signal) => {
        clearTimeout(limit);
        done(signal ?? String(code));
      });
    });
  expect(await Promise.all([run(false), run(true)])).toEqual(['0', 'SIGTERM']);
});
