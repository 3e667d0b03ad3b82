/** An SVID in each format, as programs read it; and what is never written over good files. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, connect, type TLSSocket } from 'node:tls';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Bundle, BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { certificatesFromPem } from '../../../spiffe/x509/certificate.ts';
import { parsePem } from '../../../spiffe/x509/pem.ts';
import { X509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { outputsOf, type X509Output } from '../../../proxy/helper/settings.ts';
import { select, x509Files } from '../../../proxy/helper/x509-files.ts';
import { settingsOf } from './rig.ts';

const td = EphemeralTrustDomain.create('example.org', { intermediate: true });
const other = EphemeralTrustDomain.create('other.org');
const svid = td.x509Svid('/web', { dnsNames: ['web.local'] });
const bundles = new BundleSet([td.bundle, other.bundle]);
const now = Date.now();
const PASSWORD = 'changeit';

async function outputOf(format: string, more = ''): Promise<X509Output> {
  const [output] = outputsOf(await settingsOf(`output "o" { format = "${format}" directory = "d" ${more} }`));
  return output as X509Output;
}
async function filesOf(format: string, more = '', how: { svid?: X509Svid; bundles?: BundleSet } = {}): Promise<Map<string, Buffer>> {
  const { files } = x509Files(await outputOf(format, more), how.svid ?? svid, how.bundles ?? bundles, now, PASSWORD);
  return new Map(files.map(({ name, data }) => [name, data]));
}
const labels = (pem: Buffer | undefined) => parsePem(pem ?? '').map(({ label }) => label);
const subjects = (pem: Buffer | undefined) => certificatesFromPem(pem ?? '').map((one) => one.sha256);
const chain = svid.chain.map((one) => one.sha256);
const roots = td.bundle.x509.authorities.map((one) => one.sha256);
const foreign = other.bundle.x509.authorities.map((one) => one.sha256);

describe('HP-4 pem', () => {
  test('is a chain, a PKCS#8 key, and the authorities of our own trust domain', async () => {
    const files = await filesOf('pem');
    expect([...files.keys()]).toEqual(['svid.pem', 'svid_bundle.pem', 'svid_key.pem']);
    expect(subjects(files.get('svid.pem'))).toEqual(chain);
    expect(subjects(files.get('svid_bundle.pem'))).toEqual(roots);
    expect(labels(files.get('svid_key.pem'))).toEqual(['PRIVATE KEY']);
    const read = X509Svid.fromPem(files.get('svid.pem') ?? '', files.get('svid_key.pem') ?? '');
    expect(read.equals(svid)).toBe(true);
  });

  test('has intermediates in the bundle where that is wanted, as MySQL does', async () => {
    const files = await filesOf('pem', 'add_intermediates_to_bundle = true');
    expect(subjects(files.get('svid.pem'))).toEqual(chain.slice(0, 1));
    expect(subjects(files.get('svid_bundle.pem'))).toEqual([...roots, ...chain.slice(1)]);
  });

  test('HP-10 has a file for each federated trust domain, and never two in one', async () => {
    const files = await filesOf('pem', 'include_federated_domains = true');
    expect(subjects(files.get('svid_bundle.pem'))).toEqual(roots);
    expect(subjects(files.get('svid_bundle.other.org.pem'))).toEqual(foreign);
    expect((await filesOf('pem')).has('svid_bundle.other.org.pem')).toBe(false);
  });

  test('HP-10 has them in one only with a key that says how unsafe that is', async () => {
    const files = await filesOf('pem', 'include_federated_domains = true unsafe_merge_federated = true');
    expect(subjects(files.get('svid_bundle.pem'))).toEqual([...roots, ...foreign]);
    expect(files.has('svid_bundle.other.org.pem')).toBe(false);
  });

  test('leaves out authorities that have expired where that is wanted', async () => {
    const old = EphemeralTrustDomain.create('example.org', { authorityTtlMs: 1_000, clock: { now: () => now - 10_000 } });
    const both = new BundleSet([
      new Bundle(td.trustDomain, { x509Authorities: [...td.bundle.x509.authorities, ...old.bundle.x509.authorities] }),
    ]);
    expect(subjects((await filesOf('pem', '', { bundles: both })).get('svid_bundle.pem'))).toHaveLength(2);
    expect(subjects((await filesOf('pem', 'omit_expired = true', { bundles: both })).get('svid_bundle.pem'))).toEqual(roots);
  });
});

test('HP-4 combined is key and chain in one file, beside the bundle', async () => {
  const files = await filesOf('combined');
  expect(labels(files.get('svid_combined.pem'))).toEqual(['PRIVATE KEY', 'CERTIFICATE', 'CERTIFICATE']);
  expect(X509Svid.fromPem(files.get('svid_combined.pem') ?? '').equals(svid)).toBe(true);
  expect(subjects(files.get('svid_bundle.pem'))).toEqual(roots);
});

test('HP-4 folder is what SPIFFE Filesystem Delivery says: key first, nothing between blocks, a trust bundle for each domain', async () => {
  const files = await filesOf('folder');
  expect([...files.keys()].sort()).toEqual(['credential-bundle.pem', 'example.org.trust-bundle.pem', 'other.org.trust-bundle.pem']);
  const credential = files.get('credential-bundle.pem')?.toString() ?? '';
  expect(labels(Buffer.from(credential))).toEqual(['PRIVATE KEY', 'CERTIFICATE', 'CERTIFICATE']);
  expect(credential.replaceAll(/-----BEGIN ([A-Z ]+)-----\n[A-Za-z0-9+/=\n]+-----END \1-----\n/g, '')).toBe('');
  expect(subjects(files.get('example.org.trust-bundle.pem'))).toEqual(roots);
  expect(subjects(files.get('other.org.trust-bundle.pem'))).toEqual(foreign);
});

describe('HP-4 pkcs12', () => {
  let folder: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'p12-'));
    for (const [name, data] of await filesOf('pkcs12', 'password_file = "p" include_federated_domains = true'))
      writeFileSync(join(folder, name), data);
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const keytool = (...args: string[]) =>
    execFileSync('keytool', args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

  test('openssl reads key and chain, and refuses another password', () => {
    const pem = openssl('pkcs12', '-in', 'keystore.p12', '-passin', `pass:${PASSWORD}`, '-nodes');
    const blocks = parsePem(pem);
    expect(blocks.filter(({ label }) => label === 'PRIVATE KEY').map(({ der }) => der)).toEqual([svid.keyPkcs8Der()]);
    expect(blocks.filter(({ label }) => label === 'CERTIFICATE').map(({ der }) => der)).toEqual(svid.chain.map(({ raw }) => raw));
    expect(() => openssl('pkcs12', '-in', 'keystore.p12', '-passin', 'pass:another', '-nodes')).toThrow(/invalid password/);
  });

  test("Java's keytool finds the key with its chain, and trusted certificates of one domain in each truststore", {
    timeout: 30_000,
  }, () => {
    const listed = keytool('-list', '-v', '-keystore', 'keystore.p12', '-storepass', PASSWORD);
    expect(listed).toMatch(/Alias name: spiffe[\s\S]*Entry type: PrivateKeyEntry\nCertificate chain length: 2/);
    expect(keytool('-list', '-keystore', 'truststore.p12', '-storepass', PASSWORD)).toMatch(
      /1 entry[\s\S]*example\.org-0, .*trustedCertEntry/,
    );
    expect(keytool('-list', '-keystore', 'truststore.other.org.p12', '-storepass', PASSWORD)).toMatch(
      /1 entry[\s\S]*other\.org-0, .*trustedCertEntry/,
    );
    // it can decrypt the key, too: it copies it under another password
    keytool(
      '-importkeystore',
      '-srckeystore',
      'keystore.p12',
      '-srcstorepass',
      PASSWORD,
      '-destkeystore',
      'copy.p12',
      '-deststorepass',
      'changeit2',
    );
    expect(openssl('pkcs12', '-in', 'copy.p12', '-passin', 'pass:changeit2', '-nodes', '-nocerts')).toContain('PRIVATE KEY');
    expect(() => keytool('-list', '-keystore', 'keystore.p12', '-storepass', 'another')).toThrow();
  });

  test('is the same for the same content, and another for another key or password', async () => {
    const once = await filesOf('pkcs12', 'password_file = "p"');
    const twice = await filesOf('pkcs12', 'password_file = "p"');
    expect(twice.get('keystore.p12')).toEqual(once.get('keystore.p12'));
    const renewed = await filesOf('pkcs12', 'password_file = "p"', { svid: td.x509Svid('/web') });
    expect(renewed.get('keystore.p12')).not.toEqual(once.get('keystore.p12'));
  });
});

describe('HP-12 is never written', () => {
  const rows: readonly (readonly [what: string, make: () => { svid?: X509Svid; bundles?: BundleSet }, code: string])[] = [
    ['an SVID that has expired', () => ({ svid: td.x509Svid('/web', { ttlMs: -60_000 }) }), 'SVID_EXPIRED'],
    ['an SVID whose trust domain has no bundle', () => ({ bundles: new BundleSet([other.bundle]) }), 'BUNDLE_MISSING'],
    ['an empty bundle', () => ({ bundles: new BundleSet([new Bundle(td.trustDomain)]) }), 'SVID_UNTRUSTED'],
    [
      'an SVID that the bundle does not bear out',
      () => ({ bundles: new BundleSet([EphemeralTrustDomain.create('example.org').bundle]) }),
      'SVID_UNTRUSTED',
    ],
  ];
  for (const [what, make, code] of rows)
    test(what, () => expect(filesOf('pem', '', make())).rejects.toThrow(expect.objectContaining({ code })));
  test('(its positive twin: what is good is)', async () => expect((await filesOf('pem')).size).toBe(3));
});

describe('HP-4 an identity is chosen', () => {
  const many = [svid, td.x509Svid('/db', { hint: 'db' }), td.x509Svid('/api')];
  test('by hint, by SPIFFE ID, or it is the first', () => {
    expect(String(select(many, {}).id)).toBe('spiffe://example.org/web');
    expect(String(select(many, { hint: 'db' }).id)).toBe('spiffe://example.org/db');
    expect(String(select(many, { spiffeId: td.id('/api') }).id)).toBe('spiffe://example.org/api');
  });
  test('and never another in its place', () => {
    expect(() => select(many, { hint: 'web' })).toThrow(/no SVID with the hint "web" among .*spiffe:\/\/example\.org\/db \(hint "db"\)/);
    expect(() => select(many, { spiffeId: other.id('/web') })).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
  });
});

/**
 * A server as they are written with files: OpenSSL checks the chain against the bundle file, the program compares the URI. The federated domain's CA is not ours to
 * control, and can put any URI into a certificate.
 */
