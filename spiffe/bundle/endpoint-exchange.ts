/** One request to a bundle endpoint over one connection: answered by whom the profile wants, or refused (SPIFFE Federation §5.2). */
import { type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import { connect, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../clock.ts';
import { type Code, type Reason, SpiffeError } from '../errors.ts';
import type { SpiffeId } from '../id.ts';
import { matchId } from '../match.ts';
import { connectTls } from '../tls/tls.ts';
import type { X509BundleSource } from '../x509/x509-bundle.ts';
import { type Endpoint, shownUrl } from './endpoint-address.ts';

/** Whatever fails, fails as a SpiffeError that says how far it came. To be ended in any case. */
export class Exchange {
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
    const tooLarge = () => new SpiffeError('UNAVAILABLE', 'FED_TOO_LARGE', `${named(this.#url)} answered with more than ${maxBytes} bytes`);
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

/** The endpoint, for messages. */
export function named(url: URL): string {
  return `bundle endpoint ${shownUrl(url)}`;
}

/** Node's error of an address that was tried in several ways has a code only. */
export function wordsOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.message || ('code' in error ? String(error.code) : error.name);
}
