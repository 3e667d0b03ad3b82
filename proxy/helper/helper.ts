/** `warifu helper`: takes the workload's SVIDs and bundles from the Workload API and keeps files of them, for programs that know nothing else. */
import { stat } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { fail, isCoded } from '../../core/errors.ts';
import type { Log } from '../../core/log.ts';
import { notifySystemd } from '../../core/native.ts';
import { isStop, runAll, type Task } from '../../core/tasks.ts';
import type { Clock } from '../../spiffe/clock.ts';
import { ownershipOf } from './accounts.ts';
import { splitArguments } from './arguments.ts';
import { Companion } from './companion.ts';
import { choose, type Endpoints, outlived } from './endpoint.ts';
import type { Place } from './files.ts';
import { Hook } from './hooks.ts';
import { type Change, Keeper } from './keeper.ts';
import { createMetrics } from './metrics.ts';
import { reapOrphans } from './orphans.ts';
import type { End, Environment } from './program.ts';
import { listenProbes } from './probes.ts';
import { type HelperFile, type Output, outputsOf, warningsOf } from './settings.ts';
import { alarmOf, nextAlarmMs, Status } from './status.ts';
import { followWorkloadApi, passwordOf } from './supply.ts';

/** How the helper ends. */
export const EXIT = { ok: 0, config: 2, unreachable: 3, denied: 4, write: 5 } as const;

export interface HelperParts {
  readonly log: Log;
  readonly clock: Clock;
  /** Aborts: end. */
  readonly signal: AbortSignal;
  /** Which signal that was. */
  readonly stopSignal: () => NodeJS.Signals;
  readonly env: Environment;
  readonly endpoints: Endpoints;
  /** `init`: until every file is there, or the time is over. */
  readonly mode: 'daemon' | 'init';
  /** Of `init`. */
  readonly waitMs: number;
  /** Hears of the signals that a program inside gets; gives what takes that back. */
  readonly onSignal: (listener: (name: NodeJS.Signals) => void) => () => void;
  readonly random?: () => number;
}

/** Gives the exit code. Throws SETTINGS_INVALID for what can't work, FAILED_PRECONDITION for an address that is taken. */
export async function runHelper(file: HelperFile, parts: HelperParts): Promise<number> {
  const { log, clock, signal, mode } = parts;
  const outputs = outputsOf(file);
  const places = await placesOf(outputs);
  const passwords = await passwordsOf(outputs);
  const command = commandOf(file);
  for (const warning of warningsOf(file)) log.warn(warning);
  for (const skipped of parts.endpoints.skipped) log.warn('Entry of SPIFFE_ENDPOINT passed over', { address: skipped });

  const status = new Status(
    outputs.map(({ name, kind, directory, ...one }) => ({
      name,
      kind,
      path: 'fileName' in one ? join(directory, one.fileName) : directory,
    })),
  );
  const isReady = () => status.ready(clock.now());
  const isDaemon = mode === 'daemon';
  const counts = new Map(hooksOf(file).map(([name]) => [name, { success: 0, error: 0 }]));
  const told = (hook: string, result: 'success' | 'error') => {
    const count = counts.get(hook);
    if (count) count[result]++;
  };
  const hookParts = { log, clock, env: parts.env, told };
  const hooks = isDaemon ? hooksOf(file).map(([name, block]) => new Hook(name, block, hookParts)) : [];
  const companion = isDaemon && command ? new Companion(companionOf(file, command, outputs), parts) : undefined;
  const tell = (change: Change) => {
    companion?.hear(change);
    for (const hook of hooks) hook.hear(change);
  };
  const keepers = new Map(
    outputs.map(({ name, kind }) => [name, new Keeper(places.get(name) as Place, kind, { status, log, clock, tell })]),
  );

  const stopReaping = reapOrphans(log);
  const probes =
    isDaemon && file.health_checks.listener_enabled
      ? await listenProbes(file.health_checks, { status, isReady, log, metrics: await createMetrics(status, counts, isReady) })
      : undefined;
  if (probes)
    log.info('Probes are answered', { address: file.health_checks.socket_path ?? `${file.health_checks.bind_address}:${probes.port}` });
  const takeBack: (() => void)[] = [];
  if (companion && file.on_exit === 'exit') takeBack.push(parts.onSignal((name) => companion.signal(name)));

  let end: End | undefined;
  let outOfTime = false;
  const complete = whenComplete(status);
  const failed = isDaemon ? undefined : whenFailed(status);
  const supply: Task = async (either) => {
    for (;;) {
      const address = await choose(parts.endpoints.addresses, clock, either);
      log.info('Workload API', { address });
      await runAll(
        either,
        (inner) =>
          followWorkloadApi({ address, outputs, keepers, passwords, isDaemon, log, clock, random: parts.random ?? Math.random }, inner),
        (inner) => outlived(parts.endpoints.addresses, address, clock, inner),
      );
      either.throwIfAborted();
      log.warn('Workload API answers no more, another one does', { address });
    }
  };
  const tasks: Task[] = [
    supply,
    ...[...keepers.values()].map(
      (keeper): Task =>
        (either) =>
          keeper.run(either),
    ),
  ];
  if (isDaemon) {
    tasks.push(
      ...hooks.map(
        (hook): Task =>
          (either) =>
            hook.run(either),
      ),
      (either) => watchExpiry(status, keepers, log, clock, either),
      async (either) => {
        await until(complete, either);
        notify('READY=1', parts, log);
        log.info('Every output is written');
        companion?.begin();
        await forever(either);
      },
    );
    if (companion) tasks.push(async (either) => void (end = await companion.run(either)));
  } else {
    tasks.push((either) => until(complete, either));
    if (failed) tasks.push((either) => until(failed, either));
    tasks.push(async (either) => {
      await clock.sleep(parts.waitMs, either);
      outOfTime = true;
    });
  }

  try {
    await runAll(signal, ...tasks);
  } catch (error) {
    if (!isStop(error, signal)) return exitOf(error, log);
  } finally {
    for (const undo of takeBack) undo();
    notify('STOPPING=1', parts, log);
    await probes?.close();
    stopReaping();
  }
  if (isDaemon) return end ? codeOf(end) : EXIT.ok;
  if (status.complete) {
    log.info('Every output is written');
    return EXIT.ok;
  }
  // nobody should take files for written that are not
  if (!outOfTime && signal.aborted && status.live) return codeOf({ code: null, signal: parts.stopSignal() });
  return initCode(status, parts.waitMs, outOfTime, log);
}

