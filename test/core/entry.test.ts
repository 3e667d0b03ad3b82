/** Entries: what a caller may say of one, in SPIRE's words where he may not; and what an update makes of one. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Entry, entryToWire, parseEntry, parseUpdate } from '../../core/entry.ts';
import { memberIdOf, workloadIdOf } from '../../core/message-id.ts';
import { EntryMask, Entry as WireEntry } from '../../proto/gen/spire/api/types/entry.ts';
import { SpiffeError } from '../../spiffe/errors.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';

const trustDomain = TrustDomain.parse('example.org');
const options = { trustDomain, hasBundle: ({ name }: TrustDomain) => name === 'example.org' || name === 'partner.org' };
const id = (path: string) => ({ trustDomain: 'example.org', path });
type Said = Parameters<typeof WireEntry.fromPartial>[0];

/** An entry that is fine, but for what `over` says. */
const wire = (over: Said = {}): WireEntry =>
  WireEntry.fromPartial({
    parentId: id('/spire/agent/join_token/a'),
    spiffeId: id('/web'),
    selectors: [{ type: 'unix', value: 'uid:1000' }],
    ...over,
  });
const parse = (over: Said) => parseEntry(wire(over), { ...options, nowMs: 1_780_000_000_123, newId: () => 'made' });
const mask = (...fields: (keyof EntryMask)[]) => EntryMask.fromPartial(Object.fromEntries(fields.map((field) => [field, true])));
const update = (stored: Entry, over: Said, masked?: EntryMask) => parseUpdate(wire(over), masked, options)(stored);

function refusal(run: () => unknown): string | undefined {
  try {
    run();
    return undefined;
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    return `${error.code} ${error.message}`;
  }
}

const convert = (why: string) => `REQUEST_INVALID failed to convert entry: ${why}`;
const datastore = (why: string) => `REQUEST_INVALID failed to create entry: datastore-validation: ${why}`;

