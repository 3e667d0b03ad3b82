/** The state in memory: loaded from the tables once, then fed by the change log alone. */
import type { Entry } from '../core/entry.ts';
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { type Selector, selectorKey } from '../core/selector.ts';
import type { Clock } from '../spiffe/clock.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { State, Touched } from './state.ts';
import type { Change, Node, Store, StoredBundle } from './store/store.ts';

export interface MemoryParts {
  readonly store: Pick<Store, 'entries' | 'nodes' | 'bundles' | 'changes'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly trustDomain: TrustDomain;
}

export interface Memory extends State {
  /** Tells of entries that end by time, until the signal aborts. Throws what reading the store threw, if it goes on failing. */
  run(signal: AbortSignal): Promise<void>;
  /** Stops listening to the store. Who wrote and waits is told that it closed. */
  close(): void;
}

/** Resolves when everything is loaded. Throws STORE_FAILED. */
export async function createMemory(parts: MemoryParts): Promise<Memory> {
  const memory = new Indexed(parts);
  await memory.load();
  return memory;
}

/** Changes read at a time. */
const PAGE = 2_000;
/** The wall clock may jump: nobody sleeps longer than this on its word. */
const LONGEST_SLEEP_MS = 10_000;
const RETRY_MS = 1_000;
/** Parent of those entries that stand for every node with their selectors. */
const SERVER_PATH = '/spire/server';

class Indexed implements Memory {
  readonly #parts: MemoryParts;
  /** `spiffe://<trust domain>`. Whatever is kept is of our own, so the indices know it by its path alone, which costs no string of its own. */
  readonly #prefix: string;
  readonly #entries = new Map<string, Entry>();
  #sorted: readonly string[] | undefined;
  readonly #byParent = new Groups<Entry>();
  readonly #bySpiffeId = new Groups<Entry>();
  /** Aliases under their first selector: a node has all of an alias's selectors, so this one too. */
  readonly #aliases = new Groups<Entry>();
  readonly #nodes = new Map<string, IndexedNode>();
  readonly #nodesBySelector = new Groups<IndexedNode>();
  readonly #bundles = new Map<string, StoredBundle>();
  readonly #expiring = new Map<string, Entry>();
  readonly #ended = new Set<string>();
  readonly #listeners = new Set<(touched: Touched) => void>();
  #waiters: { readonly seq: number; readonly resolve: () => void; readonly reject: (error: unknown) => void }[] = [];
  #seq = 0;
  #unsubscribe = () => {};
  #reading: Promise<void> | undefined;
  #again = false;
  #closed = false;
  #failure: unknown;
  #wake = () => {};

  constructor(parts: MemoryParts) {
    this.#parts = parts;
    this.#prefix = String(parts.trustDomain.id);
  }

  get seq(): number {
    return this.#seq;
  }

  entry(id: string): Entry | undefined {
    return this.#entries.get(id);
  }

  *entries(after = ''): Generator<Entry, void, void> {
    this.#sorted ??= [...this.#entries.keys()].sort();
    const sorted = this.#sorted;
    for (let at = firstBehind(sorted, after); at < sorted.length; at++) {
      const entry = this.#entries.get(sorted[at] ?? '');
      // whoever reads slowly may meet a gap
      if (entry) yield entry;
    }
  }

  get entryCount(): number {
    return this.#entries.size;
  }

