/** Story 1: an operator roots a server in the company's PKI, a node joins, a process gets what an entry gives it, and nothing else. */
import { execFileSync } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Agent, createRunningHouse, type House } from './house.ts';

for (const signDirectly of [false, true]) {
  describe(signDirectly ? 'signing directly with a pathlen:0 intermediate' : 'with a CA below the intermediate', () => {
    let house: House;
    let agent: Agent;

    beforeAll(async () => {
      ({ house, agent } = await createRunningHouse({ signDirectly }));
    });
    afterAll(() => house.close());

    const fetch = (...more: string[]) => house.run('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath, ...more);

    test('WAPI-32: a process that no entry names is refused at once', async () => {
      const refused = await fetch();
      expect(refused.code).toBe(1);
      expect(refused.stderr + refused.stdout).toContain('no identity issued');
    });

    test('X509-1: once an entry names it, it gets an SVID that openssl verifies from leaf to the enterprise root', async () => {
      await house.createEntry({ id: '/web', parent: agent });
      const folder = join(house.dir, 'svid');
      mkdirSync(folder, { recursive: true });
      const got = await fetch('-write', folder);
      expect(got.code, got.stderr).toBe(0);
      expect(got.stdout).toContain(`spiffe://${house.trustDomain}/web`);
      const chain =
        readFileSync(join(folder, 'svid.0.pem'), 'utf8').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?/g) ?? [];
      // leaf and the intermediate; the CA below is one more; the root is never sent
      expect(chain.length).toBe(signDirectly ? 2 : 3);
      const leaf = new X509Certificate(chain[0] ?? '');
      expect(leaf.subjectAltName).toBe(`URI:spiffe://${house.trustDomain}/web`);
      expect(leaf.checkPrivateKey(createPrivateKey(readFileSync(join(folder, 'svid.0.key'))))).toBe(true);
      expect(statSync(join(folder, 'svid.0.key')).mode & 0o077).toBe(0);
      execFileSync('openssl', [
        'verify',
        '-x509_strict',
        '-purpose',
        'sslserver',
        '-CAfile',
        house.pki.root,
        '-untrusted',
        join(folder, 'svid.0.pem'),
        join(folder, 'svid.0.pem'),
      ]);
      const bundle = readFileSync(join(folder, 'bundle.0.pem'), 'utf8');
      expect(new X509Certificate(bundle).fingerprint256).toBe(new X509Certificate(readFileSync(house.pki.root)).fingerprint256);
    });

    test('a JWT-SVID is minted for one audience, validates for it, and for no other', async () => {
      const fetched = await house.ok('agent', 'api', 'fetch', 'jwt', '-audience', 'db', '-output', 'json', '-socketPath', agent.socketPath);
      const token = (JSON.parse(fetched) as [{ svids: [{ svid: string }] }])[0].svids[0].svid;
      const validate = (audience: string) =>
        house.run('agent', 'api', 'validate', 'jwt', '-audience', audience, '-svid', token, '-socketPath', agent.socketPath);
      const good = await validate('db');
      expect(good.code, good.stderr).toBe(0);
      expect(good.stdout).toContain(`spiffe://${house.trustDomain}/web`);
      expect((await validate('other')).code).toBe(1);
    });

    test('X.509-SVIDs and JWT-SVIDs can be minted on the admin socket', async () => {
      const minted = await house.ok('server', 'x509', 'mint', '-spiffeID', `spiffe://${house.trustDomain}/minted`);
      expect(minted).toContain('-----BEGIN CERTIFICATE-----');
      const token = await house.ok('server', 'jwt', 'mint', '-spiffeID', `spiffe://${house.trustDomain}/minted`, '-audience', 'db');
      expect(token.trim().split('.')).toHaveLength(3);
    });

    test('health answers for both programs', async () => {
      expect((await house.run('server', 'healthcheck')).code).toBe(0);
      expect((await house.run('agent', 'healthcheck', '-socketPath', agent.socketPath)).code).toBe(0);
    });
  });
}
