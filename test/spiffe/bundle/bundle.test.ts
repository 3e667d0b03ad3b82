import { JwtBundle } from '../../../spiffe/jwt/jwt-bundle.ts';
import { X509Bundle } from '../../../spiffe/x509/x509-bundle.ts';
import { generateKeyPairSync } from 'node:crypto';
import fc from 'fast-check';
import * as jose from 'jose';
import { beforeAll, describe, expect, test } from 'vitest';
import { Bundle, BundleSet, jwtAuthority } from '../../../spiffe/bundle/bundle.ts';
import { Certificate } from '../../../spiffe/x509/certificate.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { type TestCertificate, testRoot } from '../../fakes/ca.ts';

const td = TrustDomain.parse('example.org');
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ecJwk = ec.publicKey.export({ format: 'jwk' }) as Record<string, string>;

let one: TestCertificate;
let two: TestCertificate;
let x509Entry: Record<string, unknown>;
beforeAll(async () => {
  [one, two] = [await testRoot(), await testRoot({ keyType: 'rsa-2048' })];
  x509Entry = { use: 'x509-svid', ...(await jose.exportJWK(one.keys.publicKey)), x5c: [one.der.toString('base64')] };
});

const jwtEntry = { use: 'jwt-svid', kid: 'k1', ...ecJwk };

function read(document: unknown): string {
  try {
    const bundle = Bundle.fromJson(td, typeof document === 'string' ? document : JSON.stringify(document));
    return `${bundle.x509.authorities.length} X.509, ${bundle.jwt.authorities.size} JWT`;
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    return `${error.code} ${error.reason}`;
  }
}

