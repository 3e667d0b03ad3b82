/** The life of a proxy's process: identities, listeners, status, READY; reloads; drain; exit code. */
import { keepMemoryPrivate } from '../core/native.ts';
import { runAll } from '../core/tasks.ts';
import type { ProcessSettings } from '../proxy/process-settings.ts';
import type { Proxy } from '../proxy/proxy.ts';
import type { ProxyMetrics } from '../proxy/metrics.ts';
import type { StatusPort } from '../proxy/status.ts';
import type { AlarmClock } from '../spiffe/clock.ts';
import { checkInspector, shutInspector } from './inspector.ts';
import { createProxyLog, type ProxyLog } from './proxy-log.ts';
import { openStatus, pusherOf, sourceOf } from './proxy-observers.ts';
import { type ProxySignals, watchProxySignals } from './proxy-signals.ts';
import { aborted, resolveTargets, type Started, startProxy, tellListening } from './proxy-start.ts';
import { inheritedSockets, Supervisor } from './proxy-systemd.ts';
import type { Terminal } from './terminal.ts';

/** Nothing that a proxy makes is anybody else's, unless its mode says so. */
const UMASK = 0o077;

export interface ProxyProcess {
  readonly settings: ProcessSettings;
  readonly terminal: Terminal;
  /** Told when it serves, with what was bound. */
  readonly onReady?: ((proxy: Proxy) => void) | undefined;
}

/** Gives the exit code: 0 when every connection had ended, 1 when some were cut. Throws why it could not start. */
export async function runProxy({ settings, terminal, onReady }: ProxyProcess): Promise<number> {
  shutInspector();
  checkInspector(false);
  try {
    keepMemoryPrivate();
  } catch {
    // without the native edge keys are as safe as the machine's settings make them
  }
  process.umask(UMASK);
  const { clock, env } = terminal;
  const log = createProxyLog({
    format: settings.log.format,
    priorities: settings.log.priorities,
    silent: settings.log.quiet.has('all'),
    clock,
  });
  if (settings.workers > 1) {
    const workers = await import('./proxy-first.ts');
    return workers.isWorker() ? workers.runWorker(settings, terminal, log) : workers.runFirst(settings, terminal, log);
  }
  const signals = watchProxySignals();
  for (const warning of settings.warnings) log.warn(warning);
  const supervisor = new Supervisor(env, clock);
  try {
    const inherited = inheritedSockets(env, process.pid);
    if (settings.resolve) await resolveTargets(settings);
    const started = await startProxy({ settings, log, clock, listenParts: { inherited }, signal: signals.stop });
    tellListening(settings, started.proxy.listening, log);
    const running = await openWatch({ ...started, settings, signals, inherited, log, clock });
    onReady?.(running.proxy);
    return await serve(running, { settings, signals, supervisor, log, terminal });
  } catch (error) {
    // told to stop before there was anything to stop
    if (signals.stop.aborted) return 0;
    throw error;
  }
}

/** The status port and what is pushed, where they were asked for. */
async function openWatch({
  proxy,
  identities,
  metrics,
  settings,
  signals,
  inherited,
  log,
  clock,
}: Started & {
  readonly settings: ProcessSettings;
  readonly signals: ProxySignals;
  readonly inherited: (name: string) => number;
  readonly log: ProxyLog;
  readonly clock: AlarmClock;
}): Promise<Running> {
  if (!metrics) return { proxy };
  const source = sourceOf(settings, { proxy, identities, metrics });
  const shutdown = () => signals.end('stopped at the status port');
  try {
    const status = await openStatus(settings, source, { identities, inherited, shutdown, log, clock });
    if (status) log.info('status port', { address: status.address });
    return { proxy, status, push: pusherOf(settings, source, { log, clock }), metrics };
  } catch (error) {
    metrics.close();
    await proxy.stop(AbortSignal.abort());
    throw error;
  }
}

interface Running {
  readonly proxy: Proxy;
  readonly metrics?: ProxyMetrics | undefined;
  readonly status?: StatusPort | undefined;
  readonly push?: ((signal: AbortSignal) => Promise<void>) | undefined;
}

async function serve(
  { proxy, metrics, status, push }: Running,
  parts: {
    readonly settings: ProcessSettings;
    readonly signals: ProxySignals;
    readonly supervisor: Supervisor;
    readonly log: ProxyLog;
    readonly terminal: Terminal;
  },
): Promise<number> {
  const { settings, signals, supervisor, log, terminal } = parts;
  const { clock } = terminal;
  const words = `listening on ${proxy.listening.map(({ address }) => address).join(', ')}`;
  const ended = new AbortController();
  const watching = supervisor.watch(ended.signal);
  supervisor.ready(words);
  const reload = async () => {
    if (signals.stop.aborted) return;
    supervisor.reloading();
    log.info('reloading');
    await proxy.reload();
    if (!signals.stop.aborted) supervisor.ready(words);
  };
  signals.onReload(() => void reload());
  const timedReload = async (signal: AbortSignal) => {
    const { reloadMs } = settings.proxy;
    if (reloadMs === 0) return await aborted(signal);
    for (;;) {
      await clock.sleep(reloadMs, signal, { ref: false });
      await reload();
    }
  };
  const { giveBackMemory } = await import('../core/heap.ts');
  const tasks = [aborted, timedReload, (signal: AbortSignal) => giveBackMemory(clock, log, signal), ...(push ? [push] : [])];
  await runAll(signals.stop, ...tasks).catch((error: unknown) => {
    if (!signals.stop.aborted) throw error;
  });
  supervisor.stopping();
  log.info('shutdown initiated', { count: proxy.connections.size });
  const drained = await proxy.stop(signals.force);
  metrics?.close();
  await status?.close();
  ended.abort();
  await watching;
  if (drained) log.info('shutdown complete: every connection had ended');
  else log.error('shutdown complete: connections were cut', {});
  return drained ? 0 : 1;
}
