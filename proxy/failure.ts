/** From what was thrown to the one word for it. */
import { SpiffeError } from '../spiffe/errors.ts';
import type { Reason } from './reasons.ts';

/** Why a TLS connection was refused at our server's side. */
export function reasonOfClient(error: unknown): Reason {
  if (error instanceof SpiffeError) {
    if (error.code === 'DENIED') return forbidden(error) ? 'POLICY_DENIED' : 'NO_IDENTITY';
    // of our own SVID: a peer's certificate that has expired is SVID_UNTRUSTED or SVID_INVALID too, and has a reason
    if (OWN.has(error.code)) return 'NO_IDENTITY';
    return 'CERTIFICATE_REFUSED';
  }
  return codeOf(error) === 'ERR_TLS_HANDSHAKE_TIMEOUT' ? 'TLS_TIMEOUT' : 'TLS_HANDSHAKE';
}

/** Why dialling a server came to nothing. */
export function reasonOfServer(error: unknown, phase: 'connect' | 'tls'): Reason {
  if (error instanceof SpiffeError && error.reason !== undefined)
    return error.code === 'DENIED' && !forbidden(error) ? 'NO_IDENTITY' : 'UPSTREAM_REFUSED';
  if (error instanceof SpiffeError && OWN.has(error.code))
    return phase === 'tls' && error.code === 'UNAVAILABLE' ? 'UPSTREAM_TLS' : 'NO_IDENTITY';
  return phase === 'connect' ? 'UPSTREAM_CONNECT' : 'UPSTREAM_TLS';
}

/** Why a connection that was good is ended. */
export function reasonOfEnd(error: unknown): Reason {
  if (!(error instanceof SpiffeError)) return 'TRUST_REMOVED';
  if (error.code === 'DENIED') return forbidden(error) ? 'POLICY_CHANGED' : 'IDENTITY_TAKEN_BACK';
  return 'TRUST_REMOVED';
}

/** Without a peer to blame: there is no SVID of ours. */
const OWN: ReadonlySet<string> = new Set(['UNAVAILABLE', 'NOT_FOUND', 'CLOSED']);

/** By a rule, where DENIED may also be the agent's word about our own identity. */
function forbidden({ reason }: SpiffeError): boolean {
  return reason === 'ID_NOT_ALLOWED' || reason === 'INTENTION_DENIED' || reason === 'ID_NOT_MEMBER';
}

function codeOf(error: unknown): unknown {
  return (error as { readonly code?: unknown } | null | undefined)?.code;
}
