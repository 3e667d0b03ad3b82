/** Signals the process that a file names; and its successor, when that came while the files were being written. */
import { readFile } from 'node:fs/promises';
import { fail } from '../../core/errors.ts';
import type { Clock } from '../../spiffe/clock.ts';

/** As spiffe-helper. */
const TRIES = 10;
const FIRST_MS = 100;
/** How long after a signal the file is looked at: a process that was just starting may have read the old files, and writes its id only now. */
const SETTLE_MS = 10_000;
const LOOK_MS = 250;

/** Throws UNAVAILABLE when the file does not come to name a process that lives; the signal's reason. */
export async function signalByPidFile(path: string, name: NodeJS.Signals, clock: Clock, signal: AbortSignal): Promise<number> {
  for (let tries = 1; ; tries++) {
    try {
      const pid = await readPid(path);
      process.kill(pid, name);
      return pid;
    } catch (cause) {
      if (tries === TRIES) throw fail('UNAVAILABLE', `pid file ${path}: ${(cause as Error).message}`, { cause });
      await clock.sleep(FIRST_MS * 2 ** (tries - 1), signal);
    }
  }
}

/** After a signal: whoever takes the place of `pid` within a while gets it too. */
export async function followPidFile(
  path: string,
  pid: number,
  name: NodeJS.Signals,
  clock: Clock,
  signal: AbortSignal,
  told: (pid: number) => void,
): Promise<void> {
  let known = pid;
  const endMs = clock.monotonic() + SETTLE_MS;
  while (clock.monotonic() < endMs) {
    await clock.sleep(LOOK_MS, signal);
    try {
      const now = await readPid(path);
      if (now === known) continue;
      process.kill(now, name);
      known = now;
      told(now);
    } catch {
      // it is being written, or its process has not come yet
    }
  }
}

/** Never a group, nor process 1, nor ourselves. */
async function readPid(path: string): Promise<number> {
  const text = (await readFile(path, 'utf8')).trim();
  const pid = /^[1-9][0-9]{0,9}$/.test(text) ? Number(text) : 0;
  if (pid <= 1 || pid === process.pid) throw new Error(`${JSON.stringify(text.slice(0, 20))} is no process that could be signalled`);
  return pid;
}
