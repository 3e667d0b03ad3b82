/** The agent: its rooms put together, started in order, run until the signal, and stopped in the other order. */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fail } from '../core/errors.ts';
import { healthService, listenHealth } from '../core/health.ts';
import type { Log } from '../core/log.ts';
import { lockFile } from '../core/lock-file.ts';
import { createLoggerApi } from '../core/logger-api.ts';
import { connectionsWithin, openFilesLimit } from '../core/open-files.ts';
import type { AgentKeyManager } from '../core/plugin/key-manager.ts';
import type { AgentNodeAttestor } from '../core/plugin/node-attestor.ts';
import type { Host } from '../core/plugin/plugin.ts';
import { type ReadyPlugin, readyOf } from '../core/plugin/ready.ts';
import type { WorkloadAttestor } from '../core/plugin/workload-attestor.ts';
import type { ProgramParts } from '../core/program.ts';
import { service } from '../core/rpc.ts';
import { runAll } from '../core/tasks.ts';
import { HealthDefinition } from '../proto/gen/grpc/health/v1/health.ts';
import { SpiffeWorkloadAPIDefinition } from '../proto/gen/spiffe/workload/workload.ts';
import { DebugDefinition } from '../proto/gen/spire/api/agent/debug/v1/debug.ts';
import { LoggerDefinition } from '../proto/gen/spire/api/agent/logger/v1/logger.ts';
import { bootstrapBundle } from './bootstrap.ts';
import { ExplainDefinition } from '../proto/gen/warifu/api/agent/explain/v1/explain.ts';
import type { Clock } from '../spiffe/clock.ts';
import { createDebugApi } from './debug-api.ts';
import { AgentDisk } from './disk.ts';
import { Identity } from './identity.ts';
import { checkSocketPaths, createAdminRpc, createPublicRpc, listenAdmin, listenPublic } from './listeners.ts';
import { Quotas } from './quotas.ts';
import type { ServerConnection } from './server-client.ts';
import type { AgentSettings } from './settings.ts';
import { runSync } from './sync.ts';
import { createWorkloads, type Workloads } from './workloads.ts';

/** Calls under way when the agent stops may go on so long; streams end at once. */
const DRAIN_MS = 1_500;
const MAX_CONNECTIONS = 4_096;

/** Runs until the signal aborts or the agent may serve no more. Throws SETTINGS_INVALID and FAILED_PRECONDITION with what to do about it, DENIED when the server wants it no more. */
export async function runAgent(settings: AgentSettings, parts: ProgramParts): Promise<void> {
  const { agent } = settings;
  const { log, version } = parts;
  log.info('Starting agent', { version, trust_domain: agent.trust_domain.name, data_dir: agent.data_dir });
  checkSocketPaths(agent.socket_path, agent.admin_socket_path);
  await mkdir(agent.data_dir, { recursive: true, mode: 0o700 });
  const lock = lockFile(join(agent.data_dir, 'agent.lock'), 'the data of a Warifu agent');
  try {
    await serve(settings, parts);
  } finally {
    lock.close();
  }
}

async function serve(settings: AgentSettings, parts: ProgramParts): Promise<void> {
  const { agent } = settings;
  const { clock, log, signal } = parts;
  // calls under way need the server to be finished: what they wait for ends after them
  const stopped = new AbortController();
  const closing: (() => Promise<void>)[] = [];
  try {
    const host: Host = {
      trustDomain: agent.trust_domain,
      log,
      clock,
      signal: stopped.signal,
      reloads: parts.reloads,
      joinToken: () => joinToken(agent),
    };
    const [plugins, disk] = await Promise.all([startPlugins(parts.plugins, host), AgentDisk.open(agent.data_dir)]);
    const rooms = build(settings, parts, plugins, disk, stopped.signal);
    const { identity, replica, svids } = rooms;
    closing.push(async () => identity.close());
    await identity.start(signal);
    identity.connections.value
      .postStatus(parts.version, stopped.signal)
      .catch((error: unknown) => log.debug('Failed to post the status', { error }));

    await runAll(
      signal,
      (stop) =>
        identity.run(stop).finally(() => {
          if (identity.ended) rooms.forbid();
        }),
      (stop) =>
        runSync(
          {
            connections: identity.connections,
            replica,
            report: (error, connection, ending) => identity.report(error, connection, ending),
            clock,
            log,
            useDelta: agent.experimental.use_sync_authorized_entries,
            ...(agent.experimental.sync_interval !== undefined && { intervalMs: agent.experimental.sync_interval }),
          },
          stop,
        ),
      (stop) => svids.run(stop),
      // whoever waits for the socket gets his answer as soon as there is one
      async (stop) => {
        await listen(settings, parts, rooms, closing);
        await ending(stop);
      },
    );
  } finally {
    for (const close of closing.reverse()) await close();
    stopped.abort();
  }
}

