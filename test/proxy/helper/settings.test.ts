/** spiffe-helper's files are read as they are; ours is beside them; whatever is wrong is told at once. */
import { describe, expect, test } from 'vitest';
import { faultsOf, keysOf } from '../../../core/schema.ts';
import type { Format } from '../../../core/settings-file.ts';
import { helperSettings, type Output, outputsOf, warningsOf } from '../../../proxy/helper/settings.ts';
import { settingsOf, triple } from './rig.ts';

/** Every key that spiffe-helper knows, in its way of writing. */
const EVERY_KEY = `
agent_address = "/tmp/spire-agent/public/api.sock"
cmd = "/usr/bin/psql"
cmd_args = "-p 5432 -c \\"SELECT pg_reload_conf();\\""
pid_file_name = "/run/postgres.pid"
cert_dir = "certs"
daemon_mode = true
add_intermediates_to_bundle = true
include_federated_domains = true
omit_expired = true
hint = "web"
renew_signal = "SIGHUP"
svid_file_name = "svid.pem"
svid_key_file_name = "svid_key.pem"
svid_bundle_file_name = "svid_bundle.pem"
jwt_svids = [
  {
    jwt_audience = "your-audience"
    jwt_extra_audiences = ["your-extra-audience-1", "your-extra-audience-2"]
    jwt_svid_file_name = "jwt_svid.token"
  },
  {
    jwt_audience = "other"
    jwt_svid_file_name = "other.token"
  }
]
jwt_bundle_file_name = "jwt_bundle.json"
cert_file_mode = 0444
key_file_mode = 0400
jwt_bundle_file_mode = 0640
jwt_svid_file_mode = 0440
health_checks {
  listener_enabled = true
  bind_port = 8082
  liveness_path = "/healthz"
  readiness_path = "/readyz"
}
`;

const THEIRS = [
  'agent_address',
  'cert_dir',
  'svid_file_name',
  'svid_key_file_name',
  'svid_bundle_file_name',
  'add_intermediates_to_bundle',
  'include_federated_domains',
  'omit_expired',
  'jwt_svids',
  'jwt_svids[].jwt_audience',
  'jwt_svids[].jwt_extra_audiences',
  'jwt_svids[].jwt_svid_file_name',
  'jwt_bundle_file_name',
  'hint',
  'cert_file_mode',
  'key_file_mode',
  'jwt_bundle_file_mode',
  'jwt_svid_file_mode',
  'daemon_mode',
  'cmd',
  'cmd_args',
  'pid_file_name',
  'renew_signal',
  'health_checks',
  'health_checks.listener_enabled',
  'health_checks.bind_port',
  'health_checks.liveness_path',
  'health_checks.readiness_path',
];

