/** Programs that know nothing of SPIFFE read what the helper writes: nginx, PostgreSQL, MariaDB, OpenSSL and Java; and serve what is new when a hook has told them. */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { connect as connectTcp, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { createConnection } from 'mysql2/promise';
import { Client } from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { Daemon } from '../e2e/daemon.ts';
import { freePort } from '../e2e/house.ts';
import { Rig, triple, until } from '../proxy/helper/rig.ts';

let rig: Rig;
/** The databases refuse to run as root; their folder is theirs. */
let home: string;
const daemons: Daemon[] = [];
const USER = accountOf('postgres');
const HOW = { uid: USER.uid, gid: USER.gid };

beforeEach(async () => {
  rig = new Rig({ identities: [{ path: '/web', dnsNames: ['localhost'] }] });
  await rig.api.start();
  home = mkdtempSync(join(tmpdir(), 'helper-interop-'));
  chownSync(home, USER.uid, USER.gid);
  chmodSync(home, 0o755);
});
afterEach(async () => {
  for (const daemon of daemons.splice(0).reverse()) await daemon.stop(20_000).catch(() => daemon.kill());
  await rig[Symbol.asyncDispose]();
  rmSync(home, { recursive: true, force: true });
});

function accountOf(name: string): { readonly uid: number; readonly gid: number } {
  if (process.getuid?.() !== 0) return { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const [, uid, gid] = new RegExp(`^${name}:[^:]*:(\\d+):(\\d+):`, 'm').exec(readFileSync('/etc/passwd', 'utf8')) ?? [];
  if (!uid || !gid) throw new Error(`the interop suite runs as root and needs the user \`${name}\` of Debian's package postgresql`);
  return { uid: Number(uid), gid: Number(gid) };
}

function begin(name: string, command: readonly string[], options: ConstructorParameters<typeof Daemon>[2] = {}): Daemon {
  const daemon = new Daemon(name, command, options);
  daemons.push(daemon);
  return daemon;
}

function program(debian: string, candidates: readonly string[]): string {
  const found = candidates.find((file) => existsSync(file));
  if (!found) throw new Error(`the interop suite needs Debian's ${debian}; there is none of ${candidates.join(', ')}`);
  return found;
}

/** A folder of SVID files that the databases' user owns: key 0600, as PostgreSQL wants it. */
const settingsOf = (dir: string) => `${triple(dir)} owner = "${USER.uid}" group = "${USER.gid}"`;
const folder = (): string => {
  const dir = join(home, 'svid');
  mkdirSync(dir);
  return dir;
};
const serialOnDisk = (dir: string) =>
  X509Svid.fromPem(readFileSync(join(dir, 'svid.pem')), readFileSync(join(dir, 'svid_key.pem'))).leaf.serialHex;
const authorities = () => rig.trustDomain.bundle.x509.toPem();
const serialOf = (socket: TLSSocket) => BigInt(`0x${socket.getPeerCertificate().serialNumber}`).toString(16);

/** The serial number that a TLS server shows behind what its protocol says first. */
async function shown(port: number, prelude: (socket: Socket) => Promise<void> = async () => {}): Promise<string> {
  const socket = connectTcp(port, '127.0.0.1');
  try {
    await new Promise<void>((done, fail) => socket.once('connect', done).once('error', fail));
    await prelude(socket);
    const secure = connect({ socket, ca: authorities(), servername: 'localhost' });
    await new Promise<void>((done, fail) => secure.once('secureConnect', done).once('error', fail));
    expect(secure.authorized).toBe(true);
    const serial = serialOf(secure);
    secure.destroy();
    return serial;
  } finally {
    socket.destroy();
  }
}

test('HP-4 HP-8 nginx serves what the helper writes; a hook reloads it, and no request fails while every SVID changes', async () => {
  const nginx = program('nginx', ['/usr/sbin/nginx', '/usr/local/sbin/nginx']);
  const port = await freePort();
  const dir = folder();
  const conf = join(home, 'nginx.conf');
  writeFileSync(
    conf,
    `daemon off;
pid ${home}/pid;
error_log stderr notice;
worker_processes 1;
${process.getuid?.() === 0 ? 'user postgres;' : ''}
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path ${home}/body; proxy_temp_path ${home}/proxy; fastcgi_temp_path ${home}/fastcgi; uwsgi_temp_path ${home}/uwsgi; scgi_temp_path ${home}/scgi;
  server {
    listen 127.0.0.1:${port} ssl;
    ssl_certificate ${dir}/svid.pem;
    ssl_certificate_key ${dir}/svid_key.pem;
    ssl_client_certificate ${dir}/svid_bundle.pem;
    ssl_verify_client on;
    ssl_verify_depth 3;
    location / { return 200 "$ssl_client_serial"; }
  }
}
`,
  );
  const helper = rig.spawn(`${settingsOf(dir)}
command = ["${nginx}", "-p", "${home}", "-c", "${conf}"]
hook "reload" { signal = "SIGHUP" pid_file = "${home}/pid" debounce = "0s" }`);
  const client = rig.trustDomain.rawSvid('/client');
  /** A new connection each: its answer, and the serial number that the server showed. */
  const ask = (mtls: boolean) =>
    new Promise<{ status: number; serial: string }>((done, fail) => {
      const identity = mtls ? { cert: client.certificatesPem, key: client.keyPem } : {};
      const sent = request(
        { port, host: '127.0.0.1', servername: 'localhost', ca: authorities(), agent: false, ...identity },
        (response) => {
          const serial = serialOf(response.socket as TLSSocket);
          response.resume().once('end', () => done({ status: response.statusCode ?? 0, serial }));
        },
      );
      sent.once('error', fail);
      sent.end();
    });
  await helper.line(/Command started/);
  for (let at = performance.now(), up = false; !up; ) {
    up = await ask(true).then(
      () => true,
      () => false,
    );
    if (!up && performance.now() - at > 20_000) throw new Error(`nginx does not answer:\n${helper.tail()}`);
  }
  expect((await ask(false)).status).toBe(400);
  let over = false;
  let answered = 0;
  const serials = new Set<string>();
  const asking = (async () => {
    while (!over) {
      const { status, serial } = await ask(true);
      expect(status).toBe(200);
      serials.add(serial);
      answered++;
    }
  })();
  asking.catch(() => {});
  for (let round = 0; round < 5; round++) {
    const before = serialOnDisk(dir);
    rig.api.renew();
    await until('files', () => serialOnDisk(dir) !== before);
    const wanted = serialOnDisk(dir);
    await Promise.race([until('nginx shows it', () => serials.has(wanted)), asking]);
  }
  over = true;
  await asking;
  expect(serials.size).toBe(6);
  expect(answered).toBeGreaterThan(20);
  expect((await helper.stop(5_000)).code).toBe(0);
});

test('HP-4 HP-8 PostgreSQL takes files and a SIGHUP by its pid file: plaintext is refused, and new connections see the new certificate', async () => {
  const base = '/usr/lib/postgresql';
  const versions = existsSync(base) ? readdirSync(base).sort((a, b) => Number(b) - Number(a)) : [];
  const bin = (name: string) => program('postgresql', [...versions.map((one) => join(base, one, 'bin', name)), `/usr/local/bin/${name}`]);
  const dir = folder();
  const data = join(home, 'data');
  const port = await freePort();
  execFileSync(bin('initdb'), ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'], {
    cwd: home,
    ...HOW,
    stdio: 'ignore',
  });
  writeFileSync(join(data, 'pg_hba.conf'), 'local all all trust\nhostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n');
  writeFileSync(
    join(data, 'postgresql.auto.conf'),
    `listen_addresses = '127.0.0.1'\nport = ${port}\nunix_socket_directories = '${home}'\nfsync = off\nssl = on
ssl_cert_file = '${dir}/svid.pem'\nssl_key_file = '${dir}/svid_key.pem'\nssl_ca_file = '${dir}/svid_bundle.pem'\n`,
  );
  const helper = rig.spawn(`${settingsOf(dir)}\npid_file_name = "${data}/postmaster.first"\nrenew_signal = "SIGHUP"`);
  await helper.line(/Every output is written/);
  const postgres = begin('postgres', [bin('postgres'), '-D', data], { cwd: home, ...HOW });
  await postgres.line(/database system is ready to accept connections/, { withinMs: 60_000 });
  writeFileSync(join(data, 'postmaster.first'), String(postgres.pid));
  const client = rig.trustDomain.rawSvid('/client');
  const as = { host: '127.0.0.1', port, user: 'postgres', database: 'postgres' };
  const ssl = {
    ca: authorities(),
    cert: client.certificatesPem,
    key: client.keyPem,
    servername: 'localhost',
    checkServerIdentity: () => undefined,
  };
  const asked = async (options: object) => {
    const one = new Client({ ...as, ...options });
    await one.connect();
    const { rows } = await one.query<{ ssl: boolean }>('select ssl from pg_stat_ssl where pid = pg_backend_pid()');
    await one.end();
    return rows[0]?.ssl;
  };
  expect(await asked({ ssl })).toBe(true);
  await expect(asked({ ssl: false })).rejects.toThrow(/no pg_hba\.conf entry/);
  await expect(asked({ ssl: { ...ssl, cert: undefined, key: undefined } })).rejects.toThrow();
  const startTls = async (socket: Socket) => {
    socket.write(Buffer.from('0000000804d2162f', 'hex'));
    await new Promise<void>((done) => socket.once('data', () => done()));
  };
  for (let round = 0; round < 2; round++) {
    const from = postgres.lines.length;
    const before = serialOnDisk(dir);
    rig.api.renew();
    await until('files', () => serialOnDisk(dir) !== before);
    await postgres.line(/received SIGHUP/, { from, withinMs: 30_000 });
    let seen = '';
    for (let tries = 0; seen !== serialOnDisk(dir) && tries < 200; tries++) seen = await shown(port, startTls);
    expect(seen).toBe(serialOnDisk(dir));
    expect(await asked({ ssl })).toBe(true);
  }
});

test('HP-4 HP-8 MariaDB takes files, and FLUSH SSL by a hook; plaintext is refused', async () => {
  const dir = folder();
  const data = join(home, 'data');
  mkdirSync(data, { mode: 0o700 });
  chownSync(data, USER.uid, USER.gid);
  const port = await freePort();
  const socket = join(home, 'mariadb.sock');
  const client = program('mariadb-client', ['/usr/bin/mariadb']);
  const flush = `["${client}", "--no-defaults", "--socket=${socket}", "--user=root", "-e", "FLUSH SSL"]`;
  const helper = rig.spawn(`${settingsOf(dir)}\nhook "mariadb" { command = ${flush} debounce = "0s" }`);
  await helper.line(/Every output is written/);
  // it is not up yet: that is told, and the next renewal is another chance
  await helper.line(/Hook failed/);
  const how = { cwd: home, ...HOW };
  execFileSync(
    program('mariadb-server', ['/usr/bin/mariadb-install-db']),
    ['--no-defaults', `--datadir=${data}`, '--auth-root-authentication-method=normal', '--skip-test-db'],
    { ...how, stdio: 'ignore' },
  );
  const mariadb = begin(
    'mariadb',
    [
      program('mariadb-server', ['/usr/sbin/mariadbd']),
      '--no-defaults',
      `--datadir=${data}`,
      `--socket=${socket}`,
      '--bind-address=127.0.0.1',
      `--port=${port}`,
      '--skip-name-resolve',
      `--pid-file=${join(home, 'pid')}`,
      `--ssl-cert=${dir}/svid.pem`,
      `--ssl-key=${dir}/svid_key.pem`,
      `--ssl-ca=${dir}/svid_bundle.pem`,
      '--require-secure-transport=ON',
    ],
    how,
  );
  await mariadb.line(/ready for connections/, { withinMs: 60_000 });
  const admin = await createConnection({ socketPath: socket, user: 'root' });
  await admin.query("CREATE USER 'web'@'127.0.0.1' REQUIRE X509");
  await admin.end();
  const identity = rig.trustDomain.rawSvid('/client');
  const asked = async (ssl: object | undefined) => {
    const one = await createConnection({ host: '127.0.0.1', port, user: 'web', ...(ssl && { ssl }) });
    try {
      const [rows] = await one.query("SHOW STATUS LIKE 'Ssl_server_not_after'");
      return JSON.stringify(rows);
    } finally {
      await one.end();
    }
  };
  const ssl = { ca: authorities(), cert: identity.certificatesPem, key: identity.keyPem, servername: 'localhost', verifyIdentity: false };
  expect(await asked(ssl)).toContain('Ssl_server_not_after');
  await expect(asked(undefined)).rejects.toThrow();
  await expect(asked({ ...ssl, cert: undefined, key: undefined })).rejects.toThrow();
  const ends: string[] = [await asked(ssl)];
  for (const hours of [2, 3]) {
    const from = helper.lines.length;
    rig.api.set({ identities: [{ path: '/web', dnsNames: ['localhost'], ttlMs: hours * 3_600_000 }] });
    await helper.line(/Hook run/, { from });
    ends.push(await asked(ssl));
  }
  expect(new Set(ends).size).toBe(3);
});

test('HP-4 OpenSSL verifies what lies in the folder, and Java lists the keystore, before and after a renewal', async () => {
  const dir = folder();
  const stores = join(home, 'stores');
  mkdirSync(stores);
  const password = rig.write('password', 'changeit\n');
  const helper = rig.spawn(`${settingsOf(dir)}\noutput "java" { format = "pkcs12" directory = "${stores}" password_file = "${password}" }`);
  await helper.line(/Every output is written/);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const keytool = () =>
    execFileSync('keytool', ['-list', '-v', '-keystore', join(stores, 'keystore.p12'), '-storepass', 'changeit'], { encoding: 'utf8' });
  for (let round = 0; round < 2; round++) {
    const [svid, key, bundle] = ['svid', 'svid_key', 'svid_bundle'].map((name) => join(dir, `${name}.pem`)) as [string, string, string];
    expect(openssl('verify', '-x509_strict', '-CAfile', bundle, '-untrusted', svid, svid)).toContain(': OK');
    expect(openssl('x509', '-in', svid, '-noout', '-pubkey')).toBe(openssl('pkey', '-in', key, '-pubout'));
    const serial = serialOnDisk(dir);
    await until('the keystore has the same', () => keytool().toLowerCase().includes(`serial number: ${serial}`));
    expect(keytool()).toMatch(/Entry type: PrivateKeyEntry\nCertificate chain length: 2/);
    rig.api.renew();
    await until('files', () => serialOnDisk(dir) !== serial);
  }
});
