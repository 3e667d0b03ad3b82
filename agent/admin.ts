/** The agent's admin socket: what it is doing and how loudly it tells, for operators of this machine. */
import { dirname, resolve, sep } from 'node:path';
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { AdjustableLog } from '../core/log-output.ts';
import { createLoggerApi } from '../core/logger-api.ts';
import { createRpcServer, type RpcServer, service } from '../core/rpc.ts';
import type { Implementation } from '../core/rpc-types.ts';
import { listenUnix, type UnixListener } from '../core/unix-socket.ts';
import { DebugDefinition, type GetInfoResponse } from '../proto/gen/spire/api/agent/debug/v1/debug.ts';
import { LoggerDefinition } from '../proto/gen/spire/api/agent/logger/v1/logger.ts';
import type { Clock } from '../spiffe/clock.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';

export interface AdminParts {
  readonly log: AdjustableLog;
  readonly clock: Clock;
  readonly svid: () => X509Svid;
  readonly counts: () => { readonly lastSyncMs: number; readonly x509Svids: number; readonly jwtSvids: number };
}

export interface AdminListener {
  readonly rpc: RpcServer;
  readonly listener: UnixListener;
}

/** Throws SETTINGS_INVALID for a path in or below the public socket's directory: everybody may go there. */
export async function listenAdmin(path: string, publicPath: string, parts: AdminParts): Promise<AdminListener> {
  const open = dirname(resolve(publicPath));
  if (`${resolve(path)}${sep}`.startsWith(open === sep ? sep : `${open}${sep}`)) {
    throw fail(
      'SETTINGS_INVALID',
      `admin_socket_path ${path}: must not be in or below the directory of socket_path, ${open}, where everybody may go`,
    );
  }
  const log: Log = parts.log;
  const rpc = createRpcServer({
    services: [service(DebugDefinition, createDebugApi(parts)), service(LoggerDefinition, createLoggerApi(parts.log))],
    log,
    allowManyResets: true,
  });
  const listener = await listenUnix({
    path,
    mode: 0o770,
    directoryMode: 0o750,
    maxConnections: 256,
    log,
    onConnection: (socket, { pid, uid, gid, pidfd }) => {
      rpc.accept(socket, { kind: 'process', pid, uid, gid, pidfd, connection: socket });
      socket.resume();
    },
  });
  log.info('Starting admin APIs', { address: listener.path, network: 'unix' });
  return { rpc, listener };
}

/** As SPIRE: an answer is kept this long. */
const KEEP_MS = 5_000;

function createDebugApi({ clock, svid, counts }: AdminParts): Implementation<typeof DebugDefinition> {
  const startedAt = clock.monotonic();
  let kept: { readonly atMs: number; readonly answer: GetInfoResponse } | undefined;
  return {
    async getInfo() {
      const now = clock.monotonic();
      if (kept && now - kept.atMs < KEEP_MS) return kept.answer;
      const { lastSyncMs, x509Svids, jwtSvids } = counts();
      const { id, chain } = svid();
      const answer: GetInfoResponse = {
        svidChain: chain.map((certificate, at) => ({
          id: at === 0 ? { trustDomain: id.trustDomain.name, path: id.path } : undefined,
          expiresAt: Math.floor(certificate.notAfterMs / 1000),
          subject: certificate.subjectText,
        })),
        uptime: Math.floor((now - startedAt) / 1000),
        svidsCount: x509Svids,
        lastSyncSuccess: Math.floor(lastSyncMs / 1000),
        cachedX509SvidsCount: x509Svids,
        cachedJwtSvidsCount: jwtSvids,
        cachedSvidstoreX509SvidsCount: 0,
      };
      kept = { atMs: now, answer };
      return answer;
    },
  };
}