/** One rule a row: what breaks it, what just keeps it, and how the breach is told. */
const rules: [rule: string, bad: Said, good: Said, why: string | RegExp][] = [
  ['the parent is named', { parentId: undefined }, {}, convert('invalid parent ID: request must specify SPIFFE ID')],
  [
    'the parent has a trust domain',
    { parentId: { trustDomain: '', path: '/a' } },
    { parentId: id('/a') },
    /^REQUEST_INVALID failed to convert entry: invalid parent ID: .*trust domain is missing$/,
  ],
  [
    'the parent is of our trust domain',
    { parentId: { trustDomain: 'partner.org', path: '/a' } },
    { parentId: id('/a') },
    convert('invalid parent ID: "spiffe://partner.org/a" is not a member of trust domain "example.org"'),
  ],
  [
    'the parent has a path',
    { parentId: id('') },
    { parentId: id('/spire/server') },
    convert('invalid parent ID: "spiffe://example.org" is not a member of trust domain "example.org"; path is empty'),
  ],
  [
    "the parent's path has no dot segment",
    { parentId: id('/a/../b') },
    { parentId: id('/a/..b') },
    /invalid parent ID: .*path cannot contain dot segments$/,
  ],
  ['the SPIFFE ID is named', { spiffeId: undefined }, {}, convert('invalid spiffe ID: request must specify SPIFFE ID')],
  [
    'ID-38 the SPIFFE ID is of our trust domain',
    { spiffeId: { trustDomain: 'partner.org', path: '/web' } },
    { spiffeId: id('/web') },
    convert('invalid spiffe ID: "spiffe://partner.org/web" is not a member of trust domain "example.org"'),
  ],
  [
    'the SPIFFE ID has a path',
    { spiffeId: id('') },
    { spiffeId: id('/x') },
    convert('invalid spiffe ID: "spiffe://example.org" is not a workload in trust domain "example.org"; path is empty'),
  ],
  [
    'the SPIFFE ID is not below the reserved path',
    { spiffeId: id('/spire/server') },
    { spiffeId: id('/spires/server') },
    convert(
      'invalid spiffe ID: "spiffe://example.org/spire/server" is not a workload in trust domain "example.org"; path is in the reserved namespace',
    ),
  ],
  [
    'the SPIFFE ID is not the reserved path',
    { spiffeId: id('/spire') },
    { spiffeId: id('/web/spire') },
    /invalid spiffe ID: .*path is in the reserved namespace$/,
  ],
  ['the SPIFFE ID has no trailing slash', { spiffeId: id('/web/') }, { spiffeId: id('/web') }, /path cannot have a trailing slash$/],
  [
    'ID-21 ID-22 a SPIFFE ID has at most 2048 bytes',
    { spiffeId: id(`/${'a'.repeat(2048 - 'spiffe://example.org/'.length + 1)}`) },
    { spiffeId: id(`/${'a'.repeat(2048 - 'spiffe://example.org/'.length)}`) },
    /invalid spiffe ID: .*longer than 2048 bytes$/,
  ],
  ['a trust domain is lower case', { spiffeId: { trustDomain: 'Example.org', path: '/web' } }, {}, /invalid spiffe ID: .*lowercase/],
  ['there is a selector', { selectors: [] }, {}, convert('selector list is empty')],
  ['a selector has a type', { selectors: [{ type: '', value: 'v' }] }, {}, convert('missing selector type')],
  [
    'the type of a selector has no colon',
    { selectors: [{ type: 'a:b', value: 'v' }] },
    { selectors: [{ type: 'a', value: 'b:v' }] },
    convert("selector type contains ':'"),
  ],
  [
    'each selector has a value',
    {
      selectors: [
        { type: 'a', value: 'b' },
        { type: 'a', value: '' },
      ],
    },
    {},
    convert('missing selector value'),
  ],
  ['a DNS name is not empty', { dnsNames: [''] }, { dnsNames: ['web'] }, /^REQUEST_INVALID failed to convert entry: invalid DNS name: /],
  ['a DNS name has no space', { dnsNames: ['a b'] }, { dnsNames: ['a-b'] }, /: invalid DNS name: /],
  ['a DNS name is ASCII', { dnsNames: ['wéb.example.org'] }, { dnsNames: ['xn--wb-bja.example.org'] }, /: invalid DNS name: /],
  ['a wildcard is the first label', { dnsNames: ['web.*.org'] }, { dnsNames: ['*.web.org'] }, /: invalid DNS name: /],
  ['a wildcard is not alone', { dnsNames: ['*'] }, { dnsNames: ['*.org'] }, /: invalid DNS name: /],
  ['there is one wildcard', { dnsNames: ['*.*.org'] }, { dnsNames: ['*.web.org'] }, /: invalid DNS name: /],
  ['a DNS name does not end in a dot', { dnsNames: ['web.org', 'web.org.'] }, { dnsNames: ['web.org'] }, /: invalid DNS name: /],
  [
    'a federated trust domain is one',
    { federatesWith: ['Partner.org'] },
    { federatesWith: ['partner.org'] },
    /: invalid federated trust domain: /,
  ],
  [
    'the bundle of a federated trust domain is known',
    { federatesWith: ['partner.org', 'stranger.org'] },
    { federatesWith: ['spiffe://partner.org'] },
    'INTERNAL failed to create entry: unable to find federated bundle "spiffe://stranger.org"',
  ],
  [
    'WAPI-79 a hint has at most 1024 bytes',
    { hint: `${'é'.repeat(512)}x` },
    { hint: 'é'.repeat(512) },
    convert('hint is too long, max length is 1024 characters'),
  ],
  [
    'an X509-SVID lives no negative time',
    { x509SvidTtl: -1 },
    { x509SvidTtl: 0 },
    datastore('invalid registration entry: X509SvidTtl is not set'),
  ],
  [
    'a JWT-SVID lives no negative time',
    { jwtSvidTtl: -1 },
    { jwtSvidTtl: 1 },
    datastore('invalid registration entry: JwtSvidTtl is not set'),
  ],
  ['an entry ends after 1970', { expiresAt: -1 }, { expiresAt: 1 }, datastore('invalid registration entry: EntryExpiry is out of range')],
  [
    'an entry ends at a moment that a Date can say',
    { expiresAt: 8.64e12 + 1 },
    { expiresAt: 8.64e12 },
    datastore('invalid registration entry: EntryExpiry is out of range'),
  ],
  [
    'an id has at most 255 characters',
    { id: 'i'.repeat(256) },
    { id: 'i'.repeat(255) },
    datastore('invalid registration entry: entry ID too long'),
  ],
  ...['/', ' ', ':', 'é', '\n', '\0', '%'].map((char): (typeof rules)[number] => [
    `an id has no ${JSON.stringify(char)}`,
    { id: `a${char}b` },
    { id: 'aB-9._' },
    datastore('invalid registration entry: entry ID contains invalid characters'),
  ]),
  [
    'what is stored has selectors of one type',
    {
      storeSvid: true,
      selectors: [
        { type: 'aws', value: 'a' },
        { type: 'k8s', value: 'a' },
      ],
    },
    {
      storeSvid: true,
      selectors: [
        { type: 'aws', value: 'a' },
        { type: 'aws', value: 'b' },
      ],
    },
    datastore('invalid registration entry: selector types must be the same when store SVID is enabled'),
  ],
  [
    'what is stored is signed before it is asked for',
    { storeSvid: true, additionalAttributes: { disableX509SvidPrefetch: true } },
    { storeSvid: true, additionalAttributes: { jwtSvidIncludeJti: true } },
    datastore('specifying cache behaviour is incompatible with storable SVIDs'),
  ],
];

