/** Rows about X.509-SVIDs: a peer's, one's own, and the columns of the profile. */
import type { Reason } from '../../../spiffe/errors.ts';
import { der, derOid, TAG } from '../../../spiffe/x509/der.ts';
import { formatPem } from '../../../spiffe/x509/pem.ts';
import { NOW_MS } from '../../fakes/ca.ts';
import {
  ALGORITHM_OIDS,
  altNames,
  certificate,
  EKU,
  extension,
  type Extensions,
  general,
  HOUR_MS,
  integer,
  type Made,
  nameOf,
  type Part,
  type Recipe,
  sequence,
  uriConstraints,
} from '../certificates.ts';
import { ecKey, ed25519Key, rsaKey, type VectorKey } from '../keys.ts';
import type { File, Row } from '../row.ts';
import { row } from './ids.ts';

const GO = 'go-spiffe x509svid';
const LACKS = 'go-spiffe lacks it';
const SPEC = 'X509-SVID';
const RFC = 'RFC 5280';

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
const raw = (hex: string) => Buffer.from(hex, 'hex');
/** An extension that nobody knows. */
export const stranger = (critical: boolean) => extension('1.2.3.4', critical, raw('0500'));

/** Everything that signs. */
export function authorities() {
  const key = (name: string) => ecKey(name);
  const root = certificate({ ca: true, key: key('root'), subject: 'root' });
  const other = certificate({ ca: true, key: key('other root'), subject: 'other root', uris: ['spiffe://other.org'] });
  /** A root of our trust domain with the name of `root` and another key. */
  const impostor = certificate({ ca: true, key: key('impostor'), subject: 'root' });
  const middle = certificate({ ca: true, key: key('middle'), subject: 'middle', issuer: root });
  const lower = certificate({ ca: true, key: key('lower'), subject: 'lower', issuer: middle });
  return { root, other, impostor, middle, lower };
}

const WEB = () => ecKey('web');
/** A leaf, in SPIRE's shape unless told otherwise. */
export function leafOf(issuer: Made | undefined, recipe: Partial<Recipe> = {}): Made {
  return certificate({ key: recipe.key ?? WEB(), issuer, ...recipe });
}

/** An RSA public key whose modulus has so many bits, and nobody knows its factors. */
function rsaSpki(bits: number): Buffer {
  const modulus = Buffer.alloc(bits / 8, 0xa5);
  const key = sequence(der(TAG.integer, Buffer.of(0), modulus), der(TAG.integer, raw('010001')));
  return sequence(sequence(derOid('1.2.840.113549.1.1.1'), der(TAG.null)), der(TAG.bitString, Buffer.of(0), key));
}

/** The key as a compressed point. */
function compressed(key: VectorKey): Buffer {
  const point = key.spki.subarray(-65);
  const short = Buffer.concat([Buffer.of(2 + ((point[64] as number) & 1)), point.subarray(1, 33)]);
  return sequence(sequence(derOid('1.2.840.10045.2.1'), derOid('1.2.840.10045.3.1.7')), der(TAG.bitString, Buffer.of(0), short));
}

/** A point of the right length that lies on no curve. */
function offCurve(key: VectorKey): Buffer {
  const spki = Buffer.from(key.spki);
  spki[spki.length - 1] = (spki[spki.length - 1] as number) ^ 1;
  return spki;
}

const secp256k1 = sequence(
  sequence(derOid('1.2.840.10045.2.1'), derOid('1.3.132.0.10')),
  der(TAG.bitString, Buffer.of(0, 4), Buffer.alloc(64, 0x17)),
);

const policies = (...list: Buffer[]) => extension('2.5.29.32', false, sequence(...list));
/** NameConstraints that permit a common name. */
const permittedName = (common: string) => extension('2.5.29.30', true, sequence(der(0xa0, sequence(der(0xa4, nameOf(common))))));

type Source = readonly [source: string, requirement?: string | undefined];
type LeafCase = readonly [name: string, source: Source, recipe: Partial<Recipe>, outcome?: Reason];
const uri = (id: string | Buffer): Partial<Recipe> => ({ uris: [id] });
const parts = (changed: Partial<Record<Part, Buffer | undefined>>): Partial<Recipe> => ({ parts: changed });
const ext = (changed: Extensions): Partial<Recipe> => ({ extensions: changed });
const san = (...names: Buffer[]) => ext({ subjectAltName: altNames(false, ...names) });
const ID = 'spiffe://example.org/web';
const THE_URI = general(0x86, ID);
const time = (tag: number, value: string) => general(tag, value);
const from = time(TAG.utcTime, '260601110000Z');

