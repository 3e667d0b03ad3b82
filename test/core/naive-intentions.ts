/** Intentions once more, plainly: what precedence says in one sentence, without an index. For tests and the benchmark. */
import type { Action, Intention } from '../../core/intention.ts';
import type { SpiffeId } from '../../spiffe/id.ts';

interface Answer {
  readonly allowed: boolean;
  readonly rule: Intention | undefined;
  readonly shadow: Intention | undefined;
}

/** Looks at each intention, by texts alone. */
export function naive(rules: readonly Intention[], preset: Action): (source: SpiffeId, destination: SpiffeId) => Answer {
  const read = rules.map((rule) => ({ rule, source: pattern(rule.source), destination: pattern(rule.destination) }));
  return (from, to) => {
    const [source, destination] = [String(from), String(to)];
    const matching = read.filter((one) => one.source.test(source) && one.destination.test(destination)).map(({ rule }) => rule);
    const best = (of: readonly Intention[]) =>
      of.reduce<Intention | undefined>((first, one) => (first === undefined || before(one, first) ? one : first), undefined);
    const rule = best(matching.filter((one) => !one.shadow));
    const first = best(matching);
    const action = rule?.action ?? preset;
    return { allowed: action === 'allow', rule, shadow: first?.shadow === true && first.action !== action ? first : undefined };
  };
}

/** A pattern as a regular expression over the whole ID. */
function pattern(text: string): RegExp {
  const parts = text.split('/').map((part) => (part === '**' ? '[^/]+(?:/[^/]+)*' : part === '*' ? '[^/]+' : part.replaceAll('.', '\\.')));
  return new RegExp(`^${parts.join('/')}$`);
}

/** Two that match the same call. */
function before(a: Intention, b: Intention): boolean {
  return (compare(a.destination, b.destination) || compare(a.source, b.source) || Number(b.shadow) - Number(a.shadow)) < 0;
}

/** Segment by segment from the left, the trust domain first. */
function compare(a: string, b: string): number {
  const [left, right] = [a.split('/').slice(2), b.split('/').slice(2)];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const difference = stars(left[i]) - stars(right[i]);
    if (difference !== 0) return difference;
  }
  return 0;
}

function stars(segment = ''): number {
  return ['*', '**'].indexOf(segment) + 1;
}
