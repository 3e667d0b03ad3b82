/** The server: its rooms put together, started in order, run until the signal, and stopped in the other order. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fail } from '../core/errors.ts';
import { type Checks, healthService, listenHealth } from '../core/health.ts';
import type { AdjustableLog } from '../core/log-output.ts';
import { createLoggerApi } from '../core/logger-api.ts';
import type { Log } from '../core/log.ts';
import { commonLabels, listenMetrics, type Metrics, noMetrics } from '../core/metrics.ts';
import type { NodeAttestor } from '../core/plugin/node-attestor.ts';
import type { Host } from '../core/plugin/plugin.ts';
import { type ReadyPlugin, readyOf } from '../core/plugin/ready.ts';
import type { ProgramParts } from '../core/program.ts';
import { reflection } from '../core/reflection.ts';
import { createRpcServer, type RpcServer, type Service, service } from '../core/rpc.ts';
import { runAll } from '../core/tasks.ts';
import type { SubjectParts } from '../spiffe/x509/parts.ts';
import { HealthDefinition } from '../proto/gen/grpc/health/v1/health.ts';
import { AgentDefinition } from '../proto/gen/spire/api/server/agent/v1/agent.ts';
import { BundleDefinition } from '../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import { DebugDefinition } from '../proto/gen/spire/api/server/debug/v1/debug.ts';
import { EntryDefinition } from '../proto/gen/spire/api/server/entry/v1/entry.ts';
import { LoggerDefinition } from '../proto/gen/spire/api/server/logger/v1/logger.ts';
import { SVIDDefinition } from '../proto/gen/spire/api/server/svid/v1/svid.ts';
import { BackupDefinition } from '../proto/gen/warifu/api/server/backup/v1/backup.ts';
import { PushDefinition } from '../proto/gen/warifu/api/server/push/v1/push.ts';
import type { Clock } from '../spiffe/clock.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { createAgentApi } from './api/agent.ts';
import { createBackupApi } from './api/backup.ts';
import { createBundleApi } from './api/bundle.ts';
import { Callers } from './api/caller.ts';
import { createDebugApi } from './api/debug.ts';
import { createEntryApi } from './api/entry.ts';
import { Limits } from './api/limits.ts';
import { createPushApi } from './api/push.ts';
import { createSvidApi } from './api/svid.ts';
import { Authority } from './authority.ts';
import { bundleOf, createBundles } from './bundles.ts';
import { runChores } from './chores.ts';
import { createGate } from './gate.ts';
import { createStrangersRpc, listenAdmin, listenTls } from './listeners.ts';
import { createMemory, type Memory } from './memory.ts';
import { OwnSvid } from './own-svid.ts';
import { createPush } from './push.ts';
import { Rotation } from './rotation.ts';
import { datastoreSettings, type ServerSettings } from './settings.ts';
import { openSqlite } from './store/sqlite.ts';
import type { Store } from './store/store.ts';

/** Calls under way when the server stops may go on so long. */
const DRAIN_MS = 10_000;
/** A connection on which nobody calls anything is given up; agents hold a stream open, or poll. */
const IDLE_MS = 5 * 60_000;
/** A dump of entries from the machine's own operator; agents' messages stay within gRPC's own limit. */
const MAX_ADMIN_MESSAGE_BYTES = 64 * 1024 * 1024;

/** Runs until the signal aborts or something breaks. Throws SETTINGS_INVALID and FAILED_PRECONDITION with what to do about it. */
export async function runServer(settings: ServerSettings, parts: ProgramParts): Promise<void> {
  const { server } = settings;
  const { log, clock, version } = parts;
  log.info('Starting server', { version, trust_domain: server.trust_domain.name, data_dir: server.data_dir });
  await mkdir(server.data_dir, { recursive: true, mode: 0o700 });
  const store = await openSqlite(datastorePath(settings), clock);
  try {
    const memory = await createMemory({ store, clock, log, trustDomain: server.trust_domain });
    try {
      checkTrustDomain(memory, server.trust_domain);
      if (server.restored) await takeUpRestored(store, server.trust_domain, clock, log);
      await serve(settings, parts, store, memory);
    } finally {
      memory.close();
    }
  } finally {
    await store.close();
  }
}