describe('a SPIFFE bundle document', () => {
  const table: [string, () => unknown, string][] = [
    ['TDB-7 TDB-18 an empty list of keys', () => ({ keys: [] }), '0 X.509, 0 JWT'],
    ['TDB-6 other members', () => ({ keys: [], foo: 1 }), '0 X.509, 0 JWT'],
    ['one of each', () => ({ keys: [x509Entry, jwtEntry] }), '1 X.509, 1 JWT'],
    ['TDB-15 no keys', () => ({ spiffe_refresh_hint: 60, spiffe_sequence: 1 }), 'BUNDLE_INVALID BUNDLE_KEYS_MISSING'],
    ['TDB-15 keys null', () => ({ keys: null }), 'BUNDLE_INVALID BUNDLE_KEYS_MISSING'],
    ['TDB-15 keys an object', () => ({ keys: {} }), 'BUNDLE_INVALID BUNDLE_KEYS_MISSING'],
    ['a list', () => [], 'BUNDLE_INVALID BUNDLE_KEYS_MISSING'],
    [
      'TDB-16 an unknown kty beside a good key',
      () => ({ keys: [{ kty: 'AKP', use: 'jwt-svid', kid: 'a', alg: 'ML-DSA-65', pub: 'AA' }, jwtEntry] }),
      '0 X.509, 1 JWT',
    ],
    ['TDB-16 an unknown kty with x5c', () => ({ keys: [{ ...x509Entry, kty: 'AKP' }, jwtEntry] }), '0 X.509, 1 JWT'],
    ['TDB-17 an unknown use', () => ({ keys: [{ ...jwtEntry, use: 'foo' }, jwtEntry] }), '0 X.509, 1 JWT'],
    ['TDB-24 a use in upper case', () => ({ keys: [{ ...x509Entry, use: 'X509-SVID' }] }), '0 X.509, 0 JWT'],
    ['TDB-25 a missing use', () => ({ keys: [{ ...jwtEntry, use: undefined }, jwtEntry] }), '0 X.509, 1 JWT'],
    ['an unknown curve', () => ({ keys: [{ ...jwtEntry, crv: 'secp256k1', kid: 'x' }, jwtEntry] }), '0 X.509, 1 JWT'],
    ['a curve that is an object', () => ({ keys: [{ ...jwtEntry, crv: { a: 1 } }] }), 'BUNDLE_INVALID BUNDLE_JWK'],
    ['a curve that is a list of an object', () => ({ keys: [{ ...jwtEntry, crv: [{}] }] }), 'BUNDLE_INVALID BUNDLE_JWK'],
    ['X509-46 x5c missing', () => ({ keys: [{ ...x509Entry, x5c: undefined }, x509Entry] }), '1 X.509, 0 JWT'],
    ['X509-46 x5c empty', () => ({ keys: [{ ...x509Entry, x5c: [] }, x509Entry] }), '1 X.509, 0 JWT'],
    [
      'X509-47 two certificates in x5c: the first counts',
      () => ({ keys: [{ ...x509Entry, x5c: [one.der.toString('base64'), two.der.toString('base64')] }] }),
      '1 X.509, 0 JWT',
    ],
    [
      'X509-43 x5c in base64url',
      () => ({ keys: [{ ...x509Entry, x5c: [one.der.toString('base64url').replace(/^/, '_')] }] }),
      'BUNDLE_INVALID BUNDLE_X5C',
    ],
    ['X509-43 x5c of another key', () => ({ keys: [{ ...x509Entry, x5c: [two.der.toString('base64')] }] }), 'BUNDLE_INVALID BUNDLE_X5C'],
    ['x5c that is no certificate', () => ({ keys: [{ ...x509Entry, x5c: ['AAAA'] }] }), 'BUNDLE_INVALID DER_TAG'],
    ['JWT-29 a JWT key without kid', () => ({ keys: [jwtEntry, { ...jwtEntry, kid: undefined }] }), 'BUNDLE_INVALID BUNDLE_KID_MISSING'],
    ['JWT-29 a kid twice', () => ({ keys: [jwtEntry, jwtEntry] }), 'BUNDLE_INVALID BUNDLE_KID_REPEATED'],
    ['a kid that JWT and WIT share', () => ({ keys: [jwtEntry, { ...jwtEntry, use: 'wit-svid' }] }), '0 X.509, 1 JWT'],
    ['a private key', () => ({ keys: [{ ...jwtEntry, d: ecJwk['x'] }] }), 'BUNDLE_INVALID BUNDLE_JWK'],
    ['a point off the curve', () => ({ keys: [{ ...jwtEntry, x: ecJwk['y'], y: ecJwk['x'] }] }), 'BUNDLE_INVALID BUNDLE_JWK'],
    ['an entry that is no object', () => ({ keys: ['x'] }), 'BUNDLE_INVALID BUNDLE_JWK'],
    [
      'an RSA key of 1024 bits',
      () => ({
        keys: [{ ...generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' }), use: 'jwt-svid', kid: 'w' }],
      }),
      'BUNDLE_INVALID KEY_WEAK',
    ],
    ['TDB-11 the largest sequence', () => '{"keys":[],"spiffe_sequence":18446744073709551615}', '0 X.509, 0 JWT'],
    ['TDB-11 a larger sequence', () => '{"keys":[],"spiffe_sequence":18446744073709551616}', 'BUNDLE_INVALID BUNDLE_SEQUENCE'],
    ['a negative sequence', () => ({ keys: [], spiffe_sequence: -1 }), 'BUNDLE_INVALID BUNDLE_SEQUENCE'],
    ['a sequence with a fraction', () => ({ keys: [], spiffe_sequence: 1.5 }), 'BUNDLE_INVALID BUNDLE_SEQUENCE'],
    ['TDB-13 a hint with a fraction', () => ({ keys: [], spiffe_refresh_hint: 1.5 }), 'BUNDLE_INVALID BUNDLE_REFRESH_HINT'],
    ['TDB-13 a hint that is a string', () => ({ keys: [], spiffe_refresh_hint: '60' }), 'BUNDLE_INVALID BUNDLE_REFRESH_HINT'],
    ['TDB-14 a negative hint', () => ({ keys: [], spiffe_refresh_hint: -5 }), '0 X.509, 0 JWT'],
    ['a byte order mark', () => '\ufeff{"keys":[]}', 'BUNDLE_INVALID JSON_SYNTAX'],
    ['keys twice', () => '{"keys":[],"keys":[]}', 'BUNDLE_INVALID JSON_DUPLICATE'],
    ['not JSON', () => 'x', 'BUNDLE_INVALID JSON_SYNTAX'],
    ['nothing', () => '', 'BUNDLE_INVALID JSON_SYNTAX'],
  ];
  test.each(table)('%s', (_name, document, expected) => expect(read(document())).toBe(expected));

  test('TDB-5 TDB-13 TDB-21 TDB-22 TDB-23 X509-40 X509-41 X509-42 X509-44 JWT-27 JWT-28 what we write has exactly the members of the specification', () => {
    const bundle = new Bundle(td, {
      x509Authorities: [one, two].map((root) => Certificate.parse(root.der)),
      jwtAuthorities: [jwtAuthority('k1', ec.publicKey), jwtAuthority('k2', rsa.publicKey)],
      sequence: 18446744073709551615n,
      refreshHintSeconds: 300,
    });
    const text = bundle.toJson();
    expect(text).toMatch(/^\{\n {4}"keys": \[\n {8}\{\n {12}"use": "x509-svid",/);
    expect(text).toMatch(/\n {4}"spiffe_sequence": 18446744073709551615,\n {4}"spiffe_refresh_hint": 300\n\}$/);
    const { keys } = JSON.parse(text) as { keys: Record<string, unknown>[] };
    expect(keys.map((key) => Object.keys(key))).toEqual([
      ['use', 'kty', 'crv', 'x', 'y', 'x5c'],
      ['use', 'kty', 'n', 'e', 'x5c'],
      ['use', 'kty', 'kid', 'crv', 'x', 'y'],
      ['use', 'kty', 'kid', 'n', 'e'],
    ]);
    expect(keys[3]).toMatchObject(rsa.publicKey.export({ format: 'jwk' }));
    expect(keys[0]).toEqual(x509Entry);
    const back = Bundle.fromJson(td, text);
    expect(back.equals(bundle)).toBe(true);
    expect(back.sequence).toBe(18446744073709551615n);
    expect(back.toJson()).toBe(text);
  });

  test('TDB-15 DEV-18 an empty bundle is written with an empty list', () => {
    expect(new Bundle(td).toJson()).toBe('{\n    "keys": []\n}');
  });

  test('TDB-11 a sequence beyond 2^53 stays exact', () => {
    expect(Bundle.fromJson(td, '{"keys":[],"spiffe_sequence":9007199254740993}').sequence).toBe(9007199254740993n);
  });

  test('of any JSON, or mutated, is refused with a SpiffeError or read', () => {
    fc.assert(fc.property(fc.json(), (text) => typeof read(text) === 'string'));
    const good = JSON.stringify({ keys: [x509Entry, jwtEntry] });
    fc.assert(
      fc.property(
        fc.nat(good.length - 1),
        fc.string({ maxLength: 2 }),
        (at, piece) => typeof read(good.slice(0, at) + piece + good.slice(at + 1)) === 'string',
      ),
      { numRuns: 500 },
    );
  });
});

describe('an X.509 bundle', () => {
  test('goes through DER and PEM, keeps the order, drops repetitions, and is equal in any order', () => {
    const bundle = X509Bundle.fromPem(td, `# a comment\n${two.pem}${one.pem}${two.pem}`);
    expect(bundle.authorities).toHaveLength(2);
    expect(X509Bundle.fromDer(td, Buffer.concat([one.der, two.der])).equals(bundle)).toBe(true);
    expect(X509Bundle.fromPem(td, bundle.toPem()).toDer().equals(bundle.toDer())).toBe(true);
    expect(X509Bundle.fromDer(td, one.der).equals(bundle)).toBe(false);
    expect(X509Bundle.fromDer(TrustDomain.parse('other.org'), bundle.toDer()).equals(bundle)).toBe(false);
    expect(bundle.has(Certificate.parse(one.der))).toBe(true);
  });

  test('of an empty file is empty; of anything but certificates it is refused', () => {
    expect(X509Bundle.fromPem(td, '\n').isEmpty).toBe(true);
    expect(X509Bundle.fromDer(td, Buffer.alloc(0)).isEmpty).toBe(true);
    const refused = (text: string) => {
      try {
        X509Bundle.fromPem(td, text);
        return 'read';
      } catch (error) {
        return (error as SpiffeError).reason;
      }
    };
    expect(refused('not pem')).toBe('PEM_MISSING');
    expect(refused(one.pem.replace('MII', 'M!I'))).toBe('PEM_MALFORMED');
    expect(refused(one.pem.replace('-----END', '----END'))).toBe('PEM_MALFORMED');
    expect(refused(one.pem.replaceAll('CERTIFICATE', 'PRIVATE KEY'))).toBe('PEM_MALFORMED');
    expect(refused(one.pem)).toBe('read');
  });
});

describe('a JWT bundle', () => {
  test('AMB-4 is written without use, and jose takes it; read with a missing use, jwt-svid or sig, and no other', async () => {
    const bundle = new JwtBundle(td, [
      jwtAuthority('k1', ec.publicKey),
      jwtAuthority('k2', rsa.publicKey.export({ type: 'spki', format: 'der' })),
    ]);
    const jwks = JSON.parse(bundle.toJwks()) as jose.JSONWebKeySet;
    expect(jwks.keys).toEqual([
      { kid: 'k1', ...ecJwk },
      { kid: 'k2', ...rsa.publicKey.export({ format: 'jwk' }) },
    ]);
    const token = await new jose.SignJWT({}).setProtectedHeader({ alg: 'ES256', kid: 'k1' }).sign(ec.privateKey);
    await jose.jwtVerify(token, jose.createLocalJWKSet(jwks));
    expect(JwtBundle.fromJwks(td, bundle.toJwks()).equals(bundle)).toBe(true);
    const uses = (use?: string) => JwtBundle.fromJwks(td, JSON.stringify({ keys: [{ ...jwtEntry, use }] })).authorities.size;
    expect([uses(), uses('jwt-svid'), uses('sig'), uses('wit-svid'), uses('x509-svid'), uses('enc')]).toEqual([1, 1, 1, 0, 0, 0]);
  });

  test('JWT-5 holds only keys that JWT-SVIDs can use', () => {
    expect(() => jwtAuthority('k', generateKeyPairSync('ed25519').publicKey)).toThrow(/Ed25519/);
    expect(() => jwtAuthority('', ec.publicKey)).toThrow(/key id/);
  });
});

describe('a set of bundles', () => {
  test('TDB-2 finds a bundle only by its own trust domain, and refuses one that comes twice', () => {
    const set = new BundleSet([new Bundle(td)]);
    const other = TrustDomain.parse('other.org');
    expect(set.get(td)).toBeDefined();
    expect(set.get(other)).toBeUndefined();
    expect(Array.from(set.with(new Bundle(other)), (bundle) => bundle.trustDomain.name)).toEqual(['example.org', 'other.org']);
    expect(set.without(td).size).toBe(0);
    expect(set.size).toBe(1);
    expect(() => new BundleSet([new Bundle(td), new Bundle(td)])).toThrow(SpiffeError);
  });
});
