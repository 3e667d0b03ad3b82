/** What becomes of a request: its caller may pass, or it is refused with 401, 403 or 503. The same whatever carries the request. */
import { type Code, SpiffeError } from '../errors.ts';
import { type Matcher, requireMatch } from '../match.ts';
import type { SpiffeCaller } from './caller.ts';
import { type Refusal, refusal } from './refusal.ts';

export type Verdict<C> = { readonly caller: C; readonly refusal?: undefined } | { readonly refusal: Refusal; readonly caller?: undefined };

/** What is the caller's fault. Anything else is ours: 503. */
const UNPROVEN: ReadonlySet<string> = new Set<Code>([
  'SVID_INVALID',
  'SVID_EXPIRED',
  'SVID_UNTRUSTED',
  'BUNDLE_MISSING',
  'UNAUTHENTICATED',
]);

/** Of a request whose caller could not be told. @param challenge what a caller that has proven nothing is asked for. */
export function unproven<C>(error: unknown, challenge: (error: SpiffeError) => string): Verdict<C> {
  return error instanceof SpiffeError && UNPROVEN.has(error.code)
    ? { refusal: refusal(401, error, { challenge: challenge(error) }) }
    : { refusal: refusal(503, error) };
}

/** Of a request whose caller has proven who it is. */
export function proven<C extends SpiffeCaller>(caller: C, authorize: Matcher): Verdict<C> {
  try {
    requireMatch(authorize, caller.id);
  } catch (error) {
    return { refusal: refusal(403, error, { id: caller.id }) };
  }
  return { caller };
}
