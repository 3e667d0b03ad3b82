import { signJwtSvid } from '../../../spiffe/jwt/sign-jwt-svid.ts';
import { constants, createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { inspect } from 'node:util';
import fc from 'fast-check';
import * as jose from 'jose';
import { describe, expect, test } from 'vitest';
import { Bundle, BundleSet, jwtAuthority } from '../../../spiffe/bundle/bundle.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { JWT_ALGORITHM_NAMES, JWT_ALGORITHMS, type JwtAlgorithmName } from '../../../spiffe/jwt/jwt-algorithm.ts';
import { MAX_TOKEN_BYTES, parseJwtSvidUnverified, validateJwtSvidSync } from '../../../spiffe/jwt/jwt-svid.ts';

const NOW_S = Date.UTC(2026, 5, 1) / 1000;
const NOW_MS = NOW_S * 1000;
const clock = { now: () => NOW_MS };
const td = TrustDomain.parse('example.org');
const other = TrustDomain.parse('other.org');

const pair = (curve: string) => generateKeyPairSync('ec', { namedCurve: curve });
const KEYS = {
  'P-256': pair('P-256'),
  'P-384': pair('P-384'),
  'P-521': pair('P-521'),
  rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
};
const foreign = pair('P-256');

const keyFor = (alg: JwtAlgorithmName) => {
  const { key } = JWT_ALGORITHMS[alg];
  return KEYS[key.type === 'ec' ? key.curve : 'rsa'];
};
const kidFor = (alg: JwtAlgorithmName) => `key-${alg.startsWith('ES') ? alg : 'rsa'}`;

const bundles = new BundleSet([
  new Bundle(td, {
    jwtAuthorities: [
      jwtAuthority('key-ES256', KEYS['P-256'].publicKey),
      jwtAuthority('key-ES384', KEYS['P-384'].publicKey),
      jwtAuthority('key-ES512', KEYS['P-521'].publicKey),
      jwtAuthority('key-rsa', KEYS.rsa.publicKey),
    ],
  }),
  new Bundle(other, { jwtAuthorities: [jwtAuthority('key-ES256', foreign.publicKey)] }),
  new Bundle(TrustDomain.parse('x509only.org')),
]);

const CLAIMS = { sub: 'spiffe://example.org/web', aud: ['db'], exp: NOW_S + 300, iat: NOW_S };

function rawSign(alg: JwtAlgorithmName, data: string, key: KeyObject = keyFor(alg).privateKey): Buffer {
  const { hash, pss } = JWT_ALGORITHMS[alg];
  return sign(hash, Buffer.from(data), {
    key,
    dsaEncoding: 'ieee-p1363',
    ...(pss && { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }),
  });
}

const b64 = (text: string | Uint8Array) => Buffer.from(text as string).toString('base64url');

interface Parts {
  header?: unknown;
  claims?: unknown;
  alg?: JwtAlgorithmName;
  key?: KeyObject;
}

/** Any token, right or wrong. A string is taken as the JSON text itself. */
function token({ header, claims = CLAIMS, alg = 'ES256', key }: Parts = {}): string {
  const json = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value));
  const signed = `${b64(json(header ?? { alg, kid: kidFor(alg), typ: 'JWT' }))}.${b64(json(claims))}`;
  return `${signed}.${rawSign(alg, signed, key).toString('base64url')}`;
}

function outcome(text: string, options: Partial<Parameters<typeof validateJwtSvidSync>[1]> = {}): string {
  try {
    validateJwtSvidSync(text, { audience: ['db'], bundles, clock, ...options });
    return 'accepted';
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    return `${error.code} ${error.reason}`;
  }
}

const withClaims = (change: object) => token({ claims: { ...CLAIMS, ...change } });
const withHeader = (change: object) => token({ header: { alg: 'ES256', kid: 'key-ES256', typ: 'JWT', ...change } });
const HMAC_HEADER = b64(JSON.stringify({ alg: 'HS256', kid: 'key-rsa', typ: 'JWT' }));