  entriesOf(spiffeId: string): readonly Entry[] {
    return [...this.#bySpiffeId.of(this.#pathOf(spiffeId))];
  }

  node(agentId: string): Node | undefined {
    return this.#nodes.get(agentId)?.node;
  }

  *nodes(): Generator<Node, void, void> {
    for (const { node } of this.#nodes.values()) yield node;
  }

  get nodeCount(): number {
    return this.#nodes.size;
  }

  bundle(trustDomain: string): StoredBundle | undefined {
    return this.#bundles.get(trustDomain);
  }

  bundles(): Iterable<StoredBundle> {
    return this.#bundles.values();
  }

  authorized(agentId: string): ReadonlyMap<string, Entry> {
    const found = new Map<string, Entry>();
    const indexed = this.#nodes.get(agentId);
    if (!indexed || indexed.node.banned) return found;
    const now = this.#parts.clock.now();
    const parents = [this.#pathOf(agentId)];
    for (const alias of this.#aliasesOf(indexed, now)) parents.push(alias.spiffeId.path);
    const seen = new Set(parents);
    for (let parent = parents.pop(); parent !== undefined; parent = parents.pop()) {
      for (const entry of this.#byParent.of(parent)) {
        if (!isLive(entry, now)) continue;
        found.set(entry.id, entry);
        const { path } = entry.spiffeId;
        // most entries are leaves, and an entry may name itself as its parent's parent
        if (!this.#byParent.has(path) || seen.has(path)) continue;
        seen.add(path);
        parents.push(path);
      }
    }
    return found;
  }

  isAuthorized(agentId: string, entryId: string): boolean {
    const indexed = this.#nodes.get(agentId);
    const entry = this.#entries.get(entryId);
    const now = this.#parts.clock.now();
    if (!indexed || indexed.node.banned || !entry || !isLive(entry, now)) return false;
    const path = this.#pathOf(agentId);
    return this.#climb(
      entry,
      now,
      (parent) => parent === path,
      (alias) => hasAll(indexed, alias),
    );
  }

  settled(seq: number): Promise<void> {
    if (this.#seq >= seq) return Promise.resolve();
    if (this.#closed) return Promise.reject(fail('CLOSED', 'the server is shutting down'));
    return new Promise((resolve, reject) => this.#waiters.push({ seq, resolve, reject }));
  }

  onApplied(listener: (touched: Touched) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async load(): Promise<void> {
    const { store } = this.#parts;
    this.#unsubscribe = store.changes.onCommit(() => this.#read());
    await this.#rebuild();
    await this.#read();
    if (this.#failure !== undefined) throw this.#failure;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#parts;
    for (;;) {
      signal.throwIfAborted();
      const woken = new AbortController();
      this.#wake = () => woken.abort();
      const either = AbortSignal.any([signal, woken.signal]);
      const wait = this.#failure === undefined ? this.#untilNextEnd() : RETRY_MS;
      await clock.sleep(wait, either).catch(() => signal.throwIfAborted());
      if (this.#failure !== undefined) await this.#read();
      this.#tellEnded();
    }
  }

  close(): void {
    this.#closed = true;
    this.#unsubscribe();
    for (const { reject } of this.#waiters) reject(fail('CLOSED', 'the server is shutting down'));
    this.#waiters = [];
  }

  /** Reads what is new; whoever calls while that runs has it looked at again. */
  #read(): Promise<void> {
    this.#again = true;
    this.#reading ??= this.#follow().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #follow(): Promise<void> {
    const { store, log } = this.#parts;
    try {
      while (this.#again && !this.#closed) {
        this.#again = false;
        for (;;) {
          const changes = await store.changes.since(this.#seq, PAGE);
          const [first] = changes;
          if (!first) break;
          if (first.seq !== this.#seq + 1) {
            // what we have not read was pruned
            log.warn('Behind the change log; reading everything anew', { count: first.seq - this.#seq });
            await this.#rebuild();
            this.#tell({ seq: this.#seq, agents: 'all', nodes: 'all', bundles: 'all' });
          } else {
            await this.#apply(changes);
          }
        }
        const { newest } = await store.changes.bounds();
        if (newest < this.#seq) {
          log.warn('The datastore is older than it was; reading everything anew');
          await this.#rebuild();
          this.#tell({ seq: this.#seq, agents: 'all', nodes: 'all', bundles: 'all' });
        }
      }
      this.#failure = undefined;
    } catch (error) {
      if (this.#closed) return;
      this.#failure = error;
      log.error('Failed to read changes; trying again', { error });
      this.#wake();
    }
  }

  /** Everything from the tables. The number is read first: what changes meanwhile is read once more, which does no harm. */
  async #rebuild(): Promise<void> {
    const { store } = this.#parts;
    const { newest } = await store.changes.bounds();
    const entries: Entry[] = [];
    for await (const page of store.entries.all()) entries.push(...page);
    const nodes: Node[] = [];
    for await (const page of store.nodes.all()) nodes.push(...page);
    const bundles = await store.bundles.all();

    for (const index of [this.#entries, this.#nodes, this.#bundles, this.#expiring, this.#ended]) index.clear();
    for (const groups of [this.#byParent, this.#bySpiffeId, this.#aliases, this.#nodesBySelector]) groups.clear();
    this.#sorted = undefined;
    for (const entry of entries) this.#add(entry);
    for (const node of nodes) this.#addNode(node);
    for (const bundle of bundles) this.#bundles.set(bundle.trustDomain, bundle);
    this.#arrive(newest);
  }

  async #apply(changes: readonly Change[]): Promise<void> {
    const { store } = this.#parts;
    const ids = (kind: Change['kind']) => [...new Set(changes.filter((one) => one.kind === kind).map(({ id }) => id))];
    const [entryIds, nodeIds, trustDomains] = [ids('entry'), ids('node'), ids('bundle')];
    const [entries, nodes, bundles] = await Promise.all([
      entryIds.length > 0 ? store.entries.get(entryIds) : [],
      Promise.all(nodeIds.map((id) => store.nodes.get(id))),
      Promise.all(trustDomains.map((name) => store.bundles.get(name))),
    ]);

    const agents = new Set<string>();
    const now = new Map(entries.map((entry) => [entry.id, entry]));
    for (const id of entryIds) this.#replace(this.#entries.get(id), now.get(id), agents);
    for (const [at, id] of nodeIds.entries()) if (this.#replaceNode(id, nodes[at])) agents.add(id);
    for (const [at, name] of trustDomains.entries()) {
      const bundle = bundles[at];
      if (bundle) this.#bundles.set(name, bundle);
      else this.#bundles.delete(name);
    }
    this.#arrive(changes.at(-1)?.seq ?? this.#seq);
    this.#tell({ seq: this.#seq, agents, nodes: new Set(nodeIds), bundles: new Set(trustDomains) });
  }

  #arrive(seq: number): void {
    this.#seq = seq;
    const ready = this.#waiters.filter((one) => one.seq <= seq);
    if (ready.length > 0) this.#waiters = this.#waiters.filter((one) => one.seq > seq);
    for (const { resolve } of ready) resolve();
    this.#wake();
  }

  #tell(touched: Touched): void {
    for (const listener of this.#listeners) listener(touched);
  }

  /** An agent's set can only differ when the entry was in it before, or is in it now: with it go or come those below it. */
  #replace(before: Entry | undefined, after: Entry | undefined, agents: Set<string>): void {
    if (before) {
      this.#collectAgents(before, agents);
      this.#remove(before);
    }
    if (after) {
      this.#add(after);
      this.#collectAgents(after, agents);
    }
  }

  #add(entry: Entry): void {
    if (!this.#entries.has(entry.id)) this.#sorted = undefined;
    this.#entries.set(entry.id, entry);
    this.#byParent.add(entry.parentId.path, entry);
    this.#bySpiffeId.add(entry.spiffeId.path, entry);
    if (this.#isAlias(entry)) this.#aliases.add(anchorOf(entry), entry);
    if (entry.expiresAtMs > 0) this.#expiring.set(entry.id, entry);
    this.#ended.delete(entry.id);
  }

  #remove(entry: Entry): void {
    this.#sorted = undefined;
    this.#entries.delete(entry.id);
    this.#byParent.delete(entry.parentId.path, entry);
    this.#bySpiffeId.delete(entry.spiffeId.path, entry);
    if (this.#isAlias(entry)) this.#aliases.delete(anchorOf(entry), entry);
    this.#expiring.delete(entry.id);
    this.#ended.delete(entry.id);
  }

  /** Gives whether what the agent may have can be different now. */
  #replaceNode(id: string, after: Node | undefined): boolean {
    const before = this.#nodes.get(id);
    if (before) {
      this.#nodes.delete(id);
      for (const key of before.keys) this.#nodesBySelector.delete(key, before);
    }
    if (after) this.#addNode(after);
    if (!before || !after) return true;
    return before.node.banned !== after.banned || !sameSelectors(before.node.selectors, after.selectors);
  }

  #addNode(node: Node): void {
    const indexed: IndexedNode = { node, keys: new Set(node.selectors.map(selectorKey)) };
    this.#nodes.set(node.id, indexed);
    for (const key of indexed.keys) this.#nodesBySelector.add(key, indexed);
  }

  /** '' for an ID of another trust domain, under which nothing is kept. */
  #pathOf(id: string): string {
    return id.startsWith(`${this.#prefix}/`) ? id.slice(this.#prefix.length) : '';
  }

  #isAlias(entry: Entry): boolean {
    return entry.parentId.path === SERVER_PATH;
  }

  *#aliasesOf(indexed: IndexedNode, now: number): Generator<Entry, void, void> {
    for (const key of indexed.keys) {
      for (const alias of this.#aliases.of(key)) if (isLive(alias, now) && hasAll(indexed, alias)) yield alias;
    }
  }

  #collectAgents(entry: Entry, agents: Set<string>): void {
    this.#climb(
      entry,
      undefined,
      (parent) => {
        const agentId = `${this.#prefix}${parent}`;
        if (this.#nodes.has(agentId)) agents.add(agentId);
        return false;
      },
      (alias) => {
        for (const { node } of this.#nodesWith(alias.selectors)) agents.add(node.id);
        return false;
      },
    );
  }

  /** Looks at the entry, at whoever stands above it, and on up; ends with true as soon as one look says so. `now` undefined: entries that have ended count too. */
  #climb(entry: Entry, now: number | undefined, atParent: (path: string) => boolean, atAlias: (alias: Entry) => boolean): boolean {
    const above: Entry[] = [entry];
    const seen = new Set<string>();
    for (let one = above.pop(); one; one = above.pop()) {
      // an alias is nobody's own entry, but what it stands for is above others
      if (this.#isAlias(one)) {
        if (one !== entry || now === undefined) if (atAlias(one)) return true;
        continue;
      }
      const parent = one.parentId.path;
      if (seen.has(parent)) continue;
      seen.add(parent);
      if (atParent(parent)) return true;
      for (const next of this.#bySpiffeId.of(parent)) if (now === undefined || isLive(next, now)) above.push(next);
    }
    return false;
  }

  #nodesWith(selectors: readonly Selector[]): readonly IndexedNode[] {
    let rarest: Iterable<IndexedNode> = [];
    let size = Number.POSITIVE_INFINITY;
    const keys = selectors.map(selectorKey);
    for (const key of keys) {
      const count = this.#nodesBySelector.count(key);
      if (count >= size) continue;
      size = count;
      rarest = this.#nodesBySelector.of(key);
    }
    return [...rarest].filter((node) => keys.every((key) => node.keys.has(key)));
  }

  #untilNextEnd(): number {
    let next = LONGEST_SLEEP_MS;
    const now = this.#parts.clock.now();
    for (const entry of this.#expiring.values()) if (!this.#ended.has(entry.id)) next = Math.min(next, entry.expiresAtMs - now);
    return Math.max(next, 1);
  }

  /** Ended entries are not authorized from that moment on; those who listen hear of it once. */
  #tellEnded(): void {
    const agents = new Set<string>();
    const now = this.#parts.clock.now();
    for (const entry of this.#expiring.values()) {
      if (isLive(entry, now)) {
        // the clock went back
        if (this.#ended.delete(entry.id)) this.#collectAgents(entry, agents);
      } else if (!this.#ended.has(entry.id)) {
        this.#ended.add(entry.id);
        this.#collectAgents(entry, agents);
      }
    }
    if (agents.size > 0) this.#tell({ seq: this.#seq, agents, nodes: new Set(), bundles: new Set() });
  }
}

interface IndexedNode {
  readonly node: Node;
  readonly keys: ReadonlySet<string>;
}

/** Things under a key, several under each; of most keys there is one, and it costs no set. */
class Groups<T extends object> {
  readonly #groups = new Map<string, T | Set<T>>();

  of(key: string): Iterable<T> {
    const group = this.#groups.get(key);
    return group === undefined ? [] : group instanceof Set ? group : [group];
  }

  has(key: string): boolean {
    return this.#groups.has(key);
  }

  count(key: string): number {
    const group = this.#groups.get(key);
    return group === undefined ? 0 : group instanceof Set ? group.size : 1;
  }

  add(key: string, thing: T): void {
    const group = this.#groups.get(key);
    if (group === undefined) this.#groups.set(key, thing);
    else if (group instanceof Set) group.add(thing);
    else if (group !== thing) this.#groups.set(key, new Set([group, thing]));
  }

  delete(key: string, thing: T): void {
    const group = this.#groups.get(key);
    if (group === thing) this.#groups.delete(key);
    if (!(group instanceof Set)) return;
    group.delete(thing);
    if (group.size === 0) this.#groups.delete(key);
  }

  clear(): void {
    this.#groups.clear();
  }
}

/** Where, in a sorted list, what is greater begins. */
function firstBehind(sorted: readonly string[], after: string): number {
  let from = 0;
  for (let to = sorted.length; from < to; ) {
    const middle = (from + to) >>> 1;
    if ((sorted[middle] ?? '') > after) to = middle;
    else from = middle + 1;
  }
  return from;
}

function anchorOf(alias: Entry): string {
  const [first] = alias.selectors;
  return first ? selectorKey(first) : '';
}

function hasAll(node: IndexedNode, alias: Entry): boolean {
  return alias.selectors.length > 0 && alias.selectors.every((selector) => node.keys.has(selectorKey(selector)));
}

function isLive(entry: Entry, now: number): boolean {
  return entry.expiresAtMs === 0 || entry.expiresAtMs > now;
}

function sameSelectors(a: readonly Selector[], b: readonly Selector[]): boolean {
  return a.length === b.length && a.every((one, i) => one.type === b[i]?.type && one.value === b[i]?.value);
}
