/** The agent's copy follows a server that plays SPIRE's, or ours: real TLS, real gRPC, scripted answers. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test, describe } from 'vitest';
import { EntryCache } from '../../agent/cache.ts';
import { LocalReplica } from '../../agent/replica.ts';
import { ServerConnection } from '../../agent/server-client.ts';
import { runSync } from '../../agent/sync.ts';
import { silent } from '../../core/log.ts';
import type { Implementation } from '../../core/rpc-types.ts';
import { createRpcServer, type RpcServer, type Service, service } from '../../core/rpc.ts';
import { buildCsr } from '../../core/x509/csr.ts';
import { generateEcKey } from '../../core/x509/key.ts';
import { BundleDefinition } from '../../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import { EntryDefinition } from '../../proto/gen/spire/api/server/entry/v1/entry.ts';
import { Bundle as WireBundle } from '../../proto/gen/spire/api/types/bundle.ts';
import { Entry as WireEntry } from '../../proto/gen/spire/api/types/entry.ts';
import { type FollowResponse, PushDefinition } from '../../proto/gen/warifu/api/server/push/v1/push.ts';
import type { Certificate } from '../../spiffe/x509/certificate.ts';
import { systemClock } from '../../spiffe/clock.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import { Latest } from '../../spiffe/latest.ts';
import { TlsServer } from '../../spiffe/tls/tls.ts';
import { X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { type Realm, realm, registration, trustDomain } from './rig.ts';

let home: Realm;
let rpc: RpcServer;
let tls: TlsServer;
let connection: ServerConnection;
let cache: EntryCache;
let replica: LocalReplica;
/** By whom the server said that it is issued. */
let told: (readonly Certificate[])[];
/** Resolved anew at each sync. */
let synced: Latest<number>;
let stop: AbortController;
let running: Promise<unknown>;

async function start(services: readonly Service[], serverPath = '/spire/server', intervalMs = 5_000): Promise<void> {
  const key = generateEcKey();
  const id = SpiffeId.of(trustDomain, serverPath);
  const svid = X509Svid.of(await home.chain(id, buildCsr({ key })), key);
  rpc = createRpcServer({ services, log: silent });
  tls = new TlsServer({
    svid,
    client: 'optional',
    alpn: ['h2'],
    bundles: home.bundle,
    authorize: () => {},
    onConnection: (socket) =>
      rpc.accept(socket, { kind: 'tls', address: '', id: undefined, certificateSha256: '', notAfterMs: 0, connection: socket }),
  });
  tls.server.listen(0, '127.0.0.1');
  await once(tls.server, 'listening');
  const { port } = tls.server.address() as AddressInfo;
  const log = silent;
  connection = new ServerConnection({
    address: '127.0.0.1',
    port,
    trustDomain,
    svid: undefined,
    bundles: () => home.bundle,
    issuers: () => [],
    clock: systemClock,
    log,
    onRefused: () => {},
  });
  const report = async () => {};
  running = runSync(
    {
      connections: new Latest(connection),
      replica,
      report,
      clock: systemClock,
      log,
      intervalMs,
      onTried: (worked) => worked || synced.set(-1),
    },
    stop.signal,
  ).catch(() => {});
}
beforeEach(async () => {
  home = await realm('example.org');
  cache = new EntryCache();
  synced = new Latest(0);
  stop = new AbortController();
  const nothing = () => {};
  told = [];
  replica = new LocalReplica({
    trustDomain,
    cache,
    log: silent,
    onEntries: nothing,
    onBundles: nothing,
    onOwn: nothing,
    onIssuers: (issuers) => told.push(issuers),
    onSynced: () => synced.set(synced.value + 1),
  });
});
afterEach(async () => {
  stop.abort();
  await running;
  connection.close();
  rpc.close();
  tls.server.close();
});

