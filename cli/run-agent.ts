/** `agent run` and `agent validate`. */
import { wipeVariable } from '../core/native.ts';
import type { Path } from '../core/settings-value.ts';
import { type Command, defineCommand } from './command.ts';
import { runDaemon } from './daemon.ts';
import { bool, type Flags, integer, type Parsed, text } from './flags.ts';
import { AGENT_TYPES } from './plugins.ts';
import { loadSettings, type Override, overridesOf } from './settings.ts';
import type { Terminal } from './terminal.ts';

const flags = {
  config: text('Path to a config file: HCL (.conf, .hcl), YAML or JSON by its ending', 'conf/agent/agent.conf', 'path'),
  expandEnv: bool('Expand environment variables ($VAR, ${VAR}; $$ for a dollar) in the config file'),
  trustDomain: text('The trust domain that this agent belongs to', '', 'name'),
  serverAddress: text('IP address or DNS name of the server', '', 'address'),
  serverPort: integer('Port number of the server', 0, 'port'),
  trustBundle: text("Path to the server's CA bundle", '', 'path'),
  trustBundleUrl: text("URL to download the server's CA bundle", '', 'url'),
  trustBundleFormat: text('Format of the bootstrap trust bundle, "pem" or "spiffe"', '', 'format'),
  insecureBootstrap: bool("If true, the agent bootstraps without verifying the server's identity"),
  rebootstrapMode: text("Can be one of 'never', 'auto', or 'always'", '', 'mode'),
  rebootstrapDelay: text('The time to delay after seeing a x509 cert mismatch from the server before rebootstrapping', '', 'duration'),
  joinToken: text(
    'A join token of the server. Every user of the machine sees it in the list of processes: better -joinTokenFile, or the environment variable WARIFU_JOIN_TOKEN',
    '',
    'token',
  ),
  joinTokenFile: text('Path to a file that holds a join token of the server', '', 'path'),
  socketPath: text('Path to bind the Agent API socket to', '', 'path'),
  dataDir: text('A directory the agent can use for its runtime data', '', 'path'),
  allowUnauthenticatedVerifiers: bool('If true, the agent permits the retrieval of X509 certificate bundles by unregistered clients'),
  disableWorkloadAPI: bool('Disable the SPIFFE Workload API'),
  disableSDSAPI: bool('Disable the Envoy SDS API'),
  logFile: text('File to write logs to; SIGUSR2 opens it again', '', 'path'),
  logFormat: text("'text' or 'json'", '', 'format'),
  logLevel: text("'debug', 'info', 'warn', or 'error'", '', 'level'),
  logSourceLocation: bool('Include source file, line number and function name in log lines'),
} satisfies Flags;

/** The setting that each flag stands for. */
export const SETTING_OF: Readonly<Record<string, Path>> = {
  trustDomain: ['agent', 'trust_domain'],
  serverAddress: ['agent', 'server_address'],
  serverPort: ['agent', 'server_port'],
  trustBundle: ['agent', 'trust_bundle_path'],
  trustBundleUrl: ['agent', 'trust_bundle_url'],
  trustBundleFormat: ['agent', 'trust_bundle_format'],
  insecureBootstrap: ['agent', 'insecure_bootstrap'],
  rebootstrapMode: ['agent', 'rebootstrap_mode'],
  rebootstrapDelay: ['agent', 'rebootstrap_delay'],
  joinToken: ['agent', 'join_token'],
  joinTokenFile: ['agent', 'join_token_file'],
  socketPath: ['agent', 'socket_path'],
  dataDir: ['agent', 'data_dir'],
  allowUnauthenticatedVerifiers: ['agent', 'allow_unauthenticated_verifiers'],
  disableWorkloadAPI: ['agent', 'disable_workload_api'],
  disableSDSAPI: ['agent', 'disable_sds_api'],
  logFile: ['agent', 'log_file'],
  logFormat: ['agent', 'log_format'],
  logLevel: ['agent', 'log_level'],
  logSourceLocation: ['agent', 'log_source_location'],
};

/** Counts when no flag names a token; over what the file says. */
export const TOKEN_VARIABLE = 'WARIFU_JOIN_TOKEN';

const details = `
A flag lies over the file, the file over the default.
Signals: SIGTERM and SIGINT finish what was begun and end (a second one ends at once), SIGUSR1 reads plugins' files again, SIGUSR2 opens the log file again.`;

export const run: Command = defineCommand({
  summary: 'Runs the agent',
  details,
  flags,
  sayError: (message) => message,
  run: (parsed, terminal) =>
    runDaemon({
      name: 'Agent',
      terminal,
      load: () => load(parsed, terminal),
      own: (settings) => settings.agent,
      program: async () => (await import('../agent/agent.ts')).runAgent,
    }),
});

export const validate: Command = defineCommand({
  summary: "Validates the agent's configuration file",
  details: 'Everything that is wrong is told at once, with file and line. Exit code 0 when nothing is. Nothing is started or written.',
  flags,
  sayError: (message) => `SPIRE agent configuration file is invalid: ${message.includes('\n') ? `\n${message}` : message}`,
  async run(parsed, terminal) {
    await load(parsed, terminal);
    terminal.out('SPIRE agent configuration file is valid.\n');
    return 0;
  },
});

async function load({ values, given }: Parsed<typeof flags>, terminal: Terminal) {
  const [{ agentSettings }, { BUILTIN }] = await Promise.all([import('../agent/settings.ts'), import('../plugins/builtin.ts')]);
  const source = {
    path: values.config,
    expandEnv: values.expandEnv,
    overrides: [...tokenOf(given, terminal.env), ...overridesOf(SETTING_OF, values, given)],
  };
  const loaded = await loadSettings(agentSettings, AGENT_TYPES, BUILTIN, source, terminal);
  forgetToken(given);
  return loaded;
}

/** What `ps` and /proc/PID/environ show of it: from now on, nothing. Until now everybody could have seen the flag. */
function forgetToken(given: ReadonlySet<string>): void {
  if (given.has('joinToken')) process.title = 'warifu agent';
  try {
    wipeVariable(TOKEN_VARIABLE);
  } catch {
    // without the native edge the agent does not start
  }
}

/** The token of the environment, which only root and we can read. */
export function tokenOf(given: ReadonlySet<string>, env: Terminal['env']): Override[] {
  const value = env[TOKEN_VARIABLE];
  if (value === undefined || value === '' || given.has('joinToken') || given.has('joinTokenFile')) return [];
  return [{ flag: TOKEN_VARIABLE, path: ['agent', 'join_token'], value }];
}