describe('the nine algorithms', () => {
  test.each(JWT_ALGORITHM_NAMES)(
    'JWT-5 %s: jose’s tokens are accepted here, ours by jose, and a flipped signature by nobody',
    async (alg) => {
      const theirs = await new jose.SignJWT({ sub: CLAIMS.sub, aud: CLAIMS.aud, exp: CLAIMS.exp })
        .setProtectedHeader({ alg, kid: kidFor(alg) })
        .sign(keyFor(alg).privateKey);
      expect(outcome(theirs)).toBe('accepted');
      const ours = await signJwtSvid({ alg, kid: kidFor(alg), claims: CLAIMS }, async (data) => rawSign(alg, data.toString()));
      const { payload, protectedHeader } = await jose.jwtVerify(ours.token, keyFor(alg).publicKey, {
        currentDate: new Date(NOW_MS),
        audience: 'db',
      });
      expect(payload).toEqual(CLAIMS);
      expect(protectedHeader).toEqual({ alg, kid: kidFor(alg), typ: 'JWT' });
      const at = ours.token.lastIndexOf('.') + 5;
      const flipped = `${ours.token.slice(0, at)}${ours.token[at] === 'A' ? 'B' : 'A'}${ours.token.slice(at + 1)}`;
      expect(outcome(flipped)).toBe('SVID_UNTRUSTED JWT_SIGNATURE');
    },
  );

  const table: [string, string, string][] = [
    ['JWT-6 none', `${b64('{"alg":"none"}')}.${b64(JSON.stringify(CLAIMS))}.`, 'SVID_INVALID JWT_ALG'],
    ['JWT-6 None', withHeader({ alg: 'None' }), 'SVID_INVALID JWT_ALG'],
    ['JWT-6 es256 in lower case', withHeader({ alg: 'es256' }), 'SVID_INVALID JWT_ALG'],
    ['JWT-6 EdDSA', withHeader({ alg: 'EdDSA' }), 'SVID_INVALID JWT_ALG'],
    ['JWT-6 ES256K', withHeader({ alg: 'ES256K' }), 'SVID_INVALID JWT_ALG'],
    ['JWT-6 no algorithm', token({ header: { kid: 'key-ES256' } }), 'SVID_INVALID JWT_ALG'],
    ['JWT-6 a number', withHeader({ alg: 256 }), 'SVID_INVALID JWT_ALG'],
    ['JWT-6 an object', withHeader({ alg: { a: 1 } }), 'SVID_INVALID JWT_ALG'],
    ['JWT-6 a list of an object', withHeader({ alg: [{}] }), 'SVID_INVALID JWT_ALG'],
    ['JWT-6 the name of a method of every object', withHeader({ alg: 'toString' }), 'SVID_INVALID JWT_ALG'],
    [
      'JWT-6 HMAC with the public key as secret',
      `${HMAC_HEADER}.${b64(JSON.stringify(CLAIMS))}.${createHmac('sha256', KEYS.rsa.publicKey.export({ type: 'spki', format: 'pem' }))
        .update(`${HMAC_HEADER}.${b64(JSON.stringify(CLAIMS))}`)
        .digest('base64url')}`,
      'SVID_INVALID JWT_ALG',
    ],
    ['JWT-7 the algorithm is judged before a garbled payload', `${b64('{"alg":"none"}')}.%%%.`, 'SVID_INVALID JWT_ALG'],
    ['JWT-23 ES384 over a P-256 key', token({ header: { alg: 'ES384', kid: 'key-ES256' } }), 'SVID_UNTRUSTED JWT_KEY_TYPE'],
    ['JWT-23 RS256 over an EC key', token({ header: { alg: 'RS256', kid: 'key-ES256' } }), 'SVID_UNTRUSTED JWT_KEY_TYPE'],
    [
      'JWT-23 RS256 where PS256 was signed',
      token({ header: { alg: 'RS256', kid: 'key-rsa' }, alg: 'PS256' }),
      'SVID_UNTRUSTED JWT_SIGNATURE',
    ],
  ];
  test.each(table)('%s is refused', (_name, text, expected) => expect(outcome(text)).toBe(expected));

  test('JWT-7 no bundle is asked for a token with another algorithm', () => {
    let asked = 0;
    const spying = { jwtBundle: () => (asked++, undefined) };
    expect(outcome(withHeader({ alg: 'none' }), { bundles: spying })).toBe('SVID_INVALID JWT_ALG');
    expect(asked).toBe(0);
    expect(outcome(token(), { bundles: spying })).toBe('BUNDLE_MISSING JWT_BUNDLE_MISSING');
    expect(asked).toBe(1);
  });

  test('JWT-23 an ECDSA signature in DER form is refused', () => {
    const [head, body] = token().split('.');
    const signature = sign('sha256', Buffer.from(`${head}.${body}`), KEYS['P-256'].privateKey).toString('base64url');
    expect(outcome(`${head}.${body}.${signature}`)).toBe('SVID_UNTRUSTED JWT_SIGNATURE');
  });
});

