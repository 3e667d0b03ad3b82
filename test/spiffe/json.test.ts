import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SpiffeError } from '../../spiffe/errors.ts';
import { parseJson } from '../../spiffe/json.ts';

function reason(text: string | Uint8Array, limits?: Parameters<typeof parseJson>[1]): unknown {
  try {
    parseJson(text, limits);
    return 'read';
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    return error.reason;
  }
}

describe('strict JSON', () => {
  test('is read as JSON.parse reads it, wherever both read it', () => {
    const plain = (_member: string, value: unknown) => (typeof value === 'bigint' ? Number(value) : value);
    fc.assert(
      fc.property(fc.json(), (text) => {
        expect(JSON.stringify(parseJson(text), plain)).toBe(JSON.stringify(JSON.parse(text)));
      }),
    );
  });

  test('accepts nothing that JSON.parse refuses', () => {
    const piece = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      ',',
      ':',
      '"',
      '\\',
      'a',
      '1',
      '-',
      '.',
      'e',
      '0',
      'true',
      'null',
      ' ',
      '\n',
      '\u0000',
      '"a"',
      '\\u00',
      '\ufeff',
      '\ud800',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const text = pieces.join('');
        if (reason(text) === 'read') JSON.parse(text);
      }),
      { numRuns: 5000 },
    );
  });

  const table: [string, string, unknown][] = [
    ['NODE-2 TDB-30 a member twice', '{"a":1,"a":2}', 'JSON_DUPLICATE'],
    ['NODE-2 a member twice, once escaped', '{"a":1,"\\u0061":2}', 'JSON_DUPLICATE'],
    ['a member twice below', '[{"a":{"b":1,"b":1}}]', 'JSON_DUPLICATE'],
    ['the same member in two objects', '[{"a":1},{"a":1}]', 'read'],
    ['__proto__ as any other member', '{"__proto__":{"x":1},"constructor":2}', 'read'],
    ['half a surrogate pair', '"\\ud800"', 'JSON_SYNTAX'],
    ['a surrogate pair', '"\\ud83d\\ude00"', 'read'],
    ['a comma too many', '[1,]', 'JSON_SYNTAX'],
    ['a leading zero', '01', 'JSON_SYNTAX'],
    ['a plus', '+1', 'JSON_SYNTAX'],
    ['infinity', '1e999', 'JSON_SYNTAX'],
    ['a comment', '/**/1', 'JSON_SYNTAX'],
    ['a line feed in a string', '"a\nb"', 'JSON_SYNTAX'],
    ['32 levels', `${'['.repeat(32)}${']'.repeat(32)}`, 'read'],
    ['33 levels', `${'['.repeat(33)}${']'.repeat(33)}`, 'JSON_TOO_DEEP'],
    ['a million levels', '['.repeat(1_000_000), 'JSON_TOO_DEEP'],
    ['too many bytes', `"${'a'.repeat(1024 * 1024)}"`, 'JSON_TOO_LARGE'],
  ];
  test.each(table)('%s', (_name, text, expected) => expect(reason(text)).toBe(expected));

  test('NODE-2 integers beyond 2^53 stay exact', () => {
    expect(parseJson('[9007199254740991,9007199254740993,-18446744073709551615,1.5,1e3]')).toEqual([
      9007199254740991,
      9007199254740993n,
      -18446744073709551615n,
      1.5,
      1000,
    ]);
  });

  test('bytes must be UTF-8 without a byte order mark', () => {
    expect(reason(Buffer.from('"é"'))).toBe('read');
    expect(reason(Buffer.from('"é"', 'latin1'))).toBe('JSON_SYNTAX');
    expect(reason(Buffer.from('\ufeff1'))).toBe('JSON_SYNTAX');
    expect(reason(Buffer.from('{"keys":[]}', 'utf16le'))).toBe('JSON_SYNTAX');
  });

  test('a member cannot reach the prototype of objects', () => {
    const value = parseJson('{"__proto__":{"polluted":true}}') as Record<string, unknown>;
    expect(Object.keys(value)).toEqual(['__proto__']);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
    expect('toString' in value).toBe(false);
  });
});
