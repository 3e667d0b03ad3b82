/** Changes that know protobuf's wire format: fields are changed, taken out, doubled, nested, renumbered, or borrowed, and lengths fit again. */
import { type Mutation, PLAIN } from './mutations.ts';
import type { Random } from './random.ts';

type Value = bigint | Buffer | Fields;
interface Field {
  number: number;
  wire: number;
  value: Value;
}
type Fields = Field[];

const NUMBERS = [
  0n,
  1n,
  127n,
  128n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n,
];

export function varint(value: bigint): Buffer {
  const out: number[] = [];
  for (let rest = BigInt.asUintN(64, value); ; rest >>= 7n) {
    if (rest < 128n) {
      out.push(Number(rest));
      return Buffer.from(out);
    }
    out.push(Number(rest & 127n) | 128);
  }
}

/** Undefined: no message. Groups are not looked into. */
function readFields(bytes: Buffer, depth = 0): Fields | undefined {
  const fields: Fields = [];
  let at = 0;
  const number = (): bigint | undefined => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const octet = bytes[at++];
      if (octet === undefined) return undefined;
      value |= BigInt(octet & 127) << shift;
      if (octet < 128) return value;
    }
    return undefined;
  };
  while (at < bytes.length) {
    const tag = number();
    if (tag === undefined || tag >= 2n ** 32n || tag < 8n) return undefined;
    const wire = Number(tag & 7n);
    let value: Value | undefined;
    if (wire === 0) value = number();
    else if (wire === 1 || wire === 5 || wire === 2) {
      const length = wire === 2 ? number() : wire === 1 ? 8n : 4n;
      if (length === undefined || length > BigInt(bytes.length - at)) return undefined;
      const contents = bytes.subarray(at, at + Number(length));
      at += Number(length);
      value = (wire === 2 && contents.length > 1 && depth < 16 ? readFields(contents, depth + 1) : undefined) ?? Buffer.from(contents);
    } else return undefined;
    if (value === undefined) return undefined;
    fields.push({ number: Number(tag >> 3n), wire, value });
  }
  return fields;
}

function writeFields(fields: Fields): Buffer {
  return Buffer.concat(
    fields.map(({ number, wire, value }) => {
      const tag = varint((BigInt(number) << 3n) | BigInt(wire));
      if (typeof value === 'bigint') return Buffer.concat([tag, varint(value)]);
      const contents = Array.isArray(value) ? writeFields(value) : value;
      return Buffer.concat(wire === 2 ? [tag, varint(BigInt(contents.length)), contents] : [tag, contents]);
    }),
  );
}

function list(fields: Fields): { readonly parent: Fields; readonly index: number }[] {
  return fields.flatMap(({ value }, index) => [{ parent: fields, index }, ...(Array.isArray(value) ? list(value) : [])]);
}

function change(random: Random, fields: Fields, other: Buffer): void {
  const all = list(fields);
  if (all.length === 0 || random.oneIn(6)) {
    const parent = all.length === 0 ? fields : random.pick(all).parent;
    const wire = random.pick([0, 0, 1, 2, 2, 5]);
    const value = wire === 0 ? random.pick(NUMBERS) : wire === 2 ? random.bytes(random.int(8)) : random.bytes(wire === 1 ? 8 : 4);
    parent.push({ number: 1 + random.int(random.oneIn(8) ? 5000 : 20), wire, value });
    return;
  }
  const { parent, index } = random.pick(all);
  const field = parent[index] as Field;
  switch (random.int(8)) {
    case 0:
      parent.splice(index, 1);
      return;
    case 1:
      parent.splice(index, 0, { ...field });
      return;
    case 2:
      field.number = 1 + random.int(20);
      return;
    case 3: {
      // a group that nobody knows, deep in itself
      const depth = random.size(200);
      const start = varint(BigInt((100 << 3) | 3));
      const end = varint(BigInt((100 << 3) | (random.oneIn(8) ? 3 : 4)));
      const group = Buffer.concat([...Array.from({ length: depth }, () => start), ...Array.from({ length: depth }, () => end)]);
      // written as it is: its first tag is that of the field
      parent.splice(index, 0, { number: 100, wire: 3, value: group.subarray(start.length) });
      return;
    }
    case 4: {
      const theirs = readFields(other);
      if (theirs && theirs.length > 0) parent.splice(index, 0, random.pick(theirs));
      return;
    }
    case 5:
      parent[index] = { number: random.oneIn(2) ? field.number : 1 + random.int(10), wire: 2, value: [field] };
      return;
    default:
      if (typeof field.value === 'bigint') field.value = random.pick(NUMBERS) + BigInt(random.int(3) - 1);
      else {
        const contents = Array.isArray(field.value) ? writeFields(field.value) : field.value;
        const changed = random.pick(PLAIN)(random, contents, other);
        if (field.wire === 2) field.value = changed;
        else field.value = Buffer.concat([changed, Buffer.alloc(8)]).subarray(0, field.wire === 1 ? 8 : 4);
      }
  }
}

/** @param lead octets before the message */
export function wireMutation(lead: number): Mutation {
  return (random, input, other) => {
    const fields = readFields(input.subarray(lead));
    if (!fields) return random.pick(PLAIN)(random, input, other);
    for (let times = 1 + random.int(3); times > 0; times--) change(random, fields, other.subarray(lead));
    return Buffer.concat([input.subarray(0, lead), writeFields(fields)]);
  };
}
