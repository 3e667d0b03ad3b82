/** The flags of `proxy server` and `proxy client`: what is read, what must not stand together, and for each refusal the same command line, mended. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { afterAll, describe, expect, test } from 'vitest';
import { parseFlags } from '../../cli/flags.ts';
import { client, server } from '../../cli/proxy.ts';
import { CLIENT_FLAGS, SERVER_FLAGS } from '../../cli/proxy-flags.ts';
import { RULES } from '../../cli/proxy-rules.ts';
import { readProxyFlags } from '../../cli/proxy-settings.ts';
import { runCommand } from '../../cli/command.ts';
import type { ProcessSettings } from '../../proxy/process-settings.ts';
import type { InboundSettings, OutboundSettings } from '../../proxy/settings.ts';
import { TestTerminal } from './terminal.ts';

const dir = mkdtempSync(join(tmpdir(), 'flags-'));
afterAll(() => rmSync(dir, { recursive: true }));

type Env = Readonly<Record<string, string>>;

function read(mode: 'server' | 'client', argv: readonly string[], env: Env = {}): ProcessSettings {
  const flags = mode === 'server' ? SERVER_FLAGS : CLIENT_FLAGS;
  const { values, given } = parseFlags(flags, argv, new Command().exitOverride(), [], env);
  return readProxyFlags({ mode, values, given });
}

function faultsOf(mode: 'server' | 'client', argv: readonly string[], env: Env = {}): readonly string[] {
  try {
    read(mode, argv, env);
    return [];
  } catch (error) {
    return (error as Error).message.split('\n');
  }
}

const words = (text: string) => text.split(' ').filter(Boolean);
const SERVER = words('--listen 127.0.0.1:8443 --target 127.0.0.1:8080');
const CLIENT = words('--listen 127.0.0.1:8080 --target db:8443');
const SVID = ['--use-workload-api'];
const PEM = words('--cert c.pem --key k.pem');
/** A good command line of each. */
const GOOD = { server: [...SERVER, ...SVID, '--allow-all'], client: [...CLIENT, ...SVID, '--verify-uri', 'spiffe://example.org/db'] };

test('the command lines that the tables begin with are good', () => {
  expect(faultsOf('server', GOOD.server)).toEqual([]);
  expect(faultsOf('client', GOOD.client)).toEqual([]);
});

interface Row {
  readonly of: 'server' | 'client';
  readonly bad: readonly string[];
  /** A part of the one fault that is told. */
  readonly says: string;
  /** The nearest that is good. */
  readonly good: readonly string[];
}

const row = (of: Row['of'], bad: readonly string[] | string, says: string, good: readonly string[] | string): Row => ({
  of,
  bad: typeof bad === 'string' ? words(bad) : bad,
  says,
  good: typeof good === 'string' ? words(good) : good,
});
const server_ = (bad: string, says: string, good: string) =>
  row('server', [...GOOD.server, ...words(bad)], says, [...GOOD.server, ...words(good)]);
const client_ = (bad: string, says: string, good: string) =>
  row('client', [...GOOD.client, ...words(bad)], says, [...GOOD.client, ...words(good)]);
const L = '--listen 127.0.0.1:1 --use-workload-api --allow-all';
const CL = '--target db:1 --use-workload-api --verify-dns db';

