/** A selector: a fact about a node or a process, `type:value`. */

export interface Selector {
  /** Not empty, no colon. */
  readonly type: string;
  /** Not empty; may hold colons. */
  readonly value: string;
}

export function selectorKey(selector: Selector): string {
  return `${selector.type}:${selector.value}`;
}
