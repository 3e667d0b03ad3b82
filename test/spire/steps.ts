/** One command of the comparison, as it is typed four times. */

import type { Reason } from './intended.ts';

export interface Step {
  readonly name: string;
  /** What is typed: `server …` or `agent …`. In it and in `input`, `{names}` stand for what each of the four houses has of its own. */
  readonly args: readonly string[];
  readonly input?: string;
  /** Names no socket: for what speaks to nobody. */
  readonly bare?: boolean;
  /** The reasons, of intended.ts, for which the four answers may differ. Each must show itself. */
  readonly intended?: readonly Reason[];
}

/** @param words what is typed; a word that has spaces stands in single quotes */
export function step(name: string, words: string, more: Omit<Step, 'name' | 'args'> = {}): Step {
  const args = [...words.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? '');
  return { name, args, ...more };
}