/** Leaves below the root. */
const LEAVES: readonly LeafCase[] = [
  ['a leaf in the shape of SPIRE', [`${GO} TestVerify/success`, 'X509-1'], {}],
  ['DNS names beside the URI', [SPEC, 'X509-4'], { dns: ['a.example.org', 'b.example.org'] }],
  ['an IP address and a mailbox beside the URI', [SPEC, 'X509-4'], { names: [der(0x87, raw('7f000001')), general(0x81, 'a@b.test')] }],
  ['an empty subject with critical names', [SPEC, 'X509-7 X509-8'], { subject: '' }],
  [
    'an empty subject with names that are not critical',
    ['X509-SVID, what a peer need not keep', 'X509-8'],
    { subject: '', sanCritical: false },
  ],
  ['critical names beside a subject', [SPEC, 'X509-8'], { sanCritical: true }],
  ['digitalSignature alone', [SPEC, 'X509-25'], { usages: ['digitalSignature'] }],
  [
    'a key usage beyond those allowed',
    ['X509-SVID, what a peer need not keep', 'X509-25'],
    { usages: ['digitalSignature', 'dataEncipherment'] },
  ],
  ['no extended key usage', [SPEC, 'X509-28'], { purposes: [] }],
  ['a critical extended key usage', [SPEC, 'X509-29'], { purposesCritical: true }],
  ['another extended key usage beside both', [SPEC, 'X509-30'], { purposes: [EKU.server, EKU.client, '1.3.6.1.5.5.7.3.3'] }],
  ['serverAuth alone', [LACKS, 'X509-30'], { purposes: [EKU.server] }, 'X509_LEAF_EKU'],
  ['clientAuth alone', [LACKS, 'X509-30'], { purposes: [EKU.client] }, 'X509_LEAF_EKU'],
  ['any purpose alone', [LACKS, 'X509-30'], { purposes: ['2.5.29.37.0'] }, 'X509_LEAF_EKU'],
  ['no basic constraints', [LACKS, 'X509-17'], ext({ basicConstraints: undefined })],
  ['a key usage that is not critical', [LACKS, 'X509-21'], { usagesCritical: false }],
  ['no key usage', [LACKS, 'X509-20'], ext({ keyUsage: undefined }), 'X509_KEY_USAGE_MISSING'],
  ['no digitalSignature', [SPEC, 'X509-24'], { usages: ['keyAgreement'] }, 'X509_LEAF_DIGITAL_SIGNATURE_MISSING'],
  [
    'keyCertSign',
    [`${GO} TestVerify/leaf_has_KeyUsageCertSign`, 'X509-35'],
    { usages: ['digitalSignature', 'keyCertSign'] },
    'X509_LEAF_CERT_SIGN',
  ],
  ['cRLSign', [`${GO} TestVerify/leaf_has_KeyUsageCRLSign`, 'X509-36'], { usages: ['digitalSignature', 'cRLSign'] }, 'X509_LEAF_CRL_SIGN'],
  ['a CA as leaf', [`${GO} TestVerify/leaf_is_CA`, 'X509-34'], { ca: true, uris: [ID], usages: ['digitalSignature'] }, 'X509_LEAF_CA'],
  [
    'a CA with an ID and both purposes as leaf',
    [SPEC, 'X509-5 X509-14'],
    { ca: true, uris: [ID], usages: ['digitalSignature', 'keyCertSign'], purposes: [EKU.server, EKU.client] },
    'X509_LEAF_CA',
  ],
  ['no URI', [`${GO} TestVerify/no_URI_SAN`, 'X509-3'], { uris: [], dns: ['example.org'] }, 'X509_URI_SAN_MISSING'],
  ['no alternative name at all', [SPEC, 'X509-3'], { uris: [] }, 'X509_URI_SAN_MISSING'],
  [
    'two SPIFFE IDs',
    [`${GO} TestVerify/more_than_one_URI_SAN`, 'X509-3'],
    { uris: ['spiffe://example.org/a', 'spiffe://example.org/b'] },
    'X509_URI_SAN_MANY',
  ],
  ['one SPIFFE ID twice', [SPEC, 'X509-3'], { uris: [ID, ID] }, 'X509_URI_SAN_MANY'],
  ['a SPIFFE ID and another URI', [SPEC, 'X509-3'], { uris: [ID, 'https://example.org'] }, 'X509_URI_SAN_MANY'],
  [
    'two extensions of alternative names',
    [LACKS, 'X509-3'],
    ext({ second: altNames(false, general(0x86, 'spiffe://example.org/admin')) }),
    'X509_EXTENSION_REPEATED',
  ],
  ['a scheme that looks alike', [`${GO} TestVerify/bad_leaf_cert_id`, 'X509-37'], uri('sparfe://example.org/workload'), 'ID_SCHEME'],
  ['another scheme', [SPEC, 'X509-37'], uri('https://example.org/web'), 'ID_SCHEME'],
  ['a scheme in upper case', ['AMB-1', 'X509-37'], uri('SPIFFE://example.org/web'), 'ID_SCHEME'],
  ['a trust domain in upper case', ['AMB-1', 'ID-8'], uri('spiffe://EXAMPLE.org/web'), 'ID_TRUST_DOMAIN_CHAR'],
  ['the ID of the trust domain', [LACKS, 'X509-38'], uri('spiffe://example.org'), 'X509_LEAF_PATH_MISSING'],
  ['the ID of the trust domain and a slash', [SPEC, 'X509-38'], uri('spiffe://example.org/'), 'ID_PATH_TRAILING_SLASH'],
  ['an ID with two dots', [SPEC, 'ID-17'], uri('spiffe://example.org/a/../web'), 'ID_PATH_DOT_SEGMENT'],
  ['an ID with a query', [SPEC, 'ID-4'], uri('spiffe://example.org/web?a'), 'ID_PATH_CHAR'],
  ['an ID with a percent-encoded letter', [SPEC, 'ID-15'], uri('spiffe://example.org/w%65b'), 'ID_PATH_CHAR'],
  ['an ID with a port', [SPEC, 'ID-7'], uri('spiffe://example.org:443/web'), 'ID_TRUST_DOMAIN_CHAR'],
  ['an ID of 2048 bytes', [LACKS, 'ID-21'], uri(`spiffe://example.org/${'a'.repeat(2027)}`)],
  ['an ID of 2049 bytes', [LACKS, 'ID-24'], uri(`spiffe://example.org/${'a'.repeat(2028)}`), 'ID_TOO_LONG'],
  ['an ID with a NUL', [LACKS, 'ID-19'], uri('spiffe://example.org/web\0.evil.test'), 'X509_SAN_CHAR'],
  [
    'an ID with a comma and a second name',
    [LACKS, 'ID-19'],
    uri('spiffe://example.org/x, URI:spiffe://example.org/admin'),
    'X509_SAN_CHAR',
  ],
  [
    'an ID with a comma and a second name without a space',
    [LACKS, 'ID-19'],
    uri('spiffe://example.org/x,URI:spiffe://example.org/admin'),
    'ID_PATH_CHAR',
  ],
  ['an ID with octets beyond ASCII', [LACKS, 'ID-19'], uri(Buffer.from('spiffe://example.org/w\u00e9b', 'latin1')), 'X509_SAN_CHAR'],
  ['an ID in UTF-8', [LACKS, 'ID-19'], uri('spiffe://example.org/w\u00e9b'), 'X509_SAN_CHAR'],
  ['an ID with a line feed', [LACKS, 'ID-19'], uri('spiffe://example.org/web\n'), 'X509_SAN_CHAR'],
  ['an ID that is empty', [RFC], uri(''), 'X509_SAN'],
  ['a DNS name with a NUL', [RFC], { dns: ['a.test\0.b.test'] }, 'X509_SAN_CHAR'],
  ['alternative names without a name', [RFC], san(), 'X509_SAN'],
  ['an alternative name of an unknown form', [RFC], san(THE_URI, general(0x89, 'x')), 'X509_SAN'],
  ['an IP address of five octets', [RFC], san(THE_URI, der(0x87, raw('0102030405'))), 'X509_SAN'],
  ['an alternative name of another name', [RFC], san(THE_URI, der(0xa4, nameOf('x')))],
  ['an unknown critical extension', [LACKS, 'X509-32'], ext({ stranger: stranger(true) }), 'X509_UNKNOWN_CRITICAL'],
  ['an unknown extension that is not critical', [RFC, 'X509-32'], ext({ stranger: stranger(false) })],
  [
    'an unknown extension under a UUID',
    ['X.667', 'X509-32'],
    ext({ stranger: sequence(der(TAG.oid, raw('6983f8fdd7e8f4bcd2b6a1c3a8c5f0b1e2a37f')), der(TAG.octetString, raw('0500'))) }),
  ],
  [
    'critical policy constraints',
    [RFC, 'X509-32'],
    ext({ policies: extension('2.5.29.36', true, sequence(der(0x80, Buffer.of(0)))) }),
    'X509_UNKNOWN_CRITICAL',
  ],
  ['expired a second ago', [`${GO} TestVerify/with_time`, 'X509-32'], { notAfterMs: NOW_MS - 1000 }, 'X509_EXPIRED'],
  ['in its last second', [RFC, 'X509-32'], { notAfterMs: NOW_MS }],
  ['valid from now on', [RFC, 'X509-32'], { notBeforeMs: NOW_MS }],
  ['valid in a second', [RFC, 'X509-32'], { notBeforeMs: NOW_MS + 1000 }, 'X509_NOT_YET_VALID'],
  ['a P-384 key', [SPEC], { key: ecKey('web', 'P-384') }],
  ['a P-521 key', [SPEC], { key: ecKey('web', 'P-521') }],
  ['an Ed25519 key', [SPEC], { key: ed25519Key('web') }],
  ['an RSA key of 2048 bits', [SPEC], { key: rsaKey('web') }],
  ['an RSA key of 1024 bits', [LACKS], { key: rsaKey('weak', 1024) }, 'KEY_WEAK'],
  ['an RSA key of 8200 bits', [LACKS], parts({ key: rsaSpki(8200) }), 'KEY_TOO_LARGE'],
  ['a key of a curve that we do not know', [LACKS], parts({ key: secp256k1 }), 'KEY_UNSUPPORTED'],
  ['a compressed point', [LACKS], parts({ key: compressed(WEB()) }), 'KEY_MALFORMED'],
  ['a key on no curve', [LACKS], parts({ key: offCurve(WEB()) }), 'KEY_MALFORMED'],
  ['an RSA key without the NULL of its algorithm', [LACKS], parts({ key: withoutNull() }), 'DER_TRUNCATED'],
  ['SHA-1', [LACKS, 'X509-32'], { hash: 'sha1' }, 'X509_SIGNATURE_ALGORITHM'],
  ['SHA-384 of a P-256 key', [RFC, 'X509-32'], { hash: 'sha384' }],
  // how it is written
  ['version 1', [RFC], parts({ version: undefined, extensions: undefined }), 'X509_VERSION'],
  ['version 2', [RFC], parts({ version: der(0xa0, integer('01')) }), 'X509_VERSION'],
  ['version 1 with extensions', [RFC], parts({ version: undefined }), 'X509_VERSION'],
  ['a negative serial number', [RFC], parts({ serial: integer('ff') }), 'X509_SERIAL'],
  ['a serial number of 20 octets', [RFC], parts({ serial: integer('7f'.repeat(20)) })],
  ['a serial number of 22 octets', [RFC], parts({ serial: integer('7f'.repeat(22)) }), 'X509_SERIAL'],
  ['a serial number with a zero in front', ['X.690', 'X509-32'], parts({ serial: integer('0001') }), 'DER_INTEGER'],
  [
    'two signature algorithms',
    [RFC],
    { outerAlgorithm: sequence(derOid(ALGORITHM_OIDS['ec sha384'] ?? '')) },
    'X509_SIGNATURE_ALGORITHM_MISMATCH',
  ],
  [
    'a name with a value that is no text',
    [RFC],
    parts({ subject: sequence(der(TAG.set, sequence(derOid('2.5.4.3'), integer('01')))) }),
    'X509_NAME',
  ],
  ['a name with an empty part', [RFC], parts({ subject: sequence(der(TAG.set)) }), 'X509_NAME'],
  ['an end before the beginning', [RFC], { notBeforeMs: NOW_MS, notAfterMs: NOW_MS - HOUR_MS }, 'X509_VALIDITY'],
  ['a time without seconds', [RFC], parts({ validity: sequence(from, time(TAG.utcTime, '2606011300Z')) }), 'DER_TIME'],
  ['a time with a zone', [RFC], parts({ validity: sequence(from, time(TAG.utcTime, '260601130000+0000')) }), 'DER_TIME'],
  ['a time with a fraction', [RFC], parts({ validity: sequence(from, time(TAG.generalizedTime, '20260601130000.5Z')) }), 'DER_TIME'],
  ['a time on the 30th of February', [RFC], parts({ validity: sequence(from, time(TAG.generalizedTime, '20270230130000Z')) }), 'DER_TIME'],
  ['a year before 2050 as a generalized time', [RFC], parts({ validity: sequence(from, time(TAG.generalizedTime, '20260601130000Z')) })],
  ['an empty list of extensions', [RFC], parts({ extensions: der(0xa3, sequence()) }), 'X509_EXTENSION'],
  [
    '65 extensions',
    [RFC],
    ext(Object.fromEntries(Array.from({ length: 60 }, (_, n) => [`n${n}`, extension(`1.2.3.5.${n}`, false, raw('0500'))]))),
    'X509_TOO_LARGE',
  ],
  ['an empty subject key identifier', [RFC], ext({ ski: extension('2.5.29.14', false, der(TAG.octetString)) }), 'X509_EXTENSION'],
  [
    'a critical subject key identifier',
    [RFC],
    ext({ ski: extension('2.5.29.14', true, der(TAG.octetString, raw('01'))) }),
    'X509_EXTENSION',
  ],
  ['a critical authority key identifier', [RFC], ext({ aki: extension('2.5.29.35', true, sequence()) }), 'X509_EXTENSION'],
  [
    'the key identifier of another issuer',
    [RFC, 'X509-32'],
    ext({ aki: extension('2.5.29.35', false, sequence(der(0x80, raw('01')))) }),
    'X509_ISSUER_UNKNOWN',
  ],
  ['policies', [RFC], ext({ policies: policies(sequence(derOid('1.2.3.4')), sequence(derOid('1.2.3.5'), sequence())) })],
  ['no policy in the list of them', [RFC], ext({ policies: policies() }), 'X509_EXTENSION'],
  ['a policy twice', [RFC], ext({ policies: policies(sequence(derOid('1.2.3.4')), sequence(derOid('1.2.3.4'))) }), 'X509_EXTENSION'],
  ['policies that are none', [RFC], ext({ policies: policies(derOid('1.2.3.4')) }), 'DER_TAG'],
  ['malformed places of revocation lists, which we do not read', [RFC], ext({ crl: extension('2.5.29.31', false, raw('0500')) })],
  ['malformed places of its issuer, which we do not read', [RFC], ext({ aia: extension('1.3.6.1.5.5.7.1.1', false, raw('0500')) })],
  ['malformed policy mappings, which we do not read', [RFC], ext({ mappings: extension('2.5.29.33', false, raw('0500')) })],
  [
    'a path length without CA',
    [RFC],
    ext({ basicConstraints: extension('2.5.29.19', true, sequence(integer('00'))) }),
    'X509_BASIC_CONSTRAINTS',
  ],
  ['cA FALSE written out', ['X.690'], ext({ basicConstraints: extension('2.5.29.19', true, sequence(der(TAG.boolean, Buffer.of(0)))) })],
  ['a key usage without a bit', [RFC], { usages: [] }, 'X509_KEY_USAGE'],
  [
    'a key usage with trailing zero bits',
    ['X.690'],
    ext({ keyUsage: extension('2.5.29.15', true, der(TAG.bitString, raw('0080'))) }),
    'DER_BIT_STRING',
  ],
  ['an extended key usage without a purpose', [RFC], ext({ extKeyUsage: extension('2.5.29.37', false, sequence()) }), 'X509_EXT_KEY_USAGE'],
  [
    'name constraints that constrain nothing',
    [RFC],
    ext({ constraints: extension('2.5.29.30', true, sequence()) }),
    'X509_NAME_CONSTRAINTS',
  ],
  [
    'critical FALSE written out',
    ['X.690'],
    ext({ stranger: sequence(derOid('1.2.3.4'), der(TAG.boolean, Buffer.of(0)), der(TAG.octetString, raw('0500'))) }),
    'DER_DEFAULT',
  ],
  [
    'critical as 1',
    ['X.690'],
    ext({ stranger: sequence(derOid('1.2.3.4'), der(TAG.boolean, Buffer.of(1)), der(TAG.octetString, raw('0500'))) }),
    'DER_BOOLEAN',
  ],
  [
    'an object identifier that is not minimal',
    ['X.690'],
    ext({ stranger: sequence(der(TAG.oid, raw('2a800304')), der(TAG.octetString, raw('0500'))) }),
    'DER_OID',
  ],
  [
    'trailing bytes inside of the alternative names',
    ['X.690'],
    ext({ subjectAltName: extension('2.5.29.17', false, Buffer.concat([sequence(THE_URI), raw('00')])) }),
    'DER_TRAILING',
  ],
];

