/** `server entry …`: registration entries. */
import type { Entry } from '../proto/gen/spire/api/types/entry.ts';
import { EntryDefinition } from '../proto/gen/spire/api/server/entry/v1/entry.ts';
import { FederatesWithMatch_MatchBehavior as FederatesWithMatch } from '../proto/gen/spire/api/types/federateswith.ts';
import { SelectorMatch_MatchBehavior as SelectorMatch } from '../proto/gen/spire/api/types/selector.ts';
import { fail } from '../core/errors.ts';
import { defineCommand, messageOf } from './command.ts';
import { type Connection, withServer } from './connection.ts';
import { type FileEntry, parseEntries, parseIds, readData } from './entry-file.ts';
import { bool, type Flags, integer, list, output, text, type Values } from './flags.ts';
import { checkInt32, parseId, parseSelector } from './ids.ts';
import { codeName, counted, entryText, quoted } from './print.ts';
import { serverFlags } from './sockets.ts';
import type { Terminal } from './terminal.ts';

const api = EntryDefinition.methods;

const about = {
  parentID: text("The SPIFFE ID of this record's parent", '', 'id'),
  spiffeID: text('The SPIFFE ID that this record represents', '', 'id'),
  selector: list('A colon-delimited type:value selector', 'type:value'),
  federatesWith: list('SPIFFE ID of a trust domain to federate with', 'id'),
  dns: list('A DNS name that will be included in SVIDs issued based on this entry, where appropriate', 'name'),
  x509SVIDTTL: integer(
    'The lifetime, in seconds, for x509-SVIDs issued based on this registration entry; 0: the default of the server',
    0,
    'seconds',
  ),
  jwtSVIDTTL: integer(
    'The lifetime, in seconds, for JWT-SVIDs issued based on this registration entry; 0: the default of the server',
    0,
    'seconds',
  ),
  admin: bool("If set, the SPIFFE ID in this entry will be granted access to the server's management APIs"),
  downstream: bool('If set, the entry describes a downstream SPIRE server'),
  storeSVID: bool('If set, the issued SVID from this entry must be stored through an SVIDStore plugin'),
  hint: text('The entry hint, used to disambiguate entries with the same SPIFFE ID', '', 'text'),
  entryExpiry: integer('An expiry, from epoch in seconds, for the resulting registration entry to be pruned; 0: never', 0, 'seconds'),
  disableX509SVIDPrefetch: bool('If set, agents sign no X509 SVID for this entry before one is asked for'),
  jwtSVIDIncludeJTI: bool("If set, JWT-SVIDs issued for this entry carry a unique 'jti' claim, and the agent does not cache them"),
  data: text("Path to a file containing registration JSON, instead of the flags above. If '-', read the JSON from stdin", '', 'path'),
} satisfies Flags;

const JSON_HELP = `
The JSON of -data: {"entries": [{"parent_id": "spiffe://example.org/spire/agent/x509pop/…", "spiffe_id": "spiffe://example.org/web",
"selectors": [{"type": "unix", "value": "uid:1000"}], "x509_svid_ttl": 3600}]}. More keys: entry_id, jwt_svid_ttl, federates_with, admin,
downstream, entryExpiry, dns_names, store_svid, hint, additional_attributes.`;

export const create = defineCommand({
  summary: 'Creates registration entries',
  details: `
Example: warifu server entry create -parentID spiffe://example.org/spire/agent/join_token/… -spiffeID spiffe://example.org/web -selector unix:uid:1000
${JSON_HELP}
Exit code 1 when one or more entries could not be created; with -output json the codes are inside, and the exit code is 0.`,
  flags: {
    entryID: text('A custom ID for this registration entry (optional). If not set, a new entry ID will be generated', '', 'id'),
    ...about,
    node: bool('If set, this entry will be applied to matching nodes rather than workloads'),
    output,
    ...serverFlags,
  },
  async run({ values }, terminal) {
    if (values.data === '') checkEntry(values, 'a parent ID is required if the node flag is not set', values.node);
    const entries = values.data === '' ? [entryOf(values, values.node)] : parseEntries(await readData(values.data, terminal)).map(toWire);
    return await withServer(values, terminal, async (server) => {
      const { results, failure } = await inBatches(entries, sizeOf, async (batch) => {
        const answer = await server.call(EntryDefinition, api.batchCreateEntry, { entries: batch, outputMask: undefined });
        // the answer has no entry where it failed: what was asked for is shown
        return answer.results.map((result, i) => (result.status?.code ? { ...result, entry: batch[i] } : result));
      });
      return await tellBatch('create', values, terminal, results, failure, () =>
        server.print(EntryDefinition, api.batchCreateEntry, { results }),
      );
    });
  },
});

