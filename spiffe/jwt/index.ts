/** `@warifu/spiffe/jwt`: validates JWT-SVIDs, with nothing but WebCrypto at hand. For outsiders: inside the house the file itself is imported. */
export { type Code, type Reason, SpiffeError } from '../errors.ts';
export { SpiffeId, TrustDomain } from '../id.ts';
export { matchAny, matchId, matchOneOf, matchPattern, type Matcher, memberOf, requireMatch } from '../match.ts';
export { type JoseKey, joseKeys } from './jose.ts';
export { JWT_ALGORITHM_NAMES, type JwtAlgorithmName } from './jwt-algorithm.ts';
export { JwtAuthority, JwtBundle, JwtBundleSet, type JwtBundleSource } from './jwt-bundle.ts';
export { JwtSvid, parseJwtSvidUnverified, type ValidateJwtOptions, validateJwtSvid, validateJwtSvidSync } from './jwt-svid.ts';
