/** A node proves what it is by a secret that works once. Spending it is the server's own work, in one transaction with the agent's row; here is what both sides say. */
import { z } from 'zod';
import { fail } from '../../core/errors.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { SpiffeId } from '../../spiffe/id.ts';

const settings = z.strictObject({});
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Names the agent; knows nothing of which tokens exist, so that nobody may be let in on its word alone. */
export const serverJoinToken = definePlugin({
  kind: 'server-node-attestor',
  name: 'join_token',
  settings,
  async start() {
    return {
      async attest({ trustDomain, payload }) {
        let agentPath: string;
        try {
          agentPath = SpiffeId.fromSegments(trustDomain, 'spire', 'agent', 'join_token', utf8.decode(payload)).path;
        } catch {
          // No id can be made of it, so no token of ours is it. Without the cause, which would carry a token that is perhaps only mistyped.
          throw fail('REQUEST_INVALID', 'join token does not exist or has already been used');
        }
        return { agentPath, selectors: [], canReattest: false };
      },
    };
  },
});

export const agentJoinToken = definePlugin({
  kind: 'agent-node-attestor',
  name: 'join_token',
  settings,
  async start(_settings, host) {
    return {
      async payload(signal) {
        signal.throwIfAborted();
        const token = await host.joinToken?.();
        if (token === undefined || token === '') {
          throw fail(
            'SETTINGS_INVALID',
            'join token was not provided: make one with `warifu server token generate`, and give it by -joinTokenFile (or join_token_file in the settings), by the environment variable WARIFU_JOIN_TOKEN, or by -joinToken (or join_token), which every user of the machine can see',
          );
        }
        return Buffer.from(token, 'utf8');
      },
      async answer() {
        throw fail('REQUEST_INVALID', 'the server asked a question, which attestation by join token does not have');
      },
    };
  },
});
