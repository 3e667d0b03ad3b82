/** Rows about SPIFFE IDs, trust domains and matchers. */
import type { Reason } from '../../../spiffe/errors.ts';
import type { Family, File, Row } from '../row.ts';

const GO = 'go-spiffe spiffeid';
const OWN = 'SPIFFE-ID';
const DOMAIN_CHARS = '-.0123456789_abcdefghijklmnopqrstuvwxyz';
const PATH_CHARS = '-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz';

/** Shared by all recipes. */
export function row<F extends Family>(
  name: string,
  [source, requirement]: readonly [source: string, requirement?: string | undefined],
  input: Row<F>['input'],
  outcome: { readonly sees: string } | Reason,
  more: Partial<Row<F>> = {},
): Row<F> {
  const end = typeof outcome === 'string' ? { expect: 'reject' as const, reason: outcome } : { expect: 'accept' as const, ...outcome };
  return { name, source, ...(requirement !== undefined && { requirement }), input, ...more, ...end };
}

/** [name, source, requirement, text, what is seen or the reason] */
type Text = [name: string, source: string, requirement: string, text: string, outcome: { readonly sees: string } | Reason];

const sees = (text: string) => ({ sees: text });
const itself = (name: string, source: string, requirement: string, text: string): Text => [name, source, requirement, text, sees(text)];

