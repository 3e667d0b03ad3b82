/** The agent API over store and memory: who is listed, banned, evicted, attested and renewed, in SPIRE's words. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { detailsOf } from '../../../core/errors.ts';
import { silent } from '../../../core/log.ts';
import type { CallContext } from '../../../core/rpc-types.ts';
import { buildCsr } from '../../../core/x509/csr.ts';
import {
  AttestAgentRequest,
  type AttestAgentResponse,
  ListAgentsRequest,
  ListAgentsRequest_Filter as Filter,
} from '../../../proto/gen/spire/api/server/agent/v1/agent.ts';
import { AgentMask } from '../../../proto/gen/spire/api/types/agent.ts';
import { PermissionDeniedDetails, PermissionDeniedDetails_Reason as Reason } from '../../../proto/gen/spire/api/types/status.ts';
import { createAgentApi } from '../../../server/api/agent.ts';
import { Callers } from '../../../server/api/caller.ts';
import type { Authority } from '../../../server/authority.ts';
import { createMemory, type Memory } from '../../../server/memory.ts';
import { openSqlite } from '../../../server/store/sqlite.ts';
import type { Node, Store } from '../../../server/store/store.ts';
import { Certificate } from '../../../spiffe/x509/certificate.ts';
import type { Encoded } from '../../../spiffe/rpc/service.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { node } from '../../contract/store.ts';
import { testAuthority } from '../../fakes/authority.ts';
import { FakeClock } from '../../fakes/clock.ts';

const trustDomain = TrustDomain.parse('example.org');
const HOUR_MS = 3_600_000;
/** Answers as messages: no handler here gives bytes. */
type Plain<I> = {
  readonly [K in keyof I]-?: NonNullable<I[K]> extends (request: infer A, context: CallContext) => Promise<infer R>
    ? (request: A, context: CallContext) => Promise<Exclude<R, Encoded>>
    : NonNullable<I[K]>;
};
const path = (id: string) => ({ trustDomain: 'example.org', path: SpiffeId.parse(id).path });

