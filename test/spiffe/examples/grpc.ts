/** A gRPC service with mTLS, both ends. */
import { Server } from '@grpc/grpc-js';
import { matchId, memberOf, X509Source } from '../../../spiffe/index.ts';
import { grpcChannelCredentials, grpcListener } from '../../../spiffe/tls/grpc.ts';

export const source = await X509Source.open();
export const server = new Server(); // addService as ever; grpcPeer(call) tells who calls
export const listener = grpcListener(server, { source, authorize: memberOf('example.org') });
export const credentials = grpcChannelCredentials({ source, authorize: matchId('spiffe://example.org/orders') });
