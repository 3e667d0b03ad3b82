/** An identity that the program itself sets: for tests, and for SVIDs that come by another way. */
import { SpiffeError } from '../errors.ts';
import type { TrustDomain } from '../id.ts';
import type { X509Bundle, X509BundleSource } from '../x509/x509-bundle.ts';
import type { X509Svid } from '../x509/x509-svid.ts';
import { type Clock, systemClock } from '../clock.ts';
import { Held } from './held.ts';
import { unexpired, type X509Identity } from './x509-identity.ts';

/** An identity, and by whom peers are judged. */
export interface X509Material {
  readonly svid: X509Svid;
  readonly bundles: X509BundleSource;
}

/** Holds what you set, until you set something else. */
export class X509MemorySource implements X509Identity {
  readonly #held: Held<X509Material>;
  readonly #clock: Clock;

  /** Without material, `svid` throws UNAVAILABLE until `set`. */
  constructor(material?: X509Material, clock: Clock = systemClock) {
    this.#clock = clock;
    this.#held = new Held(() => 'no X.509-SVID was set yet', clock);
    if (material) this.#held.set(material);
  }

  /** Throws UNAVAILABLE before anything was set, DENIED after `forget`, SVID_EXPIRED, CLOSED. */
  get svid(): X509Svid {
    return unexpired(this.#held.value.svid, this.#clock);
  }

  /** Undefined when the bundles that were set have none of that trust domain. */
  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined {
    return this.#held.newest?.bundles.x509Bundle(trustDomain);
  }

  /** What is left out stays. Throws as `svid` when there is nothing that could stay. */
  set(material: Partial<X509Material>): void {
    this.#held.set({ svid: material.svid ?? this.#held.value.svid, bundles: material.bundles ?? this.#held.value.bundles });
  }

  /** As when the Workload API takes an identity back: no SVID, no bundles. */
  forget(): void {
    this.#held.forget(new SpiffeError('DENIED', undefined, 'the identity was taken back'));
  }

  /** Calls the listener right after each `set` and `forget`; gives what takes that back. */
  onChange(listener: () => void): () => void {
    return this.#held.onChange(listener);
  }

  /** As every source: what is missing; undefined when `svid` gives one. */
  get waitingFor(): string | undefined {
    return this.#held.waitingFor;
  }

  /** Resolves with the first material; see `X509Source.ready`. */
  ready(signal?: AbortSignal): Promise<void> {
    return this.#held.ready(signal);
  }

  /** From now on every use throws CLOSED. */
  async close(): Promise<void> {
    this.#held.end(new SpiffeError('CLOSED', undefined, 'the memory source is closed'));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
