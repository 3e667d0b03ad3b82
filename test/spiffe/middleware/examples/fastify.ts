/** Fastify 5: a hook, for the whole app or (`{ onRequest: … }`) for one route. */
import { fastify } from 'fastify';
import { memberOf } from '../../../../spiffe/match.ts';
import type { JwtBundleSource } from '../../../../spiffe/jwt/jwt-bundle.ts';
import { requireJwtSvid, spiffeOf } from '../../../../spiffe/middleware/index.ts';

export function orders(bundles: JwtBundleSource) {
  const app = fastify();
  app.addHook('onRequest', requireJwtSvid({ audience: 'orders', bundles, authorize: memberOf('example.org') }).fastify);
  app.get('/', async (request) => `hello ${spiffeOf(request)?.id}`);
  return app;
}
