/** spire.api.server.debug.v1: what the server is doing, for operators on the machine. */
import type { Implementation } from '../../core/rpc-types.ts';
import type { DebugDefinition, GetInfoResponse } from '../../proto/gen/spire/api/server/debug/v1/debug.ts';
import type { Certificate } from '../../spiffe/certificate.ts';
import type { Clock } from '../../spiffe/clock.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import type { State } from '../state.ts';

/** As SPIRE: an answer is kept this long. */
const KEEP_MS = 5_000;

export interface DebugApiSettings {
  readonly state: State;
  readonly clock: Clock;
  /** The server's own SVID, leaf first. */
  readonly svid: () => readonly Certificate[];
}

export function createDebugApi({ state, clock, svid }: DebugApiSettings): Implementation<typeof DebugDefinition> {
  const startedMs = clock.monotonic();
  let kept: { readonly atMs: number; readonly answer: GetInfoResponse } | undefined;
  return {
    async getInfo() {
      const now = clock.monotonic();
      if (kept && now - kept.atMs < KEEP_MS) return kept.answer;
      const answer: GetInfoResponse = {
        svidChain: svid().map((certificate) => ({
          id: idOf(certificate),
          expiresAt: Math.floor(certificate.notAfterMs / 1000),
          subject: certificate.subjectText,
        })),
        uptime: Math.floor((now - startedMs) / 1000),
        agentsCount: state.nodeCount,
        entriesCount: state.entryCount,
        federatedBundlesCount: [...state.bundles()].length,
      };
      kept = { atMs: now, answer };
      return answer;
    },
  };
}

function idOf(certificate: Certificate): { trustDomain: string; path: string } | undefined {
  const [uri] = certificate.uris;
  if (uri === undefined || !SpiffeId.is(uri)) return undefined;
  const id = SpiffeId.parse(uri);
  return { trustDomain: id.trustDomain.name, path: id.path };
}