function withoutNull(): Buffer {
  const key = sequence(der(TAG.integer, Buffer.of(0), Buffer.alloc(256, 0xa5)), der(TAG.integer, raw('010001')));
  return sequence(sequence(derOid('1.2.840.113549.1.1.1')), der(TAG.bitString, Buffer.of(0), key));
}

/** What a good leaf becomes after it was signed. */
const SPOILED: readonly [name: string, source: Source, spoil: (leaf: Buffer) => Buffer, outcome: Reason][] = [
  ['its first byte changed', [`${GO} TestParseAndVerify`], (leaf) => Buffer.concat([Buffer.of(0), leaf.subarray(1)]), 'DER_TAG'],
  ['a byte behind it', [LACKS, 'X509-32'], (leaf) => Buffer.concat([leaf, Buffer.of(0)]), 'DER_TRAILING'],
  ['another certificate behind it', [LACKS, 'X509-32'], (leaf) => Buffer.concat([leaf, leaf]), 'DER_TRAILING'],
  ['cut off', [LACKS], (leaf) => leaf.subarray(0, -1), 'DER_TRUNCATED'],
  ['nothing', [LACKS], () => Buffer.alloc(0), 'DER_TRUNCATED'],
  ['a length that is not minimal', ['X.690'], (leaf) => Buffer.concat([raw('308300'), leaf.subarray(2)]), 'DER_LENGTH'],
  ['an indefinite length', ['X.690'], (leaf) => Buffer.concat([raw('3080'), leaf.subarray(4), raw('0000')]), 'DER_LENGTH'],
  ['PEM where DER belongs', ['SPIFFE Workload API'], (leaf) => Buffer.from(formatPem('CERTIFICATE', leaf)), 'DER_TAG'],
  ['a bit of its signature flipped', [LACKS, 'X509-32 ID-33'], (leaf) => flip(leaf, leaf.length - 1), 'X509_SIGNATURE'],
  ['a letter of its ID changed', [SPEC, 'ID-33'], (leaf) => flip(leaf, leaf.indexOf(ID) + ID.length - 1), 'X509_SIGNATURE'],
];

