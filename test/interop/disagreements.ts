/** Where go-spiffe and OpenSSL judge an input otherwise than we do, and why. Read by the differential test; docs/differential.md is made of it. */
import type { Reason } from '../../spiffe/errors.ts';
import type { Family } from '../vectors/row.ts';

export type Other = 'go-spiffe' | 'OpenSSL';
type Reasons = Partial<Record<Family, readonly Reason[]>>;

/** What we refuse and they accept. */
export interface Stricter {
  readonly who: Other;
  /** Where our rule comes from. */
  readonly rule: string;
  readonly why: string;
  /** Each is shown by a vector. */
  readonly reasons: Reasons;
  /** These are shown by mutations of vectors, if at all. */
  readonly byChance?: Reasons;
}

/** What we accept and they refuse: each is a question that was answered. */
export interface Laxer {
  readonly who: Other;
  readonly rule: string;
  readonly why: string;
  readonly families: readonly Family[];
  /** Their words. */
  readonly says: RegExp;
  /** We accept it since we do not use what they cannot read: what we kept, written anew by us, they must take. */
  readonly passedOver?: true;
  /** The vectors that show it; none: mutations do. */
  readonly vectors: readonly string[];
}

/** What the reader of certificates refuses for how they are encoded, and for what stands in them. */
const READING: readonly Reason[] = [
  'DER_BIT_STRING',
  'DER_BOOLEAN',
  'DER_DEFAULT',
  'DER_INTEGER',
  'DER_LENGTH',
  'DER_OID',
  'DER_TAG',
  'DER_TIME',
  'DER_TRAILING',
  'DER_TRUNCATED',
];
const FORM: readonly Reason[] = [
  'X509_BASIC_CONSTRAINTS',
  'X509_EXTENSION',
  'X509_EXT_KEY_USAGE',
  'X509_KEY_USAGE',
  'X509_NAME',
  'X509_NAME_CONSTRAINTS',
  'X509_SAN',
  'X509_SAN_CHAR',
  'X509_SERIAL',
  'X509_VALIDITY',
  'X509_VERSION',
];