let folder: string;
let clock: FakeClock;
let store: Store;
let memory: Memory;
let authority: Authority;
let api: Plain<ReturnType<typeof createAgentApi>>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'warifu-'));
  clock = new FakeClock();
  store = await openSqlite(join(folder, 'db'), clock);
  memory = await createMemory({ store, clock, log: silent, trustDomain });
  ({ authority } = await testAuthority(clock));
  const callers = new Callers({ state: memory, store, clock, adminIds: [] });
  const attestation = { store, state: memory, authority, trustDomain, clock, log: silent, attestors: new Map() };
  api = createAgentApi({ store, state: memory, authority, callers, attestation, trustDomain, clock, log: silent }) as typeof api;
});
afterEach(async () => {
  memory.close();
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

const LOCAL: CallContext = {
  method: '/spire.api.server.agent.v1.Agent/Test',
  peer: { kind: 'process', pid: 1, uid: 0, gid: 0, pidfd: -1, connection: {} },
  metadata: new Map(),
  signal: new AbortController().signal,
};
/** A call of the agent that this certificate belongs to. */
const byAgent = (
  id: string,
  certificate: { readonly sha256: string; readonly notAfterMs: number },
  method = 'RenewAgent',
): CallContext => ({
  ...LOCAL,
  method: `/spire.api.server.agent.v1.Agent/${method}`,
  peer: {
    kind: 'tls',
    address: '192.0.2.1',
    id: SpiffeId.parse(id),
    certificateSha256: certificate.sha256,
    notAfterMs: certificate.notAfterMs,
    connection: {},
  },
});
const put = async (name: string, over: Partial<Node> = {}): Promise<Node> => {
  const made = node(name, over);
  await memory.settled((await store.nodes.attest(made, {})).seq);
  return made;
};
const list = async (over: Parameters<typeof ListAgentsRequest.fromPartial>[0] = {}) =>
  api.listAgents(ListAgentsRequest.fromPartial(over), LOCAL);
const names = async (filter: Parameters<typeof Filter.fromPartial>[0]) =>
  (await list({ filter: Filter.fromPartial(filter) })).agents.map(({ id }) => id?.path.split('/').at(-1));
const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;

describe('listing', () => {
  const current = (notAfterMs: number) => ({ serial: '1', notAfterMs, sha256: 'aa' });
  beforeEach(async () => {
    await put('a', { selectors: [{ type: 't', value: '1' }] });
    await put('b', {
      attestationType: 'x509pop',
      canReattest: true,
      selectors: [
        { type: 't', value: '1' },
        { type: 't', value: '2' },
      ],
      current: current(clock.now() + HOUR_MS),
    });
    await put('c', { banned: true, current: undefined });
  });
  const select = (match: 0 | 1 | 2 | 3, ...values: string[]) => ({
    bySelectorMatch: { match, selectors: values.map((value) => ({ type: 't', value })) },
  });
  const rows: readonly [what: string, filter: Parameters<typeof Filter.fromPartial>[0], found: readonly string[]][] = [
    ['nothing', {}, ['a', 'b', 'c']],
    ['the attestation type', { byAttestationType: 'x509pop' }, ['b']],
    ['who is banned', { byBanned: true }, ['c']],
    ['who is not banned', { byBanned: false }, ['a', 'b']],
    ['who can attest again', { byCanReattest: true }, ['b']],
    ['exactly these selectors', select(0, '1'), ['a']],
    ['a subset of these selectors', select(1, '1', '2', '3'), ['a', 'b']],
    ['a superset of these selectors', select(2, '2'), ['b']],
    ['any of these selectors', select(3, '2', '9'), ['b']],
  ];
  for (const [what, filter, found] of rows) {
    test(`asks for ${what}, and counts as many`, async () => {
      expect(await names(filter)).toEqual(found);
      expect(await api.countAgents({ filter: Filter.fromPartial(filter) }, LOCAL)).toEqual({ count: found.length });
    });
  }

  test('before a time, in the command line’s form; a time that can’t be read is refused: a purge must not mean everybody', async () => {
    const at = (ms: number) => `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')} +0000 UTC`;
    await put('d', { current: current(clock.now() + 1_000) });
    expect(await names({ byExpiresBefore: at(clock.now() + HOUR_MS / 2) })).toContain('d');
    expect(await names({ byExpiresBefore: at(clock.now() + HOUR_MS / 2) })).not.toContain('b');
    for (const text of ['soon', '2026-01-01', '2026-13-01 00:00:00 +0000 UTC', '2026-01-01T00:00:00Z']) {
      await expect(names({ byExpiresBefore: text }), text).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    }
  });

  test('page by page finds each once, though others come and go; a token that is none is refused', async () => {
    const found: string[] = [];
    let pageToken = '';
    for (let pages = 0; pages < 9; pages++) {
      const page = await list({ pageSize: 1, pageToken });
      found.push(...page.agents.map(({ id }) => id?.path ?? ''));
      if (page.nextPageToken === '') break;
      pageToken = page.nextPageToken;
      if (pages === 0) await put('aa');
    }
    expect(found.map((one) => one.split('/').at(-1))).toEqual(['a', 'aa', 'b', 'c']);
    await expect(list({ pageSize: 1, pageToken: 'nonsense' })).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  });

  test('gives what the mask asks for, and the ID always', async () => {
    const whole = await api.getAgent({ id: path(node('b').id), outputMask: undefined }, LOCAL);
    expect(whole).toMatchObject({ attestationType: 'x509pop', canReattest: true, banned: false, x509svidSerialNumber: '1' });
    expect(whole.selectors).toHaveLength(2);
    const masked = await api.getAgent({ id: path(node('b').id), outputMask: AgentMask.fromPartial({ banned: true }) }, LOCAL);
    expect(masked).toMatchObject({
      id: path(node('b').id),
      attestationType: '',
      selectors: [],
      canReattest: false,
      x509svidSerialNumber: '',
    });
  });
});

describe('one agent', () => {
  test('is banned: its certificates are gone, and it stays; deleted: it is gone', async () => {
    const { id } = await put('a');
    const before = await api.getAgent({ id: path(id), outputMask: undefined }, LOCAL);
    await api.banAgent({ id: path(id) }, LOCAL);
    expect(memory.node(id)).toMatchObject({ banned: true, current: undefined, next: undefined });
    // when what it holds ends is still known, also after a second ban: a purge of what has ended must not free it
    const { x509svidExpiresAt, x509svidSerialNumber } = before;
    await api.banAgent({ id: path(id) }, LOCAL);
    expect(x509svidExpiresAt).toBeGreaterThan(0);
    expect(await api.getAgent({ id: path(id), outputMask: undefined }, LOCAL)).toMatchObject({
      banned: true,
      x509svidExpiresAt,
      x509svidSerialNumber: '',
    });
    expect(x509svidSerialNumber).not.toBe('');
    await api.deleteAgent({ id: path(id) }, LOCAL);
    expect(memory.node(id)).toBeUndefined();
  });

  for (const call of ['getAgent', 'banAgent', 'deleteAgent'] as const) {
    test(`${call}: who is not there is NOT_FOUND, what is no agent's ID is refused`, async () => {
      const ask = (id: { trustDomain: string; path: string } | undefined) => api[call]({ id, outputMask: undefined }, LOCAL);
      await expect(ask(path(node('nobody').id))).rejects.toMatchObject({ code: 'NOT_FOUND', message: 'agent not found' });
      for (const [id, words] of [
        [undefined, 'invalid agent ID: request must specify SPIFFE ID'],
        [
          { trustDomain: 'example.org', path: '/web' },
          /is not an agent in trust domain "example.org"; path is not in the agent namespace$/,
        ],
        [{ trustDomain: 'example.org', path: '' }, /path is empty$/],
        [{ trustDomain: 'other.org', path: '/spire/agent/x/y' }, /is not a member of trust domain "example.org"$/],
      ] as const) {
        await expect(ask(id)).rejects.toMatchObject({ code: 'REQUEST_INVALID', message: expect.stringMatching(words) as string });
      }
    });
  }
});

describe('a join token', () => {
  const create = (over: Partial<Parameters<typeof api.createJoinToken>[0]> = {}) =>
    api.createJoinToken({ ttl: 60, token: '', agentId: undefined, ...over }, LOCAL);

  test('is a new one each time, or the one that was chosen; it ends when it was told to', async () => {
    const [one, two] = [await create(), await create()];
    expect(one.value).not.toBe(two.value);
    expect(one.expiresAt).toBe(Math.floor(clock.now() / 1000) + 60);
    expect((await create({ token: 'chosen' })).value).toBe('chosen');
    await expect(create({ token: 'chosen' })).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  });

  test('comes with an entry by which others can name the agent', async () => {
    const { value } = await create({ agentId: { trustDomain: 'example.org', path: '/host' } });
    const agentId = `spiffe://example.org/spire/agent/join_token/${value}`;
    expect([...memory.entries()].map(({ spiffeId, parentId, selectors }) => [String(spiffeId), String(parentId), selectors])).toEqual([
      ['spiffe://example.org/host', agentId, [{ type: 'spiffe_id', value: agentId }]],
    ]);
  });

  test('without a lifetime, for an ID that is reserved, or that no ID could hold, is refused and nothing is written; its words stay unsaid', async () => {
    await expect(create({ ttl: 0 })).rejects.toMatchObject({ code: 'REQUEST_INVALID', message: 'ttl is required, you must provide one' });
    await expect(create({ agentId: { trustDomain: 'example.org', path: '/spire/server' } })).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
    });
    for (const token of ['a/b', '..', 'mit Leerzeichen', 'x'.repeat(256)]) {
      const error: unknown = await create({ token }).catch((refused: unknown) => refused);
      expect(error).toMatchObject({ code: 'REQUEST_INVALID' });
      expect((error as Error).message).not.toContain(token);
    }
    expect(memory.entryCount).toBe(0);
  });
});

