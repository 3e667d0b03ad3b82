/** The server's CPU time, all its threads, per SVID. Stock SPIRE: 0.75 ms for an X.509-SVID. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { createHouse } from '../../test/e2e/house.ts';
import { cpuMs, main, quiet, type Row } from './figure.ts';
import { Spire, wireId } from './spire.ts';

const MINTED = 3_000;
const BATCH = 500;
const BATCHES = 10;
/** Calls under way at once. */
const WIDTH = 20;

async function newCsr(): Promise<{ csr: Buffer; key: webcrypto.CryptoKey }> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm: algorithm });
  return { csr: Buffer.from(request.rawData), key: keys.privateKey };
}

function pem(label: string, der: Uint8Array): string {
  return `-----BEGIN ${label}-----\n${Buffer.from(der).toString('base64').replace(/.{64}/g, '$&\n')}\n-----END ${label}-----\n`;
}

async function spread(count: number, call: () => Promise<unknown>): Promise<void> {
  let left = count;
  await Promise.all(
    Array.from({ length: WIDTH }, async () => {
      while (left-- > 0) await call();
    }),
  );
}

export async function cpu(program: readonly string[]): Promise<Row[]> {
  // SPIRE's own limits by address would answer this figure, not the signing
  const house = await createHouse({ program, logLevel: 'INFO', serverSettings: ['ratelimit { signing = false attestation = false }'] });
  const open: Spire[] = [];
  try {
    await house.startServer();
    const { pid } = house.server;
    const per = async (count: number, work: () => Promise<unknown>) => {
      await work();
      await quiet(pid);
      const before = cpuMs(pid);
      await work();
      await quiet(pid);
      return (cpuMs(pid) - before) / count;
    };

    const admin = Spire.admin(house.socketPath);
    open.push(admin);
    const named = await x509.Pkcs10CertificateRequestGenerator.create({
      keys: await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']),
      signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
      extensions: [new x509.SubjectAlternativeNameExtension([{ type: 'url', value: `spiffe://${house.trustDomain}/minted` }])],
    });
    const csr = Buffer.from(named.rawData);
    const minted = await per(MINTED, () =>
      spread(MINTED, () => admin.call('/spire.api.server.svid.v1.SVID/MintX509SVID', { csr, ttl: 3_600 })),
    );
    const id = wireId(`spiffe://${house.trustDomain}/minted`);
    const tokens = await per(MINTED, () =>
      spread(MINTED, () => admin.call('/spire.api.server.svid.v1.SVID/MintJWTSVID', { id, audience: ['db'], ttl: 300 })),
    );

    // an agent by SPIRE's protocol alone: attests with a join token, then has batches signed
    const { value: token } = JSON.parse(await house.ok('server', 'token', 'generate', '-output', 'json')) as { value: string };
    const parent = wireId(`spiffe://${house.trustDomain}/spire/agent/join_token/${token}`);
    const entries = Array.from({ length: BATCH }, (_, i) => ({
      spiffe_id: wireId(`spiffe://${house.trustDomain}/batch/${i}`),
      parent_id: parent,
      selectors: [{ type: 'unix', value: `uid:${100_000 + i}` }],
    }));
    const { results } = await admin.call('/spire.api.server.entry.v1.Entry/BatchCreateEntry', { entries });
    const anonymous = Spire.server(house.port, house.trustDomain, house.pki.root);
    open.push(anonymous);
    const own = await newCsr();
    const chain = await anonymous.attest(token, own.csr);
    const agent = Spire.server(house.port, house.trustDomain, house.pki.root, {
      key: Buffer.from(pem('PRIVATE KEY', new Uint8Array(await webcrypto.subtle.exportKey('pkcs8', own.key)))),
      chain: Buffer.from(chain.map((der) => pem('CERTIFICATE', der)).join('')),
    });
    open.push(agent);
    const params = await Promise.all(results.map(async ({ entry }) => ({ entry_id: entry.id, csr: (await newCsr()).csr })));
    const batched = await per(BATCHES * BATCH, async () => {
      for (let i = 0; i < BATCHES; i++) {
        const answer = await agent.call('/spire.api.server.svid.v1.SVID/BatchNewX509SVID', { params });
        const bad = answer.results.find(({ status }) => status.code !== 0);
        if (bad) throw new Error(`sign: ${bad.status.message}`);
      }
    });
    return [
      { what: `X.509-SVID, signed in batches of ${BATCH}`, value: batched, unit: 'ms', limit: 0.25 },
      { what: 'X.509-SVID, minted one a call', value: minted, unit: 'ms', limit: 0.3 },
      { what: 'JWT-SVID, minted one a call', value: tokens, unit: 'ms', limit: 0.2 },
    ];
  } finally {
    for (const one of open) one.close();
    await house.close();
  }
}

await main(import.meta.url, cpu);
