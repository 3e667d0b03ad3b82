/** A small certificate authority made with @peculiar/x509: a hand that is not ours, for certificates right and wrong. */
import 'reflect-metadata';
import { createHash, KeyObject, type webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

type CryptoKeyPair = webcrypto.CryptoKeyPair;

const { subtle } = globalThis.crypto;

export type TestKeyType = 'ec-p256' | 'ec-p384' | 'ec-p521' | 'rsa-1024' | 'rsa-2048' | 'rsa-3072' | 'rsa-4096' | 'ed25519';

export interface TestCertificate {
  readonly der: Buffer;
  readonly pem: string;
  readonly keys: CryptoKeyPair;
  /** The private key. */
  readonly key: KeyObject;
  readonly subject: string;
  readonly keyIdentifier: string;
}

export interface TestCertificateOptions {
  /** Left out: a root that signs itself. */
  readonly issuer?: TestCertificate;
  readonly subject?: string;
  readonly uris?: readonly string[];
  readonly dns?: readonly string[];
  readonly sanCritical?: boolean;
  readonly ca?: boolean;
  readonly pathLen?: number;
  readonly basicConstraints?: boolean;
  /** null: no key usage extension. */
  readonly usages?: readonly (keyof typeof x509.KeyUsageFlags)[] | null;
  readonly usagesCritical?: boolean;
  /** null: no extended key usage. */
  readonly purposes?: readonly string[] | null;
  readonly purposesCritical?: boolean;
  readonly notBeforeMs?: number;
  readonly notAfterMs?: number;
  readonly extensions?: readonly x509.Extension[];
  readonly keyType?: TestKeyType;
  readonly keys?: CryptoKeyPair;
  readonly keyIdentifiers?: boolean;
  readonly hash?: 'SHA-1' | 'SHA-256' | 'SHA-384' | 'SHA-512';
}

/** The middle of every test's time. */
export const NOW_MS = Date.UTC(2026, 5, 1, 12);
const HOUR_MS = 3_600_000;

export async function testKeys(type: TestKeyType = 'ec-p256'): Promise<CryptoKeyPair> {
  if (type === 'ed25519') return (await subtle.generateKey('Ed25519', true, ['sign', 'verify'])) as CryptoKeyPair;
  if (type.startsWith('rsa-')) {
    const rsa = {
      name: 'RSASSA-PKCS1-v1_5',
      hash: 'SHA-256',
      modulusLength: Number(type.slice(4)),
      publicExponent: new Uint8Array([1, 0, 1]),
    };
    return subtle.generateKey(rsa, true, ['sign', 'verify']);
  }
  return subtle.generateKey({ name: 'ECDSA', namedCurve: `P-${type.slice(4)}` }, true, ['sign', 'verify']);
}

/** A leaf in SPIRE's shape unless told otherwise; with `ca: true` a signing certificate in SPIRE's shape. */
export async function testCertificate(options: TestCertificateOptions = {}): Promise<TestCertificate> {
  const { issuer, ca = false } = options;
  const keys = options.keys ?? (await testKeys(options.keyType));
  const uris = options.uris ?? [ca ? 'spiffe://example.org' : 'spiffe://example.org/web'];
  const usages =
    options.usages === undefined
      ? ca
        ? (['keyCertSign', 'cRLSign'] as const)
        : (['digitalSignature', 'keyEncipherment', 'keyAgreement'] as const)
      : options.usages;
  const purposes =
    options.purposes === undefined ? (ca ? null : [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]) : options.purposes;
  const names = [
    ...(options.dns ?? []).map((value) => ({ type: 'dns' as const, value })),
    ...uris.map((value) => ({ type: 'url' as const, value })),
  ];
  const spki = Buffer.from(await subtle.exportKey('spki', keys.publicKey));
  const keyIdentifier = createHash('sha1').update(spki).digest('hex');
  const subject = options.subject ?? (ca ? `CN=ca ${keyIdentifier.slice(0, 8)}` : 'C=US, O=SPIRE');
  const extensions: x509.Extension[] = [
    ...(options.basicConstraints === false ? [] : [new x509.BasicConstraintsExtension(ca, options.pathLen, true)]),
    ...(usages === null
      ? []
      : [
          new x509.KeyUsagesExtension(
            usages.reduce((bits, usage) => bits | x509.KeyUsageFlags[usage], 0),
            options.usagesCritical ?? true,
          ),
        ]),
    ...(purposes === null ? [] : [new x509.ExtendedKeyUsageExtension([...purposes], options.purposesCritical ?? false)]),
    ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names, options.sanCritical ?? false)]),
    ...(options.keyIdentifiers === false
      ? []
      : [
          new x509.SubjectKeyIdentifierExtension(keyIdentifier),
          new x509.AuthorityKeyIdentifierExtension(issuer?.keyIdentifier ?? keyIdentifier),
        ]),
    ...(options.extensions ?? []),
  ];
  const signingKey = issuer?.keys.privateKey ?? keys.privateKey;
  const hash = options.hash ?? 'SHA-256';
  const certificate = await x509.X509CertificateGenerator.create({
    subject,
    issuer: issuer?.subject ?? subject,
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: { name: signingKey.algorithm.name, hash } as EcdsaParams,
    notBefore: new Date(options.notBeforeMs ?? NOW_MS - HOUR_MS),
    notAfter: new Date(options.notAfterMs ?? NOW_MS + HOUR_MS),
    extensions,
  });
  return {
    der: Buffer.from(certificate.rawData),
    pem: `${certificate.toString('pem')}\n`,
    keys,
    key: KeyObject.from(keys.privateKey),
    subject,
    keyIdentifier,
  };
}

interface EcdsaParams {
  name: string;
  hash: string;
}

export function testRoot(options: TestCertificateOptions = {}): Promise<TestCertificate> {
  return testCertificate({ ca: true, ...options });
}

export { x509 };