describe('a new entry', () => {
  test('has everything that was said, and of the server its id, revision and time', () => {
    const said: Said = {
      x509SvidTtl: 60,
      jwtSvidTtl: 30,
      federatesWith: ['spiffe://partner.org', 'example.org'],
      admin: true,
      downstream: true,
      expiresAt: 1_800_000_000,
      dnsNames: ['web.example.org', '*.example.org'],
      storeSvid: true,
      hint: 'internal',
      additionalAttributes: { disableX509SvidPrefetch: false, jwtSvidIncludeJti: true },
      revisionNumber: 7,
      createdAt: 5,
    };
    const entry = parse(said);
    expect(entry).toEqual({
      id: 'made',
      spiffeId: SpiffeId.parse('spiffe://example.org/web'),
      parentId: SpiffeId.parse('spiffe://example.org/spire/agent/join_token/a'),
      selectors: [{ type: 'unix', value: 'uid:1000' }],
      x509SvidTtlMs: 60_000,
      jwtSvidTtlMs: 30_000,
      federatesWith: [TrustDomain.parse('partner.org'), trustDomain],
      admin: true,
      downstream: true,
      expiresAtMs: 1_800_000_000_000,
      dnsNames: ['web.example.org', '*.example.org'],
      revision: 0,
      storeSvid: true,
      hint: 'internal',
      createdAtMs: 1_780_000_000_123,
      disableX509SvidPrefetch: false,
      jwtSvidIncludeJti: true,
    });
    expect(entryToWire(entry)).toEqual(
      wire({ ...said, id: 'made', federatesWith: ['partner.org', 'example.org'], revisionNumber: 0, createdAt: 1_780_000_000 }),
    );
  });

  test('has the id that the caller chose', () => {
    expect(parse({ id: 'mine' }).id).toBe('mine');
  });

  test('says each selector, DNS name and trust domain once; selectors sorted, DNS names in their order', () => {
    const entry = parse({
      selectors: [
        { type: 'unix', value: 'uid:2' },
        { type: 'k8s', value: 'z' },
        { type: 'unix', value: 'uid:2' },
        { type: 'unix', value: 'uid:10' },
      ],
      dnsNames: ['z.org', 'a.org', 'z.org'],
      federatesWith: ['partner.org', 'spiffe://partner.org'],
    });
    expect(entry.selectors.map(({ type, value }) => `${type}:${value}`)).toEqual(['k8s:z', 'unix:uid:10', 'unix:uid:2']);
    expect(entry.dnsNames).toEqual(['z.org', 'a.org']);
    expect(entry.federatesWith.map(String)).toEqual(['partner.org']);
  });

  test.each(rules)('%s', (_, bad, good, why) => {
    expect(refusal(() => parse(bad))).toEqual(typeof why === 'string' ? why : expect.stringMatching(why));
    expect(refusal(() => parse(good))).toBeUndefined();
  });

  test('of several faults tells the one that SPIRE tells', () => {
    expect(refusal(() => parse({ parentId: undefined, spiffeId: undefined, selectors: [] }))).toMatch(/parent ID/);
    expect(refusal(() => parse({ dnsNames: [''], federatesWith: [''], id: '/' }))).toMatch(/DNS name/);
    expect(refusal(() => parse({ hint: 'h'.repeat(2000), selectors: [] }))).toMatch(/selector list/);
  });

  test('that is accepted, whatever was said, is accepted again as it is sent out', () => {
    const mostly = <T>(good: fc.Arbitrary<T>, bad: fc.Arbitrary<T>) =>
      fc.oneof({ weight: 15, arbitrary: good }, { weight: 1, arbitrary: bad });
    const text = fc.oneof(fc.string({ maxLength: 12 }), fc.constantFrom('', '/web', '/spire', 'a:b', '*.a.org', 'partner.org'));
    const word = fc.stringMatching(/^[a-z0-9._-]{1,12}$/);
    const spiffeId = mostly(
      fc.record({ trustDomain: fc.constant('example.org'), path: fc.stringMatching(/^(\/[A-Za-z0-9_-]{1,5}){1,3}$/) }),
      fc.record({ trustDomain: text, path: text }),
    );
    const seconds = mostly(fc.nat(), fc.integer());
    const anything = fc.record({
      id: mostly(word, text),
      spiffeId,
      parentId: spiffeId,
      selectors: fc.array(fc.record({ type: mostly(word, text), value: mostly(fc.string({ minLength: 1, unit: 'binary' }), text) }), {
        minLength: 1,
        maxLength: 3,
      }),
      x509SvidTtl: seconds,
      federatesWith: fc.array(mostly(fc.constantFrom('partner.org', 'spiffe://example.org'), text), { maxLength: 2 }),
      expiresAt: mostly(fc.nat(), fc.maxSafeInteger()),
      dnsNames: fc.array(mostly(fc.domain(), text), { maxLength: 2 }),
      storeSvid: fc.boolean(),
      jwtSvidTtl: seconds,
      hint: fc.string(),
    });
    let accepted = 0;
    fc.assert(
      fc.property(anything, (said) => {
        // anything but an entry or a refusal fails here
        if (refusal(() => parse(said)) !== undefined) return;
        accepted++;
        const entry = parse(said);
        const again = parseEntry(entryToWire(entry), { ...options, nowMs: entry.createdAtMs, newId: () => 'made' });
        expect(again).toEqual(entry);
      }),
      { numRuns: 2000 },
    );
    expect(accepted).toBeGreaterThan(300);
  });
});

