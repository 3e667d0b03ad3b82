import { BundleEndpointSource, type FollowedEndpoint } from '../../../../spiffe/bundle/index.ts';
import { validateJwtSvid } from '../../../../spiffe/jwt/index.ts';

export function callers(...endpoints: FollowedEndpoint[]) {
  const bundles = new BundleEndpointSource({ endpoints });
  const callerOf = async (token: string) => (await validateJwtSvid(token, { audience: 'orders', bundles })).id;
  return { bundles, callerOf };
}