describe("HP-1 spiffe-helper's keys", () => {
  test('all of them are known: 21 of the file, three of jwt_svids, four of health_checks', () => {
    expect(THEIRS).toHaveLength(28);
    expect(keysOf(helperSettings)).toEqual(expect.arrayContaining(THEIRS));
  });

  test('mean what they mean there', async () => {
    const file = await settingsOf(EVERY_KEY);
    expect(file).toMatchObject({
      agent_address: '/tmp/spire-agent/public/api.sock',
      cmd: '/usr/bin/psql',
      cmd_args: '-p 5432 -c "SELECT pg_reload_conf();"',
      pid_file_name: '/run/postgres.pid',
      daemon_mode: true,
      renew_signal: 'SIGHUP',
      health_checks: { listener_enabled: true, bind_port: 8082, liveness_path: '/healthz', readiness_path: '/readyz' },
    });
    const [x509, first, second, bundles] = outputsOf(file);
    expect(x509).toMatchObject({
      kind: 'x509',
      format: 'pem',
      directory: 'certs',
      select: { hint: 'web' },
      intermediatesInBundle: true,
      federated: 'separate',
      omitExpired: true,
      certMode: { bits: 0o444 },
      keyMode: { bits: 0o400 },
      names: { svid: 'svid.pem', key: 'svid_key.pem', bundle: 'svid_bundle.pem' },
    });
    expect(first).toMatchObject({
      kind: 'jwt',
      fileName: 'jwt_svid.token',
      audiences: ['your-audience', 'your-extra-audience-1', 'your-extra-audience-2'],
      select: { hint: 'web' },
      mode: { bits: 0o440 },
    });
    expect(second).toMatchObject({ kind: 'jwt', fileName: 'other.token', audiences: ['other'] });
    expect(bundles).toMatchObject({ kind: 'bundle', format: 'jwt_bundles', fileName: 'jwt_bundle.json', mode: { bits: 0o640 } });
  });

  test('have its defaults', async () => {
    const file = await settingsOf(
      `${triple('c')} jwt_bundle_file_name = "b"  jwt_svids = [{ jwt_audience = "a" jwt_svid_file_name = "t" }]`,
    );
    expect(file).toMatchObject({
      daemon_mode: true,
      omit_expired: false,
      include_federated_domains: false,
      add_intermediates_to_bundle: false,
    });
    expect(file.health_checks).toMatchObject({
      listener_enabled: false,
      bind_port: 8081,
      liveness_path: '/live',
      readiness_path: '/ready',
    });
    const [x509, jwt, bundle] = outputsOf(file);
    expect(x509).toMatchObject({ certMode: { bits: 0o644 }, keyMode: { bits: 0o600 }, select: { hint: undefined }, federated: 'none' });
    expect(jwt).toMatchObject({ mode: { bits: 0o600 } });
    expect(bundle).toMatchObject({ mode: { bits: 0o600 } });
    expect(warningsOf(file)).toEqual([]);
  });

  test('an empty text is a key that was not given', async () => {
    const file = await settingsOf(`${triple('c')} cmd = ""\ncmd_args = ""\nrenew_signal = ""\nagent_address = ""\nhint = ""`);
    expect(file).not.toHaveProperty('cmd');
    expect(file).not.toHaveProperty('renew_signal');
    expect(file).not.toHaveProperty('agent_address');
  });

  test('the same settings in YAML and JSON are the same', async () => {
    const hcl = await settingsOf(EVERY_KEY);
    const json = {
      agent_address: '/tmp/spire-agent/public/api.sock',
      cmd: '/usr/bin/psql',
      cmd_args: '-p 5432 -c "SELECT pg_reload_conf();"',
      pid_file_name: '/run/postgres.pid',
      cert_dir: 'certs',
      daemon_mode: true,
      add_intermediates_to_bundle: true,
      include_federated_domains: true,
      omit_expired: true,
      hint: 'web',
      renew_signal: 'SIGHUP',
      svid_file_name: 'svid.pem',
      svid_key_file_name: 'svid_key.pem',
      svid_bundle_file_name: 'svid_bundle.pem',
      jwt_svids: [
        {
          jwt_audience: 'your-audience',
          jwt_extra_audiences: ['your-extra-audience-1', 'your-extra-audience-2'],
          jwt_svid_file_name: 'jwt_svid.token',
        },
        { jwt_audience: 'other', jwt_svid_file_name: 'other.token' },
      ],
      jwt_bundle_file_name: 'jwt_bundle.json',
      cert_file_mode: '0444',
      key_file_mode: '0400',
      jwt_bundle_file_mode: '0640',
      jwt_svid_file_mode: '0440',
      health_checks: { listener_enabled: true, bind_port: 8082, liveness_path: '/healthz', readiness_path: '/readyz' },
    };
    expect(await settingsOf(JSON.stringify(json), 'json')).toEqual(hcl);
    // JSON is YAML
    expect(await settingsOf(JSON.stringify(json, null, 2), 'yaml')).toEqual(hcl);
  });
});

