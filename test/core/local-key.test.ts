/** Keys that sign without being seen: every form of signature verifies with the public half. */
import { constants, createPublicKey, generateKeyPairSync, verify } from 'node:crypto';
import { expect, test } from 'vitest';
import { localSigningKey } from '../../core/local-key.ts';
import type { KeyType } from '../../core/plugin/key-manager.ts';

const pair = (type: KeyType) =>
  type.startsWith('ec')
    ? generateKeyPairSync('ec', { namedCurve: type === 'ec-p256' ? 'P-256' : 'P-384' })
    : generateKeyPairSync('rsa', { modulusLength: Number(type.slice(4)) });

for (const [type, hash] of [
  ['ec-p256', 'sha256'],
  ['ec-p384', 'sha384'],
] as const) {
  test(`${type}: DER and side by side, whatever the size of the numbers`, async () => {
    const { privateKey, publicKey } = pair(type);
    const key = localSigningKey('test', type, privateKey);
    expect(createPublicKey({ key: key.spkiDer, format: 'der', type: 'spki' }).equals(publicKey)).toBe(true);
    // one number in 128 is a byte shorter: 600 signatures have both kinds of both numbers
    for (let round = 0; round < 600; round++) {
      const data = Buffer.from(`round ${round}`);
      const flat = await key.sign(data, { hash, ecdsa: 'ieee-p1363' });
      expect(flat).toHaveLength(type === 'ec-p256' ? 64 : 96);
      expect(verify(hash, data, { key: publicKey, dsaEncoding: 'ieee-p1363' }, flat)).toBe(true);
      expect(verify(hash, Buffer.from('other'), { key: publicKey, dsaEncoding: 'ieee-p1363' }, flat)).toBe(false);
    }
    expect(verify(hash, Buffer.from('x'), publicKey, await key.sign(Buffer.from('x'), { hash }))).toBe(true);
  });
}

test('rsa-2048: PKCS#1 v1.5, and PSS with a salt as long as the hash', async () => {
  const { privateKey, publicKey } = pair('rsa-2048');
  const key = localSigningKey('test', 'rsa-2048', privateKey);
  const data = Buffer.from('x');
  expect(verify('sha256', data, publicKey, await key.sign(data, { hash: 'sha256' }))).toBe(true);
  const pss = { key: publicKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
  expect(verify('sha256', data, pss, await key.sign(data, { hash: 'sha256', rsa: 'pss' }))).toBe(true);
});
