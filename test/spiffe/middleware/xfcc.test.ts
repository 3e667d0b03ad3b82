/** `x-forwarded-client-cert`: what is read as Envoy wrote it, what is refused, and that nothing else happens. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { MAX_XFCC_BYTES, parseXfcc } from '../../../spiffe/middleware/xfcc.ts';

const HASH = '468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688';
const BY = 'By=spiffe://example.org/proxy';
const URI = 'URI=spiffe://example.org/web';
const ADMIN = 'URI=spiffe://example.org/admin';

function outcome(header: string, elements: 'one' | 'last' = 'last'): string {
  try {
    return String(parseXfcc(header, elements).id);
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    expect(error.code).toBe('UNAUTHENTICATED');
    return String(error.reason);
  }
}
const WEB = 'spiffe://example.org/web';

describe('as Envoy writes it', () => {
  test('every key that it has, in its order', () => {
    const header = `${BY};Hash=${HASH};Cert="-----BEGIN%20CERTIFICATE-----%0A";Chain="-----BEGIN";Subject="CN=web,O=\\"Ex\\\\ample\\";C=US";${URI};DNS=a.example.org;DNS=b.example.org`;
    const { id, by, hash } = parseXfcc(header, 'one');
    expect([String(id), String(by), hash]).toEqual([WEB, 'spiffe://example.org/proxy', HASH]);
  });
  const rows: readonly [what: string, header: string, expected: string][] = [
    ['the URI alone', URI, WEB],
    ['a value in quotes', 'URI="spiffe://example.org/web"', WEB],
    ['keys in any case', `by=spiffe://example.org/proxy;HASH=${HASH};uri=spiffe://example.org/web`, WEB],
    ['an empty subject', `Subject="";${URI}`, WEB],
    ['two elements: the last one', `${BY};Hash=${HASH};${ADMIN},${BY};Hash=${HASH};${URI}`, WEB],
    ['an element of another proxy that says less', `Hash=${HASH},${URI}`, WEB],
    ['commas and semicolons within quotes part nothing', `Subject="a,b;URI=spiffe://example.org/admin,c";${URI}`, WEB],
  ];
  test.each(rows)('%s', (_what, header, expected) => expect(outcome(header)).toBe(expected));

  test('one element where one is expected; two there are refused', () => {
    expect(outcome(`${BY};${URI}`, 'one')).toBe(WEB);
    expect(outcome(`${BY};${ADMIN},${BY};${URI}`, 'one')).toBe('XFCC_ELEMENTS');
  });
});

describe('what is refused', () => {
  const rows: readonly [what: string, header: string, reason: string][] = [
    ['nothing', '', 'XFCC_SYNTAX'],
    ['an element of nothing at the end', `${URI},`, 'XFCC_SYNTAX'],
    ['an element of nothing at the start', `,${URI}`, 'XFCC_SYNTAX'],
    ['a pair of nothing', `${BY};;${URI}`, 'XFCC_SYNTAX'],
    ['a semicolon at the end', `${URI};`, 'XFCC_SYNTAX'],
    ['a key without a value', `URI`, 'XFCC_SYNTAX'],
    ['a value without a key', `=spiffe://example.org/web`, 'XFCC_SYNTAX'],
    ['white space before a key', `${BY}; ${URI}`, 'XFCC_SYNTAX'],
    ['white space after a comma', `${URI}, ${URI}`, 'XFCC_SYNTAX'],
    ['white space around the equals sign', 'URI =spiffe://example.org/web', 'XFCC_SYNTAX'],
    ['white space in a value', 'URI=spiffe://example.org/web admin', 'XFCC_SYNTAX'],
    ['an equals sign in a value without quotes', `By=a=b;${URI}`, 'XFCC_SYNTAX'],
    ['a backslash in a value without quotes', `${BY}\\;${URI}`, 'XFCC_SYNTAX'],
    ['a quote in the middle of a value', `By=a"b";${URI}`, 'XFCC_SYNTAX'],
    ['something behind the closing quote', `Subject="a"b;${URI}`, 'XFCC_SYNTAX'],
    ['a quote that is not closed', `Subject="a;${URI}`, 'XFCC_SYNTAX'],
    ['a quote that is closed only by an escaped one', `Subject="a;${URI};Subject=\\"`, 'XFCC_SYNTAX'],
    ['a control character', `Subject="a\u0000";${URI}`, 'XFCC_SYNTAX'],
    ['a letter beyond ASCII', `Subject="ü";${URI}`, 'XFCC_SYNTAX'],
    ['JSON, which newer Envoys may write', `{"uri":["spiffe://example.org/web"]}`, 'XFCC_SYNTAX'],
    ['no URI', `${BY};Hash=${HASH}`, 'XFCC_URI'],
    ['no URI in the last element', `${URI},${BY};Hash=${HASH}`, 'XFCC_URI'],
    ['an empty URI, which Envoy writes for none', `${BY};URI=`, 'XFCC_URI'],
    ['an empty URI in quotes', 'URI=""', 'XFCC_URI'],
    ['a URI that is no SPIFFE ID', 'URI=https://example.org/web', 'XFCC_URI'],
    ['a URI in upper case', 'URI=spiffe://EXAMPLE.org/web', 'XFCC_URI'],
    ['a trust domain', 'URI=spiffe://example.org', 'XFCC_URI'],
    ['an escape in the URI', 'URI="spiffe://example.org/\\web"', 'XFCC_URI'],
    ['an escaped quote in the URI', 'URI="spiffe://example.org/we\\"b"', 'XFCC_URI'],
    ['two URIs', `${URI};${ADMIN}`, 'XFCC_KEY'],
    ['two URIs, one in lower case', `${URI};uri=spiffe://example.org/web`, 'XFCC_KEY'],
    ['two of By', `${BY};${BY};${URI}`, 'XFCC_KEY'],
    ['two hashes', `Hash=${HASH};Hash=${HASH};${URI}`, 'XFCC_KEY'],
    ['a key that Envoy does not have', `San=a;${URI}`, 'XFCC_KEY'],
    ['the name of a method of every object', `constructor=a;${URI}`, 'XFCC_KEY'],
    ['a DNS name that smuggles in a URI', `${BY};DNS=a;${ADMIN}`, 'XFCC_KEY'],
    ['a By that is no SPIFFE ID', `By=http://frontend.example.org;${URI}`, 'XFCC_BY'],
    ['an empty By', `By=;${URI}`, 'XFCC_BY'],
    ['a hash that is none', `Hash=abc;${URI}`, 'XFCC_HASH'],
    ['a hash in upper case', `Hash=${HASH.toUpperCase()};${URI}`, 'XFCC_HASH'],
    ['seventeen elements', Array.from({ length: 17 }, () => URI).join(','), 'XFCC_ELEMENTS'],
  ];
  test.each(rows)('%s', (_what, header, reason) => expect(outcome(header)).toBe(reason));

  test('sixteen elements are not too many', () => expect(outcome(Array.from({ length: 16 }, () => URI).join(','))).toBe(WEB));
  test('64 KiB are read, in one pass; a byte more is not', () => {
    const long = (bytes: number) =>
      `Subject="${'\\"'.repeat((bytes - URI.length - 11) / 2)}${'a'.repeat((bytes - URI.length - 11) % 2)}";${URI}`;
    expect(long(MAX_XFCC_BYTES)).toHaveLength(MAX_XFCC_BYTES);
    expect(outcome(long(MAX_XFCC_BYTES))).toBe(WEB);
    expect(outcome(long(MAX_XFCC_BYTES + 1))).toBe('XFCC_TOO_LARGE');
    expect(outcome('"'.repeat(MAX_XFCC_BYTES))).toBe('XFCC_SYNTAX');
    expect(outcome(`Subject="${'a'.repeat(MAX_XFCC_BYTES - 9)}`)).toBe('XFCC_SYNTAX');
  });
});

/** Text that looks like the header, and is not. */
const nearly = fc
  .array(
    fc.constantFrom(
      'By',
      'Hash',
      'Subject',
      'URI',
      'DNS',
      'uri',
      '=',
      '"',
      '\\',
      '\\"',
      ',',
      ';',
      ' ',
      'a',
      WEB,
      'spiffe://example.org/admin',
      HASH,
    ),
    {
      maxLength: 30,
    },
  )
  .map((parts) => parts.join(''));