async function until(done: () => boolean, changes: Latest<unknown> = synced): Promise<void> {
  for await (const _ of changes.changes(AbortSignal.timeout(10_000))) if (done()) return;
}
const entry = (id: string, revisionNumber = 0) =>
  WireEntry.fromPartial({
    id,
    revisionNumber,
    spiffeId: { trustDomain: 'example.org', path: `/${id}` },
    selectors: [{ type: 'test', value: 'a' }],
  });
const version = (id: string, revision = 0) => createHash('sha256').update(`${id} ${revision}`).digest().subarray(0, 16);
const ownBundle = () =>
  WireBundle.fromPartial({ trustDomain: 'example.org', x509Authorities: home.bundle.x509.authorities.map(({ raw }) => ({ asn1: raw })) });
const ids = () => [...replica.ids()].sort();
const gone = (signal: AbortSignal) => new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));

type Step = NonNullable<FollowResponse['step']>;
const bundles: Step = { $case: 'bundles', bundles: { bundles: [], removedTrustDomains: [], complete: true } };

test('a push stream: what is missing is asked for, changes are applied in their order, and the digest of the next stream says what is there', async () => {
  const digests: string[] = [];
  const more = new Latest<readonly Step[]>([]);
  const push: Implementation<typeof PushDefinition> = {
    async *follow(requests, { signal }) {
      const incoming = requests[Symbol.asyncIterator]();
      const hello = await incoming.next();
      if (!hello.done && hello.value.step?.$case === 'hello') digests.push(hello.value.step.hello.digest.toString('hex'));
      if (digests.length > 1) {
        yield { step: { $case: 'same', same: {} } };
        yield { step: { ...bundles, bundles: { ...bundles.bundles, bundles: [ownBundle()] } } };
        await gone(signal);
      }
      yield { step: { $case: 'versions', versions: { versions: ['1', '2'].map((id) => ({ id, version: version(id) })), more: true } } };
      yield { step: { $case: 'versions', versions: { versions: [{ id: '3', version: version('3') }], more: false } } };
      yield { step: { ...bundles, bundles: { ...bundles.bundles, bundles: [ownBundle()] } } };
      const want = await incoming.next();
      const wanted = want.done || want.value.step?.$case !== 'want' ? [] : want.value.step.want.ids;
      yield {
        step: { $case: 'changes', changes: { upserts: wanted.map((id) => ({ entry: entry(id), version: version(id) })), removedIds: [] } },
      };
      for await (const steps of more.changes(signal)) {
        for (const step of steps) yield { step };
        if (steps.length > 0) return;
      }
    },
  };
  await start([service(PushDefinition, push)]);
  await until(() => synced.value === 1);
  expect(ids()).toEqual(['1', '2', '3']);
  expect(replica.own?.x509.equals(home.bundle.x509)).toBe(true);
  more.set([
    { $case: 'changes', changes: { upserts: [{ entry: entry('1', 7), version: version('1', 7) }], removedIds: ['3'] } },
    { $case: 'changes', changes: { upserts: [{ entry: entry('4'), version: version('4') }], removedIds: [] } },
  ]);
  await until(() => synced.value === 2);
  expect(ids()).toEqual(['1', '2', '4']);
  expect(replica.get('1')?.revision).toBe(7);
  expect(digests).toEqual([new EntryCache().digest().toString('hex'), cache.digest().toString('hex')]);
});

test('what the server lists no more is dropped, though nobody said that it went: a deletion while we were away', async () => {
  const push: Implementation<typeof PushDefinition> = {
    async *follow(_, { signal }) {
      yield { step: { $case: 'versions', versions: { versions: [], more: false } } };
      yield { step: { ...bundles, bundles: { ...bundles.bundles, bundles: [ownBundle()] } } };
      await gone(signal);
    },
  };
  replica.apply([registration('stale', '/stale')], []);
  await start([service(PushDefinition, push)]);
  await until(() => synced.value === 1);
  expect(ids()).toEqual([]);
});

