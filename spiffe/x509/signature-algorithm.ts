/** The signature algorithms of certificates and certificate requests: one table for reading and for writing. */
import { type KeyKind } from '../key-kind.ts';
import { constants, type KeyObject, verify } from 'node:crypto';
import { type DerReader, der, derOid, oidText, TAG } from './der.ts';

export interface SignatureAlgorithm {
  readonly name: string;
  /** What sort of key makes it. `rsa` keys make PSS signatures too, `rsa-pss` keys nothing else. */
  readonly key: 'ec' | 'rsa' | 'pss' | 'ed25519';
  readonly hash: 'sha256' | 'sha384' | 'sha512' | null;
  /** The AlgorithmIdentifier as DER. */
  readonly der: Buffer;
}

const NULL = der(TAG.null);

function row(
  name: string,
  key: SignatureAlgorithm['key'],
  hash: SignatureAlgorithm['hash'],
  oid: string,
  ...parameters: Buffer[]
): SignatureAlgorithm {
  return { name, key, hash, der: der(TAG.sequence, derOid(oid), ...parameters) };
}

/** RFC 4055 §3.1, with MGF1 over the same hash and a salt as long as the hash: the one form that is in use. */
function pss(hash: 'sha256' | 'sha384' | 'sha512', hashOid: string, salt: number, withNull: boolean): SignatureAlgorithm {
  const algorithm = der(TAG.sequence, derOid(hashOid), ...(withNull ? [NULL] : []));
  const mgf = der(TAG.sequence, derOid('1.2.840.113549.1.1.8'), algorithm);
  const parameters = der(TAG.sequence, der(0xa0, algorithm), der(0xa1, mgf), der(0xa2, der(TAG.integer, Buffer.from([salt]))));
  return row(`RSA-PSS-${hash.toUpperCase()}`, 'pss', hash, '1.2.840.113549.1.1.10', parameters);
}

/** SHA-1 and MD5 are not here, and so nothing that they signed is accepted. */
export const SIGNATURE_ALGORITHMS = {
  ecdsaSha256: row('ECDSA-SHA256', 'ec', 'sha256', '1.2.840.10045.4.3.2'),
  ecdsaSha384: row('ECDSA-SHA384', 'ec', 'sha384', '1.2.840.10045.4.3.3'),
  ecdsaSha512: row('ECDSA-SHA512', 'ec', 'sha512', '1.2.840.10045.4.3.4'),
  rsaSha256: row('RSA-SHA256', 'rsa', 'sha256', '1.2.840.113549.1.1.11', NULL),
  rsaSha384: row('RSA-SHA384', 'rsa', 'sha384', '1.2.840.113549.1.1.12', NULL),
  rsaSha512: row('RSA-SHA512', 'rsa', 'sha512', '1.2.840.113549.1.1.13', NULL),
  pssSha256: pss('sha256', '2.16.840.1.101.3.4.2.1', 32, true),
  pssSha384: pss('sha384', '2.16.840.1.101.3.4.2.2', 48, true),
  pssSha512: pss('sha512', '2.16.840.1.101.3.4.2.3', 64, true),
  ed25519: row('Ed25519', 'ed25519', null, '1.3.101.112'),
} as const satisfies Record<string, SignatureAlgorithm>;

const BY_DER: ReadonlyMap<string, SignatureAlgorithm> = new Map([
  ...Object.values(SIGNATURE_ALGORITHMS).map((algorithm) => [algorithm.der.toString('latin1'), algorithm] as const),
  // RFC 4055 §2.1 lets the hash's NULL be left out, and asks readers to take both.
  ...[
    [SIGNATURE_ALGORITHMS.pssSha256, pss('sha256', '2.16.840.1.101.3.4.2.1', 32, false)] as const,
    [SIGNATURE_ALGORITHMS.pssSha384, pss('sha384', '2.16.840.1.101.3.4.2.2', 48, false)] as const,
    [SIGNATURE_ALGORITHMS.pssSha512, pss('sha512', '2.16.840.1.101.3.4.2.3', 64, false)] as const,
  ].map(([algorithm, variant]) => [variant.der.toString('latin1'), algorithm] as const),
]);

export interface SignatureAlgorithmField {
  readonly raw: Buffer;
  /** Undefined: one that we do not verify; `name` is its OID then. */
  readonly algorithm: SignatureAlgorithm | undefined;
  readonly name: string;
}

/** Reads the next AlgorithmIdentifier. */
export function takeSignatureAlgorithm(reader: DerReader): SignatureAlgorithmField {
  const from = reader.at;
  const inner = reader.enter(TAG.sequence);
  const raw = reader.bytes.subarray(from, reader.at);
  const algorithm = BY_DER.get(raw.toString('latin1'));
  if (algorithm) return { raw, algorithm, name: algorithm.name };
  const name = oidText(inner.oid());
  // RFC 5280 §4.1.1.2: one value of parameters, or none.
  if (!inner.done) inner.any();
  inner.close();
  return { raw, algorithm, name };
}

/** Whether a key of this kind can have made such a signature at all. */
export function fits(algorithm: SignatureAlgorithm, kind: KeyKind): boolean {
  if (algorithm.key === 'pss') return kind.type === 'rsa' || kind.type === 'rsa-pss';
  return algorithm.key === kind.type;
}

/** Checks a signature; the caller has asked `fits`. Never throws on a malformed signature. */
export function verifySignature(algorithm: SignatureAlgorithm, data: Buffer, key: KeyObject, signature: Buffer): boolean {
  try {
    const options =
      algorithm.key === 'pss' ? { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST } : key;
    return verify(algorithm.hash, data, options, signature);
  } catch {
    return false;
  }
}
