import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DerReader, der, derOid, derTime, derUnsigned, oidKey, oidText, readWhole, TAG } from '../../../spiffe/x509/der.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');

function outcome(text: string, read: (reader: DerReader) => unknown): unknown {
  try {
    const reader = new DerReader(hex(text));
    const value = read(reader);
    reader.close();
    return Buffer.isBuffer(value) ? value.toString('hex') : value;
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    return error.reason;
  }
}

describe('what a strict reader takes and refuses', () => {
  const integer = (reader: DerReader) => reader.integer();
  const table: [string, string, (reader: DerReader) => unknown, unknown][] = [
    ['a short length', '0401aa', (r) => r.take(TAG.octetString), 'aa'],
    ['a long length of one octet', `048180${'aa'.repeat(128)}`, (r) => r.take(TAG.octetString).length, 128],
    ['a long length that would fit a short one', `04817f${'aa'.repeat(127)}`, (r) => r.take(TAG.octetString), 'DER_LENGTH'],
    ['a length with a leading zero', `04820080${'aa'.repeat(128)}`, (r) => r.take(TAG.octetString), 'DER_LENGTH'],
    ['an indefinite length', '0480aa0000', (r) => r.take(TAG.octetString), 'DER_LENGTH'],
    ['a length of five octets', '04850000000001aa', (r) => r.take(TAG.octetString), 'DER_LENGTH'],
    ['a length beyond the end', '0402aa', (r) => r.take(TAG.octetString), 'DER_TRUNCATED'],
    ['a length that is cut off', '0482', (r) => r.take(TAG.octetString), 'DER_TRUNCATED'],
    ['4 GiB in six bytes', '0484ffffffff', (r) => r.take(TAG.octetString), 'DER_TRUNCATED'],
    ['nothing', '', (r) => r.take(TAG.octetString), 'DER_TRUNCATED'],
    ['a high tag number', '1f8100', (r) => r.any(), 'DER_TAG'],
    ['another tag', '0500', (r) => r.take(TAG.octetString), 'DER_TAG'],
    ['a byte behind', '0401aa00', (r) => r.take(TAG.octetString), 'DER_TRAILING'],
    ['TRUE', '0101ff', (r) => r.boolean(), true],
    ['FALSE', '010100', (r) => r.boolean(), false],
    ['a TRUE that BER would take', '010101', (r) => r.boolean(), 'DER_BOOLEAN'],
    ['an empty boolean', '0100', (r) => r.boolean(), 'DER_BOOLEAN'],
    ['zero', '020100', integer, '00'],
    ['128', '02020080', integer, '0080'],
    ['a padded positive integer', '0202007f', integer, 'DER_INTEGER'],
    ['a padded negative integer', '0202ff80', integer, 'DER_INTEGER'],
    ['an empty integer', '0200', integer, 'DER_INTEGER'],
    ['a negative small integer', '0201ff', (r) => r.smallInteger(), 'DER_INTEGER'],
    ['bits of whole octets', '030200aa', (r) => r.octetAlignedBits(), 'aa'],
    ['bits of half octets', '030204a0', (r) => r.octetAlignedBits(), 'DER_BIT_STRING'],
    ['digitalSignature', '03020780', (r) => r.namedBits(), 0x8000],
    ['decipherOnly', '0303070080', (r) => r.namedBits(), 0x0080],
    ['a bit list with trailing zeros', '03020680', (r) => r.namedBits(), 'DER_BIT_STRING'],
    ['a bit list with a bit in the unused part', '03020681', (r) => r.namedBits(), 'DER_BIT_STRING'],
    ['eight unused bits', '03020880', (r) => r.namedBits(), 'DER_BIT_STRING'],
    ['an object identifier', '0603551d11', (r) => oidText(r.oid()), '2.5.29.17'],
    ['an object identifier with a leading 0x80', '060455801d11', (r) => r.oid(), 'DER_OID'],
    ['an object identifier that is cut off', '060255 9d', (r) => r.oid(), 'DER_OID'],
    ['an empty object identifier', '0600', (r) => r.oid(), 'DER_OID'],
  ];
  test.each(table)('%s', (_name, bytes, read, expected) => expect(outcome(bytes, read)).toBe(expected));

  const time = (tag: '17' | '18', text: string) =>
    outcome(`${tag}${text.length.toString(16).padStart(2, '0')}${Buffer.from(text).toString('hex')}`, (r) => r.time());
  test('times are in UTC, to the second, and exist in the calendar', () => {
    expect(time('17', '260601120000Z')).toBe(Date.UTC(2026, 5, 1, 12));
    expect(time('17', '491231235959Z')).toBe(Date.UTC(2049, 11, 31, 23, 59, 59));
    expect(time('17', '500101000000Z')).toBe(Date.UTC(1950, 0, 1));
    expect(time('18', '20500101000000Z')).toBe(Date.UTC(2050, 0, 1));
    expect(time('18', '99991231235959Z')).toBe(Date.UTC(9999, 11, 31, 23, 59, 59));
    expect(time('17', '240229000000Z')).toBe(Date.UTC(2024, 1, 29));
    for (const wrong of [
      '2606011200Z',
      '260601120000',
      '260601120000+0100',
      '260631120000Z',
      '250229000000Z',
      '261301000000Z',
      '260601240000Z',
      '260601126000Z',
      '26060112000 Z',
      '260600120000Z',
    ]) {
      expect(time('17', wrong), wrong).toBe('DER_TIME');
    }
    expect(time('18', '20500101000000.5Z')).toBe('DER_TIME');
  });
});

describe('what is written is read back', () => {
  test('values of every length', () => {
    for (const length of [0, 1, 127, 128, 255, 256, 65535, 65536]) {
      const bytes = der(TAG.octetString, Buffer.alloc(length, 7));
      const reader = new DerReader(bytes);
      expect(reader.take(TAG.octetString)).toHaveLength(length);
      reader.close();
    }
  });

  test('integers, identifiers and times', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 20 }), (octets) => {
        const contents = new DerReader(derUnsigned(octets)).integer();
        expect(BigInt(`0x${contents.toString('hex')}`)).toBe(BigInt(`0x${Buffer.from(octets).toString('hex')}`));
      }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 0, max: 39 }), fc.array(fc.nat(), { maxLength: 8 }), (a, b, rest) => {
        const dotted = [a, b, ...rest].join('.');
        expect(oidText(oidKey(dotted))).toBe(dotted);
        expect(new DerReader(derOid(dotted)).oid()).toBe(oidKey(dotted));
      }),
    );
    fc.assert(
      fc.property(fc.integer({ min: Date.UTC(1950, 0), max: Date.UTC(9999, 11) }), (ms) => {
        expect(new DerReader(derTime(ms)).time()).toBe(Math.floor(ms / 1000) * 1000);
      }),
    );
    expect(() => derTime(Date.UTC(10000, 0))).toThrow(SpiffeError);
  });

  test('any bytes are read within their bounds or refused with a SpiffeError', () => {
    const walk = (reader: DerReader, depth: number): void => {
      while (!reader.done) {
        const { tag, contents } = reader.any();
        if (tag & 0x20 && depth < 20) walk(new DerReader(contents), depth + 1);
      }
    };
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        try {
          walk(readWhole(Buffer.from(bytes), TAG.sequence), 0);
        } catch (error) {
          expect(error).toBeInstanceOf(SpiffeError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
