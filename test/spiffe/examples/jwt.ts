/** A JWT-SVID, validated offline. */
import { readFileSync } from 'node:fs';
import { JwtBundle, TrustDomain, validateJwtSvid } from '../../../spiffe/jwt/index.ts';

const bundles = JwtBundle.fromJwks(TrustDomain.parse('example.org'), readFileSync(process.env['BUNDLE'] ?? 'bundle.json'));
export const callerOf = async (token: string) => (await validateJwtSvid(token, { audience: 'orders', bundles })).id;
