/** Real databases on ports of 127.0.0.1, whose certificates are SVIDs in files: PostgreSQL, Redis and MariaDB as Debian packs them. What is missing fails by name. */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createConnection } from 'mysql2/promise';
import { Client } from 'pg';
import type { X509Identity } from '../../spiffe/source/x509-identity.ts';
import { Daemon } from '../e2e/daemon.ts';
import { freePort } from '../e2e/house.ts';

/** The databases refuse to run as root: then as the user that came with PostgreSQL's package. */
export const USER = ((): { readonly uid?: number; readonly gid?: number } => {
  if (process.getuid?.() !== 0) return {};
  const [, uid, gid] = /^postgres:[^:]*:(\d+):(\d+):/m.exec(readFileSync('/etc/passwd', 'utf8')) ?? [];
  if (!uid || !gid) throw new Error("the interop suite runs as root and needs the user `postgres` of Debian's package postgresql");
  return { uid: Number(uid), gid: Number(gid) };
})();

export function program(what: string, debian: string, candidates: readonly string[]): string {
  const found = candidates.find((file) => existsSync(file));
  if (!found) throw new Error(`the interop suite needs ${what} (Debian: ${debian}); there is none of ${candidates.join(', ')}`);
  return found;
}

/** The newest PostgreSQL's. */
export function postgresProgram(name: string): string {
  const home = '/usr/lib/postgresql';
  const versions = existsSync(home) ? readdirSync(home).sort((a, b) => Number(b) - Number(a)) : [];
  const candidates = versions.map((version) => join(home, version, 'bin', name));
  return program(`PostgreSQL's ${name}`, 'postgresql', [...candidates, `/usr/local/bin/${name}`, `/usr/bin/${name}`]);
}

/** A folder that the database owns. */
export function folder(name: string): string {
  const dir = mkdtempSync(join(tmpdir(), `warifu-${name}-`));
  own(dir);
  return dir;
}

function own(file: string): void {
  if (USER.uid !== undefined && USER.gid !== undefined) chownSync(file, USER.uid, USER.gid);
}

/** Each file is there as a whole or as it was; the key is its owner's alone, or PostgreSQL would not start. */
function place(dir: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    const next = join(dir, `${name}.next`);
    writeFileSync(next, text, { mode: 0o600 });
    chmodSync(next, 0o600);
    own(next);
    renameSync(next, join(dir, name));
  }
}

/** What a server's SVID is in files. */
const FILES = { certificate: 'server.crt', key: 'server.key', authorities: 'authorities.crt' } as const;

function placeSvid(dir: string, source: X509Identity): void {
  const { svid } = source;
  const { certificates, key } = svid.toPem();
  const authorities = source.x509Bundle(svid.id.trustDomain)?.toPem();
  if (!authorities) throw new Error(`no bundle for ${svid.id.trustDomain}`);
  place(dir, { [FILES.certificate]: certificates, [FILES.key]: key, [FILES.authorities]: authorities });
}

export interface Database {
  readonly port: number;
  readonly process: Daemon;
  /** How often it was given a new certificate since it began. */
  readonly reloads: number;
  /** Waits for the reloading that is under way. */
  settled(): Promise<void>;
  close(): Promise<void>;
}