const TABLE: readonly Row[] = [
  row('server', ['--target', '127.0.0.1:8080', ...SVID, '--allow-all'], 'required flag --listen not provided', GOOD.server),
  row('server', ['--listen', ':8443', ...SVID, '--allow-all'], 'required flag --target not provided', GOOD.server),

  // who we are
  row('server', [...SERVER, '--allow-all'], 'one of --use-workload-api, --spiffe-dir, --keystore, or --cert with --key is required', [
    ...SERVER,
    '--allow-all',
    ...PEM,
  ]),
  row('client', [...CLIENT], 'one of --use-workload-api', [...CLIENT, '--disable-authentication']),
  row('server', [...GOOD.server, ...PEM], 'are mutually exclusive: one identity', [...SERVER, '--allow-all', ...PEM]),
  row('server', [...SERVER, '--allow-all', '--keystore', 'k.p12', ...PEM], 'are mutually exclusive: one identity', [
    ...SERVER,
    '--allow-all',
    '--keystore',
    'k.p12',
  ]),
  row('server', [...GOOD.server, '--spiffe-dir', '/run/svid'], 'are mutually exclusive: one identity', [
    ...SERVER,
    '--allow-all',
    '--spiffe-dir',
    '/run/svid',
  ]),
  row('server', [...SERVER, '--allow-all', '--cert', 'c.pem'], '--cert and --key must be set together', [...SERVER, '--allow-all', ...PEM]),
  row('server', [...SERVER, '--allow-all', '--key', 'k.pem'], '--cert and --key must be set together', [...SERVER, '--allow-all', ...PEM]),
  row('client', [...CLIENT, '--disable-authentication', ...PEM], '--disable-authentication shows no certificate', [...CLIENT, ...PEM]),
  row('client', [...GOOD.client, '--hint', 'a', '--spiffe-id', 'spiffe://example.org/a'], '--hint and --spiffe-id are mutually exclusive', [
    ...GOOD.client,
    '--hint',
    'a',
  ]),
  row('server', [...SERVER, '--allow-all', ...PEM, '--hint', 'a'], 'need --use-workload-api', [...GOOD.server, '--hint', 'a']),
  row('server', [...SERVER, '--allow-all', ...PEM, '--spiffe-id', 'spiffe://example.org/a'], 'need --use-workload-api', [
    ...GOOD.server,
    '--spiffe-id',
    'spiffe://example.org/a',
  ]),
  server_('--spiffe-id example.org/a', '--spiffe-id: ', '--spiffe-id spiffe://example.org/a'),
  server_('--use-workload-api-addr http://x', '--use-workload-api-addr: ', '--use-workload-api-addr unix:///run/a.sock'),
  row('server', [...SERVER, '--allow-all', '--keystore', 'k.jceks'], 'JCEKS and JKS are not read', [
    ...SERVER,
    '--allow-all',
    '--keystore',
    'k.p12',
  ]),

  // who may
  row('server', [...SERVER, ...SVID], 'at least one access control flag is required', GOOD.server),
  server_('--allow-cn web', '--allow-all is mutually exclusive', ''),
  server_('--disable-authentication', '--disable-authentication is mutually exclusive', ''),
  row(
    'server',
    [...SERVER, ...SVID, '--disable-authentication', '--intentions', 'i.json'],
    '--disable-authentication is mutually exclusive',
    [...SERVER, ...SVID, '--disable-authentication'],
  ),
  row(
    'server',
    [...SERVER, ...PEM, '--allow-cn', 'a', '--allow-spki-pin', `sha256:${'A'.repeat(43)}=`],
    '--allow-spki-pin is mutually exclusive',
    [...SERVER, ...PEM, '--allow-spki-pin', `sha256:${'A'.repeat(43)}=`],
  ),
  row('server', [...SERVER, ...SVID, '--allow-uri', 'spiffe://*/web'], '--allow-uri: URI pattern', [
    ...SERVER,
    ...SVID,
    '--allow-uri',
    'spiffe://example.org/*',
  ]),
  row('server', [...SERVER, ...SVID, '--allow-cn', ''], '--allow-cn must not be empty', [...SERVER, ...SVID, '--allow-cn', 'web']),
  row('server', [...SERVER, ...SVID, '--allow-spki-pin', 'sha1:abc'], '--allow-spki-pin: "sha1:abc": expected sha256:BASE64', [
    ...SERVER,
    ...SVID,
    '--allow-spki-pin',
    `sha256:${'A'.repeat(43)}=`,
  ]),
  row('server', [...SERVER, ...SVID, '--allow-spki-pin', 'sha256:abc'], 'has 44 characters', [
    ...SERVER,
    ...SVID,
    '--allow-spki-pin',
    `SHA256:${'A'.repeat(43)}=`,
  ]),
  row('server', [...SERVER, ...PEM, '--intentions', 'i.json', '--allow-cn', 'a'], '--intentions are for SPIFFE IDs', [
    ...SERVER,
    ...SVID,
    '--intentions',
    'i.json',
    '--allow-cn',
    'a',
  ]),
  row('client', [...CLIENT, ...SVID], 'the server must be named: --verify-uri', GOOD.client),
  row('client', [...CLIENT, ...SVID], '--unsafe-any-peer to insist', [...CLIENT, ...SVID, '--unsafe-any-peer']),
  row('client', [...CLIENT, '--spiffe-dir', '/run/svid'], 'the server must be named', [
    ...CLIENT,
    '--spiffe-dir',
    '/run/svid',
    '--verify-trust-domain',
    'example.org',
  ]),
  row('client', [...CLIENT, ...SVID, '--disable-authentication'], 'the server must be named', [...GOOD.client, '--disable-authentication']),
  row('client', [...CLIENT, ...SVID], 'the server must be named', [...CLIENT, ...SVID, '--intentions', 'i.json']),
  row('client', [...CLIENT, ...SVID], 'the server must be named', [...CLIENT, ...PEM]),
  client_('--unsafe-any-peer', '--unsafe-any-peer is mutually exclusive', ''),
  row('client', [...CLIENT, ...PEM, '--unsafe-any-peer'], 'are for SPIFFE', [...CLIENT, ...PEM]),
  row('client', [...CLIENT, ...PEM, '--verify-trust-domain', 'example.org'], 'are for SPIFFE', [
    ...CLIENT,
    ...SVID,
    '--verify-trust-domain',
    'example.org',
  ]),
  row('client', [...CLIENT, ...SVID, '--verify-trust-domain', 'Example'], '--verify-trust-domain: ', [
    ...CLIENT,
    ...SVID,
    '--verify-trust-domain',
    'example',
  ]),
  row('client', [...GOOD.client, '--verify-spki-pin', `sha256:${'A'.repeat(43)}=`], '--verify-spki-pin is mutually exclusive', [
    ...CLIENT,
    ...SVID,
    '--verify-spki-pin',
    `sha256:${'A'.repeat(43)}=`,
  ]),
  row('client', [...CLIENT, ...SVID, '--disable-authentication', '--intentions', 'i.json'], 'nobody calls', [
    ...CLIENT,
    ...SVID,
    '--intentions',
    'i.json',
  ]),
  row(
    'client',
    [...GOOD.client, '--allow-gid', '5'],
    '--allow-gid needs --listen unix:PATH',
    words(`--listen unix:/run/a.sock ${CL} --allow-gid 5`),
  ),
  server_('--proxy-protocol-from lb', '--proxy-protocol-from: "lb": expected an IP address or a network', '--proxy-protocol-from ::1'),
  server_('--proxy-protocol-from 10.0.0.0/33', '--proxy-protocol-from: "10.0.0.0/33"', '--proxy-protocol-from 10.0.0.0/32'),
  server_('--proxy-protocol-from ::/129', '--proxy-protocol-from: "::/129"', '--proxy-protocol-from ::/0 --proxy-protocol-from 10.0.0.1'),
  client_('--allow-uid root', '--allow-uid: "root": expected a number', '--allow-uid 0'),
  client_('--allow-uid 4294967295', '--allow-uid: ', '--allow-uid 4294967294'),

  // addresses
  row('server', `${L} --target 10.0.0.1:80`, '--target must be on this machine', `${L} --target 10.0.0.1:80 --unsafe-target`),
  row('server', `${L} --target db:80`, '--target must be on this machine', `${L} --target localhost:80`),
  row('server', `${L} --target 127.0.0.1.example.org:80`, '--target must be on this machine', `${L} --target 127.0.0.2:80`),
  row('server', `${L} --target [::2]:80`, '--target must be on this machine', `${L} --target [::1]:80`),
  row('server', `${L} --target systemd:web`, 'nothing can be dialled there', `${L} --target unix:/run/web.sock`),
  row('server', `${L} --target launchd:web`, 'nothing can be dialled there', `${L} --target unix:web.sock`),
  row('server', `${L} --target :80`, 'names no host', `${L} --target localhost:80`),
  row('server', `${L} --target localhost`, 'expected HOST:PORT', `${L} --target localhost:1`),
  row('server', `${L} --target localhost:0`, 'a port of 1 to 65535', `${L} --target localhost:65535`),
  row('server', `${L} --target localhost:65536`, 'a port of 1 to 65535', `${L} --target localhost:65535`),
  row('server', `${L} --target ::1:80`, 'expected HOST:PORT', `${L} --target [::1]:80`),
  row('server', `${L} --target unix:`, 'wants a path', `${L} --target unix:a`),
  row('server', `${L} --target unix:${'a'.repeat(108)}`, 'at most 107 bytes', `${L} --target unix:${'a'.repeat(107)}`),
  server_('--listen launchd:web', 'launchd is of macOS', '--listen systemd:web'),
  server_('--listen systemd:', 'wants the name of a socket', '--listen systemd:web'),
  row('client', `--listen 0.0.0.0:1 ${CL}`, '--listen must be on this machine', `--listen 0.0.0.0:1 --unsafe-listen ${CL}`),
  row('client', `--listen :1 ${CL}`, '--listen must be on this machine', `--listen localhost:1 ${CL}`),
  client_('--target unix:/run/a.sock', 'TLS goes to HOST:PORT', '--target other:1'),
  client_('--target systemd:a', 'nothing can be dialled there', '--target other:1'),
  client_('--proxy ftp://a:1', 'must begin with http:// or socks5://', '--proxy socks5://a:1'),
  client_('--proxy a', 'is none: http://HOST:PORT', '--proxy http://user:secret@a'),

  // the way through
  server_(
    '--proxy-protocol --proxy-protocol-mode tls',
    '--proxy-protocol and --proxy-protocol-mode are mutually exclusive',
    '--proxy-protocol',
  ),
  server_('--proxy-protocol-mode v1', '--proxy-protocol-mode must be conn, tls or tls-full', '--proxy-protocol-mode tls-full'),
  row('server', [...SERVER, ...SVID, '--disable-authentication', '--permissive'], '--permissive is mutually exclusive', [
    ...GOOD.server,
    '--permissive',
  ]),
  server_('--connect-timeout 0s', '--connect-timeout must not be 0s', '--connect-timeout 1ms'),
  server_('--rotation never', '--rotation must be end', '--rotation keep'),
  server_('--max-concurrent-conns=-1', '--max-concurrent-conns must not be negative', '--max-concurrent-conns 1'),
  server_('--max-conns-per-id=-1', '--max-conns-per-id must not be negative', '--max-conns-per-id 0'),
  server_('--max-handshakes-per-second=-1', '--max-handshakes-per-second must not be negative', '--max-handshakes-per-second 5'),
  server_('--workers 0', '--workers must be 1 to 64', '--workers 2'),
  server_('--workers 65', '--workers must be 1 to 64', '--workers 64'),

  // around it
  server_('--enable-pprof', 'need --status', '--enable-pprof --status 127.0.0.1:1'),
  server_('--enable-shutdown', 'need --status', '--enable-shutdown --status unix:/run/status.sock'),
  server_('--status http://unix:/run/a.sock', '--status: ', '--status unix:/run/a.sock'),
  server_('--status https://systemd:a', 'https:// goes with HOST:PORT only', '--status systemd:a'),
  server_('--status launchd:a', 'launchd is of macOS', '--status http://localhost:1'),
  row('client', [...GOOD.client, '--disable-authentication', '--status', 'https://localhost:1'], '--status https:// needs a certificate', [
    ...GOOD.client,
    '--disable-authentication',
    '--status',
    'http://localhost:1',
  ]),
  server_('--target-status ftp://a', '--target-status: "ftp://a": expected http:// or https://', '--target-status https://a/health'),
  server_('--metrics-url a:1', '--metrics-url: ', '--metrics-url http://a:1/m'),
  server_('--metrics-graphite a', '--metrics-graphite: ', '--metrics-graphite a:2003'),
  server_('--metrics-interval 0s', '--metrics-interval must not be 0s', '--metrics-interval 1s'),
  server_('--metrics-prefix 1', '--metrics-prefix must be', '--metrics-prefix my.proxy'),
  server_('--quiet loud', '--quiet must be one of all, conns, conn-errs, handshake-errs', '--quiet conns --quiet handshake-errs'),
  server_('--access-log some', '--access-log must be all, errors or off', '--access-log errors'),
  server_('--log-format xml', '--log-format must be text or json', '--log-format json'),

  // not offered, each by its name
  server_('--allow-policy p.rego', '--allow-policy is not offered: Rego policies', '--intentions i.json'),
  server_('--allow-query data.x', '--allow-query is not offered: Rego policies', ''),
  client_('--verify-policy p.rego', '--verify-policy is not offered: Rego policies', '--intentions i.json'),
  client_('--verify-query data.x', '--verify-query is not offered: Rego policies', ''),
  server_('--pkcs11-module m.so', '--pkcs11-module is not offered', ''),
  client_('--pkcs11-token-label t', '--pkcs11-token-label is not offered', ''),
  server_('--pkcs11-pin 1', '--pkcs11-pin is not offered', ''),
  server_('--auto-acme-cert a', '--auto-acme-cert is not offered: take certificates from the Workload API', ''),
  server_('--auto-acme-email a', '--auto-acme-email is not offered', ''),
  server_('--auto-acme-agree-to-tos', '--auto-acme-agree-to-tos is not offered', '--auto-acme-agree-to-tos=false'),
  server_('--auto-acme-ca a', '--auto-acme-ca is not offered', ''),
  server_('--auto-acme-testca a', '--auto-acme-testca is not offered', ''),
];

