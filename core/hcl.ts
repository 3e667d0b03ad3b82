/** HCL 1, as SPIRE's configuration files use it: text in, a tree in which every value knows its line and column out. */
import { fail } from './errors.ts';

/** 1-based; columns count UTF-16 units. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

export type HclValue =
  | { readonly kind: 'string'; readonly value: string; readonly position: Position }
  /** `text` is the literal as written: a setting that wants words gets these. */
  | { readonly kind: 'number'; readonly value: number; readonly text: string; readonly position: Position }
  | { readonly kind: 'bool'; readonly value: boolean; readonly position: Position }
  | { readonly kind: 'list'; readonly items: readonly HclValue[]; readonly position: Position }
  | HclObject;

export interface HclObject {
  readonly kind: 'object';
  readonly items: readonly HclItem[];
  readonly position: Position;
}

export interface HclItem {
  /** One name for `key = value`; one or more for a block: its name, then its labels. */
  readonly keys: readonly { readonly name: string; readonly position: Position }[];
  readonly value: HclValue;
}

const MAX_LENGTH = 1 << 20;
/** Deepest nesting of blocks, objects and lists. SPIRE's own deepest setting is at 7. */
const MAX_DEPTH = 32;

export interface HclOptions {
  /** Whether `0644` is a number, octal as HashiCorp's reader has it. Default false: it is refused. */
  readonly octal?: boolean | undefined;
  /** Longest text, in UTF-16 units. Default 1 Mi. */
  readonly maxLength?: number | undefined;
}

/**
 * Reads a whole text. Throws SETTINGS_INVALID with `line:column` at the first thing that is no HCL 1.
 * Stricter than HashiCorp's reader where that guesses: a key set twice in one object, two commas in a row, an octal number (unless wanted).
 */
export function parseHcl(text: string, options: HclOptions = {}): HclObject {
  const { maxLength = MAX_LENGTH } = options;
  if (text.length > maxLength) throw fault({ line: 1, column: 1 }, `longer than ${maxLength} characters`);
  const scanner = new Scanner(text.replaceAll('\r\n', '\n'), options.octal ?? false);
  const items = parseItems(scanner, 0);
  return { kind: 'object', items, position: { line: 1, column: 1 } };
}

/** Thrown as SETTINGS_INVALID; the file's reader puts the file's name before it. */
function fault({ line, column }: Position, message: string): Error {
  return fail('SETTINGS_INVALID', `${line}:${column}: ${message}`, { reason: 'HCL' });
}

type Token =
  | { readonly type: 'end' | '{' | '}' | '[' | ']' | ',' | '='; readonly position: Position }
  | { readonly type: 'word'; readonly text: string; readonly position: Position }
  | { readonly type: 'string' | 'heredoc'; readonly value: string; readonly position: Position }
  | { readonly type: 'number'; readonly value: number; readonly text: string; readonly position: Position };

const NAMES: Readonly<Record<Token['type'], string>> = {
  end: 'the end of the file',
  '{': '"{"',
  '}': '"}"',
  '[': '"["',
  ']': '"]"',
  ',': '","',
  '=': '"="',
  word: 'a word',
  string: 'a string',
  heredoc: 'a heredoc',
  number: 'a number',
};

function seen(token: Token): string {
  return token.type === 'word' ? JSON.stringify(token.text) : NAMES[token.type];
}

/** Items until the closing brace (`depth` > 0) or the end of the text (`depth` 0); consumes that end. */
function parseItems(scanner: Scanner, depth: number): HclItem[] {
  const items: HclItem[] = [];
  const assigned = new Set<string>();
  for (;;) {
    const token = scanner.next();
    if (token.type === (depth === 0 ? 'end' : '}')) return items;
    if (token.type === 'end') throw fault(token.position, 'the file ends inside a block: a "}" is missing');
    const item = parseItem(scanner, token, depth, assigned);
    items.push(item);
    if (scanner.peek().type === ',') scanner.next();
  }
}

function parseItem(scanner: Scanner, first: Token, depth: number, assigned: Set<string>): HclItem {
  const keys: { name: string; position: Position }[] = [];
  for (let token = first; ; token = scanner.next()) {
    if (token.type === 'word' || token.type === 'string') {
      // each is a level of the settings that it becomes
      if (keys.length > MAX_DEPTH) throw fault(token.position, `a block with more than ${MAX_DEPTH} labels`);
      keys.push({ name: token.type === 'word' ? token.text : token.value, position: token.position });
      continue;
    }
    const [key] = keys;
    if (key === undefined) throw fault(token.position, `expected a key, found ${seen(token)}`);
    if (token.type === '{') return { keys, value: parseObject(scanner, token.position, depth) };
    if (token.type !== '=') throw fault(token.position, `after ${JSON.stringify(key.name)} expected "=" or "{", found ${seen(token)}`);
    if (keys.length > 1) throw fault(token.position, `a block with labels takes no "=": write ${JSON.stringify(key.name)} "…" { … }`);
    if (assigned.has(key.name)) throw fault(key.position, `${JSON.stringify(key.name)} is set twice`);
    assigned.add(key.name);
    return { keys, value: parseValue(scanner, scanner.next(), depth) };
  }
}

