/** Base64 in both alphabets, read strictly: the one canonical text of some bytes, or nothing. Needs no Node. */

const node = typeof Buffer === 'undefined' ? undefined : Buffer;

/** The URL alphabet, no padding, no stray bits (RFC 7515 §2). Undefined when it is anything else. */
export function base64url(text: unknown): Uint8Array | undefined {
  if (typeof text !== 'string') return undefined;
  if (node) {
    const bytes = node.from(text, 'base64url');
    return bytes.toString('base64url') === text ? bytes : undefined;
  }
  if (/[^A-Za-z0-9_-]/.test(text)) return undefined;
  const bytes = decode(text.replaceAll('-', '+').replaceAll('_', '/'));
  return bytes && base64urlOf(bytes) === text ? bytes : undefined;
}

export function base64urlOf(bytes: Uint8Array): string {
  if (node) return node.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64url');
  return encode(bytes).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
}

/** `atob` takes what we would not (white space); the callers compare. */
function decode(text: string): Uint8Array | undefined {
  try {
    return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  } catch {
    return undefined;
  }
}

function encode(bytes: Uint8Array): string {
  let binary = '';
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}
