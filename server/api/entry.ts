/** spire.api.server.entry.v1: operators write and read entries, agents read those that are theirs. Who may call is decided before. */
import { randomUUID } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { type Entry, entryToWire, parseEntry, parseUpdate } from '../../core/entry.ts';
import { fail, isCoded } from '../../core/errors.ts';
import type { Log } from '../../core/log.ts';
import type { CallContext, Implementation } from '../../core/rpc-types.ts';
import type { EntryDefinition, SyncAuthorizedEntriesResponse } from '../../proto/gen/spire/api/server/entry/v1/entry.ts';
import type { EntryMask, Entry as WireEntry } from '../../proto/gen/spire/api/types/entry.ts';
import type { Status } from '../../proto/gen/spire/api/types/status.ts';
import type { Clock } from '../../spiffe/clock.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import type { State } from '../state.ts';
import type { EntryOutcome, Store } from '../store/store.ts';
import { type EntryFilter, entryFilter } from './entry-filter.ts';
import { itemFailure, itemStatus, OK } from './item-status.ts';

export interface EntryApiParts {
  readonly store: Pick<Store, 'entries'>;
  readonly state: State;
  readonly trustDomain: TrustDomain;
  readonly clock: Clock;
  readonly log: Log;
  /** The SPIFFE ID of the agent that calls. Throws DENIED when it is none. */
  readonly agentOf: (context: CallContext) => string;
}

/** Entries, or revisions, in one answer of SyncAuthorizedEntries. Agents of SPIRE know it. */
const SYNC_PAGE = 500;
/** Items looked at before others get their turn. */
const TURN = 500;

export function createEntryApi(parts: EntryApiParts): Implementation<typeof EntryDefinition> {
  const { store, state, trustDomain, clock, log, agentOf } = parts;
  const options = { trustDomain, hasBundle: ({ name }: TrustDomain) => state.bundle(name) !== undefined };

  /** Those that may pass, in the order of their ids. */
  const candidates = ({ spiffeId }: EntryFilter, after = ''): Iterable<Entry> =>
    spiffeId === undefined
      ? state.entries(after)
      : state
          .entriesOf(spiffeId)
          .filter(({ id }) => id > after)
          .sort(byId);

  /** All items of a batch in one write; gives the outcome of each, once those who read see it. */
  const inBatch = async <T, P>(
    items: readonly T[],
    failed: string,
    prepare: (item: T) => P,
    write: (prepared: readonly P[]) => Promise<readonly EntryOutcome[]>,
  ): Promise<readonly Done[]> => {
    const done: Done[] = Array.from(items, () => ({ status: itemStatus('INTERNAL', failed) }));
    const prepared: P[] = [];
    const places: number[] = [];
    for await (const turn of inTurns(items.entries())) {
      for (const [at, item] of turn) {
        try {
          prepared.push(prepare(item));
          places.push(at);
        } catch (error) {
          if (isCoded(error)) done[at] = { status: itemStatus(error.code, error.message) };
          else log.error('Failed to read an entry', { error });
        }
      }
    }
    if (prepared.length === 0) return done;
    let outcomes: readonly EntryOutcome[];
    try {
      outcomes = await write(prepared);
    } catch (error) {
      log.error('Failed to write entries', { error, count: prepared.length });
      for (const at of places) done[at] = { status: itemFailure(failed, error) };
      return done;
    }
    let seq = 0;
    for (const [i, at] of places.entries()) {
      const outcome = outcomes[i];
      if (outcome?.ok) seq = Math.max(seq, outcome.seq);
      if (outcome) done[at] = outcome;
    }
    await state.settled(seq);
    return done;
  };

  /** What the agent may have now; it may be banned or evicted while its stream is open. */
  const authorized = (agentId: string, { method }: CallContext): ReadonlyMap<string, Entry> => {
    const node = state.node(agentId);
    if (!node || node.banned) throw fail('DENIED', `authorization denied for method ${method}`);
    return state.authorized(agentId);
  };

  return {
    async countEntries({ filter: asked }) {
      if (!asked) return { count: state.entryCount };
      const filter = entryFilter(asked, trustDomain);
      let count = 0;
      for await (const turn of inTurns(candidates(filter))) count += turn.filter(filter.passes).length;
      return { count };
    },

    /** As in SPIRE, each page that is not empty carries a token; no page size: everything. The next page begins behind the last id of this one, whatever changed. */
    async listEntries({ filter: asked, outputMask, pageSize, pageToken }) {
      const filter = entryFilter(asked, trustDomain);
      const paged = pageSize > 0;
      const after = paged && pageToken !== '' ? readPageToken(pageToken) : '';
      const entries: WireEntry[] = [];
      for await (const turn of inTurns(candidates(filter, after))) {
        for (const entry of turn) if (filter.passes(entry)) entries.push(entryToWire(entry, outputMask));
        if (paged && entries.length >= pageSize) break;
      }
      if (paged) entries.splice(pageSize);
      const last = entries.at(-1);
      return { entries, nextPageToken: paged && last ? Buffer.from(last.id).toString('base64url') : '' };
    },

    async getEntry({ id, outputMask }) {
      if (id === '') throw fail('REQUEST_INVALID', 'missing ID');
      const entry = state.entry(id);
      if (!entry) throw fail('NOT_FOUND', 'entry not found');
      return entryToWire(entry, outputMask);
    },

    async batchCreateEntry({ entries, outputMask }) {
      const failed = 'failed to create entry';
      const nowMs = clock.now();
      const done = await inBatch(
        entries,
        failed,
        (wire) => parseEntry(wire, { ...options, nowMs, newId: randomUUID }),
        (drafts) => store.entries.create(drafts),
      );
      return {
        results: done.map((one) => {
          const exists = 'ok' in one && !one.ok && one.code === 'ALREADY_EXISTS';
          const status = exists ? itemStatus('ALREADY_EXISTS', 'similar entry already exists') : statusOf(one, failed);
          return { status, entry: entryOf(one, outputMask) };
        }),
      };
    },

    async batchUpdateEntry({ entries, inputMask, outputMask }) {
      const failed = 'failed to update entry';
      const done = await inBatch(
        entries,
        failed,
        (wire) => ({ id: wire.id, change: parseUpdate(wire, inputMask, options) }),
        (changes) => store.entries.update(changes),
      );
      return {
        results: done.map((one) => {
          if ('ok' in one && one.ok) return { status: OK, entry: entryOf(one, outputMask) };
          // the words of a change that refused are whole
          const refused = 'ok' in one && one.code === 'REQUEST_INVALID';
          return { status: refused ? itemStatus(one.code, one.message) : statusOf(one, failed), entry: undefined };
        }),
      };
    },

    async batchDeleteEntry({ ids }) {
      const done = await inBatch(
        ids,
        'failed to delete entry',
        (id) => {
          if (id === '') throw fail('REQUEST_INVALID', 'missing entry ID');
          return id;
        },
        (known) => store.entries.delete(known),
      );
      return {
        results: done.map((one, at) => {
          const missing = 'ok' in one && !one.ok && one.code === 'NOT_FOUND';
          const status = missing ? itemStatus('NOT_FOUND', 'entry not found') : statusOf(one, 'failed to delete entry');
          return { status, id: ids[at] ?? '' };
        }),
      };
    },

    async getAuthorizedEntries({ outputMask }, context) {
      const entries: WireEntry[] = [];
      for await (const turn of inTurns(authorized(agentOf(context), context).values())) {
        for (const entry of turn) entries.push(entryToWire(entry, outputMask));
      }
      return { entries };
    },

    /** Few entries: all of them, and the end. Many: their revisions first, then the bodies that the agent asks for. */
    async *syncAuthorizedEntries(requests, context) {
      const agentId = agentOf(context);
      const incoming = requests[Symbol.asyncIterator]();
      const first = await incoming.next();
      if (first.done) throw fail('REQUEST_INVALID', 'failed to receive request from stream: the stream ended');
      const { ids, outputMask: mask } = first.value;
      if (ids.length > 0) throw fail('REQUEST_INVALID', 'specifying IDs on initial request is not supported');
      // by it the agent knows whether it needs the body
      if (mask && !mask.revisionNumber) throw fail('REQUEST_INVALID', 'revision number cannot be masked');

      const all = [...authorized(agentId, context).values()].sort(byId);
      if (all.length <= SYNC_PAGE) {
        yield { entryRevisions: [], entries: all.map((entry) => entryToWire(entry, mask)), more: false };
        return;
      }
      for (const [revisions, more] of pages(all)) yield revisionsMessage(revisions, more);
      for (;;) {
        const next = await incoming.next();
        if (next.done) return;
        // what it may have now, not what it had when the stream began
        const known = authorized(agentId, context);
        const wanted = [...new Set(next.value.ids)].sort().flatMap((id) => known.get(id) ?? []);
        for (const [entries, more] of pages(wanted)) {
          yield { entryRevisions: [], entries: entries.map((entry) => entryToWire(entry, mask)), more };
        }
      }
    },
  };
}

