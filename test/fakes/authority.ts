/** An authority that signs, over a CA made by another hand; for tests of those who have things signed. */
import { localSigningKey } from '../../core/local-key.ts';
import { Authority, type AuthoritySettings, type X509Authority } from '../../server/authority.ts';
import { Certificate } from '../../spiffe/x509/certificate.ts';
import type { Clock } from '../../spiffe/clock.ts';
import { TrustDomain } from '../../spiffe/id.ts';
import { type TestCertificate, testRoot } from './ca.ts';

export interface TestAuthority {
  readonly authority: Authority;
  readonly root: TestCertificate;
  readonly x509: X509Authority;
}

const DAY_MS = 86_400_000;

/** A self-signed CA valid for a day around the clock's time; JWTs are signed by another key. */
export async function testAuthority(clock: Clock, over: Partial<AuthoritySettings> = {}): Promise<TestAuthority> {
  const trustDomain = over.trustDomain ?? TrustDomain.parse('example.org');
  const [root, jwtRoot] = await Promise.all([
    testRoot({ notBeforeMs: clock.now() - DAY_MS, notAfterMs: clock.now() + DAY_MS, uris: [`spiffe://${trustDomain}`] }),
    testRoot(),
  ]);
  const certificate = Certificate.parse(root.der);
  // as the certificate says it: whole seconds
  const lifetime = { issuedAtMs: clock.now(), notAfterMs: certificate.notAfterMs };
  const x509: X509Authority = {
    id: root.keyIdentifier,
    key: localSigningKey('x509-CA-A', 'ec-p256', root.key),
    chain: [],
    certificate,
    rootsSha256: [certificate.sha256],
    ...lifetime,
  };
  const authority = new Authority(
    {
      trustDomain,
      defaultX509SvidTtlMs: 3_600_000,
      defaultJwtSvidTtlMs: 300_000,
      agentTtlMs: undefined,
      jwtIssuer: undefined,
      disableJwtSvids: false,
      ...over,
    },
    { x509, jwt: { id: 'jwt-key', key: localSigningKey('JWT-Signer-A', 'ec-p256', jwtRoot.key), ...lifetime } },
    clock,
  );
  return { authority, root, x509 };
}
