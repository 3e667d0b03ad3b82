/** The ephemeral trust domain: what it makes is good to us and to OpenSSL, and what it breaks is refused for that reason. */
import { describe, expect, test } from 'vitest';
import { Bundle, BundleSet } from '../../../spiffe/bundle/bundle.ts';
import type { SpiffeError } from '../../../spiffe/errors.ts';
import { validateJwtSvidSync } from '../../../spiffe/jwt/jwt-svid.ts';
import { EphemeralTrustDomain, type JwtSvidOptions, type RawSvidOptions } from '../../../spiffe/testing/trust-domain.ts';
import { checkAuthority, leafId } from '../../../spiffe/x509/profile.ts';
import { X509Svid, verifyX509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { FakeClock } from '../../fakes/clock.ts';
import { opensslVerdict } from '../../fakes/openssl.ts';

const clock = new FakeClock();
const nowMs = clock.now();
const domain = EphemeralTrustDomain.create('example.org', { clock });
const deep = EphemeralTrustDomain.create('deep.org', { clock, intermediate: true });
const far = EphemeralTrustDomain.create('far.org', { clock });
const bundles = new BundleSet([domain.bundle, deep.bundle, far.bundle]);

const roots = (of: EphemeralTrustDomain) => of.bundle.x509.authorities.map((one) => one.raw);
const verify = (chain: readonly Uint8Array[], trusted = bundles) => verifyX509Svid(chain, trusted, { nowMs });
const refusal = (act: () => unknown): SpiffeError => {
  try {
    act();
  } catch (error) {
    return error as SpiffeError;
  }
  throw new Error('was not refused');
};

describe('an X.509-SVID', () => {
  for (const [what, of] of [
    ['of an authority', domain],
    ['of an intermediate', deep],
  ] as const) {
    test(`${what} is good to us and to openssl`, () => {
      const svid = of.x509Svid('/web', { dnsNames: ['web.example.org'], hint: 'internal' });
      const chain = svid.chain.map((one) => one.raw);
      expect(verify(chain).id.toString()).toBe(`spiffe://${of.trustDomain}/web`);
      expect(opensslVerdict(chain, roots(of), nowMs)).toBe('OK');
      expect(leafId(svid.leaf, 'issued')).toEqual(svid.id);
      for (const ca of [...svid.chain.slice(1), ...of.bundle.x509.authorities]) checkAuthority(ca, 'issued', of.trustDomain);
      expect([svid.hint, svid.leaf.dnsNames, svid.notAfterMs]).toEqual(['internal', ['web.example.org'], nowMs + 3_600_000]);
    });
  }

  test('has the lifetime that was asked for', () => {
    const svid = domain.x509Svid('/web', { notBeforeMs: nowMs - 5000, ttlMs: 20_000 });
    expect([svid.notBeforeMs, svid.notAfterMs]).toEqual([nowMs - 5000, nowMs + 20_000]);
    expect(domain.x509Svid('/web', { notAfterMs: nowMs + 7000 }).notAfterMs).toBe(nowMs + 7000);
  });

  test('may keep its key', () => {
    const { privateKey } = domain.x509Svid('/web');
    expect(domain.x509Svid('/web', { key: privateKey }).privateKey.equals(privateKey)).toBe(true);
  });

  test('of a malformed path, or with an empty one, is not made', () => {
    expect(refusal(() => domain.x509Svid('/a//b'))).toMatchObject({ code: 'ID_INVALID' });
    expect(refusal(() => domain.x509Svid(''))).toMatchObject({ code: 'SVID_INVALID', reason: 'X509_LEAF_PATH_MISSING' });
  });
});

describe('a raw SVID', () => {
  test('with nothing broken is an SVID', () => {
    const { chainDer, certificatesPem, keyPem } = deep.rawSvid('/web');
    expect(verify(chainDer).id.path).toBe('/web');
    expect(X509Svid.fromPem(certificatesPem, keyPem).id.path).toBe('/web');
  });

  const broken: readonly [what: string, options: RawSvidOptions, reason: string, of?: EphemeralTrustDomain][] = [
    ['the CA flag', { ca: true }, 'X509_LEAF_CA'],
    ['no URI', { uris: [] }, 'X509_URI_SAN_MISSING'],
    ['no URI but a DNS name', { uris: [], dnsNames: ['web.example.org'] }, 'X509_URI_SAN_MISSING'],
    ['two URIs', { uris: ['spiffe://example.org/web', 'spiffe://example.org/db'] }, 'X509_URI_SAN_MANY'],
    ['a URI that is no SPIFFE ID', { uris: ['https://example.org/web'] }, 'ID_SCHEME'],
    ['a SPIFFE ID without a path', { uris: ['spiffe://example.org'] }, 'X509_LEAF_PATH_MISSING'],
    ["another trust domain's ID", { uris: ['spiffe://far.org/web'] }, 'X509_ISSUER_UNKNOWN'],
    ['no key usage', { keyUsage: null }, 'X509_KEY_USAGE_MISSING'],
    ['keyCertSign', { keyUsage: ['digitalSignature', 'keyCertSign'] }, 'X509_LEAF_CERT_SIGN'],
    ['cRLSign', { keyUsage: ['digitalSignature', 'cRLSign'] }, 'X509_LEAF_CRL_SIGN'],
    ['no digitalSignature', { keyUsage: ['keyEncipherment'] }, 'X509_LEAF_DIGITAL_SIGNATURE_MISSING'],
    ['serverAuth alone', { extKeyUsage: ['1.3.6.1.5.5.7.3.1'] }, 'X509_LEAF_EKU'],
    ['an end that is past', { ttlMs: -1000 }, 'X509_EXPIRED'],
    ['a beginning to come', { notBeforeMs: nowMs + 1000 }, 'X509_NOT_YET_VALID'],
    ['an unknown critical extension', { unknownCritical: true }, 'X509_UNKNOWN_CRITICAL'],
    ["a stranger's signature", { forged: true }, 'X509_SIGNATURE'],
    ['its intermediate withheld', { leafOnly: true }, 'X509_ISSUER_UNKNOWN', deep],
  ];
  for (const [what, options, reason, of = domain] of broken) {
    test(`with ${what} is refused as ${reason}`, () => {
      expect(refusal(() => verify(of.rawSvid('/web', options).chainDer)).reason).toBe(reason);
    });
  }

  test('may lack the extended key usage, and be accepted', () => {
    expect(verify(domain.rawSvid('/web', { extKeyUsage: null }).chainDer).id.path).toBe('/web');
  });
});

describe('a JWT-SVID', () => {
  const validate = (token: string, audience = 'db') => validateJwtSvidSync(token, { audience, bundles, clock });

  test('is valid to us, for its audiences', () => {
    const svid = validate(domain.jwtSvid('/web', { audience: ['db', 'cache'], claims: { team: 'blue' } }), 'cache');
    expect([String(svid.id), svid.audience, svid.expiresMs, svid.claims['team']]).toEqual([
      'spiffe://example.org/web',
      ['db', 'cache'],
      nowMs + 300_000,
      'blue',
    ]);
  });

  const broken: readonly [what: string, options: Partial<JwtSvidOptions>, reason: string][] = [
    ['expired', { ttlMs: -600_000 }, 'JWT_EXPIRED'],
    ['not yet valid', { notBeforeMs: nowMs + 600_000, ttlMs: 900_000 }, 'JWT_NOT_YET_VALID'],
    ['without exp', { claims: { exp: undefined } }, 'JWT_EXP_MISSING'],
    ['without sub', { claims: { sub: undefined } }, 'JWT_SUB'],
    ['without kid', { header: { kid: undefined } }, 'JWT_KID_MISSING'],
    ['with alg none', { header: { alg: 'none' } }, 'JWT_ALG'],
    ['for another', { audience: 'cache' }, 'JWT_AUD_UNEXPECTED'],
    ["of another trust domain's subject", { claims: { sub: 'spiffe://far.org/web' } }, 'JWT_AUTHORITY_UNKNOWN'],
    ["with a stranger's signature", { forged: true }, 'JWT_SIGNATURE'],
  ];
  for (const [what, options, reason] of broken) {
    test(`${what} is refused as ${reason}`, () => {
      expect(refusal(() => validate(domain.jwtSvid('/web', { audience: 'db', ...options }))).reason).toBe(reason);
    });
  }
});

describe('rotation', () => {
  test('adds authorities; what the old and the new signed is good until the old ones retire', () => {
    const of = EphemeralTrustDomain.create('example.org', { clock });
    const trusted = () => new BundleSet([of.bundle]);
    const check = (chain: readonly Buffer[], token: string) => {
      verify(chain, trusted());
      validateJwtSvidSync(token, { audience: 'db', bundles: trusted(), clock });
    };
    const made = () => [of.rawSvid('/web').chainDer, of.jwtSvid('/web', { audience: 'db' })] as const;
    const [before, old] = [of.bundle, made()];
    of.rotate();
    const young = made();
    check(...old);
    check(...young);
    expect(refusal(() => verify(young[0], new BundleSet([before])))).toMatchObject({ reason: 'X509_ISSUER_UNKNOWN' });
    of.retire();
    check(...young);
    expect(refusal(() => verify(old[0], trusted()))).toMatchObject({ reason: 'X509_ISSUER_UNKNOWN' });
    expect(refusal(() => validateJwtSvidSync(old[1], { audience: 'db', bundles: trusted(), clock }))).toMatchObject({
      reason: 'JWT_AUTHORITY_UNKNOWN',
    });
    expect([before.sequence, of.bundle.sequence]).toEqual([1n, 3n]);
  });

  test('the bundle is a SPIFFE bundle document, and two trust domains of one name share nothing', () => {
    expect(Bundle.fromJson(domain.trustDomain, domain.bundle.toJson()).equals(domain.bundle)).toBe(true);
    const other = EphemeralTrustDomain.create('example.org', { clock });
    expect(refusal(() => verify(other.rawSvid('/web').chainDer))).toMatchObject({ reason: 'X509_ISSUER_UNKNOWN' });
  });
});
