/** A settings file: HCL, YAML or JSON text in, plain values out, and the place in the file of each. What they mean is `core/schema.ts`'s. */
import { readFile, stat } from 'node:fs/promises';
import { extname, resolve } from 'node:path';
import { fail, isCoded } from './errors.ts';
import { type HclItem, type HclObject, type HclOptions, type HclValue, type Position, parseHcl } from './hcl.ts';
import { type Builder, isObject, Literal, type Path, type Place, type Plain, type PlainObject } from './settings-value.ts';

export type Format = 'hcl' | 'yaml' | 'json';

/** Largest file, bytes, where nothing else is said. */
const MAX_BYTES = 1 << 20;

export class SettingsFile {
  /** As the operator named it. */
  readonly name: string;
  readonly value: PlainObject;
  readonly #places: Places;
  /** Where the whole of it was said. */
  readonly #base: Place;

  constructor(name: string, value: PlainObject, places: Places, base: Place = { source: name, line: 0, column: 0 }) {
    this.name = name;
    this.value = value;
    this.#places = places;
    this.#base = base;
  }

  /** The place of the value at `path`, or of the nearest thing around it that has one. */
  positionOf(path: Path): Place {
    let place = this.#base;
    let value: Plain | undefined = this.value;
    for (const key of path) {
      if (typeof value !== 'object' || value === null || value instanceof Literal) break;
      const found = this.#places.get(value)?.get(String(key));
      if (found) place = found;
      value = (value as Readonly<Record<string, Plain>>)[key];
    }
    return place;
  }

  /** Remembers where `copy`, made of `original`, came from. For those who reshape values. */
  carry<T extends object>(original: object, copy: T): T {
    const places = this.#places.get(original);
    if (places) this.#places.set(copy, places);
    return copy;
  }

