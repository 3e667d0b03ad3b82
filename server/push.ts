/**
 * Keeps agents' entries and bundles equal to ours while they listen. For each stream: the set that it was sent. What changed is told from that set when the
 * stream can take more (newest wins, no queue grows), and only for the agents that a change concerns.
 */
import type { Entry } from '../core/entry.ts';
import { digestOf, versionOf } from '../core/entry-version.ts';
import { fail } from '../core/errors.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { sameContent } from './bundles.ts';
import type { State, Touched } from './state.ts';
import type { StoredBundle } from './store/store.ts';

/** One message to an agent. */
export type Step =
  | { readonly kind: 'same' }
  | { readonly kind: 'versions'; readonly entries: readonly Entry[]; readonly more: boolean }
  | { readonly kind: 'changes'; readonly upserts: readonly Entry[]; readonly removedIds: readonly string[] }
  | {
      readonly kind: 'bundles';
      readonly bundles: readonly StoredBundle[];
      readonly removed: readonly string[];
      readonly complete: boolean;
    }
  /** The whole set, in place of the one before. */
  | { readonly kind: 'issuers'; readonly issuers: readonly Certificate[] };

export interface PushParts {
  readonly state: Pick<State, 'authorized' | 'bundle' | 'onApplied'>;
  /** The issuing authorities of the trust domain, by which agents tell its servers; call `issuersChanged` when it has others. */
  readonly issuers: { readonly value: readonly Certificate[] };
  readonly trustDomain: TrustDomain;
  /** Changes that a stream may be behind before it is cut. Default 1024. */
  readonly maxBehind?: number;
}

export interface FollowOptions {
  /** Throws DENIED (with SPIRE's details) once the certificate of the call may not speak for the agent any more. Asked before each message. */
  readonly checkStanding: () => void;
  /** Called once when the stream must end though it takes no message now: it is behind, or no longer in good standing. */
  readonly cut?: ((error: unknown) => void) | undefined;
}

export interface Follower {
  /**
   * Everything for the agent, from the greeting on; ends when the follower is closed. Throws what `checkStanding` throws, and RESOURCE_EXHAUSTED.
   * @param digest of what the agent has
   */
  steps(digest: Uint8Array): AsyncGenerator<Step, void, void>;
  /** The agent asks for bodies; those that it was never told of are left out. Resolves when the answer was taken, or the follower is closed. */
  want(ids: readonly string[]): Promise<void>;
  /** Ends `steps` with this error. */
  fail(error: unknown): void;
  close(): void;
}

export interface Push {
  /** Who opens it closes it. */
  follow(agentId: string, options: FollowOptions): Follower;
  readonly followers: number;
  issuersChanged(): void;
  close(): void;
}

const MAX_BEHIND = 1024;
/** An agent has one stream, two while it changes certificates, some that died unnoticed. */
const MAX_STREAMS_PER_AGENT = 8;
const PAGE_VERSIONS = 5000;
const PAGE_ENTRIES = 1000;
/** Far below the 4 MiB that a gRPC client takes, because it is an estimate. */
const PAGE_BYTES = 1024 * 1024;

export function createPush(parts: PushParts): Push {
  const byAgent = new Map<string, Set<Stream>>();
  const stop = parts.state.onApplied((touched) => {
    for (const streams of concerned(byAgent, touched.agents)) for (const stream of streams) stream.touchEntries();
    for (const streams of concerned(byAgent, touched.nodes)) for (const stream of [...streams]) stream.checkStanding();
    if (touched.bundles === 'all' || touched.bundles.size > 0) {
      for (const streams of byAgent.values()) for (const stream of streams) stream.touchBundles(touched.bundles);
    }
  });
  let count = 0;
  return {
    get followers() {
      return count;
    },
    follow(agentId, options) {
      const streams = byAgent.get(agentId) ?? new Set();
      byAgent.set(agentId, streams);
      const [oldest] = streams;
      if (oldest && streams.size >= MAX_STREAMS_PER_AGENT)
        oldest.cut(fail('RESOURCE_EXHAUSTED', 'too many streams of one agent: the oldest ends'));
      const stream = new Stream(parts, agentId, options, () => {
        if (!streams.delete(stream)) return;
        count--;
        if (streams.size === 0) byAgent.delete(agentId);
      });
      streams.add(stream);
      count++;
      return stream;
    },
    issuersChanged() {
      for (const streams of byAgent.values()) for (const stream of streams) stream.touchIssuers();
    },
    close() {
      stop();
      for (const streams of [...byAgent.values()])
        for (const stream of [...streams]) stream.cut(fail('UNAVAILABLE', 'the server is shutting down'));
    },
  };
}