async function attest(...steps: Parameters<typeof AttestAgentRequest.fromPartial>[0][]): Promise<AttestAgentResponse[]> {
  const answers: AttestAgentResponse[] = [];
  const requests = (async function* () {
    for (const step of steps) yield AttestAgentRequest.fromPartial(step);
  })();
  for await (const answer of api.attestAgent(requests, LOCAL)) answers.push(answer as AttestAgentResponse);
  return answers;
}
const proof = (key: KeyObject, payload: string) => ({
  step: {
    $case: 'params' as const,
    params: { data: { type: 'join_token', payload: Buffer.from(payload) }, params: { csr: buildCsr({ key }) } },
  },
});

describe('attesting', () => {
  test('gives the agent its SVID', async () => {
    await api.createJoinToken({ ttl: 60, token: 'good', agentId: undefined }, LOCAL);
    const [answer] = await attest(proof(newKey(), 'good'));
    expect(answer?.step?.$case).toBe('result');
    const svid = answer?.step?.$case === 'result' ? answer.step.result.svid : undefined;
    expect(svid?.id?.path).toBe('/spire/agent/join_token/good');
    expect(Certificate.parse(svid?.certChain[0] ?? Buffer.alloc(0)).uris).toEqual(['spiffe://example.org/spire/agent/join_token/good']);
  });

  const csr = buildCsr({ key: newKey() });
  const data = { type: 'join_token', payload: Buffer.from('x') };
  const rows: readonly [words: string, step: Parameters<typeof AttestAgentRequest.fromPartial>[0]][] = [
    ['missing params', {}],
    ['missing params', { step: { $case: 'challengeResponse', challengeResponse: Buffer.from('x') } }],
    ['missing attestation data', { step: { $case: 'params', params: { params: { csr } } } }],
    ['missing X509-SVID parameters', { step: { $case: 'params', params: { data } } }],
    ['missing CSR', { step: { $case: 'params', params: { data, params: {} } } }],
    ['missing attestation data type', { step: { $case: 'params', params: { data: { ...data, type: '' }, params: { csr } } } }],
    ['missing attestation data payload', { step: { $case: 'params', params: { data: { type: 'join_token' }, params: { csr } } } }],
  ];
  for (const [words, step] of rows) {
    test(`is refused: ${words} (${JSON.stringify(step).length} letters)`, async () => {
      await expect(attest(step)).rejects.toMatchObject({ code: 'REQUEST_INVALID', message: `malformed param: ${words}` });
    });
  }

  test('without a word is refused', async () => {
    await expect(attest()).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  });
});

