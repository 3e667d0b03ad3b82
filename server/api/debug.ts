/** spire.api.server.debug.v1: what the server is doing, for operators on the machine. */
import { debugInfo } from '../../core/debug-info.ts';
import type { Implementation } from '../../core/rpc-types.ts';
import type { DebugDefinition } from '../../proto/gen/spire/api/server/debug/v1/debug.ts';
import type { Certificate } from '../../spiffe/x509/certificate.ts';
import type { Clock } from '../../spiffe/clock.ts';
import type { State } from '../state.ts';

export interface DebugApiSettings {
  readonly state: State;
  readonly clock: Clock;
  /** The server's own SVID, leaf first. */
  readonly svid: () => readonly Certificate[];
}

export function createDebugApi({ state, clock, svid }: DebugApiSettings): Implementation<typeof DebugDefinition> {
  return {
    getInfo: debugInfo(clock, svid, () => ({
      agentsCount: state.nodeCount,
      entriesCount: state.entryCount,
      // our own among them, as SPIRE counts
      federatedBundlesCount: [...state.bundles()].length,
    })),
  };
}
