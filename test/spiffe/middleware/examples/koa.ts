/** Koa: also as `ctx.state.spiffe`. */
import Koa from 'koa';
import { memberOf } from '../../../../spiffe/match.ts';
import type { JwtBundleSource } from '../../../../spiffe/jwt/jwt-bundle.ts';
import { requireJwtSvid, spiffeOf } from '../../../../spiffe/middleware/index.ts';

export function orders(bundles: JwtBundleSource) {
  const app = new Koa();
  app.use(requireJwtSvid({ audience: 'orders', bundles, authorize: memberOf('example.org') }).koa);
  app.use((ctx) => {
    ctx.body = `hello ${spiffeOf(ctx)?.id}`;
  });
  return app;
}
