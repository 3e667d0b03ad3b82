/** The operator's socket of a whole agent: what it tells, what it changes, and where it may not be. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { runAgent } from '../../agent/agent.ts';
import { createDebugApi } from '../../agent/debug-api.ts';
import { checkSocketPaths } from '../../agent/listeners.ts';
import { agentSettings } from '../../agent/settings.ts';
import type { Level } from '../../core/log.ts';
import { createLog } from '../../core/log-output.ts';
import type { ReadyPlugin } from '../../core/plugin/ready.ts';
import { agentMemory } from '../../plugins/key-manager/memory.ts';
import { HealthDefinition } from '../../proto/gen/grpc/health/v1/health.ts';
import { SpiffeWorkloadAPIDefinition } from '../../proto/gen/spiffe/workload/workload.ts';
import { DebugDefinition } from '../../proto/gen/spire/api/agent/debug/v1/debug.ts';
import { LoggerDefinition } from '../../proto/gen/spire/api/agent/logger/v1/logger.ts';
import { Entry as WireEntry } from '../../proto/gen/spire/api/types/entry.ts';
import { LogLevel } from '../../proto/gen/spire/api/types/logger.ts';
import { systemClock } from '../../spiffe/clock.ts';
import { openChannel } from '../../spiffe/rpc/channel.ts';
import { Latest } from '../../spiffe/latest.ts';
import { formatPem } from '../../spiffe/x509/pem.ts';
import { FakeClock } from '../fakes/clock.ts';
import { AGENT, PlayedServer } from './played-server.ts';
import { header, Reader, type Realm, realm, trustDomain } from './rig.ts';

const POLL = { timeout: 10_000, interval: 10 };

let dir: string;
let home: Realm;
let server: PlayedServer;
let stop: AbortController;
let running: Promise<unknown> = Promise.resolve();
const channels: ReturnType<typeof openChannel>[] = [];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'admin-'));
  home = await realm(trustDomain.name);
  server = await PlayedServer.start(home, systemClock);
  server.entries = [
    WireEntry.fromPartial({
      id: '1',
      spiffeId: { trustDomain: trustDomain.name, path: '/web' },
      selectors: [{ type: 'test', value: 'a' }],
      createdAt: 1,
    }),
  ];
  stop = new AbortController();
  writeFileSync(join(dir, 'roots.pem'), home.bundle.x509.authorities.map(({ raw }) => formatPem('CERTIFICATE', raw)).join(''));
});
afterEach(async () => {
  for (const channel of channels.splice(0)) channel.close();
  stop.abort();
  await running;
  await server.stop();
  rmSync(dir, { recursive: true });
});

const publicPath = () => join(dir, 'public', 'api.sock');
const adminPath = () => join(dir, 'admin', 'api.sock');
const logPath = () => join(dir, 'log');

/** As the program would start it. */
function agent(admin: string | undefined, level: Level = 'info'): Promise<unknown> {
  const settings = agentSettings.parse({
    agent: {
      trust_domain: trustDomain.name,
      server_address: '127.0.0.1',
      server_port: server.port,
      data_dir: join(dir, 'data'),
      socket_path: publicPath(),
      ...(admin !== undefined && { admin_socket_path: admin }),
      trust_bundle_path: join(dir, 'roots.pem'),
    },
    plugins: [],
  });
  const plugins: readonly ReadyPlugin[] = [
    { kind: 'agent-key-manager', name: 'memory', start: (host) => agentMemory.start({}, host) },
    {
      kind: 'agent-node-attestor',
      name: 'test',
      start: async () => ({ payload: async () => Buffer.from('proof'), answer: async () => Buffer.alloc(0) }),
    },
    { kind: 'workload-attestor', name: 'test', start: async () => ({ attest: async () => ['a'] }) },
  ];
  const log = createLog({ level, format: 'json', path: logPath(), clock: systemClock });
  const parts = { plugins, log, clock: systemClock, signal: stop.signal, reloads: new Latest(0), version: '1' };
  const ended = runAgent(settings, parts);
  running = ended.catch(() => {});
  return ended;
}

async function started(level?: Level): Promise<void> {
  const ended = agent(adminPath(), level);
  ended.catch(() => {});
  // a fault is told as it is
  await Promise.race([ended, expect.poll(() => existsSync(adminPath()), POLL).toBe(true)]);
}
function at(path: string): ReturnType<typeof openChannel> {
  const channel = openChannel({ target: `unix://${path}` });
  channels.push(channel);
  return channel;
}
const debug = () => at(adminPath()).service(DebugDefinition);
const logger = () => at(adminPath()).service(LoggerDefinition);

