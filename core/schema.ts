/** What settings may say: the kinds of values, and `readSettings`, which gives frozen typed settings or every fault at once, each with its place. */
import * as z from 'zod';
import { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { formatDuration, parseDurationMs } from './duration.ts';
import { fail } from './errors.ts';
import { nearest } from './nearest.ts';
import type { SettingsFile } from './settings-file.ts';
import { isObject, Literal, type Path, type Plain, type PlainObject } from './settings-value.ts';

/** Text that is not empty. (An empty text for a key that may be left out is that key left out, as in SPIRE.) */
export const text = z.string().min(1, 'must not be empty');

/** A path in the file system, kept as written: relative ones belong to the working directory, as in SPIRE. */
export const path = text.refine((value) => !value.includes('\0'), 'must not hold a NUL');

export const integer = z.int();

/** 1 to 65535. SPIRE's files write it as a number or in quotes: both are read. */
export const port = z.int().min(1, 'must be 1 to 65535').max(65_535, 'must be 1 to 65535');

/** A Go duration such as "90s" or "1h30m", in milliseconds; not negative. A bare number is refused: nobody knows its unit. */
export const durationMs = durationOf({});

/** As `durationMs`, within bounds (milliseconds, inclusive). */
export function durationOf({ minMs = 0, maxMs = Number.MAX_SAFE_INTEGER }: { minMs?: number; maxMs?: number }) {
  return z.string().transform((written, context) => {
    const ms = parseDurationMs(written);
    const fault =
      typeof ms === 'string'
        ? ms
        : ms < minMs
          ? `must be at least ${formatDuration(minMs)}`
          : ms > maxMs
            ? `must be at most ${formatDuration(maxMs)}`
            : undefined;
    if (fault === undefined && typeof ms === 'number') return ms;
    context.addIssue({ code: 'custom', message: fault ?? '', input: written, params: { said: fault?.startsWith(written) } });
    return z.NEVER;
  });
}

/** A size: bytes as a number, or with one of kB, MB, GB (1000) or KiB, MiB, GiB (1024). */
export const sizeBytes = z.string().transform((written, context) => {
  const [, digits, unit] = /^([0-9]{1,15})\s?([kMG]B|[KMG]iB|B)?$/.exec(written) ?? [];
  const bytes = Number(digits) * (UNIT_BYTES[unit ?? 'B'] ?? Number.NaN);
  if (Number.isSafeInteger(bytes)) return bytes;
  context.addIssue({ code: 'custom', message: 'expected a size such as 65536, "64KiB" or "10MB"', input: written });
  return z.NEVER;
});

const UNIT_BYTES: Readonly<Record<string, number>> = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

/** A trust domain by its name, or by a SPIFFE ID in it, as SPIRE reads it. */
export const trustDomain = parsedBy((written) => TrustDomain.parseNameOrId(written));

export const spiffeId = parsedBy((written) => SpiffeId.parse(written));

/** One of some words; case matters. */
export function oneOf<const W extends readonly [string, ...string[]]>(...words: W) {
  return z.enum(words);
}

/** SPIRE's log levels, in any case. */
export const logLevel = z.string().transform((written, context) => {
  const level = LEVELS.find((known) => known === (written.toLowerCase() === 'warning' ? 'warn' : written.toLowerCase()));
  if (level) return level;
  context.addIssue({ code: 'custom', message: `expected one of ${LEVELS.join(', ')}`, input: written });
  return z.NEVER;
});
const LEVELS = ['panic', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const;

/** Text made into something by a parser of ours that throws when it can't. */
export function parsedBy<T>(parse: (written: string) => T) {
  return z.string().transform((written, context): T => {
    try {
      return parse(written);
    } catch (error) {
      context.addIssue({ code: 'custom', message: (error as Error).message, input: written, params: { said: true } });
      return z.NEVER;
    }
  });
}

/**
 * One block of `plugins`, as `core/settings-file.ts` hands it on. Its `plugin_data` is read by the plugin's own schema:
 * `readSettings(plugin.settings, file.part(['plugins', index, 'plugin_data']))`.
 */
export interface PluginBlock {
  /** `NodeAttestor`, `KeyManager`, … */
  readonly type: string;
  readonly name: string;
  readonly enabled: boolean;
  readonly plugin_data: Readonly<Record<string, unknown>>;
  /** Read instead of `plugin_data`, and again on SIGUSR1. */
  readonly plugin_data_file?: string | undefined;
  /** An external plugin's program. Read so that we can say that there are none yet. */
  readonly plugin_cmd?: string | undefined;
  readonly plugin_args?: readonly string[] | undefined;
  readonly plugin_checksum?: string | undefined;
  /** `file:line`. */
  readonly position: string;
}

/** The `health_checks` block of both programs. */
export const healthChecks = z
  .strictObject({
    listener_enabled: z.boolean().default(false),
    bind_address: text.default('localhost'),
    bind_port: port.default(80),
    live_path: text.default('/live'),
    ready_path: text.default('/ready'),
  })
  .prefault({});

/** The `plugins` block: in the file's order, no two alike. */
export const plugins: z.ZodType<readonly PluginBlock[]> = z
  .array(
    z
      .strictObject({
        type: text,
        name: text,
        enabled: z.boolean().default(true),
        plugin_data: z.record(z.string(), z.unknown()).default({}),
        plugin_data_file: path.optional(),
        plugin_cmd: path.optional(),
        plugin_args: z.array(z.string()).optional(),
        plugin_checksum: z
          .string()
          .regex(/^[0-9a-fA-F]{64}$/, 'must be a SHA-256 in 64 hex digits')
          .optional(),
        position: z.string(),
      })
      .refine(
        (block) => block.plugin_data_file === undefined || Object.keys(block.plugin_data).length === 0,
        'only one of [plugin_data, plugin_data_file] can be used',
      ),
  )
  .superRefine((blocks, context) => {
    const places = new Map<string, string>();
    for (const [index, { type, name, position }] of blocks.entries()) {
      const first = places.get(`${type} ${name}`);
      if (first === undefined) places.set(`${type} ${name}`, position);
      else
        context.addIssue({
          code: 'custom',
          path: [index],
          message: `plugin ${JSON.stringify(type)}/${JSON.stringify(name)} declared more than once, first at ${first}`,
          params: { said: true },
        });
    }
  });

/** One thing that is wrong with a file. */
export interface Fault {
  /** `server.conf:12:3`, or the flag that said it. */
  readonly place: string;
  /** `server.bind_port`. */
  readonly path: string;
  readonly message: string;
}

/**
 * What `file` says, by `schema`, deeply frozen. Throws one SETTINGS_INVALID whose message has a line for each fault (`faultsOf` gives them apart).
 *
 * As SPIRE reads HCL: keys in any case, a number where words are wanted and words that are a number where one is wanted,
 * a block standing several times as one (or as a list, where the schema wants a list).
 *
 * @param prefix what to write before each path, such as `plugins.KeyManager.disk.plugin_data`
 */
export function readSettings<T>(schema: z.ZodType<T>, file: SettingsFile, prefix = ''): T {
  const faults: Located[] = [];
  const fitted = file.with(fit(schema, file.value, [], file, faults) as PlainObject);
  const result = schema.safeParse(fitted.value, { reportInput: true });
  if (!result.success) faults.push(...result.error.issues.flatMap((issue) => locate(issue, [], schema, fitted.value)));
  if (result.success && faults.length === 0) return freeze(result.data);

  const told = faults
    .map(({ path: at, message }): Fault & { line: number; column: number } => {
      const place = fitted.positionOf(at);
      const where = place.line === 0 ? place.source : `${place.source}:${place.line}:${place.column}`;
      return { place: where, path: dotted([...(prefix === '' ? [] : [prefix]), ...at]), message, line: place.line, column: place.column };
    })
    .sort((a, b) => a.line - b.line || a.column - b.column)
    .map(({ place, path: at, message }): Fault => ({ place, path: at, message }));
  throw invalid(told);
}

const FAULTS = new WeakMap<object, readonly Fault[]>();

/** One SETTINGS_INVALID for many faults, one line each. */
export function invalid(faults: readonly Fault[]): Error {
  const error = fail(
    'SETTINGS_INVALID',
    faults.map(({ place, path: at, message }) => [place, at, message].filter(Boolean).join(': ')).join('\n'),
  );
  FAULTS.set(error, faults);
  return error;
}

/** The faults of an error that `readSettings` threw, in the file's order; none for any other. */
export function faultsOf(error: unknown): readonly Fault[] {
  return (typeof error === 'object' && error !== null && FAULTS.get(error)) || [];
}

/** Every key of a schema as a dotted path, blocks included; `*` stands for a name that the operator chooses, `[]` for a list's items. For docs. */
export function keysOf(schema: z.ZodType, at = ''): string[] {
  const { object, record, array } = shapeOf(schema);
  const join = (key: string) => (at === '' ? key : `${at}.${key}`);
  if (object) return Object.entries(object).flatMap(([key, inner]) => [join(key), ...keysOf(inner, join(key))]);
  if (record) return keysOf(record, join('*'));
  return array ? keysOf(array, `${at}[]`) : [];
}

interface Located {
  readonly path: Path;
  readonly message: string;
}

function dotted(at: Path): string {
  return at.map((part, index) => (typeof part === 'number' ? `[${part}]` : index === 0 ? part : `.${part}`)).join('');
}

type Shape = {
  readonly object?: Readonly<Record<string, z.ZodType>>;
  readonly record?: z.ZodType;
  readonly array?: z.ZodType;
  readonly leaf?: string;
  /** The key may be missing. */
  readonly optional: boolean;
};

/** What a schema wants, through its wrappers. */
function shapeOf(schema: z.ZodType, optional = false): Shape {
  if (schema instanceof z.ZodObject) return { object: schema.shape, optional };
  if (schema instanceof z.ZodRecord) return { record: schema.valueType as z.ZodType, optional };
  if (schema instanceof z.ZodArray) return { array: schema.element as z.ZodType, optional };
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault)
    return shapeOf(schema.def.innerType as z.ZodType, true);
  if (
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodReadonly ||
    schema instanceof z.ZodNonOptional ||
    schema instanceof z.ZodCatch
  ) {
    return shapeOf(schema.def.innerType as z.ZodType, optional);
  }
  if (schema instanceof z.ZodPipe)
    return shapeOf((schema.def.in instanceof z.ZodTransform ? schema.def.out : schema.def.in) as z.ZodType, optional);
  if (schema instanceof z.ZodLazy) return shapeOf(schema.unwrap() as z.ZodType, optional);
  return { leaf: schema.def.type, optional };
}

/** Brings what the file says into the form that the schema wants, as SPIRE's reader would, without judging it. */
function fit(schema: z.ZodType, value: Plain, at: Path, file: SettingsFile, faults: Located[]): unknown {
  const { object, record, array, leaf } = shapeOf(schema);
  if (object || record) {
    const one = Array.isArray(value) && value.length > 0 && value.every(isObject) ? merge(value, at, file, faults) : value;
    if (!isObject(one)) return bare(one);
    const fitted: Record<string, unknown> = {};
    const names = object && Object.keys(object);
    for (const [written, inner] of Object.entries(one)) {
      const name =
        !names || names.includes(written) ? written : (names.find((known) => known.toLowerCase() === written.toLowerCase()) ?? written);
      const wanted = object ? (Object.hasOwn(object, name) ? object[name] : undefined) : record;
      if (wanted && inner === '' && shapeOf(wanted).optional && shapeOf(wanted).leaf !== undefined) continue;
      if (name !== written) {
        if (Object.hasOwn(one, name))
          faults.push({ path: [...at, written], message: `the same key as ${JSON.stringify(name)}, which is there too` });
      }
      fitted[name] = wanted ? fit(wanted, inner, [...at, name], file, faults) : bare(inner);
    }
    file.carry(one, fitted);
    for (const name of Object.keys(fitted)) {
      if (Object.hasOwn(one, name)) continue;
      const written = Object.keys(one).find((key) => key.toLowerCase() === name.toLowerCase());
      if (written !== undefined) file.note(fitted, name, file.with({ one }).positionOf(['one', written]));
    }
    return fitted;
  }
  if (array) {
    const list = isObject(value) && shapeOf(array).leaf === undefined ? [value] : value;
    if (!Array.isArray(list)) return bare(list);
    return file.carry(
      list,
      list.map((item: Plain, index) => fit(array, item, [...at, index], file, faults)),
    );
  }
  if (leaf === 'number' && typeof value === 'string' && /^[+-]?(0|[1-9][0-9]{0,15})$/.test(value)) return Number(value);
  if ((leaf === 'string' || leaf === 'enum') && value instanceof Literal) return value.text;
  if ((leaf === 'string' || leaf === 'enum') && typeof value === 'number') return String(value);
  return bare(value, file);
}

/** The values without their texts. */
function bare(value: Plain, file?: SettingsFile): unknown {
  if (value instanceof Literal) return value.value;
  if (Array.isArray(value)) {
    const copy = value.map((item: Plain) => bare(item, file));
    return file ? file.carry(value, copy) : copy;
  }
  if (!isObject(value)) return value;
  const copy = Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, bare(inner, file)]));
  return file ? file.carry(value, copy) : copy;
}

