/** `-output json` against an implementation that is not ours: @bufbuild/protobuf writes the same JSON from the same bytes. */
import { create, createFileRegistry, toBinary, toJson as theirJson, type DescMessage, type JsonValue } from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import {
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
  type FileDescriptorSet,
  FileDescriptorSetSchema,
  file_google_protobuf_struct,
  file_google_protobuf_timestamp,
  file_google_protobuf_wrappers,
} from '@bufbuild/protobuf/wkt';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseDescriptors, readFields } from '../../cli/descriptors.ts';
import { goEscape } from '../../cli/print.ts';
import { toJson, writeJson } from '../../cli/protojson.ts';

const scalar = (name: string, number: number, type: Type, extra: object = {}) => ({
  name,
  number,
  type,
  label: Label.OPTIONAL,
  jsonName: name,
  ...extra,
});
const kinds = [
  Type.DOUBLE,
  Type.FLOAT,
  Type.INT64,
  Type.UINT64,
  Type.INT32,
  Type.FIXED64,
  Type.FIXED32,
  Type.BOOL,
  Type.STRING,
  Type.BYTES,
  Type.UINT32,
  Type.SFIXED32,
  Type.SFIXED64,
  Type.SINT32,
  Type.SINT64,
];

/** A file with one message that has everything: each scalar alone and repeated, messages, maps, enums, optionals, well-known ones. */
const set: FileDescriptorSet = create(FileDescriptorSetSchema, {
  file: [
    file_google_protobuf_struct.proto,
    file_google_protobuf_timestamp.proto,
    file_google_protobuf_wrappers.proto,
    {
      name: 'all.proto',
      package: 'test.all.v1',
      syntax: 'proto3',
      dependency: ['google/protobuf/struct.proto', 'google/protobuf/timestamp.proto', 'google/protobuf/wrappers.proto'],
      messageType: [
        {
          name: 'All',
          field: [
            ...kinds.map((type, i) => scalar(`one_${Type[type].toLowerCase()}`, i + 1, type)),
            ...kinds.map((type, i) => scalar(`many_${Type[type].toLowerCase()}`, i + 101, type, { label: Label.REPEATED })),
            scalar('color', 201, Type.ENUM, { typeName: '.test.all.v1.Color' }),
            scalar('inner', 202, Type.MESSAGE, { typeName: '.test.all.v1.All' }),
            scalar('inners', 203, Type.MESSAGE, { typeName: '.test.all.v1.All', label: Label.REPEATED }),
            scalar('maybe', 204, Type.INT32, { proto3Optional: true, oneofIndex: 0 }),
            scalar('names', 205, Type.MESSAGE, { typeName: '.test.all.v1.All.NamesEntry', label: Label.REPEATED }),
            scalar('flag', 206, Type.MESSAGE, { typeName: '.google.protobuf.BoolValue' }),
            scalar('at', 207, Type.MESSAGE, { typeName: '.google.protobuf.Timestamp' }),
            scalar('claims', 208, Type.MESSAGE, { typeName: '.google.protobuf.Struct' }),
          ],
          oneofDecl: [{ name: '_maybe' }],
          nestedType: [
            { name: 'NamesEntry', field: [scalar('key', 1, Type.STRING), scalar('value', 2, Type.BYTES)], options: { mapEntry: true } },
          ],
        },
      ],
      enumType: [
        {
          name: 'Color',
          value: [
            { name: 'NONE', number: 0 },
            { name: 'RED', number: 1 },
            { name: 'BLUE', number: -7 },
          ],
        },
      ],
      service: [{ name: 'Painter', method: [{ name: 'Paint', inputType: '.test.all.v1.All', outputType: '.google.protobuf.Timestamp' }] }],
    },
  ],
});
const registry = createFileRegistry(set);
const schema = registry.getMessage('test.all.v1.All') as DescMessage;
const descriptors = parseDescriptors(toBinary(FileDescriptorSetSchema, set));

const int = (min: bigint, max: bigint) => fc.bigInt({ min, max });
const scalars: Readonly<Record<number, fc.Arbitrary<unknown>>> = {
  [Type.DOUBLE]: fc.double(),
  [Type.FLOAT]: fc.integer({ min: -1000, max: 1000 }).map((n) => n / 4),
  [Type.INT64]: int(-(2n ** 63n), 2n ** 63n - 1n),
  [Type.SFIXED64]: int(-(2n ** 63n), 2n ** 63n - 1n),
  [Type.SINT64]: int(-(2n ** 63n), 2n ** 63n - 1n),
  [Type.UINT64]: int(0n, 2n ** 64n - 1n),
  [Type.FIXED64]: int(0n, 2n ** 64n - 1n),
  [Type.INT32]: fc.integer(),
  [Type.SFIXED32]: fc.integer(),
  [Type.SINT32]: fc.integer(),
  [Type.UINT32]: fc.nat({ max: 2 ** 32 - 1 }),
  [Type.FIXED32]: fc.nat({ max: 2 ** 32 - 1 }),
  [Type.BOOL]: fc.boolean(),
  [Type.STRING]: fc.string({ unit: 'grapheme' }),
  [Type.BYTES]: fc.uint8Array({ maxLength: 20 }),
};

