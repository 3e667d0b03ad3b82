/** What the server keeps, as small interfaces per noun. SQLite implements them today; every method is a promise because PostgreSQL will too. */
import type { Entry } from '../../core/entry.ts';
import type { Selector } from '../../core/selector.ts';

/**
 * One row of the ordered change log, written in the transaction of the row it speaks of. `seq` comes from one counter row, so its order is commit order.
 * Readers apply changes by reading the named row again: the log says what changed, never how.
 */
export interface Change {
  readonly seq: number;
  readonly atMs: number;
  readonly kind: 'entry' | 'node' | 'bundle';
  /** Entry id, agent's SPIFFE ID, or trust domain name. */
  readonly id: string;
}

/** What a write gives back: OK means that it is on disk. `seq` is that of its last change row; wait for `State.settled(seq)` to read your own write. */
export interface Written {
  readonly seq: number;
}

export interface Store {
  readonly entries: EntryStore;
  readonly nodes: NodeStore;
  readonly bundles: BundleStore;
  readonly tokens: JoinTokenStore;
  readonly journals: JournalStore;
  readonly changes: ChangeStore;
  /** A consistent copy, made while writes go on, as the bytes of a file that this store can be opened from. Absent: whatever keeps the rows has its own way. */
  backup?(): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

export type EntryOutcome =
  | ({ readonly ok: true; readonly entry: Entry } & Written)
  | {
      readonly ok: false;
      readonly code: 'ALREADY_EXISTS' | 'NOT_FOUND' | 'REQUEST_INVALID' | 'STORE_FAILED';
      readonly message: string;
      readonly entry?: Entry;
    };

export interface EntryStore {
  /** Calls with many drafts are one transaction, item by item: a bad item spoils no other. A draft is a whole entry; a similar one (parent, SPIFFE ID, selectors) or its id taken: ALREADY_EXISTS with the one that is there. */
  create(drafts: readonly Entry[]): Promise<readonly EntryOutcome[]>;
  /** Each `change` gets the stored entry and gives the new one (its revision is raised here); it may throw a SpiffeError, which becomes the item's outcome. */
  update(changes: readonly { readonly id: string; readonly change: (stored: Entry) => Entry }[]): Promise<readonly EntryOutcome[]>;
  delete(ids: readonly string[]): Promise<readonly EntryOutcome[]>;
  /** Those that `ids` name and that exist. */
  get(ids: readonly string[]): Promise<readonly Entry[]>;
  /** Every entry in pages, in the order of their ids' rows; a consistent snapshot is not promised, the change log makes up for it. */
  all(): AsyncIterable<readonly Entry[]>;
  /** Deletes what expired before `nowMs`; gives those. */
  prune(nowMs: number): Promise<readonly Entry[]>;
}

/** A certificate of an agent, as the server remembers it. */
export interface AgentCertificate {
  /** Decimal, as SPIRE shows it. */
  readonly serial: string;
  readonly notAfterMs: number;
  /** SHA-256 of the DER, hex. The serial alone does not identify a certificate: a sibling CA can repeat it. */
  readonly sha256: string;
}

/** An attested agent. Banned: `current` and `next` are undefined and `banned` is true. */
export interface Node {
  readonly id: string;
  readonly attestationType: string;
  readonly current: AgentCertificate | undefined;
  /** Signed by RenewAgent, becomes `current` when first used. */
  readonly next: AgentCertificate | undefined;
  readonly banned: boolean;
  /** Of a banned one, whose certificates are forgotten: when the last of them ends. */
  readonly heldUntilMs?: number;
  readonly canReattest: boolean;
  /** Sorted by type, then value. */
  readonly selectors: readonly Selector[];
  readonly agentVersion: string;
  /** The attestor's own bytes. */
  readonly record: Buffer | undefined;
  readonly attestedAtMs: number;
}

export interface NodeStore {
  /**
   * Writes the node and, in the same transaction, spends the token and the ids. DENIED when the row is banned or belongs to another attestation type;
   * REQUEST_INVALID (SPIRE's words) when the token is gone, expired, or was spent by another key; DENIED when a `spend` id was used before.
   * A token that the same key spent before may be spent again until it expires.
   */
  attest(
    node: Node,
    spend: {
      readonly token?: { readonly value: string; readonly publicKeySha256: Buffer; readonly nowMs: number };
      readonly ids?: readonly string[];
    },
  ): Promise<Written>;
  /** Gives the row that `change` makes of the stored one; NOT_FOUND when there is none. `change` may throw. */
  update(id: string, change: (stored: Node) => Node): Promise<Written & { readonly node: Node }>;
  /** NOT_FOUND when there is none. A join_token agent's automatic alias entry and spent token go with it: the key that spent it may not come again. */
  delete(id: string): Promise<Written>;
  get(id: string): Promise<Node | undefined>;
  all(): AsyncIterable<readonly Node[]>;
}

/** A trust domain's bundle as stored. `certificatesDer`/keys in the order they were added. */
export interface StoredBundle {
  readonly trustDomain: string;
  readonly x509Authorities: readonly { readonly der: Buffer; readonly tainted: boolean }[];
  readonly jwtAuthorities: readonly {
    readonly keyId: string;
    readonly spkiDer: Buffer;
    readonly notAfterMs: number;
    readonly tainted: boolean;
  }[];
  /** Seconds; 0: none given. */
  readonly refreshHintSeconds: number;
  /** Grows by 1 on each change of content. Beyond 2^53 is refused at the door. */
  readonly sequence: number;
}

export interface BundleStore {
  /** Read, change, write in one transaction; `change` gives undefined to leave it (then `changed` is false and no change row is written). The sequence is raised here. */
  update(
    trustDomain: string,
    change: (stored: StoredBundle | undefined) => StoredBundle | undefined,
  ): Promise<Written & { readonly bundle: StoredBundle | undefined; readonly changed: boolean }>;
  /** `restrict`: FAILED_PRECONDITION while entries federate with it; `delete`: those entries go too; `dissociate`: they lose the link. NOT_FOUND when there is none. */
  delete(trustDomain: string, mode: 'restrict' | 'delete' | 'dissociate'): Promise<Written>;
  get(trustDomain: string): Promise<StoredBundle | undefined>;
  all(): Promise<readonly StoredBundle[]>;
}

export interface JoinTokenStore {
  /** ALREADY_EXISTS when the value is taken. `alias`, if any, is written in the same transaction. */
  create(token: { readonly value: string; readonly expiresAtMs: number }, alias?: Entry): Promise<Written>;
  /** Deletes those that nobody has spent; gives their number. */
  voidUnspent(): Promise<number>;
  /** Deletes tokens (spent or not) that expired before `nowMs`; gives their number. */
  prune(nowMs: number): Promise<number>;
  /** Looks, spends nothing. */
  get(value: string): Promise<{ readonly expiresAtMs: number; readonly spentBy: Buffer | undefined } | undefined>;
}

/** One authority of the journal. Written before it is used, so that a crash never loses what was published. */
export interface JournalRecord {
  readonly kind: 'x509' | 'jwt';
  readonly slot: 'A' | 'B';
  readonly authorityId: string;
  readonly status: 'prepared' | 'active' | 'old';
  readonly issuedAtMs: number;
  readonly notAfterMs: number;
  /** X.509: the CA certificate, then its issuers up to but without the root. */
  readonly chainDer: readonly Buffer[];
  /** X.509: the roots it hangs on, hex SHA-256 of each DER. */
  readonly rootsSha256: readonly string[];
  /** SubjectPublicKeyInfo of the signing key, so that a restart can tell whether its key manager still has it. */
  readonly spkiDer: Buffer;
}

export interface JournalStore {
  load(): Promise<readonly JournalRecord[]>;
  /** Replaces the record of the same kind and authorityId. */
  save(record: JournalRecord): Promise<void>;
  /** Forgets what ended before `nowMs`. */
  prune(nowMs: number): Promise<void>;
}

export interface ChangeStore {
  /** The newest number, and the oldest kept. */
  bounds(): Promise<{ readonly newest: number; readonly oldest: number }>;
  /** Rows after `seq`, in order, at most `limit`. */
  since(seq: number, limit: number): Promise<readonly Change[]>;
  /** Called (once, soon) after commits that wrote change rows. Gives the way to stop. */
  onCommit(listener: () => void): () => void;
  /** Rows older than `beforeMs` go. */
  prune(beforeMs: number): Promise<void>;
}
