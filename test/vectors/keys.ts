/** Keys of the vectors, each made from its name and nothing else; their signatures are the same each time, so that the files are too. */
import {
  checkPrimeSync,
  constants,
  createECDH,
  createHash,
  createPrivateKey,
  createPublicKey,
  hkdfSync,
  type KeyObject,
  privateEncrypt,
  sign,
} from 'node:crypto';
import type { Curve } from '../../spiffe/key-kind.ts';
import { der, derUnsigned, TAG } from '../../spiffe/x509/der.ts';

export type Hash = 'sha1' | 'sha256' | 'sha384' | 'sha512';

export interface VectorKey {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  readonly spki: Buffer;
  readonly kind: 'ec' | 'rsa' | 'ed25519';
  /** Raw r‖s for EC, PKCS#1 for RSA. */
  sign(data: Buffer, hash: Hash): Buffer;
  /** As certificates have it: r and s in DER. */
  signDer(data: Buffer, hash: Hash): Buffer;
  /** RSA alone. */
  signPss(data: Buffer, hash: Hash): Buffer;
}

const CURVES: Readonly<Record<Curve, { readonly name: string; readonly bytes: number; readonly order: bigint }>> = {
  'P-256': { name: 'prime256v1', bytes: 32, order: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n },
  'P-384': {
    name: 'secp384r1',
    bytes: 48,
    order: 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
  },
  'P-521': {
    name: 'secp521r1',
    bytes: 66,
    order:
      0x1fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409n,
  },
};

const bytesOf = (name: string, length: number) => Buffer.from(hkdfSync('sha512', name, 'warifu vectors', '', length));
const numberOf = (bytes: Uint8Array) => BigInt(`0x${Buffer.from(bytes).toString('hex') || '0'}`);
const octets = (value: bigint, length: number) => Buffer.from(value.toString(16).padStart(2 * length, '0'), 'hex');
const none = (): never => {
  throw new Error('this key does not sign so');
};

export function ecKey(name: string, curve: Curve = 'P-256'): VectorKey {
  const { name: group, bytes, order } = CURVES[curve];
  const secret = (numberOf(bytesOf(`${curve} ${name}`, bytes + 16)) % (order - 1n)) + 1n;
  const point = (scalar: bigint) => {
    const ecdh = createECDH(group);
    ecdh.setPrivateKey(octets(scalar, bytes));
    return ecdh.getPublicKey();
  };
  const whole = point(secret);
  const jwk = {
    kty: 'EC',
    crv: curve,
    x: whole.toString('base64url', 1, 1 + bytes),
    y: whole.toString('base64url', 1 + bytes),
    d: octets(secret, bytes).toString('base64url'),
  };
  /** ECDSA with a nonce that depends on key and message alone (as RFC 6979, though not its way). */
  const raw = (data: Buffer, hash: Hash) => {
    const digest = createHash(hash).update(data).digest();
    const z = numberOf(digest.subarray(0, bytes));
    const k = (numberOf(bytesOf(`${curve} ${name} ${digest.toString('hex')}`, bytes + 16)) % (order - 1n)) + 1n;
    const r = numberOf(point(k).subarray(1, 1 + bytes)) % order;
    const s = (power(k, order - 2n, order) * (z + r * secret)) % order;
    return Buffer.concat([octets(r, bytes), octets(s, bytes)]);
  };
  return {
    ...pair(jwk),
    kind: 'ec',
    sign: raw,
    signDer(data, hash) {
      const both = raw(data, hash);
      return der(TAG.sequence, derUnsigned(both.subarray(0, bytes)), derUnsigned(both.subarray(bytes)));
    },
    signPss: none,
  };
}

export function rsaKey(name: string, bits = 2048): VectorKey {
  const e = 65537n;
  const prime = (which: string) => {
    for (let n = 0; ; n++) {
      const found = numberOf(bytesOf(`rsa ${bits} ${name} ${which} ${n}`, bits / 16)) | 1n | (3n << BigInt(bits / 2 - 2));
      if ((found - 1n) % e !== 0n && checkPrimeSync(found)) return found;
    }
  };
  const [p, q] = [prime('p'), prime('q')];
  const d = inverse(e, (p - 1n) * (q - 1n));
  const text = (value: bigint) => {
    const hex = value.toString(16);
    return Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex').toString('base64url');
  };
  const jwk = {
    kty: 'RSA',
    n: text(p * q),
    e: text(e),
    d: text(d),
    p: text(p),
    q: text(q),
    dp: text(d % (p - 1n)),
    dq: text(d % (q - 1n)),
    qi: text(inverse(q, p)),
  };
  const made = pair(jwk);
  const pkcs1 = (data: Buffer, hash: Hash) => sign(hash, data, made.privateKey);
  return {
    ...made,
    kind: 'rsa',
    sign: pkcs1,
    signDer: pkcs1,
    /** RFC 8017 §9.1.1, with a salt of zeros as long as the hash. */
    signPss(data, hash) {
      const digest = createHash(hash).update(data).digest();
      const salt = Buffer.alloc(digest.length);
      const inner = createHash(hash).update(Buffer.alloc(8)).update(digest).update(salt).digest();
      const block = Buffer.alloc(bits / 8 - digest.length - 1);
      block[block.length - salt.length - 1] = 1;
      salt.copy(block, block.length - salt.length);
      for (let at = 0, counter = 0; at < block.length; at += inner.length, counter++) {
        const mask = createHash(hash)
          .update(inner)
          .update(octets(BigInt(counter), 4))
          .digest();
        for (let i = 0; i < mask.length && at + i < block.length; i++) block[at + i] = (block[at + i] as number) ^ (mask[i] as number);
      }
      block[0] = (block[0] as number) & 0x7f;
      return privateEncrypt({ key: made.privateKey, padding: constants.RSA_NO_PADDING }, Buffer.concat([block, inner, Buffer.of(0xbc)]));
    },
  };
}

export function ed25519Key(name: string): VectorKey {
  const privateKey = createPrivateKey({
    key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), bytesOf(`ed25519 ${name}`, 32)]),
    format: 'der',
    type: 'pkcs8',
  });
  const publicKey = createPublicKey(privateKey);
  const plain = (data: Buffer) => sign(null, data, privateKey);
  return {
    privateKey,
    publicKey,
    spki: publicKey.export({ type: 'spki', format: 'der' }),
    kind: 'ed25519',
    sign: plain,
    signDer: plain,
    signPss: none,
  };
}

function pair(jwk: Record<string, string>): Pick<VectorKey, 'privateKey' | 'publicKey' | 'spki'> {
  const privateKey = createPrivateKey({ key: jwk, format: 'jwk' });
  const publicKey = createPublicKey(privateKey);
  return { privateKey, publicKey, spki: publicKey.export({ type: 'spki', format: 'der' }) };
}

function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n;
  for (let b = base % modulus, rest = exponent; rest > 0n; rest >>= 1n, b = (b * b) % modulus)
    if (rest & 1n) result = (result * b) % modulus;
  return result;
}

function inverse(value: bigint, modulus: bigint): bigint {
  let [a, b, x, y] = [value, modulus, 1n, 0n];
  while (b !== 0n) [a, b, x, y] = [b, a % b, y, x - (a / b) * y];
  return ((x % modulus) + modulus) % modulus;
}
