/** DER (X.690): a strict reader that never reads past its bounds and repairs nothing, and a small writer. */
import { type Reason, SpiffeError } from '../errors.ts';

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  numericString: 0x12,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const;

/** The rule that broke, in the code that the innermost `under` of the caller chooses. */
export function derFault(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('REQUEST_INVALID', reason, why);
}

/** A cursor over the contents of one value. Every method throws REQUEST_INVALID with a DER_ reason, or moves on. */
export class DerReader {
  readonly bytes: Buffer;
  readonly end: number;
  #at: number;
  /** Contents of the value that `head` read last. */
  #start = 0;
  #stop = 0;

  constructor(bytes: Buffer, at = 0, end = bytes.length) {
    this.bytes = bytes;
    this.#at = at;
    this.end = end;
  }

  get done(): boolean {
    return this.#at === this.end;
  }

  get at(): number {
    return this.#at;
  }

  /** The next tag, or -1 at the end. */
  peek(): number {
    return this.#at < this.end ? (this.bytes[this.#at] ?? -1) : -1;
  }

  /** Reads tag and length, checks the bounds and moves behind the value. Only definite, minimal lengths below 2^32; no high tag numbers. */
  #head(): number {
    const { bytes, end } = this;
    let at = this.#at;
    if (at + 2 > end) throw derFault('DER_TRUNCATED', 'a value is cut off');
    const tag = bytes[at++] as number;
    if ((tag & 0x1f) === 0x1f) throw derFault('DER_TAG', 'a tag number above 30');
    let length = bytes[at++] as number;
    if (length & 0x80) {
      const octets = length & 0x7f;
      if (octets === 0) throw derFault('DER_LENGTH', 'an indefinite length');
      if (octets > 4) throw derFault('DER_LENGTH', 'a length of more than 4 octets');
      if (at + octets > end) throw derFault('DER_TRUNCATED', 'a length is cut off');
      length = 0;
      for (let i = 0; i < octets; i++) length = length * 256 + (bytes[at++] as number);
      if (length < 0x80 || (octets > 1 && length < 2 ** (8 * (octets - 1)))) throw derFault('DER_LENGTH', 'a length that is not minimal');
    }
    if (length > end - at) throw derFault('DER_TRUNCATED', 'a value reaches past its end');
    this.#start = at;
    this.#stop = at + length;
    this.#at = this.#stop;
    return tag;
  }

  #expect(tag: number): void {
    const found = this.peek();
    if (found === -1) throw derFault('DER_TRUNCATED', `a value with tag 0x${tag.toString(16)} is missing`);
    if (found !== tag) throw derFault('DER_TAG', `tag 0x${found.toString(16)} where 0x${tag.toString(16)} belongs`);
    this.#head();
  }

  /** Goes into a constructed value; the caller closes what it got. */
  enter(tag: number): DerReader {
    this.#expect(tag);
    return new DerReader(this.bytes, this.#start, this.#stop);
  }

  /** The contents of the next value, which must have this tag. */
  take(tag: number): Buffer {
    this.#expect(tag);
    return this.bytes.subarray(this.#start, this.#stop);
  }

  /** The next value whole, with tag and length. */
  raw(tag: number): Buffer {
    const from = this.#at;
    this.#expect(tag);
    return this.bytes.subarray(from, this.#stop);
  }

  /** The next value, whatever it is. */
  any(): { readonly tag: number; readonly contents: Buffer } {
    const tag = this.#head();
    return { tag, contents: this.bytes.subarray(this.#start, this.#stop) };
  }

  /** Refuses bytes behind the last value. */
  close(): void {
    if (this.#at !== this.end) throw derFault('DER_TRAILING', 'bytes behind the last value');
  }

  /** Two's complement, minimal. */
  integer(): Buffer {
    const contents = this.take(TAG.integer);
    const [first, second] = contents;
    if (first === undefined) throw derFault('DER_INTEGER', 'an empty integer');
    if (second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80))) {
      throw derFault('DER_INTEGER', 'an integer that is not minimal');
    }
    return contents;
  }

  /** A non-negative integer below 2^31. */
  smallInteger(): number {
    const contents = this.integer();
    if ((contents[0] as number) >= 0x80 || contents.length > 4) throw derFault('DER_INTEGER', 'an integer out of range');
    return contents.readUIntBE(0, contents.length);
  }

  boolean(): boolean {
    const contents = this.take(TAG.boolean);
    if (contents.length !== 1 || (contents[0] !== 0 && contents[0] !== 0xff))
      throw derFault('DER_BOOLEAN', 'a boolean that is neither 0x00 nor 0xff');
    return contents[0] === 0xff;
  }

  /** A bit string of whole octets: keys and signatures. */
  octetAlignedBits(): Buffer {
    const contents = this.take(TAG.bitString);
    if (contents.length === 0 || contents[0] !== 0)
      throw derFault('DER_BIT_STRING', 'a bit string with unused bits where whole octets belong');
    return contents.subarray(1);
  }

  /** A named bit list: bit 0 is the highest bit of `bits`. At most 16 bits; trailing zero bits are refused as DER asks. */
  namedBits(): number {
    const contents = this.take(TAG.bitString);
    const unused = contents[0];
    const last = contents[contents.length - 1] as number;
    if (unused === undefined || unused > 7 || contents.length > 3) throw derFault('DER_BIT_STRING', 'a malformed bit list');
    if (contents.length === 1) {
      if (unused !== 0) throw derFault('DER_BIT_STRING', 'unused bits in an empty bit list');
      return 0;
    }
    if (((last >> unused) & 1) === 0 || (last & ((1 << unused) - 1)) !== 0)
      throw derFault('DER_BIT_STRING', 'a bit list that is not minimal');
    return ((contents[1] as number) << 8) | (contents[2] ?? 0);
  }

  /** The contents of an object identifier, as a Latin-1 string: a cheap key. `oidText` makes it readable. */
  oid(): string {
    const contents = this.take(TAG.oid);
    if (contents.length === 0 || contents.length > 64 || (contents[contents.length - 1] as number) >= 0x80) {
      throw derFault('DER_OID', 'a malformed object identifier');
    }
    let fresh = true;
    for (const octet of contents) {
      if (fresh && octet === 0x80) throw derFault('DER_OID', 'an object identifier that is not minimal');
      fresh = octet < 0x80;
    }
    return contents.toString('latin1');
  }

  /** UTCTime or GeneralizedTime in the only form that RFC 5280 §4.1.2.5 allows: seconds, `Z`, no fraction. Milliseconds since 1970. */
  time(): number {
    const tag = this.peek();
    const text = this.any().contents.toString('latin1');
    const wrong = () => derFault('DER_TIME', `a malformed time ${JSON.stringify(text.slice(0, 32))}`);
    let full: string;
    if (tag === TAG.utcTime && text.length === 13) full = `${text < '50' ? '20' : '19'}${text}`;
    else if (tag === TAG.generalizedTime && text.length === 15) full = text;
    else throw wrong();
    if (!TIME.test(full)) throw wrong();
    const part = (from: number, to: number) => Number(full.slice(from, to));
    const [month, day, hour, minute, second] = [part(4, 6), part(6, 8), part(8, 10), part(10, 12), part(12, 14)];
    const date = new Date(0);
    // Not Date.UTC(year, …): that takes the years 0 to 99 for 1900 to 1999.
    date.setUTCFullYear(part(0, 4), month - 1, day);
    if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day || hour > 23 || minute > 59 || second > 59) throw wrong();
    return date.getTime() + ((hour * 60 + minute) * 60 + second) * 1000;
  }
}

const TIME = /^\d{14}Z$/;

/** A reader inside the one value that `bytes` must be, nothing behind it. */
export function readWhole(bytes: Buffer, tag: number): DerReader {
  const outer = new DerReader(bytes);
  const inner = outer.enter(tag);
  outer.close();
  return inner;
}

/** Writes one value. */
export function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  let length = 0;
  for (const part of parts) length += part.length;
  const octets = length < 0x80 ? 0 : length < 0x100 ? 1 : length < 0x10000 ? 2 : length < 0x1000000 ? 3 : 4;
  const out = Buffer.allocUnsafe(2 + octets + length);
  out[0] = tag;
  let at = 2 + octets;
  if (octets === 0) out[1] = length;
  else {
    out[1] = 0x80 | octets;
    out.writeUIntBE(length, 2, octets);
  }
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** An INTEGER from unsigned big-endian octets, which need not be minimal. */
export function derUnsigned(octets: Uint8Array): Buffer {
  let from = 0;
  while (from < octets.length - 1 && octets[from] === 0) from++;
  const minimal = octets.subarray(from);
  return (minimal[0] ?? 0) >= 0x80 ? der(TAG.integer, ZERO, minimal) : der(TAG.integer, minimal.length ? minimal : ZERO);
}

export function derBits(octets: Uint8Array): Buffer {
  return der(TAG.bitString, ZERO, octets);
}

/** UTCTime until 2049, then GeneralizedTime (RFC 5280 §4.1.2.5). Fractions of a second are cut off. */
export function derTime(ms: number): Buffer {
  const iso = new Date(ms).toISOString();
  // A year above 9999 or below 0 is written with a sign, and no certificate can carry it.
  if (iso.length !== 24) throw derFault('DER_TIME', `the year of ${iso} does not fit a certificate`);
  const text = `${iso.slice(0, 4)}${iso.slice(5, 7)}${iso.slice(8, 10)}${iso.slice(11, 13)}${iso.slice(14, 16)}${iso.slice(17, 19)}Z`;
  return iso >= '1950' && iso < '2050'
    ? der(TAG.utcTime, Buffer.from(text.slice(2), 'latin1'))
    : der(TAG.generalizedTime, Buffer.from(text, 'latin1'));
}

export function derOid(dotted: string): Buffer {
  return der(TAG.oid, Buffer.from(oidKey(dotted), 'latin1'));
}

/** `2.5.29.17` → the key that `DerReader.oid` gives. */
export function oidKey(dotted: string): string {
  const arcs = dotted.split('.').map(Number);
  const octets: number[] = [];
  for (const arc of [(arcs[0] ?? 0) * 40 + (arcs[1] ?? 0), ...arcs.slice(2)]) {
    const groups = [arc % 128];
    for (let rest = Math.floor(arc / 128); rest > 0; rest = Math.floor(rest / 128)) groups.unshift((rest % 128) | 0x80);
    octets.push(...groups);
  }
  return String.fromCharCode(...octets);
}

/** The dotted form of a key that `DerReader.oid` gave. */
export function oidText(key: string): string {
  const arcs: bigint[] = [];
  let arc = 0n;
  for (let i = 0; i < key.length; i++) {
    const octet = key.charCodeAt(i);
    arc = (arc << 7n) | BigInt(octet & 0x7f);
    if (octet < 0x80) {
      if (arcs.length === 0) {
        const top = arc < 40n ? 0n : arc < 80n ? 1n : 2n;
        arcs.push(top, arc - top * 40n);
      } else arcs.push(arc);
      arc = 0n;
    }
  }
  return arcs.join('.');
}

const ZERO = Buffer.from([0]);