/** One block of several: what stands in two of them must be blocks itself. */
function merge(blocks: readonly PlainObject[], at: Path, file: SettingsFile, faults: Located[]): PlainObject {
  const [first = {}, ...others] = blocks;
  if (others.length === 0) return first;
  const merged: Record<string, Plain> = {};
  for (const block of blocks) {
    const places = file.with({ block });
    for (const [key, value] of Object.entries(block)) {
      const old = merged[key];
      if (old === undefined) file.note(merged, key, places.positionOf(['block', key]));
      if (old === undefined) merged[key] = value;
      else if ((isObject(old) || Array.isArray(old)) && isObject(value)) merged[key] = [...(Array.isArray(old) ? old : [old]), value];
      else faults.push({ path: [...at, key], message: `set twice, again at line ${places.positionOf(['block', key]).line}` });
    }
  }
  return merged;
}

/** Secrets: what was written there is never shown. */
const SECRET = /token|secret|password|connection_string|private_key$/i;

function shown(value: unknown, at: Path): string {
  if (at.some((part) => typeof part === 'string' && SECRET.test(part) && !part.endsWith('_file') && !part.endsWith('_path'))) return '';
  const written = JSON.stringify(value instanceof Literal ? value.value : value) ?? String(value);
  return `, found ${written.length > 100 ? `${written.slice(0, 100)}…` : written}`;
}

