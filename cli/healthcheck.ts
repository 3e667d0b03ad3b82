/** `server healthcheck` and `agent healthcheck`. */
import { HealthCheckResponse_ServingStatus as Status, HealthDefinition } from '../proto/gen/grpc/health/v1/health.ts';
import { fail } from '../core/errors.ts';
import { defineCommand, messageOf } from './command.ts';
import { connect, type Connection, withServer } from './connection.ts';
import { bool } from './flags.ts';
import { quoted } from './print.ts';
import { AGENT, agentFlags, resolveSocket, serverFlags } from './sockets.ts';
import type { Terminal } from './terminal.ts';

const flags = { shallow: bool('Perform a less stringent health check'), verbose: bool('Print verbose information') };
const { check } = HealthDefinition.methods;

export const server = defineCommand({
  summary: 'Determines server health status',
  details: 'Exit code 0 when the server is healthy, 1 otherwise.',
  flags: { ...flags, ...serverFlags },
  async run({ values }, terminal) {
    if (values.verbose) terminal.out('Checking server health...\n');
    await withServer(values, terminal, (connection) =>
      checkHealth(connection, values.verbose, terminal, 'server').catch((error: unknown) => {
        throw fail('UNAVAILABLE', `server is unhealthy: ${messageOf(error)}`, { cause: error });
      }),
    );
    terminal.out('Server is healthy.\n');
    return 0;
  },
});

export const agent = defineCommand({
  summary: 'Determines agent health status',
  details: 'Exit code 0 when the agent is healthy, 1 otherwise.',
  flags: { ...flags, ...agentFlags },
  sayError: (message) => `Agent is unhealthy: ${message}`,
  async run({ values }, terminal) {
    if (values.verbose) terminal.out('Checking agent health...\n');
    await connect(resolveSocket(AGENT, values, terminal.env), terminal, (connection) =>
      checkHealth(connection, values.verbose, terminal, 'agent'),
    );
    terminal.out('Agent is healthy.\n');
    return 0;
  },
});

/** Wall time that the question may take; SPIRE's has no end. */
const TIMEOUT_MS = 10_000;

async function checkHealth(connection: Connection, verbose: boolean, terminal: Terminal, name: string): Promise<number> {
  const { status } = await connection.call(HealthDefinition, check, { service: '' }, { timeoutMs: TIMEOUT_MS }).catch((error: unknown) => {
    if (verbose) terminal.err(`Failed to check health: ${messageOf(error)}\n`);
    throw fail('UNAVAILABLE', 'unable to determine health', { cause: error });
  });
  if (status === Status.SERVING) return 0;
  const found = Object.entries(Status).find(([, number]) => number === status)?.[0] ?? String(status);
  throw fail('UNAVAILABLE', `${name} returned status ${quoted(found)}`);
}
