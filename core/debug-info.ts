/** What both programs' debug services tell of themselves: their SVID and how long they run. */
import type { SPIFFEID } from '../proto/gen/spire/api/types/spiffeid.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { idToMessage } from './message-id.ts';

/** As SPIRE: an answer is kept this long. */
const KEEP_MS = 5_000;

export interface DebugInfo {
  /** Leaf first. */
  readonly svidChain: { id: SPIFFEID | undefined; expiresAt: number; subject: string }[];
  /** Seconds. */
  readonly uptime: number;
}

/** Answers for `GetInfo`. The uptime counts from now. @param more what only this program tells */
export function debugInfo<T>(clock: Clock, svid: () => readonly Certificate[], more: () => T): () => Promise<DebugInfo & T> {
  const startedMs = clock.monotonic();
  let kept: { readonly atMs: number; readonly answer: DebugInfo & T } | undefined;
  return async () => {
    const now = clock.monotonic();
    if (kept && now - kept.atMs < KEEP_MS) return kept.answer;
    const svidChain = svid().map((certificate) => ({
      id: idOf(certificate),
      expiresAt: Math.floor(certificate.notAfterMs / 1000),
      subject: certificate.subjectText,
    }));
    const answer = { svidChain, uptime: Math.floor((now - startedMs) / 1000), ...more() };
    kept = { atMs: now, answer };
    return answer;
  };
}

/** Of an enterprise's intermediate there is none. */
function idOf({ uris: [uri] }: Certificate): SPIFFEID | undefined {
  return uri !== undefined && SpiffeId.is(uri) ? idToMessage(SpiffeId.parse(uri)) : undefined;
}
