/** Things kept by a pattern of SPIFFE IDs and found by an ID: the most exact pattern first, whatever their number. */
import type { IdPattern } from '../spiffe/match.ts';

/** A pattern of an intention: of `IdPattern`, or anybody of any trust domain (then it is deep and has no segments). */
export type IntentionPattern = Omit<IdPattern, 'trustDomain'> & { readonly trustDomain: IdPattern['trustDomain'] | undefined };

interface Branch<T> {
  words: Map<string, Branch<T>> | undefined;
  star: Branch<T> | undefined;
  /** Kept at the pattern that ends here. */
  here: T | undefined;
  /** Kept at the pattern that goes on from here with `**`. */
  below: T | undefined;
}

/**
 * Exactness is the order of the branches: from the left, a word before `*`, `*` before `**`, anybody last. No branch is visited twice, so that one search costs
 * at most as much as the patterns have segments together, and in practice as the ID has.
 */
export class IntentionTree<T> {
  readonly #domains = new Map<string, Branch<T>>();
  #anybody: T | undefined;

  /** What is kept at this very pattern; `make` is kept there when there is nothing yet. */
  at({ trustDomain, segments, deep }: IntentionPattern, make: () => T): T {
    if (trustDomain === undefined) return (this.#anybody ??= make());
    let branch = this.#domains.get(trustDomain.name);
    if (branch === undefined) this.#domains.set(trustDomain.name, (branch = bare()));
    for (const segment of segments) branch = segment === '*' ? (branch.star ??= bare()) : wordOf(branch, segment);
    return deep ? (branch.below ??= make()) : (branch.here ??= make());
  }

  /** Hands on what is kept at each pattern that the ID matches, the most exact first, until `take` gives true. Gives whether it did. */
  find(trustDomain: string, path: readonly string[], take: (kept: T) => boolean): boolean {
    const branch = this.#domains.get(trustDomain);
    if (branch !== undefined && descend(branch, path, 0, take)) return true;
    return this.#anybody !== undefined && path.length > 0 && take(this.#anybody);
  }
}

function bare<T>(): Branch<T> {
  return { words: undefined, star: undefined, here: undefined, below: undefined };
}

function wordOf<T>(branch: Branch<T>, word: string): Branch<T> {
  branch.words ??= new Map();
  let next = branch.words.get(word);
  if (next === undefined) branch.words.set(word, (next = bare()));
  return next;
}

function descend<T>(branch: Branch<T>, path: readonly string[], depth: number, take: (kept: T) => boolean): boolean {
  const segment = path[depth];
  if (segment === undefined) return branch.here !== undefined && take(branch.here);
  const word = branch.words?.get(segment);
  if (word !== undefined && descend(word, path, depth + 1, take)) return true;
  if (branch.star !== undefined && descend(branch.star, path, depth + 1, take)) return true;
  return branch.below !== undefined && take(branch.below);
}
