/** An ECDSA signature in its two forms: two numbers side by side, as a JWS has it (RFC 7518 §3.4), and DER, as X.509 and OpenSSL do (RFC 3279 §2.2.3). */

/** @param joined r and s, each of half the length, with leading zeros; at most 2 × 66 octets */
export function derOfSignature(joined: Uint8Array): Uint8Array {
  const half = joined.length / 2;
  const r = numberFrom(joined, 0, half);
  const s = numberFrom(joined, half, joined.length);
  const length = 2 + r.length + r.pad + 2 + s.length + s.pad;
  // a sequence of up to 2 × (2 + 67) octets: its length takes one octet or two
  const head = length < 0x80 ? 2 : 3;
  const der = new Uint8Array(head + length);
  der[0] = 0x30;
  if (head === 3) der[1] = 0x81;
  der[head - 1] = length;
  let at = head;
  for (const number of [r, s]) {
    der[at++] = 0x02;
    der[at++] = number.length + number.pad;
    at += number.pad;
    for (let i = 0; i < number.length; i++) der[at++] = joined[number.from + i] as number;
  }
  return der;
}

/** Where the number's octets begin without leading zeros, and whether one must come before them, lest it read as negative. Zero keeps one octet. */
function numberFrom(
  octets: Uint8Array,
  start: number,
  end: number,
): { readonly from: number; readonly length: number; readonly pad: 0 | 1 } {
  let from = start;
  while (from < end - 1 && octets[from] === 0) from++;
  return { from, length: end - from, pad: (octets[from] as number) >= 0x80 ? 1 : 0 };
}