/** What is worst: a disk that can't be written, then an identity that is not given, then an agent that is not there. */
function initCode(status: Status, waitMs: number, outOfTime: boolean, log: Log): number {
  const open = status.outputs.filter(({ state }) => state !== 'written');
  for (const { name, lack } of open)
    log.error(outOfTime ? 'Files not written in time' : 'Files not written', {
      output: name,
      elapsed_ms: waitMs,
      error: lack?.why ?? 'nothing has come',
    });
  const codes = open.map(({ lack }) => lack?.code);
  if (codes.includes('STORE_FAILED')) return EXIT.write;
  return codes.some((code) => code === 'DENIED' || code === 'NOT_FOUND') ? EXIT.denied : EXIT.unreachable;
}

/** Of what no waiting mends. */
function exitOf(error: unknown, log: Log): number {
  log.error('Helper ended', { error });
  if (isCoded(error, 'SETTINGS_INVALID', 'REQUEST_INVALID')) return EXIT.config;
  if (isCoded(error, 'STORE_FAILED')) return EXIT.write;
  if (isCoded(error, 'DENIED')) return EXIT.denied;
  return EXIT.unreachable;
}

/** As a shell has it for a program that a signal ended. */
function codeOf({ code, signal }: End): number {
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}

async function placesOf(outputs: readonly Output[]): Promise<ReadonlyMap<string, Place>> {
  const faults: string[] = [];
  const places = new Map<string, Place>();
  for (const output of outputs) {
    const { name, directory, owner, group } = output;
    const found = await stat(directory).catch((error: Error) => error);
    if (found instanceof Error)
      faults.push(`directory ${JSON.stringify(directory)} of output ${name}: ${found.message}; it must be there before the helper starts`);
    else if (!found.isDirectory()) faults.push(`${JSON.stringify(directory)} of output ${name} is no directory`);
    try {
      places.set(name, {
        name,
        directory,
        atomic: output.kind === 'x509' ? output.atomic : 'rename',
        ownership: await ownershipOf(owner, group),
      });
    } catch (error) {
      faults.push(`output ${name}: ${(error as Error).message}`);
    }
  }
  if (faults.length > 0) throw fail('SETTINGS_INVALID', faults.join('\n'));
  return places;
}

