/** How a proxy's process starts, be it the only one or one of several. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { fail } from '../core/errors.ts';
import type { Identity } from '../proxy/identity.ts';
import type { ProxyMetrics } from '../proxy/metrics.ts';
import { plainPeerCheck } from '../proxy/plain-peer.ts';
import type { ProcessSettings } from '../proxy/process-settings.ts';
import { Proxy, type ProxyParts } from '../proxy/proxy.ts';
import type { AlarmClock } from '../spiffe/clock.ts';
import { openIdentities } from './proxy-identity.ts';
import type { ProxyLog } from './proxy-log.ts';
import { openObservers } from './proxy-observers.ts';

export interface Started {
  readonly proxy: Proxy;
  readonly identities: ReadonlyMap<string, Identity>;
  /** Undefined: nobody would look at them. */
  readonly metrics: ProxyMetrics | undefined;
}

/** Identities, then listeners. What was opened before a fault is closed. */
export async function startProxy({
  settings,
  log,
  clock,
  listenParts,
  signal,
}: {
  readonly settings: ProcessSettings;
  readonly log: ProxyLog;
  readonly clock: AlarmClock;
  readonly listenParts: ProxyParts['listenParts'];
  readonly signal: AbortSignal;
}): Promise<Started> {
  // its schema's library is loaded only where there are intentions
  const intentions =
    settings.intentions === undefined
      ? undefined
      : await (await import('../core/intention-file.ts')).IntentionFile.open({ path: settings.intentions, clock, log });
  const identities = await openIdentities(settings.proxy, { clock, log });
  // who counts hears of the first connection: it is there before anybody listens
  const { observers, metrics } = await openObservers(settings, { identities, intentions, log, clock });
  const proxy = new Proxy({ settings: settings.proxy, identities, intentions, observers, listenParts, plainPeerCheck, log, clock });
  await proxy.start(signal);
  return { proxy, identities, metrics };
}

export function tellListening(settings: ProcessSettings, listening: readonly { readonly address: string }[], log: ProxyLog): void {
  settings.proxy.listeners.forEach((one, index) => {
    log.info('listening for connections', {
      address: listening[index]?.address ?? '',
      network: one.listen.kind === 'tcp' ? 'tcp' : 'unix',
    });
  });
}

/** Throws the signal's reason when it aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((_, reject) => {
    if (signal.aborted) return reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    return undefined;
  });
}

/** A name that nobody knows is most likely a slip. Throws SETTINGS_INVALID. */
export async function resolveTargets({ proxy }: ProcessSettings): Promise<void> {
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
