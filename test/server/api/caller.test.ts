/** Who may call what: the whole table against every kind of caller, and the words and details of each refusal. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { detailsOf } from '../../../core/errors.ts';
import { silent } from '../../../core/log.ts';
import type { CallContext, Peer } from '../../../core/rpc-types.ts';
import { PermissionDeniedDetails, PermissionDeniedDetails_Reason as Reason } from '../../../proto/gen/spire/api/types/status.ts';
import { Callers } from '../../../server/api/caller.ts';
import { POLICY } from '../../../server/api/policy.ts';
import { createMemory, type Memory } from '../../../server/memory.ts';
import { openSqlite } from '../../../server/store/sqlite.ts';
import type { AgentCertificate, Node, Store } from '../../../server/store/store.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { entry, node } from '../../contract/store.ts';
import { FakeClock } from '../../fakes/clock.ts';

const trustDomain = TrustDomain.parse('example.org');
const id = (path: string) => SpiffeId.of(trustDomain, path);
const AGENT = node('a').id;
const FOREIGN_ADMIN = 'spiffe://other.test/operator';
const HOUR_MS = 3_600_000;
const RENEW = '/spire.api.server.agent.v1.Agent/RenewAgent';

let folder: string;
let clock: FakeClock;
let store: Store;
let memory: Memory;
let callers: Callers;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'warifu-'));
  clock = new FakeClock();
  store = await openSqlite(join(folder, 'db'), clock);
  memory = await createMemory({ store, clock, log: silent, trustDomain });
  callers = new Callers({ state: memory, store, clock, adminIds: [SpiffeId.parse(FOREIGN_ADMIN), id('/configured')] });
  const outcomes = await store.entries.create([
    entry('admin', { admin: true }),
    entry('downstream', { downstream: true }),
    entry('workload'),
    entry('admin-of-yesterday', { admin: true, expiresAtMs: clock.now() - 1 }),
    entry('downstream-of-yesterday', { downstream: true, expiresAtMs: clock.now() - 1 }),
  ]);
  for (const outcome of outcomes) if (!outcome.ok) throw new Error(outcome.message);
  await attest(node('a', { current: certificate('current') }));
});
afterEach(async () => {
  memory.close();
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

const certificate = (sha256: string, serial = '1'): AgentCertificate => ({ serial, sha256, notAfterMs: clock.now() + HOUR_MS });
const attest = async (one: Node) => memory.settled((await store.nodes.attest(one, {})).seq);
const change = async (how: (stored: Node) => Node) => memory.settled((await store.nodes.update(AGENT, how)).seq);
const tls = (spiffeId: string | undefined, certificateSha256 = 'x', notAfterMs = clock.now() + HOUR_MS): Peer => ({
  kind: 'tls',
  address: '192.0.2.1',
  id: spiffeId === undefined ? undefined : SpiffeId.parse(spiffeId),
  certificateSha256,
  notAfterMs,
  connection: {},
});
const LOCAL: Peer = { kind: 'process', pid: 1, uid: 0, gid: 0, pidfd: -1, connection: {} };
const call = (method: string, peer: Peer): CallContext => ({ method, peer, metadata: new Map(), signal: new AbortController().signal });
const may = (method: string, peer: Peer): Promise<boolean> =>
  callers.check(call(method, peer)).then(
    () => true,
    () => false,
  );

/** What a refusal says, and the reason among its details. */
async function refusal(judged: Promise<unknown>): Promise<{ code: string; message: string; reason: Reason | undefined }> {
  const error: unknown = await judged.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  const { code, message } = error as { code: string; message: string };
  const details = detailsOf(error);
  for (const { typeUrl } of details) expect(typeUrl).toBe('type.googleapis.com/spire.api.types.PermissionDeniedDetails');
  const [detail] = details;
  return { code, message, reason: detail && PermissionDeniedDetails.decode(Buffer.from(detail.value)).reason };
}

