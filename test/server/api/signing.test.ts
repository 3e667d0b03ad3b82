/** What the SVID API signs, for whom, and what of a stranger's request goes into it: only the key. */
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { silent } from '../../../core/log.ts';
import type { CallContext } from '../../../core/rpc-types.ts';
import { buildCsr } from '../../../core/x509/csr.ts';
import type {
  BatchNewX509SVIDResponse,
  MintX509SVIDResponse,
  NewJWTSVIDResponse,
} from '../../../proto/gen/spire/api/server/svid/v1/svid.ts';
import { Callers } from '../../../server/api/caller.ts';
import { Limits } from '../../../server/api/limits.ts';
import { createSvidApi } from '../../../server/api/svid.ts';
import type { Authority } from '../../../server/authority.ts';
import { createMemory, type Memory } from '../../../server/memory.ts';
import { openSqlite } from '../../../server/store/sqlite.ts';
import type { Store } from '../../../server/store/store.ts';
import { Certificate } from '../../../spiffe/x509/certificate.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { entry, node } from '../../contract/store.ts';
import { testAuthority } from '../../fakes/authority.ts';
import { FakeClock } from '../../fakes/clock.ts';

const trustDomain = TrustDomain.parse('example.org');
const AGENT = node('a').id;
const HOUR_MS = 3_600_000;

let folder: string;
let clock: FakeClock;
let store: Store;
let memory: Memory;
let authority: Authority;
let api: ReturnType<typeof createSvidApi>;
let local: CallContext;
let byAgent: CallContext;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'warifu-'));
  clock = new FakeClock();
  store = await openSqlite(join(folder, 'db'), clock);
  memory = await createMemory({ store, clock, log: silent, trustDomain });
  ({ authority } = await testAuthority(clock));
  const callers = new Callers({ state: memory, store, clock, adminIds: [] });
  const limits = new Limits({ attestation: true, signing: true }, clock);
  api = createSvidApi({ authority, state: memory, callers, limits, trustDomain, caSubject: {}, log: silent });
  const notAfterMs = clock.now() + HOUR_MS;
  for (const name of ['a', 'b']) {
    const one = node(name, { current: { serial: '1', notAfterMs, sha256: `sha-${name}` } });
    await memory.settled((await store.nodes.attest(one, {})).seq);
  }
  await put(entry('mine', { parentId: SpiffeId.parse(AGENT), x509SvidTtlMs: 60_000, dnsNames: ['mine.example'], hint: 'h' }));
  await put(entry('foreign', { parentId: SpiffeId.parse(node('b').id) }));
  const shared = { metadata: new Map(), signal: new AbortController().signal };
  local = { ...shared, method: '/m', peer: { kind: 'process', pid: 1, uid: 0, gid: 0, pidfd: -1, connection: {} } };
  byAgent = {
    ...shared,
    method: '/spire.api.server.svid.v1.SVID/BatchNewX509SVID',
    peer: { kind: 'tls', address: '192.0.2.1', id: SpiffeId.parse(AGENT), certificateSha256: 'sha-a', notAfterMs, connection: {} },
  };
});
afterEach(async () => {
  memory.close();
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

async function put(one: ReturnType<typeof entry>): Promise<void> {
  const [outcome] = await store.entries.create([one]);
  if (!outcome?.ok) throw new Error(outcome?.message);
  await memory.settled(outcome.seq);
}
const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const batch = async (params: { entryId: string; csr: Buffer }[]) =>
  (await api.batchNewX509SVID?.({ params }, byAgent)) as BatchNewX509SVIDResponse;

describe('a batch of an agent', () => {
  test('X509-2: of a request only the key goes on; identity, lifetime and names are the entry’s', async () => {
    const key = newKey();
    const csr = buildCsr({ key, uri: 'spiffe://example.org/admin', dns: ['evil.example'], subject: { commonName: 'evil' } });
    const { results } = await batch([{ entryId: 'mine', csr }]);
    const leaf = Certificate.parse(results[0]?.svid?.certChain[0] ?? Buffer.alloc(0));
    expect(leaf.uris).toEqual(['spiffe://example.org/mine']);
    expect(leaf.dnsNames).toEqual(['mine.example']);
    expect(leaf.subjectText).not.toContain('evil');
    expect(leaf.notAfterMs).toBe(clock.now() + 60_000);
    expect(leaf.spkiDer.equals(createPublicKey(key).export({ type: 'spki', format: 'der' }))).toBe(true);
    expect(results[0]?.svid).toMatchObject({ hint: 'h', id: { trustDomain: 'example.org', path: '/mine' } });
  });

  test('answers each in its place: what is wrong with one is its own affair', async () => {
    const csr = buildCsr({ key: newKey() });
    const forged = Buffer.from(csr);
    forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1;
    const asked: [entryId: string, csr: Buffer, code: number, words: RegExp][] = [
      ['mine', csr, 0, /^OK$/],
      ['foreign', csr, 5, /^entry not found or not authorized$/],
      ['nobody', csr, 5, /^entry not found or not authorized$/],
      ['mine', forged, 3, /^invalid CSR signature$/],
      ['mine', Buffer.from('junk'), 3, /^malformed CSR: /],
      ['mine', Buffer.alloc(0), 3, /^missing CSR$/],
      ['', csr, 3, /^missing entry ID$/],
      ['mine', csr, 0, /^OK$/],
    ];
    const { results } = await batch(asked.map(([entryId, bytes]) => ({ entryId, csr: bytes })));
    expect(results.map(({ status }) => status?.code)).toEqual(asked.map(([, , code]) => code));
    for (const [at, [, , , words]] of asked.entries()) expect(results[at]?.status?.message).toMatch(words);
    expect(results.map(({ svid }) => svid !== undefined)).toEqual(asked.map(([, , code]) => code === 0));
  });

  test('of none, or of more than 500, is refused', async () => {
    await expect(batch([])).rejects.toMatchObject({ code: 'REQUEST_INVALID', message: 'missing parameters' });
    const csr = buildCsr({ key: newKey() });
    await expect(batch(Array.from({ length: 501 }, () => ({ entryId: 'mine', csr })))).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
    });
  });

  test('leaves nothing when the agent is banned while it is signed', async () => {
    const sign = authority.signX509Svid.bind(authority);
    authority.signX509Svid = async (request) => {
      const signed = await sign(request);
      await memory.settled((await store.nodes.update(AGENT, (one) => ({ ...one, banned: true, current: undefined }))).seq);
      return signed;
    };
    await expect(batch([{ entryId: 'mine', csr: buildCsr({ key: newKey() }) }])).rejects.toMatchObject({ code: 'DENIED' });
  });
});