export const STRICTER: readonly Stricter[] = [
  {
    who: 'go-spiffe',
    rule: 'ID-22, ID-23, DEV-16',
    why: 'go-spiffe has no limit to the length of an ID or of the name of a trust domain; we read 2048 and 255 bytes',
    reasons: {
      'spiffe-id': ['ID_TOO_LONG', 'ID_TRUST_DOMAIN_TOO_LONG'],
      'trust-domain': ['ID_TRUST_DOMAIN_TOO_LONG'],
      'x509-svid-verify': ['ID_TOO_LONG'],
    },
    byChance: { 'x509-svid-parse': ['ID_TOO_LONG'] },
  },
  {
    who: 'go-spiffe',
    rule: 'WE-12, WE-13, DEV-11',
    why: 'an address `unix://foo` has a host and no path, or a relative one, and a path longer than a socket’s name would be cut by some systems',
    reasons: { 'endpoint-address': ['ENDPOINT_UNIX_AUTHORITY'] },
    byChance: { 'endpoint-address': ['ENDPOINT_UNIX_PATH'] },
  },
  {
    who: 'go-spiffe',
    rule: 'WE-14',
    why: 'port 0 and ports beyond 65535 cannot be dialled',
    reasons: { 'endpoint-address': ['ENDPOINT_TCP_PORT'] },
  },
  {
    who: 'go-spiffe',
    rule: 'WE-12, WE-14',
    why: 'an empty query or fragment is one too; Go’s parser of URIs does not show it',
    reasons: {},
    byChance: { 'endpoint-address': ['ENDPOINT_COMPONENT'] },
  },
  {
    who: 'go-spiffe',
    rule: 'X.690, RFC 5280',
    why: 'Go lets BER or bytes behind a value pass in some places of a certificate; here there is one encoding of everything that we read',
    reasons: { 'x509-svid-verify': ['DER_BIT_STRING', 'DER_DEFAULT', 'DER_TIME', 'DER_TRAILING'] },
    byChance: { 'x509-svid-verify': READING, 'x509-svid-parse': READING, bundle: READING },
  },
  {
    who: 'go-spiffe',
    rule: 'RFC 5280 §4.1 and §4.2',
    why: 'a certificate that breaks the form of a field or extension is refused when it is read, whether or not that field decides anything',
    reasons: {
      'x509-svid-verify': [
        'X509_SERIAL',
        'X509_NAME',
        'X509_BASIC_CONSTRAINTS',
        'X509_KEY_USAGE',
        'X509_EXT_KEY_USAGE',
        'X509_EXTENSION',
        'X509_SAN',
        'X509_SAN_CHAR',
      ],
    },
    byChance: { 'x509-svid-verify': FORM, 'x509-svid-parse': FORM, bundle: FORM },
  },
  {
    who: 'go-spiffe',
    rule: 'limits of size and number',
    why: 'what a stranger may make us read is bounded: 8 certificates, 64 extensions, 32 levels of JSON (16 in a token)',
    reasons: {
      'x509-svid-verify': ['X509_TOO_LARGE', 'X509_CHAIN_TOO_LONG'],
      'x509-svid-parse': ['X509_CHAIN_TOO_LONG'],
      'jwt-svid': ['JSON_TOO_DEEP'],
      bundle: ['JSON_TOO_DEEP'],
    },
  },
  {
    who: 'go-spiffe',
    rule: 'strength of keys',
    why: 'RSA keys under 2048 and over 8192 bits, and kinds of keys that we do not verify with (Go knows P-224, X25519 and DSA), authenticate nobody',
    reasons: {
      'x509-svid-verify': ['KEY_WEAK', 'KEY_TOO_LARGE'],
      'x509-svid-parse': ['KEY_WEAK'],
      bundle: ['KEY_WEAK'],
    },
    byChance: {
      'x509-svid-verify': ['KEY_UNSUPPORTED', 'KEY_MALFORMED'],
      'x509-svid-parse': ['KEY_UNSUPPORTED'],
      bundle: ['KEY_MALFORMED', 'KEY_TOO_LARGE'],
    },
  },
  {
    who: 'go-spiffe',
    rule: 'RFC 5208, RFC 5915',
    why: 'our own key is read by OpenSSL, which refuses some PKCS#8 that Go reads, and must sign for the public half written beside it, which Go does not read',
    reasons: {},
    byChance: { 'x509-svid-parse': ['KEY_MALFORMED'] },
  },
  {
    who: 'go-spiffe',
    rule: 'X509-20, X509-24',
    why: 'go-spiffe looks for digitalSignature in an SVID of its own only, not in a peer’s',
    reasons: { 'x509-svid-verify': ['X509_KEY_USAGE_MISSING', 'X509_LEAF_DIGITAL_SIGNATURE_MISSING'] },
    byChance: { 'x509-svid-parse': ['X509_KEY_USAGE_MISSING'] },
  },
  {
    who: 'go-spiffe',
    rule: 'X509-30, DEV-15',
    why: 'a leaf that says what it is for must say both serverAuth and clientAuth; go-spiffe takes any purpose',
    reasons: { 'x509-svid-verify': ['X509_LEAF_EKU'], 'x509-svid-parse': ['X509_LEAF_EKU'] },
  },
  {
    who: 'go-spiffe',
    rule: 'X509-38, DEV-1',
    why: 'go-spiffe looks for a path in an SVID of its own only, not in a peer’s',
    reasons: { 'x509-svid-verify': ['X509_LEAF_PATH_MISSING'] },
  },
  {
    who: 'go-spiffe',
    rule: 'X509-37, AMB-1',
    why: 'Go reads the URI before it is looked at, and writes its scheme in lower case; we take it letter for letter',
    reasons: { 'x509-svid-verify': ['ID_SCHEME'] },
    byChance: { 'x509-svid-parse': ['ID_SCHEME'] },
  },
  {
    who: 'go-spiffe',
    rule: 'X509-11, X509-12',
    why: 'an intermediate with a SPIFFE ID must have that of its trust domain, without a path; go-spiffe does not look at it',
    reasons: { 'x509-svid-verify': ['X509_AUTHORITY_PATH', 'X509_AUTHORITY_TRUST_DOMAIN', 'ID_PATH_TRAILING_SLASH'] },
    byChance: {
      'x509-svid-verify': [
        'ID_PATH_CHAR',
        'ID_TRUST_DOMAIN_CHAR',
        'ID_PATH_EMPTY_SEGMENT',
        'ID_TRUST_DOMAIN_MISSING',
        'ID_TRUST_DOMAIN_TOO_LONG',
        'ID_PATH_DOT_SEGMENT',
      ],
    },
  },
  {
    who: 'go-spiffe',
    rule: 'X509-18, RFC 5280 §4.2.1.10',
    why: 'a host in a URI constraint is that host alone; Go takes it for every host below as well',
    reasons: { 'x509-svid-verify': ['X509_OUTSIDE_NAME_CONSTRAINTS'] },
  },
  {
    who: 'go-spiffe',
    rule: 'RFC 5280 §4.2.1.1',
    why: 'an authority key identifier that names another key of the issuer’s name means another issuer; Go sorts by it and no more (OpenSSL does as we do)',
    reasons: { 'x509-svid-verify': ['X509_ISSUER_UNKNOWN'] },
  },
  {
    who: 'go-spiffe',
    rule: 'RFC 5280 §4.2',
    why: 'we process no policies, so that a critical extension about them is one too many',
    reasons: {},
    byChance: { 'x509-svid-verify': ['X509_UNKNOWN_CRITICAL'] },
  },
  {
    who: 'go-spiffe',
    rule: 'JWT-23, RFC 7515 §2, RFC 8725 §3.4',
    why: 'base64url has one text for some bytes: no stray bits, no line feeds, no white space around a token',
    reasons: { 'jwt-svid': ['JWT_ENCODING'] },
  },
  {
    who: 'go-spiffe',
    rule: 'RFC 8259 §8.1',
    why: 'JSON is UTF-8 and its texts are Unicode; Go replaces what is neither',
    reasons: { 'jwt-svid': ['JSON_SYNTAX'], bundle: ['JSON_SYNTAX'] },
  },
  {
    who: 'go-spiffe',
    rule: 'JWT-15, DEV-2',
    why: 'without an expected audience go-spiffe does not look at the audience; here nothing is validated then',
    reasons: { 'jwt-svid': ['JWT_EXPECTED_AUDIENCE'] },
  },
  {
    who: 'go-spiffe',
    rule: 'JWT-15, RFC 7519 §4.1.3',
    why: 'an empty text is no audience',
    reasons: { 'jwt-svid': ['JWT_AUD'] },
  },
  {
    who: 'go-spiffe',
    rule: 'JWT-13',
    why: 'a workload’s SPIFFE ID has a path and 2048 bytes at most; go-spiffe takes the trust domain’s own ID and any length',
    reasons: { 'jwt-svid': ['JWT_SUB'] },
  },
  {
    who: 'go-spiffe',
    rule: 'JWT-30, AMB-4',
    why: 'a key of another use validates nothing; go-spiffe’s reader of JWK sets does not look at use',
    reasons: { 'jwt-svid': ['JWT_AUTHORITIES_MISSING'] },
    byChance: { 'jwt-svid': ['JWT_AUTHORITY_UNKNOWN'] },
  },
  {
    who: 'go-spiffe',
    rule: 'JWT-20, JWT-24',
    why: 'dates are numbers in seconds, up to the year 9999; null is none, and a leeway of more than two minutes is refused',
    reasons: { 'jwt-svid': ['JWT_EXP', 'JWT_NBF'] },
  },
  {
    who: 'go-spiffe',
    rule: 'options',
    why: 'go-spiffe has no option for the leeway, and none for the longest lifetime',
    reasons: { 'jwt-svid': ['JWT_EXPIRED', 'JWT_LIFETIME'] },
  },
  {
    who: 'go-spiffe',
    rule: 'JWT-10, RFC 7515 §4.1.11',
    why: 'a member of the header that is there counts: typ null is no type, an empty crit is malformed',
    reasons: { 'jwt-svid': ['JWT_TYP', 'JWT_CRIT'] },
    byChance: { 'jwt-svid': ['JWT_KID'] },
  },
  {
    who: 'go-spiffe',
    rule: 'TDB-15, DEV-18',
    why: 'go-spiffe’s reader of JWK sets takes null, and a set without keys, for an empty one, which revokes all',
    reasons: { bundle: ['BUNDLE_KEYS_MISSING'] },
  },
  {
    who: 'go-spiffe',
    rule: 'TDB-30',
    why: 'a member that comes twice is two things to two readers',
    reasons: { bundle: ['JSON_DUPLICATE'] },
    byChance: { 'jwt-svid': ['JSON_DUPLICATE'] },
  },
  {
    who: 'go-spiffe',
    rule: 'JWT-29',
    why: 'a key id names one key: of two go-spiffe takes the last',
    reasons: { bundle: ['BUNDLE_KID_REPEATED'] },
  },
  {
    who: 'go-spiffe',
    rule: 'TDB-21, RFC 7518 §6',
    why: 'a symmetric or private key in a bundle is a secret that was given away, and an RSA exponent is odd',
    reasons: { bundle: ['BUNDLE_JWK'] },
  },
  {
    who: 'go-spiffe',
    rule: 'X509-43, RFC 7517 §4.7',
    why: 'x5c is Base64 without line feeds',
    reasons: { bundle: ['BUNDLE_X5C'] },
  },
  {
    who: 'go-spiffe',
    rule: 'TDB-9, TDB-13',
    why: 'sequence and hint are integers where they are there; Go takes null for nothing',
    reasons: {},
    byChance: { bundle: ['BUNDLE_SEQUENCE', 'BUNDLE_REFRESH_HINT'] },
  },
  {
    who: 'go-spiffe',
    rule: 'RFC 7468',
    why: 'a block that is malformed, encrypted or of another kind is refused; Go passes over it',
    reasons: { bundle: ['PEM_MALFORMED'], 'x509-svid-parse': ['PEM_MALFORMED', 'PEM_HEADERS'] },
    byChance: { bundle: ['PEM_HEADERS', 'PEM_MISSING'] },
  },

  {
    who: 'OpenSSL',
    rule: 'X509-SVID',
    why: '`openssl verify` knows nothing of SPIFFE: not what a leaf must carry, nor whose authority may sign for whom',
    reasons: {
      'x509-svid-verify': [
        'ID_SCHEME',
        'ID_TOO_LONG',
        'ID_PATH_CHAR',
        'ID_PATH_DOT_SEGMENT',
        'ID_PATH_TRAILING_SLASH',
        'ID_TRUST_DOMAIN_CHAR',
        'X509_LEAF_PATH_MISSING',
        'X509_URI_SAN_MANY',
        'X509_URI_SAN_MISSING',
        'X509_LEAF_CA',
        'X509_LEAF_CRL_SIGN',
        'X509_LEAF_DIGITAL_SIGNATURE_MISSING',
        'X509_LEAF_EKU',
        'X509_KEY_USAGE_MISSING',
        'X509_AUTHORITY_PATH',
        'X509_AUTHORITY_TRUST_DOMAIN',
      ],
    },
  },
  {
    who: 'OpenSSL',
    rule: 'X.690, RFC 5280 §4.1 and §4.2',
    why: 'OpenSSL reads BER, stops behind the first value, and does not look into extensions that it does not need',
    reasons: {
      'x509-svid-verify': [
        'DER_BIT_STRING',
        'DER_DEFAULT',
        'DER_LENGTH',
        'DER_TAG',
        'DER_TRAILING',
        'DER_TRUNCATED',
        'X509_EXTENSION',
        'X509_EXT_KEY_USAGE',
        'X509_NAME_CONSTRAINTS',
        'X509_SAN',
        'X509_SAN_CHAR',
        'X509_SERIAL',
        'X509_VERSION',
      ],
    },
  },
  {
    who: 'OpenSSL',
    rule: 'strength of keys, limits',
    why: 'at its usual level the tool takes SHA-1, short and very long keys and compressed points, and any number of extensions and certificates',
    reasons: {
      'x509-svid-verify': [
        'KEY_WEAK',
        'KEY_TOO_LARGE',
        'KEY_MALFORMED',
        'X509_SIGNATURE_ALGORITHM',
        'X509_TOO_LARGE',
        'X509_CHAIN_TOO_LONG',
      ],
    },
  },
  {
    who: 'OpenSSL',
    rule: 'RFC 5280 §4.2',
    why: 'it takes critical policy constraints without being asked to process policies',
    reasons: { 'x509-svid-verify': ['X509_UNKNOWN_CRITICAL'] },
  },
  {
    who: 'OpenSSL',
    rule: 'X509-18, RFC 5280 §4.2.1.10',
    why: 'readers differ in whether a host in a URI constraint has those below it: the wide reading excludes, the narrow one permits',
    reasons: { 'x509-svid-verify': ['X509_OUTSIDE_NAME_CONSTRAINTS'] },
  },
];