function flip(bytes: Buffer, at: number): Buffer {
  const out = Buffer.from(bytes);
  out[at] = (out[at] as number) ^ 1;
  return out;
}

/** Signing certificates between the root and a good leaf. */
const BETWEEN: readonly LeafCase[] = [
  ['no keyCertSign', [SPEC, 'X509-22'], { usages: ['cRLSign'] }, 'X509_AUTHORITY_CERT_SIGN_MISSING'],
  ['digitalSignature beside keyCertSign', ['AMB-12', 'X509-49'], { usages: ['keyCertSign', 'digitalSignature'] }],
  ['keyAgreement beside keyCertSign', ['AMB-12', 'X509-50'], { usages: ['keyCertSign', 'keyAgreement'] }],
  ['keyCertSign alone', [SPEC, 'X509-23'], { usages: ['keyCertSign'] }],
  ['no key usage', [RFC, 'X509-20'], ext({ keyUsage: undefined })],
  ['a key usage that is not critical', [RFC, 'X509-21'], { usagesCritical: false }],
  ['basic constraints that are not critical', [RFC, 'X509-16'], { basicConstraintsCritical: false }],
  ['no CA flag', [SPEC, 'X509-5'], { ca: false, uris: [], usages: ['keyCertSign'] }, 'X509_AUTHORITY_CA'],
  ['no basic constraints', [SPEC, 'X509-5'], ext({ basicConstraints: undefined }), 'X509_AUTHORITY_CA'],
  ['no SPIFFE ID', [SPEC, 'X509-10'], { uris: [] }],
  ['a URI of another scheme', [SPEC, 'X509-10'], uri('https://pki.example.com')],
  ['an ID with a path', [SPEC, 'X509-11'], uri('spiffe://example.org/ca'), 'X509_AUTHORITY_PATH'],
  ['an ID with a lone slash', [SPEC, 'X509-11'], uri('spiffe://example.org/'), 'ID_PATH_TRAILING_SLASH'],
  ['an ID of another trust domain', [LACKS, 'X509-12 X509-39'], uri('spiffe://other.org'), 'X509_AUTHORITY_TRUST_DOMAIN'],
  ['pathlen:0 above a leaf', [RFC, 'X509-15'], { pathLen: 0 }],
  ['both purposes', [SPEC, 'X509-51'], { purposes: [EKU.server, EKU.client] }],
  ['expired', [RFC, 'X509-32'], { notAfterMs: NOW_MS - 1000 }, 'X509_ISSUER_EXPIRED'],
  ['of tomorrow', [RFC, 'X509-32'], { notBeforeMs: NOW_MS + 1000 }, 'X509_ISSUER_NOT_YET_VALID'],
  ['an unknown critical extension', [RFC, 'X509-32'], ext({ stranger: stranger(true) }), 'X509_UNKNOWN_CRITICAL'],
  ['an Ed25519 key', [SPEC], { key: ed25519Key('between') }],
  ['an RSA key of 1024 bits', [LACKS], { key: rsaKey('weak', 1024) }, 'KEY_WEAK'],
  ['a key on no curve', [LACKS], parts({ key: offCurve(ecKey('between')) }), 'KEY_MALFORMED'],
  ['no key identifiers', [RFC], ext({ ski: undefined, aki: undefined })],
  ['the host of the leaf permitted', [RFC, 'X509-18'], ext({ constraints: uriConstraints('permitted', 'example.org') })],
  [
    'another host permitted',
    [LACKS, 'X509-18'],
    ext({ constraints: uriConstraints('permitted', 'b.test') }),
    'X509_OUTSIDE_NAME_CONSTRAINTS',
  ],
  ['one of two permitted hosts', [RFC, 'X509-18'], ext({ constraints: uriConstraints('permitted', 'b.test', 'example.org') })],
  [
    'the domain below the host permitted',
    [RFC, 'X509-18'],
    ext({ constraints: uriConstraints('permitted', '.example.org') }),
    'X509_OUTSIDE_NAME_CONSTRAINTS',
  ],
  [
    'the top of the host permitted',
    [RFC, 'X509-18'],
    ext({ constraints: uriConstraints('permitted', 'org') }),
    'X509_OUTSIDE_NAME_CONSTRAINTS',
  ],
  [
    'the host of the leaf excluded',
    [RFC, 'X509-18'],
    ext({ constraints: uriConstraints('excluded', 'example.org') }),
    'X509_OUTSIDE_NAME_CONSTRAINTS',
  ],
  [
    'the top of the host excluded',
    [RFC, 'X509-18'],
    ext({ constraints: uriConstraints('excluded', 'org') }),
    'X509_OUTSIDE_NAME_CONSTRAINTS',
  ],
  ['another host excluded', [RFC, 'X509-18'], ext({ constraints: uriConstraints('excluded', 'b.test') })],
  ['the subject of the leaf permitted', [RFC, 'X509-18'], ext({ constraints: permittedName('web') })],
  ['another subject permitted', [RFC, 'X509-18'], ext({ constraints: permittedName('admin') }), 'X509_OUTSIDE_NAME_CONSTRAINTS'],
  ['a URI of another scheme that is malformed', [RFC, 'X509-10'], uri('http://[')],
  [
    'a URL as constraint',
    [RFC, 'X509-18'],
    ext({ constraints: uriConstraints('permitted', 'spiffe://example.org') }),
    'X509_NAME_CONSTRAINTS',
  ],
];