const T = `${GO} TestFromString`;
const IDS: readonly Text[] = [
  ['empty', `${T}/reject_empty`, 'ID-2', '', 'ID_EMPTY'],
  itself('path is optional', `${T}/path_is_optional`, 'ID-14', 'spiffe://trustdomain'),
  itself('trust domain and path', `${T}/success`, 'ID-1', 'spiffe://trustdomain/path'),
  ['bad scheme: one letter', `${T}/reject_bad_scheme`, 'ID-2', 's', 'ID_SCHEME'],
  ['bad scheme: one slash', `${T}/reject_bad_scheme`, 'ID-2', 'spiffe:/', 'ID_SCHEME'],
  ['bad scheme: upper case', `${T}/reject_bad_scheme`, 'ID-2 ID-25', 'Spiffe://', 'ID_SCHEME'],
  ['missing trust domain', `${T}/reject_missing_trust_domain`, 'ID-3', 'spiffe://', 'ID_TRUST_DOMAIN_MISSING'],
  ['missing trust domain before a slash', `${T}/reject_missing_trust_domain`, 'ID-3', 'spiffe:///', 'ID_TRUST_DOMAIN_MISSING'],
  ['missing trust domain before a path', OWN, 'ID-3', 'spiffe:///path', 'ID_TRUST_DOMAIN_MISSING'],
  ['trailing slash', `${T}/reject_empty_segments`, 'ID-18', 'spiffe://trustdomain/', 'ID_PATH_TRAILING_SLASH'],
  ['two slashes', `${T}/reject_empty_segments`, 'ID-16', 'spiffe://trustdomain//', 'ID_PATH_TRAILING_SLASH'],
  ['an empty first segment', `${T}/reject_empty_segments`, 'ID-16', 'spiffe://trustdomain//path', 'ID_PATH_EMPTY_SEGMENT'],
  ['an empty segment between', OWN, 'ID-16', 'spiffe://trustdomain/a//b', 'ID_PATH_EMPTY_SEGMENT'],
  ['a trailing slash behind a path', `${T}/reject_empty_segments`, 'ID-18', 'spiffe://trustdomain/path/', 'ID_PATH_TRAILING_SLASH'],
  ...['/.', '/./path', '/path/./other', '/path/..', '/..', '/../path', '/path/../other'].map(
    (path): Text => [`dot segments: ${path}`, `${T}/reject_dot_segments`, 'ID-17', `spiffe://trustdomain${path}`, 'ID_PATH_DOT_SEGMENT'],
  ),
  ...['/.path', '/..path', '/...', '/a.'].map((path) =>
    itself(`dots in a name: ${path}`, `${T}/reject_dot_segments`, 'ID-17', `spiffe://trustdomain${path}`),
  ),
  ['a percent-encoded trust domain', `${T}/reject_percent_encoding`, 'ID-10', 'spiffe://%F0%9F%A4%AF/path', 'ID_TRUST_DOMAIN_CHAR'],
  ['a percent-encoded path', `${T}/reject_percent_encoding`, 'ID-15', 'spiffe://trustdomain/%F0%9F%A4%AF', 'ID_PATH_CHAR'],
  ['a trust domain of encoded ASCII', `${T}/reject_percent_encoding`, 'ID-10', 'spiffe://%62%61%64/path', 'ID_TRUST_DOMAIN_CHAR'],
  ['a path of encoded ASCII', `${T}/reject_percent_encoding`, 'ID-15', 'spiffe://trustdomain/%62%61%64', 'ID_PATH_CHAR'],
  ['an encoded slash', OWN, 'ID-15', 'spiffe://td/a%2Fb', 'ID_PATH_CHAR'],
  ['a scheme in upper case', `${GO} TestFromURI`, 'ID-2 ID-25', 'SPIFFE://trustdomain/path', 'ID_SCHEME'],
  ['a dollar in the trust domain', `${GO} TestFromURI`, 'ID-9', 'spiffe://trust$domain', 'ID_TRUST_DOMAIN_CHAR'],
  ['a dollar in the path', `${GO} TestFromURI`, 'ID-19', 'spiffe://trustdomain/path$', 'ID_PATH_CHAR'],
  ['no scheme at all', `${GO} TestIDTextUnmarshaler`, 'ID-2', 'BAD', 'ID_SCHEME'],
  ['another scheme', OWN, 'ID-2', 'https://td/a', 'ID_SCHEME'],
  ['a scheme that looks alike', OWN, 'ID-2', 'sparfe://td/a', 'ID_SCHEME'],
  ['a scheme with a long s', 'go-spiffe lacks it', 'ID-2', '\u017fpiffe://td/a', 'ID_SCHEME'],
  ['a longer scheme', OWN, 'ID-2', 'spiffes://td/a', 'ID_SCHEME'],
  ['one slash before the trust domain', OWN, 'ID-2', 'spiffe:/td/a', 'ID_SCHEME'],
  ['no slash', OWN, 'ID-2', 'spiffe:td', 'ID_SCHEME'],
  ['white space in front', 'go-spiffe lacks it', 'ID-2', ' spiffe://td/a', 'ID_SCHEME'],
  ['a byte order mark in front', 'go-spiffe lacks it', 'ID-2', '\ufeffspiffe://td/a', 'ID_SCHEME'],
  ['white space behind', 'go-spiffe lacks it', 'ID-19', 'spiffe://td/a ', 'ID_PATH_CHAR'],
  ['a line feed behind', 'go-spiffe lacks it', 'ID-19', 'spiffe://td/a\n', 'ID_PATH_CHAR'],
  ['a line feed behind the trust domain', 'go-spiffe lacks it', 'ID-9', 'spiffe://td\n', 'ID_TRUST_DOMAIN_CHAR'],
  ['a tab inside', 'go-spiffe lacks it', 'ID-19', 'spiffe://td/a\tb', 'ID_PATH_CHAR'],
  ['a NUL', 'go-spiffe lacks it', 'ID-19', 'spiffe://td/a\0', 'ID_PATH_CHAR'],
  ['a backslash', 'go-spiffe lacks it', 'ID-19', 'spiffe://td/a\\b', 'ID_PATH_CHAR'],
  ['half a surrogate pair in the path', 'go-spiffe lacks it', 'ID-19', 'spiffe://td/a\ud800', 'ID_PATH_CHAR'],
  ['half a surrogate pair in the trust domain', 'go-spiffe lacks it', 'ID-9', 'spiffe://td\udc00/a', 'ID_TRUST_DOMAIN_CHAR'],
  ['a letter that another alphabet writes alike', 'go-spiffe lacks it', 'ID-9', 'spiffe://t\u0501/a', 'ID_TRUST_DOMAIN_CHAR'],
  ['a letter that becomes ASCII in lower case', 'go-spiffe lacks it', 'ID-9', 'spiffe://\u212a/a', 'ID_TRUST_DOMAIN_CHAR'],
  ['a query', OWN, 'ID-4', 'spiffe://td/a?x=1', 'ID_PATH_CHAR'],
  ['an empty query', 'go-spiffe lacks it', 'ID-4', 'spiffe://td/a?', 'ID_PATH_CHAR'],
  ['a query behind the trust domain', 'go-spiffe lacks it', 'ID-4', 'spiffe://td?x', 'ID_TRUST_DOMAIN_CHAR'],
  ['a fragment', OWN, 'ID-5', 'spiffe://td/a#f', 'ID_PATH_CHAR'],
  ['an empty fragment', 'go-spiffe lacks it', 'ID-5', 'spiffe://td/a#', 'ID_PATH_CHAR'],
  ['a user', 'go-spiffe lacks it', 'ID-6', 'spiffe://u@td/a', 'ID_TRUST_DOMAIN_CHAR'],
  ['a user with a password', OWN, 'ID-6', 'spiffe://u:p@td/a', 'ID_TRUST_DOMAIN_CHAR'],
  ['an empty user', OWN, 'ID-6', 'spiffe://@td/a', 'ID_TRUST_DOMAIN_CHAR'],
  ['a port', 'go-spiffe lacks it', 'ID-7', 'spiffe://td:80/a', 'ID_TRUST_DOMAIN_CHAR'],
  ['an empty port', 'go-spiffe lacks it', 'ID-7', 'spiffe://td:/a', 'ID_TRUST_DOMAIN_CHAR'],
  ['a trust domain in upper case', OWN, 'ID-8 ID-25', 'spiffe://TD/a', 'ID_TRUST_DOMAIN_CHAR'],
  itself('an IPv4 address', 'go-spiffe lacks it', 'ID-11', 'spiffe://10.0.0.1/a'),
  ['an IPv6 address', 'go-spiffe lacks it', 'ID-11', 'spiffe://[::1]/a', 'ID_TRUST_DOMAIN_CHAR'],
  itself('two dots in the trust domain', 'go-spiffe lacks it', 'ID-12', 'spiffe://a..b/a'),
  itself('a trust domain of one underscore', OWN, 'ID-12', 'spiffe://_/a'),
  itself('a trust domain of one dash', OWN, 'ID-12', 'spiffe://-/a'),
  itself('a label of 70 letters', OWN, 'ID-12', `spiffe://${'a'.repeat(70)}/a`),
  itself('a path that is a hierarchy', OWN, 'ID-20', 'spiffe://td/ns/staging/sa/default'),
  itself('a trust domain of 255 bytes', 'go-spiffe lacks it', 'ID-23', `spiffe://${'a'.repeat(255)}/x`),
  ['a trust domain of 256 bytes', 'go-spiffe lacks it', 'ID-23', `spiffe://${'a'.repeat(256)}/x`, 'ID_TRUST_DOMAIN_TOO_LONG'],
  itself('2048 bytes', 'go-spiffe lacks it', 'ID-21 ID-24', `spiffe://td/${'a'.repeat(2036)}`),
  ['2049 bytes', 'go-spiffe lacks it', 'ID-22 ID-24', `spiffe://td/${'a'.repeat(2037)}`, 'ID_TOO_LONG'],
];

