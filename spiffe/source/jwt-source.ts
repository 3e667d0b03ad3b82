/** JWT-SVIDs for others' services, fetched when needed and kept until half their life is over; and the bundles to validate others' tokens by. */
import { type Clock, systemClock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';
import type { SpiffeId, TrustDomain } from '../id.ts';
import type { JwtBundle, JwtBundleSource } from '../jwt/jwt-bundle.ts';
import type { JwtSvid } from '../jwt/jwt-svid.ts';
import type { BundleSet } from '../bundle/bundle.ts';
import { WorkloadApiClient } from '../workload-api/client.ts';
import { Held } from './held.ts';
import { follow, type SourceOptions, tell, tellFailure } from './x509-source.ts';

/** Which token. */
export interface JwtSourceParams {
  /** For whom: the names that the validator goes by, one or more. Their order does not matter. */
  readonly audience: string | readonly string[];
  /** Which of the workload's identities. Default: the default one. */
  readonly subject?: SpiffeId | undefined;
  /** The identity with this hint. Throws NOT_FOUND when none has it. */
  readonly hint?: string | undefined;
  /** Ends this caller's wait; others who wait for the same token go on. */
  readonly signal?: AbortSignal | undefined;
}

/** More than any program asks for; the oldest go first, lest audiences made of what users send fill the memory. */
const MAX_KEPT = 1000;

/** How long a caller waits for a newer token while there is one that has not expired. */
const PATIENCE_MS = 2_000;
/** And how long after that, at least, nobody asks. */
const MIN_RETRY_MS = 1_000;

interface Kept {
  readonly svids: readonly JwtSvid[];
  /** The earliest end of them. */
  readonly expiresMs: number;
  /** Asked again from here on. */
  readonly refreshMs: number;
}

interface Flight {
  readonly answer: Promise<readonly JwtSvid[]>;
  readonly stop: AbortController;
  waiting: number;
}

/** Follows JWT bundles from the moment it is made; see `X509Source`. Who makes it closes it. */
export class JwtSource implements JwtBundleSource {
  readonly #client: WorkloadApiClient;
  readonly #clock: Clock;
  readonly #log: SourceOptions['log'];
  readonly #bundles: Held<BundleSet>;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  readonly #kept = new Map<string, Kept>();
  readonly #flights = new Map<string, Flight>();

  /** Throws REQUEST_INVALID for an address that is missing or malformed. */
  constructor(options: SourceOptions = {}) {
    const client = options.client ?? new WorkloadApiClient(options);
    this.#client = client;
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log;
    this.#bundles = new Held(() => `no JWT bundles from the Workload API at ${client.address} yet`, this.#clock);
    const onError = (error: unknown) => {
      if (error instanceof SpiffeError && error.code === 'DENIED') this.#kept.clear();
      tellFailure(this.#bundles, options.log, 'JWT bundles', error);
    };
    this.#ended = follow(client.watchJwtBundles({ signal: this.#stop.signal, onError, ref: false }), this.#bundles, () => {
      if (!options.client) client.close();
    });
  }

  /**
   * A token for this audience: the one at hand while it is in the first half of its life, else a new one. Callers who want the same at the same time share one
   * request. When the server can't be reached, or says nothing for 2 s, a token that has not expired serves on, and the server is asked again when half of
   * what is left of its life is over. Throws as `WorkloadApiClient.fetchJwtSvid`; the signal's reason; CLOSED.
   */
  async fetch(params: JwtSourceParams): Promise<JwtSvid> {
    const { hint, signal } = params;
    signal?.throwIfAborted();
    const audience = [...new Set(typeof params.audience === 'string' ? [params.audience] : params.audience)].sort();
    const [first, ...extraAudiences] = audience;
    if (first === undefined || first === '')
      throw new SpiffeError('REQUEST_INVALID', 'JWT_EXPECTED_AUDIENCE', 'no audience was given, or an empty one');
    if (this.#stop.signal.aborted) throw this.#stop.signal.reason;
    const key = JSON.stringify([audience, String(params.subject ?? '')]);
    const kept = this.#kept.get(key);
    const nowMs = this.#clock.now();
    if (kept && nowMs < kept.refreshMs) return choose(kept.svids, hint);
    const flight = this.#flights.get(key) ?? this.#ask(key, first, extraAudiences, params.subject);
    flight.waiting++;
    try {
      const answer = kept && nowMs < kept.expiresMs ? this.#patiently(flight.answer) : flight.answer;
      return choose(await unless(answer, signal), hint);
    } catch (error) {
      if (signal?.aborted || isFinal(error)) throw error;
      const svid = this.#atHand(key, hint);
      if (!svid) throw error;
      tell(this.#log, 'Workload API: no newer JWT-SVID, the one at hand serves on', error);
      return svid;
    } finally {
      if (--flight.waiting === 0) flight.stop.abort(new SpiffeError('CANCELLED', undefined, 'nobody waits for this token any more'));
    }
  }

  /** Undefined when nobody here trusts that domain, and while there is no answer. */
  jwtBundle(trustDomain: TrustDomain): JwtBundle | undefined {
    return this.#bundles.newest?.jwtBundle(trustDomain);
  }

  /** Which bundles are missing, with the newest failure; undefined when they are there. */
  get waitingFor(): string | undefined {
    return this.#bundles.waitingFor;
  }

  /** Calls the listener right after each change of the JWT bundles; gives what takes that back. */
  onChange(listener: () => void): () => void {
    return this.#bundles.onChange(listener);
  }

  /** Resolves with the first JWT bundles, which validating needs and `fetch` does not; see `X509Source.ready`. */
  ready(signal?: AbortSignal): Promise<void> {
    return this.#bundles.ready(signal);
  }

  /** The newest JWT bundles now, then each newer set, until the source is closed. */
  [Symbol.asyncIterator](): AsyncGenerator<BundleSet, void, void> {
    return this.#bundles.changes();
  }

  /** From now on every use throws CLOSED. */
  async close(): Promise<void> {
    const reason = new SpiffeError('CLOSED', undefined, 'the JWT source is closed');
    this.#bundles.end(reason);
    this.#stop.abort(reason);
    this.#kept.clear();
    await this.#ended;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #ask(key: string, audience: string, extraAudiences: readonly string[], subject: SpiffeId | undefined): Flight {
    const stop = new AbortController();
    const signal = AbortSignal.any([stop.signal, this.#stop.signal]);
    const answer = this.#client
      .fetchJwtSvids({ audience, extraAudiences, subject, signal })
      .then((svids) => {
        this.#keep(key, svids);
        return svids;
      })
      .catch((error: unknown) => {
        if (isFinal(error)) this.#kept.delete(key);
        throw error;
      })
      .finally(() => {
        if (this.#flights.get(key) === flight) this.#flights.delete(key);
      });
    // each who waits hears of it; nobody may wait any more
    answer.catch(() => {});
    const flight: Flight = { answer, stop, waiting: 0 };
    const gone = () => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    };
    stop.signal.addEventListener('abort', gone, { once: true });
    this.#flights.set(key, flight);
    return flight;
  }

  /** UNAVAILABLE when it takes long. */
  async #patiently(answer: Flight['answer']): Promise<readonly JwtSvid[]> {
    const stop = new AbortController();
    const late = this.#clock.sleep(PATIENCE_MS, AbortSignal.any([stop.signal, this.#stop.signal])).then(() => {
      throw new SpiffeError(
        'UNAVAILABLE',
        undefined,
        `no answer from the Workload API at ${this.#client.address} within ${PATIENCE_MS} ms`,
      );
    });
    try {
      return await Promise.race([answer, late]);
    } finally {
      stop.abort();
    }
  }

  /** The token that is kept and good, which was not taken back meanwhile; not asked for anew for a while. */
  #atHand(key: string, hint: string | undefined): JwtSvid | undefined {
    const kept = this.#kept.get(key);
    const nowMs = this.#clock.now();
    const svid = kept?.svids.find((one) => hint === undefined || one.hint === hint);
    if (!kept || !svid || svid.expiresMs <= nowMs) return undefined;
    this.#kept.set(key, { ...kept, refreshMs: nowMs + Math.max(MIN_RETRY_MS, (kept.expiresMs - nowMs) / 2) });
    return svid;
  }

  #keep(key: string, svids: readonly JwtSvid[]): void {
    if (this.#stop.signal.aborted) return;
    const now = this.#clock.now();
    const expiresMs = Math.min(...svids.map((svid) => svid.expiresMs));
    this.#kept.delete(key);
    this.#kept.set(key, { svids, expiresMs, refreshMs: now + (expiresMs - now) / 2 });
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= MAX_KEPT) break;
      this.#kept.delete(oldest);
    }
  }
}

/** What a token at hand does not help against: the identity was taken back, or the question is wrong. */
function isFinal(error: unknown): boolean {
  return error instanceof SpiffeError && ['DENIED', 'REQUEST_INVALID', 'UNIMPLEMENTED', 'CLOSED', 'NOT_FOUND'].includes(error.code);
}

function choose(svids: readonly JwtSvid[], hint: string | undefined): JwtSvid {
  const svid = hint === undefined ? svids[0] : svids.find((one) => one.hint === hint);
  if (!svid) throw new SpiffeError('NOT_FOUND', undefined, `no JWT-SVID has the hint ${JSON.stringify(hint)}`);
  return svid;
}

/** The promise, or the signal's reason if that comes first. */
function unless<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
