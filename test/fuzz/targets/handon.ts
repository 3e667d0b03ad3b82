/**
 * The hand-on of a connection to Node's HTTP/2. One input goes two ways: through the hand-on made to repair, and straight to nghttp2. Where nothing needs
 * repair both hear the same; what the hand-on writes is always well formed; and it holds no more than its limits. The first octet says how the bytes come.
 */
import { constants, createServer, type Http2Server } from 'node:http2';
import type { Socket } from 'node:net';
import { type Duplex, duplexPair } from 'node:stream';
import { handOn } from '../../../agent/handon.ts';
import { HpackDecoder } from '../../../agent/hpack.ts';
import { isCoded } from '../../../core/errors.ts';
import { FakeClock } from '../../fakes/clock.ts';
import { frameMutation, PREFACE, readFrames, requestBlock, writeFrames } from '../frames.ts';
import { about, type Target, wrong } from '../fuzzer.ts';
import { Random } from '../random.ts';

const AUTHORITY = /^[A-Za-z0-9\-._~%:@[\]!$&'()*+,;=]+$/;

export default function handon(): Target {
  const random = new Random(1);
  const server = listen();
  const settings = { type: 4, flags: 0, stream: 0, payload: Buffer.alloc(0) };
  const headers = (stream: number, authority: string | undefined, flags = 5) => ({
    type: 1,
    flags,
    stream,
    payload: requestBlock(random, authority),
  });
  const seeds = [
    [settings, headers(1, 'localhost')],
    [settings, headers(1, '/tmp/x.sock'), { ...settings, flags: 1 }, headers(3, 'localhost')],
    [settings, headers(1, 'localhost', 4), { type: 0, flags: 1, stream: 1, payload: Buffer.from('body') }],
    [
      settings,
      headers(1, undefined, 4),
      { type: 0, flags: 0, stream: 1, payload: Buffer.alloc(300, 7) },
      { type: 1, flags: 5, stream: 1, payload: Buffer.from('40017800', 'hex') },
    ],
    [
      settings,
      { type: 8, flags: 0, stream: 0, payload: Buffer.from([0, 1, 0, 0]) },
      { type: 6, flags: 0, stream: 0, payload: Buffer.alloc(8) },
      headers(1, 'a b'),
      { type: 3, flags: 0, stream: 1, payload: Buffer.from([0, 0, 0, 8]) },
    ],
  ].map(writeFrames);
  return {
    seeds: seeds.flatMap((frames) => [0, 1, 2].map((how) => Buffer.concat([Buffer.of(how), PREFACE, frames]))),
    words: [PREFACE, Buffer.from('000000040100000000', 'hex'), Buffer.from('82868441', 'hex'), Buffer.from('3fe11f', 'hex')],
    mutations: [frameMutation(1)],
    maxBytes: 128 * 1024,
    // three readers, of which two are Node's
    limitMs: 500,
    async run(input) {
      const how = (input[0] ?? 0) % 3;
      const bytes = input.subarray(1);
      const pieces = cut(bytes, how);
      const handed = await through(pieces, how === 2 ? 64 * 1024 : PREFACE.length);
      if (handed.out === undefined) return `refused ${handed.kind}`;
      const shape = checkOut(bytes, handed.out, handed.kind);
      const [ours, theirs] = [await hear(server, handed.out), await hear(server, bytes)];
      return `${handed.kind} ${shape} ${compare(ours, theirs, handed.out, bytes)}`;
    },
  };
}

/** All at once, octet by octet at first, or in pieces of any size. */
function cut(bytes: Buffer, how: number): Buffer[] {
  if (how === 0) return [bytes];
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = how === 1 && at < 64 ? 1 : 1 + ((bytes[at] as number) % 7) * 97;
    pieces.push(bytes.subarray(at, at + size));
    at += size;
  }
  return pieces;
}

