/** Many agents in one process: each attests, connects by TLS and follows the push stream as a real one does, and keeps its entries; none signs anything. */
import type { AgentNodeAttestor } from '../../core/plugin/node-attestor.ts';
import { silent } from '../../core/log.ts';
import { buildCsr } from '../../core/x509/csr.ts';
import { generateEcKey } from '../../core/x509/key.ts';
import { EntryCache, type Registration } from '../../agent/cache.ts';
import { ServerConnection } from '../../agent/server-client.ts';
import { runSync } from '../../agent/sync.ts';
import { Bundle } from '../../spiffe/bundle/bundle.ts';
import { certificatesFromPem } from '../../spiffe/x509/certificate.ts';
import { systemClock } from '../../spiffe/clock.ts';
import { TrustDomain } from '../../spiffe/id.ts';
import { Latest } from '../../spiffe/latest.ts';
import { X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { readFileSync } from 'node:fs';
import type { House } from '../../test/e2e/house.ts';

export interface Fleet {
  /** SPIFFE IDs. */
  readonly ids: readonly string[];
  /** Resolves when no agent has heard anything for a second. */
  quiet(): Promise<void>;
  /** Resolves when each has been in step with the server again since the call. */
  reconnected(): Promise<void>;
  close(): Promise<void>;
}

/** So many attest at one time. */
const WIDTH = 20;

export async function simulate({ house, count }: { readonly house: House; readonly count: number }): Promise<Fleet> {
  const trustDomain = TrustDomain.parse(house.trustDomain);
  const bundle = new Bundle(trustDomain, { x509Authorities: certificatesFromPem(readFileSync(house.pki.root)) });
  const stop = new AbortController();
  const running: Promise<void>[] = [];
  const inStep = new Map<string, number>();
  let heardAt = performance.now();
  const connection = (svid: X509Svid | undefined) =>
    new ServerConnection({
      address: '127.0.0.1',
      port: house.port,
      trustDomain,
      svid,
      bundles: () => bundle,
      issuers: () => [],
      clock: systemClock,
      log: silent,
      onRefused: () => {},
    });

  const tokens = await tokensOf(house, count);
  const ids: string[] = [];
  const waiting = [...tokens];
  await Promise.all(
    Array.from({ length: WIDTH }, async () => {
      for (let token = waiting.pop(); token !== undefined; token = waiting.pop()) {
        const key = generateEcKey();
        const proof: AgentNodeAttestor = { payload: async () => Buffer.from(token ?? ''), answer: async () => Buffer.alloc(0) };
        const first = connection(undefined);
        const { chain } = await first.attest('join_token', proof, buildCsr({ key }), stop.signal);
        first.close();
        const svid = X509Svid.of(chain, key);
        const id = String(svid.id);
        ids.push(id);
        const cache = new EntryCache();
        const connections = new Latest(connection(svid));
        stop.signal.addEventListener('abort', () => connections.value.close());
        running.push(
          runSync(
            {
              connections,
              replica: {
                digest: () => cache.digest(),
                get: (entryId) => cache.get(entryId),
                *ids() {
                  for (const one of cache.all()) yield one.id;
                },
                apply: (upserts: readonly Registration[], removed) => {
                  heardAt = performance.now();
                  cache.apply(upserts, removed);
                },
                applyBundles: () => {},
                applyIssuers: () => {},
                federatesWith: () => [],
                synced: () => inStep.set(id, performance.now()),
              },
              report: async () => {},
              clock: systemClock,
              log: silent,
            },
            stop.signal,
          ).catch(() => {}),
        );
      }
    }),
  );
  const since = async (at: number) => {
    while (ids.some((id) => (inStep.get(id) ?? -1) < at)) await new Promise((done) => setTimeout(done, 20));
  };
  await since(0);
  return {
    ids,
    reconnected: () => since(performance.now()),
    async quiet() {
      while (performance.now() - heardAt < 1_000) await new Promise((done) => setTimeout(done, 100));
    },
    async close() {
      stop.abort(new Error('the figure is done'));
      await Promise.all(running);
    },
  };
}

async function tokensOf(house: House, count: number): Promise<string[]> {
  const { openChannel } = await import('../../spiffe/rpc/channel.ts');
  const { AgentDefinition } = await import('../../proto/gen/spire/api/server/agent/v1/agent.ts');
  const channel = openChannel({ target: `unix://${house.socketPath}` });
  const agents = channel.service(AgentDefinition);
  const tokens: string[] = [];
  for (let i = 0; i < count; i++) tokens.push((await agents.createJoinToken({ ttl: 3_600, token: '', agentId: undefined })).value);
  channel.close();
  return tokens;
}
