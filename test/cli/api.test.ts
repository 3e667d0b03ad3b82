/** The commands that speak to a server, over the real wire, against answers written here: SPIRE's texts, JSON, exit codes. */
import { chmod, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { main } from '../../cli/main.ts';
import { fail } from '../../core/errors.ts';
import { service } from '../../core/rpc.ts';
import { HealthDefinition } from '../../proto/gen/grpc/health/v1/health.ts';
import { AgentDefinition } from '../../proto/gen/spire/api/server/agent/v1/agent.ts';
import { BundleDefinition } from '../../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import { EntryDefinition } from '../../proto/gen/spire/api/server/entry/v1/entry.ts';
import { LoggerDefinition } from '../../proto/gen/spire/api/server/logger/v1/logger.ts';
import { SVIDDefinition } from '../../proto/gen/spire/api/server/svid/v1/svid.ts';
import { Agent } from '../../proto/gen/spire/api/types/agent.ts';
import { Bundle } from '../../proto/gen/spire/api/types/bundle.ts';
import { Entry } from '../../proto/gen/spire/api/types/entry.ts';
import { type AlarmClock, systemClock } from '../../spiffe/clock.ts';
import { startApiServer } from './api-server.ts';
import { TestTerminal } from './terminal.ts';

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(
  server: { socketPath: string },
  argv: readonly string[],
  options: { stdin?: string; clock?: AlarmClock } = {},
): Promise<Ran> {
  const terminal = new TestTerminal(options);
  const code = await main(['server', ...argv, '-socketPath', server.socketPath], terminal);
  return { code, stdout: terminal.stdout, stderr: terminal.stderr };
}

const OK = { code: 0, message: 'OK' };

/** An entry API that keeps what it is told, and refuses entries whose hint is "bad". */
function entryApi(entries: Entry[] = [], seen: { calls: unknown[] } = { calls: [] }) {
  let next = 0;
  return service(EntryDefinition, {
    async batchCreateEntry(request) {
      seen.calls.push(request);
      return {
        results: request.entries.map((entry) => {
          if (entry.hint === 'bad') return { status: { code: 3, message: 'failed to convert entry: "bad"' }, entry: undefined };
          const made = Entry.fromPartial({ ...entry, id: entry.id || `id-${next++}` });
          entries.push(made);
          return { status: OK, entry: made };
        }),
      };
    },
    async batchUpdateEntry(request) {
      seen.calls.push(request);
      return {
        results: request.entries.map((entry) => {
          if (!entries.some(({ id }) => id === entry.id)) return { status: { code: 5, message: 'entry not found' }, entry: undefined };
          return { status: OK, entry: Entry.fromPartial({ ...entry, revisionNumber: 1 }) };
        }),
      };
    },
    async batchDeleteEntry(request) {
      seen.calls.push(request);
      return {
        results: request.ids.map((id) => ({
          id,
          status: entries.some((entry) => entry.id === id) ? OK : { code: 5, message: 'entry not found' },
        })),
      };
    },
    async getEntry(request) {
      const found = entries.find(({ id }) => id === request.id);
      if (!found) throw fail('NOT_FOUND', 'entry not found');
      return found;
    },
    async listEntries(request) {
      seen.calls.push(request);
      const from = Number(request.pageToken || 0);
      const page = entries.slice(from, from + request.pageSize);
      return { entries: page, nextPageToken: page.length > 0 ? String(from + page.length) : '' };
    },
    async countEntries(request) {
      seen.calls.push(request);
      return { count: entries.length };
    },
  });
}

const WEB = ['-parentID', 'spiffe://example.org/agent', '-spiffeID', 'spiffe://example.org/web', '-selector', 'unix:uid:1000'];
const WEB_TEXT = (id: string) => `Entry ID                : ${id}
SPIFFE ID               : spiffe://example.org/web
Parent ID               : spiffe://example.org/agent
Revision                : 0
X509-SVID TTL           : default
JWT-SVID TTL            : default
Selector                : unix:uid:1000

`;

describe('entry create', () => {
  test('prints the entry that was made', async () => {
    await using server = await startApiServer(entryApi());
    expect(await run(server, ['entry', 'create', ...WEB])).toEqual({ code: 0, stderr: '', stdout: WEB_TEXT('id-0') });
  });

  test('sends every flag', async () => {
    const seen = { calls: [] as unknown[] };
    await using server = await startApiServer(entryApi([], seen));
    const more =
      '-entryID e1 -selector unix:gid:2 -federatesWith spiffe://a.test -federatesWith b.test -dns a -dns b -x509SVIDTTL 60 -jwtSVIDTTL 30 -admin -downstream -storeSVID -hint h -entryExpiry 1552410266 -disableX509SVIDPrefetch -jwtSVIDIncludeJTI';
    expect((await run(server, ['entry', 'create', ...WEB, ...more.split(' ')])).code).toBe(0);
    expect(seen.calls).toEqual([
      {
        outputMask: undefined,
        entries: [
          {
            id: 'e1',
            spiffeId: { trustDomain: 'example.org', path: '/web' },
            parentId: { trustDomain: 'example.org', path: '/agent' },
            selectors: [
              { type: 'unix', value: 'uid:1000' },
              { type: 'unix', value: 'gid:2' },
            ],
            x509SvidTtl: 60,
            jwtSvidTtl: 30,
            federatesWith: ['spiffe://a.test', 'b.test'],
            admin: true,
            downstream: true,
            expiresAt: 1552410266,
            dnsNames: ['a', 'b'],
            revisionNumber: 0,
            storeSvid: true,
            hint: 'h',
            createdAt: 0,
            additionalAttributes: { disableX509SvidPrefetch: true, jwtSvidIncludeJti: true },
          },
        ],
      },
    ]);
  });

  test('-node makes the server the parent', async () => {
    await using server = await startApiServer(entryApi());
    expect((await run(server, ['entry', 'create', '-node', '-spiffeID', 'spiffe://example.org/n', '-selector', 'a:b'])).stdout).toMatch(
      /Parent ID {15}: spiffe:\/\/example\.org\/spire\/server\n/,
    );
  });

  test('tells what failed on stderr and what was made on stdout, and exits 1', async () => {
    await using server = await startApiServer(entryApi());
    const data = {
      entries: [
        {
          parent_id: 'spiffe://example.org/agent',
          spiffe_id: 'spiffe://example.org/web',
          selectors: [{ type: 'unix', value: 'uid:1000' }],
        },
        {
          parent_id: 'spiffe://example.org/agent',
          spiffe_id: 'spiffe://example.org/bad',
          selectors: [{ type: 'a', value: 'b' }],
          hint: 'bad',
        },
      ],
    };
    expect(await run(server, ['entry', 'create', '-data', '-'], { stdin: JSON.stringify(data) })).toEqual({
      code: 1,
      stdout: WEB_TEXT('id-0'),
      stderr: `Failed to create the following entry (code: InvalidArgument, msg: "failed to convert entry: \\"bad\\""):
Entry ID                : (none)
SPIFFE ID               : spiffe://example.org/bad
Parent ID               : spiffe://example.org/agent
Revision                : 0
X509-SVID TTL           : default
JWT-SVID TTL            : default
Selector                : a:b
Hint                    : bad

Error: failed to create one or more entries
`,
    });
  });

  test('as JSON the failures are inside and the exit code is 0', async () => {
    await using server = await startApiServer(entryApi());
    const { code, stdout } = await run(server, ['entry', 'create', ...WEB, '-hint', 'bad', '-output', 'json']);
    expect(code).toBe(0);
    expect(stdout).toBe(
      '{"results":[{"entry":{"admin":false,"created_at":"0","dns_names":[],"downstream":false,"expires_at":"0","federates_with":[],"hint":"bad","id":"","jwt_svid_ttl":0,"parent_id":{"path":"/agent","trust_domain":"example.org"},"revision_number":"0","selectors":[{"type":"unix","value":"uid:1000"}],"spiffe_id":{"path":"/web","trust_domain":"example.org"},"store_svid":false,"x509_svid_ttl":0},"status":{"code":3,"message":"failed to convert entry: \\"bad\\""}}]}\n',
    );
  });

  const refused: readonly [argv: string[], words: string][] = [
    [['-spiffeID', 'spiffe://a/b', '-parentID', 'spiffe://a/c'], 'at least one selector is required'],
    [['-node', '-federatesWith', 'x', '-selector', 'a:b'], 'node entries can not federate'],
    [['-selector', 'a:b', '-spiffeID', 'spiffe://a/b'], 'a parent ID is required if the node flag is not set'],
    [['-selector', 'a:b', '-parentID', 'spiffe://a/b'], 'a SPIFFE ID is required'],
    [[...WEB, '-x509SVIDTTL', '-1'], 'a positive x509-SVID TTL is required'],
    [[...WEB, '-jwtSVIDTTL', '-1'], 'a positive JWT-SVID TTL is required'],
    [[...WEB, '-x509SVIDTTL', '2147483648'], 'invalid value for X509 SVID TTL: overflow converting int(2147483648) to int32'],
    [[...WEB, '-selector', 'unix'], 'selector "unix" must be formatted as type:value'],
    [['-selector', 'a:b', '-spiffeID', 'web', '-parentID', 'spiffe://a/c'], 'scheme is missing or invalid'],
    [['-selector', 'a:b', '-spiffeID', 'spiffe://a/', '-parentID', 'spiffe://a/c'], 'path cannot have a trailing slash'],
    [['-data', '/nowhere/entries.json'], 'open /nowhere/entries.json: no such file or directory'],
  ];
  for (const [argv, words] of refused) {
    test(`is refused without a call: ${words}`, async () => {
      const seen = { calls: [] as unknown[] };
      await using server = await startApiServer(entryApi([], seen));
      expect(await run(server, ['entry', 'create', ...argv])).toEqual({ code: 1, stdout: '', stderr: `Error: ${words}\n` });
      expect(seen.calls).toEqual([]);
    });
  }

  const brokenData: readonly [what: string, data: string, words: RegExp][] = [
    ['no JSON', '{', /^Error: the data is no JSON/],
    ['a list', '[]', /the data: expected an object/],
    [
      'a key with a slip',
      '{"entries":[{"parent_id":"spiffe://a/b","spiffe_id":"spiffe://a/c","selectors":[],"dns_name":["x"]}]}',
      /entries\[0\]: unknown key "dns_name": did you mean "dns_names"\?/,
    ],
    [
      'a lifetime in words',
      '{"entries":[{"parent_id":"spiffe://a/b","spiffe_id":"spiffe://a/c","x509_svid_ttl":"1h"}]}',
      /entries\[0\]\.x509_svid_ttl: expected a whole number, found "1h"/,
    ],
    ['an ID that is none', '{"entries":[{"parent_id":"spiffe://a/b","spiffe_id":"a"}]}', /entries\[0\]: invalid SPIFFE ID: /],
    [
      'a trust domain that is none',
      '{"entries":[{"parent_id":"spiffe://a/b","spiffe_id":"spiffe://a/c","federates_with":["A B"]}]}',
      /invalid federated trust domain/,
    ],
  ];
  for (const [what, data, words] of brokenData) {
    test(`-data with ${what} is refused whole, without a call`, async () => {
      const seen = { calls: [] as unknown[] };
      await using server = await startApiServer(entryApi([], seen));
      const { code, stderr } = await run(server, ['entry', 'create', '-data', '-'], { stdin: data });
      expect({ code, calls: seen.calls }).toEqual({ code: 1, calls: [] });
      expect(stderr).toMatch(words);
    });
  }

  test('5,000 entries go in few calls, each small enough for an answer within 4 MiB, in their order', async () => {
    const [entries, seen] = [[] as Entry[], { calls: [] as { entries: unknown[] }[] }];
    await using server = await startApiServer(entryApi(entries, seen));
    const data = {
      entries: Array.from({ length: 5000 }, (_, i) => ({
        parent_id: 'spiffe://example.org/spire/agent/join_token/0000',
        spiffe_id: `spiffe://example.org/workload/${i}`,
        selectors: [
          { type: 'unix', value: `uid:${i}` },
          { type: 'k8s', value: `pod-label:${'x'.repeat(200)}` },
        ],
      })),
    };
    const path = join(server.folder, 'entries.json');
    await writeFile(path, JSON.stringify(data));
    const { code, stdout } = await run(server, ['entry', 'create', '-data', path]);
    expect(code).toBe(0);
    expect(stdout.match(/^Entry ID/gm)).toHaveLength(5000);
    expect(seen.calls.length).toBeLessThanOrEqual(4);
    expect(entries.map(({ spiffeId }) => spiffeId?.path)).toEqual(
      data.entries.map(({ spiffe_id }) => spiffe_id.slice('spiffe://example.org'.length)),
    );
  });
});

describe('entry update', () => {
  test('keeps the other switch of the additional attributes', async () => {
    const seen = { calls: [] as { entries: Entry[] }[] };
    await using server = await startApiServer(
      entryApi([Entry.fromPartial({ id: 'e1', additionalAttributes: { disableX509SvidPrefetch: true, jwtSvidIncludeJti: false } })], seen),
    );
    const { code, stdout } = await run(server, ['entry', 'update', '-entryID', 'e1', ...WEB, '-jwtSVIDIncludeJTI']);
    expect({ code, revision: /Revision +: 1\n/.test(stdout) }).toEqual({ code: 0, revision: true });
    expect(seen.calls[0]?.entries[0]?.additionalAttributes).toEqual({ disableX509SvidPrefetch: true, jwtSvidIncludeJti: true });
  });

  test('of one that is not there fails in words', async () => {
    await using server = await startApiServer(entryApi());
    expect(await run(server, ['entry', 'update', '-entryID', 'e1', ...WEB])).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(
        /^Failed to update the following entry \(code: NotFound, msg: "entry not found"\):\nEntry ID {16}: e1\n[\s\S]*Error: failed to update one or more entries\n$/,
      ),
    });
    expect((await run(server, ['entry', 'update', ...WEB])).stderr).toBe('Error: entry ID is required\n');
  });
});

