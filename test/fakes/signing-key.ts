/** A `SigningKey` over a key in hand: what a key manager would give. */
import { constants, type KeyObject, sign } from 'node:crypto';
import { generateKey, keyTypeOf, spkiDer } from '../../core/x509/key.ts';
import type { KeyType, SigningKey } from '../../core/plugin/key-manager.ts';

export function signingKey(key: KeyObject, id = 'test'): SigningKey {
  const spki = spkiDer(key);
  return {
    id,
    type: keyTypeOf(spki) ?? 'ec-p256',
    spkiDer: spki,
    sign: async (data, options) =>
      sign(options.hash, data, {
        key,
        dsaEncoding: options.ecdsa ?? 'der',
        ...(options.rsa === 'pss' && { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }),
      }),
  };
}

export async function newSigningKey(type: KeyType = 'ec-p256'): Promise<SigningKey> {
  return signingKey(await generateKey(type));
}