export const update = defineCommand({
  summary: 'Updates registration entries',
  details: `
The whole entry is replaced: what is not given is set to its default. Only the switches -disableX509SVIDPrefetch and -jwtSVIDIncludeJTI
leave each other as they are.
${JSON_HELP}
Exit code 1 when one or more entries could not be updated; with -output json the codes are inside, and the exit code is 0.`,
  flags: { entryID: text('The Registration Entry ID of the record to update', '', 'id'), ...about, output, ...serverFlags },
  async run({ values, given }, terminal) {
    if (values.data === '') {
      if (values.entryID === '') throw fail('REQUEST_INVALID', 'entry ID is required');
      checkEntry(values, 'a parent ID is required');
    }
    const entries = values.data === '' ? [entryOf(values, false)] : parseEntries(await readData(values.data, terminal)).map(toWire);
    return await withServer(values, terminal, async (server) => {
      const [first] = entries;
      if (values.data === '' && first && (given.has('disableX509SVIDPrefetch') || given.has('jwtSVIDIncludeJTI'))) {
        entries[0] = { ...first, additionalAttributes: await mergedAttributes(server, values, given) };
      }
      const { results, failure } = await inBatches(entries, sizeOf, async (batch) => {
        const answer = await server.call(EntryDefinition, api.batchUpdateEntry, {
          entries: batch,
          inputMask: undefined,
          outputMask: undefined,
        });
        return answer.results.map((result, i) => (result.status?.code ? { ...result, entry: batch[i] } : result));
      });
      return await tellBatch('update', values, terminal, results, failure, () =>
        server.print(EntryDefinition, api.batchUpdateEntry, { results }),
      );
    });
  },
});

export const remove = defineCommand({
  summary: 'Deletes registration entries',
  flags: {
    entryID: text('The Registration Entry ID of the record to delete', '', 'id'),
    file: text(
      'Path to a file containing a JSON structure for batch deletion, {"ids": ["…"]} (optional). If \'-\', read from stdin',
      '',
      'path',
    ),
    output,
    ...serverFlags,
  },
  async run({ values }, terminal) {
    if (values.file === '' && values.entryID === '') throw fail('REQUEST_INVALID', 'an entry ID is required');
    const ids = values.file === '' ? [values.entryID] : parseIds(await readData(values.file, terminal));
    return await withServer(values, terminal, async (server) => {
      const { results, failure } = await inBatches(
        ids,
        (id) => id.length + 8,
        async (batch) => (await server.call(EntryDefinition, api.batchDeleteEntry, { ids: batch })).results,
      );
      if (values.output === 'json') {
        if (failure) throw failure;
        return await server.print(EntryDefinition, api.batchDeleteEntry, { results });
      }
      const failed = results.filter(({ status }) => status?.code);
      const done = results.filter(({ status }) => !status?.code);
      for (const { id } of done) terminal.out(`Deleted entry with ID: ${id}\n`);
      if (done.length > 0) terminal.out('\n\n');
      for (const { id, status } of failed)
        terminal.err(
          `Failed to delete entry with ID ${id} (code: ${codeName(status?.code ?? 0)}, msg: ${quoted(status?.message ?? '')})\n`,
        );
      if (failure) throw failure;
      if (failed.length === 0) {
        terminal.out(`Deleted ${done.length} entries successfully`);
        return 0;
      }
      const summary = `failed to delete ${failed.length} entries`;
      terminal.out(`\n\n${done.length > 0 ? `Deleted ${done.length} entries successfully, but ${summary}` : `F${summary.slice(1)}`}`);
      throw fail('REQUEST_INVALID', 'failed to delete one or more entries');
    });
  },
});

