/** A client of the SPIFFE Workload API: a workload's own SVIDs and the bundles it trusts, once or for ever. What comes in is checked here and trusted inside. */
import { JwtBundle } from '../jwt/jwt-bundle.ts';
import { X509Bundle } from '../x509/x509-bundle.ts';
import {
  type JWTBundlesResponse,
  type JWTSVIDResponse,
  SpiffeWorkloadAPIDefinition,
  type X509BundlesResponse,
  type X509SVIDResponse,
} from '../../proto/gen/spiffe/workload/workload.ts';
import { Bundle, BundleSet } from '../bundle/bundle.ts';
import { type Clock, systemClock } from '../clock.ts';
import { endpointFromEnv, parseEndpoint } from './endpoint.ts';
import { type Code, SpiffeError } from '../errors.ts';
import { type Http2CallOptions, openHttp2Channel } from '../rpc/http2-channel.ts';
import { type CallOptions, type Calls, type Channel } from '../rpc/calls.ts';
import { SpiffeId, TrustDomain } from '../id.ts';
import { DEFAULT_CLOCK_TOLERANCE_MS, type JwtSvid, parseJwtSvidUnverified } from '../jwt/jwt-svid.ts';
import { watch } from '../watch.ts';
import { X509Svid } from '../x509/x509-svid.ts';

/** Where the Workload API is, and how a watch goes on trying. */
export interface WorkloadApiClientOptions {
  /** `unix:///path` or `tcp://ip:port`. Default: what SPIFFE_ENDPOINT_SOCKET says. */
  readonly address?: string | undefined;
  /** Default: the system's. */
  readonly clock?: Clock | undefined;
  /** Wait of a watch before try n (1 after the first failure), in milliseconds. Default: as go-spiffe, 1 s to 30 s. */
  readonly backoff?: ((n: number) => number) | undefined;
}

/** What a workload is and whom it trusts, as one answer gave it. */
export interface X509Context {
  /** One or more; the first is the default. Hints are unique. */
  readonly svids: readonly X509Svid[];
  /** X.509 authorities only: of the SVIDs' own trust domains and of the federated ones. Nothing is kept from an earlier answer. */
  readonly bundles: BundleSet;
}

/** Of a call that ends with one answer. */
export interface FetchOptions {
  /** Ends the call with its reason. Default: none, and no deadline. */
  readonly signal?: AbortSignal | undefined;
}

/** Of a call that goes on for ever. */
export interface WatchCallOptions {
  /** Ends the watch with the signal's reason. `close()` ends it too, with CLOSED. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Told of each failure that the watch outlives: the server away, an answer that was refused. DENIED means that what the workload
   * had was taken back (WAPI-34): forget it.
   */
  readonly onError?: ((error: unknown) => void) | undefined;
  /** Whether the process stays alive for this watch. Default true. */
  readonly ref?: boolean | undefined;
}

/** Which tokens. */
export interface JwtSvidParams extends FetchOptions {
  /** For whom: one of the names that the validator goes by. */
  readonly audience: string;
  /** More names that must all be in `aud`. Default: none. */
  readonly extraAudiences?: readonly string[] | undefined;
  /** Which of the workload's identities. Default: all of them, the first being the default one. */
  readonly subject?: SpiffeId | undefined;
}

/** What the Workload API vouches for. */
export interface ValidatedJwtSvid {
  readonly id: SpiffeId;
  /** As the server gave them: it may leave out claims of other trust domains that it can't judge. */
  readonly claims: Readonly<Record<string, unknown>>;
  /** The token's own words, those that the server left out too. */
  readonly svid: JwtSvid;
}

/** WE-7: proves that a request was meant for this API, and not sent on by a server that was tricked. */
const METADATA = { 'workload.spiffe.io': 'true' };

type Api = Calls<typeof SpiffeWorkloadAPIDefinition>;

/**
 * One connection, made when first needed. Who makes the client closes it.
 * Every call throws SpiffeError: DENIED (no identity for this process), UNAVAILABLE (nobody answers), REQUEST_INVALID, UNIMPLEMENTED, SVID_INVALID or
 * BUNDLE_INVALID (a malformed answer), CLOSED; or its signal's reason.
 */
