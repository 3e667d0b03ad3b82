/** Keeps entries and bundles equal to the server's: by its push stream, and where it has none by SPIRE's polling. */
import { fail, isCoded } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { Bundle } from '../spiffe/bundle/bundle.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { Latest } from '../spiffe/latest.ts';
import type { Registration } from './cache.ts';
import { backoffMs } from './renewal.ts';
import { rpcErrorText, type ServerConnection } from './server-client.ts';

/** What is kept equal. */
export interface Replica {
  digest(): Buffer;
  get(id: string): Registration | undefined;
  ids(): Iterable<string>;
  apply(upserts: readonly Registration[], removed: readonly string[]): void;
  /** `complete`: others than these are to go. */
  applyBundles(bundles: readonly Bundle[], removed: readonly string[], complete: boolean): void;
  /** From now on the server must have been issued by one of these. */
  applyIssuers(issuers: readonly Certificate[]): void;
  /** Trust domains that the entries federate with. */
  federatesWith(): readonly TrustDomain[];
  /** Everything is as the server has it. */
  synced(): void;
}

export interface SyncOptions {
  readonly connections: Latest<ServerConnection>;
  readonly replica: Replica;
  /** Looks at each failure; see `Identity.report`. */
  readonly report: (error: unknown, connection: ServerConnection, signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
  /** Between two polls; default 5 s. */
  readonly intervalMs?: number;
  /** SPIRE's older call instead of the delta protocol. Default true: the delta protocol. */
  readonly useDelta?: boolean;
  /** Told after each try whether it worked. */
  readonly onTried?: (worked: boolean) => void;
}

const INTERVAL_MS = 5_000;
const MAX_BACKOFF_MS = 30_000;
/** As SPIRE: 48 intervals, at most 8 minutes. */
const maxPollBackoffMs = (intervalMs: number) => Math.min(480_000, 48 * intervalMs);
const WANTED_AT_ONCE = 5_000;

/** Runs until the signal aborts. */
export async function runSync(options: SyncOptions, signal: AbortSignal): Promise<void> {
  const { connections, clock, log, report } = options;
  let failures = 0;
  const succeeded = () => {
    failures = 0;
    options.onTried?.(true);
    options.replica.synced();
  };
  for (;;) {
    const connection = connections.value;
    const renewed = new AbortController();
    const either = AbortSignal.any([signal, renewed.signal]);
    void abortOnNext(connections, connection, renewed, signal);
    try {
      await follow(options, connection, succeeded, either);
      // the server ended the stream: it stops, or wants us to come again
    } catch (error) {
      signal.throwIfAborted();
      if (!renewed.signal.aborted) {
        if (isCoded(error, 'UNIMPLEMENTED')) {
          log.info('The server has no push stream; polling', { elapsed_ms: options.intervalMs ?? INTERVAL_MS });
          await poll(options, connection, succeeded, either).catch((reason: unknown) => {
            signal.throwIfAborted();
            if (!renewed.signal.aborted) throw reason;
          });
        } else {
          log.warn('The push stream ended; connecting again', { error: fail('UNAVAILABLE', rpcErrorText(error)) });
          options.onTried?.(false);
          await report(error, connection, signal);
        }
      }
    } finally {
      renewed.abort();
    }
    signal.throwIfAborted();
    // the first time at once
    if (connections.value === connection && failures++ > 0)
      await clock.sleep(backoffMs(failures - 1, 250, MAX_BACKOFF_MS, Math.random()), signal);
  }
}

async function abortOnNext(
  connections: Latest<ServerConnection>,
  current: ServerConnection,
  renewed: AbortController,
  signal: AbortSignal,
): Promise<void> {
  try {
    for await (const connection of connections.changes(AbortSignal.any([signal, renewed.signal]))) {
      if (connection === current) continue;
      renewed.abort(new Error('the agent has a new connection'));
      return;
    }
  } catch {
    // stopped
  }
}

async function follow({ replica }: SyncOptions, connection: ServerConnection, succeeded: () => void, signal: AbortSignal): Promise<void> {
  const stream = connection.follow(replica.digest(), signal);
  /** Bodies that are still to come; undefined: not yet known. */
  let missing: Set<string> | undefined;
  let bundles = false;
  let synced = false;
  const listed = new Map<string, Buffer>();
  for await (const step of stream.steps) {
    switch (step.kind) {
      case 'same':
        missing = new Set();
        break;
      case 'versions': {
        for (const { id, version } of step.versions) listed.set(id, version);
        if (step.more) break;
        const wanted = [...listed].filter(([id, version]) => !replica.get(id)?.version.equals(version)).map(([id]) => id);
        replica.apply(
          [],
          [...replica.ids()].filter((id) => !listed.has(id)),
        );
        missing = new Set(wanted);
        listed.clear();
        for (let at = 0; at < wanted.length; at += WANTED_AT_ONCE) stream.want(wanted.slice(at, at + WANTED_AT_ONCE));
        break;
      }
      case 'changes':
        replica.apply(step.upserts, step.removed);
        for (const { id } of step.upserts) missing?.delete(id);
        for (const id of step.removed) missing?.delete(id);
        break;
      case 'bundles':
        replica.applyBundles(step.bundles, step.removed, step.complete);
        bundles ||= step.complete;
        break;
      case 'issuers':
        replica.applyIssuers(step.issuers);
        break;
    }
    if (!synced && missing?.size === 0 && bundles) {
      synced = true;
      succeeded();
    }
  }
}

/** Until a call fails for good reason to look for the push stream again: the connection was lost. */
async function poll(options: SyncOptions, connection: ServerConnection, succeeded: () => void, signal: AbortSignal): Promise<void> {
  const { clock, log, report, intervalMs = INTERVAL_MS } = options;
  for (let failures = 0; ; ) {
    try {
      await pollOnce(options, connection, signal);
      failures = 0;
      succeeded();
    } catch (error) {
      signal.throwIfAborted();
      failures++;
      options.onTried?.(false);
      log.error('Synchronize failed', { error: fail('UNAVAILABLE', `failed to fetch authorized entries: ${rpcErrorText(error)}`) });
      await report(error, connection, signal);
      // the next connection may be one to another server
      if (isCoded(error, 'UNAVAILABLE')) {
        await clock.sleep(backoffMs(failures, 1_000, MAX_BACKOFF_MS), signal);
        return;
      }
    }
    await clock.sleep(
      failures > 0 ? backoffMs(failures, intervalMs, maxPollBackoffMs(intervalMs)) : intervalMs * (0.9 + Math.random() * 0.2),
      signal,
    );
  }
}

async function pollOnce({ replica, useDelta = true }: SyncOptions, connection: ServerConnection, signal: AbortSignal): Promise<void> {
  let change: { upserts: readonly Registration[]; removed: readonly string[] };
  if (useDelta) {
    change = await connection.syncEntries((id) => replica.get(id), replica.ids(), signal);
  } else {
    const upserts = await connection.authorizedEntries(signal);
    const listed = new Set(upserts.map(({ id }) => id));
    change = { upserts, removed: [...replica.ids()].filter((id) => !listed.has(id)) };
  }
  const own = await connection.ownBundle(signal);
  replica.apply(change.upserts, change.removed);
  const domains = [...replica.federatesWith()];
  const federated: Bundle[] = [];
  // ten at a time, as SPIRE
  for (let at = 0; at < domains.length; at += 10) {
    const some = await Promise.all(domains.slice(at, at + 10).map((domain) => connection.federatedBundle(domain, signal)));
    federated.push(...some.filter((bundle) => bundle !== undefined));
  }
  replica.applyBundles([own, ...federated], [], true);
}
