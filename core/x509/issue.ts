/** Issuing: X.509-SVIDs and the signing certificates above them, written lean and read back before anybody gets them. */
import { keyWeakness } from '../../spiffe/key-kind.ts';
import { createHash, randomBytes } from 'node:crypto';
import { Certificate, EKU } from '../../spiffe/x509/certificate.ts';
import { der, derBits, derTime, derUnsigned, TAG } from '../../spiffe/x509/der.ts';
import type { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { checkAuthority, leafId } from '../../spiffe/x509/profile.ts';
import { readSpki } from '../../spiffe/x509/spki.ts';
import { fail } from '../errors.ts';
import { buildCsrWith } from './csr.ts';
import { type Signer, signCertificate, signerAlgorithm } from './key.ts';
import {
  akiExtension,
  basicConstraintsExtension,
  extKeyUsageExtension,
  keyUsageExtension,
  nameDer,
  nameWith,
  type Subject,
  SVID_SUBJECT,
  skiExtension,
  subjectAltName,
  uriNameConstraintsExtension,
} from '../../spiffe/x509/parts.ts';

/** Who signs: the certificate names it, the key is its own. */
export interface Issuer {
  readonly certificate: Certificate;
  readonly key: Signer;
}

export interface Issued {
  readonly der: Buffer;
  /** What we wrote, read back and judged by the profile. */
  readonly certificate: Certificate;
}

const VERSION_3 = der(0xa0, der(TAG.integer, Buffer.from([2])));
const LEAF_USAGE = keyUsageExtension(['digitalSignature', 'keyEncipherment', 'keyAgreement']);
const LEAF_PURPOSES = extKeyUsageExtension([EKU.serverAuth, EKU.clientAuth]);
const LEAF_CONSTRAINTS = basicConstraintsExtension(undefined);
const CA_USAGE = keyUsageExtension(['keyCertSign', 'cRLSign']);
const LEAF_SUBJECT = nameDer(SVID_SUBJECT);

/** RFC 5280 §4.2.1.2 (1), as SPIRE: SHA-1 as a name, not as protection. */
export function keyId(spkiDer: Buffer): Buffer {
  return createHash('sha1').update(readSpki(spkiDer).bits).digest();
}

/** 16 random octets, never zero. */
function newSerial(): Buffer {
  for (;;) {
    const serial = randomBytes(16);
    if (serial.some((octet) => octet !== 0)) return serial;
  }
}

export interface X509SvidTemplate {
  readonly issuer: Issuer;
  /** The key of the one who asks: from a request whose signature was verified. */
  readonly spkiDer: Buffer;
  /** With a path. */
  readonly spiffeId: SpiffeId;
  /** The first becomes the common name, as in SPIRE. */
  readonly dnsNames?: readonly string[];
  readonly notBeforeMs: number;
  /** At most the issuer's own end, else the call is refused: cap it with `capNotAfter` first. */
  readonly notAfterMs: number;
  /** Left out: `C=US, O=SPIRE`. */
  readonly subject?: Subject;
}

/**
 * An X.509-SVID (SPIRE's template: three key usages, both purposes, CA:FALSE, key identifiers, a serial of 128 random bits).
 * Throws SVID_INVALID where the profile forbids it, REQUEST_INVALID for a key or name that may not be, SVID_EXPIRED with
 * X509_OUTLIVES_ISSUER, and what the signer throws.
 */
export async function issueX509Svid(template: X509SvidTemplate): Promise<Issued> {
  const { issuer, spiffeId } = template;
  const dns = template.dnsNames ?? [];
  const [commonName] = dns;
  let subject = template.subject === undefined ? LEAF_SUBJECT : nameDer(template.subject);
  // RFC 5280 allows 64 characters of common name; a longer first name stays a SAN alone.
  if (commonName !== undefined && commonName.length <= 64) subject = nameWith(template.subject ?? SVID_SUBJECT, { commonName });
  const issued = await issue(issuer.key, {
    serial: newSerial(),
    issuer: issuer.certificate,
    subject,
    spkiDer: template.spkiDer,
    notBeforeMs: template.notBeforeMs,
    notAfterMs: template.notAfterMs,
    extensions: [LEAF_USAGE, LEAF_PURPOSES, LEAF_CONSTRAINTS],
    // X509-8: critical when the subject is empty.
    san: subjectAltName([spiffeId.toString()], dns, subject.length === 2),
  });
  const id = leafId(issued.certificate, 'issued');
  if (!id.equals(spiffeId)) throw fail('INTERNAL', `issued ${id} where ${spiffeId} was meant`);
  return issued;
}

export interface X509CaTemplate {
  /** `self`: a root, signed by its own `key`. */
  readonly issuer: Issuer | 'self';
  /** The key of the new authority: needed to sign a root, else only its public half is used. */
  readonly key: Pick<Signer, 'spkiDer'> & Partial<Signer>;
  readonly trustDomain: TrustDomain;
  readonly subject: Subject;
  /** Adds the serial number of the certificate to its subject, as SPIRE does, so that two authorities never share a name. Default true. */
  readonly serialInSubject?: boolean;
  /** Left out: no limit. */
  readonly pathLen?: number;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Permitted URI hosts (X509-19). Left out: none are written. */
  readonly permittedUriHosts?: readonly string[];
}

/** A signing certificate with the trust domain's SPIFFE ID. Throws as `issueX509Svid` does, and FAILED_PRECONDITION where the issuer's path length forbids it. */
export async function issueX509Ca(template: X509CaTemplate): Promise<Issued> {
  const { issuer, key, trustDomain, pathLen } = template;
  if (pathLen !== undefined && !(Number.isInteger(pathLen) && pathLen >= 0 && pathLen < 128)) {
    throw fail('REQUEST_INVALID', `a path length of ${pathLen}`, { reason: 'X509_BASIC_CONSTRAINTS' });
  }
  let signer: Signer;
  if (issuer !== 'self') {
    signer = issuer.key;
    const above = issuer.certificate.pathLen;
    if (above === 0)
      throw fail('FAILED_PRECONDITION', `${issuer.certificate} has pathlen:0 and can sign no CA`, { reason: 'X509_PATH_LEN' });
    if (above !== undefined && pathLen !== undefined && pathLen > above - 1) {
      throw fail('FAILED_PRECONDITION', `pathlen:${pathLen} below ${issuer.certificate}, which has pathlen:${above}`, {
        reason: 'X509_PATH_LEN',
      });
    }
  } else if (key.sign) signer = key as Signer;
  else throw fail('INTERNAL', 'a root cannot be signed without its key');
  const serial = newSerial();
  const subject =
    template.serialInSubject === false
      ? nameDer(template.subject)
      : nameWith(template.subject, { serialNumber: BigInt(`0x${serial.toString('hex')}`).toString() });
  const issued = await issue(signer, {
    serial,
    issuer: issuer === 'self' ? undefined : issuer.certificate,
    subject,
    spkiDer: key.spkiDer,
    notBeforeMs: template.notBeforeMs,
    notAfterMs: template.notAfterMs,
    extensions: [
      CA_USAGE,
      basicConstraintsExtension({ pathLen }),
      ...(template.permittedUriHosts ? [uriNameConstraintsExtension(template.permittedUriHosts)] : []),
    ],
    san: subjectAltName([trustDomain.id.toString()], [], subject.length === 2),
  });
  checkAuthority(issued.certificate, 'issued', trustDomain);
  return issued;
}

/** The request that an upstream authority signs: subject and the trust domain's SPIFFE ID (X509-10). */
export function buildCaCsr(request: {
  readonly key: Signer;
  readonly trustDomain: TrustDomain;
  readonly subject: Subject;
}): Promise<Buffer> {
  return buildCsrWith({ key: request.key, subject: request.subject, uri: request.trustDomain.id.toString() });
}

/** The end of what an issuer may sign: no SVID outlives it. */
export function capNotAfter(issuer: Certificate, notAfterMs: number): number {
  return Math.min(notAfterMs, issuer.notAfterMs);
}

interface Contents {
  readonly serial: Buffer;
  /** Undefined: self-signed. */
  readonly issuer: Certificate | undefined;
  readonly subject: Buffer;
  readonly spkiDer: Buffer;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly extensions: readonly Buffer[];
  readonly san: Buffer;
}

async function issue(signer: Signer, contents: Contents): Promise<Issued> {
  const { issuer, subject, spkiDer, notBeforeMs, notAfterMs } = contents;
  const spki = readSpki(spkiDer);
  const weakness = keyWeakness(spki.kind);
  if (weakness) throw fail('REQUEST_INVALID', `cannot certify ${weakness.why}`, { reason: weakness.reason });
  if (!(Number.isFinite(notBeforeMs) && Number.isFinite(notAfterMs)) || notAfterMs <= notBeforeMs) {
    throw fail('REQUEST_INVALID', 'a certificate that would end before it begins', { reason: 'X509_VALIDITY' });
  }
  if (issuer) {
    checkIssuer(issuer, signer);
    if (Math.floor(notAfterMs / 1000) > Math.floor(issuer.notAfterMs / 1000)) {
      throw fail(
        'SVID_EXPIRED',
        `a certificate until ${new Date(notAfterMs).toISOString()} would outlive ${issuer}, which ends ${new Date(issuer.notAfterMs).toISOString()}`,
        {
          reason: 'X509_OUTLIVES_ISSUER',
        },
      );
    }
  }
  const ski = createHash('sha1').update(spki.bits).digest();
  const aki = issuer ? (issuer.ski ?? createHash('sha1').update(issuer.spki.bits).digest()) : ski;
  const algorithm = signerAlgorithm(signer);
  const tbs = der(
    TAG.sequence,
    VERSION_3,
    derUnsigned(contents.serial),
    algorithm.der,
    issuer?.subject ?? subject,
    der(TAG.sequence, derTime(notBeforeMs), derTime(notAfterMs)),
    subject,
    spkiDer,
    der(0xa3, der(TAG.sequence, ...contents.extensions, skiExtension(ski), akiExtension(aki), contents.san)),
  );
  const { signature } = await signCertificate(signer, tbs);
  const certificate = Certificate.parse(der(TAG.sequence, tbs, algorithm.der, derBits(signature)));
  return { der: certificate.raw, certificate };
}

/** The certificate must be a CA's, and of this key: checked each time, since a mix-up here would sign what nobody accepts. */
function checkIssuer(issuer: Certificate, signer: Signer): void {
  checkAuthority(issuer, 'peer');
  if (!issuer.spkiDer.equals(signer.spkiDer))
    throw fail('INTERNAL', `the signing key is not the key of ${issuer}`, { reason: 'KEY_MISMATCH' });
  if (issuer.unknownCritical.length > 0)
    throw fail('FAILED_PRECONDITION', `${issuer} has a critical extension that is not understood`, { reason: 'X509_UNKNOWN_CRITICAL' });
}
