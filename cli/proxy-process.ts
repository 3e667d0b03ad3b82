/** The life of a proxy's process: identities, listeners, status, READY; reloads; drain; exit code. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { fail } from '../core/errors.ts';
import { keepMemoryPrivate } from '../core/native.ts';
import { runAll } from '../core/tasks.ts';
import { plainPeerCheck } from '../proxy/plain-peer.ts';
import type { ProcessSettings } from '../proxy/process-settings.ts';
import { Proxy } from '../proxy/proxy.ts';
import type { ProxyMetrics } from '../proxy/metrics.ts';
import type { StatusPort } from '../proxy/status.ts';
import { checkInspector, shutInspector } from './inspector.ts';
import { openIdentities } from './proxy-identity.ts';
import { createProxyLog, type ProxyLog } from './proxy-log.ts';
import { openObservers, openStatus, pusherOf, sourceOf } from './proxy-observers.ts';
import { type ProxySignals, watchProxySignals } from './proxy-signals.ts';
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
  const signals = watchProxySignals();
  const { clock, env } = terminal;
  const log = createProxyLog({
    format: settings.log.format,
    priorities: settings.log.priorities,
    silent: settings.log.quiet.has('all'),
    clock,
  });
  for (const warning of settings.warnings) log.warn(warning);
  const supervisor = new Supervisor(env, clock);
  try {
    const running = await start(settings, signals, log, terminal);
    onReady?.(running.proxy);
    return await serve(running, { settings, signals, supervisor, log, terminal });
  } catch (error) {
    // told to stop before there was anything to stop
    if (signals.stop.aborted) return 0;
    throw error;
  }
}

/** In ghostunnel's order: identities, listeners, status port. What was opened before a fault is closed. */
async function start(settings: ProcessSettings, signals: ProxySignals, log: ProxyLog, { clock, env }: Terminal): Promise<Running> {
  if (settings.resolve) await resolveTargets(settings);
  // its schema's library is loaded only where there are intentions
  const intentions =
    settings.intentions === undefined
      ? undefined
      : await (await import('../core/intention-file.ts')).IntentionFile.open({ path: settings.intentions, clock, log });
  const identities = await openIdentities(settings.proxy, { clock, log });
  // who counts hears of the first connection: it is there before anybody listens
  const { observers, metrics } = await openObservers(settings, { identities, intentions, log, clock });
  const inherited = inheritedSockets(env, process.pid);
  const proxy = new Proxy({
    settings: settings.proxy,
    identities,
    intentions,
    observers,
    listenParts: { inherited },
    plainPeerCheck,
    log,
    clock,
  });
  await proxy.start(signals.stop);
  settings.proxy.listeners.forEach((one, index) => {
    log.info('listening for connections', {
      address: proxy.listening[index]?.address ?? '',
      network: one.listen.kind === 'tcp' ? 'tcp' : 'unix',
    });
  });
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

/** Throws the signal's reason when it aborts. */
function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((_, reject) => {
    if (signal.aborted) return reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    return undefined;
  });
}

/** A name that nobody knows is most likely a slip. Throws SETTINGS_INVALID. */
async function resolveTargets({ proxy }: ProcessSettings): Promise<void> {
  for (const { target } of proxy.listeners) {
    if (target.kind !== 'tcp' || isIP(target.host.split('%')[0] ?? '') !== 0) continue;
    try {
      await lookup(target.host);
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      throw fail(
        'SETTINGS_INVALID',
        `invalid target address: lookup ${target.host}: ${code === 'ENOTFOUND' || code === 'EAI_AGAIN' ? 'no such host' : String(code)} (--skip-resolve leaves it for later)`,
        { cause },
      );
    }
  }
}
