import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Certificate, certificatesFromPem, splitCertificates } from '../../../spiffe/x509/certificate.ts';
import { DerReader, der, derBits, derOid, readWhole, TAG } from '../../../spiffe/x509/der.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { formatPem, parsePem } from '../../../spiffe/x509/pem.ts';
import { isSelfSigned } from '../../../spiffe/x509/path.ts';
import { PROFILE } from '../../../spiffe/x509/profile.ts';
import { takeSignatureAlgorithm } from '../../../spiffe/x509/signature-algorithm.ts';
import { readSpki } from '../../../spiffe/x509/spki.ts';
import { NOW_MS, type TestCertificateOptions, testCertificate, testRoot, x509 } from '../../fakes/ca.ts';

function reason(bytes: Uint8Array): unknown {
  try {
    Certificate.parse(bytes);
    return 'read';
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    return error.reason;
  }
}

const extension = (oid: string, hexValue: string, critical = false) => new x509.Extension(oid, critical, Buffer.from(hexValue, 'hex'));
const san = (...names: [tag: number, bytes: string | Buffer][]) =>
  new x509.Extension('2.5.29.17', false, der(TAG.sequence, ...names.map(([tag, bytes]) => der(tag, Buffer.from(bytes as string)))));

describe('the facts of a certificate', () => {
  test('agree with OpenSSL’s', async () => {
    const root = await testRoot({ subject: 'CN=Root & Co, O=Example, C=DE', keyType: 'rsa-2048', pathLen: 3 });
    const leaf = await testCertificate({ issuer: root, dns: ['a.example.org'], subject: 'C=US, O=SPIRE, CN=a.example.org' });
    const [ours, theirs] = [Certificate.parse(leaf.der), new X509Certificate(leaf.der)];
    expect(ours.serialHex).toBe(theirs.serialNumber.toLowerCase().replace(/^0+/, ''));
    expect(ours.notBeforeMs).toBe(theirs.validFromDate.getTime());
    expect(ours.notAfterMs).toBe(theirs.validToDate.getTime());
    expect(ours.sha256).toBe(theirs.fingerprint256.replaceAll(':', '').toLowerCase());
    expect(ours.publicKey.equals(theirs.publicKey)).toBe(true);
    expect([ours.uris, ours.dnsNames, ours.isCa, ours.hasBasicConstraints]).toEqual([
      ['spiffe://example.org/web'],
      ['a.example.org'],
      false,
      true,
    ]);
    expect(ours.subjectText).toBe('CN=a.example.org,O=SPIRE,C=US');
    expect(ours.issuer.equals(Certificate.parse(root.der).subject)).toBe(true);
    const authority = Certificate.parse(root.der);
    expect([authority.isCa, authority.pathLen, authority.selfIssued, isSelfSigned(authority), isSelfSigned(ours)]).toEqual([
      true,
      3,
      true,
      true,
      false,
    ]);
    expect(authority.keyKind).toEqual({ type: 'rsa', bits: 2048 });
    expect(ours.aki?.equals(authority.ski as Buffer)).toBe(true);
    expect(
      execFileSync('openssl', ['x509', '-inform', 'DER', '-noout', '-serial'], { input: leaf.der, encoding: 'utf8' }).trim().toLowerCase(),
    ).toContain(ours.serialHex);
  });

  test('a subject is printed as Go prints it: escaped, several values of a type together', async () => {
    const text = async (subject: string) => Certificate.parse((await testCertificate({ subject })).der).subjectText;
    expect(await text('C=US, O=SPIRE')).toBe('O=SPIRE,C=US');
    expect(await text('CN=a\\, b, OU=x, OU=y')).toBe('CN=a\\, b,OU=x+OU=y');
    expect(await text('O=Ünï')).toBe('O=Ünï');
    expect(await text('1.2.3.4=x')).toMatch(/^1\.2\.3\.4=#/);
  });

  test('a concatenation is split by its lengths', async () => {
    const [a, b] = [await testRoot(), await testRoot()];
    expect(splitCertificates(Buffer.concat([a.der, b.der])).map((one) => one.raw.equals(a.der) || one.raw.equals(b.der))).toEqual([
      true,
      true,
    ]);
    expect(splitCertificates(Buffer.alloc(0))).toEqual([]);
    expect(() => splitCertificates(Buffer.concat([a.der, Buffer.from([0x30])]))).toThrow(SpiffeError);
    expect(certificatesFromPem(a.pem + b.pem)).toHaveLength(2);
  });

  test('bytes given are copied: changing them later changes nothing', async () => {
    const { der: bytes } = await testRoot();
    const given = Buffer.from(bytes);
    const certificate = Certificate.parse(given);
    given.fill(0);
    expect(certificate.raw.equals(bytes)).toBe(true);
  });
});

describe('what is no certificate for us', () => {
  const table: [string, TestCertificateOptions, string][] = [
    ['a good one', {}, 'read'],
    ['a NUL in the URI', { uris: [], extensions: [san([0x86, 'spiffe://example.org/a\0b'])] }, 'X509_SAN_CHAR'],
    ['8-bit bytes in the URI', { uris: [], extensions: [san([0x86, Buffer.from('spiffe://example.org/ä', 'latin1')])] }, 'X509_SAN_CHAR'],
    ['a space in the DNS name', { uris: [], extensions: [san([0x82, 'a b'])] }, 'X509_SAN_CHAR'],
    ['an empty URI', { uris: [], extensions: [san([0x86, ''])] }, 'X509_SAN'],
    ['an empty SAN', { uris: [], extensions: [extension('2.5.29.17', '3000')] }, 'X509_SAN'],
    ['a SAN of an unknown form', { uris: [], extensions: [san([0x89, 'x'])] }, 'X509_SAN'],
    // another reader sees no names at all where it finds one malformed
    [
      'names of other forms',
      {
        uris: [],
        extensions: [
          san(
            [0xa0, Buffer.from('06032a0304a0020500', 'hex')],
            [0x81, 'a@b.test'],
            [0x87, Buffer.alloc(4)],
            [0x87, Buffer.alloc(16)],
            [0x88, Buffer.of(0x2a, 3)],
          ),
        ],
      },
      'read',
    ],
    [
      'an other name that is none',
      { uris: [], extensions: [san([0x86, 'https://a.test'], [0xa0, Buffer.from('8600', 'hex')])] },
      'DER_TAG',
    ],
    ['an other name without a value', { uris: [], extensions: [san([0xa0, Buffer.from('06032a0304', 'hex')])] }, 'DER_TRUNCATED'],
    ['an address of 5 octets', { uris: [], extensions: [san([0x87, Buffer.alloc(5)])] }, 'X509_SAN'],
    ['a NUL in the e-mail address', { uris: [], extensions: [san([0x81, 'a\0@b.test'])] }, 'X509_SAN_CHAR'],
    ['a registered id that is none', { uris: [], extensions: [san([0x88, Buffer.of(0x80)])] }, 'DER_OID'],
    ['two SANs', { extensions: [san([0x86, 'spiffe://example.org/b'])] }, 'X509_EXTENSION_REPEATED'],
    [
      'two unknown extensions of one kind',
      { extensions: [extension('1.2.3', '0500'), extension('1.2.3', '0500')] },
      'X509_EXTENSION_REPEATED',
    ],
    ['a key usage without a bit', { usages: null, extensions: [extension('2.5.29.15', '030100')] }, 'X509_KEY_USAGE'],
    ['a key usage with trailing bytes', { usages: null, extensions: [extension('2.5.29.15', '030207800000')] }, 'DER_TRAILING'],
    ['an empty extended key usage', { purposes: null, extensions: [extension('2.5.29.37', '3000')] }, 'X509_EXT_KEY_USAGE'],
    ['a path length without CA', { basicConstraints: false, extensions: [extension('2.5.29.19', '3003020100')] }, 'X509_BASIC_CONSTRAINTS'],
    ['a CA flag of 0x01', { basicConstraints: false, extensions: [extension('2.5.29.19', '3003010101')] }, 'DER_BOOLEAN'],
    ['a negative path length', { basicConstraints: false, extensions: [extension('2.5.29.19', '30060101ff0201ff')] }, 'DER_INTEGER'],
    [
      'name constraints with a scheme',
      {
        extensions: [
          extension('2.5.29.30', der(TAG.sequence, der(0xa0, der(TAG.sequence, der(0x86, Buffer.from('spiffe://a'))))).toString('hex')),
        ],
      },
      'X509_NAME_CONSTRAINTS',
    ],
    [
      'an authority key identifier with issuer and serial number',
      { keyIdentifiers: false, extensions: [extension('2.5.29.35', '300c8001ffa1048202612e820101')] },
      'read',
    ],
    [
      'an authority key identifier whose issuer is no name',
      { keyIdentifiers: false, extensions: [extension('2.5.29.35', '3005a103040161')] },
      'X509_SAN',
    ],
    [
      'an authority key identifier whose serial number is no integer',
      { keyIdentifiers: false, extensions: [extension('2.5.29.35', '300482020001')] },
      'DER_INTEGER',
    ],
    ['name constraints of nothing', { extensions: [extension('2.5.29.30', '3000')] }, 'X509_NAME_CONSTRAINTS'],
    ['an end before the beginning', { notAfterMs: NOW_MS - 7_200_000 }, 'X509_VALIDITY'],
  ];
  test.each(table)('%s', async (_name, options, expected) => expect(reason((await testCertificate(options)).der)).toBe(expected));

  test('another version, another algorithm outside than inside, a negative serial, trailing bytes', async () => {
    const { der: good } = await testRoot();
    const tbs = (change: (tbs: Buffer) => Buffer) => {
      const reader = readWhole(good, TAG.sequence);
      const inner = reader.raw(TAG.sequence);
      const body = inner.subarray(inner.length - readWhole(inner, TAG.sequence).end + readWhole(inner, TAG.sequence).at);
      return der(TAG.sequence, der(TAG.sequence, change(Buffer.from(body))), good.subarray(good.indexOf(inner) + inner.length));
    };
    expect(reason(tbs((body) => body))).toBe('read');
    expect(reason(tbs((body) => body.subarray(5)))).toBe('X509_VERSION');
    expect(reason(tbs((body) => Buffer.concat([Buffer.from('a003020101', 'hex'), body.subarray(5)])))).toBe('X509_VERSION');
    expect(
      reason(tbs((body) => Buffer.concat([body.subarray(0, 5), Buffer.from('0201ff', 'hex'), body.subarray(5 + 2 + (body[6] as number))]))),
    ).toBe('X509_SERIAL');
    const ecdsa256 = Buffer.from('06082a8648ce3d040302', 'hex');
    const mixed = Buffer.from(good);
    mixed[mixed.lastIndexOf(ecdsa256) + 9] = 3;
    expect(reason(mixed)).toBe('X509_SIGNATURE_ALGORITHM_MISMATCH');
    expect(reason(Buffer.concat([good, Buffer.from([0])]))).toBe('DER_TRAILING');
    expect(reason(Buffer.alloc(70_000, 0x30))).toBe('X509_TOO_LARGE');
  });

  test('unique identifiers are bit strings', async () => {
    const { der: good } = await testRoot();
    const tbs = new DerReader(readWhole(good, TAG.sequence).raw(TAG.sequence)).enter(TAG.sequence);
    const from = tbs.at;
    while (tbs.peek() !== 0xa3) tbs.any();
    const [before, extensions] = [tbs.bytes.subarray(from, tbs.at), tbs.bytes.subarray(tbs.at)];
    const after = good.subarray(good.indexOf(extensions) + extensions.length);
    const withId = (hex: string) =>
      reason(der(TAG.sequence, der(TAG.sequence, before, der(0x82, Buffer.from(hex, 'hex')), extensions), after));
    for (const bits of ['00', '00ff', '0780', '0410']) expect(withId(bits)).toBe('read');
    for (const none of ['', '01', '0880', '30ff', '0701', '04ff']) expect(withId(none)).toBe('DER_BIT_STRING');
  });

  test('a name has text for values, and an algorithm one value of parameters', async () => {
    const { der: good } = await testCertificate({ subject: 'C=US, O=SPIRE' });
    const changed = (from: string, to: string) => {
      const [old, text] = [Buffer.from(from, 'hex'), Buffer.from(to, 'hex')];
      const bytes = Buffer.from(good);
      expect(bytes.includes(old)).toBe(true);
      for (let at = bytes.indexOf(old); at >= 0; at = bytes.indexOf(old, at + 1)) text.copy(bytes, at);
      return reason(bytes);
    };
    const spire = Buffer.from('SPIRE').toString('hex');
    for (const text of [`1305${spire}`, `0c05${spire}`, '0c0553504952c3'.replace('52c3', 'c3a9'), '1405ffffffffff']) {
      expect(changed(`1305${spire}`, text)).toBe('read');
    }
    for (const none of [`0605${spire}`, `0405${spire}`, '0c05ffffffffff', '1305ffffffffff', '1e05ffffffffff', '1205e000000000']) {
      expect(changed(`1305${spire}`, none)).toBe('X509_NAME');
    }

    const key = (...parameters: string[]) =>
      der(TAG.sequence, der(TAG.sequence, derOid('1.2.3.4'), ...parameters.map((one) => Buffer.from(one, 'hex'))), derBits(Buffer.of(1)));
    expect(readSpki(key()).kind.type).toBe('unknown');
    expect(readSpki(key('0500')).kind.type).toBe('unknown');
    expect(() => readSpki(key('0500', '0500'))).toThrow(SpiffeError);
    expect(() => readSpki(key('05'))).toThrow(SpiffeError);
    const algorithm = (...parameters: string[]) =>
      new DerReader(der(TAG.sequence, derOid('1.2.3.4'), ...parameters.map((one) => Buffer.from(one, 'hex'))));
    expect(takeSignatureAlgorithm(algorithm('0500')).name).toBe('1.2.3.4');
    expect(() => takeSignatureAlgorithm(algorithm('0500', '0500'))).toThrow(SpiffeError);
  });

  test('any bytes, cut or changed ones, are read or refused with a SpiffeError, in time', async () => {
    const { der: good } = await testCertificate({ dns: ['a.b'], issuer: await testRoot() });
    for (let length = 0; length < good.length; length++) expect(reason(good.subarray(0, length))).toMatch(/^DER_/);
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }), (changes) => {
        const bytes = Buffer.from(good);
        for (const [at, value] of changes) bytes[at] = value;
        try {
          const certificate = Certificate.parse(bytes);
          // Whatever can be read can also be told.
          expect(typeof `${certificate}${certificate.issuerText}${certificate.serialNumber}`).toBe('string');
        } catch (error) {
          expect(error).toBeInstanceOf(SpiffeError);
        }
      }),
      { numRuns: 3000 },
    );
  });
});

describe('PEM', () => {
  test('blocks are written and read back, with comments between them', async () => {
    const { der: bytes } = await testRoot();
    const text = formatPem('CERTIFICATE', bytes);
    expect(parsePem(`subject=x\n${text}\n\ntext\r\n${text.replaceAll('\n', '\r\n')}`).map((block) => block.der.equals(bytes))).toEqual([
      true,
      true,
    ]);
    expect(parsePem('')).toEqual([]);
    for (const wrong of [
      text.replace('-----END', 'x----END'),
      text.replace('-----BEGIN CERTIFICATE', '-----BEGIN X'),
      text.replace('MII', 'MI '),
      '-----END X-----',
      '-----BEGIN X-----\n-----END X-----',
    ]) {
      expect(() => parsePem(wrong)).toThrow(SpiffeError);
    }
  });
});

test('every rule of the profile has a reason of its own for its kind', () => {
  const seen = PROFILE.map((rule) => `${rule.kind} ${rule.reason}`);
  expect(new Set(seen).size).toBe(seen.length);
});
