/** Running several things side by side and stopping them together. */

export type Task = (signal: AbortSignal) => Promise<void>;

/**
 * Runs tasks side by side until `signal` aborts or one of them ends, whichever is first.
 * Then it stops the rest, waits for every one, and throws what went wrong, if anything did.
 */
export async function runAll(signal: AbortSignal, ...tasks: Task[]): Promise<void> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const running = tasks.map((task) => task(either).finally(() => stop.abort()));
  const failures = (await Promise.allSettled(running))
    .filter((end) => end.status === 'rejected')
    .map((end): unknown => end.reason)
    .filter((reason) => !isStop(reason, either));
  if (failures.length > 0) throw failures.length === 1 ? failures[0] : new AggregateError(failures, 'several tasks failed');
}

/** Whether `reason` only says that `signal` stopped us: it is the signal's reason, or Node's AbortError around it. */
export function isStop(reason: unknown, signal: AbortSignal): boolean {
  return signal.aborted && (reason === signal.reason || (reason instanceof Error && reason.cause === signal.reason));
}
