/** `@warifu/spiffe`: identities, SVIDs, bundles, and where they come from. For outsiders: inside the house the file itself is imported. */
export type { Clock } from './clock.ts';
export { type Code, type Reason, SpiffeError } from './errors.ts';
export { SpiffeId, TrustDomain } from './id.ts';
export { fieldsFirst, type FieldsFirst, type Logger } from './logger.ts';
export { matchAny, matchId, matchOneOf, matchPattern, type Matcher, memberOf, requireMatch } from './match.ts';
export { Bundle, type BundleFields, BundleSet, jwtAuthority } from './bundle/bundle.ts';
export { JwtAuthority, JwtBundle, JwtBundleSet, type JwtBundleSource } from './jwt/jwt-bundle.ts';
export {
  JwtSvid,
  parseJwtSvidUnverified,
  type ValidateJwtOptions,
  validateJwtSvid,
  validateJwtSvidSync,
} from './jwt/jwt-svid.ts';
export { BundleSource } from './source/bundle-source.ts';
export { X509FileSource, type X509FileSourceOptions } from './source/file-source.ts';
export { JwksFileSource, type JwksFileSourceOptions } from './source/jwks-file-source.ts';
export { JwtSource, type JwtSourceParams } from './source/jwt-source.ts';
export { type X509Material, X509MemorySource } from './source/memory-source.ts';
export type { X509Identity } from './source/x509-identity.ts';
export { type SourceOptions, X509Source, type X509SourceOptions } from './source/x509-source.ts';
export {
  type FetchOptions,
  type JwtSvidParams,
  type ValidatedJwtSvid,
  type WatchCallOptions,
  WorkloadApiClient,
  type WorkloadApiClientOptions,
  type X509Context,
} from './workload-api/client.ts';
export { type Endpoint, endpointFromEnv, parseEndpoint } from './workload-api/endpoint.ts';
export { Certificate } from './x509/certificate.ts';
export { X509Bundle, type X509BundleSource } from './x509/x509-bundle.ts';
export { type VerifiedX509Svid, verifyX509Svid, X509Svid } from './x509/x509-svid.ts';
