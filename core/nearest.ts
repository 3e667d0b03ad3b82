/** The known name that a mistyped one was most likely meant to be. */

/** The nearest of `names` within a third of the word's length (at least two slips), or undefined. A swap of neighbours is one slip; case is none. */
export function nearest(word: string, names: Iterable<string>): string | undefined {
  const wanted = word.toLowerCase().slice(0, MAX_LENGTH);
  let best: string | undefined;
  let least = Math.max(2, Math.floor(wanted.length / 3)) + 1;
  for (const name of names) {
    const slips = distance(wanted, name.toLowerCase().slice(0, MAX_LENGTH));
    if (slips < least) [best, least] = [name, slips];
  }
  return best;
}

/** Longer words are compared by their beginning: the cost is the product of the lengths. */
const MAX_LENGTH = 64;

/** Damerau and Levenshtein's: insertions, deletions, changes and swaps of neighbours. */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let least = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) least = Math.min(least, (before[j - 2] ?? 0) + 1);
      row.push(least);
    }
    [before, last] = [last, row];
  }
  return last[b.length] ?? 0;
}
