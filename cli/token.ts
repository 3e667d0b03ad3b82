/** `server token generate`: join tokens. */
import { AgentDefinition } from '../proto/gen/spire/api/server/agent/v1/agent.ts';
import { defineCommand } from './command.ts';
import { withServer } from './connection.ts';
import { integer, output, text } from './flags.ts';
import { checkInt32, parseId } from './ids.ts';
import { serverFlags } from './sockets.ts';

const { createJoinToken } = AgentDefinition.methods;

export const generate = defineCommand({
  summary: 'Generates a join token',
  details: `
A token lets one node attest, once. With -spiffeID an alias is made too: entries with that parent go to whichever node spends the token.
Give the token to the agent by -joinTokenFile or a settings file: what is on a command line can be read by every user of the machine.`,
  flags: {
    ttl: integer('Token TTL in seconds', 600, 'seconds'),
    spiffeID: text('Additional SPIFFE ID to assign the token owner (optional)', '', 'id'),
    output,
    ...serverFlags,
  },
  async run({ values }, terminal) {
    const request = {
      agentId: values.spiffeID === '' ? undefined : parseId(values.spiffeID),
      ttl: checkInt32(values.ttl, 'TTL'),
      token: '',
    };
    return await withServer(values, terminal, async (server) => {
      const token = await server.call(AgentDefinition, createJoinToken, request);
      if (values.output === 'json') return await server.print(AgentDefinition, createJoinToken, token);
      terminal.out(`Token: ${token.value}\n${values.spiffeID === '' ? 'Warning: Missing SPIFFE ID.\n' : ''}`);
      return 0;
    });
  },
});
