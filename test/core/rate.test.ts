/** So many a second: who is early waits, who goes on is refused. */
import { describe, expect, test } from 'vitest';
import { Rate } from '../../core/rate.ts';
import { Seldom } from '../../core/seldom.ts';
import { Turns } from '../../core/turns.ts';
import { FakeClock } from '../fakes/clock.ts';

const never = new AbortController().signal;

describe('a rate', () => {
  test('a second at once, then what comes too early waits, and beyond a second it is refused; others are not concerned', async () => {
    const clock = new FakeClock();
    const rate = new Rate(10, clock);
    for (let call = 0; call < 10; call++) expect(rate.take('a')).toBeUndefined();
    expect(rate.take('a')).toBe(100);
    expect(rate.take('a', 9)).toBe(1_000);
    expect(() => rate.take('a')).toThrow(expect.objectContaining({ code: 'RESOURCE_EXHAUSTED' }));
    expect(rate.take('b')).toBeUndefined();
    await clock.advance(2_000);
    for (let call = 0; call < 10; call++) expect(rate.take('a')).toBeUndefined();
  });

  test('work that is begun waits however long it takes', async () => {
    const clock = new FakeClock();
    const rate = new Rate(10, clock);
    let done = false;
    const waiting = rate.wait('a', 100, never).then(() => {
      done = true;
    });
    await clock.advance(8_999);
    expect(done).toBe(false);
    await clock.advance(1);
    await waiting;
    expect(done).toBe(true);
  });

  test('0 is no limit', () => {
    const rate = new Rate(0, new FakeClock());
    for (let call = 0; call < 1_000; call++) expect(rate.take('a')).toBeUndefined();
  });

  test('parties that have been quiet are forgotten', async () => {
    const clock = new FakeClock();
    const rate = new Rate(10, clock);
    for (let party = 0; party < 100; party++) rate.take(`${party}`);
    await clock.advance(61_000);
    rate.take('one');
    expect(rate.size).toBe(1);
  });
});

describe('turns', () => {
  test('who wants a thousand does not keep back one who wants two', async () => {
    const turns = new Turns();
    const order: string[] = [];
    const take = (party: string) => Promise.resolve(turns.take(party)).then(() => order.push(party));
    const all = [...Array.from({ length: 1_000 }, () => take('many')), take('few'), take('few')];
    await Promise.all(all);
    expect(order).toHaveLength(1_002);
    expect(order.lastIndexOf('few')).toBeLessThan(40);
  });

  test('where nobody waits it is at once', () => {
    expect(new Turns().take('a')).toBeUndefined();
  });
});

describe('what is said seldom', () => {
  test('once for each subject in an interval, then with the number of times that it was held back', async () => {
    const clock = new FakeClock();
    const seldom = new Seldom(clock, { everyMs: 1_000, atOnce: 2 });
    await clock.advance(1_000);
    expect([seldom.heldBack('a'), seldom.heldBack('a'), seldom.heldBack('a')]).toEqual([0, undefined, undefined]);
    expect([seldom.heldBack('b'), seldom.heldBack('c')]).toEqual([0, undefined]);
    await clock.advance(1_000);
    expect([seldom.heldBack('a'), seldom.heldBack('a')]).toEqual([2, undefined]);
  });
});
