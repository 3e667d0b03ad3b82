/** Express 5: everything below needs a JWT-SVID for `orders`; what is below /admin, of one service. */
import express from 'express';
import { matchId, memberOf } from '../../../../spiffe/match.ts';
import type { JwtBundleSource } from '../../../../spiffe/jwt/jwt-bundle.ts';
import { requireJwtSvid, spiffeOf } from '../../../../spiffe/middleware/index.ts';

export function orders(bundles: JwtBundleSource) {
  const app = express();
  app.use(requireJwtSvid({ audience: 'orders', bundles, authorize: memberOf('example.org') }));
  app.use('/admin', requireJwtSvid({ audience: 'orders', bundles, authorize: matchId('spiffe://example.org/admin') }));
  app.get('/{*any}', (req, res) => {
    res.send(`hello ${spiffeOf(req)?.id}`);
  });
  return app;
}
