/** An agent without its server: entries are told, SVIDs are signed by an authority of the test; workloads call over a real UNIX socket. */
import { signJwtSvid } from '../../spiffe/jwt/sign-jwt-svid.ts';
import { generateKeyPairSync, sign } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Registration } from '../../agent/cache.ts';
import { createPublicRpc, listenPublic } from '../../agent/listeners.ts';
import { Quotas, type QuotaSettings } from '../../agent/quotas.ts';
import { createWorkloads, type Workloads, type WorkloadsOptions } from '../../agent/workloads.ts';
import { fail } from '../../core/errors.ts';
import { localSigningKey } from '../../core/local-key.ts';
import { silent } from '../../core/log.ts';
import { service } from '../../core/rpc.ts';
import type { Selector } from '../../core/selector.ts';
import { parseCsr } from '../../core/x509/csr.ts';
import { issueX509Svid } from '../../core/x509/issue.ts';
import { SpiffeWorkloadAPIDefinition } from '../../proto/gen/spiffe/workload/workload.ts';
import { Bundle, jwtAuthority } from '../../spiffe/bundle/bundle.ts';
import { Certificate } from '../../spiffe/x509/certificate.ts';
import { systemClock } from '../../spiffe/clock.ts';
import { openChannel } from '../../spiffe/rpc/channel.ts';
import { type Calls } from '../../spiffe/rpc/calls.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { type TestCertificate, testCertificate, testRoot } from '../fakes/ca.ts';

export const trustDomain = TrustDomain.parse('example.org');

export type Entry = Partial<Omit<Registration, 'selectors'>> & { readonly selectors?: readonly string[] };

let revisions = 0;
/** As the sync would give it; each call is a new revision. */
export function registration(id: string, path: string, { selectors = ['test:a'], ...over }: Entry = {}): Registration {
  return {
    id,
    spiffeId: SpiffeId.of(trustDomain, path),
    selectors: selectors.map((one): Selector => ({ type: one.split(':')[0] ?? '', value: one.slice(one.indexOf(':') + 1) })),
    federatesWith: [],
    hint: '',
    revision: revisions++,
    createdAtMs: 0,
    storeSvid: false,
    prefetch: true,
    jwtSvidIncludeJti: false,
    version: Buffer.alloc(0),
    ...over,
  };
}

/** A trust domain that can sign. */
export interface Realm {
  readonly bundle: Bundle;
  readonly issuer: Certificate;
  /** Another CA below this one's root, with the same bundle: what it signs carries its certificate. */
  below(name: string): Promise<Realm>;
  /** Default: from ten seconds ago for an hour. */
  chain(
    spiffeId: SpiffeId,
    csr: Buffer,
    life?: { readonly notBeforeMs: number; readonly notAfterMs: number },
  ): Promise<readonly Certificate[]>;
  jwt(spiffeId: SpiffeId, audience: readonly string[], claims?: Readonly<Record<string, unknown>>): Promise<string>;
}

const HOUR_MS = 3_600_000;

export async function realm(name: string, nowMs = systemClock.now()): Promise<Realm> {
  const life = { notBeforeMs: nowMs - HOUR_MS, notAfterMs: nowMs + 24 * HOUR_MS };
  const root = await testRoot({ uris: [`spiffe://${name}`], ...life });
  const jwt = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const bundle = new Bundle(TrustDomain.parse(name), {
    x509Authorities: [Certificate.parse(root.der)],
    jwtAuthorities: [jwtAuthority(`${name}-1`, jwt.publicKey)],
  });
  const signing = (ca: TestCertificate, above: readonly Certificate[]): Realm => {
    const issuer = Certificate.parse(ca.der);
    const key = localSigningKey('x509-CA-A', 'ec-p256', ca.key);
    return {
      bundle,
      issuer,
      async below(subject) {
        const other = await testCertificate({ ca: true, uris: [`spiffe://${name}`], subject: `CN=${subject}`, issuer: root, ...life });
        return signing(other, [Certificate.parse(other.der)]);
      },
      async chain(spiffeId, csr, span = { notBeforeMs: nowMs - 10_000, notAfterMs: nowMs + HOUR_MS }) {
        const { spkiDer } = parseCsr(csr);
        const issued = await issueX509Svid({ issuer: { certificate: issuer, key }, spkiDer, spiffeId, ...span });
        return [issued.certificate, ...above];
      },
      async jwt(spiffeId, audience, claims = {}) {
        const template = {
          alg: 'ES256',
          kid: `${name}-1`,
          claims: { sub: String(spiffeId), aud: audience, exp: Math.floor(nowMs / 1000) + 300, ...claims },
        } as const;
        return (await signJwtSvid(template, async (data) => sign('sha256', data, { key: jwt.privateKey, dsaEncoding: 'ieee-p1363' })))
          .token;
      },
    };
  };
  return signing(root, []);
}

