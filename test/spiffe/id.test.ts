/** What is a SPIFFE ID, what is none, and that nothing is folded, decoded or looked up on the way. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SpiffeError } from '../../spiffe/errors.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';

const td = TrustDomain.parse('td');

/** How it was read, or why not. */
function outcome(read: () => unknown): string {
  try {
    const got = read();
    return got instanceof SpiffeId ? `${got.trustDomain} ${got.path}`.trim() : String(got);
  } catch (error) {
    if (!(error instanceof SpiffeError) || error.code !== 'ID_INVALID') throw error;
    return error.reason ?? '';
  }
}
const parsed = (text: string) => outcome(() => SpiffeId.parse(text));

describe('a SPIFFE ID', () => {
  const table: [what: string, text: string, expected: string][] = [
    ['ID-1 a trust domain and a path', 'spiffe://td/path', 'td /path'],
    ['ID-1 the same with more segments', 'spiffe://example.org/ns/a/sa/b', 'example.org /ns/a/sa/b'],
    ['ID-14 no path', 'spiffe://td', 'td'],
    ['ID-20 a path that is a hierarchy', 'spiffe://td/ns/staging/sa/default', 'td /ns/staging/sa/default'],
    ['ID-20 a path that is a random name', 'spiffe://td/9eebccd2-12bf-40a6-b262-65fe0487d453', 'td /9eebccd2-12bf-40a6-b262-65fe0487d453'],
    ['ID-2 nothing', '', 'ID_EMPTY'],
    ['ID-2 the beginning of a scheme', 's', 'ID_SCHEME'],
    ['ID-2 another scheme', 'https://td/a', 'ID_SCHEME'],
    ['ID-2 a scheme that looks alike', 'sparfe://td/a', 'ID_SCHEME'],
    ['ID-2 a longer scheme', 'spiffes://td/a', 'ID_SCHEME'],
    ['ID-2 one slash', 'spiffe:/td/a', 'ID_SCHEME'],
    ['ID-2 no slash', 'spiffe:td', 'ID_SCHEME'],
    ['ID-2 no scheme', '//td/a', 'ID_SCHEME'],
    ['ID-2 a bare name', 'td/a', 'ID_SCHEME'],
    ['ID-2 a space in front', ' spiffe://td/a', 'ID_SCHEME'],
    ['ID-25 a scheme in upper case', 'SPIFFE://td/a', 'ID_SCHEME'],
    ['ID-3 no trust domain', 'spiffe://', 'ID_TRUST_DOMAIN_MISSING'],
    ['ID-3 no trust domain, a slash', 'spiffe:///', 'ID_TRUST_DOMAIN_MISSING'],
    ['ID-3 no trust domain, a path', 'spiffe:///path', 'ID_TRUST_DOMAIN_MISSING'],
    ['ID-4 a query', 'spiffe://td/a?x=1', 'ID_PATH_CHAR'],
    ['ID-4 an empty query', 'spiffe://td/a?', 'ID_PATH_CHAR'],
    ['ID-4 a query behind the trust domain', 'spiffe://td?x=1', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-5 a fragment', 'spiffe://td/a#f', 'ID_PATH_CHAR'],
    ['ID-5 an empty fragment', 'spiffe://td/a#', 'ID_PATH_CHAR'],
    ['ID-5 a fragment behind the trust domain', 'spiffe://td#f', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-6 a user', 'spiffe://u@td/a', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-6 a user with a password', 'spiffe://u:p@td/a', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-6 an empty user', 'spiffe://@td/a', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-7 a port', 'spiffe://td:8080/a', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-7 an empty port', 'spiffe://td:/a', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-8 ID-25 a trust domain in upper case', 'spiffe://TD/a', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-8 one letter in upper case', 'spiffe://exampLe.org/a', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-10 a name with percent signs', 'spiffe://%62%61%64/path', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-10 a percent-encoded emoji as name', 'spiffe://%F0%9F%A4%AF/path', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-11 an address of IPv4', 'spiffe://10.0.0.1/a', '10.0.0.1 /a'],
    ['ID-11 an address of IPv6', 'spiffe://[::1]/a', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-12 a name that no DNS has: _', 'spiffe://_/a', '_ /a'],
    ['ID-12 a name that no DNS has: -', 'spiffe://-/a', '- /a'],
    ['ID-12 a name that no DNS has: .', 'spiffe://./a', '. /a'],
    ['ID-12 a name that no DNS has: a..b', 'spiffe://a..b/a', 'a..b /a'],
    ['ID-12 a label of 70 letters', `spiffe://${'a'.repeat(70)}/a`, `${'a'.repeat(70)} /a`],
    ['ID-12 an address in another spelling stays as it is', 'spiffe://010.0.1/a', '010.0.1 /a'],
    ['ID-12 a dot at the end stays', 'spiffe://example.org./a', 'example.org. /a'],
    ['ID-15 a path with percent signs', 'spiffe://td/%41', 'ID_PATH_CHAR'],
    ['ID-15 an encoded slash', 'spiffe://td/a%2Fb', 'ID_PATH_CHAR'],
    ['ID-15 a percent-encoded emoji in the path', 'spiffe://td/%F0%9F%A4%AF', 'ID_PATH_CHAR'],
    ['ID-16 an empty segment in front', 'spiffe://td//a', 'ID_PATH_EMPTY_SEGMENT'],
    ['ID-16 an empty segment between', 'spiffe://td/a//b', 'ID_PATH_EMPTY_SEGMENT'],
    ['ID-16 two slashes alone', 'spiffe://td//', 'ID_PATH_TRAILING_SLASH'],
    ['ID-17 one dot', 'spiffe://td/.', 'ID_PATH_DOT_SEGMENT'],
    ['ID-17 one dot in front', 'spiffe://td/./a', 'ID_PATH_DOT_SEGMENT'],
    ['ID-17 two dots at the end', 'spiffe://td/a/..', 'ID_PATH_DOT_SEGMENT'],
    ['ID-17 two dots between', 'spiffe://td/a/../b', 'ID_PATH_DOT_SEGMENT'],
    ['ID-17 three dots are a name', 'spiffe://td/...', 'td /...'],
    ['ID-17 a dot in front of a name', 'spiffe://td/.a', 'td /.a'],
    ['ID-17 two dots in front of a name', 'spiffe://td/..a', 'td /..a'],
    ['ID-17 a dot behind a name', 'spiffe://td/a.', 'td /a.'],
    ['ID-18 a lone slash', 'spiffe://td/', 'ID_PATH_TRAILING_SLASH'],
    ['ID-18 a slash at the end', 'spiffe://td/a/', 'ID_PATH_TRAILING_SLASH'],
    ['ID-19 a line feed at the end', 'spiffe://td/a\n', 'ID_PATH_CHAR'],
    ['ID-19 a NUL at the end', 'spiffe://td/a\0', 'ID_PATH_CHAR'],
    ['ID-19 a backslash', 'spiffe://td/a\\b', 'ID_PATH_CHAR'],
    ['ID-9 a line feed behind the name', 'spiffe://td\n', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-9 a letter that another alphabet writes alike', 'spiffe://t\u0501/a', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-9 a letter that becomes ASCII in lower case', 'spiffe://\u212A/a', 'ID_TRUST_DOMAIN_CHAR'],
  ];
  test.each(table)('%s', (_what, text, expected) => expect(parsed(text)).toBe(expected));

  const accepted = (around: (letter: string) => string) =>
    Array.from({ length: 256 }, (_, code) => String.fromCharCode(code)).filter((letter) => SpiffeId.is(around(letter)));

  test('ID-9 a trust domain is made of 39 characters', () => {
    expect(accepted((letter) => `spiffe://trustdomain${letter}`).join('')).toBe('-.0123456789_abcdefghijklmnopqrstuvwxyz');
  });

  test('ID-19 a segment is made of 65 characters', () => {
    expect(accepted((letter) => `spiffe://td/path${letter}`).join('')).toBe(
      '-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz',
    );
  });

  test('ID-21 ID-22 ID-24 has at most 2048 bytes, scheme and trust domain counted; none longer can be made', () => {
    const path = `/${'a'.repeat(2048 - 'spiffe://td/'.length)}`;
    const longest = `spiffe://td${path}`;
    expect(longest).toHaveLength(2048);
    expect(String(SpiffeId.parse(longest))).toBe(longest);
    expect(parsed(`${longest}a`)).toBe('ID_TOO_LONG');
    expect(String(SpiffeId.of(td, path))).toBe(longest);
    expect(outcome(() => SpiffeId.of(td, `${path}a`))).toBe('ID_TOO_LONG');
    expect(String(SpiffeId.fromSegments(td, path.slice(1)))).toBe(longest);
    expect(outcome(() => SpiffeId.fromSegments(td, path.slice(1), 'a'))).toBe('ID_TOO_LONG');
  });

  test('ID-26 is another one in another case; the same text is the same ID', () => {
    const id = SpiffeId.parse('spiffe://td/a');
    expect(id.equals(SpiffeId.parse('spiffe://td/a'))).toBe(true);
    expect(id.equals(SpiffeId.parse('spiffe://td/A'))).toBe(false);
    expect(id.equals(SpiffeId.parse('spiffe://td2/a'))).toBe(false);
    expect([id.memberOf(td), id.memberOf(TrustDomain.parse('td2'))]).toEqual([true, false]);
  });

  test('of any text is refused, or says again what was read and fits the grammar', () => {
    const piece = fc.constantFrom('spiffe://', 'td', 'TD', 'a', '/', '.', '..', '%41', '@', ':', '?', '#', '-', '_', ' ', '\u00e9', '\0');
    const texts = fc.oneof(
      fc.string(),
      fc.array(piece, { maxLength: 8 }).map((pieces) => `spiffe://${pieces.join('')}`),
    );
    const grammar = /^spiffe:\/\/[a-z0-9._-]+(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)*$/;
    fc.assert(
      fc.property(texts, (text) => {
        const isOne = grammar.test(text);
        expect(SpiffeId.is(text)).toBe(isOne);
        if (isOne) expect(String(SpiffeId.parse(text))).toBe(text);
      }),
      { numRuns: 2000 },
    );
  });

  test('made of segments, none of which can hold more than one', () => {
    expect(outcome(() => SpiffeId.fromSegments(td, 'ns', 'a'))).toBe('td /ns/a');
    expect(outcome(() => SpiffeId.fromSegments(td))).toBe('td');
    expect(outcome(() => SpiffeId.fromSegments(td, 'a/b'))).toBe('ID_PATH_CHAR');
    expect(outcome(() => SpiffeId.fromSegments(td, 'a', ''))).toBe('ID_PATH_EMPTY_SEGMENT');
    expect(outcome(() => SpiffeId.fromSegments(td, '..'))).toBe('ID_PATH_DOT_SEGMENT');
  });

  test('made of a path that begins with a slash', () => {
    expect(outcome(() => SpiffeId.of(td, '/a'))).toBe('td /a');
    expect(outcome(() => SpiffeId.of(td, 'a'))).toBe('ID_PATH_NO_LEADING_SLASH');
  });

  test('that is hostile and long is not repeated at length', () => {
    const refused = () => SpiffeId.parse(`spiffe://td/${'\n'.repeat(5000)}`);
    expect(refused).toThrow(SpiffeError);
    expect(refused).toThrow(/^.{0,600}$/);
  });
});

describe('a trust domain', () => {
  test('ID-23 has at most 255 bytes, alone and in an ID', () => {
    const longest = 'a'.repeat(255);
    expect(outcome(() => TrustDomain.parse(longest))).toBe(longest);
    expect(outcome(() => TrustDomain.parse(`${longest}a`))).toBe('ID_TRUST_DOMAIN_TOO_LONG');
    expect(parsed(`spiffe://${longest}/x`)).toBe(`${longest} /x`);
    expect(parsed(`spiffe://${longest}a/x`)).toBe('ID_TRUST_DOMAIN_TOO_LONG');
  });

  const table: [what: string, text: string, expected: string][] = [
    ['a name', 'example.org', 'example.org'],
    ['an ID without a path', 'spiffe://example.org', 'example.org'],
    ['an ID with a path', 'spiffe://example.org/web', 'example.org'],
    ['an ID of another scheme', 'https://example.org', 'ID_SCHEME'],
    ['ID-8 a name in upper case', 'Example.org', 'ID_TRUST_DOMAIN_CHAR'],
    ['ID-3 nothing', '', 'ID_TRUST_DOMAIN_MISSING'],
    ['ID-7 a name with a port', 'example.org:443', 'ID_TRUST_DOMAIN_CHAR'],
    ['a name with a slash', 'example.org/', 'ID_TRUST_DOMAIN_CHAR'],
  ];
  test.each(table)('from settings: %s', (_what, text, expected) => expect(outcome(() => TrustDomain.parseNameOrId(text))).toBe(expected));

  test('has an ID of its own, without a path', () => {
    expect(String(td.id)).toBe('spiffe://td');
    expect(JSON.stringify([td, SpiffeId.of(td, '/a')])).toBe('["td","spiffe://td/a"]');
    expect(td.equals(TrustDomain.parse('td'))).toBe(true);
    expect(td.equals(TrustDomain.parse('td2'))).toBe(false);
  });
});
