/** Listening: TCP, a UNIX socket, or what systemd has opened. Accepts no more than there is room for. */
import { chmodSync } from 'node:fs';
import { createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import { fail } from '../core/errors.ts';
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
  /** Of each accepted socket. False for TLS, whose handshake must not outlive an end from the other side. */
  readonly allowHalfOpen: boolean;
  /** Several processes listen there side by side. */
  readonly reusePort?: boolean | undefined;
}

/** Each accepted socket is without delay and was not read from. Throws FAILED_PRECONDITION when somebody else listens there. */
export async function listen(
  address: ListenAddress,
  parts: ListenParts,
  onConnection: (socket: Socket) => void,
): Promise<Listening & { readonly server: Server }> {
  const server = createServer({ allowHalfOpen: parts.allowHalfOpen, pauseOnConnect: true, noDelay: true }, onConnection);
  await new Promise<void>((done, refuse) => {
    server.once('error', (cause: NodeJS.ErrnoException) =>
      refuse(fail('FAILED_PRECONDITION', `listen ${addressText(address)}: ${wordsOf(cause)}`, { cause })),
    );
    server.listen(optionsOf(address, parts), done);
  });
  if (address.kind === 'unix') chmodSync(address.path, 0o600);
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : undefined;
  return {
    server,
    port,
    address: address.kind === 'tcp' && port !== undefined ? addressText({ ...address, port }) : addressText(address),
    close: () => new Promise((done) => void server.close(() => done())),
  };
}

function optionsOf(address: ListenAddress, { inherited, reusePort }: ListenParts): ListenOptions | { readonly fd: number } {
  switch (address.kind) {
    case 'tcp':
      return { host: address.host, port: address.port, ...(reusePort && { reusePort: true }) };
    case 'unix':
      return { path: address.path };
    case 'systemd':
      return { fd: inherited(address.name) };
  }
}

function wordsOf({ code, message }: NodeJS.ErrnoException): string {
  return code === 'EADDRINUSE' ? 'bind: address already in use' : message;
}
