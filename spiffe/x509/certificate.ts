/** An X.509 certificate as plain facts, read strictly from its DER. Not the judge of it: that is `profile.ts` and `path.ts`. */
import { type KeyKind } from '../key-kind.ts';
import { createHash, type KeyObject } from 'node:crypto';
import { DerReader, der, derFault, oidKey, oidText, readWhole, TAG } from './der.ts';
import { parsePem } from './pem.ts';
import { type SignatureAlgorithm, takeSignatureAlgorithm } from './signature-algorithm.ts';
import { importSpki, type Spki, takeSpki } from './spki.ts';
import { checkName, isEmptyName, type Name, nameText, readName } from './x500-name.ts';

/** Bit n of the extension, in RFC 5280's names and order. */
export const KEY_USAGES = [
  'digitalSignature',
  'nonRepudiation',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'cRLSign',
  'encipherOnly',
  'decipherOnly',
] as const;
export type KeyUsage = (typeof KEY_USAGES)[number];

export const EKU = { serverAuth: '1.3.6.1.5.5.7.3.1', clientAuth: '1.3.6.1.5.5.7.3.2', any: '2.5.29.37.0' } as const;

/** Far more than any certificate in use; what a stranger may make us read. */
export const MAX_CERTIFICATE_BYTES = 64 * 1024;
/** A certificate with more of one kind of thing than this is an attack on our time. */
const MAX_EXTENSIONS = 64;
const MAX_NAMES = 1024;

/** One side of a name constraint: what names of each form must, or must not, lie in. */
export interface Subtrees {
  /** Hosts, lower case; a leading dot means: below it only. */
  readonly uris: readonly string[];
  readonly dns: readonly string[];
  /** Raw Names. */
  readonly directories: readonly Buffer[];
  /** Tags of GeneralName forms that we do not compare: a certificate that has names of such a form is refused below this one. */
  readonly others: ReadonlySet<number>;
}

export interface NameConstraints {
  readonly permitted: Subtrees;
  readonly excluded: Subtrees;
}

/** The tags of GeneralName (RFC 5280 §4.2.1.6). */
export const GENERAL_NAME = {
  otherName: 0xa0,
  email: 0x81,
  dns: 0x82,
  x400: 0xa3,
  directory: 0xa4,
  ediParty: 0xa5,
  uri: 0x86,
  ip: 0x87,
  registeredId: 0x88,
} as const;
const GENERAL_NAME_TAGS: ReadonlySet<number> = new Set(Object.values(GENERAL_NAME));

interface Extensions {
  uris: readonly string[];
  dnsNames: readonly string[];
  otherNames: number;
  sanTags: ReadonlySet<number>;
  directoryNames: readonly Buffer[];
  sanCritical: boolean;
  hasBasicConstraints: boolean;
  basicConstraintsCritical: boolean;
  isCa: boolean;
  pathLen: number | undefined;
  keyUsageBits: number | undefined;
  keyUsageCritical: boolean;
  extKeyUsage: readonly string[] | undefined;
  ski: Buffer | undefined;
  aki: Buffer | undefined;
  nameConstraints: NameConstraints | undefined;
  unknownCritical: readonly string[];
}

/** What is in the request's or the certificate's extensions that both can have. */
export interface SubjectAltNames {
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  /** How many names of other forms there are. */
  readonly otherNames: number;
}

