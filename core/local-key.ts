/** A signing key that lives in this process: what key managers of memory and disk hand out in place of the key itself. */
import { constants, createPublicKey, type KeyObject, sign } from 'node:crypto';
import type { KeyType, SigningKey } from './plugin/key-manager.ts';

/** @param key a private key; it can't be read back from what this gives. */
export function localSigningKey(id: string, type: KeyType, key: KeyObject): SigningKey {
  const spkiDer = createPublicKey(key).export({ type: 'spki', format: 'der' });
  return {
    id,
    type,
    spkiDer,
    // synchronous inside: 20 µs for P-256; a thread's hand-over costs more than it frees
    async sign(data, { hash, ecdsa = 'der', rsa = 'pkcs1' }) {
      return sign(hash, data, {
        key,
        dsaEncoding: ecdsa,
        ...(type.startsWith('rsa') && {
          padding: rsa === 'pss' ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING,
          saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
        }),
      });
    },
  };
}
