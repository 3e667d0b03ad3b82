/** Entries, nodes and bundles in memory, indexed, fed by the change log alone: what agents' reads touch instead of tables. */
import type { Entry } from '../core/entry.ts';
import type { Node, StoredBundle } from './store/store.ts';

/** The reading face. `server/memory.ts` makes and feeds it. */
export interface State {
  /** The number of the last change applied. */
  readonly seq: number;
  entry(id: string): Entry | undefined;
  /** Every entry, in the order of their ids. @param after only those behind this id, found without walking to it */
  entries(after?: string): Iterable<Entry>;
  readonly entryCount: number;
  /** Entries whose SPIFFE ID is this one; for admin and downstream callers. */
  entriesOf(spiffeId: string): readonly Entry[];
  node(agentId: string): Node | undefined;
  nodes(): Iterable<Node>;
  readonly nodeCount: number;
  bundle(trustDomain: string): StoredBundle | undefined;
  bundles(): Iterable<StoredBundle>;
  /** The entries that this agent may have (its children, the children of its aliases, and theirs), in no order. Empty when the node is unknown or banned. */
  authorized(agentId: string): ReadonlyMap<string, Entry>;
  /** Whether one of `authorized` is this one, without building the set when it can be told sooner. */
  isAuthorized(agentId: string, entryId: string): boolean;
  /** Resolves when every change up to `seq` is applied: read your own write. */
  settled(seq: number): Promise<void>;
  /** Called after changes were applied, with what they touched. Gives the way to stop. */
  onApplied(listener: (touched: Touched) => void): () => void;
}

export interface Touched {
  readonly seq: number;
  /** Agents whose authorized set, or an entry in it, may have changed. `all`: a rebuild; compare everything. */
  readonly agents: ReadonlySet<string> | 'all';
  /** Agents whose row changed (certificate, ban, eviction, selectors). */
  readonly nodes: ReadonlySet<string> | 'all';
  /** Trust domains whose bundle changed. */
  readonly bundles: ReadonlySet<string> | 'all';
}