/** Immutable. Buffers are views of one private copy of the DER: do not write into them. */
export class Certificate implements SubjectAltNames {
  /** The whole certificate. */
  readonly raw: Buffer;
  /** What is signed. */
  readonly tbs: Buffer;
  /** Raw Names, for comparing byte by byte. */
  readonly issuer: Buffer;
  readonly subject: Buffer;
  /** In milliseconds since 1970. */
  readonly notBeforeMs: number;
  /** Inclusive: the certificate is good in this millisecond and the 999 that follow it. Compare with `isWithinValidity`. */
  readonly notAfterMs: number;
  /** The public key, as its encoding tells it. */
  readonly spki: Spki;
  /** In the order of the certificate, ASCII only, nothing decoded. */
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  /** How many alternative names of other forms there are. */
  readonly otherNames: number;
  /** The forms of all alternative names, as tags of GeneralName. */
  readonly sanTags: ReadonlySet<number>;
  /** Raw Names of directoryName alternative names. */
  readonly directoryNames: readonly Buffer[];
  readonly sanCritical: boolean;
  readonly hasBasicConstraints: boolean;
  readonly basicConstraintsCritical: boolean;
  /** Basic constraints with CA:TRUE. */
  readonly isCa: boolean;
  /** How many CAs there may be below; undefined: any number. */
  readonly pathLen: number | undefined;
  /** Undefined: no such extension. */
  readonly keyUsage: ReadonlySet<KeyUsage> | undefined;
  readonly keyUsageCritical: boolean;
  /** OIDs; undefined: no such extension. */
  readonly extKeyUsage: readonly string[] | undefined;
  /** The subject key identifier; undefined: none. */
  readonly ski: Buffer | undefined;
  /** The key identifier in the authority key identifier. */
  readonly aki: Buffer | undefined;
  /** Undefined: no such extension. */
  readonly nameConstraints: NameConstraints | undefined;
  /** OIDs of critical extensions that we do not process: RFC 5280 §4.2 forbids to use such a certificate. */
  readonly unknownCritical: readonly string[];
  /** Undefined: one that we do not verify. `signatureAlgorithmName` says which. */
  readonly signatureAlgorithm: SignatureAlgorithm | undefined;
  readonly signatureAlgorithmName: string;
  readonly signature: Buffer;
  readonly #serial: Buffer;
  #publicKey: KeyObject | undefined;
  #sha256: string | undefined;

  /** @param der exactly one certificate of at most 64 KiB; copied. Throws REQUEST_INVALID with a DER_, X509_ or KEY_ reason. */
  static parse(der: Uint8Array): Certificate {
    if (der.length > MAX_CERTIFICATE_BYTES) throw derFault('X509_TOO_LARGE', `a certificate of more than ${MAX_CERTIFICATE_BYTES} bytes`);
    return new Certificate(Buffer.from(der));
  }

