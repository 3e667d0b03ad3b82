/** `fetch` with SPIFFE: a dispatcher of undici whose requests go to verified servers alone. */
import { Agent, type buildConnector, Dispatcher } from 'undici';
import { SpiffeError } from '../errors.ts';
import { TlsClient, type TlsClientSettings } from './client.ts';

/** Of `SpiffeDispatcher`. */
export type DispatcherSettings = TlsClientSettings & {
  /** As for undici's `Agent`: how many connections, timeouts, pipelining. With `allowH2`, HTTP/2 where the server speaks it. */
  readonly agent?: Omit<Agent.Options, 'connect' | 'factory'> | undefined;
};

/** The connections that were made between two swaps. */
interface Generation {
  readonly agent: Agent;
}

/**
 * For `setGlobalDispatcher`, after which Node's own `fetch` uses it too, and for undici's `fetch(url, { dispatcher })` and `request`. Node's own `fetch` takes it as an
 * option where `process.versions.undici` is of your undici's major version. A connection is verified and authorized before a byte of a request
 * is sent. Before the first of its connections ends with an SVID, the whole set is swapped: requests under way end on the old ones, new ones get new ones.
 * Only https: a request without TLS is refused. Who makes it closes it.
 */
export class SpiffeDispatcher extends Dispatcher {
  readonly #client: TlsClient;
  readonly #options: DispatcherSettings['agent'];
  readonly #retired = new Set<Promise<void>>();
  #now: Generation;

  /** Throws REQUEST_INVALID when something is missing. */
  constructor(settings: DispatcherSettings) {
    super();
    this.#client = new TlsClient(settings);
    this.#options = settings.agent;
    this.#now = this.#generation();
  }

  /** For undici, which calls it. */
  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    return this.#now.agent.dispatch(options, handler);
  }

  /** Waits for the requests under way; later ones are refused. */
  override close(): Promise<void>;
  override close(callback: () => void): void;
  override close(callback?: () => void): Promise<void> | void {
    const closed = Promise.all([this.#now.agent.close(), ...this.#retired]).then(() => {});
    if (!callback) return closed;
    void closed.then(callback, callback);
  }

  /** Ends the requests under way. */
  override destroy(error?: Error | null | (() => void), callback?: () => void): Promise<void> & void {
    const reason = typeof error === 'function' ? null : (error ?? null);
    const destroyed = this.#now.agent.destroy(reason);
    const then = typeof error === 'function' ? error : callback;
    if (then) void destroyed.then(then, then);
    return destroyed as Promise<void> & void;
  }

  /** See `TlsClient.recheck`. */
  recheck(): Promise<void> {
    return this.#client.recheck();
  }

  #generation(): Generation {
    const generation: Generation = {
      agent: new Agent({ ...this.#options, connect: (options, made) => this.#connect(generation, options, made) }),
    };
    return generation;
  }

  #connect(generation: Generation, { protocol, hostname, port }: buildConnector.Options, made: buildConnector.Callback): void {
    if (protocol !== 'https:') {
      return made(
        new SpiffeError('REQUEST_INVALID', undefined, `the URL must begin with https:, saw ${protocol}: there is no identity without TLS`),
        null,
      );
    }
    const alpn = this.#options?.allowH2 ? ['h2', 'http/1.1'] : ['http/1.1'];
    const host = hostname.replace(/^\[|\]$/g, '');
    this.#client.connect({ host, port: Number(port || 443), alpn, onDrain: () => this.#retire(generation) }).then(
      (socket) => made(null, socket),
      (error: unknown) => made(error instanceof Error ? error : new Error(String(error)), null),
    );
  }

  #retire(generation: Generation): void {
    if (generation !== this.#now) return;
    this.#now = this.#generation();
    const closed = generation.agent.close().catch(() => {});
    this.#retired.add(closed);
    void closed.then(() => this.#retired.delete(closed));
  }
}
