/** Keys for those who must stay with jose's `jwtVerify`: the bundle of the subject's trust domain, and no other, gives the key. */
import { base64url } from '../base64.ts';
import { SpiffeError } from '../errors.ts';
import { SpiffeId } from '../id.ts';
import { isJsonObject, parseJson } from '../json.ts';
import type { PublicJwk } from './jwk.ts';
import { isJwtAlgorithm, JWT_ALGORITHM_NAMES, jwtAlgorithmFits } from './jwt-algorithm.ts';
import type { JwtBundleSource } from './jwt-bundle.ts';

/** What jose takes for a key. */
export type JoseKey = PublicJwk;

/**
 * A key resolver: `jwtVerify(token, joseKeys(bundles), { algorithms: [...JWT_ALGORITHM_NAMES], audience, requiredClaims: ['sub', 'aud', 'exp'] })`. It refuses
 * an algorithm that is none of JWT-SVID's nine or does not fit the key, a wrong `typ`, no `kid`, a `sub` that is no SPIFFE ID, a trust domain without a bundle,
 * a claim that comes twice. What jose does not look at stays so: how far ahead `exp` lies, a member of the header that comes twice; and dates have no leeway by
 * default. `validateJwtSvid` sees to all of that. Throws SVID_INVALID, SVID_UNTRUSTED, BUNDLE_MISSING, ID_INVALID, REQUEST_INVALID (JSON).
 */
export function joseKeys(bundles: JwtBundleSource): {
  (
    header: { readonly alg?: string; readonly kid?: string; readonly typ?: string },
    token: { readonly payload: string | Uint8Array },
  ): Promise<JoseKey>;
} {
  return async ({ alg, kid, typ }, { payload }) => {
    const invalid = (reason: 'JWT_ALG' | 'JWT_KID_MISSING' | 'JWT_TYP' | 'JWT_SUB' | 'JWT_ENCODING', why: string) =>
      new SpiffeError('SVID_INVALID', reason, why);
    if (!isJwtAlgorithm(alg)) throw invalid('JWT_ALG', `alg is none of ${JWT_ALGORITHM_NAMES.join(', ')}`);
    if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE') throw invalid('JWT_TYP', 'typ is neither JWT nor JOSE');
    if (!kid) throw invalid('JWT_KID_MISSING', 'kid is missing');
    const bytes = typeof payload === 'string' ? base64url(payload) : payload;
    const claims = bytes && parseJson(bytes);
    if (!claims || !isJsonObject(claims)) throw invalid('JWT_ENCODING', 'the payload is no JSON object');
    if (typeof claims['sub'] !== 'string') throw invalid('JWT_SUB', 'sub is missing');
    const { trustDomain } = SpiffeId.parse(claims['sub']);
    const bundle = bundles.jwtBundle(trustDomain);
    if (!bundle?.trustDomain.equals(trustDomain))
      throw new SpiffeError('BUNDLE_MISSING', 'JWT_BUNDLE_MISSING', `no JWT bundle found for trust domain "${trustDomain.name}"`);
    const authority = bundle.authorities.get(kid);
    if (!authority) throw new SpiffeError('SVID_UNTRUSTED', 'JWT_AUTHORITY_UNKNOWN', `no JWT authority of ${trustDomain} has this kid`);
    if (!jwtAlgorithmFits(alg, authority.kind)) throw new SpiffeError('SVID_INVALID', 'JWT_KEY_TYPE', `${alg} does not fit the key`);
    return authority.jwk;
  };
}
