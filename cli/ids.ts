/** SPIFFE IDs and selectors as they are typed, and as the wire has them. */
import { formatDuration } from '../core/duration.ts';
import { fail } from '../core/errors.ts';
import { IdError, SpiffeId, TrustDomain } from '../spiffe/id.ts';
import type { Id } from './print.ts';

/** Throws ID_INVALID. */
export function parseId(typed: string): Id {
  const id = readId(typed);
  return { trustDomain: id.trustDomain.name, path: id.path };
}

/** The same. Says why it is none and not what was typed, as SPIRE does. */
export function readId(typed: string): SpiffeId {
  return bare(() => SpiffeId.parse(typed));
}

function bare<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof IdError) throw fail('ID_INVALID', error.why, { cause: error });
    throw error;
  }
}

/** A trust domain by its name or SPIFFE ID; why it is none as above. Throws ID_INVALID. */
export function readTrustDomain(typed: string): TrustDomain {
  return bare(() => TrustDomain.parseNameOrId(typed));
}

/** `type:value`; everything after the first colon is the value. Throws REQUEST_INVALID. */
export function parseSelector(typed: string): { type: string; value: string } {
  const colon = typed.indexOf(':');
  if (colon < 0) throw fail('REQUEST_INVALID', `selector "${typed}" must be formatted as type:value`);
  return { type: typed.slice(0, colon), value: typed.slice(colon + 1) };
}

/** Seconds for the wire, rounded up, as SPIRE does. Throws REQUEST_INVALID when they don't fit. */
export function toSeconds(ms: number, what: string): number {
  const seconds = Math.ceil(ms / 1000);
  // SPIRE has the seconds in a type that counts nanoseconds
  return checkInt32(seconds, what, `time.Duration(${formatDuration(seconds / 1e6)})`);
}

/** @param typed the value, as Go names it. Throws REQUEST_INVALID when it needs more than 32 bits. */
export function checkInt32(value: number, what: string, typed = `int(${value})`): number {
  if (value === (value | 0)) return value;
  throw fail('REQUEST_INVALID', `invalid value for ${what}: overflow converting ${typed} to int32`);
}