type Bundles = Readonly<Record<string, readonly Made[]>>;

export function x509VerifyFile(): File<'x509-svid-verify'> {
  const { root, other, impostor, middle, lower } = authorities();
  const usual: Bundles = { 'example.org': [root], 'other.org': [other] };
  const shared = (bundles: Bundles) =>
    Object.fromEntries(Object.entries(bundles).map(([name, list]) => [name, list.map((one) => text(one.der))]));
  const made = (
    name: string,
    source: Source,
    chain: readonly (Made | Buffer)[],
    outcome: Reason | { readonly sees: string } | undefined,
    bundles?: Bundles,
  ): Row<'x509-svid-verify'> =>
    row(
      name,
      source,
      {
        chain: chain.map((one) => text(Buffer.isBuffer(one) ? one : one.der)),
        // the reader puts in what is shared
        bundles: bundles ? shared(bundles) : ('@usual' as unknown as Record<string, string[]>),
      },
      outcome ?? { sees: ID },
    );
  const good = leafOf(root);
  const withSees = (recipe: Partial<Recipe>) => ({ sees: String(recipe.uris?.[0] ?? ID) });
  const below = (issuer: Made) => leafOf(issuer);
  const foreign = leafOf(other, { uris: ['spiffe://example.org/admin'] });
  const narrow = certificate({ ca: true, key: ecKey('narrow'), subject: 'narrow', issuer: root, pathLen: 0 });
  const belowNarrow = certificate({ ca: true, key: ecKey('below narrow'), subject: 'below narrow', issuer: narrow });
  const bound = certificate({
    ca: true,
    key: ecKey('bound'),
    subject: 'bound',
    extensions: { constraints: uriConstraints('permitted', 'b.test') },
  });
  const underBound = certificate({ ca: true, key: ecKey('under bound'), subject: 'under bound', issuer: bound, uris: [] });
  const crossed = certificate({ ca: true, key: ecKey('crossed'), subject: 'crossed', issuer: root, uris: ['spiffe://other.org'] });
  const nameless: Extensions = { ski: undefined, aki: undefined };
  const twins = Array.from({ length: 17 }, (_, n) =>
    certificate({ ca: true, key: ecKey(`twin ${n}`), subject: 'twin', extensions: nameless, uris: [] }),
  );
  const ofStranger = certificate({ ca: true, key: ecKey('eighteenth twin'), subject: 'twin', extensions: nameless });
  const liberal: readonly [string, Source, Partial<Recipe>][] = [
    ['a root with a trailing slash in its ID', ['AMB-2'], uri('spiffe://example.org/')],
    ['a root without an ID', ['AMB-2', 'X509-10'], { uris: [] }],
    ['a root without key usage', ['AMB-2'], ext({ keyUsage: undefined })],
    ['a root with URIs of others', ['AMB-2'], { uris: ['spiffe://a/b', 'https://x.test'] }],
    ['a root with digitalSignature', ['AMB-12'], { usages: ['keyCertSign', 'digitalSignature'] }],
    ['a root without key identifiers', [RFC], ext(nameless)],
  ];
  return {
    shared: { usual: shared(usual) },
    rows: [
      ...LEAVES.map(([name, source, recipe, outcome]) =>
        made(`leaf: ${name}`, source, [leafOf(root, recipe)], outcome ?? withSees(recipe)),
      ),
      ...SPOILED.map(([name, source, spoil, outcome]) => made(`leaf: ${name}`, source, [spoil(good.der)], outcome)),
      ...BETWEEN.map(([name, source, recipe, outcome]) => {
        const between = certificate({ ca: true, key: recipe.key ?? ecKey('between'), subject: 'between', issuer: root, ...recipe });
        return made(`intermediate: ${name}`, source, [below(between), between], outcome);
      }),
      made('chain: empty', [`${GO} TestVerify/empty_chain`], [], 'X509_CHAIN_EMPTY'),
      made('chain: nine certificates', [LACKS], [good, ...Array<Made>(8).fill(middle)], 'X509_CHAIN_TOO_LONG'),
      made('chain: eight certificates', [LACKS], [good, ...Array<Made>(7).fill(middle)], undefined),
      made('chain: leaf, intermediate', [RFC, 'X509-32'], [below(middle), middle], undefined),
      made('chain: two intermediates', [RFC, 'X509-32'], [below(lower), lower, middle], undefined),
      made('chain: three certificates out of order', [LACKS, 'X509-32'], [below(lower), middle, lower], undefined),
      made('chain: the root and a stranger among them', [RFC, 'X509-32'], [below(lower), other, root, middle, lower], undefined),
      made('chain: the intermediate missing', [RFC, 'X509-32'], [below(middle)], 'X509_ISSUER_UNKNOWN'),
      made('chain: the upper intermediate missing', [RFC, 'X509-32'], [below(lower), lower], 'X509_ISSUER_UNKNOWN'),
      made('chain: the leaf behind its issuer', [RFC, 'X509-32'], [middle, below(middle)], 'X509_LEAF_CA'),
      made(
        'chain: a leaf that signs another leaf',
        [SPEC, 'X509-5'],
        [leafOf(leafOf(root, { subject: 'signer', key: ecKey('signer') })), leafOf(root, { subject: 'signer', key: ecKey('signer') })],
        'X509_AUTHORITY_CA',
      ),
      made('chain: a leaf that signed itself', [RFC, 'X509-32'], [leafOf(undefined)], 'X509_ISSUER_UNKNOWN'),
      made('chain: a malformed intermediate beside a good leaf', [RFC], [good, Buffer.from('x')], 'DER_TAG'),
      made('chain: pathlen:0 above a CA', [LACKS, 'X509-15'], [below(belowNarrow), belowNarrow, narrow], 'X509_PATH_LEN'),
      made('bundle: none of any trust domain', [`${GO} TestVerify/empty_bundle`, 'X509-33'], [good], 'X509_BUNDLE_MISSING', {}),
      made(
        'bundle: none of the trust domain of the leaf',
        [`${GO} TestVerify/no_roots_for_leaf_cert_domain`, 'X509-33 TDB-2'],
        [good],
        'X509_BUNDLE_MISSING',
        { 'other.org': [other] },
      ),
      made('bundle: without authorities', [`${GO} TestVerify/no_roots`, 'TDB-19'], [good], 'X509_BUNDLE_EMPTY', { 'example.org': [] }),
      made('bundle: with the root of another', [`${GO} TestVerify/verification_fails`, 'X509-39'], [good], 'X509_ISSUER_UNKNOWN', {
        'example.org': [other],
      }),
      made('bundle: two roots, one of them right', [SPEC], [good], undefined, { 'example.org': [other, root] }),
      made(
        'bundle: of both trust domains, and a leaf that the other one forged',
        [LACKS, 'X509-39 ID-27'],
        [foreign],
        'X509_ISSUER_UNKNOWN',
      ),
      made(
        'bundle: the same, with its root presented',
        ['federated root signs our domain', 'X509-39 ID-27'],
        [foreign, other],
        'X509_AUTHORITY_TRUST_DOMAIN',
      ),
      made(
        'bundle: an intermediate of another trust domain under our root',
        [LACKS, 'X509-12'],
        [leafOf(crossed), crossed],
        'X509_AUTHORITY_TRUST_DOMAIN',
      ),
      made(
        'bundle: a leaf of another trust domain under our root',
        [SPEC, 'X509-39'],
        [leafOf(root, uri('spiffe://other.org/web'))],
        'X509_ISSUER_UNKNOWN',
      ),
      made('bundle: a leaf of another trust domain by its own root', [SPEC, 'X509-39'], [leafOf(other, uri('spiffe://other.org/web'))], {
        sees: 'spiffe://other.org/web',
      }),
      made(
        'bundle: a root of the right name with another key',
        [RFC, 'X509-39'],
        [leafOf(impostor, { extensions: nameless })],
        'X509_SIGNATURE',
      ),
      made('bundle: the right key among two of one name', [RFC], [leafOf(impostor, { extensions: nameless })], undefined, {
        'example.org': [root, impostor],
      }),
      made(
        'bundle: seventeen roots of one name, none of them right',
        [LACKS],
        [leafOf(ofStranger, { extensions: nameless })],
        'X509_WORK_LIMIT',
        { 'example.org': twins },
      ),
      made(
        'bundle: an expired root',
        [RFC, 'X509-32'],
        [leafOf(certificate({ ca: true, key: ecKey('old'), subject: 'old', notAfterMs: NOW_MS - 1000 }))],
        'X509_ISSUER_EXPIRED',
        {
          'example.org': [certificate({ ca: true, key: ecKey('old'), subject: 'old', notAfterMs: NOW_MS - 1000 })],
        },
      ),
      made('bundle: an intermediate as authority', [RFC], [below(middle)], undefined, { 'example.org': [middle] }),
      made(
        'bundle: constraints of the root two levels above',
        [RFC, 'X509-18'],
        [leafOf(underBound), underBound],
        'X509_OUTSIDE_NAME_CONSTRAINTS',
        { 'example.org': [bound] },
      ),
      ...liberal.map(([name, source, recipe]) => {
        const one = certificate({ ca: true, key: ecKey('liberal'), subject: 'liberal', ...recipe });
        return made(`bundle: ${name}`, source, [leafOf(one)], undefined, { 'example.org': [one] });
      }),
    ],
  };
}