describe('the form of a token', () => {
  const good = token();
  const [head, body, tail] = good.split('.') as [string, string, string];
  const table: [string, string, string][] = [
    ['JWT-1 compact serialization', good, 'accepted'],
    [
      'JWT-2 flattened JSON serialization',
      JSON.stringify({ protected: head, payload: body, signature: tail }),
      'SVID_INVALID JWT_SERIALIZATION',
    ],
    [
      'JWT-2 general JSON serialization',
      JSON.stringify({ payload: body, signatures: [{ protected: head, signature: tail }] }),
      'SVID_INVALID JWT_SERIALIZATION',
    ],
    ['ID-36 JWT-4 five parts of a JWE', `${good}.a.b`, 'SVID_INVALID JWT_SERIALIZATION'],
    ['ID-36 a PASETO', `v4.public.${body}`, 'SVID_INVALID JWT_ENCODING'],
    ['ID-36 a macaroon', 'MDAxY2xvY2F0aW9uIGh0dHA6Ly9leGFtcGxlLm9yZwo', 'SVID_INVALID JWT_SERIALIZATION'],
    ['two parts', `${head}.${body}`, 'SVID_INVALID JWT_SERIALIZATION'],
    ['nothing', '', 'SVID_INVALID JWT_SERIALIZATION'],
    ['no signature', `${head}.${body}.`, 'SVID_INVALID JWT_ENCODING'],
    ['JWT-23 padded base64', `${head}.${body}=.${tail}`, 'SVID_INVALID JWT_ENCODING'],
    ['JWT-23 the other alphabet', `${head}.${body}.+${tail.slice(1)}`, 'SVID_INVALID JWT_ENCODING'],
    ['a space in front', ` ${good}`, 'SVID_INVALID JWT_ENCODING'],
    ['a line feed behind', `${good}\n`, 'SVID_INVALID JWT_ENCODING'],
    ['the largest size and one more', 'a'.repeat(MAX_TOKEN_BYTES + 1), 'SVID_INVALID JWT_TOO_LARGE'],
    ['JWT-23 a header member twice', token({ header: '{"alg":"ES256","alg":"ES256","kid":"key-ES256"}' }), 'SVID_INVALID JSON_DUPLICATE'],
    [
      'JWT-23 a claim twice',
      token({ claims: `{"sub":"spiffe://example.org/a","sub":"spiffe://example.org/b","aud":"db","exp":${NOW_S + 9}}` }),
      'SVID_INVALID JSON_DUPLICATE',
    ],
    [
      'JWT-23 a claim twice, once escaped',
      token({ claims: `{"sub":"spiffe://example.org/a","s\\u0075b":"spiffe://example.org/b","aud":"db","exp":${NOW_S + 9}}` }),
      'SVID_INVALID JSON_DUPLICATE',
    ],
    ['a payload that is a list', token({ claims: '[]' }), 'SVID_INVALID JWT_JSON'],
    ['a payload that is not JSON', token({ claims: '{' }), 'SVID_INVALID JSON_SYNTAX'],
    ['a header that is null', token({ header: 'null' }), 'SVID_INVALID JWT_JSON'],
    ['JWT-23 an unknown critical header', withHeader({ crit: ['exp'], exp: 1 }), 'SVID_INVALID JWT_CRIT'],
    ['JWT-23 an empty list of critical headers', withHeader({ crit: [] }), 'SVID_INVALID JWT_CRIT'],
    ['JWT-23 an unencoded payload', withHeader({ b64: false }), 'SVID_INVALID JWT_CRIT'],
    ['AMB-13 a key inside the header is not looked at', withHeader({ jwk: foreign.publicKey.export({ format: 'jwk' }) }), 'accepted'],
    ['JWT-10 typ JOSE', withHeader({ typ: 'JOSE' }), 'accepted'],
    ['JWT-10 no typ', token({ header: { alg: 'ES256', kid: 'key-ES256' } }), 'accepted'],
    ['JWT-10 typ jwt in lower case', withHeader({ typ: 'jwt' }), 'SVID_INVALID JWT_TYP'],
    ['JWT-10 typ at+jwt', withHeader({ typ: 'at+jwt' }), 'SVID_INVALID JWT_TYP'],
    ['JWT-10 typ wit+jwt', withHeader({ typ: 'wit+jwt' }), 'SVID_INVALID JWT_TYP'],
    ['JWT-10 typ that is a number', withHeader({ typ: 1 }), 'SVID_INVALID JWT_TYP'],
    ['kid that is empty', withHeader({ kid: '' }), 'SVID_INVALID JWT_KID'],
    ['kid that is a number', withHeader({ kid: 1 }), 'SVID_INVALID JWT_KID'],
  ];
  test.each(table)('%s', (_name, text, expected) => expect(outcome(text)).toBe(expected));
});

