/** How a request is refused: a status and constant words for the caller, the whole story for the log. */
import { SpiffeError } from '../errors.ts';
import type { SpiffeId } from '../id.ts';
import type { Logger } from '../logger.ts';

/** 401: nobody has proven to be anybody. 403: somebody has, and may not. 503: it could not be found out, which is never a pass. */
export type RefusalStatus = 401 | 403 | 503;

export interface Refusal {
  readonly status: RefusalStatus;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** For the log only. */
  readonly error: unknown;
  readonly id: SpiffeId | undefined;
}

const BODIES: Readonly<Record<RefusalStatus, string>> = {
  401: '{"error":"unauthenticated"}',
  403: '{"error":"forbidden"}',
  503: '{"error":"unavailable"}',
};

/** @param challenge for 401, which must have one (RFC 9110 §15.5.2). */
export function refusal(
  status: RefusalStatus,
  error: unknown,
  more: { readonly challenge?: string; readonly id?: SpiffeId } = {},
): Refusal {
  const body = BODIES[status];
  return {
    status,
    headers: {
      ...(more.challenge !== undefined && { 'www-authenticate': more.challenge }),
      'cache-control': 'no-store',
      'content-type': 'application/json',
      'content-length': String(body.length),
    },
    body,
    error,
    id: more.id,
  };
}

/** One line. A log that throws changes nothing: the request stays refused, and the refusal is sent. */
export function report(log: Logger | undefined, via: string, { status, error, id }: Refusal, peerAddress: string | undefined): void {
  const { code, reason } = error instanceof SpiffeError ? error : { code: undefined, reason: undefined };
  const fields = {
    status,
    via,
    ...(code !== undefined && { code }),
    ...(reason !== undefined && { reason }),
    ...(id && { spiffe_id: String(id) }),
    ...(peerAddress !== undefined && { peer_address: peerAddress }),
    // what is not ours comes whole: it is a fault that a person must find
    error: error instanceof SpiffeError ? error.message : error,
  };
  try {
    const said: unknown = status === 503 ? log?.error('request could not be judged', fields) : log?.warn('request refused', fields);
    if (said instanceof Promise) said.catch(() => {});
  } catch {
    // nowhere left to tell it
  }
}
