// What the JWT half of the package says to vectors: runs wherever there is WebCrypto. `api` is `@warifu/spiffe/jwt`; each row is { family, input }.
export async function verdictsOf(api, rows) {
  const out = [];
  for (const { family, input } of rows) {
    try {
      out.push({ expect: 'accept', sees: String(await DOORS[family](api, input)) });
    } catch (error) {
      // anything but a SpiffeError is a fault of ours
      if (!(error instanceof api.SpiffeError)) throw error;
      out.push({ expect: 'reject', reason: error.reason });
    }
  }
  return out;
}

const DOORS = {
  'spiffe-id': ({ SpiffeId, TrustDomain }, input) => {
    if ('text' in input) return SpiffeId.parse(input.text);
    const trustDomain = TrustDomain.parse(input.trustDomain);
    return 'path' in input ? SpiffeId.of(trustDomain, input.path) : SpiffeId.fromSegments(trustDomain, ...input.segments);
  },
  'trust-domain': ({ TrustDomain }, { text }) => TrustDomain.parseNameOrId(text),
  match: ({ SpiffeId, matchAny, matchId, matchOneOf, memberOf, requireMatch }, { matcher, of, id }) => {
    const parsed = SpiffeId.parse(id);
    const matchers = { any: matchAny, id: () => matchId(of[0]), 'one-of': () => matchOneOf(...of), 'member-of': () => memberOf(of[0]) };
    requireMatch(matchers[matcher](), parsed);
    return parsed;
  },
  'jwt-svid': async ({ JwtBundle, JwtBundleSet, TrustDomain, validateJwtSvid }, { token, audience, bundles, nowMs, ...limits }) => {
    const set = new JwtBundleSet(Object.entries(bundles).map(([name, jwks]) => JwtBundle.fromJwks(TrustDomain.parse(name), jwks)));
    return (await validateJwtSvid(token, { audience, bundles: set, clock: { now: () => nowMs }, ...limits })).id;
  },
};
