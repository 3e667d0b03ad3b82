/** SPIRE's JSON files of entries (`-data`) and of ids (`entry delete -file`). */
import { readFile } from 'node:fs/promises';
import { fail } from '../core/errors.ts';
import { nearest } from '../core/nearest.ts';
import { TrustDomain } from '../spiffe/id.ts';
import { parseId } from './ids.ts';
import type { Id } from './print.ts';
import type { Terminal } from './terminal.ts';

export interface FileEntry {
  readonly id: string;
  readonly spiffeId: Id;
  readonly parentId: Id;
  readonly selectors: { type: string; value: string }[];
  readonly x509SvidTtl: number;
  readonly jwtSvidTtl: number;
  readonly federatesWith: string[];
  readonly admin: boolean;
  readonly downstream: boolean;
  readonly expiresAt: number;
  readonly dnsNames: string[];
  readonly revisionNumber: number;
  readonly storeSvid: boolean;
  readonly hint: string;
  readonly createdAt: number;
  readonly additionalAttributes: { disableX509SvidPrefetch: boolean; jwtSvidIncludeJti: boolean } | undefined;
}

/** The file at `path`, or standard input for `-`. Throws with the file's own error. */
export async function readData(path: string, terminal: Terminal): Promise<Buffer> {
  return path === '-' ? await terminal.input() : await readFile(path);
}

/**
 * `{"entries": […]}` with SPIRE's keys. Throws REQUEST_INVALID, ID_INVALID. Where SPIRE skips a key that it doesn't know, this refuses it:
 * a `dns_name` for `dns_names` would make another entry than the one that was meant.
 */
export function parseEntries(bytes: Buffer): FileEntry[] {
  const file = new Reader(parseJson(bytes), '');
  const entries = file.list('entries', (value, at) => parseEntry(new Reader(value, at)));
  file.end();
  return entries;
}

/** `{"ids": […]}`. Throws REQUEST_INVALID. */
export function parseIds(bytes: Buffer): string[] {
  const file = new Reader(parseJson(bytes), '');
  const ids = file.list('ids', asText);
  file.end();
  return ids;
}

function parseEntry(entry: Reader): FileEntry {
  const id = (key: string, what: string) => {
    try {
      return parseId(entry.text(key));
    } catch (error) {
      throw fail('REQUEST_INVALID', `${entry.at}: invalid ${what}: ${(error as Error).message}`, { cause: error });
    }
  };
  const made: FileEntry = {
    spiffeId: id('spiffe_id', 'SPIFFE ID'),
    parentId: id('parent_id', 'parent ID'),
    federatesWith: entry.list('federates_with', (value, at) => {
      try {
        return TrustDomain.parseNameOrId(asText(value, at)).name;
      } catch (error) {
        throw fail('REQUEST_INVALID', `${at}: invalid federated trust domain: ${(error as Error).message}`, { cause: error });
      }
    }),
    selectors: entry.list('selectors', (value, at) => {
      const selector = new Reader(value, at);
      const read = { type: selector.text('type'), value: selector.text('value') };
      selector.end();
      return read;
    }),
    id: entry.text('entry_id'),
    x509SvidTtl: entry.int('x509_svid_ttl', 31),
    jwtSvidTtl: entry.int('jwt_svid_ttl', 31),
    admin: entry.bool('admin'),
    downstream: entry.bool('downstream'),
    expiresAt: entry.int('entryExpiry', 53),
    dnsNames: entry.list('dns_names', asText),
    revisionNumber: entry.int('revision_number', 53),
    storeSvid: entry.bool('store_svid'),
    hint: entry.text('hint'),
    createdAt: entry.int('created_at', 53),
    additionalAttributes: entry.optional('additional_attributes', (value, at) => {
      const attributes = new Reader(value, at);
      const read = {
        disableX509SvidPrefetch: attributes.bool('disable_x509_svid_prefetch'),
        jwtSvidIncludeJti: attributes.bool('jwt_svid_include_jti'),
      };
      attributes.end();
      return read;
    }),
  };
  entry.end();
  return made;
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw fail('REQUEST_INVALID', `the data is no JSON: ${(error as Error).message}`, { cause: error });
  }
}

function asText(value: unknown, at: string): string {
  if (typeof value === 'string') return value;
  throw fail('REQUEST_INVALID', `${at}: expected text, found ${shown(value)}`);
}

/** For messages. JSON.parse nests as deep as it is told to; JSON.stringify runs its stack out. */
function shown(value: unknown): string {
  try {
    return JSON.stringify(value).slice(0, 100);
  } catch {
    return 'lists and objects nested too deep';
  }
}

/** One object of the file. What is missing or null is the zero of its kind, as in Go. */
class Reader {
  readonly at: string;
  readonly #object: Readonly<Record<string, unknown>>;
  readonly #known: string[] = [];

  constructor(value: unknown, at: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw fail('REQUEST_INVALID', `${at === '' ? 'the data' : at}: expected an object, found ${shown(value)}`);
    }
    this.at = at;
    this.#object = value as Readonly<Record<string, unknown>>;
  }

  optional<T>(key: string, read: (value: unknown, at: string) => T): T | undefined {
    this.#known.push(key);
    const value = Object.hasOwn(this.#object, key) ? this.#object[key] : undefined;
    return value === undefined || value === null ? undefined : read(value, this.at === '' ? key : `${this.at}.${key}`);
  }

  text(key: string): string {
    return this.optional(key, asText) ?? '';
  }

  bool(key: string): boolean {
    return (
      this.optional(key, (value, at) => {
        if (typeof value === 'boolean') return value;
        throw fail('REQUEST_INVALID', `${at}: expected true or false, found ${shown(value)}`);
      }) ?? false
    );
  }

  /** A whole number of so many bits, its sign not counted. */
  int(key: string, bits: 31 | 53): number {
    return (
      this.optional(key, (value, at) => {
        if (typeof value === 'number' && Number.isInteger(value) && value >= -(2 ** bits) && value < 2 ** bits) return value;
        throw fail('REQUEST_INVALID', `${at}: expected a whole number, found ${shown(value)}`);
      }) ?? 0
    );
  }

  list<T>(key: string, read: (value: unknown, at: string) => T): T[] {
    return (
      this.optional(key, (value, at) => {
        if (Array.isArray(value)) return value.map((item: unknown, index) => read(item, `${at}[${index}]`));
        throw fail('REQUEST_INVALID', `${at}: expected a list, found ${shown(value)}`);
      }) ?? []
    );
  }

  /** Refuses keys that nobody asked for. */
  end(): void {
    const unknown = Object.keys(this.#object).find((key) => !this.#known.includes(key));
    if (unknown === undefined) return;
    const near = nearest(unknown, this.#known);
    throw fail(
      'REQUEST_INVALID',
      `${this.at === '' ? '' : `${this.at}: `}unknown key ${JSON.stringify(unknown)}${near === undefined ? '' : `: did you mean ${JSON.stringify(near)}?`}`,
    );
  }
}
