/** Why a process has the identities that it has, or none: warifu.api.agent.explain.v1, for the operator of the machine. */
import { fail } from '../core/errors.ts';
import { closeFd, openPidfd } from '../core/native.ts';
import type { Implementation } from '../core/rpc-types.ts';
import { selectorKey } from '../core/selector.ts';
import { type ExplainDefinition, Identity_X509Svid as X509Svid } from '../proto/gen/warifu/api/agent/explain/v1/explain.ts';
import type { CallerAttestor } from './attest.ts';
import type { EntryCache, Near } from './cache.ts';
import { partyOf } from './party.ts';
import { readProcess } from './process.ts';
import type { Svids } from './svids.ts';

export interface ExplainParts {
  readonly attestor: CallerAttestor;
  readonly cache: EntryCache;
  readonly svids: Pick<Svids, 'get' | 'isRefused'>;
  /** 0: never. */
  readonly lastSyncMs: () => number;
}

/** Entries that are named as near. */
const NEAREST = 10;

export function createExplainApi({ attestor, cache, svids, lastSyncMs }: ExplainParts): Implementation<typeof ExplainDefinition> {
  return {
    async process({ pid }, { peer, signal }) {
      // the socket lets its group in, too: what other users' processes are is not for them
      if (peer.kind !== 'process' || (peer.uid !== 0 && peer.uid !== process.geteuid?.()))
        throw fail('DENIED', 'only root and the user of the agent may ask what another process is');
      if (pid <= 0) throw fail('REQUEST_INVALID', `pid must be above 0, saw ${pid}`);
      const pidfd = openPidfd(pid);
      try {
        const { uid, gid } = readProcess(pid);
        const party = partyOf({ pid, uid });
        const { selectors, failures } = await attestor.explain({ kind: 'process', pid, uid, gid, pidfd, connection: {} }, signal);
        const keys = new Set(selectors.map(selectorKey));
        return {
          uid,
          gid,
          party,
          selectors: [...selectors],
          failures: failures.map(({ attestor: name, error }) => ({ attestor: name, reason: reasonOf(error) })),
          identities: cache.match(keys).map((one) => ({
            entryId: one.id,
            spiffeId: String(one.spiffeId),
            x509Svid: svids.get(one) ? X509Svid.READY : svids.isRefused(one.id) ? X509Svid.REFUSED : X509Svid.NOT_YET,
          })),
          nearest: cache.nearest(keys, NEAREST).map(({ registration, missing }) => ({
            entryId: registration.id,
            spiffeId: String(registration.spiffeId),
            missing: [...missing],
          })),
          entryCount: cache.size,
          lastSync: Math.floor(lastSyncMs() / 1000),
        };
      } finally {
        closeFd(pidfd);
      }
    },
  };
}

/** For the log: `spiffe://example.org/web lacks unix:uid:1000`. */
export function nearText({ registration, missing }: Near): string {
  return `${registration.spiffeId} lacks ${missing.map(selectorKey).join(', ')}`;
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
