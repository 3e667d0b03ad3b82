/** `server run` and `server validate`. */
import type { Path } from '../core/settings-value.ts';
import { type Command, defineCommand } from './command.ts';
import { runDaemon } from './daemon.ts';
import { bool, type Flags, integer, type Parsed, text } from './flags.ts';
import { SERVER_TYPES } from './plugins.ts';
import { loadSettings, overridesOf } from './settings.ts';
import type { Terminal } from './terminal.ts';

const flags = {
  config: text('Path to a config file: HCL (.conf, .hcl), YAML or JSON by its ending', 'conf/server/server.conf', 'path'),
  expandEnv: bool('Expand environment variables ($VAR, ${VAR}; $$ for a dollar) in the config file'),
  trustDomain: text('The trust domain that this server belongs to', '', 'name'),
  bindAddress: text('IP address or DNS name of the server', '', 'address'),
  serverPort: integer('Port number of the server', 0, 'port'),
  socketPath: text('Path to bind the Server API socket to', '', 'path'),
  dataDir: text('Directory to store runtime data to', '', 'path'),
  logFile: text('File to write logs to; SIGUSR2 opens it again', '', 'path'),
  logFormat: text("'text' or 'json'", '', 'format'),
  logLevel: text("'debug', 'info', 'warn', or 'error'", '', 'level'),
  restored: bool('The datastore was put back from a backup: void its unspent join tokens, and say what is undone'),
  logSourceLocation: bool('Include source file, line number and function name in log lines'),
} satisfies Flags;

/** The setting that each flag stands for. */
export const SETTING_OF: Readonly<Record<string, Path>> = {
  trustDomain: ['server', 'trust_domain'],
  bindAddress: ['server', 'bind_address'],
  serverPort: ['server', 'bind_port'],
  socketPath: ['server', 'socket_path'],
  dataDir: ['server', 'data_dir'],
  logFile: ['server', 'log_file'],
  logFormat: ['server', 'log_format'],
  logLevel: ['server', 'log_level'],
  logSourceLocation: ['server', 'log_source_location'],
  restored: ['server', 'restored'],
};

const details = `
A flag lies over the file, the file over the default.
Signals: SIGTERM and SIGINT finish what was begun and end (a second one ends at once), SIGUSR1 reads plugins' files again, SIGUSR2 opens the log file again.`;

export const run: Command = defineCommand({
  summary: 'Runs the server',
  details,
  flags,
  sayError: (message) => message,
  run: (parsed, terminal) =>
    runDaemon({
      name: 'Server',
      terminal,
      load: () => load(parsed, terminal),
      own: (settings) => settings.server,
      program: async () => (await import('../server/server.ts')).runServer,
    }),
});

export const validate: Command = defineCommand({
  summary: "Validates the server's configuration file",
  details: 'Everything that is wrong is told at once, with file and line. Exit code 0 when nothing is. Nothing is started or written.',
  flags,
  sayError: (message) => `SPIRE server configuration file is invalid: ${message.includes('\n') ? `\n${message}` : message}`,
  async run(parsed, terminal) {
    await load(parsed, terminal);
    terminal.out('SPIRE server configuration file is valid.\n');
    return 0;
  },
});

async function load({ values, given }: Parsed<typeof flags>, terminal: Terminal) {
  const [{ serverSettings }, { BUILTIN }] = await Promise.all([import('../server/settings.ts'), import('../plugins/builtin.ts')]);
  const source = { path: values.config, expandEnv: values.expandEnv, overrides: overridesOf(SETTING_OF, values, given) };
  return await loadSettings(serverSettings, SERVER_TYPES, BUILTIN, source, terminal);
}
