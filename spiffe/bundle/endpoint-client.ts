/** Fetches a bundle from its bundle endpoint, once (SPIFFE Federation §5): who answers is verified, and what is answered read strictly, before it counts. */
import { type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import { connect, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { type Clock, systemClock } from '../clock.ts';
import { type Code, type Reason, SpiffeError, under } from '../errors.ts';
import { SpiffeId, TrustDomain } from '../id.ts';
import { MAX_BUNDLE_BYTES } from '../jwt/jwt-bundle.ts';
import { matchId } from '../match.ts';
import { connectTls } from '../tls/tls.ts';
import { formatPem, parsePem } from '../x509/pem.ts';
import type { X509BundleSource } from '../x509/x509-bundle.ts';
import { Bundle } from './bundle.ts';

/** The endpoint shows a certificate as web sites do, for the host of its URL. */
export interface HttpsWeb {
  readonly type: 'https_web';
  /** PEM: the authorities that may have issued it, instead of those that Node brings. */
  readonly ca?: string | Uint8Array | undefined;
}

/** The endpoint shows an X.509-SVID. The host of its URL says only where it is. */
export interface HttpsSpiffe {
  readonly type: 'https_spiffe';
  readonly endpointId: SpiffeId | string;
  /** Must have the bundle of the trust domain of `endpointId`, from elsewhere. */
  readonly bundles: X509BundleSource;
}

export type EndpointProfile = HttpsWeb | HttpsSpiffe;

export interface EndpointAddress {
  /** Whose bundle it is. Never guessed from the URL or the endpoint's ID (FED-65). */
  readonly trustDomain: TrustDomain | string;
  /** `https`, without a user. Port, path and query are free; a fragment is dropped. */
  readonly url: URL | string;
  readonly profile: EndpointProfile;
}

export interface FetchLimits {
  /** For everything together: address, handshakes, redirects, answer. Milliseconds, default 30 000. */
  readonly timeoutMs?: number | undefined;
  /** Of the answer. Default, and the most, 4 MiB. */
  readonly maxBytes?: number | undefined;
  /** How many redirects of an `https_web` endpoint are followed, 0 to 10. Default 3. Those of an `https_spiffe` endpoint never are. */
  readonly maxRedirects?: number | undefined;
  /** By which X.509-SVIDs are judged, and timeouts measured. Certificates of web sites are judged by the machine's clock. */
  readonly clock?: Clock | undefined;
}

export interface FetchBundleOptions extends EndpointAddress, FetchLimits {
  readonly signal?: AbortSignal | undefined;
  /** Whether the connection keeps the process alive. Default true. */
  readonly ref?: boolean | undefined;
}

/** An address that was checked. */
export interface Endpoint {
  readonly trustDomain: TrustDomain;
  readonly url: URL;
  readonly profile:
    | { readonly type: 'https_web'; readonly ca: string | undefined }
    | { readonly type: 'https_spiffe'; readonly endpointId: SpiffeId; readonly bundles: X509BundleSource };
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

/** Throws REQUEST_INVALID or ID_INVALID. */
export function checkEndpoint({ trustDomain, url, profile }: EndpointAddress): Endpoint {
  // callers without types are refused like everybody else (FED-33, FED-57)
  if (typeof trustDomain !== 'string' && !(trustDomain instanceof TrustDomain))
    throw invalid('FED_TRUST_DOMAIN', 'bundle endpoint: no trust domain is given; it is never guessed from the URL');
  const checked = { trustDomain: typeof trustDomain === 'string' ? TrustDomain.parse(trustDomain) : trustDomain, url: endpointUrl(url) };
  const type: unknown = profile?.type;
  if (profile?.type === 'https_web') return { ...checked, profile: { type: 'https_web', ca: authorities(profile.ca) } };
  if (profile?.type !== 'https_spiffe')
    throw invalid('FED_PROFILE', `bundle endpoint profile: wants https_web or https_spiffe, saw ${JSON.stringify(type)}`);
  const { endpointId, bundles } = profile;
  if (typeof endpointId !== 'string' && !(endpointId instanceof SpiffeId))
    throw invalid('FED_ENDPOINT_ID', 'bundle endpoint: https_spiffe needs the SPIFFE ID of the endpoint');
  if (typeof bundles?.x509Bundle !== 'function')
    throw invalid('FED_ENDPOINT_BUNDLES', `bundle endpoint ${endpointId}: https_spiffe needs a bundle of its trust domain to begin with`);
  const id = typeof endpointId === 'string' ? SpiffeId.parse(endpointId) : endpointId;
  return { ...checked, profile: { type: 'https_spiffe', endpointId: id, bundles } };
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
    throw invalid('FED_LIMIT', `bundle endpoint: ${name} must be an integer from ${least} to ${most}, saw ${value}`);
  return value;
}

/** The URL for messages: a query may hold what nobody else should read. */
export function shownUrl(url: URL): string {
  return url.origin + url.pathname;
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

/** One request over one connection. Whatever fails, fails as a SpiffeError that says how far it came. */
class Exchange {
  readonly #url: URL;
  #stage: 'connect' | 'handshake' | 'answer' = 'connect';
  #socket: Socket | undefined;
  #request: ClientRequest | undefined;
  #answer: IncomingMessage | undefined;

  constructor(url: URL) {
    this.#url = url;
  }

  /** The head of the answer, from a verified endpoint. */
  async ask(
    profile: Endpoint['profile'],
    how: { readonly signal: AbortSignal; readonly clock: Clock; readonly ref: boolean },
  ): Promise<IncomingMessage> {
    try {
      this.#request = profile.type === 'https_web' ? this.#overWeb(profile.ca, how) : await this.#overSpiffe(profile, how);
      this.#answer = await answerTo(this.#request);
      // OpenSSL's verdict, which the environment can tell Node to disregard (NODE_TLS_REJECT_UNAUTHORIZED); not us
      const socket = this.#answer.socket as TLSSocket;
      if (profile.type === 'https_web' && !socket.authorized) {
        this.#stage = 'handshake';
        throw socket.authorizationError;
      }
      return this.#answer;
    } catch (error) {
      throw this.#failure(error);
    }
  }

  async body(maxBytes: number): Promise<Buffer> {
    const answer = this.#answer as IncomingMessage;
    const tooLarge = () => unavailable('FED_TOO_LARGE', `${named(this.#url)} answered with more than ${maxBytes} bytes`);
    if (Number(answer.headers['content-length'] ?? 0) > maxBytes) throw tooLarge();
    const chunks: Buffer[] = [];
    let length = 0;
    try {
      for await (const chunk of answer as AsyncIterable<Buffer>) {
        length += chunk.length;
        if (length > maxBytes) throw tooLarge();
        chunks.push(chunk);
      }
    } catch (error) {
      throw this.#failure(error);
    }
    return Buffer.concat(chunks);
  }

  end(): void {
    this.#answer?.destroy();
    this.#request?.destroy();
    this.#socket?.destroy();
  }

  /** FED-32: Node's own verification, by the host of the URL; each connection anew, since a resumed one would not be verified. */
  #overWeb(ca: string | undefined, { signal, ref }: { readonly signal: AbortSignal; readonly ref: boolean }): ClientRequest {
    const request = httpsRequest(this.#url, {
      ...ASK,
      ...(ca !== undefined && { ca }),
      minVersion: 'TLSv1.2',
      agent: new Agent({ keepAlive: false, maxCachedSessions: 0 }),
      signal,
    });
    request.once('socket', (socket) => {
      if (!ref) socket.unref();
      socket.once('connect', () => (this.#stage = 'handshake'));
      socket.once('secureConnect', () => (this.#stage = 'answer'));
    });
    return request;
  }

  /** FED-54: a valid X.509-SVID with exactly that ID. */
  async #overSpiffe(
    { endpointId, bundles }: { readonly endpointId: SpiffeId; readonly bundles: X509BundleSource },
    { signal, clock, ref }: { readonly signal: AbortSignal; readonly clock: Clock; readonly ref: boolean },
  ): Promise<ClientRequest> {
    const { trustDomain } = endpointId;
    if (!bundles.x509Bundle(trustDomain))
      throw new SpiffeError('BUNDLE_MISSING', 'X509_BUNDLE_MISSING', `no bundle of ${trustDomain} to know the endpoint ${endpointId} by`);
    const url = this.#url;
    const socket = connect({ host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port || 443) });
    this.#socket = socket;
    if (!ref) socket.unref();
    await connected(socket, signal);
    this.#stage = 'handshake';
    // FED-47: an endpoint asks nobody for a certificate, and we show none
    const tls = await connectTls(socket, { svid: undefined, bundles, authorize: matchId(endpointId), clock, signal });
    this.#socket = tls;
    this.#stage = 'answer';
    return httpRequest({
      ...ASK,
      path: url.pathname + url.search,
      headers: { ...ASK.headers, host: url.host },
      signal,
      createConnection: () => tls,
    });
  }

  #failure(error: unknown): SpiffeError {
    const what = named(this.#url);
    if (error instanceof SpiffeError)
      return error.message.startsWith(what)
        ? error
        : new SpiffeError(error.code, error.reason, `${what}: ${error.message}`, { cause: error });
    const [code, reason, words] = STAGES[this.#stage];
    return new SpiffeError(code, reason, `${what}: ${words}: ${wordsOf(error)}`, { cause: error });
  }
}

const STAGES: Readonly<Record<'connect' | 'handshake' | 'answer', readonly [Code, Reason, string]>> = {
  connect: ['UNAVAILABLE', 'FED_UNREACHABLE', 'cannot be reached'],
  handshake: ['UNAUTHENTICATED', 'FED_TLS', 'TLS failed'],
  answer: ['UNAVAILABLE', 'FED_BROKEN_OFF', 'the answer broke off'],
};

const ASK = { method: 'GET', headers: { accept: 'application/json', 'accept-encoding': 'identity' } } as const;

function connected(socket: Socket, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    // stays: what goes wrong later is told by those who read and write
    socket.on('error', (error) => {
      signal.removeEventListener('abort', abort);
      reject(error);
    });
    socket.once('connect', () => {
      signal.removeEventListener('abort', abort);
      resolve();
    });
  });
}

function answerTo(request: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request.on('error', reject);
    request.once('close', () => reject(new Error('the connection was closed')));
    request.once('response', resolve);
    request.end();
  });
}

/** FED-20, 21, 38, 39. What `URL` would quietly mend is refused. Throws REQUEST_INVALID. */
function endpointUrl(given: URL | string, base?: URL): URL {
  const text = String(given);
  const refuse = (reason: Reason, why: string) => invalid(reason, `bundle endpoint URL: ${why}`);
  if (!/^[\x21-\x5b\x5d-\x7e]+$/.test(text)) throw refuse('FED_URL', 'is empty, or has a character that no URL has');
  if (!base && !/^https:\/\//i.test(text)) throw refuse('FED_URL_SCHEME', 'wants https://…');
  if (/^(?:[a-z][a-z0-9+.-]*:)?\/\/(?:[/?#]|$)/i.test(text)) throw refuse('FED_URL', 'has no host');
  // looked for in the text: URL drops an empty user
  if (/^(?:[a-z][a-z0-9+.-]*:)?\/\/[^/?#]*@/i.test(text)) throw refuse('FED_URL_USERINFO', 'must not have a user');
  if (!URL.canParse(text, base?.href)) throw refuse('FED_URL', 'is not a URL');
  const url = new URL(text, base);
  if (url.protocol !== 'https:') throw refuse('FED_URL_SCHEME', `wants https, saw ${url.protocol.slice(0, -1)}`);
  if (url.username !== '' || url.password !== '') throw refuse('FED_URL_USERINFO', 'must not have a user');
  if (url.port === '0') throw refuse('FED_URL', 'has port 0');
  url.hash = '';
  return url;
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

/** As one text, of certificates only: Node takes an empty text for "those that Node brings", and passes over what is none. */
function authorities(pem: string | Uint8Array | undefined): string | undefined {
  if (pem === undefined) return undefined;
  return under('REQUEST_INVALID', 'bundle endpoint: ca', () => {
    const blocks = parsePem(pem);
    if (blocks.length === 0) throw invalid('FED_CA', 'no certificate found');
    const stranger = blocks.find(({ label }) => label !== 'CERTIFICATE');
    if (stranger) throw invalid('FED_CA', `a ${stranger.label} block where only certificates belong`);
    return blocks.map(({ label, der }) => formatPem(label, der)).join('');
  });
}

function named(url: URL): string {
  return `bundle endpoint ${shownUrl(url)}`;
}

/** Node's error of an address that was tried in several ways has a code only. */
function wordsOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.message || ('code' in error ? String(error.code) : error.name);
}

function invalid(reason: Reason, words: string): SpiffeError {
  return new SpiffeError('REQUEST_INVALID', reason, words);
}

function unavailable(reason: Reason, words: string): SpiffeError {
  return new SpiffeError('UNAVAILABLE', reason, words);
}
