/** An X509-SVID and the bundles to judge peers by, from the Workload API, always the newest. */
import { type Clock, systemClock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';
import type { TrustDomain } from '../id.ts';
import type { Logger } from '../logger.ts';
import { WorkloadApiClient, type WorkloadApiClientOptions, type X509Context } from '../workload-api/client.ts';
import type { X509Bundle } from '../x509/x509-bundle.ts';
import type { X509Svid } from '../x509/x509-svid.ts';
import { Held } from './held.ts';
import { unexpired, type X509Identity } from './x509-identity.ts';

/** Of every source that follows the Workload API. */
export interface SourceOptions extends WorkloadApiClientOptions {
  /** A client to share; who made it closes it. Default: one of our own, by `address`. */
  readonly client?: WorkloadApiClient | undefined;
  /** Told of failures that the source outlives. Default: nobody. */
  readonly log?: Logger | undefined;
}

/** Which of several SVIDs, besides. */
export interface X509SourceOptions extends SourceOptions {
  /** Takes the SVID with this hint. Default: the first, which is the default identity. */
  readonly hint?: string | undefined;
  /** Chooses among the SVIDs, one or more, instead. Giving none, or throwing, means that we have no SVID. */
  readonly pick?: ((svids: readonly X509Svid[]) => X509Svid | undefined) | undefined;
}

/**
 * Follows the Workload API from the moment it is made until it is closed, through restarts of the agent. An answer that is malformed changes nothing; DENIED
 * takes everything away, since the identity was taken back (WAPI-34). Does not keep the process alive, but while somebody awaits `ready`. Who makes it closes it.
 */
export class X509Source implements X509Identity {
  readonly #held: Held<X509Context>;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  readonly #options: X509SourceOptions;
  #picked: { readonly from: X509Context; readonly svid: X509Svid | undefined; readonly fault: unknown } | undefined;

  /** Throws REQUEST_INVALID for an address that is missing or malformed. */
  constructor(options: X509SourceOptions = {}) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    const client = options.client ?? new WorkloadApiClient(options);
    this.#held = new Held(
      () => `no X.509-SVID from the Workload API at ${client.address} yet`,
      this.#clock,
      (context) => this.#judge(context).fault,
    );
    const answers = client.watchX509Context({ signal: this.#stop.signal, onError: (error) => this.#failed(error), ref: false });
    this.#ended = follow(answers, this.#held, () => {
      if (!options.client) client.close();
    });
  }

  /** A source that has its first SVID. Throws what `ready` throws, and is closed then. */
  static async open(options: X509SourceOptions & { readonly signal?: AbortSignal | undefined } = {}): Promise<X509Source> {
    const source = new X509Source(options);
    try {
      await source.ready(options.signal);
      return source;
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  /** The SVID to show now. Throws UNAVAILABLE or the newest failure (none yet), DENIED (taken back), NOT_FOUND (none with that hint), SVID_EXPIRED (no newer one has come), CLOSED. */
  get svid(): X509Svid {
    const { svid, fault } = this.#judge(this.#held.value);
    if (!svid) throw fault;
    return svid;
  }

  /** All SVIDs and bundles of the newest answer. Throws as `svid`. */
  get context(): X509Context {
    return this.#held.value;
  }

  /** Undefined when nobody here trusts that domain, and while there is no answer. */
  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined {
    return this.#held.newest?.bundles.x509Bundle(trustDomain);
  }

  /** Calls the listener right after each answer, and when the identity was taken back; gives what takes that back. */
  onChange(listener: () => void): () => void {
    return this.#held.onChange(listener);
  }

  /** What is missing, with the newest failure; undefined when `svid` gives one. */
  get waitingFor(): string | undefined {
    return this.#held.waitingFor;
  }

  /**
   * Resolves when `svid` gives one: chosen, and not expired. When the signal aborts it throws what it was waiting for: the newest failure's code and words (UNAVAILABLE if there was none),
   * with the signal's reason as cause. Throws at once what no waiting mends: REQUEST_INVALID, UNIMPLEMENTED, CLOSED.
   */
  ready(signal?: AbortSignal): Promise<void> {
    return this.#held.ready(signal);
  }

  /** The newest answer now, then each newer one, until the source is closed. */
  [Symbol.asyncIterator](): AsyncGenerator<X509Context, void, void> {
    return this.#held.changes();
  }

  /** The same until the signal aborts; then it throws its reason. */
  changes(signal: AbortSignal): AsyncGenerator<X509Context, void, void> {
    return this.#held.changes(signal);
  }

  /** From now on every use throws CLOSED. Resolves when nothing is under way any more. */
  async close(): Promise<void> {
    const reason = new SpiffeError('CLOSED', undefined, 'the X.509 source is closed');
    this.#held.end(reason);
    this.#stop.abort(reason);
    await this.#ended;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The SVID of this answer that may be used now, or why there is none. */
  #judge(context: X509Context): { readonly svid?: X509Svid; readonly fault?: unknown } {
    const { svid, fault } = this.#pick(context);
    if (!svid) return { fault };
    try {
      return { svid: unexpired(svid, this.#clock) };
    } catch (expired) {
      return { fault: expired };
    }
  }

  #pick(context: X509Context): { readonly svid: X509Svid | undefined; readonly fault: unknown } {
    if (this.#picked?.from === context) return this.#picked;
    const { hint, pick } = this.#options;
    let svid: X509Svid | undefined;
    let fault: unknown = new SpiffeError(
      'NOT_FOUND',
      undefined,
      hint === undefined ? 'no X.509-SVID was chosen' : `no X.509-SVID has the hint ${JSON.stringify(hint)}`,
    );
    try {
      svid = pick ? pick(context.svids) : hint === undefined ? context.svids[0] : context.svids.find((one) => one.hint === hint);
    } catch (error) {
      fault = error ?? fault;
    }
    this.#picked = { from: context, svid, fault };
    return this.#picked;
  }

  #failed(error: unknown): void {
    tellFailure(this.#held, this.#options.log, 'X.509-SVIDs', error);
  }
}

/** DENIED means that what we had was taken back (WAPI-34); anything else, that we go on with it. */
export function tellFailure(held: Pick<Held<unknown>, 'fail' | 'forget'>, log: Logger | undefined, what: string, error: unknown): void {
  if (error instanceof SpiffeError && error.code === 'DENIED') held.forget(error);
  else held.fail(error);
  tell(log, `Workload API: no news of ${what}`, error);
}

/** A logger that fails is no reason to stop. */
export function tell(log: Logger | undefined, message: string, error: unknown): void {
  try {
    log?.warn(message, { error });
  } catch {
    // it is the user's
  }
}

/** Holds each answer until the watch ends, whose last word is final. Never rejects. */
export async function follow<T>(answers: AsyncGenerator<T, unknown, void>, held: Held<T>, closed: () => void): Promise<void> {
  try {
    for await (const answer of answers) held.set(answer);
  } catch (error) {
    held.end(error instanceof SpiffeError ? error : new SpiffeError('INTERNAL', undefined, String(error), { cause: error }));
  } finally {
    closed();
  }
}