describe('entry show', () => {
  const entry = (id: string, path: string) =>
    Entry.fromPartial({
      id,
      spiffeId: { trustDomain: 'example.org', path },
      parentId: { trustDomain: 'example.org', path: '/agent' },
      selectors: [
        { type: 'b', value: '1' },
        { type: 'a', value: '2' },
      ],
    });

  test('lists all of them, page by page, sorted by SPIFFE ID, their selectors sorted too', async () => {
    const entries = Array.from({ length: 1200 }, (_, i) => entry(`e${i}`, `/w${String(1199 - i).padStart(4, '0')}`));
    await using server = await startApiServer(entryApi(entries));
    const { code, stdout } = await run(server, ['entry', 'show']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Found 1200 entries\nEntry ID {16}: e1199\n/);
    expect(stdout).toMatch(/Selector {16}: a:2\nSelector {16}: b:1\n/);
  });

  test('of none says so', async () => {
    await using server = await startApiServer(entryApi());
    expect(await run(server, ['entry', 'show'])).toEqual({ code: 0, stdout: 'Found 0 entries\n', stderr: '' });
  });

  test('by id shows the one, or why not', async () => {
    await using server = await startApiServer(entryApi([entry('e1', '/w')]));
    expect((await run(server, ['entry', 'show', '-entryID', 'e1'])).stdout).toMatch(/^Found 1 entry\nEntry ID {16}: e1\n/);
    expect(await run(server, ['entry', 'show', '-entryID', 'e2'])).toEqual({
      code: 1,
      stdout: '',
      stderr: 'Error: error fetching entry ID e2: rpc error: code = NotFound desc = entry not found\n',
    });
    expect((await run(server, ['entry', 'show', '-entryID', 'e1', '-selector', 'a:b'])).stderr).toBe(
      "Error: the -entryID flag can't be combined with others\n",
    );
  });

  test('sends the filters', async () => {
    const seen = { calls: [] as { filter: unknown }[] };
    await using server = await startApiServer(entryApi([], seen));
    const argv =
      '-parentID spiffe://a/p -spiffeID spiffe://a/s -selector x:y -matchSelectorsOn exact -federatesWith b.test -matchFederatesWithOn any -hint h -downstream'.split(
        ' ',
      );
    await run(server, ['entry', 'show', ...argv]);
    await run(server, ['entry', 'count', ...argv]);
    const filter = {
      byParentId: { trustDomain: 'a', path: '/p' },
      bySpiffeId: { trustDomain: 'a', path: '/s' },
      bySelectors: { selectors: [{ type: 'x', value: 'y' }], match: 0 },
      byFederatesWith: { trustDomains: ['b.test'], match: 3 },
      byHint: 'h',
      byDownstream: true,
    };
    expect(seen.calls.map((call) => call.filter)).toEqual([filter, filter]);
    expect((await run(server, ['entry', 'show', '-selector', 'a:b', '-matchSelectorsOn', 'most'])).stderr).toBe(
      'Error: match behavior "most" unknown\n',
    );
    expect((await run(server, ['entry', 'show', '-parentID', 'nobody'])).stderr).toBe(
      'Error: error parsing parent ID "nobody": scheme is missing or invalid\n',
    );
    expect((await run(server, ['entry', 'show', '-selector', 'unix'])).stderr).toBe(
      'Error: error parsing selectors: selector "unix" must be formatted as type:value\n',
    );
  });

  test('as JSON is one object with a list', async () => {
    await using server = await startApiServer(entryApi([entry('e1', '/w')]));
    const { stdout } = await run(server, ['entry', 'show', '-output', 'json']);
    expect(JSON.parse(stdout)).toMatchObject({ entries: [{ id: 'e1', created_at: '0' }], next_page_token: '' });
  });
});