describe('what must not be said', () => {
  for (const { of, bad, says, good } of TABLE) {
    test(`${of} ${bad.join(' ')}`, () => {
      const faults = faultsOf(of, bad);
      expect(faults).toHaveLength(1);
      expect(faults[0]).toContain(says);
      expect(faultsOf(of, good)).toEqual([]);
    });
  }

  test('every rule has a row here', () => {
    const told = TABLE.flatMap(({ of, bad }) => faultsOf(of, bad));
    expect(RULES.map(({ says }) => says).filter((says) => !told.includes(says))).toEqual([]);
  });

  test('is all told at once', () => {
    const faults = faultsOf('server', words('--listen x --target db:80 --cert c.pem --connect-timeout 0s --quiet loud --enable-pprof'));
    expect(faults).toHaveLength(7);
  });

  test('is told on standard error with exit code 1, and a password is not', async () => {
    const terminal = new TestTerminal();
    const code = await runCommand('warifu proxy client', client, [...CLIENT, '--proxy', 'ftp://user:hunter2@a:1'], terminal);
    expect(code).toBe(1);
    expect(terminal.stdout).toBe('');
    expect(terminal.stderr).toMatch(/^Error: one of --use-workload-api/);
    expect(terminal.stderr).toContain('--proxy: the URL of the proxy on the way begins with "ftp:"');
    expect(terminal.stderr).not.toContain('hunter2');
  });

  test('a flag of the other command is none of this one', async () => {
    const terminal = new TestTerminal();
    expect(await runCommand('warifu proxy client', client, ['--allow-all'], terminal)).toBe(1);
    expect(terminal.stderr).toMatch(/not defined: -allow-all/);
  });

  test('a keystore that is JCEKS by its first bytes is refused whatever it is called', () => {
    const path = join(dir, 'store.p12');
    writeFileSync(path, Buffer.from('cececece00000002', 'hex'));
    expect(faultsOf('server', [...SERVER, '--allow-all', '--keystore', path])).toEqual([
      expect.stringContaining('JCEKS and JKS are not read'),
    ]);
    writeFileSync(path, Buffer.from('308209a1', 'hex'));
    expect(faultsOf('server', [...SERVER, '--allow-all', '--keystore', path])).toEqual([]);
  });
});

