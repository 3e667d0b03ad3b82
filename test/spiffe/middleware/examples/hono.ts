/** Hono, on Node, Deno, Bun and where there is only WebCrypto: `c.get('spiffe')` is typed. */
import { Hono } from 'hono';
import { memberOf } from '../../../../spiffe/match.ts';
import type { JwtBundleSource } from '../../../../spiffe/jwt/jwt-bundle.ts';
import { type JwtCaller, requireJwtSvid, type SpiffeVariables } from '../../../../spiffe/middleware/jwt.ts';

export function orders(bundles: JwtBundleSource) {
  const app = new Hono<{ Variables: SpiffeVariables<JwtCaller> }>();
  app.use(requireJwtSvid({ audience: 'orders', bundles, authorize: memberOf('example.org') }).hono);
  app.get('/', (c) => c.text(`hello ${c.get('spiffe').svid.id}`));
  return app;
}
