/** The life of a proxy's process: identities, listeners, status, READY; reloads; drain; exit code. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { fail } from '../core/errors.ts';
import { keepMemoryPrivate } from '../core/native.ts';
import { runAll } from '../core/tasks.ts';
import type { Observer } from '../proxy/connection.ts';
import { plainPeerCheck } from '../proxy/plain-peer.ts';
import type { ProcessSettings } from '../proxy/process-settings.ts';
import { Proxy } from '../proxy/proxy.ts';
import { checkInspector, shutInspector } from './inspector.ts';
import { openIdentities } from './proxy-identity.ts';
import { createProxyLog, type ProxyLog } from './proxy-log.ts';
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
async function start(settings: ProcessSettings, signals: ProxySignals, log: ProxyLog, { clock, env }: Terminal) {
  if (settings.resolve) await resolveTargets(settings);
  // its schema's library is loaded only where there are intentions
  const intentions =
    settings.intentions === undefined
      ? undefined
      : await (await import('../core/intention-file.ts')).IntentionFile.open({ path: settings.intentions, clock, log });
  const identities = await openIdentities(settings.proxy, { clock, log });
  // who counts hears of the first connection: it is there before anybody listens
  const observers: Observer[] = [];
  const proxy = new Proxy({
    settings: settings.proxy,
    identities,
    intentions,
    observers,
    listenParts: { inherited: inheritedSockets(env, process.pid) },
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
  return { proxy };
}

async function serve(
  { proxy }: { readonly proxy: Proxy },
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
  await runAll(signals.stop, aborted, timedReload, (signal) => giveBackMemory(clock, log, signal)).catch((error: unknown) => {
    if (!signals.stop.aborted) throw error;
  });
  supervisor.stopping();
  log.info('shutdown initiated', { count: proxy.connections.size });
  const drained = await proxy.stop(signals.force);
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
