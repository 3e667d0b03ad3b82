/** Rows about bundles: SPIFFE bundle documents, JWK sets, certificates in DER and PEM. */
import type { Reason } from '../../../spiffe/errors.ts';
import { formatPem } from '../../../spiffe/x509/pem.ts';
import { certificate } from '../certificates.ts';
import { ecKey, ed25519Key, rsaKey } from '../keys.ts';
import type { BundleInput, File, Row } from '../row.ts';
import { row } from './ids.ts';
import { jwkOfKey } from './jwt.ts';

const GO = 'go-spiffe';
const LACKS = 'go-spiffe lacks it';
const SPEC = 'SPIFFE Trust Domain and Bundle';

export function bundleFile(): File<'bundle'> {
  const one = certificate({ ca: true, key: ecKey('root'), subject: 'root' });
  const two = certificate({ ca: true, key: rsaKey('web'), subject: 'rsa root' });
  const edwards = certificate({ ca: true, key: ed25519Key('root'), subject: 'edwards root' });
  const text = (made: { readonly der: Buffer }) => made.der.toString('base64');
  const x509 = { use: 'x509-svid', ...jwkOfKey(one.key), x5c: [text(one)] };
  const rsaX509 = { use: 'x509-svid', ...jwkOfKey(two.key), x5c: [text(two)] };
  const jwt = (kid: string | undefined, key = ecKey(`jwt ${kid}`)) => ({ use: 'jwt-svid', kid, ...jwkOfKey(key) });
  const six = ['a', 'b', 'c', 'd', 'e', 'f'].map((kid) => jwt(kid));
  const wit = (kid: string) => ({ ...jwt(kid), use: 'wit-svid' });
  const sees = (x509Count: number, jwtCount: number, more = '') => ({ sees: `${x509Count} X.509, ${jwtCount} JWT${more}` });
  const keys = (...list: readonly object[]) => ({ keys: list });
  type Outcome = Reason | { readonly sees: string };
  type Case = readonly [name: string, source: string, requirement: string | undefined, document: unknown, outcome: Outcome];
  const P = `${GO} spiffebundle TestParse`;
  const spiffe: readonly Case[] = [
    ['one X.509 and one JWT authority', `${P}/valid_1`, 'TDB-5', keys(x509, jwt('a')), sees(1, 1)],
    [
      'six JWT authorities, hint and sequence',
      `${P}/valid_2`,
      'TDB-5',
      { ...keys(x509, ...six), spiffe_refresh_hint: 60, spiffe_sequence: 1 },
      sees(1, 6, ', sequence 1, hint 60'),
    ],
    ['a JWT authority without kid', `${P}/missing_kid`, 'JWT-29', keys(x509, jwt('a'), jwt(undefined)), 'BUNDLE_KID_MISSING'],
    ['a JWT authority with an empty kid', P, 'JWT-29', keys(jwt('')), 'BUNDLE_KID_MISSING'],
    ['no keys', `${P}/no_keys`, 'TDB-15', { spiffe_refresh_hint: 60, spiffe_sequence: 1 }, 'BUNDLE_KEYS_MISSING'],
    [
      'two certificates in x5c: the first counts',
      `${P}/multiple_x509`,
      'X509-47',
      keys({ ...x509, x5c: [text(one), text(two)] }),
      sees(1, 0),
    ],
    ['keys for WIT-SVIDs are passed over', `${P}/valid_with_wit`, 'TDB-17', keys(x509, jwt('a'), jwt('b'), wit('c'), wit('d')), sees(1, 2)],
    ['keys null', 'DEV-18', 'TDB-15', { keys: null }, 'BUNDLE_KEYS_MISSING'],
    ['keys an object', LACKS, 'TDB-15', { keys: {} }, 'BUNDLE_KEYS_MISSING'],
    ['a list', LACKS, 'TDB-5', [], 'BUNDLE_KEYS_MISSING'],
    ['null', LACKS, 'TDB-5', null, 'BUNDLE_KEYS_MISSING'],
    ['an empty object', 'SPIRE bundleutil', 'TDB-15', {}, 'BUNDLE_KEYS_MISSING'],
    ['an empty list of keys', SPEC, 'TDB-7 TDB-18', keys(), sees(0, 0)],
    ['members that nobody knows', SPEC, 'TDB-6', { ...keys(jwt('a')), foo: { bar: 1 } }, sees(0, 1)],
    ['an entry that is no object', LACKS, 'TDB-5', { keys: ['x'] }, 'BUNDLE_JWK'],
    [
      'an unknown kty beside a good key',
      'DEV-5',
      'TDB-16',
      keys({ use: 'jwt-svid', kid: 'pq', kty: 'AKP', alg: 'ML-DSA-65', pub: 'AA' }, jwt('a')),
      sees(0, 1),
    ],
    ['an unknown kty beside a good certificate', 'DEV-5', 'TDB-16', keys({ ...x509, kty: 'AKP' }, x509), sees(1, 0)],
    ['an unknown curve beside a good key', LACKS, 'TDB-16', keys({ ...jwt('x'), crv: 'secp256k1' }, jwt('a')), sees(0, 1)],
    [
      'an Ed25519 key for JWT-SVIDs',
      LACKS,
      'TDB-16 JWT-5',
      keys({ ...jwkOfKey(ed25519Key('jwt')), use: 'jwt-svid', kid: 'ed' }, jwt('a')),
      sees(0, 1),
    ],
    ['an Ed25519 authority', LACKS, 'TDB-5', keys({ ...jwkOfKey(ed25519Key('root')), use: 'x509-svid', x5c: [text(edwards)] }), sees(1, 0)],
    ['no kty', LACKS, 'TDB-22', keys({ ...jwt('a'), kty: undefined }), 'BUNDLE_JWK'],
    ['an unknown use', `SPIRE bundleutil, DEV-6`, 'TDB-17', keys({ ...jwt('x'), use: 'foo' }, jwt('a')), sees(0, 1)],
    ['an unknown use, and malformed', LACKS, 'TDB-17', keys({ use: 'foo', kty: 'EC' }, jwt('a')), sees(0, 1)],
    ['a use in upper case', LACKS, 'TDB-24', keys({ ...x509, use: 'X509-SVID' }, x509), sees(1, 0)],
    ['no use', 'SPIRE bundleutil, DEV-6', 'TDB-25', keys({ ...jwt('x'), use: undefined }, jwt('a')), sees(0, 1)],
    ['no x5c', 'DEV-4', 'X509-46', keys({ ...x509, x5c: undefined }, rsaX509), sees(1, 0)],
    ['an empty x5c', 'DEV-4', 'X509-46', keys({ ...x509, x5c: [] }, rsaX509), sees(1, 0)],
    ['x5c that is text', LACKS, 'X509-43', keys({ ...x509, x5c: text(one) }), 'BUNDLE_X5C'],
    ['x5c in base64url', LACKS, 'X509-43', keys({ ...x509, x5c: [one.der.toString('base64url')] }), 'BUNDLE_X5C'],
    ['x5c with line feeds', LACKS, 'X509-43', keys({ ...x509, x5c: [text(one).replace(/(.{64})/g, '$1\n')] }), 'BUNDLE_X5C'],
    ['x5c that is no certificate', LACKS, 'X509-43', keys({ ...x509, x5c: ['AAAA'] }), 'DER_TAG'],
    [
      'x5c of another key',
      LACKS,
      'X509-43',
      keys({ ...x509, x5c: [text(certificate({ ca: true, key: ecKey('other root') }))] }),
      'BUNDLE_X5C',
    ],
    ['x5c of another kind of key', LACKS, 'X509-43', keys({ ...x509, x5c: [text(two)] }), 'BUNDLE_X5C'],
    ['a certificate without its key beside it', LACKS, 'X509-43', keys({ use: 'x509-svid', kty: 'EC', x5c: [text(one)] }), sees(1, 0)],
    ['a kid of an X.509 authority', LACKS, 'X509-42', keys({ ...x509, kid: 'x' }), sees(1, 0)],
    ['one X.509 authority twice', LACKS, 'X509-40', keys(x509, x509), sees(1, 0)],
    ['a JWT authority with its private part', LACKS, 'TDB-21', keys({ ...jwt('a'), d: 'AAAA' }), 'BUNDLE_JWK'],
    ['a symmetric key', LACKS, 'TDB-21', keys({ use: 'jwt-svid', kid: 'a', kty: 'oct', k: 'AAAA' }), 'BUNDLE_JWK'],
    ['a point on no curve', LACKS, 'JWT-27', keys({ ...jwt('a'), x: jwt('b')['x' as never] }), 'BUNDLE_JWK'],
    ['a coordinate that is short', LACKS, 'JWT-27', keys({ ...jwt('a'), x: 'AAAA' }), 'BUNDLE_JWK'],
    ['a coordinate that is padded', LACKS, 'JWT-27', keys({ ...jwt('a'), x: `${String(jwt('a')['x' as never])}=` }), 'BUNDLE_JWK'],
    ['an RSA key of 1024 bits', LACKS, 'JWT-27', keys(jwt('a', rsaKey('weak', 1024))), 'KEY_WEAK'],
    ['an RSA key with an even exponent', LACKS, 'JWT-27', keys({ ...jwt('a', rsaKey('web')), e: 'AQAA' }), 'BUNDLE_JWK'],
    ['an RSA key without a modulus', LACKS, 'JWT-27', keys({ ...jwt('a', rsaKey('web')), n: undefined }), 'BUNDLE_JWK'],
    ['a key id twice, one key', LACKS, 'JWT-29', keys(jwt('a'), jwt('a')), 'BUNDLE_KID_REPEATED'],
    ['a key id twice, two keys', LACKS, 'JWT-29', keys(jwt('a'), { ...jwt('b'), kid: 'a' }), 'BUNDLE_KID_REPEATED'],
    ['a key id of a JWT and of a WIT authority', LACKS, 'JWT-29', keys(jwt('a'), wit('a')), sees(0, 1)],
    ['a negative sequence', LACKS, 'TDB-9', { ...keys(), spiffe_sequence: -1 }, 'BUNDLE_SEQUENCE'],
    ['a sequence with a fraction', LACKS, 'TDB-9', { ...keys(), spiffe_sequence: 1.5 }, 'BUNDLE_SEQUENCE'],
    ['a sequence as text', LACKS, 'TDB-9', { ...keys(), spiffe_sequence: '1' }, 'BUNDLE_SEQUENCE'],
    [
      'a sequence beyond 2^53',
      LACKS,
      'TDB-11',
      '{"keys":[],"spiffe_sequence":9007199254740993}',
      sees(0, 0, ', sequence 9007199254740993'),
    ],
    [
      'a sequence of 64 bits',
      LACKS,
      'TDB-11',
      '{"keys":[],"spiffe_sequence":18446744073709551615}',
      sees(0, 0, ', sequence 18446744073709551615'),
    ],
    ['a sequence of more than 64 bits', LACKS, 'TDB-11', '{"keys":[],"spiffe_sequence":18446744073709551616}', 'BUNDLE_SEQUENCE'],
    ['a negative hint is none', LACKS, 'TDB-14', { ...keys(), spiffe_refresh_hint: -5 }, sees(0, 0)],
    ['a hint of zero is none', LACKS, 'TDB-14', { ...keys(), spiffe_refresh_hint: 0 }, sees(0, 0)],
    ['a hint with a fraction', LACKS, 'TDB-13', { ...keys(), spiffe_refresh_hint: 1.5 }, 'BUNDLE_REFRESH_HINT'],
    ['a hint as text', LACKS, 'TDB-13', { ...keys(), spiffe_refresh_hint: '60' }, 'BUNDLE_REFRESH_HINT'],
    ['a member twice', LACKS, 'TDB-30', '{"keys":[],"keys":[]}', 'JSON_DUPLICATE'],
    ['a member of a key twice', LACKS, 'TDB-30', '{"keys":[{"kty":"EC","kty":"RSA"}]}', 'JSON_DUPLICATE'],
    ['nothing', `${P}/empty`, 'TDB-5', '', 'JSON_SYNTAX'],
    ['not JSON', `${P}/invalid`, 'TDB-5', 'not json', 'JSON_SYNTAX'],
    ['something behind the document', LACKS, 'TDB-5', '{"keys":[]} {}', 'JSON_SYNTAX'],
    ['33 levels of lists', LACKS, undefined, `{"keys":[],"x":${'['.repeat(33)}${']'.repeat(33)}}`, 'JSON_TOO_DEEP'],
    ['a byte order mark', LACKS, 'TDB-5', '\ufeff{"keys":[]}', 'JSON_SYNTAX'],
    ['half a surrogate pair', LACKS, 'TDB-5', '{"keys":[],"x":"\\ud800"}', 'JSON_SYNTAX'],
  ];
  const J = `${GO} jwtbundle TestParse`;
  const jwkSets: readonly Case[] = [
    ['one key', `${J}/valid_1`, 'JWT-27', keys(jwt('a')), { sees: '1 JWT' }],
    ['six keys', `${J}/valid_2`, 'JWT-27', keys(...six), { sees: '6 JWT' }],
    ['keys without use', 'AMB-4', 'JWT-28', keys({ ...jwt('a'), use: undefined }), { sees: '1 JWT' }],
    ['keys of use sig', 'AMB-4', 'JWT-28', keys({ ...jwt('a'), use: 'sig' }), { sees: '1 JWT' }],
    [
      'keys of other uses are passed over',
      'AMB-4',
      'JWT-30',
      keys(x509, wit('b'), { ...jwt('c'), use: 'enc' }, jwt('a')),
      { sees: '1 JWT' },
    ],
    ['the second key without kid', `${J}/missing_kid`, 'JWT-29', keys(jwt('a'), jwt(undefined)), 'BUNDLE_KID_MISSING'],
    ['no key', `${J}/empty`, 'TDB-18', keys(), { sees: '0 JWT' }],
    ['not JSON', `${J}/invalid`, 'TDB-5', '{ "keys": [', 'JSON_SYNTAX'],
    ['keys null', 'DEV-18', 'TDB-15', { keys: null }, 'BUNDLE_KEYS_MISSING'],
  ];
  const X = `${GO} x509bundle TestParse`;
  const pem = (...list: readonly { readonly der: Buffer }[]) => list.map((made) => formatPem('CERTIFICATE', made.der)).join('');
  const pems: readonly Case[] = [
    ['two certificates', `${X}/certs.pem`, undefined, pem(one, two), { sees: '2 X.509' }],
    ['one certificate', `${X}/cert.pem`, undefined, pem(one), { sees: '1 X.509' }],
    ['nothing', `${X}/empty.pem`, undefined, '', { sees: '0 X.509' }],
    ['white space alone', LACKS, undefined, ' \n', { sees: '0 X.509' }],
    ['no PEM', `${X}/not-pem.pem`, undefined, 'not PEM', 'PEM_MISSING'],
    ['corrupted', `${X}/corrupted.pem`, undefined, pem(one).replace('\nM', '\nA'), 'DER_TAG'],
    ['a key among the certificates', LACKS, undefined, pem(one) + formatPem('PUBLIC KEY', one.key.spki), 'PEM_MALFORMED'],
    ['text around the certificates', LACKS, undefined, `our root\n${pem(one)}and another\n${pem(two)}`, { sees: '2 X.509' }],
  ];
  const ders: readonly [string, string, Buffer, Outcome][] = [
    ['two certificates', `${X}Raw`, Buffer.concat([one.der, two.der]), { sees: '2 X.509' }],
    ['nothing', `${X}Raw`, Buffer.alloc(0), { sees: '0 X.509' }],
    ['no DER', `${X}Raw`, Buffer.from('not DER'), 'DER_TAG'],
    ['a byte behind', LACKS, Buffer.concat([one.der, Buffer.of(0)]), 'DER_TAG'],
    ['PEM', 'SPIFFE Workload API', Buffer.from(pem(one)), 'DER_TAG'],
  ];
  const of = (form: BundleInput['form'], prefix: string, cases: readonly Case[]) =>
    cases.map(([name, source, requirement, document, outcome]) =>
      row<'bundle'>(
        `${prefix}: ${name}`,
        [source, requirement],
        { form, trustDomain: 'example.org', text: typeof document === 'string' ? document : JSON.stringify(document) },
        outcome,
      ),
    );
  return {
    rows: [
      ...of('spiffe', 'SPIFFE', spiffe),
      row(
        'SPIFFE: UTF-16',
        [LACKS, 'TDB-5'],
        { form: 'spiffe', trustDomain: 'example.org', base64: Buffer.from('{"keys":[]}', 'utf16le').toString('base64') },
        'JSON_SYNTAX',
      ),
      {
        name: 'SPIFFE: 50 MiB',
        source: LACKS,
        input: { form: 'spiffe', trustDomain: 'example.org', text: '{"keys":[]}' },
        fill: { member: 'text', to: 50 * 1024 * 1024, with: '          ' },
        expect: 'reject',
        reason: 'JSON_TOO_LARGE',
      } satisfies Row<'bundle'>,
      ...of('jwt', 'JWK set', jwkSets),
      ...of('x509-pem', 'PEM', pems),
      ...ders.map(([name, source, bytes, outcome]) =>
        row<'bundle'>(
          `DER: ${name}`,
          [source],
          { form: 'x509-der', trustDomain: 'example.org', base64: bytes.toString('base64') },
          outcome,
        ),
      ),
    ],
  };
}
