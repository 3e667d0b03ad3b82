/** Rows about JWT-SVIDs, around any time: what has a date in it is told by another validator's clock, which cannot be set. */
import { createHmac } from 'node:crypto';
import type { Reason } from '../../../spiffe/errors.ts';
import { JWT_ALGORITHM_NAMES, JWT_ALGORITHMS, type JwtAlgorithmName } from '../../../spiffe/jwt/jwt-algorithm.ts';
import { ecKey, ed25519Key, rsaKey, type VectorKey } from '../keys.ts';
import type { File, JwtInput, Row } from '../row.ts';
import { row } from './ids.ts';

const GO = 'go-spiffe jwtsvid TestParseAndValidate';
const LACKS = 'go-spiffe lacks it';
const SPEC = 'JWT-SVID';
const ID = 'spiffe://example.org/web';

export const b64 = (value: string | Buffer) => Buffer.from(value as string).toString('base64url');

export function jwtKeys(): Readonly<Record<string, VectorKey>> {
  return {
    ec: ecKey('jwt'),
    ec384: ecKey('jwt', 'P-384'),
    ec521: ecKey('jwt', 'P-521'),
    rsa: rsaKey('web'),
    foreign: ecKey('foreign jwt'),
  };
}

/** Signs header and payload as they are. @param alg none of the nine: as ES256 */
export function token(key: VectorKey, alg: string, header: string | Buffer, payload: string | Buffer): string {
  const signed = `${b64(header)}.${b64(payload)}`;
  const { hash, pss } = JWT_ALGORITHMS[(JWT_ALGORITHM_NAMES as readonly string[]).includes(alg) ? (alg as JwtAlgorithmName) : 'ES256'];
  const data = Buffer.from(signed);
  return `${signed}.${b64(pss && key.kind === 'rsa' ? key.signPss(data, hash) : key.sign(data, hash))}`;
}

export function jwkOfKey(key: VectorKey): Record<string, string> {
  return key.publicKey.export({ format: 'jwk' }) as Record<string, string>;
}

export function jwks(keys: Readonly<Record<string, VectorKey>>, more: object = {}): string {
  return JSON.stringify({ keys: Object.entries(keys).map(([kid, key]) => ({ ...jwkOfKey(key), kid, ...more })) });
}

export function jwtBundles(): Readonly<Record<string, string>> {
  const { foreign, ...ours } = jwtKeys();
  // the same key id in both: it must not matter
  return { 'example.org': jwks(ours), 'other.org': jwks({ ec: foreign as VectorKey }), 'empty.org': '{"keys":[]}' };
}