export function spiffeIdFile(): File<'spiffe-id'> {
  const made = (
    name: string,
    test: string,
    input: Row<'spiffe-id'>['input'],
    outcome: { readonly sees: string } | Reason,
  ): Row<'spiffe-id'> => row(name, [`${GO} ${test}`], input, outcome);
  const path = (text: string) => ({ trustDomain: 'trustdomain', path: text });
  const segments = (...list: string[]) => ({ trustDomain: 'trustdomain', segments: list });
  return {
    rows: [
      ...IDS.map(([name, source, requirement, text, outcome]) => row<'spiffe-id'>(name, [source, requirement], { text }, outcome)),
      {
        name: 'trust domain char',
        source: `${T}/allow_trustdomain_char`,
        requirement: 'ID-9',
        input: { text: 'spiffe://trustdomain{char}/path' },
        loop: { from: 0, to: 255, accepted: DOMAIN_CHARS, except: '/' },
        expect: 'reject',
        reason: 'ID_TRUST_DOMAIN_CHAR',
      },
      {
        name: 'path char',
        source: `${T}/allow_path_char`,
        requirement: 'ID-19',
        input: { text: 'spiffe://trustdomain/path{char}' },
        loop: { from: 0, to: 255, accepted: PATH_CHARS, except: '/' },
        expect: 'reject',
        reason: 'ID_PATH_CHAR',
      },
      made('from a path', 'TestFromPathf', path('/foo'), sees('spiffe://trustdomain/foo')),
      made('from no path', 'TestFromPathf', path(''), sees('spiffe://trustdomain')),
      made('from a path without its slash', 'TestFromPathf', path('foo'), 'ID_PATH_NO_LEADING_SLASH'),
      made('from a lone slash', 'TestFromPathf', path('/'), 'ID_PATH_TRAILING_SLASH'),
      made('from a path with a dollar', 'TestIDReplacePath', path('/$'), 'ID_PATH_CHAR'),
      made('from a path with two dots', 'TestIDReplacePath', path('/a/..'), 'ID_PATH_DOT_SEGMENT'),
      made('from no segments', 'TestFromSegments', segments(), sees('spiffe://trustdomain')),
      made('from a segment', 'TestFromSegments', segments('foo'), sees('spiffe://trustdomain/foo')),
      made('from two segments', 'TestJoinPathSegments', segments('foo', 'bar'), sees('spiffe://trustdomain/foo/bar')),
      made('from an empty segment', 'TestFromSegments', segments(''), 'ID_PATH_EMPTY_SEGMENT'),
      made('from a slash as segment', 'TestFromSegments', segments('/'), 'ID_PATH_CHAR'),
      made('from a segment with a slash', 'TestFromSegments', segments('/foo'), 'ID_PATH_CHAR'),
      made('from a segment with a dollar', 'TestFromSegments', segments('$'), 'ID_PATH_CHAR'),
      made('from one dot as segment', 'TestValidatePathSegment', segments('.'), 'ID_PATH_DOT_SEGMENT'),
      made('from two dots as segment', 'TestValidatePathSegment', segments('..'), 'ID_PATH_DOT_SEGMENT'),
    ],
  };
}