/** Those streams whose agent was touched; costs the smaller of both. */
function* concerned<T>(byAgent: ReadonlyMap<string, T>, agents: Touched['agents']): Iterable<T> {
  if (agents === 'all' || agents.size > byAgent.size) {
    for (const [agentId, streams] of [...byAgent]) if (agents === 'all' || agents.has(agentId)) yield streams;
    return;
  }
  for (const agentId of agents) {
    const streams = byAgent.get(agentId);
    if (streams) yield streams;
  }
}

class Stream implements Follower {
  readonly #parts: PushParts;
  readonly #agentId: string;
  readonly #options: FollowOptions;
  readonly #onClose: () => void;
  /** What the agent was told of, by id. */
  readonly #sent = new Map<string, Entry>();
  /** How many of `#sent` federate with each trust domain. */
  readonly #federated = new Map<string, number>();
  readonly #sentBundles = new Map<string, StoredBundle>();
  #issuersTouched = false;
  #entriesTouched = false;
  #bundlesTouched = false;
  #wanted: readonly string[] | undefined;
  #answered: (() => void) | undefined;
  #behind = 0;
  #greeted = false;
  #closed = false;
  #failure: { readonly error: unknown } | undefined;
  #wake: (() => void) | undefined;

  constructor(parts: PushParts, agentId: string, options: FollowOptions, onClose: () => void) {
    this.#parts = parts;
    this.#agentId = agentId;
    this.#options = options;
    this.#onClose = onClose;
  }

