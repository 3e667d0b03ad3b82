import { readFileSync } from 'node:fs';
import { JwtBundle, TrustDomain, validateJwtSvidSync } from '../../../../spiffe/jwt/index.ts';

export function callers(file: string) {
  const bundles = JwtBundle.fromJwks(TrustDomain.parse('example.org'), readFileSync(file));
  return (token: string) => validateJwtSvidSync(token, { audience: 'orders', bundles }).id;
}
