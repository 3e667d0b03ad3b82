/** The registration entries that this agent may serve, indexed so that a caller's identities are found without looking at the others. */
import { createHash } from 'node:crypto';
import { type Selector, selectorKey } from '../core/selector.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';

/** As much of an entry as an agent needs. Immutable. */
export interface Registration {
  readonly id: string;
  readonly spiffeId: SpiffeId;
  /** At least one. */
  readonly selectors: readonly Selector[];
  readonly federatesWith: readonly TrustDomain[];
  readonly hint: string;
  readonly revision: number;
  readonly createdAtMs: number;
  /** Its SVIDs go to a store, not to workloads. */
  readonly storeSvid: boolean;
  readonly prefetch: boolean;
  readonly jwtSvidIncludeJti: boolean;
  /** Of the push stream; empty when the entry was polled for. */
  readonly version: Buffer;
}

export interface Change {
  readonly before: Registration | undefined;
  readonly after: Registration | undefined;
}

/** Under each selector, the things that have it among theirs. */
export class Index<T> {
  readonly #bySelector = new Map<string, Set<T>>();

  /** How many things a selector finds. */
  count(key: string): number {
    return this.#bySelector.get(key)?.size ?? 0;
  }

  of(key: string): Iterable<T> {
    return this.#bySelector.get(key) ?? [];
  }

  add(key: string, thing: T): void {
    const known = this.#bySelector.get(key);
    if (known) known.add(thing);
    else this.#bySelector.set(key, new Set([thing]));
  }

  delete(key: string, thing: T): void {
    const known = this.#bySelector.get(key);
    known?.delete(thing);
    if (known?.size === 0) this.#bySelector.delete(key);
  }
}

interface Row {
  readonly registration: Registration;
  readonly keys: readonly string[];
  /** The selector under which the row is found: the rarest that it has. */
  readonly anchor: string;
}

/** An entry that a caller does not match. */
export interface Near {
  readonly registration: Registration;
  /** Selectors of the entry that the caller lacks; at least one. */
  readonly missing: readonly Selector[];
}

export class EntryCache {
  readonly #rows = new Map<string, Row>();
  readonly #index = new Index<Row>();

  get size(): number {
    return this.#rows.size;
  }

  get(id: string): Registration | undefined {
    return this.#rows.get(id)?.registration;
  }

  *all(): Generator<Registration, void, void> {
    for (const { registration } of this.#rows.values()) yield registration;
  }

  /** Gives what really changed; an upsert that is as it was changes nothing. */
  apply(upserts: Iterable<Registration>, removed: Iterable<string>): readonly Change[] {
    const changes: Change[] = [];
    for (const id of removed) {
      const before = this.#remove(id);
      if (before) changes.push({ before, after: undefined });
    }
    for (const after of upserts) {
      const before = this.get(after.id);
      if (before && sameRegistration(before, after) && before.version.equals(after.version)) continue;
      this.#remove(after.id);
      this.#add(after);
      if (!before || !sameRegistration(before, after)) changes.push({ before, after });
    }
    return changes;
  }

  /** Those whose selectors the caller has all, by ascending id; of several with one hint only the oldest, as in SPIRE. */
  match(selectors: ReadonlySet<string>): readonly Registration[] {
    const found: Registration[] = [];
    for (const selector of selectors) {
      for (const { registration, keys } of this.#index.of(selector)) {
        if (!registration.storeSvid && keys.every((key) => selectors.has(key))) found.push(registration);
      }
    }
    return withoutRepeatedHints(found.sort((a, b) => (a.id < b.id ? -1 : 1)));
  }

  /** Those that the caller does not match, those that lack least first, then those that have most; looks at every entry. */
  nearest(selectors: ReadonlySet<string>, count: number): readonly Near[] {
    const found: (Near & { readonly has: number })[] = [];
    const worse = (a: (typeof found)[number], b: (typeof found)[number]) =>
      a.missing.length - b.missing.length || b.has - a.has || (a.registration.id < b.registration.id ? -1 : 1);
    for (const { registration, keys } of this.#rows.values()) {
      if (registration.storeSvid) continue;
      const missing = registration.selectors.filter((_, at) => !selectors.has(keys[at] ?? ''));
      if (missing.length === 0) continue;
      found.push({ registration, missing, has: keys.length - missing.length });
      if (found.length >= 2 * count) found.sort(worse).length = count;
    }
    return found.sort(worse).slice(0, count);
  }

  /** As the push stream's `Hello` wants it. */
  digest(): Buffer {
    const hash = createHash('sha256');
    const rows = [...this.all()].map((row) => ({ id: Buffer.from(row.id), version: row.version }));
    for (const { id, version } of rows.sort((a, b) => a.id.compare(b.id))) {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(id.length);
      hash.update(length).update(id).update(version);
    }
    return hash.digest();
  }

  #add(registration: Registration): void {
    const keys = registration.selectors.map(selectorKey);
    const [first = '', ...rest] = keys;
    const anchor = rest.reduce((best, key) => (this.#index.count(key) < this.#index.count(best) ? key : best), first);
    const row: Row = { registration, keys, anchor };
    this.#rows.set(registration.id, row);
    this.#index.add(anchor, row);
  }

  #remove(id: string): Registration | undefined {
    const row = this.#rows.get(id);
    if (!row) return undefined;
    this.#rows.delete(id);
    this.#index.delete(row.anchor, row);
    return row.registration;
  }
}

function withoutRepeatedHints(sorted: readonly Registration[]): readonly Registration[] {
  const oldest = new Map<string, Registration>();
  for (const one of sorted) {
    const known = oldest.get(one.hint);
    // sorted by id: of two of one age the lower id stays
    if (one.hint !== '' && (!known || one.createdAtMs < known.createdAtMs)) oldest.set(one.hint, one);
  }
  return sorted.filter((one) => one.hint === '' || oldest.get(one.hint) === one);
}

function sameRegistration(a: Registration, b: Registration): boolean {
  return (
    a.revision === b.revision &&
    a.createdAtMs === b.createdAtMs &&
    a.hint === b.hint &&
    a.storeSvid === b.storeSvid &&
    a.prefetch === b.prefetch &&
    a.jwtSvidIncludeJti === b.jwtSvidIncludeJti &&
    a.spiffeId.equals(b.spiffeId) &&
    a.selectors.length === b.selectors.length &&
    a.selectors.every((one, i) => one.type === b.selectors[i]?.type && one.value === b.selectors[i]?.value) &&
    a.federatesWith.length === b.federatesWith.length &&
    a.federatesWith.every((one, i) => one.name === b.federatesWith[i]?.name)
  );
}