const { all } = fc.letrec<{ all: Record<string, unknown> }>((tie) => ({
  all: fc.record(
    {
      ...Object.fromEntries(kinds.map((type) => [`one${name(type)}`, scalars[type] ?? fc.constant(0)])),
      ...Object.fromEntries(kinds.map((type) => [`many${name(type)}`, fc.array(scalars[type] ?? fc.constant(0), { maxLength: 3 })])),
      color: fc.constantFrom(0, 1, -7, 5),
      inner: fc.option(tie('all'), { nil: undefined, maxDepth: 2, depthSize: 'small' }),
      inners: fc.oneof({ maxDepth: 2 }, fc.constant([]), fc.array(tie('all'), { maxLength: 2 })),
      maybe: fc.integer(),
      names: fc.dictionary(fc.string({ minLength: 1, unit: fc.constantFrom('a', 'b', '/', '.') }), fc.uint8Array({ maxLength: 5 }), {
        maxKeys: 3,
      }),
      flag: fc.boolean(),
      claims: fc.constantFrom({}, { aud: ['a', 'b'], exp: 1_700_000_000, nested: { yes: true, no: null } }),
    },
    { requiredKeys: [] },
  ),
}));

function name(type: Type): string {
  const word = Type[type].toLowerCase();
  return word[0]?.toUpperCase() + word.slice(1);
}

test('random messages print as the other implementation prints them', () => {
  fc.assert(
    fc.property(all, (values) => {
      const message = create(schema, stripped(values));
      const theirs = theirJson(schema, message, { alwaysEmitImplicit: true, useProtoFieldName: true, registry });
      expect(toJson(descriptors, schema.typeName, toBinary(schema, message))).toEqual(theirs);
    }),
    { numRuns: 300 },
  );
});

/** A float that no 32 bits hold is no value of the message: both would round it, each in its way. */
function stripped(values: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(values)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [
        key,
        key === 'inner'
          ? stripped(value as Record<string, unknown>)
          : key === 'inners'
            ? (value as Record<string, unknown>[]).map(stripped)
            : value,
      ]),
  );
}

test('an empty message has every field with its zero, and none of those that may be unset', () => {
  const json = toJson(descriptors, 'test.all.v1.All', Buffer.alloc(0)) as Record<string, JsonValue>;
  expect(json).toMatchObject({
    one_int64: '0',
    one_string: '',
    one_bytes: '',
    one_bool: false,
    many_int32: [],
    inners: [],
    names: {},
    color: 'NONE',
  });
  for (const unset of ['inner', 'maybe', 'flag', 'at', 'claims']) expect(json).not.toHaveProperty(unset);
});

test('a timestamp is an instant in RFC 3339 with as many digits as it needs', () => {
  const written = (seconds: bigint, nanos: number) => {
    const timestamp = registry.getMessage('google.protobuf.Timestamp') as DescMessage;
    const reflected = reflect(timestamp);
    for (const [field, value] of [
      ['seconds', seconds],
      ['nanos', nanos],
    ] as const) {
      const found = timestamp.fields.find((one) => one.name === field);
      if (found) reflected.set(found, value);
    }
    return toJson(descriptors, timestamp.typeName, toBinary(timestamp, reflected.message));
  };
  expect([written(0n, 0), written(1_700_000_000n, 5_000_000), written(1n, 1)]).toEqual([
    '1970-01-01T00:00:00Z',
    '2023-11-14T22:13:20.005Z',
    '1970-01-01T00:00:01.000000001Z',
  ]);
});

test('fields that nobody knows are left out', () => {
  expect(toJson(descriptors, 'google.protobuf.Empty', Buffer.of(0x08, 0x01))).toEqual({});
  expect(toJson(descriptors, 'test.all.v1.All', Buffer.of(0xfa, 0x3f, 0x01, 0x41))).toEqual(
    toJson(descriptors, 'test.all.v1.All', Buffer.alloc(0)),
  );
});

test('the text has sorted keys, no nulls, and is safe inside HTML, as Go writes it', () => {
  expect(writeJson({ b: 1, a: { d: null, c: ['<&>', null] }, B: '\u2028' })).toBe(
    '{"B":"\\u2028","a":{"c":["\\u003c\\u0026\\u003e"]},"b":1}',
  );
  expect(goEscape('"<"')).toBe('"\\u003c"');
});

test('the answer of each method is known by name', () => {
  expect(descriptors.answers.get('test.all.v1.Painter/Paint')).toBe('google.protobuf.Timestamp');
});

test('bytes that are no message are refused', () => {
  for (const bytes of [[0x0a, 0x05, 0x01], [0x08], [0x0b], [0x08, ...Array<number>(11).fill(0x80)]]) {
    expect(() => [...readFields(Buffer.from(bytes))]).toThrow(RangeError);
  }
});
