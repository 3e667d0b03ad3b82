/** Certificate chains: nobody is believed whom the authority did not sign for, and OpenSSL agrees with every link. The input is a row of certificates, leaf first. */
import { X509Bundle } from '../../../spiffe/x509/x509-bundle.ts';
import { KeyObject, sign, X509Certificate } from 'node:crypto';
import { splitCertificates } from '../../../spiffe/x509/certificate.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { verifyX509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { NOW_MS, testCertificate, testRoot, x509 } from '../../fakes/ca.ts';
import { changeDer, type DerNode, mutateDer, OIDS, readDer, writeDer } from '../der.ts';
import { type Target, wrong } from '../fuzzer.ts';
import type { Mutation } from '../mutations.ts';

export default async function path(): Promise<Target> {
  const root = await testRoot({ subject: 'CN=root' });
  const middle = await testCertificate({ issuer: root, ca: true, subject: 'CN=middle', pathLen: 0, uris: ['spiffe://example.org'] });
  const narrow = await testCertificate({
    issuer: root,
    ca: true,
    subject: 'CN=narrow',
    extensions: [
      new x509.Extension(
        '2.5.29.30',
        true,
        Buffer.from(`300fa00d300b8609612e6578616d706c65`.replace('300fa00d300b8609', '3011a00f300d860b') + '2e6f', 'hex'),
      ),
    ],
  });
  const stranger = await testRoot({ subject: 'CN=root' });
  const leaves = [
    [await testCertificate({ issuer: root, dns: ['a.test'] })],
    [await testCertificate({ issuer: middle }), middle],
    [await testCertificate({ issuer: narrow }), narrow],
    [await testCertificate({ issuer: stranger }), stranger],
    [await testCertificate({ issuer: middle, ca: true, uris: ['spiffe://example.org/web'] }), middle, root],
    [await testCertificate({ issuer: root, notAfterMs: NOW_MS - 5000 })],
  ];
  const trustDomain = TrustDomain.parse('example.org');
  const bundle = X509Bundle.fromDer(trustDomain, root.der);
  /** What any key of the root and of those below it has signed, the fuzzer's own signatures with it. */
  const signed = new Set(
    [root, middle, narrow, ...leaves.flat()].filter((one) => one !== stranger).map(({ der }) => tbsOf(der)?.toString('base64') ?? ''),
  );
  const issuers = [root, middle, narrow].map((one) => ({
    key: KeyObject.from(one.keys.privateKey),
    name: readDer(subjectOf(one.der))?.[0] as DerNode,
  }));

  /** Changes one certificate, and has it signed again. */
  const resigned: Mutation = (random, input, other) => {
    const row = readDer(input);
    if (!row || row.length === 0) return mutateDer(random, input, other);
    const whole = random.pick(row).contents;
    if (!Array.isArray(whole) || whole.length < 3) return input;
    const tbs = whole[0] as DerNode;
    for (let times = random.size(3); times > 0; times--) changeDer(random, [tbs], other);
    if (!Array.isArray(tbs.contents) || tbs.contents.length < 6) return input;
    const issuer = random.pick(issuers);
    const algorithm = readDer(Buffer.from('300a06082a8648ce3d040302', 'hex'))?.[0] as DerNode;
    tbs.contents[2] = algorithm;
    if (random.oneIn(2)) tbs.contents[3] = issuer.name;
    const bytes = writeDer([tbs]);
    if (bytes.length > 16 * 1024) return input;
    signed.add(bytes.toString('base64'));
    whole[1] = algorithm;
    whole[2] = { tag: 3, lead: Buffer.alloc(0), contents: Buffer.concat([Buffer.alloc(1), sign('sha256', bytes, issuer.key)]) };
    return writeDer(row);
  };

  return {
    seeds: leaves.map((chain) => Buffer.concat(chain.map(({ der }) => der))),
    words: OIDS,
    mutations: [mutateDer, resigned],
    maxBytes: 16 * 1024,
    run(input) {
      const presented = splitCertificates(input);
      const { id, chain } = verifyX509Svid(presented, bundle, { nowMs: NOW_MS });
      const last = chain.at(-1);
      if (!last?.raw.equals(root.der)) throw wrong('a path that does not end at the authority');
      if (chain[0]?.raw.equals(presented[0]?.raw ?? Buffer.alloc(0)) !== true) throw wrong('a path of another leaf');
      if (id.trustDomain !== trustDomain) throw wrong('an ID of another trust domain', id);
      for (const [i, one] of chain.entries()) {
        if (!signed.has(one.tbs.toString('base64'))) throw wrong('a certificate that nobody signed is believed', i);
        const theirs = new X509Certificate(one.raw);
        const above = new X509Certificate((chain[i + 1] ?? last).raw);
        if (!theirs.verify(above.publicKey)) throw wrong('OpenSSL does not verify the signature', i);
        if (!theirs.checkIssued(above) && i < chain.length - 1) throw wrong('OpenSSL does not take the issuer for one', i);
        if (theirs.validFromDate.getTime() > NOW_MS || theirs.validToDate.getTime() + 1000 <= NOW_MS)
          throw wrong('a certificate out of its time', i);
        if (i > 0 && !theirs.ca) throw wrong('OpenSSL sees no CA', i);
        if (i === 0 && theirs.ca) throw wrong('OpenSSL sees a CA in the leaf');
      }
      const uris = (new X509Certificate((chain[0] as { raw: Buffer }).raw).subjectAltName ?? '')
        .split(', ')
        .filter((name) => name.startsWith('URI:'));
      if (uris.join() !== `URI:${id}`) throw wrong('OpenSSL sees another URI', id, uris);
      return `believed ${chain.length} of ${presented.length}`;
    },
  };
}

function tbsOf(certificate: Buffer): Buffer | undefined {
  const whole = readDer(certificate)?.[0]?.contents;
  return Array.isArray(whole) ? writeDer(whole.slice(0, 1)) : undefined;
}

function subjectOf(certificate: Buffer): Buffer {
  const whole = readDer(certificate)?.[0]?.contents as DerNode[];
  return writeDer([((whole[0] as DerNode).contents as DerNode[])[5] as DerNode]);
}
