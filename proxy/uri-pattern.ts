/** ghostunnel's patterns for URI names: `*` is one whole segment that is not empty, `**` (only at the end) any number of them, also none. */
import { fail } from '../core/errors.ts';

export interface UriPattern {
  readonly text: string;
  matches(uri: string): boolean;
}

/** Deeper than any name in use. */
const MAX_SEGMENTS = 256;

/**
 * Scheme and host are compared letter by letter and hold no star; one slash at the end counts for nothing, on either side. Throws SETTINGS_INVALID for what
 * is no such pattern.
 */
export function parseUriPattern(text: string): UriPattern {
  const refuse = (why: string) => fail('SETTINGS_INVALID', `URI pattern ${JSON.stringify(text)}: ${why}`);
  const [, origin = '', path = ''] = /^([a-z][a-z0-9+.-]*:\/\/[^/?#]*)(.*)$/i.exec(text) ?? [];
  if (origin === '') throw refuse('it must begin as scheme://host does');
  if (origin.includes('*')) throw refuse('no star may stand for a scheme or a host');
  if (/[?#]/.test(path)) throw refuse('it must have no query and no fragment');
  const wanted = segmentsOf(path);
  const deep = wanted.at(-1) === '**';
  const fixed = deep ? wanted.slice(0, -1) : wanted;
  if (fixed.some((one) => one.includes('*') && one !== '*'))
    throw refuse('a star stands for a whole segment, "*" for one and "**", at the end, for any number');
  return {
    text,
    matches(uri) {
      if (!uri.startsWith(origin)) return false;
      const rest = uri.slice(origin.length);
      if (rest !== '' && !rest.startsWith('/')) return false;
      const seen = segmentsOf(rest);
      if (seen.length > MAX_SEGMENTS || (deep ? seen.length < fixed.length : seen.length !== fixed.length)) return false;
      return fixed.every((one, i) => (one === '*' ? seen[i] !== '' : one === seen[i])) && !seen.slice(fixed.length).includes('');
    },
  };
}

/** Without the slash at the end. An empty path has none. */
function segmentsOf(path: string): readonly string[] {
  const inner = path.replace(/^\//, '').replace(/\/$/, '');
  return inner === '' ? [] : inner.split('/');
}