describe('the claims of a token', () => {
  const table: [string, string, string][] = [
    ['JWT-13 no sub', withClaims({ sub: undefined }), 'SVID_INVALID JWT_SUB'],
    ['JWT-13 an empty sub', withClaims({ sub: '' }), 'SVID_INVALID JWT_SUB'],
    ['JWT-13 a sub that is no SPIFFE ID', withClaims({ sub: 'foo' }), 'SVID_INVALID JWT_SUB'],
    ['JWT-13 a sub with a lone slash', withClaims({ sub: 'spiffe://example.org/' }), 'SVID_INVALID JWT_SUB'],
    ['JWT-13 the trust domain as sub', withClaims({ sub: 'spiffe://example.org' }), 'SVID_INVALID JWT_SUB'],
    ['ID-21 a sub of 2048 bytes', withClaims({ sub: `spiffe://example.org/${'a'.repeat(2027)}` }), 'accepted'],
    ['a sub of 2049 bytes', withClaims({ sub: `spiffe://example.org/${'a'.repeat(2028)}` }), 'SVID_INVALID JWT_SUB'],
    ['JWT-13 a list as sub', withClaims({ sub: ['spiffe://example.org/web'] }), 'SVID_INVALID JWT_SUB'],
    ['JWT-15 no aud', withClaims({ aud: undefined }), 'SVID_INVALID JWT_AUD_MISSING'],
    ['JWT-15 an empty aud', withClaims({ aud: [] }), 'SVID_INVALID JWT_AUD_MISSING'],
    ['JWT-15 aud null', withClaims({ aud: null }), 'SVID_INVALID JWT_AUD_MISSING'],
    ['JWT-15 an aud of empty strings', withClaims({ aud: [''] }), 'SVID_INVALID JWT_AUD'],
    ['JWT-22 aud as a string', withClaims({ aud: 'db' }), 'accepted'],
    ['JWT-16 one of several', withClaims({ aud: ['x', 'db'] }), 'accepted'],
    ['JWT-16 another', withClaims({ aud: ['x'] }), 'SVID_INVALID JWT_AUD_UNEXPECTED'],
    ['JWT-16 a longer one', withClaims({ aud: ['db2'] }), 'SVID_INVALID JWT_AUD_UNEXPECTED'],
    ['JWT-16 another case', withClaims({ aud: ['DB'] }), 'SVID_INVALID JWT_AUD_UNEXPECTED'],
    ['aud as a number', withClaims({ aud: 1 }), 'SVID_INVALID JWT_AUD'],
    ['aud with a number in it', withClaims({ aud: ['db', 1] }), 'SVID_INVALID JWT_AUD'],
    ['aud nested', withClaims({ aud: [['db']] }), 'SVID_INVALID JWT_AUD'],
    ['JWT-20 no exp', withClaims({ exp: undefined }), 'SVID_INVALID JWT_EXP_MISSING'],
    ['JWT-20 exp as a string', withClaims({ exp: String(NOW_S + 9) }), 'SVID_INVALID JWT_EXP'],
    [
      'JWT-20 exp beyond every number',
      token({ claims: `{"sub":"spiffe://example.org/web","aud":"db","exp":1e400}` }),
      'SVID_INVALID JSON_SYNTAX',
    ],
    ['JWT-20 exp beyond every calendar', withClaims({ exp: 1e15 }), 'SVID_INVALID JWT_EXP'],
    ['exp with a fraction', withClaims({ exp: NOW_S + 0.5 }), 'accepted'],
    ['a negative exp', withClaims({ exp: -1 }), 'SVID_EXPIRED JWT_EXPIRED'],
    ['JWT-22 expired within the leeway', withClaims({ exp: NOW_S - 10 }), 'accepted'],
    ['JWT-22 the first second after the leeway', withClaims({ exp: NOW_S - 60 }), 'SVID_EXPIRED JWT_EXPIRED'],
    ['JWT-22 expired long ago', withClaims({ exp: NOW_S - 300 }), 'SVID_EXPIRED JWT_EXPIRED'],
    ['JWT-24 nbf in the past', withClaims({ nbf: NOW_S - 1 }), 'accepted'],
    ['JWT-24 nbf in five minutes', withClaims({ nbf: NOW_S + 300 }), 'SVID_EXPIRED JWT_NOT_YET_VALID'],
    ['JWT-24 nbf that is no date', withClaims({ nbf: 'soon' }), 'SVID_INVALID JWT_NBF'],
    ['iat in the future does not matter', withClaims({ iat: NOW_S + 9999 }), 'accepted'],
    ['JWT-11 other claims', withClaims({ iss: 'x', jti: 'y', deep: { a: [1] } }), 'accepted'],
  ];
  test.each(table)('%s', (_name, text, expected) => expect(outcome(text)).toBe(expected));
});

