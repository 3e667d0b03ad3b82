/** Messages as SPIRE's `-output json` prints them: proto field names, every field there, sorted keys, one line. */
import { type Descriptors, type Field, type Raw, readFields, TYPE } from './descriptors.ts';
import { goEscape } from './print.ts';

type Json = string | number | boolean | null | Json[] | { [key: string]: Json };

/**
 * A message's wire bytes as JSON values, by protobuf's JSON mapping: 64-bit numbers are strings, bytes base64, enums their names;
 * fields that are not set are there with their zero, but for messages and optional ones. Fields nobody knows are left out.
 */
export function toJson(descriptors: Descriptors, typeName: string, bytes: Uint8Array): Json {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const known = WELL_KNOWN[typeName];
  if (known) return known(descriptors, buffer);
  const message = descriptors.messages.get(typeName);
  if (!message) throw new Error(`no descriptor of ${typeName}`);

  const found = new Map<number, Raw[]>();
  for (const raw of readFields(buffer)) {
    const before = found.get(raw.number);
    if (before) before.push(raw);
    else found.set(raw.number, [raw]);
  }
  const made: { [key: string]: Json } = {};
  for (const field of message.fields.values()) {
    const raws = found.get(field.number) ?? [];
    const entry = field.type === TYPE.message ? descriptors.messages.get(field.typeName) : undefined;
    if (entry?.isMapEntry) {
      made[field.name] = mapOf(descriptors, entry.fields, raws);
    } else if (field.repeated) {
      made[field.name] = raws.flatMap((raw) => unpack(field, raw)).map((raw) => valueOf(descriptors, field, raw));
    } else {
      // the last one counts; parts of a message are one message
      const last = raws.at(-1);
      if (last)
        made[field.name] = valueOf(
          descriptors,
          field,
          field.type === TYPE.message ? { ...last, bytes: Buffer.concat(raws.map((raw) => raw.bytes)) } : last,
        );
      else if (!field.presence) made[field.name] = valueOf(descriptors, field, ZERO);
    }
  }
  return made;
}

const ZERO: Raw = { number: 0, wire: 0, value: 0n, bytes: Buffer.alloc(0) };

function mapOf(descriptors: Descriptors, fields: ReadonlyMap<number, Field>, raws: readonly Raw[]): Json {
  const [key, value] = [fields.get(1), fields.get(2)];
  const made: { [key: string]: Json } = {};
  for (const { bytes } of raws) {
    const parts = [...readFields(bytes)];
    const part = (field: Field | undefined) =>
      field ? valueOf(descriptors, field, parts.findLast((one) => one.number === field.number) ?? ZERO) : null;
    const name = part(key);
    // a key is text, a whole number or a bool
    if (typeof name !== 'object') made[String(name)] = part(value);
  }
  return made;
}

/** A repeated number may be many in one field. */
function unpack(field: Field, raw: Raw): Raw[] {
  if (raw.wire !== 2 || field.type === TYPE.string || field.type === TYPE.bytes || field.type === TYPE.message) return [raw];
  const wire = FIXED_64.has(field.type) ? 1 : FIXED_32.has(field.type) ? 5 : 0;
  const values: Raw[] = [];
  for (let rest = raw.bytes; rest.length > 0; ) {
    const size = wire === 1 ? 8 : wire === 5 ? 4 : rest.findIndex((byte) => byte < 0x80) + 1;
    const [value] = readFields(Buffer.concat([Buffer.of((1 << 3) | wire), rest.subarray(0, size)]));
    if (!value) break;
    values.push(value);
    rest = rest.subarray(size);
  }
  return values;
}

const FIXED_64 = new Set<number>([TYPE.double, TYPE.fixed64, TYPE.sfixed64]);
const FIXED_32 = new Set<number>([TYPE.float, TYPE.fixed32, TYPE.sfixed32]);

