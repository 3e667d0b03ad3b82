/** HCL 1 as SPIRE's files use it: what is read, what is refused and where, and that nothing makes the reader do anything else. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type HclValue, parseHcl } from '../../core/hcl.ts';
import { SpiffeError } from '../../spiffe/errors.ts';

/** The tree without places: blocks as [keys, value] lists, since order and repetition count. */
function plain(value: HclValue): unknown {
  switch (value.kind) {
    case 'object':
      return value.items.map((item) => [...item.keys.map((key) => key.name), plain(item.value)]);
    case 'list':
      return { list: value.items.map(plain) };
    case 'string':
    case 'number':
    case 'bool':
      return value.value;
  }
}

const read: readonly [what: string, text: string, tree: unknown][] = [
  ['nothing', '', []],
  ['a string', 'a = "b"', [['a', 'b']]],
  ['a string right after the "=", as in SPIRE\'s agent.conf', 'socket_path ="/run/x"', [['socket_path', '/run/x']]],
  ['an integer', 'a = 8081', [['a', 8081]]],
  ['a negative number', 'a = -3', [['a', -3]]],
  ['a fraction', 'a = 1.5', [['a', 1.5]]],
  ['an exponent', 'a = 1.5e3', [['a', 1500]]],
  ['a hexadecimal number', 'a = 0x1F', [['a', 31]]],
  [
    'true and false',
    'a = true\nb = false',
    [
      ['a', true],
      ['b', false],
    ],
  ],
  ['a list', 'a = ["x", "y"]', [['a', { list: ['x', 'y'] }]]],
  ['a list with a comma at its end', 'a = [\n 1,\n 2,\n]', [['a', { list: [1, 2] }]]],
  ['an empty list', 'a = []', [['a', { list: [] }]]],
  ['a list of lists', 'a = [[1], [2, 3]]', [['a', { list: [{ list: [1] }, { list: [2, 3] }] }]]],
  ['a list of objects', 'a = [{ b = 1 }, { b = 2 }]', [['a', { list: [[['b', 1]], [['b', 2]]] }]]],
  ['a block', 'server {\n  a = 1\n}', [['server', [['a', 1]]]]],
  ['an empty block on one line', 'plugin_data {}', [['plugin_data', []]]],
  ['a block on one line', 'a { b = "c" }', [['a', [['b', 'c']]]]],
  [
    'items on one line with and without commas',
    'a { b = 1, c = 2 d = 3 }',
    [
      [
        'a',
        [
          ['b', 1],
          ['c', 2],
          ['d', 3],
        ],
      ],
    ],
  ],
  ['an assigned object', 'plugin_data = {}', [['plugin_data', []]]],
  ['a label', 'KeyManager "memory" { plugin_data {} }', [['KeyManager', 'memory', [['plugin_data', []]]]]],
  ['two labels', '"NodeAttestor" "k8s" plugin_data { a = 1 }', [['NodeAttestor', 'k8s', 'plugin_data', [['a', 1]]]]],
  ['a quoted key', '"a b" = 1', [['a b', 1]]],
  ['keys with dots and dashes', 'a.b-c = 1', [['a.b-c', 1]]],
  [
    'a block that stands twice',
    'a { x = 1 }\na { y = 2 }',
    [
      ['a', [['x', 1]]],
      ['a', [['y', 2]]],
    ],
  ],
  [
    'comments of all three kinds',
    '# one\n// two\n/* three\n * lines */ a = 1 # end\nb = /* in */ 2',
    [
      ['a', 1],
      ['b', 2],
    ],
  ],
  ['a comment at the very end', 'a = 1 # end', [['a', 1]]],
  ['comments in a list', 'a = [\n # one\n 1, # two\n // three\n 2,\n]', [['a', { list: [1, 2] }]]],
  ['escapes', String.raw`a = "\n\t\"\\\x41\101é\U0001F600"`, [['a', '\n\t"\\AAé😀']]],
  ['bytes that make UTF-8 together', String.raw`a = "\xc3\xa9"`, [['a', 'é']]],
  ['an interpolation as it stands', 'a = "x ${b("c")} \\n"', [['a', 'x ${b("c")} \n']]],
  [
    'Windows line ends',
    'a = 1\r\nb = 2\r\n',
    [
      ['a', 1],
      ['b', 2],
    ],
  ],
  ['a heredoc', 'a = <<EOF\none\n two\nEOF\n', [['a', 'one\n two\n']]],
  ['an indented heredoc', 'a = <<-EOF\n    one\n      two\n    EOF\n', [['a', 'one\n  two\n']]],
  ['a heredoc with less indent than its marker', 'a = <<-EOF\n  one\n    EOF\n', [['a', '  one\n']]],
  ['letters of other scripts in a key', 'größe = 1', [['größe', 1]]],
];

describe('what is read', () => {
  for (const [what, text, tree] of read) test(what, () => expect(plain(parseHcl(text))).toEqual(tree));

  test('a number keeps the text it was written as', () => {
    expect(parseHcl('a = 1e3').items[0]?.value).toMatchObject({ value: 1000, text: '1e3' });
  });

  test('every key and value knows its line and column', () => {
    const [server] = parseHcl('# first\nserver {\n  bind_port =\n    8081\n}').items;
    expect(server?.keys[0]?.position).toEqual({ line: 2, column: 1 });
    const port = server?.value.kind === 'object' ? server.value.items[0] : undefined;
    expect(port?.keys[0]?.position).toEqual({ line: 3, column: 3 });
    expect(port?.value.position).toEqual({ line: 4, column: 5 });
  });
});

