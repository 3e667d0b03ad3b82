/** Every vector, and mutations of them, judged by go-spiffe and OpenSSL too: we accept nothing that they refuse unless the table says why. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { SpiffeError, type Reason } from '../../spiffe/errors.ts';
import { Bundle } from '../../spiffe/bundle/bundle.ts';
import { TrustDomain } from '../../spiffe/id.ts';
import { JwtBundle } from '../../spiffe/jwt/jwt-bundle.ts';
import { X509Bundle } from '../../spiffe/x509/x509-bundle.ts';
import { NOW_MS } from '../fakes/ca.ts';
import { opensslVerdict } from '../fakes/openssl.ts';
import { documentOf, DOORS } from '../vectors/doors.ts';
import { type Mutant, mutants } from '../vectors/mutants.ts';
import { jwtFile } from '../vectors/recipes/jwt.ts';
import { type BundleInput, expand, FAMILIES, type Family, type Inputs, rowsOf } from '../vectors/row.ts';
import { BLINDER, type Laxer, LAXER, laxerRow, type Other, STRICTER, stricterRow } from './disagreements.ts';
import { comparable, exhibitOf } from './exhibit.ts';
import { type Exhibit, startWorkload, type Verdict, type Workload } from './setup.ts';

/** Given to go-spiffe at once: a line of a few megabytes. */
const BATCH = 100;
const SEED = Number(process.env['DIFFERENTIAL_SEED'] ?? 1);
const MUTANTS = Number(process.env['DIFFERENTIAL_MUTANTS'] ?? 8000);

interface Case extends Mutant {
  /** Of a vector; '' for a mutation. */
  readonly name: string;
}

type Ours = { readonly saw: string } | { readonly reason: Reason };

let go: Workload;
beforeAll(async () => {
  go = await startWorkload('go');
});
afterAll(async () => {
  await go?.close();
});

function judge<F extends Family>(family: F, input: Inputs[F]): Ours {
  try {
    return { saw: DOORS[family](input) };
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    return { reason: error.reason as Reason };
  }
}

/** go-spiffe judges tokens by the clock on the wall: they are made anew around this moment. */
function vectors(nowMs: number): readonly Case[] {
  return FAMILIES.flatMap((family) =>
    (family === 'jwt-svid' ? expand(jwtFile(nowMs)) : rowsOf(family))
      // its one message is that it is too long, and that of the pipe to the helper would be the same
      .filter(({ name }) => name !== 'SPIFFE: 50 MiB')
      .map(({ name, input }) => ({ family, name, input })),
  );
}

/** What is wrong, in words that name the input. */
function tell({ name, input }: Case, ...words: readonly string[]): string {
  return `${words.join(': ')}: ${name || JSON.stringify(input).slice(0, 1500)}`;
}

interface Findings {
  readonly wrong: string[];
  /** Rows of the table that vectors have shown, by vector. */
  readonly laxer: Map<object, Set<string>>;
  /** `family reason` of the table that vectors have shown. */
  readonly stricter: Map<object, Set<string>>;
}

const findings = (): Findings => ({ wrong: [], laxer: new Map(), stricter: new Map() });
const note = (map: Map<object, Set<string>>, row: object, what: string) => map.set(row, (map.get(row) ?? new Set()).add(what));

/** Holds one verdict against ours. Gives the row that lets us accept what was refused. */
function compare(who: Other, one: Case, ours: Ours, theirs: Verdict, found: Findings): Laxer | undefined {
  const { family, name } = one;
  if ('saw' in ours && 'refused' in theirs) {
    const row = laxerRow(who, family, theirs.refused);
    if (!row) found.wrong.push(tell(one, `we accept what ${who} refuses`, family, theirs.refused));
    else if (name) note(found.laxer, row, name);
    return row;
  }
  if ('reason' in ours && 'saw' in theirs) {
    const row = stricterRow(who, family, ours.reason);
    if (!row) found.wrong.push(tell(one, `we refuse what ${who} accepts`, family, ours.reason));
    else if (name) note(found.stricter, row, `${family} ${ours.reason}`);
  }
  return undefined;
}

/** Both accept. */
function compareSight(one: Case, ours: string, theirs: string, found: Findings): void {
  if (comparable(one.family, ours) === comparable(one.family, theirs)) return;
  const counts = (saw: string) => [...saw.matchAll(/(\d+) (X\.509|JWT)/g)].map(([, count, kind]) => [kind, Number(count)] as const);
  const seesMore =
    one.family === BLINDER.family &&
    counts(ours).every(([kind, count], i) => {
      const their = counts(theirs)[i]?.[1] ?? -1;
      return kind === 'JWT' ? count <= their : count === their;
    });
  if (!seesMore) found.wrong.push(tell(one, 'we see something else than go-spiffe', ours, theirs));
  else if (one.name) note(found.laxer, BLINDER, one.name);
}

/** What we understood of a bundle, written by us. */
function rewritten(input: BundleInput): BundleInput {
  const { form } = input;
  const trustDomain = TrustDomain.parse(input.trustDomain);
  const document = documentOf(input);
  if (form === 'spiffe') return { form, trustDomain: input.trustDomain, text: Bundle.fromJson(trustDomain, document).toJson() };
  if (form === 'jwt') return { form, trustDomain: input.trustDomain, text: JwtBundle.fromJwks(trustDomain, document).toJwks() };
  const read = form === 'x509-der' ? X509Bundle.fromDer(trustDomain, document) : X509Bundle.fromPem(trustDomain, document);
  const known = new X509Bundle(
    trustDomain,
    read.authorities.filter(({ keyKind }) => keyKind.type !== 'unknown'),
  );
  return {
    form,
    trustDomain: input.trustDomain,
    base64: Buffer.from(form === 'x509-der' ? known.toDer() : known.toPem()).toString('base64'),
  };
}

