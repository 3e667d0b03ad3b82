/** What callers with one set of selectors see: their identities and the bundles that go with them. Streams wait on a view, and many share one. */
import type { Bundle, BundleSet } from '../spiffe/bundle/bundle.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { type Change, type EntryCache, Index, type Registration } from './cache.ts';
import type { Svid } from './svids.ts';

/** Everything that a view's answers are made of, at one moment. */
export interface Sight {
  /** By ascending entry id. Empty: nothing is registered for these callers. */
  readonly identities: readonly Registration[];
  /** Of the own trust domain. */
  readonly own: Bundle;
  /** Of the trust domains that the identities federate with, as far as they are known; sorted by name. */
  readonly federated: readonly Bundle[];
}

export interface ViewsOptions {
  readonly cache: EntryCache;
  readonly trustDomain: TrustDomain;
  readonly bundles: () => BundleSet;
  /** The newest SVID of an entry, if there is one. */
  readonly svidOf: (registration: Registration) => Svid | undefined;
  /** The server would not sign one for this entry: it is not waited for. */
  readonly isRefused: (entryId: string) => boolean;
  /** A view with readers shows these entries now. */
  readonly onShown: (entries: readonly Registration[]) => void;
}

/** Views without readers that are kept, because their callers will come again. */
const KEPT = 512;

export class View {
  readonly key: string;
  readonly selectors: ReadonlySet<string>;
  /** Raised whenever an answer may have become another. */
  generation = 0;
  readers = 0;
  identities: readonly Registration[];
  readonly #options: ViewsOptions;
  readonly #wake = new Set<() => void>();
  /** Answers already made in this generation, by their kind. */
  readonly #made = new Map<string, unknown>();

  constructor(key: string, selectors: ReadonlySet<string>, options: ViewsOptions) {
    this.key = key;
    this.selectors = selectors;
    this.#options = options;
    this.identities = options.cache.match(selectors);
  }

  sight(): Sight {
    const { bundles, trustDomain } = this.#options;
    const all = bundles();
    const own = all.get(trustDomain);
    if (!own) throw new Error('the own bundle is always there');
    const names = new Map(this.identities.flatMap((one) => one.federatesWith.map((domain) => [domain.name, domain] as const)));
    names.delete(trustDomain.name);
    const federated = [...names.values()].map((domain) => all.get(domain)).filter((bundle) => bundle !== undefined);
    return { identities: this.identities, own, federated: federated.sort((a, b) => (a.trustDomain.name < b.trustDomain.name ? -1 : 1)) };
  }

  /** The identities whose SVIDs are there, and whether others are still to be signed. */
  svids(): { readonly ready: readonly (readonly [Registration, Svid])[]; readonly more: boolean } {
    const { svidOf, isRefused } = this.#options;
    const ready: (readonly [Registration, Svid])[] = [];
    let more = false;
    for (const identity of this.identities) {
      const svid = svidOf(identity);
      if (svid) ready.push([identity, svid]);
      else more ||= !isRefused(identity.id);
    }
    return { ready, more };
  }

  /** Made once for all who ask before something changes. */
  make<T>(kind: string, make: () => T): T {
    if (!this.#made.has(kind)) this.#made.set(kind, make());
    return this.#made.get(kind) as T;
  }

  changed(): void {
    this.generation++;
    this.#made.clear();
    for (const wake of this.#wake) wake();
  }

  /** Resolves as soon as the generation is another than `seen`. */
  async next(seen: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.generation !== seen) return;
    await new Promise<void>((resolve, reject) => {
      const stop = () => {
        this.#wake.delete(wake);
        signal.removeEventListener('abort', abort);
      };
      const wake = () => {
        stop();
        resolve();
      };
      const abort = () => {
        stop();
        reject(signal.reason);
      };
      this.#wake.add(wake);
      signal.addEventListener('abort', abort, { once: true });
    });
  }
}

export class Views {
  readonly #options: ViewsOptions;
  /** Least lately used first. */
  readonly #views = new Map<string, View>();
  readonly #bySelector = new Index<View>();
  readonly #byEntry = new Index<View>();
  #idle = 0;

  constructor(options: ViewsOptions) {
    this.#options = options;
  }

  /** Who opens it closes it, with `close`. */
  open(key: string, selectors: ReadonlySet<string>): View {
    let view = this.#views.get(key);
    if (!view) {
      view = new View(key, selectors, this.#options);
      for (const selector of selectors) this.#bySelector.add(selector, view);
      for (const { id } of view.identities) this.#byEntry.add(id, view);
      this.#idle++;
    }
    this.#views.delete(key);
    this.#views.set(key, view);
    if (view.readers++ === 0) this.#idle--;
    this.#options.onShown(view.identities);
    return view;
  }

  close(view: View): void {
    if (--view.readers > 0) return;
    this.#idle++;
    if (this.#idle <= KEPT) return;
    for (const old of this.#views.values()) {
      if (old.readers > 0) continue;
      this.#forget(old);
      break;
    }
  }

  /** Whether somebody reads a view that shows the entry. */
  isRead(entryId: string): boolean {
    for (const view of this.#byEntry.of(entryId)) if (view.readers > 0) return true;
    return false;
  }

  /** Entries changed in the cache: views that see other identities now are told. */
  applied(changes: readonly Change[]): void {
    const concerned = new Set<View>();
    for (const { before, after } of changes) {
      if (before) for (const view of this.#byEntry.of(before.id)) concerned.add(view);
      if (after) for (const view of this.#whoHas(after)) concerned.add(view);
    }
    for (const view of concerned) {
      for (const { id } of view.identities) this.#byEntry.delete(id, view);
      view.identities = this.#options.cache.match(view.selectors);
      for (const { id } of view.identities) this.#byEntry.add(id, view);
    }
    for (const view of concerned) {
      if (view.readers > 0) this.#options.onShown(view.identities);
      view.changed();
    }
  }

  /** Entries have another SVID, or none any more. */
  signed(entryIds: Iterable<string>): void {
    const concerned = new Set<View>();
    for (const id of entryIds) for (const view of this.#byEntry.of(id)) concerned.add(view);
    for (const view of concerned) view.changed();
  }

  /** Bundles changed, or who may be served at all. */
  changedAll(): void {
    for (const view of this.#views.values()) view.changed();
  }

  /** Views that have every selector of the entry, and so see it. */
  *#whoHas(registration: Registration): Generator<View, void, void> {
    const keys = registration.selectors.map((one) => `${one.type}:${one.value}`);
    const rarest = keys.reduce((best, key) => (this.#bySelector.count(key) < this.#bySelector.count(best) ? key : best), keys[0] ?? '');
    for (const view of this.#bySelector.of(rarest)) if (keys.every((key) => view.selectors.has(key))) yield view;
  }

  #forget(view: View): void {
    this.#views.delete(view.key);
    this.#idle--;
    for (const selector of view.selectors) this.#bySelector.delete(selector, view);
    for (const { id } of view.identities) this.#byEntry.delete(id, view);
  }
}
