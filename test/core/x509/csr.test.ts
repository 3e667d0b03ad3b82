import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { buildCsr, MAX_CSR_BYTES, parseCsr } from '../../../core/x509/csr.ts';
import { generateEcKey, generateKey, keyTypeOf, parsePrivateKeyPem, pkcs8Pem, spkiDer } from '../../../core/x509/key.ts';
import { der, derBits, TAG } from '../../../spiffe/x509/der.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { testKeys, x509 } from '../../fakes/ca.ts';

function outcome(run: () => unknown): string {
  try {
    run();
    return 'accepted';
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    return `${error.code} ${error.reason}`;
  }
}

const check = (csr: Uint8Array) => outcome(() => parseCsr(csr).verifySignature());

describe('a request', () => {
  test('of ours is read back, by us and by a reader that is not ours', async () => {
    const key = generateEcKey('ec-p384');
    const bytes = buildCsr({ key, uri: 'spiffe://example.org/web', dns: ['web.example.org'] });
    const csr = parseCsr(bytes);
    csr.verifySignature();
    expect([csr.uris, csr.dnsNames, csr.otherNames, csr.subjectText]).toEqual([
      ['spiffe://example.org/web'],
      ['web.example.org'],
      0,
      'O=SPIRE,C=US',
    ]);
    expect(csr.spkiDer.equals(spkiDer(key))).toBe(true);
    const theirs = new x509.Pkcs10CertificateRequest(bytes);
    expect(await theirs.verify()).toBe(true);
    expect(theirs.subject).toBe('C=US, O=SPIRE');
  });

  test.each(['ec-p256', 'ec-p384', 'ec-p521', 'rsa-2048', 'ed25519'] as const)('made elsewhere with %s is accepted', async (type) => {
    const keys = await testKeys(type);
    const request = await x509.Pkcs10CertificateRequestGenerator.create({
      name: 'C=US, O=SPIRE',
      keys,
      signingAlgorithm: { name: keys.privateKey.algorithm.name, hash: 'SHA-256' } as never,
      extensions: [new x509.SubjectAlternativeNameExtension([{ type: 'url', value: 'spiffe://example.org/a' }])],
    });
    const csr = parseCsr(new Uint8Array(request.rawData));
    csr.verifySignature();
    expect(csr.uris).toEqual(['spiffe://example.org/a']);
  });

  test('with a weak key, another’s signature or too many bytes is refused, each with its reason', async () => {
    const good = buildCsr({ key: generateEcKey() });
    expect(check(good)).toBe('accepted');
    const keys = await testKeys('rsa-1024');
    const weak = await x509.Pkcs10CertificateRequestGenerator.create({
      name: 'CN=weak',
      keys,
      signingAlgorithm: { name: 'RSASSA-PKCS1-v1_5' },
    });
    expect(check(new Uint8Array(weak.rawData))).toBe('REQUEST_INVALID KEY_WEAK');
    expect(check(Buffer.concat([good, Buffer.from([0])]))).toBe('REQUEST_INVALID DER_TRAILING');
    expect(check(Buffer.alloc(MAX_CSR_BYTES + 1, 0x30))).toBe('REQUEST_INVALID CSR_TOO_LARGE');
    expect(check(Buffer.alloc(0))).toBe('REQUEST_INVALID DER_TRUNCATED');
    const [one, two] = [parseCsr(good), parseCsr(buildCsr({ key: generateEcKey() }))];
    const parts = (csr: Uint8Array) => new x509.Pkcs10CertificateRequest(Buffer.from(csr));
    const swapped = swapSignature(one.raw, Buffer.from(parts(two.raw).signature));
    expect(check(swapped)).toBe('REQUEST_INVALID CSR_SIGNATURE');
  });

  test('with an RSA signature over an EC key is refused before any key is used', () => {
    const good = buildCsr({ key: generateEcKey() });
    const rsa = Buffer.from('300d06092a864886f70d01010b0500', 'hex');
    const ecdsa = Buffer.from('300a06082a8648ce3d040302', 'hex');
    const at = good.lastIndexOf(ecdsa);
    const body = Buffer.concat([good.subarray(contentsAt(good), at), rsa, good.subarray(at + ecdsa.length)]);
    expect(check(der(TAG.sequence, body))).toBe('REQUEST_INVALID CSR_SIGNATURE_ALGORITHM');
  });

  test('that was mutated is refused or says the same as before: never anything but a SpiffeError', () => {
    const good = buildCsr({ key: generateEcKey(), uri: 'spiffe://example.org/web', dns: ['a.example.org'] });
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
        const bytes = Buffer.from(good);
        bytes[at] = (bytes[at] as number) ^ mask;
        expect(check(bytes)).not.toBe('accepted');
      }),
      { numRuns: 2000 },
    );
  });

  test('of random bytes or a cut one is refused', () => {
    const good = buildCsr({ key: generateEcKey() });
    for (let length = 0; length < good.length; length++) expect(check(good.subarray(0, length))).toMatch(/^REQUEST_INVALID DER_/);
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => check(bytes) !== 'accepted'));
  });
});

