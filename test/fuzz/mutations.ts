/** What becomes of an input: changes that know nothing of its format. Those that do are in `der.ts`, `json.ts`, `frames.ts`, `wire.ts`. */
import type { Random } from './random.ts';

/** @param other another member of the corpus */
export type Mutation = (random: Random, input: Buffer, other: Buffer) => Buffer;

const INTERESTING = [
  0, 1, 2, 0x7e, 0x7f, 0x80, 0x81, 0xff, 0x100, 0x3fff, 0x4000, 0x7fff, 0x8000, 0xffff, 0x10000, 0xffffff, 0x7fffffff, 0x80000000,
  0xfffffffe, 0xffffffff,
];
const NUMBERS = [
  '0',
  '-1',
  '00',
  '1e999',
  '9007199254740993',
  '18446744073709551616',
  '2147483648',
  '-0',
  '0x10',
  '1.5',
  '4294967295',
  '1e-9',
];

function splice(input: Buffer, at: number, remove: number, ...insert: readonly Uint8Array[]): Buffer {
  return Buffer.concat([input.subarray(0, at), ...insert, input.subarray(Math.min(input.length, at + remove))]);
}

const flip: Mutation = (random, input) => {
  if (input.length === 0) return random.bytes(1);
  const out = Buffer.from(input);
  const at = random.int(out.length);
  out[at] = (out[at] as number) ^ (1 << random.int(8));
  return out;
};

const octet: Mutation = (random, input) => {
  const out = Buffer.from(input);
  if (out.length > 0) out[random.int(out.length)] = random.oneIn(2) ? random.int(256) : random.pick(INTERESTING) & 0xff;
  return out;
};

const step: Mutation = (random, input) => {
  const out = Buffer.from(input);
  if (out.length === 0) return out;
  const at = random.int(out.length);
  out[at] = (out[at] as number) + random.int(9) - 4;
  return out;
};

const integer: Mutation = (random, input) => {
  const size = 1 + random.int(4);
  const value = Buffer.alloc(size);
  value.writeUIntBE(random.pick(INTERESTING) % 2 ** (8 * size), 0, size);
  if (random.oneIn(3)) value.reverse();
  const at = random.int(input.length + 1);
  return splice(input, at, random.oneIn(2) ? size : 0, value);
};

const cut: Mutation = (random, input) => {
  const at = random.int(input.length);
  return splice(input, at, random.size(input.length - at));
};

const truncate: Mutation = (random, input) => input.subarray(0, random.int(input.length));

const insert: Mutation = (random, input) => splice(input, random.int(input.length + 1), 0, random.bytes(random.size(32)));

const duplicate: Mutation = (random, input) => {
  const from = random.int(input.length);
  const block = input.subarray(from, from + random.size(input.length - from));
  return splice(input, random.oneIn(2) ? from : random.int(input.length + 1), 0, block);
};

/** Just below what a target takes by default. */
const LONG = 65_000;

/** A few octets many times: what is nested, long or quadratic shows itself. */
const repeat: Mutation = (random, input) => {
  const from = random.int(input.length);
  const block = input.subarray(from, from + 1 + random.int(8));
  const most = Math.max(1, Math.floor((LONG - input.length) / Math.max(1, block.length)));
  const times = Math.min(most, 2 ** random.int(random.oneIn(40) ? 17 : 7));
  return splice(input, from, 0, ...Array.from({ length: times }, () => block));
};

const overwrite: Mutation = (random, input) => {
  const out = Buffer.from(input);
  const from = random.int(out.length);
  out.copy(out, random.int(out.length), from, from + random.size(out.length - from));
  return out;
};

const crossOver: Mutation = (random, input, other) =>
  Buffer.concat([input.subarray(0, random.int(input.length + 1)), other.subarray(random.int(other.length + 1))]);

const borrow: Mutation = (random, input, other) => {
  const from = random.int(other.length);
  const block = other.subarray(from, from + random.size(other.length - from));
  return splice(input, random.int(input.length + 1), random.oneIn(2) ? block.length : 0, block);
};

const digits: Mutation = (random, input) => {
  const text = input.toString('latin1');
  const found = [...text.matchAll(/-?\d+/g)];
  if (found.length === 0) return flip(random, input, input);
  const { index, 0: old } = random.pick(found);
  return splice(input, index, old.length, Buffer.from(random.pick(NUMBERS)));
};

export const PLAIN: readonly Mutation[] = [
  flip,
  flip,
  octet,
  octet,
  step,
  integer,
  cut,
  truncate,
  insert,
  duplicate,
  repeat,
  overwrite,
  crossOver,
  borrow,
  digits,
];

/** Puts a word of the format somewhere, or in the place of as many octets. */
export function dictionary(words: readonly (string | Buffer)[]): Mutation {
  const all = words.map((word) => Buffer.from(word as string));
  return (random, input) => {
    const word = random.pick(all);
    return splice(input, random.int(input.length + 1), random.oneIn(2) ? word.length : 0, word);
  };
}