const KINDS: Readonly<Record<string, string>> = {
  string: 'text in quotes',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  object: 'a block',
  record: 'a block',
  array: 'a list',
};

function locate(issue: z.core.$ZodIssue, before: Path, root: z.ZodType, whole: unknown): Located[] {
  const at: Path = [...before, ...issue.path.filter((part) => typeof part !== 'symbol')];
  const seen = issue.input === undefined ? valueAt(whole, at) : issue.input;
  switch (issue.code) {
    case 'unrecognized_keys': {
      const known = Object.keys(shapeOf(schemaAt(root, at) ?? z.unknown()).object ?? {});
      return issue.keys.map((key) => {
        const near = nearest(key, known);
        return { path: [...at, key], message: near === undefined ? 'unknown key' : `unknown key: did you mean ${JSON.stringify(near)}?` };
      });
    }
    case 'invalid_type':
      // what must not be there says itself why
      if (issue.expected === 'undefined') return [{ path: at, message: issue.message }];
      if (seen === undefined) return [{ path: at, message: 'must be configured' }];
      return [{ path: at, message: `expected ${KINDS[issue.expected] ?? issue.expected}${shown(seen, at)}` }];
    case 'invalid_value': {
      const values = issue.values.map(String);
      const near = typeof seen === 'string' ? nearest(seen, values) : undefined;
      if (seen === undefined) return [{ path: at, message: 'must be configured' }];
      return [
        {
          path: at,
          message: `expected ${values.length === 1 ? '' : 'one of '}${values.join(', ')}${shown(seen, at)}${near === undefined ? '' : `: did you mean ${JSON.stringify(near)}?`}`,
        },
      ];
    }
    case 'invalid_union': {
      const tried = issue.errors.map((inner) => inner.flatMap((one) => locate(one, at, root, whole)));
      return tried.sort((a, b) => a.length - b.length)[0] ?? [{ path: at, message: `is none of what it may be${shown(seen, at)}` }];
    }
    case 'custom':
      return [
        {
          path: at,
          message: issue.params?.['said'] === true || typeof seen === 'object' ? issue.message : `${issue.message}${shown(seen, at)}`,
        },
      ];
    case 'too_big':
    case 'too_small':
    case 'not_multiple_of':
    case 'invalid_format':
    case 'invalid_key':
    case 'invalid_element':
      return [{ path: at, message: typeof seen === 'object' ? issue.message : `${issue.message}${shown(seen, at)}` }];
  }
}

function valueAt(whole: unknown, at: Path): unknown {
  let value = whole;
  for (const key of at) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Readonly<Record<string, unknown>>)[key];
  }
  return value;
}

function schemaAt(root: z.ZodType, at: Path): z.ZodType | undefined {
  let schema: z.ZodType | undefined = root;
  for (const key of at) {
    if (!schema) return undefined;
    const { object, record, array }: Shape = shapeOf(schema);
    schema = object ? object[key] : (record ?? array);
  }
  return schema;
}

function freeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null) return value;
  for (const inner of Object.values(value)) freeze(inner);
  return Object.freeze(value);
}