export function x509ParseFile(): File<'x509-svid-parse'> {
  const { root, middle } = authorities();
  const pkcs8 = (key: VectorKey) => key.privateKey.export({ type: 'pkcs8', format: 'der' });
  const key = WEB();
  const rsa = rsaKey('web');
  const leaf = leafOf(middle);
  const ofAnother = flip(pkcs8(key), pkcs8(key).indexOf(Buffer.from('0420', 'hex')) + 33);
  const keyPem = formatPem('PRIVATE KEY', pkcs8(key));
  const certs = (...made: Made[]) => made.map((one) => formatPem('CERTIFICATE', one.der)).join('');
  const pem = (
    name: string,
    test: string,
    certificatesPem: string,
    keyText: string,
    outcome: Reason | { sees: string },
    requirement?: string,
  ) => row<'x509-svid-parse'>(name, [`${GO} ${test}`, requirement], { certificatesPem, keyPem: keyText }, outcome);
  const derRow = (name: string, source: Source, chain: readonly (Made | Buffer)[], keyDer: Buffer, outcome: Reason | { sees: string }) =>
    row<'x509-svid-parse'>(
      name,
      source,
      { chain: text(Buffer.concat(chain.map((one) => (Buffer.isBuffer(one) ? one : one.der)))), key: text(keyDer) },
      outcome,
    );
  const one = { sees: `${ID} 1` };
  const two = { sees: `${ID} 2` };
  const P = 'TestParse';
  const corrupt = (block: string) => block.replace('\nM', '\nA');
  const between = (recipe: Partial<Recipe>) =>
    certificate({ ca: true, key: recipe.key ?? ecKey('between'), subject: 'between', issuer: root, ...recipe });
  const wrong = (name: string, test: string, requirement: string, recipe: Partial<Recipe>, reason: Reason) =>
    pem(name, `${P}/${test}`, certs(leafOf(root, recipe)), keyPem, reason, requirement);
  const wrongIssuer = (name: string, source: Source, recipe: Partial<Recipe>, outcome: Reason | { sees: string }) =>
    derRow(name, source, [leafOf(between(recipe)), between(recipe)], pkcs8(key), outcome);
  return {
    rows: [
      pem(
        'single certificate and key',
        `${P}/Single_certificate_and_key`,
        certs(leafOf(root, { key: rsa })),
        formatPem('PRIVATE KEY', pkcs8(rsa)),
        one,
      ),
      pem('certificate with intermediate and key', `${P}/Certificate_with_intermediate_and_key`, certs(leaf, middle), keyPem, two),
      pem(
        'key and certificate in one text',
        `${P}/Key_and_certificate_in_the_same_byte_array`,
        keyPem + certs(leaf),
        keyPem + certs(leaf),
        one,
      ),
      pem(
        'certificate and key in one text',
        `${P}/Certificate_and_key_in_the_same_byte_array`,
        certs(leaf) + keyPem,
        certs(leaf) + keyPem,
        one,
      ),
      pem('missing certificate', `${P}/Missing_certificate`, keyPem, keyPem, 'PEM_MISSING'),
      pem('missing private key', `${P}/Missing_private_key`, certs(leaf), certs(leaf), 'PEM_MISSING'),
      pem('private key not PEM', `${P}/Private_key_not_PEM`, certs(leaf), 'not PEM', 'PEM_MISSING'),
      pem('certificate not PEM', `${P}/Certificate_not_PEM`, 'not PEM', keyPem, 'PEM_MISSING'),
      pem('corrupt private key', `${P}/Corrupt_private_key`, certs(leaf), corrupt(keyPem), 'KEY_MALFORMED'),
      pem('corrupt certificate', `${P}/Corrupt_certificate`, corrupt(certs(leaf)), keyPem, 'DER_TAG'),
      pem(
        'a key that is another one',
        `${P}/Certificate_does_not_match_private_key`,
        certs(leaf),
        formatPem('PRIVATE KEY', pkcs8(rsa)),
        'KEY_MISMATCH',
      ),
      pem('a block without its end', `${P}/Corrupt_certificate`, certs(leaf).replace(/-----END.*\n/, ''), keyPem, 'PEM_MALFORMED'),
      pem('an encrypted key', P, certs(leaf), keyPem.replace('KEY-----\n', 'KEY-----\nProc-Type: 4,ENCRYPTED\n'), 'PEM_HEADERS'),
      pem('two keys', P, certs(leaf), keyPem + formatPem('PRIVATE KEY', pkcs8(rsa)), 'PEM_MALFORMED'),
      wrong('no SPIFFE ID', 'Certificate_without_SPIFFE_ID', 'X509-3', { uris: [], dns: ['example.org'] }, 'X509_URI_SAN_MISSING'),
      wrong(
        'a leaf with the CA flag',
        'Leaf_certificate_with_CA_flag_set_to_true',
        'X509-34',
        { ca: true, uris: [ID], usages: ['digitalSignature'] },
        'X509_LEAF_CA',
      ),
      wrong(
        'a leaf without digitalSignature',
        "Leaf_certificate_without_'digitalSignature'_as_key_usage",
        'X509-24',
        { usages: ['keyAgreement'] },
        'X509_LEAF_DIGITAL_SIGNATURE_MISSING',
      ),
      wrong(
        'a leaf with keyCertSign',
        'Leaf_certificate_with_certSign_key_usage',
        'X509-35',
        { usages: ['digitalSignature', 'keyCertSign'] },
        'X509_LEAF_CERT_SIGN',
      ),
      wrong(
        'a leaf with cRLSign',
        'Leaf_certificate_with_cRLSign_key_usage',
        'X509-36',
        { usages: ['digitalSignature', 'cRLSign'] },
        'X509_LEAF_CRL_SIGN',
      ),
      wrong(
        'a leaf with keyCertSign and cRLSign and nothing else',
        'wrong-leaf-no-digital-signature',
        'X509-24',
        { usages: ['keyCertSign', 'cRLSign'] },
        'X509_LEAF_CERT_SIGN',
      ),
      wrong(
        'a leaf without key usage',
        'wrong-leaf-no-digital-signature',
        'X509-20',
        ext({ keyUsage: undefined }),
        'X509_KEY_USAGE_MISSING',
      ),
      wrong(
        'a leaf with the ID of the trust domain',
        'RejectsLeafWithRootPathSPIFFEID',
        'X509-38',
        uri('spiffe://example.org'),
        'X509_LEAF_PATH_MISSING',
      ),
      wrong('a leaf with one purpose', 'wrong-leaf', 'X509-30', { purposes: [EKU.server] }, 'X509_LEAF_EKU'),
      wrongIssuer(
        'a signing certificate without the CA flag',
        [`${GO} ${P}/Signing_certificate_without_CA_flag`, 'X509-16'],
        { ca: false, uris: [], usages: ['keyCertSign'] },
        'X509_AUTHORITY_CA',
      ),
      wrongIssuer(
        'a signing certificate without keyCertSign',
        [`${GO} ${P}/Signing_certificate_without_keyCertSign`, 'X509-22'],
        { usages: ['cRLSign'] },
        'X509_AUTHORITY_CERT_SIGN_MISSING',
      ),
      wrongIssuer('a signing certificate without key usage', [SPEC, 'X509-20'], ext({ keyUsage: undefined }), 'X509_KEY_USAGE_MISSING'),
      wrongIssuer('a signing certificate with an RSA key of 1024 bits', [LACKS], { key: rsaKey('weak', 1024) }, 'KEY_WEAK'),
      wrongIssuer('a signing certificate with a key of a curve that we do not know', [LACKS], parts({ key: secp256k1 }), 'KEY_UNSUPPORTED'),
      wrongIssuer('a signing certificate without an ID', [SPEC, 'X509-10'], { uris: [] }, two),
      wrongIssuer('a signing certificate with digitalSignature', ['AMB-12'], { usages: ['keyCertSign', 'digitalSignature'] }, two),
      derRow('DER, one certificate', [`${GO} TestParseRaw/Single_certificate_and_key`], [leaf], pkcs8(key), one),
      derRow('DER, two certificates', [`${GO} TestParseRaw/Certificate_with_intermediate_and_key`], [leaf, middle], pkcs8(key), two),
      derRow(
        'PEM where DER belongs',
        [`${GO} TestParseRaw/Certificate_not_DER_encoded`],
        [Buffer.from(certs(leaf))],
        pkcs8(key),
        'DER_TAG',
      ),
      derRow('a key in PEM where DER belongs', [`${GO} TestParseRaw/Key_not_DER_encoded`], [leaf], Buffer.from(keyPem), 'KEY_MALFORMED'),
      derRow('a key beside the public half of another', [LACKS], [leaf], ofAnother, 'KEY_MALFORMED'),
      derRow('no certificate', [`${GO} TestParseRaw`], [], pkcs8(key), 'X509_CHAIN_EMPTY'),
      derRow('no key', [`${GO} TestParseRaw`], [leaf], Buffer.alloc(0), 'KEY_MALFORMED'),
      derRow('a byte behind the certificates', [LACKS], [leaf, middle, Buffer.of(0)], pkcs8(key), 'DER_TAG'),
      derRow('a public key where the private one belongs', [LACKS], [leaf], key.spki, 'KEY_MALFORMED'),
      derRow('the issuer in front of the leaf', [LACKS], [middle, leaf], pkcs8(key), 'X509_LEAF_CA'),
      derRow('nine certificates', [LACKS], [leaf, ...Array<Made>(8).fill(middle)], pkcs8(key), 'X509_CHAIN_TOO_LONG'),
    ],
  };
}

