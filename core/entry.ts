/** A registration entry: who (selectors, below which parent) gets which SPIFFE ID, and how. */
import type { EntryMask, Entry as WireEntry } from '../proto/gen/spire/api/types/entry.ts';
import { IdError, SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { fail, isCoded } from './errors.ts';
import { idToMessage, memberIdOf, workloadIdOf } from './message-id.ts';
import { checkSelector, type Selector, selectorSet } from './selector.ts';
import { checkDnsName } from '../spiffe/x509/parts.ts';

/** Immutable. Durations and instants are milliseconds here and seconds on the wire. */
export interface Entry {
  /** 1 to 255 of `-._0-9A-Za-z`; a UUIDv4 unless the caller chose one. */
  readonly id: string;
  readonly spiffeId: SpiffeId;
  readonly parentId: SpiffeId;
  /** At least one; sorted by type, then value; no two alike. */
  readonly selectors: readonly Selector[];
  /** 0: the server's default. */
  readonly x509SvidTtlMs: number;
  /** 0: the server's default. */
  readonly jwtSvidTtlMs: number;
  readonly federatesWith: readonly TrustDomain[];
  readonly admin: boolean;
  readonly downstream: boolean;
  /** 0: never. Otherwise a moment that a Date can say. */
  readonly expiresAtMs: number;
  readonly dnsNames: readonly string[];
  /** Starts at 0; every update adds 1, even one that changes nothing (SPIRE's agents re-issue on it). */
  readonly revision: number;
  readonly storeSvid: boolean;
  /** '' or up to 1024 bytes. */
  readonly hint: string;
  readonly createdAtMs: number;
  readonly disableX509SvidPrefetch: boolean;
  readonly jwtSvidIncludeJti: boolean;
}

/** What a caller may say of an entry; the rest is the server's. */
type Said = Omit<Entry, 'id' | 'revision' | 'createdAtMs'>;

export interface ParseOptions {
  /** The server's own. */
  readonly trustDomain: TrustDomain;
  /** Whether an entry may federate with it: its bundle is known. */
  readonly hasBundle: (trustDomain: TrustDomain) => boolean;
}

/**
 * The entry that somebody wants to create, whole: its revision is 0, and it was made at `nowMs`. A revision and a time of creation in the message say nothing.
 * Throws REQUEST_INVALID, and as SPIRE does INTERNAL for a federation with an unknown trust domain; always in SPIRE's words from the first one on.
 * @param options.newId called when the message names no id
 */
export function parseEntry(wire: WireEntry, options: ParseOptions & { readonly nowMs: number; readonly newId: () => string }): Entry {
  // without a mask nothing is left out
  const said = convert(wire, undefined, options.trustDomain) as Said;
  const entry = { ...said, id: wire.id === '' ? options.newId() : wire.id, revision: 0, createdAtMs: options.nowMs };
  within('failed to create entry', () => {
    checkEntry(entry);
    checkBundles(said.federatesWith, options);
  });
  return entry;
}

/**
 * Parses an update before the entry it is for is looked at; what comes back turns the stored entry into the new one, and throws REQUEST_INVALID when that would
 * be none. Id, revision and time of creation stay. Throws like `parseEntry`.
 * @param mask undefined: everything
 */
export function parseUpdate(wire: WireEntry, mask: EntryMask | undefined, options: ParseOptions): (stored: Entry) => Entry {
  const said = convert(wire, mask, options.trustDomain);
  within('failed to update entry', () => {
    checkSaid(said);
    checkBundles(said.federatesWith ?? [], options);
  });
  return (stored) => {
    const entry = { ...stored, ...said };
    within('failed to update entry', () => checkEntry(entry));
    return entry;
  };
}

/** As `spire.api.types.Entry`. @param mask undefined: everything. The id always. */
export function entryToWire(entry: Entry, mask?: EntryMask): WireEntry {
  const wants = (field: keyof EntryMask) => mask === undefined || mask[field];
  return {
    id: entry.id,
    spiffeId: wants('spiffeId') ? idToMessage(entry.spiffeId) : undefined,
    parentId: wants('parentId') ? idToMessage(entry.parentId) : undefined,
    selectors: wants('selectors') ? entry.selectors.map(({ type, value }) => ({ type, value })) : [],
    x509SvidTtl: wants('x509SvidTtl') ? seconds(entry.x509SvidTtlMs) : 0,
    federatesWith: wants('federatesWith') ? entry.federatesWith.map(({ name }) => name) : [],
    admin: wants('admin') && entry.admin,
    downstream: wants('downstream') && entry.downstream,
    expiresAt: wants('expiresAt') ? seconds(entry.expiresAtMs) : 0,
    dnsNames: wants('dnsNames') ? [...entry.dnsNames] : [],
    revisionNumber: wants('revisionNumber') ? entry.revision : 0,
    storeSvid: wants('storeSvid') && entry.storeSvid,
    jwtSvidTtl: wants('jwtSvidTtl') ? seconds(entry.jwtSvidTtlMs) : 0,
    hint: wants('hint') ? entry.hint : '',
    createdAt: wants('createdAt') ? seconds(entry.createdAtMs) : 0,
    // absent unless it says something, as SPIRE's server answers for an entry that was created without
    additionalAttributes:
      wants('additionalAttributes') && (entry.disableX509SvidPrefetch || entry.jwtSvidIncludeJti)
        ? { disableX509SvidPrefetch: entry.disableX509SvidPrefetch, jwtSvidIncludeJti: entry.jwtSvidIncludeJti }
        : undefined,
  };
}

function seconds(ms: number): number {
  return Math.floor(ms / 1000);
}

type Read<T> = readonly [mask: keyof EntryMask, read: (wire: WireEntry, trustDomain: TrustDomain) => T];

/** Where each field is read from, and what lets it be: one after the other as SPIRE looks at them, so that of several faults the same one is told. */
const READ: { readonly [F in keyof Said]: Read<Said[F]> } = {
  parentId: ['parentId', (wire, own) => within('invalid parent ID', () => memberIdOf(wire.parentId, own))],
  spiffeId: ['spiffeId', (wire, own) => within('invalid spiffe ID', () => workloadIdOf(wire.spiffeId, own))],
  admin: ['admin', (wire) => wire.admin],
  dnsNames: ['dnsNames', (wire) => within('invalid DNS name', () => readDnsNames(wire.dnsNames))],
  downstream: ['downstream', (wire) => wire.downstream],
  expiresAtMs: ['expiresAt', (wire) => wire.expiresAt * 1000],
  federatesWith: ['federatesWith', (wire) => within('invalid federated trust domain', () => readTrustDomains(wire.federatesWith))],
  selectors: ['selectors', (wire) => readSelectors(wire.selectors)],
  storeSvid: ['storeSvid', (wire) => wire.storeSvid],
  x509SvidTtlMs: ['x509SvidTtl', (wire) => wire.x509SvidTtl * 1000],
  jwtSvidTtlMs: ['jwtSvidTtl', (wire) => wire.jwtSvidTtl * 1000],
  hint: ['hint', (wire) => readHint(wire.hint)],
  disableX509SvidPrefetch: ['additionalAttributes', (wire) => wire.additionalAttributes?.disableX509SvidPrefetch ?? false],
  jwtSvidIncludeJti: ['additionalAttributes', (wire) => wire.additionalAttributes?.jwtSvidIncludeJti ?? false],
};
const FIELDS = Object.entries(READ) as readonly (readonly [keyof Said, Read<unknown>])[];

function convert(wire: WireEntry, mask: EntryMask | undefined, trustDomain: TrustDomain): Partial<Said> {
  const said: Record<string, unknown> = {};
  return within('failed to convert entry', () => {
    for (const [field, [masked, read]] of FIELDS) if (mask === undefined || mask[masked]) said[field] = read(wire, trustDomain);
    return said;
  });
}

function readDnsNames(names: readonly string[]): readonly string[] {
  for (const name of names) checkDnsName(name);
  return [...new Set(names)];
}

function readTrustDomains(names: readonly string[]): readonly TrustDomain[] {
  return [...new Set(names.map((name) => TrustDomain.parseNameOrId(name)))];
}

function readSelectors(selectors: readonly Selector[]): readonly Selector[] {
  if (selectors.length === 0) throw fail('REQUEST_INVALID', 'selector list is empty');
  for (const selector of selectors) checkSelector(selector);
  return selectorSet(selectors);
}

const MAX_HINT_BYTES = 1024;

function readHint(hint: string): string {
  if (Buffer.byteLength(hint) > MAX_HINT_BYTES) {
    throw fail('REQUEST_INVALID', `hint is too long, max length is ${MAX_HINT_BYTES} characters`);
  }
  return hint;
}

const MAX_ID_LENGTH = 255;
/** The last moment that a Date can say. */
const MAX_TIME_MS = 8.64e15;

/** What SPIRE's datastore asks of a whole entry. */
function checkEntry(entry: Entry): void {
  const { id, selectors, storeSvid } = entry;
  if (storeSvid) {
    if (entry.disableX509SvidPrefetch) throw refused('specifying cache behaviour is incompatible with storable SVIDs');
    // so that nobody mixes platforms in what is stored on one
    if (selectors.some(({ type }) => type !== selectors[0]?.type)) {
      throw refused('invalid registration entry: selector types must be the same when store SVID is enabled');
    }
  }
  if (id.length > MAX_ID_LENGTH) throw refused('invalid registration entry: entry ID too long');
  if (!/^[-._0-9A-Za-z]+$/.test(id)) throw refused('invalid registration entry: entry ID contains invalid characters');
  checkSaid(entry);
}

function checkSaid({ x509SvidTtlMs = 0, jwtSvidTtlMs = 0, expiresAtMs = 0 }: Partial<Said>): void {
  if (x509SvidTtlMs < 0) throw refused('invalid registration entry: X509SvidTtl is not set');
  if (jwtSvidTtlMs < 0) throw refused('invalid registration entry: JwtSvidTtl is not set');
  if (expiresAtMs < 0 || expiresAtMs > MAX_TIME_MS) throw refused('invalid registration entry: EntryExpiry is out of range');
}

function refused(why: string) {
  return fail('REQUEST_INVALID', `datastore-validation: ${why}`);
}

function checkBundles(trustDomains: readonly TrustDomain[], { hasBundle }: ParseOptions): void {
  for (const trustDomain of trustDomains) {
    if (!hasBundle(trustDomain)) throw fail('INTERNAL', `unable to find federated bundle ${JSON.stringify(String(trustDomain.id))}`);
  }
}

/** Says what was tried before why it failed. */
function within<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!isCoded(error)) throw error;
    throw fail(
      error.code === 'INTERNAL' ? 'INTERNAL' : 'REQUEST_INVALID',
      `${what}: ${error instanceof IdError ? error.why : error.message}`,
      { cause: error },
    );
  }
}
