/** The agent: who it is, what it knows, and its sockets; started in order, run until the signal or until it may serve no more. */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fail } from '../core/errors.ts';
import { healthService, listenHealth } from '../core/health.ts';
import { type LockFile, lockFile } from '../core/lock-file.ts';
import type { AdjustableLog } from '../core/log-output.ts';
import type { Host, Kind } from '../core/plugin/plugin.ts';
import { type ReadyPlugin, readyOf } from '../core/plugin/ready.ts';
import { reflection } from '../core/reflection.ts';
import { createRpcServer, type RpcServer, service } from '../core/rpc.ts';
import { isStop, runAll } from '../core/tasks.ts';
import { listenUnix, type UnixListener } from '../core/unix-socket.ts';
import { HealthDefinition } from '../proto/gen/grpc/health/v1/health.ts';
import { SpiffeWorkloadAPIDefinition } from '../proto/gen/spiffe/workload/workload.ts';
import type { Clock } from '../spiffe/clock.ts';
import type { Latest } from '../spiffe/latest.ts';
import { listenAdmin } from './admin.ts';
import { CallerAttestor } from './attest.ts';
import { bootstrapBundle } from './bootstrap.ts';
import { AgentDisk } from './disk.ts';
import { handOn } from './handon.ts';
import { Identity } from './identity.ts';
import { Known } from './replica.ts';
import type { AgentSettings } from './settings.ts';
import { runSync } from './sync.ts';
import { checkSecurityHeader, createWorkloadApi, noIdentity } from './workload-api.ts';

export interface AgentParts {
  readonly plugins: readonly ReadyPlugin[];
  readonly log: AdjustableLog;
  readonly clock: Clock;
  /** Aborts: finish what was begun, then end. */
  readonly signal: AbortSignal;
  /** Counts the wishes to read plugins' files again. */
  readonly reloads: Latest<number>;
  readonly version: string;
}

/** Calls under way when the agent stops may go on so long; streams are ended at once. */
const DRAIN_MS = 1_500;
const MAX_CONNECTIONS = 4_096;
/** SPIRE's default: how long a caller whose token is still good waits for a newer one. */
const JWT_HIT_TIMEOUT_MS = 30_000;

/** Runs until the signal aborts. Throws what keeps it from starting (SETTINGS_INVALID, FAILED_PRECONDITION), and DENIED when the server has dismissed it. */
export async function runAgent(settings: AgentSettings, parts: AgentParts): Promise<void> {
  const { agent } = settings;
  parts.log.info('Starting agent', { version: parts.version, trust_domain: agent.trust_domain.name, data_dir: agent.data_dir });
  await mkdir(agent.data_dir, { recursive: true, mode: 0o700 });
  const lock: LockFile = lockFile(join(agent.data_dir, 'agent.lock'), 'the data of an agent');
  try {
    await serve(settings, parts);
  } finally {
    lock.close();
  }
}

async function serve(settings: AgentSettings, parts: AgentParts): Promise<void> {
  const { agent } = settings;
  const { log, clock, signal, plugins } = parts;
  const trustDomain = agent.trust_domain;
  // what the rooms wait for ends with them, not with the operator's signal
  const stopped = new AbortController();
  const host: Host = { trustDomain, log, clock, signal: stopped.signal, reloads: parts.reloads, joinToken: () => joinToken(agent) };
  const start = <K extends Kind>(plugin: ReadyPlugin<K>) => plugin.start({ ...host, log: log.with({ plugin: plugin.name }) });
  const only = <K extends Kind>(kind: K, type: string) => {
    const [plugin] = readyOf(plugins, kind);
    if (!plugin) throw fail('SETTINGS_INVALID', `no ${type}`);
    return plugin;
  };
  const nodeAttestor = only('agent-node-attestor', 'NodeAttestor');
  const closing: (() => Promise<void>)[] = [];
  let identity: Identity | undefined;
  let stopping = false;
  try {
    const [disk, keys, proof, attestors] = await Promise.all([
      AgentDisk.open(agent.data_dir),
      start(only('agent-key-manager', 'KeyManager')),
      start(nodeAttestor),
      Promise.all(readyOf(plugins, 'workload-attestor').map(async (plugin) => [plugin.name, await start(plugin)] as const)),
    ]);
    const called = async <T>(call: (connection: Identity['connections']['value']) => Promise<T>, stop: AbortSignal): Promise<T> => {
      const connection = me.connections.value;
      try {
        return await call(connection);
      } catch (error) {
        if (!stop.aborted) void me.report(error, connection, stopped.signal).catch(() => {});
        throw error;
      }
    };
    const known = new Known({
      trustDomain,
      clock,
      log,
      signX509: (requests, stop) => called((connection) => connection.signX509(requests, stop), stop),
      signJwt: (entryId, audience, stop) => called((connection) => connection.signJwt(entryId, audience, stop), stop),
      onOwnBundle: ({ x509 }) => {
        if (disk.data.svid.length === 0) return;
        disk.update({ bundle: x509.authorities }).catch((error: unknown) => log.error('Failed to store the bundle', { error }));
      },
      keyType: agent.workload_x509_svid_key_type,
      maxX509Svids: agent.x509_svid_cache_max_size,
      maxJwtSvids: agent.jwt_svid_cache_max_size,
      jwtHitTimeoutMs: agent.experimental.jwt_svid_cache_hit_timeout ?? JWT_HIT_TIMEOUT_MS,
      prefetch: !agent.disable_x509_svid_prefetch,
      availabilityTargetMs: agent.availability_target,
      signal: stopped.signal,
    });
    const me = new Identity({
      trustDomain,
      server: { address: agent.server_address, port: agent.server_port },
      disk,
      keys,
      attestor: { type: nodeAttestor.name, plugin: proof },
      bootstrap: () => bootstrapBundle(agent, signal),
      bundle: () => known.ownBundle,
      onBundle: (bundle) => known.learnOwnBundle(bundle),
      availabilityTargetMs: agent.availability_target,
      clock,
      log,
    });
    identity = me;
    await me.start(signal);

    // first the sync, on its way while the sockets are made
    const running = runAll(
      signal,
      (stop) => me.run(stop),
      (stop) => runSync(syncOptions(agent, me, known, parts), stop),
      (stop) => known.svids.run(stop),
      (stop) => postStatus(me, parts, stop),
    );
    running.catch(() => {});
    const refusal = () => (me.ended ? noIdentity() : stopping ? fail('UNAVAILABLE', 'the agent is shutting down') : undefined);
    if (!agent.disable_workload_api) {
      const api = createWorkloadApi({
        attestor: new CallerAttestor({ attestors: new Map(attestors), clock, log }),
        views: known.views,
        jwt: known.jwt,
        trustDomain,
        clock,
        log,
        synced: known.isSynced,
        refusal,
        allowUnauthenticatedVerifiers: agent.allow_unauthenticated_verifiers,
        allowedForeignJwtClaims: agent.allowed_foreign_jwt_claims,
      });
      const { rpc, listener } = await listenPublic(agent.socket_path, api, () => known.isSynced.value, parts);
      closing.push(async () => {
        await listener.close();
        await rpc.drain(DRAIN_MS);
      });
    }
    if (agent.admin_socket_path !== undefined) {
      const counts = () => ({ lastSyncMs: known.lastSyncMs, x509Svids: known.svids.size, jwtSvids: known.jwt.size });
      const { rpc, listener } = await listenAdmin(agent.admin_socket_path, agent.socket_path, { log, clock, svid: () => me.svid, counts });
      closing.push(async () => {
        await listener.close();
        await rpc.drain(DRAIN_MS);
      });
    }
    closing.push(await startHealth(settings, () => known.isSynced.value || agent.disable_workload_api));
    try {
      await running;
    } finally {
      stopping = true;
      // every stream looks again and finds that it ends
      known.forget();
    }
  } finally {
    for (const close of closing.reverse()) await close();
    identity?.close();
    stopped.abort(new Error('the agent stopped'));
  }
}

