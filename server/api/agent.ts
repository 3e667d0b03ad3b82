/** spire.api.server.agent.v1: nodes become agents, renew themselves, and are listed, banned and evicted by operators. */
import { randomUUID } from 'node:crypto';
import type { Entry } from '../../core/entry.ts';
import { fail } from '../../core/errors.ts';
import type { Log } from '../../core/log.ts';
import { agentIdOf, idToMessage, workloadIdOf } from '../../core/message-id.ts';
import type { CallContext, Implementation } from '../../core/rpc-types.ts';
import type {
  AgentDefinition,
  AttestAgentRequest,
  AttestAgentResponse,
  ListAgentsRequest_Filter,
} from '../../proto/gen/spire/api/server/agent/v1/agent.ts';
import type { AgentMask, Agent as AgentMessage } from '../../proto/gen/spire/api/types/agent.ts';
import { PermissionDeniedDetails, PermissionDeniedDetails_Reason } from '../../proto/gen/spire/api/types/status.ts';
import type { Clock } from '../../spiffe/clock.ts';
import { SpiffeId, type TrustDomain } from '../../spiffe/id.ts';
import { type AttestationParts, agentCertificate, attestNode, JOIN_TOKEN, type Proof, readAgentCsr } from '../attestation.ts';
import type { Authority } from '../authority.ts';
import type { State } from '../state.ts';
import type { Node, Store } from '../store/store.ts';
import type { Callers } from './caller.ts';
import { failure, within } from './item-status.ts';
import { selectorFilter } from './selector-match.ts';
import { x509SvidToWire } from './svid.ts';

export interface AgentApiParts {
  readonly store: Store;
  readonly state: State;
  readonly authority: Authority;
  readonly callers: Callers;
  readonly attestation: AttestationParts;
  readonly trustDomain: TrustDomain;
  readonly clock: Clock;
  readonly log: Log;
}

const MAX_VERSION_LENGTH = 255;
const MAX_TOKEN_LENGTH = 255;

export function createAgentApi(parts: AgentApiParts): Implementation<typeof AgentDefinition> {
  const { store, state, authority, callers, attestation, trustDomain, clock, log } = parts;

  /** Those that pass, in the order of their ids. */
  const filtered = (filter: ListAgentsRequest_Filter | undefined): readonly Node[] => {
    const passes = nodeFilter(filter);
    return [...state.nodes()].filter(passes).sort((a, b) => (a.id < b.id ? -1 : 1));
  };
  const stored = async (id: string, change: (node: Node) => Node, failed: string): Promise<Node> => {
    try {
      const { node, seq } = await store.nodes.update(id, change);
      await state.settled(seq);
      return node;
    } catch (error) {
      throw failure(notFound(error) ?? failed, error);
    }
  };

  return {
    async countAgents({ filter }) {
      return { count: filtered(filter).length };
    },

    /** As in SPIRE, each page that is not empty carries a token; no page size: everything. */
    async listAgents({ filter, outputMask, pageSize, pageToken }) {
      const nodes = filtered(filter);
      if (pageSize <= 0) return { agents: nodes.map((node) => toMessage(node, outputMask)), nextPageToken: '' };
      const after = pageToken === '' ? '' : readPageToken(pageToken);
      const page = nodes.filter(({ id }) => id > after).slice(0, pageSize);
      const last = page.at(-1);
      return {
        agents: page.map((node) => toMessage(node, outputMask)),
        nextPageToken: last ? Buffer.from(last.id).toString('base64url') : '',
      };
    },

    async getAgent({ id, outputMask }) {
      const node = state.node(String(within('invalid agent ID', () => agentIdOf(id, trustDomain))));
      if (!node) throw fail('NOT_FOUND', 'agent not found');
      return toMessage(node, outputMask);
    },

    async deleteAgent({ id }) {
      const agentId = String(within('invalid agent ID', () => agentIdOf(id, trustDomain)));
      try {
        const { seq } = await store.nodes.delete(agentId);
        await state.settled(seq);
      } catch (error) {
        throw failure(notFound(error) ?? 'failed to remove agent', error);
      }
      log.info('Agent deleted', { spiffe_id: agentId });
      return {};
    },

    async banAgent({ id }) {
      const agentId = String(within('invalid agent ID', () => agentIdOf(id, trustDomain)));
      await stored(agentId, banned, 'failed to ban agent');
      log.info('Agent banned', { spiffe_id: agentId });
      return {};
    },

    async *attestAgent(requests, context) {
      const incoming = requests[Symbol.asyncIterator]();
      const first = await incoming.next();
      if (first.done) throw fail('REQUEST_INVALID', 'failed to receive request from stream: the stream ended');
      const proof = proofOf(first.value, context);
      yield* dialogue(incoming, (challenge) => attestNode(attestation, proof, challenge, context.signal));
    },

    async renewAgent({ params }, context) {
      const { id, canReattest } = await callers.agent(context);
      if (canReattest) {
        throw fail('DENIED', 'agent must reattest instead of renew', {
          details: [
            {
              typeUrl: 'type.googleapis.com/spire.api.types.PermissionDeniedDetails',
              value: PermissionDeniedDetails.encode({ reason: PermissionDeniedDetails_Reason.AGENT_MUST_REATTEST }).finish(),
            },
          ],
        });
      }
      if (!params) throw fail('REQUEST_INVALID', 'params cannot be nil');
      if (params.csr.length === 0) throw fail('REQUEST_INVALID', 'missing CSR');
      const agentId = SpiffeId.parse(id);
      const csr = readAgentCsr(params.csr);
      log.info('Renewing agent SVID', { spiffe_id: id });
      const svid = await authority.signAgentSvid(agentId, csr.spkiDer);
      await stored(
        id,
        (node) => {
          // banned or replaced while we signed
          if (node.banned || !speaksFor(node, context)) throw fail('DENIED', `authorization denied for method ${context.method}`);
          return { ...node, next: agentCertificate(svid) };
        },
        'failed to update agent',
      );
      return { svid: x509SvidToWire(agentId, svid, '') };
    },

    async postStatus({ agentVersion }, context) {
      const { id, agentVersion: known } = await callers.agent(context);
      if (agentVersion.length > MAX_VERSION_LENGTH) throw fail('REQUEST_INVALID', 'agent version is too long (max 255 characters)');
      if (agentVersion !== '' && agentVersion !== known) await stored(id, (node) => ({ ...node, agentVersion }), 'failed to update agent');
      return {};
    },

    async createJoinToken({ ttl, token, agentId }) {
      if (ttl < 1) throw fail('REQUEST_INVALID', 'ttl is required, you must provide one');
      const alias = agentId && within('invalid agent ID', () => workloadIdOf(agentId, trustDomain));
      const value = token === '' ? randomUUID() : token;
      const parentId = tokenAgentId(value, trustDomain);
      const expiresAtMs = clock.now() + ttl * 1000;
      try {
        const { seq } = await store.tokens.create({ value, expiresAtMs }, alias && aliasEntry(alias, parentId, clock.now()));
        await state.settled(seq);
      } catch (error) {
        throw failure('failed to create token', error);
      }
      return { value, expiresAt: Math.floor(expiresAtMs / 1000) };
    },
  };
}

