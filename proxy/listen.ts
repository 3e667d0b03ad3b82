/** Listening: TCP, a UNIX socket, or what systemd has opened. Accepts no more than there is room for. */
import { chmodSync, readFileSync } from 'node:fs';
import { createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import { fail } from '../core/errors.ts';
import { removeDead } from '../core/unix-socket.ts';
import { addressText } from './dial.ts';
import type { ListenAddress } from './settings.ts';

export interface Listening {
  /** What was bound, with the port that the system chose. */
  readonly address: string;
  readonly port: number | undefined;
  /** Accepts no more. */
  close(): Promise<void>;
}

export interface ListenParts {
  /** Gives the descriptor of a socket that systemd opened under this name; throws SETTINGS_INVALID when there is none. */
  readonly inherited: (name: string) => number;
  /** The socket is another process's, which hands it on to several of us. */
  readonly shared?: boolean | undefined;
  /** Of each accepted socket. False for TLS, whose handshake must not outlive an end from the other side. */
  readonly allowHalfOpen: boolean;
  /** Of a UNIX socket: who may connect. Default 0600. */
  readonly unixMode?: number | undefined;
}

/**
 * Each accepted socket is without delay and was not read from. Throws FAILED_PRECONDITION when somebody else listens there. A port that is only reserved, bound by
 * a socket that does not listen, is taken; a dead UNIX socket is removed.
 */
export async function listen(
  address: ListenAddress,
  parts: ListenParts,
  onConnection: (socket: Socket) => void,
): Promise<Listening & { readonly server: Server }> {
  if (address.kind === 'unix' && !parts.shared) await removeDead(address.path);
  const server = createServer({ allowHalfOpen: parts.allowHalfOpen, pauseOnConnect: true, noDelay: true }, onConnection);
  const refuse = (cause: NodeJS.ErrnoException) =>
    fail('FAILED_PRECONDITION', `listen ${addressText(address)}: ${wordsOf(cause)}`, { cause });
  const taken = await listening(server, optionsOf(address, parts));
  if (taken) {
    if (address.kind !== 'tcp' || taken.code !== 'EADDRINUSE' || isListened(address.port)) throw refuse(taken);
    const again = await listening(server, { host: address.host, port: address.port, backlog: BACKLOG, reusePort: true });
    if (again) throw refuse(again);
  }
  // only ever wider than the umask made it
  if (address.kind === 'unix') chmodSync(address.path, parts.unixMode ?? 0o600);
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : undefined;
  return {
    server,
    port,
    address: address.kind === 'tcp' && port !== undefined ? addressText({ ...address, port }) : addressText(address),
    close: () => new Promise((done) => void server.close(() => done())),
  };
}

/** Undefined, or what is in the way. */
function listening(server: Server, options: ListenOptions | { readonly fd: number }): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((tell) => {
    server.once('error', tell);
    server.listen(options, () => {
      server.off('error', tell);
      tell(undefined);
    });
  });
}

/** As many as the kernel lets wait (net.core.somaxconn). */
const BACKLOG = 65_535;

function optionsOf(address: ListenAddress, { inherited }: ListenParts): ListenOptions | { readonly fd: number } {
  switch (address.kind) {
    case 'tcp':
      return { host: address.host, port: address.port, backlog: BACKLOG };
    case 'unix':
      return { path: address.path, backlog: BACKLOG };
    case 'systemd':
      return { fd: inherited(address.name) };
  }
}

/** Of /proc/net/tcp. */
const LISTENS = '0A';

/** Whether any socket of this network listens on the port, at whatever address. What can't be told counts as yes. */
function isListened(port: number): boolean {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  try {
    return ['/proc/net/tcp', '/proc/net/tcp6'].some((file) =>
      readFileSync(file, 'latin1')
        .split('\n')
        .map((line) => line.trim().split(/\s+/))
        .some(([, local, , state]) => state === LISTENS && local?.endsWith(wanted)),
    );
  } catch {
    return true;
  }
}

function wordsOf({ code, message }: NodeJS.ErrnoException): string {
  return code === 'EADDRINUSE' ? 'bind: address already in use' : message;
}