describe('renewing', () => {
  async function joined(): Promise<{ id: string; certificate: Certificate }> {
    await api.createJoinToken({ ttl: 60, token: 'good', agentId: undefined }, LOCAL);
    const [answer] = await attest(proof(newKey(), 'good'));
    const svid = answer?.step?.$case === 'result' ? answer.step.result.svid : undefined;
    return {
      id: 'spiffe://example.org/spire/agent/join_token/good',
      certificate: Certificate.parse(svid?.certChain[0] ?? Buffer.alloc(0)),
    };
  }
  const renew = (context: CallContext, csr = buildCsr({ key: newKey() })) => api.renewAgent({ params: { csr } }, context);

  test('gives a next certificate, which replaces the one of now when it is first used', async () => {
    const { id, certificate } = await joined();
    const { svid } = await renew(byAgent(id, certificate));
    const next = Certificate.parse(svid?.certChain[0] ?? Buffer.alloc(0));
    expect(memory.node(id)).toMatchObject({ current: { sha256: certificate.sha256 }, next: { sha256: next.sha256 } });
    await api.postStatus({ agentVersion: '1', currentBundleSerial: 0 }, byAgent(id, next, 'PostStatus'));
    expect(memory.node(id)).toMatchObject({ current: { sha256: next.sha256 }, next: undefined, agentVersion: '1' });
    const refused: unknown = await renew(byAgent(id, certificate)).catch((error: unknown) => error);
    expect(PermissionDeniedDetails.decode(detailsOf(refused)[0]?.value ?? new Uint8Array()).reason).toBe(Reason.AGENT_NOT_ACTIVE);
  });

  test('is not for an agent that can attest again: it is told to', async () => {
    const { id, certificate } = await joined();
    await memory.settled((await store.nodes.update(id, (stored) => ({ ...stored, canReattest: true }))).seq);
    const refused: unknown = await renew(byAgent(id, certificate)).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: 'DENIED', message: 'agent must reattest instead of renew' });
    expect(PermissionDeniedDetails.decode(detailsOf(refused)[0]?.value ?? new Uint8Array()).reason).toBe(Reason.AGENT_MUST_REATTEST);
  });

  test('needs a request that its key signed', async () => {
    const { id, certificate } = await joined();
    const context = byAgent(id, certificate);
    await expect(api.renewAgent({ params: undefined }, context)).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
      message: 'params cannot be nil',
    });
    await expect(renew(context, Buffer.alloc(0))).rejects.toMatchObject({ code: 'REQUEST_INVALID', message: 'missing CSR' });
    await expect(renew(context, Buffer.from('junk'))).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    await expect(renew(context)).resolves.toBeDefined();
  });

  test('of an agent that is banned while its SVID is signed leaves nothing', async () => {
    const { id, certificate } = await joined();
    const sign = authority.signAgentSvid.bind(authority);
    authority.signAgentSvid = async (...args) => {
      const signed = await sign(...args);
      await api.banAgent({ id: path(id) }, LOCAL);
      return signed;
    };
    await expect(renew(byAgent(id, certificate))).rejects.toMatchObject({ code: 'DENIED' });
    expect(memory.node(id)).toMatchObject({ banned: true, next: undefined });
  });
});

test('a status says the agent’s version, of 255 letters at the most', async () => {
  const { id, current } = await put('a', { current: { serial: '1', notAfterMs: clock.now() + HOUR_MS, sha256: 'aa' } });
  const context = byAgent(id, current ?? { sha256: '', notAfterMs: 0 }, 'PostStatus');
  await api.postStatus({ agentVersion: 'x'.repeat(255), currentBundleSerial: 0 }, context);
  expect(memory.node(id)?.agentVersion).toHaveLength(255);
  await expect(api.postStatus({ agentVersion: 'x'.repeat(256), currentBundleSerial: 0 }, context)).rejects.toMatchObject({
    code: 'REQUEST_INVALID',
    message: 'agent version is too long (max 255 characters)',
  });
});
