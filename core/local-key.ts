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
    // Synchronous inside: 24 µs for P-256; a thread's hand-over costs more than it frees. The key is given bare wherever its defaults are what is wanted:
    // with an object of options around it Node takes 12 µs longer, and another 14 µs to write the numbers side by side (bench/jwt.ts).
    async sign(data, { hash, ecdsa = 'der', rsa = 'pkcs1' }) {
      if (type.startsWith('ec')) {
        const der = sign(hash, data, key);
        return ecdsa === 'der' ? der : sideBySide(der, type === 'ec-p256' ? 32 : 48);
      }
      if (rsa === 'pkcs1') return sign(hash, data, key);
      return sign(hash, data, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST });
    },
  };
}

/** `SEQUENCE { r INTEGER, s INTEGER }` as OpenSSL has just written it → both numbers in `size` bytes each (RFC 7518 §3.4). */
function sideBySide(der: Buffer, size: number): Buffer {
  const out = Buffer.alloc(2 * size);
  let at = 2;
  for (const end of [size, 2 * size]) {
    const length = der[at + 1] ?? 0;
    // a number whose first bit is set has a zero before it; small ones are shorter
    const zero = length > size ? length - size : 0;
    der.copy(out, end - (length - zero), at + 2 + zero, at + 2 + length);
    at += 2 + length;
  }
  return out;
}