export interface Rig {
  readonly workloads: Workloads;
  readonly calls: Calls<typeof SpiffeWorkloadAPIDefinition>;
  readonly home: Realm;
  readonly path: string;
  /** What the attestor says of every caller from now on; undefined: it fails. */
  selectors: readonly string[] | undefined;
  /** Whether the server answers. */
  online: boolean;
  /** How often the server was asked. */
  readonly asked: { x509: number; jwt: number };
  close(): Promise<void>;
}

/** Not synced yet: `workloads.replica.synced()` is the test's. */
export async function createRig(
  options: Partial<WorkloadsOptions> = {},
  limits: QuotaSettings = { connections: 4_096, streams: 16_384, messagesPerSecond: 0 },
): Promise<Rig> {
  const quotas = new Quotas(limits, systemClock, silent);
  const dir = mkdtempSync(join('/tmp', 'workload-'));
  const path = join(dir, 'public', 'api.sock');
  const home = await realm(trustDomain.name);
  const stop = new AbortController();
  const asked = { x509: 0, jwt: 0 };
  const entryOf = (id: string): Registration => {
    const entry = workloads.replica.get(id);
    if (!rig.online || !entry) throw fail('UNAVAILABLE', 'the server is away');
    return entry;
  };
  const workloads = createWorkloads({
    trustDomain,
    attestations: quotas.attestations,
    attestors: new Map([
      [
        'test',
        {
          attest: async () => {
            if (!rig.selectors) throw fail('UNAVAILABLE', 'nobody knows');
            return rig.selectors;
          },
        },
      ],
    ]),
    signX509: async (requests) => {
      asked.x509++;
      return await Promise.all(requests.map(async ({ entryId, csr }) => ({ chain: await home.chain(entryOf(entryId).spiffeId, csr) })));
    },
    signJwt: async (entryId, audience) => {
      asked.jwt++;
      const issuedAtMs = systemClock.now();
      return { token: await home.jwt(entryOf(entryId).spiffeId, audience), issuedAtMs, expiresAtMs: issuedAtMs + 300_000 };
    },
    keepOwn: () => {},
    keepIssuers: () => {},
    keyType: 'ec-p256',
    x509CacheSize: 1000,
    jwtCacheSize: 1000,
    prefetch: true,
    allowUnauthenticatedVerifiers: false,
    allowedForeignJwtClaims: [],
    clock: systemClock,
    log: silent,
    signal: stop.signal,
    ...options,
  });
  workloads.replica.start(home.bundle);
  const signing = workloads.svids.run(stop.signal).catch(() => {});
  const rpc = createPublicRpc({
    services: [service(SpiffeWorkloadAPIDefinition, workloads.api.implementation)],
    quotas,
    maxStreamsPerConnection: 1_000,
    log: silent,
  });
  const listener = await listenPublic({ path, rpc, clock: systemClock, log: silent, quotas });
  const channel = openChannel({ target: `unix://${path}` });
  const rig: Rig = {
    workloads,
    calls: channel.service(SpiffeWorkloadAPIDefinition),
    home,
    path,
    selectors: ['a'],
    online: true,
    asked,
    async close() {
      channel.close();
      await listener.close();
      rpc.close();
      stop.abort();
      await signing;
      rmSync(dir, { recursive: true });
    },
  };
  return rig;
}

/** What every call carries. */
export const header = { metadata: { 'workload.spiffe.io': 'true' } };

/** Reads a stream one answer at a time. */
export class Reader<T> {
  readonly #answers: AsyncIterator<T>;

  constructor(answers: AsyncIterable<T>) {
    this.#answers = answers[Symbol.asyncIterator]();
  }

  async next(): Promise<T> {
    const next = await this.#answers.next();
    if (next.done) throw new Error('the stream ended without an error');
    return next.value;
  }

  async close(): Promise<void> {
    await this.#answers.return?.();
  }
}
