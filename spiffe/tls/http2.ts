/** HTTP/2 with SPIFFE: a server whose streams come from verified clients alone, and sessions with verified servers. */
import {
  type ClientHttp2Session,
  type ClientSessionOptions,
  connect,
  createServer,
  type Http2Server,
  type ServerHttp2Session,
  type ServerOptions,
} from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { systemClock } from '../clock.ts';
import { connectSpiffe, type TlsClientSettings } from './client.ts';
import { feed, type TlsServerSettings } from './server.ts';
import { tlsPeerOver } from './tls.ts';

const ALPN = ['h2'] as const;

/** Of `createHttp2Server`. */
export type Http2ServerSettings = TlsServerSettings & {
  /** As for `http2.createServer`. */
  readonly http2?: ServerOptions | undefined;
};

/**
 * A genuine server of node:http2, fed with verified connections. `tlsPeer` tells who asks, of a session, a stream or a request. A connection that is to end
 * gets GOAWAY: its streams end well, and new ones are opened on another. Throws REQUEST_INVALID when something is missing.
 */
export function createHttp2Server(settings: Http2ServerSettings, onRequest?: Parameters<typeof createServer>[1]): Http2Server {
  const server = createServer(settings.http2 ?? {}, onRequest);
  let opened: ServerHttp2Session | undefined;
  let below: TLSSocket | undefined;
  // first of all listeners: the others may ask who it is
  server.prependListener('session', (session) => {
    opened = session;
    if (below) tlsPeerOver(session, below);
  });
  feed(server, settings, ALPN, (socket, serve) => {
    below = socket;
    serve(socket);
    below = undefined;
    const session = opened;
    opened = undefined;
    return () => session?.close();
  });
  return server;
}

/**
 * A session with a verified server; `tlsPeer(session)` tells which. Before an SVID ends the session takes no new streams, ends when those that there are have
 * ended, and emits `close`: the next one is for the caller to open. Who opens it closes it.
 * @param url `https://host:port`. Throws TypeError for another URL, REQUEST_INVALID when something is missing from the settings, else as `TlsClient.connect`.
 */
export async function connectHttp2(
  url: string | URL,
  settings: TlsClientSettings & { readonly http2?: ClientSessionOptions | undefined; readonly signal?: AbortSignal | undefined },
): Promise<ClientHttp2Session> {
  const { hostname, port, protocol, origin } = new URL(url);
  if (protocol !== 'https:') throw new TypeError(`the URL must begin with https:, saw ${protocol}`);
  const drained = new AbortController();
  const socket = await connectSpiffe({
    ...settings,
    host: hostname.replace(/^\[|\]$/g, ''),
    port: Number(port || 443),
    alpn: ALPN,
    onDrain: () => drained.abort(),
  });
  const session = connect(origin, { ...settings.http2, createConnection: () => socket });
  const close = () => whenWritten(session, () => session.close());
  if (drained.signal.aborted) close();
  else drained.signal.addEventListener('abort', close, { once: true });
  tlsPeerOver(session, socket);
  return session;
}

/** How often it is looked at in the next turns of the event loop; after that, a peer that does not read is waited for by the clock. */
const TURNS = 10;
const LOOK_MS = 20;

/** A GOAWAY overtakes requests that were made and not written yet, and they would be refused: it waits for them. */
export function whenWritten(session: ClientHttp2Session, then: () => void, turns = TURNS): void {
  if (session.destroyed || (session.state.outboundQueueSize ?? 0) === 0) then();
  else if (turns > 0) setImmediate(whenWritten, session, then, turns - 1);
  else systemClock.after(LOOK_MS, () => whenWritten(session, then, 0));
}
