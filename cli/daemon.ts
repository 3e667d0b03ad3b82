/** What the two daemons share: signals, the file mode of what they make, the end. */
import type { Level, Log } from '../core/log.ts';
import { hearSigusr1, keepMemoryPrivate } from '../core/native.ts';
import type { ReadyPlugin } from '../core/plugin/ready.ts';
import type { ProgramParts } from '../core/program.ts';
import { isStop, runAll } from '../core/tasks.ts';
import { Latest } from '../spiffe/latest.ts';
import { checkInspector, shutInspector } from './inspector.ts';
import type { Terminal } from './terminal.ts';
import { version } from './version.ts';

export interface Signals {
  /** Aborts on the first SIGTERM or SIGINT: finish what was begun, then end. */
  readonly stop: AbortSignal;
  /** Counts SIGUSR1: plugins' files are to be read again. */
  readonly reloads: Latest<number>;
  /** Counts SIGUSR2: the log file is to be opened again. */
  readonly reopens: Latest<number>;
}

/** Installs the handlers. A second SIGTERM or SIGINT ends the process at once with exit code 1: what was answered is on disk. */
export function watchSignals(): Signals {
  const stop = new AbortController();
  const [reloads, reopens] = [new Latest(0), new Latest(0)];
  const end = (name: NodeJS.Signals) => {
    if (stop.signal.aborted) process.exit(1);
    stop.abort(new Error(`stopped by ${name}`));
  };
  process.on('SIGTERM', end);
  process.on('SIGINT', end);
  process.on('SIGUSR1', () => reloads.set(reloads.value + 1));
  process.on('SIGUSR2', () => reopens.set(reopens.value + 1));
  try {
    hearSigusr1();
  } catch {
    // without the native edge the daemon does not start anyway, and says so itself
  }
  return { stop: stop.signal, reloads, reopens };
}

/** At least 027, as SPIRE: nothing that we make is written by a group or read by others, unless its mode says so. */
const UMASK = 0o027;

/** Tightens the umask; gives what it was when that was too wide. */
export function tightenUmask(): number | undefined {
  const before = process.umask();
  if ((before & UMASK) === UMASK) return undefined;
  process.umask(before | UMASK);
  return before;
}

/** What both programs' settings say of their log, and of Node's inspector. */
export interface DaemonSettings {
  readonly log_level: Level;
  readonly log_format: 'text' | 'json';
  readonly log_file?: string | undefined;
  readonly log_source_location: boolean;
  readonly insecure_allow_inspector: boolean;
}

/** A daemon from its first breath to its exit code: signals, settings, log, and the program itself, which is loaded last. */
export async function runDaemon<S>(daemon: {
  readonly name: 'Server' | 'Agent';
  readonly terminal: Terminal;
  readonly load: () => Promise<{ readonly settings: S; readonly plugins: readonly ReadyPlugin[] }>;
  readonly own: (settings: S) => DaemonSettings;
  readonly program: () => Promise<(settings: S, parts: ProgramParts) => Promise<void>>;
}): Promise<number> {
  shutInspector();
  hideMemory();
  const { stop, reloads, reopens } = watchSignals();
  const { clock } = daemon.terminal;
  const { settings, plugins } = await daemon.load();
  const own = daemon.own(settings);
  checkInspector(own.insecure_allow_inspector);
  const { createLog } = await import('../core/log-output.ts');
  const log = createLog({
    level: own.log_level,
    format: own.log_format,
    path: own.log_file,
    sourceLocation: own.log_source_location,
    clock,
    reopens,
  });
  const program = await daemon.program();
  const { giveBackMemory } = await import('../core/heap.ts');
  return await runToEnd(daemon.name, stop, log, () =>
    runAll(
      stop,
      (signal) => program(settings, { plugins, log, clock, signal, reloads, version: version() }),
      (signal) => giveBackMemory(clock, log, signal),
    ),
  );
}

function hideMemory(): void {
  try {
    keepMemoryPrivate();
  } catch {
    // without the native edge the daemon does not start anyway, and says so itself
  }
}

/** Runs a daemon to its end and gives the exit code; says in the log how it ended. */
export async function runToEnd(name: 'Server' | 'Agent', stop: AbortSignal, log: Log, run: () => Promise<void>): Promise<number> {
  const before = tightenUmask();
  if (before !== undefined) log.warn(`Current umask ${octal(before)} is too permissive; setting umask ${octal(before | UMASK)}`);
  try {
    await run();
  } catch (error) {
    if (!isStop(error, stop)) {
      log.error(`${name} crashed`, { error });
      return 1;
    }
  }
  log.info(`${name} stopped gracefully`);
  return 0;
}

function octal(mask: number): string {
  return `0${mask.toString(8).padStart(3, '0')}`;
}
