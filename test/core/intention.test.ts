/** Intentions: which one decides, held against the same sentence written once more; who never matches; what trials tell; what people are told. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ANYBODY, type Intention, Intentions, parseIntentionPattern } from '../../core/intention.ts';
import { SpiffeError } from '../../spiffe/errors.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import { PAIRS, RULES } from './intention-corpus.ts';
import { naive } from './naive-intentions.ts';

const id = (text: string) => SpiffeId.parse(text);
const at = (path: string) => (path.startsWith('spiffe:') ? path : `spiffe://example.org/${path}`);
/** `allow web db`, `trial deny web *`. */
function rule(text: string, name = text.replaceAll(/[^a-z0-9]+/g, '-')): Intention {
  const words = text.split(' ');
  const shadow = words[0] === 'trial';
  const [action = '', source = '', destination = ''] = shadow ? words.slice(1) : words;
  if (action !== 'allow' && action !== 'deny') throw new Error(text);
  return { id: name, source: at(source), destination: at(destination), action, shadow };
}
const of = (preset: 'allow' | 'deny', ...texts: string[]) =>
  Intentions.from(
    texts.map((text, i) => rule(text, `r${i}`)),
    { default: preset },
  );
const check = (intentions: Intentions, source: string, destination: string) => intentions.check(id(at(source)), id(at(destination)));

describe('which one decides', () => {
  /** The first of each row must win, whichever stands first in the file. */
  const rows: readonly (readonly [what: string, winner: string, loser: string, source: string, destination: string])[] = [
    ['a word over a star in the destination', 'deny * db', 'allow web *', 'web', 'db'],
    ['a star over two in the destination', 'deny ** db/*', 'allow web db/**', 'web', 'db/main'],
    ['two stars over anybody in the destination', `deny ** **`, `allow web ${ANYBODY}`, 'web', 'db'],
    ['the destination over the source', `deny ${ANYBODY} db`, 'allow web **', 'web', 'db'],
    ['a word over a star in the source', 'deny web db', 'allow * db', 'web', 'db'],
    ['a star over two in the source', 'deny ns/* db', 'allow ns/** db', 'ns/web', 'db'],
    ['two stars over anybody in the source', 'deny ** db', `allow ${ANYBODY} db`, 'web', 'db'],
    ['the left segment over the right', 'deny web a/*', 'allow web */b', 'web', 'a/b'],
    ['a star over two stars on its left', 'deny web */b', 'allow web **', 'web', 'a/b'],
    ['more segments before two stars', 'deny web a/*/**', 'allow web a/**', 'web', 'a/b/c'],
    ['allow over deny, when it is more exact', 'allow web db', 'deny ** db', 'web', 'db'],
    ['an own trust domain over anybody', 'allow spiffe://far.test/** db', `deny ${ANYBODY} db`, 'spiffe://far.test/x', 'db'],
  ];
  for (const [what, winner, loser, source, destination] of rows) {
    test(what, () => {
      for (const order of [
        [winner, loser],
        [loser, winner],
      ]) {
        const intentions = of('deny', ...order);
        const verdict = check(intentions, source, destination);
        expect(verdict.rule).toBe(intentions.rules[0]);
        expect(verdict.allowed).toBe(winner.startsWith('allow'));
        // both were asked
        expect(intentions.matching(id(at(source)), id(at(destination)))).toEqual(intentions.rules);
      }
    });
  }

  test('the default, when none matches', () => {
    expect(check(of('deny', 'allow web db'), 'web', 'cache')).toMatchObject({ allowed: false, rule: undefined });
    expect(check(of('allow', 'deny web db'), 'web', 'cache')).toMatchObject({ allowed: true, rule: undefined });
    expect(check(of('deny'), 'web', 'db').allowed).toBe(false);
  });

  test('a call back is another call', () => {
    const intentions = of('deny', 'allow web db');
    expect([check(intentions, 'web', 'db').allowed, check(intentions, 'db', 'web').allowed]).toEqual([true, false]);
  });
});

