/** Flags as SPIRE's users type them: Go's `-name value`, `-name=value` and `--name=value`, read by commander in its own form. */
import { type Command as Commander, Option } from 'commander';
import { formatDuration, parseDurationMs } from '../core/duration.ts';
import { fail } from '../core/errors.ts';
import { nearest } from '../core/nearest.ts';

interface Base {
  readonly help: string;
  /** How the value is called in the help. */
  readonly value?: string;
  /** The variable that counts when the flag was not given. An empty one says nothing. */
  readonly env?: string;
}
export type Flag =
  | (Base & { readonly kind: 'text'; readonly preset: string })
  /** `negated`: `--no-name` switches it off, too. */
  | (Base & { readonly kind: 'bool'; readonly negated?: true })
  | (Base & { readonly kind: 'integer'; readonly preset: number })
  /** Milliseconds within; a Go duration on the command line. */
  | (Base & { readonly kind: 'duration'; readonly preset: number })
  /** May be given more than once. */
  | (Base & { readonly kind: 'list' })
  /** Values with commas between them. The last one given counts, as in SPIRE. */
  | (Base & { readonly kind: 'commas' })
  | (Base & { readonly kind: 'output' });

export type Flags = Readonly<Record<string, Flag>>;

type ValueOf<F extends Flag> = F extends { kind: 'text' }
  ? string
  : F extends { kind: 'bool' }
    ? boolean
    : F extends { kind: 'integer' | 'duration' }
      ? number
      : F extends { kind: 'output' }
        ? 'pretty' | 'json'
        : readonly string[];
/** What a command gets: a value for each of its flags, the preset when it was not given. */
export type Values<F extends Flags> = { readonly [K in keyof F]: ValueOf<F[K]> };

export const text = (help: string, preset = '', value = 'text') => ({ kind: 'text', help, preset, value }) as const;
export const bool = (help: string) => ({ kind: 'bool', help }) as const;
export const toggle = (help: string) => ({ kind: 'bool', negated: true, help }) as const;
export const integer = (help: string, preset = 0, value = 'number') => ({ kind: 'integer', help, preset, value }) as const;
export const duration = (help: string, presetMs: number) => ({ kind: 'duration', help, preset: presetMs, value: 'duration' }) as const;
export const list = (help: string, value = 'text') => ({ kind: 'list', help: `${help}. Can be used more than once`, value }) as const;
export const commas = (help: string, value = 'a,b') => ({ kind: 'commas', help, value }) as const;
export const output = { kind: 'output', help: 'Desired output format (pretty, json)', value: 'format' } as const;

export interface Parsed<F extends Flags> {
  readonly values: Values<F>;
  /** Which flags stood on the command line. */
  readonly given: ReadonlySet<keyof F & string>;
  /** As many as the command has. */
  readonly operands: readonly string[];
}

/**
 * Reads `argv` into values. Throws REQUEST_INVALID in Go's words. `commander` is the command to declare the flags on.
 * @param names what the command wants besides flags, each of which must be there, before, behind or between them
 * @param env where flags that were not given may have a value
 */
export function parseFlags<F extends Flags>(
  flags: F,
  argv: readonly string[],
  commander: Commander,
  names: readonly string[] = [],
  env: Readonly<Record<string, string | undefined>> = {},
): Parsed<F> {
  declareFlags(flags, commander);
  const given = new Set<string>();
  const operands: string[] = [];
  const written = longOptions(flags, argv, given, operands, names.length);
  commander.parse([...fromEnvironment(flags, given, env), ...written], { from: 'user' });
  const missing = names[operands.length];
  if (missing !== undefined) throw fail('REQUEST_INVALID', `${missing} is missing`);
  // commander makes one word of a name with hyphens
  const values = Object.fromEntries(commander.options.map((one) => [one.name(), commander.getOptionValue(one.attributeName())]));
  return { values: values as Values<F>, given, operands };
}

function fromEnvironment(flags: Flags, given: ReadonlySet<string>, env: Readonly<Record<string, string | undefined>>): string[] {
  return Object.entries(flags).flatMap(([name, flag]) => {
    const value = flag.env === undefined || given.has(name) ? undefined : env[flag.env];
    return value ? [`--${name}=${value}`] : [];
  });
}

/** Whether the user asks for help: Go's `-h` and `-help`, as long as they are flags and not a flag's value. */
export function asksForHelp(flags: Flags, argv: readonly string[], operands = 0): boolean {
  let left = operands;
  for (let i = 0; i < argv.length; i++) {
    const name = /^--?([^-=][^=]*)(=)?/.exec(argv[i] ?? '');
    if (!name && argv[i] !== '--' && left-- > 0) continue;
    if (!name) return false;
    if (name[1] === 'h' || name[1] === 'help') return true;
    const flag = flagNamed(flags, name[1] ?? '');
    if (flag && flag.kind !== 'bool' && name[2] === undefined) i++;
  }
  return false;
}

function flagNamed(flags: Flags, name: string): Flag | undefined {
  if (Object.hasOwn(flags, name)) return flags[name];
  return isNegation(flags, name) ? flags[name.slice(NO.length)] : undefined;
}

const NO = 'no-';

function isNegation(flags: Flags, name: string): boolean {
  const switched = name.slice(NO.length);
  const flag = name.startsWith(NO) && !Object.hasOwn(flags, name) && Object.hasOwn(flags, switched) ? flags[switched] : undefined;
  return flag?.kind === 'bool' && flag.negated === true;
}

