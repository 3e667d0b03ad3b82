/** Which socket a command speaks to: the flag, the instance's template, the environment, the default, in this order, as in SPIRE. */
import { resolve } from 'node:path';
import { fail } from '../core/errors.ts';
import { text } from './flags.ts';
import type { Terminal } from './terminal.ts';

interface Socket {
  readonly preset: string;
  readonly variable: string;
  readonly missing: (template: string) => string;
}

/** The server's private socket. */
export const SERVER: Socket = {
  preset: '/tmp/spire-server/private/api.sock',
  variable: 'SPIRE_SERVER_PRIVATE_SOCKET',
  missing: (template) => `you must define ${template} to use the instance flag`,
};

/** The agent's public socket. */
export const AGENT: Socket = {
  preset: '/tmp/spire-agent/public/api.sock',
  variable: 'SPIRE_AGENT_PUBLIC_SOCKET',
  missing: (template) => ` ${template} environment variable must be defined when using the instance flag`,
};

/** The agent's admin socket. SPIRE has no default for it: ours stands beside the public one's. */
export const AGENT_ADMIN: Socket = {
  preset: '/tmp/spire-agent/private/admin.sock',
  variable: 'SPIRE_AGENT_ADMIN_SOCKET',
  missing: (template) => ` ${template} environment variable must be defined when using the instance flag`,
};

export const agentAdminFlags = {
  socketPath: text("Path to the agent's admin socket (admin_socket_path); env SPIRE_AGENT_ADMIN_SOCKET", AGENT_ADMIN.preset, 'path'),
  instance: text('Instance name to substitute into socket templates (env SPIRE_AGENT_ADMIN_SOCKET_TEMPLATE)', '', 'name'),
} as const;

export const serverFlags = {
  socketPath: text('Path to the SPIRE Server API socket; env SPIRE_SERVER_PRIVATE_SOCKET', SERVER.preset, 'path'),
  instance: text('Instance name to substitute into socket templates (env SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE)', '', 'name'),
} as const;

export const agentFlags = {
  socketPath: text('Path to the SPIRE Agent API Unix domain socket; env SPIRE_AGENT_PUBLIC_SOCKET', AGENT.preset, 'path'),
  instance: text('Instance name to substitute into socket templates (env SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE)', '', 'name'),
} as const;

/** The absolute path. Throws REQUEST_INVALID when an instance is named and its template is missing or has no `%i`. */
export function resolveSocket(
  socket: Socket,
  flags: { readonly socketPath: string; readonly instance: string },
  env: Terminal['env'],
): string {
  const name = `${socket.variable}_TEMPLATE`;
  const template = env[name] ?? '';
  if (flags.instance !== '') {
    if (template === '') throw fail('REQUEST_INVALID', socket.missing(name));
    if (!template.includes('%i')) throw fail('REQUEST_INVALID', `failed to find %i in ${name}`);
  }
  if (flags.socketPath !== socket.preset) return resolve(flags.socketPath);
  if (flags.instance !== '') return resolve(template.replaceAll('%i', flags.instance));
  return resolve(env[socket.variable] || socket.preset);
}