  async *steps(digest: Uint8Array): AsyncGenerator<Step, void, void> {
    try {
      for (const step of this.#greeting(digest)) {
        this.#check();
        yield step;
        this.#behind = 0;
      }
      for (;;) {
        for (const step of this.#work()) {
          this.#check();
          yield step;
          this.#behind = 0;
        }
        this.#check();
        if (this.#closed) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#behind = 0;
      }
    } finally {
      this.close();
    }
  }

  want(ids: readonly string[]): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#wanted = ids;
    return new Promise((resolve) => {
      this.#answered = resolve;
      this.#stir();
    });
  }

  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#stir();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#onClose();
    this.#answered?.();
    this.#stir();
  }

  /** Ends it now, even when the other side reads nothing. */
  cut(error: unknown): void {
    if (this.#closed) return;
    this.fail(error);
    this.#options.cut?.(error);
    this.close();
  }

  touchEntries(): void {
    this.#entriesTouched = true;
    this.#fallBehind();
  }

  touchBundles(trustDomains: Touched['bundles']): void {
    const { name } = this.#parts.trustDomain;
    if (trustDomains !== 'all') {
      let concerns = false;
      for (const one of trustDomains) concerns ||= one === name || this.#federated.has(one);
      if (!concerns) return;
    }
    this.#bundlesTouched = true;
    this.#fallBehind();
  }

  touchIssuers(): void {
    this.#issuersTouched = true;
    this.#fallBehind();
  }

  checkStanding(): void {
    try {
      this.#options.checkStanding();
    } catch (refusal) {
      this.cut(refusal);
    }
  }

  #check(): void {
    if (this.#failure) throw this.#failure.error;
    this.#options.checkStanding();
  }

  #fallBehind(): void {
    this.#behind++;
    if (this.#behind > (this.#parts.maxBehind ?? MAX_BEHIND))
      this.cut(fail('RESOURCE_EXHAUSTED', `the stream is ${this.#behind} changes behind: start again`));
    else this.#stir();
  }

  #stir(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  *#greeting(digest: Uint8Array): Generator<Step, void, void> {
    const { state, trustDomain } = this.#parts;
    const entries = [...state.authorized(this.#agentId).values()];
    for (const entry of entries) this.#remember(entry);
    this.#greeted = true;
    const ours = digestOf(entries.map((entry) => [entry.id, versionOf(entry)] as const));
    if (ours.equals(digest)) yield { kind: 'same' };
    else if (entries.length === 0) yield { kind: 'versions', entries: [], more: false };
    else
      for (let at = 0; at < entries.length; at += PAGE_VERSIONS)
        yield { kind: 'versions', entries: entries.slice(at, at + PAGE_VERSIONS), more: at + PAGE_VERSIONS < entries.length };

    this.#bundlesTouched = false;
    for (const name of [trustDomain.name, ...this.#federated.keys()]) {
      const bundle = state.bundle(name);
      if (bundle) this.#sentBundles.set(name, bundle);
    }
    yield { kind: 'bundles', bundles: [...this.#sentBundles.values()], removed: [], complete: true };
    yield* this.#issuerNews();
  }

  *#issuerNews(): Generator<Step, void, void> {
    this.#issuersTouched = false;
    const { value } = this.#parts.issuers;
    if (value.length > 0) yield { kind: 'issuers', issuers: value };
  }

  /** Whatever there is to say now. Each part looks at the newest state at the time when the one before it was taken. */
  *#work(): Generator<Step, void, void> {
    while (this.#greeted && !this.#closed && (this.#issuersTouched || this.#entriesTouched || this.#bundlesTouched || this.#wanted)) {
      if (this.#issuersTouched) yield* this.#issuerNews();
      else if (this.#entriesTouched || this.#bundlesTouched) yield* this.#news();
      else {
        const wanted = this.#wanted ?? [];
        this.#wanted = undefined;
        const bodies = new Set(wanted.map((id) => this.#sent.get(id)).filter((entry) => entry !== undefined));
        // an answer in any case, so that the agent knows that it was one
        yield* changes([...bodies], []);
        this.#answered?.();
      }
    }
  }

  *#news(): Generator<Step, void, void> {
    const { state } = this.#parts;
    const upserts: Entry[] = [];
    const removedIds: string[] = [];
    if (this.#entriesTouched) {
      this.#entriesTouched = false;
      const now = state.authorized(this.#agentId);
      for (const [id, entry] of now) {
        const had = this.#sent.get(id);
        // memory makes a new object of a row that it read again
        if (had === entry) continue;
        this.#remember(entry);
        if (!had || !versionOf(had).equals(versionOf(entry))) upserts.push(entry);
      }
      if (this.#sent.size > now.size) {
        for (const [id, entry] of this.#sent) {
          if (now.has(id)) continue;
          this.#forget(entry);
          removedIds.push(id);
        }
      }
    }
    this.#bundlesTouched = false;
    const { bundles, removed } = this.#bundleNews();
    // an entry never comes before a bundle that it federates with, and a bundle never goes before the entry
    if (bundles.length > 0) yield { kind: 'bundles', bundles, removed: [], complete: false };
    if (upserts.length > 0 || removedIds.length > 0) yield* changes(upserts, removedIds);
    if (removed.length > 0) yield { kind: 'bundles', bundles: [], removed, complete: false };
  }

  #bundleNews(): { bundles: readonly StoredBundle[]; removed: readonly string[] } {
    const { state, trustDomain } = this.#parts;
    const bundles: StoredBundle[] = [];
    const gone = new Set(this.#sentBundles.keys());
    for (const name of [trustDomain.name, ...this.#federated.keys()]) {
      const bundle = state.bundle(name);
      if (!bundle) continue;
      gone.delete(name);
      const had = this.#sentBundles.get(name);
      if (had === bundle) continue;
      this.#sentBundles.set(name, bundle);
      if (had?.sequence !== bundle.sequence || !sameContent(had, bundle)) bundles.push(bundle);
    }
    for (const name of gone) this.#sentBundles.delete(name);
    return { bundles, removed: [...gone] };
  }

  #remember(entry: Entry): void {
    const had = this.#sent.get(entry.id);
    if (had) this.#count(had, -1);
    this.#sent.set(entry.id, entry);
    this.#count(entry, 1);
  }

  #forget(entry: Entry): void {
    this.#sent.delete(entry.id);
    this.#count(entry, -1);
  }

  #count(entry: Entry, by: 1 | -1): void {
    for (const { name } of entry.federatesWith) {
      const count = (this.#federated.get(name) ?? 0) + by;
      if (count > 0) this.#federated.set(name, count);
      else this.#federated.delete(name);
    }
  }
}

/** In pages that a client's receive limit takes; the removals first: an entry that was replaced by another is gone before that comes. At least one. */
function* changes(upserts: readonly Entry[], removedIds: readonly string[]): Generator<Step, void, void> {
  let page: Entry[] = [];
  let bytes = 0;
  let removals = removedIds;
  while (removals.length > PAGE_VERSIONS) {
    yield { kind: 'changes', upserts: [], removedIds: removals.slice(0, PAGE_VERSIONS) };
    removals = removals.slice(PAGE_VERSIONS);
  }
  for (const entry of upserts) {
    const size = sizeOf(entry);
    if (page.length > 0 && (page.length === PAGE_ENTRIES || bytes + size > PAGE_BYTES)) {
      yield { kind: 'changes', upserts: page, removedIds: removals };
      page = [];
      bytes = 0;
      removals = [];
    }
    page.push(entry);
    bytes += size;
  }
  yield { kind: 'changes', upserts: page, removedIds: removals };
}

/** At most so many bytes on the wire, roughly. */
function sizeOf(entry: Entry): number {
  let size =
    256 + entry.spiffeId.path.length + entry.parentId.path.length + 2 * entry.spiffeId.trustDomain.name.length + 3 * entry.hint.length;
  for (const { type, value } of entry.selectors) size += 3 * (type.length + value.length) + 12;
  for (const name of entry.dnsNames) size += name.length + 6;
  for (const { name } of entry.federatesWith) size += name.length + 6;
  return size;
}
