/** `agent api …` over the real wire: SPIRE's texts, files for their owner alone, refusals. */
import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { main } from '../../cli/main.ts';
import { fail } from '../../core/errors.ts';
import { service } from '../../core/rpc.ts';
import { HealthDefinition } from '../../proto/gen/grpc/health/v1/health.ts';
import { SpiffeWorkloadAPIDefinition, type X509SVIDResponse } from '../../proto/gen/spiffe/workload/workload.ts';
import { type AlarmClock, systemClock } from '../../spiffe/clock.ts';
import { NOW_MS, testCertificate, testRoot } from '../fakes/ca.ts';
import { startApiServer } from './api-server.ts';
import { TestTerminal } from './terminal.ts';

const clock: AlarmClock = { ...systemClock, now: () => NOW_MS, monotonic: () => 0, sleep: (_, signal) => systemClock.sleep(0, signal) };

async function run(agent: { socketPath: string }, argv: readonly string[]) {
  const terminal = new TestTerminal({ clock });
  const code = await main(['agent', ...argv, '-socketPath', agent.socketPath], terminal);
  return { code, stdout: terminal.stdout, stderr: terminal.stderr };
}

const root = await testRoot();
const issuer = await testCertificate({ issuer: root, ca: true });
const leaf = await testCertificate({ issuer, uris: ['spiffe://example.org/web'] });
const otherRoot = await testRoot({ uris: ['spiffe://other.test'] });
const answer: X509SVIDResponse = {
  svids: [
    {
      spiffeId: 'spiffe://example.org/web',
      x509Svid: Buffer.concat([leaf.der, issuer.der]),
      x509SvidKey: leaf.key.export({ type: 'pkcs8', format: 'der' }),
      bundle: root.der,
      hint: 'internal',
    },
  ],
  crl: [],
  federatedBundles: { 'spiffe://z.test': otherRoot.der, 'spiffe://other.test': otherRoot.der },
};

function workloadApi(svids: X509SVIDResponse, seen: unknown[] = []) {
  return service(SpiffeWorkloadAPIDefinition, {
    async *fetchX509SVID(_, { metadata }) {
      if (metadata.get('workload.spiffe.io')?.[0] !== 'true') throw fail('REQUEST_INVALID', 'security header missing from request');
      yield svids;
      yield svids;
      await new Promise(() => {});
    },
    async fetchJWTSVID(request) {
      seen.push(request);
      return {
        svids: [
          { spiffeId: 'spiffe://example.org/web', svid: 'a.b.c', hint: '' },
          { spiffeId: 'spiffe://example.org/x', svid: 'd.e.f', hint: 'external' },
        ],
      };
    },
    async *fetchJWTBundles() {
      yield { bundles: { 'spiffe://z.test': Buffer.from('{"keys":[]}'), 'spiffe://example.org': Buffer.from('{"keys":[]}') } };
    },
    async validateJWTSVID(request) {
      seen.push(request);
      if (request.svid === 'expired') throw fail('REQUEST_INVALID', 'token has expired');
      if (request.svid === 'crash') throw fail('UNAVAILABLE', 'no bundle');
      return { spiffeId: 'spiffe://example.org/web', claims: { exp: 1_700_000_000, aud: ['foo'] } };
    },
  });
}

/** A stream that ends with an error before anything came. */
function refusal(error: Error): AsyncIterable<never> {
  return { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(error) }) };
}

const validity = (what: string, from = '2026-06-01 11:59:50', to = '2026-06-01 13:00:00') =>
  `${what} Valid After:\t${from} +0000 UTC\n${what} Valid Until:\t${to} +0000 UTC\n`;
/** The validity of the test's certificates does not matter here, their lines do. */
const timeless = (text: string) => text.replace(/\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2} \+0000 UTC/g, 'T');

const TEXT = timeless(`Received 1 svid after 0s

SPIFFE ID:\t\tspiffe://example.org/web
Hint:\t\t\tinternal
${validity('SVID')}${validity('Intermediate #1')}${validity('CA #1')}${validity('[spiffe://other.test] CA #1')}${validity('[spiffe://z.test] CA #1')}
`);