export const LAXER: readonly Laxer[] = [
  // those of certificates first: a bundle has certificates too
  {
    who: 'go-spiffe',
    families: ['x509-svid-verify', 'x509-svid-parse', 'bundle'],
    says: /cannot parse URI/,
    rule: 'X509-10',
    why: 'a URI of another scheme in a signing certificate is another PKI’s business, and is not parsed',
    vectors: ['intermediate: a URI of another scheme that is malformed'],
  },
  {
    who: 'go-spiffe',
    families: ['x509-svid-verify', 'x509-svid-parse', 'bundle'],
    says: /invalid (?:CRL distribution point|authority info access|policy mappings|policy constraints|inhibit any policy)/,
    rule: 'RFC 5280 §4.2',
    why: 'extensions that are not critical and decide nothing are not read',
    vectors: [
      'leaf: malformed places of revocation lists, which we do not read',
      'leaf: malformed places of its issuer, which we do not read',
      'leaf: malformed policy mappings, which we do not read',
    ],
  },
  {
    who: 'go-spiffe',
    families: ['x509-svid-verify', 'x509-svid-parse', 'bundle'],
    says: /malformed extension OID field/,
    rule: 'X.660, X.667',
    why: 'the parts of an object identifier may be longer than Go’s 31 bits, as those made of a UUID are',
    vectors: ['leaf: an unknown extension under a UUID'],
  },
  {
    who: 'go-spiffe',
    families: ['jwt-svid'],
    says: /token issued in the future \(iat\)/,
    rule: 'DEV-7',
    why: 'JWT-SVID gives iat no such meaning; we never write one that lies ahead',
    vectors: ['iat in the future'],
  },
  {
    who: 'go-spiffe',
    families: ['jwt-svid'],
    says: /expected number value to unmarshal NumericDate/,
    rule: 'JWT-11, DEV-7',
    why: 'nor does it matter what else iat is: it is not looked at (exp and nbf must be numbers here too)',
    vectors: ['iat as text'],
  },
  {
    who: 'go-spiffe',
    families: ['jwt-svid'],
    says: /cannot unmarshal \w+ into Go value of type string/,
    rule: 'JWT-11',
    why: 'nor iss and jti: JWT-SVID asks nothing of them',
    vectors: ['iss that is no text'],
  },
  {
    who: 'go-spiffe',
    families: ['jwt-svid'],
    says: /token header missing key id/,
    rule: 'JWT-9, DEV-3, AMB-6',
    why: 'the specification lets kid be absent; only who asks for it (`kid: optional`) gets it',
    vectors: ['no key id where that is allowed'],
  },
  {
    who: 'go-spiffe',
    families: ['bundle'],
    says: /^spiffebundle: expected a single certificate in x509-svid entry/,
    rule: 'X509-46, X509-47, DEV-4',
    why: 'an entry without a certificate is passed over, and of several the first counts',
    passedOver: true,
    vectors: ['SPIFFE: two certificates in x5c: the first counts', 'SPIFFE: no x5c', 'SPIFFE: an empty x5c'],
  },
  {
    who: 'go-spiffe',
    families: ['bundle'],
    says: /unable to parse JWKS/,
    rule: 'TDB-16, TDB-17, TDB-25, DEV-5, DEV-6',
    why: 'one entry that go-jose cannot read fails its whole set; we pass over entries of unknown kind or use, and members that mean nothing. What we kept, written anew, go-spiffe takes',
    passedOver: true,
    vectors: [
      'SPIFFE: an unknown kty beside a good key',
      'SPIFFE: an unknown kty beside a good certificate',
      'SPIFFE: an unknown curve beside a good key',
      'SPIFFE: an unknown use, and malformed',
      'SPIFFE: a certificate without its key beside it',
    ],
  },
  {
    who: 'go-spiffe',
    families: ['bundle'],
    says: /error adding (?:WIT )?authority \d+ of JWKS: keyID cannot be empty/,
    rule: 'JWT-30, AMB-4',
    why: 'an entry of another use needs no kid: it is passed over',
    passedOver: true,
    vectors: ['JWK set: keys of other uses are passed over'],
  },
  {
    who: 'go-spiffe',
    families: ['bundle'],
    says: /^x509bundle: cannot parse certificate: x509: (?:unsupported elliptic curve|invalid ECDSA parameters)/,
    rule: 'TDB-16',
    why: 'an authority with a kind of key that we do not know does not take the others with it; it signs for nobody here',
    passedOver: true,
    vectors: [],
  },
  {
    who: 'go-spiffe',
    families: ['bundle'],
    says: /^x509bundle: cannot parse certificate: no PEM blocks found/,
    rule: 'RFC 7468',
    why: 'white space alone is an empty file of PEM, as no byte at all is to both: an empty bundle trusts nobody',
    vectors: ['PEM: white space alone'],
  },
  {
    who: 'go-spiffe',
    families: ['x509-svid-parse'],
    says: /failed to parse EC private key/,
    rule: 'RFC 5915',
    why: 'our own key is read by OpenSSL, which does not look at everything inside (a version, say); it signs for its certificate, or is refused',
    vectors: [],
  },
  {
    who: 'go-spiffe',
    families: ['x509-svid-verify'],
    says: /unhandled critical extension/,
    rule: 'X509-18, RFC 5280 §4.2.1.10',
    why: 'Go does not know constraints of directory names; we hold the subject against them, as OpenSSL does',
    vectors: ['intermediate: the subject of the leaf permitted'],
  },
  {
    who: 'OpenSSL',
    families: ['x509-svid-verify'],
    says: /^error 20 at 0 depth lookup: unable to get local issuer certificate/,
    rule: 'RFC 5280 §4.2',
    why: 'the same: OpenSSL reads where revocation lists are, and takes nothing of a certificate in which that is malformed',
    vectors: ['leaf: malformed places of revocation lists, which we do not read'],
  },
  {
    who: 'OpenSSL',
    families: ['x509-svid-verify'],
    says: /^error 10 at 0 depth lookup: certificate has expired/,
    rule: 'X509-32, RFC 5280 §4.1.2.5',
    why: 'the last second belongs to the certificate; OpenSSL ends one second before',
    vectors: ['leaf: in its last second'],
  },
  {
    who: 'OpenSSL',
    families: ['x509-svid-verify'],
    says: /^error 8[56] at [01] depth lookup: Missing (?:Authority|Subject) Key Identifier/,
    rule: 'RFC 5280 §4.2.1.1, §4.2.1.2',
    why: '`-x509_strict` wants what issuers must write; a path does not need it',
    vectors: ['bundle: the right key among two of one name', 'intermediate: no key identifiers', 'bundle: a root without key identifiers'],
  },
  {
    who: 'OpenSSL',
    families: ['x509-svid-verify'],
    says: /^error 88 at 0 depth lookup: Subject empty and Subject Alt Name extension not critical/,
    rule: 'X509-8',
    why: 'the same: a rule for issuers, and ours keeps it',
    vectors: ['leaf: an empty subject with names that are not critical'],
  },
  {
    who: 'OpenSSL',
    families: ['x509-svid-verify'],
    says: /^error 89 at 1 depth lookup: Basic Constraints of CA cert not marked critical/,
    rule: 'X509-16, AMB-12',
    why: 'the same',
    vectors: ['intermediate: basic constraints that are not critical'],
  },
  {
    who: 'OpenSSL',
    families: ['x509-svid-verify'],
    says: /^error 92 at 1 depth lookup: CA cert does not include key usage extension/,
    rule: 'X509-20, AMB-2, AMB-12',
    why: 'the same: on a foreign authority the bit must be there if the extension is',
    vectors: ['intermediate: no key usage', 'bundle: a root without key usage'],
  },
];