test('a bundle of our own trust domain without an authority is not taken', async () => {
  replica.start(home.bundle);
  const push: Implementation<typeof PushDefinition> = {
    async *follow(_, { signal }) {
      yield { step: { $case: 'same', same: {} } };
      yield { step: { ...bundles, bundles: { ...bundles.bundles, bundles: [WireBundle.fromPartial({ trustDomain: 'example.org' })] } } };
      await gone(signal);
    },
  };
  await start([service(PushDefinition, push)]);
  await until(() => synced.value === -1);
  expect(replica.own?.x509.isEmpty).toBe(false);
});

describe('the authorities that the server names as its own', () => {
  const naming = (...issuers: readonly Certificate[]): Implementation<typeof PushDefinition> => ({
    async *follow(_, { signal }) {
      yield { step: { $case: 'issuers', issuers: { certificates: issuers.map(({ raw }) => raw) } } };
      yield { step: { $case: 'same', same: {} } };
      yield { step: { ...bundles, bundles: { ...bundles.bundles, bundles: [ownBundle()] } } };
      await gone(signal);
    },
  });

  test('are told on', async () => {
    const other = await home.below('Next');
    await start([service(PushDefinition, naming(home.issuer, other.issuer))]);
    await until(() => synced.value === 1);
    expect(told.map((one) => one.map(({ sha256 }) => sha256))).toEqual([[home.issuer.sha256, other.issuer.sha256]]);
  });

  test('are not believed where none of them issued its own certificate: that would lock it out', async () => {
    const other = await home.below('Other');
    await start([service(PushDefinition, naming(other.issuer))]);
    await until(() => synced.value === -1);
    expect(told).toEqual([]);
  });
});

test('a server without a push stream is polled, by the delta protocol; its federated bundles come too', async () => {
  const other = await realm('other.org');
  let revision = 0;
  let polls = 0;
  const asked: string[][] = [];
  const entries: Implementation<typeof EntryDefinition> = {
    async *syncAuthorizedEntries(requests) {
      polls++;
      const incoming = requests[Symbol.asyncIterator]();
      await incoming.next();
      const all = polls === 1 ? ['1', '2', '3'] : ['2', '3'];
      yield {
        entryRevisions: all.map((id) => ({ id, revisionNumber: id === '2' ? revision : 0, createdAt: 0 })),
        entries: [],
        more: false,
      };
      for (let next = await incoming.next(); !next.done; next = await incoming.next()) {
        asked.push(next.value.ids);
        yield {
          entryRevisions: [],
          entries: next.value.ids.map((id) => ({ ...entry(id, id === '2' ? revision : 0), federatesWith: ['other.org'] })),
          more: false,
        };
      }
    },
  };
  const bundle: Implementation<typeof BundleDefinition> = {
    getBundle: async () => ownBundle(),
    getFederatedBundle: async ({ trustDomain: name }) =>
      WireBundle.fromPartial({ trustDomain: name, x509Authorities: other.bundle.x509.authorities.map(({ raw }) => ({ asn1: raw })) }),
  };
  await start([service(EntryDefinition, entries), service(BundleDefinition, bundle)], '/spire/server', 20);
  await until(() => synced.value === 1);
  expect(ids()).toEqual(['1', '2', '3']);
  expect(replica.bundles.get(other.bundle.trustDomain)?.x509.equals(other.bundle.x509)).toBe(true);
  revision = 5;
  await until(() => replica.get('2')?.revision === 5);
  expect(ids()).toEqual(['2', '3']);
  expect(asked).toEqual([['1', '2', '3'], ['2']]);
});

test('a server that is not /spire/server is not spoken to', async () => {
  let called = false;
  const push: Implementation<typeof PushDefinition> = {
    async *follow() {
      called = true;
      yield { step: { $case: 'same', same: {} } };
    },
  };
  await start([service(PushDefinition, push)], '/web');
  await until(() => synced.value === -1);
  expect(called).toBe(false);
});
