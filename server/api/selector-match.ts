/** Filters by selectors, as SPIRE's list calls have them. */
import { fail } from '../../core/errors.ts';
import { checkSelector, type Selector, selectorKey } from '../../core/selector.ts';
import { SelectorMatch_MatchBehavior as Behavior, type SelectorMatch } from '../../proto/gen/spire/api/types/selector.ts';

/** Whether a thing with these keys (each once) passes. Throws REQUEST_INVALID for malformed selectors and unknown behaviours. */
export function selectorFilter({ selectors, match }: SelectorMatch): (selectors: readonly Selector[]) => boolean {
  for (const selector of selectors) {
    try {
      checkSelector(selector);
    } catch (cause) {
      throw fail('REQUEST_INVALID', `failed to parse selectors: ${(cause as Error).message}`, { cause });
    }
  }
  const passes = setFilter(new Set(selectors.map(selectorKey)), match);
  return (has) => passes(has.map(selectorKey));
}

/** Whether a set (each member once) passes. With SUBSET and ANY the empty set never does. Throws REQUEST_INVALID for unknown behaviours. */
export function setFilter(wanted: ReadonlySet<string>, match: number): (has: readonly string[]) => boolean {
  const within = (has: readonly string[]) => has.filter((one) => wanted.has(one)).length;
  switch (match) {
    case Behavior.MATCH_EXACT:
      return (has) => has.length === wanted.size && within(has) === wanted.size;
    case Behavior.MATCH_SUBSET:
      return (has) => has.length > 0 && within(has) === has.length;
    case Behavior.MATCH_SUPERSET:
      return (has) => within(has) === wanted.size;
    case Behavior.MATCH_ANY:
      return (has) => within(has) > 0;
    default:
      throw fail('REQUEST_INVALID', `unknown match behavior ${match}`);
  }
}