const filters = {
  parentID: text('The Parent ID of the records', '', 'id'),
  spiffeID: text('The SPIFFE ID of the records', '', 'id'),
  downstream: bool('If set, only entries that describe a downstream SPIRE server'),
  selector: list('A colon-delimited type:value selector', 'type:value'),
  federatesWith: list('SPIFFE ID of a trust domain an entry is federated with', 'id'),
  hint: text('The Hint of the records (optional)', '', 'text'),
  matchSelectorsOn: text('The match mode used when filtering by selectors. Options: exact, any, superset and subset', 'superset', 'mode'),
  matchFederatesWithOn: text(
    'The match mode used when filtering by federates with. Options: exact, any, superset and subset',
    'superset',
    'mode',
  ),
} satisfies Flags;

/** As SPIRE's own command line. */
const PAGE = 500;

export const show = defineCommand({
  summary: 'Displays configured registration entries',
  details: 'Without flags: all of them. -entryID goes alone; the other flags narrow the list, each one more.',
  flags: { entryID: text('The Entry ID of the record to show', '', 'id'), ...filters, output, ...serverFlags },
  async run({ values }, terminal) {
    if (values.entryID !== '' && (values.parentID !== '' || values.spiffeID !== '' || values.selector.length > 0)) {
      throw fail('REQUEST_INVALID', "the -entryID flag can't be combined with others");
    }
    const filter = values.entryID === '' ? filterOf(values) : undefined;
    return await withServer(values, terminal, async (server) => {
      const entries = filter ? await listEntries(server, filter) : [await getEntry(server, values.entryID)];
      sortEntries(entries);
      if (values.output === 'json') return await server.print(EntryDefinition, api.listEntries, { entries, nextPageToken: '' });
      terminal.out(`Found ${counted(entries.length, 'entry', 'entries')}\n${entries.map(entryText).join('')}`);
      return 0;
    });
  },
});

export const count = defineCommand({
  summary: 'Count registration entries',
  flags: { ...filters, output, ...serverFlags },
  async run({ values }, terminal) {
    const filter = filterOf(values);
    return await withServer(values, terminal, async (server) => {
      const answer = await server.call(EntryDefinition, api.countEntries, { filter });
      if (values.output === 'json') return await server.print(EntryDefinition, api.countEntries, answer);
      terminal.out(`${answer.count} registration ${answer.count === 1 ? 'entry' : 'entries'}\n`);
      return 0;
    });
  },
});

type Typed = Values<typeof about> & { readonly entryID: string };

/** SPIRE's checks, in its words and order. */
function checkEntry(values: Typed, noParent: string, node = false): void {
  const bad = (why: string) => fail('REQUEST_INVALID', why);
  if (values.selector.length === 0) throw bad('at least one selector is required');
  if (node && values.federatesWith.length > 0) throw bad('node entries can not federate');
  if (values.parentID === '' && !node) throw bad(noParent);
  if (values.spiffeID === '') throw bad('a SPIFFE ID is required');
  if (values.x509SVIDTTL < 0) throw bad('a positive x509-SVID TTL is required');
  if (values.jwtSVIDTTL < 0) throw bad('a positive JWT-SVID TTL is required');
}

function entryOf(values: Typed, node: boolean): Entry {
  const spiffeId = parseId(values.spiffeID);
  const attributes = values.disableX509SVIDPrefetch || values.jwtSVIDIncludeJTI;
  return toWire({
    id: values.entryID,
    spiffeId,
    parentId: node ? { trustDomain: spiffeId.trustDomain, path: '/spire/server' } : parseId(values.parentID),
    selectors: values.selector.map(parseSelector),
    x509SvidTtl: checkInt32(values.x509SVIDTTL, 'X509 SVID TTL'),
    jwtSvidTtl: checkInt32(values.jwtSVIDTTL, 'JWT SVID TTL'),
    federatesWith: [...values.federatesWith],
    admin: values.admin,
    downstream: values.downstream,
    expiresAt: values.entryExpiry,
    dnsNames: [...values.dns],
    revisionNumber: 0,
    storeSvid: values.storeSVID,
    hint: values.hint,
    createdAt: 0,
    additionalAttributes: attributes
      ? { disableX509SvidPrefetch: values.disableX509SVIDPrefetch, jwtSvidIncludeJti: values.jwtSVIDIncludeJTI }
      : undefined,
  });
}

