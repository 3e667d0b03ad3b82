/** How entries, nodes, bundles and journal records are kept as text, and read back. */
import { createHash } from 'node:crypto';
import type { Entry } from '../../../core/entry.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import type { JournalRecord, Node, StoredBundle } from '../store.ts';

/** Short names: a hundred thousand of them are read at start. What is false, empty or zero is left out. */
interface EntryRow {
  readonly i: string;
  readonly s: string;
  readonly p: string;
  /** type, value, type, value … */
  readonly k: readonly string[];
  readonly c: number;
  readonly r: number;
  readonly x?: number;
  readonly j?: number;
  readonly e?: number;
  readonly f?: readonly string[];
  readonly d?: readonly string[];
  readonly h?: string;
  /** admin 1, downstream 2, store 4, no prefetch 8, jti 16. */
  readonly b?: number;
}

export function entryToRow(entry: Entry): string {
  const bits =
    (entry.admin ? 1 : 0) |
    (entry.downstream ? 2 : 0) |
    (entry.storeSvid ? 4 : 0) |
    (entry.disableX509SvidPrefetch ? 8 : 0) |
    (entry.jwtSvidIncludeJti ? 16 : 0);
  const row: EntryRow = {
    i: entry.id,
    s: String(entry.spiffeId),
    p: String(entry.parentId),
    k: entry.selectors.flatMap(({ type, value }) => [type, value]),
    c: entry.createdAtMs,
    r: entry.revision,
    ...(entry.x509SvidTtlMs && { x: entry.x509SvidTtlMs }),
    ...(entry.jwtSvidTtlMs && { j: entry.jwtSvidTtlMs }),
    ...(entry.expiresAtMs && { e: entry.expiresAtMs }),
    ...(entry.federatesWith.length > 0 && { f: entry.federatesWith.map(String) }),
    ...(entry.dnsNames.length > 0 && { d: entry.dnsNames }),
    ...(entry.hint && { h: entry.hint }),
    ...(bits && { b: bits }),
  };
  return JSON.stringify(row);
}

export function entryFromRow(text: unknown): Entry {
  const row = JSON.parse(String(text)) as EntryRow;
  const bits = row.b ?? 0;
  const selectors: { type: string; value: string }[] = [];
  for (let at = 0; at < row.k.length; at += 2) selectors.push({ type: row.k[at] ?? '', value: row.k[at + 1] ?? '' });
  return {
    id: row.i,
    spiffeId: SpiffeId.parse(row.s),
    parentId: parentOf(row.p),
    selectors,
    x509SvidTtlMs: row.x ?? 0,
    jwtSvidTtlMs: row.j ?? 0,
    federatesWith: row.f?.map((name) => TrustDomain.parse(name)) ?? NONE,
    admin: (bits & 1) !== 0,
    downstream: (bits & 2) !== 0,
    expiresAtMs: row.e ?? 0,
    dnsNames: row.d ?? NONE,
    revision: row.r,
    storeSvid: (bits & 4) !== 0,
    hint: row.h ?? '',
    createdAtMs: row.c,
    disableX509SvidPrefetch: (bits & 8) !== 0,
    jwtSvidIncludeJti: (bits & 16) !== 0,
  };
}

/** One for all entries that have none: there are a hundred thousand of them. */
const NONE: readonly never[] = Object.freeze([]);

/** Many entries have one parent: they share its object. */
const parents = new Map<string, SpiffeId>();
const MAX_PARENTS = 10_000;

function parentOf(text: string): SpiffeId {
  let parent = parents.get(text);
  if (!parent) {
    if (parents.size >= MAX_PARENTS) parents.clear();
    parent = SpiffeId.parse(text);
    parents.set(text, parent);
  }
  return parent;
}

/** Two entries that say the same of the same processes: equal parent, SPIFFE ID and selectors. */
export function similarity({ parentId, spiffeId, selectors }: Entry): Buffer {
  const keys = selectors.map(({ type, value }) => `${type}:${value}`).sort();
  return createHash('sha256')
    .update(JSON.stringify([String(parentId), String(spiffeId), keys]))
    .digest();
}

export function nodeToRow({ id, attestationType, banned, record, ...data }: Node): string {
  return JSON.stringify(data);
}

export function nodeFromRow(row: Record<string, unknown>): Node {
  const data = JSON.parse(String(row['data'])) as Omit<Node, 'id' | 'attestationType' | 'banned' | 'record'>;
  return {
    ...data,
    current: data.current,
    next: data.next,
    id: String(row['id']),
    attestationType: String(row['attestation_type']),
    banned: row['banned'] === 1,
    record: row['record'] instanceof Uint8Array ? Buffer.from(row['record']) : undefined,
  };
}

const base64 = (bytes: Buffer) => bytes.toString('base64');
const bytes = (text: string) => Buffer.from(text, 'base64');

interface BundleRow {
  readonly x509: readonly (readonly [der: string, tainted: boolean])[];
  readonly jwt: readonly (readonly [keyId: string, spki: string, notAfterMs: number, tainted: boolean])[];
  readonly hint: number;
  readonly sequence: number;
}

export function bundleToRow(bundle: StoredBundle): string {
  const row: BundleRow = {
    x509: bundle.x509Authorities.map(({ der, tainted }) => [base64(der), tainted]),
    jwt: bundle.jwtAuthorities.map(({ keyId, spkiDer, notAfterMs, tainted }) => [keyId, base64(spkiDer), notAfterMs, tainted]),
    hint: bundle.refreshHintSeconds,
    sequence: bundle.sequence,
  };
  return JSON.stringify(row);
}

export function bundleFromRow(row: Record<string, unknown>): StoredBundle {
  const data = JSON.parse(String(row['data'])) as BundleRow;
  return {
    trustDomain: String(row['trust_domain']),
    x509Authorities: data.x509.map(([der, tainted]) => ({ der: bytes(der), tainted })),
    jwtAuthorities: data.jwt.map(([keyId, spki, notAfterMs, tainted]) => ({ keyId, spkiDer: bytes(spki), notAfterMs, tainted })),
    refreshHintSeconds: data.hint,
    sequence: data.sequence,
  };
}

export function journalToRow(record: JournalRecord): string {
  return JSON.stringify({ ...record, chainDer: record.chainDer.map(base64), spkiDer: base64(record.spkiDer) });
}

export function journalFromRow(row: Record<string, unknown>): JournalRecord {
  const data = JSON.parse(String(row['data'])) as Omit<JournalRecord, 'chainDer' | 'spkiDer'> & { chainDer: string[]; spkiDer: string };
  return { ...data, chainDer: data.chainDer.map(bytes), spkiDer: bytes(data.spkiDer) };
}
