/** HPACK (RFC 7541), as much as the hand-on of a connection needs: a strict, bounded decoder, and an encoder without tables. */
import { fail } from '../core/errors.ts';

/** Name and value, octets as latin1. */
export type Field = readonly [name: string, value: string];

/** Appendix A, index 1 first. */
const STATIC: readonly Field[] = (
  ':authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|:status=204|:status=206|:status=304|' +
  ':status=400|:status=404|:status=500|accept-charset|accept-encoding=gzip, deflate|accept-language|accept-ranges|accept|' +
  'access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|content-encoding|content-language|content-length|' +
  'content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|' +
  'if-unmodified-since|last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|' +
  'set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate'
)
  .split('|')
  .map((row) => {
    const [name = '', value = ''] = row.split('=');
    return [name, value];
  });

/** Appendix B as the length of each symbol's code, one base-36 digit a symbol, EOS last. The codes follow: they are given out by length, then by symbol. */
const HUFFMAN_LENGTHS =
  'dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6f56565666577666567655677777fbeds' +
  'kmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmnlmnnkmmmnmmnqqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrq' +
  'u';
const EOS = 256;

/** A binary tree in an array: `TREE[2 * node + bit]` is the next node, or ~symbol at a leaf. */
const TREE = huffmanTree();

function huffmanTree(): Int32Array {
  const lengths = Array.from(HUFFMAN_LENGTHS, (digit) => Number.parseInt(digit, 36));
  const tree = new Int32Array(2 * lengths.length);
  let nodes = 1;
  let code = 0;
  for (let length = 1; length <= 30; length++, code *= 2) {
    for (let symbol = 0; symbol < lengths.length; symbol++) {
      if (lengths[symbol] !== length) continue;
      let node = 0;
      for (let bit = length - 1; bit > 0; bit--) {
        const at = 2 * node + ((code >>> bit) & 1);
        node = tree[at] || (tree[at] = nodes++);
      }
      tree[2 * node + (code & 1)] = ~symbol;
      code++;
    }
  }
  return tree;
}

/** @param limit octets; more throws REQUEST_INVALID, as do bad padding and EOS. */
function decodeHuffman(bytes: Buffer, limit: number): string {
  // the shortest code has 5 bits
  const out = Buffer.allocUnsafe(Math.min(Math.ceil((bytes.length * 8) / 5), limit + 1));
  let length = 0;
  let node = 0;
  let pending = 0;
  let ones = true;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      const value = (byte >>> bit) & 1;
      pending++;
      ones &&= value === 1;
      const next = TREE[2 * node + value] as number;
      if (next >= 0) {
        node = next;
        continue;
      }
      if (~next === EOS) throw refuse('EOS in a Huffman string');
      if (length === limit) throw refuse('too large');
      out[length++] = ~next;
      node = 0;
      pending = 0;
      ones = true;
    }
  }
  if (pending > 7 || !ones) throw refuse('bad padding of a Huffman string');
  return out.toString('latin1', 0, length);
}

/** RFC 7541 §4.1. */
const OVERHEAD = 32;

export interface HpackLimits {
  /** What we announced as SETTINGS_HEADER_TABLE_SIZE. Default 4096. */
  readonly maxTableBytes?: number;
  /** Of one header list, each field counted with 32 more. Default 64 KiB. */
  readonly maxListBytes?: number;
}