describe('who matches a pattern', () => {
  const matches = (pattern: string, one: string) =>
    Intentions.from([{ id: 'x', source: ANYBODY, destination: pattern, action: 'allow', shadow: false }], { default: 'deny' }).check(
      id('spiffe://example.org/web'),
      id(one),
    ).allowed;

  test.each([
    ['spiffe://example.org/db', ['spiffe://example.org/db']],
    ['spiffe://example.org/*', ['spiffe://example.org/db', 'spiffe://example.org/DB']],
    ['spiffe://example.org/db/*', ['spiffe://example.org/db/main']],
    ['spiffe://example.org/**', ['spiffe://example.org/db', 'spiffe://example.org/DB', 'spiffe://example.org/db/main']],
    ['spiffe://example.org', ['spiffe://example.org']],
    [ANYBODY, ['spiffe://example.org/db', 'spiffe://example.org/DB', 'spiffe://example.org/db/main', 'spiffe://far.test/db']],
  ])('%s: %j and no other', (pattern, wanted) => {
    const ids = [
      'spiffe://example.org/db',
      'spiffe://example.org/DB',
      'spiffe://example.org/db/main',
      'spiffe://example.org',
      'spiffe://far.test/db',
    ];
    expect(ids.filter((one) => matches(pattern, one))).toEqual(wanted);
  });

  test('names that a map of JavaScript has of itself are words as all others', () => {
    for (const word of ['constructor', '__proto__', 'toString']) {
      expect(matches('spiffe://example.org/db', at(word))).toBe(false);
      expect(matches(at(word), at(word))).toBe(true);
    }
  });

  test.each(['*', '**', 'web', 'spiffe://*', 'spiffe://**', 'spiffe://*/*', 'spiffe://*/web', 'spiffe://*/web/**', 'spiffe://*/**/'])(
    '%j is no pattern',
    (pattern) => {
      expect(() => parseIntentionPattern(pattern)).toThrowError(expect.objectContaining({ code: 'ID_INVALID' }));
      expect(() => matches(pattern, 'spiffe://example.org/web')).toThrow(SpiffeError);
    },
  );

  test.each(['web%2f', 'w%65b', 'web/', 'web//x', '/web', 'web/../x', 'web ', 'wéb', 'a*', 'web?x', 'web#x', 'Example.org'])(
    'what is no SPIFFE ID is no pattern either, and so never matches: %j',
    (path) => {
      for (const text of [at(path), `spiffe://${path}`].filter((one) => !SpiffeId.is(one)))
        expect(() => parseIntentionPattern(text)).toThrowError(expect.objectContaining({ code: 'ID_INVALID' }));
    },
  );
});

describe('in trial', () => {
  test('an intention never decides, and is told when it would have decided otherwise', () => {
    const trial = of('deny', 'allow web db', 'trial deny web db');
    expect(check(trial, 'web', 'db')).toMatchObject({ allowed: true, rule: { id: 'r0' }, shadow: { id: 'r1' } });
    const alone = of('deny', 'trial allow web db');
    expect(check(alone, 'web', 'db')).toMatchObject({ allowed: false, rule: undefined, shadow: { id: 'r0' } });
  });

  test('one that would have decided the same is not told', () => {
    const trial = of('deny', 'allow ** db', 'trial allow web db');
    expect(check(trial, 'web', 'db')).toMatchObject({ allowed: true, rule: { id: 'r0' }, shadow: undefined });
    expect(check(of('deny', 'trial deny web db'), 'web', 'db').shadow).toBeUndefined();
  });

  test('one that is less exact than what decides would not have decided', () => {
    expect(check(of('deny', 'allow web db', 'trial deny ** db'), 'web', 'db').shadow).toBeUndefined();
    // its twin: more exact, it would have
    expect(check(of('deny', 'allow ** db', 'trial deny web db'), 'web', 'db').shadow?.id).toBe('r1');
  });

  test('of several the most exact would have decided, and it alone', () => {
    const trial = of('deny', 'allow ** **', 'trial allow web db', 'trial deny ** db');
    expect(check(trial, 'web', 'db').shadow).toBeUndefined();
    expect(check(trial, 'api', 'db').shadow?.id).toBe('r2');
  });
});

