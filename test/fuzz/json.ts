/** Changes that know JSON: a value is replaced, taken out, doubled, nested, or borrowed. What is no JSON is changed plainly. */
import { type Mutation, PLAIN } from './mutations.ts';
import type { Random } from './random.ts';

/** Members as pairs: a member may come twice. */
export type Json = null | boolean | string | { readonly number: string } | { list: Json[] } | { members: [string, Json][] };

export function readJson(text: string): Json | undefined {
  try {
    // numbers as they are written, members that come twice lost: what comes twice is made here
    return from(
      JSON.parse(text, (_, value: unknown, context?: { source?: string }) =>
        typeof value === 'number' ? new Written(context?.source ?? String(value)) : value,
      ),
    );
  } catch {
    return undefined;
  }
}

class Written {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

function from(value: unknown): Json {
  if (value instanceof Written) return { number: value.text };
  if (Array.isArray(value)) return { list: value.map(from) };
  if (typeof value === 'object' && value !== null) return { members: Object.entries(value).map(([name, one]) => [name, from(one)]) };
  return value as null | boolean | string;
}

export function writeJson(value: Json): string {
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if ('number' in value) return value.number;
  if ('list' in value) return `[${value.list.map(writeJson).join(',')}]`;
  return `{${value.members.map(([name, one]) => `${JSON.stringify(name)}:${writeJson(one)}`).join(',')}}`;
}

const VALUES: readonly Json[] = [
  null,
  true,
  false,
  '',
  'x',
  'spiffe://example.org/web',
  'spiffe://other.org/web',
  '__proto__',
  '\u0000',
  '\ud800',
  { list: [] },
  { list: [''] },
  { list: [null] },
  { members: [] },
  ...[
    '0',
    '-0',
    '1',
    '-1',
    '1.5',
    '1e400',
    '1e22',
    '9007199254740993',
    '18446744073709551615',
    '18446744073709551616',
    '253402300799',
    '4102444800',
    '1e-400',
    `1${'0'.repeat(500)}`,
  ].map((number) => ({ number })),
];

type Slot = {
  readonly get: () => Json;
  readonly set: (value: Json) => void;
  readonly remove: () => void;
  readonly insert: (value: Json) => void;
};

function slots(value: Json): Slot[] {
  if (value === null || typeof value !== 'object' || 'number' in value) return [];
  if ('list' in value) {
    const { list } = value;
    return list.flatMap((one, i) => [
      { get: () => one, set: (v) => (list[i] = v), remove: () => list.splice(i, 1), insert: (v) => list.splice(i, 0, v) },
      ...slots(one),
    ]);
  }
  const { members } = value;
  return members.flatMap(([name, one], i) => [
    {
      get: () => one,
      set: (v) => (members[i] = [name, v]),
      remove: () => members.splice(i, 1),
      insert: (v) => members.splice(i, 0, [name, v]),
    },
    ...slots(one),
  ]);
}

/** Changes a tree. @param text makes a text of a text: what the texts of a format are made of. */
export function changeJson(
  random: Random,
  root: Json,
  other: Json | undefined,
  text: (random: Random, old: string) => string = plainText,
): Json {
  const all = slots(root);
  if (all.length === 0) return random.pick(VALUES);
  const slot = random.pick(all);
  const old = slot.get();
  switch (random.int(9)) {
    case 0:
      slot.set(random.pick(VALUES));
      return root;
    case 1:
      slot.remove();
      return root;
    case 2:
      slot.insert(old);
      return root;
    case 3:
      slot.insert(random.pick(VALUES));
      return root;
    case 4: {
      if (random.oneIn(16)) {
        // written as it is: a tree so deep could not be written
        const depth = random.pick([33, 500, 3000, 10_000]);
        slot.set({
          number: random.oneIn(2) ? `${'['.repeat(depth)}${']'.repeat(depth)}` : `${'{"x":'.repeat(depth)}1${'}'.repeat(depth)}`,
        });
        return root;
      }
      let nested = old;
      for (let depth = random.size(40); depth > 0; depth--) nested = random.oneIn(2) ? { list: [nested] } : { members: [['x', nested]] };
      slot.set(nested);
      return root;
    }
    case 5: {
      const theirs = other === undefined ? [] : slots(other);
      if (theirs.length > 0) slot.set(random.pick(theirs).get());
      return root;
    }
    case 6:
      slot.set({
        members: [
          ...(typeof old === 'object' && old !== null && 'members' in old ? old.members : []),
          [random.pick(['__proto__', 'constructor', 'x', '']), random.pick(VALUES)],
        ],
      });
      return root;
    default:
      if (typeof old === 'string') slot.set(text(random, old));
      else slot.set(random.pick(VALUES));
      return root;
  }
}

function plainText(random: Random, old: string): string {
  const bytes = Buffer.from(old);
  return random.pick(PLAIN)(random, bytes, bytes).toString();
}

export function jsonMutation(text?: (random: Random, old: string) => string): Mutation {
  return (random, input, other) => {
    let root = readJson(input.toString());
    if (root === undefined) return random.pick(PLAIN)(random, input, other);
    const theirs = random.oneIn(4) ? readJson(other.toString()) : undefined;
    for (let times = 1 + random.int(2); times > 0; times--) root = changeJson(random, root, theirs, text);
    return Buffer.from(writeJson(root));
  };
}