/** The outcome of an item that was written, or why it was not even tried. */
type Done = EntryOutcome | { readonly status: Status };

function statusOf(done: Done, failed: string): Status {
  if ('status' in done) return done.status;
  return done.ok ? OK : itemFailure(failed, fail(done.code, done.message));
}

function entryOf(done: Done, mask: EntryMask | undefined): WireEntry | undefined {
  return 'ok' in done && done.entry ? entryToWire(done.entry, mask) : undefined;
}

function revisionsMessage(entries: readonly Entry[], more: boolean): SyncAuthorizedEntriesResponse {
  return {
    entryRevisions: entries.map((entry) => {
      const { id, revisionNumber, createdAt } = entryToWire(entry);
      return { id, revisionNumber, createdAt };
    }),
    entries: [],
    more,
  };
}

/** Pages, and whether more follow. At least one, which may be empty. */
function* pages<T>(items: readonly T[]): Generator<readonly [page: readonly T[], more: boolean], void, void> {
  for (let from = 0; from === 0 || from < items.length; from += SYNC_PAGE) {
    yield [items.slice(from, from + SYNC_PAGE), from + SYNC_PAGE < items.length];
  }
}

/** The items in turns; between two of them others get theirs. */
async function* inTurns<T>(items: Iterable<T>): AsyncGenerator<readonly T[], void, void> {
  let turn: T[] = [];
  for (const item of items) {
    turn.push(item);
    if (turn.length < TURN) continue;
    yield turn;
    turn = [];
    await setImmediate();
  }
  yield turn;
}

function byId(a: Entry, b: Entry): number {
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

function readPageToken(token: string): string {
  const id = Buffer.from(token, 'base64url').toString('latin1');
  if (!/^[-._0-9A-Za-z]+$/.test(id)) throw fail('REQUEST_INVALID', `could not parse token '${token.slice(0, 300)}'`);
  return id;
}
