/** spire.agent.debug.v1: what the agent is doing, for operators on the machine. */
import type { Implementation } from '../core/rpc-types.ts';
import type { DebugDefinition, GetInfoResponse } from '../proto/gen/spire/api/agent/debug/v1/debug.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';
import { SpiffeId } from '../spiffe/id.ts';

export interface DebugApiParts {
  /** The agent's own SVID, leaf first. */
  readonly svid: () => readonly Certificate[];
  /** When entries and bundles were last known to be as the server has them; 0: never. */
  readonly lastSyncMs: () => number;
  readonly x509Svids: () => number;
  readonly jwtSvids: () => number;
  readonly clock: Clock;
}

/** As SPIRE: an answer is kept this long. */
const KEEP_MS = 5_000;

export function createDebugApi({ svid, lastSyncMs, x509Svids, jwtSvids, clock }: DebugApiParts): Implementation<typeof DebugDefinition> {
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
        svidsCount: x509Svids(),
        lastSyncSuccess: Math.floor(lastSyncMs() / 1000),
        cachedX509SvidsCount: x509Svids(),
        cachedJwtSvidsCount: jwtSvids(),
        // there are no SVID stores
        cachedSvidstoreX509SvidsCount: 0,
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
