/**
 * Envoy's `x-forwarded-client-cert`: elements joined by `,`, one of each proxy, the nearest last; an element is pairs `key=value` joined by `;`; a value may be in
 * double quotes. Read strictly, and only as Envoy writes it: its keys, in its order. It neither quotes nor escapes URIs and DNS names, so what a name of a
 * certificate smuggles in must stand in the wrong place.
 */
import { type Reason, SpiffeError } from '../errors.ts';
import { SpiffeId } from '../id.ts';

/** A chain of several certificates, escaped for URLs, twice over. */
export const MAX_XFCC_BYTES = 64 * 1024;
const MAX_ELEMENTS = 16;

/** What the nearest proxy says of its client. */
export interface ForwardedCertificate {
  readonly id: SpiffeId;
  /** The proxy's own SPIFFE ID. */
  readonly by: SpiffeId | undefined;
  /** SHA-256 of the client's certificate, hex. */
  readonly hash: string | undefined;
}

/** In Envoy's order. */
const KEYS = ['by', 'hash', 'cert', 'chain', 'subject', 'uri', 'dns'] as const;
type Key = (typeof KEYS)[number];

/** Visible ASCII; without quotes nothing that has a meaning. Each character of a quoted value matches in one way only: no backtracking. */
const PAIR = /([A-Za-z]{1,16})=(?:"((?:[ !#-[\]-~]|\\[ -~])*)"|([!#-+\--:<>-[\]-~]*))/y;

/**
 * @param elements `one`: more than one element is refused; right for a proxy that replaces what it was sent (Envoy's SANITIZE_SET).
 * `last`: the last one counts, the others must only be well-formed; for a proxy that appends (APPEND_FORWARD).
 * Throws UNAUTHENTICATED.
 */
export function parseXfcc(header: string, elements: 'one' | 'last'): ForwardedCertificate {
  if (header.length > MAX_XFCC_BYTES) throw refuse('XFCC_TOO_LARGE', `longer than ${MAX_XFCC_BYTES} bytes`);
  const all = split(header);
  if (elements !== 'last' && all.length > 1) throw refuse('XFCC_ELEMENTS', `${all.length} elements where one is expected`);
  return read(all.at(-1) ?? []);
}

type Pair = readonly [key: string, value: string];

/** From the left, in one pass, or not at all: a quote that an element before ours left open swallows ours, and is never closed. */
function split(header: string): Pair[][] {
  let element: Pair[] = [];
  const all = [element];
  for (let at = 0; ; at++) {
    PAIR.lastIndex = at;
    const found = PAIR.exec(header);
    if (!found) throw refuse('XFCC_SYNTAX', `no pair of key and value at ${at}`);
    const [text, key = '', quoted, plain = ''] = found;
    element.push([key.toLowerCase(), quoted === undefined ? plain : quoted.replace(/\\(["\\])/g, '$1')]);
    at += text.length;
    if (at === header.length) return all;
    if (header[at] === ',') {
      if (all.length === MAX_ELEMENTS) throw refuse('XFCC_ELEMENTS', `more than ${MAX_ELEMENTS} elements`);
      element = [];
      all.push(element);
    } else if (header[at] !== ';') throw refuse('XFCC_SYNTAX', `neither a pair nor an element ends at ${at}`);
  }
}

function read(pairs: readonly Pair[]): ForwardedCertificate {
  const values: Partial<Record<Key, string>> = {};
  let last = -1;
  for (const [key, value] of pairs) {
    const rank = KEYS.findIndex((one) => one === key);
    const known = KEYS[rank];
    if (known === undefined) throw refuse('XFCC_KEY', `the key ${JSON.stringify(key)} is not known`);
    // a certificate has many DNS names, and one of everything else
    if (rank < last || (rank === last && known !== 'dns'))
      throw refuse('XFCC_KEY', `the key ${JSON.stringify(key)} twice, or out of order`);
    last = rank;
    values[known] = value;
  }
  const { by, hash, uri } = values;
  if (!uri) throw refuse('XFCC_URI', 'no URI: the client showed the proxy no SPIFFE ID, or the proxy is not told to hand on URIs');
  if (hash !== undefined && !/^[0-9a-f]{64}$/.test(hash)) throw refuse('XFCC_HASH', 'the hash is no SHA-256');
  const id = idOf(uri, 'XFCC_URI');
  if (id.path === '') throw refuse('XFCC_URI', `the SPIFFE ID ${id} has no path`);
  return { id, by: by === undefined ? undefined : idOf(by, 'XFCC_BY'), hash };
}

function idOf(text: string, reason: Reason): SpiffeId {
  try {
    return SpiffeId.parse(text);
  } catch (error) {
    throw refuse(reason, (error as SpiffeError).message);
  }
}

function refuse(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('UNAUTHENTICATED', reason, `x-forwarded-client-cert: ${why}`);
}
