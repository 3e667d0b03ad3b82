/** `server agent …`: the agents that have attested. */
import { AgentDefinition } from '../proto/gen/spire/api/server/agent/v1/agent.ts';
import type { Agent } from '../proto/gen/spire/api/types/agent.ts';
import { SelectorMatch_MatchBehavior as Match } from '../proto/gen/spire/api/types/selector.ts';
import { fail } from '../core/errors.ts';
import { defineCommand, messageOf } from './command.ts';
import { type Connection, withServer } from './connection.ts';
import { bool, duration, type Flags, list as listFlag, output, text, type Values } from './flags.ts';
import { parseId, parseSelector } from './ids.ts';
import { aligned, counted, idText, localTime, quoted, printStruct } from './print.ts';
import { serverFlags } from './sockets.ts';

const { listAgents, countAgents, getAgent, deleteAgent, banAgent } = AgentDefinition.methods;

const filters = {
  selector: listFlag('A colon-delimited type:value selector', 'type:value'),
  matchSelectorsOn: text('The match mode used when filtering by selectors. Options: exact, any, superset and subset', 'superset', 'mode'),
  attestationType: text('Filter by attestation type, like join_token or x509pop', '', 'type'),
  banned: text(
    "Filter based on string received, 'true': banned agents, 'false': not banned agents, other value will return all",
    '',
    'true|false',
  ),
  canReattest: text(
    "Filter based on string received, 'true': agents that can reattest, 'false': agents that can't reattest, other value will return all",
    '',
    'true|false',
  ),
  expiresBefore: text('Filter by expiration time (format: "2006-01-02 15:04:05 -0700 -07")', '', 'time'),
} satisfies Flags;

/** As SPIRE's own command line: comfortably below 4 MiB. */
const PAGE = 1000;

export const list = defineCommand({
  summary: 'Lists attested agents and their SPIFFE IDs',
  flags: { ...filters, output, ...serverFlags },
  async run({ values }, terminal) {
    const filter = filterOf(values);
    return await withServer(values, terminal, async (server) => {
      const agents: Agent[] = [];
      for (let pageToken = ''; ; ) {
        const page = await server.call(AgentDefinition, listAgents, { filter, outputMask: undefined, pageSize: PAGE, pageToken });
        agents.push(...page.agents);
        pageToken = page.nextPageToken;
        if (pageToken === '') break;
      }
      if (values.output === 'json') return await server.print(AgentDefinition, listAgents, { agents, nextPageToken: '' });
      if (agents.length === 0) terminal.out('No attested agents found\n');
      else
        terminal.out(`Found ${agents.length} attested ${agents.length === 1 ? 'agent' : 'agents'}:\n\n${agents.map(agentText).join('')}`);
      return 0;
    });
  },
});

export const count = defineCommand({
  summary: 'Count attested agents',
  flags: { ...filters, output, ...serverFlags },
  async run({ values }, terminal) {
    const filter = filterOf(values);
    return await withServer(values, terminal, async (server) => {
      const answer = await server.call(AgentDefinition, countAgents, { filter });
      if (values.output === 'json') return await server.print(AgentDefinition, countAgents, answer);
      terminal.out(`${answer.count} attested ${answer.count === 1 ? 'agent' : 'agents'}\n`);
      return 0;
    });
  },
});

const one = (what: string) => ({
  spiffeID: text(`The SPIFFE ID of the agent to ${what} (agent identity)`, '', 'id'),
  output,
  ...serverFlags,
});

function idOf(typed: string) {
  if (typed === '') throw fail('REQUEST_INVALID', 'a SPIFFE ID is required');
  return parseId(typed);
}

export const show = defineCommand({
  summary: 'Shows the details of an attested agent given its SPIFFE ID',
  flags: one('show'),
  async run({ values }, terminal) {
    const id = idOf(values.spiffeID);
    return await withServer(values, terminal, async (server) => {
      const agent = await server.call(AgentDefinition, getAgent, { id, outputMask: undefined });
      if (values.output === 'json') return await server.print(AgentDefinition, getAgent, agent);
      const selectors = agent.selectors.map(({ type, value }) => ['Selectors', `${type}:${value}`] as const);
      terminal.out(`Found an attested agent given its SPIFFE ID\n\n${agentText(agent)}${aligned(selectors, 18)}`);
      return 0;
    });
  },
});

export const evict = defineCommand({
  summary: 'Evicts an attested agent given its SPIFFE ID',
  details: 'The agent is forgotten: one that can attest again does so, another stops. What its node holds stays good until it expires.',
  flags: one('evict'),
  async run({ values }, terminal) {
    const id = idOf(values.spiffeID);
    return await withServer(values, terminal, async (server) => {
      const answer = await server.call(AgentDefinition, deleteAgent, { id });
      if (values.output === 'json') return await server.print(AgentDefinition, deleteAgent, answer);
      terminal.out('Agent evicted successfully\n');
      return 0;
    });
  },
});

export const ban = defineCommand({
  summary: 'Ban an attested agent given its SPIFFE ID',
  details: 'The agent may not come back. To let it attest again, evict it. What its node holds stays good until it expires.',
  flags: one('ban'),
  async run({ values }, terminal) {
    const id = idOf(values.spiffeID);
    return await withServer(values, terminal, async (server) => {
      const answer = await server.call(AgentDefinition, banAgent, { id });
      if (values.output === 'json') return await server.print(AgentDefinition, banAgent, answer);
      terminal.out('Agent banned successfully\n');
      return 0;
    });
  },
});

interface Purged {
  readonly agent_id: string;
  readonly deleted: boolean;
  readonly error?: string;
}

