/**
 * PKCS#12 (RFC 7292) for programs that read nothing else: a key with its chain, or trusted certificates. Written, never read. Keys are under PBES2 (PBKDF2 with
 * HMAC-SHA-256, AES-256-CBC), the whole under an HMAC-SHA-256, as OpenSSL 3 and Java 17 write it by default; certificates, which are public, are in the clear.
 */
import { createCipheriv, createHash, createHmac, pbkdf2Sync } from 'node:crypto';
import { der, derOid, derUnsigned, TAG } from '../../spiffe/x509/der.ts';

export interface Keystore {
  readonly keyPkcs8Der: Buffer;
  /** Leaf first. */
  readonly chainDer: readonly Buffer[];
  /** What Java calls the entry. */
  readonly alias: string;
}

/** Java's count. */
const ITERATIONS = 10_000;
const VERSION_3 = derUnsigned(Buffer.of(3));

const sequence = (...parts: Uint8Array[]) => der(TAG.sequence, ...parts);
const octets = (bytes: Uint8Array) => der(TAG.octetString, bytes);
const explicit = (bytes: Uint8Array) => der(0xa0, bytes);
const integer = (value: number) => derUnsigned(Buffer.of(value >> 24, (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff));

const OID = {
  data: derOid('1.2.840.113549.1.7.1'),
  shroudedKeyBag: derOid('1.2.840.113549.1.12.10.1.2'),
  certBag: derOid('1.2.840.113549.1.12.10.1.3'),
  x509Certificate: derOid('1.2.840.113549.1.9.22.1'),
  friendlyName: derOid('1.2.840.113549.1.9.20'),
  localKeyId: derOid('1.2.840.113549.1.9.21'),
  /** Oracle's mark of a certificate that is trusted, without which Java sees none in the file. */
  trustedKeyUsage: derOid('2.16.840.1.113894.746875.1.1'),
  anyExtendedKeyUsage: derOid('2.5.29.37.0'),
  pbes2: derOid('1.2.840.113549.1.5.13'),
  pbkdf2: derOid('1.2.840.113549.1.5.12'),
  hmacSha256: derOid('1.2.840.113549.2.9'),
  aes256Cbc: derOid('2.16.840.1.101.3.4.1.42'),
  sha256: derOid('2.16.840.1.101.3.4.2.1'),
} as const;

/** @param password printable ASCII: about anything else readers disagree. */
export function writeKeystore({ keyPkcs8Der, chainDer, alias }: Keystore, password: string): Buffer {
  const salts = new Salts(password, [keyPkcs8Der, ...chainDer]);
  const [leaf = Buffer.alloc(0)] = chainDer;
  const id = attribute(OID.localKeyId, octets(createHash('sha1').update(leaf).digest()));
  const key = bag(OID.shroudedKeyBag, shroud(keyPkcs8Der, password, salts), [nameOf(alias), id]);
  const certificates = chainDer.map((one, index) => certificateBag(one, index === 0 ? [nameOf(alias), id] : []));
  return seal([contentInfo(sequence(key)), contentInfo(sequence(...certificates))], password, salts);
}

/** @param aliases one for each certificate. */
export function writeTruststore(certificates: readonly { readonly der: Buffer; readonly alias: string }[], password: string): Buffer {
  const salts = new Salts(
    password,
    certificates.map((one) => one.der),
  );
  const bags = certificates.map((one) =>
    certificateBag(one.der, [nameOf(one.alias), attribute(OID.trustedKeyUsage, OID.anyExtendedKeyUsage)]),
  );
  return seal([contentInfo(sequence(...bags))], password, salts);
}

/** Salts are made of what they protect: the same content under the same password gives the same file, which then need not be written again. */
class Salts {
  readonly #seed: Buffer;

  constructor(password: string, parts: readonly Buffer[]) {
    const hmac = createHmac('sha256', password);
    for (const part of parts) hmac.update(createHash('sha256').update(part).digest());
    this.#seed = hmac.digest();
  }

  of(purpose: string): Buffer {
    return createHmac('sha256', this.#seed).update(purpose).digest().subarray(0, 16);
  }
}

function seal(contents: readonly Buffer[], password: string, salts: Salts): Buffer {
  const safe = sequence(...contents);
  const salt = salts.of('mac');
  const mac = createHmac('sha256', macKey(password, salt)).update(safe).digest();
  const digestInfo = sequence(sequence(OID.sha256, der(TAG.null)), octets(mac));
  return sequence(VERSION_3, contentInfo(safe), sequence(digestInfo, octets(salt), integer(ITERATIONS)));
}

function contentInfo(content: Buffer): Buffer {
  return sequence(OID.data, explicit(octets(content)));
}

function bag(type: Buffer, value: Buffer, attributes: readonly Buffer[]): Buffer {
  return sequence(type, explicit(value), ...(attributes.length > 0 ? [der(TAG.set, ...attributes)] : []));
}

function certificateBag(certificate: Buffer, attributes: readonly Buffer[]): Buffer {
  return bag(OID.certBag, sequence(OID.x509Certificate, explicit(octets(certificate))), attributes);
}

function attribute(type: Buffer, value: Buffer): Buffer {
  return sequence(type, der(TAG.set, value));
}

function nameOf(alias: string): Buffer {
  return attribute(OID.friendlyName, der(TAG.bmpString, utf16Be(alias)));
}

function shroud(pkcs8: Buffer, password: string, salts: Salts): Buffer {
  const [salt, iv] = [salts.of('key'), salts.of('iv')];
  const cipher = createCipheriv('aes-256-cbc', pbkdf2Sync(password, salt, ITERATIONS, 32, 'sha256'), iv);
  const encrypted = Buffer.concat([cipher.update(pkcs8), cipher.final()]);
  const kdf = sequence(OID.pbkdf2, sequence(octets(salt), integer(ITERATIONS), sequence(OID.hmacSha256, der(TAG.null))));
  return sequence(sequence(OID.pbes2, sequence(kdf, sequence(OID.aes256Cbc, octets(iv)))), octets(encrypted));
}

function utf16Be(text: string): Buffer {
  return Buffer.from(text, 'utf16le').swap16();
}

/** RFC 7292 appendix B.2 with ID 3, for SHA-256, whose output is as long as the key that is wanted: one block. */
function macKey(password: string, salt: Buffer): Buffer {
  const BLOCK = 64;
  const repeated = (bytes: Buffer) => Buffer.alloc(BLOCK * Math.ceil(bytes.length / BLOCK), bytes);
  let hash = createHash('sha256')
    .update(Buffer.alloc(BLOCK, 3))
    .update(repeated(salt))
    .update(repeated(utf16Be(`${password}\0`)))
    .digest();
  for (let round = 1; round < ITERATIONS; round++) hash = createHash('sha256').update(hash).digest();
  return hash;
}
