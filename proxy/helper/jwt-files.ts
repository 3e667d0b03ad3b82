/** JWT-SVIDs and the keys that judge them, as files; and when a token must be renewed. */
import { fail } from '../../core/errors.ts';
import type { BundleSet } from '../../spiffe/bundle/bundle.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import type { JwtSvid } from '../../spiffe/jwt/jwt-svid.ts';
import type { FileContent } from './files.ts';
import type { BundleOutput, JwtOutput } from './settings.ts';

/** The token and nothing else: no line feed, as spiffe-helper. */
export function jwtFile(output: JwtOutput, svid: JwtSvid): FileContent {
  return { name: output.fileName, data: Buffer.from(svid.token), mode: output.mode.bits, secret: true };
}

/** Throws BUNDLE_MISSING rather than giving an empty file. @param own for outputs that name no trust domain */
export function bundleFile(output: BundleOutput, bundles: BundleSet, own: TrustDomain | undefined): FileContent {
  return { name: output.fileName, data: Buffer.from(contentOf(output, bundles, own)), mode: output.mode.bits, secret: false };
}

function contentOf(output: BundleOutput, bundles: BundleSet, own: TrustDomain | undefined): string {
  if (output.format === 'jwt_bundles') {
    const all = [...bundles].filter((bundle) => !bundle.jwt.isEmpty);
    if (all.length === 0) throw fail('BUNDLE_MISSING', 'no trust domain has JWT authorities');
    return JSON.stringify(
      Object.fromEntries(all.map(({ trustDomain, jwt }) => [trustDomain.name, Buffer.from(jwt.toJwks()).toString('base64')])),
    );
  }
  const trustDomain = output.trustDomain ?? own;
  const bundle = trustDomain && bundles.get(trustDomain);
  if (!bundle || (output.format === 'jwks' ? bundle.jwt.isEmpty : bundle.isEmpty))
    throw fail('BUNDLE_MISSING', `no authorities of the trust domain ${String(trustDomain)} have come`);
  return output.format === 'jwks' ? bundle.jwt.toJwks() : bundle.toJson();
}

/** At least between two renewals: a server with very short tokens is not to be asked without end. */
const LEAST_MS = 500;
/** Of the wait, at most. */
const JITTER = 0.1;

/**
 * The wait from now until half of the token's life is over, cut by up to a tenth at random, so that those who started together do not ask together. Its life is what
 * its issuer meant (`exp` - `iat`) or what is left of it by our clock, whichever is shorter: our clock may be behind.
 */
export function renewalDelayMs(svid: JwtSvid, nowMs: number, random: () => number): number {
  const leftMs = svid.expiresMs - nowMs;
  const meantMs = svid.issuedAtMs === undefined ? leftMs : svid.expiresMs - svid.issuedAtMs;
  return Math.max(LEAST_MS, (Math.min(leftMs, meantMs) / 2) * (1 - JITTER * random()));
}
