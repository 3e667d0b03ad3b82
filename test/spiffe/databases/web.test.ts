/** Servers without an SVID: a certificate of a company's own for the host that is dialled, by `webTlsOptions` and the mode `mtls-web`. */
import { beforeAll, describe, expect, test } from 'vitest';
import { pgOptions } from '../../../spiffe/databases/postgres.ts';
import { webTlsOptions } from '../../../spiffe/databases/tls-options.ts';
import { X509MemorySource } from '../../../spiffe/source/memory-source.ts';
import { type TestCertificate, type TestCertificateOptions, testCertificate, testRoot, x509 } from '../../fakes/ca.ts';
import { ATTACKS } from '../tls/attacks.ts';
import { closing, failure, material, pemOf, today, words } from './rig.ts';
import { PREFACES, trap } from './trap.ts';
import { pg, USER } from './ways.ts';

const { source } = await material();
const POLL = { timeout: 10_000 };
let root: TestCertificate;
let stranger: TestCertificate;

beforeAll(async () => {
  root = await testRoot(today({ uris: [] }));
  stranger = await testRoot(today({ uris: [] }));
});

const WITH = {
  'pgOptions in the mode mtls-web': (from: X509MemorySource) => pgOptions(from, { mode: 'mtls-web', roots: root.pem }),
  webTlsOptions: (from: X509MemorySource) => ({ ssl: webTlsOptions(from, { roots: [root.pem] }) }),
} as const;

const expired = ATTACKS.find(({ what }) => what === 'expired')?.leaf;
const REFUSED: readonly (readonly [what: string, shown: () => Partial<TestCertificateOptions>, words: RegExp])[] = [
  ['another name', () => ({ dns: ['db.example.org'] }), /Host: localhost\. is not in the cert's altnames/],
  ['an authority of nobody', () => ({ issuer: stranger }), /unable to verify the first certificate/],
  ['an expired one', () => ({ ...expired?.({ ours: root, federated: root, nobodys: root }), uris: [] }), /certificate has expired/],
  ['one for clients alone', () => ({ purposes: [x509.ExtendedKeyUsage.clientAuth] }), /unsuitable certificate purpose/],
];

describe.each(Object.entries(WITH))('%s', (_, options) => {
  const open = async (shown: Partial<TestCertificateOptions>, from = source) => {
    const leaf = await testCertificate(today({ issuer: root, uris: [], dns: ['localhost'], ...shown }));
    const server = await trap(pemOf(leaf), PREFACES.postgres);
    return { server, client: closing(pg(options(from), server.port), () => server.drop()) };
  };

  test('talks to the host that is dialled, and shows it our SVID', async () => {
    const { server, client } = await open({});
    void failure(client.ask());
    await expect.poll(() => words(server.received), POLL).toContain(USER);
    expect(server.handshakes).toEqual([{ sha256: source.svid.leaf.sha256, resumed: false }]);
  });

  test.each(REFUSED)('refuses %s, and says nothing to it', async (_what, shown, expected) => {
    const { server, client } = await open(shown());
    expect(await failure(client.ask())).toMatch(expected);
    await client.close();
    await expect.poll(() => server.open, POLL).toBe(0);
    expect(words(server.received)).toBe('');
  });

  test('fails while there is no SVID, and says nothing', async () => {
    const { server, client } = await open({}, new X509MemorySource());
    expect(await failure(client.ask())).toContain('no X.509-SVID was set yet');
    expect(words(server.received)).toBe('');
  });
});
