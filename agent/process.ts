/** What the kernel says of a process now, to tell whether it is still the one that it was. */
import { readFileSync, statSync } from 'node:fs';
import { fail } from '../core/errors.ts';

export interface ProcessState {
  /** Effective, as SO_PEERCRED's. */
  readonly uid: number;
  readonly gid: number;
  /** Clock ticks since boot: with the pid it names a process for ever. */
  readonly startTime: string;
  /** Device and inode of what it executes; where we may not look (its user is another, ours is not root), the name it goes by. */
  readonly executable: string;
}

/** About 60 µs: /proc is memory, so these reads do not wait. Throws UNAVAILABLE when there is no such process. */
export function readProcess(pid: number): ProcessState {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // the name may hold spaces and parentheses: fields are counted from the last one (proc(5))
    const end = stat.lastIndexOf(')');
    const startTime = stat.slice(end + 2).split(' ', 20)[19];
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    const [, uid, gid] = /^Uid:\s+\d+\s+(\d+).*\nGid:\s+\d+\s+(\d+)/m.exec(status) ?? [];
    if (end < 0 || !startTime || !uid || !gid) throw new Error('unexpected form');
    return { uid: Number(uid), gid: Number(gid), startTime, executable: executable(pid) ?? stat.slice(stat.indexOf('('), end + 1) };
  } catch (cause) {
    throw fail('UNAVAILABLE', `process ${pid} can't be read: it is gone, or /proc does not show it`, { cause });
  }
}

function executable(pid: number): string | undefined {
  try {
    const { dev, ino } = statSync(`/proc/${pid}/exe`, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EACCES' || code === 'EPERM') return undefined;
    throw error;
  }
}

export function sameProcess(a: ProcessState, b: ProcessState): boolean {
  return a.uid === b.uid && a.gid === b.gid && a.startTime === b.startTime && a.executable === b.executable;
}