const D = `${GO} TestTrustDomainFromString`;
const DOMAINS: readonly Text[] = [
  ['empty', D, 'ID-3', '', 'ID_TRUST_DOMAIN_MISSING'],
  itself('a name', D, 'ID-1', 'trustdomain'),
  ['an ID without a path', D, 'ID-14', 'spiffe://trustdomain', sees('trustdomain')],
  ['an ID with a path', D, 'ID-1', 'spiffe://trustdomain/path', sees('trustdomain')],
  ['an ID with one slash', D, 'ID-2', 'spiffe:/trustdomain/path', 'ID_SCHEME'],
  ['an ID without a trust domain', D, 'ID-3', 'spiffe://', 'ID_TRUST_DOMAIN_MISSING'],
  ['an ID with a path alone', D, 'ID-3', 'spiffe:///path', 'ID_TRUST_DOMAIN_MISSING'],
  ['an ID with a trailing slash', D, 'ID-18', 'spiffe://trustdomain/', 'ID_PATH_TRAILING_SLASH'],
  ['an ID with a trailing slash behind a path', D, 'ID-18', 'spiffe://trustdomain/path/', 'ID_PATH_TRAILING_SLASH'],
  ['an ID with a percent-encoded trust domain', D, 'ID-10', 'spiffe://%F0%9F%A4%AF/path', 'ID_TRUST_DOMAIN_CHAR'],
  ['an ID with a percent-encoded path', D, 'ID-15', 'spiffe://trustdomain/%F0%9F%A4%AF', 'ID_PATH_CHAR'],
  ['an ID in upper case', `${GO} TestRequireTrustDomainFromString`, 'ID-8', 'spiffe://TRUSTDOMAIN/path', 'ID_TRUST_DOMAIN_CHAR'],
  ['a name in upper case', `${GO} TestTrustDomainTextUnmarshaler`, 'ID-8', 'BAD', 'ID_TRUST_DOMAIN_CHAR'],
  ['an ID of another scheme', OWN, 'ID-2', 'https://trustdomain', 'ID_SCHEME'],
  ['a name with a port', OWN, 'ID-7', 'trustdomain:443', 'ID_TRUST_DOMAIN_CHAR'],
  ['a name with a slash', OWN, 'ID-9', 'trustdomain/', 'ID_TRUST_DOMAIN_CHAR'],
  ['a name with white space', OWN, 'ID-9', 'trustdomain ', 'ID_TRUST_DOMAIN_CHAR'],
  itself('255 bytes', 'go-spiffe lacks it', 'ID-23', 'a'.repeat(255)),
  ['256 bytes', 'go-spiffe lacks it', 'ID-23', 'a'.repeat(256), 'ID_TRUST_DOMAIN_TOO_LONG'],
];