export function jwtFile(nowMs: number): File<'jwt-svid'> {
  const now = Math.floor(nowMs / 1000);
  const keys = jwtKeys();
  const ec = keys['ec'] as VectorKey;
  const rsa = keys['rsa'] as VectorKey;
  const foreign = keys['foreign'] as VectorKey;
  const CLAIMS = { sub: ID, aud: ['db'], exp: now + 60 };
  const HEADER = { alg: 'ES256', kid: 'ec', typ: 'JWT' };
  const json = (value: object) => JSON.stringify(value);
  const plain = token(ec, 'ES256', json(HEADER), json(CLAIMS));
  const [head = '', body = '', tail = ''] = plain.split('.');
  const withClaims = (change: object) => token(ec, 'ES256', json(HEADER), json({ ...CLAIMS, ...change }));
  const withHeader = (change: object, key = ec, alg = 'ES256') => token(key, alg, json({ ...HEADER, ...change }), json(CLAIMS));
  const rawClaims = (text: string) => token(ec, 'ES256', json(HEADER), text);
  const rawHeader = (text: string | Buffer) => token(ec, 'ES256', text, json(CLAIMS));
  const ok = { sees: ID };
  type Case = readonly [
    name: string,
    source: string,
    requirement: string | undefined,
    token: string,
    outcome: Reason | { readonly sees: string },
    more?: Partial<JwtInput>,
  ];
  const hmac = (secret: string | Buffer) => {
    const signed = `${b64(json({ alg: 'HS256', kid: 'rsa', typ: 'JWT' }))}.${b64(json(CLAIMS))}`;
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
  };
  const bundleOf = (set: string) => ({ bundles: { 'example.org': set } });
  const kids: Readonly<Record<JwtAlgorithmName, string>> = {
    RS256: 'rsa',
    RS384: 'rsa',
    RS512: 'rsa',
    PS256: 'rsa',
    PS384: 'rsa',
    PS512: 'rsa',
    ES256: 'ec',
    ES384: 'ec384',
    ES512: 'ec521',
  };
  const cases: readonly Case[] = [
    [
      'success',
      `${GO}/success`,
      'JWT-1',
      token(keys['ec384'] as VectorKey, 'ES384', json({ alg: 'ES384', kid: 'ec384', typ: 'JWT' }), json(CLAIMS)),
      ok,
    ],
    ...JWT_ALGORITHM_NAMES.map((alg): Case => {
      const kid = kids[alg];
      return [`algorithm ${alg}`, SPEC, 'JWT-5', token(keys[kid] as VectorKey, alg, json({ alg, kid }), json(CLAIMS)), ok];
    }),
    // the algorithm
    ['malformed', `${GO}/malformed`, 'JWT-1', 'invalid token', 'JWT_SERIALIZATION'],
    [
      'unsupported algorithm',
      `${GO}/unsupported_algorithm`,
      'JWT-6',
      'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c',
      'JWT_ALG',
    ],
    ...['none', 'None', 'nOnE'].map(
      (alg): Case => [`alg ${alg} without a signature`, LACKS, 'JWT-6', `${b64(json({ alg }))}.${body}.`, 'JWT_ALG'],
    ),
    ['alg none with a signature', LACKS, 'JWT-6', withHeader({ alg: 'none' }), 'JWT_ALG'],
    ['alg none before a garbled payload', SPEC, 'JWT-7', `${b64(json({ alg: 'none' }))}.%%%.`, 'JWT_ALG'],
    ['HMAC with the public key in PEM', LACKS, 'JWT-6', hmac(rsa.publicKey.export({ type: 'spki', format: 'pem' })), 'JWT_ALG'],
    ['HMAC with the public key in DER', LACKS, 'JWT-6', hmac(rsa.spki), 'JWT_ALG'],
    [
      'EdDSA, with its key in the bundle',
      LACKS,
      'JWT-6',
      token(ed25519Key('jwt'), 'ES256', json({ alg: 'EdDSA', kid: 'ed' }), json(CLAIMS)),
      'JWT_ALG',
      bundleOf(jwks({ ed: ed25519Key('jwt') })),
    ],
    ['ES256K', SPEC, 'JWT-6', withHeader({ alg: 'ES256K' }), 'JWT_ALG'],
    ['an algorithm in lower case', SPEC, 'JWT-6', withHeader({ alg: 'es256' }), 'JWT_ALG'],
    ['no algorithm', SPEC, 'JWT-6', withHeader({ alg: undefined }), 'JWT_ALG'],
    ['an algorithm that is a number', LACKS, 'JWT-6', withHeader({ alg: 256 }), 'JWT_ALG'],
    ['an algorithm that is a list', LACKS, 'JWT-6', withHeader({ alg: ['ES256'] }), 'JWT_ALG'],
    ['ES384 of a P-256 key', LACKS, 'JWT-23', withHeader({ alg: 'ES384' }), 'JWT_KEY_TYPE'],
    ['RS256 of an EC key', LACKS, 'JWT-23', withHeader({ alg: 'RS256' }), 'JWT_KEY_TYPE'],
    ['ES256 of an RSA key', LACKS, 'JWT-23', withHeader({ kid: 'rsa' }), 'JWT_KEY_TYPE'],
    ['RS256 where PS256 was signed', LACKS, 'JWT-23', withHeader({ alg: 'RS256', kid: 'rsa' }, rsa, 'PS256'), 'JWT_SIGNATURE'],
    ['PS256 where RS256 was signed', LACKS, 'JWT-23', withHeader({ alg: 'PS256', kid: 'rsa' }, rsa, 'RS256'), 'JWT_SIGNATURE'],
    // how it is written
    ['nothing', LACKS, 'JWT-1', '', 'JWT_SERIALIZATION'],
    ['flattened JSON serialization', LACKS, 'JWT-2', json({ protected: head, payload: body, signature: tail }), 'JWT_SERIALIZATION'],
    [
      'general JSON serialization',
      LACKS,
      'JWT-2',
      json({ payload: body, signatures: [{ protected: head, signature: tail }] }),
      'JWT_SERIALIZATION',
    ],
    ['five parts of a JWE', LACKS, 'JWT-4', `${plain}.YQ.Yg`, 'JWT_SERIALIZATION'],
    ['two parts', SPEC, 'JWT-1', `${head}.${body}`, 'JWT_SERIALIZATION'],
    ['no header', LACKS, 'JWT-1', `.${body}.${tail}`, 'JWT_SERIALIZATION'],
    ['no signature', LACKS, 'JWT-23', `${head}.${body}.`, 'JWT_ENCODING'],
    ['padded base64', LACKS, 'JWT-23', `${head}.${body}=.${tail}`, 'JWT_ENCODING'],
    ['the other alphabet', LACKS, 'JWT-23', `${head}.${body}.+${tail.slice(1)}`, 'JWT_ENCODING'],
    ['stray bits at the end of the signature', LACKS, 'JWT-23', strayBits(plain), 'JWT_ENCODING'],
    ['white space in front', LACKS, 'JWT-1', ` ${plain}`, 'JWT_ENCODING'],
    ['a line feed behind', LACKS, 'JWT-1', `${plain}\n`, 'JWT_ENCODING'],
    ['a line feed inside', LACKS, 'JWT-1', `${head}.${body.slice(0, 8)}\n${body.slice(8)}.${tail}`, 'JWT_ENCODING'],
    ['a PASETO', SPEC, 'ID-36', `v4.public.${body}`, 'JWT_ENCODING'],
    ['a macaroon', SPEC, 'ID-36', 'MDAxY2xvY2F0aW9uIGh0dHA6Ly9leGFtcGxlLm9yZwo', 'JWT_SERIALIZATION'],
    ['a header that is null', LACKS, 'JWT-23', rawHeader('null'), 'JWT_JSON'],
    ['a header with a byte order mark', LACKS, 'JWT-23', rawHeader(`\ufeff${json(HEADER)}`), 'JSON_SYNTAX'],
    ['a header that is not UTF-8', LACKS, 'JWT-23', rawHeader(Buffer.from(json({ ...HEADER, x: '\u00e9' }), 'latin1')), 'JSON_SYNTAX'],
    ['a header member twice', LACKS, 'JWT-23', rawHeader('{"alg":"ES256","alg":"ES256","kid":"ec"}'), 'JSON_DUPLICATE'],
    ['a key id twice', LACKS, 'JWT-23', rawHeader('{"alg":"ES256","kid":"ec384","kid":"ec"}'), 'JSON_DUPLICATE'],
    ['a payload that is a list', LACKS, 'JWT-23', rawClaims('[]'), 'JWT_JSON'],
    ['a payload that is not JSON', LACKS, 'JWT-23', rawClaims('{'), 'JSON_SYNTAX'],
    ['a claim twice', LACKS, 'JWT-23', rawClaims(`{"sub":"spiffe://example.org/admin",${json(CLAIMS).slice(1)}`), 'JSON_DUPLICATE'],
    [
      'a claim twice, once escaped',
      LACKS,
      'JWT-23',
      rawClaims(`{"s\\u0075b":"spiffe://example.org/admin",${json(CLAIMS).slice(1)}`),
      'JSON_DUPLICATE',
    ],
    [
      'a claim once more in another case',
      LACKS,
      'JWT-11',
      rawClaims(`${json(CLAIMS).slice(0, -1)},"SUB":"spiffe://example.org/admin"}`),
      ok,
    ],
    [
      '17 levels of lists',
      LACKS,
      'JWT-11',
      withClaims({ deep: JSON.parse(`${'['.repeat(17)}${']'.repeat(17)}`) as object }),
      'JSON_TOO_DEEP',
    ],
    ['8 levels of lists', LACKS, 'JWT-11', withClaims({ deep: JSON.parse(`${'['.repeat(8)}${']'.repeat(8)}`) as object }), ok],
    // the header
    ['an unknown critical header', LACKS, 'JWT-23', withHeader({ crit: ['exp'], exp: now }), 'JWT_CRIT'],
    ['an empty list of critical headers', LACKS, 'JWT-23', withHeader({ crit: [] }), 'JWT_CRIT'],
    ['an unencoded payload', LACKS, 'JWT-23', withHeader({ b64: false, crit: ['b64'] }), 'JWT_CRIT'],
    ['b64 without crit', LACKS, 'JWT-23', withHeader({ b64: false }), 'JWT_CRIT'],
    ['a key inside the header, which is not looked at', LACKS, 'JWT-11', withHeader({ jwk: jwkOfKey(foreign) }), ok],
    ['a key inside the header that signed', LACKS, 'JWT-23', withHeader({ jwk: jwkOfKey(foreign) }, foreign), 'JWT_SIGNATURE'],
    [
      'a certificate inside the header, which is not looked at',
      LACKS,
      'JWT-23',
      withHeader({ x5u: 'https://evil.test' }, foreign),
      'JWT_SIGNATURE',
    ],
    ['typ JOSE', SPEC, 'JWT-10', withHeader({ typ: 'JOSE' }), ok],
    ['no typ', SPEC, 'JWT-10', withHeader({ typ: undefined }), ok],
    ['typ invalid', `${GO}/invalid_typ`, 'JWT-10', withHeader({ typ: 'invalid' }), 'JWT_TYP'],
    ...['jwt', 'jose', 'at+jwt', 'wit+jwt', '', 1, null].map(
      (typ): Case => [`typ ${JSON.stringify(typ)}`, LACKS, 'JWT-10', withHeader({ typ }), 'JWT_TYP'],
    ),
    ['an empty key id', `${GO}/missing_key`, 'JWT-9', withHeader({ kid: '' }), 'JWT_KID'],
    ['a key id that is a number', LACKS, 'JWT-9', withHeader({ kid: 1 }), 'JWT_KID'],
    ['no key id', LACKS, 'JWT-9', withHeader({ kid: undefined }), 'JWT_KID_MISSING'],
    ['no key id where that is allowed', LACKS, 'JWT-9', withHeader({ kid: undefined }), ok, { kid: 'optional' }],
    [
      'no key id where that is allowed, and a stranger’s key',
      LACKS,
      'JWT-9',
      withHeader({ kid: undefined }, foreign),
      'JWT_SIGNATURE',
      { kid: 'optional' },
    ],
    // the claims
    ['missing subject', `${GO}/missing_subject`, 'JWT-13', withClaims({ sub: undefined }), 'JWT_SUB'],
    ['an empty subject', SPEC, 'JWT-13', withClaims({ sub: '' }), 'JWT_SUB'],
    ['invalid subject claim', `${GO}/invalid_subject_claim`, 'JWT-13', withClaims({ sub: 'invalid subject' }), 'JWT_SUB'],
    ['a subject with a lone slash', SPEC, 'JWT-13', withClaims({ sub: 'spiffe://example.org/' }), 'JWT_SUB'],
    ['the trust domain as subject', LACKS, 'JWT-13', withClaims({ sub: 'spiffe://example.org' }), 'JWT_SUB'],
    ['a list as subject', LACKS, 'JWT-13', withClaims({ sub: [ID] }), 'JWT_SUB'],
    [
      'a subject of 2048 bytes',
      LACKS,
      'ID-21',
      withClaims({ sub: `spiffe://example.org/${'a'.repeat(2027)}` }),
      { sees: `spiffe://example.org/${'a'.repeat(2027)}` },
    ],
    ['a subject of 2049 bytes', LACKS, 'ID-24', withClaims({ sub: `spiffe://example.org/${'a'.repeat(2028)}` }), 'JWT_SUB'],
    ['missing expiration claim', `${GO}/missing_expiration_claim`, 'JWT-20', withClaims({ exp: undefined }), 'JWT_EXP_MISSING'],
    ['exp null', LACKS, 'JWT-20', withClaims({ exp: null }), 'JWT_EXP_MISSING'],
    ['exp as text', LACKS, 'JWT-20', withClaims({ exp: String(now + 60) }), 'JWT_EXP'],
    ['exp with a fraction', LACKS, 'JWT-22', withClaims({ exp: now + 60.5 }), ok],
    ['exp beyond every number', LACKS, 'JWT-20', rawClaims(`{"sub":"${ID}","aud":"db","exp":1e400}`), 'JSON_SYNTAX'],
    ['exp beyond every calendar', LACKS, 'JWT-20', withClaims({ exp: 1e15 }), 'JWT_EXP'],
    ['a negative exp', LACKS, 'JWT-22', withClaims({ exp: -1 }), 'JWT_EXPIRED'],
    ['exp 0', LACKS, 'JWT-22', withClaims({ exp: 0 }), 'JWT_EXPIRED'],
    ['expired', `${GO}/expired`, 'JWT-22', withClaims({ exp: now - 300 }), 'JWT_EXPIRED'],
    ['expired, within the leeway', SPEC, 'JWT-22', withClaims({ exp: now - 10 }), ok],
    ['expired at the end of the leeway', SPEC, 'JWT-22', withClaims({ exp: now - 60 }), 'JWT_EXPIRED'],
    ['expired, no leeway', SPEC, 'JWT-22', withClaims({ exp: now }), 'JWT_EXPIRED', { clockToleranceMs: 0 }],
    ['a leeway of an hour', LACKS, 'JWT-22', plain, 'JWT_EXP', { clockToleranceMs: 3_600_000 }],
    [
      'good for longer than was asked for',
      LACKS,
      'JWT-22',
      withClaims({ exp: now + 86_400 }),
      'JWT_LIFETIME',
      { maxLifetimeMs: 3_600_000 },
    ],
    ['good for as long as was asked for', LACKS, 'JWT-22', withClaims({ exp: now + 3600 }), ok, { maxLifetimeMs: 3_600_000 }],
    ['nbf in the past', SPEC, 'JWT-24', withClaims({ nbf: now - 1 }), ok],
    ['nbf in five minutes', LACKS, 'JWT-24', withClaims({ nbf: now + 300 }), 'JWT_NOT_YET_VALID'],
    ['nbf as text', LACKS, 'JWT-24', withClaims({ nbf: 'soon' }), 'JWT_NBF'],
    ['nbf null', LACKS, 'JWT-24', withClaims({ nbf: null }), 'JWT_NBF'],
    ['iat in the future', 'DEV-7', 'JWT-11', withClaims({ iat: now + 3600 }), ok],
    ['iat in the past', SPEC, 'JWT-11', withClaims({ iat: now - 60 }), ok],
    ['iat as text', LACKS, 'JWT-11', withClaims({ iat: 'yesterday' }), ok],
    ['other claims', SPEC, 'JWT-11', withClaims({ iss: 'x', jti: 'y', deep: { a: [1] } }), ok],
    ['iss that is no text', LACKS, 'JWT-11', withClaims({ iss: 1 }), ok],
    ['no aud', LACKS, 'JWT-15', withClaims({ aud: undefined }), 'JWT_AUD_MISSING'],
    ['an empty aud', LACKS, 'JWT-15', withClaims({ aud: [] }), 'JWT_AUD_MISSING'],
    ['aud null', LACKS, 'JWT-15', withClaims({ aud: null }), 'JWT_AUD_MISSING'],
    ['aud a number', LACKS, 'JWT-15', withClaims({ aud: 1 }), 'JWT_AUD'],
    ['aud nested', LACKS, 'JWT-15', withClaims({ aud: [['db']] }), 'JWT_AUD'],
    ['aud with an empty text', LACKS, 'JWT-15', withClaims({ aud: ['db', ''] }), 'JWT_AUD'],
    ['aud as text', SPEC, 'JWT-22', withClaims({ aud: 'db' }), ok],
    ['one of several audiences', SPEC, 'JWT-16', withClaims({ aud: ['x', 'db'] }), ok],
    ['one of several expected', SPEC, 'JWT-16', plain, ok, { audience: ['y', 'db'] }],
    ['unexpected audience', `${GO}/unexpected_audience`, 'JWT-16', plain, 'JWT_AUD_UNEXPECTED', { audience: ['another'] }],
    ['an audience that begins alike', SPEC, 'JWT-16', withClaims({ aud: ['db2'] }), 'JWT_AUD_UNEXPECTED'],
    ['an audience in another case', SPEC, 'JWT-16', withClaims({ aud: ['DB'] }), 'JWT_AUD_UNEXPECTED'],
    ['no expected audience', 'DEV-2', 'JWT-15', plain, 'JWT_EXPECTED_AUDIENCE', { audience: [] }],
    ['no expected audience, and no aud', 'DEV-2', 'JWT-15', withClaims({ aud: undefined }), 'JWT_EXPECTED_AUDIENCE', { audience: [] }],
    // the keys
    [
      'no bundle for trust domain',
      `${GO}/no_bundle_for_trust_domain`,
      'ID-27',
      withClaims({ sub: 'spiffe://another.domain/host' }),
      'JWT_BUNDLE_MISSING',
    ],
    [
      'a trust domain without JWT authorities',
      SPEC,
      'JWT-31 TDB-19',
      withClaims({ sub: 'spiffe://empty.org/web' }),
      'JWT_AUTHORITIES_MISSING',
    ],
    ['no bundle for authority', `${GO}/no_bundle_for_authority`, 'JWT-23', withHeader({ kid: 'noKey' }), 'JWT_AUTHORITY_UNKNOWN'],
    ['mismatched JWT authority', `${GO}/mismatched_JWT_authority`, 'JWT-23', withHeader({ alg: 'RS256' }, rsa, 'RS256'), 'JWT_KEY_TYPE'],
    ['a key id that both trust domains have, signed by the other', LACKS, 'ID-27', withHeader({}, foreign), 'JWT_SIGNATURE'],
    [
      'a key id that both trust domains have, for the other',
      LACKS,
      'ID-27',
      withClaims({ sub: 'spiffe://other.org/web' }),
      'JWT_SIGNATURE',
    ],
    [
      'the other trust domain by its own key',
      LACKS,
      'ID-27',
      token(foreign, 'ES256', json(HEADER), json({ ...CLAIMS, sub: 'spiffe://other.org/web' })),
      { sees: 'spiffe://other.org/web' },
    ],
    ['a key for WIT-SVIDs', SPEC, 'JWT-30', plain, 'JWT_AUTHORITIES_MISSING', bundleOf(jwks({ ec }, { use: 'wit-svid' }))],
    ['a key for X.509-SVIDs', SPEC, 'JWT-30', plain, 'JWT_AUTHORITIES_MISSING', bundleOf(jwks({ ec }, { use: 'x509-svid' }))],
    ['a key for JWT-SVIDs', SPEC, 'JWT-30', plain, ok, bundleOf(jwks({ ec }, { use: 'jwt-svid' }))],
    [
      'an ECDSA signature in DER',
      LACKS,
      'JWT-23',
      `${head}.${body}.${b64(ec.signDer(Buffer.from(`${head}.${body}`), 'sha256'))}`,
      'JWT_SIGNATURE',
    ],
    ['a signature of zeros', LACKS, 'JWT-23', `${head}.${body}.${b64(Buffer.alloc(64))}`, 'JWT_SIGNATURE'],
    [
      'a bit of the signature flipped',
      SPEC,
      'JWT-23 ID-33',
      `${head}.${body}.${tail.startsWith('A') ? 'B' : 'A'}${tail.slice(1)}`,
      'JWT_SIGNATURE',
    ],
    [
      'another payload under the signature',
      SPEC,
      'JWT-23 ID-33',
      `${head}.${b64(json({ ...CLAIMS, sub: 'spiffe://example.org/admin' }))}.${tail}`,
      'JWT_SIGNATURE',
    ],
    ['another header under the signature', SPEC, 'JWT-23 ID-33', `${b64(json({ ...HEADER, x: 1 }))}.${body}.${tail}`, 'JWT_SIGNATURE'],
  ];
  return {
    shared: { usual: jwtBundles(), plain },
    rows: [
      ...cases.map(([name, source, requirement, text, outcome, more]) =>
        row<'jwt-svid'>(
          name,
          [source, requirement],
          {
            token: text === plain ? '@plain' : text,
            audience: ['db'],
            // the reader puts in what is shared
            bundles: '@usual' as unknown as Record<string, string>,
            nowMs,
            ...more,
          },
          outcome,
        ),
      ),
      {
        name: 'a token of 1 MiB',
        source: LACKS,
        input: { token: `${plain}.`, audience: ['db'], bundles: {}, nowMs },
        fill: { member: 'token', to: 1024 * 1024, with: 'A' },
        expect: 'reject',
        reason: 'JWT_TOO_LARGE',
      } satisfies Row<'jwt-svid'>,
    ],
  };
}

/** The last letter of 64 octets carries two bits, and four that must be zero. */
function strayBits(plain: string): string {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  return plain.slice(0, -1) + letters[letters.indexOf(plain.at(-1) ?? 'A') + 1];
}
