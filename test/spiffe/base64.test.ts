/** base64url against Node's own reading: the one canonical text of some octets, or nothing (RFC 7515 §2, RFC 4648 §3.5). */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { asciiBytes, base64url, base64urlOf } from '../../spiffe/base64.ts';

test('octets written and read are the same, and the text is Node’s', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const text = base64urlOf(bytes);
      expect(text).toBe(Buffer.from(bytes).toString('base64url'));
      expect(base64url(text)).toEqual(bytes);
    }),
  );
});

test('any other text is nothing', () => {
  const near = fc.stringMatching(/^[A-Za-z0-9_=+/ \n.-]{0,12}$/);
  fc.assert(
    fc.property(fc.oneof(near, fc.string({ unit: 'binary' })), (text) => {
      const lenient = Buffer.from(text, 'base64url');
      expect(base64url(text)).toEqual(lenient.toString('base64url') === text ? new Uint8Array(lenient) : undefined);
    }),
    { numRuns: 2_000 },
  );
  for (const text of ['A', 'AB', 'AAB', 'AA==', 'AA=', 'A+8', 'A/8', ' AA', 'AA\n', 'ÀA', '\u{1f4a9}A'])
    expect(base64url(text), text).toBeUndefined();
  for (const [text, octets] of [
    ['', []],
    ['AA', [0]],
    ['AAA', [0, 0]],
    ['-_8', [251, 255]],
  ] as const)
    expect([...(base64url(text) ?? [1])]).toEqual([...octets]);
  for (const odd of [undefined, null, 1, {}, ['AA']]) expect(base64url(odd)).toBeUndefined();
});

test('ASCII is one octet a character', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[ -~]{0,50}$/), (text) => {
      expect([...asciiBytes(text)]).toEqual([...Buffer.from(text)]);
    }),
  );
});
