/** Distinguished names (RFC 5280 §4.1.2.4): kept as raw bytes for comparing, read for people and for path templates. */
import { isAscii, isUtf8 } from 'node:buffer';
import { DerReader, derFault, oidKey, oidText, TAG } from './der.ts';

export interface NameAttribute {
  /** Dotted. */
  readonly oid: string;
  readonly value: string;
  /** The value with its tag, for what has no text. */
  readonly der: Buffer;
}

/** RDNs in the order of the certificate; most have one attribute. */
export type Name = readonly (readonly NameAttribute[])[];

/** Walks the structure without decoding text. Values are text, as Go and OpenSSL want it. Throws REQUEST_INVALID. */
export function checkName(der: Buffer): void {
  readRdns(der, (reader) => {
    reader.oid();
    const { tag, contents } = reader.any();
    if (!isText(tag, contents)) throw derFault('X509_NAME', `a name with a value that is no text (tag 0x${tag.toString(16)})`);
  });
}

/** What is no text in its own encoding would be one name to one reader and another to the next. Printable strings in use have all of ASCII. */
function isText(tag: number, contents: Buffer): boolean {
  if (tag === TAG.utf8String) return isUtf8(contents);
  if (tag === TAG.bmpString) return contents.length % 2 === 0;
  if (tag === TAG.teletexString) return true;
  return (tag === TAG.printableString || tag === TAG.ia5String || tag === TAG.numericString) && isAscii(contents);
}

/** @param der one Name, already checked. */
export function readName(der: Buffer): Name {
  return readRdns(der, (reader) => {
    const oid = oidText(reader.oid());
    const from = reader.at;
    const { tag, contents } = reader.any();
    return { oid, value: text(tag, contents), der: reader.bytes.subarray(from, reader.at) };
  });
}

function readRdns<T>(der: Buffer, read: (attribute: DerReader) => T): T[][] {
  const rdns: T[][] = [];
  const outer = new DerReader(der);
  const name = outer.enter(TAG.sequence);
  outer.close();
  while (!name.done) {
    const set = name.enter(TAG.set);
    const rdn: T[] = [];
    while (!set.done) {
      const attribute = set.enter(TAG.sequence);
      rdn.push(read(attribute));
      attribute.close();
    }
    if (rdn.length === 0) throw derFault('X509_NAME', 'a name with an empty part');
    rdns.push(rdn);
  }
  return rdns;
}

function text(tag: number, contents: Buffer): string {
  if (tag === TAG.bmpString) return contents.length % 2 === 0 ? Buffer.from(contents).swap16().toString('utf16le') : '';
  if (tag === TAG.utf8String) return contents.toString('utf8');
  return contents.toString('latin1');
}

/** First attribute of that type, or undefined. */
export function nameAttribute(name: Name, oid: string): string | undefined {
  for (const rdn of name) for (const attribute of rdn) if (attribute.oid === oid) return attribute.value;
  return undefined;
}

/** Go's `pkix.Name.String()` prints these under their short names, in this order, each type's values joined by `+`, whatever the order in the certificate. */
const SHORT: readonly (readonly [oid: string, short: string])[] = [
  ['2.5.4.5', 'SERIALNUMBER'],
  ['2.5.4.3', 'CN'],
  ['2.5.4.17', 'POSTALCODE'],
  ['2.5.4.9', 'STREET'],
  ['2.5.4.8', 'ST'],
  ['2.5.4.7', 'L'],
  ['2.5.4.11', 'OU'],
  ['2.5.4.10', 'O'],
  ['2.5.4.6', 'C'],
];
/** Go keeps one of these (the last) where it keeps lists of the others. */
const SINGLE: ReadonlySet<string> = new Set(['2.5.4.3', '2.5.4.5']);

/** As SPIRE's outputs show it: `CN=web,O=SPIRE,C=US`. */
export function nameText(name: Name): string {
  const all = name.flat();
  const parts: string[] = [];
  for (const [oid, short] of SHORT) {
    let values = all.filter((attribute) => attribute.oid === oid && attribute.value !== '').map((attribute) => attribute.value);
    if (SINGLE.has(oid)) values = values.slice(-1);
    if (values.length > 0) parts.push(values.map((value) => `${short}=${escape(value)}`).join('+'));
  }
  const rest = all.filter((attribute) => !SHORT.some(([oid]) => oid === attribute.oid));
  // The types without a short name stand before the others in Go's list and so behind them in its text.
  parts.push(...rest.reverse().map((attribute) => `${attribute.oid}=#${attribute.der.toString('hex')}`));
  return parts.join(',');
}

function escape(value: string): string {
  return value.replace(/[,+"\\<>;]|^ | $|^#/g, (found) => `\\${found}`);
}

/** A form in which two spellings of one name are equal (RFC 5280 §7.1: case and inner spaces do not count). Only for name constraints. */
export function comparableRdns(der: Buffer): readonly string[] {
  return readName(der).map((rdn) =>
    rdn
      .map((attribute) => `${attribute.oid}=${attribute.value.normalize('NFKC').toLowerCase().trim().replace(/\s+/g, ' ')}`)
      .sort()
      .join('+'),
  );
}

export const ATTRIBUTE = {
  commonName: '2.5.4.3',
  serialNumber: '2.5.4.5',
  country: '2.5.4.6',
  organization: '2.5.4.10',
  organizationalUnit: '2.5.4.11',
} as const;

/** Whether a raw Name is the empty one. */
export function isEmptyName(der: Buffer): boolean {
  return der.length === 2;
}

export const EMAIL_ADDRESS = oidText(oidKey('1.2.840.113549.1.9.1'));