interface Handed {
  readonly kind: string;
  /** What the hand-on gives on. Undefined: it ended the connection. */
  readonly out: Buffer | undefined;
}

/** @param lookBytes as many as the preface has: repaired from what follows on, if the first header block is not there with it */
async function through(pieces: readonly Buffer[], lookBytes: number): Promise<Handed> {
  const [near, far] = duplexPair();
  // a paused socket, as the listener gives it
  const socket = near as unknown as Socket;
  socket.on('error', () => {});
  far.on('error', () => {});
  far.resume();
  const done = handOn(socket, { clock: new FakeClock(), lookBytes }).then(
    (stream) => collect(stream, stream === near ? 'native' : 'repaired'),
    (error: unknown) => {
      if (!isCoded(error)) throw error;
      return { kind: error.code, out: undefined };
    },
  );
  for (const piece of pieces) {
    if (far.destroyed || near.destroyed) break;
    far.write(piece);
    await new Promise((resolve) => process.nextTick(resolve));
  }
  if (!far.destroyed) far.end();
  const result = await done;
  far.destroy();
  near.destroy();
  return result;
}

async function collect(stream: Duplex, kind: string): Promise<Handed> {
  // Node is slow: what waits meanwhile is what came at once, one header list, and what a stream holds anyway
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
  if (stream.readableLength > 384 * 1024) throw wrong('the hand-on holds more than its bound', stream.readableLength);
  // what it was made of was malformed
  if (stream.destroyed) return { kind: `${kind}, closed`, out: undefined };
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    stream.on('data', (part: Buffer) => parts.push(part));
    stream.on('end', () => resolve({ kind, out: Buffer.concat(parts) }));
    stream.on('error', (error) => (isCoded(error) ? resolve({ kind: `${kind}, then ${error.message}`, out: undefined }) : reject(error)));
    stream.on('close', () => resolve({ kind: `${kind}, then closed`, out: undefined }));
  });
}

/** Every frame but header blocks and the answer to our own SETTINGS is as it came, in its place. */
function checkOut(bytes: Buffer, out: Buffer, kind: string): string {
  if (!out.subarray(0, PREFACE.length).equals(PREFACE.subarray(0, out.length))) throw wrong('a stream without its preface');
  const came = readFrames(bytes.subarray(PREFACE.length));
  const goes = readFrames(out.subarray(PREFACE.length));
  const others = (frames: typeof came) => frames.filter(({ type }) => type !== 1 && type !== 9);
  const [before, after] = [others(came), others(goes)];
  const dropped = before.length - after.length;
  const isAnswer = ({ type, flags, payload }: (typeof came)[number]) => type === 4 && (flags & 1) !== 0 && payload.length === 0;
  if (dropped !== 0 && dropped !== 1) throw wrong('frames are lost or made', kind, dropped);
  let skipped = 0;
  for (const [i, frame] of after.entries()) {
    let theirs = before[i + skipped];
    if (theirs && skipped < dropped && isAnswer(theirs) && !same(frame, theirs)) {
      skipped++;
      theirs = before[i + skipped];
    }
    if (!theirs || !same(frame, theirs))
      throw wrong('a frame that is no header block is changed', kind, i, JSON.stringify(frame), JSON.stringify(theirs));
  }
  if (kind === 'native') {
    const [headersIn, headersOut] = [came, goes].map((frames) => writeFrames(frames.filter(({ type }) => type === 1 || type === 9)));
    if (!headersIn?.equals(headersOut as Buffer)) throw wrong('header blocks of a connection that is not repaired are changed');
    return `${about(goes.length)}`;
  }
  // repaired: each block is literals alone, whole, and not longer than a frame may be
  let open: Buffer[] | undefined;
  let blocks = 0;
  for (const { type, flags, payload } of goes) {
    if (open && type !== 9) throw wrong('a header block that we wrote is interrupted');
    if (type !== 1 && type !== 9) continue;
    if (payload.length > 16 * 1024) throw wrong('a header frame that we wrote is too long');
    if (type === 1) {
      if ((flags & ~5) !== 0) throw wrong('flags that we do not write', flags);
      open = [];
    }
    if (!open) throw wrong('a continuation of nothing that we wrote');
    open.push(payload);
    if ((flags & 4) === 0) continue;
    const block = Buffer.concat(open);
    open = undefined;
    blocks++;
    const decoder = new HpackDecoder({ maxTableBytes: 0, maxListBytes: 1 << 20 });
    decoder.decode(block);
  }
  return `${about(goes.length)} ${blocks}`;
}

