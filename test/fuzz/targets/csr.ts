/** Certificate signing requests: nothing passes that its key did not sign, and what passes is the same to a reader that is not ours. */
import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { buildCsr, parseCsr } from '../../../core/x509/csr.ts';
import { isCoded } from '../../../core/errors.ts';
import { testKeys, x509 } from '../../fakes/ca.ts';
import { changeDer, type DerNode, mutateDer, OIDS, readDer, writeDer } from '../der.ts';
import { about, type Target, wrong } from '../fuzzer.ts';
import type { Mutation } from '../mutations.ts';

export default async function csr(): Promise<Target> {
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const ecDer = spki(ec.publicKey);
  /** What was signed by the fuzzer itself with `ec`. */
  const signed = new Set<string>();
  const keys = await testKeys('ec-p384');
  const foreign = await x509.Pkcs10CertificateRequestGenerator.create({
    name: 'CN=web, O=Ü',
    keys,
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-384' } as { name: string },
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: 'a.test' }]), new x509.KeyUsagesExtension(1, true)],
    attributes: [new x509.ChallengePasswordAttribute('secret')],
  });
  const seeds = [
    buildCsr({ key: ec.privateKey, uri: 'spiffe://example.org/web', dns: ['a.test', 'b.test'] }),
    buildCsr({ key: ec.privateKey }),
    buildCsr({ key: rsa.privateKey, dns: ['*.a.test'] }),
    buildCsr({ key: rsa.privateKey, uri: 'spiffe://example.org' }),
    Buffer.from(foreign.rawData),
  ];
  for (const seed of seeds.slice(0, 2)) signed.add(infoOf(seed).toString('hex'));

  /** Changes what is signed, and signs it again: the reader gets past the signature. */
  const resigned: Mutation = (random, input, other) => {
    const nodes = readDer(input);
    const whole = nodes?.[0]?.contents;
    if (!nodes || !Array.isArray(whole) || !whole[0] || !whole[2]) return mutateDer(random, input, other);
    const info = whole[0];
    for (let times = random.size(3); times > 0; times--) changeDer(random, [info], other);
    const bytes = writeDer([info]);
    if (bytes.length > 32 * 1024) return input;
    if (Array.isArray(info.contents) && random.oneIn(2) && info.contents[2]) info.contents[2] = readDer(ecDer)?.[0] as DerNode;
    const toSign = writeDer([info]);
    signed.add(toSign.toString('hex'));
    whole[1] = readDer(Buffer.from('300a06082a8648ce3d040302', 'hex'))?.[0] as DerNode;
    whole[2] = { tag: 3, lead: Buffer.alloc(0), contents: Buffer.concat([Buffer.alloc(1), sign('sha256', toSign, ec.privateKey)]) };
    return writeDer(nodes);
  };

  return {
    seeds,
    words: OIDS,
    mutations: [mutateDer, resigned],
    run(input) {
      const request = parseCsr(input);
      const shape = [request.keyKind.type, about(request.uris.length), about(request.dnsNames.length), about(request.otherNames)].join();
      void [request.subjectText, request.subjectName];
      try {
        request.verifySignature();
      } catch (error) {
        if (isCoded(error)) return `${shape} ${error.reason ?? ''}`;
        throw error;
      }
      if (!request.raw.equals(input)) throw wrong('another request');
      if (request.spkiDer.equals(ecDer) && !signed.has(infoOf(input).toString('hex'))) throw wrong('a request that its key did not sign');
      return `signed ${shape} ${compare(request.spkiDer, request.uris, request.dnsNames, input)}`;
    },
  };
}

function spki(key: KeyObject): Buffer {
  return key.export({ type: 'spki', format: 'der' });
}

function infoOf(request: Buffer): Buffer {
  const whole = readDer(request)?.[0]?.contents;
  return Array.isArray(whole) ? writeDer(whole.slice(0, 1)) : Buffer.alloc(0);
}

function compare(spkiDer: Buffer, uris: readonly string[], dnsNames: readonly string[], input: Buffer): string {
  if (!spki(createPublicKey({ key: spkiDer, format: 'der', type: 'spki' })).equals(spkiDer))
    throw wrong('OpenSSL writes the key another way');
  let names: readonly x509.GeneralName[];
  let keyDer: Buffer;
  try {
    const theirs = new x509.Pkcs10CertificateRequest(input);
    keyDer = Buffer.from(theirs.publicKey.rawData);
    const extensions = theirs.attributes.find(({ type }) => type === '1.2.840.113549.1.9.14') as x509.ExtensionsAttribute | undefined;
    const found = extensions?.items.find(({ type }) => type === '2.5.29.17');
    names = found ? new x509.SubjectAlternativeNameExtension(found.rawData).names.items : [];
  } catch {
    // it looks into what means nothing to us: other extensions, attributes, the subject
    return 'read by us alone';
  }
  if (!keyDer.equals(spkiDer)) throw wrong('another reader sees another key');
  const of = (type: string) => names.flatMap((name) => (name.type === type ? [name.value] : [])).join(' ');
  if (of('url') !== uris.join(' ')) throw wrong('another reader sees other URIs', of('url'), uris);
  if (of('dns') !== dnsNames.join(' ')) throw wrong('another reader sees other DNS names', of('dns'), dnsNames);
  return 'read alike';
}