async function serve(settings: ServerSettings, parts: ProgramParts, store: Store, memory: Memory): Promise<void> {
  const { server } = settings;
  const { log, clock, signal } = parts;
  const trustDomain = server.trust_domain;
  // what the rooms wait for ends with them, not with the operator's signal: calls under way are finished first
  const stopped = new AbortController();
  const { metrics, close: closeMetrics } = await startMetrics(settings);
  const closing: (() => Promise<void>)[] = [async () => closeMetrics()];
  try {
    const host: Host = { trustDomain, log, clock, signal: stopped.signal, reloads: parts.reloads };
    const rotation = await startRotation(settings, parts.plugins, host, store, signal);
    const attestors = await startAttestors(parts.plugins, host);
    const authority = new Authority(
      {
        trustDomain,
        defaultX509SvidTtlMs: server.default_x509_svid_ttl,
        defaultJwtSvidTtlMs: server.default_jwt_svid_ttl,
        agentTtlMs: server.agent_ttl,
        jwtIssuer: server.jwt_issuer,
        disableJwtSvids: server.disable_jwt_svids,
      },
      rotation,
      clock,
    );
    const own = await OwnSvid.create({ authority, activeX509: rotation.activeX509, clock, log });
    const push = createPush({ state: memory, issuers: rotation.announced, trustDomain });
    const { shared, gate, callers } = rooms(settings, parts, { store, memory, authority, push, attestors, metrics });
    countThings(metrics, memory, push, clock);

    const remote = createRpcServer({ services: shared, gate, log, maxConnectionIdleMs: IDLE_MS });
    const local = createRpcServer({
      services: withLocal(store, shared, parts.log, memory, trustDomain, clock, own),
      gate,
      log,
      maxMessageBytes: MAX_ADMIN_MESSAGE_BYTES,
      allowManyResets: true,
    });
    const strangers = createStrangersRpc({ services: shared, gate, log });
    closing.push(() => drain([remote, strangers, local], push));

    const tls = await listenTls({
      address: server.bind_address,
      port: server.bind_port,
      rpc: remote,
      strangers,
      isKnown: (id) => callers.isKnown(id),
      svid: own.latest.value,
      bundles: {
        x509Bundle: (name) => {
          const stored = memory.bundle(name.name);
          return stored && bundleOf(stored).x509Bundle(name);
        },
      },
      trustDomain,
      issuers: () => rotation.issuers(),
      isForeignAdmin: (id) => callers.isForeignAdmin(id),
      clock,
      log,
      signal: stopped.signal,
    });
    closing.push(() => tls.close());
    const admin = await listenAdmin({ path: server.socket_path, rpc: local, log });
    closing.push(() => admin.close());
    closing.push(await startHealth(settings, checks(memory, store, rotation, trustDomain)));

    await runAll(
      signal,
      (stop) => memory.run(stop),
      (stop) => rotation.run(stop),
      (stop) => own.run(stop),
      async (stop) => {
        for await (const _ of rotation.announced.changes(stop)) push.issuersChanged();
      },
      async (stop) => {
        for await (const svid of own.latest.changes(stop)) {
          tls.rotate(svid);
          metrics.count('svid.rotate');
        }
      },
      (stop) =>
        runChores(
          {
            store,
            state: memory,
            clock,
            log,
            pruneNodesAfterMs: server.prune_attested_nodes_expired_for,
            pruneNodesAtOnce: server.prune_attested_nodes_batch_size,
            pruneTofuNodes: server.prune_tofu_nodes,
          },
          stop,
        ),
    );
  } finally {
    for (const close of closing.reverse()) await close();
    stopped.abort();
  }
}

interface Rooms {
  readonly store: Store;
  readonly memory: Memory;
  readonly authority: Authority;
  readonly push: ReturnType<typeof createPush>;
  readonly attestors: ReadonlyMap<string, NodeAttestor>;
  readonly metrics: Metrics;
}