export const purge = defineCommand({
  summary: 'Purge expired agents that were attested using a non-TOFU security model based on a given time',
  details: 'Only agents that can attest again are purged, and no banned ones: nothing is lost with them, and nobody comes back by it.',
  flags: {
    expiredFor: duration(
      "Amount of time that has passed since the agent's SVID has expired. It is used to determine which agents to purge",
      720 * 3_600_000,
    ),
    dryRun: bool('Indicates that the command will not perform any action, but will print the agents that would be purged'),
    output,
    ...serverFlags,
  },
  run: ({ values }, terminal) =>
    withServer(values, terminal, async (server) => {
      const nowMs = terminal.clock.now();
      const expired = (await reattestable(server)).filter((agent) => nowMs - agent.x509svidExpiresAt * 1000 > values.expiredFor);
      const results: Purged[] = [];
      for (const agent of expired) {
        const agent_id = idText(agent.id);
        if (values.dryRun) {
          results.push({ agent_id, deleted: false });
          continue;
        }
        results.push(
          await server.call(AgentDefinition, deleteAgent, { id: agent.id }).then(
            () => ({ agent_id, deleted: true }),
            (error: unknown) => ({ agent_id, deleted: false, error: messageOf(error) }),
          ),
        );
      }
      if (values.output === 'json') return printStruct(terminal, { expired_agents: results });
      terminal.out(purgeText(results, values.dryRun));
      return 0;
    }),
});

/** Those of whom a purge takes nothing; a banned one could attest again after it. */
async function reattestable(server: Connection): Promise<Agent[]> {
  const filter = { byAttestationType: '', bySelectorMatch: undefined, byBanned: false, byCanReattest: true, byExpiresBefore: '' };
  const agents: Agent[] = [];
  for (let pageToken = ''; ; ) {
    const page = await server
      .call(AgentDefinition, listAgents, { filter, outputMask: undefined, pageSize: PAGE, pageToken })
      .catch((error: unknown) => {
        throw fail('UNAVAILABLE', `failed to list agents: ${messageOf(error)}`, { cause: error });
      });
    agents.push(...page.agents);
    pageToken = page.nextPageToken;
    if (pageToken === '') return agents;
  }
}

/** SPIRE's text of a purge. */
export function purgeText(results: readonly Purged[], dryRun: boolean): string {
  if (results.length === 0) return 'No agents to purge.\n';
  const head = `Found ${counted(results.length, 'expired agent', 'expired agents')}\n\n`;
  const ids = (some: readonly Purged[]) => some.map(({ agent_id }) => aligned([['SPIFFE ID', agent_id]], 18)).join('');
  if (dryRun) return `${head}\nAgents that can be purged:\n${ids(results)}`;
  const [purged, kept] = [results.filter(({ deleted }) => deleted), results.filter(({ deleted }) => !deleted)];
  const failures = kept
    .map(({ agent_id, error = '' }) =>
      aligned(
        [
          ['SPIFFE ID', agent_id],
          ['Error', error],
        ],
        18,
      ),
    )
    .join('');
  return `${head}${purged.length > 0 ? `Agents purged:\n${ids(purged)}` : ''}${kept.length > 0 ? `Agents not purged:\n${failures}` : ''}`;
}

/** SPIRE's lines about one agent. */
export function agentText(agent: Agent): string {
  const lines: [string, string][] = [
    ['SPIFFE ID', idText(agent.id)],
    ['Attestation type', agent.attestationType],
    ['Expiration time', localTime(agent.x509svidExpiresAt * 1000)],
    agent.banned ? ['Banned', 'true'] : ['Serial number', agent.x509svidSerialNumber],
    ['Can re-attest', String(agent.canReattest)],
  ];
  if (agent.agentVersion !== '') lines.push(['Agent version', agent.agentVersion]);
  return `${aligned(lines, 18)}\n`;
}

const MATCH: Readonly<Record<string, Match>> = {
  exact: Match.MATCH_EXACT,
  any: Match.MATCH_ANY,
  superset: Match.MATCH_SUPERSET,
  subset: Match.MATCH_SUBSET,
};

function filterOf(values: Values<typeof filters>) {
  const match = Object.hasOwn(MATCH, values.matchSelectorsOn) ? MATCH[values.matchSelectorsOn] : undefined;
  if (values.selector.length > 0 && match === undefined) throw fail('REQUEST_INVALID', 'unsupported match behavior');
  if (values.expiresBefore !== '') checkTime(values.expiresBefore);
  const selectors = values.selector.map((typed) => {
    try {
      return parseSelector(typed);
    } catch (error) {
      throw fail('REQUEST_INVALID', `error parsing selector ${quoted(typed)}: ${messageOf(error)}`, { cause: error });
    }
  });
  const choice = (typed: string) => (typed === 'true' ? true : typed === 'false' ? false : undefined);
  return {
    byAttestationType: values.attestationType,
    bySelectorMatch: selectors.length > 0 && match !== undefined ? { match, selectors } : undefined,
    byBanned: choice(values.banned),
    byCanReattest: choice(values.canReattest),
    byExpiresBefore: values.expiresBefore,
  };
}

/** Go's layout "2006-01-02 15:04:05 -0700 -07". The server reads it; a slip is told here, where it was typed. */
function checkTime(typed: string): void {
  const [, date, time, zone] = /^(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2})(?:\.\d+)? ([+-]\d{4}) [+-]\d{2}$/.exec(typed) ?? [];
  const parsed = date === undefined ? Number.NaN : Date.parse(`${date}T${time}${zone?.slice(0, 3)}:${zone?.slice(3)}`);
  if (Number.isNaN(parsed))
    throw fail('REQUEST_INVALID', `date is not valid: ${quoted(typed)} is not of the form "2006-01-02 15:04:05 -0700 -07"`);
}
