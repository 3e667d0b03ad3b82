/** What the protos say of themselves, read from a serialized FileDescriptorSet: names, numbers and kinds of fields. For printing messages as JSON. */

export interface Field {
  readonly name: string;
  readonly number: number;
  readonly repeated: boolean;
  /** FieldDescriptorProto.Type. */
  readonly type: number;
  /** Of a message or an enum, without its leading dot. */
  readonly typeName: string;
  /** It may be unset, and unset is not its zero: a message, a member of a oneof, an `optional`. */
  readonly presence: boolean;
}

export interface Message {
  readonly fields: ReadonlyMap<number, Field>;
  /** An entry of a map field. */
  readonly isMapEntry: boolean;
}

export interface Descriptors {
  readonly messages: ReadonlyMap<string, Message>;
  /** Number → name. */
  readonly enums: ReadonlyMap<string, ReadonlyMap<number, string>>;
  /** `package.Service/Method` → the answer's message. */
  readonly answers: ReadonlyMap<string, string>;
}

/** One field of a message on the wire: a number (varint, fixed) or bytes. */
export interface Raw {
  readonly number: number;
  readonly wire: number;
  readonly value: bigint;
  readonly bytes: Buffer;
}

const NO_BYTES = Buffer.alloc(0);

/** The fields of a message in their order. Throws RangeError when the bytes are no message: they come from our own encoder. */
export function* readFields(bytes: Buffer): Generator<Raw> {
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes.readUInt8(at++);
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
      if (shift > 63n) throw new RangeError('a varint is too long');
    }
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    const [number, wire] = [tag >>> 3, tag & 7];
    if (wire === 0) {
      yield { number, wire, value: varint(), bytes: NO_BYTES };
    } else if (wire === 1) {
      yield { number, wire, value: bytes.readBigUInt64LE(at), bytes: NO_BYTES };
      at += 8;
    } else if (wire === 5) {
      yield { number, wire, value: BigInt(bytes.readUInt32LE(at)), bytes: NO_BYTES };
      at += 4;
    } else if (wire === 2) {
      const length = Number(varint());
      if (at + length > bytes.length) throw new RangeError('a field is cut short');
      yield { number, wire, value: 0n, bytes: bytes.subarray(at, at + length) };
      at += length;
    } else {
      throw new RangeError(`wire type ${wire}`);
    }
  }
}

export const TYPE = {
  double: 1,
  float: 2,
  int64: 3,
  uint64: 4,
  int32: 5,
  fixed64: 6,
  fixed32: 7,
  bool: 8,
  string: 9,
  message: 11,
  bytes: 12,
  uint32: 13,
  enum: 14,
  sfixed32: 15,
  sfixed64: 16,
  sint32: 17,
  sint64: 18,
} as const;

/** @param bytes a FileDescriptorSet */
export function parseDescriptors(bytes: Uint8Array): Descriptors {
  const messages = new Map<string, Message>();
  const enums = new Map<string, ReadonlyMap<number, string>>();
  const answers = new Map<string, string>();

  const inside = (raw: readonly Raw[], number: number) => raw.filter((one) => one.number === number).map((one) => one.bytes);
  const word = (raw: readonly Raw[], number: number) => inside(raw, number).at(-1)?.toString('utf8') ?? '';
  // an int32: an enum's values may be negative
  const count = (raw: readonly Raw[], number: number) =>
    Number(BigInt.asIntN(32, raw.findLast((one) => one.number === number)?.value ?? 0n));
  const under = (scope: string, name: string) => (scope === '' ? name : `${scope}.${name}`);

  const readEnum = (bytes: Buffer, scope: string) => {
    const raw = [...readFields(bytes)];
    const values = inside(raw, 2).map((value) => [...readFields(value)]);
    enums.set(under(scope, word(raw, 1)), new Map(values.map((value) => [count(value, 2), word(value, 1)])));
  };
  const readMessage = (bytes: Buffer, scope: string) => {
    const raw = [...readFields(bytes)];
    const name = under(scope, word(raw, 1));
    const options = inside(raw, 7).flatMap((one) => [...readFields(one)]);
    const fields = inside(raw, 2).map((field): [number, Field] => {
      const of = [...readFields(field)];
      const repeated = count(of, 4) === 3;
      const type = count(of, 5);
      const inOneof = of.some((one) => one.number === 9);
      return [
        count(of, 3),
        {
          name: word(of, 1),
          number: count(of, 3),
          repeated,
          type,
          typeName: word(of, 6).replace(/^\./, ''),
          presence: !repeated && (inOneof || type === TYPE.message),
        },
      ];
    });
    messages.set(name, { fields: new Map(fields), isMapEntry: count(options, 7) === 1 });
    for (const nested of inside(raw, 3)) readMessage(nested, name);
    for (const nested of inside(raw, 4)) readEnum(nested, name);
  };

  for (const file of inside([...readFields(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))], 1)) {
    const raw = [...readFields(file)];
    const scope = word(raw, 2);
    for (const one of inside(raw, 4)) readMessage(one, scope);
    for (const one of inside(raw, 5)) readEnum(one, scope);
    for (const one of inside(raw, 6)) {
      const service = [...readFields(one)];
      for (const method of inside(service, 2)) {
        const of = [...readFields(method)];
        answers.set(`${under(scope, word(service, 1))}/${word(of, 1)}`, word(of, 3).replace(/^\./, ''));
      }
    }
  }
  return { messages, enums, answers };
}
