/** The schema, step by step. A step that was released is never changed; a new one is added at the end. */

export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
  INSERT INTO counters VALUES ('changes', 0);

  -- what changed, in the order of commits
  CREATE TABLE changes (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL);
  CREATE INDEX changes_at ON changes (at_ms);

  CREATE TABLE entries (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    -- SHA-256 over parent, SPIFFE ID and selectors: there is never a second entry that says the same
    similarity BLOB NOT NULL UNIQUE,
    parent_id TEXT NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    data TEXT NOT NULL
  );
  CREATE INDEX entries_parent ON entries (parent_id);
  CREATE INDEX entries_expiry ON entries (expires_at_ms) WHERE expires_at_ms > 0;
  CREATE TABLE entry_federation (trust_domain TEXT NOT NULL, entry_id TEXT NOT NULL, PRIMARY KEY (trust_domain, entry_id)) WITHOUT ROWID;
  CREATE INDEX entry_federation_entry ON entry_federation (entry_id);

  CREATE TABLE nodes (id TEXT PRIMARY KEY, attestation_type TEXT NOT NULL, banned INTEGER NOT NULL, data TEXT NOT NULL, record BLOB) WITHOUT ROWID;
  -- what an attestor takes only once
  CREATE TABLE spent (attestation_type TEXT NOT NULL, id TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (attestation_type, id)) WITHOUT ROWID;

  CREATE TABLE bundles (trust_domain TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE join_tokens (value TEXT PRIMARY KEY, expires_at_ms INTEGER NOT NULL, spent_by BLOB) WITHOUT ROWID;
  CREATE TABLE journal (kind TEXT NOT NULL, authority_id TEXT NOT NULL, not_after_ms INTEGER NOT NULL, data TEXT NOT NULL, PRIMARY KEY (kind, authority_id)) WITHOUT ROWID;
  `,
];
