/** Connecting a target in plain: TCP, a UNIX socket, or through another proxy on the way. */
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import type { Address, ViaProxy } from './settings.ts';

export interface DialTarget {
  readonly target: Address;
  readonly via?: ViaProxy | undefined;
  readonly signal: AbortSignal;
}

/** A connected socket with `allowHalfOpen` and without delay; closed when the signal aborts before it is there. Throws what the system says; the signal's reason. */
export function dial({ target, signal }: DialTarget): Promise<Socket> {
  const options: NetConnectOpts = target.kind === 'unix' ? { path: target.path } : { host: target.host, port: target.port, noDelay: true };
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const socket = connect({ ...options, allowHalfOpen: true });
    const end = (error: unknown) => {
      signal.removeEventListener('abort', abort);
      socket.destroy();
      reject(error);
    };
    const abort = () => end(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    socket.once('error', end);
    socket.once('connect', () => {
      signal.removeEventListener('abort', abort);
      socket.off('error', end);
      resolve(socket);
    });
    return undefined;
  });
}

/** As the settings name it. */
export function addressText(address: Address | { readonly kind: 'systemd'; readonly name: string }): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  if (address.kind === 'systemd') return `systemd:${address.name}`;
  return `${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}
