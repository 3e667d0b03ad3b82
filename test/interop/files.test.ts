/** What our commands write is read by others: a chain by `openssl verify`, a SPIFFE bundle by every library. */
import { X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createRunningHouse, runToEnd, type Agent, type House } from '../e2e/house.ts';
import { startWorkload, type Language } from './setup.ts';

for (const [mode, signDirectly] of [
  ['with a CA of our own below the enterprise’s', false],
  ['signing with the enterprise’s pathlen:0 intermediate itself', true],
] as const) {
  describe(mode, () => {
    let house: House;
    let agent: Agent;
    beforeAll(async () => {
      ({ house, agent } = await createRunningHouse({ signDirectly }));
      await house.createEntry({ id: '/files', parent: agent });
    });
    afterAll(async () => {
      await house?.close();
    });

    test('openssl verifies the chain that `api fetch x509 -write` leaves, and refuses it under another root (X509-12)', async () => {
      const out = join(house.dir, 'written');
      mkdirSync(out);
      await house.ok('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath, '-write', out);
      const [chain, bundle, key] = ['svid.0.pem', 'bundle.0.pem', 'svid.0.key'].map((name) => join(out, name)) as [string, string, string];
      const verify = (...roots: string[]) =>
        runToEnd(['openssl', 'verify', '-x509_strict', '-purpose', 'sslserver', '-untrusted', chain, ...roots, chain]);

      expect(await verify('-CAfile', bundle)).toMatchObject({ code: 0 });
      expect(await verify('-CAfile', house.pki.root)).toMatchObject({ code: 0 });
      expect((await verify('-CAfile', house.pki.machineCa)).code).not.toBe(0);

      const leaf = new X509Certificate(readFileSync(chain));
      expect(leaf.subjectAltName).toBe('URI:spiffe://example.org/files');
      const pem = readFileSync(chain, 'utf8').match(/-----BEGIN CERTIFICATE-----/g);
      expect(pem).toHaveLength(signDirectly ? 2 : 3);
      const publicOfKey = await runToEnd(['openssl', 'pkey', '-in', key, '-pubout']);
      expect(publicOfKey.stdout).toBe(leaf.publicKey.export({ type: 'spki', format: 'pem' }));
    });

    for (const language of ['go', 'java', 'python'] satisfies Language[]) {
      test(`TDB-5: ${language} parses the bundle that \`bundle show -format spiffe\` prints: the enterprise's root, and our JWT keys`, async () => {
        const workload = await startWorkload(language);
        try {
          const document = await house.ok('server', 'bundle', 'show', '-format', 'spiffe');
          const answer = await workload.call('bundle.parse', { trustDomain: 'example.org', document });
          const root = new X509Certificate(readFileSync(house.pki.root)).raw.toString('base64');
          expect(answer.x509).toEqual([root]);
          await workload.holds(agent.address, 'spiffe://example.org/files');
          const { bundles } = await workload.call('jwt.bundles', { addr: agent.address });
          expect([...answer.jwt].sort()).toEqual([...(bundles['example.org'] ?? [])].sort());
          expect(answer.jwt.length).toBeGreaterThan(0);
          await expect(workload.call('bundle.parse', { trustDomain: 'example.org', document: document.slice(0, -10) })).rejects.toThrow();
        } finally {
          await workload.close();
        }
      });
    }
  });
}
