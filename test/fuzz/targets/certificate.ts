/** DER and certificates: what we read, OpenSSL reads as well, and sees the same in it. */
import { X509Certificate } from 'node:crypto';
import { Certificate, GENERAL_NAME, splitCertificates } from '../../../spiffe/x509/certificate.ts';
import { testCertificate, testRoot, x509 } from '../../fakes/ca.ts';
import { mutateDer, OIDS } from '../der.ts';
import { about, type Target, wrong } from '../fuzzer.ts';

export default async function certificate(): Promise<Target> {
  const root = await testRoot();
  const made = [
    root,
    await testCertificate({ issuer: root, dns: ['a.test', '*.b.test'] }),
    await testCertificate({ issuer: root, keyType: 'rsa-2048', usages: ['digitalSignature'], purposes: null }),
    await testCertificate({ keyType: 'ed25519', ca: true, pathLen: 0 }),
    await testCertificate({ keyType: 'ec-p521', uris: ['spiffe://example.org/a/b', 'https://a.test'], sanCritical: true, subject: '' }),
    await testCertificate({
      issuer: root,
      ca: true,
      subject: 'CN=x+OU=y, O=Ü, C=US, E=a@b.test',
      extensions: [
        new x509.Extension(
          '2.5.29.30',
          true,
          Buffer.from('3018a0163014860b6578616d706c652e6f726730058203612e62'.replace('3014', '300d'), 'hex'),
        ),
        new x509.Extension('1.2.3.4', true, Buffer.from('0500', 'hex')),
      ],
    }),
  ];
  return {
    seeds: made.map(({ der }) => der),
    words: OIDS,
    mutations: [mutateDer],
    run(input) {
      const certificates = splitCertificates(input);
      return certificates.map(compare).join(' ');
    },
  };
}

/** Throws when OpenSSL sees another certificate. */
function compare(ours: Certificate): string {
  const theirs = openssl(ours.raw);
  if (!theirs) {
    if (ours.keyKind.type === 'unknown') return 'a key that neither reads';
    throw wrong('OpenSSL does not read what we read');
  }
  const same = (what: string, a: unknown, b: unknown) => {
    if (a !== b) throw wrong(`OpenSSL sees another ${what}`, a, b);
  };
  same('certificate', ours.raw.toString('hex'), theirs.raw.toString('hex'));
  same('serial number', ours.serialHex, theirs.serialNumber.toLowerCase().replace(/^0+(?=.)/, ''));
  // a year that OpenSSL prints is of four digits
  same('begin', ours.notBeforeMs, theirs.validFromDate.getTime());
  same('end', ours.notAfterMs, theirs.validToDate.getTime());
  // false there for a CA that cannot sign for its key usage as well
  if (theirs.ca && !ours.isCa) throw wrong('OpenSSL sees a CA');
  const names = altNames(theirs);
  // OpenSSL reads on in these, and so sees no name at all where they are malformed
  if (ours.sanTags.has(GENERAL_NAME.x400) || ours.sanTags.has(GENERAL_NAME.ediParty) || ours.directoryNames.length > 0) return 'rare names';
  same('list of URIs', ours.uris.join(' '), names.get('URI')?.join(' ') ?? '');
  same('list of DNS names', ours.dnsNames.join(' '), names.get('DNS')?.join(' ') ?? '');
  void [ours.subjectText, ours.issuerText, String(ours), ours.subjectName, ours.sha256];
  let key = 'no key';
  try {
    key = String(ours.publicKey.asymmetricKeyType);
  } catch {
    // a point that is not on its curve
  }
  return [
    ours.keyKind.type,
    key,
    ours.signatureAlgorithmName,
    about(ours.uris.length),
    about(ours.dnsNames.length),
    about(ours.otherNames),
    ours.isCa,
    ours.pathLen === undefined,
    ours.keyUsage?.size,
    ours.extKeyUsage?.length,
    ours.unknownCritical.length,
    ours.nameConstraints !== undefined,
  ].join();
}

function openssl(der: Buffer): X509Certificate | undefined {
  try {
    return new X509Certificate(der);
  } catch {
    return undefined;
  }
}

/** `DNS:a.test, URI:"…"`: what could be mistaken for the next name is a JSON text. */
function altNames(theirs: X509Certificate): Map<string, string[]> {
  const names = new Map<string, string[]>();
  for (const [, type = '', value = ''] of (theirs.subjectAltName ?? '').matchAll(/(?:^|, )([A-Za-z ]+):("(?:[^"\\]|\\.)*"|.*?(?=, |$))/gs))
    names.set(type, [...(names.get(type) ?? []), value.startsWith('"') ? (JSON.parse(value) as string) : value]);
  return names;
}
