/** Counts what passes through a proxy: a few additions for each connection, and all the rest only when somebody looks. */
import { readdirSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { IntentionFile } from '../core/intention-file.ts';
import type { Clock } from '../spiffe/clock.ts';
import type { Connection, Observer } from './connection.ts';
import { type Verdict, verdictOf } from './connection-log.ts';
import type { Identity } from './identity.ts';
import { FAMILIES, type FamilyName } from './metric-families.ts';
import { readinessOf } from './readiness.ts';
import { type Reason, REASONS } from './reasons.ts';
import type { Distribution, DistributionSample, Sample, Snapshot } from './snapshot.ts';
import type { Proxy } from './proxy.ts';

export interface MetricsParts {
  /** By their names in the settings. */
  readonly identities: ReadonlyMap<string, Identity>;
  readonly intentions: IntentionFile | undefined;
  readonly version: string;
  readonly clock: Clock;
}

export interface ProxyMetrics {
  readonly observer: Observer;
  /** What is so now. */
  snapshot(proxy: Pick<Proxy, 'connections' | 'state' | 'lastReloadMs'>): Snapshot;
  close(): void;
}

/** Of values that others choose: so many get a label of their own, and the rest is "other". */
export const MAX_LABELS = 100;
const OTHER = 'other';
const LAG_MS = 100;
const NANO = 1e9;

/** `close` must follow. */
export function createMetrics({ identities, intentions, version, clock }: MetricsParts): ProxyMetrics {
  const listeners = new Map<string, Counts>();
  const of = ({ listener }: Connection) => {
    let counts = listeners.get(listener);
    if (!counts) listeners.set(listener, (counts = new Counts()));
    return counts;
  };
  const following = [...identities].map(([name, identity]) => new Followed(name, identity, clock));
  let takenMs = clock.now();
  const off = intentions?.onChange(() => (takenMs = clock.now()));
  const lag = monitorEventLoopDelay({ resolution: LAG_MS });
  lag.enable();
  const observer: Observer = {
    accepted: (connection) => void of(connection).accepted++,
    opened: (connection) => of(connection).open(connection),
    ended: (connection) => of(connection).end(connection),
  };
  return {
    observer,
    close() {
      off?.();
      lag.disable();
      for (const one of following) one.close();
    },
    snapshot(proxy) {
      const values: Partial<Record<FamilyName, Sample[]>> = {};
      const put = (name: FamilyName, labels: readonly string[], value: number | undefined) => {
        if (value !== undefined) (values[name] ??= []).push([labels, value]);
      };
      put('warifu_proxy_info', [version, process.version], 1);
      put('warifu_proxy_workers', [], 1);
      const { ready } = readinessOf({ state: proxy.state, identities });
      put('warifu_proxy_ready', [], Number(ready));
      put('warifu_proxy_connections_waiting', [], proxy.connections.waiting);
      put('warifu_proxy_last_reload_timestamp_seconds', [], seconds(proxy.lastReloadMs));
      putConnections(put, listeners, proxy.connections);
      for (const one of following) one.put(put);
      if (intentions) {
        put('warifu_proxy_intentions_info', [intentions.intentions.version], 1);
        put('warifu_proxy_intentions_rules', [], intentions.intentions.rules.length);
        put('warifu_proxy_intentions_loaded_timestamp_seconds', [], seconds(takenMs));
        put('warifu_proxy_intentions_refused', [], Number(intentions.fault !== undefined));
      }
      for (const [percentile, value] of [
        ['50', lag.percentile(50)],
        ['99', lag.percentile(99)],
        ['100', lag.max],
      ] as const)
        put('warifu_proxy_event_loop_lag_seconds', [percentile], lag.count === 0 ? 0 : Math.max(0, value / NANO - LAG_MS / 1000));
      lag.reset();
      putProcess(put, clock);
      return {
        values,
        distributions: {
          warifu_proxy_handshake_seconds: [...listeners].map(([name, { handshakes }]) => handshakes.sample(name)),
          warifu_proxy_connection_seconds: [...listeners].map(([name, { lifetimes }]) => lifetimes.sample(name)),
        },
      };
    },
  };
}

type Put = (name: FamilyName, labels: readonly string[], value: number | undefined) => void;

/** Of one listener. */
class Counts {
  accepted = 0;
  opened = 0;
  endedOpened = 0;
  bytesUp = 0;
  bytesDown = 0;
  readonly ended = new Map<Verdict, Map<Reason, number>>();
  readonly peers = new Map<string, number>();
  readonly plaintext = new Map<string, number>();
  readonly shadows = new Map<string, number>();
  readonly handshakes = new Spread(FAMILIES.warifu_proxy_handshake_seconds.buckets);
  readonly lifetimes = new Spread(FAMILIES.warifu_proxy_connection_seconds.buckets);

  /** Verified and allowed: what it is called is worth a label. */
  open(connection: Connection): void {
    this.opened++;
    const { peer, admission, plaintext, handshakeMs, from } = connection;
    if (handshakeMs !== undefined) this.handshakes.add(handshakeMs / 1000);
    if (peer?.id) count(this.peers, String(peer.id));
    if (admission?.shadow) count(this.shadows, admission.shadow.id);
    if (plaintext) count(this.plaintext, from.replace(/:\d+$/, ''));
  }

  end(connection: Connection): void {
    const { pipe, handshakeMs, durationMs, reason = 'INTERNAL' } = connection;
    if (pipe) {
      this.endedOpened++;
      this.bytesUp += pipe.bytesUp;
      this.bytesDown += pipe.bytesDown;
      this.lifetimes.add((durationMs ?? 0) / 1000);
    } else if (handshakeMs !== undefined) this.handshakes.add(handshakeMs / 1000);
    const verdict = verdictOf(connection);
    let reasons = this.ended.get(verdict);
    if (!reasons) this.ended.set(verdict, (reasons = new Map()));
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  }
}

function count(of: Map<string, number>, name: string): void {
  const known = of.get(name);
  if (known !== undefined) of.set(name, known + 1);
  else if (of.size < MAX_LABELS) of.set(name, 1);
  else of.set(OTHER, (of.get(OTHER) ?? 0) + 1);
}

class Spread {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #sum = 0;
  #min: number | null = null;
  #max: number | null = null;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = Array.from({ length: bounds.length + 1 }, () => 0);
  }

  add(value: number): void {
    let index = 0;
    while (index < this.#bounds.length && value > (this.#bounds[index] ?? 0)) index++;
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
    this.#sum += value;
    if (this.#min === null || value < this.#min) this.#min = value;
    if (this.#max === null || value > this.#max) this.#max = value;
  }

  sample(listener: string): DistributionSample {
    const value: Distribution = { counts: [...this.#counts], sum: this.#sum, min: this.#min, max: this.#max };
    return [[listener], value];
  }
}

function putConnections(put: Put, listeners: ReadonlyMap<string, Counts>, live: Iterable<Connection>): void {
  // what an open connection has carried counts now, not when it ends
  const carried = new Map<string, { up: number; down: number; pending: number }>();
  for (const { listener, pipe } of live) {
    let now = carried.get(listener);
    if (!now) carried.set(listener, (now = { up: 0, down: 0, pending: 0 }));
    if (!pipe) now.pending++;
    now.up += pipe?.bytesUp ?? 0;
    now.down += pipe?.bytesDown ?? 0;
  }
  for (const [listener, counts] of listeners) {
    const now = carried.get(listener);
    put('warifu_proxy_connections_accepted_total', [listener], counts.accepted);
    put('warifu_proxy_connections_opened_total', [listener], counts.opened);
    put('warifu_proxy_connections_open', [listener], counts.opened - counts.endedOpened);
    put('warifu_proxy_connections_pending', [listener], now?.pending ?? 0);
    put('warifu_proxy_bytes_total', [listener, 'up'], counts.bytesUp + (now?.up ?? 0));
    put('warifu_proxy_bytes_total', [listener, 'down'], counts.bytesDown + (now?.down ?? 0));
    for (const [verdict, reasons] of counts.ended)
      for (const [reason, ended] of reasons)
        put('warifu_proxy_connections_ended_total', [listener, verdict, reason, REASONS[reason].fault], ended);
    for (const [peer, opened] of counts.peers) put('warifu_proxy_peer_connections_total', [listener, peer], opened);
    for (const [caller, opened] of counts.plaintext) put('warifu_proxy_plaintext_connections_total', [listener, caller], opened);
    for (const [intention, opened] of counts.shadows) put('warifu_proxy_shadow_denials_total', [listener, intention], opened);
  }
}

/** An identity, and what became of it since we look. */
class Followed {
  readonly #name: string;
  readonly #identity: Identity;
  readonly #off: () => void;
  #refreshedMs: number;
  #serial: string | undefined;
  #rotations = 0;

  constructor(name: string, identity: Identity, clock: Clock) {
    this.#name = name;
    this.#identity = identity;
    this.#refreshedMs = clock.now();
    this.#serial = identity.own?.serialHex;
    this.#off = identity.onChange(() => {
      this.#refreshedMs = clock.now();
      const serial = identity.own?.serialHex;
      if (serial === undefined) return;
      if (this.#serial !== undefined && serial !== this.#serial) this.#rotations++;
      this.#serial = serial;
    });
  }

  put(put: Put): void {
    const { own, authorities = [] } = this.#identity;
    put('warifu_proxy_svid_not_after_timestamp_seconds', [this.#name, own?.id ? String(own.id) : ''], seconds(own?.notAfterMs));
    put('warifu_proxy_svid_rotations_total', [this.#name], this.#rotations);
    put('warifu_proxy_identity_refresh_timestamp_seconds', [this.#name], seconds(this.#refreshedMs));
    // of two certificates of one key the one that ends first
    const ends = new Map<string, readonly [labels: readonly string[], notAfterMs: number]>();
    for (const { trustDomain, authorityId, notAfterMs } of authorities) {
      const key = `${trustDomain} ${authorityId}`;
      const known = ends.get(key);
      if (known ? notAfterMs < known[1] : ends.size < MAX_LABELS) ends.set(key, [[this.#name, trustDomain, authorityId], notAfterMs]);
    }
    for (const [labels, notAfterMs] of ends.values()) put('warifu_proxy_bundle_not_after_timestamp_seconds', labels, seconds(notAfterMs));
  }

  close(): void {
    this.#off();
  }
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}

function putProcess(put: Put, clock: Clock): void {
  const { user, system } = process.cpuUsage();
  put('process_cpu_seconds_total', [], (user + system) / 1e6);
  put('process_resident_memory_bytes', [], process.memoryUsage.rss());
  put('process_start_time_seconds', [], Math.round(clock.now() / 1000 - process.uptime()));
  try {
    put('process_open_fds', [], readdirSync('/proc/self/fd').length - 1);
  } catch {
    // no Linux, or it may not be read
  }
}
