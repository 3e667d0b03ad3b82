import { matchId, X509Source } from '../../../../spiffe/index.ts';
import { connectSpiffe } from '../../../../spiffe/tls/index.ts';

export const source = await X509Source.open(); // SPIFFE_ENDPOINT_SOCKET
export const dial = (host: string, port: number) => connectSpiffe({ source, authorize: matchId('spiffe://example.org/db'), host, port });