/** SPIRE's default policy, written down from its own list: l = local, a = admin, d = downstream, g = agent, * = anybody. */
const MATRIX: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'spire.api.server.agent.v1.Agent': {
    CountAgents: 'la',
    ListAgents: 'la',
    GetAgent: 'la',
    DeleteAgent: 'la',
    BanAgent: 'la',
    AttestAgent: '*',
    RenewAgent: 'g',
    CreateJoinToken: 'la',
    PostStatus: 'g',
  },
  'spire.api.server.bundle.v1.Bundle': {
    CountBundles: 'la',
    GetBundle: '*',
    AppendBundle: 'la',
    PublishJWTAuthority: 'd',
    PublishWITAuthority: 'd',
    ListFederatedBundles: 'la',
    GetFederatedBundle: 'lag',
    BatchCreateFederatedBundle: 'la',
    BatchUpdateFederatedBundle: 'la',
    BatchSetFederatedBundle: 'la',
    BatchDeleteFederatedBundle: 'la',
  },
  'spire.api.server.entry.v1.Entry': {
    CountEntries: 'la',
    ListEntries: 'la',
    GetEntry: 'la',
    BatchCreateEntry: 'la',
    BatchUpdateEntry: 'la',
    BatchDeleteEntry: 'la',
    GetAuthorizedEntries: 'g',
    SyncAuthorizedEntries: 'g',
  },
  'spire.api.server.svid.v1.SVID': {
    MintX509SVID: 'la',
    MintJWTSVID: 'la',
    MintWITSVID: 'la',
    BatchNewX509SVID: 'g',
    NewJWTSVID: 'g',
    BatchNewWITSVID: 'g',
    NewDownstreamX509CA: 'd',
  },
  'spire.api.server.logger.v1.Logger': { GetLogger: 'l', SetLogLevel: 'l', ResetLogLevel: 'l' },
  'spire.api.server.debug.v1.Debug': { GetInfo: 'l' },
  'grpc.health.v1.Health': { Check: 'l', List: 'l', Watch: 'l' },
  'grpc.reflection.v1.ServerReflection': { ServerReflectionInfo: 'l' },
  'grpc.reflection.v1alpha.ServerReflection': { ServerReflectionInfo: 'l' },
  'warifu.api.server.push.v1.Push': { Follow: 'g' },
  'warifu.api.server.backup.v1.Backup': { Create: 'l' },
};
const METHODS = new Map(
  Object.entries(MATRIX).flatMap(([service, methods]) =>
    Object.entries(methods).map(([name, allowed]) => [`/${service}/${name}`, allowed] as const),
  ),
);

describe('the policy', () => {
  test('has a row for each method of the matrix, and no other', () => {
    expect([...POLICY.keys()].sort()).toEqual([...METHODS.keys()].sort());
  });

  /** Each caller, and the letters of the matrix that let him in. */
  const kinds: readonly (readonly [who: string, letters: string, peer: () => Peer])[] = [
    ['a process at the admin socket', 'l', () => LOCAL],
    ['nobody, over TLS without a certificate', '', () => tls(undefined)],
    ['a workload of ours', '', () => tls('spiffe://example.org/workload')],
    ['an SVID of an admin entry', 'a', () => tls('spiffe://example.org/admin')],
    ['an SVID of an admin entry that has ended', '', () => tls('spiffe://example.org/admin-of-yesterday')],
    ['an SVID of admin_ids', 'a', () => tls('spiffe://example.org/configured')],
    ['an SVID of admin_ids from another trust domain', 'a', () => tls(FOREIGN_ADMIN)],
    ['an SVID of an admin that has expired', '', () => tls('spiffe://example.org/admin', 'x', clock.now())],
    ['an SVID of admin_ids that has expired', '', () => tls(FOREIGN_ADMIN, 'x', clock.now())],
    ['an SVID of a downstream entry', 'd', () => tls('spiffe://example.org/downstream')],
    ['an SVID of a downstream entry that has ended', '', () => tls('spiffe://example.org/downstream-of-yesterday')],
    ['an SVID of a downstream server that has expired', '', () => tls('spiffe://example.org/downstream', 'x', clock.now())],
    ['an agent by its certificate', 'g', () => tls(AGENT, 'current')],
    ['an agent by another certificate', '', () => tls(AGENT, 'other')],
    ['an agent that nobody attested', '', () => tls(node('b').id, 'current')],
    ['an agent by its certificate that has expired', '', () => tls(AGENT, 'current', clock.now())],
  ];
  test.each(kinds)('lets %s do what SPIRE lets him do, and nothing else', async (_, letters, peer) => {
    for (const [method, allowed] of METHODS) {
      const wanted = allowed === '*' || Array.from(letters).some((letter) => allowed.includes(letter));
      expect([method, await may(method, peer())]).toEqual([method, wanted]);
    }
  });

  test('denies a method that it does not name, to everybody', async () => {
    for (const method of ['/spire.api.server.agent.v1.Agent/Unknown', '/other.Service/AttestAgent', '/', '']) {
      for (const [, , peer] of kinds) {
        expect(await refusal(callers.check(call(method, peer())))).toEqual({
          code: 'DENIED',
          message: `authorization denied for method ${method}`,
          reason: undefined,
        });
      }
    }
  });
});

