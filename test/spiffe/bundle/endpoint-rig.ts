/** What the tests of bundle endpoints share: authorities, certificates of web sites, SVIDs, bundles. Valid now, since OpenSSL judges web sites by the machine's clock. */
import { Bundle, BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import type { FakeWebCertificate } from '../../../spiffe/testing/bundle-endpoint.ts';
import { Certificate } from '../../../spiffe/x509/certificate.ts';
import { X509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { type TestCertificate, testCertificate, type TestCertificateOptions, testRoot } from '../../fakes/ca.ts';

const HOUR_MS = 3_600_000;
export const NOW = Date.now();
const soon = { notBeforeMs: NOW - HOUR_MS, notAfterMs: NOW + 24 * HOUR_MS };

export const ours = TrustDomain.parse('example.org');
export const theirs = TrustDomain.parse('partner.example');
export const ENDPOINT_ID = 'spiffe://partner.example/bundle-endpoint';

export function root(trustDomain: TrustDomain): Promise<TestCertificate> {
  return testRoot({ uris: [String(trustDomain.id)], ...soon });
}

export function webRoot(): Promise<TestCertificate> {
  return testRoot({ uris: [], ...soon });
}

export async function site(issuer: TestCertificate | undefined, options: TestCertificateOptions = {}): Promise<FakeWebCertificate> {
  const made = await testCertificate({ ...(issuer && { issuer }), subject: 'CN=site', dns: ['localhost'], uris: [], ...soon, ...options });
  return { cert: made.pem, key: made.key.export({ type: 'pkcs8', format: 'pem' }) as string };
}

export async function svid(issuer: TestCertificate, id = ENDPOINT_ID, options: TestCertificateOptions = {}): Promise<X509Svid> {
  const made = await testCertificate({ issuer, uris: [id], ...soon, ...options });
  return X509Svid.fromPem(made.pem, made.key.export({ type: 'pkcs8', format: 'pem' }));
}

export function bundleOf(
  trustDomain: TrustDomain,
  roots: readonly TestCertificate[],
  sequence?: number | bigint,
  refreshHintSeconds?: number,
): Bundle {
  const x509Authorities = roots.map(({ der }) => Certificate.parse(der));
  return new Bundle(trustDomain, { x509Authorities, sequence, refreshHintSeconds });
}

export const setOf = (...bundles: readonly Bundle[]) => new BundleSet(bundles);

/** The code and reason with which it was refused, or what came of it. */
export async function outcome(promise: Promise<unknown>): Promise<string> {
  try {
    const value = await promise;
    return value instanceof Bundle ? `bundle of ${value.trustDomain}` : String(value);
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    return `${error.code} ${error.reason}`;
  }
}
