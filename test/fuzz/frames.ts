/** Changes that know HTTP/2: frames are changed, moved, split and doubled, header blocks are written in every way that HPACK has, and lengths fit again. */
import { type Mutation, PLAIN } from './mutations.ts';
import type { Random } from './random.ts';

export interface Frame {
  type: number;
  flags: number;
  stream: number;
  payload: Buffer;
}

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/** What stands behind the preface, as far as it is whole frames; the rest is lost. */
export function readFrames(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at + 9 <= bytes.length; ) {
    const length = bytes.readUIntBE(at, 3);
    if (at + 9 + length > bytes.length) break;
    frames.push({
      type: bytes[at + 3] as number,
      flags: bytes[at + 4] as number,
      stream: bytes.readUInt32BE(at + 5),
      payload: Buffer.from(bytes.subarray(at + 9, at + 9 + length)),
    });
    at += 9 + length;
  }
  return frames;
}

export function writeFrames(frames: readonly Frame[]): Buffer {
  return Buffer.concat(
    frames.flatMap(({ type, flags, stream, payload }) => {
      const head = Buffer.alloc(9);
      head.writeUIntBE(payload.length & 0xffffff, 0, 3);
      head[3] = type;
      head[4] = flags;
      head.writeUInt32BE(stream >>> 0, 5);
      return [head, payload];
    }),
  );
}

function integer(value: number, prefix: number, first: number): Buffer {
  const mask = 2 ** prefix - 1;
  if (value < mask) return Buffer.of(first | value);
  const out = [first | mask];
  for (let rest = value - mask; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...out, rest]);
    out.push((rest % 128) | 128);
  }
}

/** @param wild as often as not it says that it is in Huffman's code, and is not */
function text(random: Random, value: string, wild = true): Buffer {
  const bytes = Buffer.from(value, 'latin1');
  if (wild && random.oneIn(6)) return Buffer.concat([integer(bytes.length, 7, 0x80), bytes]);
  return Buffer.concat([integer(bytes.length, 7, 0), bytes]);
}

/** `:method: POST` and its kin, in Huffman's code. */
const HUFFMAN = ['8441' /* t */, '86a0e41d139d09', '89f1e3c2f29cebee3ddb5fc3'.slice(0, 18), '8cf1e3c2e5f23a6ba0ab90f4ff'].map((hex) =>
  Buffer.from(hex, 'hex'),
);

const NAMES = [
  ':method',
  ':path',
  ':scheme',
  ':authority',
  ':status',
  ':x',
  'host',
  'te',
  'x-extra',
  'grpc-timeout',
  'connection',
  'X-Upper',
  '',
  'content-length',
  'cookie',
  'x y',
];
const VALUES = [
  'POST',
  'GET',
  '/x',
  'http',
  'localhost',
  '/tmp/x.sock',
  '',
  'a b',
  'trailers',
  '0',
  '5',
  '\r\n',
  '\0',
  'x'.repeat(300),
  '127.0.0.1:80',
  'é',
];

/** One field, somehow. */
function field(random: Random): Buffer {
  const name = random.pick(NAMES);
  const value = random.pick(VALUES);
  switch (random.int(8)) {
    case 0:
      return integer(1 + random.int(random.oneIn(3) ? 80 : 61), 7, 0x80);
    case 1:
      return Buffer.concat([integer(1 + random.int(66), 6, 0x40), text(random, value)]);
    case 2:
      return Buffer.concat([integer(1 + random.int(61), 4, random.oneIn(2) ? 0x10 : 0), text(random, value)]);
    case 3:
      return integer(random.pick([0, 31, 100, 4096, 4097, 65536]), 5, 0x20);
    case 4:
      return Buffer.concat([Buffer.of(0x40), text(random, name), text(random, value)]);
    case 5:
      return Buffer.concat([integer(1 + random.int(61), 4, 0), random.pick(HUFFMAN)]);
    case 6:
      return Buffer.concat([Buffer.of(0x00), text(random, name), random.pick(HUFFMAN)]);
    default:
      return Buffer.concat([Buffer.of(random.pick([0, 0x10, 0x40])), text(random, name), text(random, value)]);
  }
}

