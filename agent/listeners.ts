/** Where callers come: the public socket, open to every user of the machine, and the operator's own. */
import { realpathSync } from 'node:fs';
import type { Socket } from 'node:net';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { PeerCredentials } from '../core/native.ts';
import type { RpcServer } from '../core/rpc.ts';
import { listenUnix, type UnixListenOptions } from '../core/unix-socket.ts';
import type { Clock } from '../spiffe/clock.ts';
import { handOn } from './handon.ts';

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

const MAX_CONNECTIONS = 4_096;
/** Of one user: nobody can take all. */
const MAX_CONNECTIONS_PER_USER = 2_048;

/** The Workload API's socket: everybody may connect, nobody but us can put another in its place. */
export async function listenPublic(parts: ListenerParts): Promise<Listener> {
  const listener = await listen(parts, {
    mode: 0o777,
    directoryMode: 0o755,
    maxConnections: MAX_CONNECTIONS,
    maxPerUser: MAX_CONNECTIONS_PER_USER,
  });
  const { log } = parts;
  log.info('Starting Workload API', { address: listener.path, network: 'unix' });
  // SPIRE's words, for which scripts wait
  log.info('Starting agent APIs', { address: listener.path, network: 'unix' });
  return listener;
}

/** For the agent's own user and group. */
export async function listenAdmin(parts: ListenerParts): Promise<Listener> {
  const listener = await listen(parts, { mode: 0o770, directoryMode: 0o750, maxConnections: 256, maxPerUser: 256 });
  parts.log.info('Starting Admin APIs', { address: listener.path, network: 'unix' });
  return listener;
}

type Bounds = Pick<UnixListenOptions, 'mode' | 'directoryMode' | 'maxConnections'> & { readonly maxPerUser: number };

async function listen(
  { path, rpc, clock, log }: ListenerParts,
  { maxPerUser, ...bounds }: Bounds,
): Promise<Listener & { readonly path: string }> {
  const perUser = new Map<number, number>();
  /** Not handed on yet: nobody else ends them. */
  const looking = new Set<Socket>();
  const onConnection = (socket: Socket, peer: PeerCredentials) => {
    const count = (perUser.get(peer.uid) ?? 0) + 1;
    if (count > maxPerUser) {
      log.warn('Connection refused: too many of one user', { path, uid: peer.uid, count: maxPerUser });
      socket.destroy();
      return;
    }
    perUser.set(peer.uid, count);
    looking.add(socket);
    socket.once('close', () => {
      looking.delete(socket);
      const left = (perUser.get(peer.uid) ?? 1) - 1;
      if (left === 0) perUser.delete(peer.uid);
      else perUser.set(peer.uid, left);
    });
    handOn(socket, { clock }).then(
      (connection) => {
        looking.delete(socket);
        rpc.accept(connection, { kind: 'process', ...peer, connection: socket });
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