/** The APIs that both listeners have, and who may pass to them. */
function rooms({ server }: ServerSettings, { log, clock }: ProgramParts, made: Rooms) {
  const { store, memory: state, authority, push, attestors, metrics } = made;
  const trustDomain = server.trust_domain;
  const callers = new Callers({ state, store, clock, adminIds: server.admin_ids });
  const limits = new Limits(server.ratelimit, clock);
  const gate = createGate({ callers, limits, metrics, clock, log, audit: server.audit_log_enabled });
  const agentOf = (context: Parameters<Callers['check']>[0]) => {
    if (context.peer.kind !== 'tls' || !context.peer.id) throw fail('DENIED', `authorization denied for method ${context.method}`);
    return String(context.peer.id);
  };
  const attestation = { store, state, authority, trustDomain, clock, log, attestors };
  const shared = [
    service(AgentDefinition, createAgentApi({ store, state, authority, callers, attestation, trustDomain, clock, log })),
    service(BundleDefinition, createBundleApi({ store, state, trustDomain, bundles: createBundles({ store, state, trustDomain }) })),
    service(EntryDefinition, createEntryApi({ store, state, trustDomain, clock, log, agentOf })),
    service(SVIDDefinition, createSvidApi({ authority, state, callers, limits, trustDomain, caSubject: caSubject(server), log })),
    service(
      PushDefinition,
      createPushApi({
        push,
        agentOf,
        checkStanding: (id, sha256, notAfterMs, method) => callers.checkStanding(id, sha256, notAfterMs, method),
      }),
    ),
  ];
  return { shared, gate, callers };
}

function withLocal(
  store: Store,
  shared: readonly Service[],
  log: AdjustableLog,
  memory: Memory,
  trustDomain: TrustDomain,
  clock: Clock,
  own: OwnSvid,
): readonly Service[] {
  const all = [
    ...shared,
    service(BackupDefinition, createBackupApi({ store, log })),
    service(LoggerDefinition, createLoggerApi(log)),
    service(DebugDefinition, createDebugApi({ state: memory, clock, svid: () => own.latest.value.chain })),
    service(
      HealthDefinition,
      healthService(() => memory.bundle(trustDomain.name) !== undefined),
    ),
  ];
  return [...all, ...reflection(all)];
}

async function startRotation(
  settings: ServerSettings,
  plugins: readonly ReadyPlugin[],
  host: Host,
  store: Store,
  signal: AbortSignal,
): Promise<Rotation> {
  const { server } = settings;
  const [upstreamPlugin] = readyOf(plugins, 'upstream-authority');
  const [keysPlugin] = readyOf(plugins, 'server-key-manager');
  if (!upstreamPlugin) {
    throw fail(
      'SETTINGS_INVALID',
      'no UpstreamAuthority: this server signs below an external PKI and makes no root of its own; add UpstreamAuthority "disk" with the intermediate that your PKI team issues',
    );
  }
  if (!keysPlugin) throw fail('SETTINGS_INVALID', 'no KeyManager: add KeyManager "disk" or "memory"');
  const [keys, upstream] = await Promise.all([
    keysPlugin.start({ ...host, log: host.log.with({ plugin: keysPlugin.name }) }),
    upstreamPlugin.start({ ...host, log: host.log.with({ plugin: upstreamPlugin.name }) }),
  ]);
  const rotation = new Rotation(
    {
      trustDomain: server.trust_domain,
      caTtlMs: server.ca_ttl,
      caKeyType: server.ca_key_type,
      jwtKeyType: server.jwt_key_type ?? server.ca_key_type,
      caSubject: caSubject(server),
      disableJwtSvids: server.disable_jwt_svids,
      bundleAnchor: server.bundle_anchor,
    },
    { store, keys, upstream, clock: host.clock, log: host.log },
  );
  await rotation.start(signal);
  return rotation;
}

/** SPIRE's default. */
function caSubject({ ca_subject: subject }: ServerSettings['server']): SubjectParts {
  if (!subject) return { country: ['US'], organization: ['SPIFFE'] };
  return { country: subject.country, organization: subject.organization, commonName: subject.common_name };
}

async function startAttestors(plugins: readonly ReadyPlugin[], host: Host): Promise<ReadonlyMap<string, NodeAttestor>> {
  const started = readyOf(plugins, 'server-node-attestor').map(
    async (plugin) => [plugin.name, await plugin.start({ ...host, log: host.log.with({ plugin: plugin.name }) })] as const,
  );
  return new Map(await Promise.all(started));
}