describe('an agent is refused with what it needs to know', () => {
  const message = `authorization denied for method ${RENEW}`;
  const asked = (peer: Peer) => refusal(callers.check(call(RENEW, peer)));

  test('its certificate has ended: AGENT_EXPIRED, though the connection is still open', async () => {
    const peer = tls(AGENT, 'current');
    expect(await may(RENEW, peer)).toBe(true);
    await clock.advance(HOUR_MS);
    expect(await asked(peer)).toEqual({ code: 'DENIED', message, reason: Reason.AGENT_EXPIRED });
  });

  test('nobody attested it, or it was evicted: AGENT_NOT_ATTESTED', async () => {
    expect(await asked(tls(node('b').id, 'current'))).toEqual({ code: 'DENIED', message, reason: Reason.AGENT_NOT_ATTESTED });
    await memory.settled((await store.nodes.delete(AGENT)).seq);
    expect(await asked(tls(AGENT, 'current'))).toEqual({ code: 'DENIED', message, reason: Reason.AGENT_NOT_ATTESTED });
  });

  test('another certificate is active: AGENT_NOT_ACTIVE; a sibling CA that repeats the serial number makes no certificate of ours', async () => {
    await change((stored) => ({ ...stored, current: certificate('ours', '42') }));
    expect(await may(RENEW, tls(AGENT, 'ours'))).toBe(true);
    expect(await asked(tls(AGENT, 'of a sibling with serial 42'))).toEqual({ code: 'DENIED', message, reason: Reason.AGENT_NOT_ACTIVE });
  });

  test('it is banned: AGENT_BANNED', async () => {
    await change((stored) => ({ ...stored, banned: true, current: undefined, next: undefined }));
    expect(await asked(tls(AGENT, 'current'))).toEqual({ code: 'DENIED', message, reason: Reason.AGENT_BANNED });
  });

  test('it is no agent, but a caller of another kind: no reason', async () => {
    expect(await asked(LOCAL)).toEqual({ code: 'DENIED', message, reason: undefined });
    expect(await asked(tls(undefined))).toEqual({ code: 'DENIED', message, reason: undefined });
  });
});

describe('the next certificate of an agent', () => {
  test('comes into use with the first call that shows it, and the one before is refused from then on', async () => {
    const next = certificate('next', '2');
    await change((stored) => ({ ...stored, next }));
    expect(await may(RENEW, tls(AGENT, 'current'))).toBe(true);
    expect(memory.node(AGENT)?.next).toEqual(next);
    expect(await may(RENEW, tls(AGENT, 'next'))).toBe(true);
    expect(memory.node(AGENT)).toMatchObject({ current: next, next: undefined });
    expect((await refusal(callers.check(call(RENEW, tls(AGENT, 'current'))))).reason).toBe(Reason.AGENT_NOT_ACTIVE);
  });

  test('many first calls at the same instant take it into use once, and all are let in', async () => {
    const next = certificate('next', '2');
    await change((stored) => ({ ...stored, next }));
    const judged = await Promise.all(Array.from({ length: 20 }, () => may(RENEW, tls(AGENT, 'next'))));
    expect(judged).toEqual(Array.from({ length: 20 }, () => true));
    expect(memory.node(AGENT)).toMatchObject({ current: next, next: undefined });
  });

  test('a ban between the look and the write of the promotion stays, and the call is refused', async () => {
    await change((stored) => ({ ...stored, next: certificate('next', '2') }));
    const banned = store.nodes.update(AGENT, (stored) => ({ ...stored, banned: true, current: undefined, next: undefined }));
    const judged = may(RENEW, tls(AGENT, 'next'));
    await banned;
    expect(await judged).toBe(false);
    expect((await store.nodes.get(AGENT))?.banned).toBe(true);
  });

  test('an eviction, or an attestation with another key, between the two refuses the call with its own reason', async () => {
    const next = certificate('next', '2');
    await change((stored) => ({ ...stored, next }));
    const attested = store.nodes.update(AGENT, (stored) => ({ ...stored, current: certificate('another'), next: undefined }));
    expect((await refusal(callers.check(call(RENEW, tls(AGENT, 'next'))))).reason).toBe(Reason.AGENT_NOT_ACTIVE);
    await memory.settled((await attested).seq);

    await change((stored) => ({ ...stored, next }));
    const evicted = store.nodes.delete(AGENT);
    expect((await refusal(callers.check(call(RENEW, tls(AGENT, 'next'))))).reason).toBe(Reason.AGENT_NOT_ATTESTED);
    await evicted;
  });
});

test('the last look before an answer leaves says the same as the first one, and writes nothing', async () => {
  const soon = clock.now() + HOUR_MS;
  const look = (sha256: string, notAfterMs = soon) => callers.checkStanding(AGENT, sha256, notAfterMs, RENEW);
  await change((stored) => ({ ...stored, next: certificate('next', '2') }));
  const { seq } = memory;
  look('current');
  look('next');
  expect(() => look('other')).toThrow(`authorization denied for method ${RENEW}`);
  expect(() => look('current', clock.now())).toThrow(`authorization denied for method ${RENEW}`);
  expect((await store.changes.bounds()).newest).toBe(seq);
});