export function trustDomainFile(): File<'trust-domain'> {
  return {
    rows: [
      ...DOMAINS.map(([name, source, requirement, text, outcome]) => row<'trust-domain'>(name, [source, requirement], { text }, outcome)),
      {
        name: 'char of a name',
        source: D,
        requirement: 'ID-9',
        input: { text: 'trustdomain{char}' },
        loop: { from: 0, to: 255, accepted: DOMAIN_CHARS },
        expect: 'reject',
        reason: 'ID_TRUST_DOMAIN_CHAR',
      },
      {
        name: 'char of an ID',
        source: D,
        requirement: 'ID-9',
        input: { text: 'spiffe://trustdomain{char}' },
        loop: { from: 0, to: 255, accepted: DOMAIN_CHARS, except: '/' },
        expect: 'reject',
        reason: 'ID_TRUST_DOMAIN_CHAR',
      },
    ],
  };
}

export function matchFile(): File<'match'> {
  const SEEN = ['spiffe://foo.test', 'spiffe://foo.test/A', 'spiffe://foo.test/B', 'spiffe://foo.test/sub/C', 'spiffe://bar.test/A'];
  const cases: readonly [Row<'match'>['input']['matcher'], string, readonly string[], readonly string[]][] = [
    ['any', 'TestMatchAny', [], SEEN],
    ['id', 'TestMatchID_AgainstIDWithPath', ['spiffe://foo.test/A'], ['spiffe://foo.test/A']],
    ['id', 'TestMatchID_AgainstIDWithoutPath', ['spiffe://foo.test'], ['spiffe://foo.test']],
    ['one-of', 'TestMatchOneOf', ['spiffe://foo.test/sub/C', 'spiffe://foo.test/B'], ['spiffe://foo.test/B', 'spiffe://foo.test/sub/C']],
    ['one-of', 'TestMatchOneOf_OfNone', [], []],
    ['member-of', 'TestMatchMemberOf', ['foo.test'], SEEN.filter((id) => id.startsWith('spiffe://foo.test'))],
  ];
  return {
    rows: cases.flatMap(([matcher, test, of, accepted]) =>
      SEEN.map((id) =>
        row<'match'>(
          `${matcher} ${of.join(' or ')} and ${id}`.replace('  ', ' of none '),
          [`${GO} ${test}`, 'ID-26'],
          { matcher, of, id },
          accepted.includes(id) ? sees(id) : 'ID_NOT_ALLOWED',
        ),
      ),
    ),
  };
}
