/** Memory that was needed for a moment goes back to the system. */
import v8 from 'node:v8';
import { expect, test } from 'vitest';
import { giveBackMemory } from '../../core/heap.ts';
import { silent } from '../../core/log.ts';
import { FakeClock } from '../fakes/clock.ts';

const MIB = 1024 * 1024;

test('what a great change left behind is given back at the first quiet look; it ends with its signal', async () => {
  const clock = new FakeClock();
  const stop = new AbortController();
  const running = giveBackMemory(clock, silent, stop.signal);
  const ended = expect(running).rejects.toThrow('aborted');
  let much: unknown[] | undefined = Array.from({ length: 2_000_000 }, (_, n) => ({ n, text: `${n}` }));
  const grown = v8.getHeapStatistics().total_heap_size;
  expect(much).toHaveLength(2_000_000);
  much = undefined;
  // a look while this thread is busy changes nothing: it waits for a quiet one
  for (let look = 0; look < 5 && v8.getHeapStatistics().total_heap_size > grown - 80 * MIB; look++) {
    await new Promise((done) => setTimeout(done, 300));
    await clock.advance(10_000);
    await new Promise((done) => setTimeout(done, 20));
  }
  expect(v8.getHeapStatistics().total_heap_size).toBeLessThan(grown - 80 * MIB);
  stop.abort('enough');
  await ended;
});