function valueOf(descriptors: Descriptors, field: Field, raw: Raw): Json {
  const { value, bytes } = raw;
  switch (field.type) {
    case TYPE.message:
      return toJson(descriptors, field.typeName, bytes);
    case TYPE.string:
      return bytes.toString('utf8');
    case TYPE.bytes:
      return bytes.toString('base64');
    case TYPE.bool:
      return value !== 0n;
    case TYPE.enum: {
      const number = Number(BigInt.asIntN(32, value));
      return descriptors.enums.get(field.typeName)?.get(number) ?? number;
    }
    case TYPE.int64:
    case TYPE.sfixed64:
      return String(BigInt.asIntN(64, value));
    case TYPE.uint64:
    case TYPE.fixed64:
      return String(value);
    case TYPE.sint64:
      return String((value >> 1n) ^ -(value & 1n));
    case TYPE.sint32:
      return Number((value >> 1n) ^ -(value & 1n));
    case TYPE.uint32:
    case TYPE.fixed32:
      return Number(value);
    case TYPE.double: {
      const eight = Buffer.alloc(8);
      eight.writeBigUInt64LE(value);
      return decimal(eight.readDoubleLE());
    }
    case TYPE.float: {
      const four = Buffer.alloc(4);
      four.writeUInt32LE(Number(value));
      return decimal(Number(four.readFloatLE().toPrecision(8)));
    }
    default:
      return Number(BigInt.asIntN(32, value));
  }
}

/** JSON has no word for these. */
function decimal(value: number): Json {
  return Number.isFinite(value) ? value : Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity';
}

const field = (number: number, type: number, typeName = ''): Field => ({
  name: '',
  number,
  repeated: false,
  type,
  typeName,
  presence: false,
});
const wrapper = (type: number) => (descriptors: Descriptors, bytes: Buffer) =>
  valueOf(descriptors, field(1, type), [...readFields(bytes)].findLast((one) => one.number === 1) ?? ZERO);

/** The messages that JSON writes in their own way. */
const WELL_KNOWN: Readonly<Record<string, (descriptors: Descriptors, bytes: Buffer) => Json>> = {
  'google.protobuf.Empty': () => ({}),
  'google.protobuf.Struct': (descriptors, bytes) =>
    mapOf(
      descriptors,
      new Map([
        [1, field(1, TYPE.string)],
        [2, field(2, TYPE.message, 'google.protobuf.Value')],
      ]),
      [...readFields(bytes)],
    ),
  'google.protobuf.ListValue': (descriptors, bytes) =>
    [...readFields(bytes)].map((one) => toJson(descriptors, 'google.protobuf.Value', one.bytes)),
  'google.protobuf.Value': (descriptors, bytes) => {
    const one = [...readFields(bytes)].at(-1);
    if (!one || one.number === 1) return null;
    const [type, name] = VALUES[one.number] ?? [TYPE.string, ''];
    return valueOf(descriptors, field(one.number, type, name), one);
  },
  'google.protobuf.Timestamp': (_, bytes) => {
    const parts = [...readFields(bytes)];
    const part = (number: number) => BigInt.asIntN(64, parts.findLast((one) => one.number === number)?.value ?? 0n);
    const nanos = Number(part(2));
    const fraction =
      nanos === 0
        ? ''
        : `.${String(nanos)
            .padStart(9, '0')
            .replace(/(000)+$/, '')}`;
    return `${new Date(Number(part(1)) * 1000).toISOString().slice(0, 19)}${fraction}Z`;
  },
  'google.protobuf.BoolValue': wrapper(TYPE.bool),
  'google.protobuf.StringValue': wrapper(TYPE.string),
  'google.protobuf.BytesValue': wrapper(TYPE.bytes),
  'google.protobuf.Int32Value': wrapper(TYPE.int32),
  'google.protobuf.UInt32Value': wrapper(TYPE.uint32),
  'google.protobuf.Int64Value': wrapper(TYPE.int64),
  'google.protobuf.UInt64Value': wrapper(TYPE.uint64),
  'google.protobuf.DoubleValue': wrapper(TYPE.double),
};

/** The members of google.protobuf.Value. */
const VALUES: Readonly<Record<number, readonly [type: number, name: string]>> = {
  2: [TYPE.double, ''],
  3: [TYPE.string, ''],
  4: [TYPE.bool, ''],
  5: [TYPE.message, 'google.protobuf.Struct'],
  6: [TYPE.message, 'google.protobuf.ListValue'],
};

/** JSON text as Go's encoder writes it: keys sorted by their bytes, nulls left out, `<`, `>`, `&` escaped. */
export function writeJson(value: Json): string {
  return goEscape(JSON.stringify(tidy(value)));
}

function tidy(value: Json): Json {
  if (Array.isArray(value)) return value.filter((item) => item !== null).map(tidy);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([, inner]) => inner !== null);
  // as text, keys that look like numbers would come first: a Map-like order needs care only there, and protos have no such names
  return Object.fromEntries(
    entries.sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b))).map(([key, inner]) => [key, tidy(inner)]),
  );
}