test('entry count and entry delete', async () => {
  await using server = await startApiServer(entryApi([Entry.fromPartial({ id: 'e1' }), Entry.fromPartial({ id: 'e2' })]));
  expect((await run(server, ['entry', 'count'])).stdout).toBe('2 registration entries\n');
  expect((await run(server, ['entry', 'count', '-output', 'json'])).stdout).toBe('{"count":2}\n');
  expect(await run(server, ['entry', 'delete', '-entryID', 'e1'])).toEqual({
    code: 0,
    stdout: 'Deleted entry with ID: e1\n\n\nDeleted 1 entries successfully',
    stderr: '',
  });
  expect(await run(server, ['entry', 'delete', '-file', '-'], { stdin: '{"ids":["e1","nope"]}' })).toEqual({
    code: 1,
    stdout: 'Deleted entry with ID: e1\n\n\n\n\nDeleted 1 entries successfully, but failed to delete 1 entries',
    stderr: 'Failed to delete entry with ID nope (code: NotFound, msg: "entry not found")\nError: failed to delete one or more entries\n',
  });
  expect((await run(server, ['entry', 'delete', '-entryID', 'nope'])).stdout).toBe('\n\nFailed to delete 1 entries');
  expect((await run(server, ['entry', 'delete'])).stderr).toBe('Error: an entry ID is required\n');
});

