/** Follow over the real wire: TLS with the agent's certificate, the gate, store and memory behind it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Outbox } from '../../../agent/outbox.ts';
import { digestOf, versionOf } from '../../../core/entry-version.ts';
import { silent } from '../../../core/log.ts';
import { noMetrics } from '../../../core/metrics.ts';
import { createRpcServer, type RpcServer, service } from '../../../core/rpc.ts';
import { PermissionDeniedDetails, PermissionDeniedDetails_Reason as Reason } from '../../../proto/gen/spire/api/types/status.ts';
import { type FollowRequest, type FollowResponse, PushDefinition } from '../../../proto/gen/warifu/api/server/push/v1/push.ts';
import { Callers } from '../../../server/api/caller.ts';
import { Limits } from '../../../server/api/limits.ts';
import { createPushApi } from '../../../server/api/push.ts';
import { createGate } from '../../../server/gate.ts';
import { listenTls, type TlsListener } from '../../../server/listeners.ts';
import { createMemory, type Memory } from '../../../server/memory.ts';
import { createPush, type Push } from '../../../server/push.ts';
import { openSqlite } from '../../../server/store/sqlite.ts';
import type { AgentCertificate, Node, Store } from '../../../server/store/store.ts';
import { Bundle, BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { Certificate } from '../../../spiffe/x509/certificate.ts';
import { Latest } from '../../../spiffe/latest.ts';
import { openChannel, tlsCredentials } from '../../../spiffe/rpc/channel.ts';
import { type Channel, rpcStatusOf } from '../../../spiffe/rpc/calls.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { connectTls } from '../../../spiffe/tls/tls.ts';
import { X509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { entry, node } from '../../contract/store.ts';
import { NOW_MS, type TestCertificate, testCertificate, testRoot } from '../../fakes/ca.ts';
import { FakeClock } from '../../fakes/clock.ts';

const trustDomain = TrustDomain.parse('example.org');
const AGENT = node('a').id;
const HOUR_MS = 3_600_000;
/** What gRPC calls them. */
const INVALID_ARGUMENT = 3;
const PERMISSION_DENIED = 7;
const RESOURCE_EXHAUSTED = 8;

let root: TestCertificate;
let ours: TestCertificate;
let bundles: BundleSet;
let serverSvid: X509Svid;
let current: X509Svid;
let next: X509Svid;

beforeAll(async () => {
  root = await testRoot();
  ours = await testCertificate({ ca: true, issuer: root });
  bundles = new BundleSet([new Bundle(trustDomain, { x509Authorities: [Certificate.parse(root.der)], jwtAuthorities: [] })]);
  const svidOf = async (uri: string) => {
    const leaf = await testCertificate({ issuer: ours, uris: [uri] });
    return X509Svid.of([Certificate.parse(leaf.der), Certificate.parse(ours.der)], leaf.key);
  };
  [serverSvid, current, next] = await Promise.all([svidOf('spiffe://example.org/spire/server'), svidOf(AGENT), svidOf(AGENT)]);
});

let folder: string;
let clock: FakeClock;
let store: Store;
let memory: Memory;
let push: Push;
let issuers: Latest<readonly Certificate[]>;
let rpc: RpcServer;
let listener: TlsListener;
let stop: AbortController;
let channels: Channel[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'warifu-'));
  clock = new FakeClock(NOW_MS);
  store = await openSqlite(join(folder, 'db'), clock);
  memory = await createMemory({ store, clock, log: silent, trustDomain });
  issuers = new Latest<readonly Certificate[]>([]);
  push = createPush({ state: memory, issuers, trustDomain, maxBehind: 8 });
  const callers = new Callers({ state: memory, store, clock, adminIds: [] });
  const limits = new Limits({ attestation: true, signing: true }, clock);
  rpc = createRpcServer({
    log: silent,
    gate: createGate({ callers, limits, metrics: noMetrics, clock, log: silent, audit: false }),
    services: [
      service(
        PushDefinition,
        createPushApi({
          push,
          agentOf: ({ peer }) => (peer.kind === 'tls' ? String(peer.id) : ''),
          checkStanding: (id, sha256, notAfterMs, method) => callers.checkStanding(id, sha256, notAfterMs, method),
        }),
      ),
    ],
  });
  stop = new AbortController();
  listener = await listenTls({
    address: '127.0.0.1',
    port: 0,
    rpc,
    strangers: rpc,
    isKnown: () => true,
    svid: serverSvid,
    bundles,
    trustDomain,
    issuers: () => [Certificate.parse(ours.der)],
    isForeignAdmin: () => false,
    clock,
    log: silent,
    signal: stop.signal,
  });
  channels = [];
  await attest({ ...node('a'), current: certificateOf(current) });
  await setBundle('1');
});
afterEach(async () => {
  for (const channel of channels) channel.close();
  stop.abort();
  push.close();
  rpc.close();
  await listener.close();
  memory.close();
  await store.close();
  rmSync(folder, { recursive: true });
});

