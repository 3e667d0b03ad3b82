/** The part of the target `names` that is PEM: what we read, OpenSSL and our own writer write alike; bundles and SVIDs in files. */
import { X509Bundle } from '../../spiffe/x509/x509-bundle.ts';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { certificatesFromPem } from '../../spiffe/x509/certificate.ts';
import { TrustDomain } from '../../spiffe/id.ts';
import { formatPem, type PemBlock, parsePem } from '../../spiffe/x509/pem.ts';
import { X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { isCoded } from '../../core/errors.ts';
import { testCertificate, testRoot } from '../fakes/ca.ts';
import { about, shape, type Target, wrong } from './fuzzer.ts';

const trustDomain = TrustDomain.parse('example.org');

export default async function pem(): Promise<Target> {
  const root = await testRoot();
  const leaf = await testCertificate({ issuer: root });
  const key = String(leaf.key.export({ type: 'pkcs8', format: 'pem' }));
  const encrypted = String(
    generateKeyPairSync('ec', {
      namedCurve: 'P-256',
      privateKeyEncoding: { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' },
      publicKeyEncoding: { type: 'spki', format: 'pem' },
    }).privateKey,
  );
  return {
    seeds: [
      leaf.pem + root.pem,
      leaf.pem + key,
      `# a comment\n${root.pem.replaceAll('\n', '\r\n')}`,
      encrypted + leaf.pem,
      '',
      'text\n',
    ].map((text) => Buffer.from(text)),
    words: [
      '-----BEGIN CERTIFICATE-----\n',
      '-----END CERTIFICATE-----\n',
      '-----BEGIN PRIVATE KEY-----',
      '-----END ',
      '-----',
      '\r\n',
      '\n',
      '=',
      '==',
      'Proc-Type: 4,ENCRYPTED\n',
      ' ',
      '\t',
      '\0',
    ],
    run(input) {
      const parts = [
        outcome(() => about(certificatesFromPem(input).length)),
        outcome(() => X509Bundle.fromPem(trustDomain, input).authorities.length),
        outcome(() => X509Svid.fromPem(input).chain.length),
      ];
      let blocks: readonly PemBlock[];
      try {
        blocks = parsePem(input);
      } catch (error) {
        // the message names the block, by whatever name it has
        if (isCoded(error)) return `${error.reason ?? ''} ${shape(error.message).replace(/ the .* block/, '')} ${parts.join()}`;
        throw error;
      }
      const again = parsePem(blocks.map(({ label, der }) => formatPem(label, der)).join(''));
      if (again.length !== blocks.length || again.some(({ label, der }, i) => label !== blocks[i]?.label || !der.equals(blocks[i].der)))
        throw wrong('PEM written is something else');
      for (const { label, der } of blocks) {
        if (label !== 'CERTIFICATE' || typeof outcome(() => certificatesFromPem(formatPem(label, der)).length) === 'string') continue;
        if (!new X509Certificate(formatPem(label, der)).raw.equals(der)) throw wrong('OpenSSL reads another certificate');
      }
      return [
        about(blocks.length),
        ...['CERTIFICATE', 'PRIVATE KEY'].map((label) => about(blocks.filter((block) => block.label === label).length)),
        ...parts,
      ].join();
    },
  };
}

function outcome(run: () => number): number | string {
  try {
    return run();
  } catch (error) {
    if (isCoded(error)) return String(error.reason);
    throw error;
  }
}