/** Go's flags as commander's: each `--name=value`, or `--name` for a switch that is on. */
function longOptions(flags: Flags, argv: readonly string[], given: Set<string>, operands: string[], wanted: number): string[] {
  const long: string[] = [];
  let onlyOperands = false;
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? '';
    if (operands.length < wanted && word !== '--' && (onlyOperands || !word.startsWith('-') || word === '-')) {
      operands.push(word);
      continue;
    }
    const [, name = '', equals, attached = ''] = /^--?([^-=][^=]*)(=)?([\s\S]*)$/.exec(word) ?? [];
    if (name === '') {
      if (word.startsWith('-') && word !== '-' && word !== '--') throw fail('REQUEST_INVALID', `bad flag syntax: ${word}`);
      const left = word === '--' ? argv[i + 1] : word;
      if (left === undefined) return long;
      if (word === '--' && operands.length < wanted && !onlyOperands) {
        onlyOperands = true;
        continue;
      }
      throw fail(
        'REQUEST_INVALID',
        `unexpected argument ${JSON.stringify(left)}: flags start with "-", and a switch takes its value as -name=false`,
      );
    }
    const flag = flagNamed(flags, name);
    if (!flag) {
      const near = nearest(name, Object.keys(flags));
      throw fail('REQUEST_INVALID', `flag provided but not defined: -${name}${near === undefined ? '' : `; did you mean -${near}?`}`);
    }
    if (flag.kind === 'bool') {
      const negation = isNegation(flags, name);
      const own = negation ? name.slice(NO.length) : name;
      given.add(own);
      if (equals !== undefined && (negation || !(TRUE.has(attached) || FALSE.has(attached))))
        throw fail('REQUEST_INVALID', `invalid boolean value ${JSON.stringify(attached)} for -${name}: parse error`);
      // the last one counts
      if (long.includes(`--${own}`)) long.splice(long.indexOf(`--${own}`), 1);
      if (!negation && (equals === undefined || TRUE.has(attached))) long.push(`--${own}`);
      continue;
    }
    given.add(name);
    if (equals === undefined && i + 1 >= argv.length) throw fail('REQUEST_INVALID', `flag needs an argument: -${name}`);
    long.push(`--${name}=${equals === undefined ? argv[++i] : attached}`);
  }
  return long;
}

/** As Go's strconv.ParseBool. */
const TRUE = new Set(['1', 't', 'T', 'true', 'TRUE', 'True']);
const FALSE = new Set(['0', 'f', 'F', 'false', 'FALSE', 'False']);

/** Tells commander of the flags: how each is read, what it is without being given, what the help says of it. */
export function declareFlags(flags: Flags, commander: Commander): void {
  // of all flags that name a format, as SPIRE has it: two that differ are a slip
  let format: unknown;
  for (const [name, flag] of Object.entries(flags)) {
    if (flag.kind === 'bool') {
      commander.addOption(new Option(`--${name}`, flag.help).default(false, 'off'));
      continue;
    }
    const option = new Option(`--${name} <${flag.value ?? flag.kind}>`, flag.env ? `${flag.help}; env ${flag.env}` : flag.help);
    const read = READERS[flag.kind];
    option.argParser((written: string, before: unknown) => {
      let value = read(written, before);
      if (flag.kind === 'output' && !(value instanceof Refusal)) {
        if (format !== undefined && format !== value)
          value = new Refusal(`the output format has already been set to ${JSON.stringify(format)}`);
        else format = value;
      }
      if (value instanceof Refusal)
        throw fail('REQUEST_INVALID', `invalid value ${JSON.stringify(written)} for flag -${name}: ${value.why}`);
      return value;
    });
    commander.addOption(option.default(...presetOf(flag)));
  }
}

class Refusal {
  readonly why: string;
  constructor(why: string) {
    this.why = why;
  }
}

const READERS: Readonly<Record<Exclude<Flag['kind'], 'bool'>, (written: string, before: unknown) => unknown>> = {
  text: (written) => written,
  integer: (written) => {
    // as Go's strconv.ParseInt with base 0, without its octal
    const value = /^[+-]?(0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)$/.test(written) ? Number(written) : Number.NaN;
    return Number.isSafeInteger(value) ? value : new Refusal(Number.isNaN(value) ? 'parse error' : 'value out of range');
  },
  duration: (written) => {
    const ms = parseDurationMs(written);
    return typeof ms === 'number' ? ms : new Refusal(ms);
  },
  list: (written, before) => [...(before as readonly string[]), written],
  commas: (written) => written.split(','),
  output: (written) => {
    const format = written.toLowerCase();
    if (format === 'json') return 'json';
    return format === 'pretty' || format === 'prettyprint'
      ? 'pretty'
      : new Refusal(`bad formatter flag: unknown format option: ${JSON.stringify(written)}`);
  },
};

/** The value of a flag that was not given, and how the help writes it. */
function presetOf(flag: Exclude<Flag, { kind: 'bool' }>): [value: unknown, shown?: string] {
  switch (flag.kind) {
    case 'text':
      return [flag.preset, flag.preset];
    case 'integer':
      return [flag.preset, String(flag.preset)];
    case 'duration':
      return [flag.preset, formatDuration(flag.preset)];
    case 'output':
      return ['pretty', 'pretty'];
    case 'list':
    case 'commas':
      return [[], ''];
  }
}
