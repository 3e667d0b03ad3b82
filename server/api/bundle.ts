/** spire.api.server.bundle.v1: our bundle, and those of the trust domains that we federate with. Who may call is decided before. */
import { fail, isCoded } from '../../core/errors.ts';
import type { Implementation } from '../../core/rpc-types.ts';
import {
  BatchDeleteFederatedBundleRequest_Mode as Mode,
  type BundleDefinition,
} from '../../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import type { BundleMask, Bundle as BundleMessage } from '../../proto/gen/spire/api/types/bundle.ts';
import type { Status } from '../../proto/gen/spire/api/types/status.ts';
import { TrustDomain } from '../../spiffe/id.ts';
import { type Bundles, sameContent, type StoredJwtAuthority } from '../bundles.ts';
import type { State } from '../state.ts';
import type { Store, StoredBundle } from '../store/store.ts';
import { bundleToMessage, jwtKeysToMessage, parseBundleMessage, parseJwtAuthorities, parseX509Authorities } from './bundle-message.ts';
import { failure, itemFailure, itemStatus, OK, within } from './item-status.ts';

export interface BundleApiParts {
  readonly store: Store;
  readonly state: State;
  readonly bundles: Bundles;
  readonly trustDomain: TrustDomain;
  /** Hands a downstream server's JWT key on to an upstream that takes such keys; gives all keys to trust. Default: our own bundle is where it lives. */
  readonly publishJwtAuthority?: (authority: StoredJwtAuthority) => Promise<readonly StoredJwtAuthority[]>;
}

const MODES: Readonly<Record<number, 'restrict' | 'delete' | 'dissociate'>> = {
  [Mode.RESTRICT]: 'restrict',
  [Mode.DELETE]: 'delete',
  [Mode.DISSOCIATE]: 'dissociate',
};

