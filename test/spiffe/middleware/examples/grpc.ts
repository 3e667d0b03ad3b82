/** A section of docs/middleware.md. */
import { type Metadata, Server } from '@grpc/grpc-js';
import { memberOf } from '../../../../spiffe/match.ts';
import type { JwtBundleSource } from '../../../../spiffe/jwt/jwt-bundle.ts';
import { requireJwtSvidOfCall, spiffeOf } from '../../../../spiffe/middleware/grpc.ts';

export function orders(bundles: JwtBundleSource) {
  return new Server({ interceptors: [requireJwtSvidOfCall({ audience: 'orders', bundles, authorize: memberOf('example.org') })] });
}
export const whoCalls = (call: { metadata: Metadata }) => spiffeOf(call.metadata)?.id;
