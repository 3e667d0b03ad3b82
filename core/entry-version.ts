/** Versions of entries, and the digest of a set of them: how an agent and the server find out in one message whether they have the same. */
import { createHash } from 'node:crypto';
import { Entry as EntryMessage } from '../proto/gen/spire/api/types/entry.ts';
import { type Entry, entryToWire } from './entry.ts';

const VERSION_BYTES = 16;

const versions = new WeakMap<Entry, Buffer>();

/** The first 16 bytes of SHA-256 over the entry's wire bytes. Computed once for each entry. */
export function versionOf(entry: Entry): Buffer {
  let version = versions.get(entry);
  if (!version) {
    version = versionOfBytes(EntryMessage.encode(entryToWire(entry)).finish());
    versions.set(entry, version);
  }
  return version;
}

export function versionOfBytes(bytes: Uint8Array): Buffer {
  // a copy of the part that is kept, not a view that keeps the rest
  return Buffer.from(createHash('sha256').update(bytes).digest().subarray(0, VERSION_BYTES));
}

/** SHA-256 over the set, in ascending order of the bytes of the ids: for each, the id's length (4 bytes, big endian), the id, and the version. */
export function digestOf(set: Iterable<readonly [id: string, version: Uint8Array]>): Buffer {
  // ids are ASCII, so the order of strings is the order of bytes
  const sorted = [...set].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const hash = createHash('sha256');
  const length = Buffer.alloc(4);
  for (const [id, version] of sorted) {
    length.writeUInt32BE(Buffer.byteLength(id));
    hash.update(length).update(id).update(version);
  }
  return hash.digest();
}
