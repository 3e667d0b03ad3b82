/** Who is at the other end of the TLS connection: the listener of a server that our TLS feeds. */
import express from 'express';
import { matchPattern } from '../../../../spiffe/match.ts';
import { requireSpiffeId, spiffeOf } from '../../../../spiffe/middleware/index.ts';

export function orders() {
  const app = express();
  app.use(requireSpiffeId(matchPattern('spiffe://example.org/ns/shop/sa/*')));
  app.get('/', (req, res) => {
    res.send(`hello ${spiffeOf(req)?.id}`);
  });
  return app;
}