function parseObject(scanner: Scanner, position: Position, depth: number): HclObject {
  if (depth >= MAX_DEPTH) throw fault(position, `nested deeper than ${MAX_DEPTH}`);
  return { kind: 'object', items: parseItems(scanner, depth + 1), position };
}

function parseValue(scanner: Scanner, token: Token, depth: number): HclValue {
  const { position } = token;
  switch (token.type) {
    case 'string':
    case 'heredoc':
      return { kind: 'string', value: token.value, position };
    case 'number':
      return { kind: 'number', value: token.value, text: token.text, position };
    case 'word':
      if (token.text === 'true' || token.text === 'false') return { kind: 'bool', value: token.text === 'true', position };
      throw fault(position, `expected a value, found ${seen(token)}: words need quotes`);
    case '{':
      return parseObject(scanner, position, depth);
    case '[':
      return parseList(scanner, position, depth);
    case '}':
    case ']':
    case ',':
    case '=':
    case 'end':
      throw fault(position, `expected a value, found ${seen(token)}`);
  }
}

function parseList(scanner: Scanner, position: Position, depth: number): HclValue {
  if (depth >= MAX_DEPTH) throw fault(position, `nested deeper than ${MAX_DEPTH}`);
  const items: HclValue[] = [];
  for (let token = scanner.next(); token.type !== ']'; token = scanner.next()) {
    if (token.type === 'end') throw fault(token.position, 'the file ends inside a list: a "]" is missing');
    items.push(parseValue(scanner, token, depth + 1));
    const after = scanner.peek();
    if (after.type === ',') scanner.next();
    else if (after.type !== ']') throw fault(after.position, `in a list expected "," or "]", found ${seen(after)}`);
  }
  return { kind: 'list', items, position };
}

const WORD = /[\p{L}_][\p{L}\p{Nd}_.-]*/uy;
const NUMBER = /-?(?:0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)/y;
const HEREDOC = /<<(-?)([\p{L}\p{Nd}_]+)\n/uy;
const BLANK = /[ \t\n\r]+|#[^\n]*|\/\/[^\n]*|\/\*[\s\S]*?\*\//y;
/** Every character that text may hold: no NUL and no lone surrogate. */
const ILLEGAL = /\0|\p{Cs}/u;

class Scanner {
  readonly #text: string;
  readonly #octal: boolean;
  #at = 0;
  #peeked: Token | undefined;
  /** Where the line that holds `#counted` starts, and its number: positions are counted onwards from here. */
  #line = 1;
  #lineStart = 0;
  #counted = 0;