/** What becomes of a certificate in each column. */
type Columns = readonly [issued: Reason | 'accept', own: Reason | 'accept', peer: Reason | 'accept'];
const all = (reason: Reason): Columns => [reason, reason, reason];
const issuedOnly = (reason: Reason): Columns => [reason, 'accept', 'accept'];
const GOOD: Columns = ['accept', 'accept', 'accept'];

const LEAF_PROFILE: readonly [name: string, requirement: string, recipe: Partial<Recipe>, columns: Columns][] = [
  ['in the shape of SPIRE', 'X509-1', {}, GOOD],
  [
    'the CA flag',
    'X509-34',
    { ca: true, uris: [ID], usages: ['digitalSignature'], purposes: [EKU.server, EKU.client] },
    all('X509_LEAF_CA'),
  ],
  ['no basic constraints', 'X509-17', ext({ basicConstraints: undefined }), issuedOnly('X509_LEAF_BASIC_CONSTRAINTS_MISSING')],
  ['no key usage', 'X509-20', ext({ keyUsage: undefined }), all('X509_KEY_USAGE_MISSING')],
  ['a key usage that is not critical', 'X509-21', { usagesCritical: false }, issuedOnly('X509_KEY_USAGE_NOT_CRITICAL')],
  ['keyCertSign', 'X509-26 X509-35', { usages: ['digitalSignature', 'keyCertSign'] }, all('X509_LEAF_CERT_SIGN')],
  ['cRLSign', 'X509-27 X509-36', { usages: ['digitalSignature', 'cRLSign'] }, all('X509_LEAF_CRL_SIGN')],
  ['no digitalSignature', 'X509-24', { usages: ['keyEncipherment'] }, all('X509_LEAF_DIGITAL_SIGNATURE_MISSING')],
  ['dataEncipherment', 'X509-25', { usages: ['digitalSignature', 'dataEncipherment'] }, issuedOnly('X509_LEAF_KEY_USAGE_OTHER')],
  ['no extended key usage', 'X509-28', { purposes: [] }, issuedOnly('X509_LEAF_EKU_MISSING')],
  ['serverAuth alone', 'X509-30', { purposes: [EKU.server] }, all('X509_LEAF_EKU')],
  ['no URI', 'X509-3', { uris: [], dns: ['a.test'] }, all('X509_URI_SAN_MISSING')],
  ['two URIs', 'X509-2 X509-3', { uris: [ID, 'spiffe://example.org/b'] }, all('X509_URI_SAN_MANY')],
  ['an empty subject and names that are not critical', 'X509-8', { subject: '', sanCritical: false }, issuedOnly('X509_SAN_NOT_CRITICAL')],
  ['no path', 'X509-6 X509-38', uri('spiffe://example.org'), all('X509_LEAF_PATH_MISSING')],
  ['another scheme', 'X509-37', uri('https://example.org/web'), all('ID_SCHEME')],
];

