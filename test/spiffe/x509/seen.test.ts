/** A peer that comes back is not read again; whether it may be used is judged anew each time, by the bundle and the clock of then. */
import { describe, expect, test, vi } from 'vitest';
import { BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { Certificate } from '../../../spiffe/x509/certificate.ts';
import { seenCertificate, signatureKnown } from '../../../spiffe/x509/seen.ts';
import { verifyX509Svid } from '../../../spiffe/x509/x509-svid.ts';

const HOUR_MS = 3_600_000;
const NOW_MS = Date.now();

function reasonOf(run: () => unknown): string | undefined {
  try {
    run();
    return undefined;
  } catch (error) {
    if (error instanceof SpiffeError) return error.reason;
    throw error;
  }
}

const isKept = (der: Uint8Array) => seenCertificate(der) === seenCertificate(der);

describe.each([{ intermediate: false }, { intermediate: true }])('a peer, $intermediate', ({ intermediate }) => {
  const domain = EphemeralTrustDomain.create('example.org', { intermediate });
  const verify = (chain: readonly Uint8Array[], nowMs = NOW_MS, bundles = new BundleSet([domain.bundle])) =>
    verifyX509Svid(chain, bundles, { nowMs });

  test('is kept when it was verified, with its intermediates: the same values are given', () => {
    const { chainDer } = domain.rawSvid('/web');
    expect(isKept(chainDer[0] as Buffer)).toBe(false);
    const first = verify(chainDer);
    expect(chainDer.map(isKept)).toEqual(chainDer.map(() => true));
    // another buffer with the same bytes
    const again = verify(chainDer.map((one) => Buffer.from(one)));
    expect(again.chain).toHaveLength(first.chain.length);
    again.chain.forEach((one, index) => expect(one).toBe(first.chain[index]));
  });

  test.each([
    ['forged', { forged: true }, 'X509_SIGNATURE'],
    ['expired', { ttlMs: -HOUR_MS }, 'X509_EXPIRED'],
    ['with two IDs', { uris: ['spiffe://example.org/a', 'spiffe://example.org/b'] }, 'X509_URI_SAN_MANY'],
    ['of a CA', { ca: true }, 'X509_LEAF_CA'],
  ] as const)('%s is refused each time, and never kept', (_, broken, reason) => {
    const { chainDer } = domain.rawSvid('/web', broken);
    for (let i = 0; i < 3; i++) expect(reasonOf(() => verify(chainDer))).toBe(reason);
    expect(isKept(chainDer[0] as Buffer)).toBe(false);
  });

  test('is refused when its time has come, though it was good before', () => {
    const { chainDer } = domain.rawSvid('/web', { notBeforeMs: NOW_MS - HOUR_MS, notAfterMs: NOW_MS + HOUR_MS });
    expect(reasonOf(() => verify(chainDer))).toBeUndefined();
    expect(reasonOf(() => verify(chainDer, NOW_MS + 2 * HOUR_MS))).toBe('X509_EXPIRED');
    expect(reasonOf(() => verify(chainDer, NOW_MS - 2 * HOUR_MS))).toBe('X509_NOT_YET_VALID');
    expect(reasonOf(() => verify(chainDer))).toBeUndefined();
  });

  test('is refused when its authority is not in the bundle any more', () => {
    const { chainDer } = domain.rawSvid('/web');
    const before = new BundleSet([domain.bundle]);
    expect(reasonOf(() => verify(chainDer, NOW_MS, before))).toBeUndefined();
    domain.rotate();
    expect(reasonOf(() => verify(chainDer))).toBeUndefined();
    domain.retire();
    expect(reasonOf(() => verify(chainDer))).toMatch(/^X509_(NO_PATH|ISSUER|SIGNATURE)/);
    expect(reasonOf(() => verify(chainDer, NOW_MS, before))).toBeUndefined();
  });

  test('that differs in one bit of its signature is another one', () => {
    const { chainDer } = domain.rawSvid('/web');
    expect(reasonOf(() => verify(chainDer))).toBeUndefined();
    const [leaf, ...rest] = chainDer as [Buffer, ...Buffer[]];
    const bent = Buffer.from(leaf);
    bent[bent.length - 1] = (bent.at(-1) as number) ^ 1;
    expect(reasonOf(() => verify([bent, ...rest]))).toBe('X509_SIGNATURE');
  });
});

test('those that were not asked for the longest go first, and memory is bounded', () => {
  const domain = EphemeralTrustDomain.create('example.org');
  const bundles = new BundleSet([domain.bundle]);
  const key = domain.x509Svid('/key').privateKey;
  const leaf = (n: number) => domain.rawSvid(`/${n}`, { key }).chainDer[0] as Buffer;
  const all = Array.from({ length: 300 }, (_, n) => leaf(n));
  const [first] = all as [Buffer];
  for (const one of all) {
    verifyX509Svid([one], bundles, { nowMs: NOW_MS });
    verifyX509Svid([first], bundles, { nowMs: NOW_MS });
  }
  expect(all.filter(isKept)).toHaveLength(256);
  expect(isKept(first)).toBe(true);
  expect(isKept(all[1] as Buffer)).toBe(false);
});

test('a signature that was good is checked once for each issuer; one that was not, each time', () => {
  const domain = EphemeralTrustDomain.create('example.org');
  const [one, two, three] = ['/1', '/2', '/3'].map((path) => Certificate.parse(domain.rawSvid(path).chainDer[0] as Buffer)) as [
    Certificate,
    Certificate,
    Certificate,
  ];
  const yes = vi.fn(() => true);
  const no = vi.fn(() => false);
  expect([signatureKnown(one, two, yes), signatureKnown(one, two, yes)]).toEqual([true, true]);
  expect(yes).toHaveBeenCalledTimes(1);
  // of the same child, another issuer; and the other way round
  expect([signatureKnown(one, three, no), signatureKnown(one, three, no), signatureKnown(two, one, no)]).toEqual([false, false, false]);
  expect(no).toHaveBeenCalledTimes(3);
  // yes to one did not become yes to another
  expect(signatureKnown(one, two, no)).toBe(true);
  expect(no).toHaveBeenCalledTimes(3);
});
