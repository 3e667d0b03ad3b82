import { execFileSync } from 'node:child_process';
import { createPublicKey, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SigningKey } from '../../../core/plugin/key-manager.ts';
import { parseCsr } from '../../../core/x509/csr.ts';
import { buildCaCsr, capNotAfter, type Issuer, issueX509Ca, issueX509Svid, keyId } from '../../../core/x509/issue.ts';
import { generateEcKey, generateKey, KEY_TYPES, spkiDer } from '../../../core/x509/key.ts';
import { Certificate } from '../../../spiffe/x509/certificate.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { formatPem } from '../../../spiffe/x509/pem.ts';
import { testCertificate, testRoot, x509 } from '../../fakes/ca.ts';
import { newSigningKey, signingKey } from '../../fakes/signing-key.ts';

const td = TrustDomain.parse('example.org');
const web = SpiffeId.parse('spiffe://example.org/web');
// openssl verify reads the real clock through -attime; the dates are ours.
const NOW_MS = Date.UTC(2026, 5, 1, 12);
const HOUR_MS = 3_600_000;
const dates = { notBeforeMs: NOW_MS - 10_000, notAfterMs: NOW_MS + HOUR_MS };
const subject = { country: ['US'], organization: ['SPIFFE'] };

const folder = mkdtempSync(join(tmpdir(), 'issue-'));
afterAll(() => rmSync(folder, { recursive: true }));

function opensslVerify(leaf: Buffer, root: Buffer, between: readonly Buffer[] = []): string {
  const write = (name: string, ...ders: readonly Buffer[]) => {
    const path = join(folder, name);
    writeFileSync(path, ders.map((der) => formatPem('CERTIFICATE', der)).join(''));
    return path;
  };
  const args = ['verify', '-x509_strict', '-attime', String(NOW_MS / 1000), '-CAfile', write('root.pem', root)];
  if (between.length > 0) args.push('-untrusted', write('between.pem', ...between));
  return execFileSync('openssl', [...args, write('leaf.pem', leaf)], { encoding: 'utf8' }).trim();
}

async function newRoot(key: SigningKey, pathLen?: number): Promise<Issuer> {
  const { certificate } = await issueX509Ca({
    issuer: 'self',
    key,
    trustDomain: td,
    subject,
    ...dates,
    ...(pathLen !== undefined && { pathLen }),
  });
  return { certificate, key };
}

async function refusal(run: Promise<unknown>): Promise<string> {
  const error = await run.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error === undefined) return 'issued';
  if (!(error instanceof SpiffeError)) throw error;
  return `${error.code} ${error.reason}`;
}

let issuer: Issuer;
const leafKey = generateEcKey();
beforeAll(async () => {
  issuer = await newRoot(await newSigningKey());
});