const bad: readonly [what: string, rules: readonly Intention[], reason: string | undefined, words: RegExp][] = [
  ['two of one id', [rule('allow web db', 'x'), rule('allow api db', 'x')], 'INTENTION_REPEATED', /"x"/],
  ['two of the same patterns', [rule('allow web db', 'a'), rule('deny web db', 'b')], 'INTENTION_SAME', /"b".* as a/],
  ['two of the same patterns in trial', [rule('trial allow web db', 'a'), rule('trial deny web db', 'b')], 'INTENTION_SAME', /as a/],
  ['an empty id', [rule('allow web db', '')], 'INTENTION_ID', /1 to 128/],
  ['an id that a log would read as something else', [rule('allow web db', 'a\nb')], 'INTENTION_ID', /"a\\nb"/],
  ['another action', [{ ...rule('allow web db'), action: 'Allow' as 'allow' }], 'INTENTION_ACTION', /allow or deny/],
  ['a source that is no pattern', [rule('allow web/* db'), rule('allow spiffe://*/x db')], 'ID_TRUST_DOMAIN_CHAR', /spiffe:\/\/\*\/x/],
];
describe('refused', () => {
  for (const [what, rules, reason, words] of bad) {
    test(what, () => {
      expect(() => Intentions.from(rules, { default: 'deny' })).toThrowError(
        expect.objectContaining({ reason, message: expect.stringMatching(words) }),
      );
    });
  }
  test('another default', () => {
    expect(() => Intentions.from([], { default: '' as 'deny' })).toThrowError(expect.objectContaining({ reason: 'INTENTION_DEFAULT' }));
  });
  test('but not the same patterns once for real and once in trial, nor with the ends changed', () => {
    expect(of('deny', 'allow web db', 'trial deny web db', 'allow db web').rules).toHaveLength(3);
  });
});

describe('the version', () => {
  test('is the same for the same intentions in another order, with other descriptions', () => {
    const rules = [rule('allow web db'), rule('deny ** db'), rule('trial deny web db')];
    const version = (list: readonly Intention[]) => Intentions.from(list, { default: 'deny' }).version;
    expect(version(rules)).toMatch(/^[0-9a-f]{16}$/);
    expect(version([...rules].reverse())).toBe(version(rules));
    expect(version(rules.map((one) => ({ ...one, description: 'x' })))).toBe(version(rules));
  });
  test('is another one for whatever decides otherwise', () => {
    const versions = [
      of('deny', 'allow web db'),
      of('allow', 'allow web db'),
      of('deny', 'deny web db'),
      of('deny', 'trial allow web db'),
      of('deny', 'allow web cache'),
      of('deny', 'allow api db'),
      of('deny'),
      Intentions.from([rule('allow web db', 'r1')], { default: 'deny' }),
    ].map(({ version }) => version);
    expect(new Set(versions).size).toBe(versions.length);
  });
});

test('intentions are what they were, whatever becomes of what they were made of', () => {
  const written = { ...rule('deny ** db', 'x') };
  const intentions = Intentions.from([written], { default: 'allow' });
  Object.assign(written, { action: 'allow' });
  expect(check(intentions, 'web', 'db').allowed).toBe(false);
  expect(Object.isFrozen(intentions.rules) && intentions.rules.every((one) => Object.isFrozen(one))).toBe(true);
});