function toWire(entry: FileEntry): Entry {
  return entry;
}

/** The attributes of the entry as it is, with those that were typed on top. */
async function mergedAttributes(server: Connection, values: Typed, given: ReadonlySet<string>): Promise<Entry['additionalAttributes']> {
  let existing: Entry;
  try {
    existing = await server.call(EntryDefinition, api.getEntry, { id: values.entryID, outputMask: undefined });
  } catch (error) {
    throw fail('REQUEST_INVALID', `failed to fetch existing entry to merge additional attributes: ${messageOf(error)}`, { cause: error });
  }
  const before = existing.additionalAttributes;
  return {
    disableX509SvidPrefetch: given.has('disableX509SVIDPrefetch')
      ? values.disableX509SVIDPrefetch
      : (before?.disableX509SvidPrefetch ?? false),
    jwtSvidIncludeJti: given.has('jwtSVIDIncludeJTI') ? values.jwtSVIDIncludeJTI : (before?.jwtSvidIncludeJti ?? false),
  };
}

const SELECTOR_MATCH: Readonly<Record<string, SelectorMatch>> = {
  exact: SelectorMatch.MATCH_EXACT,
  any: SelectorMatch.MATCH_ANY,
  superset: SelectorMatch.MATCH_SUPERSET,
  subset: SelectorMatch.MATCH_SUBSET,
};
const FEDERATES_MATCH: Readonly<Record<string, FederatesWithMatch>> = {
  exact: FederatesWithMatch.MATCH_EXACT,
  any: FederatesWithMatch.MATCH_ANY,
  superset: FederatesWithMatch.MATCH_SUPERSET,
  subset: FederatesWithMatch.MATCH_SUBSET,
};

function filterOf(values: Values<typeof filters>) {
  const id = (typed: string, what: string) => {
    try {
      return typed === '' ? undefined : parseId(typed);
    } catch (error) {
      throw fail('REQUEST_INVALID', `error parsing ${what} ${quoted(typed)}: ${messageOf(error)}`, { cause: error });
    }
  };
  const mode = <T>(table: Readonly<Record<string, T>>, typed: string): T => {
    const found = Object.hasOwn(table, typed) ? table[typed] : undefined;
    if (found === undefined) throw fail('REQUEST_INVALID', `match behavior ${quoted(typed)} unknown`);
    return found;
  };
  return {
    byParentId: id(values.parentID, 'parent ID'),
    bySpiffeId: id(values.spiffeID, 'SPIFFE ID'),
    bySelectors:
      values.selector.length === 0
        ? undefined
        : { match: mode(SELECTOR_MATCH, values.matchSelectorsOn), selectors: selectorsOf(values.selector) },
    byFederatesWith:
      values.federatesWith.length === 0
        ? undefined
        : { match: mode(FEDERATES_MATCH, values.matchFederatesWithOn), trustDomains: [...values.federatesWith] },
    byHint: values.hint === '' ? undefined : values.hint,
    byDownstream: values.downstream,
  };
}

function selectorsOf(typed: readonly string[]) {
  try {
    return typed.map(parseSelector);
  } catch (error) {
    throw fail('REQUEST_INVALID', `error parsing selectors: ${messageOf(error)}`, { cause: error });
  }
}

async function getEntry(server: Connection, id: string): Promise<Entry> {
  try {
    return await server.call(EntryDefinition, api.getEntry, { id, outputMask: undefined });
  } catch (error) {
    throw fail('NOT_FOUND', `error fetching entry ID ${id}: ${messageOf(error)}`, { cause: error });
  }
}

async function listEntries(server: Connection, filter: ReturnType<typeof filterOf>): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (let pageToken = ''; ; ) {
    const page = await server
      .call(EntryDefinition, api.listEntries, { filter, outputMask: undefined, pageSize: PAGE, pageToken })
      .catch((error: unknown) => {
        throw fail('UNAVAILABLE', `error fetching entries: ${messageOf(error)}`, { cause: error });
      });
    for (const entry of page.entries) entries.push(entry);
    pageToken = page.nextPageToken;
    if (pageToken === '') return entries;
  }
}

