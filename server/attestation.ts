/** A node becomes an agent: its proof is judged by the attestor of its type, its key gets an SVID, and both are committed at once. */
import { fail, isCoded } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { NodeAttestation, NodeAttestor } from '../core/plugin/node-attestor.ts';
import { checkSelector, selectorSet } from '../core/selector.ts';
import { type Csr, parseCsr } from '../core/x509/csr.ts';
import { createHash } from 'node:crypto';
import type { Clock } from '../spiffe/clock.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import type { Authority, SignedX509Svid } from './authority.ts';
import type { State } from './state.ts';
import type { AgentCertificate, Store } from './store/store.ts';

export interface AttestationParts {
  readonly store: Pick<Store, 'nodes' | 'tokens'>;
  readonly state: State;
  readonly authority: Authority;
  readonly trustDomain: TrustDomain;
  readonly clock: Clock;
  readonly log: Log;
  /** By type. Join tokens need none. */
  readonly attestors: ReadonlyMap<string, NodeAttestor>;
}

export interface Proof {
  readonly type: string;
  readonly payload: Buffer;
  readonly csrDer: Buffer;
  /** IP of the connection; '' for the local socket. */
  readonly peerAddress: string;
}

export interface Attested {
  readonly id: SpiffeId;
  readonly svid: SignedX509Svid;
  readonly canReattest: boolean;
}

export const JOIN_TOKEN = 'join_token';
/** The whole dialogue, whatever the node does. */
const DIALOGUE_MS = 30_000;
const NO_SUCH_TOKEN = 'failed to attest: join token does not exist or has already been used';

/** Throws REQUEST_INVALID, DENIED, FAILED_PRECONDITION (no such attestor), UNAVAILABLE, DEADLINE_EXCEEDED. Nothing is written unless it resolves. */
export async function attestNode(
  parts: AttestationParts,
  proof: Proof,
  challenge: (question: Buffer) => Promise<Buffer>,
  signal: AbortSignal,
): Promise<Attested> {
  const { store, state, authority, clock, log } = parts;
  const csr = readAgentCsr(proof.csrDer);
  const publicKeySha256 = sha256(csr.spkiDer);

  const token = proof.type === JOIN_TOKEN ? proof.payload.toString('utf8') : undefined;
  const attested =
    token === undefined
      ? await bounded(clock, signal, (stop) => judge(parts, proof, { csr, publicKeySha256 }, challenge, stop))
      : await judgeToken(parts, token, publicKeySha256);
  const id = agentId(parts, proof.type, attested.agentPath);
  if (state.node(String(id))?.banned) throw fail('DENIED', 'failed to attest: agent is banned');
  const selectors = selectorSet(attested.selectors.map((value) => ({ type: proof.type, value })));
  for (const selector of selectors) checkSelector(selector);

  const svid = await authority.signAgentSvid(id, csr.spkiDer);
  const now = clock.now();
  const before = state.node(String(id));
  const { seq } = await store.nodes.attest(
    {
      id: String(id),
      attestationType: proof.type,
      current: agentCertificate(svid),
      next: undefined,
      banned: false,
      canReattest: attested.canReattest,
      selectors,
      agentVersion: before?.agentVersion ?? '',
      record: attested.record,
      attestedAtMs: now,
    },
    {
      ...(token !== undefined && { token: { value: token, publicKeySha256, nowMs: now } }),
      ...(attested.spend && { ids: attested.spend }),
    },
  );
  await state.settled(seq);
  log.info('Agent attestation request completed', { agent_id: String(id), address: proof.peerAddress });
  return { id, svid, canReattest: attested.canReattest };
}

/** Of the request only the key goes on, once its owner has shown that he has it. Throws REQUEST_INVALID. */
export function readAgentCsr(der: Buffer): Csr {
  try {
    const csr = parseCsr(der);
    csr.verifySignature();
    return csr;
  } catch (cause) {
    throw fail('REQUEST_INVALID', `failed to parse CSR: ${(cause as Error).message}`, { cause });
  }
}

export function agentCertificate({ certificate }: SignedX509Svid): AgentCertificate {
  return { serial: certificate.serialNumber, notAfterMs: certificate.notAfterMs, sha256: certificate.sha256 };
}

/** Looks before anything is signed; it is spent with the agent's row, where the look is repeated. */
async function judgeToken({ store, clock }: AttestationParts, token: string, publicKeySha256: Buffer): Promise<NodeAttestation> {
  const known = await store.tokens.get(token);
  if (!known || (known.spentBy && !known.spentBy.equals(publicKeySha256))) throw fail('REQUEST_INVALID', NO_SUCH_TOKEN);
  if (known.expiresAtMs <= clock.now()) throw fail('REQUEST_INVALID', 'join token expired');
  return { agentPath: `/spire/agent/${JOIN_TOKEN}/${token}`, selectors: [], canReattest: false };
}

async function judge(
  { attestors, trustDomain, log }: AttestationParts,
  { type, payload, csrDer, peerAddress }: Proof,
  { publicKeySha256 }: { readonly csr: Csr; readonly publicKeySha256: Buffer },
  challenge: (question: Buffer) => Promise<Buffer>,
  signal: AbortSignal,
): Promise<NodeAttestation> {
  const attestor = attestors.get(type);
  if (!attestor)
    throw fail('FAILED_PRECONDITION', `error getting node attestor: could not find node attestor type ${JSON.stringify(type)}`);
  try {
    return await attestor.attest({ trustDomain, payload, csrSha256: sha256(csrDer), publicKeySha256, peerAddress }, challenge, signal);
  } catch (error) {
    signal.throwIfAborted();
    if (isCoded(error)) throw error;
    log.error('Node attestor failed', { plugin: type, address: peerAddress, error });
    throw fail('INTERNAL', `nodeattestor(${type}): internal error`, { cause: error });
  }
}

/** An attestor speaks only for the agents of its own type. */
function agentId({ trustDomain, log }: AttestationParts, type: string, path: string): SpiffeId {
  try {
    const id = SpiffeId.of(trustDomain, path);
    if (id.path.startsWith(`/spire/agent/${type}/`)) return id;
  } catch (error) {
    log.error('The node attestor made an invalid agent ID', { plugin: type, error });
    throw fail('INTERNAL', 'invalid agent ID', { cause: error });
  }
  log.error('The node attestor made an agent ID outside of its namespace', { plugin: type, path });
  throw fail('INTERNAL', `invalid agent ID: ${JSON.stringify(path)} is not in the agent namespace for attestor ${JSON.stringify(type)}`);
}

async function bounded<T>(clock: Clock, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const ended = new AbortController();
  const late = clock.sleep(DIALOGUE_MS, ended.signal, { ref: false }).then(
    () => {
      const error = fail('DEADLINE_EXCEEDED', `attestation took longer than ${DIALOGUE_MS / 1000} s`);
      stop.abort(error);
      throw error;
    },
    () => new Promise<never>(() => {}),
  );
  const gone = new Promise<never>((_, reject) => {
    const leave = () => {
      stop.abort(signal.reason);
      reject(signal.reason);
    };
    if (signal.aborted) leave();
    else signal.addEventListener('abort', leave, { once: true });
  });
  // whichever is first; the other is nobody's
  gone.catch(() => {});
  try {
    return await Promise.race([work(stop.signal), late, gone]);
  } finally {
    ended.abort();
  }
}

function sha256(data: Uint8Array): Buffer {
  return createHash('sha256').update(data).digest();
}
