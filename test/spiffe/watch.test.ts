/** Following a stream for ever. Streams are scripted generators; time is a clock that stands still. */
import { describe, expect, test } from 'vitest';
import { type Code, SpiffeError } from '../../spiffe/errors.ts';
import { linearBackoff, watch } from '../../spiffe/watch.ts';
import { FakeClock } from '../fakes/clock.ts';

type Step = number | Code | 'wait';

const settled = async () => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
};
const failure = (code: Code) => new SpiffeError(code, undefined, `scripted ${code}`);

/** Each opening plays the next script: yields numbers, throws codes, waits for the end of its signal; then it ends quietly. */
function scripted(...scripts: readonly Step[][]) {
  const clock = new FakeClock();
  const stop = new AbortController();
  const told: unknown[] = [];
  const openedAt: number[] = [];
  const signals: AbortSignal[] = [];
  async function* open(signal: AbortSignal): AsyncGenerator<number> {
    openedAt.push(clock.monotonic());
    signals.push(signal);
    for (const step of scripts[openedAt.length - 1] ?? ['wait' as const]) {
      if (typeof step === 'number') yield step;
      else if (step === 'wait') await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
      else throw failure(step);
    }
  }
  const start = (delayMs: (n: number) => number = (n) => n * 1000, onError = (error: unknown) => void told.push(error)) =>
    watch(open, { signal: stop.signal, clock, delayMs, onError });
  const codes = () => told.map((error) => (error as SpiffeError).code);
  return { clock, stop, told, codes, openedAt, signals, start };
}

const end = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no error',
    (error: unknown) => error,
  );

describe('a watch', () => {
  test('opens the stream anew when it ends, whatever the end was', async () => {
    const { clock, stop, openedAt, codes, start } = scripted([1], [2, 'UNAVAILABLE'], [3, 'INTERNAL'], ['CANCELLED'], [4, 'wait']);
    const seen: number[] = [];
    const ended = end(
      (async () => {
        for await (const value of start()) seen.push(value);
      })(),
    );
    await clock.advance(10_000);
    expect(seen).toEqual([1, 2, 3, 4]);
    expect(openedAt).toHaveLength(5);
    expect(codes()).toEqual(['UNAVAILABLE', 'UNAVAILABLE', 'INTERNAL', 'CANCELLED']);
    stop.abort();
    await ended;
  });

  test('waits longer from failure to failure, and begins anew after a value (WE-24)', async () => {
    const { clock, openedAt, start } = scripted(['UNAVAILABLE'], ['UNAVAILABLE'], ['UNAVAILABLE'], [1, 'UNAVAILABLE'], ['wait']);
    const values = start();
    const next = values.next();
    await clock.advance(60_000);
    expect(await next).toEqual({ done: false, value: 1 });
    expect(openedAt).toEqual([0, 1000, 3000, 6000, 7000]);
    await values.return(undefined as never);
  });

  for (const code of ['REQUEST_INVALID', 'UNIMPLEMENTED'] as const) {
    test(`ends with ${code}, and asks no more (WE-22, WE-27)`, async () => {
      const { clock, openedAt, told, start } = scripted(['UNAVAILABLE'], [code], [1]);
      const ended = end(start().next());
      await clock.advance(60_000);
      expect(await ended).toMatchObject({ code });
      expect(openedAt).toHaveLength(2);
      expect(told).toHaveLength(1);
    });
  }

  test('tries DENIED again, and tells of it each time (WE-26, WAPI-33)', async () => {
    const { clock, codes, start } = scripted([1, 'DENIED'], ['DENIED'], ['DENIED'], [2, 'wait']);
    const values = start();
    expect(await values.next()).toEqual({ done: false, value: 1 });
    const next = values.next();
    await clock.advance(10_000);
    expect(await next).toEqual({ done: false, value: 2 });
    expect(codes()).toEqual(['DENIED', 'DENIED', 'DENIED']);
    await values.return(undefined as never);
  });

  test('gives a reader who was busy the newest value only', async () => {
    const { start } = scripted([1, 2, 3, 'wait']);
    const values = start();
    await values.next();
    await settled();
    expect(await values.next()).toEqual({ done: false, value: 3 });
    await values.return(undefined as never);
  });

  test('tells of a failure while the reader is busy', async () => {
    const { codes, start } = scripted([1, 'DENIED']);
    const values = start();
    await values.next();
    await settled();
    expect(codes()).toEqual(['DENIED']);
    await values.return(undefined as never);
  });

  test('ends with the reason of its signal: before, while it reads, while it waits', async () => {
    const reason = new Error('enough');
    const before = scripted([1]);
    before.stop.abort(reason);
    expect(await end(before.start().next())).toBe(reason);
    expect(before.openedAt).toEqual([]);

    for (const script of [['wait'], ['UNAVAILABLE']] as Step[][]) {
      const { stop, told, clock, start } = scripted(script);
      const ended = end(start().next());
      await settled();
      const toldBefore = told.length;
      stop.abort(reason);
      expect(await ended).toBe(reason);
      await clock.advance(60_000);
      expect(told).toHaveLength(toldBefore);
      expect(clock.waiting).toBe(0);
    }
  });

  test('cancels its stream when the reader leaves', async () => {
    const { signals, clock, told, openedAt, start } = scripted([1, 'wait']);
    for await (const value of start()) {
      expect(value).toBe(1);
      break;
    }
    expect(signals[0]?.aborted).toBe(true);
    await clock.advance(60_000);
    expect(told).toEqual([]);
    expect(openedAt).toEqual([0]);
  });

  test('ends with what onError throws', async () => {
    const fault = new Error('a fault in the callback');
    const { start } = scripted(['UNAVAILABLE']);
    const ended = start(undefined, () => {
      throw fault;
    });
    expect(await end(ended.next())).toBe(fault);
  });
});

test('the usual wait grows from 1 s to 30 s, spread over a second (WE-24)', () => {
  const [soon, late] = [linearBackoff(() => 0), linearBackoff(() => 0.999)];
  expect([1, 2, 3, 28, 29, 30, 1e9].map(soon)).toEqual([1000, 2000, 3000, 28_000, 29_000, 29_000, 29_000]);
  expect([1, 2, 29, 1e9].map(late)).toEqual([1999, 2999, 29_999, 29_999]);
  const random = linearBackoff();
  expect(new Set(Array.from({ length: 20 }, () => random(1))).size).toBeGreaterThan(1);
});
