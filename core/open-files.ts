/** The limit of open files, looked at before it is reached: beyond it a program can't accept, and can't say so. */
import { readFileSync } from 'node:fs';
import { fail } from './errors.ts';

/** Descriptors that a program needs besides its callers'. */
const OTHERS = 256;
/** With fewer connections it is no service. */
const FEWEST = 16;

export interface ConnectionsWanted {
  readonly connections: number;
  /** Descriptors of one connection. */
  readonly each: number;
  /** The setting that asked for so many; undefined: nobody did, fewer will do. */
  readonly setting?: string | undefined;
}

/** How many connections fit under `limit`, the wanted number at the most. Throws SETTINGS_INVALID where more was asked for, or hardly any fit. */
export function connectionsWithin(limit: number, { connections, each, setting }: ConnectionsWanted): number {
  const fit = Math.floor((limit - OTHERS) / each);
  if (fit >= connections) return connections;
  if (setting === undefined && fit >= FEWEST) return fit;
  throw fail(
    'SETTINGS_INVALID',
    `the limit of open files (RLIMIT_NOFILE) is ${limit}, and ${connections} connections need ${each * connections + OTHERS}: raise it (LimitNOFILE= of a unit, ulimit -n)${setting === undefined ? '' : `, or lower ${setting}`}`,
  );
}

/** RLIMIT_NOFILE of this process; Node has raised the soft limit to the hard one. */
export function openFilesLimit(): number {
  const soft = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
  return soft === undefined || soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft);
}