describe('api fetch x509', () => {
  test('prints what came, other trust domains sorted', async () => {
    await using agent = await startApiServer(workloadApi(answer));
    const { code, stdout, stderr } = await run(agent, ['api', 'fetch', 'x509']);
    expect({ code, stderr, text: timeless(stdout) }).toEqual({ code: 0, stderr: '', text: TEXT });
    expect(timeless((await run(agent, ['api', 'fetch'])).stdout)).toBe(TEXT);
  });

  test('-write keeps the key for its owner alone; -silent says only what it wrote', async () => {
    await using agent = await startApiServer(workloadApi(answer));
    const folder = join(agent.folder, 'svids');
    await mkdir(folder);
    const { code, stdout } = await run(agent, ['api', 'fetch', 'x509', '-silent', '-write', folder]);
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: `Writing SVID #0 to file ${folder}/svid.0.pem.
Writing key #0 to file ${folder}/svid.0.key.
Writing bundle #0 to file ${folder}/bundle.0.pem.
Writing federated bundle #0 for trust domain spiffe://other.test to file ${folder}/federated_bundle.0.0.pem.
Writing federated bundle #1 for trust domain spiffe://z.test to file ${folder}/federated_bundle.0.1.pem.
`,
    });
    expect((await readFile(join(folder, 'svid.0.pem'), 'utf8')).match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
    expect(await readFile(join(folder, 'svid.0.key'), 'utf8')).toBe(leaf.key.export({ type: 'pkcs8', format: 'pem' }));
    expect([(await stat(join(folder, 'svid.0.key'))).mode & 0o777, (await stat(join(folder, 'svid.0.pem'))).mode & 0o777]).toEqual([
      0o600, 0o644,
    ]);
  });

  test('as JSON gives the answer as it came', async () => {
    await using agent = await startApiServer(workloadApi(answer));
    const { stdout } = await run(agent, ['api', 'fetch', 'x509', '-output', 'json']);
    expect(JSON.parse(stdout)).toEqual({
      crl: [],
      federated_bundles: { 'spiffe://other.test': otherRoot.der.toString('base64'), 'spiffe://z.test': otherRoot.der.toString('base64') },
      svids: [
        {
          bundle: root.der.toString('base64'),
          hint: 'internal',
          spiffe_id: 'spiffe://example.org/web',
          x509_svid: Buffer.concat([leaf.der, issuer.der]).toString('base64'),
          x509_svid_key: answer.svids[0]?.x509SvidKey.toString('base64'),
        },
      ],
    });
  });

  const [svid] = answer.svids;
  const bad: readonly [what: string, answer: X509SVIDResponse, words: RegExp][] = [
    ['no SVIDs', { ...answer, svids: [] }, /^workload response contains no svids\n/],
    [
      'another root',
      { ...answer, svids: svid ? [{ ...svid, bundle: otherRoot.der }] : [] },
      /^"spiffe:\/\/example\.org\/web" SVID failed verification against bundle: /,
    ],
    ['no root', { ...answer, svids: svid ? [{ ...svid, bundle: Buffer.alloc(0) }] : [] }, /no certificates in trust bundle\n/],
    [
      'a broken certificate',
      { ...answer, svids: svid ? [{ ...svid, x509Svid: Buffer.from('x') }] : [] },
      /^failed to parse svid entry 0 for spiffe id "spiffe:\/\/example\.org\/web": /,
    ],
    ['a broken key', { ...answer, svids: svid ? [{ ...svid, x509SvidKey: Buffer.from('x') }] : [] }, /failed to parse private key\n/],
    [
      'an empty federated bundle',
      { ...answer, federatedBundles: { 'spiffe://z.test': Buffer.alloc(0) } },
      /^no certificates in bundle for federated domain "spiffe:\/\/z\.test"\n/,
    ],
  ];
  for (const [what, given, words] of bad) {
    test(`an answer with ${what} is refused, and nothing is written`, async () => {
      await using agent = await startApiServer(workloadApi(given));
      const { code, stdout, stderr } = await run(agent, ['api', 'fetch', 'x509', '-write', agent.folder]);
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toMatch(words);
    });
  }

  test("a refusal is told in gRPC's words, without more", async () => {
    await using agent = await startApiServer(
      service(SpiffeWorkloadAPIDefinition, {
        fetchX509SVID: () => refusal(fail('DENIED', 'no identity issued')),
      }),
    );
    expect(await run(agent, ['api', 'fetch', 'x509'])).toEqual({
      code: 1,
      stdout: '',
      stderr: 'rpc error: code = PermissionDenied desc = no identity issued\n',
    });
  });

  test('an agent that keeps silent is left after the timeout', async () => {
    await using agent = await startApiServer(
      service(SpiffeWorkloadAPIDefinition, {
        async *fetchX509SVID() {
          await new Promise(() => {});
          yield answer;
        },
      }),
    );
    expect(await run(agent, ['api', 'fetch', 'x509', '-timeout', '50ms'])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^rpc error: code = DeadlineExceeded desc = context deadline exceeded\n$/),
    });
  });
});

describe('api watch', () => {
  test('prints each update until it is interrupted', async () => {
    await using agent = await startApiServer(workloadApi(answer));
    const terminal = new TestTerminal({ clock });
    const twice = new Promise<void>((resolve) => {
      let seen = 0;
      Object.assign(terminal, {
        out: (text: string) => {
          terminal.stdout += text;
          if (++seen === 2) resolve();
        },
      });
    });
    const running = main(['agent', 'api', 'watch', '-socketPath', agent.socketPath], terminal);
    await twice;
    terminal.stop.abort(new Error('interrupted'));
    expect(await running).toBe(0);
    // as SPIRE's watch: no hints, and other trust domains by their names
    const update = TEXT.replace(/^Hint:.*\n/m, '').replaceAll('[spiffe://', '[');
    expect(timeless(terminal.stdout)).toBe(update + update);
    expect(terminal.stderr).toBe('');
  });

  test('ends when the request itself is refused', async () => {
    await using agent = await startApiServer(
      service(SpiffeWorkloadAPIDefinition, {
        fetchX509SVID: () => refusal(fail('REQUEST_INVALID', 'no')),
      }),
    );
    expect(await run(agent, ['api', 'watch'])).toEqual({ code: 1, stdout: '', stderr: 'rpc error: code = InvalidArgument desc = no\n' });
  });

  test('tries again when the agent is away for now', async () => {
    let calls = 0;
    await using agent = await startApiServer(
      service(SpiffeWorkloadAPIDefinition, {
        fetchX509SVID: () => refusal(++calls < 3 ? fail('UNAVAILABLE', 'not yet') : fail('REQUEST_INVALID', 'enough')),
      }),
    );
    const { stderr } = await run(agent, ['api', 'watch']);
    expect(stderr.match(/Unavailable desc = not yet/g)).toHaveLength(2);
  });
});

