/** The outcome of one item of a batch call, and errors in SPIRE's shape: what was tried, then why it failed. */
import { type CoreCode, type CoreError, fail } from '../../core/errors.ts';
import { STATUS } from '../../core/rpc.ts';
import type { Status } from '../../proto/gen/spire/api/types/status.ts';
import { SpiffeError } from '../../spiffe/errors.ts';
import { IdError } from '../../spiffe/id.ts';

/** SPIRE's word for an item that went well. */
export const OK: Status = { code: 0, message: 'OK' };

export function itemStatus(code: CoreCode, message: string): Status {
  return { code: STATUS[code], message };
}

/** `what: why`. What is not an error of ours stays inside: its text may hold what callers must not see. */
export function itemFailure(what: string, error: unknown): Status {
  const { code, message } = failure(what, error);
  return itemStatus(code, message);
}

/** The same, to throw. Of NOT_FOUND nothing but `what` is said, as SPIRE does. */
export function failure(what: string, error: unknown, code?: CoreCode): CoreError {
  if (!(error instanceof SpiffeError)) return fail('INTERNAL', what, { cause: error });
  const told = code ?? (error as CoreError).code;
  return fail(told, told === 'NOT_FOUND' ? what : `${what}: ${error instanceof IdError ? error.why : error.message}`, { cause: error });
}

/** What a caller sent, read; why it can't be is his fault, told after `what`. Throws REQUEST_INVALID. */
export function within<T>(what: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw failure(what, error, 'REQUEST_INVALID');
  }
}
