/** The system's clock waits as long as it was told, however long that is: Node's timers end after 24 days, or at once. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { systemClock } from '../../spiffe/clock.ts';

const DAY_MS = 86_400_000;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test.each([0, 1, 1_000, 24 * DAY_MS, 25 * DAY_MS, 400 * DAY_MS])('calls after %i ms, once, not before', (ms) => {
  const then = vi.fn();
  systemClock.after(ms, then);
  vi.advanceTimersByTime(Math.max(0, ms - 1));
  expect(then).toHaveBeenCalledTimes(ms === 0 ? 1 : 0);
  vi.advanceTimersByTime(1);
  vi.advanceTimersByTime(800 * DAY_MS);
  expect(then).toHaveBeenCalledTimes(1);
});

test.each([1_000, 60 * DAY_MS])('calls nobody who called %i ms off, in whichever part of it', (ms) => {
  for (const passed of [0, ms / 2, ms - 1]) {
    const then = vi.fn();
    const callOff = systemClock.after(ms, then);
    vi.advanceTimersByTime(passed);
    callOff();
    vi.advanceTimersByTime(2 * ms);
    expect(then).not.toHaveBeenCalled();
    expect(vi.getTimerCount()).toBe(0);
  }
});

test('sleeps for 60 days', async () => {
  const woken = vi.fn();
  const slept = systemClock.sleep(60 * DAY_MS).then(woken);
  await vi.advanceTimersByTimeAsync(60 * DAY_MS - 1);
  expect(woken).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  await slept;
  expect(woken).toHaveBeenCalled();
});
