/** What a server does now and then: what has ended is taken out of the tables. */
import type { Log } from '../core/log.ts';
import { isStop, runAll } from '../core/tasks.ts';
import type { Clock } from '../spiffe/clock.ts';
import type { State } from './state.ts';
import type { Store } from './store/store.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** A reader further behind than this reads everything anew. */
const KEEP_CHANGES_MS = 24 * HOUR_MS;

export interface ChoresParts {
  readonly store: Store;
  readonly state: State;
  readonly clock: Clock;
  readonly log: Log;
  /** `prune_attested_nodes_expired_for`; undefined: agents stay. */
  readonly pruneNodesAfterMs: number | undefined;
  readonly pruneNodesAtOnce: number;
  /** Also those that can't attest again. */
  readonly pruneTofuNodes: boolean;
}

/** Until the signal aborts. A chore that fails is told and tried again. */
export async function runChores(parts: ChoresParts, signal: AbortSignal): Promise<void> {
  const { store, clock, log } = parts;
  const every = (ms: number, failed: string, chore: () => Promise<unknown>) => async (stop: AbortSignal) => {
    for (;;) {
      await clock.sleep(ms, stop, { ref: false });
      try {
        await chore();
      } catch (error) {
        if (isStop(error, stop)) throw error;
        log.error(failed, { error });
      }
    }
  };
  await runAll(
    signal,
    every(5 * MINUTE_MS, 'Failed pruning registration entries', () => pruneEntries(parts)),
    every(5 * MINUTE_MS, 'Failed pruning join tokens', () => store.tokens.prune(clock.now())),
    every(HOUR_MS, 'Failed pruning changes', () => store.changes.prune(clock.now() - KEEP_CHANGES_MS)),
    every(HOUR_MS, 'Failed pruning attested nodes', () => pruneNodes(parts)),
  );
}

/** They were not authorized any more since the moment they ended. */
export async function pruneEntries({ store, clock, log }: ChoresParts): Promise<void> {
  for (const { id, spiffeId } of await store.entries.prune(clock.now()))
    log.info('Pruned an expired registration', { entry_id: id, spiffe_id: String(spiffeId) });
}

/** Agents whose certificates ended long ago. A banned one stays: it would be free to come again. */
export async function pruneNodes({ store, state, clock, log, ...settings }: ChoresParts): Promise<void> {
  const { pruneNodesAfterMs, pruneNodesAtOnce, pruneTofuNodes } = settings;
  if (pruneNodesAfterMs === undefined) return;
  const before = clock.now() - pruneNodesAfterMs;
  const ended = [...state.nodes()].filter(({ banned, canReattest, current, next }) => {
    const lastMs = Math.max(current?.notAfterMs ?? 0, next?.notAfterMs ?? 0);
    return !banned && (canReattest || pruneTofuNodes) && lastMs < before;
  });
  for (const { id } of ended.slice(0, pruneNodesAtOnce)) {
    await state.settled((await store.nodes.delete(id)).seq);
    log.info('Pruned an expired agent', { agent_id: id });
  }
}