function contentsAt(value: Buffer): number {
  const first = value[1] as number;
  return 2 + (first < 0x80 ? 0 : first & 0x7f);
}

function swapSignature(csr: Buffer, signature: Buffer): Buffer {
  const at = csr.lastIndexOf(Buffer.from('300a06082a8648ce3d040302', 'hex'));
  return der(TAG.sequence, csr.subarray(contentsAt(csr), at + 12), derBits(signature));
}

describe('a private key', () => {
  const folder = mkdtempSync(join(tmpdir(), 'key-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const openssl = (command: string, ...args: string[]) => {
    const out = join(folder, 'key.pem');
    execFileSync('openssl', [command, '-out', out, ...args], { stdio: 'ignore' });
    return readFileSync(out, 'utf8');
  };

  test('is read from PKCS#8, SEC1 and PKCS#1, and told by type', async () => {
    expect(keyTypeOf(parsePrivateKeyPem(openssl('ecparam', '-name', 'prime256v1', '-genkey')))).toBe('ec-p256');
    expect(keyTypeOf(parsePrivateKeyPem(openssl('genrsa', '-traditional', '2048')))).toBe('rsa-2048');
    expect(keyTypeOf(parsePrivateKeyPem(pkcs8Pem(await generateKey('ec-p384'))))).toBe('ec-p384');
    expect(keyTypeOf(spkiDer(generateEcKey()))).toBe('ec-p256');
    expect(keyTypeOf(parsePrivateKeyPem(openssl('genpkey', '-algorithm', 'ed25519')))).toBeUndefined();
  });

  test('that is encrypted, weak, missing or twice is refused with its reason', () => {
    const key = pkcs8Pem(generateEcKey());
    expect(outcome(() => parsePrivateKeyPem(key))).toBe('accepted');
    expect(outcome(() => parsePrivateKeyPem(key + key))).toBe('REQUEST_INVALID PEM_MALFORMED');
    expect(outcome(() => parsePrivateKeyPem(''))).toBe('REQUEST_INVALID PEM_MISSING');
    expect(outcome(() => parsePrivateKeyPem(openssl('genrsa', '1024')))).toBe('REQUEST_INVALID KEY_WEAK');
    expect(outcome(() => parsePrivateKeyPem(openssl('genpkey', '-algorithm', 'ed25519', '-aes128', '-pass', 'pass:x')))).toBe(
      'REQUEST_INVALID PEM_HEADERS',
    );
    expect(outcome(() => parsePrivateKeyPem(openssl('genrsa', '-traditional', '-aes128', '-passout', 'pass:xxxx', '2048')))).toBe(
      'REQUEST_INVALID PEM_HEADERS',
    );
    expect(outcome(() => parsePrivateKeyPem(openssl('ecparam', '-name', 'secp256k1', '-genkey')))).toBe('REQUEST_INVALID KEY_UNSUPPORTED');
  });
});
