/** Who may: a matcher takes a SPIFFE ID that has been verified and refuses it by throwing. */
import { SpiffeError } from './errors.ts';
import { SpiffeId, TrustDomain } from './id.ts';

/**
 * Says whether this identity may. Refuses by throwing (that error is what the log sees) or by giving `false`; allows by giving nothing or `true`.
 * Must not be asynchronous: the answer is needed before the next byte is read. One that gives a promise, or anything else, allows nobody.
 */
export type Matcher = (id: SpiffeId) => boolean | void;

/** Every identity that was verified, of whichever trust domain we have a bundle of. */
export function matchAny(): Matcher {
  return () => {};
}

/** This one and no other. @param id a SPIFFE ID, or its text; throws ID_INVALID at once when it is none. */
export function matchId(id: SpiffeId | string): Matcher {
  const wanted = idOf(id);
  return (seen) => {
    if (!seen.equals(wanted)) throw denied(seen, `wants ${wanted}`);
  };
}

/** One of these; with none given, nobody. Throws ID_INVALID at once for what is no SPIFFE ID. */
export function matchOneOf(...ids: readonly (SpiffeId | string)[]): Matcher {
  const wanted = new Set(ids.map((id) => String(idOf(id))));
  return (seen) => {
    if (!wanted.has(String(seen)))
      throw denied(seen, wanted.size > 8 ? `wants one of ${wanted.size}` : `wants one of ${[...wanted].join(', ') || 'none'}`);
  };
}

/** Every SPIFFE ID of this trust domain. @param trustDomain its name, such as `example.org`. Throws ID_INVALID at once when it is none. */
export function memberOf(trustDomain: TrustDomain | string): Matcher {
  const wanted = typeof trustDomain === 'string' ? TrustDomain.parse(trustDomain) : trustDomain;
  return (seen) => {
    if (!seen.memberOf(wanted)) throw denied(seen, `wants a member of ${wanted}`);
  };
}

/**
 * A SPIFFE ID in whose path `*` stands for one segment, and `**`, as the last one, for one or more: `spiffe://example.org/ns/prod/sa/*`. The trust domain is
 * literal, and no star stands for a part of a segment, so that no pattern reaches further than it reads. Throws ID_INVALID at once for any other pattern.
 */
export function matchPattern(pattern: string): Matcher {
  const { trustDomain, segments, deep } = parsePattern(pattern);
  return (seen) => {
    const path = segmentsOf(seen);
    const fits =
      seen.memberOf(trustDomain) &&
      (deep ? path.length > segments.length : path.length === segments.length) &&
      segments.every((one, i) => one === '*' || one === path[i]);
    if (!fits) throw denied(seen, `wants ${pattern}`);
  };
}

/** A pattern of `matchPattern`, read. */
export interface IdPattern {
  readonly trustDomain: TrustDomain;
  /** Each a word, or `*`. */
  readonly segments: readonly string[];
  /** One or more segments must follow, whatever they are: it ends with `**`. */
  readonly deep: boolean;
}

/** Throws ID_INVALID for what is no pattern. */
export function parsePattern(pattern: string): IdPattern {
  const [scheme = '', empty, name = '', ...written] = pattern.split('/');
  const deep = written.at(-1) === '**';
  const segments = deep ? written.slice(0, -1) : written;
  // with a word for each star it must be a SPIFFE ID
  const { trustDomain } = SpiffeId.parse(
    [scheme, empty, name, ...segments.map((one) => (one === '*' ? 'x' : one)), ...(deep ? ['x'] : [])].join('/'),
  );
  return { trustDomain, segments, deep };
}

/** The segments of an ID's path; none when it has no path. */
export function segmentsOf(id: SpiffeId): readonly string[] {
  return id.path.split('/').slice(1);
}

/** Asks a matcher. Throws what it throws; DENIED when it gives `false` or anything but nothing and `true`. */
export function requireMatch<More extends readonly unknown[]>(
  matcher: (id: SpiffeId, ...more: More) => boolean | void,
  id: SpiffeId,
  ...more: More
): void {
  const answer: unknown = matcher(id, ...more);
  if (answer === undefined || answer === true) return;
  if (answer === false) throw denied(id, 'refused by the matcher');
  // its rejection would come too late, and to nobody
  if (answer instanceof Promise) answer.catch(() => {});
  throw denied(
    id,
    `the matcher gave ${answer instanceof Promise ? 'a promise' : `a ${typeof answer}`}: it must give true or false, or throw, at once`,
  );
}

function idOf(id: SpiffeId | string): SpiffeId {
  return typeof id === 'string' ? SpiffeId.parse(id) : id;
}

function denied(seen: SpiffeId, why: string): SpiffeError {
  return new SpiffeError('DENIED', 'ID_NOT_ALLOWED', `${seen} is not allowed: ${why}`);
}
