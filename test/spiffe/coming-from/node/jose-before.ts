import { createRemoteJWKSet, jwtVerify } from 'jose';

export function callers(url: string) {
  const keys = createRemoteJWKSet(new URL(url));
  return async (token: string) => (await jwtVerify(token, keys, { audience: 'orders' })).payload.sub;
}