  private constructor(raw: Buffer) {
    const certificate = readWhole(raw, TAG.sequence);
    this.raw = raw;
    this.tbs = certificate.raw(TAG.sequence);
    const outer = takeSignatureAlgorithm(certificate);
    this.signature = certificate.octetAlignedBits();
    certificate.close();

    const tbs = readWhole(this.tbs, TAG.sequence);
    if (tbs.peek() !== 0xa0) throw derFault('X509_VERSION', 'a certificate of version 1: version 3 is needed');
    const version = tbs.enter(0xa0);
    const number = version.smallInteger();
    version.close();
    if (number !== 2) throw derFault('X509_VERSION', `a certificate of version ${number + 1}: version 3 is needed`);
    this.#serial = tbs.integer();
    if ((this.#serial[0] as number) >= 0x80) throw derFault('X509_SERIAL', 'a negative serial number');
    if (this.#serial.length > 21) throw derFault('X509_SERIAL', 'a serial number of more than 20 octets');
    // RFC 5280 §4.1.1.2: the unsigned field repeats the signed one, or somebody changed it.
    if (!takeSignatureAlgorithm(tbs).raw.equals(outer.raw))
      throw derFault('X509_SIGNATURE_ALGORITHM_MISMATCH', 'two different signature algorithms in one certificate');
    this.signatureAlgorithm = outer.algorithm;
    this.signatureAlgorithmName = outer.name;
    this.issuer = tbs.raw(TAG.sequence);
    checkName(this.issuer);
    const validity = tbs.enter(TAG.sequence);
    this.notBeforeMs = validity.time();
    this.notAfterMs = validity.time();
    validity.close();
    if (this.notAfterMs < this.notBeforeMs) throw derFault('X509_VALIDITY', 'a certificate that ends before it begins');
    this.subject = tbs.raw(TAG.sequence);
    checkName(this.subject);
    this.spki = takeSpki(tbs);
    // issuerUniqueID and subjectUniqueID: obsolete, allowed in version 3, of no meaning to us.
    if (tbs.peek() === 0x81) checkBits(tbs.take(0x81));
    if (tbs.peek() === 0x82) checkBits(tbs.take(0x82));
    const found = tbs.done ? noExtensions() : readExtensionList(tbs.enter(0xa3));
    tbs.close();
    this.uris = found.uris;
    this.dnsNames = found.dnsNames;
    this.otherNames = found.otherNames;
    this.sanTags = found.sanTags;
    this.directoryNames = found.directoryNames;
    this.sanCritical = found.sanCritical;
    this.hasBasicConstraints = found.hasBasicConstraints;
    this.basicConstraintsCritical = found.basicConstraintsCritical;
    this.isCa = found.isCa;
    this.pathLen = found.pathLen;
    this.keyUsage = found.keyUsageBits === undefined ? undefined : usages(found.keyUsageBits);
    this.keyUsageCritical = found.keyUsageCritical;
    this.extKeyUsage = found.extKeyUsage;
    this.ski = found.ski;
    this.aki = found.aki;
    this.nameConstraints = found.nameConstraints;
    this.unknownCritical = found.unknownCritical;
  }

  get spkiDer(): Buffer {
    return this.spki.der;
  }

  get keyKind(): KeyKind {
    return this.spki.kind;
  }

  /** Imported on the first call and kept. Throws REQUEST_INVALID with KEY_MALFORMED when OpenSSL refuses the key. */
  get publicKey(): KeyObject {
    this.#publicKey ??= importSpki(this.spki);
    return this.#publicKey;
  }

  /** As SPIRE prints it: decimal, no sign. */
  get serialNumber(): string {
    return BigInt(`0x${this.#serial.toString('hex')}`).toString();
  }

  /** Lower-case hex without leading zeros. */
  get serialHex(): string {
    return BigInt(`0x${this.#serial.toString('hex')}`).toString(16);
  }

  /** `CN=web,O=SPIRE,C=US`, as Go prints it. */
  get subjectText(): string {
    return nameText(readName(this.subject));
  }

  /** As `subjectText`. */
  get issuerText(): string {
    return nameText(readName(this.issuer));
  }

  /** Each part of the subject, for what `subjectText` leaves out. */
  get subjectName(): Name {
    return readName(this.subject);
  }

  get subjectEmpty(): boolean {
    return isEmptyName(this.subject);
  }

  /** Names only; whether it signed itself is `verifySignedBy`'s to say. */
  get selfIssued(): boolean {
    return this.subject.equals(this.issuer);
  }

  /** Lower-case hex of the DER's SHA-256. */
  get sha256(): string {
    this.#sha256 ??= createHash('sha256').update(this.raw).digest('hex');
    return this.#sha256;
  }

  /** RFC 5280 §4.1.2.5: both ends belong to it, in whole seconds. */
  isWithinValidity(nowMs: number): boolean {
    return nowMs >= this.notBeforeMs && nowMs < this.notAfterMs + 1000;
  }

  equals(other: Certificate): boolean {
    return this === other || this.raw.equals(other.raw);
  }

  /** What people need to find the certificate that a message is about. */
  toString(): string {
    const subject = this.subjectText;
    return `certificate ${subject === '' ? (this.uris[0] ?? '(no subject)') : JSON.stringify(subject)} (serial ${this.serialHex})`;
  }
}

/** @param contents of a bit string. */
function checkBits(contents: Buffer): void {
  const [unused] = contents;
  if (unused === undefined || unused > (contents.length === 1 ? 0 : 7) || ((contents.at(-1) as number) & ((1 << unused) - 1)) !== 0)
    throw derFault('DER_BIT_STRING', 'a malformed unique identifier');
}

/** The certificates of a concatenation without separators, as the Workload API sends them. Throws REQUEST_INVALID. */
export function splitCertificates(der: Uint8Array): readonly Certificate[] {
  const bytes = Buffer.from(der.buffer, der.byteOffset, der.length);
  const all = new DerReader(bytes);
  const certificates: Certificate[] = [];
  while (!all.done) certificates.push(Certificate.parse(all.raw(TAG.sequence)));
  return certificates;
}

/** The CERTIFICATE blocks of a PEM text; blocks with other labels are passed over. None is an empty list. Throws REQUEST_INVALID. */
export function certificatesFromPem(pem: string | Uint8Array): readonly Certificate[] {
  return parsePem(pem)
    .filter((block) => block.label === 'CERTIFICATE')
    .map((block) => Certificate.parse(block.der));
}

/** One set per combination of bits: there are few in use, and a set is dear. Nine bits have a meaning, so at most 512 can exist. */
const USAGES = new Map<number, ReadonlySet<KeyUsage>>();

function usages(all: number): ReadonlySet<KeyUsage> {
  const bits = all & 0xff80;
  let set = USAGES.get(bits);
  if (!set) {
    set = new Set(KEY_USAGES.filter((_, bit) => bits & (0x8000 >> bit)));
    USAGES.set(bits, set);
  }
  return set;
}

/** The bits of the KeyUsage extension, highest first, for a writer. */
export function keyUsageBits(wanted: Iterable<KeyUsage>): number {
  let bits = 0;
  for (const usage of wanted) bits |= 0x8000 >> KEY_USAGES.indexOf(usage);
  return bits;
}

const NO_NAMES: readonly string[] = [];
const NO_TAGS: ReadonlySet<number> = new Set();

function noExtensions(): Extensions {
  return {
    uris: NO_NAMES,
    dnsNames: NO_NAMES,
    otherNames: 0,
    sanTags: NO_TAGS,
    directoryNames: [],
    sanCritical: false,
    hasBasicConstraints: false,
    basicConstraintsCritical: false,
    isCa: false,
    pathLen: undefined,
    keyUsageBits: undefined,
    keyUsageCritical: false,
    extKeyUsage: undefined,
    ski: undefined,
    aki: undefined,
    nameConstraints: undefined,
    unknownCritical: NO_NAMES,
  };
}

/** Reads `Extensions` (a SEQUENCE OF Extension) of a certificate or a request, each OID at most once, and calls `visit` for each. */
export function eachExtension(list: DerReader, visit: (oid: string, critical: boolean, value: Buffer) => void): void {
  const seen = new Set<string>();
  while (!list.done) {
    const extension = list.enter(TAG.sequence);
    const oid = extension.oid();
    if (seen.has(oid)) throw derFault('X509_EXTENSION_REPEATED', `the extension ${oidText(oid)} twice`);
    seen.add(oid);
    if (seen.size > MAX_EXTENSIONS) throw derFault('X509_TOO_LARGE', `more than ${MAX_EXTENSIONS} extensions`);
    let critical = false;
    if (extension.peek() === TAG.boolean) {
      critical = extension.boolean();
      if (!critical) throw derFault('DER_DEFAULT', 'a default value that is written out');
    }
    const value = extension.take(TAG.octetString);
    extension.close();
    visit(oid, critical, value);
  }
}

function readExtensionList(field: DerReader): Extensions {
  const found = noExtensions();
  const list = field.enter(TAG.sequence);
  field.close();
  if (list.done) throw derFault('X509_EXTENSION', 'an empty list of extensions');
  const unknown: string[] = [];
  eachExtension(list, (oid, critical, value) => {
    const read = READERS.get(oid);
    if (read) read(found, value, critical);
    else if (critical) unknown.push(oidText(oid));
  });
  if (unknown.length > 0) found.unknownCritical = unknown;
  return found;
}

type ExtensionReader = (found: Extensions, value: Buffer, critical: boolean) => void;

const READERS: ReadonlyMap<string, ExtensionReader> = new Map<string, ExtensionReader>([
  [
    oidKey('2.5.29.19'),
    (found, value, critical) => {
      const constraints = readWhole(value, TAG.sequence);
      found.hasBasicConstraints = true;
      found.basicConstraintsCritical = critical;
      // cA FALSE written out is not DER, yet old issuers do it and every reader takes it; it changes nothing.
      if (constraints.peek() === TAG.boolean) found.isCa = constraints.boolean();
      if (!constraints.done) {
        found.pathLen = constraints.smallInteger();
        if (!found.isCa) throw derFault('X509_BASIC_CONSTRAINTS', 'a path length on a certificate that is no CA');
      }
      constraints.close();
    },
  ],
  [
    oidKey('2.5.29.15'),
    (found, value, critical) => {
      const usage = new DerReader(value);
      found.keyUsageBits = usage.namedBits();
      usage.close();
      found.keyUsageCritical = critical;
      if (found.keyUsageBits === 0) throw derFault('X509_KEY_USAGE', 'a key usage without a single bit');
    },
  ],
  [
    oidKey('2.5.29.37'),
    (found, value) => {
      const purposes = readWhole(value, TAG.sequence);
      const oids: string[] = [];
      while (!purposes.done) oids.push(oidText(purposes.oid()));
      if (oids.length === 0) throw derFault('X509_EXT_KEY_USAGE', 'an empty extended key usage');
      found.extKeyUsage = oids;
    },
  ],
  [
    oidKey('2.5.29.17'),
    (found, value, critical) => {
      const names = readAltNames(value);
      found.uris = names.uris;
      found.dnsNames = names.dnsNames;
      found.otherNames = names.otherNames;
      found.sanTags = names.tags;
      found.directoryNames = names.directoryNames;
      found.sanCritical = critical;
    },
  ],
  [
    oidKey('2.5.29.14'),
    (found, value, critical) => {
      // RFC 5280 §4.2.1.1, §4.2.1.2: neither identifier is ever critical, and Go reads no certificate where one is.
      if (critical) throw derFault('X509_EXTENSION', 'a critical subject key identifier');
      const identifier = new DerReader(value);
      found.ski = identifier.take(TAG.octetString);
      identifier.close();
      if (found.ski.length === 0) throw derFault('X509_EXTENSION', 'an empty subject key identifier');
    },
  ],
  [
    oidKey('2.5.29.35'),
    (found, value, critical) => {
      if (critical) throw derFault('X509_EXTENSION', 'a critical authority key identifier');
      const identifier = readWhole(value, TAG.sequence);
      if (identifier.peek() === 0x80) found.aki = identifier.take(0x80);
      // Of no use to us, but malformed they would end the reading of others.
      if (identifier.peek() === 0xa1) readAltNames(der(TAG.sequence, identifier.take(0xa1)));
      if (identifier.peek() === 0x82) new DerReader(der(TAG.integer, identifier.take(0x82))).integer();
      identifier.close();
    },
  ],
  [
    oidKey('2.5.29.30'),
    (found, value) => {
      found.nameConstraints = readNameConstraints(value);
    },
  ],
  // certificatePolicies: we accept any policy, and a certificate that demands one has a critical policyConstraints, which we refuse.
  [oidKey('2.5.29.32'), (_found, value) => checkPolicies(value)],
]);

/** RFC 5280 §4.2.1.4: one or more, each once; qualifiers are for people. */
function checkPolicies(value: Buffer): void {
  const policies = readWhole(value, TAG.sequence);
  const seen = new Set<string>();
  if (policies.done) throw derFault('X509_EXTENSION', 'an empty list of policies');
  while (!policies.done) {
    const policy = policies.enter(TAG.sequence);
    const oid = policy.oid();
    if (seen.has(oid)) throw derFault('X509_EXTENSION', `the policy ${oidText(oid)} twice`);
    seen.add(oid);
    if (!policy.done) policy.take(TAG.sequence);
    policy.close();
  }
}

/** @param value the contents of a subjectAltName extension, from a certificate or a request. */
export function readAltNames(
  value: Buffer,
): SubjectAltNames & { readonly tags: ReadonlySet<number>; readonly directoryNames: readonly Buffer[] } {
  const names = readWhole(value, TAG.sequence);
  const uris: string[] = [];
  const dnsNames: string[] = [];
  const directoryNames: Buffer[] = [];
  const tags = new Set<number>();
  let otherNames = 0;
  let all = 0;
  while (!names.done) {
    const { tag, contents } = names.any();
    if (!GENERAL_NAME_TAGS.has(tag))
      throw derFault('X509_SAN', `a subject alternative name of an unknown form (tag 0x${tag.toString(16)})`);
    if (++all > MAX_NAMES) throw derFault('X509_TOO_LARGE', `more than ${MAX_NAMES} subject alternative names`);
    tags.add(tag);
    if (tag === GENERAL_NAME.uri) uris.push(ia5(contents, 'URI'));
    else if (tag === GENERAL_NAME.dns) dnsNames.push(ia5(contents, 'DNS'));
    else {
      otherNames++;
      checkOtherName(tag, contents);
      if (tag === GENERAL_NAME.directory) directoryNames.push(contents);
    }
  }
  if (all === 0) throw derFault('X509_SAN', 'an empty subject alternative name');
  return { uris, dnsNames, otherNames, tags, directoryNames };
}

/** The forms that we do not use: another reader that finds one of them malformed may see none of the names. */
function checkOtherName(tag: number, contents: Buffer): void {
  if (tag === GENERAL_NAME.directory) checkName(contents);
  else if (tag === GENERAL_NAME.email) ia5(contents, 'email');
  else if (tag === GENERAL_NAME.registeredId) readWhole(der(TAG.sequence, der(TAG.oid, contents)), TAG.sequence).oid();
  else if (tag === GENERAL_NAME.ip) {
    if (contents.length !== 4 && contents.length !== 16)
      throw derFault('X509_SAN', `an IP subject alternative name of ${contents.length} octets`);
  } else if (tag === GENERAL_NAME.otherName) {
    const name = new DerReader(contents);
    name.oid();
    const value = name.enter(0xa0);
    value.any();
    value.close();
    name.close();
  }
}

/** Printable ASCII without the space: a NUL or a comma's neighbour can fool whoever prints or splits the name later. */
function ia5(contents: Buffer, what: string): string {
  for (const octet of contents) {
    if (octet < 0x21 || octet > 0x7e)
      throw derFault('X509_SAN_CHAR', `a ${what} subject alternative name with a character that is not printable ASCII`);
  }
  if (contents.length === 0) throw derFault('X509_SAN', `an empty ${what} subject alternative name`);
  return contents.toString('latin1');
}

function readNameConstraints(value: Buffer): NameConstraints {
  const constraints = readWhole(value, TAG.sequence);
  const none: Subtrees = { uris: [], dns: [], directories: [], others: NO_TAGS };
  const permitted = constraints.peek() === 0xa0 ? readSubtrees(constraints.enter(0xa0)) : none;
  const excluded = constraints.peek() === 0xa1 ? readSubtrees(constraints.enter(0xa1)) : none;
  constraints.close();
  if (permitted === none && excluded === none) throw derFault('X509_NAME_CONSTRAINTS', 'name constraints that constrain nothing');
  return { permitted, excluded };
}

function readSubtrees(list: DerReader): Subtrees {
  const uris: string[] = [];
  const dns: string[] = [];
  const directories: Buffer[] = [];
  const others = new Set<number>();
  if (list.done) throw derFault('X509_NAME_CONSTRAINTS', 'an empty list of name constraints');
  while (!list.done) {
    const subtree = list.enter(TAG.sequence);
    const { tag, contents } = subtree.any();
    // RFC 5280 §4.2.1.10: minimum is 0 (and so not written), maximum is absent.
    subtree.close();
    if (tag === GENERAL_NAME.uri || tag === GENERAL_NAME.dns) {
      const text = contents.toString('latin1');
      if (!CONSTRAINT.test(text))
        throw derFault('X509_NAME_CONSTRAINTS', `the name constraint ${JSON.stringify(text.slice(0, 100))} is no host`);
      (tag === GENERAL_NAME.uri ? uris : dns).push(text.toLowerCase());
    } else if (tag === GENERAL_NAME.directory) {
      checkName(contents);
      directories.push(contents);
    } else if (GENERAL_NAME_TAGS.has(tag)) others.add(tag);
    else throw derFault('X509_NAME_CONSTRAINTS', `a name constraint of an unknown form (tag 0x${tag.toString(16)})`);
  }
  return { uris, dns, directories, others };
}

/** A host or a domain with a leading dot; empty means every name. Nothing with a scheme, a port or a wildcard. */
const CONSTRAINT = /^\.?[A-Za-z0-9._-]*$/;
