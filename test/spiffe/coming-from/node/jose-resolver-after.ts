import { jwtVerify } from 'jose';
import { joseKeys, JWT_ALGORITHM_NAMES, type JwtBundleSource } from '../../../../spiffe/jwt/index.ts';

export const callerOf = async (token: string, bundles: JwtBundleSource) => {
  const rules = { algorithms: [...JWT_ALGORITHM_NAMES], audience: 'orders', requiredClaims: ['sub', 'aud', 'exp'] };
  return (await jwtVerify(token, joseKeys(bundles), rules)).payload.sub;
};