describe('an X.509-SVID of ours', () => {
  test.each(KEY_TYPES)('below an %s authority: openssl verify -x509_strict and an independent reader agree with us', async (type) => {
    const root = await newRoot(await newSigningKey(type));
    const key = await newSigningKey();
    const between = await issueX509Ca({ issuer: root, key, trustDomain: td, subject: { commonName: 'between' }, ...dates });
    const leaf = await issueX509Svid({
      issuer: { certificate: between.certificate, key },
      spkiDer: spkiDer(leafKey),
      spiffeId: web,
      ...dates,
    });
    expect(opensslVerify(leaf.der, root.certificate.raw, [between.der])).toMatch(/: OK$/);
    const direct = await issueX509Svid({ issuer: root, spkiDer: spkiDer(leafKey), spiffeId: web, ...dates });
    expect(opensslVerify(direct.der, root.certificate.raw)).toMatch(/: OK$/);
    const theirs = new x509.X509Certificate(direct.der);
    expect(await theirs.verify({ publicKey: new x509.X509Certificate(root.certificate.raw).publicKey, signatureOnly: true })).toBe(true);
    expect(new X509Certificate(direct.der).verify(createPublicKey({ key: root.key.spkiDer, format: 'der', type: 'spki' }))).toBe(true);
  });

  test('X509-1 X509-2 X509-16 X509-17 X509-20 X509-21 X509-24 X509-26 X509-27 X509-28 X509-30 has SPIRE’s template, read by a reader that is not ours', async () => {
    const { der } = await issueX509Svid({
      issuer,
      spkiDer: spkiDer(leafKey),
      spiffeId: web,
      dnsNames: ['web.example.org', 'b.example.org'],
      ...dates,
    });
    const theirs = new x509.X509Certificate(der);
    const extension = <T extends x509.Extension>(type: new (...args: never[]) => T) =>
      theirs.extensions.find((one): one is T => one instanceof type) as T;
    expect(theirs.subject).toBe('C=US, O=SPIRE, CN=web.example.org');
    expect(theirs.notBefore.getTime()).toBe(NOW_MS - 10_000);
    expect(theirs.notAfter.getTime()).toBe(NOW_MS + HOUR_MS);
    const usage = extension(x509.KeyUsagesExtension);
    expect(usage.critical).toBe(true);
    expect(usage.usages).toBe(x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment | x509.KeyUsageFlags.keyAgreement);
    expect(extension(x509.ExtendedKeyUsageExtension).usages).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
    expect(extension(x509.BasicConstraintsExtension)).toMatchObject({ ca: false, critical: true });
    const names = extension(x509.SubjectAlternativeNameExtension).names.items.map(({ type, value }) => `${type}:${value}`);
    expect(names).toEqual(['dns:web.example.org', 'dns:b.example.org', 'url:spiffe://example.org/web']);
    expect(extension(x509.SubjectKeyIdentifierExtension).keyId).toBe(keyId(spkiDer(leafKey)).toString('hex'));
    expect(extension(x509.AuthorityKeyIdentifierExtension).keyId).toBe(issuer.certificate.ski?.toString('hex'));
    expect(theirs.extensions).toHaveLength(6);
  });

  test('a serial number is positive, not zero, and never twice', async () => {
    const serials = new Set<string>();
    for (let i = 0; i < 50; i++) {
      const { certificate } = await issueX509Svid({ issuer, spkiDer: spkiDer(leafKey), spiffeId: web, ...dates });
      expect(BigInt(certificate.serialNumber) > 0n).toBe(true);
      serials.add(certificate.serialHex);
    }
    expect(serials.size).toBe(50);
  });

  test('X509-8 with an empty subject the SAN is critical', async () => {
    const { certificate, der } = await issueX509Svid({ issuer, spkiDer: spkiDer(leafKey), spiffeId: web, subject: {}, ...dates });
    expect(certificate.subjectEmpty).toBe(true);
    expect(certificate.sanCritical).toBe(true);
    expect(opensslVerify(der, issuer.certificate.raw)).toMatch(/: OK$/);
  });

  test('ID-21 a SPIFFE ID of 2048 bytes comes whole, for a reader that is not ours and for openssl too', async () => {
    const longest = SpiffeId.of(td, `/${'a'.repeat(2027)}`);
    const { der } = await issueX509Svid({ issuer, spkiDer: spkiDer(leafKey), spiffeId: longest, ...dates });
    expect(String(longest)).toHaveLength(2048);
    expect(new X509Certificate(der).subjectAltName).toBe(`URI:${longest}`);
    expect(opensslVerify(der, issuer.certificate.raw)).toMatch(/: OK$/);
  });

  test('a first DNS name of more than 64 characters stays out of the subject', async () => {
    const long = `${'a'.repeat(60)}.example.org`;
    const { certificate } = await issueX509Svid({ issuer, spkiDer: spkiDer(leafKey), spiffeId: web, dnsNames: [long], ...dates });
    expect(certificate.subjectText).toBe('O=SPIRE,C=US');
    expect(certificate.dnsNames).toEqual([long]);
  });

  test('X509-6 what must not be issued is refused', async () => {
    const svid = { issuer, spkiDer: spkiDer(leafKey), spiffeId: web, ...dates };
    expect(await refusal(issueX509Svid(svid))).toBe('issued');
    expect(await refusal(issueX509Svid({ ...svid, spiffeId: td.id }))).toBe('SVID_INVALID X509_LEAF_PATH_MISSING');
    expect(await refusal(issueX509Svid({ ...svid, notAfterMs: dates.notAfterMs + 1000 }))).toBe('SVID_EXPIRED X509_OUTLIVES_ISSUER');
    expect(await refusal(issueX509Svid({ ...svid, notAfterMs: capNotAfter(issuer.certificate, dates.notAfterMs + 1000) }))).toBe('issued');
    expect(await refusal(issueX509Svid({ ...svid, notAfterMs: dates.notBeforeMs }))).toBe('REQUEST_INVALID X509_VALIDITY');
    expect(await refusal(issueX509Svid({ ...svid, notAfterMs: Number.NaN }))).toBe('REQUEST_INVALID X509_VALIDITY');
    expect(await refusal(issueX509Svid({ ...svid, dnsNames: ['not a name'] }))).toBe('REQUEST_INVALID X509_SAN');
    expect(await refusal(issueX509Svid({ ...svid, issuer: { ...issuer, key: signingKey(generateEcKey()) } }))).toBe(
      'INTERNAL KEY_MISMATCH',
    );
    const leaf = await testCertificate();
    expect(await refusal(issueX509Svid({ ...svid, issuer: { certificate: Certificate.parse(leaf.der), key: signingKey(leaf.key) } }))).toBe(
      'SVID_INVALID X509_AUTHORITY_CA',
    );
    const weak = await testCertificate({ keyType: 'rsa-1024' });
    expect(await refusal(issueX509Svid({ ...svid, spkiDer: spkiDer(weak.key) }))).toBe('REQUEST_INVALID KEY_WEAK');
  });
});