function certificateOf({ chain: [leaf] }: X509Svid): AgentCertificate {
  if (!leaf) throw new Error('no leaf');
  return { serial: leaf.serialNumber, sha256: leaf.sha256, notAfterMs: leaf.notAfterMs };
}
const attest = async (one: Node) => memory.settled((await store.nodes.attest(one, {})).seq);
const change = async (how: (stored: Node) => Node) => memory.settled((await store.nodes.update(AGENT, how)).seq);
const setBundle = async (keyId: string) => {
  const jwtAuthorities = [{ keyId, spkiDer: Buffer.from('spki'), notAfterMs: 0, tainted: false }];
  const { seq } = await store.bundles.update('example.org', () => ({
    trustDomain: 'example.org',
    x509Authorities: [],
    jwtAuthorities,
    refreshHintSeconds: 0,
    sequence: 0,
  }));
  await memory.settled(seq);
};
async function add(name: string, value = 'uid:1'): Promise<void> {
  const [outcome] = await store.entries.create([entry(name, { parentId: SpiffeId.parse(AGENT), selectors: [{ type: 'unix', value }] })]);
  if (!outcome?.ok) throw new Error(outcome?.message);
  await memory.settled(outcome.seq);
}
async function until(done: () => boolean): Promise<void> {
  while (!done()) await setImmediate();
}

const hello = (digest: Buffer = digestOf([])): FollowRequest => ({ step: { $case: 'hello', hello: { digest } } });
const want = (...ids: string[]): FollowRequest => ({ step: { $case: 'want', want: { ids } } });
const ours32 = () => digestOf([...memory.authorized(AGENT).values()].map((one) => [one.id, versionOf(one)] as const));

/** A stream as an agent opens it, on a connection of its own. */
function follow(svid: X509Svid | undefined, ...said: FollowRequest[]) {
  const channel = openChannel({
    target: `dns:///127.0.0.1:${listener.port}`,
    credentials: tlsCredentials((socket) => connectTls(socket, { svid, bundles, clock, alpn: ['h2'], authorize: () => {} })),
  });
  channels.push(channel);
  const outbox = new Outbox<FollowRequest>();
  for (const one of said) outbox.put(one);
  const leave = new AbortController();
  const steps = channel.service(PushDefinition).follow(outbox, { signal: leave.signal })[Symbol.asyncIterator]();
  return {
    say: (one: FollowRequest) => outbox.put(one),
    leave: () => leave.abort(),
    /** The next message, by its kind and what it carries. */
    async next(): Promise<string> {
      const answer = await steps.next();
      return answer.done ? 'end' : shown(answer.value);
    },
    /** How it ends, whatever comes before. */
    async end(): Promise<{ code: number | undefined; reason: Reason | undefined; text: string | undefined }> {
      try {
        while (!(await steps.next()).done);
        return { code: 0, reason: undefined, text: undefined };
      } catch (error) {
        const status = rpcStatusOf(error);
        const [detail] = status?.details ?? [];
        return {
          code: status?.code,
          reason: detail && PermissionDeniedDetails.decode(detail.value).reason,
          text: status?.text,
        };
      }
    },
  };
}

function shown({ step }: FollowResponse): string {
  switch (step?.$case) {
    case 'same':
      return 'same';
    case 'versions':
      return `versions ${step.versions.versions.map(({ id, version }) => `${id}:${version.length}`).join()}`;
    case 'changes':
      return `changes +${step.changes.upserts.map((one) => one.entry?.id).join()} -${step.changes.removedIds.join()}`;
    case 'bundles':
      return `bundles ${step.bundles.bundles.map((one) => `${one.trustDomain} ${one.jwtAuthorities.map(({ keyId }) => keyId)}`).join()}`;
    case 'issuers':
      return `issuers ${step.issuers.certificates.map((der) => Certificate.parse(der).subjectText).join()}`;
    case undefined:
      return 'nothing';
  }
}

