import { X509Bundle } from '../../../spiffe/x509/x509-bundle.ts';
import { inspect } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { Bundle, BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { Certificate } from '../../../spiffe/x509/certificate.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { verifyCertificatePath, verifyX509Svid, X509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { NOW_MS, type TestCertificate, type TestCertificateOptions, testCertificate, testRoot, x509 } from '../../fakes/ca.ts';

const td = TrustDomain.parse('example.org');
const other = TrustDomain.parse('other.org');
const HOUR_MS = 3_600_000;

let root: TestCertificate;
let otherRoot: TestCertificate;
let middle: TestCertificate;

beforeAll(async () => {
  root = await testRoot();
  otherRoot = await testRoot({ uris: ['spiffe://other.org'] });
  middle = await testCertificate({ ca: true, issuer: root, subject: 'CN=middle' });
});

function bundleOf(trustDomain: TrustDomain, ...roots: TestCertificate[]): Bundle {
  return new Bundle(trustDomain, { x509Authorities: roots.map((one) => Certificate.parse(one.der)) });
}

function trust(...roots: TestCertificate[]): BundleSet {
  return new BundleSet([bundleOf(td, ...roots), bundleOf(other, otherRoot)]);
}

function outcome(run: () => unknown): string {
  try {
    run();
    return 'accepted';
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    return `${error.code} ${error.reason}`;
  }
}

function verify(presented: readonly TestCertificate[], bundles = trust(root), nowMs = NOW_MS): string {
  return outcome(() =>
    verifyX509Svid(
      presented.map((one) => one.der),
      bundles,
      { nowMs },
    ),
  );
}

const USAGES = ['digitalSignature'] as const;
const nameConstraints = (hex: string) => new x509.Extension('2.5.29.30', true, Buffer.from(hex, 'hex'));
/** NameConstraints with one URI host, permitted (a0) or excluded (a1). */
function uriConstraint(side: 'a0' | 'a1', host: string): x509.Extension {
  const name = Buffer.concat([Buffer.from([0x86, host.length]), Buffer.from(host)]);
  const subtree = Buffer.concat([Buffer.from([0x30, name.length]), name]);
  const list = Buffer.concat([Buffer.from(side, 'hex'), Buffer.from([subtree.length]), subtree]);
  return nameConstraints(Buffer.concat([Buffer.from([0x30, list.length]), list]).toString('hex'));
}

describe('the leaf of a peer', () => {
  const table: [name: string, options: TestCertificateOptions, expected: string][] = [
    ['X509-1 a leaf in SPIRE shape is accepted', {}, 'accepted'],
    ['X509-4 DNS names beside the URI are accepted', { dns: ['a.example.org', 'b.example.org'] }, 'accepted'],
    ['X509-7 X509-8 an empty subject with a critical SAN is accepted', { subject: '', sanCritical: true }, 'accepted'],
    ['X509-25 digitalSignature alone is accepted', { usages: USAGES }, 'accepted'],
    ['X509-28 a leaf without extended key usage is accepted', { purposes: null }, 'accepted'],
    ['X509-29 a critical extended key usage is accepted', { purposesCritical: true }, 'accepted'],
    ['X509-17 a leaf without basic constraints is no CA and is accepted', { basicConstraints: false }, 'accepted'],
    ['X509-21 a key usage that is not critical is the issuer’s fault and is accepted', { usagesCritical: false }, 'accepted'],
    ['ID-21 a SPIFFE ID of 2048 bytes is accepted', { uris: [`spiffe://example.org/${'a'.repeat(2027)}`] }, 'accepted'],
    ['a SPIFFE ID of 2049 bytes is refused', { uris: [`spiffe://example.org/${'a'.repeat(2028)}`] }, 'SVID_INVALID ID_TOO_LONG'],
    ['X509-3 a leaf without URI is refused', { uris: [], dns: ['example.org'] }, 'SVID_INVALID X509_URI_SAN_MISSING'],
    [
      'X509-3 a leaf with two SPIFFE IDs is refused',
      { uris: ['spiffe://example.org/a', 'spiffe://example.org/b'] },
      'SVID_INVALID X509_URI_SAN_MANY',
    ],
    [
      'X509-3 a leaf with a SPIFFE ID and another URI is refused',
      { uris: ['spiffe://example.org/a', 'https://example.org'] },
      'SVID_INVALID X509_URI_SAN_MANY',
    ],
    ['X509-37 a scheme that only looks like spiffe is refused', { uris: ['sparfe://example.org/a'] }, 'SVID_INVALID ID_SCHEME'],
    ['X509-37 another scheme is refused', { uris: ['https://example.org/a'] }, 'SVID_INVALID ID_SCHEME'],
    [
      'X509-38 a leaf with the ID of the trust domain is refused',
      { uris: ['spiffe://example.org'] },
      'SVID_INVALID X509_LEAF_PATH_MISSING',
    ],
    ['X509-38 a leaf with a lone slash is refused', { uris: ['spiffe://example.org/'] }, 'SVID_INVALID ID_PATH_TRAILING_SLASH'],
    [
      'X509-34 X509-14 a CA as leaf is refused',
      { ca: true, uris: ['spiffe://example.org/a'], usages: USAGES },
      'SVID_INVALID X509_LEAF_CA',
    ],
    ['X509-35 keyCertSign on a leaf is refused', { usages: ['digitalSignature', 'keyCertSign'] }, 'SVID_INVALID X509_LEAF_CERT_SIGN'],
    ['X509-36 cRLSign on a leaf is refused', { usages: ['digitalSignature', 'cRLSign'] }, 'SVID_INVALID X509_LEAF_CRL_SIGN'],
    ['X509-20 a leaf without key usage is refused', { usages: null }, 'SVID_INVALID X509_KEY_USAGE_MISSING'],
    [
      'X509-24 a leaf without digitalSignature is refused',
      { usages: ['keyAgreement'] },
      'SVID_INVALID X509_LEAF_DIGITAL_SIGNATURE_MISSING',
    ],
    ['X509-30 serverAuth alone is refused', { purposes: ['1.3.6.1.5.5.7.3.1'] }, 'SVID_INVALID X509_LEAF_EKU'],
    ['X509-30 clientAuth alone is refused', { purposes: ['1.3.6.1.5.5.7.3.2'] }, 'SVID_INVALID X509_LEAF_EKU'],
    [
      'a comma in the URI does not smuggle in a second name',
      { uris: ['spiffe://example.org/x,URI:spiffe://example.org/admin'] },
      'SVID_INVALID ID_PATH_CHAR',
    ],
    [
      'X509-32 an unknown critical extension is refused',
      { extensions: [new x509.Extension('1.2.3.4', true, Buffer.from('0500', 'hex'))] },
      'SVID_INVALID X509_UNKNOWN_CRITICAL',
    ],
    [
      'X509-32 an unknown extension that is not critical is accepted',
      { extensions: [new x509.Extension('1.2.3.4', false, Buffer.from('0500', 'hex'))] },
      'accepted',
    ],
    ['an RSA key of 1024 bits is refused', { keyType: 'rsa-1024' }, 'SVID_INVALID KEY_WEAK'],
    ['an RSA key of 2048 bits is accepted', { keyType: 'rsa-2048' }, 'accepted'],
    ['a P-384 key is accepted', { keyType: 'ec-p384' }, 'accepted'],
    ['X509-32 an expired leaf is refused', { notBeforeMs: NOW_MS - HOUR_MS, notAfterMs: NOW_MS - 1000 }, 'SVID_EXPIRED X509_EXPIRED'],
    ['X509-32 the last second of a leaf belongs to it', { notAfterMs: NOW_MS }, 'accepted'],
    ['X509-32 a leaf of tomorrow is refused', { notBeforeMs: NOW_MS + 1000 }, 'SVID_EXPIRED X509_NOT_YET_VALID'],
    ['a SHA-1 signature is refused', { hash: 'SHA-1' }, 'SVID_UNTRUSTED X509_SIGNATURE_ALGORITHM'],
  ];
  test.each(table)('%s', async (_name, options, expected) => {
    expect(verify([await testCertificate({ issuer: root, ...options })])).toBe(expected);
  });
});

describe('the path of a peer', () => {
  test('X509-32 leaf, intermediate and root are accepted in any order, with the root or a stranger among them', async () => {
    const lower = await testCertificate({ ca: true, issuer: middle, subject: 'CN=lower' });
    const leaf = await testCertificate({ issuer: lower });
    expect(verify([leaf, lower, middle])).toBe('accepted');
    expect(verify([leaf, middle, lower])).toBe('accepted');
    expect(verify([leaf, otherRoot, root, middle, lower])).toBe('accepted');
  });

  test('X509-32 a missing intermediate is refused', async () => {
    const leaf = await testCertificate({ issuer: middle });
    expect(verify([leaf])).toBe('SVID_UNTRUSTED X509_ISSUER_UNKNOWN');
    expect(verify([leaf, middle])).toBe('accepted');
  });

  test('X509-33 TDB-19 no bundle, an empty bundle and a bundle of another root are told apart', async () => {
    const leaf = await testCertificate({ issuer: root });
    expect(verify([leaf], new BundleSet())).toBe('BUNDLE_MISSING X509_BUNDLE_MISSING');
    expect(verify([leaf], trust())).toBe('SVID_UNTRUSTED X509_BUNDLE_EMPTY');
    expect(verify([leaf], trust(otherRoot))).toBe('SVID_UNTRUSTED X509_ISSUER_UNKNOWN');
    expect(verify([leaf], trust(otherRoot, root))).toBe('accepted');
    expect(verify([])).toBe('SVID_INVALID X509_CHAIN_EMPTY');
  });

  test('ID-27 X509-39 an authority of another trust domain cannot sign ours, not even when it sends itself along', async () => {
    const forged = await testCertificate({ issuer: otherRoot, uris: ['spiffe://example.org/admin'] });
    expect(verify([forged])).toBe('SVID_UNTRUSTED X509_ISSUER_UNKNOWN');
    expect(verify([forged, otherRoot])).toBe('SVID_UNTRUSTED X509_AUTHORITY_TRUST_DOMAIN');
    expect(verify([await testCertificate({ issuer: otherRoot, uris: ['spiffe://other.org/admin'] })])).toBe('accepted');
  });

  test('ID-27 X509-39 a root that both trust domains hold vouches for each of them only by its own bundle', async () => {
    const leaf = await testCertificate({ issuer: root, uris: ['spiffe://other.org/web'] });
    expect(verify([leaf])).toBe('SVID_UNTRUSTED X509_ISSUER_UNKNOWN');
    expect(verify([leaf], new BundleSet([bundleOf(other, root)]))).toBe('accepted');
  });

  test('TDB-2 a source that answers with the bundle of another trust domain is not believed', async () => {
    const leaf = await testCertificate({ issuer: otherRoot });
    const lying = { x509Bundle: () => new X509Bundle(other, [Certificate.parse(otherRoot.der)]) };
    expect(outcome(() => verifyX509Svid([leaf.der], lying, { nowMs: NOW_MS }))).toBe('BUNDLE_MISSING X509_BUNDLE_MISSING');
  });

  test('ID-36 a document of another kind is no X.509-SVID', async () => {
    const ssh = Buffer.from('AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t', 'base64');
    expect(outcome(() => verifyX509Svid([ssh], trust(root), { nowMs: NOW_MS }))).toMatch(/^SVID_INVALID DER_/);
    const leaf = await testCertificate({ issuer: root });
    expect(outcome(() => verifyX509Svid([Buffer.from(leaf.pem)], trust(root), { nowMs: NOW_MS }))).toMatch(/^SVID_INVALID DER_/);
    expect(verify([leaf])).toBe('accepted');
  });

  test('X509-5 a leaf that signs another leaf is refused', async () => {
    const leaf = await testCertificate({ issuer: root, subject: 'CN=leaf' });
    const child = await testCertificate({ issuer: leaf });
    expect(verify([child, leaf])).toBe('SVID_UNTRUSTED X509_AUTHORITY_CA');
  });

  const intermediates: [string, TestCertificateOptions, string][] = [
    ['X509-22 a CA without keyCertSign', { usages: ['cRLSign'] }, 'SVID_UNTRUSTED X509_AUTHORITY_CERT_SIGN_MISSING'],
    ['AMB-12 a CA with digitalSignature beside keyCertSign', { usages: ['keyCertSign', 'digitalSignature'] }, 'accepted'],
    ['X509-10 a CA without SPIFFE ID', { uris: [] }, 'accepted'],
    ['a CA with a URI of another scheme', { uris: ['https://pki.example.com'] }, 'accepted'],
    ['X509-11 a CA whose SPIFFE ID has a path', { uris: ['spiffe://example.org/ca'] }, 'SVID_UNTRUSTED X509_AUTHORITY_PATH'],
    ['X509-12 a CA of another trust domain', { uris: ['spiffe://other.org'] }, 'SVID_UNTRUSTED X509_AUTHORITY_TRUST_DOMAIN'],
    ['X509-15 pathlen:0 above a leaf', { pathLen: 0 }, 'accepted'],
    ['X509-51 a CA with extended key usages', { purposes: ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'] }, 'accepted'],
    ['X509-32 an expired CA', { notAfterMs: NOW_MS - 1000 }, 'SVID_UNTRUSTED X509_ISSUER_EXPIRED'],
    ['X509-32 a CA of tomorrow', { notBeforeMs: NOW_MS + 1000 }, 'SVID_UNTRUSTED X509_ISSUER_NOT_YET_VALID'],
    [
      'X509-32 a CA with an unknown critical extension',
      { extensions: [new x509.Extension('1.2.3.4', true, Buffer.from('0500', 'hex'))] },
      'SVID_UNTRUSTED X509_UNKNOWN_CRITICAL',
    ],
    ['a CA with an RSA key of 1024 bits', { keyType: 'rsa-1024' }, 'SVID_UNTRUSTED KEY_WEAK'],
    ['a CA with an Ed25519 key', { keyType: 'ed25519' }, 'accepted'],
    ['a CA without key identifiers', { keyIdentifiers: false }, 'accepted'],
    ['X509-18 permitted URI host of the leaf', { extensions: [uriConstraint('a0', 'example.org')] }, 'accepted'],
    ['X509-18 another permitted URI host', { extensions: [uriConstraint('a0', 'b.test')] }, 'SVID_UNTRUSTED X509_OUTSIDE_NAME_CONSTRAINTS'],
    [
      'X509-18 a permitted domain does not permit the host itself',
      { extensions: [uriConstraint('a0', '.example.org')] },
      'SVID_UNTRUSTED X509_OUTSIDE_NAME_CONSTRAINTS',
    ],
    ['X509-18 the excluded URI host', { extensions: [uriConstraint('a1', 'example.org')] }, 'SVID_UNTRUSTED X509_OUTSIDE_NAME_CONSTRAINTS'],
    ['X509-18 another excluded URI host', { extensions: [uriConstraint('a1', 'b.test')] }, 'accepted'],
    [
      'X509-18 a domain above the leaf’s host is excluded',
      { extensions: [uriConstraint('a1', 'org')] },
      'SVID_UNTRUSTED X509_OUTSIDE_NAME_CONSTRAINTS',
    ],
  ];
  test.each(intermediates)('%s gives the expected answer', async (_name, options, expected) => {
    const between = await testCertificate({ ca: true, issuer: root, subject: 'CN=between', ...options });
    expect(verify([await testCertificate({ issuer: between }), between])).toBe(expected);
  });

  test('X509-15 pathlen:0 forbids a CA below it', async () => {
    const narrow = await testCertificate({ ca: true, issuer: root, subject: 'CN=narrow', pathLen: 0 });
    const below = await testCertificate({ ca: true, issuer: narrow, subject: 'CN=below' });
    expect(verify([await testCertificate({ issuer: below }), below, narrow])).toBe('SVID_UNTRUSTED X509_PATH_LEN');
  });

  test('name constraints of the root bind the leaf two levels below', async () => {
    const bound = await testRoot({ subject: 'CN=bound', extensions: [uriConstraint('a0', 'b.test')] });
    const between = await testCertificate({ ca: true, issuer: bound, subject: 'CN=between', uris: [] });
    expect(verify([await testCertificate({ issuer: between }), between], trust(bound))).toBe(
      'SVID_UNTRUSTED X509_OUTSIDE_NAME_CONSTRAINTS',
    );
  });

  test('AMB-2 AMB-12 a root is believed whatever its names and usages are; an expired root is not', async () => {
    for (const options of [{ uris: ['spiffe://example.org/'] }, { uris: [] }, { usages: null }, { uris: ['spiffe://a/b', 'https://x'] }]) {
      const liberal = await testRoot(options);
      expect(verify([await testCertificate({ issuer: liberal })], trust(liberal))).toBe('accepted');
    }
    const expired = await testRoot({ notAfterMs: NOW_MS - 1000 });
    expect(verify([await testCertificate({ issuer: expired })], trust(expired))).toBe('SVID_UNTRUSTED X509_ISSUER_EXPIRED');
  });

  test('an authority that is not self-signed ends a path', async () => {
    expect(verify([await testCertificate({ issuer: middle })], trust(middle))).toBe('accepted');
  });

  test('a root’s name with another key does not stand in for it', async () => {
    const impostor = await testRoot({ subject: root.subject });
    const leaf = await testCertificate({ issuer: impostor, keyIdentifiers: false });
    expect(verify([leaf, impostor])).toBe('SVID_UNTRUSTED X509_SIGNATURE');
    expect(verify([leaf], trust(root, impostor))).toBe('accepted');
  });

  test('nine certificates are one too many; eight are not', async () => {
    const leaf = await testCertificate({ issuer: root });
    expect(verify([leaf, ...Array<TestCertificate>(8).fill(middle)])).toBe('SVID_INVALID X509_CHAIN_TOO_LONG');
    expect(verify([leaf, ...Array<TestCertificate>(7).fill(middle)])).toBe('accepted');
  });

  test('cross-signed certificates without an end cost no more than 16 signatures', async () => {
    const keys = (await testRoot()).keys;
    const twins = await Promise.all(
      [1, 2, 3, 4, 5, 6, 7].map((n) => testRoot({ subject: n % 2 ? 'CN=a' : 'CN=b', keyIdentifiers: false, ...(n % 2 ? {} : { keys }) })),
    );
    const crossed = await Promise.all(
      twins.map((_twin, n) =>
        testCertificate({ ca: true, issuer: twins[(n + 1) % 7] as TestCertificate, subject: 'CN=a', keyIdentifiers: false, uris: [] }),
      ),
    );
    const leaf = await testCertificate({ issuer: crossed[0] as TestCertificate, keyIdentifiers: false });
    expect(verify([leaf, ...crossed])).toMatch(/^SVID_UNTRUSTED /);
  });

  test('a path can be demanded to pass through a given issuer', async () => {
    const sibling = await testCertificate({ ca: true, issuer: root, subject: 'CN=sibling' });
    const leaf = await testCertificate({ issuer: middle });
    const run = (...through: TestCertificate[]) =>
      outcome(() =>
        verifyX509Svid([leaf.der, sibling.der, middle.der], trust(root), {
          nowMs: NOW_MS,
          through: through.map((one) => Certificate.parse(one.der)),
        }),
      );
    expect(run(middle)).toBe('accepted');
    expect(run(root)).toBe('accepted');
    expect(run(sibling, middle)).toBe('accepted');
    expect(run(sibling)).toBe('SVID_UNTRUSTED X509_NOT_THROUGH');
    expect(run()).toBe('SVID_UNTRUSTED X509_NOT_THROUGH');
  });

  test('ID-33 X509-32 one flipped byte anywhere is never accepted', async () => {
    const leaf = await testCertificate({ issuer: root });
    const bundles = trust(root);
    for (let at = 0; at < leaf.der.length; at++) {
      const flipped = Buffer.from(leaf.der);
      flipped[at] = (flipped[at] as number) ^ (1 << (at % 8));
      expect(
        outcome(() => verifyX509Svid([flipped], bundles, { nowMs: NOW_MS })),
        `byte ${at}`,
      ).not.toBe('accepted');
    }
  });
});

describe('paths without the SPIFFE profile', () => {
  test('a certificate without SPIFFE ID is verified by path alone', async () => {
    const device = await testCertificate({ issuer: middle, uris: [], subject: 'CN=device', purposes: null });
    const parse = (one: TestCertificate) => Certificate.parse(one.der);
    const path = verifyCertificatePath(parse(device), [parse(middle)], [parse(root)], { nowMs: NOW_MS });
    expect(path.map((one) => one.subjectText)).toEqual(['CN=device', 'CN=middle', parse(root).subjectText]);
    expect(outcome(() => verifyCertificatePath(parse(device), [], [parse(root)], { nowMs: NOW_MS }))).toBe(
      'SVID_UNTRUSTED X509_ISSUER_UNKNOWN',
    );
  });
});

describe('one’s own SVID', () => {
  test('goes through DER and PEM unchanged', async () => {
    const leaf = await testCertificate({ issuer: middle });
    const svid = X509Svid.fromDer(Buffer.concat([leaf.der, middle.der]), leaf.key.export({ type: 'pkcs8', format: 'der' }), 'internal');
    expect(svid.id.toString()).toBe('spiffe://example.org/web');
    expect(svid.chain).toHaveLength(2);
    const { certificates, key } = svid.toPem();
    expect(X509Svid.fromPem(certificates, key, 'internal').equals(svid)).toBe(true);
    expect(X509Svid.fromPem(key + certificates, undefined, 'internal').equals(svid)).toBe(true);
    expect(svid.chainDer().equals(Buffer.concat([leaf.der, middle.der]))).toBe(true);
  });

  test('never shows its key', async () => {
    const leaf = await testCertificate({ issuer: root });
    const svid = X509Svid.of([Certificate.parse(leaf.der)], leaf.key);
    const secret = (leaf.key.export({ format: 'jwk' }) as { d: string }).d;
    for (const text of [inspect(svid, { depth: 9, showHidden: true }), JSON.stringify(svid), `${svid.leaf}`]) {
      expect(text).not.toContain(secret);
      expect(text).not.toContain('PRIVATE');
    }
  });

  const table: [string, TestCertificateOptions, TestCertificateOptions, string][] = [
    ['a leaf and a good intermediate', {}, {}, 'accepted'],
    ['a leaf with the CA flag', { ca: true, uris: ['spiffe://example.org/a'], usages: USAGES }, {}, 'SVID_INVALID X509_LEAF_CA'],
    ['a leaf without digitalSignature', { usages: ['keyAgreement'] }, {}, 'SVID_INVALID X509_LEAF_DIGITAL_SIGNATURE_MISSING'],
    ['a leaf with the root path', { uris: ['spiffe://example.org'] }, {}, 'SVID_INVALID X509_LEAF_PATH_MISSING'],
    ['a signing certificate without CA flag', {}, { ca: false, usages: ['keyCertSign'] }, 'SVID_INVALID X509_AUTHORITY_CA'],
    ['a signing certificate without keyCertSign', {}, { usages: ['cRLSign'] }, 'SVID_INVALID X509_AUTHORITY_CERT_SIGN_MISSING'],
    ['a signing certificate without key usage', {}, { usages: null }, 'SVID_INVALID X509_KEY_USAGE_MISSING'],
  ];
  test.each(table)('%s', async (_name, leafOptions, caOptions, expected) => {
    const between = await testCertificate({ ca: true, issuer: root, ...caOptions });
    const leaf = await testCertificate({ issuer: between, ...leafOptions });
    expect(
      outcome(() =>
        X509Svid.of(
          [leaf, between].map((one) => Certificate.parse(one.der)),
          leaf.key,
        ),
      ),
    ).toBe(expected);
  });

  test('malformed parts are told apart', async () => {
    const leaf = await testCertificate({ issuer: root });
    const pkcs8 = leaf.key.export({ type: 'pkcs8', format: 'der' });
    const wrong = (await testCertificate()).key.export({ type: 'pkcs8', format: 'der' });
    expect(outcome(() => X509Svid.fromDer(leaf.der, wrong))).toBe('SVID_INVALID KEY_MISMATCH');
    expect(outcome(() => X509Svid.fromDer(leaf.der, Buffer.from('no key')))).toBe('SVID_INVALID KEY_MALFORMED');
    expect(outcome(() => X509Svid.fromDer(Buffer.alloc(0), pkcs8))).toBe('SVID_INVALID X509_CHAIN_EMPTY');
    expect(outcome(() => X509Svid.fromDer(Buffer.concat([leaf.der, Buffer.from([0])]), pkcs8))).toMatch(/^SVID_INVALID DER_/);
    expect(outcome(() => X509Svid.fromPem('nothing here'))).toBe('SVID_INVALID PEM_MISSING');
    expect(outcome(() => X509Svid.fromPem(leaf.pem))).toBe('SVID_INVALID PEM_MISSING');
  });
});