  constructor(text: string, octal: boolean) {
    this.#text = text;
    this.#octal = octal;
    const illegal = ILLEGAL.exec(text);
    if (illegal) throw fault(this.#position(illegal.index), 'not text: a NUL or a broken character');
  }

  peek(): Token {
    return (this.#peeked ??= this.#scan());
  }

  next(): Token {
    const token = this.peek();
    this.#peeked = undefined;
    return token;
  }

  #position(at: number): Position {
    for (;;) {
      const newline = this.#text.indexOf('\n', this.#counted);
      if (newline < 0 || newline >= at) break;
      this.#line++;
      this.#lineStart = this.#counted = newline + 1;
    }
    return { line: this.#line, column: at - this.#lineStart + 1 };
  }

  #match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (!found) return undefined;
    this.#at = pattern.lastIndex;
    return found;
  }

  #scan(): Token {
    while (this.#match(BLANK));
    const position = this.#position(this.#at);
    const char = this.#text[this.#at];
    switch (char) {
      case undefined:
        return { type: 'end', position };
      case '{':
      case '}':
      case '[':
      case ']':
      case ',':
      case '=':
        this.#at++;
        return { type: char, position };
      case '"':
        return { type: 'string', value: this.#string(position), position };
      case '<':
        return { type: 'heredoc', value: this.#heredoc(position), position };
      default: {
        const word = this.#match(WORD)?.[0];
        if (word !== undefined) return { type: 'word', text: word, position };
        const number = this.#match(NUMBER)?.[0];
        if (number !== undefined) return { type: 'number', value: this.#number(number, position), text: number, position };
        if (this.#text.startsWith('/*', this.#at)) throw fault(position, 'a comment is not closed: "*/" is missing');
        throw fault(position, `unexpected character ${JSON.stringify(String.fromCodePoint(this.#text.codePointAt(this.#at) ?? 0))}`);
      }
    }
  }

  #number(text: string, position: Position): number {
    const octal = this.#octal && /^0[0-7]{1,9}$/.test(text);
    if (!octal && /^-?0[0-9]/.test(text))
      throw fault(position, `${text} starts with a zero, which some read as octal: write it without, or in quotes`);
    const after = this.#text[this.#at];
    if (after !== undefined && /[\p{L}\p{Nd}_."]/u.test(after))
      throw fault(position, `a value starts as a number and goes on as ${JSON.stringify(after)}: it needs quotes`);
    const value = octal ? Number.parseInt(text, 8) : text.startsWith('-') ? -Number(text.slice(1)) : Number(text);
    if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value)))
      throw fault(position, `${text} is too large a number`);
    return value;
  }

  /** A quoted string. Inside `${…}` nothing is unescaped, as HashiCorp's reader does. */
  #string(position: Position): string {
    const text = this.#text;
    const bytes: Buffer[] = [];
    let from = ++this.#at;
    const flush = () => {
      if (this.#at > from) bytes.push(Buffer.from(text.slice(from, this.#at)));
    };
    for (let braces = 0; ; this.#at++) {
      const char = text[this.#at];
      if (char === undefined || (char === '\n' && braces === 0)) throw fault(position, "a string is not closed: a '\"' is missing");
      if (braces > 0) {
        if (char === '{') braces++;
        else if (char === '}') braces--;
      } else if (char === '$' && text[this.#at + 1] === '{') {
        braces = 1;
        this.#at++;
      } else if (char === '"') {
        // nearly every string: nothing in it was written otherwise
        if (bytes.length === 0) return text.slice(from, this.#at++);
        flush();
        this.#at++;
        break;
      } else if (char === '\\') {
        flush();
        bytes.push(this.#escape());
        from = this.#at + 1;
      }
    }
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(bytes));
    } catch {
      throw fault(position, 'the escapes in a string make no UTF-8 text');
    }
  }

  /** At a backslash; ends at the last character of the escape. */
  #escape(): Buffer {
    const start = this.#at;
    const char = this.#text[start + 1] ?? '';
    const bad = (what: string) => fault(this.#position(start), what);
    const plain = ESCAPES[char];
    if (plain !== undefined) {
      this.#at = start + 1;
      return Buffer.from(plain);
    }
    const [, digits, base] = DIGITS.find(([sign]) => sign.test(char)) ?? [];
    if (digits === undefined || base === undefined)
      throw bad(`unknown escape ${JSON.stringify(`\\${char}`)}: a backslash is written "\\\\"`);
    const first = base === 8 ? start + 1 : start + 2;
    const written = this.#text.slice(first, first + digits);
    if (written.length < digits || !(base === 8 ? /^[0-7]+$/ : /^[0-9a-fA-F]+$/).test(written))
      throw bad(`the escape "\\${char}" needs ${digits} digits`);
    const code = Number.parseInt(written, base);
    this.#at = first + digits - 1;
    // \x and octal write one byte; \u and \U one character
    if (char !== 'u' && char !== 'U') {
      if (code > 0xff) throw bad(`the escape "\\${written}" is no byte`);
      return Buffer.of(code);
    }
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) throw bad(`the escape "\\${char}${written}" is no character`);
    return Buffer.from(String.fromCodePoint(code));
  }

  #heredoc(position: Position): string {
    const opening = this.#match(HEREDOC);
    if (!opening) throw fault(position, 'a heredoc starts with "<<" and a word at the end of its line');
    const [, dash, marker = ''] = opening;
    const lines: string[] = [];
    for (;;) {
      const end = this.#text.indexOf('\n', this.#at);
      if (end < 0) throw fault(position, `a heredoc is not closed: a line that holds only ${marker} is missing`);
      const line = this.#text.slice(this.#at, end);
      this.#at = end + 1;
      if (line.trim() === marker) {
        const indent = line.slice(0, line.indexOf(marker));
        // <<- takes the marker's indent off, if every line has it
        const inner = dash && lines.every((text) => text.startsWith(indent)) ? lines.map((text) => text.slice(indent.length)) : lines;
        return inner.map((text) => `${text}\n`).join('');
      }
      lines.push(line);
    }
  }
}

const ESCAPES: Readonly<Record<string, string>> = { a: '\x07', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v', '\\': '\\', '"': '"' };
const DIGITS: readonly (readonly [sign: RegExp, digits: number, base: number])[] = [
  [/[0-7]/, 3, 8],
  [/x/, 2, 16],
  [/u/, 4, 16],
  [/U/, 8, 16],
];
