import type { Server } from '@grpc/grpc-js';
import { matchId, memberOf, type X509Identity } from '../../../../spiffe/index.ts';
import { grpcChannelCredentials, grpcListener } from '../../../../spiffe/tls/grpc.ts';

export const listener = (server: Server, source: X509Identity) => grpcListener(server, { source, authorize: memberOf('example.org') });

export const clientCredentials = (source: X509Identity) =>
  grpcChannelCredentials({ source, authorize: matchId('spiffe://example.org/orders') });
