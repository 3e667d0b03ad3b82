/** Programs of others that we start: their end as a promise, and what they are told of the files. */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Clock } from '../../spiffe/clock.ts';
import type { Change } from './keeper.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface End {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Ours that run, by process id: their ends are awaited by Node and by nobody else. */
export const running = new Set<number>();

export interface Started {
  readonly child: ChildProcess;
  readonly ended: Promise<End>;
}

/** Throws what the system says when there is no such program, or it can't be run. @param group whether it leads a process group of its own */
export async function start(command: readonly string[], env: Environment, group: boolean): Promise<Started> {
  const [file = '', ...args] = command;
  const child = spawn(file, args, { env: { ...env }, stdio: 'inherit', detached: group });
  const ended = new Promise<End>((resolve) => {
    child.once('exit', (code, signal) => {
      if (child.pid !== undefined) running.delete(child.pid);
      resolve({ code, signal });
    });
  });
  if (child.pid !== undefined) running.add(child.pid);
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  return { child, ended };
}

/** SIGTERM (or `first`), and SIGKILL to what has not ended after `graceMs`. For leaders of a group: to all of it. */
export async function stop(
  { child, ended }: Started,
  group: boolean,
  graceMs: number,
  clock: Clock,
  first: NodeJS.Signals = 'SIGTERM',
): Promise<End> {
  const kill = (signal: NodeJS.Signals) => {
    try {
      if (group && child.pid !== undefined) process.kill(-child.pid, signal);
      else child.kill(signal);
    } catch {
      // it has ended
    }
  };
  kill(first);
  const over = new AbortController();
  const late = clock.sleep(graceMs, over.signal).then(
    () => kill('SIGKILL'),
    () => {},
  );
  const end = await ended;
  over.abort();
  await late;
  return end;
}

/** Runs a program to its end, which is forced after `timeoutMs` and when the signal aborts. Throws what went wrong, in words. */
export async function runToEnd(
  command: readonly string[],
  env: Environment,
  timeoutMs: number,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const started = await start(command, env, true);
  const over = new AbortController();
  const limit = AbortSignal.any([signal, over.signal]);
  let late = false;
  const timer = clock.sleep(timeoutMs, limit).then(
    () => (late = true),
    () => {},
  );
  await Promise.race([started.ended, timer]);
  const first = late || signal.aborted ? await stop(started, true, STOP_GRACE_MS, clock) : await started.ended;
  over.abort();
  await timer;
  signal.throwIfAborted();
  if (late) throw new Error(`${command[0]} had not ended after ${timeoutMs} ms`);
  if (first.signal) throw new Error(`${command[0]} was ended by ${first.signal}`);
  if (first.code !== 0) throw new Error(`${command[0]} exited with code ${first.code}`);
}

const STOP_GRACE_MS = 500;

/** What a program is told beside our own environment: of several outputs the newest change, and the files of all. */
export function environmentOf(env: Environment, changes: readonly Change[]): Environment {
  const newest = changes.at(-1);
  if (!newest) return env;
  const { event, kind, directory, spiffeId, expiresMs } = newest;
  return {
    ...env,
    WARIFU_EVENT: event,
    WARIFU_OUTPUT: changes.map(({ output }) => output).join(','),
    WARIFU_KIND: kind,
    WARIFU_DIRECTORY: directory,
    WARIFU_FILES: changes.flatMap(({ paths }) => paths).join(':'),
    ...(spiffeId !== undefined && { SPIFFE_ID: spiffeId }),
    ...(expiresMs !== undefined && { WARIFU_EXPIRES_AT: new Date(expiresMs).toISOString() }),
  };
}
