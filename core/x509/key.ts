/** Key pairs of the kinds that we use: made, read from PEM, told apart, and made to sign certificates. */
import { type KeyKind, keyKindText, keyWeakness } from '../../spiffe/key-kind.ts';
import { createPrivateKey, createPublicKey, generateKeyPair, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';
import { formatPem, parsePem } from '../../spiffe/x509/pem.ts';
import { SIGNATURE_ALGORITHMS, type SignatureAlgorithm } from '../../spiffe/x509/signature-algorithm.ts';
import { readSpki } from '../../spiffe/x509/spki.ts';
import { fail } from '../errors.ts';
import { KEY_TYPES, type KeyType, type SigningKey } from '../plugin/key-manager.ts';

/** The part of a `SigningKey` that signing needs. */
export type Signer = Pick<SigningKey, 'spkiDer' | 'sign'>;

export { KEY_TYPES, type KeyType };

const generate = promisify(generateKeyPair);

/**
 * A new key pair; RSA in the thread pool, where it takes 100 ms to seconds. Never export the private key as JWK on Node before 22:
 * that can hang the process (nodejs, JWK export of a key made by generateKeyPairSync).
 */
export async function generateKey(type: KeyType): Promise<KeyObject> {
  if (type === 'ec-p256' || type === 'ec-p384') return generateEcKey(type);
  const { privateKey } = await generate('rsa', { modulusLength: type === 'rsa-2048' ? 2048 : 4096, publicExponent: 0x10001 });
  return privateKey;
}

/** At once: tens of microseconds for P-256. */
export function generateEcKey(type: 'ec-p256' | 'ec-p384' = 'ec-p256'): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: type === 'ec-p256' ? 'prime256v1' : 'secp384r1' }).privateKey;
}

export function pkcs8Der(key: KeyObject): Buffer {
  return key.export({ type: 'pkcs8', format: 'der' });
}

export function pkcs8Pem(key: KeyObject): string {
  return formatPem('PRIVATE KEY', pkcs8Der(key));
}

/** Of a private or a public key. */
export function spkiDer(key: KeyObject): Buffer {
  return (key.type === 'private' ? createPublicKey(key) : key).export({ type: 'spki', format: 'der' });
}

/** @param der one PKCS#8 PrivateKeyInfo, unencrypted. Throws REQUEST_INVALID with KEY_ reasons. */
export function parsePkcs8(der: Uint8Array): KeyObject {
  return readPrivateKey(Buffer.from(der), 'pkcs8');
}

const PRIVATE_LABELS: ReadonlyMap<string, 'pkcs8' | 'sec1' | 'pkcs1'> = new Map([
  ['PRIVATE KEY', 'pkcs8'],
  ['EC PRIVATE KEY', 'sec1'],
  ['RSA PRIVATE KEY', 'pkcs1'],
]);

/**
 * The one private key of a PEM text: PKCS#8, SEC1 or PKCS#1. Other blocks (certificates, EC PARAMETERS) are passed over.
 * Throws REQUEST_INVALID: none, more than one, an encrypted one, or one that is too weak.
 */
export function parsePrivateKeyPem(pem: string | Uint8Array): KeyObject {
  const blocks = parsePem(pem);
  if (blocks.some((block) => block.label === 'ENCRYPTED PRIVATE KEY')) {
    throw fail('REQUEST_INVALID', 'the private key is encrypted, which is not supported: decrypt it with `openssl pkey`', {
      reason: 'PEM_HEADERS',
    });
  }
  const keys = blocks.filter((block) => PRIVATE_LABELS.has(block.label));
  const [key] = keys;
  if (!key)
    throw fail('REQUEST_INVALID', 'no private key found: a PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY block is needed', {
      reason: 'PEM_MISSING',
    });
  if (keys.length > 1) throw fail('REQUEST_INVALID', 'more than one private key found', { reason: 'PEM_MALFORMED' });
  return readPrivateKey(key.der, PRIVATE_LABELS.get(key.label) as 'pkcs8');
}

function readPrivateKey(der: Buffer, type: 'pkcs8' | 'sec1' | 'pkcs1'): KeyObject {
  let key: KeyObject;
  let kind: KeyKind;
  try {
    key = createPrivateKey({ key: der, format: 'der', type });
    kind = readSpki(spkiDer(key)).kind;
  } catch (cause) {
    throw fail('REQUEST_INVALID', `the private key (${type.toUpperCase()}) cannot be read`, { reason: 'KEY_MALFORMED', cause });
  }
  const weakness = keyWeakness(kind);
  if (weakness) throw fail('REQUEST_INVALID', `the private key is ${weakness.why}`, { reason: weakness.reason });
  return key;
}

/** @param key a private or public key, or its SubjectPublicKeyInfo. @returns what SPIRE's settings would call it; undefined for one that a key manager can't make (RSA-3072, P-521, Ed25519). */
export function keyTypeOf(key: KeyObject | Buffer): KeyType | undefined {
  const kind = readSpki(Buffer.isBuffer(key) ? key : spkiDer(key)).kind;
  if (kind.type === 'ec') return kind.curve === 'P-256' ? 'ec-p256' : kind.curve === 'P-384' ? 'ec-p384' : undefined;
  if (kind.type === 'rsa') return kind.bits === 2048 ? 'rsa-2048' : kind.bits === 4096 ? 'rsa-4096' : undefined;
  return undefined;
}

/** What a key of this kind signs certificates and requests with. Throws REQUEST_INVALID with KEY_UNSUPPORTED. */
export function certificateAlgorithm(kind: KeyKind): SignatureAlgorithm {
  const weakness = keyWeakness(kind);
  if (weakness) throw fail('REQUEST_INVALID', `cannot sign with ${weakness.why}`, { reason: weakness.reason });
  if (kind.type === 'ec') {
    return kind.curve === 'P-256'
      ? SIGNATURE_ALGORITHMS.ecdsaSha256
      : kind.curve === 'P-384'
        ? SIGNATURE_ALGORITHMS.ecdsaSha384
        : SIGNATURE_ALGORITHMS.ecdsaSha512;
  }
  if (kind.type === 'rsa') return SIGNATURE_ALGORITHMS.rsaSha256;
  throw fail('REQUEST_INVALID', `cannot sign certificates with a key of ${keyKindText(kind)}`, { reason: 'KEY_UNSUPPORTED' });
}

export interface Signature {
  readonly algorithm: SignatureAlgorithm;
  readonly signature: Buffer;
}

/** The algorithm of each signer, found once: reading a key's SPKI costs as much as hashing what it signs. */
const ALGORITHMS = new WeakMap<Buffer, SignatureAlgorithm>();

export function signerAlgorithm(signer: Pick<Signer, 'spkiDer'>): SignatureAlgorithm {
  let algorithm = ALGORITHMS.get(signer.spkiDer);
  if (!algorithm) {
    algorithm = certificateAlgorithm(readSpki(signer.spkiDer).kind);
    ALGORITHMS.set(signer.spkiDer, algorithm);
  }
  return algorithm;
}

/** Signs a TBSCertificate or a CertificationRequestInfo, which already names `signerAlgorithm(signer)`. */
export async function signCertificate(signer: Signer, data: Buffer): Promise<Signature> {
  const algorithm = signerAlgorithm(signer);
  return { algorithm, signature: await signer.sign(data, { hash: algorithm.hash ?? 'sha256' }) };
}

/** The same with a key in hand, at once. */
export function signWithKey(key: KeyObject, data: Buffer): Signature {
  const algorithm = certificateAlgorithm(readSpki(spkiDer(key)).kind);
  return { algorithm, signature: sign(algorithm.hash, data, key) };
}
