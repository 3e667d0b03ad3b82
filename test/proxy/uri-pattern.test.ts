/** PX-9: ghostunnel's patterns, and that none of them reaches further than it reads. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseUriPattern } from '../../proxy/uri-pattern.ts';

/** Sources: ghostunnel's documentation of `--allow-uri`, and the traps of PX-9. */
const MATCHES: readonly (readonly [pattern: string, uri: string, fits: boolean])[] = [
  ['spiffe://ghostunnel/server', 'spiffe://ghostunnel/server', true],
  ['spiffe://ghostunnel/server', 'spiffe://ghostunnel/client', false],
  ['spiffe://ghostunnel/*', 'spiffe://ghostunnel/server', true],
  ['spiffe://ghostunnel/*', 'spiffe://ghostunnel/server/one', false],
  ['spiffe://ghostunnel/*', 'spiffe://ghostunnel', false],
  ['spiffe://ghostunnel/*', 'spiffe://ghostunnel/', false],
  ['spiffe://ghostunnel/**', 'spiffe://ghostunnel/server/one', true],
  ['spiffe://ghostunnel/**', 'spiffe://ghostunnel', true],
  ['spiffe://ghostunnel/**', 'spiffe://ghostunnel/', true],
  ['spiffe://ghostunnel/a/*/c', 'spiffe://ghostunnel/a/b/c', true],
  ['spiffe://ghostunnel/a/*/c', 'spiffe://ghostunnel/a//c', false],
  ['spiffe://ghostunnel/a/*/c', 'spiffe://ghostunnel/a/b/d', false],
  ['spiffe://ghostunnel/a/*/**', 'spiffe://ghostunnel/a/b', true],
  ['spiffe://ghostunnel/a/*/**', 'spiffe://ghostunnel/a', false],
  ['spiffe://ghostunnel/server/', 'spiffe://ghostunnel/server', true],
  ['spiffe://ghostunnel/server', 'spiffe://ghostunnel/server/', true],
  ['spiffe://ghostunnel/**', 'spiffe://ghostunnel/a//b', false],
  // another trust domain, however it begins
  ['spiffe://td/**', 'spiffe://td.evil.org/web', false],
  ['spiffe://td/**', 'spiffe://tdx/web', false],
  ['spiffe://td/**', 'spiffe://evil.org/spiffe://td/web', false],
  ['spiffe://td', 'spiffe://td.evil.org', false],
  // no folding, no decoding
  ['spiffe://td/web', 'spiffe://td/Web', false],
  ['spiffe://td/web', 'SPIFFE://td/web', false],
  ['spiffe://td/a/b', 'spiffe://td/a%2fb', false],
  ['spiffe://td/*', 'spiffe://td/a%2fb', true],
  // other schemes have the same rules
  ['https://example.org/*', 'https://example.org/one', true],
  ['https://example.org/*', 'http://example.org/one', false],
];

describe('a pattern', () => {
  for (const [pattern, uri, fits] of MATCHES)
    test(`${pattern} ${fits ? 'fits' : 'does not fit'} ${uri}`, () => expect(parseUriPattern(pattern).matches(uri)).toBe(fits));
});

const REFUSED: readonly (readonly [pattern: string, why: RegExp])[] = [
  ['', /begin as scheme/],
  ['*', /begin as scheme/],
  ['/server', /begin as scheme/],
  ['spiffe:/td/server', /begin as scheme/],
  ['spiffe://*/server', /host/],
  ['spiffe://td*/server', /host/],
  ['spiffe://td/**/server', /whole segment/],
  ['spiffe://td/ser*', /whole segment/],
  ['spiffe://td/***', /whole segment/],
  ['spiffe://td/server?x', /query/],
  ['spiffe://td/server#x', /query/],
];

describe('is no pattern', () => {
  for (const [pattern, why] of REFUSED)
    test(JSON.stringify(pattern), () =>
      expect(() => parseUriPattern(pattern)).toThrow(
        expect.objectContaining({ code: 'SETTINGS_INVALID', message: expect.stringMatching(why) }),
      ),
    );
});

const segment = fc.stringMatching(/^[a-zA-Z0-9._%-]{1,8}$/);
const path = fc.array(segment, { maxLength: 6 });

test('a pattern without stars fits itself and nothing else', () => {
  fc.assert(
    fc.property(path, path, (a, b) => {
      const [one, other] = [`spiffe://td/${a.join('/')}`, `spiffe://td/${b.join('/')}`];
      expect(parseUriPattern(one).matches(other)).toBe(a.join('/') === b.join('/'));
    }),
  );
});

test('spiffe://td/** fits whatever is of that trust domain, and nothing of any other', () => {
  const pattern = parseUriPattern('spiffe://td/**');
  fc.assert(
    fc.property(fc.stringMatching(/^[a-z0-9._-]{1,12}$/), path, (name, segments) => {
      expect(pattern.matches(`spiffe://${name}/${segments.join('/')}`)).toBe(name === 'td');
    }),
  );
});

test('a star for a segment fits whatever stands there, if something does', () => {
  fc.assert(
    fc.property(fc.array(segment, { minLength: 1, maxLength: 6 }), fc.nat(), (segments, which) => {
      const at = which % segments.length;
      const pattern = parseUriPattern(`spiffe://td/${segments.map((one, i) => (i === at ? '*' : one)).join('/')}`);
      expect(pattern.matches(`spiffe://td/${segments.join('/')}`)).toBe(true);
      expect(pattern.matches(`spiffe://td/${segments.map((one, i) => (i === at ? '' : one)).join('/')}`)).toBe(false);
      expect(pattern.matches(`spiffe://td/${segments.join('/')}/more`)).toBe(false);
    }),
  );
});