describe('the keys of a token', () => {
  test('ID-27 WAPI-60 the trust domain of sub picks the keys, whatever the kid is', () => {
    expect(outcome(token({ key: foreign.privateKey }))).toBe('SVID_UNTRUSTED JWT_SIGNATURE');
    expect(outcome(token({ claims: { ...CLAIMS, sub: 'spiffe://other.org/web' } }))).toBe('SVID_UNTRUSTED JWT_SIGNATURE');
    expect(outcome(token({ claims: { ...CLAIMS, sub: 'spiffe://other.org/web' }, key: foreign.privateKey }))).toBe('accepted');
  });

  test('JWT-31 TDB-19 WAPI-61 no bundle, a bundle without JWT keys and an unknown kid are told apart', () => {
    expect(outcome(withClaims({ sub: 'spiffe://nowhere.org/web' }))).toBe('BUNDLE_MISSING JWT_BUNDLE_MISSING');
    expect(outcome(withClaims({ sub: 'spiffe://x509only.org/web' }))).toBe('SVID_UNTRUSTED JWT_AUTHORITIES_MISSING');
    expect(outcome(withHeader({ kid: 'other' }))).toBe('SVID_UNTRUSTED JWT_AUTHORITY_UNKNOWN');
  });

  test('JWT-9 a token without kid is refused, or tried with every fitting key where that is asked for', () => {
    const kid = 'optional' as const;
    for (const alg of ['ES256', 'RS256', 'PS512'] as const) expect(outcome(token({ header: { alg }, alg }), { kid })).toBe('accepted');
    expect(outcome(token({ header: { alg: 'ES256' }, key: foreign.privateKey }), { kid })).toBe('SVID_UNTRUSTED JWT_SIGNATURE');
    expect(outcome(token({ header: { alg: 'ES256' } }))).toBe('SVID_INVALID JWT_KID_MISSING');
    expect(outcome(token())).toBe('accepted');
  });

  test('JWT-30 WAPI-72 a key of another use in a SPIFFE bundle validates nothing', () => {
    const jwk = { ...KEYS['P-256'].publicKey.export({ format: 'jwk' }), kid: 'key-ES256' };
    const run = (use: string) => outcome(token(), { bundles: Bundle.fromJson(td, JSON.stringify({ keys: [{ ...jwk, use }] })) });
    expect(run('jwt-svid')).toBe('accepted');
    expect(run('wit-svid')).toBe('SVID_UNTRUSTED JWT_AUTHORITIES_MISSING');
    expect(run('x509-svid')).toBe('SVID_UNTRUSTED JWT_AUTHORITIES_MISSING');
  });

  test('JWT-34 without an expected audience, or with a leeway of hours, nothing is validated', () => {
    expect(outcome(token(), { audience: [] })).toBe('REQUEST_INVALID JWT_EXPECTED_AUDIENCE');
    expect(outcome(token(), { audience: [''] })).toBe('REQUEST_INVALID JWT_EXPECTED_AUDIENCE');
    expect(outcome(token(), { clockToleranceMs: 3_600_000 })).toBe('REQUEST_INVALID JWT_EXP');
    expect(outcome(token(), { clockToleranceMs: Number.NaN })).toBe('REQUEST_INVALID JWT_EXP');
    expect(outcome(withClaims({ exp: NOW_S }), { clockToleranceMs: 0 })).toBe('SVID_EXPIRED JWT_EXPIRED');
  });
});