describe('token generate', () => {
  const tokens = (seen: unknown[] = []) =>
    service(AgentDefinition, {
      async createJoinToken(request) {
        seen.push(request);
        return { value: 'the-token', expiresAt: 1700000000 };
      },
    });

  test('prints the token, and warns without a SPIFFE ID', async () => {
    const seen: unknown[] = [];
    await using server = await startApiServer(tokens(seen));
    expect(await run(server, ['token', 'generate'])).toEqual({
      code: 0,
      stdout: 'Token: the-token\nWarning: Missing SPIFFE ID.\n',
      stderr: '',
    });
    expect((await run(server, ['token', 'generate', '-ttl', '60', '-spiffeID', 'spiffe://example.org/node'])).stdout).toBe(
      'Token: the-token\n',
    );
    expect((await run(server, ['token', 'generate', '-output', 'json'])).stdout).toBe('{"expires_at":"1700000000","value":"the-token"}\n');
    expect(seen).toEqual([
      { ttl: 600, token: '', agentId: undefined },
      { ttl: 60, token: '', agentId: { trustDomain: 'example.org', path: '/node' } },
      { ttl: 600, token: '', agentId: undefined },
    ]);
  });
});

describe('agents', () => {
  const agent = (path: string, more: Partial<Agent> = {}) =>
    Agent.fromPartial({
      id: { trustDomain: 'example.org', path },
      attestationType: 'x509pop',
      x509svidSerialNumber: '1234',
      x509svidExpiresAt: 1_552_410_266,
      selectors: [{ type: 'x509pop', value: 'cn:a' }],
      canReattest: true,
      agentVersion: '0.1.0',
      ...more,
    });
  const api = (agents: Agent[], seen: unknown[] = []) =>
    service(AgentDefinition, {
      async listAgents(request) {
        seen.push(request.filter);
        const from = Number(request.pageToken || 0);
        return { agents: agents.slice(from, from + 1), nextPageToken: from + 1 < agents.length ? String(from + 1) : '' };
      },
      async countAgents() {
        return { count: agents.length };
      },
      async getAgent(request) {
        const found = agents.find(({ id }) => id?.path === request.id?.path);
        if (!found) throw fail('NOT_FOUND', 'agent not found');
        return found;
      },
      async deleteAgent(request) {
        if (request.id?.path === '/kept') throw fail('INTERNAL', 'not today');
        return {};
      },
      async banAgent() {
        return {};
      },
    });

  test('are listed, counted and shown', async () => {
    await using server = await startApiServer(api([agent('/a'), agent('/b', { banned: true, canReattest: false, agentVersion: '' })]));
    // the machine's own zone: only its form is known here
    const { stdout } = await run(server, ['agent', 'list']);
    expect(stdout.replace(/\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2} [+-]\d{4} \S+/g, 'TIME')).toBe(`Found 2 attested agents:

SPIFFE ID         : spiffe://example.org/a
Attestation type  : x509pop
Expiration time   : TIME
Serial number     : 1234
Can re-attest     : true
Agent version     : 0.1.0

SPIFFE ID         : spiffe://example.org/b
Attestation type  : x509pop
Expiration time   : TIME
Banned            : true
Can re-attest     : false

`);
    expect((await run(server, ['agent', 'count'])).stdout).toBe('2 attested agents\n');
    expect((await run(server, ['agent', 'show', '-spiffeID', 'spiffe://example.org/a'])).stdout).toMatch(
      /^Found an attested agent given its SPIFFE ID\n\nSPIFFE ID {9}: spiffe:\/\/example\.org\/a\n[\s\S]*\n\nSelectors {9}: x509pop:cn:a\n$/,
    );
    expect((await run(server, ['agent', 'show', '-spiffeID', 'spiffe://example.org/x'])).stderr).toBe(
      'Error: rpc error: code = NotFound desc = agent not found\n',
    );
    expect(
      JSON.parse((await run(server, ['agent', 'show', '-spiffeID', 'spiffe://example.org/a', '-output', 'json'])).stdout),
    ).toMatchObject({ x509svid_expires_at: '1552410266', banned: false });
  });

  test('none are no failure', async () => {
    await using server = await startApiServer(api([]));
    expect(await run(server, ['agent', 'list'])).toEqual({ code: 0, stdout: 'No attested agents found\n', stderr: '' });
    expect(await run(server, ['agent', 'purge'])).toEqual({ code: 0, stdout: 'No agents to purge.\n', stderr: '' });
  });

  test('are evicted and banned by their SPIFFE ID', async () => {
    await using server = await startApiServer(api([]));
    expect((await run(server, ['agent', 'evict', '-spiffeID', 'spiffe://example.org/a'])).stdout).toBe('Agent evicted successfully\n');
    expect((await run(server, ['agent', 'ban', '-spiffeID', 'spiffe://example.org/a'])).stdout).toBe('Agent banned successfully\n');
    expect((await run(server, ['agent', 'ban', '-spiffeID', 'spiffe://example.org/a', '-output', 'json'])).stdout).toBe('{}\n');
    expect((await run(server, ['agent', 'ban'])).stderr).toBe('Error: a SPIFFE ID is required\n');
    expect((await run(server, ['agent', 'evict', '-spiffeID', 'x'])).stderr).toBe('Error: scheme is missing or invalid\n');
  });

  test('are filtered', async () => {
    const seen: unknown[] = [];
    await using server = await startApiServer(api([], seen));
    await run(server, [
      'agent',
      'list',
      '-selector',
      'a:b',
      '-matchSelectorsOn',
      'any',
      '-attestationType',
      't',
      '-banned',
      'false',
      '-canReattest',
      'true',
      '-expiresBefore',
      '2026-01-02 15:04:05 +0000 +00',
    ]);
    await run(server, ['agent', 'list', '-banned', 'all']);
    expect(seen).toEqual([
      {
        byAttestationType: 't',
        bySelectorMatch: { selectors: [{ type: 'a', value: 'b' }], match: 3 },
        byBanned: false,
        byCanReattest: true,
        byExpiresBefore: '2026-01-02 15:04:05 +0000 +00',
      },
      { byAttestationType: '', bySelectorMatch: undefined, byBanned: undefined, byCanReattest: undefined, byExpiresBefore: '' },
    ]);
    expect((await run(server, ['agent', 'list', '-expiresBefore', 'soon'])).stderr).toMatch(/^Error: date is not valid/);
    expect((await run(server, ['agent', 'list', '-selector', 'a:b', '-matchSelectorsOn', 'most'])).stderr).toBe(
      'Error: unsupported match behavior\n',
    );
  });

  test('that expired long ago are purged; a dry run only tells', async () => {
    const clock: AlarmClock = {
      ...systemClock,
      now: () => (1_552_410_266 + 3600) * 1000 + 1,
      monotonic: () => 0,
      sleep: () => Promise.resolve(),
    };
    const seen: unknown[] = [];
    await using server = await startApiServer(
      api([agent('/gone'), agent('/kept'), agent('/fresh', { x509svidExpiresAt: 1_552_410_267 })], seen),
    );
    const argv = ['agent', 'purge', '-expiredFor', '1h'];
    expect((await run(server, [...argv, '-dryRun'], { clock })).stdout).toBe(
      'Found 2 expired agents\n\n\nAgents that can be purged:\nSPIFFE ID         : spiffe://example.org/gone\nSPIFFE ID         : spiffe://example.org/kept\n',
    );
    // a banned agent that is purged could attest again
    expect(seen[0]).toMatchObject({ byCanReattest: true, byBanned: false });
    expect((await run(server, argv, { clock })).stdout).toBe(
      'Found 2 expired agents\n\nAgents purged:\nSPIFFE ID         : spiffe://example.org/gone\nAgents not purged:\nSPIFFE ID         : spiffe://example.org/kept\nError             : rpc error: code = Internal desc = not today\n',
    );
    expect((await run(server, [...argv, '-output', 'json'], { clock })).stdout).toBe(
      '{"expired_agents":[{"agent_id":"spiffe://example.org/gone","deleted":true},{"agent_id":"spiffe://example.org/kept","deleted":false,"error":"rpc error: code = Internal desc = not today"}]}\n',
    );
  });
});

