/** Fetches a bundle from its bundle endpoint, once (SPIFFE Federation §5): who answers is verified, and what is answered read strictly, before it counts. */
import { type Clock, systemClock } from '../clock.ts';
import { type Reason, SpiffeError, under } from '../errors.ts';
import { MAX_BUNDLE_BYTES } from '../jwt/jwt-bundle.ts';
import { Bundle } from './bundle.ts';
import { checkEndpoint, type Endpoint, type EndpointAddress, endpointUrl } from './endpoint-address.ts';
import { Exchange, named, wordsOf } from './endpoint-exchange.ts';

export type { EndpointAddress, EndpointProfile, HttpsSpiffe, HttpsWeb } from './endpoint-address.ts';

/** The most that a fetch may take. Out of range: REQUEST_INVALID. */
export interface FetchLimits {
  /** For everything together: address, handshakes, redirects, answer. Milliseconds, default 30 000. */
  readonly timeoutMs?: number | undefined;
  /** Of the answer. Default, and the most, 4 MiB. */
  readonly maxBytes?: number | undefined;
  /** How many redirects of an `https_web` endpoint are followed, 0 to 10. Default 3. Those of an `https_spiffe` endpoint never are. */
  readonly maxRedirects?: number | undefined;
  /** By which X.509-SVIDs are judged, and timeouts measured. Certificates of web sites are judged by the machine's clock. Default: the system's. */
  readonly clock?: Clock | undefined;
}

/** Where to fetch a bundle from, and how long. */
export interface FetchBundleOptions extends EndpointAddress, FetchLimits {
  /** Ends the fetch with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Whether the connection keeps the process alive. Default true. */
  readonly ref?: boolean | undefined;
}

export interface Limits {
  readonly timeoutMs: number;
  readonly maxBytes: number;
  readonly maxRedirects: number;
  readonly clock: Clock;
}

const TIMEOUT_MS = 30_000;
const LONGEST_TIMEOUT_MS = 3_600_000;
const MAX_REDIRECTS = 3;
const MOST_REDIRECTS = 10;
/** All of them are for this one fetch (FED-37): the next begins at the configured URL again. */
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/**
 * The bundle that the endpoint has now. Throws SpiffeError: REQUEST_INVALID before anything is opened for an address that is none; UNAVAILABLE (not reached,
 * broken off, another status than 200, redirects), UNAUTHENTICATED, SVID_… and DENIED (it is not who it should be), BUNDLE_MISSING (of the endpoint's own trust
 * domain), BUNDLE_INVALID, DEADLINE_EXCEEDED. When the signal aborts, its reason.
 */
export async function fetchBundle(options: FetchBundleOptions): Promise<Bundle> {
  return fetchFrom(checkEndpoint(options), checkLimits(options), options);
}

/** Throws REQUEST_INVALID. */
export function checkLimits(limits: FetchLimits): Limits {
  return {
    timeoutMs: within('timeoutMs', limits.timeoutMs ?? TIMEOUT_MS, 1, LONGEST_TIMEOUT_MS),
    maxBytes: within('maxBytes', limits.maxBytes ?? MAX_BUNDLE_BYTES, 1, MAX_BUNDLE_BYTES),
    maxRedirects: within('maxRedirects', limits.maxRedirects ?? MAX_REDIRECTS, 0, MOST_REDIRECTS),
    clock: limits.clock ?? systemClock,
  };
}

/** Throws REQUEST_INVALID. */
export function within(name: string, value: number, least: number, most: number): number {
  if (!Number.isSafeInteger(value) || value < least || value > most)
    throw new SpiffeError(
      'REQUEST_INVALID',
      'FED_LIMIT',
      `bundle endpoint: ${name} must be an integer from ${least} to ${most}, saw ${value}`,
    );
  return value;
}

/** What `fetchBundle` does once its options were checked. */
export async function fetchFrom(
  { trustDomain, url, profile }: Endpoint,
  { timeoutMs, maxBytes, maxRedirects, clock }: Limits,
  { signal, ref = true }: { readonly signal?: AbortSignal | undefined; readonly ref?: boolean | undefined } = {},
): Promise<Bundle> {
  signal?.throwIfAborted();
  const stop = new AbortController();
  const late = new SpiffeError('DEADLINE_EXCEEDED', 'FED_TIMEOUT', `${named(url)}: no bundle after ${timeoutMs} ms`);
  void clock.sleep(timeoutMs, stop.signal, { ref: false }).then(
    () => stop.abort(late),
    () => {},
  );
  const either = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  try {
    for (let at = url, hops = 0; ; hops++) {
      const exchange = new Exchange(at);
      try {
        const answer = await exchange.ask(profile, { signal: either, clock, ref });
        if (answer.statusCode === 200) {
          const body = await exchange.body(maxBytes);
          return under('BUNDLE_INVALID', named(at), () => Bundle.fromJson(trustDomain, body));
        }
        if (!REDIRECTS.has(answer.statusCode ?? 0))
          throw unavailable('FED_STATUS', `${named(at)} answered with status ${answer.statusCode}, not 200`);
        if (profile.type === 'https_spiffe')
          throw unavailable('FED_REDIRECT', `${named(at)} redirects, which is not followed for https_spiffe: configure where it leads to`);
        if (hops === maxRedirects) throw unavailable('FED_REDIRECTS', `${named(url)} leads through more than ${maxRedirects} redirects`);
        at = redirectTarget(at, answer.headers.location);
      } finally {
        exchange.end();
      }
    }
  } catch (error) {
    // what broke because it was called off says only that
    if (either.aborted) throw either.reason;
    throw error;
  } finally {
    stop.abort();
  }
}

/** FED-34: a redirect leads to what could have been configured, or nowhere. */
function redirectTarget(from: URL, location: string | undefined): URL {
  const words = `${named(from)} redirects`;
  if (location === undefined) throw unavailable('FED_REDIRECT', `${words} without saying where to`);
  try {
    return endpointUrl(location, from);
  } catch (error) {
    throw new SpiffeError('UNAVAILABLE', 'FED_REDIRECT', `${words} to where no endpoint can be: ${wordsOf(error)}`, { cause: error });
  }
}

function unavailable(reason: Reason, words: string): SpiffeError {
  return new SpiffeError('UNAVAILABLE', reason, words);
}
