/** Flags in Go's form: every way of writing them, every way of writing them wrong, and help instead of a page. */
import { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { defineCommand, runCommand } from '../../cli/command.ts';
import { bool, commas, duration, type Flags, integer, list, output, parseFlags, text, type Values } from '../../cli/flags.ts';
import { main } from '../../cli/main.ts';
import { TestTerminal } from './terminal.ts';

const flags = {
  spiffeID: text('The SPIFFE ID', '', 'id'),
  mode: text('The mode', 'restrict'),
  ttl: integer('A lifetime in seconds'),
  expiredFor: duration('How long ago', 720 * 3_600_000),
  selector: list('A selector', 'type:value'),
  audience: commas('Audiences'),
  admin: bool('Whether it may do everything'),
  output,
} satisfies Flags;

async function parse(
  ...argv: string[]
): Promise<{ code: number; stdout: string; stderr: string; values?: Values<typeof flags>; given?: string[] }> {
  const terminal = new TestTerminal();
  const seen: { values?: Values<typeof flags>; given?: string[] } = {};
  const command = defineCommand<typeof flags>({
    summary: 'Does it',
    details: 'Example: warifu do it -spiffeID spiffe://example.org/a',
    flags,
    async run({ values, given }) {
      Object.assign(seen, { values: { ...values }, given: [...given] });
      return 0;
    },
  });
  const code = await runCommand('warifu do it', command, argv, terminal);
  return { code, stdout: terminal.stdout, stderr: terminal.stderr, ...seen };
}

const PRESETS = {
  spiffeID: '',
  mode: 'restrict',
  ttl: 0,
  expiredFor: 2_592_000_000,
  selector: [],
  audience: [],
  admin: false,
  output: 'pretty',
};

const read: readonly [argv: string[], values: Partial<Values<typeof flags>>][] = [
  [[], {}],
  [['-spiffeID', 'spiffe://a/b'], { spiffeID: 'spiffe://a/b' }],
  [['--spiffeID', 'x'], { spiffeID: 'x' }],
  [['-spiffeID=x=y'], { spiffeID: 'x=y' }],
  [['--spiffeID=x'], { spiffeID: 'x' }],
  [['-spiffeID', '-'], { spiffeID: '-' }],
  [['-spiffeID', '-admin'], { spiffeID: '-admin' }],
  [['-spiffeID', '--'], { spiffeID: '--' }],
  [['-spiffeID', ''], { spiffeID: '' }],
  [['-spiffeID='], { spiffeID: '' }],
  [['-spiffeID', 'a', '-spiffeID', 'b'], { spiffeID: 'b' }],
  [['-selector', 'unix:uid:1', '-selector', 'unix:gid:2'], { selector: ['unix:uid:1', 'unix:gid:2'] }],
  [['-audience', 'a,b', '-audience', 'c,d'], { audience: ['c', 'd'] }],
  [['-ttl', '60'], { ttl: 60 }],
  [['-ttl=-1'], { ttl: -1 }],
  [['-ttl', '0x10'], { ttl: 16 }],
  [['-expiredFor', '1h30m'], { expiredFor: 5_400_000 }],
  [['-admin'], { admin: true }],
  [['-admin=true'], { admin: true }],
  [['-admin=F'], { admin: false }],
  [['-admin', '-ttl', '1'], { admin: true, ttl: 1 }],
  [['-output', 'JSON'], { output: 'json' }],
  [['-output', 'prettyprint'], { output: 'pretty' }],
  [['-output', 'json', '-output', 'json'], { output: 'json' }],
  [['-ttl', '1', '--'], { ttl: 1 }],
];

describe('what is read', () => {
  for (const [argv, values] of read) {
    test(JSON.stringify(argv), async () => {
      expect(await parse(...argv)).toMatchObject({ code: 0, stderr: '', values: { ...PRESETS, ...values } });
    });
  }

  test('which flags were given is known, so that a file is only overruled by them', async () => {
    expect((await parse('-ttl', '0', '-admin=false')).given).toEqual(['ttl', 'admin']);
  });
});

const refused: readonly [argv: string[], words: RegExp][] = [
  [['-spifeID', 'x'], /^flag provided but not defined: -spifeID; did you mean -spiffeID\?\n/],
  [['-zzzzzzzzz'], /^flag provided but not defined: -zzzzzzzzz\n/],
  [['-spiffeID'], /^flag needs an argument: -spiffeID\n/],
  [['-ttl', 'soon'], /^invalid value "soon" for flag -ttl: parse error\n/],
  [['-ttl', '1.5'], /parse error/],
  [['-ttl', '9007199254740993'], /value out of range/],
  [['-expiredFor', '3600'], /^invalid value "3600" for flag -expiredFor: 3600 has no unit/],
  [['-admin=maybe'], /^invalid boolean value "maybe" for -admin: parse error\n/],
  [['-output', 'xml'], /^invalid value "xml" for flag -output: bad formatter flag: unknown format option: "xml"\n/],
  [
    ['-output', 'json', '-output', 'pretty'],
    /^invalid value "pretty" for flag -output: the output format has already been set to "json"\n/,
  ],
  [['---x'], /^bad flag syntax: ---x\n/],
  [['-=x'], /^bad flag syntax: -=x\n/],
  [['-admin', 'false'], /^unexpected argument "false"/],
  [['--', 'x'], /^unexpected argument "x"/],
  [['-constructor', 'x'], /not defined: -constructor/],
  [['-__proto__', 'x'], /not defined: -__proto__/],
];

describe('what is refused, in words on stderr and with exit code 1', () => {
  for (const [argv, words] of refused) {
    test(JSON.stringify(argv), async () => {
      const { code, stdout, stderr, values } = await parse(...argv);
      expect({ code, stdout, values }).toEqual({ code: 1, stdout: '', values: undefined });
      expect(stderr).toMatch(words);
    });
  }
});

describe('help', () => {
  test('tells every flag as it is typed, with its default, and the details', async () => {
    const { code, stdout } = await parse('--help');
    expect(code).toBe(0);
    for (const name of Object.keys(flags)) expect(stdout).toMatch(new RegExp(`^ {2}-${name}\\b`, 'm'));
    expect(stdout).toMatch(/-expiredFor <duration>.*\(default 720h0m0s\)/s);
    expect(stdout).toMatch(/Can be used more than once/);
    expect(stdout).toMatch(/Example: warifu do it/);
    expect(stdout).not.toMatch(/--spiffeID/);
  });

  test('is not taken from the value of a flag', async () => {
    expect((await parse('-spiffeID', '-h')).values?.spiffeID).toBe('-h');
  });

  const groups: readonly [argv: string[], words: RegExp][] = [
    [['--help'], /Commands:\s+server/],
    [['server', '-h'], /entry\s+Registration entries/],
    [['server', 'entry', '-help'], /create\s+Creates registration entries/],
    [['agent', 'api', '--help'], /watch/],
  ];
  for (const [argv, words] of groups) {
    test(`of ${argv.join(' ')} lists what is below`, async () => {
      const terminal = new TestTerminal();
      expect(await main(argv, terminal)).toBe(0);
      expect(terminal.stdout).toMatch(words);
    });
  }
});

describe('commands that are none', () => {
  // the exit codes of SPIRE's programs, each of which is one word of ours
  const rows: readonly [argv: string[], words: RegExp, code: number][] = [
    [['server', 'entyr', 'show'], /^unknown command "server entyr show"; did you mean "warifu server entry"\?/, 127],
    [['sever'], /did you mean "warifu server"\?/, 127],
    [['agent'], /^Usage: warifu agent/, 127],
    [['server', 'entry'], /^Usage: warifu server entry/, 1],
    [['server', 'entry', 'make'], /^unknown command "server entry make"/, 1],
    [[], /^Usage: warifu/, 127],
  ];
  for (const [argv, words, code] of rows) {
    test(JSON.stringify(argv), async () => {
      const terminal = new TestTerminal();
      expect(await main(argv, terminal)).toBe(code);
      expect(terminal.stderr).toMatch(words);
      expect(terminal.stdout).toBe('');
    });
  }
});

test.each([[['--version']], [['server', '-version']], [['agent', '-v']]])('%j prints the version and nothing else', async (argv) => {
  const terminal = new TestTerminal();
  expect(await main(argv, terminal)).toBe(0);
  expect(terminal.stdout).toMatch(/^\d+\.\d+\.\d+\S*\n$/);
  expect(terminal.stderr).toBe('');
});

describe('operands', () => {
  const one = { output };
  const read = (argv: string[], names: string[]) => {
    const { values, operands } = parseFlags(one, argv, new Command().exitOverride(), names);
    return [values.output, ...operands];
  };
  test('stand before, behind or between flags, or after --', () => {
    expect(read(['dir', '-output', 'json'], ['DIR'])).toEqual(['json', 'dir']);
    expect(read(['-output=json', 'dir'], ['DIR'])).toEqual(['json', 'dir']);
    expect(read(['a', '-output=json', 'b'], ['A', 'B'])).toEqual(['json', 'a', 'b']);
    expect(read(['--', '-dir'], ['DIR'])).toEqual(['pretty', '-dir']);
  });
  test('one too few is missed by its name, one too many is refused, and so is one where none belongs', () => {
    expect(() => read([], ['DIR'])).toThrow('DIR is missing');
    expect(() => read(['a'], ['A', 'B'])).toThrow('B is missing');
    expect(() => read(['a', 'b'], ['DIR'])).toThrow('unexpected argument "b"');
    expect(() => read(['a'], [])).toThrow('unexpected argument "a"');
  });
});
