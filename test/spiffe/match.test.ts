/** Matchers: who passes, who does not, and that no mistake of their author's lets anybody in. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import {
  matchAny,
  matchId,
  matchOneOf,
  matchPattern,
  type Matcher,
  memberOf,
  parsePattern,
  requireMatch,
  segmentsOf,
} from '../../spiffe/match.ts';

const IDS = ['spiffe://foo.test', 'spiffe://foo.test/A', 'spiffe://foo.test/B', 'spiffe://foo.test/sub/C', 'spiffe://bar.test/A'];

function passes(matcher: Matcher, id: string): boolean {
  try {
    requireMatch(matcher, SpiffeId.parse(id));
    return true;
  } catch (error) {
    expect(error).toMatchObject({ code: 'DENIED', reason: 'ID_NOT_ALLOWED' });
    return false;
  }
}

const [ROOT = '', A = '', B = '', C = '', BAR = ''] = IDS;

/** Source: go-spiffe's table of matchers, and patterns of our own. */
describe.each<[what: string, matcher: Matcher, passing: readonly string[]]>([
  ['matchAny', matchAny(), IDS],
  ['matchId without a path', matchId(ROOT), [ROOT]],
  ['matchId with a path', matchId(SpiffeId.parse(A)), [A]],
  ['matchOneOf of two', matchOneOf(A, SpiffeId.parse(C)), [A, C]],
  ['matchOneOf of none', matchOneOf(), []],
  ['memberOf', memberOf('foo.test'), [ROOT, A, B, C]],
  ['memberOf by value', memberOf(TrustDomain.parse('bar.test')), [BAR]],
  ['one star', matchPattern('spiffe://foo.test/*'), [A, B]],
  ['a star before a segment', matchPattern('spiffe://foo.test/*/C'), [C]],
  ['two stars', matchPattern('spiffe://foo.test/**'), [A, B, C]],
  ['two stars below a segment', matchPattern('spiffe://foo.test/sub/**'), [C]],
  ['two stars below a segment that has nothing below', matchPattern('spiffe://foo.test/A/**'), []],
  ['no star', matchPattern('spiffe://bar.test/A'), [BAR]],
  ['no path', matchPattern('spiffe://foo.test'), [ROOT]],
])('%s', (_, matcher, passing) => {
  test(`passes ${passing.join(', ') || 'nobody'} and no other`, () => {
    expect(IDS.filter((id) => passes(matcher, id))).toEqual(passing);
  });
});

describe('a pattern', () => {
  test.each([
    'spiffe://*/A',
    'spiffe://*.test/A',
    'spiffe://**',
    'spiffe://foo.test/a*',
    'spiffe://foo.test/**/A',
    'spiffe://foo.test/***',
    'spiffe://foo.test/*/',
    'spiffe://foo.test//*',
    'spiffe://foo.test/../*',
    'foo.test/*',
    '*',
    '',
  ])('%j is refused when it is made', (pattern) => {
    expect(() => matchPattern(pattern)).toThrowError(expect.objectContaining({ code: 'ID_INVALID' }));
  });

  test('never passes another trust domain, whatever the path', () => {
    const segment = fc.stringMatching(/^[A-Za-z0-9_-]{1,8}$/);
    fc.assert(
      fc.property(
        fc.array(fc.oneof(segment, fc.constant('*')), { maxLength: 4 }),
        fc.boolean(),
        fc.array(segment, { maxLength: 6 }),
        (pattern, deep, path) => {
          const matcher = matchPattern(['spiffe://foo.test', ...pattern, ...(deep ? ['**'] : [])].join('/'));
          expect(passes(matcher, ['spiffe://bar.test', ...path].join('/'))).toBe(false);
          // its twin: with a word for each star the same pattern passes
          expect(
            passes(
              matcher,
              ['spiffe://foo.test', ...pattern.map((one) => (one === '*' ? 'x' : one)), ...(deep ? ['y', 'z'] : [])].join('/'),
            ),
          ).toBe(true);
        },
      ),
    );
  });
});

describe('a pattern, read,', () => {
  test.each([
    ['spiffe://foo.test', [], false],
    ['spiffe://foo.test/A', ['A'], false],
    ['spiffe://foo.test/*/C', ['*', 'C'], false],
    ['spiffe://foo.test/**', [], true],
    ['spiffe://foo.test/sub/*/**', ['sub', '*'], true],
  ])('%s', (pattern, segments, deep) => {
    expect(parsePattern(pattern)).toEqual({ trustDomain: TrustDomain.parse('foo.test'), segments, deep });
  });

  test('has the segments that an ID has, where it has no star', () => {
    for (const one of IDS) expect(segmentsOf(SpiffeId.parse(one))).toEqual(parsePattern(one).segments);
  });
});

describe('a matcher of the user', () => {
  const id = SpiffeId.parse(A);
  test('allows by giving nothing or true', () => {
    expect(() => requireMatch(() => {}, id)).not.toThrow();
    expect(() => requireMatch((seen) => seen.equals(id), id)).not.toThrow();
  });
  test('refuses by giving false or by throwing', () => {
    expect(() => requireMatch(() => false, id)).toThrowError(expect.objectContaining({ code: 'DENIED' }));
    const own = new Error('not you');
    expect(() =>
      requireMatch(() => {
        throw own;
      }, id),
    ).toThrowError(own);
  });
  test.each<[string, () => unknown]>([
    ['a promise', async () => {}],
    ['a promise that rejects', () => Promise.reject(new Error('too late'))],
    ['a promise of true', async () => true],
    ['null', () => null],
    ['a word', () => 'yes'],
    ['a number', () => 1],
  ])('allows nobody by giving %s', (_, matcher) => {
    expect(() => requireMatch(matcher as Matcher, id)).toThrowError(expect.objectContaining({ code: 'DENIED' }));
  });
});
