/**
 * The server's APIs behind their doors: whatever a caller may send is answered, or refused with a code that blames the caller; what is signed is what was
 * asked for. The first octet says which method, the second one who calls.
 */
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silent } from '../../../core/log.ts';
import type { CallContext } from '../../../core/rpc-types.ts';
import { buildCsr } from '../../../core/x509/csr.ts';
import { BundleDefinition } from '../../../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import { EntryDefinition } from '../../../proto/gen/spire/api/server/entry/v1/entry.ts';
import { SVIDDefinition } from '../../../proto/gen/spire/api/server/svid/v1/svid.ts';
import { createBundleApi } from '../../../server/api/bundle.ts';
import { Callers } from '../../../server/api/caller.ts';
import { createEntryApi } from '../../../server/api/entry.ts';
import { Limits } from '../../../server/api/limits.ts';
import { createSvidApi } from '../../../server/api/svid.ts';
import { createBundles } from '../../../server/bundles.ts';
import { createMemory } from '../../../server/memory.ts';
import { openSqlite } from '../../../server/store/sqlite.ts';
import { Certificate } from '../../../spiffe/x509/certificate.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { isCoded } from '../../../core/errors.ts';
import { entry, node } from '../../contract/store.ts';
import { testAuthority } from '../../fakes/authority.ts';
import { testRoot } from '../../fakes/ca.ts';
import { FakeClock } from '../../fakes/clock.ts';
import { mutateDer } from '../der.ts';
import { about, shape, type Target, wrong } from '../fuzzer.ts';
import type { Mutation } from '../mutations.ts';
import { wireMutation } from '../wire.ts';

const trustDomain = TrustDomain.parse('example.org');
const AGENT = node('a').id;
const HOUR_MS = 3_600_000;
const MAX_ENTRIES = 300;

interface Method {
  readonly name: string;
  readonly decode: (bytes: Uint8Array) => unknown;
  readonly encode: (message: never) => { finish(): Uint8Array };
  readonly call: (request: unknown, context: CallContext) => Promise<unknown>;
}

