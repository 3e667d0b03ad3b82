/** What the two daemons share: signals, the file mode of what they make, the end. */
import { isStop } from '../core/tasks.ts';
import type { Log } from '../core/log.ts';

export interface Signals {
  /** Aborts on the first SIGTERM or SIGINT: finish what was begun, then end. */
  readonly stop: AbortSignal;
  /** Calls `reload` on SIGUSR1 and `reopen` on SIGUSR2; before that, both do nothing. */
  handle(reload: () => void, reopen: () => void): void;
}

/** Installs the handlers. A second SIGTERM or SIGINT ends the process at once with exit code 1: what was answered is on disk. */
export function watchSignals(onStop: (name: string) => void): Signals {
  const stop = new AbortController();
  let [reload, reopen] = [() => {}, () => {}];
  const end = (name: NodeJS.Signals) => {
    if (stop.signal.aborted) process.exit(1);
    onStop(name);
    stop.abort(new Error(`stopped by ${name}`));
  };
  process.on('SIGTERM', end);
  process.on('SIGINT', end);
  process.on('SIGUSR1', () => reload());
  process.on('SIGUSR2', () => reopen());
  return {
    stop: stop.signal,
    handle(onReload, onReopen) {
      [reload, reopen] = [onReload, onReopen];
    },
  };
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

/** Runs a daemon to its end and gives the exit code; says in the log how it ended. */
export async function runToEnd(name: 'Server' | 'Agent', stop: AbortSignal, log: Log, run: () => Promise<void>): Promise<number> {
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
