/** The server as its agent sees it: one mutually verified connection, and our own types past this door. */
import { type X509BundleSource } from '../spiffe/x509/x509-bundle.ts';
import { fail, isCoded } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { AgentNodeAttestor } from '../core/plugin/node-attestor.ts';
import { statusName } from '../core/rpc.ts';
import type { Any } from '../proto/gen/google/protobuf/any.ts';
import { AgentDefinition, type AttestAgentRequest } from '../proto/gen/spire/api/server/agent/v1/agent.ts';
import { BundleDefinition } from '../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import { EntryDefinition, type SyncAuthorizedEntriesRequest } from '../proto/gen/spire/api/server/entry/v1/entry.ts';
import { SVIDDefinition } from '../proto/gen/spire/api/server/svid/v1/svid.ts';
import type { Bundle as WireBundle } from '../proto/gen/spire/api/types/bundle.ts';
import type { Entry as WireEntry, EntryMask } from '../proto/gen/spire/api/types/entry.ts';
import type { SPIFFEID } from '../proto/gen/spire/api/types/spiffeid.ts';
import { PermissionDeniedDetails, PermissionDeniedDetails_Reason as Reason } from '../proto/gen/spire/api/types/status.ts';
import { type FollowRequest, PushDefinition } from '../proto/gen/warifu/api/server/push/v1/push.ts';
import { Bundle, jwtAuthority } from '../spiffe/bundle/bundle.ts';
import { Certificate } from '../spiffe/x509/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';
import { openChannel, tlsCredentials } from '../spiffe/rpc/channel.ts';
import { rpcStatusOf } from '../spiffe/rpc/calls.ts';
import { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { sameAuthority } from '../spiffe/x509/path.ts';
import { connectTls, insecureConnectTls } from '../spiffe/tls/tls.ts';
import type { X509Svid } from '../spiffe/x509/x509-svid.ts';
import type { Registration } from './cache.ts';
import type { IssuedJwt } from './jwt-cache.ts';
import { Outbox } from './outbox.ts';
import type { Signed } from './svids.ts';

export interface ServerConnectionOptions {
  readonly address: string;
  readonly port: number;
  readonly trustDomain: TrustDomain;
  /** What we show; undefined before we have one. */
  readonly svid: X509Svid | undefined;
  /** By which the server is judged; undefined (`insecure_bootstrap`): whoever says to be the server is believed, once. */
  readonly bundles: (() => X509BundleSource) | undefined;
  /** Told on an earlier connection: the server's own certificate must have been issued by one of them. Empty: not told yet. */
  readonly issuers: () => readonly Certificate[];
  readonly clock: Clock;
  readonly log: Log;
  /** Told why each handshake failed: gRPC only says that there is no connection. */
  readonly onRefused: (error: unknown) => void;
}

/** What the server pushes, in its order. */
export type PushStep =
  | { readonly kind: 'same' }
  | { readonly kind: 'versions'; readonly versions: readonly { readonly id: string; readonly version: Buffer }[]; readonly more: boolean }
  | { readonly kind: 'changes'; readonly upserts: readonly Registration[]; readonly removed: readonly string[] }
  | { readonly kind: 'bundles'; readonly bundles: readonly Bundle[]; readonly removed: readonly string[]; readonly complete: boolean }
  | { readonly kind: 'issuers'; readonly issuers: readonly Certificate[] };

export interface PushStream {
  readonly steps: AsyncIterable<PushStep>;
  /** Asks for bodies. */
  want(ids: readonly string[]): void;
}

/** Why the server refuses an agent, by the details of its answer. */
export type Standing = 'banned' | 'attest-again';

const CALL_MS = 30_000;
/** Silence after which the kernel asks whether the server is there; it gives up after ten more seconds. */
const KEEPALIVE_MS = 20_000;
/** Of one message: 5,000 entries or a bundle with many roots. */
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

const ENTRY_MASK: EntryMask = {
  spiffeId: true,
  parentId: false,
  selectors: true,
  x509SvidTtl: false,
  federatesWith: true,
  admin: false,
  downstream: false,
  expiresAt: false,
  dnsNames: false,
  revisionNumber: true,
  storeSvid: true,
  jwtSvidTtl: false,
  hint: true,
  createdAt: true,
  additionalAttributes: true,
};

/** Who opens it closes it. Every call throws a SpiffeError; see `standingOf` for refusals that end the agent's life as it was. */
export class ServerConnection {
  readonly #options: ServerConnectionOptions;
  readonly #channel;
  /** Of the newest verified connection. */
  #serverChain: readonly Certificate[] = [];

  constructor(options: ServerConnectionOptions) {
    this.#options = options;
    const { address, port, trustDomain, svid, bundles, clock } = options;
    const expected = SpiffeId.of(trustDomain, '/spire/server');
    const credentials = tlsCredentials(async (socket) => {
      socket.setKeepAlive(true, KEEPALIVE_MS);
      try {
        if (!bundles) return await insecureConnectTls(socket, { expected, svid, alpn: ['h2'] });
        return await connectTls(socket, {
          svid,
          bundles: bundles(),
          clock,
          alpn: ['h2'],
          path: () => {
            const through = options.issuers();
            return through.length > 0 ? { through } : {};
          },
          authorize: (id, { chain }) => {
            if (!id.equals(expected))
              throw fail(
                'SVID_UNTRUSTED',
                `expected server SPIFFE ID ${JSON.stringify(String(expected))}; got ${JSON.stringify(String(id))}`,
              );
            this.#serverChain = chain;
          },
        });
      } catch (error) {
        options.onRefused(error);
        throw error;
      }
    });
    this.#channel = openChannel({
      target: `dns:///${address.includes(':') && !address.startsWith('[') ? `[${address}]` : address}:${port}`,
      credentials,
      options: {
        'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
        'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
        // a server that vanished without a word while the push stream is open is noticed by the kernel (below); one that hangs, by this
        'grpc.keepalive_time_ms': 120_000,
        'grpc.keepalive_timeout_ms': 20_000,
        'grpc.initial_reconnect_backoff_ms': 200,
        'grpc.min_reconnect_backoff_ms': 200,
        'grpc.max_reconnect_backoff_ms': 10_000,
      },
    });
  }

  /** The dialogue of node attestation. DENIED and REQUEST_INVALID carry the server's words. */
  async attest(
    type: string,
    attestor: AgentNodeAttestor,
    csr: Buffer,
    signal: AbortSignal,
  ): Promise<{ chain: readonly Certificate[]; reattestable: boolean }> {
    const outbox = new Outbox<AttestAgentRequest>();
    const payload = await attestor.payload(signal);
    outbox.put({ step: { $case: 'params', params: { data: { type, payload }, params: { csr } } } });
    for await (const { step } of this.#channel.service(AgentDefinition).attestAgent(outbox, { signal, deadlineMs: CALL_MS })) {
      if (step?.$case === 'result') {
        if (!step.result.svid) throw fail('UNAVAILABLE', 'attest response is missing SVID');
        return { chain: chainOf(step.result.svid.certChain), reattestable: step.result.reattestable };
      }
      if (step?.$case !== 'challenge') throw fail('UNAVAILABLE', 'attest response is neither result nor challenge');
      outbox.put({ step: { $case: 'challengeResponse', challengeResponse: await attestor.answer(step.challenge, signal) } });
    }
    throw fail('UNAVAILABLE', 'the server ended the attestation without a result');
  }

  async renew(csr: Buffer, signal: AbortSignal): Promise<readonly Certificate[]> {
    const { svid } = await this.#channel.service(AgentDefinition).renewAgent({ params: { csr } }, { signal, deadlineMs: CALL_MS });
    if (!svid) throw fail('UNAVAILABLE', 'renew agent response missing SVID');
    return chainOf(svid.certChain);
  }

  async postStatus(agentVersion: string, signal: AbortSignal): Promise<void> {
    await this.#channel.service(AgentDefinition).postStatus({ agentVersion, currentBundleSerial: 0 }, { signal, deadlineMs: CALL_MS });
  }

  /** Of the own trust domain; needs no SVID. */
  async ownBundle(signal: AbortSignal): Promise<Bundle> {
    const bundle = await this.#channel.service(BundleDefinition).getBundle({ outputMask: undefined }, { signal, deadlineMs: CALL_MS });
    return readOwn(bundle, this.#options.trustDomain);
  }

  /** Undefined when the server has none. */
  async federatedBundle(trustDomain: TrustDomain, signal: AbortSignal): Promise<Bundle | undefined> {
    try {
      const request = { trustDomain: trustDomain.name, outputMask: undefined };
      const answer = await this.#channel.service(BundleDefinition).getFederatedBundle(request, { signal, deadlineMs: CALL_MS });
      const bundle = readBundle(answer);
      if (!bundle.trustDomain.equals(trustDomain))
        throw fail('UNAVAILABLE', `asked for the bundle of ${trustDomain}, got that of ${bundle.trustDomain}`);
      return bundle;
    } catch (error) {
      if (isCoded(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
  }

  /** SPIRE's whole list at once. */
  async authorizedEntries(signal: AbortSignal): Promise<readonly Registration[]> {
    const { entries } = await this.#channel
      .service(EntryDefinition)
      .getAuthorizedEntries({ outputMask: ENTRY_MASK }, { signal, deadlineMs: CALL_MS });
    return this.#readEntries(entries);
  }

  /** SPIRE's delta protocol: gives what is new or other than `known` says, and what is gone. */
  async syncEntries(
    known: (id: string) => Registration | undefined,
    ids: Iterable<string>,
    signal: AbortSignal,
  ): Promise<{ upserts: readonly Registration[]; removed: readonly string[] }> {
    const outbox = new Outbox<SyncAuthorizedEntriesRequest>();
    const gone = new Set(ids);
    const upserts: Registration[] = [];
    const missing: string[] = [];
    const keep = (entries: readonly WireEntry[]) => {
      for (const entry of this.#readEntries(entries)) {
        gone.delete(entry.id);
        upserts.push(entry);
      }
    };
    let page = 0;
    let phase: 'revisions' | 'bodies' = 'revisions';
    const ask = () => outbox.put({ outputMask: undefined, ids: missing.splice(0, page) });
    outbox.put({ outputMask: ENTRY_MASK, ids: [] });
    for await (const { entryRevisions, entries, more } of this.#channel
      .service(EntryDefinition)
      .syncAuthorizedEntries(outbox, { signal, deadlineMs: CALL_MS })) {
      if (phase === 'revisions') {
        if (entryRevisions.length === 0 && page === 0) {
          keep(entries);
          return { upserts, removed: [...gone] };
        }
        if (entries.length > 0) throw fail('UNAVAILABLE', 'unexpected entry in response receiving entry revisions');
        page ||= entryRevisions.length;
        for (const { id, revisionNumber, createdAt } of entryRevisions) {
          gone.delete(id);
          const have = known(id);
          if (!have || have.revision !== revisionNumber || (createdAt !== 0 && have.createdAtMs !== createdAt * 1000)) missing.push(id);
        }
        if (more) continue;
        phase = 'bodies';
        missing.sort();
      } else {
        if (entryRevisions.length > 0) throw fail('UNAVAILABLE', 'unexpected entry revisions in response while requesting entries');
        keep(entries);
        if (more) continue;
      }
      if (missing.length === 0) return { upserts, removed: [...gone] };
      ask();
    }
    throw fail('UNAVAILABLE', 'the server ended the sync before it was complete');
  }

  /** At most 500 requests. In their order. */
  async signX509(requests: readonly { readonly entryId: string; readonly csr: Buffer }[], signal: AbortSignal): Promise<readonly Signed[]> {
    const { results } = await this.#channel
      .service(SVIDDefinition)
      .batchNewX509SVID({ params: [...requests] }, { signal, deadlineMs: CALL_MS });
    return results.map(({ status, svid }): Signed => {
      if (status && status.code !== 0)
        return { error: fail('UNAVAILABLE', `rpc error: code = ${statusName(status.code)} desc = ${status.message}`) };
      try {
        return { chain: chainOf(svid?.certChain ?? []) };
      } catch (error) {
        return { error: error as Error };
      }
    });
  }

  async signJwt(entryId: string, audience: readonly string[], signal: AbortSignal): Promise<IssuedJwt> {
    const { svid } = await this.#channel
      .service(SVIDDefinition)
      .newJWTSVID({ entryId, audience: [...audience] }, { signal, deadlineMs: CALL_MS });
    if (!svid || svid.token === '' || svid.expiresAt <= 0) throw fail('UNAVAILABLE', 'JWTSVID response missing SVID');
    return { token: svid.token, issuedAtMs: svid.issuedAt * 1000, expiresAtMs: svid.expiresAt * 1000 };
  }

  /** Throws UNIMPLEMENTED where the server does not have it. */
  follow(digest: Buffer, signal: AbortSignal): PushStream {
    const outbox = new Outbox<FollowRequest>();
    outbox.put({ step: { $case: 'hello', hello: { digest } } });
    return { steps: this.#steps(outbox, signal), want: (ids) => outbox.put({ step: { $case: 'want', want: { ids: [...ids] } } }) };
  }

  async *#steps(outbox: Outbox<FollowRequest>, signal: AbortSignal): AsyncGenerator<PushStep, void, void> {
    for await (const { step } of this.#channel.service(PushDefinition).follow(outbox, { signal })) {
      switch (step?.$case) {
        case 'same':
          yield { kind: 'same' };
          break;
        case 'versions':
          yield { kind: 'versions', versions: step.versions.versions, more: step.versions.more };
          break;
        case 'changes':
          yield {
            kind: 'changes',
            upserts: step.changes.upserts.flatMap(({ entry, version }) => (entry ? this.#readEntries([entry], version) : [])),
            removed: step.changes.removedIds,
          };
          break;
        case 'bundles': {
          const { bundles, removedTrustDomains, complete } = step.bundles;
          yield { kind: 'bundles', bundles: bundles.map(readBundle), removed: removedTrustDomains, complete };
          break;
        }
        case 'issuers':
          yield { kind: 'issuers', issuers: this.#readIssuers(step.issuers.certificates) };
          break;
        case undefined:
          // a later server may say more: what we do not know changes nothing that we have
          break;
      }
    }
  }

  close(): void {
    this.#channel.close();
  }

  /** A set that would lock out the very server that sent it is a mistake, and not kept. */
  #readIssuers(ders: readonly Buffer[]): readonly Certificate[] {
    const issuers = ders.map((der) => Certificate.parse(der));
    if (!this.#serverChain.slice(1).some((one) => issuers.some((issuer) => sameAuthority(issuer, one))))
      throw fail('UNAVAILABLE', 'the server named issuing authorities of which none issued its own certificate');
    return issuers;
  }

  /** A malformed entry is left out, and said: the others must not go stale with it. */
  #readEntries(entries: readonly WireEntry[], version: Buffer = EMPTY): Registration[] {
    return entries.flatMap((entry) => {
      try {
        return [readEntry(entry, version)];
      } catch (error) {
        this.#options.log.warn('Received malformed entry from the server; are its version and ours compatible?', {
          entry_id: entry.id,
          error,
        });
        return [];
      }
    });
  }
}

const EMPTY = Buffer.alloc(0);

/** What a PERMISSION_DENIED of the server means for the agent; undefined: nothing, or no such answer. */
export function standingOf(error: unknown): Standing | undefined {
  for (const { typeUrl, value } of rpcStatusOf(error)?.details ?? ([] as Any[])) {
    if (!typeUrl.endsWith('/spire.api.types.PermissionDeniedDetails')) continue;
    switch (PermissionDeniedDetails.decode(value).reason) {
      case Reason.AGENT_BANNED:
        return 'banned';
      case Reason.AGENT_EXPIRED:
      case Reason.AGENT_NOT_ATTESTED:
      case Reason.AGENT_NOT_ACTIVE:
      case Reason.AGENT_MUST_REATTEST:
        return 'attest-again';
      case Reason.UNKNOWN:
      default:
        return undefined;
    }
  }
  return undefined;
}

/** An error of a call in the words of gRPC's Go library, which SPIRE's clients know. */
export function rpcErrorText(error: unknown): string {
  const status = rpcStatusOf(error);
  return status
    ? `rpc error: code = ${statusName(status.code)} desc = ${status.text}`
    : error instanceof Error
      ? error.message
      : String(error);
}

function chainOf(certChain: readonly Buffer[]): readonly Certificate[] {
  if (certChain.length === 0) throw fail('SVID_INVALID', 'empty SVID cert chain');
  return certChain.map((der) => Certificate.parse(der));
}

function idOf(id: SPIFFEID | undefined): SpiffeId {
  if (!id) throw fail('ID_INVALID', 'an entry without a SPIFFE ID');
  return SpiffeId.of(TrustDomain.parse(id.trustDomain), id.path);
}

function readEntry(entry: WireEntry, version: Buffer): Registration {
  if (entry.id === '') throw fail('REQUEST_INVALID', 'malformed entry from the server: missing entry ID');
  if (entry.selectors.length === 0) throw fail('REQUEST_INVALID', `malformed entry ${entry.id} from the server: missing selectors`);
  return {
    id: entry.id,
    spiffeId: idOf(entry.spiffeId),
    selectors: entry.selectors.map(({ type, value }) => ({ type, value })),
    federatesWith: entry.federatesWith.map((name) => TrustDomain.parseNameOrId(name)),
    hint: entry.hint,
    revision: entry.revisionNumber,
    createdAtMs: entry.createdAt * 1000,
    storeSvid: entry.storeSvid,
    prefetch: !(entry.additionalAttributes?.disableX509SvidPrefetch ?? false),
    jwtSvidIncludeJti: entry.additionalAttributes?.jwtSvidIncludeJti ?? false,
    version: Buffer.from(version),
  };
}

function readBundle(bundle: WireBundle): Bundle {
  return new Bundle(TrustDomain.parseNameOrId(bundle.trustDomain), {
    x509Authorities: bundle.x509Authorities.map(({ asn1 }) => Certificate.parse(asn1)),
    jwtAuthorities: bundle.jwtAuthorities.map(({ keyId, publicKey }) => jwtAuthority(keyId, publicKey)),
    sequence: bundle.sequenceNumber,
    refreshHintSeconds: bundle.refreshHint,
  });
}

function readOwn(bundle: WireBundle, trustDomain: TrustDomain): Bundle {
  const own = readBundle(bundle);
  if (!own.trustDomain.equals(trustDomain))
    throw fail('BUNDLE_INVALID', `the server sent the bundle of ${own.trustDomain}, not of ${trustDomain}`);
  if (own.x509.isEmpty) throw fail('BUNDLE_INVALID', 'the server sent a bundle without an X.509 authority');
  return own;
}