describe('for people', () => {
  const intentions = of('deny', 'allow web db', 'deny ** db', 'deny ** **', 'trial deny web db', 'allow web cache', 'trial allow api db');
  const why = (source: string, destination: string) => check(intentions, source, destination).why;

  test('the sentence says what was seen, what decided, and why it comes before the others', () => {
    expect(why('web', 'db')).toBe(
      'spiffe://example.org/web may call spiffe://example.org/db: intention r0 allows spiffe://example.org/web to call spiffe://example.org/db, ' +
        'and comes before r1, since its destination is the same and its source less exact, and before 1 more; in trial, intention r3 would deny it',
    );
    expect(why('api', 'db')).toMatch(
      /may not call .*: intention r1 denies .*comes before r2, since its destination is less exact; in trial, intention r5 would allow it$/,
    );
    expect(check(of('deny', 'allow web db'), 'web', 'db').why).toMatch(/, the only one that matches$/);
    expect(check(of('deny'), 'web', 'db').why).toBe(
      'spiffe://example.org/web may not call spiffe://example.org/db: no intention matches, and the default is deny',
    );
  });

  test('every intention says what it has to do with a call', () => {
    const said = intentions.explain(id(at('web')), id(at('db'))).map((one) => [one.rule.id, one.matches, one.why]);
    expect(Object.fromEntries(said.map(([name, ...rest]) => [name, rest]))).toEqual({
      r3: [true, 'is in trial and would decide: deny'],
      r0: [true, 'decides: allow'],
      r1: [true, 'comes after r0: its destination is the same and its source less exact'],
      r2: [true, 'comes after r0: its destination is less exact'],
      r4: [false, 'is about another destination'],
      r5: [false, 'is about another source'],
    });
    expect(said.map(([name]) => name).filter((name) => name === 'r3' || name === 'r0')).toEqual(['r3', 'r0']);
  });

  test('the intentions of one end', () => {
    expect(
      intentions
        .toDestination(id(at('db')))
        .map((one) => one.id)
        .sort(),
    ).toEqual(['r0', 'r1', 'r2', 'r3', 'r5']);
    expect(
      intentions
        .fromSource(id(at('web')))
        .map((one) => one.id)
        .sort(),
    ).toEqual(['r0', 'r1', 'r2', 'r3', 'r4']);
    expect(of('deny', 'allow web db').toDestination(id('spiffe://far.test/db'))).toEqual([]);
  });
});

/** Few words, so that patterns meet. */
const word = fc.constantFrom('a', 'b', 'A', 'constructor');
const domain = fc.constantFrom('x.test', 'y.test');
const anId = fc
  .tuple(domain, fc.array(word, { maxLength: 4 }))
  .map(([name, path]) => id(['spiffe://', name, path.map((one) => `/${one}`).join('')].join('')));
const aPattern = fc.oneof(
  { weight: 1, arbitrary: fc.constant(ANYBODY) },
  {
    weight: 9,
    arbitrary: fc
      .tuple(domain, fc.array(fc.oneof(word, fc.constant('*')), { maxLength: 3 }), fc.boolean())
      .map(([name, path, deep]) => ['spiffe:/', name, ...path, ...(deep ? ['**'] : [])].join('/')),
  },
);
const someRules = fc
  .array(fc.record({ source: aPattern, destination: aPattern, action: fc.constantFrom('allow', 'deny'), shadow: fc.boolean() }), {
    maxLength: 24,
  })
  .map((rules): Intention[] => {
    const distinct = new Map(rules.map((one) => [`${one.source} ${one.destination} ${one.shadow}`, one]));
    return [...distinct.values()].map((one, i) => ({ ...one, id: `r${i}` }));
  });
const preset = fc.constantFrom('allow', 'deny');
const told = ({ allowed, rule: decided, shadow }: { allowed: boolean; rule: Intention | undefined; shadow: Intention | undefined }) => [
  allowed,
  decided?.id,
  shadow?.id,
];

