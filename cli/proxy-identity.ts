/** Who a proxy is: opens what its settings name. Only what is used is loaded. */
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { Identity } from '../proxy/identity.ts';
import type { IdentitySettings, ProxySettings } from '../proxy/settings.ts';
import { type Source, WorkloadIdentity } from '../proxy/workload-identity.ts';
import type { Clock } from '../spiffe/clock.ts';
import { SpiffeError } from '../spiffe/errors.ts';
import { SpiffeId } from '../spiffe/id.ts';

interface Parts {
  readonly clock: Clock;
  readonly log: Log;
}

/** All identities of the settings, by name. What could not be opened is thrown, and what was opened closed. */
export async function openIdentities(settings: ProxySettings, parts: Parts): Promise<ReadonlyMap<string, Identity>> {
  const opened = new Map<string, Identity>();
  try {
    for (const [name, one] of settings.identities) {
      // shown by nobody: then authorities are all that is wanted
      const shown = settings.listeners.some(
        (listener) => listener.identity === name && (listener.mode === 'server' || listener.authenticate),
      );
      opened.set(name, await openIdentity(one, shown, parts));
    }
  } catch (error) {
    await Promise.all([...opened.values()].map((identity) => identity.close()));
    throw error;
  }
  return opened;
}

async function openIdentity(settings: IdentitySettings, shown: boolean, { clock, log }: Parts): Promise<Identity> {
  switch (settings.kind) {
    case 'workload-api':
      return new WorkloadIdentity(shown ? await svids(settings, { clock, log }) : await authorities(settings, { clock, log }), clock);
    case 'spiffe-files': {
      const { X509FileSource } = await import('../spiffe/source/file-source.ts');
      return new WorkloadIdentity(new X509FileSource({ directory: settings.directory, clock, log }), clock);
    }
    case 'pki':
      throw fail(
        'SETTINGS_INVALID',
        'certificates and authorities of a PKI are not read yet: take both from --use-workload-api or --spiffe-dir',
      );
  }
}

type FromWorkloadApi = Extract<IdentitySettings, { readonly kind: 'workload-api' }>;

async function svids({ address, hint, spiffeId }: FromWorkloadApi, { clock, log }: Parts): Promise<Source> {
  const { X509Source } = await import('../spiffe/source/x509-source.ts');
  const wanted = spiffeId === undefined ? undefined : SpiffeId.parse(spiffeId);
  return new X509Source({
    address,
    hint,
    clock,
    log,
    ...(wanted && {
      pick: (all) => {
        const found = all.find(({ id }) => id.equals(wanted));
        if (found) return found;
        throw new SpiffeError(
          'NOT_FOUND',
          undefined,
          `no X.509-SVID is ${wanted}: there is ${all.map(({ id }) => id).join(', ') || 'none'}`,
        );
      },
    }),
  });
}

/** For a client that shows nothing: it needs no registration entry. */
async function authorities({ address }: FromWorkloadApi, { clock, log }: Parts): Promise<Source> {
  const { BundleSource } = await import('../spiffe/source/bundle-source.ts');
  const source = new BundleSource({ address, clock, log });
  return {
    get svid(): never {
      throw new SpiffeError('NOT_FOUND', undefined, 'this proxy shows no certificate');
    },
    x509Bundle: (trustDomain) => source.x509Bundle(trustDomain),
    onChange: (listener) => source.onChange(listener),
    get waitingFor() {
      return source.waitingFor;
    },
    ready: (signal) => source.ready(signal),
    close: () => source.close(),
  };
}
