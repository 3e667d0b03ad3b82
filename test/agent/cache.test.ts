/** Entries and views: the indexes find exactly what looking at everything would find. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EntryCache, type Registration } from '../../agent/cache.ts';
import { Views } from '../../agent/views.ts';
import { selectorKey } from '../../core/selector.ts';
import { Bundle, BundleSet } from '../../spiffe/bundle/bundle.ts';
import { registration, trustDomain } from './rig.ts';

const selectors = fc.uniqueArray(fc.constantFrom('test:a', 'test:b', 'test:c', 'test:d'), { minLength: 1, maxLength: 4 });
const step = fc.record({
  id: fc.constantFrom('1', '2', '3', '4', '5'),
  entry: fc.option(fc.record({ selectors, hint: fc.constantFrom('', 'x'), createdAtMs: fc.nat(3), storeSvid: fc.boolean() }), {
    nil: undefined,
  }),
});
const callers = fc.array(
  selectors.map((list) => new Set(list)),
  { minLength: 1, maxLength: 5 },
);

/** The rule, said in the plainest way. */
function matching(all: Iterable<Registration>, caller: ReadonlySet<string>): string[] {
  const sees = [...all].filter((one) => !one.storeSvid && one.selectors.map(selectorKey).every((key) => caller.has(key)));
  const ids = sees
    .filter(
      (one) =>
        one.hint === '' ||
        !sees.some(
          (two) => two.hint === one.hint && (two.createdAtMs < one.createdAtMs || (two.createdAtMs === one.createdAtMs && two.id < one.id)),
        ),
    )
    .map(({ id }) => id);
  return ids.sort();
}

describe('after any changes', () => {
  test('a caller matches exactly the entries whose selectors it has all, and every open view shows that too', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), callers, (steps, asking) => {
        const cache = new EntryCache();
        const views = new Views({
          cache,
          trustDomain,
          bundles: () => new BundleSet([new Bundle(trustDomain)]),
          svidOf: () => undefined,
          isRefused: () => false,
          onShown: () => {},
        });
        const open = asking.map((caller, i) => ({ caller, view: views.open(String(i), caller), seen: 0, shown: '' }));
        const truth = new Map<string, Registration>();
        for (const { id, entry } of steps) {
          const one = entry && registration(id, `/${id}`, entry);
          if (one) truth.set(id, one);
          else truth.delete(id);
          views.applied(cache.apply(one ? [one] : [], one ? [] : [id]));
          expect(cache.size).toBe(truth.size);
          for (const row of open) {
            const expected = matching(truth.values(), row.caller);
            expect(cache.match(row.caller).map((found) => found.id)).toEqual(expected);
            expect(row.view.identities.map((found) => found.id)).toEqual(expected);
            // whoever waits is woken when it sees something else
            if (expected.join() !== row.shown) expect(row.view.generation).toBeGreaterThan(row.seen);
            Object.assign(row, { seen: row.view.generation, shown: expected.join() });
            for (const found of expected) expect(views.isRead(found)).toBe(true);
          }
        }
        for (const { view } of open) views.close(view);
        for (const id of truth.keys()) expect(views.isRead(id)).toBe(false);
      }),
      { numRuns: 300 },
    );
  });

  test('the digest says which entries there are and in what version, in whatever order they came', () => {
    const rows = ['b', 'a', 'ab'].map((id) => registration(id, `/${id}`, { version: Buffer.from(`version of ${id}`) }));
    const [one, two, three] = [new EntryCache(), new EntryCache(), new EntryCache()];
    one.apply(rows, []);
    two.apply(rows.toReversed(), []);
    three.apply([...rows.slice(1), registration('b', '/b', { version: Buffer.from('another') })], []);
    expect(two.digest()).toEqual(one.digest());
    expect(three.digest()).not.toEqual(one.digest());
  });
});
