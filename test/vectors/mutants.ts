/** Vectors that were changed, the same ones each time: by the fuzzer's mutations, and where a signature would hide the change, signed again. */
import { derOid } from '../../spiffe/x509/der.ts';
import { changeDer, type DerNode, mutateDer, OIDS, readDer, writeDer } from '../fuzz/der.ts';
import { changeJson, jsonMutation, readJson, writeJson } from '../fuzz/json.ts';
import { dictionary, type Mutation, PLAIN } from '../fuzz/mutations.ts';
import { Random } from '../fuzz/random.ts';
import { ALGORITHM_OIDS, certificate, seal, sequence } from './certificates.ts';
import { ecKey, type VectorKey } from './keys.ts';
import { jwtBundles, jwtKeys, token } from './recipes/jwt.ts';
import { authorities, leafOf } from './recipes/x509.ts';
import { type Family, type Inputs, type Row, rowsOf } from './row.ts';

export interface Mutant<F extends Family = Family> {
  readonly family: F;
  readonly input: Inputs[F];
}

const MAX_BYTES = 16 * 1024;
const AUDIENCE = ['db'];

/** @param count how many of all families together, about; @param nowMs for tokens */
export function* mutants(seed: number, count: number, nowMs: number): Generator<Mutant> {
  const random = new Random(seed);
  const makers = [
    ...texts('spiffe-id', 1, 'a.-_/:@?#%\u00e9\0 '),
    ...texts('trust-domain', 1, 'a.-_/:@?#%\u00e9\0 '),
    ...texts('endpoint-address', 1, '[]:/@?#%0\0 '),
    ...Array(4).fill(peers()),
    ...Array(2).fill(owns()),
    ...Array(4).fill(tokens(nowMs)),
    ...Array(4).fill(bundles()),
  ] as readonly ((random: Random) => Mutant | undefined)[];
  for (let made = 0; made < count; made++) {
    const make = random.pick(makers);
    let one: Mutant | undefined;
    try {
      one = make(random);
    } catch (error) {
      // the changes themselves are recursive
      if (!(error instanceof RangeError)) throw error;
    }
    if (one) yield one;
  }
}

function change(random: Random, input: Buffer, other: Buffer, own: readonly Mutation[]): Buffer {
  let out = input;
  for (let times = random.size(3); times > 0; times--) {
    const next = random.pick(random.oneIn(2) ? own : PLAIN)(random, out, other);
    if (next.length <= MAX_BYTES) out = next;
  }
  return out;
}

function texts(family: 'spiffe-id' | 'trust-domain' | 'endpoint-address', times: number, letters: string) {
  const seeds = (rowsOf(family) as readonly Row<'trust-domain'>[]).flatMap(({ input }) =>
    'text' in input ? [Buffer.from(input.text)] : [],
  );
  const words = [...letters.split(''), 'spiffe://', 'example.org', '..', 'unix:', 'tcp://', '127.0.0.1', ':8000', '[::1]'];
  const make = (random: Random): Mutant => ({
    family,
    input: { text: change(random, random.pick(seeds), random.pick(seeds), [dictionary(words)]).toString() },
  });
  return Array(times).fill(make) as (typeof make)[];
}

/** Chains below our root, of which one certificate was changed, mostly signed again by who signed it. */
function peers() {
  const { root, middle, lower, other } = authorities();
  const narrow = certificate({ ca: true, key: ecKey('narrow'), subject: 'narrow', issuer: root, pathLen: 0 });
  const leaf = (issuer: typeof root) => leafOf(issuer, { dns: ['a.test'] });
  const chains: readonly { readonly ders: readonly Buffer[]; readonly signers: readonly VectorKey[] }[] = [
    { ders: [leaf(root).der], signers: [root.key] },
    { ders: [leafOf(root, { subject: '' }).der], signers: [root.key] },
    { ders: [leaf(middle).der, middle.der], signers: [middle.key, root.key] },
    { ders: [leaf(narrow).der, narrow.der], signers: [narrow.key, root.key] },
    { ders: [leaf(lower).der, lower.der, middle.der], signers: [lower.key, middle.key, root.key] },
    { ders: [leaf(other).der], signers: [other.key] },
    ...rowsOf('x509-svid-verify')
      .filter(({ expect, input }) => expect === 'accept' && input.chain.length === 1 && Object.keys(input.bundles).length === 2)
      .map(({ input }) => ({ ders: input.chain.map((one) => Buffer.from(one, 'base64')), signers: [root.key] })),
  ];
  const roots = { 'example.org': [root.der.toString('base64')], 'other.org': [other.der.toString('base64')] };
  const algorithm = sequence(derOid(ALGORITHM_OIDS['ec sha256'] ?? ''));
  return (random: Random): Mutant | undefined => {
    const { ders, signers } = random.pick(chains);
    const at = random.int(ders.length);
    const der = ders[at] as Buffer;
    const theirs = random.pick(random.pick(chains).ders);
    let changed: Buffer;
    if (random.oneIn(8)) changed = change(random, der, theirs, [mutateDer, dictionary(OIDS)]);
    else {
      const [whole] = readDer(der) ?? [];
      if (!whole || !Array.isArray(whole.contents)) return undefined;
      const tbs = whole.contents[0] as DerNode;
      for (let times = random.size(2); times > 0; times--) changeDer(random, [tbs], theirs);
      const inner = tbs.contents;
      if (!Array.isArray(inner)) return undefined;
      // most changes elsewhere would be told by these first
      if (inner[2] && !random.oneIn(16)) inner[2] = readDer(algorithm)?.[0] as DerNode;
      changed = seal(writeDer([tbs]), signers[at] as VectorKey);
    }
    if (changed.length > MAX_BYTES) return undefined;
    return {
      family: 'x509-svid-verify',
      input: { chain: ders.map((one, i) => (i === at ? changed : one).toString('base64')), bundles: roots },
    };
  };
}