/** Whole files, each refused for its one reason; `words`: what the fault must say. */
const refused: readonly (readonly [what: string, conf: string, words: string | RegExp])[] = [
  [
    'no output',
    'agent_address = "a"',
    "at least one of the sets ('svid_file_name', 'svid_key_file_name', 'svid_bundle_file_name'), 'jwt_svids', or 'jwt_bundle_file_name' must be fully specified",
  ],
  [
    'one of three names',
    'svid_file_name = "a"',
    "all or none of 'svid_file_name', 'svid_key_file_name', 'svid_bundle_file_name' must be specified",
  ],
  ['two of three names', 'svid_file_name = "a"\nsvid_key_file_name = "b"', 'all or none of'],
  ['a token without audience', 'jwt_svids = [{ jwt_svid_file_name = "t" }]', 'jwt_svids[0].jwt_audience: must be configured'],
  ['a token without file', 'jwt_svids = [{ jwt_audience = "a" }]', 'jwt_svids[0].jwt_svid_file_name: must be configured'],
  [
    'a pid file in one-shot mode',
    `${triple('c')} daemon_mode = false\npid_file_name = "p"\nrenew_signal = "SIGHUP"`,
    'pid_file_name is set but daemon_mode is false. pid_file_name is only supported in daemon_mode',
  ],
  ['a pid file without signal', `${triple('c')} pid_file_name = "p"`, 'must specify renew_signal when using pid_file_name'],
  ['an unknown key', `${triple('c')} foo = "bar"`, 'foo: unknown key'],
  ['a misspelt key', `${triple('c')} renew_sginal = "SIGHUP"`, 'did you mean "renew_signal"?'],
  ['an unknown key of a token', 'jwt_svids = [{ jwt_audience = "a" jwt_svid_file_name = "t" foo = "b" }]', 'jwt_svids[0].foo: unknown key'],
  [
    'an unknown key of a second token',
    'jwt_svids = [{ jwt_audience = "a" jwt_svid_file_name = "t" }, { jwt_audience = "a" jwt_svid_file_name = "u" foo = "b" }]',
    'jwt_svids[1].foo: unknown key',
  ],
  ['an unknown key of the probes', `${triple('c')} health_checks { foo = 1 }`, 'health_checks.foo: unknown key'],
  ['a signal that is none', `${triple('c')} renew_signal = "SIGFOO"`, 'is no signal'],
  ['a signal without SIG', `${triple('c')} renew_signal = "HUP"`, 'is no signal'],
  ['a negative mode', `${triple('c')} cert_file_mode = -1`, 'is no file mode'],
  ['a decimal mode that was meant as octal', `${triple('c')} cert_file_mode = 644`, 'it is decimal, and would be mode 01204; write 0644'],
  ['a mode beyond permissions', `${triple('c')} key_file_mode = 04755`, 'is no file mode'],
  ['a mode in words', `${triple('c')} key_file_mode = "rw"`, 'is no file mode'],
  ['a path for a name', `${triple('c')} jwt_bundle_file_name = "../b"`, 'must be a name without "/"'],
  ['a name of ours', `${triple('c')} jwt_bundle_file_name = "..x509"`, 'must be a name'],
  ['two outputs of one file', `${triple('c')} jwt_bundle_file_name = "svid.pem"`, 'both write c/svid.pem'],
  ['hint and SPIFFE ID', `${triple('c')} hint = "a"\nspiffe_id = "spiffe://example.org/a"`, 'only one of [hint, spiffe_id]'],
  ['cmd and command', `${triple('c')} cmd = "a"\ncommand = ["b"]`, 'only one of [command, cmd]'],
  ['an end of no command', `${triple('c')} on_exit = "exit"`, 'there is no cmd or command that could exit'],
  ['an unknown format', 'output "a" { format = "der" directory = "d" }', 'expected one of pem, combined, folder, pkcs12'],
  ['an output without directory', 'output "a" { format = "pem" }', 'output.a.directory: must be configured'],
  ['an output without format', 'output "a" { directory = "d" }', 'output.a.format: must be configured'],
  ['a key of another format', 'output "a" { format = "pem" directory = "d" audiences = ["x"] }', 'is no setting of the format pem'],
  ['tokens without audience', 'output "a" { format = "jwt" directory = "d" file_name = "t" }', 'output.a.audiences: must be configured'],
  ['a keystore without password', 'output "a" { format = "pkcs12" directory = "d" }', 'output.a.password_file: must be configured'],
  [
    'hint and SPIFFE ID of an output',
    'output "a" { format = "pem" directory = "d" hint = "a" spiffe_id = "spiffe://a/b" }',
    'only one of [hint, spiffe_id]',
  ],
  ['an output named as no file could be', 'output "a/b" { format = "pem" directory = "d" }', /letters, digits/],
  [
    'two outputs of one folder',
    'output "a" { format = "pem" directory = "d" }\noutput "b" { format = "pem" directory = "d/" }',
    'both write',
  ],
  ['a hook that does nothing', `${triple('c')} hook "h" { }`, 'must have exactly one of command, signal, systemd_reload, http_post'],
  ['a hook that does two things', `${triple('c')} hook "h" { command = ["a"] systemd_reload = "b" }`, 'must have exactly one of'],
  ['a hook of an output that is not there', `${triple('c')} hook "h" { command = ["a"] outputs = ["web"] }`, 'there is no output "web"'],
  ['a signal to nobody', `${triple('c')} hook "h" { signal = "SIGHUP" }`, 'signal and pid_file go together'],
  ['a request over what is not HTTP', `${triple('c')} hook "h" { http_post = "ftp://a" }`, 'must be an address'],
  ['a duration without unit', `${triple('c')} hook "h" { command = ["a"] timeout = 5 }`, 'has no unit'],
  ['an empty command', `${triple('c')} command = []`, 'must not be empty'],
  ['an unknown log level', `${triple('c')} log_level = "loud"`, 'expected one of'],
];

