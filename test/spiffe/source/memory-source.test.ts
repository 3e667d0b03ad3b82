/** X509MemorySource: what the program sets is what there is. */
import { expect, test } from 'vitest';
import { BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { X509MemorySource } from '../../../spiffe/source/memory-source.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { FakeClock } from '../../fakes/clock.ts';
import { refusal } from './rig.ts';

const clock = new FakeClock();
const domain = EphemeralTrustDomain.create('example.org', { clock });
const bundles = new BundleSet([domain.bundle]);

test('it gives what it was made with, and what is set later; what is left out stays', () => {
  const [first, second] = [domain.x509Svid('/web'), domain.x509Svid('/admin')];
  const source = new X509MemorySource({ svid: first, bundles }, clock);
  let changes = 0;
  const off = source.onChange(() => changes++);
  expect(source.svid).toBe(first);
  expect(source.x509Bundle(domain.trustDomain)).toBe(domain.bundle.x509);
  source.set({ svid: second });
  expect([source.svid, source.x509Bundle(domain.trustDomain)]).toEqual([second, domain.bundle.x509]);
  source.set({ bundles: new BundleSet() });
  expect([source.svid, source.x509Bundle(domain.trustDomain)]).toEqual([second, undefined]);
  off();
  source.set({ bundles });
  expect(changes).toBe(2);
});

test('without anything it throws UNAVAILABLE, and half of it is nothing to keep', () => {
  const source = new X509MemorySource(undefined, clock);
  expect(refusal(() => source.svid)).toMatchObject({ code: 'UNAVAILABLE', message: 'no X.509-SVID was set yet' });
  expect(source.x509Bundle(domain.trustDomain)).toBeUndefined();
  expect(refusal(() => source.set({ bundles }))).toMatchObject({ code: 'UNAVAILABLE' });
  source.set({ svid: domain.x509Svid('/web'), bundles });
  expect(source.svid.id.path).toBe('/web');
});

test('an SVID that has expired is not given', () => {
  const source = new X509MemorySource({ svid: domain.x509Svid('/web', { ttlMs: -1000 }), bundles }, clock);
  expect(refusal(() => source.svid)).toMatchObject({ code: 'SVID_EXPIRED', reason: 'X509_EXPIRED' });
});

test('what is forgotten is DENIED until something is set', () => {
  const source = new X509MemorySource({ svid: domain.x509Svid('/web'), bundles }, clock);
  source.forget();
  expect(refusal(() => source.svid)).toMatchObject({ code: 'DENIED' });
  expect(source.x509Bundle(domain.trustDomain)).toBeUndefined();
  source.set({ svid: domain.x509Svid('/web'), bundles });
  expect(source.svid.id.path).toBe('/web');
});
