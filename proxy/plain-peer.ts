/** Whose processes may use the plain side of a client: whoever can connect there speaks as the workload. Asked of the kernel at accept; what it can't tell is refused. */
import type { Socket } from 'node:net';
import { fail } from '../core/errors.ts';
import { closeFd, peerCredentials, requireNative } from '../core/native.ts';
import { tcpOwnerUid } from '../core/tcp-owner.ts';
import type { PlainPeer } from './connection.ts';
import type { CheckPlainPeer } from './outbound.ts';
import type { ListenAddress, PlainPeers } from './settings.ts';

/**
 * Undefined where nobody is to be asked. Throws UNAVAILABLE without the native edge, SETTINGS_INVALID for groups over TCP: of a TCP connection the kernel tells
 * the user alone.
 */
export function plainPeerCheck({
  listen,
  plainPeers,
}: {
  readonly listen: ListenAddress;
  readonly plainPeers: PlainPeers;
}): CheckPlainPeer | undefined {
  const { uids, gids } = plainPeers;
  if (uids.length === 0 && gids.length === 0) return undefined;
  requireNative();
  if (gids.length > 0 && listen.kind === 'tcp')
    throw fail('SETTINGS_INVALID', 'groups can be told of UNIX sockets alone: listen on unix:PATH, or allow users');
  return (socket) => {
    const peer = peerOf(socket);
    if (uids.includes(peer.uid) || (peer.gid !== undefined && gids.includes(peer.gid))) return peer;
    throw fail(
      'DENIED',
      `user ${peer.uid}${peer.gid === undefined ? '' : `, group ${peer.gid}`}${peer.pid === undefined ? '' : ` (process ${peer.pid})`} may not use this proxy`,
    );
  };
}

/** Throws UNAVAILABLE when it can't be told. */
export function peerOf(socket: Socket): PlainPeer {
  if (socket.remoteAddress !== undefined) return { uid: tcpOwnerUid(socket), gid: undefined, pid: undefined };
  const { uid, gid, pid, pidfd } = peerCredentials(socket);
  closeFd(pidfd);
  return { uid, gid, pid };
}
