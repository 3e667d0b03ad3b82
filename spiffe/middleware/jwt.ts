/** The half of the middleware that runs where there is no Node: requests with a JWT-SVID. For outsiders. */
export { type CallerVia, type ForwardedCaller, type JwtCaller, type SpiffeCaller, spiffeOf, type Via, type X509Caller } from './caller.ts';
export type { Guard, SpiffeVariables } from './guard.ts';
export { requireJwtSvid, type RequireJwtSvidOptions } from './require-jwt-svid.ts';