/** One's own SVID is not verified: a change needs no signature. */
function owns() {
  const { middle, lower } = authorities();
  const key = ecKey('web').privateKey.export({ type: 'pkcs8', format: 'der' });
  const chains = [
    Buffer.concat([leafOf(middle).der, middle.der]),
    Buffer.concat([leafOf(lower).der, lower.der, middle.der]),
    leafOf(middle).der,
  ];
  return (random: Random): Mutant => {
    const chain = random.pick(chains);
    const spoilsKey = random.oneIn(10);
    return {
      family: 'x509-svid-parse',
      input: {
        chain: (spoilsKey ? chain : change(random, chain, random.pick(chains), [mutateDer, mutateDer, dictionary(OIDS)])).toString(
          'base64',
        ),
        key: (spoilsKey ? change(random, key, chain, [mutateDer]) : key).toString('base64'),
      },
    };
  };
}

/** Tokens that are good for long, so that no clock tells them apart. */
function tokens(nowMs: number) {
  const keys = jwtKeys();
  const bundles = jwtBundles();
  const claims = { sub: 'spiffe://example.org/web', aud: ['db', 'x'], exp: 7_258_118_400, nbf: 1_700_000_000, iat: 1_700_000_000 };
  const seeds = (
    [
      ['ec', 'ES256', { typ: 'JWT' }],
      ['ec384', 'ES384', { typ: 'JOSE' }],
      ['rsa', 'RS256', {}],
      ['foreign', 'ES256', { typ: 'JWT' }],
    ] as const
  ).map(([kid, alg, more]) => ({
    kid,
    alg,
    header: JSON.stringify({ alg, kid: kid === 'foreign' ? 'ec' : kid, ...more }),
    payload: JSON.stringify(claims),
  }));
  const any = jsonMutation();
  const altered = (random: Random, text: string, other: string): Buffer => {
    const json = readJson(text);
    if (json === undefined || random.oneIn(6)) return any(random, Buffer.from(text), Buffer.from(other));
    return Buffer.from(writeJson(changeJson(random, json, readJson(other))));
  };
  return (random: Random): Mutant | undefined => {
    const { kid, alg, header, payload } = random.pick(seeds);
    const key = keys[kid] as VectorKey;
    const which = random.int(5);
    const head = which < 2 ? altered(random, header, payload) : Buffer.from(header);
    const body = which >= 1 && which < 4 ? altered(random, payload, header) : Buffer.from(payload);
    if (head.length + body.length > MAX_BYTES) return undefined;
    let text = token(key, alg, head, body);
    if (which === 4)
      text = change(random, Buffer.from(text), Buffer.from(token(key, alg, payload, header)), [
        dictionary(['.', '=', '-', '_', '+', '/', '\n']),
      ]).toString('latin1');
    return { family: 'jwt-svid', input: { token: text, audience: AUDIENCE, bundles, nowMs } };
  };
}

function bundles() {
  const seeds = rowsOf('bundle')
    .filter(({ expect }) => expect === 'accept')
    .map(({ input }) => ({
      form: input.form,
      bytes: input.base64 === undefined ? Buffer.from(input.text ?? '') : Buffer.from(input.base64, 'base64'),
    }));
  const json = jsonMutation((random, old) => {
    const bytes = Buffer.from(old, 'base64');
    // a certificate among the texts
    if (bytes[0] === 0x30 && bytes.length > 100 && !random.oneIn(4)) return mutateDer(random, bytes, bytes).toString('base64');
    if (random.oneIn(2)) return random.pick(PLAIN)(random, Buffer.from(old), bytes).toString();
    return random
      .pick(PLAIN)(random, bytes, bytes)
      .toString(random.oneIn(2) ? 'base64' : 'base64url');
  });
  return (random: Random): Mutant => {
    const { form, bytes } = random.pick(seeds);
    const own = form === 'x509-der' ? [mutateDer] : form === 'x509-pem' ? PLAIN : [json, json, json];
    const input = change(random, bytes, random.pick(seeds).bytes, own);
    return { family: 'bundle', input: { form, trustDomain: 'example.org', base64: input.toString('base64') } };
  };
}
