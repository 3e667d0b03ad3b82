import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodePlain, type Field, HpackDecoder } from '../../agent/hpack.ts';

const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');
const invalid = expect.objectContaining({ code: 'REQUEST_INVALID' });

/** RFC 7541 appendix C: blocks of one connection in order, what each says, and the table's size after it. */
const vectors: [what: string, limit: number, blocks: [block: string, fields: string[], tableBytes: number][]][] = [
  ['C.2.1', 4096, [['400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572', ['custom-key: custom-header'], 55]]],
  ['C.2.2', 4096, [['040c 2f73 616d 706c 652f 7061 7468', [':path: /sample/path'], 0]]],
  ['C.2.3', 4096, [['1008 7061 7373 776f 7264 0673 6563 7265 74', ['password: secret'], 0]]],
  ['C.2.4', 4096, [['82', [':method: GET'], 0]]],
  [
    'C.3',
    4096,
    [
      [
        '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
        [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com'],
        57,
      ],
      [
        '8286 84be 5808 6e6f 2d63 6163 6865',
        [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com', 'cache-control: no-cache'],
        110,
      ],
      [
        '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65',
        [':method: GET', ':scheme: https', ':path: /index.html', ':authority: www.example.com', 'custom-key: custom-value'],
        164,
      ],
    ],
  ],
  [
    'C.4',
    4096,
    [
      ['8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff', [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com'], 57],
      [
        '8286 84be 5886 a8eb 1064 9cbf',
        [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com', 'cache-control: no-cache'],
        110,
      ],
      [
        '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
        [':method: GET', ':scheme: https', ':path: /index.html', ':authority: www.example.com', 'custom-key: custom-value'],
        164,
      ],
    ],
  ],
  [
    'C.5 (evictions)',
    256,
    [
      [
        '4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
        [':status: 302', 'cache-control: private', 'date: Mon, 21 Oct 2013 20:13:21 GMT', 'location: https://www.example.com'],
        222,
      ],
      [
        '4803 3330 37c1 c0bf',
        [':status: 307', 'cache-control: private', 'date: Mon, 21 Oct 2013 20:13:21 GMT', 'location: https://www.example.com'],
        222,
      ],
      [
        '88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31',
        [
          ':status: 200',
          'cache-control: private',
          'date: Mon, 21 Oct 2013 20:13:22 GMT',
          'location: https://www.example.com',
          'content-encoding: gzip',
          'set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1',
        ],
        215,
      ],
    ],
  ],
  [
    'C.6 (Huffman, evictions)',
    256,
    [
      [
        '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
        [':status: 302', 'cache-control: private', 'date: Mon, 21 Oct 2013 20:13:21 GMT', 'location: https://www.example.com'],
        222,
      ],
      [
        '4883 640e ffc1 c0bf',
        [':status: 307', 'cache-control: private', 'date: Mon, 21 Oct 2013 20:13:21 GMT', 'location: https://www.example.com'],
        222,
      ],
      [
        '88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07',
        [
          ':status: 200',
          'cache-control: private',
          'date: Mon, 21 Oct 2013 20:13:22 GMT',
          'location: https://www.example.com',
          'content-encoding: gzip',
          'set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1',
        ],
        215,
      ],
    ],
  ],
];

describe('RFC 7541 appendix C', () => {
  for (const [what, maxTableBytes, blocks] of vectors) {
    test(what, () => {
      const decoder = new HpackDecoder({ maxTableBytes });
      for (const [block, fields, tableBytes] of blocks) {
        expect(decoder.decode(hex(block)).map(([name, value]) => `${name}: ${value}`)).toEqual(fields);
        expect(decoder.tableBytes).toBe(tableBytes);
      }
    });
  }
});

test('a size update empties the table, and what was in it is gone', () => {
  const decoder = new HpackDecoder();
  decoder.decode(hex('400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572'));
  expect(decoder.decode(hex('be'))).toEqual([['custom-key', 'custom-header']]);
  expect(decoder.decode(hex('20 3fe11f 82'))).toEqual([[':method', 'GET']]);
  expect(decoder.tableBytes).toBe(0);
  expect(() => decoder.decode(hex('be'))).toThrow(invalid);
});

test('a field larger than the table empties it and is still read', () => {
  const decoder = new HpackDecoder({ maxTableBytes: 64 });
  decoder.decode(hex('4001 61 01 62'));
  expect(decoder.tableBytes).toBe(34);
  const long = 'x'.repeat(100);
  expect(decoder.decode(Buffer.concat([hex('4001 61 64'), Buffer.from(long)]))).toEqual([['a', long]]);
  expect(decoder.tableBytes).toBe(0);
});

const refused: [what: string, block: string][] = [
  ['index 0', '80'],
  ['an index beyond the tables', 'be'],
  ['a size update above what was allowed', '3fe21f'],
  ['a size update behind a field', '8220'],
  ['an integer without its end', 'ff'],
  ['an integer of five octets', 'ffffffffff7f'],
  ['a string that is cut short', '4005 6162'],
  ['no value', '4001 61'],
  ['a Huffman string with EOS', '0001 61 84 ffffffff'],
  ['Huffman padding of eight bits', '0001 61 82 1fff'],
  ['Huffman padding that is not ones', '0001 61 81 18'],
];
for (const [what, block] of refused) {
  test(`${what} is refused`, () => {
    expect(() => new HpackDecoder().decode(hex(block))).toThrow(invalid);
  });
}
test('Huffman padding of seven bits of ones is taken', () => {
  // 'a' is 00011
  expect(new HpackDecoder().decode(hex('0001 61 81 1f'))).toEqual([['a', 'a']]);
});

test('a header list is bounded, however small the block that makes it', () => {
  const decoder = new HpackDecoder({ maxListBytes: 4096 });
  decoder.decode(Buffer.concat([hex('4001 61 7f 21'), Buffer.alloc(160, 'b')]));
  expect(decoder.decode(Buffer.alloc(21, 0xbe))).toHaveLength(21);
  expect(() => decoder.decode(Buffer.alloc(22, 0xbe))).toThrow(invalid);
  const huffman = Buffer.concat([hex('0001 61 ff a11f'), Buffer.alloc(127 + 33 + 31 * 128, 0x18)]);
  expect(() => new HpackDecoder({ maxListBytes: 4096 }).decode(huffman)).toThrow(invalid);
});

const field = fc.tuple(
  fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)), maxLength: 300 }),
  fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)), maxLength: 300 }),
);

test('what is written plain is read back, octet for octet', () => {
  fc.assert(
    fc.property(fc.array(field, { maxLength: 10 }), (fields: Field[]) => {
      expect(new HpackDecoder().decode(encodePlain(fields))).toEqual(fields);
    }),
  );
});

test('hostile octets are read or refused, within bounds, and never crash', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 400 }), { maxLength: 5 }), (blocks) => {
      const decoder = new HpackDecoder({ maxListBytes: 8192 });
      try {
        for (const block of blocks) {
          const bytes = decoder.decode(Buffer.from(block)).reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0);
          expect(bytes).toBeLessThanOrEqual(8192);
          expect(decoder.tableBytes).toBeLessThanOrEqual(4096);
        }
      } catch (error) {
        expect(error).toEqual(invalid);
      }
    }),
    { numRuns: 2000 },
  );
});
