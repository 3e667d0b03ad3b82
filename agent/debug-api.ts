/** spire.agent.debug.v1: what the agent is doing, for operators on the machine. */
import { debugInfo } from '../core/debug-info.ts';
import type { Implementation } from '../core/rpc-types.ts';
import type { DebugDefinition } from '../proto/gen/spire/api/agent/debug/v1/debug.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';

export interface DebugApiParts {
  /** The agent's own SVID, leaf first. */
  readonly svid: () => readonly Certificate[];
  /** When entries and bundles were last known to be as the server has them; 0: never. */
  readonly lastSyncMs: () => number;
  readonly x509Svids: () => number;
  readonly jwtSvids: () => number;
  readonly clock: Clock;
}

export function createDebugApi({ svid, lastSyncMs, x509Svids, jwtSvids, clock }: DebugApiParts): Implementation<typeof DebugDefinition> {
  return {
    getInfo: debugInfo(clock, svid, () => ({
      svidsCount: x509Svids(),
      lastSyncSuccess: Math.floor(lastSyncMs() / 1000),
      cachedX509SvidsCount: x509Svids(),
      cachedJwtSvidsCount: jwtSvids(),
      // there are no SVID stores
      cachedSvidstoreX509SvidsCount: 0,
    })),
  };
}