/** What a join token's agent is called. The token's own words stay out of the refusal: it may be a good one with a slip. */
function tokenAgentId(token: string, trustDomain: TrustDomain): SpiffeId {
  if (token.length <= MAX_TOKEN_LENGTH) {
    try {
      return SpiffeId.fromSegments(trustDomain, 'spire', 'agent', JOIN_TOKEN, token);
    } catch {
      // told below
    }
  }
  throw fail('REQUEST_INVALID', `invalid token: must be 1 to ${MAX_TOKEN_LENGTH} of A-Z a-z 0-9 . _ - and no dots alone`);
}

/** So that entries can name the agent by a name of the operator's choice. SPIRE's shape: the agent's eviction takes it along. */
function aliasEntry(spiffeId: SpiffeId, parentId: SpiffeId, nowMs: number): Entry {
  return {
    id: randomUUID(),
    spiffeId,
    parentId,
    selectors: [{ type: 'spiffe_id', value: String(parentId) }],
    x509SvidTtlMs: 0,
    jwtSvidTtlMs: 0,
    federatesWith: [],
    admin: false,
    downstream: false,
    expiresAtMs: 0,
    dnsNames: [],
    revision: 0,
    storeSvid: false,
    hint: '',
    createdAtMs: nowMs,
    disableX509SvidPrefetch: false,
    jwtSvidIncludeJti: false,
  };
}

function proofOf({ step }: AttestAgentRequest, { peer }: CallContext): Proof {
  const malformed = (why: string) => fail('REQUEST_INVALID', `malformed param: ${why}`);
  if (step?.$case !== 'params') throw malformed('missing params');
  const { data, params } = step.params;
  if (!data) throw malformed('missing attestation data');
  if (!params) throw malformed('missing X509-SVID parameters');
  if (params.csr.length === 0) throw malformed('missing CSR');
  if (data.type === '') throw malformed('missing attestation data type');
  if (data.payload.length === 0) throw malformed('missing attestation data payload');
  return { type: data.type, payload: data.payload, csrDer: params.csr, peerAddress: peer.kind === 'tls' ? peer.address : '' };
}

