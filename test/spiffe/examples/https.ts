/** HTTPS with mTLS, both ends. */
import { matchId, memberOf, X509Source } from '../../../spiffe/index.ts';
import { createHttpsServer, SpiffeHttpsAgent } from '../../../spiffe/tls/https.ts';
import { tlsPeer } from '../../../spiffe/tls/index.ts';

export const source = await X509Source.open(); // SPIFFE_ENDPOINT_SOCKET
export const server = createHttpsServer({ source, authorize: memberOf('example.org') }, (req, res) => res.end(`hello ${tlsPeer(req)?.id}`));
export const agent = new SpiffeHttpsAgent({ source, authorize: matchId('spiffe://example.org/orders') });
