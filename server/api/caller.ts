/** Who calls, and whether he may: told from the connection and from memory, before any handler runs. */
import { fail, isCoded } from '../../core/errors.ts';
import type { CallContext, Peer } from '../../core/rpc-types.ts';
import { PermissionDeniedDetails, PermissionDeniedDetails_Reason } from '../../proto/gen/spire/api/types/status.ts';
import type { Clock } from '../../spiffe/clock.ts';
import type { SpiffeId } from '../../spiffe/id.ts';
import type { State } from '../state.ts';
import type { Node, Store } from '../store/store.ts';
import { type CallerClass, POLICY } from './policy.ts';

export interface CallersSettings {
  readonly state: State;
  readonly store: Pick<Store, 'nodes'>;
  readonly clock: Clock;
  readonly adminIds: readonly SpiffeId[];
}

/** Judges callers; every question is answered by memory alone. */
export class Callers {
  readonly #settings: CallersSettings;
  readonly #adminIds: ReadonlySet<string>;

  constructor(settings: CallersSettings) {
    this.#settings = settings;
    this.#adminIds = new Set(settings.adminIds.map(String));
  }

  /** Throws DENIED in SPIRE's words, with its details where an agent must know what to do. */
  async check(context: CallContext): Promise<void> {
    const rule = POLICY.get(context.method);
    const { peer } = context;
    if (!rule) throw denied(context.method);
    if (rule.allow.includes('any')) return;
    if (peer.kind === 'process') {
      if (rule.allow.includes('local')) return;
      throw denied(context.method);
    }
    if (!peer.id) throw denied(context.method);
    // a connection outlives its certificate by nothing that is said on it
    const ended = peer.notAfterMs <= this.#settings.clock.now();
    if (ended && !rule.allow.includes('agent')) throw denied(context.method);
    if (!ended && rule.allow.includes('admin') && this.#isAdmin(peer.id)) return;
    if (!ended && rule.allow.includes('downstream') && this.#entries(peer.id).some((entry) => entry.downstream)) return;
    if (rule.allow.includes('agent')) return void (await this.agent(context));
    throw denied(context.method);
  }

  /** Whether a peer of another trust domain may talk to us at all. */
  isForeignAdmin(id: SpiffeId): boolean {
    return this.#adminIds.has(String(id));
  }

  /** Whether there is a method that this peer may call and not everybody: an agent (banned or not), an admin, a downstream server. */
  isKnown(id: SpiffeId): boolean {
    const { state } = this.#settings;
    return state.node(String(id)) !== undefined || this.#isAdmin(id) || this.#entries(id).some((entry) => entry.downstream);
  }

  /** The agent that calls, by its certificate of now or the next one, which it thereby takes into use. Throws DENIED with the reason. */
  async agent({ method, peer }: CallContext): Promise<Node> {
    const { state, store } = this.#settings;
    const { id, sha256, notAfterMs } = known(method, peer);
    this.checkStanding(id, sha256, notAfterMs, method);
    const node = state.node(id);
    if (!node) throw denied(method, PermissionDeniedDetails_Reason.AGENT_NOT_ATTESTED);
    if (node.next?.sha256 !== sha256) return node;
    const promoted = await store.nodes
      .update(id, (stored) => (stored.next?.sha256 === sha256 ? { ...stored, current: stored.next, next: undefined } : stored))
      .catch((error: unknown) => {
        // evicted since the look
        throw isCoded(error, 'NOT_FOUND') ? denied(method, PermissionDeniedDetails_Reason.AGENT_NOT_ATTESTED) : error;
      });
    await state.settled(promoted.seq);
    // banned, or attested anew with another key, since the look
    this.checkStanding(id, sha256, notAfterMs, method);
    return promoted.node;
  }

  /** Asks again, without a write: whether this certificate is still good for this agent. The last look before an answer leaves, and while a stream is open. */
  checkStanding(agentId: string, sha256: string, notAfterMs: number, method: string): void {
    const reason = this.#reasonAgainst(agentId, sha256, notAfterMs);
    if (reason !== undefined) throw denied(method, reason);
  }

  #reasonAgainst(id: string, sha256: string, notAfterMs: number): PermissionDeniedDetails_Reason | undefined {
    const { state, clock } = this.#settings;
    if (notAfterMs <= clock.now()) return PermissionDeniedDetails_Reason.AGENT_EXPIRED;
    const node = state.node(id);
    if (!node) return PermissionDeniedDetails_Reason.AGENT_NOT_ATTESTED;
    if (node.banned) return PermissionDeniedDetails_Reason.AGENT_BANNED;
    // by the whole certificate: a sibling CA can repeat a serial number
    if (node.current?.sha256 !== sha256 && node.next?.sha256 !== sha256) return PermissionDeniedDetails_Reason.AGENT_NOT_ACTIVE;
    return undefined;
  }

  #isAdmin(id: SpiffeId): boolean {
    return this.#adminIds.has(String(id)) || this.#entries(id).some((entry) => entry.admin);
  }

  #entries(id: SpiffeId) {
    const now = this.#settings.clock.now();
    return this.#settings.state.entriesOf(String(id)).filter((entry) => entry.expiresAtMs === 0 || entry.expiresAtMs > now);
  }
}

function known(method: string, peer: Peer): { id: string; sha256: string; notAfterMs: number } {
  if (peer.kind !== 'tls' || !peer.id) throw denied(method);
  return { id: String(peer.id), sha256: peer.certificateSha256, notAfterMs: peer.notAfterMs };
}

/** The classes that a method is open to; for the table of tests and docs. */
export function classesOf(method: string): readonly CallerClass[] {
  return POLICY.get(method)?.allow ?? [];
}

function denied(method: string, reason?: PermissionDeniedDetails_Reason) {
  return fail('DENIED', `authorization denied for method ${method}`, {
    ...(reason !== undefined && {
      details: [
        {
          typeUrl: 'type.googleapis.com/spire.api.types.PermissionDeniedDetails',
          value: PermissionDeniedDetails.encode({ reason }).finish(),
        },
      ],
    }),
  });
}
