/** A selector: a fact about a node or a process, `type:value`. */
import { fail } from './errors.ts';

export interface Selector {
  /** Not empty, no colon. */
  readonly type: string;
  /** Not empty; may hold colons. */
  readonly value: string;
}

export function selectorKey(selector: Selector): string {
  return `${selector.type}:${selector.value}`;
}

/** Throws REQUEST_INVALID in SPIRE's words. */
export function checkSelector({ type, value }: Selector): void {
  if (type === '') throw fail('REQUEST_INVALID', 'missing selector type');
  if (type.includes(':')) throw fail('REQUEST_INVALID', "selector type contains ':'");
  if (value === '') throw fail('REQUEST_INVALID', 'missing selector value');
}

/** By type, then value, in the order of UTF-16 code units. */
export function compareSelectors(a: Selector, b: Selector): number {
  if (a.type !== b.type) return a.type < b.type ? -1 : 1;
  return a.value === b.value ? 0 : a.value < b.value ? -1 : 1;
}

/** Sorted, each once. */
export function selectorSet(selectors: Iterable<Selector>): readonly Selector[] {
  const sorted = [...selectors].sort(compareSelectors);
  return sorted.filter((one, i) => i === 0 || compareSelectors(sorted[i - 1] as Selector, one) !== 0);
}
