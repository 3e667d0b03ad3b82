/** The parts that certificates and requests are written from: names and extensions, as DER. */
import { type Reason, SpiffeError } from '../errors.ts';
import { SpiffeId } from '../id.ts';
import { type KeyUsage, keyUsageBits } from './certificate.ts';
import { der, derOid, TAG } from './der.ts';
import { checkName, readName } from './x500-name.ts';

/** A subject by its parts, in the order in which Go writes them; or a raw Name, taken as it is. */
export interface SubjectParts {
  readonly country?: readonly string[];
  readonly organization?: readonly string[];
  readonly organizationalUnit?: readonly string[];
  readonly commonName?: string;
  readonly serialNumber?: string;
}
export type Subject = SubjectParts | Buffer;

export const SVID_SUBJECT: SubjectParts = { country: ['US'], organization: ['SPIRE'] };

const OID = {
  country: derOid('2.5.4.6'),
  organization: derOid('2.5.4.10'),
  organizationalUnit: derOid('2.5.4.11'),
  commonName: derOid('2.5.4.3'),
  serialNumber: derOid('2.5.4.5'),
};
/** RFC 5280 Appendix A: upper bounds; longer ones are refused by OpenSSL's readers. */
const MAX_VALUE = 64;
const PRINTABLE = /^[A-Za-z0-9 '()+,\-./:=?]*$/;

/** The DER of a Name. Throws REQUEST_INVALID for a part that is too long. */
export function nameDer(subject: Subject): Buffer {
  if (Buffer.isBuffer(subject)) {
    checkName(subject);
    return subject;
  }
  const rdns: Buffer[] = [];
  const add = (oid: Buffer, values: readonly string[] | undefined) => {
    if (!values || values.length === 0) return;
    // DER: a SET OF is sorted by its encodings.
    rdns.push(der(TAG.set, ...values.map((value) => der(TAG.sequence, oid, text(value))).sort((a, b) => a.compare(b))));
  };
  add(OID.country, subject.country);
  add(OID.organization, subject.organization);
  add(OID.organizationalUnit, subject.organizationalUnit);
  add(OID.commonName, subject.commonName === undefined ? undefined : [subject.commonName]);
  add(OID.serialNumber, subject.serialNumber === undefined ? undefined : [subject.serialNumber]);
  return der(TAG.sequence, ...rdns);
}

/** The same name with another attribute of its own behind it. */
export function nameWith(subject: Subject, extra: { readonly commonName?: string; readonly serialNumber?: string }): Buffer {
  if (!Buffer.isBuffer(subject)) return nameDer({ ...subject, ...extra });
  const kept = readName(subject)
    .map((rdn) =>
      rdn.filter(
        (attribute) =>
          !(
            (attribute.oid === '2.5.4.3' && extra.commonName !== undefined) ||
            (attribute.oid === '2.5.4.5' && extra.serialNumber !== undefined)
          ),
      ),
    )
    .filter((rdn) => rdn.length > 0)
    .map((rdn) => der(TAG.set, ...rdn.map((attribute) => der(TAG.sequence, derOid(attribute.oid), attribute.der))));
  const added = nameDer(extra);
  return der(TAG.sequence, ...kept, added.subarray(added.length - contentsLength(added)));
}

/** The octets behind tag and length. */
function contentsLength(value: Buffer): number {
  const first = value[1] as number;
  return value.length - 2 - (first < 0x80 ? 0 : first & 0x7f);
}

function text(value: string): Buffer {
  if (value === '' || value.length > MAX_VALUE)
    throw invalid('X509_NAME', `the name part ${JSON.stringify(value.slice(0, 100))} must have 1 to ${MAX_VALUE} characters`);
  return PRINTABLE.test(value) ? der(TAG.printableString, Buffer.from(value, 'latin1')) : der(TAG.utf8String, Buffer.from(value, 'utf8'));
}

const CRITICAL = der(TAG.boolean, Buffer.from([0xff]));

export function extension(oid: Buffer, critical: boolean, value: Buffer): Buffer {
  const octets = der(TAG.octetString, value);
  return critical ? der(TAG.sequence, oid, CRITICAL, octets) : der(TAG.sequence, oid, octets);
}

const EXTENSION = {
  ski: derOid('2.5.29.14'),
  keyUsage: derOid('2.5.29.15'),
  san: derOid('2.5.29.17'),
  basicConstraints: derOid('2.5.29.19'),
  nameConstraints: derOid('2.5.29.30'),
  aki: derOid('2.5.29.35'),
  extKeyUsage: derOid('2.5.29.37'),
};

export function keyUsageExtension(usages: Iterable<KeyUsage>): Buffer {
  const bits = keyUsageBits(usages);
  const octets = bits & 0xff ? [bits >> 8, bits & 0xff] : [bits >> 8];
  const last = octets[octets.length - 1] as number;
  const unused = Math.log2(last & -last);
  return extension(EXTENSION.keyUsage, true, der(TAG.bitString, Buffer.from([unused, ...octets])));
}

export function extKeyUsageExtension(oids: readonly string[]): Buffer {
  return extension(EXTENSION.extKeyUsage, false, der(TAG.sequence, ...oids.map(derOid)));
}

/** @param ca undefined: CA:FALSE. */
export function basicConstraintsExtension(ca: { readonly pathLen?: number | undefined } | undefined): Buffer {
  const contents = ca === undefined ? [] : ca.pathLen === undefined ? [CRITICAL] : [CRITICAL, der(TAG.integer, Buffer.from([ca.pathLen]))];
  return extension(EXTENSION.basicConstraints, true, der(TAG.sequence, ...contents));
}

export function skiExtension(ski: Buffer): Buffer {
  return extension(EXTENSION.ski, false, der(TAG.octetString, ski));
}

export function akiExtension(aki: Buffer): Buffer {
  return extension(EXTENSION.aki, false, der(TAG.sequence, der(0x80, aki)));
}

/** Permitted URI hosts and below them (X509-19, X509-52). */
export function uriNameConstraintsExtension(hosts: readonly string[]): Buffer {
  const subtrees = hosts.map((host) => der(TAG.sequence, der(0x86, Buffer.from(host, 'latin1'))));
  return extension(EXTENSION.nameConstraints, true, der(TAG.sequence, der(0xa0, ...subtrees)));
}

const DNS_LABEL = /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/;

/** A DNS name as certificates may carry it: labels of letters, digits, `-` and `_`; the first may be `*`. Throws REQUEST_INVALID. */
export function checkDnsName(name: string): void {
  if (name.trim() === '') throw invalid('X509_SAN', 'empty or only whitespace');
  const labels = name.split('.');
  const plain = labels[0] === '*' && labels.length > 1 ? labels.slice(1) : labels;
  if (name.length > 253 || !plain.every((label) => DNS_LABEL.test(label))) {
    throw invalid('X509_SAN', `${JSON.stringify(name.slice(0, 300))} is not a valid DNS name`);
  }
}

/** Throws REQUEST_INVALID for a DNS name that is none, ID_INVALID for a URI that is no SPIFFE ID. */
export function subjectAltName(uris: readonly string[], dns: readonly string[], critical: boolean): Buffer {
  for (const name of dns) checkDnsName(name);
  for (const uri of uris) SpiffeId.parse(uri);
  return altNames(uris, dns, critical);
}

/** The same for names that nobody has looked at. @param uris ASCII */
export function altNames(uris: readonly string[], dns: readonly string[], critical: boolean): Buffer {
  const names = [...dns.map((name) => der(0x82, Buffer.from(name, 'latin1'))), ...uris.map((uri) => der(0x86, Buffer.from(uri, 'latin1')))];
  return extension(EXTENSION.san, critical, der(TAG.sequence, ...names));
}

function invalid(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('REQUEST_INVALID', reason, why);
}
