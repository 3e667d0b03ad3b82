/** Process 1 of a container inherits every orphan, and must take its end: else the table of processes fills with the dead. */
import { readdir, readFile } from 'node:fs/promises';
import type { Log } from '../../core/log.ts';
import { reapChild } from '../../core/native.ts';
import { running } from './program.ts';

/** Reaps those that have ended, whenever the kernel says that one has; nothing in a process that is not number 1. Gives what ends that. */
export function reapOrphans(log: Log): () => void {
  if (process.pid !== 1) return () => {};
  let busy: Promise<void> | undefined;
  let again = false;
  const look = () => {
    again = true;
    busy ??= (async () => {
      while (again) {
        again = false;
        await reapDead(log);
      }
      busy = undefined;
    })();
  };
  process.on('SIGCHLD', look);
  look();
  return () => void process.off('SIGCHLD', look);
}

/** Ours are left to Node, which waits for them by number and would never hear of one that was taken from it. */
async function reapDead(log: Log): Promise<void> {
  for (const name of await readdir('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === 1 || running.has(pid)) continue;
    const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
    // the program's name is in parentheses and may hold anything
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (state !== 'Z' || parent !== '1' || running.has(pid)) continue;
    try {
      if (reapChild(pid)) log.debug('Orphan reaped', { pid });
    } catch (error) {
      log.warn('Orphans can not be reaped', { error });
      return;
    }
  }
}
