/** The tree of commands: words, one line about each, and the file that is loaded when one is called. */
import type { Command } from './command.ts';

export interface Leaf {
  readonly words: string;
  readonly summary: string;
  /** Runs until it is told to stop: it handles signals itself, and its process ends when it does. */
  readonly daemon?: boolean;
  load(): Promise<Command>;
}

const leaf = (words: string, summary: string, load: () => Promise<Command>): Leaf => ({ words, summary, load });
const daemon = (words: string, summary: string, load: () => Promise<Command>): Leaf => ({ words, summary, daemon: true, load });

export const GROUPS: Readonly<Record<string, string>> = {
  '': 'A SPIFFE identity provider: server, agent, Workload API, proxy. Commands and flags as spire-server and spire-agent have them.',
  server: 'The server: run it, and speak to a running one through its private socket',
  'server entry': 'Registration entries: which workload gets which identity',
  'server agent': 'Attested agents',
  'server token': 'Join tokens',
  'server bundle': 'Bundles: the keys of this trust domain and of those it federates with',
  'server x509': 'X509-SVIDs, minted by hand',
  'server jwt': 'JWT-SVIDs, minted by hand',
  'server logger': "The server's log level",
  agent: 'The agent: run it, and speak to a running one',
  'agent api': 'The Workload API, as a workload sees it',
  'agent api fetch': 'Fetches SVIDs',
  'agent api validate': 'Validates SVIDs',
  proxy: 'mTLS for programs that know nothing of it: commands and flags as ghostunnel has them',
  intention: 'Intentions: who may call whom, by a file of them',
};

export const LEAVES: readonly Leaf[] = [
  daemon('server run', 'Runs the server', async () => (await import('./run-server.ts')).run),
  leaf('server validate', "Validates the server's configuration file", async () => (await import('./run-server.ts')).validate),
  leaf('server healthcheck', 'Determines server health status', async () => (await import('./healthcheck.ts')).server),
  leaf('server entry create', 'Creates registration entries', async () => (await import('./entry.ts')).create),
  leaf('server entry show', 'Displays configured registration entries', async () => (await import('./entry.ts')).show),
  leaf('server entry update', 'Updates registration entries', async () => (await import('./entry.ts')).update),
  leaf('server entry delete', 'Deletes registration entries', async () => (await import('./entry.ts')).remove),
  leaf('server entry count', 'Count registration entries', async () => (await import('./entry.ts')).count),
  leaf('server token generate', 'Generates a join token', async () => (await import('./token.ts')).generate),
  leaf('server agent list', 'Lists attested agents and their SPIFFE IDs', async () => (await import('./attested-agent.ts')).list),
  leaf(
    'server agent show',
    'Shows the details of an attested agent given its SPIFFE ID',
    async () => (await import('./attested-agent.ts')).show,
  ),
  leaf('server agent count', 'Count attested agents', async () => (await import('./attested-agent.ts')).count),
  leaf('server agent evict', 'Evicts an attested agent given its SPIFFE ID', async () => (await import('./attested-agent.ts')).evict),
  leaf('server agent ban', 'Ban an attested agent given its SPIFFE ID', async () => (await import('./attested-agent.ts')).ban),
  leaf('server agent purge', 'Purge expired agents that can attest again', async () => (await import('./attested-agent.ts')).purge),
  leaf('server bundle show', 'Prints server CA bundle to stdout', async () => (await import('./bundle.ts')).show),
  leaf('server bundle list', 'Lists federated bundle data', async () => (await import('./bundle.ts')).list),
  leaf('server bundle set', 'Creates or updates federated bundle data', async () => (await import('./bundle.ts')).set),
  leaf('server bundle count', 'Count bundles', async () => (await import('./bundle.ts')).count),
  leaf('server bundle delete', 'Deletes federated bundle data', async () => (await import('./bundle.ts')).remove),
  leaf('server x509 mint', 'Mints an X509-SVID', async () => (await import('./mint.ts')).x509),
  leaf('server jwt mint', 'Mints a JWT-SVID', async () => (await import('./mint.ts')).jwt),
  leaf('server logger get', 'Gets the logger details', async () => (await import('./logger.ts')).get),
  leaf('server logger set', 'Sets the logger details', async () => (await import('./logger.ts')).set),
  leaf('server logger reset', 'Reset the logger details to launch level', async () => (await import('./logger.ts')).reset),
  leaf('server backup', "Makes a copy of a running server's datastore", async () => (await import('./backup.ts')).backup),
  daemon('agent run', 'Runs the agent', async () => (await import('./run-agent.ts')).run),
  leaf('agent validate', "Validates the agent's configuration file", async () => (await import('./run-agent.ts')).validate),
  leaf('agent healthcheck', 'Determines agent health status', async () => (await import('./healthcheck.ts')).agent),
  leaf('agent explain', 'Says why a process has its identities, or none', async () => (await import('./explain.ts')).explain),
  leaf('agent api fetch', 'Fetches X509 SVIDs from the Workload API', async () => (await import('./workload.ts')).fetchX509),
  leaf('agent api fetch x509', 'Fetches X509 SVIDs from the Workload API', async () => (await import('./workload.ts')).fetchX509),
  leaf('agent api fetch jwt', 'Fetches a JWT SVID from the Workload API', async () => (await import('./workload.ts')).fetchJwt),
  leaf(
    'agent api watch',
    "Attaches to the Workload API and prints updates as they're received",
    async () => (await import('./workload.ts')).watch,
  ),
  daemon('proxy server', 'Takes TLS and hands plain connections to a local target', async () => (await import('./proxy.ts')).server),
  daemon('proxy client', 'Takes plain local connections and hands them on over TLS', async () => (await import('./proxy.ts')).client),
  leaf('agent api validate jwt', 'Validates a JWT SVID', async () => (await import('./workload.ts')).validateJwt),
  leaf(
    'intention check',
    'Says whether one may call another, and which intention decides',
    async () => (await import('./intention.ts')).check,
  ),
  leaf('intention list', 'Lists all intentions, the most exact first', async () => (await import('./intention.ts')).list),
  leaf('intention match', 'Lists the intentions about one destination or one source', async () => (await import('./intention.ts')).match),
  leaf('intention validate', 'Validates a file of intentions', async () => (await import('./intention.ts')).validate),
  daemon('helper', 'Writes the SVIDs and bundles of a workload to files', async () => (await import('./helper.ts')).helper),
  leaf('helper check', 'Says whether the identity files in a folder are good', async () => (await import('./helper.ts')).check),
];

/** The command that `argv` begins with, the longest first, and what follows it. */
export function findLeaf(argv: readonly string[]): { readonly leaf: Leaf; readonly rest: readonly string[] } | undefined {
  for (let length = Math.min(argv.length, 4); length > 0; length--) {
    const words = argv.slice(0, length).join(' ');
    const found = LEAVES.find((one) => one.words === words);
    if (found) return { leaf: found, rest: argv.slice(length) };
  }
  return undefined;
}

/** The words right below a group, in the tree's order. */
export function childrenOf(group: string): readonly (readonly [word: string, summary: string])[] {
  const prefix = group === '' ? '' : `${group} `;
  const words = new Set(
    LEAVES.filter((one) => one.words.startsWith(prefix)).map((one) => one.words.slice(prefix.length).split(' ')[0] ?? ''),
  );
  return [...words].map((word) => {
    const whole = `${prefix}${word}`;
    return [word, GROUPS[whole] ?? LEAVES.find((one) => one.words === whole)?.summary ?? ''] as const;
  });
}
