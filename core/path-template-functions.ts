/** What a path template may call: the builtins of Go's templates and of sprig that are well defined on names, each with its types. No regular expressions: a node's certificate must not choose how long ours take. */
import { createHash } from 'node:crypto';
import { fail } from './errors.ts';

/** What an expression gives. A record has a type for each of its fields; it can only be asked for them. */
export type TemplateType = 'string' | 'int' | 'bool' | 'list' | 'map' | TemplateFields;
export interface TemplateFields {
  readonly [name: string]: TemplateType;
}

/** Lists are of strings, maps from string to string. */
export type TemplateValue = string | number | boolean | readonly string[] | ReadonlyMap<string, string> | TemplateValues;
export interface TemplateValues {
  readonly [name: string]: TemplateValue;
}

/** `T` is one type throughout a signature; `scalar` is each time a string, an int or a bool; `any` is also a list or a map. */
type Parameter = 'string' | 'int' | 'bool' | 'list' | 'map' | 'scalar' | 'any' | 'T';

export interface Signature {
  readonly takes: readonly Parameter[];
  /** And any number of these. */
  readonly rest?: Parameter;
  readonly gives: 'string' | 'int' | 'bool' | 'list' | 'T';
  /** What is wrong with literal arguments (undefined where an argument is none), found at start. */
  readonly check?: (literals: readonly (TemplateValue | undefined)[], types: readonly TemplateType[]) => string | undefined;
  readonly call: (args: readonly TemplateValue[]) => TemplateValue;
}

/** The type of the call, or undefined when the arguments do not fit. */
export function callType(signature: Signature, types: readonly TemplateType[]): TemplateType | undefined {
  const { takes, rest, gives } = signature;
  if (types.length < takes.length || (types.length > takes.length && rest === undefined)) return undefined;
  let same: TemplateType | undefined;
  for (const [i, type] of types.entries()) {
    const parameter = takes[i] ?? rest;
    const scalar = type === 'string' || type === 'int' || type === 'bool';
    if (typeof type === 'object') return undefined;
    if (
      parameter === 'scalar'
        ? !scalar
        : parameter === 'T'
          ? type !== (same ??= type) || type === 'map'
          : parameter !== 'any' && parameter !== type
    )
      return undefined;
  }
  return gives === 'T' ? same : gives;
}

/** For messages: `string, string, list`. */
export function parametersText({ takes, rest }: Signature): string {
  return [...takes, ...(rest === undefined ? [] : [`${rest} …`])].join(', ') || 'nothing';
}

/** Go's unicode.IsSpace. */
const SPACES = '[\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
const SPACE = new RegExp(SPACES, 'u');
const ALL_SPACES = new RegExp(SPACES, 'gu');

const text = (value: TemplateValue | undefined) => value as string;
const whole = (value: TemplateValue | undefined) => value as number;
const list = (value: TemplateValue | undefined) => value as readonly string[];