  /** Remembers the place of one key of `object`. */
  note(object: object, key: string, place: Place): void {
    const places = new Map(this.#places.get(object));
    this.#places.set(object, places.set(key, place));
  }

  /** The same file with other values of it on top, or reshaped. */
  with(value: PlainObject): SettingsFile {
    return new SettingsFile(this.name, value, this.#places, this.#base);
  }

  /** The file with `value` at `path` instead of what it says there; `source` (a flag's name) is blamed for it. */
  set(path: Path, value: Plain, source: string): SettingsFile {
    const place: Place = { source, line: 0, column: 0 };
    const put = (object: Plain | undefined, [key, ...rest]: Path): Plain => {
      if (key === undefined) return value;
      const old = isObject(object) ? object : {};
      const copy = this.carry(old, { ...old, [key]: put(old[key], rest) });
      this.note(copy, String(key), rest.length === 0 ? place : (this.#places.get(old)?.get(String(key)) ?? place));
      return copy;
    };
    return this.with(put(this.value, path) as PlainObject);
  }

  /** The part at `path` as a file of its own: a plugin's data. Not an object there: an empty part. */
  part(path: Path): SettingsFile {
    let value: Plain | undefined = this.value;
    for (const key of path)
      value = typeof value === 'object' && value !== null ? (value as Readonly<Record<string, Plain>>)[key] : undefined;
    return new SettingsFile(this.name, isObject(value) ? value : {}, this.#places, this.positionOf(path));
  }
}

type Places = WeakMap<object, ReadonlyMap<string, Place>>;

/** What the file's name says: `.yaml`, `.yml`, `.json`; anything else is HCL, as SPIRE has it. */
export function formatOf(name: string): Format {
  const ending = extname(name).toLowerCase();
  if (ending === '.yaml' || ending === '.yml') return 'yaml';
  return ending === '.json' ? 'json' : 'hcl';
}

/**
 * Reads the file at `path`. With `lookup`, `$NAME` and `${NAME}` in its raw text become what `lookup` says first (`-expandEnv`).
 * Throws SETTINGS_INVALID when there is none (`hint` then says what names one; default: the -config flag), when it is too large, or no text of its format.
 */
export async function readSettingsFile(
  path: string,
  options: { lookup?: (name: string) => string | undefined; hint?: string } & HclOptions = {},
): Promise<SettingsFile> {
  const { maxLength: most = MAX_BYTES } = options;
  let text: string;
  try {
    const { size } = await stat(path);
    if (size > most) throw fail('SETTINGS_INVALID', `${path}: ${size} bytes; a settings file has at most ${most}`);
    text = decodeUtf8(await readFile(path), path);
  } catch (error) {
    if (isCoded(error)) throw error;
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      throw fail('SETTINGS_INVALID', `could not find config file ${resolve(path)}: please use ${options.hint ?? 'the -config flag'}`, {
        cause: error,
      });
    }
    throw fail('SETTINGS_INVALID', `unable to read configuration at ${JSON.stringify(path)}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (options.lookup) text = expandEnv(text, options.lookup);
  return await parseSettings(text, path, formatOf(path), options);
}

function decodeUtf8(bytes: Buffer, name: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw fail('SETTINGS_INVALID', `${name}: not UTF-8 text`, { cause: error });
  }
}

/** Text of a given format. An HCL text that starts with `{` is JSON, as in HCL 1. Throws SETTINGS_INVALID with `name:line:column`. */
export async function parseSettings(text: string, name: string, format: Format, options: HclOptions = {}): Promise<SettingsFile> {
  const { maxLength = MAX_BYTES } = options;
  if (text.length > maxLength) throw fail('SETTINGS_INVALID', `${name}: longer than ${maxLength} characters`);
  const places: Places = new WeakMap();
  const isJson = format === 'json' || (format === 'hcl' && /^\s*\{/.test(text));
  let value: Plain;
  if (isJson || format === 'yaml') {
    // loaded only here: most files are HCL
    const { parseYaml } = await import('./settings-yaml.ts');
    value = parseYaml(text, isJson, builder(name, places), (message, position) => at(name, position, message));
  } else {
    try {
      value = fromObject(parseHcl(text, options), builder(name, places));
    } catch (error) {
      if (isCoded(error, 'SETTINGS_INVALID')) throw fail('SETTINGS_INVALID', `${name}:${error.message}`, { reason: 'HCL', cause: error });
      throw error;
    }
  }
  if (!isObject(value)) throw at(name, { line: 1, column: 1 }, 'a settings file is an object: keys and values');
  const file = new SettingsFile(name, value, places);
  return value['plugins'] === undefined ? file : withPlugins(file);
}

function at(name: string, { line, column }: Position, message: string): Error {
  return fail('SETTINGS_INVALID', `${name}:${line}:${column}: ${message}`);
}

function builder(source: string, places: Places): Builder {
  return {
    object(entries) {
      const made: Record<string, Plain> = {};
      const where = new Map<string, Place>();
      for (const [key, value, position] of entries) {
        if (key === '__proto__') throw at(source, position, '"__proto__" is no key');
        where.set(key, { source, ...position });
        made[key] = value;
      }
      places.set(made, where);
      return made;
    },
    list(entries) {
      const made: Plain[] = [];
      const where = new Map<string, Place>();
      for (const [value, position] of entries) {
        where.set(String(made.length), { source, ...position });
        made.push(value);
      }
      places.set(made, where);
      return made;
    },
  };
}

function fromObject(object: HclObject, build: Builder): PlainObject {
  return fromItems(
    object.items.map((item) => ({ item, from: 0 })),
    build,
  );
}

/** Items that share a first key become one object of their labels, or a list when the same block stands there twice. */
function fromItems(items: readonly { readonly item: HclItem; readonly from: number }[], build: Builder): PlainObject {
  const groups = new Map<string, { readonly item: HclItem; readonly from: number }[]>();
  for (const entry of items) {
    const key = entry.item.keys[entry.from]?.name ?? '';
    const group = groups.get(key);
    if (group) group.push(entry);
    else groups.set(key, [entry]);
  }
  return build.object(
    [...groups].map(([key, group]) => {
      const position = group[0]?.item.keys[group[0].from]?.position ?? { line: 1, column: 1 };
      const labelled = group.filter(({ item, from }) => item.keys.length > from + 1).map(({ item, from }) => ({ item, from: from + 1 }));
      const bare = group.filter(({ item, from }) => item.keys.length === from + 1);
      const values: (readonly [Plain, Position])[] = bare.map(
        ({ item }) => [fromValue(item.value, build), item.keys.at(-1)?.position ?? position] as const,
      );
      if (labelled.length > 0) values.push([fromItems(labelled, build), position]);
      const [only] = values;
      return [key, only && values.length === 1 ? only[0] : build.list(values), position] as const;
    }),
  );
}

function fromValue(value: HclValue, build: Builder): Plain {
  switch (value.kind) {
    case 'string':
    case 'bool':
      return value.value;
    case 'number':
      return new Literal(value.value, value.text);
    case 'list':
      return build.list(value.items.map((item) => [fromValue(item, build), item.position] as const));
    case 'object':
      return fromObject(value, build);
  }
}

/** Turns the `plugins` block (type → name → configuration, lists on the way flattened, as HCL 1 reads JSON) into an array. */
function withPlugins(file: SettingsFile): SettingsFile {
  const blocks: Plain[] = [];
  const places = new Map<number, Place>();
  const bad = (path: Path, message: string) => {
    const { source, line, column } = file.positionOf(path);
    return at(source, { line, column }, message);
  };
  for (const [types, typesPath] of objectsAt(file.value['plugins'] ?? {}, ['plugins'], bad)) {
    for (const [type, named] of Object.entries(types)) {
      for (const [names, namesPath] of objectsAt(named, [...typesPath, type], bad)) {
        for (const [name, config] of Object.entries(names)) {
          for (const [data, path] of objectsAt(config, [...namesPath, name], bad)) {
            const place = file.positionOf(path);
            const taken = ['type', 'name', 'position'].find((key) => key in data);
            if (taken !== undefined) throw bad([...path, taken], `${[...path, taken].join('.')}: unknown key`);
            places.set(blocks.length, place);
            blocks.push(file.carry(data, { ...data, type, name, position: `${place.source}:${place.line}` }));
          }
        }
      }
    }
  }
  const value = file.carry(file.value, { ...file.value, plugins: blocks });
  for (const [index, place] of places) file.note(blocks, String(index), place);
  return file.with(value);
}

function* objectsAt(value: Plain, path: Path, bad: (path: Path, message: string) => Error): Generator<readonly [PlainObject, Path]> {
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) yield* objectsAt(item as Plain, [...path, index], bad);
  } else if (isObject(value)) {
    yield [value, path];
  } else {
    throw bad(path, `${path.join('.')}: expected a block, as in plugins { KeyManager "memory" { plugin_data {} } }`);
  }
}

/**
 * Go's os.Expand with SPIRE's rule: `$NAME` and `${NAME}` become what `lookup` gives (nothing: empty), `$$` becomes `$`.
 * A name is letters, digits and `_`, or one of Go's special characters; a `$` before anything else stays. `${` without its end goes, as in Go.
 */
export function expandEnv(text: string, lookup: (name: string) => string | undefined): string {
  return text.replace(
    /\$(?:\{([^}]*)\}|\{|([*#$@!?\-0-9])|([A-Za-z_][A-Za-z0-9_]*))/g,
    (_, braced?: string, special?: string, name?: string) => {
      const wanted = braced ?? special ?? name;
      if (wanted === undefined || wanted === '') return '';
      return wanted === '$' ? '$' : (lookup(wanted) ?? '');
    },
  );
}
