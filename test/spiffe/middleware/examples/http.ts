/** Plain `http`, and WebSockets: upgrades pass no middleware, in any framework, and need a guard of their own. */
import { createServer } from 'node:http';
import { memberOf } from '../../../../spiffe/match.ts';
import type { JwtBundleSource } from '../../../../spiffe/jwt/jwt-bundle.ts';
import { requireJwtSvid } from '../../../../spiffe/middleware/index.ts';

export function orders(bundles: JwtBundleSource) {
  const guard = requireJwtSvid({ audience: 'orders', bundles, authorize: memberOf('example.org') });
  const server = createServer(guard.http((req, res) => res.end(`hello ${req.spiffe.id}`)));
  server.on(
    'upgrade',
    guard.upgrade((req, socket) => {
      socket.end(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: hello\r\n\r\nhello ${req.spiffe.id}`, () => {});
    }),
  );
  return server;
}
