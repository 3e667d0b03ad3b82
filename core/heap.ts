/** Gives memory back to the system when there is nothing to do: what a start or a great change needed for a moment would stay ours for ever otherwise. */
import { performance } from 'node:perf_hooks';
import v8 from 'node:v8';
import vm from 'node:vm';
import type { Clock } from '../spiffe/clock.ts';
import type { Log } from './log.ts';
import { trimMalloc } from './native.ts';

/** How often it is looked at; also how long after the start it is done first. */
const LOOK_MS = 10_000;
/** A full collection stops the thread (a quarter of a second with 100,000 entries): seldom, when little goes on, and for much. */
const LITTLE = 0.1;
const MUCH_BYTES = 48 * 1024 * 1024;
const SELDOM_MS = 10 * 60_000;

/** Until the signal aborts. */
export async function giveBackMemory(clock: Clock, log: Log, signal: AbortSignal): Promise<void> {
  const collect = collector();
  let busy = performance.eventLoopUtilization();
  let lastMs = Number.NEGATIVE_INFINITY;
  for (;;) {
    await clock.sleep(LOOK_MS, signal, { ref: false });
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, busy);
    busy = now;
    const { total_heap_size: total, used_heap_size: used } = v8.getHeapStatistics();
    const first = lastMs === Number.NEGATIVE_INFINITY;
    const gain = total - used;
    if (utilization > LITTLE || !(first || (gain > Math.max(MUCH_BYTES, used / 2) && clock.monotonic() - lastMs >= SELDOM_MS))) continue;
    const before = clock.monotonic();
    collect();
    trimMalloc();
    // what it was before the first great change says nothing of the next
    if (!first || gain > MUCH_BYTES) lastMs = clock.monotonic();
    else lastMs = clock.monotonic() - SELDOM_MS;
    log.debug('Memory given back', { size_bytes: total - v8.getHeapStatistics().total_heap_size, elapsed_ms: clock.monotonic() - before });
  }
}

/** V8's own collector, which Node shows only to those who ask at the start, or like this. */
function collector(): () => void {
  v8.setFlagsFromString('--expose-gc');
  const collect = vm.runInNewContext('gc') as (options: object) => void;
  v8.setFlagsFromString('--no-expose-gc');
  return () => collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}
