/** The enterprise PKI that stands in for yours: a root, and the intermediate that its people hand over. Made once, kept on disk. */
import 'reflect-metadata';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Crypto } from '@peculiar/webcrypto';
import * as x509 from '@peculiar/x509';

const DAY_MS = 86_400_000;
const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

export interface Pki {
  readonly rootPem: string;
  readonly intermediatePem: string;
  readonly intermediateKeyPem: string;
}

/** Paths of the root's certificate and the intermediate's certificate and key below `folder`. `madeNow`: they were not there before. */
export async function enterprisePki(folder: string, nowMs: number): Promise<Pki & { readonly madeNow: boolean }> {
  const paths = {
    rootPem: join(folder, 'root.pem'),
    intermediatePem: join(folder, 'intermediate.pem'),
    intermediateKeyPem: join(folder, 'intermediate.key'),
  };
  if (Object.values(paths).every((path) => existsSync(path))) return { ...paths, madeNow: false };
  const crypto = new Crypto();
  x509.cryptoProvider.set(crypto);
  const keys = () => crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const [root, intermediate] = await Promise.all([keys(), keys()]);
  const usages = new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true);
  const rootCertificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'O=Example Corp, CN=Example Corp Root CA',
    notBefore: new Date(nowMs - DAY_MS),
    notAfter: new Date(nowMs + 3650 * DAY_MS),
    signingAlgorithm: ALGORITHM,
    keys: root,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      usages,
      await x509.SubjectKeyIdentifierExtension.create(root.publicKey, false, crypto),
    ],
  });
  const intermediateCertificate = await x509.X509CertificateGenerator.create({
    subject: 'O=Example Corp, CN=Example Corp Workload Identity CA',
    issuer: rootCertificate.subject,
    notBefore: new Date(nowMs - DAY_MS),
    notAfter: new Date(nowMs + 730 * DAY_MS),
    signingAlgorithm: ALGORITHM,
    signingKey: root.privateKey,
    publicKey: intermediate.publicKey,
    extensions: [
      new x509.BasicConstraintsExtension(true, 1, true),
      usages,
      await x509.SubjectKeyIdentifierExtension.create(intermediate.publicKey, false, crypto),
      await x509.AuthorityKeyIdentifierExtension.create(root.publicKey, false, crypto),
    ],
  });
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', intermediate.privateKey))
    .toString('base64')
    .replace(/.{64}/g, '$&\n');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  writeFileSync(paths.intermediateKeyPem, `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`, { mode: 0o600 });
  writeFileSync(paths.intermediatePem, `${intermediateCertificate.toString('pem')}\n`);
  writeFileSync(paths.rootPem, `${rootCertificate.toString('pem')}\n`);
  return { ...paths, madeNow: true };
}