describe('an agent that follows', () => {
  test('is greeted, gets the bodies it asks for, and each change as it happens', async () => {
    await add('web');
    const agent = follow(current, hello());
    expect([await agent.next(), await agent.next()]).toEqual(['versions web:16', 'bundles example.org 1']);
    agent.say(want('web', 'unknown'));
    expect(await agent.next()).toBe('changes +web -');
    await add('db');
    expect(await agent.next()).toBe('changes +db -');
    await setBundle('2');
    expect(await agent.next()).toBe('bundles example.org 2');
    issuers.set([Certificate.parse(ours.der)]);
    push.issuersChanged();
    expect(await agent.next()).toBe(`issuers ${Certificate.parse(ours.der).subjectText}`);
    const [gone] = await store.entries.delete(['web']);
    expect(gone?.ok).toBe(true);
    expect(await agent.next()).toBe('changes + -web');
  });

  test('hears “same” when it has everything', async () => {
    await add('web');
    const agent = follow(current, hello(ours32()));
    expect([await agent.next(), await agent.next()]).toEqual(['same', 'bundles example.org 1']);
  });

  test('and goes leaves nothing behind', async () => {
    const agent = follow(current, hello());
    await agent.next();
    expect(push.followers).toBe(1);
    agent.leave();
    await until(() => push.followers === 0);
  });

  test('takes its next certificate into use by following with it; the stream of the one before ends', async () => {
    const older = follow(current, hello());
    await older.next();
    await change((stored) => ({ ...stored, next: certificateOf(next) }));
    const newer = follow(next, hello());
    await newer.next();
    expect(memory.node(AGENT)).toMatchObject({ current: { sha256: certificateOf(next).sha256 }, next: undefined });
    expect(await older.end()).toMatchObject({ code: PERMISSION_DENIED, reason: Reason.AGENT_NOT_ACTIVE });
    await newer.next();
    await add('web');
    expect(await newer.next()).toBe('changes +web -');
  });
});

describe('a stream ends', () => {
  const DENIED_TEXT = 'authorization denied for method /warifu.api.server.push.v1.Push/Follow';

  test.each([
    ['banned', Reason.AGENT_BANNED, () => change((stored) => ({ ...stored, banned: true, current: undefined, next: undefined }))],
    ['evicted', Reason.AGENT_NOT_ATTESTED, async () => memory.settled((await store.nodes.delete(AGENT)).seq)],
    [
      'attested anew by another key',
      Reason.AGENT_NOT_ACTIVE,
      () => change((stored) => ({ ...stored, current: certificateOf(next), next: undefined })),
    ],
  ])('when the agent is %s, at once, with SPIRE’s details; and does not open again', async (_, reason, happens) => {
    const agent = follow(current, hello());
    expect([await agent.next(), await agent.next()]).toEqual(['same', 'bundles example.org 1']);
    await happens();
    expect(await agent.end()).toEqual({ code: PERMISSION_DENIED, reason, text: DENIED_TEXT });
    expect(push.followers).toBe(0);
    expect(await follow(current, hello()).end()).toEqual({ code: PERMISSION_DENIED, reason, text: DENIED_TEXT });
  });

  test('with the certificate that opened it', async () => {
    const agent = follow(current, hello());
    await agent.next();
    await clock.advance(HOUR_MS);
    await until(() => push.followers === 0);
    expect((await agent.end()).code).not.toBe(0);
  });

  test('when the agent reads too slowly: RESOURCE_EXHAUSTED, and the next one starts with the newest', async () => {
    const agent = follow(current, hello());
    await agent.next();
    // bodies that no window takes
    const big = 'x'.repeat(200_000);
    for (let i = 0; push.followers > 0 && i < 200; i++) {
      await add(`big-${i}`, `path:${big}`);
      await setImmediate();
    }
    expect(push.followers).toBe(0);
    expect(await agent.end()).toMatchObject({ code: RESOURCE_EXHAUSTED });
    const again = follow(current, hello(ours32()));
    expect(await again.next()).toBe('same');
  });

  test.each([
    ['asks before it says hello', [want('web')], 'the first message must be hello'],
    ['says hello twice', [hello(), hello()], 'after hello only want may follow'],
    ['says nothing', [{ step: undefined }], 'the first message must be hello'],
    ['has a digest of another length', [hello(Buffer.alloc(31))], 'digest has 31 bytes, not 32'],
  ])('when the agent %s', async (_, said, text) => {
    expect(await follow(current, ...said).end()).toEqual({ code: INVALID_ARGUMENT, reason: undefined, text });
    await until(() => push.followers === 0);
  });

  test('before it begins for whoever is no agent', async () => {
    expect(await follow(undefined, hello()).end()).toEqual({ code: PERMISSION_DENIED, reason: undefined, text: DENIED_TEXT });
    expect(await follow(serverSvid, hello()).end()).toEqual({
      code: PERMISSION_DENIED,
      reason: Reason.AGENT_NOT_ATTESTED,
      text: DENIED_TEXT,
    });
  });
});
