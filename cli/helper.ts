/** `helper`, which takes spiffe-helper's configuration, and `helper check`. */
import { formatDuration } from '../core/duration.ts';
import { isCoded } from '../core/errors.ts';
import { hearSigusr1 } from '../core/native.ts';
import { type Command, defineCommand, messageOf } from './command.ts';
import { bool, duration, type Flags, output, type Parsed, text } from './flags.ts';
import { checkInspector, shutInspector } from './inspector.ts';
import type { Terminal } from './terminal.ts';
import { version } from './version.ts';

const flags = {
  config: text('Path to a config file: HCL (.conf, .hcl), YAML or JSON by its ending', 'helper.conf', 'path'),
  'daemon-mode': bool('Run as a daemon and renew, or with =false write everything once and exit; over the file'),
  mode: text("'daemon', or 'init': write everything once and exit", '', 'mode'),
  wait: duration('How long init waits for socket, attestation and entry', 120_000),
  version: bool('Print the version'),
} satisfies Flags;

const details = `Exit codes: 0 done (as a daemon: told to stop); 2 configuration; 3 the Workload API is not there, or its answers are of no use; 4 no identity for us, or none
with that hint or SPIFFE ID; 5 files can't be written. With on_exit = "exit" the exit code is that of the command.
Signals: SIGTERM and SIGINT end it; with on_exit = "exit" these and others go to the command. Logs go to standard error: standard output is the command's.`;

export const helper: Command = defineCommand<typeof flags>({
  summary: 'Writes the SVIDs and bundles of a workload to files',
  details,
  flags,
  badFlags: 2,
  async run(parsed, terminal) {
    if (parsed.values.version) {
      terminal.out(`${version()}\n`);
      return 0;
    }
    try {
      return await runAsProgram(parsed, terminal);
    } catch (error) {
      terminal.err(`Error: ${messageOf(error)}\n`);
      return isCoded(error, 'SETTINGS_INVALID', 'REQUEST_INVALID', 'FAILED_PRECONDITION') ? 2 : 1;
    }
  },
});

async function runAsProgram({ values, given }: Parsed<typeof flags>, terminal: Terminal): Promise<number> {
  shutInspector();
  const signals = hearSignals();
  const [{ readSettingsFile }, { readSettings }, { helperSettings }] = await Promise.all([
    import('../core/settings-file.ts'),
    import('../core/schema.ts'),
    import('../proxy/helper/settings.ts'),
  ]);
  let file = await readSettingsFile(values.config, { octal: true });
  if (given.has('daemon-mode')) file = file.set(['daemon_mode'], values['daemon-mode'], '-daemon-mode');
  if (values.mode !== '') file = file.set(['daemon_mode'], MODES.get(values.mode) ?? values.mode, '-mode');
  if (given.has('wait')) file = file.set(['init_timeout'], formatDuration(values.wait), '-wait');
  const settings = readSettings(helperSettings, file);
  checkInspector(settings.insecure_allow_inspector);
  const [{ createLog }, { endpointsOf }, { runHelper }] = await Promise.all([
    import('../core/log-output.ts'),
    import('../proxy/helper/endpoint.ts'),
    import('../proxy/helper/helper.ts'),
  ]);
  const { clock, env } = terminal;
  return await runHelper(settings, {
    log: createLog({ level: settings.log_level, format: settings.log_format, stderr: true, clock }),
    clock,
    signal: AbortSignal.any([signals.stop, terminal.signal]),
    stopSignal: signals.stopSignal,
    env,
    endpoints: endpointsOf(settings.agent_address, env),
    mode: settings.daemon_mode ? 'daemon' : 'init',
    waitMs: settings.init_timeout,
    onSignal: signals.onSignal,
  });
}

const MODES: ReadonlyMap<string, boolean> = new Map([
  ['daemon', true],
  ['init', false],
]);

/** Of those that have a meaning to programs, what a wrapper hands on. */
const HANDED_ON = ['SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH', 'SIGCONT'] as const;

interface HelperSignals {
  readonly stop: AbortSignal;
  readonly stopSignal: () => NodeJS.Signals;
  readonly onSignal: (listener: (name: NodeJS.Signals) => void) => () => void;
}

function hearSignals(): HelperSignals {
  const stop = new AbortController();
  const listeners = new Set<(name: NodeJS.Signals) => void>();
  let by: NodeJS.Signals = 'SIGTERM';
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.on(name, () => {
      // a second one to a wrapper whose program does not end
      if (stop.signal.aborted) for (const tell of listeners) tell(name);
      by = stop.signal.aborted ? by : name;
      stop.abort(new Error(`stopped by ${name}`));
    });
  }
  // without somebody to hand it on to, a terminal's hang-up is no reason to leave files to expire
  for (const name of HANDED_ON) {
    process.on(name, () => {
      for (const tell of listeners) tell(name);
    });
  }
  return {
    stop: stop.signal,
    stopSignal: () => by,
    onSignal(listener) {
      if (listeners.size === 0) hearSigusr1IfWe();
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

/** Only a wrapper hands SIGUSR1 on, and only it needs what is native for that. */
function hearSigusr1IfWe(): void {
  try {
    hearSigusr1();
  } catch {
    // then it is not handed on
  }
}

export const check: Command = defineCommand({
  summary: 'Says whether the identity files in a folder are good',
  details: `Keys that fit, chains that end in a bundle, nothing expired, nothing that others can write, no key that everybody can read, no bundle of several trust domains:
whichever tool wrote them. Exit code 0 when all is well, warnings or not; 1 with a fault; 2 when the folder can't be read.`,
  flags: { output },
  operands: ['DIR'],
  badFlags: 2,
  async run({ values, operands: [directory = '.'] }, terminal) {
    const { checkFolder } = await import('../proxy/helper/check.ts');
    const report = await checkFolder(directory, terminal.clock.now()).catch((error: unknown) => {
      terminal.err(`Error: ${messageOf(error)}\n`);
      return undefined;
    });
    if (!report) return 2;
    const { files, findings } = report;
    const faults = findings.filter(({ severity }) => severity === 'fault').length;
    if (values.output === 'json') {
      const told = files.map(({ file, kind, id, expiresMs, mode }) => ({
        file,
        kind,
        spiffe_id: id ?? '',
        expires_at: expiresMs === undefined ? '' : new Date(expiresMs).toISOString(),
        mode: `0${mode.toString(8)}`,
      }));
      terminal.out(`${JSON.stringify({ files: told, findings })}\n`);
    } else {
      for (const { file, kind, id, expiresMs, mode } of files) {
        const end = expiresMs === undefined ? '' : `until ${new Date(expiresMs).toISOString()}`;
        terminal.out(`${[file.padEnd(32), kind.padEnd(15), `0${mode.toString(8)}`, id ?? '', end].join(' ').trimEnd()}\n`);
      }
      for (const { file, severity, what } of findings) terminal.out(`${severity}: ${file}: ${what}\n`);
      terminal.out(faults === 0 ? 'The files are good.\n' : `${faults} ${faults === 1 ? 'fault' : 'faults'}.\n`);
    }
    return faults === 0 ? 0 : 1;
  },
});