/** One direction of one connection: every header block has to pass through it, in order. After it threw it must not be used again. */
export class HpackDecoder {
  readonly #maxTableBytes: number;
  readonly #maxListBytes: number;
  /** Newest first. */
  readonly #table: Field[] = [];
  #tableBytes = 0;
  #tableLimit: number;
  #block: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor({ maxTableBytes = 4096, maxListBytes = 64 * 1024 }: HpackLimits = {}) {
    this.#maxTableBytes = maxTableBytes;
    this.#maxListBytes = maxListBytes;
    this.#tableLimit = maxTableBytes;
  }

  /** Octets of the dynamic table as RFC 7541 counts them. */
  get tableBytes(): number {
    return this.#tableBytes;
  }

  /** @param block a whole header block. Throws REQUEST_INVALID: the connection can't go on then (RFC 7540 §4.3). */
  decode(block: Buffer): Field[] {
    this.#block = block;
    this.#at = 0;
    const fields: Field[] = [];
    let bytes = 0;
    while (this.#at < block.length) {
      const first = block[this.#at] as number;
      if ((first & 0xe0) === 0x20) {
        if (fields.length > 0) throw refuse('a table size update behind a field');
        this.#resize(this.#integer(5));
        continue;
      }
      const field = this.#field(first, this.#maxListBytes - bytes);
      bytes += sizeOf(field);
      if (bytes > this.#maxListBytes) throw refuse('too large');
      fields.push(field);
    }
    return fields;
  }

  #field(first: number, room: number): Field {
    if (first & 0x80) return this.#indexed(this.#integer(7));
    const keep = (first & 0xc0) === 0x40;
    const index = this.#integer(keep ? 6 : 4);
    const name = index === 0 ? this.#string(room) : this.#indexed(index)[0];
    const field: Field = [name, this.#string(room)];
    if (keep) this.#add(field);
    return field;
  }

  #indexed(index: number): Field {
    const field = index <= STATIC.length ? STATIC[index - 1] : this.#table[index - STATIC.length - 1];
    if (!field) throw refuse(`index ${index} names nothing`);
    return field;
  }

  #add(field: Field): void {
    const size = sizeOf(field);
    this.#evict(this.#tableLimit - size);
    // larger than the table: that empties it and is no fault (§4.4)
    if (size > this.#tableLimit) return;
    this.#table.unshift(field);
    this.#tableBytes += size;
  }

  #resize(bytes: number): void {
    if (bytes > this.#maxTableBytes) throw refuse(`a table of ${bytes} octets, ${this.#maxTableBytes} were allowed`);
    this.#tableLimit = bytes;
    this.#evict(bytes);
  }

  #evict(room: number): void {
    for (let last = this.#table.at(-1); last && this.#tableBytes > room; last = this.#table.at(-1)) {
      this.#table.pop();
      this.#tableBytes -= sizeOf(last);
    }
  }

  /** §5.1, at most four octets behind the prefix: far more than any length or index that we would take. */
  #integer(prefixBits: number): number {
    const mask = (1 << prefixBits) - 1;
    let value = this.#byte() & mask;
    if (value < mask) return value;
    for (let shift = 0; ; shift += 7) {
      if (shift > 21) throw refuse('an integer is too long');
      const byte = this.#byte();
      value += (byte & 0x7f) << shift;
      if ((byte & 0x80) === 0) return value;
    }
  }

  #string(room: number): string {
    const huffman = ((this.#block[this.#at] ?? 0) & 0x80) !== 0;
    const length = this.#integer(7);
    if (this.#at + length > this.#block.length) throw refuse('cut short');
    if (!huffman && length > room) throw refuse('too large');
    const bytes = this.#block.subarray(this.#at, this.#at + length);
    this.#at += length;
    return huffman ? decodeHuffman(bytes, room) : bytes.toString('latin1');
  }

  #byte(): number {
    const byte = this.#block[this.#at++];
    if (byte === undefined) throw refuse('cut short');
    return byte;
  }
}

/** A header block of plain literals: whoever reads it needs no table. */
export function encodePlain(fields: readonly Field[]): Buffer {
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), plain(name), plain(value)]));
}

function plain(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  const length: number[] = [];
  if (bytes.length < 127) length.push(bytes.length);
  else {
    length.push(127);
    let rest = bytes.length - 127;
    for (; rest > 127; rest >>>= 7) length.push((rest & 0x7f) | 0x80);
    length.push(rest);
  }
  return Buffer.concat([Buffer.from(length), bytes]);
}

function sizeOf([name, value]: Field): number {
  return name.length + value.length + OVERHEAD;
}

function refuse(why: string): Error {
  return fail('REQUEST_INVALID', `header block: ${why}`);
}
