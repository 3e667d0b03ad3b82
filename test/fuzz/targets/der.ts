/** The DER reader alone: what it takes has one encoding, and it never leaves its bounds. The first octet picks how it is read. */
import { DerReader, der, derOid, derTime, derUnsigned, oidText, TAG } from '../../../spiffe/x509/der.ts';
import { mutateDer, OIDS } from '../der.ts';
import { about, type Target, wrong } from '../fuzzer.ts';
import type { Mutation } from '../mutations.ts';

/** Reads one value whole and writes it again. */
const METHODS: readonly ((reader: DerReader, input: Buffer) => Buffer | undefined)[] = [
  (reader) => der(TAG.integer, reader.integer()),
  (reader) => derUnsigned(Buffer.from(reader.smallInteger().toString(16).padStart(8, '0'), 'hex')),
  (reader) => der(TAG.boolean, Buffer.of(reader.boolean() ? 0xff : 0)),
  (reader) => der(TAG.bitString, Buffer.of(0), reader.octetAlignedBits()),
  (reader, input) => {
    const bits = reader.namedBits();
    if (bits < 0 || bits > 0xffff) throw wrong('more bits than there are', input.toString('hex'));
    return undefined;
  },
  (reader, input) => {
    const key = reader.oid();
    const dotted = oidText(key);
    // a part of more than 53 bits cannot be written by us
    if (dotted.split('.').every((part) => Number(part) <= Number.MAX_SAFE_INTEGER - 80)) return derOid(dotted);
    return input;
  },
  (reader, input) => {
    const tag = reader.peek();
    const ms = reader.time();
    if (!Number.isSafeInteger(ms) || ms % 1000 !== 0) throw wrong('a time that is none', ms);
    // generalized times where the other form is due are taken
    const year = new Date(ms).getUTCFullYear();
    return (tag === TAG.utcTime) === (year >= 1950 && year < 2050) ? derTime(ms) : input;
  },
  (reader) => reader.raw(TAG.sequence),
];

/** Depth first. */
function walk(reader: DerReader, depth: number): number {
  let count = 0;
  while (!reader.done) {
    const from = reader.at;
    const { tag, contents } = reader.any();
    if (reader.at > reader.end || reader.at <= from) throw wrong('a reader that leaves its bounds');
    if (!der(tag, contents).equals(reader.bytes.subarray(from, reader.at))) throw wrong('a value with two encodings');
    count++;
    if (tag & 0x20 && depth < 16) count += walk(new DerReader(contents), depth + 1);
  }
  return count;
}

export default function target(): Target {
  const values = [
    '020100',
    '02020080',
    '0101ff',
    '030200aa',
    '03020780',
    '0303070080',
    '0603551d11',
    '170d3236303630313132303030305a',
    '180f32303530303630313132303030305a',
    '3003020101',
    '30060201010201ff',
    'a3053003020101',
    '04820100' + 'aa'.repeat(256),
  ].map((hex) => Buffer.from(hex, 'hex'));
  const kept: Mutation = (random, input, other) =>
    Buffer.concat([input.subarray(0, 1), mutateDer(random, input.subarray(1), other.subarray(1))]);
  return {
    seeds: METHODS.flatMap((_, method) => values.map((value) => Buffer.concat([Buffer.of(method), value]))),
    words: OIDS,
    mutations: [kept],
    run(input) {
      const [method = 0] = input;
      const bytes = input.subarray(1);
      const read = METHODS[method % METHODS.length];
      const all = walk(new DerReader(bytes), 0);
      const reader = new DerReader(bytes);
      const again = read?.(reader, bytes);
      reader.close();
      if (again && !again.equals(bytes))
        throw wrong('a value with two encodings is taken', method % METHODS.length, bytes.toString('hex'), again.toString('hex'));
      return `${method % METHODS.length} ${about(all)}`;
    },
  };
}