describe('whatever the intentions and the call', () => {
  test('the plain evaluator agrees', () => {
    fc.assert(
      fc.property(someRules, preset, fc.array(fc.tuple(anId, anId), { minLength: 1, maxLength: 8 }), (rules, action, calls) => {
        const [ours, theirs] = [Intentions.from(rules, { default: action }), naive(rules, action)];
        for (const [source, destination] of calls) expect(told(ours.check(source, destination))).toEqual(told(theirs(source, destination)));
      }),
      { numRuns: 500 },
    );
  });

  test('the order of the file does not matter', () => {
    fc.assert(
      fc.property(
        someRules.chain((rules) => fc.tuple(fc.constant(rules), fc.shuffledSubarray(rules, { minLength: rules.length }))),
        preset,
        anId,
        anId,
        ([rules, shuffled], action, source, destination) => {
          const [one, other] = [Intentions.from(rules, { default: action }), Intentions.from(shuffled, { default: action })];
          expect(told(one.check(source, destination))).toEqual(told(other.check(source, destination)));
          expect(one.rules).toEqual(other.rules);
          expect(one.version).toBe(other.version);
        },
      ),
    );
  });

  test('an intention that does not match, or is less exact than what decides, changes nothing', () => {
    fc.assert(
      fc.property(someRules, preset, anId, anId, (rules, action, source, destination) => {
        const all = Intentions.from(rules, { default: action });
        const verdict = all.check(source, destination);
        const matching = all.matching(source, destination);
        const needed = verdict.rule ? matching.slice(0, matching.indexOf(verdict.rule) + 1) : matching;
        const few = Intentions.from(needed, { default: action });
        expect(told(few.check(source, destination))).toEqual(told(verdict));
      }),
    );
  });

  test('what decides matches, and all that is said of it agrees', () => {
    fc.assert(
      fc.property(someRules, preset, anId, anId, (rules, action, source, destination) => {
        const intentions = Intentions.from(rules, { default: action });
        const { allowed, rule: decided, why } = intentions.check(source, destination);
        const explained = intentions.explain(source, destination);
        expect(explained.filter((one) => one.matches).map((one) => one.rule)).toEqual(intentions.matching(source, destination));
        expect(explained.find((one) => one.why.startsWith('decides'))?.rule).toBe(decided);
        expect(allowed).toBe((decided?.action ?? action) === 'allow');
        expect(why).toContain(`${source} ${allowed ? 'may' : 'may not'} call ${destination}: `);
        const both = new Set(intentions.toDestination(destination));
        expect(intentions.fromSource(source).filter((one) => both.has(one))).toEqual(intentions.matching(source, destination));
      }),
    );
  });

  test('an allowed call of one trust domain is not allowed for the same path of another', () => {
    fc.assert(
      fc.property(
        fc.array(word, { minLength: 1, maxLength: 4 }),
        aPattern.filter((one) => one.startsWith('spiffe://x.test')),
        (path, pattern) => {
          const intentions = Intentions.from([{ id: 'r', source: pattern, destination: ANYBODY, action: 'allow', shadow: false }], {
            default: 'deny',
          });
          const destination = id('spiffe://x.test/a');
          expect(intentions.check(id(`spiffe://y.test/${path.join('/')}`), destination).allowed).toBe(false);
          // its twin: with a word for each star the same pattern matches
          const own = pattern.replace('**', 'a/b').replaceAll('*', 'a');
          expect(intentions.check(id(own), destination).allowed).toBe(true);
        },
      ),
    );
  });
});

test('of the corpus of 1,000 calls the plain evaluator says the same, and every kind of answer is there', () => {
  const [ours, theirs] = [Intentions.from(RULES, { default: 'deny' }), naive(RULES, 'deny')];
  const answers = PAIRS.map(([source, destination]) => {
    const verdict = ours.check(source, destination);
    expect(told(verdict)).toEqual(told(theirs(source, destination)));
    return `${verdict.allowed} ${verdict.rule !== undefined} ${verdict.shadow !== undefined}`;
  });
  expect(PAIRS).toHaveLength(1000);
  expect([...new Set(answers)].sort()).toEqual(
    ['false false false', 'false false true', 'false true false', 'false true true', 'true true false', 'true true true'].sort(),
  );
});