describe('an update', () => {
  const stored = parse({ id: 'one', hint: 'before', x509SvidTtl: 60, dnsNames: ['a.org'], federatesWith: ['partner.org'], admin: true });

  test('without a mask replaces everything but id, revision and time of creation', () => {
    const next = update(stored, { id: 'one', spiffeId: id('/db'), jwtSvidTtl: 9, revisionNumber: 5, createdAt: 6 });
    expect(next).toEqual({ ...parse({ spiffeId: id('/db'), jwtSvidTtl: 9 }), id: 'one' });
  });

  /** Each row of the mask, what is sent under it, and what it changes. */
  const masked: [field: keyof EntryMask, said: Said, change: Partial<Entry>][] = [
    ['spiffeId', { spiffeId: id('/db') }, { spiffeId: SpiffeId.of(trustDomain, '/db') }],
    ['parentId', { parentId: id('/p') }, { parentId: SpiffeId.of(trustDomain, '/p') }],
    ['selectors', { selectors: [{ type: 'a', value: 'b' }] }, { selectors: [{ type: 'a', value: 'b' }] }],
    ['x509SvidTtl', { x509SvidTtl: 0 }, { x509SvidTtlMs: 0 }],
    ['jwtSvidTtl', { jwtSvidTtl: 5 }, { jwtSvidTtlMs: 5_000 }],
    ['federatesWith', { federatesWith: [] }, { federatesWith: [] }],
    ['admin', { admin: false }, { admin: false }],
    ['downstream', { downstream: true }, { downstream: true }],
    ['expiresAt', { expiresAt: 7 }, { expiresAtMs: 7_000 }],
    ['dnsNames', { dnsNames: ['b.org'] }, { dnsNames: ['b.org'] }],
    ['storeSvid', { storeSvid: true }, { storeSvid: true }],
    ['hint', { hint: 'after' }, { hint: 'after' }],
    [
      'additionalAttributes',
      { additionalAttributes: { disableX509SvidPrefetch: true, jwtSvidIncludeJti: true } },
      { disableX509SvidPrefetch: true, jwtSvidIncludeJti: true },
    ],
    ['revisionNumber', { revisionNumber: 9 }, {}],
    ['createdAt', { createdAt: 9 }, {}],
  ];
  test.each(masked)('with the mask %s changes that alone', (field, said, change) => {
    const others: Said = { hint: 'not asked for', x509SvidTtl: 1, dnsNames: ['no.org'], downstream: true, ...said };
    expect(update(stored, others, mask(field))).toEqual({ ...stored, ...change });
  });

  test('has a row for every field of the mask', () => {
    expect(masked.map(([field]) => field).sort()).toEqual(Object.keys(EntryMask.fromPartial({})).sort());
  });

  test('looks at nothing that its mask leaves out', () => {
    const nothing = WireEntry.fromPartial({ id: 'one', hint: 'after', x509SvidTtl: -1, dnsNames: [''], federatesWith: ['stranger.org'] });
    expect(parseUpdate(nothing, mask('hint'), options)(stored)).toEqual({ ...stored, hint: 'after' });
    expect(parseUpdate(nothing, mask(), options)(stored)).toEqual(stored);
    expect(refusal(() => parseUpdate(nothing, undefined, options))).toBe(convert('invalid parent ID: request must specify SPIFFE ID'));
    expect(refusal(() => parseUpdate(nothing, mask('x509SvidTtl'), options))).toBe(
      'REQUEST_INVALID failed to update entry: datastore-validation: invalid registration entry: X509SvidTtl is not set',
    );
    expect(refusal(() => parseUpdate(nothing, mask('federatesWith'), options))).toBe(
      'INTERNAL failed to update entry: unable to find federated bundle "spiffe://stranger.org"',
    );
  });

  test('that breaks a rule together with what is stored is refused', () => {
    const mixed = parse({
      id: 'one',
      selectors: [
        { type: 'a', value: 'x' },
        { type: 'b', value: 'x' },
      ],
    });
    const plain = parse({ id: 'one', selectors: [{ type: 'a', value: 'x' }] });
    expect(refusal(() => update(mixed, { storeSvid: true }, mask('storeSvid')))).toBe(
      'REQUEST_INVALID failed to update entry: datastore-validation: invalid registration entry: selector types must be the same when store SVID is enabled',
    );
    expect(update(plain, { storeSvid: true }, mask('storeSvid')).storeSvid).toBe(true);
  });
});

test('an agent is a member of its trust domain, but no workload', () => {
  expect(String(memberIdOf(id('/spire/agent/x'), trustDomain))).toBe('spiffe://example.org/spire/agent/x');
  expect(refusal(() => workloadIdOf(id('/spire/agent/x'), trustDomain))).toMatch(/reserved namespace$/);
  expect(String(workloadIdOf(id('/web'), trustDomain))).toBe('spiffe://example.org/web');
});