interface Plugins {
  readonly keys: AgentKeyManager;
  readonly attestor: { readonly type: string; readonly plugin: AgentNodeAttestor };
  readonly workload: ReadonlyMap<string, WorkloadAttestor>;
}

async function startPlugins(ready: readonly ReadyPlugin[], host: Host): Promise<Plugins> {
  const [keys] = readyOf(ready, 'agent-key-manager');
  const [node] = readyOf(ready, 'agent-node-attestor');
  if (!keys) throw fail('SETTINGS_INVALID', 'no KeyManager: add KeyManager "disk" or "memory"');
  if (!node)
    throw fail(
      'SETTINGS_INVALID',
      'no NodeAttestor: add the one by which the server is to know this node, such as NodeAttestor "join_token"',
    );
  const hostOf = (name: string): Host => ({ ...host, log: host.log.with({ plugin: name }) });
  const started = readyOf(ready, 'workload-attestor').map(async (one) => [one.name, await one.start(hostOf(one.name))] as const);
  const [manager, plugin, workload] = await Promise.all([
    keys.start(hostOf(keys.name)),
    node.start(hostOf(node.name)),
    Promise.all(started),
  ]);
  return { keys: manager, attestor: { type: node.name, plugin }, workload: new Map(workload) };
}

interface Rooms extends Workloads {
  readonly identity: Identity;
  readonly quotas: Quotas;
}

function build(
  { agent }: AgentSettings,
  { clock, log }: ProgramParts,
  { keys, attestor, workload }: Plugins,
  disk: AgentDisk,
  stopped: AbortSignal,
): Rooms {
  const trustDomain = agent.trust_domain;
  const quotas = createQuotas(agent, clock, log);
  const workloads = createWorkloads({
    trustDomain,
    attestors: workload,
    attestations: quotas.attestations,
    signX509: (requests, signal) => ask((connection) => connection.signX509(requests, signal), signal),
    signJwt: (entryId, audience, signal) => ask((connection) => connection.signJwt(entryId, audience, signal), signal),
    keepOwn: ({ x509 }) => {
      disk
        .update({ bundle: x509.authorities })
        .catch((error: unknown) => log.error('Failed to keep the bundle', { path: disk.path, error }));
    },
    keepIssuers: (issuers) => {
      const known = disk.data.issuers;
      if (issuers.length === known.length && issuers.every((one) => known.some((had) => had.equals(one)))) return;
      log.info('Issuing authorities of the server pinned', { count: issuers.length });
      disk.update({ issuers }).catch((error: unknown) => log.error('Failed to keep the issuing authorities', { path: disk.path, error }));
    },
    keyType: agent.workload_x509_svid_key_type,
    x509CacheSize: agent.x509_svid_cache_max_size,
    jwtCacheSize: agent.jwt_svid_cache_max_size,
    prefetch: !agent.disable_x509_svid_prefetch,
    availabilityTargetMs: agent.availability_target,
    jwtHitTimeoutMs: agent.experimental.jwt_svid_cache_hit_timeout,
    allowUnauthenticatedVerifiers: agent.allow_unauthenticated_verifiers,
    allowedForeignJwtClaims: agent.allowed_foreign_jwt_claims,
    clock,
    log,
    signal: stopped,
  });
  const identity = new Identity({
    trustDomain,
    server: { address: agent.server_address, port: agent.server_port },
    disk,
    keys,
    attestor,
    bootstrap: () => bootstrapBundle(agent, stopped),
    bundle: () => workloads.replica.own,
    onBundle: (bundle) => workloads.replica.start(bundle),
    availabilityTargetMs: agent.availability_target,
    clock,
    log,
  });
  /** A call to the server, whose refusal may be the end of us. */
  async function ask<T>(call: (connection: ServerConnection) => Promise<T>, signal: AbortSignal): Promise<T> {
    const connection = identity.connections.value;
    try {
      return await call(connection);
    } catch (error) {
      await identity.report(error, connection, signal);
      throw error;
    }
  }
  return { ...workloads, identity, quotas };
}