describe('switches', () => {
  const on: readonly [argv: string, is: boolean][] = [
    ['--skip-resolve', false],
    ['--skip-resolve=true', false],
    ['--skip-resolve=false', true],
    ['--no-skip-resolve', true],
    ['', true],
    ['--skip-resolve --no-skip-resolve', true],
    ['--no-skip-resolve --skip-resolve', false],
    ['-skip-resolve', false],
  ];
  for (const [argv, is] of on) test(JSON.stringify(argv), () => expect(read('server', [...GOOD.server, ...words(argv)]).resolve).toBe(is));

  test('a negation takes no value, and no other flag is negated', () => {
    expect(() => read('server', ['--no-skip-resolve=true'])).toThrow(/invalid boolean value "true" for -no-skip-resolve/);
    expect(() => read('server', ['--no-listen'])).toThrow(/not defined: -no-listen/);
  });
});

describe('variables are the defaults of their flags', () => {
  const rows: readonly [env: Env, argv: readonly string[], identity: object][] = [
    [
      { KEYSTORE_PATH: 'k.p12', KEYSTORE_PASS: 'pw', CACERT_PATH: 'ca.pem' },
      [],
      { kind: 'pki', keystore: 'k.p12', storepass: 'pw', authorities: 'ca.pem' },
    ],
    [{ CERT_PATH: 'c.pem', KEY_PATH: 'k.pem' }, [], { kind: 'pki', certificate: 'c.pem', key: 'k.pem' }],
    [{ CERT_PATH: 'c.pem', KEY_PATH: 'k.pem' }, ['--cert', 'other.pem'], { kind: 'pki', certificate: 'other.pem', key: 'k.pem' }],
    [{ SPIFFE_ENDPOINT_SOCKET: 'unix:///run/a.sock' }, [], { kind: 'workload-api', address: 'unix:///run/a.sock' }],
    // what a flag names comes before what a variable names
    [{ SPIFFE_ENDPOINT_SOCKET: 'unix:///run/a.sock' }, PEM, { kind: 'pki', certificate: 'c.pem', key: 'k.pem' }],
    [{ CERT_PATH: 'c.pem', KEY_PATH: 'k.pem' }, SVID, { kind: 'workload-api' }],
    [
      { SPIFFE_ENDPOINT_SOCKET: 'unix:///run/a.sock', CERT_PATH: 'c.pem', KEY_PATH: 'k.pem' },
      ['--no-use-workload-api'],
      { kind: 'pki', certificate: 'c.pem' },
    ],
    [
      { SPIFFE_ENDPOINT_SOCKET: 'unix:///run/a.sock' },
      ['--use-workload-api-addr', '/run/b c.sock'],
      { kind: 'workload-api', address: 'unix:///run/b%20c.sock' },
    ],
    [{ KEYSTORE_PATH: '', CERT_PATH: 'c.pem', KEY_PATH: 'k.pem' }, [], { kind: 'pki', certificate: 'c.pem' }],
  ];
  for (const [env, argv, identity] of rows) {
    test(`${JSON.stringify(env)} ${argv.join(' ')}`, () => {
      expect(read('server', [...SERVER, '--allow-all', ...argv], env).proxy.identities.get('default')).toMatchObject(identity);
    });
  }

  test('two that differ are refused as two flags are', () => {
    expect(faultsOf('server', [...SERVER, '--allow-all'], { SPIFFE_ENDPOINT_SOCKET: 'unix:///a', KEYSTORE_PATH: 'k.p12' })).toEqual([
      expect.stringContaining('mutually exclusive'),
    ]);
  });

  test('a client that shows no certificate does not take one from a variable', () => {
    expect(
      read('client', [...CLIENT, '--disable-authentication'], { CERT_PATH: 'c.pem', KEY_PATH: 'k.pem' }).proxy.identities.get('default'),
    ).toEqual({
      kind: 'pki',
      authorities: undefined,
    });
  });

  test('the PIN of a token, too: it is refused', () => {
    expect(faultsOf('server', GOOD.server, { PKCS11_MODULE: 'm.so' })).toEqual([expect.stringContaining('--pkcs11-module is not offered')]);
  });
});