describe('the socket', () => {
  test('is for the agent’s own user and group only', async () => {
    await started();
    expect(statSync(adminPath()).mode & 0o777).toBe(0o770);
    expect(statSync(join(dir, 'admin')).mode & 0o027).toBe(0);
    // the other one is everybody's
    expect(statSync(publicPath()).mode & 0o777).toBe(0o777);
  });

  test('has what is the operator’s, the public one what is the workloads’, and neither the other’s', async () => {
    await started();
    await debug().getInfo({});
    const reader = new Reader(at(publicPath()).service(SpiffeWorkloadAPIDefinition).fetchX509SVID({}, header));
    expect((await reader.next()).svids).toHaveLength(1);
    await reader.close();
    await expect(at(publicPath()).service(DebugDefinition).getInfo({})).rejects.toMatchObject({ code: 'UNIMPLEMENTED' });
    await expect(at(publicPath()).service(LoggerDefinition).resetLogLevel({})).rejects.toMatchObject({ code: 'UNIMPLEMENTED' });
    await expect(
      at(adminPath())
        .service(SpiffeWorkloadAPIDefinition)
        .fetchJWTSVID({ audience: ['a'], spiffeId: '' }, header),
    ).rejects.toMatchObject({ code: 'UNIMPLEMENTED' });
    expect((await at(publicPath()).service(HealthDefinition).check({ service: '' })).status).toBe(1);
  });

  test('is not there unless it was asked for, and gone with the agent', async () => {
    agent(undefined).catch(() => {});
    await expect.poll(() => existsSync(publicPath()), POLL).toBe(true);
    expect(existsSync(adminPath())).toBe(false);
    stop.abort();
    await running;
    expect(existsSync(publicPath())).toBe(false);
  });

  const below = {
    'in the directory of the public one': () => join(dir, 'public', 'admin.sock'),
    'below it': () => join(dir, 'public', 'admin', 'api.sock'),
    'below it by a detour': () => join(dir, 'admin', '..', 'public', 'x', 'api.sock').replace('x/', './x/'),
    'below it by a link': () => {
      mkdirSync(join(dir, 'public'));
      symlinkSync(join(dir, 'public'), join(dir, 'link'));
      return join(dir, 'link', 'admin', 'api.sock');
    },
  };
  for (const [name, path] of Object.entries(below))
    test(`is never ${name}: the agent does not start, and has done nothing yet`, async () => {
      await expect(agent(path())).rejects.toMatchObject({ code: 'SETTINGS_INVALID' });
      expect(existsSync(join(dir, 'data'))).toBe(false);
      expect(server.heard).toEqual([]);
    });

  test('may be above the public one, or beside it under a name that begins alike', () => {
    for (const path of ['/run/a/api.sock', '/run/api.sock', '/run/a/public2/api.sock', '/run/a/..public/api.sock'])
      expect(() => checkSocketPaths('/run/a/public/api.sock', path)).not.toThrow();
    for (const path of ['/run/a/public/api.sock', '/run/a/public/..admin/api.sock', '/run/a/public//b.sock'])
      expect(() => checkSocketPaths('/run/a/public/api.sock', path)).toThrow();
  });
});

describe('GetInfo', () => {
  test('tells the agent’s own SVID, how long it runs, when it heard of the server and what it keeps', async () => {
    const before = Math.floor(systemClock.now() / 1000);
    await started();
    const reader = new Reader(at(publicPath()).service(SpiffeWorkloadAPIDefinition).fetchX509SVID({}, header));
    await reader.next();
    const info = await debug().getInfo({});
    expect(info.svidChain.map(({ id }) => id)).toEqual([{ trustDomain: trustDomain.name, path: AGENT.path }]);
    expect(info.svidChain[0]?.expiresAt).toBeGreaterThan(before);
    expect(info.svidChain[0]?.subject).not.toBe('');
    expect(info.lastSyncSuccess).toBeGreaterThanOrEqual(before);
    expect(info).toMatchObject({ svidsCount: 1, cachedX509SvidsCount: 1, cachedJwtSvidsCount: 0, cachedSvidstoreX509SvidsCount: 0 });
    await reader.close();
  });

  test('is made anew after five seconds', async () => {
    const clock = new FakeClock();
    let kept = 1;
    const { getInfo } = createDebugApi({ svid: () => [], lastSyncMs: () => 7_999, x509Svids: () => kept, jwtSvids: () => 3, clock });
    const context = { method: '', metadata: new Map(), signal: stop.signal, peer: {} as never };
    const ask = async () => await getInfo?.({}, context);
    expect(await ask()).toMatchObject({ uptime: 0, lastSyncSuccess: 7, cachedX509SvidsCount: 1, cachedJwtSvidsCount: 3 });
    kept = 2;
    await clock.advance(4_999);
    expect(await ask()).toMatchObject({ uptime: 0, cachedX509SvidsCount: 1 });
    await clock.advance(1);
    expect(await ask()).toMatchObject({ uptime: 5, cachedX509SvidsCount: 2 });
  });
});

describe('the log level', () => {
  test('is told, changed for every line from then on, and set back', async () => {
    await started();
    expect(await logger().getLogger({})).toEqual({ currentLevel: LogLevel.INFO, launchLevel: LogLevel.INFO });
    const debugLines = () =>
      readFileSync(logPath(), 'utf8')
        .split('\n')
        .filter((line) => line.includes('"level":"debug"')).length;
    expect(debugLines()).toBe(0);
    expect(await logger().setLogLevel({ newLevel: LogLevel.DEBUG })).toEqual({
      currentLevel: LogLevel.DEBUG,
      launchLevel: LogLevel.INFO,
    });
    const fetch = async () => {
      const reader = new Reader(at(publicPath()).service(SpiffeWorkloadAPIDefinition).fetchX509SVID({}, header));
      await reader.next();
      await reader.close();
    };
    await fetch();
    const lines = debugLines();
    expect(lines).toBeGreaterThan(0);
    expect(await logger().resetLogLevel({})).toEqual({ currentLevel: LogLevel.INFO, launchLevel: LogLevel.INFO });
    await fetch();
    expect(debugLines()).toBe(lines);
  });

  test('is none that there is not', async () => {
    await started('warn');
    for (const newLevel of [LogLevel.UNSPECIFIED, 99 as LogLevel])
      await expect(logger().setLogLevel({ newLevel })).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    expect(await logger().getLogger({})).toEqual({ currentLevel: LogLevel.WARN, launchLevel: LogLevel.WARN });
  });
});