async function askGo(exhibits: readonly Exhibit[]): Promise<readonly Verdict[]> {
  const verdicts: Verdict[] = [];
  for (let at = 0; at < exhibits.length; at += BATCH) {
    verdicts.push(...(await go.call('judge', { exhibits: exhibits.slice(at, at + BATCH) })).verdicts);
  }
  return verdicts;
}

async function againstGo(cases: readonly Case[]): Promise<{ readonly found: Findings; readonly both: number }> {
  const found = findings();
  const put = cases.flatMap((one) => {
    const exhibit = exhibitOf(one.family, one.input);
    return exhibit ? [{ one, exhibit }] : [];
  });
  const verdicts = await askGo(put.map(({ exhibit }) => exhibit));
  expect(verdicts).toHaveLength(put.length);
  const again: Case[] = [];
  let both = 0;
  for (const [i, { one }] of put.entries()) {
    const theirs = verdicts[i] as Verdict;
    const ours = judge(one.family, one.input);
    const excuse = compare('go-spiffe', one, ours, theirs, found);
    // what we passed over may be malformed; what we kept may not
    if (excuse?.passedOver) again.push({ ...one, input: rewritten(one.input as BundleInput) });
    if ('saw' in ours && 'saw' in theirs) {
      both++;
      compareSight(one, ours.saw, theirs.saw, found);
    }
  }
  for (const [i, theirs] of (await askGo(again.flatMap(({ family, input }) => exhibitOf(family, input) ?? []))).entries()) {
    const one = again[i] as Case;
    const ours = judge(one.family, one.input);
    if ('saw' in ours && 'saw' in theirs && comparable('bundle', ours.saw) === comparable('bundle', theirs.saw)) continue;
    const row = 'refused' in theirs ? laxerRow('go-spiffe', 'bundle', theirs.refused) : undefined;
    if (row && !row.passedOver) continue;
    found.wrong.push(tell(one, 'go-spiffe does not take what we kept of a bundle', JSON.stringify(theirs), JSON.stringify(ours)));
  }
  return { found, both };
}

/** Each row of the table is shown by the vectors that it names, and by no others. */
function expectShown(who: Other, { laxer, stricter }: Findings): void {
  for (const row of LAXER.filter((one) => one.who === who))
    expect([...(laxer.get(row) ?? [])].sort(), String(row.says)).toEqual([...row.vectors].sort());
  for (const row of STRICTER.filter((one) => one.who === who)) {
    const told = Object.entries(row.reasons).flatMap(([family, reasons]) => reasons.map((reason) => `${family} ${reason}`));
    expect(
      told.filter((one) => !stricter.get(row)?.has(one)),
      row.why,
    ).toEqual([]);
  }
}

test('go-spiffe and we say the same of every vector, but for what the table says', async () => {
  const { found, both } = await againstGo(vectors(Date.now()));
  expect(found.wrong).toEqual([]);
  expectShown('go-spiffe', found);
  expect([...(found.laxer.get(BLINDER) ?? [])]).toEqual(BLINDER.vectors);
  expect(both).toBeGreaterThan(200);
});

test(`and of ${MUTANTS} mutations of them (seed ${SEED})`, async () => {
  const { found, both } = await againstGo([...mutants(SEED, MUTANTS, Date.now())].map((one) => ({ ...one, name: '' })));
  expect(found.wrong).toEqual([]);
  // mutations that nobody accepts would prove nothing
  expect(both).toBeGreaterThan(MUTANTS / 50);
});

test('OpenSSL verifies every chain that we accept, and we every one that it verifies, but for what the table says', () => {
  const found = findings();
  let both = 0;
  for (const { name, input } of rowsOf('x509-svid-verify')) {
    const { chain, bundles, nowMs = NOW_MS } = input;
    const [leaf] = chain;
    if (leaf === undefined) continue;
    const ours = judge('x509-svid-verify', input);
    // OpenSSL is told whom to trust: to pick the bundle by the trust domain is done for it
    const trusted = 'saw' in ours ? /^spiffe:\/\/([^/]+)/.exec(ours.saw)?.[1] : undefined;
    const roots = bundles[trusted ?? 'example.org'] ?? [];
    const der = (one: string) => Buffer.from(one, 'base64');
    const words = opensslVerdict(chain.map(der), roots.map(der), nowMs, ['-partial_chain']);
    const theirs: Verdict = words === 'OK' ? { saw: '' } : { refused: /error \d+ at .*/.exec(words)?.[0] ?? words };
    if ('saw' in ours && 'saw' in theirs) both++;
    // a leaf of another trust domain is verified by whom we would not ask
    if ('reason' in ours && ours.reason === 'X509_ISSUER_UNKNOWN' && name.includes('of another trust domain')) continue;
    compare('OpenSSL', { family: 'x509-svid-verify', name, input }, ours, theirs, found);
  }
  expect(found.wrong).toEqual([]);
  expectShown('OpenSSL', found);
  expect(both).toBeGreaterThan(50);
});