export default async function api(): Promise<Target> {
  const folder = mkdtempSync(join(tmpdir(), 'fuzz-api-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const clock = new FakeClock();
  const store = await openSqlite(join(folder, 'db'), clock);
  const memory = await createMemory({ store, clock, log: silent, trustDomain });
  const { authority } = await testAuthority(clock);
  const callers = new Callers({ state: memory, store, clock, adminIds: [] });
  const limits = new Limits({ attestation: false, signing: false }, clock);
  const notAfterMs = clock.now() + HOUR_MS;
  await memory.settled((await store.nodes.attest(node('a', { current: { serial: '1', notAfterMs, sha256: 'sha-a' } }), {})).seq);
  const mine = entry('mine', { parentId: SpiffeId.parse(AGENT), x509SvidTtlMs: 60_000, dnsNames: ['mine.example'] });
  const foreign = entry('foreign', { parentId: SpiffeId.parse(node('b').id) });
  const keep = async () => {
    for (const outcome of await store.entries.create([mine, foreign])) if (outcome.ok) await memory.settled(outcome.seq);
  };
  await keep();
  const bundles = createBundles({ store, state: memory, trustDomain });
  const entries = createEntryApi({ store, state: memory, trustDomain, clock, log: silent, agentOf: () => AGENT });
  const implementations: readonly (readonly [typeof EntryDefinition | typeof BundleDefinition | typeof SVIDDefinition, object])[] = [
    [SVIDDefinition, createSvidApi({ authority, state: memory, callers, limits, trustDomain, caSubject: {}, log: silent })],
    [EntryDefinition, entries],
    [BundleDefinition, createBundleApi({ store, state: memory, bundles, trustDomain })],
  ];
  const methods = implementations.flatMap(([{ methods: defined }, implementation]) =>
    Object.entries(defined).flatMap(([name, { requestType, responseType, requestStream }]): Method[] => {
      const call = (implementation as Record<string, Method['call'] | undefined>)[name];
      if (!call || requestStream) return [];
      return [{ name, decode: (bytes) => requestType.decode(bytes), encode: (message) => responseType.encode(message), call }];
    }),
  );
  const shared = { metadata: new Map(), signal: new AbortController().signal, cut: () => {} };
  const contexts: readonly CallContext[] = [
    { ...shared, method: '/m', peer: { kind: 'process', pid: 1, uid: 0, gid: 0, pidfd: -1, connection: {} } },
    {
      ...shared,
      method: '/spire.api.server.svid.v1.SVID/BatchNewX509SVID',
      peer: { kind: 'tls', address: '192.0.2.1', id: SpiffeId.parse(AGENT), certificateSha256: 'sha-a', notAfterMs, connection: {} },
    },
  ] as unknown as readonly CallContext[];

  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const csr = buildCsr({ key: privateKey, uri: 'spiffe://example.org/web', dns: ['a.test'] });
  const root = await testRoot({ uris: ['spiffe://other.org'] });
  const id = { trustDomain: 'example.org', path: '/web' };
  const jwt = {
    publicKey: generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' }),
    keyId: 'k',
    expiresAt: 5,
  };
  const bundle = {
    trustDomain: 'other.org',
    x509Authorities: [{ asn1: root.der }],
    jwtAuthorities: [jwt],
    refreshHint: 5,
    sequenceNumber: 1,
  };
  const one = {
    id: 'e1',
    spiffeId: id,
    parentId: { trustDomain: 'example.org', path: '/node' },
    selectors: [{ type: 'unix', value: 'uid:0' }],
    dnsNames: ['a.test'],
  };
  const requests: Readonly<Record<string, object>> = {
    mintX509SVID: { csr, ttl: 60 },
    mintJWTSVID: { id, audience: ['a'], ttl: 60 },
    batchNewX509SVID: {
      params: [
        { entryId: 'mine', csr },
        { entryId: 'foreign', csr },
      ],
    },
    newJWTSVID: { entryId: 'mine', audience: ['a'] },
    batchCreateEntry: { entries: [one], outputMask: { spiffeId: true } },
    batchUpdateEntry: { entries: [one], inputMask: { selectors: true, hint: true } },
    batchDeleteEntry: { ids: ['e1'] },
    getEntry: { id: 'mine' },
    listEntries: {
      filter: {
        bySpiffeId: id,
        byHint: '',
        bySelectors: { selectors: one.selectors, match: 1 },
        byFederatesWith: { trustDomains: ['other.org'], match: 2 },
      },
      pageSize: 2,
      pageToken: 'e0',
    },
    appendBundle: { x509Authorities: bundle.x509Authorities, jwtAuthorities: [jwt] },
    publishJWTAuthority: { jwtAuthority: jwt },
    batchCreateFederatedBundle: { bundle: [bundle] },
    batchUpdateFederatedBundle: { bundle: [bundle], inputMask: { refreshHint: true } },
    batchSetFederatedBundle: { bundle: [bundle] },
    batchDeleteFederatedBundle: { trustDomains: ['other.org'], mode: 2 },
    getFederatedBundle: { trustDomain: 'other.org' },
    listFederatedBundles: { pageSize: 1, pageToken: 'a' },
  };
  const defined = new Map(implementations.flatMap(([{ methods: all }]) => Object.entries(all)));
  const seeds = methods.flatMap(({ name }, i) => {
    const type = defined.get(name)?.requestType as unknown as {
      fromPartial(from: object): never;
      encode(message: never): { finish(): Uint8Array };
    };
    return [0, 1].map((who) => Buffer.concat([Buffer.of(i, who), type.encode(type.fromPartial(requests[name] ?? {})).finish()]));
  });

  /** Changes the request in a message, or the certificate. */
  const inner: Mutation = (random, input, other) => {
    for (const known of [csr, root.der]) {
      const at = input.indexOf(known.subarray(0, 8));
      if (at < 0 || at + known.length > input.length) continue;
      const changed = mutateDer(random, input.subarray(at, at + known.length), other);
      // as long as it was: the lengths around it stay
      return Buffer.concat([
        input.subarray(0, at),
        Buffer.concat([changed, Buffer.alloc(known.length)]).subarray(0, known.length),
        input.subarray(at + known.length),
      ]);
    }
    return wireMutation(2)(random, input, other);
  };

  return {
    seeds,
    words: ['example.org', 'other.org', '/spire/agent/x', '/web', 'mine', 'foreign', ':', '..', '*', '\0', 'spiffe://example.org/web'],
    mutations: [wireMutation(2), wireMutation(2), inner],
    // a batch of ten thousand items takes its time, and gives others their turn
    maxBytes: 4 * 1024,
    limitMs: 1000,
    async run(input) {
      const method = methods[(input[0] ?? 0) % methods.length] as Method;
      const context = contexts[(input[1] ?? 0) % 2] as CallContext;
      let request: unknown;
      try {
        request = method.decode(input.subarray(2));
      } catch {
        return `${method.name} no message`;
      }
      if (memory.entryCount > MAX_ENTRIES) {
        await entries.batchDeleteEntry?.({ ids: [...memory.entries('')].map((old) => old.id) }, contexts[0] as CallContext);
        await keep();
      }
      let answer: { results?: readonly { status?: { code: number; message: string }; svid?: Svid }[]; svid?: Svid };
      try {
        answer = (await method.call(request, context)) as typeof answer;
      } catch (error) {
        if (isCoded(error, 'INTERNAL', 'STORE_FAILED') && !EXPECTED.test(error.message))
          throw wrong(`${method.name}: an INTERNAL fault: ${shape(error.message)}`, error.cause);
        if (isCoded(error)) return `${method.name} ${error.code} ${shape(error.message)}`;
        throw error;
      }
      method.encode(answer as never).finish();
      const statuses = new Set<string>();
      for (const { status } of answer.results ?? []) {
        if (status?.code === 13 && !EXPECTED.test(status.message))
          throw wrong(`${method.name}: an INTERNAL status: ${shape(status.message)}`);
        statuses.add(`${status?.code} ${shape(status?.message ?? '').slice(0, 60)}`);
      }
      for (const svid of [answer.svid, ...(answer.results ?? []).map((result) => result.svid)]) if (svid) checkSvid(method.name, svid);
      return `${method.name} ${about(answer.results?.length ?? 0)} ${[...statuses].slice(0, 1).join()}`;
    },
  };
}

interface Svid {
  readonly certChain?: readonly Buffer[];
  readonly id?: { readonly trustDomain: string; readonly path: string };
}

/** Words of SPIRE for what is the caller's fault. */
const EXPECTED = /unable to find federated bundle|caller is not a downstream workload/;

function checkSvid(name: string, { certChain, id }: Svid): void {
  if (id?.trustDomain !== 'example.org' || !id.path.startsWith('/') || id.path.startsWith('/spire/'))
    throw wrong('an SVID for an ID that no workload may have', JSON.stringify(id));
  if (!certChain) return;
  const leaf = Certificate.parse(certChain[0] ?? Buffer.alloc(0));
  if (leaf.isCa || leaf.uris.length !== 1 || leaf.uris[0] !== `spiffe://example.org${id.path}`)
    throw wrong('an SVID of another ID', leaf.uris);
  if (name === 'batchNewX509SVID' && id.path !== '/mine') throw wrong('an SVID of an entry that is not the agent’s', id.path);
}
