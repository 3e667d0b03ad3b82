import { matchId, type X509Identity } from '../../../../spiffe/index.ts';
import { createSpiffeServer } from '../../../../spiffe/tls/index.ts';

export const server = (source: X509Identity) =>
  createSpiffeServer({ source, authorize: matchId('spiffe://example.org/web') }, (socket) => socket.end('welcome'));
