/** Certificate signing requests (PKCS#10): ours built, a stranger's read strictly. From a good one only the public key goes on. */
import { type KeyKind, keyKindText, keyWeakness } from '../../spiffe/key-kind.ts';
import { createPublicKey, type KeyObject } from 'node:crypto';
import { eachExtension, readAltNames, type SubjectAltNames } from '../../spiffe/x509/certificate.ts';
import { type DerReader, der, derBits, derFault, derOid, oidKey, readWhole, TAG } from '../../spiffe/x509/der.ts';
import { fits, type SignatureAlgorithm, takeSignatureAlgorithm, verifySignature } from '../../spiffe/x509/signature-algorithm.ts';
import { importSpki, type Spki, takeSpki } from '../../spiffe/x509/spki.ts';
import { checkName, type Name, nameText, readName } from '../../spiffe/x509/x500-name.ts';
import { fail } from '../errors.ts';
import { type Signer, signCertificate, signWithKey } from './key.ts';
import { nameDer, type Subject, SVID_SUBJECT, subjectAltName } from '../../spiffe/x509/parts.ts';

/** A request of 500 DNS names fits many times; what one stranger may make us read. */
export const MAX_CSR_BYTES = 64 * 1024;

export interface Csr extends SubjectAltNames {
  readonly raw: Buffer;
  readonly spki: Spki;
  readonly spkiDer: Buffer;
  readonly keyKind: KeyKind;
  /** Imported on the first call and kept. */
  readonly publicKey: KeyObject;
  /** Raw Name. */
  readonly subject: Buffer;
  readonly subjectName: Name;
  readonly subjectText: string;
  /** Throws REQUEST_INVALID with CSR_SIGNATURE unless the owner of the key signed the request. */
  verifySignature(): void;
}

class ParsedCsr implements Csr {
  readonly raw: Buffer;
  readonly spki: Spki;
  readonly subject: Buffer;
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  readonly otherNames: number;
  readonly #signed: Buffer;
  readonly #algorithm: SignatureAlgorithm;
  readonly #signature: Buffer;
  #publicKey: KeyObject | undefined;

  constructor(raw: Buffer) {
    const request = readWhole(raw, TAG.sequence);
    this.raw = raw;
    this.#signed = request.raw(TAG.sequence);
    const algorithm = takeSignatureAlgorithm(request);
    this.#signature = request.octetAlignedBits();
    request.close();

    const info = readWhole(this.#signed, TAG.sequence);
    if (info.smallInteger() !== 0) throw derFault('CSR_VERSION', 'a version other than 1');
    this.subject = info.raw(TAG.sequence);
    checkName(this.subject);
    this.spki = takeSpki(info);
    // [0] IMPLICIT SET OF: RFC 2986 wants the empty set written, some builders leave it out.
    const names = info.done ? NO_NAMES : readAttributes(info.enter(0xa0));
    info.close();
    this.uris = names.uris;
    this.dnsNames = names.dnsNames;
    this.otherNames = names.otherNames;

    const weakness = keyWeakness(this.spki.kind);
    if (weakness) throw derFault(weakness.reason, weakness.why);
    if (!algorithm.algorithm) throw derFault('CSR_SIGNATURE_ALGORITHM', `the signature algorithm ${algorithm.name} is not supported`);
    if (!fits(algorithm.algorithm, this.spki.kind)) {
      throw derFault(
        'CSR_SIGNATURE_ALGORITHM',
        `the signature algorithm ${algorithm.name} does not fit a key of ${keyKindText(this.spki.kind)}`,
      );
    }
    this.#algorithm = algorithm.algorithm;
  }

  get spkiDer(): Buffer {
    return this.spki.der;
  }

  get keyKind(): KeyKind {
    return this.spki.kind;
  }

  get publicKey(): KeyObject {
    this.#publicKey ??= importSpki(this.spki);
    return this.#publicKey;
  }

  get subjectName(): Name {
    return readName(this.subject);
  }

  get subjectText(): string {
    return nameText(this.subjectName);
  }

  verifySignature(): void {
    if (!verifySignature(this.#algorithm, this.#signed, this.publicKey, this.#signature)) {
      throw fail('REQUEST_INVALID', 'invalid CSR signature', { reason: 'CSR_SIGNATURE' });
    }
  }
}

const NO_NAMES: SubjectAltNames = { uris: [], dnsNames: [], otherNames: 0 };
const EXTENSION_REQUEST = oidKey('1.2.840.113549.1.9.14');
const SUBJECT_ALT_NAME = oidKey('2.5.29.17');

function readAttributes(attributes: DerReader): SubjectAltNames {
  let names = NO_NAMES;
  let seen = false;
  for (let count = 0; !attributes.done; count++) {
    if (count === 32) throw derFault('CSR_TOO_LARGE', 'more than 32 attributes');
    const attribute = attributes.enter(TAG.sequence);
    const oid = attribute.oid();
    const values = attribute.enter(TAG.set);
    attribute.close();
    if (oid !== EXTENSION_REQUEST) continue;
    if (seen) throw derFault('X509_EXTENSION_REPEATED', 'two extension requests');
    seen = true;
    const list = values.enter(TAG.sequence);
    values.close();
    eachExtension(list, (extension, _critical, value) => {
      if (extension === SUBJECT_ALT_NAME) names = readAltNames(value);
    });
  }
  return names;
}

/** @param bytes exactly one request of at most 64 KiB; copied. Not yet verified. Throws REQUEST_INVALID with a DER_, CSR_, KEY_ or X509_ reason. */
export function parseCsr(bytes: Uint8Array): Csr {
  if (bytes.length > MAX_CSR_BYTES) throw fail('REQUEST_INVALID', `a CSR of more than ${MAX_CSR_BYTES} bytes`, { reason: 'CSR_TOO_LARGE' });
  return new ParsedCsr(Buffer.from(bytes));
}

export interface CsrContents {
  /** A raw Name, or its parts. Left out: SPIRE's own, `C=US, O=SPIRE`. */
  readonly subject?: Subject;
  readonly uri?: string;
  readonly dns?: readonly string[];
}

/** For a key that its owner holds: signed at once. */
export function buildCsr(contents: CsrContents & { readonly key: KeyObject }): Buffer {
  const spki = createPublicKey(contents.key).export({ type: 'spki', format: 'der' });
  const info = requestInfo(contents, spki);
  const { algorithm, signature } = signWithKey(contents.key, info);
  return der(TAG.sequence, info, algorithm.der, derBits(signature));
}

/** For a key of a key manager. */
export async function buildCsrWith(contents: CsrContents & { readonly key: Signer }): Promise<Buffer> {
  const info = requestInfo(contents, contents.key.spkiDer);
  const { algorithm, signature } = await signCertificate(contents.key, info);
  return der(TAG.sequence, info, algorithm.der, derBits(signature));
}

function requestInfo(contents: CsrContents, spkiDer: Buffer): Buffer {
  const dns = contents.dns ?? [];
  const uris = contents.uri === undefined ? [] : [contents.uri];
  const attributes =
    uris.length + dns.length === 0
      ? []
      : [der(TAG.sequence, derOid('1.2.840.113549.1.9.14'), der(TAG.set, der(TAG.sequence, subjectAltName(uris, dns, false))))];
  return der(TAG.sequence, VERSION_1, nameDer(contents.subject ?? SVID_SUBJECT), spkiDer, der(0xa0, ...attributes));
}

const VERSION_1 = der(TAG.integer, Buffer.from([0]));
