/** Which entries a list or count call asks for. */
import type { Entry } from '../../core/entry.ts';
import { memberIdOf, workloadIdOf } from '../../core/message-id.ts';
import { fail } from '../../core/errors.ts';
import { checkSelector, selectorKey } from '../../core/selector.ts';
import type { ListEntriesRequest_Filter as Filter } from '../../proto/gen/spire/api/server/entry/v1/entry.ts';
import { TrustDomain } from '../../spiffe/id.ts';
import { failure } from './item-status.ts';
import { setFilter } from './selector-match.ts';

export interface EntryFilter {
  /** Entries of another SPIFFE ID do not pass. undefined: any. */
  readonly spiffeId: string | undefined;
  readonly passes: (entry: Entry) => boolean;
}

type Test = (entry: Entry) => boolean;

/**
 * As in SPIRE, an empty hint asks for nothing, and neither does `by_downstream` false: its command line sends both when its flags are not set.
 * @param filter undefined: everything passes. Throws REQUEST_INVALID in SPIRE's words.
 */
export function entryFilter(filter: Filter | undefined, own: TrustDomain): EntryFilter {
  if (!filter) return { spiffeId: undefined, passes: () => true };
  const { byHint, byDownstream } = filter;
  const parentId = filter.byParentId && String(within('malformed parent ID filter', () => memberIdOf(filter.byParentId, own)));
  const spiffeId = filter.bySpiffeId && String(within('malformed SPIFFE ID filter', () => workloadIdOf(filter.bySpiffeId, own)));
  const tests: Test[] = [];
  if (parentId) tests.push((entry) => String(entry.parentId) === parentId);
  if (spiffeId) tests.push((entry) => String(entry.spiffeId) === spiffeId);
  if (filter.bySelectors) tests.push(within('malformed selectors filter', selectorsTest(filter.bySelectors)));
  if (filter.byFederatesWith) tests.push(within('malformed federates with filter', federatesTest(filter.byFederatesWith)));
  if (byHint) tests.push((entry) => entry.hint === byHint);
  if (byDownstream) tests.push((entry) => entry.downstream);
  return { spiffeId, passes: (entry) => tests.every((test) => test(entry)) };
}

function selectorsTest({ selectors, match }: NonNullable<Filter['bySelectors']>): () => Test {
  return () => {
    for (const selector of selectors) checkSelector(selector);
    if (selectors.length === 0) throw fail('REQUEST_INVALID', 'empty selector set');
    const passes = setFilter(new Set(selectors.map(selectorKey)), match);
    return (entry) => passes(entry.selectors.map(selectorKey));
  };
}

function federatesTest({ trustDomains, match }: NonNullable<Filter['byFederatesWith']>): () => Test {
  return () => {
    const wanted = new Set(trustDomains.map((name) => TrustDomain.parseNameOrId(name).name));
    if (wanted.size === 0) throw fail('REQUEST_INVALID', 'empty trust domain set');
    const passes = setFilter(wanted, match);
    return (entry) => passes(entry.federatesWith.map(({ name }) => name));
  };
}

function within<T>(what: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw failure(what, error, 'REQUEST_INVALID');
  }
}
