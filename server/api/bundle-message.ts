/** A bundle as `spire.api.types.Bundle`, and back. */
import { spkiOfJwk } from '../../spiffe/x509/spki.ts';
import { fail } from '../../core/errors.ts';
import type { BundleMask, Bundle as BundleMessage, JWTKey, X509Certificate } from '../../proto/gen/spire/api/types/bundle.ts';
import { Bundle, jwtAuthority } from '../../spiffe/bundle/bundle.ts';
import { Certificate } from '../../spiffe/x509/certificate.ts';
import { SpiffeError } from '../../spiffe/errors.ts';
import { TrustDomain } from '../../spiffe/id.ts';
import type { StoredJwtAuthority, StoredX509Authority } from '../bundles.ts';
import type { StoredBundle } from '../store/store.ts';

/** @param mask undefined: everything. The trust domain always. */
export function bundleToMessage(stored: StoredBundle, mask?: BundleMask): BundleMessage {
  const wants = (field: keyof BundleMask) => mask === undefined || mask[field];
  return {
    trustDomain: stored.trustDomain,
    x509Authorities: wants('x509Authorities') ? stored.x509Authorities.map(({ der, tainted }) => ({ asn1: der, tainted })) : [],
    jwtAuthorities: wants('jwtAuthorities') ? jwtKeysToMessage(stored.jwtAuthorities) : [],
    refreshHint: wants('refreshHint') ? stored.refreshHintSeconds : 0,
    sequenceNumber: wants('sequenceNumber') ? stored.sequence : 0,
    witAuthorities: [],
  };
}

export function jwtKeysToMessage(authorities: readonly StoredJwtAuthority[]): JWTKey[] {
  return authorities.map(({ keyId, spkiDer, notAfterMs, tainted }) => ({
    publicKey: spkiDer,
    keyId,
    expiresAt: Math.floor(notAfterMs / 1000),
    tainted,
  }));
}

/** Throws REQUEST_INVALID, ID_INVALID or BUNDLE_INVALID. What a caller says of taint is not taken, as in SPIRE: only our own authorities are tainted, by name. */
export function parseBundleMessage(message: BundleMessage): StoredBundle {
  const trustDomain = TrustDomain.parseNameOrId(message.trustDomain);
  const { refreshHint, sequenceNumber } = message;
  if (refreshHint < 0) throw fail('REQUEST_INVALID', `refresh hint ${refreshHint} is negative`);
  const stored: StoredBundle = {
    trustDomain: trustDomain.name,
    x509Authorities: within('unable to parse X.509 authority', () => parseX509Authorities(message.x509Authorities)),
    jwtAuthorities: within('unable to parse JWT authority', () => parseJwtAuthorities(message.jwtAuthorities)),
    refreshHintSeconds: refreshHint,
    sequence: sequenceNumber,
  };
  // two keys under one id, or an authority that nobody could verify with, are found here and not by the agents
  void new Bundle(trustDomain, {
    jwtAuthorities: stored.jwtAuthorities.map(({ keyId, spkiDer }) => jwtAuthority(keyId, spkiDer)),
    sequence: sequenceNumber,
    refreshHintSeconds: refreshHint,
  });
  return stored;
}

/** Each once. Throws SVID_INVALID. */
export function parseX509Authorities(authorities: readonly X509Certificate[]): readonly StoredX509Authority[] {
  const byHash = new Map<string, StoredX509Authority>();
  for (const { asn1 } of authorities) {
    const certificate = Certificate.parse(asn1);
    byHash.set(certificate.sha256, { der: certificate.raw, tainted: false });
  }
  return [...byHash.values()];
}

/** Throws BUNDLE_INVALID or REQUEST_INVALID. */
export function parseJwtAuthorities(keys: readonly JWTKey[]): readonly StoredJwtAuthority[] {
  return keys.map(({ publicKey, keyId, expiresAt }) => {
    if (keyId === '') throw fail('REQUEST_INVALID', 'missing key ID');
    const { jwk } = jwtAuthority(keyId, publicKey);
    if (expiresAt < 0) throw fail('REQUEST_INVALID', `expires_at ${expiresAt} is negative`);
    return { keyId, spkiDer: spkiOfJwk(jwk), notAfterMs: expiresAt * 1000, tainted: false };
  });
}

function within<T>(what: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof SpiffeError) throw fail('REQUEST_INVALID', `${what}: ${error.message}`, { cause: error });
    throw error;
  }
}