const refused: readonly [what: string, text: string, words: RegExp][] = [
  ['a key without a value', 'a = 1\nfoo', /^2:4: after "foo" expected "=" or "\{", found the end/],
  ['a key without a value in a block', 'a {\n b\n}', /^3:1: after "b"/],
  ['an assignment of nothing', 'a {\n b =\n}', /^3:1: expected a value, found "\}"/],
  ['a bare word as a value', 'a = b', /^1:5: .*words need quotes/],
  ['True with a capital', 'a = True', /words need quotes/],
  ['a colon for an equals sign', 'a: 1', /^1:2: unexpected character ":"/],
  ['a block without a key', '{}', /expected a key/],
  ['a label before an equals sign', 'a "b" = {}', /takes no "="/],
  ['a block that is not closed', 'a {\n b = 1\n', /^3:1: the file ends inside a block/],
  ['a brace too many', 'a {}\n}', /^2:1: expected a key, found "\}"/],
  ['a list that is not closed', 'a = [1,', /ends inside a list/],
  ['a list without a comma', 'a = [1 2]', /^1:8: in a list expected/],
  ['a list with two commas', 'a = [1,,2]', /expected a value, found ","/],
  ['a string that is not closed', 'a = "b', /^1:5: a string is not closed/],
  ['a string over two lines', 'a = "b\nc"', /a string is not closed/],
  ['an interpolation that is not closed', 'a = "${b', /a string is not closed/],
  ['a string in single quotes', "a = 'b'", /unexpected character "'"/],
  ['an unknown escape', String.raw`a = "\q"`, /^1:6: unknown escape/],
  ['an escape cut short', String.raw`a = "\u12"`, /needs 4 digits/],
  ['half a pair', String.raw`a = "\ud800"`, /is no character/],
  ['bytes that are no UTF-8', String.raw`a = "\xff"`, /no UTF-8/],
  ['a comment that is not closed', 'a = 1\n/* b', /^2:1: a comment is not closed/],
  ['a heredoc that is not closed', 'a = <<EOF\nb\n', /^1:5: a heredoc is not closed/],
  ['a heredoc without a marker', 'a = <<\nb', /a heredoc starts with/],
  ['a duration without quotes', 'ttl = 1h', /goes on as "h": it needs quotes/],
  ['a number with a zero before it', 'a = 010', /octal/],
  ['a number that no double holds', 'a = 9007199254740993', /too large/],
  ['a key set twice in one block', 'a {\n b = 1\n b = 2\n}', /^3:2: "b" is set twice/],
  ['a NUL', 'a = "\0"', /not text/],
  ['nesting without end', 'a {'.repeat(40), /nested deeper than 32/],
  ['lists without end', `a = ${'['.repeat(100_000)}`, /nested deeper than 32/],
  ['labels without end', `a ${'"" '.repeat(100_000)}{}`, /a block with more than 32 labels/],
  ['a megabyte and more', ' '.repeat(1 << 20) + 'a', /longer than/],
];

describe('what is refused, with its place', () => {
  for (const [what, text, words] of refused) {
    test(what, () => {
      const error = thrownBy(() => parseHcl(text));
      expect(error).toMatchObject({ code: 'SETTINGS_INVALID', message: expect.stringMatching(words) });
    });
  }
});

function thrownBy(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    return error;
  }
  return undefined;
}

test('whatever the text, the reader ends, and refuses only with SETTINGS_INVALID and a place', () => {
  const scraps = fc.constantFrom(
    '{',
    '}',
    '[',
    ']',
    '=',
    ',',
    '"',
    '\\',
    '\n',
    ' ',
    '<<EOF\n',
    'EOF',
    '/*',
    '*/',
    '#',
    '//',
    '${',
    'a',
    'b "c"',
    '1',
    '0x',
    '-',
    '.',
    'true',
    '\0',
    '\ud800',
    'é',
    'ÿ',
  );
  const hostile = fc.oneof(
    fc.array(scraps, { maxLength: 60 }).map((parts) => parts.join('')),
    fc.string({ unit: 'binary', maxLength: 80 }),
  );
  fc.assert(
    fc.property(hostile, (text) => {
      const error = thrownBy(() => parseHcl(text));
      if (error === undefined) return;
      expect(error).toBeInstanceOf(SpiffeError);
      expect(error).toMatchObject({ code: 'SETTINGS_INVALID', message: expect.stringMatching(/^\d+:\d+: /) });
    }),
    { numRuns: 2000 },
  );
});

test('a string written with escapes reads back as what it was', () => {
  const written = (text: string) =>
    `"${Array.from(text, (char) => `\\U${(char.codePointAt(0) ?? 0).toString(16).padStart(8, '0')}`).join('')}"`;
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      expect(plain(parseHcl(`a = ${written(text)}`))).toEqual([['a', text]]);
    }),
  );
});

test('a number that starts with a zero is octal where that is wanted, and refused elsewhere', () => {
  const value = (text: string, octal: boolean) => parseHcl(`mode = ${text}`, { octal }).items[0]?.value;
  expect(value('0644', true)).toMatchObject({ kind: 'number', value: 0o644, text: '0644' });
  expect(value('444', true)).toMatchObject({ kind: 'number', value: 444, text: '444' });
  expect(() => value('0644', false)).toThrow('starts with a zero');
  for (const no of ['0648', '-0644', '0644.5', '0644x', '08']) expect(() => value(no, true)).toThrow();
});