/** What both accept, and they see more in. */
export const BLINDER = {
  family: 'bundle',
  rule: 'JWT-5, JWT-6, AMB-4',
  why: 'Ed25519 keys, and in JWK sets keys of another use, are no JWT authorities here; go-spiffe keeps them',
  vectors: ['SPIFFE: an Ed25519 key for JWT-SVIDs'],
} as const;

export function stricterRow(who: Other, family: Family, reason: Reason): Stricter | undefined {
  return STRICTER.find((row) => row.who === who && [row.reasons, row.byChance].some((some) => some?.[family]?.includes(reason)));
}

export function laxerRow(who: Other, family: Family, words: string): Laxer | undefined {
  return LAXER.find((row) => row.who === who && row.families.includes(family) && row.says.test(words));
}

const cell = (text: string) => text.replaceAll('|', '\\|');
const ticked = (list: readonly string[]) => list.map((one) => `\`${one}\``).join(' ');

/** docs/differential.md. */
export function differentialPage(): string {
  const stricter = STRICTER.map(({ who, rule, why, reasons, byChance }) => {
    const all = new Map<string, Set<string>>();
    for (const some of [reasons, byChance ?? {}]) {
      for (const [family, list] of Object.entries(some)) for (const one of list) all.set(family, (all.get(family) ?? new Set()).add(one));
    }
    const cells = [...all].map(([family, list]) => `${family}: ${ticked([...list].sort())}`).join('; ');
    return `| ${who} | ${cell(why)} | ${rule} | ${cells} |`;
  });
  const laxer = LAXER.map(
    ({ who, families, says, rule, why, vectors }) =>
      `| ${who} | ${families.join(', ')} | \`${cell(says.source)}\` | ${cell(why)} | ${rule} | ${vectors.length === 0 ? 'by mutations' : cell(vectors.join('; '))} |`,
  );
  return `# Where others judge otherwise

Each input of \`test/vectors\`, and some thousands of mutations of them, are also given to go-spiffe (through \`test/interop/go/judge.go\`), and the certificate chains
among the vectors to \`openssl verify -x509_strict\`. \`test/interop/differential.test.ts\` fails where they and we differ and this page does not say so: above all, where we
accept what one of them refuses. What both accept they must see alike.

This page is made of \`test/interop/disagreements.ts\` by \`test/vectors/make.ts\`, and a test holds it to that. Numbers such as \`X509-30\` are those of
[the requirements](spec.md); \`DEV\` is a known deviation of go-spiffe or SPIRE from the text, \`AMB\` a place where the text can be read in two ways.

## What we accept and they refuse

| who | input | they say | why we accept it | from | shown by |
|---|---|---|---|---|---|
${laxer.join('\n')}

Both accept, and go-spiffe sees more: ${BLINDER.why} (${BLINDER.rule}; ${BLINDER.family}: ${BLINDER.vectors.join('; ')}).

## What we refuse and they accept

| who | why we refuse it | from | input and reason |
|---|---|---|---|
${stricter.join('\n')}
`;
}