describe('api fetch jwt', () => {
  test('prints tokens, hints and bundles', async () => {
    const seen: unknown[] = [];
    await using agent = await startApiServer(workloadApi(answer, seen));
    expect(await run(agent, ['api', 'fetch', 'jwt', '-audience', 'foo,bar', '-spiffeID', 'spiffe://example.org/web'])).toEqual({
      code: 0,
      stderr: '',
      stdout: `token(spiffe://example.org/web):
\ta.b.c
token(spiffe://example.org/x):
\td.e.f
hint(spiffe://example.org/x):
\texternal
bundle(spiffe://example.org):
\t{"keys":[]}
bundle(spiffe://z.test):
\t{"keys":[]}
`,
    });
    expect(seen).toEqual([{ audience: ['foo', 'bar'], spiffeId: 'spiffe://example.org/web' }]);
  });

  test('as JSON is a list of two answers; the old flag for it works', async () => {
    await using agent = await startApiServer(workloadApi(answer));
    const { stdout } = await run(agent, ['api', 'fetch', 'jwt', '-audience', 'foo', '-output', 'json']);
    expect(JSON.parse(stdout)).toEqual([
      {
        svids: [
          { spiffe_id: 'spiffe://example.org/web', svid: 'a.b.c', hint: '' },
          { spiffe_id: 'spiffe://example.org/x', svid: 'd.e.f', hint: 'external' },
        ],
      },
      { bundles: { 'spiffe://example.org': 'eyJrZXlzIjpbXX0=', 'spiffe://z.test': 'eyJrZXlzIjpbXX0=' } },
    ]);
    expect((await run(agent, ['api', 'fetch', 'jwt', '-audience', 'foo', '-format', 'json'])).stdout).toBe(stdout);
    expect((await run(agent, ['api', 'fetch', 'jwt', '-audience', 'foo', '-output', 'json', '-format', 'pretty'])).stderr).toMatch(
      /^invalid value "pretty" for flag -format: the output format has already been set to "json"\n/,
    );
    expect((await run(agent, ['api', 'fetch', 'jwt', '-audience', 'foo', '-format', 'xml'])).stderr).toMatch(
      /^invalid value "xml" for flag -format: bad formatter flag: unknown format option: "xml"\n/,
    );
    expect((await run(agent, ['api', 'fetch', 'jwt'])).stderr).toBe('audience must be specified\n');
  });
});

describe('api validate jwt', () => {
  test('says yes with the claims, and no with the reason', async () => {
    await using agent = await startApiServer(workloadApi(answer));
    const validate = (svid: string, ...more: string[]) =>
      run(agent, ['api', 'validate', 'jwt', '-audience', 'foo', '-svid', svid, ...more]);
    expect(await validate('a.b.c')).toEqual({
      code: 0,
      stdout: 'SVID is valid.\nSPIFFE ID : spiffe://example.org/web\nClaims    : {"aud":["foo"],"exp":1700000000}\n',
      stderr: '',
    });
    expect((await validate('a.b.c', '-output', 'json')).stdout).toBe(
      '{"claims":{"aud":["foo"],"exp":1700000000},"spiffe_id":"spiffe://example.org/web"}\n',
    );
    expect(await validate('expired')).toEqual({ code: 1, stdout: '', stderr: 'SVID is not valid: token has expired\n' });
    expect(await validate('crash')).toEqual({
      code: 1,
      stdout: '',
      stderr: 'unable to validate JWT SVID: rpc error: code = Unavailable desc = no bundle\n',
    });
    expect((await run(agent, ['api', 'validate', 'jwt', '-svid', 'x'])).stderr).toBe('audience must be specified\n');
    expect((await run(agent, ['api', 'validate', 'jwt', '-audience', 'x'])).stderr).toBe('svid must be specified\n');
  });
});

test('agent healthcheck', async () => {
  await using well = await startApiServer(service(HealthDefinition, { check: async () => ({ status: 1 }) as const }));
  expect(await run(well, ['healthcheck'])).toEqual({ code: 0, stdout: 'Agent is healthy.\n', stderr: '' });
  expect(await run({ socketPath: '/nowhere/api.sock' }, ['healthcheck'])).toEqual({
    code: 1,
    stdout: '',
    stderr: 'Agent is unhealthy: unable to determine health\n',
  });
});