describe('a JWT-SVID of an agent', () => {
  const ask = async (entryId: string, audience: string[]) => (await api.newJWTSVID?.({ entryId, audience }, byAgent)) as NewJWTSVIDResponse;

  test('is for its own entries alone', async () => {
    expect((await ask('mine', ['db'])).svid).toMatchObject({ id: { path: '/mine' }, hint: 'h' });
    await expect(ask('foreign', ['db'])).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test('is for somebody', async () => {
    for (const audience of [[], ['']])
      await expect(ask('mine', audience)).rejects.toMatchObject({ message: 'at least one audience is required' });
  });
});

describe('minting', () => {
  const mint = async (uri: string, over: { dns?: string[]; ttl?: number } = {}) => {
    const csr = buildCsr({ key: newKey(), ...(uri && { uri }), ...(over.dns && { dns: over.dns }) });
    return (await api.mintX509SVID?.({ csr, ttl: over.ttl ?? 0 }, local)) as MintX509SVIDResponse;
  };

  test('gives what the operator asks for', async () => {
    const { svid } = await mint('spiffe://example.org/m', { dns: ['*.a.example', 'b.example'], ttl: 120 });
    const leaf = Certificate.parse(svid?.certChain[0] ?? Buffer.alloc(0));
    expect([leaf.uris, leaf.dnsNames]).toEqual([['spiffe://example.org/m'], ['*.a.example', 'b.example']]);
    expect(leaf.notAfterMs).toBe(clock.now() + 120_000);
  });

  const rows: readonly [what: string, run: () => Promise<unknown>, words: RegExp][] = [
    ['no SPIFFE ID', () => mint(''), /^CSR URI SAN is required$/],
    ['one of another trust domain', () => mint('spiffe://other.org/m'), /is not a member of trust domain/],
    ['a reserved one', () => mint('spiffe://example.org/spire/server'), /reserved namespace$/],
    ['a wildcard over another name', () => mint('spiffe://example.org/m', { dns: ['*.a.example', 'b.a.example'] }), /wildcard that covers/],
    ['a lifetime below nought', () => mint('spiffe://example.org/m', { ttl: -1 }), /^ttl is negative$/],
  ];
  for (const [what, run, words] of rows) {
    test(`${what} is refused`, async () => {
      await expect(run()).rejects.toMatchObject({ code: 'REQUEST_INVALID', message: expect.stringMatching(words) as string });
    });
  }
});
