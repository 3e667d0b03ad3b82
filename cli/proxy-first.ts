/** A proxy of several processes: the first one, which has the sockets, the status port and the words to systemd, and the workers, which serve. */
import { fail } from '../core/errors.ts';
import { removeDead } from '../core/unix-socket.ts';
import { runAll } from '../core/tasks.ts';
import type { ProcessSettings } from '../proxy/process-settings.ts';
import { mergeReadiness, type Readiness } from '../proxy/readiness.ts';
import type { Limits } from '../proxy/settings.ts';
import { mergeSnapshots, type Snapshot } from '../proxy/snapshot.ts';
import type { About, StatusSource } from '../proxy/status.ts';
import { openIdentities } from './proxy-identity.ts';
import type { ProxyLog } from './proxy-log.ts';
import { openStatus, pusherOf, sourceOf } from './proxy-observers.ts';
import { aborted, resolveTargets, type Started, startProxy, tellListening } from './proxy-start.ts';
import { watchProxySignals } from './proxy-signals.ts';
import { inheritedSockets, Supervisor } from './proxy-systemd.ts';
import { serveFirst, tellReady, Workers } from './proxy-workers.ts';
import type { Terminal } from './terminal.ts';

export { isWorker } from './proxy-workers.ts';

interface Report {
  readonly about: About;
  readonly readiness: Readiness;
  readonly snapshot: Snapshot;
}

/** Gives the exit code, as `runProxy`. */
export async function runFirst(settings: ProcessSettings, { clock, env }: Terminal, log: ProxyLog): Promise<number> {
  const signals = watchProxySignals();
  for (const warning of settings.warnings) log.warn(warning);
  const supervisor = new Supervisor(env, clock);
  if (settings.resolve) await resolveTargets(settings);
  for (const { listen } of settings.proxy.listeners) if (listen.kind === 'unix') await removeDead(listen.path);
  const workers = new Workers<Report>({ count: settings.workers, log, clock });
  signals.stop.addEventListener('abort', () => workers.order('stop'), { once: true });
  signals.force.addEventListener('abort', () => workers.order('force'), { once: true });
  if (signals.stop.aborted) workers.order('stop');
  const listening = await Promise.race([workers.ready, workers.ended.then(() => undefined)]);
  // told to stop before they listened
  if (!listening) return 0;
  tellListening(
    settings,
    listening.map((address) => ({ address })),
    log,
  );
  const source: StatusSource = {
    async about() {
      const [first, ...others] = await workers.reports();
      if (!first) return { state: signals.stop.aborted ? 'stopping' : 'initializing', lastReloadMs: undefined, listeners: [] };
      const reloads = [first, ...others].flatMap(({ about }) => about.lastReloadMs ?? []);
      return { ...first.about, lastReloadMs: reloads.length > 0 ? Math.min(...reloads) : undefined };
    },
    readiness: async () => mergeReadiness((await workers.reports()).map(({ readiness }) => readiness)),
    snapshot: async () => mergeSnapshots((await workers.reports()).map(({ snapshot }) => snapshot)),
    probe: (signal) => workers.probe(signal),
  };
  // a certificate for the status port, where that speaks TLS
  const identities =
    settings.status && settings.status.scheme !== 'http' ? await openIdentities(settings.proxy, { clock, log }) : new Map();
  await Promise.all([...identities.values()].map((identity) => identity.ready(signals.stop)));
  const shutdown = () => signals.end('stopped at the status port');
  const status = await openStatus(settings, source, { identities, inherited: inheritedSockets(env, process.pid), shutdown, log, clock });
  if (status) log.info('status port', { address: status.address });
  const push = pusherOf(settings, source, { log, clock });

  const words = `listening on ${listening.join(', ')}, ${settings.workers} workers`;
  const ended = new AbortController();
  const watching = supervisor.watch(ended.signal, () => workers.alive > 0);
  supervisor.ready(words);
  signals.onReload(() => {
    if (signals.stop.aborted) return;
    supervisor.reloading();
    log.info('reloading');
    workers.order('reload');
    supervisor.ready(words);
  });
  await runAll(signals.stop, aborted, ...(push ? [push] : [])).catch((error: unknown) => {
    if (!signals.stop.aborted) throw error;
  });
  supervisor.stopping();
  log.info('shutdown initiated');
  const drained = await workers.ended;
  await status?.close();
  await Promise.all([...identities.values()].map((identity) => identity.close()));
  ended.abort();
  await watching;
  if (drained) log.info('shutdown complete: every connection had ended');
  else log.error('shutdown complete: connections were cut', {});
  return drained ? 0 : 1;
}

/** Gives the exit code: 0 when every connection of this worker had ended by itself. */
export async function runWorker(settings: ProcessSettings, { clock, env }: Terminal, log: ProxyLog): Promise<number> {
  const stop = new AbortController();
  const force = new AbortController();
  // the first process tells what to do: a signal to the whole group must not count twice
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const) process.on(name, () => {});
  let reload = () => {};
  let started: Started | undefined;
  const watched: { source?: StatusSource | undefined } = {};
  const serving = <T>(one: T | undefined): T => {
    if (one === undefined) throw fail('UNAVAILABLE', 'it does not serve yet');
    return one;
  };
  const report = async (): Promise<Report> => {
    const { about, readiness, snapshot } = serving(watched.source);
    return { about: await about(), readiness: await readiness(), snapshot: await snapshot() };
  };
  serveFirst<Report>({
    onOrder(order) {
      if (order === 'reload') reload();
      else if (order === 'stop') stop.abort(new Error('stopped by the first process'));
      else {
        stop.abort(new Error('stopped by the first process'));
        force.abort(new Error('forced by the first process'));
      }
    },
    report,
    probe: (signal) => serving(started).proxy.probe(signal),
  });
  const own = { ...settings, proxy: { ...settings.proxy, limits: shareOf(settings.proxy.limits, settings.workers) } };
  const listenParts = { inherited: inheritedSockets(env, process.ppid), shared: true };
  try {
    started = await startProxy({ settings: own, log, clock, listenParts, signal: stop.signal });
  } catch (error) {
    if (stop.signal.aborted) return 0;
    throw error;
  }
  const { proxy, metrics, identities } = started;
  // where nobody looks, nobody asks
  watched.source = metrics && sourceOf(settings, { proxy, identities, metrics });
  reload = () => void proxy.reload();
  tellReady(proxy.listening.map(({ address }) => address));
  const timedReload = async (signal: AbortSignal) => {
    const { reloadMs } = settings.proxy;
    if (reloadMs === 0) return await aborted(signal);
    for (;;) {
      await clock.sleep(reloadMs, signal, { ref: false });
      await proxy.reload();
    }
  };
  const { giveBackMemory } = await import('../core/heap.ts');
  await runAll(stop.signal, aborted, timedReload, (signal) => giveBackMemory(clock, log, signal)).catch((error: unknown) => {
    if (!stop.signal.aborted) throw error;
  });
  const drained = await proxy.stop(force.signal);
  metrics?.close();
  return drained ? 0 : 1;
}

/** What each may take, so that all together take no more. */
function shareOf({ maxConnections, maxConnectionsPerId, maxHandshakesPerSecond }: Limits, workers: number): Limits {
  const share = (limit: number) => (limit === 0 ? 0 : Math.max(1, Math.floor(limit / workers)));
  return {
    maxConnections: share(maxConnections),
    maxConnectionsPerId: share(maxConnectionsPerId),
    maxHandshakesPerSecond: share(maxHandshakesPerSecond),
  };
}
