/** What is scarce is shared so that nobody can take what others need. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Release, Shares } from '../../core/shares.ts';

const never = new AbortController().signal;

test('a party gets an eighth, and no more until it gives some back', () => {
  const shares = new Shares(80);
  const taken = Array.from({ length: 10 }, () => shares.take('a'));
  expect(taken.every(Boolean)).toBe(true);
  expect(shares.take('a')).toBeUndefined();
  expect(shares.take('b')).toBeDefined();
  taken[0]?.();
  // given back once, however often it is said
  taken[0]?.();
  expect(shares.take('a')).toBeDefined();
  expect(shares.take('a')).toBeUndefined();
  expect([shares.held('a'), shares.held('b'), shares.total]).toEqual([10, 1, 11]);
});

test('the last quarter is for parties that hold nothing: six that take all they can leave it to them', () => {
  const shares = new Shares(80);
  for (const party of 'abcdefgh') while (shares.take(party));
  // the seventh and the eighth got one, and then no more
  expect(Array.from('abcdefgh').map((party) => shares.held(party))).toEqual([10, 10, 10, 10, 10, 10, 1, 1]);
  for (let party = 0; party < 18; party++) expect(shares.take(`late ${party}`)).toBeDefined();
  expect(shares.take('too late')).toBeUndefined();
  expect(shares.total).toBe(80);
});

test('whoever waits gets it in the order of his party, and other parties are not kept waiting by him', async () => {
  const shares = new Shares(16);
  const first = await shares.wait('a', 2, never);
  const order: string[] = [];
  const waiting = ['x', 'y'].map(async (name) => {
    const release = await shares.wait('a', 2, never);
    order.push(name);
    return release;
  });
  expect(shares.take('a')).toBeUndefined();
  await shares.wait('b', 2, never);
  expect(order).toEqual([]);
  first();
  const second = await waiting[0];
  expect(order).toEqual(['x']);
  second?.();
  await waiting[1];
  expect(order).toEqual(['x', 'y']);
});

test('a thing larger than a share counts as the whole share', async () => {
  const shares = new Shares(80);
  const release = await shares.wait('a', 1_000, never);
  expect(shares.held('a')).toBe(10);
  release();
  expect(shares.total).toBe(0);
});

test('who is gone waits no more; too many who wait are refused', async () => {
  const shares = new Shares(8);
  const held = shares.take('a');
  const gone = new AbortController();
  const waiting = Promise.resolve(shares.wait('a', 1, gone.signal, 1));
  expect(() => shares.wait('a', 1, never, 1)).toThrow(expect.objectContaining({ code: 'RESOURCE_EXHAUSTED' }));
  gone.abort(new Error('gone'));
  await expect(waiting).rejects.toThrow('gone');
  held?.();
  expect(shares.total).toBe(0);
  expect(shares.take('a')).toBeDefined();
});

test('who was gone before he came takes and waits for nothing', async () => {
  const shares = new Shares(8);
  await expect(shares.wait('a', 1, AbortSignal.abort(new Error('gone')))).rejects.toThrow('gone');
  expect(shares.total).toBe(0);
});

test('of parties that wait for what all together hold, each gets one before any gets two', async () => {
  const shares = new Shares(8);
  // six that hold one each leave only the last quarter, which is for those that hold nothing
  const held = Array.from('abcdef', (party) => shares.take(party));
  for (const party of 'gh') held.push(shares.take(party));
  const order: string[] = [];
  for (const party of ['x', 'x', 'y', 'y']) void Promise.resolve(shares.wait(party, 1, never)).then(() => order.push(party));
  await Promise.resolve();
  expect(order).toEqual([]);
  for (const release of held.slice(0, 2)) {
    release?.();
    await new Promise((done) => setImmediate(done));
  }
  expect(order).toEqual(['x', 'y']);
});

describe('whatever happens in whatever order', () => {
  const step = fc.record({
    party: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'),
    amount: fc.integer({ min: 1, max: 6 }),
    back: fc.nat(),
  });
  test('no party holds more than its share, all together no more than there is, and a newcomer with a small wish is not refused while a quarter is free', () => {
    fc.assert(
      fc.property(fc.integer({ min: 8, max: 100 }), fc.array(step, { maxLength: 200 }), (capacity, steps) => {
        const shares = new Shares(capacity);
        const releases: Release[] = [];
        for (const { party, amount, back } of steps) {
          const release = shares.take(party, amount);
          if (release) releases.push(release);
          if (back % 3 === 0) releases.splice(back % (releases.length || 1), 1)[0]?.();
          if (shares.held(party) > shares.each) return false;
          if (shares.total > capacity) return false;
          if (shares.held('newcomer') === 0 && shares.total < capacity) {
            const some = shares.take('newcomer');
            if (!some) return false;
            some();
          }
        }
        for (const release of releases) release();
        return shares.total === 0;
      }),
    );
  });
});