/** Questions go out while the attestor waits for their answers; then the result. */
async function* dialogue(
  incoming: AsyncIterator<AttestAgentRequest>,
  attest: (challenge: (question: Buffer) => Promise<Buffer>) => ReturnType<typeof attestNode>,
): AsyncGenerator<AttestAgentResponse, void, void> {
  let ask: (question: Buffer) => void = () => {};
  let asked = new Promise<Buffer>((resolve) => {
    ask = resolve;
  });
  const attested = attest((question) => {
    ask(question);
    return answerOf(incoming);
  });
  // read below; while a question is sent nobody waits for it
  attested.catch(() => {});
  for (;;) {
    const next = await Promise.race([asked, attested]);
    if (!Buffer.isBuffer(next)) {
      const { id, svid, canReattest } = next;
      yield { step: { $case: 'result', result: { svid: x509SvidToWire(id, svid, ''), reattestable: canReattest } } };
      return;
    }
    asked = new Promise((resolve) => {
      ask = resolve;
    });
    yield { step: { $case: 'challenge', challenge: next } };
  }
}

async function answerOf(incoming: AsyncIterator<AttestAgentRequest>): Promise<Buffer> {
  const next = await incoming.next();
  if (next.done) throw fail('REQUEST_INVALID', 'failed to receive challenge from agent: the stream ended');
  const { step } = next.value;
  if (step?.$case !== 'challengeResponse') throw fail('REQUEST_INVALID', 'malformed param: an answer to the challenge was expected');
  return step.challengeResponse;
}

function speaksFor(node: Node, { peer }: CallContext): boolean {
  return peer.kind === 'tls' && (node.current?.sha256 === peer.certificateSha256 || node.next?.sha256 === peer.certificateSha256);
}

function notFound(error: unknown): string | undefined {
  return (error as { code?: string }).code === 'NOT_FOUND' ? 'agent not found' : undefined;
}

function nodeFilter(filter: ListAgentsRequest_Filter | undefined): (node: Node) => boolean {
  if (!filter) return () => true;
  const { byAttestationType: type, byBanned, byCanReattest, byExpiresBefore, bySelectorMatch } = filter;
  const before = byExpiresBefore === '' ? undefined : readTime(byExpiresBefore);
  const bySelectors = bySelectorMatch && selectorFilter(bySelectorMatch);
  return (node) =>
    (type === '' || node.attestationType === type) &&
    (byBanned === undefined || node.banned === byBanned) &&
    (byCanReattest === undefined || node.canReattest === byCanReattest) &&
    // who never had a certificate has none that ends
    (before === undefined || (endOf(node) ?? Number.POSITIVE_INFINITY) < before) &&
    (bySelectors === undefined || bySelectors(node.selectors));
}

function endOf({ current, heldUntilMs }: Node): number | undefined {
  return current?.notAfterMs ?? heldUntilMs;
}

/** Its certificates count no more, from now on. When the last of them ends is kept: until then the node can show it to others, and a purge must not free it. */
function banned(node: Node): Node {
  const heldUntilMs = Math.max(node.current?.notAfterMs ?? 0, node.next?.notAfterMs ?? 0, node.heldUntilMs ?? 0);
  return { ...node, banned: true, current: undefined, next: undefined, heldUntilMs };
}

/** `2006-01-02 15:04:05 -0700 -07`, as SPIRE's command line writes it. What can't be read is refused: a purge must not mean everybody. */
function readTime(text: string): number {
  const [, date, time, hours, minutes] = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) ([+-]\d\d)(\d\d) \S+$/.exec(text) ?? [];
  const ms = Date.parse(`${date}T${time}${hours}:${minutes}`);
  if (Number.isNaN(ms))
    throw fail('REQUEST_INVALID', `by_expires_before ${JSON.stringify(text)}: must be like "2006-01-02 15:04:05 -0700 -07"`);
  return ms;
}

function readPageToken(token: string): string {
  const id = Buffer.from(token, 'base64url').toString();
  if (!SpiffeId.is(id)) throw fail('REQUEST_INVALID', `could not parse token '${token.slice(0, 300)}'`);
  return id;
}

function toMessage(node: Node, mask: AgentMask | undefined): AgentMessage {
  const wants = (field: keyof AgentMask) => mask === undefined || mask[field];
  return {
    id: idToMessage(SpiffeId.parse(node.id)),
    attestationType: wants('attestationType') ? node.attestationType : '',
    x509svidSerialNumber: wants('x509svidSerialNumber') ? (node.current?.serial ?? '') : '',
    x509svidExpiresAt: wants('x509svidExpiresAt') ? Math.floor((endOf(node) ?? 0) / 1000) : 0,
    selectors: wants('selectors') ? node.selectors.map(({ type, value }) => ({ type, value })) : [],
    banned: wants('banned') && node.banned,
    canReattest: wants('canReattest') && node.canReattest,
    agentVersion: wants('agentVersion') ? node.agentVersion : '',
  };
}