describe('HP-1 what is wrong is refused, by its name', () => {
  for (const [what, conf, words] of refused) test(what, () => expect(settingsOf(conf)).rejects.toThrow(words));

  test('all of it at once, each with its place', async () => {
    const error: unknown = await settingsOf('foo = 1\ncert_file_mode = 999\nrenew_signal = "X"\n').catch((fault: unknown) => fault);
    expect(faultsOf(error).map(({ place, path }) => `${place} ${path}`)).toEqual([
      'helper.conf:1:1 foo',
      'helper.conf:2:1 cert_file_mode',
      'helper.conf:3:1 renew_signal',
    ]);
  });
});

describe('HP-1 a file mode', () => {
  const modeOf = async (written: string, format: Format = 'hcl') => {
    const name = format === 'hcl' ? `${triple('c')} key_file_mode = ${written}` : written;
    const [x509] = outputsOf(await settingsOf(name, format)) as [Output & { kind: 'x509' }];
    return x509.keyMode;
  };
  const yaml = (mode: string) => `svid_file_name: a\nsvid_key_file_name: b\nsvid_bundle_file_name: c\nkey_file_mode: ${mode}\n`;
  test('is octal with a leading zero, bare or in quotes', async () => {
    expect(await modeOf('0640')).toEqual({ bits: 0o640 });
    expect(await modeOf('"0640"')).toEqual({ bits: 0o640 });
    expect(await modeOf(yaml('"0640"'), 'yaml')).toEqual({ bits: 0o640 });
  });
  test('is the default when it is 0, as there', async () => expect(await modeOf('0')).toEqual({ bits: 0o600 }));
  test('is decimal without one, as there, and a warning tells what that means', async () => {
    expect(await modeOf('444')).toEqual({ bits: 0o674, decimal: '444' });
    expect(warningsOf(await settingsOf(`${triple('c')} key_file_mode = 444`))).toEqual([expect.stringContaining('0674')]);
    expect(warningsOf(await settingsOf(`${triple('c')} key_file_mode = 0444`))).toEqual([]);
  });
});

describe('HP-1 warnings at each start', () => {
  const rows: readonly (readonly [conf: string, about: RegExp])[] = [
    ['daemon_mode = false\ncmd = "a"', /cmd is set but daemon_mode is false/],
    ['daemon_mode = false\nrenew_signal = "SIGHUP"', /renew_signal is set but daemon_mode is false/],
    ['daemon_mode = false\nhook "h" { command = ["a"] }', /hook is set but daemon_mode is false/],
    ['include_federated_domains = true', /a file of its own/],
    ['unsafe_merge_federated = true', /can vouch for any identity/],
  ];
  for (const [conf, about] of rows)
    test(conf.replaceAll('\n', ', '), async () =>
      expect(warningsOf(await settingsOf(`${triple('c')} ${conf}`))).toEqual([expect.stringMatching(about)]),
    );
});

test('HP-4 several outputs, each with its own format, identity, folder and owner', async () => {
  const file = await settingsOf(`
    owner = "root"
    hint = "main"
    output "nginx" { format = "pem" directory = "/run/nginx" group = "www-data" key_file_mode = 0640 }
    output "java"  { format = "pkcs12" directory = "/run/java" password_file = "/etc/pw" hint = "java" }
    output "std"   { format = "folder" directory = "/run/std" spiffe_id = "spiffe://example.org/std" }
    output "api"   { format = "jwt" directory = "/run/api" file_name = "token" audiences = ["a", "b"] }
    output "keys"  { format = "jwks" directory = "/run/api" trust_domain = "other.org" }
  `);
  expect(outputsOf(file)).toMatchObject([
    { name: 'nginx', format: 'pem', owner: 'root', group: 'www-data', select: { hint: 'main' }, keyMode: { bits: 0o640 } },
    { name: 'java', format: 'pkcs12', passwordFile: '/etc/pw', select: { hint: 'java' } },
    { name: 'std', format: 'folder', federated: 'separate', select: { hint: undefined } },
    { name: 'api', kind: 'jwt', audiences: ['a', 'b'], fileName: 'token' },
    { name: 'keys', kind: 'bundle', format: 'jwks', fileName: 'jwks.json' },
  ]);
});