describe('what becomes of the flags', () => {
  test("ghostunnel's defaults", () => {
    expect(read('server', GOOD.server)).toMatchObject({
      proxy: {
        listeners: [
          {
            mode: 'server',
            listen: { kind: 'tcp', host: '127.0.0.1', port: 8443 },
            target: { kind: 'tcp', host: '127.0.0.1', port: 8080 },
            authenticate: true,
            proxyProtocol: undefined,
            permissive: false,
          },
        ],
        identityTimeoutMs: 600_000,
        reloadMs: 0,
        keepConnections: false,
        limits: { maxConnections: 0, maxConnectionsPerId: 0, maxHandshakesPerSecond: 0 },
        timeouts: { shutdownMs: 300_000, connectMs: 10_000, closeMs: 60_000, lifetimeMs: 0, idleMs: 0 },
      },
      status: undefined,
      metrics: { prefix: 'ghostunnel', intervalMs: 30_000, graphite: undefined, url: undefined },
      log: { format: 'text', priorities: false, connections: 'all' },
      resolve: true,
      workers: 1,
      warnings: [],
    });
  });

  test('all of them, of a server', () => {
    const settings = read(
      'server',
      words(
        `--listen :8443 --target unix:/run/web.sock --use-workload-api --allow-cn a --allow-cn b --allow-ou c --allow-dns d --allow-uri spiffe://example.org/*
         --timed-reload 1m --shutdown-timeout 1s --connect-timeout 2s --close-timeout 0s --max-conn-lifetime 1h30m --max-concurrent-conns 7 --idle-timeout 3s
         --max-conns-per-id 8 --max-handshakes-per-second 9 --tcp-keepalive 0s --use-workload-api-timeout 0s --hint h --rotation=keep --intentions i.json
         --status https://localhost:1 --enable-pprof --enable-shutdown --target-status http://localhost/h --metrics-graphite g:2003 --metrics-url http://m
         --metrics-prefix p --metrics-interval 5s --quiet conns --quiet conn-errs --access-log errors --log-format json --syslog --workers 3
         --proxy-protocol-mode tls --proxy-protocol-from 10.0.0.0/8 --permissive --disable-landlock`.replaceAll('\n', ' '),
      ),
    );
    const { listeners, ...proxy } = settings.proxy;
    const [{ access, ...inbound } = {} as InboundSettings] = listeners as readonly InboundSettings[];
    expect(inbound).toEqual({
      name: 'server',
      identity: 'default',
      mode: 'server',
      listen: { kind: 'tcp', host: '::', port: 8443 },
      target: { kind: 'unix', path: '/run/web.sock' },
      authenticate: true,
      proxyProtocol: 'tls',
      proxyFrom: ['10.0.0.0/8'],
      permissive: true,
    });
    expect({ ...access, uris: access.uris.map(({ text }) => text) }).toEqual({
      all: false,
      commonNames: ['a', 'b'],
      organizationalUnits: ['c'],
      dnsNames: ['d'],
      uris: ['spiffe://example.org/*'],
      spkiPins: [],
    });
    expect(proxy).toEqual({
      identities: new Map([['default', { kind: 'workload-api', address: undefined, hint: 'h', spiffeId: undefined }]]),
      limits: { maxConnections: 7, maxConnectionsPerId: 8, maxHandshakesPerSecond: 9 },
      timeouts: { connectMs: 2000, closeMs: 0, lifetimeMs: 5_400_000, idleMs: 3000, shutdownMs: 1000, keepAliveMs: 0 },
      keepConnections: true,
      identityTimeoutMs: 0,
      reloadMs: 60_000,
    });
    expect(settings).toMatchObject({
      intentions: 'i.json',
      status: { listen: { host: 'localhost', port: 1 }, scheme: 'https', pprof: true, shutdown: true, targetStatus: 'http://localhost/h' },
      metrics: { prefix: 'p', intervalMs: 5000, graphite: { host: 'g', port: 2003 }, url: 'http://m' },
      log: { format: 'json', priorities: true, quiet: new Set(['conns', 'conn-errs']), connections: 'errors' },
      workers: 3,
    });
  });

  test('all of them, of a client', () => {
    const [client] = read(
      'client',
      words(
        '--listen unix:/run/db.sock --target db:8443 --spiffe-dir /run/svid --verify-uri spiffe://example.org/db --verify-trust-domain other.org --verify-cn a --verify-ou b --verify-dns c --allow-uid 0 --allow-uid 1000 --allow-gid 5 --override-server-name n --proxy socks5://u:p%40@via:9',
      ),
    ).proxy.listeners as readonly OutboundSettings[];
    const { access, ...rest } = client ?? ({} as OutboundSettings);
    expect(rest).toEqual({
      name: 'client',
      identity: 'default',
      mode: 'client',
      listen: { kind: 'unix', path: '/run/db.sock' },
      target: { kind: 'tcp', host: 'db', port: 8443 },
      authenticate: true,
      serverName: 'n',
      via: { kind: 'socks5', host: 'via', port: 9, user: 'u', password: 'p@' },
      plainPeers: { uids: [0, 1000], gids: [5] },
    });
    expect({ ...access, uris: access.uris.map(({ text }) => text) }).toEqual({
      all: false,
      commonNames: ['a'],
      organizationalUnits: ['b'],
      dnsNames: ['c'],
      uris: ['spiffe://example.org/db', 'spiffe://other.org/**'],
      spkiPins: [],
    });
  });

  const everybody: readonly [of: 'server' | 'client', argv: readonly string[], all: boolean][] = [
    ['server', GOOD.server, true],
    ['server', [...SERVER, ...SVID, '--intentions', 'i.json'], false],
    ['server', [...SERVER, ...SVID, '--allow-cn', 'a'], false],
    ['client', GOOD.client, false],
    ['client', [...CLIENT, ...SVID, '--intentions', 'i.json'], false],
    ['client', [...CLIENT, ...SVID, '--unsafe-any-peer'], true],
    // the handshake asks for the name of the host
    ['client', [...CLIENT, ...PEM], true],
    ['client', [...CLIENT, ...PEM, '--verify-cn', 'a'], false],
    ['client', [...CLIENT, '--disable-authentication'], true],
  ];
  for (const [of, argv, all] of everybody)
    test(`${of} ${argv.join(' ')}: ${all ? 'everybody who is verified' : 'not everybody'}`, () =>
      expect(read(of, argv).proxy.listeners[0]?.access.all).toBe(all));

  const warned: readonly [argv: readonly string[], words: RegExp | undefined][] = [
    [GOOD.client, /^the plain side is open: every process of every user of this machine speaks as this workload/],
    [[...GOOD.client, '--allow-uid', '1'], undefined],
    [[...CLIENT, '--listen', 'unix:/run/a.sock', ...SVID, '--verify-dns', 'a'], undefined],
    [[...GOOD.client, '--listen', ':1', '--unsafe-listen'], /open: everybody who can reach it/],
    [[...GOOD.client, '--listen', 'systemd:a'], /open: whoever can connect to the socket/],
    [[...GOOD.client, '--allow-uid', '1', '--rotation=keep'], /^--rotation=keep: connections outlive/],
    [[...GOOD.client, '--allow-uid', '1', '--syslog'], /^--syslog: lines go to standard output/],
    [[...GOOD.client, '--allow-uid', '1', '--disable-landlock'], /^--disable-landlock: there is nothing to switch off/],
    [[...GOOD.client, '--allow-uid', '1', '--cacert', 'ca.pem'], /^--cacert is not looked at/],
    [[...CLIENT, ...SVID, '--allow-uid', '1', '--unsafe-any-peer'], /^--unsafe-any-peer: whoever has an SVID/],
  ];
  for (const [argv, words] of warned) {
    test(`${argv.join(' ')}: ${words ? 'a warning' : 'no warning'}`, () => {
      const { warnings } = read('client', argv);
      expect(warnings).toHaveLength(words ? 1 : 0);
      if (words) expect(warnings[0]).toMatch(words);
    });
  }
});

test.each([
  ['server', server, SERVER_FLAGS],
  ['client', client, CLIENT_FLAGS],
] as const)(
  'the help of proxy %s tells every flag with two dashes, the three differences, and an example',
  async (name, command, flags) => {
    const terminal = new TestTerminal();
    expect(await runCommand(`warifu proxy ${name}`, command, ['--help'], terminal)).toBe(0);
    for (const flag of Object.keys(flags)) expect(terminal.stdout).toMatch(new RegExp(`^ {2}--${flag}\\b`, 'm'));
    expect(terminal.stdout).toMatch(/env KEYSTORE_PATH/);
    for (const words of [
      '--unsafe-any-peer to insist',
      '--rotation=keep to insist',
      'sessions are not resumed',
      `Example: warifu proxy ${name}`,
    ])
      expect(terminal.stdout).toContain(words);
  },
);