export const FUNCTIONS: ReadonlyMap<string, readonly Signature[]> = new Map<string, readonly Signature[]>([
  ['lower', [{ takes: ['string'], gives: 'string', call: ([s]) => lower(text(s)) }]],
  ['upper', [{ takes: ['string'], gives: 'string', call: ([s]) => upper(text(s)) }]],
  ['trim', [{ takes: ['string'], gives: 'string', call: ([s]) => trimBy((rune) => SPACE.test(rune), text(s)) }]],
  ['nospace', [{ takes: ['string'], gives: 'string', call: ([s]) => text(s).replace(ALL_SPACES, '') }]],
  ['trimAll', [{ takes: ['string', 'string'], gives: 'string', call: ([set, s]) => trimAll(text(set), text(s)) }]],
  ['trimPrefix', [{ takes: ['string', 'string'], gives: 'string', call: ([p, s]) => trimPrefix(text(p), text(s)) }]],
  ['trimSuffix', [{ takes: ['string', 'string'], gives: 'string', call: ([p, s]) => trimSuffix(text(p), text(s)) }]],
  ['trunc', [{ takes: ['int', 'string'], gives: 'string', call: ([n, s]) => trunc(whole(n), text(s)) }]],
  ['substr', [{ takes: ['int', 'int', 'string'], gives: 'string', call: ([a, b, s]) => substr(whole(a), whole(b), text(s)) }]],
  [
    'replace',
    [{ takes: ['string', 'string', 'string'], gives: 'string', call: ([from, to, s]) => replace(text(from), text(to), text(s)) }],
  ],
  ['contains', [{ takes: ['string', 'string'], gives: 'bool', call: ([part, s]) => text(s).includes(text(part)) }]],
  ['hasPrefix', [{ takes: ['string', 'string'], gives: 'bool', call: ([part, s]) => text(s).startsWith(text(part)) }]],
  ['hasSuffix', [{ takes: ['string', 'string'], gives: 'bool', call: ([part, s]) => text(s).endsWith(text(part)) }]],
  ['sha1sum', [{ takes: ['string'], gives: 'string', call: ([s]) => hash('sha1', text(s)) }]],
  ['sha256sum', [{ takes: ['string'], gives: 'string', call: ([s]) => hash('sha256', text(s)) }]],
  ['toString', [{ takes: ['scalar'], gives: 'string', call: ([one]) => String(one) }]],
  ['print', [{ takes: [], rest: 'scalar', gives: 'string', call: print }]],
  ['printf', [{ takes: ['string'], rest: 'scalar', gives: 'string', check: formatFault, call: printf }]],

  ['list', [{ takes: [], rest: 'string', gives: 'list', call: (all) => all as readonly string[] }]],
  ['splitList', [{ takes: ['string', 'string'], gives: 'list', call: ([sep, s]) => split(text(sep), text(s)) }]],
  ['join', [{ takes: ['string', 'list'], gives: 'string', call: ([sep, all]) => list(all).join(text(sep)) }]],
  ['first', [{ takes: ['list'], gives: 'string', call: ([all]) => element(list(all), 0) }]],
  ['last', [{ takes: ['list'], gives: 'string', call: ([all]) => element(list(all), list(all).length - 1) }]],
  ['rest', [{ takes: ['list'], gives: 'list', call: ([all]) => list(all).slice(1) }]],
  ['initial', [{ takes: ['list'], gives: 'list', call: ([all]) => list(all).slice(0, -1) }]],
  ['reverse', [{ takes: ['list'], gives: 'list', call: ([all]) => list(all).toReversed() }]],
  ['uniq', [{ takes: ['list'], gives: 'list', call: ([all]) => [...new Set(list(all))] }]],
  ['compact', [{ takes: ['list'], gives: 'list', call: ([all]) => list(all).filter((one) => one !== '') }]],
  [
    'sortAlpha',
    [{ takes: ['list'], gives: 'list', call: ([all]) => list(all).toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))) }],
  ],
  ['has', [{ takes: ['string', 'list'], gives: 'bool', call: ([one, all]) => list(all).includes(text(one)) }]],
  ['without', [{ takes: ['list'], rest: 'string', gives: 'list', call: ([all, ...not]) => list(all).filter((one) => !not.includes(one)) }]],
  [
    'index',
    [
      { takes: ['list', 'int'], gives: 'string', call: ([all, at]) => element(list(all), whole(at)) },
      // Go's index gives a map's missing key as '', unlike `.map.key`, which fails.
      { takes: ['map', 'string'], gives: 'string', call: ([map, key]) => (map as ReadonlyMap<string, string>).get(text(key)) ?? '' },
    ],
  ],
  [
    'len',
    [
      {
        takes: ['any'],
        gives: 'int',
        check: (_, [type]) => (type === 'int' || type === 'bool' ? `len of ${type}` : undefined),
        call: ([one]) => size(one),
      },
    ],
  ],

  ['default', [{ takes: ['T', 'T'], gives: 'T', call: ([otherwise, given]) => (isEmpty(given) ? some(otherwise) : some(given)) }]],
  ['coalesce', [{ takes: ['T'], rest: 'T', gives: 'T', call: (all) => notEmpty(all) }]],
  ['empty', [{ takes: ['any'], gives: 'bool', call: ([one]) => isEmpty(one) }]],
  ['ternary', [{ takes: ['T', 'T', 'bool'], gives: 'T', call: ([yes, no, which]) => some(which === true ? yes : no) }]],
  ['eq', [{ takes: ['T', 'T'], rest: 'T', gives: 'bool', check: comparable, call: ([one, ...others]) => others.includes(some(one)) }]],
  ['ne', [{ takes: ['T', 'T'], gives: 'bool', check: comparable, call: ([one, other]) => one !== other }]],
  ['not', [{ takes: ['any'], gives: 'bool', call: ([one]) => isEmpty(one) }]],
  ['and', [{ takes: ['T'], rest: 'T', gives: 'T', call: (all) => some(all.find(isEmpty) ?? all.at(-1)) }]],
  ['or', [{ takes: ['T'], rest: 'T', gives: 'T', call: (all) => some(all.find((one) => !isEmpty(one)) ?? all.at(-1)) }]],
]);

function refuse(why: string): Error {
  return fail('REQUEST_INVALID', why);
}

function some(value: TemplateValue | undefined): TemplateValue {
  if (value === undefined) throw refuse('no value');
  return value;
}

/** Rune by rune, as Go does it: `ß` has no single upper-case letter and stays (JavaScript would make two of it, and two names one). */
function upper(s: string): string {
  return runes(s, (rune) => rune.toUpperCase());
}

