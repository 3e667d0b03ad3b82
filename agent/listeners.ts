/** Where callers come: the public socket, open to every user of the machine, and the operator's own. */
import { realpathSync } from 'node:fs';
import type { Socket } from 'node:net';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { PeerCredentials } from '../core/native.ts';
import { reflection } from '../core/reflection.ts';
import { createRpcServer, type RpcServer, type Service } from '../core/rpc.ts';
import { listenUnix, type UnixListenOptions } from '../core/unix-socket.ts';
import type { Clock } from '../spiffe/clock.ts';
import { handOn } from './handon.ts';
import { partyOf } from './party.ts';
import type { Quotas } from './quotas.ts';
import { checkHeader } from './workload-api.ts';

export interface Listener {
  /** Takes no more connections; those that were handed on stay, those that said nothing yet end. */
  close(): Promise<void>;
}

export interface ListenerParts {
  readonly path: string;
  readonly rpc: RpcServer;
  readonly clock: Clock;
  readonly log: Log;
}

/** Of a workload; the largest is a token to validate. */
const MAX_REQUEST_BYTES = 128 * 1024;
/** A connection without a call ends: its client connects again when it has one. */
const IDLE_MS = 5 * 60_000;

/** What answers on the public socket: within `quotas`, and with the header that a browser can't be tricked into sending. */
export function createPublicRpc(parts: {
  readonly services: readonly Service[];
  readonly quotas: Quotas;
  readonly maxStreamsPerConnection: number;
  readonly log: Log;
}): RpcServer {
  const { services, quotas, maxStreamsPerConnection, log } = parts;
  return createRpcServer({
    services: [...services, ...reflection(services)],
    gate: (context, request) => {
      checkHeader(context);
      return quotas.turn(context, request);
    },
    admit: quotas.admit,
    spend: quotas.spend,
    log,
    allowManyResets: true,
    maxConcurrentStreams: maxStreamsPerConnection,
    maxMessageBytes: MAX_REQUEST_BYTES,
    maxConnectionIdleMs: IDLE_MS,
  });
}

export function createAdminRpc(services: readonly Service[], log: Log): RpcServer {
  return createRpcServer({ services: [...services, ...reflection(services)], log, allowManyResets: true });
}

/** The Workload API's socket: everybody may connect, nobody but us can put another in its place. */
export async function listenPublic(parts: ListenerParts & { readonly quotas: Quotas }): Promise<Listener> {
  const { quotas } = parts;
  const listener = await listen(parts, { mode: 0o777, directoryMode: 0o755, maxConnections: quotas.connections.capacity }, quotas);
  const { log } = parts;
  log.info('Starting Workload API', { address: listener.path, network: 'unix' });
  // SPIRE's words, for which scripts wait
  log.info('Starting agent APIs', { address: listener.path, network: 'unix' });
  return listener;
}

/** For the agent's own user and group. */
export async function listenAdmin(parts: ListenerParts): Promise<Listener> {
  const listener = await listen(parts, { mode: 0o770, directoryMode: 0o750, maxConnections: 256 });
  parts.log.info('Starting Admin APIs', { address: listener.path, network: 'unix' });
  return listener;
}

type Bounds = Pick<UnixListenOptions, 'mode' | 'directoryMode' | 'maxConnections'>;

/** @param quotas left out: whoever may connect is not told apart */
async function listen(
  { path, rpc, clock, log }: ListenerParts,
  bounds: Bounds,
  quotas?: Quotas,
): Promise<Listener & { readonly path: string }> {
  /** Not handed on yet: nobody else ends them. */
  const looking = new Set<Socket>();
  const onConnection = (socket: Socket, peer: PeerCredentials) => {
    const party = quotas && partyOf(peer);
    if (party !== undefined) {
      const release = quotas?.connections.take(party);
      if (!release) {
        quotas?.refused('connections', { ...peer, party });
        socket.destroy();
        return;
      }
      socket.once('close', release);
    }
    looking.add(socket);
    socket.once('close', () => looking.delete(socket));
    handOn(socket, { clock }).then(
      (connection) => {
        looking.delete(socket);
        rpc.accept(connection, { kind: 'process', ...peer, ...(party !== undefined && { party }), connection: socket });
      },
      (error: unknown) => log.debug('Connection refused', { path, pid: peer.pid, error }),
    );
  };
  const listener = await listenUnix({ ...bounds, path, log, onConnection });
  return {
    path: listener.path,
    async close() {
      await listener.close();
      for (const socket of looking) socket.destroy();
    },
  };
}

/** Throws SETTINGS_INVALID when the admin socket is where every user's containers get the public one mounted. */
export function checkSocketPaths(publicPath: string, adminPath: string | undefined): void {
  if (adminPath === undefined) return;
  const below = (outer: string, inner: string) => {
    const way = relative(outer, inner);
    return way === '' || !(way === '..' || way.startsWith('../'));
  };
  const [outer, inner] = [dirname(resolve(publicPath)), dirname(resolve(adminPath))];
  if (below(outer, inner) || below(realPath(outer), realPath(inner)))
    throw fail(
      'SETTINGS_INVALID',
      'admin socket cannot be in the same directory or a subdirectory as that containing the Workload API socket',
    );
}

/** With every link on the way followed, as far as it is there. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(realPath(parent), basename(path));
  }
}