const AUTHORITY_PROFILE: readonly [name: string, requirement: string, recipe: Partial<Recipe>, columns: Columns][] = [
  ['in the shape of SPIRE', 'X509-22', {}, GOOD],
  ['no CA flag', 'X509-16', { ca: false, uris: ['spiffe://example.org'], usages: ['keyCertSign'], purposes: [] }, all('X509_AUTHORITY_CA')],
  [
    'basic constraints that are not critical',
    'X509-16',
    { basicConstraintsCritical: false },
    issuedOnly('X509_AUTHORITY_BASIC_CONSTRAINTS_NOT_CRITICAL'),
  ],
  ['no key usage', 'X509-20', ext({ keyUsage: undefined }), ['X509_KEY_USAGE_MISSING', 'X509_KEY_USAGE_MISSING', 'accept']],
  ['a key usage that is not critical', 'X509-21', { usagesCritical: false }, issuedOnly('X509_KEY_USAGE_NOT_CRITICAL')],
  ['no keyCertSign', 'X509-22', { usages: ['cRLSign'] }, all('X509_AUTHORITY_CERT_SIGN_MISSING')],
  ['digitalSignature', 'X509-49', { usages: ['keyCertSign', 'digitalSignature'] }, issuedOnly('X509_AUTHORITY_KEY_USAGE_OTHER')],
  ['keyAgreement', 'X509-50', { usages: ['keyCertSign', 'keyAgreement'] }, issuedOnly('X509_AUTHORITY_KEY_USAGE_OTHER')],
  ['keyCertSign without cRLSign', 'X509-23', { usages: ['keyCertSign'] }, GOOD],
  ['no URI', 'X509-10', { uris: [] }, issuedOnly('X509_URI_SAN_MISSING')],
  ['two URIs, none a SPIFFE ID', 'X509-2', { uris: ['https://a.test', 'https://b.test'] }, issuedOnly('X509_URI_SAN_MANY')],
  ['an empty subject and names that are not critical', 'X509-8', { subject: '', sanCritical: false }, issuedOnly('X509_SAN_NOT_CRITICAL')],
  ['a path in its ID', 'X509-11', uri('spiffe://example.org/ca'), all('X509_AUTHORITY_PATH')],
  ['an ID of another trust domain', 'X509-12', uri('spiffe://other.org'), all('X509_AUTHORITY_TRUST_DOMAIN')],
];

export function x509ProfileFile(): File<'x509-profile'> {
  const { root } = authorities();
  const three = (kind: 'leaf' | 'authority', name: string, requirement: string, made: Made, columns: Columns, seen: string) =>
    (['issued', 'own', 'peer'] as const).map((stage, i) => {
      const outcome = columns[i] ?? 'accept';
      return row<'x509-profile'>(
        `${kind}, ${stage}: ${name}`,
        [stage === 'peer' ? 'X509-SVID §5, AMB-12' : 'X509-SVID §4', requirement],
        { kind, stage, certificate: text(made.der), trustDomain: 'example.org' },
        outcome === 'accept' ? { sees: seen } : outcome,
      );
    });
  return {
    rows: [
      ...LEAF_PROFILE.flatMap(([name, requirement, recipe, columns]) =>
        three('leaf', name, requirement, leafOf(root, recipe), columns, ID),
      ),
      ...AUTHORITY_PROFILE.flatMap(([name, requirement, recipe, columns]) =>
        three(
          'authority',
          name,
          requirement,
          certificate({ ca: true, key: ecKey('between'), subject: 'between', issuer: root, ...recipe }),
          columns,
          'example.org',
        ),
      ),
    ],
  };
}
