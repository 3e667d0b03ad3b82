/** SPIFFE IDs and trust domains (SPIFFE-ID §2). Parsed at the door, trusted inside. */
import { type Reason, SpiffeError } from './errors.ts';

/** SPIFFE-ID §2.3: the longest URI that must be understood, and the longest that we read or write. */
const MAX_ID_BYTES = 2048;
/** RFC 3986 §3.2.2 by way of SPIFFE-ID §2.3. */
const MAX_TRUST_DOMAIN_BYTES = 255;

const SCHEME = 'spiffe://';
const TRUST_DOMAIN = /^[a-z0-9._-]+$/;
const SEGMENT = /^[A-Za-z0-9._-]+$/;

/** What is no SPIFFE ID or trust domain. The message names what was read; `why` does not, for those who have named it already. */
export class IdError extends SpiffeError {
  readonly why: string;

  constructor(reason: Reason, what: string, why: string) {
    super('ID_INVALID', reason, `${what}: ${why}`);
    this.why = why;
  }
}

function refuse(what: string, text: string, reason: Reason, why: string): IdError {
  const seen = text.length > 200 ? `${JSON.stringify(text.slice(0, 200))}…` : JSON.stringify(text);
  return new IdError(reason, `${what} ${seen}`, why);
}

/** The name of a trust domain: 1 to 255 of `a-z 0-9 . - _`. In Node, equal names are the same object while one of them is in use; everywhere, `equals` compares. */
export class TrustDomain {
  readonly name: string;

  private constructor(name: string) {
    this.name = name;
  }

  /** @param name the bare name, such as `example.org`. Upper case is refused, never folded. Throws ID_INVALID. */
  static parse(name: string): TrustDomain {
    const known = interned?.get(name)?.deref();
    if (known) return known;
    const fault = trustDomainFault(name);
    if (fault) throw refuse('trust domain', name, ...fault);
    const made = new TrustDomain(name);
    interned?.set(name, new WeakRef(made));
    forget?.register(made, name);
    return made;
  }

  /** Takes a bare name or a SPIFFE ID (with or without a path), as SPIRE's settings do. Throws ID_INVALID. */
  static parseNameOrId(text: string): TrustDomain {
    return text.includes(':/') ? SpiffeId.parse(text).trustDomain : TrustDomain.parse(text);
  }

  /** `spiffe://name`, the SPIFFE ID without a path. */
  get id(): SpiffeId {
    return SpiffeId.of(this, '');
  }

  /** By name. */
  equals(other: TrustDomain): boolean {
    return this.name === other.name;
  }

  /** The bare name. */
  toString(): string {
    return this.name;
  }

  toJSON(): string {
    return this.name;
  }
}

// some runtimes hide from their programs when memory is collected
const interned = typeof FinalizationRegistry === 'undefined' ? undefined : new Map<string, WeakRef<TrustDomain>>();
const forget =
  interned &&
  new FinalizationRegistry<string>((name) => {
    if (interned.get(name)?.deref() === undefined) interned.delete(name);
  });

/** A SPIFFE ID that has passed every check of SPIFFE-ID §2. There is no other way to make one. */
export class SpiffeId {
  readonly trustDomain: TrustDomain;
  /** '' or '/' and segments joined by '/'. */
  readonly path: string;

  private constructor(trustDomain: TrustDomain, path: string) {
    this.trustDomain = trustDomain;
    this.path = path;
  }

  /** @param text at most 2048 bytes, such as `spiffe://example.org/web`. Nothing is folded, decoded or trimmed. Throws ID_INVALID. */
  static parse(text: string): SpiffeId {
    const bad = (reason: Reason, why: string) => refuse('SPIFFE ID', text, reason, why);
    if (text === '') throw bad('ID_EMPTY', 'cannot be empty');
    if (!text.startsWith(SCHEME)) throw bad('ID_SCHEME', 'scheme is missing or invalid');
    const slash = text.indexOf('/', SCHEME.length);
    const name = slash < 0 ? text.slice(SCHEME.length) : text.slice(SCHEME.length, slash);
    const path = slash < 0 ? '' : text.slice(slash);
    const fault = trustDomainFault(name) ?? pathFault(path);
    if (fault) throw bad(...fault);
    if (text.length > MAX_ID_BYTES) throw bad('ID_TOO_LONG', `longer than ${MAX_ID_BYTES} bytes`);
    return new SpiffeId(TrustDomain.parse(name), path);
  }

  /** @param path '' or a path with a leading slash. Throws ID_INVALID. */
  static of(trustDomain: TrustDomain, path: string): SpiffeId {
    const fault = pathFault(path);
    if (fault) throw refuse('path', path, ...fault);
    const length = SCHEME.length + trustDomain.name.length + path.length;
    if (length > MAX_ID_BYTES) throw refuse('path', path, 'ID_TOO_LONG', `the SPIFFE ID would be longer than ${MAX_ID_BYTES} bytes`);
    return new SpiffeId(trustDomain, path);
  }

  /** Each segment is checked alone: none can smuggle in a slash. Throws ID_INVALID. */
  static fromSegments(trustDomain: TrustDomain, ...segments: string[]): SpiffeId {
    for (const segment of segments) {
      const fault = segmentFault(segment);
      if (fault) throw refuse('path segment', segment, ...fault);
    }
    return SpiffeId.of(trustDomain, segments.map((segment) => `/${segment}`).join(''));
  }

  /** Whether `parse` would take it. */
  static is(text: string): boolean {
    try {
      SpiffeId.parse(text);
      return true;
    } catch {
      return false;
    }
  }

  memberOf(trustDomain: TrustDomain): boolean {
    return this.trustDomain.name === trustDomain.name;
  }

  /** Letter for letter: SPIFFE-ID §2.4. */
  equals(other: SpiffeId): boolean {
    return this.path === other.path && this.trustDomain.name === other.trustDomain.name;
  }

  /** `spiffe://example.org/web`. */
  toString(): string {
    return `${SCHEME}${this.trustDomain.name}${this.path}`;
  }

  toJSON(): string {
    return this.toString();
  }
}

type Fault = [reason: Reason, why: string];

function trustDomainFault(name: string): Fault | undefined {
  if (name === '') return ['ID_TRUST_DOMAIN_MISSING', 'trust domain is missing'];
  if (!TRUST_DOMAIN.test(name))
    return ['ID_TRUST_DOMAIN_CHAR', 'trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores'];
  if (name.length > MAX_TRUST_DOMAIN_BYTES)
    return ['ID_TRUST_DOMAIN_TOO_LONG', `trust domain is longer than ${MAX_TRUST_DOMAIN_BYTES} bytes`];
  return undefined;
}

function pathFault(path: string): Fault | undefined {
  if (path === '') return undefined;
  if (!path.startsWith('/')) return ['ID_PATH_NO_LEADING_SLASH', 'path must have a leading slash'];
  if (path.endsWith('/')) return ['ID_PATH_TRAILING_SLASH', 'path cannot have a trailing slash'];
  for (const segment of path.slice(1).split('/')) {
    const fault = segmentFault(segment);
    if (fault) return fault;
  }
  return undefined;
}

function segmentFault(segment: string): Fault | undefined {
  if (segment === '') return ['ID_PATH_EMPTY_SEGMENT', 'path cannot contain empty segments'];
  if (segment === '.' || segment === '..') return ['ID_PATH_DOT_SEGMENT', 'path cannot contain dot segments'];
  if (!SEGMENT.test(segment))
    return ['ID_PATH_CHAR', 'path segment characters are limited to letters, numbers, dots, dashes, and underscores'];
  return undefined;
}