async function startMetrics({ server, telemetry }: ServerSettings): Promise<{ readonly metrics: Metrics; close(): void }> {
  if (!telemetry?.Prometheus) return { metrics: noMetrics, close: () => {} };
  const { host, port } = telemetry.Prometheus;
  const labels = commonLabels({
    hostname: telemetry.EnableHostnameLabel,
    trustDomain: telemetry.EnableTrustDomainLabel ? server.trust_domain.name : undefined,
  });
  const { metrics, server: listener } = await listenMetrics({ host, port, prefix: telemetry.MetricPrefix, labels });
  return { metrics, close: () => listener.close() };
}

function countThings(metrics: Metrics, memory: Memory, push: ReturnType<typeof createPush>, clock: Clock): void {
  const startedAt = clock.monotonic();
  metrics.count('started');
  metrics.gauge('uptime_in_ms', () => clock.monotonic() - startedAt);
  metrics.gauge('entry.entries_by_entryid_cache.count', () => memory.entryCount);
  metrics.gauge('node.agents_by_id_cache.count', () => memory.nodeCount);
  metrics.gauge('push.streams.count', () => push.followers);
}

function checks(memory: Memory, store: Store, rotation: Rotation, trustDomain: TrustDomain): Checks {
  return {
    server: () => {
      if (!memory.bundle(trustDomain.name)) throw fail('UNAVAILABLE', 'unable to fetch bundle');
    },
    'catalog.datastore': async () => {
      await store.changes.bounds();
    },
    'server.ca': () => {
      if (!rotation.x509) throw fail('UNAVAILABLE', 'X509 CA is not available for signing');
    },
    'server.ca.rotator': () => {
      if (!rotation.healthy) throw fail('UNAVAILABLE', 'rotations exceed the threshold number of failures');
    },
  };
}

async function startHealth({ health_checks: health }: ServerSettings, all: Checks): Promise<() => Promise<void>> {
  if (!health.listener_enabled) return async () => {};
  const { bind_address: address, bind_port: port, live_path: livePath, ready_path: readyPath } = health;
  const listener = await listenHealth({ address, port, livePath, readyPath }, all);
  return async () => {
    listener.close();
    listener.closeAllConnections();
  };
}

/** Streams end at once: their agents come again, to another server or to the next one. Calls are finished. */
async function drain(servers: readonly RpcServer[], push: ReturnType<typeof createPush>): Promise<void> {
  push.close();
  await Promise.all(servers.map((one) => one.drain(DRAIN_MS)));
}

function datastorePath({ server, plugins }: ServerSettings): string {
  const block = plugins.find(({ type, enabled }) => type === 'DataStore' && enabled);
  const { connection_string: path } = datastoreSettings.parse(block?.plugin_data ?? {});
  return path ?? join(server.data_dir, 'datastore.sqlite3');
}

/** What somebody may have copied with the backup is good for nothing any more; what the backup does not know, the operator is told. */
async function takeUpRestored(store: Store, trustDomain: TrustDomain, clock: Clock, log: Log): Promise<void> {
  const voided = await store.tokens.voidUnspent();
  const { newest } = await store.changes.bounds();
  const [last] = await store.changes.since(newest - 1, 1);
  // TDB-9: how far the sequence came since the backup nobody knows, but it grew by less than one a second.
  const seconds = Math.floor(clock.now() / 1000);
  await store.bundles.update(trustDomain.name, (own) => own && { ...own, sequence: Math.max(own.sequence, seconds) });
  log.warn(
    'Started from a restored datastore: unspent join tokens are void; what changed after that time is undone, bans and evictions too',
    {
      count: voided,
      ...(last && { restored_to: new Date(last.atMs) }),
    },
  );
}

/** The tables are of one trust domain: under another name every SPIFFE ID in them would be a stranger's. */
function checkTrustDomain(memory: Memory, trustDomain: TrustDomain): void {
  for (const { spiffeId } of memory.entries()) {
    if (spiffeId.memberOf(trustDomain)) break;
    throw other(spiffeId.trustDomain, trustDomain);
  }
  for (const { id } of memory.nodes()) {
    const of = SpiffeId.parse(id);
    if (of.memberOf(trustDomain)) break;
    throw other(of.trustDomain, trustDomain);
  }
}

function other(stored: TrustDomain, configured: TrustDomain): Error {
  return fail(
    'SETTINGS_INVALID',
    `the datastore is of trust domain ${stored}, the settings say ${configured}: set trust_domain = "${stored}", or use another datastore`,
  );
}