describe('a token that was mutated', () => {
  test('ID-33 JWT-23 is never accepted, and never throws anything but a SpiffeError', () => {
    const good = token();
    const parse = (text: string) => {
      try {
        parseJwtSvidUnverified(text);
      } catch (error) {
        expect(error).toBeInstanceOf(SpiffeError);
      }
    };
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.string({ minLength: 1, maxLength: 3 }), (at, piece) => {
        const text = good.slice(0, at) + piece + good.slice(at + 1);
        parse(text);
        expect(text === good ? 'same' : outcome(text)).not.toBe('accepted');
      }),
      { numRuns: 2000 },
    );
    fc.assert(
      fc.property(fc.json(), fc.json(), (header, claims) => {
        parse(`${b64(header)}.${b64(claims)}.AAAA`);
        parse(`${b64('{"alg":"ES256"}')}.${b64(claims)}.AAAA`);
      }),
    );
  });
});

describe('a token of ours', () => {
  const signer = async (data: Buffer) => rawSign('ES256', data.toString());
  const make = async (change: object, sign = signer) => {
    try {
      await signJwtSvid({ alg: 'ES256', kid: 'key-ES256', claims: { ...CLAIMS, ...change } }, sign);
      return 'signed';
    } catch (error) {
      return (error as SpiffeError).reason;
    }
  };

  test('JWT-13 JWT-14 JWT-19 that would break the rules is never signed', async () => {
    expect(await make({})).toBe('signed');
    expect(await make({ sub: 'spiffe://example.org' })).toBe('JWT_SUB');
    expect(await make({ aud: [] })).toBe('JWT_AUD_MISSING');
    expect(await make({ aud: [''] })).toBe('JWT_AUD');
    expect(await make({ exp: undefined })).toBe('JWT_EXP');
    expect(await make({ exp: NOW_S + 0.5 })).toBe('JWT_EXP');
    expect(await make({}, async (data) => sign('sha256', data, KEYS['P-256'].privateKey))).toBe('JWT_SIGNATURE');
  });

  test('shows itself to nobody', async () => {
    const svid = await signJwtSvid({ alg: 'ES256', kid: 'key-ES256', claims: CLAIMS }, signer);
    expect(JSON.stringify(svid) + inspect(svid, { showHidden: true })).not.toContain(svid.token.slice(-20));
    expect(parseJwtSvidUnverified(svid.token, { hint: 'internal' })).toMatchObject({
      hint: 'internal',
      audience: ['db'],
      expiresMs: CLAIMS.exp * 1000,
      issuedAtMs: NOW_MS,
    });
  });
});