function syncOptions(agent: AgentSettings['agent'], identity: Identity, known: Known, { clock, log }: AgentParts) {
  let worked = true;
  return {
    connections: identity.connections,
    replica: known,
    report: (error: unknown, connection: Identity['connections']['value'], signal: AbortSignal) =>
      identity.report(error, connection, signal),
    clock,
    log,
    ...(agent.experimental.sync_interval !== undefined && { intervalMs: agent.experimental.sync_interval }),
    useDelta: agent.experimental.use_sync_authorized_entries,
    onTried: (works: boolean) => {
      // the server is there again: what waits for signatures need not wait for its turn
      if (works && !worked) known.svids.retry();
      worked = works;
    },
  };
}

/** Tells the server our version, once; a server that does not want to know is no trouble. */
async function postStatus(identity: Identity, { version, log }: AgentParts, signal: AbortSignal): Promise<void> {
  try {
    await identity.connections.value.postStatus(version, signal);
  } catch (error) {
    if (isStop(error, signal)) throw error;
    log.debug('Failed to post the status', { error });
  }
  await new Promise((_, stop) => {
    if (signal.aborted) stop(signal.reason);
    else signal.addEventListener('abort', () => stop(signal.reason), { once: true });
  });
}

/** The Workload API's socket: everybody may connect, only we can put a socket there. */
async function listenPublic(
  path: string,
  api: ReturnType<typeof createWorkloadApi>,
  isServing: () => boolean,
  { log, clock }: AgentParts,
): Promise<{ readonly rpc: RpcServer; readonly listener: UnixListener }> {
  const services = [service(SpiffeWorkloadAPIDefinition, api), service(HealthDefinition, healthService(isServing))];
  const rpc = createRpcServer({
    services: [...services, ...reflection(services)],
    gate: (context) => checkSecurityHeader(context),
    log,
    allowManyResets: true,
  });
  const listener = await listenUnix({
    path,
    mode: 0o777,
    directoryMode: 0o755,
    maxConnections: MAX_CONNECTIONS,
    log,
    onConnection: (socket, { pid, uid, gid, pidfd }) => {
      handOn(socket, { clock }).then(
        (stream) => rpc.accept(stream, { kind: 'process', pid, uid, gid, pidfd, connection: socket }),
        (error: unknown) => log.debug('Connection ended before it spoke HTTP/2', { pid, uid, error }),
      );
    },
  });
  log.info('Starting Workload and SDS APIs', { address: listener.path, network: 'unix' });
  return { rpc, listener };
}

async function startHealth({ health_checks: health }: AgentSettings, isServing: () => boolean): Promise<() => Promise<void>> {
  if (!health.listener_enabled) return async () => {};
  const { bind_address: address, bind_port: port, live_path: livePath, ready_path: readyPath } = health;
  const listener = await listenHealth(
    { address, port, livePath, readyPath },
    {
      agent: () => {
        if (!isServing()) throw fail('UNAVAILABLE', 'the agent has not heard from its server yet');
      },
    },
  );
  return async () => {
    listener.close();
    listener.closeAllConnections();
  };
}

async function joinToken({ join_token: token, join_token_file: path }: AgentSettings['agent']): Promise<string | undefined> {
  if (token !== undefined) return token.trim();
  if (path === undefined) return undefined;
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (cause) {
    throw fail('SETTINGS_INVALID', `join_token_file ${path} cannot be read: ${(cause as Error).message}`, { cause });
  }
}
