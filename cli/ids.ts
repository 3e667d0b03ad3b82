/** SPIFFE IDs and selectors as they are typed, and as the wire has them. */
import { fail } from '../core/errors.ts';
import { SpiffeId } from '../spiffe/id.ts';
import type { Id } from './print.ts';

/** Throws ID_INVALID. */
export function parseId(typed: string): Id {
  const id = SpiffeId.parse(typed);
  return { trustDomain: id.trustDomain.name, path: id.path };
}

/** `type:value`; everything after the first colon is the value. Throws REQUEST_INVALID. */
export function parseSelector(typed: string): { type: string; value: string } {
  const colon = typed.indexOf(':');
  if (colon < 0) throw fail('REQUEST_INVALID', `selector "${typed}" must be formatted as type:value`);
  return { type: typed.slice(0, colon), value: typed.slice(colon + 1) };
}

/** Seconds for the wire, rounded up, as SPIRE does. Throws REQUEST_INVALID when they don't fit. */
export function toSeconds(ms: number, what: string): number {
  return checkInt32(Math.ceil(ms / 1000), what);
}

export function checkInt32(value: number, what: string): number {
  if (value === (value | 0)) return value;
  throw fail('REQUEST_INVALID', `invalid value for ${what}: ${value} is too large`);
}