/** Follows the source: files first, then what makes the server read them. */
function following(dir: string, daemon: Daemon, port: number, source: X509Identity, reload: () => Promise<void>): Database {
  let reloads = 0;
  let last = Promise.resolve();
  const off = source.onChange(() => {
    last = last.then(async () => {
      placeSvid(dir, source);
      await reload();
      reloads++;
    });
    // told by `settled`
    last.catch(() => {});
  });
  return {
    port,
    process: daemon,
    get reloads() {
      return reloads;
    },
    settled: () => last,
    async close() {
      off();
      await last.catch(() => {});
      await daemon.stop().catch(() => daemon.kill());
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** PostgreSQL of whom every connection over TCP must show a certificate, and whose users are named by its CN. Whoever reaches the socket in its folder is anybody. */
export async function startPostgres(
  source: X509Identity,
  options: { readonly ident: readonly string[]; readonly setup: readonly string[] },
): Promise<Database> {
  const dir = folder('postgres');
  const data = join(dir, 'data');
  const port = await freePort();
  const how = { cwd: dir, ...USER };
  execFileSync(postgresProgram('initdb'), ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'], {
    ...how,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  placeSvid(dir, source);
  // the lines of docs/databases.md, with the folder of this test
  place(data, {
    'pg_hba.conf': 'local    all  all                trust\nhostssl  all  all  127.0.0.1/32  cert  map=spiffe\n',
    'pg_ident.conf': `${options.ident.join('\n')}\n`,
    'postgresql.auto.conf': `listen_addresses = '127.0.0.1'
port = ${port}
unix_socket_directories = '${dir}'
fsync = off
log_connections = on
ssl = on
ssl_cert_file = '${join(dir, FILES.certificate)}'
ssl_key_file = '${join(dir, FILES.key)}'
ssl_ca_file = '${join(dir, FILES.authorities)}'
ssl_min_protocol_version = 'TLSv1.3'
`,
  });
  const daemon = new Daemon('postgres', [postgresProgram('postgres'), '-D', data], how);
  await daemon.line(/database system is ready to accept connections/, { withinMs: 60_000 });
  const admin = new Client({ host: dir, port, user: 'postgres', database: 'postgres' });
  await admin.connect();
  for (const statement of options.setup) await admin.query(statement);
  await admin.end();
  return following(dir, daemon, port, source, async () => {
    const from = daemon.lines.items.length;
    daemon.signal('SIGHUP');
    await daemon.line(/received SIGHUP, reloading configuration files/, { from, withinMs: 30_000 });
  });
}

/** Redis that takes TLS alone, from clients with a certificate. */
export async function startRedis(source: X509Identity): Promise<Database> {
  const dir = folder('redis');
  const port = await freePort();
  placeSvid(dir, source);
  const files = [join(dir, FILES.certificate), join(dir, FILES.key), join(dir, FILES.authorities)] as const;
  const [certificate, key, authorities] = files;
  const socket = join(dir, 'redis.sock');
  const server = program("Redis's redis-server", 'redis-server', ['/usr/bin/redis-server', '/usr/local/bin/redis-server']);
  const tool = program("Redis's redis-cli", 'redis-tools', ['/usr/bin/redis-cli', '/usr/local/bin/redis-cli']);
  const args = ['--bind', '127.0.0.1', '--port', '0', '--tls-port', `${port}`, '--unixsocket', socket, '--save', '', '--dir', dir];
  const tls = ['--tls-cert-file', certificate, '--tls-key-file', key, '--tls-ca-cert-file', authorities, '--tls-auth-clients', 'yes'];
  const daemon = new Daemon('redis', [server, ...args, ...tls, '--tls-protocols', 'TLSv1.3'], { cwd: dir, ...USER });
  await daemon.line(/Ready to accept connections|ready to accept connections at/, { withinMs: 30_000 });
  await daemon.accepts(socket);
  return following(dir, daemon, port, source, async () => {
    const set = ['config', 'set', 'tls-cert-file', certificate, 'tls-key-file', key, 'tls-ca-cert-file', authorities];
    const answer = execFileSync(tool, ['-s', socket, ...set], { encoding: 'utf8' });
    if (answer.trim() !== 'OK') throw new Error(`redis took no new certificate: ${answer}`);
  });
}

/** MariaDB that takes TLS alone over TCP. */
export async function startMariadb(source: X509Identity, setup: readonly string[]): Promise<Database> {
  const dir = folder('mariadb');
  const data = join(dir, 'data');
  mkdirSync(data, { mode: 0o700 });
  own(data);
  const port = await freePort();
  placeSvid(dir, source);
  const install = program("MariaDB's mariadb-install-db", 'mariadb-server', ['/usr/bin/mariadb-install-db']);
  const server = program("MariaDB's mariadbd", 'mariadb-server', ['/usr/sbin/mariadbd']);
  const how = { cwd: dir, ...USER };
  execFileSync(install, ['--no-defaults', `--datadir=${data}`, '--auth-root-authentication-method=normal', '--skip-test-db'], {
    ...how,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const socket = join(dir, 'mariadb.sock');
  const daemon = new Daemon(
    'mariadb',
    [
      server,
      '--no-defaults',
      `--datadir=${data}`,
      `--socket=${socket}`,
      '--bind-address=127.0.0.1',
      `--port=${port}`,
      '--skip-name-resolve',
      '--innodb-flush-log-at-trx-commit=0',
      `--pid-file=${join(dir, 'pid')}`,
      `--ssl-cert=${join(dir, FILES.certificate)}`,
      `--ssl-key=${join(dir, FILES.key)}`,
      `--ssl-ca=${join(dir, FILES.authorities)}`,
      '--tls-version=TLSv1.3',
      '--require-secure-transport=ON',
    ],
    how,
  );
  await daemon.line(/ready for connections/, { withinMs: 60_000 });
  const asRoot = async (...statements: readonly string[]) => {
    const admin = await createConnection({ socketPath: socket, user: 'root' });
    for (const statement of statements) await admin.query(statement);
    await admin.end();
  };
  await asRoot(...setup);
  return following(dir, daemon, port, source, () => asRoot('FLUSH SSL'));
}
