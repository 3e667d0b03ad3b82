/** Proxies that take mutual TLS and hand plain TCP on: ours, and those of the distribution, with the same certificate, one core, no tickets, no logging of connections. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, connect, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Pki {
  readonly root: string;
  readonly certificate: string;
  readonly key: string;
  /** `unix://…` of a Workload API that has the same. */
  readonly workloadApi: string;
}

export interface Contestant {
  readonly name: string;
  readonly version: string;
  readonly pid: number;
  readonly port: number;
  stop(): Promise<void>;
}

/** The core on which the proxy under test runs alone; the load has the others. */
export const CORE = '1';

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

async function started(
  name: string,
  version: string,
  port: number,
  command: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Contestant> {
  const child: ChildProcess = spawn('taskset', ['-c', CORE, ...command], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...env },
  });
  let words = '';
  child.stderr?.on('data', (data: Buffer) => (words = (words + String(data)).slice(-2_000)));
  const ended = once(child, 'exit');
  for (const from = performance.now(); ; ) {
    const open = await new Promise<boolean>((tell) => {
      const socket = connect(port, '127.0.0.1', () => {
        socket.destroy();
        tell(true);
      });
      socket.once('error', () => tell(false));
    });
    if (open) break;
    if (child.exitCode !== null || performance.now() - from > 15_000) throw new Error(`${name} does not listen: ${words}`);
    await new Promise((done) => setTimeout(done, 20));
  }
  return {
    name,
    version,
    pid: child.pid ?? 0,
    port,
    async stop() {
      child.kill('SIGTERM');
      const force = setTimeout(() => child.kill('SIGKILL'), 3_000);
      await ended;
      clearTimeout(force);
    },
  };
}

const first = (text: string) => text.split('\n')[0]?.trim() ?? '';

/** `program` is how ours is started; `more` are flags of its own. */
export async function ours(program: readonly string[], pki: Pki, backend: number, more: readonly string[] = []): Promise<Contestant> {
  const port = await freePort();
  return started('warifu', process.version, port, [
    ...program,
    'proxy',
    'server',
    `--listen=127.0.0.1:${port}`,
    `--target=127.0.0.1:${backend}`,
    `--use-workload-api-addr=${pki.workloadApi}`,
    '--allow-uri=spiffe://example.org/web',
    '--quiet=all',
    ...more,
  ]);
}

export async function haproxy(pki: Pki, backend: number): Promise<Contestant> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'haproxy-'));
  writeFileSync(join(folder, 'both.pem'), readFileSync(pki.certificate, 'utf8') + readFileSync(pki.key, 'utf8'), { mode: 0o600 });
  writeFileSync(
    join(folder, 'haproxy.cfg'),
    `global
  nbthread 1
  maxconn 4000
  tune.ssl.cachesize 0
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
listen in
  bind 127.0.0.1:${port} ssl crt ${join(folder, 'both.pem')} ca-file ${pki.root} verify required ssl-min-ver TLSv1.3 no-tls-tickets
  server backend 127.0.0.1:${backend}
`,
  );
  return started('haproxy', first(execFileSync('haproxy', ['-v'], { encoding: 'utf8' })), port, [
    'haproxy',
    '-db',
    '-f',
    join(folder, 'haproxy.cfg'),
  ]);
}

export async function stunnel(pki: Pki, backend: number): Promise<Contestant> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'stunnel-'));
  writeFileSync(
    join(folder, 'stunnel.conf'),
    `foreground = yes
pid =
debug = 3
[in]
accept = 127.0.0.1:${port}
connect = 127.0.0.1:${backend}
cert = ${pki.certificate}
key = ${pki.key}
CAfile = ${pki.root}
verifyChain = yes
requireCert = yes
sslVersionMin = TLSv1.3
options = NO_TICKET
sessionCacheSize = 1
`,
  );
  const shown = execFileSync('sh', ['-c', 'stunnel -version 2>&1'], { encoding: 'utf8' });
  return started('stunnel', first(shown), port, ['stunnel', join(folder, 'stunnel.conf')]);
}

export async function nginx(pki: Pki, backend: number): Promise<Contestant> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'nginx-'));
  const modules = '/usr/lib/nginx/modules';
  const stream =
    existsSync(modules) && readdirSync(modules).includes('ngx_stream_module.so') ? `load_module ${modules}/ngx_stream_module.so;` : '';
  writeFileSync(
    join(folder, 'nginx.conf'),
    `${stream}
daemon off;
master_process off;
pid ${join(folder, 'pid')};
error_log stderr error;
events { worker_connections 8000; }
stream {
  server {
    listen 127.0.0.1:${port} ssl;
    proxy_pass 127.0.0.1:${backend};
    proxy_timeout 1h;
    ssl_certificate ${pki.certificate};
    ssl_certificate_key ${pki.key};
    ssl_client_certificate ${pki.root};
    ssl_verify_client on;
    ssl_protocols TLSv1.3;
    ssl_session_tickets off;
    ssl_session_cache off;
  }
}
`,
  );
  const shown = execFileSync('sh', ['-c', 'nginx -v 2>&1'], { encoding: 'utf8' });
  return started('nginx', first(shown), port, ['nginx', '-p', folder, '-c', join(folder, 'nginx.conf')]);
}
