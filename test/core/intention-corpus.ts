/** Intentions and 1,000 calls, the same each time: whoever applies intentions must give the answers of `Intentions.check`. */
import type { Intention } from '../../core/intention.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import { Random } from '../fuzz/random.ts';

const random = new Random(19);
const WORDS = ['web', 'api', 'db', 'cache', 'batch'];
const domain = () => (random.oneIn(6) ? 'far.test' : 'example.org');

function pattern(): string {
  if (random.oneIn(15)) return 'spiffe://*/**';
  const path = Array.from({ length: 1 + random.int(2) }, () => (random.oneIn(4) ? '*' : random.pick(WORDS)));
  return ['spiffe:/', domain(), ...path, ...(random.oneIn(5) ? ['**'] : [])].join('/');
}

const made = new Map<string, Intention>();
while (made.size < 60) {
  const rule: Intention = {
    id: `r${made.size}`,
    source: pattern(),
    destination: pattern(),
    action: random.oneIn(2) ? 'allow' : 'deny',
    shadow: random.oneIn(4),
  };
  const key = `${rule.source} ${rule.destination} ${rule.shadow}`;
  if (!made.has(key)) made.set(key, rule);
}

/** With the default deny. */
export const RULES: readonly Intention[] = [...made.values()];

const name = () => SpiffeId.parse(['spiffe:/', domain(), ...Array.from({ length: 1 + random.int(3) }, () => random.pick(WORDS))].join('/'));

export const PAIRS: readonly (readonly [source: SpiffeId, destination: SpiffeId])[] = Array.from({ length: 1000 }, () => [name(), name()]);