export class WorkloadApiClient {
  /** `unix:///path` or `tcp://ip:port`. */
  readonly address: string;
  readonly #channel: Channel;
  readonly #api: Api;
  readonly #clock: Clock;
  readonly #backoff: ((n: number) => number) | undefined;
  readonly #closed = new AbortController();

  /** Throws REQUEST_INVALID for an address that is missing or malformed; reaches for nothing yet. */
  constructor(options: WorkloadApiClientOptions = {}) {
    this.#clock = options.clock ?? systemClock;
    this.#backoff = options.backoff;
    const endpoint = options.address === undefined ? endpointFromEnv() : parseEndpoint(options.address);
    this.address = 'path' in endpoint ? `unix://${endpoint.path}` : `tcp://${endpoint.host}:${endpoint.port}`;
    this.#channel = openHttp2Channel({ address: endpoint });
    this.#api = this.#channel.service(SpiffeWorkloadAPIDefinition);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  /** Ends the connection; calls and watches under way, and later ones, throw CLOSED. */
  close(): void {
    this.#closed.abort(new SpiffeError('CLOSED', undefined, 'the Workload API client is closed'));
    this.#channel.close();
  }

  /** SVIDs and the bundles that came with them. */
  async fetchX509Context(options: FetchOptions = {}): Promise<X509Context> {
    return readX509(await first(this.#api.fetchX509SVID({}, this.#call(options.signal))));
  }

  /** All identities of this workload, one or more; the first is the default. */
  async fetchX509Svids(options: FetchOptions = {}): Promise<readonly X509Svid[]> {
    return (await this.fetchX509Context(options)).svids;
  }

  /** The default identity, or the one with that hint. Throws NOT_FOUND when none has it (WAPI-80). */
  async fetchX509Svid(options: FetchOptions & { readonly hint?: string | undefined } = {}): Promise<X509Svid> {
    return pick(await this.fetchX509Svids(options), options.hint);
  }

  /** X.509 authorities, for a workload that verifies others and may have no identity itself. */
  async fetchX509Bundles(options: FetchOptions = {}): Promise<BundleSet> {
    return readX509Bundles(await first(this.#api.fetchX509Bundles({}, this.#call(options.signal))));
  }

  /** The token of the default identity, or of the one with that hint. Throws NOT_FOUND when none has it. */
  async fetchJwtSvid(params: JwtSvidParams & { readonly hint?: string | undefined }): Promise<JwtSvid> {
    return pick(await this.fetchJwtSvids(params), params.hint);
  }

  /** A token for each identity of this workload, or for the one asked for. Throws SVID_EXPIRED when the server hands out an old one. */
  async fetchJwtSvids(params: JwtSvidParams): Promise<readonly JwtSvid[]> {
    const audience = [params.audience, ...(params.extraAudiences ?? [])];
    if (audience.includes('')) throw new SpiffeError('REQUEST_INVALID', 'JWT_EXPECTED_AUDIENCE', 'an audience is empty');
    const { subject } = params;
    const answer = await this.#api.fetchJWTSVID({ audience, spiffeId: subject ? String(subject) : '' }, this.#call(params.signal));
    return readJwtSvids(answer, { audience, subject, nowMs: this.#clock.now() });
  }

  /** JWT authorities only. */
  async fetchJwtBundles(options: FetchOptions = {}): Promise<BundleSet> {
    return readJwtBundles(await first(this.#api.fetchJWTBundles({}, this.#call(options.signal))));
  }

  /** Has the server validate somebody's token for this audience. Throws REQUEST_INVALID, with the server's words, for a token that is not valid. */
  async validateJwtSvid(request: FetchOptions & { readonly token: string; readonly audience: string }): Promise<ValidatedJwtSvid> {
    const { token, audience } = request;
    const answer = await this.#api.validateJWTSVID({ audience, svid: token }, this.#call(request.signal));
    const claims: Readonly<Record<string, unknown>> = answer.claims ?? {};
    required('SVID_INVALID', { spiffe_id: answer.spiffeId, claims: Object.keys(claims) });
    const id = SpiffeId.parse(answer.spiffeId);
    const svid = parseJwtSvidUnverified(token);
    same('the token', svid.id, id);
    same('the claims', claims['sub'], id);
    wantAudience(svid, [audience]);
    return { id, claims, svid };
  }

  /** The newest context, for ever. Throws only what is final: REQUEST_INVALID, UNIMPLEMENTED, CLOSED, or the signal's reason. */
  watchX509Context(options: WatchCallOptions = {}): AsyncGenerator<X509Context, never, void> {
    return this.#watch((call) => this.#api.fetchX509SVID({}, call), readX509, options);
  }

  /** As `watchX509Context`: X.509 authorities, for a workload that may have no identity itself. */
  watchX509Bundles(options: WatchCallOptions = {}): AsyncGenerator<BundleSet, never, void> {
    return this.#watch((call) => this.#api.fetchX509Bundles({}, call), readX509Bundles, options);
  }

  /** As `watchX509Context`: JWT authorities. */
  watchJwtBundles(options: WatchCallOptions = {}): AsyncGenerator<BundleSet, never, void> {
    return this.#watch((call) => this.#api.fetchJWTBundles({}, call), readJwtBundles, options);
  }

  #watch<A, T>(
    open: (call: Http2CallOptions) => AsyncIterable<A>,
    read: (answer: A) => T,
    options: WatchCallOptions,
  ): AsyncGenerator<T, never, void> {
    const { onError, ref = true } = options;
    return watch((signal) => readEach(open({ signal, metadata: METADATA, ref }), read, onError), {
      signal: this.#until(options.signal),
      clock: this.#clock,
      delayMs: this.#backoff,
      onError,
      ref,
    });
  }

  #call(signal: AbortSignal | undefined): CallOptions {
    return { signal: this.#until(signal), metadata: METADATA };
  }

  #until(signal: AbortSignal | undefined): AbortSignal {
    return signal ? AbortSignal.any([this.#closed.signal, signal]) : this.#closed.signal;
  }
}

/** WAPI-18: an answer that breaks the rules is told and passed over; the stream goes on, and what came before stays. */
async function* readEach<A, T>(
  answers: AsyncIterable<A>,
  read: (answer: A) => T,
  onError: ((error: unknown) => void) | undefined,
): AsyncGenerator<T, void, void> {
  for await (const answer of answers) {
    let value: T;
    try {
      value = read(answer);
    } catch (error) {
      onError?.(error);
      continue;
    }
    yield value;
  }
}

async function first<T>(stream: AsyncIterable<T>): Promise<T> {
  for await (const answer of stream) return answer;
  throw new SpiffeError('UNAVAILABLE', undefined, 'the server ended the stream without an answer');
}

function readX509(answer: X509SVIDResponse): X509Context {
  required('SVID_INVALID', { svids: answer.svids });
  const bundles = new Bundles();
  const svids = answer.svids.map((one) => {
    required('SVID_INVALID', {
      spiffe_id: one.spiffeId,
      x509_svid: one.x509Svid,
      x509_svid_key: one.x509SvidKey,
      bundle: one.bundle,
    });
    const svid = X509Svid.fromDer(one.x509Svid, one.x509SvidKey, one.hint);
    same('the certificate', svid.id, one.spiffeId);
    bundles.add(x509Bundle(svid.id.trustDomain, one.bundle));
    return svid;
  });
  for (const [key, der] of Object.entries(answer.federatedBundles)) bundles.add(x509Bundle(trustDomainOf(key), der));
  return { svids: firstOfEachHint(svids), bundles: bundles.all() };
}

function readX509Bundles(answer: X509BundlesResponse): BundleSet {
  const entries = Object.entries(answer.bundles);
  required('BUNDLE_INVALID', { bundles: entries });
  const bundles = new Bundles();
  for (const [key, der] of entries) bundles.add(x509Bundle(trustDomainOf(key), der));
  return bundles.all();
}

function readJwtBundles(answer: JWTBundlesResponse): BundleSet {
  const entries = Object.entries(answer.bundles);
  required('BUNDLE_INVALID', { bundles: entries });
  const bundles = new Bundles();
  for (const [key, jwks] of entries) {
    const trustDomain = trustDomainOf(key);
    bundles.add(new Bundle(trustDomain, { jwtAuthorities: JwtBundle.fromJwks(trustDomain, jwks).authorities.values() }));
  }
  return bundles.all();
}

interface Wanted {
  readonly audience: readonly string[];
  readonly subject: SpiffeId | undefined;
  readonly nowMs: number;
}

function readJwtSvids(answer: JWTSVIDResponse, { audience, subject, nowMs }: Wanted): readonly JwtSvid[] {
  required('SVID_INVALID', { svids: answer.svids });
  const svids = answer.svids.map((one) => {
    required('SVID_INVALID', { spiffe_id: one.spiffeId, svid: one.svid });
    const svid = parseJwtSvidUnverified(one.svid, { hint: one.hint });
    same('the token', svid.id, one.spiffeId);
    if (subject) same('the token', svid.id, subject);
    wantAudience(svid, audience);
    if (nowMs - DEFAULT_CLOCK_TOLERANCE_MS >= svid.expiresMs) {
      throw new SpiffeError(
        'SVID_EXPIRED',
        'JWT_EXPIRED',
        `the server handed out a token that expired at ${new Date(svid.expiresMs).toISOString()}`,
      );
    }
    return svid;
  });
  return firstOfEachHint(svids);
}

function x509Bundle(trustDomain: TrustDomain, der: Uint8Array): Bundle {
  return new Bundle(trustDomain, { x509Authorities: X509Bundle.fromDer(trustDomain, der).authorities });
}

/** WAPI-24: `spiffe://name`; the bare name is taken too, since others' servers in tests send it. A path makes it the ID of something else. */
function trustDomainOf(key: string): TrustDomain {
  if (!key.startsWith('spiffe:')) return TrustDomain.parse(key);
  const id = SpiffeId.parse(key);
  if (id.path !== '') throw new SpiffeError('BUNDLE_INVALID', 'WAPI_MISMATCH', `the key of a bundle is ${id}, which is no trust domain`);
  return id.trustDomain;
}

/** Bundles of one answer. The same one may come with each SVID of its trust domain; two different ones leave open which to trust. */
class Bundles {
  readonly #byName = new Map<string, Bundle>();

  add(bundle: Bundle): void {
    const known = this.#byName.get(bundle.trustDomain.name);
    if (known && !known.equals(bundle)) {
      throw new SpiffeError('BUNDLE_INVALID', 'WAPI_MISMATCH', `two different bundles of ${bundle.trustDomain} in one answer`);
    }
    this.#byName.set(bundle.trustDomain.name, bundle);
  }

  all(): BundleSet {
    return new BundleSet(this.#byName.values());
  }
}

/** WAPI-18: a mandatory field at its default is no value. */
function required(code: Code, fields: Readonly<Record<string, { readonly length: number }>>): void {
  for (const [name, { length }] of Object.entries(fields)) {
    if (length === 0) throw new SpiffeError(code, 'WAPI_FIELD_MISSING', `the Workload API's answer has an empty ${name}`);
  }
}

function same(what: string, seen: unknown, told: SpiffeId | string): void {
  if (String(seen) !== String(told)) {
    throw new SpiffeError('SVID_INVALID', 'WAPI_MISMATCH', `the Workload API's answer speaks of ${told}, ${what} of ${String(seen)}`);
  }
}

/** A token for other ears than those asked for is of no use, and should not be sent to these. */
function wantAudience(svid: JwtSvid, audience: readonly string[]): void {
  const missing = audience.find((one) => !svid.audience.includes(one));
  if (missing !== undefined) {
    throw new SpiffeError(
      'SVID_INVALID',
      'JWT_AUD_UNEXPECTED',
      `the token is not for ${JSON.stringify(missing)}, but for ${JSON.stringify(svid.audience)}`,
    );
  }
}

/** WAPI-31, WAPI-46: of those with the same hint the first counts; without a hint, each. */
function firstOfEachHint<S extends { readonly hint: string }>(svids: readonly S[]): readonly S[] {
  const seen = new Set<string>();
  return svids.filter(({ hint }) => {
    if (hint === '') return true;
    if (seen.has(hint)) return false;
    seen.add(hint);
    return true;
  });
}

function pick<S extends { readonly hint: string }>(svids: readonly S[], hint: string | undefined): S {
  const found = hint === undefined ? svids[0] : svids.find((svid) => svid.hint === hint);
  if (!found)
    throw new SpiffeError(
      'NOT_FOUND',
      undefined,
      `no SVID with the hint ${JSON.stringify(hint)}, only ${JSON.stringify(svids.map((svid) => svid.hint))}`,
    );
  return found;
}
