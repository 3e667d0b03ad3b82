/** JSON (RFC 8259) read strictly: a member twice is refused, big integers stay exact, depth and size are bounded. */
import { type Reason, SpiffeError } from './errors.ts';

/** Objects have no prototype, so `__proto__` is a member like any other. An integer outside ±(2^53−1) is a bigint. */
export type JsonValue = null | boolean | number | bigint | string | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [member: string]: JsonValue;
}

export interface JsonLimits {
  /** Default 1 MiB. */
  readonly maxBytes?: number;
  /** Of arrays and objects in each other. Default 32. */
  readonly maxDepth?: number;
}

const DEFAULT_MAX_BYTES = 1024 * 1024;
const DEFAULT_MAX_DEPTH = 32;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** @param text UTF-8 without a byte order mark. Throws REQUEST_INVALID with a JSON_ reason and the place. */
export function parseJson(text: string | Uint8Array, limits: JsonLimits = {}): JsonValue {
  const maxBytes = limits.maxBytes ?? DEFAULT_MAX_BYTES;
  if (text.length > maxBytes) throw fault('JSON_TOO_LARGE', `longer than ${maxBytes} bytes`);
  let decoded: string;
  if (typeof text === 'string') decoded = text;
  else {
    try {
      decoded = asciiText(text) ?? utf8.decode(text);
    } catch (cause) {
      throw new SpiffeError('REQUEST_INVALID', 'JSON_SYNTAX', 'JSON that is not UTF-8', { cause });
    }
  }
  return new Parser(decoded, limits.maxDepth ?? DEFAULT_MAX_DEPTH).whole();
}

/** Longer ones gain nothing. */
const MAX_ASCII = 2048;

/** Short texts are ASCII mostly, and a claim set is read before each signature: by hand that costs a quarter (see `base64url`). Undefined: it is not, or not short. */
function asciiText(bytes: Uint8Array): string | undefined {
  if (bytes.length > MAX_ASCII) return undefined;
  for (let i = 0; i < bytes.length; i++) if ((bytes[i] as number) > 0x7f) return undefined;
  return String.fromCharCode.apply(null, bytes as unknown as number[]);
}

export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function isJsonArray(value: JsonValue | undefined): value is readonly JsonValue[] {
  return Array.isArray(value);
}

function fault(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('REQUEST_INVALID', reason, `malformed JSON: ${why}`);
}

const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
/** An integer of more digits is refused: turning it into a bigint would cost quadratic time. */
const MAX_DIGITS = 400;
const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ['\\', '\\'],
  ['/', '/'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
]);
const LONE_SURROGATE = /\p{Surrogate}/u;
const HEX4 = /^[0-9A-Fa-f]{4}$/;

class Parser {
  readonly #text: string;
  readonly #maxDepth: number;
  #at = 0;
  #depth = 0;

  constructor(text: string, maxDepth: number) {
    this.#text = text;
    this.#maxDepth = maxDepth;
  }

  whole(): JsonValue {
    const value = this.#value();
    this.#space();
    if (this.#at < this.#text.length) throw this.#syntax('text behind the value');
    return value;
  }

  #syntax(why: string): SpiffeError {
    return fault('JSON_SYNTAX', `${why} (at character ${this.#at + 1})`);
  }

  #space(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at++;
    }
  }

  #value(): JsonValue {
    this.#space();
    const char = this.#text[this.#at];
    if (char === '"') return this.#string();
    if (char === '{') return this.#nested(() => this.#object());
    if (char === '[') return this.#nested(() => this.#array());
    if (char === '-' || (char !== undefined && char >= '0' && char <= '9')) return this.#number();
    if (this.#text.startsWith('true', this.#at)) return this.#word(4, true);
    if (this.#text.startsWith('false', this.#at)) return this.#word(5, false);
    if (this.#text.startsWith('null', this.#at)) return this.#word(4, null);
    throw this.#syntax(char === undefined ? 'a value is missing' : 'a value is malformed');
  }

  #word<T extends JsonValue>(length: number, value: T): T {
    this.#at += length;
    return value;
  }

  #nested<T>(read: () => T): T {
    if (++this.#depth > this.#maxDepth) throw fault('JSON_TOO_DEEP', `more than ${this.#maxDepth} levels`);
    this.#at++;
    const value = read();
    this.#depth--;
    return value;
  }

  /** After a value: true for a comma, false for the end. */
  #more(end: string): boolean {
    this.#space();
    const char = this.#text[this.#at];
    if (char !== ',' && char !== end) throw this.#syntax(`a comma or ${end} is missing`);
    this.#at++;
    return char === ',';
  }

  #array(): readonly JsonValue[] {
    const values: JsonValue[] = [];
    this.#space();
    if (this.#text[this.#at] === ']') {
      this.#at++;
      return values;
    }
    do values.push(this.#value());
    while (this.#more(']'));
    return values;
  }

  #object(): JsonObject {
    const members: Record<string, JsonValue> = Object.create(null) as Record<string, JsonValue>;
    this.#space();
    if (this.#text[this.#at] === '}') {
      this.#at++;
      return members;
    }
    do {
      this.#space();
      if (this.#text[this.#at] !== '"') throw this.#syntax('the name of a member is missing');
      const name = this.#string();
      if (name in members) throw fault('JSON_DUPLICATE', `the member ${JSON.stringify(name.slice(0, 100))} twice`);
      this.#space();
      if (this.#text[this.#at] !== ':') throw this.#syntax('a colon is missing');
      this.#at++;
      members[name] = this.#value();
    } while (this.#more('}'));
    return members;
  }

  #string(): string {
    const text = this.#text;
    let out = '';
    /** Not less than any character's code. */
    let highest = 0;
    let from = ++this.#at;
    for (;;) {
      let at = from;
      let code = text.charCodeAt(at);
      while (code >= 0x20 && code !== 0x22 && code !== 0x5c) {
        highest |= code;
        code = text.charCodeAt(++at);
      }
      // NaN: behind the last character.
      if (Number.isNaN(code)) throw this.#syntax('a string has no end');
      out += text.slice(from, at);
      if (text[at] === '"') {
        this.#at = at + 1;
        // Half a surrogate pair has no UTF-8 form: two readers would see two different strings.
        if (highest > 0xff && LONE_SURROGATE.test(out)) throw this.#syntax('a string that is not Unicode');
        return out;
      }
      this.#at = at;
      if (text[at] !== '\\') throw this.#syntax('a control character in a string');
      const kind = text[at + 1] ?? '';
      if (kind === 'u') {
        const hex = text.slice(at + 2, at + 6);
        if (!HEX4.test(hex)) throw this.#syntax('a malformed escape');
        out += String.fromCharCode(Number.parseInt(hex, 16));
        highest = 0xffff;
        from = at + 6;
      } else {
        const char = ESCAPES.get(kind);
        if (char === undefined) throw this.#syntax('a malformed escape');
        out += char;
        from = at + 2;
      }
    }
  }

  #number(): number | bigint {
    NUMBER.lastIndex = this.#at;
    const found = NUMBER.exec(this.#text);
    if (!found) throw this.#syntax('a malformed number');
    const [digits, fraction, exponent] = found;
    if (digits.length > MAX_DIGITS) throw this.#syntax('a number of too many digits');
    this.#at += digits.length;
    const value = Number(digits);
    if (fraction === undefined && exponent === undefined && !Number.isSafeInteger(value)) return BigInt(digits);
    if (!Number.isFinite(value)) throw this.#syntax('a number that is too large');
    return value;
  }
}