/** A request that is good, but for its authority. */
export function requestBlock(random: Random, authority: string | undefined): Buffer {
  const literal = (name: string, value: string) =>
    Buffer.concat([Buffer.of(random.pick([0, 0x10, 0x40])), text(random, name, false), text(random, value, false)]);
  return Buffer.concat([
    Buffer.of(0x83, 0x86),
    literal(':path', '/x'),
    ...(authority === undefined ? [] : [literal(':authority', authority)]),
    ...Array.from({ length: random.int(4) }, () => literal(random.pick(['x-a', 'x-b']), random.pick(['', 'a b', '0', 'x'.repeat(300)]))),
  ]);
}

function change(random: Random, frames: Frame[], other: readonly Frame[]): void {
  const index = random.int(frames.length);
  const frame = frames[index];
  if (!frame || random.oneIn(8)) {
    frames.splice(random.int(frames.length + 1), 0, {
      type: random.pick([0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0xff]),
      flags: random.pick([0, 1, 4, 5, 8, 32, 13, 0xff]),
      stream: random.pick([0, 1, 3, 5, 2, 0x7fffffff, 0x80000001]),
      payload: random.bytes(random.pick([0, 4, 5, 6, 8, 1, 12])),
    });
    return;
  }
  switch (random.int(11)) {
    case 0:
      frames.splice(index, 1);
      return;
    case 1:
      frames.splice(index, 0, { ...frame, stream: random.oneIn(2) ? frame.stream : frame.stream + 2 });
      return;
    case 2:
      frame.type = random.int(11);
      return;
    case 3:
      frame.flags ^= random.pick([1, 4, 8, 32]);
      return;
    case 4:
      frame.stream = random.pick([0, 1, 3, 5, 7, 2, 0x80000001]);
      return;
    case 5: {
      // split: the rest goes on in a continuation
      if (frame.type !== 1 && frame.type !== 9) return;
      const at = random.int(frame.payload.length + 1);
      frames.splice(
        index,
        1,
        { ...frame, flags: frame.flags & ~4, payload: frame.payload.subarray(0, at) },
        { type: 9, flags: frame.flags & 4, stream: frame.stream, payload: frame.payload.subarray(at) },
      );
      return;
    }
    case 6:
      frames.splice(index, 0, {
        type: 1,
        flags: random.pick([5, 4, 5, 1]),
        stream: frame.stream + 2,
        payload: requestBlock(random, random.pick(['localhost', '/tmp/x.sock', undefined, 'a b', ''])),
      });
      return;
    case 7: {
      if (frame.type !== 1 && frame.type !== 9) return;
      frame.payload = random.oneIn(2) ? Buffer.concat([frame.payload, field(random)]) : Buffer.concat([field(random), frame.payload]);
      return;
    }
    case 8:
      if (other.length > 0) frames.splice(index, 0, { ...random.pick(other) });
      return;
    case 9: {
      // padding and priority that fit
      if (frame.type !== 1 || (frame.flags & 40) !== 0) return;
      const pad = random.int(20);
      frame.flags |= 40;
      frame.payload = Buffer.concat([Buffer.of(pad), Buffer.from([0, 0, 0, 0, 16]), frame.payload, Buffer.alloc(pad)]);
      return;
    }
    default:
      frame.payload = random.pick(PLAIN)(random, frame.payload, other[0]?.payload ?? frame.payload);
  }
}

/** @param lead octets before the preface */
export function frameMutation(lead: number): Mutation {
  return (random, input, other) => {
    const from = lead + PREFACE.length;
    const frames = readFrames(input.subarray(from));
    if (random.oneIn(20)) return random.pick(PLAIN)(random, input, other);
    for (let times = 1 + random.int(3); times > 0; times--) change(random, frames, readFrames(other.subarray(from)));
    return Buffer.concat([input.subarray(0, lead), PREFACE, writeFrames(frames)]);
  };
}