test('no text makes it throw anything but a SpiffeError', () => {
  fc.assert(
    fc.property(
      fc.oneof(nearly, fc.string(), fc.string({ unit: 'binary' })),
      fc.constantFrom('one' as const, 'last' as const),
      (header, elements) => {
        outcome(header, elements);
      },
    ),
    { numRuns: 5_000 },
  );
});

test('whatever a client sends before, a proxy that appends is heard, or nobody is', () => {
  const appended = [`${BY};Hash=${HASH};${URI}`, `${BY};Hash=${HASH};Subject="O=a\\,b,CN=c\\"d\\\\";${URI};DNS=a.example.org`];
  fc.assert(
    fc.property(nearly, fc.constantFrom(...appended), (before, own) => {
      expect([WEB, 'XFCC_SYNTAX', 'XFCC_ELEMENTS']).toContain(outcome(`${before},${own}`));
    }),
    { numRuns: 20_000 },
  );
});

test('what Envoy writes of any certificate’s subject is read as it was meant', () => {
  const subject = fc.string({ unit: 'grapheme-ascii' }).map((text) => text.replace(/["\\,+<>;]/g, '\\$&'));
  fc.assert(
    fc.property(subject, (text) => {
      expect(outcome(`${BY};Hash=${HASH};Subject="${text}";${URI}`, 'one')).toBe(WEB);
    }),
  );
});
