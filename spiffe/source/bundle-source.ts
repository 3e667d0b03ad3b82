/** The bundles that a workload trusts, X.509 and JWT, from the Workload API, always the newest; needs no identity of its own. */
import { Bundle, BundleSet } from '../bundle/bundle.ts';
import { SpiffeError } from '../errors.ts';
import type { TrustDomain } from '../id.ts';
import type { JwtBundle, JwtBundleSource } from '../jwt/jwt-bundle.ts';
import { WorkloadApiClient } from '../workload-api/client.ts';
import type { X509Bundle, X509BundleSource } from '../x509/x509-bundle.ts';
import { Held } from './held.ts';
import { follow, type SourceOptions, tellFailure } from './x509-source.ts';

/** Follows from the moment it is made; see `X509Source` for what is kept, forgotten and final. A bundle that the server has taken back is gone with its next answer. Who makes it closes it. */
export class BundleSource implements X509BundleSource, JwtBundleSource {
  readonly #x509: Held<BundleSet>;
  readonly #jwt: Held<BundleSet>;
  readonly #stop = new AbortController();
  readonly #ended: Promise<unknown>;

  /** Throws REQUEST_INVALID for an address that is missing or malformed. */
  constructor(options: SourceOptions = {}) {
    const client = options.client ?? new WorkloadApiClient(options);
    const kept = (kind: string) =>
      new Held<BundleSet>(() => `no ${kind} bundles from the Workload API at ${client.address} yet`, options.clock);
    this.#x509 = kept('X.509');
    this.#jwt = kept('JWT');
    const call = (held: Held<BundleSet>, what: string) => ({
      signal: this.#stop.signal,
      ref: false,
      onError: (error: unknown) => tellFailure(held, options.log, what, error),
    });
    this.#ended = Promise.all([
      follow(client.watchX509Bundles(call(this.#x509, 'X.509 bundles')), this.#x509, () => {}),
      follow(client.watchJwtBundles(call(this.#jwt, 'JWT bundles')), this.#jwt, () => {}),
    ]).then(() => {
      if (!options.client) client.close();
    });
  }

  /** Undefined when nobody here trusts that domain, and while there is no answer. */
  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined {
    return this.#x509.newest?.x509Bundle(trustDomain);
  }

  /** Undefined when nobody here trusts that domain, and while there is no answer. */
  jwtBundle(trustDomain: TrustDomain): JwtBundle | undefined {
    return this.#jwt.newest?.jwtBundle(trustDomain);
  }

  /** Both kinds, by trust domain. Throws why one of them is not there. */
  get bundles(): BundleSet {
    return joined(this.#x509.value, this.#jwt.value);
  }

  /** What is missing, with the newest failure; undefined when both kinds are there. */
  get waitingFor(): string | undefined {
    return this.#x509.waitingFor ?? this.#jwt.waitingFor;
  }

  /** Calls the listener right after each change; gives what takes that back. */
  onChange(listener: () => void): () => void {
    const offs = [this.#x509.onChange(listener), this.#jwt.onChange(listener)];
    return () => {
      for (const off of offs) off();
    };
  }

  /** Resolves when both kinds have come; see `X509Source.ready`. */
  async ready(signal?: AbortSignal): Promise<void> {
    await Promise.all([this.#x509.ready(signal), this.#jwt.ready(signal)]);
  }

  /** Both kinds once they are there, then again after each change, until the source is closed or nothing comes any more of one of them. */
  async *[Symbol.asyncIterator](): AsyncGenerator<BundleSet, void, void> {
    let wake = () => {};
    let changed = true;
    const off = this.onChange(() => {
      changed = true;
      wake();
    });
    try {
      while (!this.#x509.ended && !this.#jwt.ended) {
        if (changed && this.#x509.newest && this.#jwt.newest) {
          changed = false;
          yield this.bundles;
        } else {
          await new Promise<void>((resolve) => (wake = resolve));
        }
      }
    } finally {
      off();
    }
  }

  /** From now on every use throws CLOSED. Resolves when nothing is under way any more. */
  async close(): Promise<void> {
    const reason = new SpiffeError('CLOSED', undefined, 'the bundle source is closed');
    this.#stop.abort(reason);
    this.#x509.end(reason);
    this.#jwt.end(reason);
    await this.#ended;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function joined(x509: BundleSet, jwt: BundleSet): BundleSet {
  const all = new Map([...x509].map((bundle) => [bundle.trustDomain.name, bundle]));
  for (const { trustDomain, jwt: keys } of jwt) {
    const known = all.get(trustDomain.name) ?? new Bundle(trustDomain);
    all.set(trustDomain.name, known.with({ jwtAuthorities: keys.authorities.values() }));
  }
  return new BundleSet(all.values());
}