export function createBundleApi(parts: BundleApiParts): Implementation<typeof BundleDefinition> {
  const { store, state, bundles, trustDomain: own } = parts;
  const publish = parts.publishJwtAuthority ?? (async (authority) => (await bundles.append([], [authority])).jwtAuthorities);

  /** A trust domain that is not ours. */
  const foreign = (name: string, doing: string): TrustDomain => {
    const trustDomain = parseTrustDomain(name);
    if (trustDomain.equals(own)) throw fail('REQUEST_INVALID', doing);
    return trustDomain;
  };
  const isForeign = (bundle: StoredBundle) => bundle.trustDomain !== own.name;

  /** One item of a batch that writes: `change` makes the row of the stored one and of what was sent. */
  const write = async (
    message: BundleMessage,
    outputMask: BundleMask | undefined,
    words: { readonly doing: string; readonly failed: string },
    change: (stored: StoredBundle | undefined, sent: StoredBundle) => StoredBundle,
  ): Promise<{ status: Status; bundle: BundleMessage | undefined }> => {
    try {
      foreign(message.trustDomain, `${words.doing} a federated bundle for the server's own trust domain is not allowed`);
    } catch (error) {
      return { status: plain(error), bundle: undefined };
    }
    let sent: StoredBundle;
    try {
      sent = parseBundleMessage(message);
    } catch (error) {
      return { status: itemFailure('failed to convert bundle', error), bundle: undefined };
    }
    try {
      const written = await store.bundles.update(sent.trustDomain, (stored) => {
        const next = change(stored, sent);
        return stored && stored.sequence === next.sequence && sameContent(stored, next) ? undefined : next;
      });
      if (written.changed) await state.settled(written.seq);
      return { status: OK, bundle: written.bundle && bundleToMessage(written.bundle, outputMask) };
    } catch (error) {
      const known = isCoded(error, 'ALREADY_EXISTS', 'NOT_FOUND');
      return { status: known ? plain(error) : itemFailure(words.failed, error), bundle: undefined };
    }
  };

  return {
    async countBundles() {
      return { count: [...state.bundles()].length };
    },

    async getBundle({ outputMask }) {
      return bundleToMessage(bundles.own(), outputMask);
    },

    async appendBundle({ x509Authorities, jwtAuthorities, outputMask }) {
      if (x509Authorities.length === 0 && jwtAuthorities.length === 0) throw fail('REQUEST_INVALID', 'no authorities to append');
      const jwt = within('failed to convert JWT authority', () => parseJwtAuthorities(jwtAuthorities));
      const x509 = within('failed to convert X.509 authority', () => parseX509Authorities(x509Authorities));
      try {
        return bundleToMessage(await bundles.append(x509, jwt), outputMask);
      } catch (error) {
        throw failure('failed to append bundle', error);
      }
    },

    async publishJWTAuthority({ jwtAuthority }) {
      if (!jwtAuthority) throw fail('REQUEST_INVALID', 'missing JWT authority');
      const [authority] = within('invalid JWT authority', () => parseJwtAuthorities([jwtAuthority]));
      if (!authority) throw fail('REQUEST_INVALID', 'missing JWT authority');
      try {
        return { jwtAuthorities: jwtKeysToMessage(await publish(authority)) };
      } catch (error) {
        throw failure('failed to publish JWT key', error);
      }
    },

    async publishWITAuthority() {
      throw fail('UNIMPLEMENTED', 'WIT-SVID functionality is not yet implemented');
    },

    /** In the order of the names. As in SPIRE, each page that is not empty carries a token. */
    async listFederatedBundles({ outputMask, pageSize, pageToken }) {
      if (pageSize <= 0) return { bundles: [...federated()].map((bundle) => bundleToMessage(bundle, outputMask)), nextPageToken: '' };
      const page: BundleMessage[] = [];
      if (pageToken !== '') within(`could not parse token '${pageToken.slice(0, 300)}'`, () => TrustDomain.parse(pageToken));
      for (const bundle of federated()) {
        if (page.length === pageSize) break;
        if (bundle.trustDomain > pageToken) page.push(bundleToMessage(bundle, outputMask));
      }
      return { bundles: page, nextPageToken: page.at(-1)?.trustDomain ?? '' };
    },

    async getFederatedBundle({ trustDomain, outputMask }) {
      const { name } = foreign(trustDomain, "getting a federated bundle for the server's own trust domain is not allowed");
      const bundle = state.bundle(name);
      if (!bundle) throw fail('NOT_FOUND', 'bundle not found');
      return bundleToMessage(bundle, outputMask);
    },

    async batchCreateFederatedBundle({ bundle, outputMask }) {
      const words = { doing: 'creating', failed: 'unable to create bundle' };
      return {
        results: await inOrder(bundle, (one) =>
          write(one, outputMask, words, (stored, sent) => {
            if (stored) throw fail('ALREADY_EXISTS', 'bundle already exists');
            return sent;
          }),
        ),
      };
    },

    async batchUpdateFederatedBundle({ bundle, inputMask: mask, outputMask }) {
      const words = { doing: 'updating', failed: 'failed to update bundle' };
      return {
        results: await inOrder(bundle, (one) =>
          write(one, outputMask, words, (stored, sent) => {
            if (!stored) throw fail('NOT_FOUND', 'bundle not found');
            if (!mask) return sent;
            return {
              trustDomain: stored.trustDomain,
              x509Authorities: (mask.x509Authorities ? sent : stored).x509Authorities,
              jwtAuthorities: (mask.jwtAuthorities ? sent : stored).jwtAuthorities,
              refreshHintSeconds: (mask.refreshHint ? sent : stored).refreshHintSeconds,
              sequence: (mask.sequenceNumber ? sent : stored).sequence,
            };
          }),
        ),
      };
    },

    async batchSetFederatedBundle({ bundle, outputMask }) {
      const words = { doing: 'setting', failed: 'failed to set bundle' };
      return { results: await inOrder(bundle, (one) => write(one, outputMask, words, (_, sent) => sent)) };
    },

    async batchDeleteFederatedBundle({ trustDomains, mode }) {
      const how = MODES[mode];
      if (!how) throw fail('REQUEST_INVALID', `failed to parse deletion mode: unhandled delete mode "${mode}"`);
      return {
        results: await inOrder(trustDomains, async (trustDomain) => {
          try {
            const { name } = foreign(trustDomain, 'removing the bundle for the server trust domain is not allowed');
            await state.settled((await store.bundles.delete(name, how)).seq);
            return { status: OK, trustDomain };
          } catch (error) {
            if (isCoded(error, 'NOT_FOUND')) return { status: itemStatus('NOT_FOUND', 'bundle not found'), trustDomain };
            if (isCoded(error, 'REQUEST_INVALID', 'ID_INVALID')) return { status: plain(error), trustDomain };
            return { status: itemFailure('failed to delete federated bundle', error), trustDomain };
          }
        }),
      };
    },
  };

  function federated(): readonly StoredBundle[] {
    return [...state.bundles()].filter(isForeign).sort((a, b) => (a.trustDomain < b.trustDomain ? -1 : 1));
  }
}

/** The bare name, or the SPIFFE ID of a trust domain, as SPIRE takes it. */
function parseTrustDomain(name: string): TrustDomain {
  return within('trust domain argument is not valid', () => TrustDomain.parseNameOrId(name));
}

/** An error whose words are whole already. */
function plain(error: unknown): Status {
  return isCoded(error) ? itemStatus(error.code, error.message) : itemStatus('INTERNAL', 'internal error');
}

/** One after the other: what a batch says twice happens twice, in its order. */
async function inOrder<T, R>(items: readonly T[], each: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (const item of items) results.push(await each(item));
  return results;
}