function same(a: { type: number; flags: number; stream: number; payload: Buffer }, b: typeof a): boolean {
  return a.type === b.type && a.flags === b.flags && a.stream === b.stream && a.payload.equals(b.payload);
}

interface Heard {
  readonly stream: number;
  readonly headers: string;
  readonly authority: string;
}

/** Of the connection at work. */
let heard: Heard[] = [];

function listen(): Http2Server {
  const server = createServer({ maxHeaderListPairs: 4000, maxSendHeaderBlockLength: 1 << 20 } as object);
  server.on('sessionError', () => {});
  server.on('session', (session) => session.on('error', () => {}));
  server.on('stream', (stream, headers, _flags, raw) => {
    stream.on('error', () => {});
    stream.resume();
    const pairs: readonly string[] = raw;
    const fields: string[] = [];
    for (let i = 0; i < pairs.length; i += 2) {
      const name = pairs[i] as string;
      if (name !== ':authority') fields.push(`${name}: ${pairs[i + 1] as string}`);
    }
    heard.push({ stream: stream.id ?? 0, headers: fields.join('\n'), authority: String(headers[constants.HTTP2_HEADER_AUTHORITY] ?? '') });
  });
  return server;
}

/** What Node's HTTP/2 makes of the bytes of a client. */
async function hear(server: Http2Server, bytes: Buffer): Promise<Heard[]> {
  heard = [];
  const [near, far] = duplexPair();
  near.on('error', () => {});
  far.on('error', () => {});
  far.resume();
  server.emit('connection', near);
  far.write(bytes);
  for (let turn = 0; turn < 6; turn++) await new Promise((resolve) => setImmediate(resolve));
  far.destroy();
  near.destroy();
  return heard;
}

/** Whoever is heard both ways is heard alike; whoever is heard straight is heard through the hand-on, unless it ended the connection; and nobody is heard out of nothing. */
function compare(ours: readonly Heard[], theirs: readonly Heard[], out: Buffer, bytes: Buffer): string {
  const answers = readFrames(bytes.subarray(PREFACE.length)).filter(({ type, flags }) => type === 4 && (flags & 1) !== 0).length;
  const straight = new Map(theirs.map((one) => [one.stream, one]));
  let repaired = 0;
  for (const one of ours) {
    const other = straight.get(one.stream);
    if (!other) {
      // a second answer to SETTINGS ends the straight connection; the hand-on keeps the first for itself
      if (one.authority !== 'localhost' && answers < 2)
        throw wrong(
          'a stream is heard that nghttp2 refuses, and its authority was not repaired',
          JSON.stringify(one),
          bytes.toString('hex'),
        );
      repaired++;
      continue;
    }
    if (other.headers !== one.headers && !(one.authority === 'localhost' && withoutHost(other.headers) === withoutHost(one.headers)))
      throw wrong('nghttp2 hears something else', one.headers, other.headers, out.toString('hex'), bytes.toString('hex'));
    if (other.authority !== one.authority && AUTHORITY.test(other.authority))
      throw wrong('a good authority is changed', one.authority, other.authority);
  }
  return `${about(ours.length)} heard, ${about(repaired)} repaired, ${about(theirs.length)} straight`;
}

function withoutHost(headers: string): string {
  return headers
    .split('\n')
    .filter((line) => !line.startsWith('host: '))
    .join('\n');
}
