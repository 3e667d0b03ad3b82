/** `agent explain`: why a process has the identities that it has, or none. */
import {
  ExplainDefinition as Explain,
  Identity_X509Svid as X509Svid,
  type ProcessResponse,
} from '../proto/gen/warifu/api/agent/explain/v1/explain.ts';
import { fail } from '../core/errors.ts';
import { selectorKey } from '../core/selector.ts';
import { defineCommand } from './command.ts';
import { connect } from './connection.ts';
import { integer, output } from './flags.ts';
import { aligned, counted, harmless, utcTime } from './print.ts';
import { AGENT_ADMIN, agentAdminFlags, resolveSocket } from './sockets.ts';

const { process: explainProcess } = Explain.methods;

export const explain = defineCommand({
  summary: 'Says why a process has its identities, or none',
  details: `Asks the agent, through its admin socket (admin_socket_path), to attest the process as if it had called now: what was found, what is registered for it, and which
entries come nearest with the selectors that each lacks. For root and the agent's own user. Exit code 0 when the process has an identity, 2 when it has none.`,
  flags: { ...agentAdminFlags, pid: integer('The process', 0), output },
  async run({ values }, terminal) {
    if (values.pid <= 0) throw fail('REQUEST_INVALID', 'pid must be specified');
    return await connect(resolveSocket(AGENT_ADMIN, values, terminal.env), terminal, async (agent) => {
      const answer = await agent.call(Explain, explainProcess, { pid: values.pid }, { timeoutMs: TIMEOUT_MS });
      if (values.output === 'json') await agent.print(Explain, explainProcess, answer);
      else terminal.out(explanationText(values.pid, answer));
      return answer.identities.length > 0 ? 0 : 2;
    });
  },
});

/** An attestor may take ten seconds. */
const TIMEOUT_MS = 30_000;

const STATE: Readonly<Record<number, string>> = {
  [X509Svid.READY]: 'X509-SVID ready',
  [X509Svid.NOT_YET]: 'no X509-SVID yet: it is being signed, or the server is away',
  [X509Svid.REFUSED]: "the server would not sign its X509-SVID: the agent's log says why",
};

/** What a process is called it chose itself. */
function plain(lines: readonly (readonly [name: string, value: string])[]): string {
  return aligned(
    lines.map(([name, value]) => [name, harmless(value)]),
    16,
  );
}

function explanationText(pid: number, answer: ProcessResponse): string {
  const lines: [string, string][] = [
    ['Process', String(pid)],
    ['User and group', `${answer.uid}, ${answer.gid}`],
    ['Counted as', answer.party],
    ...answer.selectors.map((one): [string, string] => ['Selector', selectorKey(one)]),
    ...answer.failures.map(({ attestor, reason }): [string, string] => ['Attestor failed', `${attestor}: ${reason}`]),
    ['Entries here', counted(answer.entryCount, 'registration entry', 'registration entries')],
    [
      'Last sync',
      Number(answer.lastSync) === 0 ? 'never since the start: the server has not been heard' : utcTime(Number(answer.lastSync) * 1000),
    ],
  ];
  let text = plain(lines);
  text += `\n${answer.identities.length === 0 ? 'No identity: no entry has only selectors that the process has.' : `${counted(answer.identities.length, 'identity', 'identities')}:`}\n`;
  for (const { spiffeId, entryId, x509Svid } of answer.identities)
    text += plain([
      ['  SPIFFE ID', spiffeId],
      ['  Entry ID', entryId],
      ['  State', STATE[x509Svid] ?? String(x509Svid)],
    ]);
  if (answer.nearest.length === 0) return text;
  text += `\n${answer.identities.length === 0 ? 'Nearest' : 'Not for it, nearest'}:\n`;
  for (const { spiffeId, entryId, missing } of answer.nearest)
    text += plain([
      ['  SPIFFE ID', spiffeId],
      ['  Entry ID', entryId],
      ...missing.map((one): [string, string] => ['  lacks', selectorKey(one)]),
    ]);
  return text;
}
