/** Base64 in both alphabets, read strictly: the one canonical text of some bytes, or nothing. Needs no Node. */

const node = typeof Buffer === 'undefined' ? undefined : Buffer;

/** What each octet of the URL alphabet stands for; -1 for all others. */
const SIXES = new Int8Array(256).fill(-1);
for (const [i, char] of 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'.split('').entries())
  SIXES[char.charCodeAt(0)] = i;

/**
 * The URL alphabet, no padding, no stray bits (RFC 7515 §2). Undefined when it is anything else. By hand: Node's own, made of vector instructions, slows
 * the verification of a signature that follows by 4 µs, more than it saves (bench/jwt.ts).
 */
export function base64url(text: unknown): Uint8Array | undefined {
  if (typeof text !== 'string' || text.length % 4 === 1) return undefined;
  const bytes = new Uint8Array((text.length * 3) >> 2);
  let bits = 0;
  let count = 0;
  let at = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    const six = code < 256 ? (SIXES[code] as number) : -1;
    if (six < 0) return undefined;
    bits = ((bits << 6) | six) & 0xffff;
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes[at++] = bits >> count;
    }
  }
  // what is left over must be nothing: each octet string has one text
  return (bits & ((1 << count) - 1)) === 0 ? bytes : undefined;
}

const utf8 = new TextEncoder();

/** The octets of a text that is ASCII, such as what was read as base64. On Node from its pool, which costs a third. */
export function asciiBytes(text: string): Uint8Array {
  return node ? node.from(text, 'latin1') : utf8.encode(text);
}

export function base64urlOf(bytes: Uint8Array): string {
  if (node) return node.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64url');
  return encode(bytes).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
}

function encode(bytes: Uint8Array): string {
  let binary = '';
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}
