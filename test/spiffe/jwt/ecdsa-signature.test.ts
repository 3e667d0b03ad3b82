/** Two numbers side by side become DER: against node:crypto, which verifies both forms. */
import { generateKeyPairSync, sign, verify } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { derOfSignature } from '../../../spiffe/jwt/ecdsa-signature.ts';

test.each([
  ['P-256', 'sha256', 400],
  ['P-384', 'sha384', 40],
  ['P-521', 'sha512', 40],
] as const)('what is signed with %s verifies in both forms', (namedCurve, hash, times) => {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve });
  for (let i = 0; i < times; i++) {
    const data = Buffer.from(String(i));
    const joined = sign(hash, data, { key: privateKey, dsaEncoding: 'ieee-p1363' });
    expect(verify(hash, data, publicKey, derOfSignature(joined))).toBe(true);
    expect(verify(hash, Buffer.from('else'), publicKey, derOfSignature(joined))).toBe(false);
  }
});

/** Octets that are no signature at all get the same verdict in either form. */
test('any two numbers are written as DER has it', () => {
  const half = fc.oneof(
    fc.uint8Array({ minLength: 32, maxLength: 32 }),
    fc.constant(new Uint8Array(32)),
    fc.constant(new Uint8Array(32).fill(0xff)),
    fc.nat(3).map((zeros) => new Uint8Array(32).fill(0x81, zeros)),
  );
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  fc.assert(
    fc.property(half, half, (r, s) => {
      const joined = Buffer.concat([r, s]);
      const der = Buffer.from(derOfSignature(joined));
      expect(der.length).toBe(2 + (der[1] as number));
      const rLength = der[3] as number;
      const numbers = [der.subarray(4, 4 + rLength), der.subarray(6 + rLength)];
      for (const [i, number] of numbers.entries()) {
        expect(BigInt(`0x${number.toString('hex')}`)).toBe(BigInt(`0x${joined.subarray(i * 32, i * 32 + 32).toString('hex')}`));
        // the shortest form, and not negative
        expect((number[0] as number) < 0x80 && !(number.length > 1 && number[0] === 0 && (number[1] as number) < 0x80)).toBe(true);
      }
      const data = Buffer.from('x');
      expect(verify('sha256', data, publicKey, der)).toBe(verify('sha256', data, { key: publicKey, dsaEncoding: 'ieee-p1363' }, joined));
    }),
    { numRuns: 300 },
  );
});
