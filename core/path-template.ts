/** `agent_path_template`: Go's text/template with sprig's functions, as far as fields, literals, pipes and calls go. Types are checked at start; what it cannot do is a fault there, with its place. */
import { SpiffeError } from '../spiffe/errors.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { type CoreError, fail } from './errors.ts';
import { nearest } from './nearest.ts';
import {
  callType,
  FUNCTIONS,
  parametersText,
  type TemplateFields,
  type TemplateType,
  type TemplateValue,
  type TemplateValues,
} from './path-template-functions.ts';

export type { TemplateFields, TemplateType, TemplateValue, TemplateValues } from './path-template-functions.ts';

export interface PathTemplate {
  readonly text: string;
  /**
   * The agent's path, `/spire/agent` and what the template gives.
   * @param values one for each of the fields that the template was parsed with. Throws REQUEST_INVALID or ID_INVALID when no path can be made of them.
   */
  render(values: TemplateValues, trustDomain: TrustDomain): string;
  /** The beginning of every path that it gives, as far as it depends on `known` alone; `whole`: that is all of it. */
  leading(known: TemplateValues): { readonly text: string; readonly whole: boolean };
}

/** Far more than any template in use. */
const MAX_LENGTH = 4096;
const MAX_DEPTH = 32;

/** @param fields what it may ask for. Throws SETTINGS_INVALID with line and column. */
export function parsePathTemplate(text: string, fields: TemplateFields): PathTemplate {
  if (text.length > MAX_LENGTH) throw fail('SETTINGS_INVALID', `path template: longer than ${MAX_LENGTH} characters`);
  const parts = new Parser(text, fields).template();
  return {
    text,
    render(values, trustDomain) {
      let suffix = '';
      for (const part of parts) suffix += typeof part === 'string' ? part : String(part.run(values));
      // alone first: what is glued to another path may look whole
      if (suffix !== '') SpiffeId.of(trustDomain, suffix);
      return SpiffeId.of(trustDomain, `/spire/agent${suffix}`).path;
    },
    leading(known) {
      let lead = '/spire/agent';
      for (const part of parts) {
        if (typeof part !== 'string' && ![...part.uses].every((name) => Object.hasOwn(known, name))) return { text: lead, whole: false };
        try {
          lead += typeof part === 'string' ? part : String(part.run(known));
        } catch (error) {
          if (error instanceof SpiffeError) return { text: lead, whole: false };
          throw error;
        }
      }
      return { text: lead, whole: true };
    },
  };
}

interface Expression {
  readonly type: TemplateType;
  /** Of a literal. */
  readonly literal?: TemplateValue;
  /** Fields of the top level. */
  readonly uses: ReadonlySet<string>;
  readonly run: (values: TemplateValues) => TemplateValue;
}

type Token =
  | { readonly kind: 'space' | '(' | ')' | '|' | 'end'; readonly at: number }
  | { readonly kind: 'field' | 'word' | 'string'; readonly text: string; readonly at: number }
  | { readonly kind: 'int'; readonly value: number; readonly at: number };

const KEYWORDS: ReadonlySet<string> = new Set([
  'if',
  'else',
  'end',
  'range',
  'with',
  'define',
  'template',
  'block',
  'break',
  'continue',
  'nil',
]);
const NO_FIELDS: ReadonlySet<string> = new Set();

