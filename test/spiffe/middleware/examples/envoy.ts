/** Behind Envoy: its clients are who it says, if it is Envoy that says so; everybody else is himself. */
import express from 'express';
import { matchId, matchPattern } from '../../../../spiffe/match.ts';
import { requireSpiffeId, spiffeOf } from '../../../../spiffe/middleware/index.ts';

export function orders() {
  const app = express();
  app.use(
    requireSpiffeId(matchPattern('spiffe://example.org/ns/shop/sa/*'), {
      forwarded: { trusted: matchId('spiffe://example.org/envoy') },
    }),
  );
  app.get('/', (req, res) => {
    const caller = spiffeOf(req);
    res.send(`hello ${caller?.id}${caller?.via === 'xfcc' ? ` through ${caller.proxy.id}` : ''}`);
  });
  return app;
}