/** SPIRE's own test certificate, of the trust domain domain1.test. */
const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBKjCB0aADAgECAgEBMAoGCCqGSM49BAMCMAAwIhgPMDAwMTAxMDEwMDAwMDBa
GA85OTk5MTIzMTIzNTk1OVowADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABHyv
sCk5yi+yhSzNu5aquQwvm8a1Wh+qw1fiHAkhDni+wq+g3TQWxYlV51TCPH030yXs
RxvujD4hUUaIQrXk4KKjODA2MA8GA1UdEwEB/wQFMAMBAf8wIwYDVR0RAQH/BBkw
F4YVc3BpZmZlOi8vZG9tYWluMS50ZXN0MAoGCCqGSM49BAMCA0gAMEUCIA2dO09X
makw2ekuHKWC4hBhCkpr5qY4bI8YUcXfxg/1AiEA67kMyH7bQnr7OVLUrL+b9ylA
dZglS5kKnYigmwDh+/U=
-----END CERTIFICATE-----
`;
const DER = Buffer.from(CERTIFICATE.replace(/-----.*-----|\n/g, ''), 'base64');

describe('bundles', () => {
  const bundle = Bundle.fromPartial({ trustDomain: 'domain1.test', x509Authorities: [{ asn1: DER }], refreshHint: 60, sequenceNumber: 42 });
  const api = (seen: unknown[] = [], code = 0) =>
    service(BundleDefinition, {
      async getBundle() {
        return bundle;
      },
      async getFederatedBundle(request) {
        if (request.trustDomain !== 'domain1.test') throw fail('NOT_FOUND', 'bundle not found');
        return bundle;
      },
      async listFederatedBundles() {
        return { bundles: [bundle, Bundle.fromPartial({ ...bundle, trustDomain: 'domain2.test' })], nextPageToken: '' };
      },
      async countBundles() {
        return { count: 1 };
      },
      async batchSetFederatedBundle(request) {
        seen.push(request);
        return { results: [{ status: { code, message: code === 0 ? 'OK' : 'no' }, bundle: undefined }] };
      },
      async batchDeleteFederatedBundle(request) {
        seen.push(request);
        return {
          results: [
            { status: { code, message: code === 0 ? 'OK' : 'federated with 1 entry' }, trustDomain: request.trustDomains[0] ?? '' },
          ],
        };
      },
    });

  test('are shown as PEM and as SPIFFE documents, and counted', async () => {
    await using server = await startApiServer(api());
    expect(await run(server, ['bundle', 'show'])).toEqual({ code: 0, stdout: CERTIFICATE, stderr: '' });
    const document = (await run(server, ['bundle', 'show', '-format', 'SPIFFE'])).stdout;
    expect(document).toMatch(/^\{\n {4}"keys": \[\n {8}\{\n {12}"use": "x509-svid",\n {12}"kty": "EC",/);
    expect(JSON.parse(document)).toMatchObject({ spiffe_sequence: 42, spiffe_refresh_hint: 60, keys: [{ x5c: [DER.toString('base64')] }] });
    expect((await run(server, ['bundle', 'show', '-output', 'json'])).stdout).toBe(
      `{"jwt_authorities":[],"refresh_hint":"60","sequence_number":"42","trust_domain":"domain1.test","wit_authorities":[],"x509_authorities":[{"asn1":"${DER.toString('base64')}","tainted":false}]}\n`,
    );
    expect((await run(server, ['bundle', 'count'])).stdout).toBe('1 bundle\n');
    expect((await run(server, ['bundle', 'show', '-format', 'der'])).stderr).toBe('Error: invalid format: "der"\n');
  });

  test('of others are listed under their names, or one of them alone', async () => {
    await using server = await startApiServer(api());
    const head = (name: string) => `****************************************\n* ${name}\n****************************************\n`;
    expect((await run(server, ['bundle', 'list'])).stdout).toBe(
      `${head('domain1.test')}${CERTIFICATE}\n${head('domain2.test')}${CERTIFICATE}`,
    );
    expect((await run(server, ['bundle', 'list', '-id', 'domain1.test'])).stdout).toBe(CERTIFICATE);
    expect((await run(server, ['bundle', 'list', '-id', 'x.test'])).stderr).toBe(
      'Error: rpc error: code = NotFound desc = bundle not found\n',
    );
  });

  test('are set from PEM or a SPIFFE document, from standard input or a file', async () => {
    const seen: { bundle: Bundle[] }[] = [];
    await using server = await startApiServer(api(seen));
    expect(await run(server, ['bundle', 'set', '-id', 'spiffe://domain1.test'], { stdin: CERTIFICATE })).toEqual({
      code: 0,
      stdout: 'bundle set.\n',
      stderr: '',
    });
    const path = join(server.folder, 'bundle.json');
    await writeFile(path, (await run(server, ['bundle', 'show', '-format', 'spiffe'])).stdout);
    expect((await run(server, ['bundle', 'set', '-id', 'spiffe://domain1.test', '-format', 'spiffe', '-path', path])).stdout).toBe(
      'bundle set.\n',
    );
    expect(seen.map((request) => request.bundle[0])).toEqual([
      expect.objectContaining({
        trustDomain: 'spiffe://domain1.test',
        x509Authorities: [{ asn1: DER, tainted: false }],
        sequenceNumber: 0,
      }),
      expect.objectContaining({
        trustDomain: 'domain1.test',
        x509Authorities: [{ asn1: DER, tainted: false }],
        sequenceNumber: 42,
        refreshHint: 60,
      }),
    ]);
    for (const [argv, stdin, words] of [
      [[], '', /^Error: id flag is required\n/],
      [['-id', 'a.test'], '', /^Error: unable to parse bundle data: no PEM blocks\n/],
      [['-id', 'a.test'], CERTIFICATE.replace('MII', 'AAA'), /^Error: unable to parse bundle data: /],
      [['-id', 'a.test', '-format', 'spiffe'], '{}', /^Error: unable to parse to spiffe bundle: /],
      [['-id', 'spiffe://', '-format', 'spiffe'], '{"keys":[]}', /^Error: trust domain is missing\n$/],
      [['-id', 'a.test', '-path', '/nowhere'], '', /^Error: unable to load bundle data: open \/nowhere: no such file or directory\n/],
    ] as const) {
      const { code, stderr } = await run(server, ['bundle', 'set', ...argv], { stdin });
      expect(code).toBe(1);
      expect(stderr).toMatch(words);
    }
    expect(seen).toHaveLength(2);
  });

  test('are deleted in a mode', async () => {
    const seen: unknown[] = [];
    await using server = await startApiServer(api(seen));
    expect(await run(server, ['bundle', 'delete', '-id', 'a.test', '-mode', 'dissociate'])).toEqual({
      code: 0,
      stdout: 'bundle deleted.\n',
      stderr: '',
    });
    expect(seen).toEqual([{ trustDomains: ['a.test'], mode: 2 }]);
    expect((await run(server, ['bundle', 'delete', '-id', 'a.test', '-mode', 'x'])).stderr).toBe('Error: unsupported mode "x"\n');
    expect((await run(server, ['bundle', 'delete'])).stderr).toBe('Error: id is required\n');
    await using stubborn = await startApiServer(api([], 9));
    expect(await run(stubborn, ['bundle', 'delete', '-id', 'a.test'])).toEqual({
      code: 1,
      stdout: '',
      stderr: 'Error: failed to delete federated bundle "a.test": federated with 1 entry\n',
    });
  });
});

describe('minting', () => {
  const NOW = 1_700_000_000;
  const clock: AlarmClock = { ...systemClock, now: () => NOW * 1000, monotonic: () => 0, sleep: () => Promise.resolve() };
  const token = `e30.${Buffer.from(JSON.stringify({ exp: NOW + 60 })).toString('base64url')}.x`;
  const api = (seen: unknown[] = []) => [
    service(SVIDDefinition, {
      async mintX509SVID(request) {
        seen.push({ ...request, csr: request.csr.length > 0 });
        return { svid: { certChain: [DER], id: undefined, expiresAt: NOW + 60, hint: '' } };
      },
      async mintJWTSVID(request) {
        seen.push(request);
        return { svid: { token, id: request.id, expiresAt: NOW + 60, issuedAt: NOW, hint: '' } };
      },
    }),
    service(BundleDefinition, {
      async getBundle() {
        return Bundle.fromPartial({ trustDomain: 'a', x509Authorities: [{ asn1: DER }] });
      },
    }),
  ];

  test('an X509-SVID is printed, or written with its key for the owner alone', async () => {
    await using server = await startApiServer(...api());
    const { code, stdout, stderr } = await run(
      server,
      ['x509', 'mint', '-spiffeID', 'spiffe://domain1.test/a', '-ttl', '1m', '-dns', 'a.test'],
      { clock },
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(
      /^X509-SVID:\n-----BEGIN CERTIFICATE-----\n[\s\S]*\n\nPrivate key:\n-----BEGIN PRIVATE KEY-----\n[\s\S]*\n\nRoot CAs:\n-----BEGIN CERTIFICATE-----\n[\s\S]*-----END CERTIFICATE-----\n\n$/,
    );
    await writeFile(join(server.folder, 'key.pem'), 'old');
    await chmod(join(server.folder, 'key.pem'), 0o666);
    const written = await run(server, ['x509', 'mint', '-spiffeID', 'spiffe://domain1.test/a', '-write', server.folder], { clock });
    expect(written.stdout).toBe(
      `X509-SVID written to ${server.folder}/svid.pem\nPrivate key written to ${server.folder}/key.pem\nRoot CAs written to ${server.folder}/bundle.pem\n`,
    );
    expect((await stat(join(server.folder, 'key.pem'))).mode & 0o777).toBe(0o600);
    expect(await readFile(join(server.folder, 'svid.pem'), 'utf8')).toBe(CERTIFICATE);
    expect(
      Object.keys(
        JSON.parse(
          (await run(server, ['x509', 'mint', '-spiffeID', 'spiffe://domain1.test/a', '-output', 'json'], { clock })).stdout,
        ) as object,
      ),
    ).toEqual(['x509_svid', 'private_key', 'root_cas']);
  });

  test('a lifetime that was cut is told', async () => {
    const seen: unknown[] = [];
    await using server = await startApiServer(...api(seen));
    expect((await run(server, ['x509', 'mint', '-spiffeID', 'spiffe://a/b', '-ttl', '1h'], { clock })).stderr).toBe(
      'X509-SVID lifetime was capped shorter than specified ttl; expires "2023-11-14T22:14:20Z"\n',
    );
    expect(
      await run(server, ['jwt', 'mint', '-spiffeID', 'spiffe://a/b', '-audience', 'x', '-ttl', '1500ms', '-audience', 'y'], { clock }),
    ).toEqual({ code: 0, stdout: `${token}\n`, stderr: '' });
    expect((await run(server, ['jwt', 'mint', '-spiffeID', 'spiffe://a/b', '-audience', 'x', '-ttl', '2h'], { clock })).stderr).toMatch(
      /^JWT-SVID lifetime was capped/,
    );
    expect(seen.slice(0, 2)).toEqual([
      { csr: true, ttl: 3600 },
      { id: { trustDomain: 'a', path: '/b' }, audience: ['x', 'y'], ttl: 2 },
    ]);
  });

  test('a token can be written for its owner alone', async () => {
    await using server = await startApiServer(...api());
    const path = join(server.folder, 'token');
    expect((await run(server, ['jwt', 'mint', '-spiffeID', 'spiffe://a/b', '-audience', 'x', '-write', path], { clock })).stdout).toBe(
      `JWT-SVID written to ${path}\n`,
    );
    expect([await readFile(path, 'utf8'), (await stat(path)).mode & 0o777]).toEqual([token, 0o600]);
  });

  test('what cannot be written or is too long is told in the words of SPIRE', async () => {
    await using server = await startApiServer(...api());
    const failed = async (...argv: string[]) =>
      (await run(server, ['x509', 'mint', '-spiffeID', 'spiffe://domain1.test/a', ...argv], { clock })).stderr;
    expect(await failed('-write', '/nowhere')).toContain(
      'Error: unable to write SVID: open /nowhere/svid.pem: no such file or directory\n',
    );
    expect(await failed('-ttl', '2000000h')).toBe('Error: invalid value for TTL: overflow converting time.Duration(7.2s) to int32\n');
  });

  test('nothing is minted without an ID or an audience', async () => {
    await using server = await startApiServer(...api());
    expect((await run(server, ['x509', 'mint'])).stderr).toBe('Error: spiffeID must be specified\n');
    expect((await run(server, ['jwt', 'mint'])).stderr).toBe('Error: spiffeID must be specified\n');
    expect((await run(server, ['jwt', 'mint', '-spiffeID', 'spiffe://a/b'])).stderr).toBe(
      'Error: at least one audience must be specified\n',
    );
  });
});

describe('logger', () => {
  test('is read, set and reset', async () => {
    const seen: unknown[] = [];
    let current = 5;
    await using server = await startApiServer(
      service(LoggerDefinition, {
        getLogger: async () => ({ currentLevel: 5, launchLevel: 4 }) as const,
        async setLogLevel(request) {
          seen.push(request);
          current = request.newLevel;
          return { currentLevel: request.newLevel, launchLevel: 4 };
        },
        resetLogLevel: async () => ({ currentLevel: 4, launchLevel: 4 }) as const,
      }),
    );
    expect((await run(server, ['logger', 'get'])).stdout).toBe('Logger Level : info\nLaunch Level : warning\n\n');
    expect((await run(server, ['logger', 'set', '-level', 'DEBUG'])).stdout).toBe('Logger Level : debug\nLaunch Level : warning\n\n');
    expect((await run(server, ['logger', 'reset', '-output', 'json'])).stdout).toBe('{"current_level":"WARN","launch_level":"WARN"}\n');
    expect({ seen, current }).toEqual({ seen: [{ newLevel: 6 }], current: 6 });
    expect((await run(server, ['logger', 'set'])).stderr).toBe('Error: a value (-level) must be set\n');
    expect((await run(server, ['logger', 'set', '-level', 'loud'])).stderr).toBe('Error: the value "loud" is not a valid setting\n');
  });
});

describe('healthcheck', () => {
  const health = (status: 0 | 1 | 2) => service(HealthDefinition, { check: async () => ({ status }) });

  test('says yes only when the server serves', async () => {
    await using well = await startApiServer(health(1));
    expect(await run(well, ['healthcheck', '-verbose'])).toEqual({
      code: 0,
      stdout: 'Checking server health...\nServer is healthy.\n',
      stderr: '',
    });
    await using sick = await startApiServer(health(2));
    expect(await run(sick, ['healthcheck'])).toEqual({
      code: 1,
      stdout: '',
      stderr: 'Error: server is unhealthy: server returned status "NOT_SERVING"\n',
    });
  });

  test('and no when nobody is named', async () => {
    expect(await run({ socketPath: '/tmp/spire-server/private/api.sock' }, ['healthcheck', '-instance', 'one'])).toEqual({
      code: 1,
      stdout: '',
      stderr: 'Error: you must define SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE to use the instance flag\n',
    });
  });

  test('and no when nobody answers', async () => {
    expect(await run({ socketPath: '/nowhere/api.sock' }, ['healthcheck', '-verbose'])).toEqual({
      code: 1,
      stdout: 'Checking server health...\n',
      stderr:
        'Failed to check health: rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial unix /nowhere/api.sock: connect: no such file or directory"\nError: server is unhealthy: unable to determine health\n',
    });
  });
});
