/** A server as an agent sees it when it comes to be known: real TLS and real gRPC, certificates by an authority of the test, and answers as the test wants them. */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { type CoreError, fail } from '../../core/errors.ts';
import { silent } from '../../core/log.ts';
import { createRpcServer, type RpcServer, type Service, service } from '../../core/rpc.ts';
import type { CallContext } from '../../core/rpc-types.ts';
import { buildCsr, parseCsr } from '../../core/x509/csr.ts';
import { generateEcKey } from '../../core/x509/key.ts';
import { AgentDefinition, type AttestAgentRequest, type AttestAgentResponse } from '../../proto/gen/spire/api/server/agent/v1/agent.ts';
import { BundleDefinition } from '../../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import { EntryDefinition, type SyncAuthorizedEntriesResponse } from '../../proto/gen/spire/api/server/entry/v1/entry.ts';
import { SVIDDefinition } from '../../proto/gen/spire/api/server/svid/v1/svid.ts';
import type { Entry as WireEntry } from '../../proto/gen/spire/api/types/entry.ts';
import { Bundle as WireBundle } from '../../proto/gen/spire/api/types/bundle.ts';
import { PermissionDeniedDetails, type PermissionDeniedDetails_Reason } from '../../proto/gen/spire/api/types/status.ts';
import type { X509SVID } from '../../proto/gen/spire/api/types/x509svid.ts';
import type { Clock } from '../../spiffe/clock.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import { TlsServer, tlsPeer } from '../../spiffe/tls/tls.ts';
import { X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { type Realm, trustDomain } from './rig.ts';

const HOUR_MS = 3_600_000;
const BACKDATE_MS = 10_000;
export const AGENT = SpiffeId.of(trustDomain, '/spire/agent/test/a');

/** One question of the agent. */
export interface Heard {
  readonly method: 'AttestAgent' | 'RenewAgent';
  /** SubjectPublicKeyInfo of its CSR. */
  readonly key: Buffer;
  /** By the certificate that it showed. */
  readonly caller: SpiffeId | undefined;
}

export class PlayedServer {
  readonly heard: Heard[] = [];
  /** Verified connections that are open. */
  readonly connections = new Set<object>();
  /** What AttestAgent says of itself. */
  reattestable = false;
  /** Answers every call of these methods instead. */
  readonly refusals = new Map<'AttestAgent' | 'RenewAgent' | 'PostStatus', CoreError>();
  /** Runs when a question has come and before it is answered. */
  onHeard: () => void = () => {};
  /** Of the SVIDs that it gives. */
  lifetimeMs = HOUR_MS;
  /** How far its clock is ahead of the agent's. */
  aheadMs = 0;
  agentId = AGENT;
  /** What its agent may serve; it has no push stream, so it is asked for them. */
  entries: readonly WireEntry[] = [];
  readonly #clock: Clock;
  readonly #home: Realm;
  readonly #svid: X509Svid;
  #port = 0;
  #running: { readonly rpc: RpcServer; readonly tls: TlsServer } | undefined;

  private constructor(clock: Clock, home: Realm, svid: X509Svid) {
    this.#clock = clock;
    this.#home = home;
    this.#svid = svid;
  }

  /** @param life of its own certificate; default: from yesterday for two days */
  static async start(
    home: Realm,
    clock: Clock,
    {
      path = '/spire/server',
      life,
    }: { readonly path?: string; readonly life?: { readonly notBeforeMs: number; readonly notAfterMs: number } } = {},
  ): Promise<PlayedServer> {
    const key = generateEcKey();
    const span = life ?? { notBeforeMs: clock.now() - HOUR_MS, notAfterMs: clock.now() + 12 * HOUR_MS };
    const svid = X509Svid.of(await home.chain(SpiffeId.of(trustDomain, path), buildCsr({ key }), span), key);
    const server = new PlayedServer(clock, home, svid);
    await server.listen();
    return server;
  }

  get port(): number {
    return this.#port;
  }

  /** After `stop`: at the same port. */
  async listen(): Promise<void> {
    const rpc = createRpcServer({ services: this.#services(), log: silent });
    const tls = new TlsServer({
      svid: this.#svid,
      client: 'optional',
      alpn: ['h2'],
      bundles: this.#home.bundle,
      clock: this.#clock,
      authorize: () => {},
      onConnection: (socket) => {
        this.connections.add(socket);
        socket.once('close', () => this.connections.delete(socket));
        const peer = tlsPeer(socket);
        rpc.accept(socket, {
          kind: 'tls',
          address: '',
          id: peer?.id,
          certificateSha256: peer?.certificateSha256 ?? '',
          notAfterMs: peer?.notAfterMs ?? 0,
          connection: socket,
        });
      },
    });
    tls.server.listen(this.#port, '127.0.0.1');
    await once(tls.server, 'listening');
    this.#port = (tls.server.address() as AddressInfo).port;
    this.#running = { rpc, tls };
  }

  /** Cuts every connection; the port refuses when this resolves. */
  async stop(): Promise<void> {
    const running = this.#running;
    if (!running) return;
    this.#running = undefined;
    const closed = once(running.tls.server, 'close');
    running.tls.server.close();
    running.rpc.close();
    await closed;
  }

  #services(): readonly Service[] {
    return [
      service(AgentDefinition, {
        attestAgent: (requests, context) => this.#attest(requests, context),
        renewAgent: async ({ params }, context) => ({ svid: await this.#answer('RenewAgent', params?.csr, context) }),
        postStatus: async () => {
          const refusal = this.refusals.get('PostStatus');
          if (refusal) throw refusal;
          return {};
        },
      }),
      service(BundleDefinition, {
        getBundle: async () =>
          WireBundle.fromPartial({
            trustDomain: trustDomain.name,
            x509Authorities: this.#home.bundle.x509.authorities.map(({ raw }) => ({ asn1: raw })),
          }),
      }),
      service(EntryDefinition, { syncAuthorizedEntries: (requests) => this.#sync(requests) }),
      service(SVIDDefinition, {
        batchNewX509SVID: async ({ params }) => ({
          results: await Promise.all(
            params.map(async ({ entryId, csr }) => {
              const id = this.entries.find((entry) => entry.id === entryId)?.spiffeId;
              const svid = await this.#sign(SpiffeId.of(trustDomain, id?.path ?? ''), csr);
              return { status: { code: 0, message: '' }, svid };
            }),
          ),
        }),
      }),
    ];
  }

  async *#attest(requests: AsyncIterable<AttestAgentRequest>, context: CallContext): AsyncGenerator<AttestAgentResponse, void, void> {
    for await (const { step } of requests) {
      if (step?.$case !== 'params') throw fail('REQUEST_INVALID', 'no params');
      const svid = await this.#answer('AttestAgent', step.params.params?.csr, context);
      yield { step: { $case: 'result', result: { svid, reattestable: this.reattestable } } };
      return;
    }
  }

  async #answer(method: Heard['method'], csr: Buffer | undefined, { peer }: CallContext): Promise<X509SVID> {
    const { spkiDer } = parseCsr(csr ?? Buffer.alloc(0));
    this.heard.push({ method, key: spkiDer, caller: peer.kind === 'tls' ? peer.id : undefined });
    this.onHeard();
    const refusal = this.refusals.get(method);
    if (refusal) throw refusal;
    return await this.#sign(this.agentId, csr ?? Buffer.alloc(0));
  }

  async *#sync(requests: AsyncIterable<unknown>): AsyncGenerator<SyncAuthorizedEntriesResponse, void, void> {
    for await (const _ of requests) {
      yield { entryRevisions: [], entries: [...this.entries], more: false };
      return;
    }
  }

  async #sign(id: SpiffeId, csr: Buffer): Promise<X509SVID> {
    const now = this.#clock.now() + this.aheadMs;
    const chain = await this.#home.chain(id, csr, { notBeforeMs: now - BACKDATE_MS, notAfterMs: now + this.lifetimeMs });
    return {
      id: { trustDomain: trustDomain.name, path: id.path },
      certChain: chain.map(({ raw }) => raw),
      expiresAt: Math.floor((chain[0]?.notAfterMs ?? 0) / 1000),
      hint: '',
    };
  }
}

/** How a server refuses an agent that is not what it was. */
export function refused(reason: PermissionDeniedDetails_Reason): CoreError {
  return fail('DENIED', 'refused', {
    details: [
      {
        typeUrl: 'type.googleapis.com/spire.api.types.PermissionDeniedDetails',
        value: PermissionDeniedDetails.encode({ reason }).finish(),
      },
    ],
  });
}
