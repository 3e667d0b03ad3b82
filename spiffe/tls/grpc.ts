/** gRPC with SPIFFE, on grpc-js: servers whose calls come from verified clients alone, channels to verified servers, and JWT-SVIDs with each call. */
import { subscribe } from 'node:diagnostics_channel';
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2';
import { createServer, type Server as TcpServer } from 'node:net';
import type { TLSSocket } from 'node:tls';
import {
  type CallCredentials,
  type ChannelCredentials,
  credentials,
  experimental,
  Metadata,
  type Server,
  ServerCredentials,
  ServerInterceptingCall,
} from '@grpc/grpc-js';
import { type JwtSource, type JwtSourceParams } from '../source/jwt-source.ts';
import { tlsCredentials } from '../rpc/channel.ts';
import { TlsClient, type TlsClientSettings } from './client.ts';
import { whenWritten } from './http2.ts';
import { feed, type TlsServerSettings } from './server.ts';
import { type TlsPeer, tlsPeer } from './tls.ts';

const ALPN = ['h2'] as const;

/**
 * For `new Client(target, grpcChannelCredentials(…))`. The server is verified and authorized before a call is sent, at each connection anew. A connection that is to
 * end gets no new calls, and those under way end well. Composes with call credentials. Throws REQUEST_INVALID when something is missing.
 */
export function grpcChannelCredentials(settings: TlsClientSettings): ChannelCredentials {
  const client = new TlsClient(settings);
  followSessions();
  return tlsCredentials(async (socket, host) => {
    const session: Over = { newest: undefined };
    const secured = await client.connect({ host, port: 0, socket, alpn: ALPN, onDrain: () => leave(session.newest?.deref()) });
    (secured as Carrying)[SESSION] = session;
    return secured;
  });
}

/** The session that grpc-js has made over a socket; it shows it to nobody. */
interface Over {
  newest: WeakRef<ClientHttp2Session> | undefined;
}
const SESSION = Symbol('session');
type Carrying = TLSSocket & { [SESSION]?: Over };

let following = false;
/** Node tells of each stream that is opened, and with it of its session, whose `socket` gives what was put on ours. A Node that does not tell, before 22.17, ends calls with the connection. */
function followSessions(): void {
  if (following) return;
  following = true;
  subscribe('http2.client.stream.created', (message) => {
    const { session } = (message as { readonly stream: ClientHttp2Stream }).stream;
    const over = (session?.socket as Carrying | undefined)?.[SESSION];
    if (over) over.newest ??= new WeakRef(session as ClientHttp2Session);
  });
}

/** As though the server had said so: grpc-js opens another connection for the next call, and closes this one when its last call has ended. */
function leave(session: ClientHttp2Session | undefined): void {
  if (session) whenWritten(session, () => session.emit('goaway', 0, 0, undefined));
}

/** For channel or call: sends `authorization: Bearer …` with a JWT-SVID for this audience, the newest one at each call. */
export function jwtCallCredentials(source: Pick<JwtSource, 'fetch'>, params: Omit<JwtSourceParams, 'signal'>): CallCredentials {
  return credentials.createFromMetadataGenerator((_, done) => {
    source.fetch(params).then(
      ({ token }) => {
        const metadata = new Metadata();
        metadata.set('authorization', `Bearer ${token}`);
        done(null, metadata);
      },
      (error: unknown) => done(error instanceof Error ? error : new Error(String(error))),
    );
  });
}

const PEER = Symbol('peer');
type Told = Metadata & { [PEER]?: TlsPeer };

/**
 * Listens for a server of grpc-js: instead of `bindAsync`, whose TLS knows one set of authorities only. `grpcPeer(call)` tells who calls. A connection that is to
 * end gets GOAWAY: calls under way end well, new ones come on another. Listen and close as any server of node:net; `server.tryShutdown` ends the calls.
 * Throws REQUEST_INVALID when something is missing.
 */
export function grpcListener(server: Server, settings: TlsServerSettings): TcpServer {
  const listener = createServer({ pauseOnConnect: true });
  feed(listener, settings, ALPN, (socket) => {
    const peer = tlsPeer(socket);
    const tell = (_: unknown, call: ConstructorParameters<typeof ServerInterceptingCall>[0]) =>
      new ServerInterceptingCall(call, {
        start: (next) =>
          next({
            onReceiveMetadata: (metadata: Told, pass) => {
              // a symbol can't come from the wire
              if (peer) metadata[PEER] = peer;
              pass(metadata);
            },
          }),
      });
    const injector = server.createConnectionInjector(
      experimental.createServerCredentialsWithInterceptors(ServerCredentials.createInsecure(), [tell]),
    );
    let ending = false;
    // GOAWAY to its one connection, whose calls end well; unlike `drain`, without a timer that outlives it
    const end = () => {
      if (!ending) injector.destroy();
      ending = true;
    };
    socket.once('close', end);
    injector.injectConnection(socket);
    return end;
  });
  return listener;
}

/** Who calls, in a handler of a server that `grpcListener` listens for; undefined where no client shows an SVID, and for any other server. */
export function grpcPeer(call: { readonly metadata: Metadata }): TlsPeer | undefined {
  return (call.metadata as Told)[PEER];
}
