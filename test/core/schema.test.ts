/** Settings: the same from HCL, YAML and JSON; all faults at once, each with its place; durations and sizes with their units. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as z from 'zod';
import { formatDuration, parseDurationMs } from '../../core/duration.ts';
import { nearest } from '../../core/nearest.ts';
import {
  durationMs,
  durationOf,
  faultsOf,
  integer,
  keysOf,
  logLevel,
  oneOf,
  path,
  plugins,
  port,
  readSettings,
  sizeBytes,
  spiffeId,
  text,
  trustDomain,
} from '../../core/schema.ts';
import { expandEnv, type Format, parseSettings, readSettingsFile } from '../../core/settings-file.ts';
import { SpiffeError } from '../../spiffe/errors.ts';

const schema = z.strictObject({
  server: z.strictObject({
    trust_domain: trustDomain,
    bind_address: text.default('0.0.0.0'),
    bind_port: port.default(8081),
    data_dir: path,
    socket_path: path.default('/tmp/spire-server/private/api.sock'),
    default_x509_svid_ttl: durationMs.default(3_600_000),
    log_level: logLevel.default('info'),
    ca_key_type: oneOf('ec-p256', 'rsa-2048').default('ec-p256'),
    jwt_issuer: text.optional(),
    admin_ids: z.array(spiffeId).default([]),
    audit_log_enabled: z.boolean().default(false),
    ca_subject: z.strictObject({ country: z.array(text).default([]), common_name: text.optional() }).optional(),
    federates_with: z.record(z.string(), z.strictObject({ bundle_endpoint_url: text })).default({}),
    join_token: z
      .string()
      .regex(/^[0-9a-f-]+$/, 'must be hex')
      .optional(),
  }),
  plugins,
  telemetry: z.strictObject({ Statsd: z.array(z.strictObject({ address: text })).default([]) }).default({ Statsd: [] }),
  health_checks: z.strictObject({ listener_enabled: z.boolean().default(false), bind_port: port.default(80) }).optional(),
});

const stock = `server {
    bind_address = "127.0.0.1"
    bind_port = "8081"
    socket_path ="/tmp/spire-server/private/api.sock"
    trust_domain = "example.org"
    data_dir = "./.data"
    log_level = "DEBUG"
    jwt_issuer = ""
}

plugins {
    DataStore "sql" {
        plugin_data {
            database_type = "sqlite3"
            connection_string = "./.data/datastore.sqlite3"
        }
    }
    NodeAttestor "join_token" { plugin_data { } }
    KeyManager "memory" { plugin_data = {} }
    UpstreamAuthority "disk" {
        plugin_data {
            key_file_path = "./conf/server/dummy_upstream_ca.key"
            cert_file_path = "./conf/server/dummy_upstream_ca.crt"
        }
    }
}
`;

const read = async (written: string, format: Format = 'hcl') => readSettings(schema, await parseSettings(written, 'server.conf', format));
const MINIMAL = 'server {\n trust_domain = "example.org"\n data_dir = "/d"\n';

async function faults(written: string, format: Format = 'hcl'): Promise<string[]> {
  const error: unknown = await read(written, format).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: 'SETTINGS_INVALID' });
  return (error as Error).message.split('\n');
}

describe("SPIRE's own files", () => {
  test('the stock server.conf reads, with its port in quotes, an empty setting left out and its plugins in order', async () => {
    const settings = await read(stock);
    expect(settings.server).toMatchObject({ bind_port: 8081, log_level: 'debug', default_x509_svid_ttl: 3_600_000 });
    expect(settings.server.jwt_issuer).toBeUndefined();
    expect(settings.plugins.map(({ type, name, enabled }) => [type, name, enabled])).toEqual([
      ['DataStore', 'sql', true],
      ['NodeAttestor', 'join_token', true],
      ['KeyManager', 'memory', true],
      ['UpstreamAuthority', 'disk', true],
    ]);
    expect(settings.plugins[3]?.plugin_data['cert_file_path']).toBe('./conf/server/dummy_upstream_ca.crt');
    expect(settings.plugins[3]?.position).toBe('server.conf:20');
  });

  test('keys are read in any case, as SPIRE reads HCL', async () => {
    expect((await read(`${MINIMAL} Bind_Port = 1\n}\nplugins {}\ntelemetry { statsd = [{ Address = "x" }] }`)).server.bind_port).toBe(1);
  });

  test('a block that stands twice is one, a list of blocks stays a list', async () => {
    const settings = await read(
      `${MINIMAL} }\nserver { bind_port = 9 }\nplugins {}\ntelemetry { Statsd { address = "a" }\n Statsd { address = "b" } }`,
    );
    expect(settings.server.bind_port).toBe(9);
    expect(settings.telemetry.Statsd).toEqual([{ address: 'a' }, { address: 'b' }]);
  });

  test('the JSON that the Helm chart writes, with lists where blocks are meant, reads too', async () => {
    const json = {
      server: { trust_domain: 'example.org', data_dir: '/d', ca_subject: [{ country: ['NL'], common_name: 'x' }] },
      plugins: { KeyManager: [{ disk: { plugin_data: { keys_path: '/k' } } }], NodeAttestor: [{ join_token: [{ plugin_data: {} }] }] },
    };
    const settings = await read(JSON.stringify(json));
    expect(settings.server.ca_subject).toEqual({ country: ['NL'], common_name: 'x' });
    expect(settings.plugins.map(({ type, name }) => `${type} ${name}`)).toEqual(['KeyManager disk', 'NodeAttestor join_token']);
  });

  test('labelled blocks become a map', async () => {
    const settings = await read(
      `${MINIMAL} federates_with "a.test" { bundle_endpoint_url = "https://a" }\n federates_with "b.test" { bundle_endpoint_url = "https://b" }\n}\nplugins {}`,
    );
    expect(Object.keys(settings.server.federates_with)).toEqual(['a.test', 'b.test']);
  });
});

describe('three formats', () => {
  test('HCL, YAML and JSON say the same', async () => {
    const hcl = await read(
      `${MINIMAL} bind_port = 9000\n admin_ids = ["spiffe://example.org/a"]\n}\nplugins { KeyManager "disk" { plugin_data { keys_path = "k" } } }`,
    );
    const yaml = await read(
      'server:\n  trust_domain: example.org\n  data_dir: /d\n  bind_port: 9000\n  admin_ids: [spiffe://example.org/a]\nplugins:\n  KeyManager:\n    disk:\n      plugin_data: { keys_path: k }\n',
      'yaml',
    );
    const json = await read(
      JSON.stringify({
        server: { trust_domain: 'example.org', data_dir: '/d', bind_port: 9000, admin_ids: ['spiffe://example.org/a'] },
        plugins: { KeyManager: { disk: { plugin_data: { keys_path: 'k' } } } },
      }),
      'json',
    );
    const told = (settings: Awaited<ReturnType<typeof read>>) =>
      JSON.stringify({ ...settings, plugins: settings.plugins.map((block) => ({ ...block, position: '' })) });
    expect(told(yaml)).toBe(told(hcl));
    expect(told(json)).toBe(told(hcl));
  });

  const broken: readonly [what: string, format: Format, written: string, words: RegExp][] = [
    ['YAML with an alias', 'yaml', 'a: &x 1\nb: *x\n', /server\.conf:2:4: aliases are not read/],
    ['YAML with a key twice', 'yaml', 'a: 1\na: 2\n', /server\.conf:2:1: /],
    ['YAML with a tag of its own', 'yaml', 'a: !!js/function x\n', /server\.conf:1:\d+: /],
    ['two documents', 'yaml', 'a: 1\n---\nb: 1\n', /a second document/],
    ['YAML that is a list', 'yaml', '- 1\n', /a settings file is an object/],
    ['YAML nested without end', 'yaml', `a: ${'['.repeat(20_000)}`, /server\.conf:\d+:\d+: /],
    ['JSON with a comma too many', 'json', '{"a": 1,}', /server\.conf:1:9: /],
    ['JSON with a comment', 'json', '{"a": 1} # x', /server\.conf:1:10: /],
    ['JSON with a key twice', 'json', '{"a": 1, "a": 2}', /server\.conf:1:10: /],
    ['HCL that is broken', 'hcl', 'server {', /server\.conf:1:9: the file ends inside a block/],
    ['a key that is no key', 'json', '{"__proto__": {}}', /is no key/],
  ];
  for (const [what, format, written, words] of broken) {
    test(`${what} is refused with its place`, async () => {
      await expect(parseSettings(written, 'server.conf', format)).rejects.toMatchObject({
        code: 'SETTINGS_INVALID',
        message: expect.stringMatching(words),
      });
    });
  }

  test('whatever the YAML or JSON, it ends with values or SETTINGS_INVALID', async () => {
    const scraps = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      ':',
      ' ',
      '\n',
      '- ',
      '"',
      "'",
      'a',
      'b: ',
      '&x ',
      '*x',
      '!!set ',
      '? ',
      '|\n',
      '>',
      '---\n',
      '%',
      '#',
      '1',
      'null',
      '\t',
      '\0',
    );
    await fc.assert(
      fc.asyncProperty(fc.array(scraps, { maxLength: 30 }), fc.constantFrom<Format>('yaml', 'json'), async (parts, format) => {
        const error: unknown = await parseSettings(parts.join(''), 'x', format).then(
          () => undefined,
          (thrown: unknown) => thrown,
        );
        if (error !== undefined) expect(error).toBeInstanceOf(SpiffeError);
      }),
      { numRuns: 500 },
    );
  });
});

describe('faults', () => {
  test('all are told at once, each with its line, what was seen and the nearest right name', async () => {
    const lines = await faults(`server {
  trust_domain = "Example.org"
  bind_prot = 8081
  bind_port = "eighty"
  default_x509_svid_ttl = 3600
  log_level = "loud"
  ca_key_type = "ec-p257"
  audit_log_enabled = "yes"
  admin_ids = ["spiffe://example.org/a", "nobody"]
}
plugins {
  KeyManager "memory" { plugin_dat {} }
}
helth_checks {}
`);
    expect(lines).toEqual([
      expect.stringMatching(/^server\.conf:1:1: server\.data_dir: must be configured$/),
      expect.stringMatching(/^server\.conf:2:3: server\.trust_domain: trust domain "Example\.org": /),
      expect.stringMatching(/^server\.conf:3:3: server\.bind_prot: unknown key: did you mean "bind_port"\?$/),
      expect.stringMatching(/^server\.conf:4:3: server\.bind_port: expected a number, found "eighty"$/),
      expect.stringMatching(/^server\.conf:5:3: server\.default_x509_svid_ttl: 3600 has no unit: write "3600s"/),
      expect.stringMatching(/^server\.conf:6:3: server\.log_level: expected one of panic, fatal, /),
      expect.stringMatching(
        /^server\.conf:7:3: server\.ca_key_type: expected one of ec-p256, rsa-2048, found "ec-p257": did you mean "ec-p256"\?$/,
      ),
      expect.stringMatching(/^server\.conf:8:3: server\.audit_log_enabled: expected true or false, found "yes"$/),
      expect.stringMatching(/^server\.conf:9:42: server\.admin_ids\[1\]: SPIFFE ID "nobody": /),
      expect.stringMatching(/^server\.conf:12:25: plugins\[0\]\.plugin_dat: unknown key: did you mean "plugin_data"\?$/),
      expect.stringMatching(/^server\.conf:14:1: helth_checks: unknown key: did you mean "health_checks"\?$/),
    ]);
  });

  test('ID-23: a trust domain of 255 bytes is one, one of 256 is none', async () => {
    const named = (name: string) => `server {\n trust_domain = "${name}"\n data_dir = "/d"\n}\nplugins {}\n`;
    expect((await read(named('a'.repeat(255)))).server.trust_domain.name).toHaveLength(255);
    expect(await faults(named('a'.repeat(256)))).toEqual([
      expect.stringMatching(/^server\.conf:2:2: server\.trust_domain: trust domain .*: trust domain is longer than 255 bytes$/),
    ]);
  });

  test('the same faults from YAML carry their own lines', async () => {
    expect(await faults('server:\n  trust_domain: example.org\n  data_dir: /d\n  bind_port: 0\nplugins: {}\n', 'yaml')).toEqual([
      'server.conf:4:3: server.bind_port: must be 1 to 65535, found 0',
    ]);
  });

  test('a missing section is one fault', async () => {
    expect(await faults('plugins {}')).toEqual(['server.conf: server: must be configured']);
  });

  test('a plugin declared twice is told with the place of the first', async () => {
    expect(await faults(`${MINIMAL}}\nplugins {\n KeyManager "memory" {}\n KeyManager "memory" {}\n}`)).toEqual([
      expect.stringMatching(/plugins\[1\]: plugin "KeyManager"\/"memory" declared more than once, first at server\.conf:\d+/),
    ]);
  });

  test('plugin_data and plugin_data_file together are refused; each alone is fine', async () => {
    const both = (inner: string) => `${MINIMAL}}\nplugins { KeyManager "disk" { ${inner} } }`;
    expect(await faults(both('plugin_data { a = 1 } plugin_data_file = "f"'))).toEqual([
      expect.stringMatching(/only one of \[plugin_data, plugin_data_file\] can be used/),
    ]);
    expect((await read(both('plugin_data_file = "f"'))).plugins[0]?.plugin_data_file).toBe('f');
  });

  test('a value set in two copies of a block is a fault, not the last one', async () => {
    expect(await faults(`${MINIMAL}}\nserver { data_dir = "/e" }\nplugins {}`)).toEqual([
      expect.stringMatching(/server\.data_dir: set twice, again at line 5/),
    ]);
  });

  test('a secret is never shown', async () => {
    const [line] = await faults(`${MINIMAL} join_token = "hunter2"\n}\nplugins {}`);
    expect(line).toMatch(/server\.join_token: must be hex$/);
    expect(line).not.toMatch(/hunter2/);
  });

  test('a flag lies over the file, and is blamed by its own name', async () => {
    const file = await parseSettings(`${MINIMAL} bind_port = 1\n}\nplugins {}`, 'server.conf', 'hcl');
    expect(readSettings(schema, file.set(['server', 'bind_port'], '2', '-serverPort')).server.bind_port).toBe(2);
    expect(() => readSettings(schema, file.set(['server', 'bind_port'], 'x', '-serverPort'))).toThrow(
      /^-serverPort: server\.bind_port: expected a number, found "x"$/,
    );
    expect(readSettings(schema, file).server.bind_port).toBe(1);
  });

  test("a plugin's data is read by the plugin's own schema, with its own places", async () => {
    const file = await parseSettings(
      `${MINIMAL}}\nplugins {\n KeyManager "disk" {\n  plugin_data {\n   keys_pth = "k"\n   port = "7"\n   name = 10255\n  }\n }\n}`,
      'server.conf',
      'hcl',
    );
    const part = file.part(['plugins', 0, 'plugin_data']);
    const wanted = z.strictObject({ keys_path: path.optional(), port: integer, name: text });
    const error: unknown = await Promise.resolve()
      .then(() => readSettings(wanted, part, 'KeyManager "disk"'))
      .catch((thrown: unknown) => thrown);
    expect(faultsOf(error)).toEqual([
      { place: 'server.conf:8:4', path: 'KeyManager "disk".keys_pth', message: 'unknown key: did you mean "keys_path"?' },
    ]);
    expect(readSettings(z.strictObject({ keys_pth: path, port: integer, name: text }), part)).toEqual({
      keys_pth: 'k',
      port: 7,
      name: '10255',
    });
  });

  test('a key that must not be there is told in its own words', async () => {
    const gone = z.strictObject({ old: z.undefined({ error: 'is gone: use new' }).optional(), new: text.optional() });
    for (const written of ['old = 1', 'old { a = 1 }', 'old = ["x"]', 'old = false']) {
      const file = await parseSettings(written, 'f', 'hcl');
      expect(() => readSettings(gone, file)).toThrow(/^f:1:1: old: is gone: use new$/);
    }
    expect(readSettings(gone, await parseSettings('new = "x"', 'f', 'hcl'))).toEqual({ new: 'x' });
  });

  test('the result is frozen to its depth', async () => {
    const settings = await read(`${MINIMAL}}\nplugins {}`);
    expect(Object.isFrozen(settings.server)).toBe(true);
    expect(Object.isFrozen(settings.server.admin_ids)).toBe(true);
  });

  test('a file that is not there says which flag names one', async () => {
    await expect(readSettingsFile('/nowhere/server.conf')).rejects.toMatchObject({
      code: 'SETTINGS_INVALID',
      message: 'could not find config file /nowhere/server.conf: please use the -config flag',
    });
  });

  test('a file that is no text is refused', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'settings-'));
    try {
      await writeFile(join(folder, 'a.conf'), Buffer.of(0xff, 0xfe));
      await expect(readSettingsFile(join(folder, 'a.conf'))).rejects.toMatchObject({ message: expect.stringMatching(/not UTF-8/) });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe('-expandEnv', () => {
  const env = new Map([
    ['A', 'one'],
    ['LONG_NAME', 'two'],
    ['1', 'arg'],
  ]);
  const rows: readonly [written: string, expanded: string][] = [
    ['$A', 'one'],
    ['${A}', 'one'],
    ['x${A}y$LONG_NAME-z', 'xoneytwo-z'],
    ['$AB', ''],
    ['$$A', '$A'],
    ['$', '$'],
    ['a $ b', 'a $ b'],
    ['$"', '$"'],
    ['${}', ''],
    ['${A', 'A'],
    ['$1', 'arg'],
    ['${unset}', ''],
  ];
  for (const [written, expanded] of rows)
    test(`${written} becomes ${JSON.stringify(expanded)}, as Go's os.Expand has it`, () =>
      expect(expandEnv(written, (name) => env.get(name))).toBe(expanded));
});

describe('durations', () => {
  const rows: readonly [written: string, ms: number][] = [
    ['1h30m', 5_400_000],
    ['90s', 90_000],
    ['1.5h', 5_400_000],
    ['300ms', 300],
    ['1h2m3s4ms', 3_723_004],
    ['0', 0],
    ['0s', 0],
    ['+1m', 60_000],
    ['.5s', 500],
    ['720h', 2_592_000_000],
  ];
  for (const [written, ms] of rows) test(`${written} is ${ms} ms`, () => expect(parseDurationMs(written)).toBe(ms));
  for (const written of ['', '1', '3600', '1.5', 's', '1d', '1h 30m', '1 h', '-1s', '1h30', '1e3s', 'h1', '9999999999h']) {
    test(`${JSON.stringify(written)} is refused`, () => expect(parseDurationMs(written)).toBeTypeOf('string'));
  }
  test('bounds are told as durations', () => {
    expect(() => durationOf({ minMs: 60_000 }).parse('1s')).toThrow(/must be at least 1m0s/);
    expect(durationOf({ minMs: 60_000 }).parse('1m')).toBe(60_000);
  });
  const printed: readonly [ms: number, text: string][] = [
    [0, '0s'],
    [5_400_000, '1h30m0s'],
    [60_000, '1m0s'],
    [1500, '1.5s'],
    [300, '300ms'],
    [0.5, '500µs'],
    [90_061_000, '25h1m1s'],
  ];
  for (const [ms, words] of printed) test(`${ms} ms is printed as Go does: ${words}`, () => expect(formatDuration(ms)).toBe(words));
});

test('sizes carry a unit or are bytes', () => {
  expect(['65536', '64KiB', '10MB', '1 GiB'].map((written) => sizeBytes.parse(written))).toEqual([
    65_536, 65_536, 10_000_000, 1_073_741_824,
  ]);
  for (const written of ['', '64K', '-1', '1.5MB', 'big']) expect(sizeBytes.safeParse(written).success, written).toBe(false);
});

test('the keys of a schema can be listed, for the docs that are held by a test', () => {
  expect(keysOf(schema)).toEqual(
    expect.arrayContaining([
      'server',
      'server.bind_port',
      'server.federates_with.*.bundle_endpoint_url',
      'plugins[].plugin_data',
      'telemetry.Statsd[].address',
    ]),
  );
});

test('the nearest name is the one that was meant, or none', () => {
  expect(nearest('bind_prot', ['bind_port', 'bind_address'])).toBe('bind_port');
  expect(nearest('TRUST_DOMAIN', ['trust_domain'])).toBe('trust_domain');
  expect(nearest('zebra', ['bind_port', 'bind_address'])).toBeUndefined();
});
