/** What watches a proxy: lines about connections, metrics, the status port. Only what the settings ask for is loaded. */
import type { IntentionFile } from '../core/intention-file.ts';
import type { Observer } from '../proxy/connection.ts';
import { addressText } from '../proxy/dial.ts';
import type { Identity } from '../proxy/identity.ts';
import type { ProxyMetrics } from '../proxy/metrics.ts';
import type { ProcessSettings } from '../proxy/process-settings.ts';
import type { Proxy } from '../proxy/proxy.ts';
import { readinessOf } from '../proxy/readiness.ts';
import type { StatusPort, StatusSource } from '../proxy/status.ts';
import type { AlarmClock } from '../spiffe/clock.ts';
import type { ProxyLog } from './proxy-log.ts';
import { version } from './version.ts';

export interface Watching {
  readonly observers: readonly Observer[];
  /** Undefined: nobody would look at them. */
  readonly metrics: ProxyMetrics | undefined;
}

interface Parts {
  readonly identities: ReadonlyMap<string, Identity>;
  readonly intentions: IntentionFile | undefined;
  readonly log: ProxyLog;
  readonly clock: AlarmClock;
}

/** Before the first connection. `metrics` are closed by who gets them. */
export async function openObservers(settings: ProcessSettings, { identities, intentions, log, clock }: Parts): Promise<Watching> {
  const { status, log: lines } = settings;
  const told = lines.connections !== 'off' && !lines.quiet.has('all');
  const logged = told ? (await import('../proxy/connection-log.ts')).connectionLog({ ...lines, log, clock }) : undefined;
  const metrics =
    status || pushes(settings)
      ? (await import('../proxy/metrics.ts')).createMetrics({ identities, intentions, version: version(), clock })
      : undefined;
  return { observers: [logged, metrics?.observer].filter((one) => one !== undefined), metrics };
}

function pushes({ metrics: { graphite, url } }: ProcessSettings): boolean {
  return graphite !== undefined || url !== undefined;
}

/** What this process tells of itself. */
export function sourceOf(
  settings: ProcessSettings,
  { proxy, identities, metrics }: { readonly proxy: Proxy; readonly identities: Parts['identities']; readonly metrics: ProxyMetrics },
): StatusSource {
  return {
    about: () => ({
      state: proxy.state,
      lastReloadMs: proxy.lastReloadMs,
      listeners: settings.proxy.listeners.map(({ name, target }, index) => ({
        name,
        address: proxy.listening[index]?.address ?? '',
        target: addressText(target),
      })),
    }),
    readiness: () => readinessOf({ state: proxy.state, identities }),
    snapshot: () => metrics.snapshot(proxy),
    probe: (signal) => proxy.probe(signal),
  };
}

/** Undefined where none was asked for. Throws FAILED_PRECONDITION when its address is taken. */
export async function openStatus(
  { status, metrics: { prefix }, proxy: { listeners } }: ProcessSettings,
  source: StatusSource,
  parts: {
    readonly identities: Parts['identities'];
    readonly inherited: (name: string) => number;
    readonly shutdown: () => void;
    readonly log: ProxyLog;
    readonly clock: AlarmClock;
  },
): Promise<StatusPort | undefined> {
  if (!status) return undefined;
  const { createStatus } = await import('../proxy/status.ts');
  const shown = listeners.find((one) => one.mode === 'server' || one.authenticate);
  const identity = shown && parts.identities.get(shown.identity);
  return createStatus({ ...source, ...parts, settings: status, prefix, identity, version: version() });
}

/** Pushes metrics until the signal aborts; undefined where nobody wants them. */
export function pusherOf(
  settings: ProcessSettings,
  { snapshot }: Pick<StatusSource, 'snapshot'>,
  { log, clock }: Pick<Parts, 'log' | 'clock'>,
): ((signal: AbortSignal) => Promise<void>) | undefined {
  if (!pushes(settings)) return undefined;
  return async (signal) =>
    (await import('../proxy/metrics-push.ts')).pushMetrics({ settings: settings.metrics, snapshot, log, clock }, signal);
}
