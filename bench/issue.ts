/** CSR → X.509-SVID: CPU time of parsing, verifying and issuing, ours against @peculiar/x509. Prints a table. */
import { X509Bundle } from '../spiffe/x509/x509-bundle.ts';
import 'reflect-metadata';
import { sign } from 'node:crypto';
import { Crypto } from '@peculiar/webcrypto';
import * as x509 from '@peculiar/x509';
import type { KeyType, SigningKey } from '../core/plugin/key-manager.ts';
import { buildCsr, parseCsr } from '../core/x509/csr.ts';
import { issueX509Ca, issueX509Svid } from '../core/x509/issue.ts';
import { generateEcKey, generateKey, spkiDer } from '../core/x509/key.ts';
import { systemClock } from '../spiffe/clock.ts';
import { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { verifyX509Svid } from '../spiffe/x509/x509-svid.ts';

const trustDomain = TrustDomain.parse('example.org');
const spiffeId = SpiffeId.parse('spiffe://example.org/ns/prod/sa/payments-api');

async function measure(what: string, times: number, run: () => unknown): Promise<void> {
  for (let i = 0; i < Math.min(200, times); i++) await run();
  const cpu = process.cpuUsage();
  const from = performance.now();
  for (let i = 0; i < times; i++) await run();
  const used = process.cpuUsage(cpu);
  const wall = ((performance.now() - from) * 1000) / times;
  console.log(`${what.padEnd(64)} ${((used.user + used.system) / times).toFixed(1).padStart(9)} µs CPU ${wall.toFixed(1).padStart(9)} µs`);
}

function signer(key: Awaited<ReturnType<typeof generateKey>>, type: KeyType): SigningKey {
  return { id: 'bench', type, spkiDer: spkiDer(key), sign: async (data, options) => sign(options.hash, data, key) };
}

const now = systemClock.now();
const dates = { notBeforeMs: now - 10_000, notAfterMs: now + 3_600_000 };
const csr = buildCsr({ key: generateEcKey() });

for (const type of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
  const key = signer(await generateKey(type), type);
  const { certificate } = await issueX509Ca({ issuer: 'self', key, trustDomain, subject: { organization: ['SPIFFE'] }, ...dates });
  const issue = async () => {
    const request = parseCsr(csr);
    request.verifySignature();
    return issueX509Svid({ issuer: { certificate, key }, spkiDer: request.spkiDer, spiffeId, ...dates });
  };
  await measure(`warifu: CSR (P-256) → X.509-SVID, authority ${type}`, type === 'ec-p256' ? 5000 : 500, issue);
  const { der } = await issue();
  const bundle = new X509Bundle(trustDomain, [certificate]);
  await measure(`warifu: verify the X.509-SVID of a peer, authority ${type}`, type === 'ec-p384' ? 500 : 5000, () =>
    verifyX509Svid([der], bundle, { nowMs: now }),
  );
}
await measure('warifu: parse the CSR alone', 5000, () => parseCsr(csr));
await measure('warifu: parse the CSR and verify its signature', 5000, () => parseCsr(csr).verifySignature());

const webcrypto = new Crypto();
x509.cryptoProvider.set(webcrypto as never);
const ecdsa = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const keys = await webcrypto.subtle.generateKey(ecdsa, true, ['sign', 'verify']);
await measure('@peculiar/x509 with @peculiar/webcrypto: the same, P-256', 300, async () => {
  const request = new x509.Pkcs10CertificateRequest(csr);
  if (!(await request.verify())) throw new Error('the CSR does not verify');
  return x509.X509CertificateGenerator.create({
    subject: 'C=US, O=SPIRE',
    issuer: 'O=SPIFFE',
    publicKey: request.publicKey,
    signingKey: keys.privateKey as never,
    signingAlgorithm: ecdsa,
    notBefore: new Date(dates.notBeforeMs),
    notAfter: new Date(dates.notAfterMs),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment | x509.KeyUsageFlags.keyAgreement,
        true,
      ),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: spiffeId.toString() }]),
      await x509.SubjectKeyIdentifierExtension.create(request.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey as never),
    ],
  });
});
