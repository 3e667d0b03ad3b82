/** How a node proves what it is: the server's side, and the agent's. */
import type { TrustDomain } from '../../spiffe/id.ts';

export interface NodeAttestor {
  /**
   * Asks the node as often as it needs to through `challenge`, then says who it is.
   * Throws DENIED (the proof is bad), REQUEST_INVALID (the payload is malformed) or UNAVAILABLE. Words go on the wire.
   */
  attest(request: AttestRequest, challenge: (question: Buffer) => Promise<Buffer>, signal: AbortSignal): Promise<NodeAttestation>;
}

export interface AttestRequest {
  readonly trustDomain: TrustDomain;
  readonly payload: Buffer;
  /** SHA-256 of the CSR (DER). */
  readonly csrSha256: Buffer;
  /** SHA-256 of the CSR's SubjectPublicKeyInfo, whose private key the node has shown to hold. */
  readonly publicKeySha256: Buffer;
  /** IP of the connection, without a port. */
  readonly peerAddress: string;
}

export interface NodeAttestation {
  /** Below `/spire/agent/<type>/`; anything else is refused by the caller. */
  readonly agentPath: string;
  /** Values; the type is the attestor's name. */
  readonly selectors: readonly string[];
  readonly canReattest: boolean;
  /** Bytes kept with the agent's row. */
  readonly record?: Buffer;
  /** Ids usable once, committed with the agent's row. */
  readonly spend?: readonly string[];
}

export interface AgentNodeAttestor {
  /** The first message. Read anew at each attestation. */
  payload(signal: AbortSignal): Promise<Buffer>;
  /** Answers one challenge of the server. Throws REQUEST_INVALID when it makes no sense. */
  answer(challenge: Buffer, signal: AbortSignal): Promise<Buffer>;
}
