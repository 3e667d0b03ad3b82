/** A file of intentions: its keys, its short names, and everything that is wrong with it at once. */
import * as z from 'zod';
import { SpiffeError } from '../spiffe/errors.ts';
import { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { fail } from './errors.ts';
import { INTENTION_ID_WORDS, type Intention, Intentions, isIntentionId, parseIntentionPattern, sameAs } from './intention.ts';
import { type Fault, faultsOf, invalid, oneOf, parsedBy, readSettings, text, trustDomain } from './schema.ts';
import { readSettingsFile, type SettingsFile } from './settings-file.ts';
import { isObject, type Path, type Plain, type PlainObject } from './settings-value.ts';

/** 10,000 intentions take about 1.5 MiB. */
const MAX_LENGTH = 8 << 20;

export interface IntentionSettings {
  readonly intentions: Intentions;
  /** Of short names. */
  readonly trustDomain: TrustDomain | undefined;
}

/** @param hint what names a file, for when there is none at `path`. Throws SETTINGS_INVALID with every fault, each with its place. */
export async function readIntentionFile(path: string, hint?: string): Promise<IntentionSettings> {
  return readIntentions(await readSettingsFile(path, { maxLength: MAX_LENGTH, ...(hint !== undefined && { hint }) }));
}

/** Throws SETTINGS_INVALID with every fault, each with its place. */
export function readIntentions(file: SettingsFile): IntentionSettings {
  const faults: Fault[] = [];
  let settings: z.output<ReturnType<typeof intentionSettings>> | undefined;
  try {
    settings = readSettings(intentionSettings(trustDomainOf(file.value)), file);
  } catch (error) {
    faults.push(...faultsOf(error));
    if (faults.length === 0) throw error;
  }
  faults.push(...faultsBetween(file));
  if (settings === undefined || faults.length > 0) throw invalid(faults);
  const rules = Object.entries(settings.intention).map(([id, { description, ...rule }]): Intention => {
    return { id, ...rule, ...(description !== undefined && { description }) };
  });
  try {
    return { intentions: Intentions.from(rules, { default: settings.default }), trustDomain: settings.trust_domain };
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    throw fail('SETTINGS_INVALID', `${file.name}: ${error.message}`, { cause: error });
  }
}

/** @param known the trust domain of short names */
export function intentionSettings(known?: TrustDomain) {
  const pattern = parsedBy((written) => {
    const whole = wholeName(written, known);
    parseIntentionPattern(whole);
    return whole;
  });
  return z.strictObject({
    trust_domain: trustDomain.optional(),
    /** Of calls that no intention matches. Never left to us. */
    default: oneOf('allow', 'deny'),
    intention: z
      .record(
        z.string(),
        z.strictObject({
          source: pattern,
          destination: pattern,
          action: oneOf('allow', 'deny'),
          shadow: z.boolean().default(false),
          description: text.optional(),
        }),
      )
      .default({}),
  });
}

/** Of a file, `web` or `ns/prod/*`, or of the command line: a SPIFFE ID or pattern as it is, or one below `known`. Throws ID_INVALID. */
export function wholeName(written: string, known: TrustDomain | undefined): string {
  const refuse = (why: string) => new SpiffeError('ID_INVALID', undefined, `${JSON.stringify(written)}: ${why}`);
  if (written.includes(':')) return written;
  const everybody = `spiffe://${known?.name ?? 'example.org'}/**`;
  if (written === '*' || written === '**')
    throw refuse(
      `says not whether other trust domains are meant: write "${everybody}" for everybody of one, "spiffe://*/**" for anybody at all`,
    );
  if (known === undefined)
    throw refuse('a short name needs a trust_domain in the file; or write the whole, as in "spiffe://example.org/web"');
  const [first = ''] = written.split('/');
  if (first === known.name) throw refuse(`begins with the trust domain: did you mean ${JSON.stringify(`spiffe://${written}`)}?`);
  if (!/^[A-Za-z0-9]/.test(first)) throw refuse('a short name begins with a letter or a digit, as in "web" or "ns/prod/*"');
  return `spiffe://${known.name}/${written}`;
}

/** The ID that a word of the command line names. Throws ID_INVALID. */
export function parseName(written: string, known: TrustDomain | undefined): SpiffeId {
  return SpiffeId.parse(wholeName(written, known));
}

/** What the schema doesn't see, since it looks at one intention alone, and looks no further at one with a fault. */
function faultsBetween(file: SettingsFile): Fault[] {
  const faults: Fault[] = [];
  const [key, written] = member(file.value, 'intention');
  const known = trustDomainOf(file.value);
  const first = new Map<string, Pick<Intention, 'id' | 'shadow'>>();
  for (const [rules, above] of blocks(written, [key])) {
    for (const [id, blocksOfIt] of Object.entries(rules)) {
      for (const [rule, path] of blocks(blocksOfIt, [...above, id])) {
        const blame = (message: string) => {
          const { source, line, column } = file.positionOf(path);
          faults.push({ place: line === 0 ? source : `${source}:${line}:${column}`, path: `${key}.${id}`, message });
        };
        if (!isIntentionId(id)) blame(INTENTION_ID_WORDS);
        const shadow = member(rule, 'shadow')[1] === true;
        const ends = [wholePattern(member(rule, 'source')[1], known), wholePattern(member(rule, 'destination')[1], known)];
        if (ends.includes(undefined)) continue;
        const patterns = [...ends, shadow].join(' ');
        const other = first.get(patterns);
        if (other) blame(sameAs(other));
        else first.set(patterns, { id, shadow });
      }
    }
  }
  return faults;
}

/** A block, or each of several. */
function* blocks(value: Plain | undefined, path: Path): Generator<readonly [PlainObject, Path]> {
  if (isObject(value)) yield [value, path];
  else if (Array.isArray(value))
    for (const [index, one] of value.entries()) if (isObject(one as Plain)) yield [one as PlainObject, [...path, index]];
}

/** Undefined for what the schema refuses. */
function wholePattern(written: Plain | undefined, known: TrustDomain | undefined): string | undefined {
  if (typeof written !== 'string') return undefined;
  try {
    return wholeName(written, known);
  } catch {
    return undefined;
  }
}

/** Keys are read in any case, as everywhere. */
function member(object: PlainObject, name: string): readonly [key: string, value: Plain | undefined] {
  const key = Object.hasOwn(object, name) ? name : (Object.keys(object).find((one) => one.toLowerCase() === name) ?? name);
  return [key, Object.hasOwn(object, key) ? object[key] : undefined];
}

/** Where it is no trust domain the schema says so, and not each short name once more. */
function trustDomainOf(file: PlainObject): TrustDomain | undefined {
  const [, written] = member(file, 'trust_domain');
  if (written === undefined || written === '') return undefined;
  try {
    return TrustDomain.parseNameOrId(String(written));
  } catch {
    return TrustDomain.parse('invalid');
  }
}