/** By SPIFFE ID, parent, lifetimes, selectors; the selectors of each by type and value. As SPIRE prints them. */
function sortEntries(entries: Entry[]): void {
  const selectors = (entry: Entry) => entry.selectors.map(({ type, value }) => [type, value]).flat();
  for (const entry of entries) entry.selectors.sort((a, b) => compare([a.type, a.value], [b.type, b.value]));
  entries.sort(
    (a, b) =>
      compare(
        [a.spiffeId?.trustDomain ?? '', a.spiffeId?.path ?? '', a.parentId?.trustDomain ?? '', a.parentId?.path ?? ''],
        [b.spiffeId?.trustDomain ?? '', b.spiffeId?.path ?? '', b.parentId?.trustDomain ?? '', b.parentId?.path ?? ''],
      ) ||
      a.x509SvidTtl - b.x509SvidTtl ||
      a.jwtSvidTtl - b.jwtSvidTtl ||
      a.selectors.length - b.selectors.length ||
      compare(selectors(a), selectors(b)),
  );
}

function compare(a: readonly string[], b: readonly string[]): number {
  for (const [i, left] of a.entries()) {
    const right = b[i] ?? '';
    if (left !== right) return left < right ? -1 : 1;
  }
  return 0;
}

/** Wire bytes of one message to a server at most: answers carry the entries again and must stay below gRPC's 4 MiB. */
const MAX_BATCH_BYTES = 1_500_000;

function sizeOf(entry: Entry): number {
  let size =
    64 +
    entry.id.length +
    entry.hint.length * 3 +
    (entry.spiffeId?.path.length ?? 0) +
    (entry.parentId?.path.length ?? 0) +
    2 * (entry.spiffeId?.trustDomain.length ?? 0);
  for (const { type, value } of entry.selectors) size += 8 + (type.length + value.length) * 3;
  for (const name of [...entry.dnsNames, ...entry.federatesWith]) size += 4 + name.length * 3;
  return size;
}

/** Sends `items` in few large calls, one after the other. After a call that failed nothing more is sent; what was answered before is kept. */
async function inBatches<T, R>(
  items: readonly T[],
  size: (item: T) => number,
  send: (batch: T[]) => Promise<R[]>,
): Promise<{ results: R[]; failure: Error | undefined }> {
  const results: R[] = [];
  for (let from = 0; from < items.length || (from === 0 && items.length === 0); ) {
    let to = from;
    for (let bytes = 0; to < items.length; to++) {
      const item = items[to];
      bytes += item === undefined ? 0 : size(item);
      if (bytes > MAX_BATCH_BYTES && to > from) break;
    }
    try {
      results.push(...(await send(items.slice(from, to))));
    } catch (error) {
      if (from === 0) throw error;
      return {
        results,
        failure: fail('UNAVAILABLE', `${messageOf(error)}; ${from} of ${items.length} were sent before`, { cause: error }),
      };
    }
    if (to === from) break;
    from = to;
  }
  return { results, failure: undefined };
}

interface Result {
  readonly status?: { readonly code: number; readonly message: string } | undefined;
  readonly entry?: Entry | undefined;
}

async function tellBatch(
  verb: 'create' | 'update',
  values: { readonly output: 'pretty' | 'json' },
  terminal: Terminal,
  results: readonly Result[],
  failure: Error | undefined,
  json: () => Promise<number>,
): Promise<number> {
  if (values.output === 'json') {
    const code = await json();
    if (failure) throw failure;
    return code;
  }
  const failed = results.filter(({ status }) => status?.code);
  terminal.out(
    results
      .filter(({ status }) => !status?.code)
      .map(({ entry }) => (entry ? entryText(entry) : ''))
      .join(''),
  );
  for (const { status, entry } of failed) {
    terminal.err(
      `Failed to ${verb} the following entry (code: ${codeName(status?.code ?? 0)}, msg: ${quoted(status?.message ?? '')}):\n${entry ? entryText(entry) : ''}`,
    );
  }
  if (failure) throw failure;
  if (failed.length > 0) throw fail('REQUEST_INVALID', `failed to ${verb} one or more entries`);
  return 0;
}