test('HP-10 why bundles are not merged: with them in one file, a federated trust domain passes for an identity of ours', async () => {
  const impostor = other.rawSvid('/whatever', { uris: ['spiffe://example.org/web'] });
  const genuine = td.rawSvid('/web');
  async function admits(bundle: Buffer | undefined, client: { certificatesPem: string; keyPem: string }): Promise<boolean> {
    const server = td.rawSvid('/server', { dnsNames: ['localhost'] });
    const naive = createServer(
      { cert: server.certificatesPem, key: server.keyPem, ca: bundle, requestCert: true, rejectUnauthorized: true },
      (socket: TLSSocket) => {
        const known = socket.getPeerCertificate().subjectaltname === 'URI:spiffe://example.org/web';
        socket.end(known ? 'welcome' : 'go away');
      },
    );
    naive.on('tlsClientError', () => {});
    naive.listen(0, '127.0.0.1');
    await once(naive, 'listening');
    const socket = connect({
      port: (naive.address() as AddressInfo).port,
      host: '127.0.0.1',
      servername: 'localhost',
      ca: td.bundle.x509.toPem(),
      cert: client.certificatesPem,
      key: client.keyPem,
    });
    let said = '';
    socket.setEncoding('utf8').on('data', (text: string) => (said += text));
    socket.on('error', () => {});
    await new Promise((done) => socket.once('close', done));
    naive.close();
    return said === 'welcome';
  }
  const merged = (await filesOf('pem', 'unsafe_merge_federated = true')).get('svid_bundle.pem');
  const separate = (await filesOf('pem', 'include_federated_domains = true')).get('svid_bundle.pem');
  expect(await admits(merged, impostor)).toBe(true);
  expect(await admits(separate, impostor)).toBe(false);
  expect(await admits(separate, genuine)).toBe(true);
});