function createQuotas({ limits }: AgentSettings['agent'], clock: Clock, log: Log): Quotas {
  const wanted = limits.max_connections ?? MAX_CONNECTIONS;
  const connections = connectionsWithin(openFilesLimit(), {
    connections: wanted,
    // its socket and its pidfd
    each: 2,
    setting: limits.max_connections === undefined ? undefined : 'limits.max_connections',
  });
  if (connections < wanted)
    log.warn('The limit of open files is low: fewer callers can be connected at a time; raise RLIMIT_NOFILE', { count: connections });
  return new Quotas({ connections, streams: limits.max_streams, messagesPerSecond: limits.max_messages_per_second }, clock, log);
}

async function listen(settings: AgentSettings, parts: ProgramParts, rooms: Rooms, closing: (() => Promise<void>)[]): Promise<void> {
  const { agent, health_checks: health } = settings;
  const { log, clock } = parts;
  const { api, quotas } = rooms;
  const healthy = () => agent.disable_workload_api || api.isReady;
  const rpc = createPublicRpc({
    services: [
      ...(agent.disable_workload_api ? [] : [service(SpiffeWorkloadAPIDefinition, api.implementation)]),
      service(HealthDefinition, healthService(healthy)),
    ],
    quotas,
    maxStreamsPerConnection: agent.limits.max_streams_per_connection,
    log,
  });
  closing.push(async () => {
    log.info('Stopping agent APIs');
    api.end(fail('UNAVAILABLE', 'the agent is stopping'));
    await rpc.drain(DRAIN_MS);
  });
  const listener = await listenPublic({ path: agent.socket_path, rpc, clock, log, quotas });
  closing.push(() => listener.close());

  if (agent.admin_socket_path !== undefined) {
    const { identity, svids, jwts, lastSyncMs, explain } = rooms;
    const debug = createDebugApi({
      svid: () => identity.svid.chain,
      lastSyncMs,
      x509Svids: () => svids.size,
      jwtSvids: () => jwts.size,
      clock,
    });
    const admin = createAdminRpc(
      [service(LoggerDefinition, createLoggerApi(log)), service(DebugDefinition, debug), service(ExplainDefinition, explain)],
      log,
    );
    closing.push(() => admin.drain(DRAIN_MS));
    const adminListener = await listenAdmin({ path: agent.admin_socket_path, rpc: admin, clock, log });
    closing.push(() => adminListener.close());
  }

  if (!health.listener_enabled) return;
  const { bind_address: address, bind_port: port, live_path: livePath, ready_path: readyPath } = health;
  const probes = await listenHealth({ address, port, livePath, readyPath }, { agent: () => checkHealthy(healthy) });
  closing.push(async () => {
    probes.close();
    probes.closeAllConnections();
  });
}

function checkHealthy(healthy: () => boolean): void {
  if (!healthy()) throw fail('UNAVAILABLE', 'the agent has heard nothing from its server yet');
}

/** Without white space around it. Its words name the file, never the token. */
async function joinToken({ join_token: token, join_token_file: path }: AgentSettings['agent']): Promise<string | undefined> {
  if (path === undefined) return token?.trim();
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw fail('SETTINGS_INVALID', `join_token_file cannot be read: ${(cause as Error).message}`, { cause });
  });
  return text.trim();
}

function ending(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