/** Go's `{{-` and `-}}` need white space on their inner side. */
const OPEN = /\{\{(-[ \t\r\n])?/y;
const COMMENT = /\/\*[^]*?\*\/([ \t\r\n]-)?\}\}/y;
const CLOSE = /([ \t\r\n]-)?\}\}/y;
const SPACE = /[ \t\r\n]+/y;
const FIELD = /(?:\.[A-Za-z_][A-Za-z0-9_]*)+/y;
const WORD = /[A-Za-z_][A-Za-z0-9_]*/y;
/** No leading zero: Go reads octal then. */
const INT = /[+-]?(?:0|[1-9][0-9]{0,14})(?![0-9A-Za-z_.])/y;
const QUOTED = /"(?:[^"\\\n]|\\.)*"/y;
const RAW = /`[^`]*`/y;
const LONE_SURROGATE = /\p{Surrogate}/u;
const ESCAPE = /\\(?:(["\\nrt])|x([0-7][0-9A-Fa-f])|u([0-9A-Fa-f]{4}))/y;

class Parser {
  readonly #text: string;
  readonly #fields: TemplateFields;
  #at = 0;
  /** Where the text that is being read begins. */
  #textFrom = 0;
  #depth = 0;
  /** White space goes at the beginning of the next text. */
  #trimNext = false;
  #token: Token = { kind: 'end', at: 0 };

  constructor(text: string, fields: TemplateFields) {
    this.#text = text;
    this.#fields = fields;
  }

  template(): readonly (string | Expression)[] {
    const parts: (string | Expression)[] = [];
    for (;;) {
      this.#textFrom = this.#at;
      const open = this.#text.indexOf('{{', this.#at);
      let text = this.#text.slice(this.#at, open < 0 ? undefined : open);
      if (this.#trimNext) text = text.replace(/^[ \t\r\n]+/, '');
      if (open < 0) {
        this.#checkText(text);
        return [...parts, text];
      }
      this.#at = open;
      if (this.#match(OPEN)?.[1] !== undefined) text = text.replace(/[ \t\r\n]+$/, '');
      this.#checkText(text);
      parts.push(text);
      if (this.#text.startsWith('/*', this.#at)) {
        const comment = this.#match(COMMENT);
        if (!comment) throw this.#fault(open, 'a comment without its end: */ and }} must follow each other');
        this.#trimNext = comment[1] !== undefined;
      } else parts.push(this.#action(open));
    }
  }

  #fault(at: number, why: string): CoreError {
    const before = this.#text.slice(0, at).split('\n');
    return fail('SETTINGS_INVALID', `path template, line ${before.length}, column ${(before.at(-1) ?? '').length + 1}: ${why}`);
  }

  /** What no path can hold is told before the first node comes. */
  #checkText(text: string): void {
    const wrong = /[^A-Za-z0-9._/-]|\/\//.exec(text)?.[0];
    if (wrong !== undefined)
      throw this.#fault(this.#text.indexOf(wrong, this.#textFrom), `${JSON.stringify(wrong)} cannot stand in a path`);
  }

  #match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (found) this.#at = pattern.lastIndex;
    return found ?? undefined;
  }

  #action(open: number): Expression {
    this.#next();
    const expression = this.#pipeline(open, 'end');
    if (typeof expression.type === 'object' || expression.type === 'list' || expression.type === 'map')
      throw this.#fault(open, `${typeText(expression.type)} cannot be written in a path: choose a field of it, or use join or index`);
    return expression;
  }

  /** Reads the next token into `#token`. */
  #next(): void {
    const at = this.#at;
    const close = this.#match(CLOSE);
    if (close) {
      this.#trimNext = close[1] !== undefined;
      this.#token = { kind: 'end', at };
      return;
    }
    this.#token = this.#read(at);
  }

  #read(at: number): Token {
    const char = this.#text[at];
    if (char === undefined) throw this.#fault(at, 'an action without its end: }} is missing');
    if (this.#match(SPACE)) return { kind: 'space', at };
    if (char === '(' || char === ')' || char === '|') {
      this.#at++;
      return { kind: char, at };
    }
    const field = this.#match(FIELD);
    if (field) return { kind: 'field', text: field[0], at };
    const word = this.#match(WORD);
    if (word) return { kind: 'word', text: word[0], at };
    const int = this.#match(INT);
    if (int) return { kind: 'int', value: Number(int[0]), at };
    const raw = this.#match(RAW);
    if (raw) return { kind: 'string', text: raw[0].slice(1, -1).replaceAll('\r', ''), at };
    const quoted = this.#match(QUOTED);
    if (quoted) return { kind: 'string', text: this.#unquote(quoted[0], at), at };
    if (char === '"' || char === '`') throw this.#fault(at, 'a string without its end');
    if (char === '$' || char === ':' || char === '=') throw this.#fault(at, 'variables are not supported');
    if (char === '.') throw this.#fault(at, 'a field without a name');
    if (/[0-9+-]/.test(char)) throw this.#fault(at, 'a number that is not a plain decimal integer');
    throw this.#fault(at, `unexpected ${JSON.stringify(char)}`);
  }

  #unquote(quoted: string, at: number): string {
    let text = '';
    for (let i = 1; i < quoted.length - 1; ) {
      if (quoted[i] !== '\\') {
        text += quoted[i++];
        continue;
      }
      ESCAPE.lastIndex = i;
      const [all, char, x, u] = ESCAPE.exec(quoted) ?? [];
      if (all === undefined) throw this.#fault(at + i, 'an escape that is not supported');
      text += char === undefined ? String.fromCharCode(Number.parseInt(x ?? u ?? '', 16)) : ({ n: '\n', r: '\r', t: '\t' }[char] ?? char);
      i += all.length;
    }
    if (LONE_SURROGATE.test(text)) throw this.#fault(at, 'a string that is not Unicode');
    return text;
  }

  #skipSpace(): void {
    while (this.#token.kind === 'space') this.#next();
  }

  /** Commands joined by `|`, each taking what the one before gave as its last argument. */
  #pipeline(from: number, end: 'end' | ')'): Expression {
    if (++this.#depth > MAX_DEPTH) throw this.#fault(from, `more than ${MAX_DEPTH} parentheses in each other`);
    let result: Expression | undefined;
    for (;;) {
      result = this.#command(result);
      if (this.#token.kind === end) break;
      if (this.#token.kind !== '|')
        throw this.#fault(this.#token.at, end === ')' ? 'a parenthesis without its end' : 'a parenthesis without its beginning');
      this.#next();
    }
    this.#depth--;
    return result;
  }

  #command(piped: Expression | undefined): Expression {
    this.#skipSpace();
    const first = this.#token;
    if (first.kind === 'word' && first.text !== 'true' && first.text !== 'false') {
      if (KEYWORDS.has(first.text))
        throw this.#fault(first.at, `${first.text} is not supported: fields, literals, pipes and functions are`);
      this.#next();
      const args = this.#operands(false);
      return this.#call(first.text, first.at, piped ? [...args, piped] : args);
    }
    const [value, more] = this.#operands(true);
    if (!value) throw this.#fault(first.at, 'a value is missing');
    if (more) throw this.#fault(first.at, 'only a function takes arguments');
    if (piped) throw this.#fault(first.at, 'only a function can stand behind a |');
    return value;
  }

  /** Up to the end of the command, with white space between them. */
  #operands(apart: boolean): readonly Expression[] {
    const operands: Expression[] = [];
    for (;;) {
      const { kind, at } = this.#token;
      if (kind === '|' || kind === ')' || kind === 'end') return operands;
      if (kind === 'space') {
        apart = true;
        this.#next();
        continue;
      }
      if (!apart) throw this.#fault(at, 'white space is missing');
      apart = false;
      operands.push(this.#operand(this.#token));
      this.#next();
    }
  }

  #operand(token: Token): Expression {
    if (token.kind === 'string') return literal('string', token.text);
    if (token.kind === 'int') return literal('int', token.value);
    if (token.kind === 'field') return this.#field(token.text.slice(1).split('.'), token.at);
    if (token.kind === '(') {
      this.#next();
      return this.#pipeline(token.at, ')');
    }
    if (token.kind !== 'word') throw this.#fault(token.at, 'a value is missing');
    if (token.text === 'true' || token.text === 'false') return literal('bool', token.text === 'true');
    throw this.#fault(
      token.at,
      KEYWORDS.has(token.text) ? `${token.text} is not supported` : `put the call of ${token.text} in parentheses`,
    );
  }

  #field(names: readonly string[], at: number): Expression {
    let type: TemplateType = this.#fields;
    let run = (values: TemplateValues): TemplateValue => values;
    for (const [i, name] of names.entries()) {
      const whole = `.${names.slice(0, i + 1).join('.')}`;
      const outer = run;
      if (type === 'map') {
        type = 'string';
        run = (values) => {
          const value = (outer(values) as ReadonlyMap<string, string>).get(name);
          if (value === undefined) throw fail('REQUEST_INVALID', `there is no ${whole}`);
          return value;
        };
        continue;
      }
      if (typeof type === 'string') throw this.#fault(at, `.${names.slice(0, i).join('.')} is ${typeText(type)} and has no field ${name}`);
      if (!Object.hasOwn(type, name)) {
        const near = nearest(name, Object.keys(type));
        throw this.#fault(
          at,
          `there is no field ${whole}${near === undefined ? '' : `: did you mean ${near}?`} (there are ${Object.keys(type).join(', ')})`,
        );
      }
      type = type[name] as TemplateType;
      run = (values) => {
        const value = (outer(values) as TemplateValues)[name];
        if (value === undefined) throw fail('INTERNAL', `no value for ${whole}`);
        return value;
      };
    }
    return { type, uses: new Set(names.slice(0, 1)), run };
  }

  #call(name: string, at: number, args: readonly Expression[]): Expression {
    const signatures = FUNCTIONS.get(name);
    if (!signatures) {
      const near = nearest(name, FUNCTIONS.keys());
      throw this.#fault(at, `the function ${name} is not supported${near === undefined ? '' : `: did you mean ${near}?`}`);
    }
    const types = args.map((one) => one.type);
    for (const signature of signatures) {
      const type = callType(signature, types);
      if (type === undefined) continue;
      const fault = signature.check?.(
        args.map((one) => one.literal),
        types,
      );
      if (fault !== undefined) throw this.#fault(at, fault);
      const uses = args.reduce((all, one) => all.union(one.uses), NO_FIELDS);
      return { type, uses, run: (values) => signature.call(args.map((one) => one.run(values))) };
    }
    throw this.#fault(
      at,
      `${name} takes ${signatures.map(parametersText).join(' or ')}; here it gets ${types.map(typeText).join(', ') || 'nothing'}`,
    );
  }
}

function literal(type: TemplateType, value: TemplateValue): Expression {
  return { type, literal: value, uses: NO_FIELDS, run: () => value };
}

function typeText(type: TemplateType): string {
  return typeof type === 'string' ? type : 'a record';
}