async function passwordsOf(outputs: readonly Output[]): Promise<ReadonlyMap<string, string>> {
  const passwords = new Map<string, string>();
  for (const output of outputs)
    if (output.kind === 'x509' && output.passwordFile !== undefined) passwords.set(output.name, await passwordOf(output.passwordFile));
  return passwords;
}

function commandOf(file: HelperFile): readonly string[] | undefined {
  return file.command ?? (file.cmd === undefined ? undefined : [file.cmd, ...splitArguments(file.cmd_args ?? '')]);
}

/** Less than a second, which is what a container is given at the least. */
const STOP_MS = 700;
/** A wrapper waits for what it wraps. */
const WRAPPER_STOP_MS = 86_400_000;

function companionOf(file: HelperFile, command: readonly string[], outputs: readonly Output[]): ConstructorParameters<typeof Companion>[0] {
  return {
    command,
    renewSignal: file.renew_signal as NodeJS.Signals | undefined,
    renewOn: renewOn(file, outputs),
    onExit: file.on_exit,
    restartDelayMs: file.restart_delay,
    stopMs: file.stop_timeout ?? (file.on_exit === 'exit' ? WRAPPER_STOP_MS : STOP_MS),
  };
}

/** spiffe-helper acts on X.509-SVIDs alone; where there are none it would never act. */
function renewOn(file: HelperFile, outputs: readonly Output[]): readonly ('x509' | 'jwt' | 'bundle')[] {
  return file.renew_on ?? (outputs.some(({ kind }) => kind === 'x509') ? ['x509'] : ['jwt', 'bundle']);
}

/** The blocks, and spiffe-helper's pid file, which is one too. */
function hooksOf(file: HelperFile): readonly (readonly [name: string, block: HelperFile['hook'][string]])[] {
  const { pid_file_name: pidFile, renew_signal: renewSignal } = file;
  const blocks = Object.entries(file.hook);
  if (pidFile === undefined || renewSignal === undefined) return blocks;
  const kinds = [...renewOn(file, outputsOf(file))];
  return [
    ...blocks,
    ['pid_file_name', { kinds, events: ['renewed'], signal: renewSignal, pid_file: pidFile, debounce: 0, timeout: 120_000 }],
  ];
}

/** Tells of ends that come near: what renews itself at half of its life has not been renewed. */
async function watchExpiry(
  status: Status,
  keepers: ReadonlyMap<string, Keeper>,
  log: Log,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const nowMs = clock.now();
    for (const one of status.outputs) {
      const alarm = alarmOf(one, nowMs);
      if (alarm === one.alarm) continue;
      one.alarm = alarm;
      if (alarm === 'none' || one.expiresMs === undefined) continue;
      const fields = { output: one.name, expires_at: new Date(one.expiresMs), ...(one.lack && { error: one.lack.why }) };
      if (alarm === 'warning') log.warn('Files end soon, and no newer ones have come', fields);
      else log.error(one.expiresMs > nowMs ? 'Files are about to end, and no newer ones have come' : 'Files have ended', fields);
      keepers.get(one.name)?.expiring();
    }
    const nextMs = Math.min(...status.outputs.map((one) => nextAlarmMs(one, nowMs)));
    const woken = new AbortController();
    const off = status.onChange(() => woken.abort());
    // the wall clock may jump: looked at once a minute at least
    await clock.sleep(Math.min(Math.max(nextMs - nowMs, 10), 60_000), AbortSignal.any([signal, woken.signal])).catch(() => {});
    off();
    signal.throwIfAborted();
  }
}

interface Moment {
  readonly reached: Promise<void>;
}

function moment(status: Status, is: () => boolean): Moment {
  return {
    reached: new Promise((resolve) => {
      const off = status.onChange(() => {
        if (!is()) return;
        off();
        resolve();
      });
    }),
  };
}
const whenComplete = (status: Status) => moment(status, () => status.complete);
const whenFailed = (status: Status) => moment(status, () => !status.live);

/** Throws the signal's reason when that comes first. */
async function until({ reached }: Moment, signal: AbortSignal): Promise<void> {
  await Promise.race([reached, forever(signal)]);
}

function forever(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason as Error);
    else signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}

function notify(state: string, { env }: HelperParts, log: Log): void {
  if (env['NOTIFY_SOCKET'] === undefined) return;
  try {
    notifySystemd(state);
  } catch (error) {
    log.warn('systemd was not told', { error });
  }
}
