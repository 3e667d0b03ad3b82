/** JWT-SVIDs: nothing passes that its key did not sign, and what passes jose takes as well, with the same claims. */
import { JwtBundle } from '../../../spiffe/jwt/jwt-bundle.ts';
import { constants, createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { jwtVerify } from 'jose';
import { jwtAuthority } from '../../../spiffe/bundle/bundle.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { JWT_ALGORITHM_NAMES, JWT_ALGORITHMS, type JwtAlgorithmName } from '../../../spiffe/jwt/jwt-algorithm.ts';
import { parseJwtSvidUnverified, validateJwtSvidSync } from '../../../spiffe/jwt/jwt-svid.ts';
import { about, type Target, wrong } from '../fuzzer.ts';
import { changeJson, jsonMutation, readJson, writeJson } from '../json.ts';
import type { Mutation } from '../mutations.ts';
import type { Random } from '../random.ts';

const NOW_MS = Date.UTC(2026, 5, 1, 12);
const NOW = NOW_MS / 1000;
const AUDIENCE = ['web', 'spiffe://example.org/db'];

export default function jwt(): Target {
  const keys: Readonly<Record<string, { publicKey: KeyObject; privateKey: KeyObject }>> = {
    ec: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    ec384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
    rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  };
  const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const trustDomain = TrustDomain.parse('example.org');
  const bundle = new JwtBundle(
    trustDomain,
    Object.entries(keys).map(([kid, { publicKey }]) => jwtAuthority(kid, publicKey)),
  );
  const question = { audience: AUDIENCE, bundles: bundle, clock: { now: () => NOW_MS }, kid: 'optional' as const };
  /** What the fuzzer signed with a key of the bundle, and with which of them. */
  const signed = new Map<string, Set<string>>();

  const make = (header: string, payload: string, kid: string | undefined, alg: string): string => {
    const text = `${Buffer.from(header).toString('base64url')}.${Buffer.from(payload).toString('base64url')}`;
    const key = kid === undefined ? stranger.privateKey : (keys[kid]?.privateKey ?? stranger.privateKey);
    const known = (JWT_ALGORITHM_NAMES as readonly string[]).includes(alg);
    const { hash, pss, signatureBytes } = JWT_ALGORITHMS[known ? (alg as JwtAlgorithmName) : 'ES256'];
    let signature: Buffer;
    try {
      signature = sign(hash, Buffer.from(text), {
        key,
        ...(signatureBytes !== undefined && { dsaEncoding: 'ieee-p1363' as const }),
        ...(pss && { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }),
      });
      if (kid !== undefined && keys[kid]) signed.set(text, (signed.get(text) ?? new Set()).add(kid));
    } catch {
      signature = Buffer.alloc(64, 1);
    }
    return `${text}.${signature.toString('base64url')}`;
  };
  const claims = (more: object = {}) =>
    JSON.stringify({ sub: 'spiffe://example.org/web', aud: AUDIENCE, exp: NOW + 300, iat: NOW, ...more });
  const hmac = (text: string) =>
    `${text}.${createHmac('sha256', keys['ec']?.publicKey.export({ type: 'spki', format: 'pem' }) as string)
      .update(text)
      .digest('base64url')}`;
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const tokens = [
    make('{"alg":"ES256","kid":"ec","typ":"JWT"}', claims(), 'ec', 'ES256'),
    make('{"alg":"ES384","kid":"ec384"}', claims({ nbf: NOW - 1 }), 'ec384', 'ES384'),
    make('{"alg":"RS256","kid":"rsa","typ":"JOSE"}', claims({ aud: 'web' }), 'rsa', 'RS256'),
    make('{"alg":"PS512"}', claims({ jti: 'x', nested: { a: [1, 2, { b: null }] } }), 'rsa', 'PS512'),
    make('{"alg":"ES256","kid":"ec"}', claims(), undefined, 'ES256'),
    make('{"alg":"ES256","kid":"ec"}', claims({ exp: NOW - 3600 }), 'ec', 'ES256'),
    hmac(`${part({ alg: 'HS256', kid: 'ec' })}.${Buffer.from(claims()).toString('base64url')}`),
    `${part({ alg: 'none' })}.${Buffer.from(claims()).toString('base64url')}.`,
  ];

  /** Changes header or payload as JSON; the signature stays that of another token. */
  const unsigned: Mutation = (random, input, other) =>
    changeParts(random, input, other, (header, payload, signature) => `${header}.${payload}.${signature}`);
  /** And signs it again with a key of the bundle, or of a stranger. */
  const resigned: Mutation = (random, input, other) =>
    changeParts(random, input, other, (header, payload) => {
      const [h, p] = [header, payload].map((text) => Buffer.from(text, 'base64url').toString());
      const json = readJson(h ?? '');
      const alg = json && typeof json === 'object' && 'members' in json ? json.members.find(([name]) => name === 'alg')?.[1] : undefined;
      const kid = random.oneIn(8)
        ? undefined
        : random.oneIn(4)
          ? random.pick(['ec', 'ec384', 'rsa'])
          : String(alg).startsWith('ES384')
            ? 'ec384'
            : String(alg).startsWith('ES')
              ? 'ec'
              : 'rsa';
      return make(h ?? '', p ?? '', kid, String(alg));
    });

  return {
    seeds: tokens.map((token) => Buffer.from(token)),
    words: [
      '.',
      '..',
      '=',
      '-',
      '_',
      '+',
      '/',
      ...JWT_ALGORITHM_NAMES.map((alg) => part({ alg })),
      part({ alg: 'none' }),
      part({ alg: 'HS256', kid: 'ec' }),
    ],
    mutations: [unsigned, resigned, resigned],
    async run(input) {
      const token = input.toString('latin1');
      let shape: string;
      try {
        const unverified = parseJwtSvidUnverified(token);
        shape = `${unverified.header.alg} ${unverified.header.kid === undefined} ${about(unverified.audience.length)}`;
        void [JSON.stringify(unverified), unverified.id.toString()];
      } catch (error) {
        accepts(() => validateJwtSvidSync(token, question));
        throw error;
      }
      const svid = validateJwtSvidSync(token, question);
      const text = token.slice(0, token.lastIndexOf('.'));
      const signers = signed.get(text);
      if (signers === undefined) throw wrong('a token is believed that no key of the bundle signed', token);
      if (svid.header.kid !== undefined && !signers.has(svid.header.kid)) throw wrong('a token is believed for another key', token);
      // JWT-SVID asks nothing of `iat`, and nobody is refused for it here
      if ('iat' in svid.claims && typeof svid.claims['iat'] !== 'number') return `believed ${shape}, iat of another kind`;
      const { payload, protectedHeader } = await verifyWithJose(
        token,
        [...signers].map((kid) => keys[kid]?.publicKey as KeyObject),
        svid.header.alg,
      );
      const same = (what: string, a: unknown, b: unknown) => {
        if (a !== b) throw wrong(`jose sees another ${what}`, a, b, token);
      };
      same('sub', svid.id.toString(), payload.sub);
      same('aud', svid.audience.join(' '), [payload.aud ?? []].flat().join(' '));
      same('exp', svid.expiresMs, (payload.exp ?? Number.NaN) * 1000);
      same('nbf', svid.notBeforeMs, payload.nbf === undefined ? undefined : payload.nbf * 1000);
      same('kid', svid.header.kid, protectedHeader.kid);
      same('set of claims', Object.keys(svid.claims).sort().join(), Object.keys(payload).sort().join());
      return `believed ${shape}`;
    },
  };
}

/** What cannot be read must not be believed either. */
function accepts(validate: () => unknown): void {
  try {
    validate();
  } catch {
    return;
  }
  throw wrong('a token is believed that cannot be read');
}

async function verifyWithJose(token: string, signers: readonly KeyObject[], alg: string) {
  let last: unknown;
  for (const key of signers) {
    try {
      return await jwtVerify(token, key, { algorithms: [alg], audience: AUDIENCE, currentDate: new Date(NOW_MS), clockTolerance: 60 });
    } catch (error) {
      last = error;
    }
  }
  throw wrong(`jose does not believe it: ${(last as Error).message}`, token);
}

const anyJson = jsonMutation();

function changeParts(
  random: Random,
  input: Buffer,
  other: Buffer,
  join: (header: string, payload: string, signature: string) => string,
): Buffer {
  const [header = '', payload = '', signature = ''] = input.toString('latin1').split('.');
  const change = (part: string) => {
    const json = readJson(Buffer.from(part, 'base64url').toString());
    if (json === undefined || random.oneIn(8))
      return anyJson(random, Buffer.from(part, 'base64url'), Buffer.from(other.toString('latin1').split('.')[1] ?? '', 'base64url'));
    const theirs = readJson(Buffer.from(other.toString('latin1').split('.')[random.int(2)] ?? '', 'base64url').toString());
    return Buffer.from(writeJson(changeJson(random, json, theirs)));
  };
  const which = random.int(3);
  return Buffer.from(
    join(
      which === 1 ? header : change(header).toString('base64url'),
      which === 0 ? payload : change(payload).toString('base64url'),
      signature,
    ),
    'latin1',
  );
}
