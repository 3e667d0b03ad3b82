import { matchId, type X509Identity } from '../../../../spiffe/index.ts';
import { SpiffeHttpsAgent } from '../../../../spiffe/tls/https.ts';

export const agent = (source: X509Identity) => new SpiffeHttpsAgent({ source, authorize: matchId('spiffe://example.org/orders') });
