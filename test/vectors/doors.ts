/** One door a family: feeds a row to our reader. Gives what it saw; throws what it throws. */
import { Bundle } from '../../spiffe/bundle/bundle.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { JwtBundle, JwtBundleSet } from '../../spiffe/jwt/jwt-bundle.ts';
import { validateJwtSvidSync } from '../../spiffe/jwt/jwt-svid.ts';
import { matchAny, matchId, matchOneOf, memberOf, requireMatch } from '../../spiffe/match.ts';
import { parseEndpoint } from '../../spiffe/workload-api/endpoint.ts';
import { Certificate } from '../../spiffe/x509/certificate.ts';
import { checkAuthority, leafId } from '../../spiffe/x509/profile.ts';
import { X509Bundle } from '../../spiffe/x509/x509-bundle.ts';
import { verifyX509Svid, X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { NOW_MS } from '../fakes/ca.ts';
import type { BundleInput, Family, IdInput, Inputs, MatchInput } from './row.ts';

const base64 = (text: string) => Buffer.from(text, 'base64');

export const DOORS: { readonly [F in Family]: (input: Inputs[F]) => string } = {
  'spiffe-id': (input) => String(spiffeId(input)),
  'trust-domain': ({ text }) => String(TrustDomain.parseNameOrId(text)),
  match(input) {
    const id = SpiffeId.parse(input.id);
    requireMatch(matcher(input), id);
    return String(id);
  },
  'x509-svid-parse'(input) {
    const svid =
      'chain' in input ? X509Svid.fromDer(base64(input.chain), base64(input.key)) : X509Svid.fromPem(input.certificatesPem, input.keyPem);
    return `${svid.id} ${svid.chain.length}`;
  },
  'x509-svid-verify'({ chain, bundles, nowMs = NOW_MS }) {
    const byName = new Map(
      Object.entries(bundles).map(([name, authorities]) => {
        const trustDomain = TrustDomain.parse(name);
        return [name, new X509Bundle(trustDomain, authorities.map(base64).map(Certificate.parse))] as const;
      }),
    );
    const verified = verifyX509Svid(chain.map(base64), { x509Bundle: ({ name }) => byName.get(name) }, { nowMs });
    return String(verified.id);
  },
  'x509-profile'({ kind, stage, certificate, trustDomain }) {
    const parsed = Certificate.parse(base64(certificate));
    if (kind === 'leaf') return String(leafId(parsed, stage));
    checkAuthority(parsed, stage, TrustDomain.parse(trustDomain));
    return trustDomain;
  },
  'jwt-svid'({ token, audience, bundles, nowMs, kid, maxLifetimeMs, clockToleranceMs }) {
    const set = new JwtBundleSet(Object.entries(bundles).map(([name, jwks]) => JwtBundle.fromJwks(TrustDomain.parse(name), jwks)));
    const svid = validateJwtSvidSync(token, {
      audience,
      bundles: set,
      clock: { now: () => nowMs },
      kid,
      maxLifetimeMs,
      clockToleranceMs,
    });
    return String(svid.id);
  },
  bundle: (input) => bundle(input),
  'endpoint-address'({ text }) {
    const endpoint = parseEndpoint(text);
    return 'path' in endpoint ? endpoint.path : `${endpoint.host} ${endpoint.port}`;
  },
};

function spiffeId(input: IdInput): SpiffeId {
  if ('text' in input) return SpiffeId.parse(input.text);
  const trustDomain = TrustDomain.parse(input.trustDomain);
  return 'path' in input ? SpiffeId.of(trustDomain, input.path) : SpiffeId.fromSegments(trustDomain, ...input.segments);
}

function matcher({ matcher: kind, of }: MatchInput) {
  const [first = ''] = of;
  switch (kind) {
    case 'any':
      return matchAny();
    case 'id':
      return matchId(first);
    case 'one-of':
      return matchOneOf(...of);
    case 'member-of':
      return memberOf(first);
  }
}

/** The bytes of a bundle's document. */
export function documentOf({ text, base64: bytes }: BundleInput): Buffer {
  return bytes === undefined ? Buffer.from(text ?? '') : base64(bytes);
}

/** How many authorities of each kind there are, then sequence and hint where there are any. */
function bundle(input: BundleInput): string {
  const trustDomain = TrustDomain.parse(input.trustDomain);
  const document = documentOf(input);
  switch (input.form) {
    case 'spiffe': {
      const { x509, jwt, sequence, refreshHintSeconds } = Bundle.fromJson(trustDomain, document);
      const more = `${sequence === undefined ? '' : `, sequence ${sequence}`}${refreshHintSeconds === undefined ? '' : `, hint ${refreshHintSeconds}`}`;
      return `${x509.authorities.length} X.509, ${jwt.authorities.size} JWT${more}`;
    }
    case 'jwt':
      return `${JwtBundle.fromJwks(trustDomain, document).authorities.size} JWT`;
    case 'x509-der':
      return `${X509Bundle.fromDer(trustDomain, document).authorities.length} X.509`;
    case 'x509-pem':
      return `${X509Bundle.fromPem(trustDomain, document).authorities.length} X.509`;
  }
}
