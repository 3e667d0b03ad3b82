/** What the tests of drivers share: certificates that hold by the system's clock (OpenSSL asks no other), and their verdicts. */
import { onTestFinished, vi } from 'vitest';
import { Bundle, BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { systemClock } from '../../../spiffe/clock.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { matchId, requireMatch } from '../../../spiffe/match.ts';
import { X509MemorySource } from '../../../spiffe/source/memory-source.ts';
import { X509Bundle } from '../../../spiffe/x509/x509-bundle.ts';
import { verifyX509Svid, X509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { NOW_MS, type TestCertificate, type TestCertificateOptions, testCertificate, testRoot } from '../../fakes/ca.ts';
import { ATTACKS, PEER, type Roots } from '../tls/attacks.ts';
import type { Shown } from './trap.ts';
import type { Client } from './ways.ts';

// real sockets, and drivers that wait before they try again: longer than it ever takes, on a busy machine too
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const HOUR_MS = 3_600_000;

export const settings = { authorize: matchId(PEER) };

/** From the time of the table of attacks to that of the machine. */
export function today(options: TestCertificateOptions): TestCertificateOptions {
  const shift = systemClock.now() - NOW_MS;
  const { notBeforeMs = NOW_MS - HOUR_MS, notAfterMs = NOW_MS + HOUR_MS } = options;
  return { ...options, notBeforeMs: notBeforeMs + shift, notAfterMs: notAfterMs + shift };
}

export const pemOf = (one: TestCertificate): Shown => ({ cert: one.pem, key: one.key.export({ type: 'pkcs8', format: 'pem' }) as string });

function bundleOf(name: string, ...roots: readonly TestCertificate[]): Bundle {
  const trustDomain = TrustDomain.parse(name);
  return new Bundle(trustDomain, { x509Authorities: X509Bundle.fromPem(trustDomain, roots.map((one) => one.pem).join('')).authorities });
}

/** A client with an SVID, the bundles of two trust domains, and what servers show it. */
export async function material() {
  const roots: Roots = {
    ours: await testRoot(today({})),
    federated: await testRoot(today({ uris: ['spiffe://far.org'] })),
    nobodys: await testRoot(today({})),
  };
  // whoever attacks has the name that is dialled, if it helps
  const leaf = (options: TestCertificateOptions) => testCertificate(today({ dns: ['localhost'], ...options }));
  const certificates = new Map<string, TestCertificate>([['good', await leaf({ issuer: roots.ours, uris: [PEER] })]]);
  for (const { what, leaf: options } of ATTACKS) {
    const wanted = options(roots);
    if (wanted) certificates.set(what, await leaf(wanted));
  }
  const me = await leaf({ issuer: roots.ours, uris: ['spiffe://example.org/me'] });
  const ours = bundleOf('example.org', roots.ours);
  const all = new BundleSet([ours, bundleOf('far.org', roots.federated)]);
  const certificate = (what: string): TestCertificate => {
    const found = certificates.get(what);
    if (!found) throw new Error(`nobody shows ${what}`);
    return found;
  };
  return {
    roots,
    leaf,
    source: new X509MemorySource({ svid: svidOf(me), bundles: all }),
    bundles: all,
    shown: (what: string) => pemOf(certificate(what)),
    /** What we say of it, with the bundles of all trust domains or of our own alone. */
    verdicts(what: string, bundles: 'all' | 'one'): Error {
      try {
        const { id } = verifyX509Svid([certificate(what).der], bundles === 'all' ? all : new BundleSet([ours]), {
          nowMs: systemClock.now(),
        });
        requireMatch(settings.authorize, id);
      } catch (error) {
        if (error instanceof Error) return error;
      }
      throw new Error(`${what} is not refused`);
    },
  };
}

export const svidOf = (one: TestCertificate): X509Svid => X509Svid.fromPem(one.pem, pemOf(one).key);
export { bundleOf };

/** Every message of an error and of what caused it. */
export function failure(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'no error',
    (error: unknown) => {
      const found: string[] = [];
      for (let one = error; one instanceof Error; one = one.cause) found.push(one.message);
      return found.join(' | ');
    },
  );
}

export const words = (octets: readonly Buffer[]): string => Buffer.concat(octets).toString('latin1');

/** Closes it with the test; meanwhile the server drops whoever comes, since a farewell that nobody answers takes long. */
export function closing(client: Client, drop: () => void = () => {}): Client {
  onTestFinished(async () => {
    drop();
    const dropping = setInterval(drop, 20);
    await client.close();
    clearInterval(dropping);
  });
  return client;
}
