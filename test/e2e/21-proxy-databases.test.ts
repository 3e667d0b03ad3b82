/**
 * Three pairs of programs that know nothing of identity, psql and PostgreSQL, redis-cli and Redis, curl and nginx, speak through two proxies whose SVIDs last
 * 30 seconds, while the server is killed and started again. WARIFU_PROXY_SECONDS makes it longer.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { folder, postgresProgram, program, USER } from '../interop/databases-servers.ts';
import { Daemon } from './daemon.ts';
import { type Agent, createRunningHouse, freePort, type House, type Output, runToEnd, WARIFU } from './house.ts';

const SECONDS = Number(process.env['WARIFU_PROXY_SECONDS'] ?? 40);
const SVID_SECONDS = 30;
const MARKER = `marker-${randomBytes(12).toString('hex')}`;

interface Pair {
  readonly name: string;
  readonly port: number;
  /** One question that carries the marker there and back. */
  ask(port: number): Promise<Output>;
  readonly expected: string;
}

/** Stands between two programs and keeps every byte that passes. */
class Listener {
  readonly port: number;
  readonly #chunks: Buffer[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  static async before(target: number): Promise<Listener> {
    const listener = createServer({ allowHalfOpen: true });
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    return new Listener(listener, target);
  }

  private constructor(server: Server, target: number) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', (near) => {
      const far = connect({ port: target, host: '127.0.0.1', allowHalfOpen: true });
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from);
        from.on('data', (chunk: Buffer) => this.#chunks.push(chunk));
        from.on('error', () => to.destroy());
        from.on('close', () => this.#sockets.delete(from));
        from.pipe(to);
      }
    });
  }

  /** Whether the words passed, within one write or over several. */
  heard(words: string): boolean {
    return Buffer.concat(this.#chunks).includes(words);
  }

  get bytes(): number {
    return this.#chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}

const daemons: Daemon[] = [];
const folders: string[] = [];
const listeners: Listener[] = [];

function launch(name: string, command: readonly string[], how = {}): Daemon {
  const daemon = new Daemon(name, command, how);
  daemons.push(daemon);
  return daemon;
}

function place(name: string): string {
  const dir = folder(name);
  folders.push(dir);
  return dir;
}

async function postgres(): Promise<Pair> {
  const dir = place('plain-postgres');
  const data = join(dir, 'data');
  const port = await freePort();
  const initdb = ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'];
  execFileSync(postgresProgram('initdb'), initdb, { cwd: dir, ...USER, stdio: ['ignore', 'ignore', 'pipe'] });
  const settings = ['-h', '127.0.0.1', '-p', `${port}`, '-k', dir, '-c', 'fsync=off'];
  const daemon = launch('postgres', [postgresProgram('postgres'), '-D', data, ...settings], { cwd: dir, ...USER });
  await daemon.line(/database system is ready to accept connections/, { withinMs: 60_000 });
  const psql = program("PostgreSQL's psql", 'postgresql-client', ['/usr/bin/psql', '/usr/local/bin/psql']);
  return {
    name: 'psql',
    port,
    expected: `${MARKER}|499500`,
    ask: (at) =>
      runToEnd(
        [
          psql,
          '-X',
          '-A',
          '-t',
          '-c',
          `select '${MARKER}', sum(n) from generate_series(0, 999) n`,
          `host=127.0.0.1 port=${at} user=postgres dbname=postgres sslmode=disable connect_timeout=10`,
        ],
        { cwd: dir },
      ),
  };
}

async function redis(): Promise<Pair> {
  const dir = place('plain-redis');
  const port = await freePort();
  const server = program("Redis's redis-server", 'redis-server', ['/usr/bin/redis-server', '/usr/local/bin/redis-server']);
  const cli = program("Redis's redis-cli", 'redis-tools', ['/usr/bin/redis-cli', '/usr/local/bin/redis-cli']);
  const daemon = launch('redis', [server, '--bind', '127.0.0.1', '--port', `${port}`, '--save', '', '--dir', dir], { cwd: dir, ...USER });
  await daemon.line(/[Rr]eady to accept connections/, { withinMs: 30_000 });
  return {
    name: 'redis-cli',
    port,
    expected: MARKER,
    ask: (at) => runToEnd([cli, '-h', '127.0.0.1', '-p', `${at}`, 'echo', MARKER], { cwd: dir }),
  };
}

async function nginx(): Promise<Pair> {
  const dir = place('plain-nginx');
  const port = await freePort();
  const server = program('nginx', 'nginx-light', ['/usr/sbin/nginx', '/usr/local/sbin/nginx']);
  const curl = program('curl', 'curl', ['/usr/bin/curl', '/usr/local/bin/curl']);
  const page = `${MARKER}\n${randomBytes(192 * 1024).toString('base64')}`;
  writeFileSync(join(dir, 'page'), page);
  chmodSync(join(dir, 'page'), 0o644);
  writeFileSync(
    join(dir, 'nginx.conf'),
    `daemon off;
pid ${join(dir, 'pid')};
error_log stderr notice;
events {}
http {
  access_log off;
  client_body_temp_path ${dir}; proxy_temp_path ${dir}; fastcgi_temp_path ${dir}; uwsgi_temp_path ${dir}; scgi_temp_path ${dir};
  server { listen 127.0.0.1:${port}; root ${dir}; }
}
`,
  );
  const daemon = launch('nginx', [server, '-e', 'stderr', '-p', dir, '-c', join(dir, 'nginx.conf')], { cwd: dir, ...USER });
  await daemon.line(/start worker process /, { withinMs: 30_000 });
  return {
    name: 'curl',
    port,
    expected: page,
    ask: (at) => runToEnd([curl, '-sS', '--fail', '--noproxy', '*', '--max-time', '10', `http://127.0.0.1:${at}/page`], { cwd: dir }),
  };
}

function told(output: Output): string {
  if (output.code !== 0) throw new Error(`exits ${output.signal ?? output.code}: ${output.stderr}`);
  return output.stdout.trimEnd();
}

let house: House;
let agent: Agent;
let pairs: readonly Pair[];
/** By the pair's name: where plain comes in, and what stands between the two proxies. */
const ways = new Map<string, { readonly port: number; readonly middle: Listener; readonly proxies: readonly Daemon[] }>();

const ID = (path: string) => `spiffe://example.org${path}`;

async function proxy(mode: 'server' | 'client', target: number, own: string, peer: string): Promise<{ port: number; daemon: Daemon }> {
  const check = mode === 'server' ? '--allow-uri' : '--verify-uri';
  const daemon = launch(`proxy ${mode} of ${own}`, [
    ...WARIFU,
    ...['proxy', mode, '--listen', '127.0.0.1:0', '--target', `127.0.0.1:${target}`],
    ...['--use-workload-api-addr', agent.address, '--spiffe-id', own, check, peer, '--log-format', 'json'],
  ]);
  const line = await daemon.line(/listening for connections/, { withinMs: 20_000 });
  const { address } = JSON.parse(line) as { address: string };
  return { port: Number(address.slice(address.lastIndexOf(':') + 1)), daemon };
}

beforeAll(async () => {
  ({ house, agent } = await createRunningHouse({ agent: { attestor: 'x509pop' } }));
  pairs = await Promise.all([postgres(), redis(), nginx()]);
  for (const { name } of pairs)
    for (const side of ['client', 'server'])
      await house.createEntry({ id: `/${name}/${side}`, parent: agent, x509SvidTtlSeconds: SVID_SECONDS });
  for (const { name, port } of pairs) {
    const [client, server] = [ID(`/${name}/client`), ID(`/${name}/server`)];
    const far = await proxy('server', port, server, client);
    const middle = await Listener.before(far.port);
    listeners.push(middle);
    const near = await proxy('client', middle.port, client, server);
    ways.set(name, { port: near.port, middle, proxies: [near.daemon, far.daemon] });
  }
}, 120_000);

afterAll(async () => {
  for (const listener of listeners) listener.close();
  for (const daemon of daemons.toReversed()) await daemon.stop().catch(() => daemon.kill());
  await house?.close();
  for (const dir of folders) rmSync(dir, { recursive: true, force: true });
}, 60_000);

describe('programs that know nothing of identity', () => {
  test(
    `have every question answered for ${SECONDS} s, with SVIDs of ${SVID_SECONDS} s, while the server is killed and started again`,
    async () => {
      const begun = performance.now();
      const elapsed = () => (performance.now() - begun) / 1000;
      const faults: string[] = [];
      const answered = new Map<string, number>();
      const asking = pairs.map(async ({ name, ask, expected }) => {
        const { port = 0 } = ways.get(name) ?? {};
        for (;;) {
          const output = await ask(port);
          const right = output.code === 0 && output.stdout.trimEnd() === expected;
          if (right) answered.set(name, (answered.get(name) ?? 0) + 1);
          else faults.push(`${name} after ${elapsed().toFixed(1)} s: exit ${output.code}, ${output.stderr.slice(0, 300)}`);
          if (elapsed() > SECONDS) return;
        }
      });
      const until = (second: number) => new Promise((done) => setTimeout(done, Math.max(0, (second - elapsed()) * 1000)));
      const restarting = (async () => {
        await until(SECONDS * 0.2);
        await house.server.kill();
        // at once: a longer absence meets the agent's growing waits, which may outlast an SVID of 30 s
        await house.startServer();
      })();
      await Promise.all([...asking, restarting]);
      console.log(`answered: ${[...answered].map(([name, count]) => `${name} ${count}`).join(', ')}; failed: ${faults.length}`);
      expect(faults).toEqual([]);
      for (const { name } of pairs) expect(answered.get(name), name).toBeGreaterThan(10);
      for (const { proxies } of ways.values()) for (const daemon of proxies) expect(daemon.end, daemon.tail()).toBeUndefined();
    },
    (SECONDS + 60) * 1000,
  );

  test('have spoken TLS alone between the proxies, and in plain text where there is none', async () => {
    for (const { name, port, ask, expected } of pairs) {
      const way = ways.get(name);
      expect(way?.middle.bytes, name).toBeGreaterThan(10_000);
      expect(way?.middle.heard(MARKER), name).toBe(false);
      const twin = await Listener.before(port);
      listeners.push(twin);
      expect(told(await ask(twin.port)), name).toBe(expected);
      expect(twin.heard(MARKER), name).toBe(true);
    }
  });

  test('reach nobody else: the proxy of another service is refused, and the one that is meant answers', async () => {
    const [first, second] = pairs;
    if (!first || !second) throw new Error('no pairs');
    const wrong = await proxy('client', ways.get(first.name)?.middle.port ?? 0, ID(`/${second.name}/client`), ID(`/${second.name}/server`));
    const refused = await first.ask(wrong.port);
    expect(refused.code).not.toBe(0);
    await wrong.daemon.line(/UPSTREAM_REFUSED/, { withinMs: 10_000 });
    expect(told(await first.ask(ways.get(first.name)?.port ?? 0))).toBe(first.expected);
    expect(ways.get(first.name)?.middle.heard(MARKER)).toBe(false);
  });
});