describe('a signing certificate of ours', () => {
  test('ID-29 ID-30 ID-31 X509-10 X509-16 X509-22 X509-23 X509-49 X509-50 has the trust domain’s ID, CA:TRUE and only keyCertSign and cRLSign', () => {
    const { certificate } = issuer;
    expect(certificate.uris).toEqual(['spiffe://example.org']);
    expect([...(certificate.keyUsage ?? [])]).toEqual(['keyCertSign', 'cRLSign']);
    expect([certificate.isCa, certificate.basicConstraintsCritical, certificate.keyUsageCritical, certificate.pathLen]).toEqual([
      true,
      true,
      true,
      undefined,
    ]);
    expect(certificate.subjectText).toBe(`SERIALNUMBER=${certificate.serialNumber},O=SPIFFE,C=US`);
  });

  test('X509-15 a path length above forbids what does not fit below', async () => {
    const [top, low, key] = [await newSigningKey(), await newSigningKey(), await newSigningKey()];
    const one = await newRoot(top, 1);
    const below = (parent: Issuer, pathLen?: number) =>
      issueX509Ca({ issuer: parent, key, trustDomain: td, subject, ...dates, ...(pathLen !== undefined && { pathLen }) });
    expect(await refusal(below(one, 1))).toBe('FAILED_PRECONDITION X509_PATH_LEN');
    expect(await refusal(below(one, 0))).toBe('issued');
    const zero = await newRoot(low, 0);
    expect(await refusal(below(zero))).toBe('FAILED_PRECONDITION X509_PATH_LEN');
    expect(await refusal(issueX509Svid({ issuer: zero, spkiDer: spkiDer(leafKey), spiffeId: web, ...dates }))).toBe('issued');
  });

  test('X509-19 X509-52 name constraints are written when asked for, and openssl holds leaves to them', async () => {
    const key = await newSigningKey();
    const bound = await issueX509Ca({ issuer: 'self', key, trustDomain: td, subject, ...dates, permittedUriHosts: ['example.org'] });
    const leaf = await issueX509Svid({
      issuer: { certificate: bound.certificate, key },
      spkiDer: spkiDer(leafKey),
      spiffeId: web,
      ...dates,
    });
    expect(opensslVerify(leaf.der, bound.der)).toMatch(/: OK$/);
    expect(bound.certificate.nameConstraints?.permitted.uris).toEqual(['example.org']);
  });

  test('ID-29 ID-30 ID-31 the request for an upstream authority carries subject and trust domain and is signed', async () => {
    for (const type of KEY_TYPES.filter((one) => one !== 'rsa-4096')) {
      const key = signingKey(await generateKey(type));
      const csr = parseCsr(await buildCaCsr({ key, trustDomain: td, subject }));
      csr.verifySignature();
      expect(csr.uris).toEqual(['spiffe://example.org']);
      expect(csr.subjectText).toBe('O=SPIFFE,C=US');
      expect(csr.spkiDer.equals(key.spkiDer)).toBe(true);
      const theirs = new x509.Pkcs10CertificateRequest(csr.raw);
      expect(await theirs.verify()).toBe(true);
    }
  });

  test('a foreign authority without subject key identifier still gets an AKI that names its key', async () => {
    const foreign = await testRoot({ keyIdentifiers: false, uris: [] });
    const certificate = Certificate.parse(foreign.der);
    const leaf = await issueX509Svid({
      issuer: { certificate, key: signingKey(foreign.key) },
      spkiDer: spkiDer(leafKey),
      spiffeId: web,
      notBeforeMs: NOW_MS,
      notAfterMs: NOW_MS + 60_000,
    });
    expect(leaf.certificate.aki?.equals(keyId(certificate.spkiDer))).toBe(true);
  });
});
