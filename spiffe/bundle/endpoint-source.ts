/** Follows bundle endpoints for ever: of each trust domain the newest good bundle (SPIFFE Federation §4, §6). */
import { type Clock, systemClock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';
import type { TrustDomain } from '../id.ts';
import type { JwtBundle, JwtBundleSource } from '../jwt/jwt-bundle.ts';
import type { Logger } from '../logger.ts';
import { Held } from '../source/held.ts';
import type { X509Bundle, X509BundleSource } from '../x509/x509-bundle.ts';
import { Bundle, BundleSet } from './bundle.ts';
import { checkEndpoint, type Endpoint, type EndpointAddress, type HttpsSpiffe, type HttpsWeb, shownUrl } from './endpoint-address.ts';
import { checkLimits, fetchFrom, type FetchLimits, type Limits, within } from './endpoint-client.ts';

/** As `HttpsSpiffe`; the bundles are only to begin with, and may be left out where the source follows the trust domain of `endpointId` anyhow. */
export interface FollowedHttpsSpiffe extends Omit<HttpsSpiffe, 'bundles'> {
  /** Default: those that the source itself has. */
  readonly bundles?: X509BundleSource | undefined;
}

/** One endpoint to follow. */
export interface FollowedEndpoint extends Omit<EndpointAddress, 'profile'> {
  readonly profile: HttpsWeb | FollowedHttpsSpiffe;
  /** What was kept from an earlier run. In use until something newer comes, as if it had been fetched (FED-8). */
  readonly initial?: Bundle | undefined;
}

/** Which endpoints to follow, and how often. */
export interface BundleEndpointSourceOptions extends FetchLimits {
  /** One for each trust domain. */
  readonly endpoints: Iterable<FollowedEndpoint>;
  /** However short the refresh hint: no more often than this. Milliseconds, default 30 000. */
  readonly minRefreshMs?: number | undefined;
  /** However long the refresh hint: no more seldom. Milliseconds, default 24 hours. */
  readonly maxRefreshMs?: number | undefined;
  /** Told of every fetch (FED-66): debug unless the bundle changed (info) or none came (warn). Default: nobody. */
  readonly log?: Logger | undefined;
  /** From 0 up to 1; spreads the waits. Default: `Math.random`. */
  readonly random?: (() => number) | undefined;
}

/** How it goes with one trust domain. */
export interface BundleEndpointStatus {
  /** The newest good one; undefined: none has come yet. */
  readonly bundle: Bundle | undefined;
  /** How long ago the endpoint gave a good answer, in milliseconds; undefined: never since the source began. */
  readonly ageMs: number | undefined;
  /** Since when its answers have failed, in milliseconds since 1970; undefined: the newest was good, or there was none. */
  readonly staleSinceMs: number | undefined;
  /** How many answers have failed since a good one. */
  readonly failures: number;
  /** Why the newest failed; undefined when it was good. */
  readonly error: SpiffeError | undefined;
}

/** TDB-33, FED-7: of a bundle without a hint. */
const REFRESH_MS = 300_000;
const MIN_REFRESH_MS = 30_000;
const MAX_REFRESH_MS = 86_400_000;
/** After the first failure while there is no bundle yet; it doubles up to REFRESH_MS. */
const FIRST_RETRY_MS = 1_000;

/**
 * Follows from the moment it is made until it is closed. Each trust domain by itself: a dead endpoint delays no other. A bundle is replaced as a whole, by a good
 * one that is not older; nothing else takes it away. Does not keep the process alive, but while somebody awaits `ready`. Who makes it closes it.
 */
export class BundleEndpointSource implements X509BundleSource, JwtBundleSource {
  readonly #limits: Limits;
  readonly #clock: Clock;
  readonly #log: Logger | undefined;
  readonly #random: () => number;
  readonly #minMs: number;
  readonly #maxMs: number;
  readonly #followed = new Map<string, Followed>();
  readonly #listeners = new Set<() => void>();
  #closed: SpiffeError | undefined;

  /** Throws REQUEST_INVALID or ID_INVALID for an endpoint that is none, two of one trust domain, or limits out of range. */
  constructor(options: BundleEndpointSourceOptions) {
    this.#limits = checkLimits(options);
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log;
    this.#random = options.random ?? Math.random;
    this.#minMs = within('minRefreshMs', options.minRefreshMs ?? MIN_REFRESH_MS, 1, MAX_REFRESH_MS);
    this.#maxMs = within('maxRefreshMs', options.maxRefreshMs ?? MAX_REFRESH_MS, this.#minMs, MAX_REFRESH_MS);
    this.follow(...options.endpoints);
  }

  /** Follows these too; none of them when one is refused, as the constructor would. Throws CLOSED. */
  follow(...endpoints: readonly FollowedEndpoint[]): void {
    if (this.#closed) throw this.#closed;
    const added = endpoints.map((one) => new Followed(this.#checked(one), one, this.#clock));
    const names = new Set(this.#followed.keys());
    for (const { endpoint } of added) {
      const { name } = endpoint.trustDomain;
      if (names.has(name)) throw invalid('FED_REPEATED', `two bundle endpoints of ${name}: which one to believe is not ours to guess`);
      names.add(name);
    }
    for (const { endpoint, configured, held } of added) {
      const { profile } = endpoint;
      if (profile.type !== 'https_spiffe' || configured) continue;
      const { trustDomain } = profile.endpointId;
      // FED-41: its own bundle would have to come from where it is to prove itself
      const itself = trustDomain.equals(endpoint.trustDomain) && !held.newest;
      if (itself || !names.has(trustDomain.name))
        throw invalid('FED_ENDPOINT_BUNDLES', `bundle endpoint ${profile.endpointId}: needs a bundle of ${trustDomain} to begin with`);
    }
    for (const one of added) {
      this.#followed.set(one.endpoint.trustDomain.name, one);
      one.ended = this.#run(one);
    }
    if (added.some(({ held }) => held.newest)) this.#tell();
  }

  /** Ends it with that trust domain: nothing is fetched any more, and from now on there is no bundle (FED-64). Nothing happens when it is not followed. */
  async unfollow(trustDomain: TrustDomain): Promise<void> {
    const one = this.#followed.get(trustDomain.name);
    if (!one) return;
    this.#followed.delete(trustDomain.name);
    one.end(new SpiffeError('CLOSED', 'FED_NOT_FOLLOWED', `the bundle endpoint of ${trustDomain} is followed no more`));
    this.#tell();
    await one.ended;
  }

  /** Undefined when that trust domain is not followed, and while nothing has come. Throws CLOSED, as everything that asks for bundles does. */
  get(trustDomain: TrustDomain): Bundle | undefined {
    if (this.#closed) throw this.#closed;
    return this.#followed.get(trustDomain.name)?.held.newest;
  }

  /** As `get`. */
  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined {
    return this.get(trustDomain)?.x509;
  }

  /** As `get`. */
  jwtBundle(trustDomain: TrustDomain): JwtBundle | undefined {
    return this.get(trustDomain)?.jwt;
  }

  /** Those that have come. Throws CLOSED. */
  get bundles(): BundleSet {
    if (this.#closed) throw this.#closed;
    return new BundleSet([...this.#followed.values()].flatMap(({ held }) => held.newest ?? []));
  }

  /** Throws NOT_FOUND when that trust domain is not followed, or CLOSED. */
  status(trustDomain: TrustDomain): BundleEndpointStatus {
    if (this.#closed) throw this.#closed;
    const one = this.#followed.get(trustDomain.name);
    if (!one) throw new SpiffeError('NOT_FOUND', 'FED_NOT_FOLLOWED', `no bundle endpoint of ${trustDomain} is followed`);
    const { held, fetchedAt, staleSinceMs, failures, error } = one;
    const ageMs = fetchedAt === undefined ? undefined : this.#clock.monotonic() - fetchedAt;
    return { bundle: held.newest, ageMs, staleSinceMs, failures, error };
  }

  /** The trust domains without a bundle, each with its newest failure; undefined when none is missing. */
  get waitingFor(): string | undefined {
    if (this.#closed) return this.#closed.message;
    const missing = [...this.#followed.values()].flatMap(({ held }) => held.waitingFor ?? []);
    return missing.length === 0 ? undefined : missing.join('; ');
  }

  /** Calls the listener right after each change of a bundle; gives what takes that back. What it throws is dropped. */
  onChange(listener: () => void): () => void {
    const own = () => listener();
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  /**
   * Resolves when every trust domain that is followed now has its bundle. When the signal aborts it throws which ones have not, and why: with the code of the first
   * one's newest failure (UNAVAILABLE if there was none) and the signal's reason as cause. Throws CLOSED.
   */
  async ready(signal?: AbortSignal): Promise<void> {
    if (this.#closed) throw this.#closed;
    const all = [...this.#followed.values()];
    const done = new AbortController();
    const either = signal ? AbortSignal.any([signal, done.signal]) : done.signal;
    try {
      await Promise.all(all.map(({ held }) => held.ready(either)));
    } catch (error) {
      if (!signal?.aborted || this.#closed) throw error;
      const missing = all.filter(({ held }) => held.waitingFor);
      const first = missing[0]?.error;
      const words = missing.map(({ held }) => held.waitingFor).join('; ');
      throw new SpiffeError(first?.code ?? 'UNAVAILABLE', first?.reason, words, { cause: signal.reason });
    } finally {
      done.abort();
    }
  }

  /** The bundles that have come, as soon as there is one, then again after each change, until the source is closed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<BundleSet, void, void> {
    let wake = () => {};
    let changed = true;
    let begun = false;
    const off = this.onChange(() => {
      changed = true;
      wake();
    });
    try {
      while (!this.#closed) {
        const { bundles } = this;
        if (changed && (begun || bundles.size > 0)) {
          changed = false;
          begun = true;
          yield bundles;
        } else {
          changed = false;
          await new Promise<void>((resolve) => (wake = resolve));
        }
      }
    } finally {
      off();
    }
  }

  /** From now on every use throws CLOSED. Resolves when nothing is under way any more. */
  async close(): Promise<void> {
    this.#closed ??= new SpiffeError('CLOSED', undefined, 'the bundle endpoint source is closed');
    for (const one of this.#followed.values()) one.end(this.#closed);
    this.#tell();
    await Promise.all([...this.#followed.values()].map(({ ended }) => ended));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #checked({ trustDomain, url, profile, initial }: FollowedEndpoint): Endpoint {
    const given = profile?.type === 'https_spiffe' ? { ...profile, bundles: profile.bundles ?? new BundleSet() } : profile;
    const endpoint = checkEndpoint({ trustDomain, url, profile: given });
    if (initial && !initial.trustDomain.equals(endpoint.trustDomain))
      throw invalid('FED_TRUST_DOMAIN', `bundle endpoint of ${endpoint.trustDomain}: the initial bundle is of ${initial.trustDomain}`);
    if (endpoint.profile.type === 'https_web') return endpoint;
    return { ...endpoint, profile: { ...endpoint.profile, bundles: this.#newestOr(endpoint.profile.bundles) } };
  }

  /** FED-55, FED-56: by the newest good bundle once there is one, and only until then by what was configured. */
  #newestOr(configured: X509BundleSource): X509BundleSource {
    return {
      x509Bundle: (trustDomain) => {
        const newest = this.get(trustDomain);
        return newest ? newest.x509 : configured.x509Bundle(trustDomain);
      },
    };
  }

  /** Never rejects. */
  async #run(one: Followed): Promise<void> {
    const { signal } = one.stop;
    while (!signal.aborted) {
      try {
        const bundle = await fetchFrom(one.endpoint, this.#limits, { signal, ref: false });
        if (signal.aborted) return;
        this.#take(one, bundle);
      } catch (error) {
        if (signal.aborted) return;
        this.#missed(one, error);
      }
      // ends only because it was told to
      await this.#clock.sleep(this.#waitMs(one), signal, { ref: false }).catch(() => {});
    }
  }

  #take(one: Followed, bundle: Bundle): void {
    const { newest } = one.held;
    const { sequence } = bundle;
    if (sequence !== undefined && one.highest !== undefined && sequence < one.highest)
      throw new SpiffeError(
        'BUNDLE_INVALID',
        'FED_SEQUENCE',
        `bundle endpoint ${shownUrl(one.endpoint.url)}: the sequence went back from ${one.highest} to ${sequence}; the newer bundle is kept`,
      );
    one.highest = sequence ?? one.highest;
    one.fetchedAt = this.#clock.monotonic();
    one.staleSinceMs = undefined;
    one.failures = 0;
    one.error = undefined;
    const fields = {
      ...fieldsOf(one),
      sequence: sequence === undefined ? undefined : String(sequence),
      x509_authorities: bundle.x509.authorities.length,
      jwt_authorities: bundle.jwt.authorities.size,
    };
    if (newest?.equals(bundle)) return this.#say('debug', 'Bundle endpoint has nothing new', fields);
    one.held.set(bundle);
    this.#say('info', 'Bundle endpoint has a new bundle', fields);
    // TDB-10 forbids its publisher that; what was fetched last is nonetheless what holds now
    if (newest && sequence !== undefined && newest.sequence === sequence)
      this.#say('warn', 'Bundle changed under the same sequence number', fields);
    this.#tell();
  }

  #missed(one: Followed, cause: unknown): void {
    const error = cause instanceof SpiffeError ? cause : new SpiffeError('INTERNAL', undefined, String(cause), { cause });
    one.failures++;
    one.error = error;
    one.staleSinceMs ??= this.#clock.now();
    one.held.fail(error);
    this.#say('warn', 'Bundle endpoint gave no usable bundle', { ...fieldsOf(one), failures: one.failures, error });
  }

  /** A tenth shorter at most, so that a key published some hints ahead is never seen too late, and those who began together do not stay together. */
  #waitMs({ held, failures }: Followed): number {
    const { newest } = held;
    // nobody has lost anything yet but waits: soon again, then ever less often
    if (!newest) return Math.min(FIRST_RETRY_MS * 2 ** Math.min(failures - 1, 30), REFRESH_MS) * (1 - this.#random() / 2);
    const hintMs = newest.refreshHintSeconds === undefined ? REFRESH_MS : newest.refreshHintSeconds * 1000;
    const intervalMs = Math.min(Math.max(hintMs, this.#minMs), this.#maxMs);
    // FED-63: not at once, but at the next interval; of a long one, sooner
    const waitMs = failures === 0 ? intervalMs : Math.min(intervalMs, Math.max(REFRESH_MS, this.#minMs));
    return waitMs * (1 - this.#random() / 10);
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener();
      } catch {
        // the others are to hear of it too
      }
    }
  }

  #say(level: keyof Logger, message: string, fields: object): void {
    try {
      this.#log?.[level](message, fields);
    } catch {
      // a logger that fails is no reason to stop
    }
  }
}

/** One endpoint, and what has come from it. */
class Followed {
  readonly endpoint: Endpoint;
  readonly held: Held<Bundle>;
  readonly stop = new AbortController();
  /** Whether there is a bundle to begin with that the source does not fetch itself. */
  readonly configured: boolean;
  ended = Promise.resolve();
  /** Of all good answers; an answer without a sequence number does not lower it. */
  highest: bigint | undefined;
  /** Of the last good answer, by the monotonic clock. */
  fetchedAt: number | undefined;
  staleSinceMs: number | undefined;
  failures = 0;
  error: SpiffeError | undefined;

  constructor(endpoint: Endpoint, { initial, profile }: FollowedEndpoint, clock: Clock) {
    this.endpoint = endpoint;
    this.configured = profile.type === 'https_spiffe' && profile.bundles !== undefined;
    this.held = new Held(() => `no bundle of ${endpoint.trustDomain} from ${shownUrl(endpoint.url)} yet`, clock);
    if (initial) this.held.set(initial);
    this.highest = initial?.sequence;
  }

  end(reason: SpiffeError): void {
    this.held.end(reason);
    this.stop.abort(reason);
  }
}

function fieldsOf({ endpoint: { trustDomain, url, profile } }: Followed): object {
  return {
    trust_domain: trustDomain.name,
    url: shownUrl(url),
    profile: profile.type,
    ...(profile.type === 'https_spiffe' && { endpoint_spiffe_id: String(profile.endpointId) }),
  };
}

function invalid(reason: 'FED_REPEATED' | 'FED_ENDPOINT_BUNDLES' | 'FED_TRUST_DOMAIN', words: string): SpiffeError {
  return new SpiffeError('REQUEST_INVALID', reason, words);
}