function lower(s: string): string {
  return runes(s, (rune) => (rune === 'İ' ? 'i' : rune.toLowerCase()));
}

function runes(s: string, change: (rune: string) => string): string {
  let out = '';
  for (const rune of s) {
    const changed = change(rune);
    out += Array.from(changed).length === 1 ? changed : rune;
  }
  return out;
}

function trimAll(set: string, s: string): string {
  const runesOf = new Set(set);
  return trimBy((rune) => runesOf.has(rune), s);
}

/** By hand: a regular expression for the end of a text takes quadratic time on a hostile one. */
function trimBy(outer: (rune: string) => boolean, s: string): string {
  const all = Array.from(s);
  let from = 0;
  let to = all.length;
  while (from < to && outer(all[from] as string)) from++;
  while (to > from && outer(all[to - 1] as string)) to--;
  return all.slice(from, to).join('');
}

function trimPrefix(prefix: string, s: string): string {
  return s.startsWith(prefix) ? s.slice(prefix.length) : s;
}

function trimSuffix(suffix: string, s: string): string {
  return s.endsWith(suffix) ? s.slice(0, s.length - suffix.length) : s;
}

/** In bytes. Half a character has no place in a path: it ends in a refusal there. */
function trunc(n: number, s: string): string {
  const bytes = Buffer.from(s);
  if (n < 0) return bytes.length + n > 0 ? bytes.subarray(n).toString() : s;
  return bytes.subarray(0, n).toString();
}

function substr(from: number, to: number, s: string): string {
  const bytes = Buffer.from(s);
  const out = () => refuse(`substr: ${from} to ${to} lies outside of ${bytes.length} bytes`);
  if (from < 0) {
    if (to < 0 || to > bytes.length) throw out();
    return bytes.subarray(0, to).toString();
  }
  const end = to < 0 || to > bytes.length ? bytes.length : to;
  if (from > end) throw out();
  return bytes.subarray(from, end).toString();
}

function replace(from: string, to: string, s: string): string {
  return from === '' ? ['', ...Array.from(s), ''].join(to) : s.replaceAll(from, () => to);
}

function split(sep: string, s: string): readonly string[] {
  return sep === '' ? Array.from(s) : s.split(sep);
}

function element(all: readonly string[], at: number): string {
  const one = at < 0 ? undefined : all[at];
  if (one === undefined) throw refuse(`there is no element ${at} in a list of ${all.length}`);
  return one;
}

function size(value: TemplateValue | undefined): number {
  if (typeof value === 'string') return Buffer.byteLength(value);
  return value instanceof Map ? value.size : list(value).length;
}

function isEmpty(value: TemplateValue | undefined): boolean {
  return typeof value === 'object' ? size(value) === 0 : !value;
}

function notEmpty(all: readonly TemplateValue[]): TemplateValue {
  const one = all.find((each) => !isEmpty(each));
  if (one === undefined) throw refuse('coalesce: every value is empty');
  return one;
}

function comparable(_: readonly unknown[], types: readonly TemplateType[]): string | undefined {
  return types.includes('list') ? 'lists cannot be compared' : undefined;
}

function hash(algorithm: 'sha1' | 'sha256', s: string): string {
  return createHash(algorithm).update(s).digest('hex');
}

/** As fmt.Sprint: a space between two operands of which neither is a string. */
function print(all: readonly TemplateValue[]): string {
  return all.map((one, i) => `${i > 0 && typeof one !== 'string' && typeof all[i - 1] !== 'string' ? ' ' : ''}${String(one)}`).join('');
}

const VERB = /%(.?)/gsu;
const VERB_TYPES: Readonly<Record<string, readonly TemplateType[]>> = {
  s: ['string'],
  d: ['int'],
  t: ['bool'],
  v: ['string', 'int', 'bool'],
};

function formatFault([format]: readonly (TemplateValue | undefined)[], [, ...types]: readonly TemplateType[]): string | undefined {
  if (typeof format !== 'string') return 'the format of printf must be a literal';
  const verbs = [...format.matchAll(VERB)].map(([, verb]) => verb ?? '').filter((verb) => verb !== '%');
  for (const [i, verb] of verbs.entries()) {
    const fits = VERB_TYPES[verb];
    if (!fits) return `printf knows %s, %d, %t, %v and %%, not %${verb}`;
    const type = types[i];
    if (type === undefined) return `printf has no argument for %${verb}`;
    if (!fits.includes(type)) return `printf has no %${verb} for ${typeof type === 'string' ? type : 'a record'}`;
  }
  return verbs.length < types.length ? 'printf has more arguments than verbs' : undefined;
}

function printf([format, ...args]: readonly TemplateValue[]): string {
  let next = 0;
  return text(format).replace(VERB, (_, verb: string) => (verb === '%' ? '%' : String(args[next++])));
}
