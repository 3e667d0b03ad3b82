/** gRPC clients made from generated definitions: promises, async iterables and abort signals over grpc-js. */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import {
  CallCredentials,
  ChannelCredentials,
  type ChannelOptions,
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  credentials as grpcCredentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { systemClock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';
import { type CallOptions, type Calls, type Channel, errorOfStatus, STATUS } from './calls.ts';
import { encodeMessage, type MethodDefinition, methodPath, type ServiceDefinition } from './service.ts';
import { connectTls, type TlsClientOptions } from '../tls/tls.ts';

export interface ChannelSettings {
  /** In grpc-js' form: `unix:///path`, `127.0.0.1:8081` (see `endpoint.ts`). */
  readonly target: string;
  /** Default: none (a UNIX socket needs none). */
  readonly credentials?: ChannelCredentials;
  readonly options?: ChannelOptions;
}

export function openChannel(settings: ChannelSettings): Channel {
  const client = new Client(settings.target, settings.credentials ?? grpcCredentials.createInsecure(), {
    'grpc.enable_channelz': 0,
    // each of our channels is its own connection: a rotated identity must not reuse an older one's
    'grpc.use_local_subchannel_pool': 1,
    'grpc.service_config_disable_resolution': 1,
    ...settings.options,
  });
  return {
    service: <D extends ServiceDefinition>(definition: D) =>
      Object.fromEntries(Object.entries(definition.methods).map(([name, method]) => [name, bind(client, definition, method)])) as Calls<D>,
    close: () => client.close(),
  };
}

function bind(client: Client, definition: ServiceDefinition, method: MethodDefinition): unknown {
  const path = methodPath(definition, method);
  const serialize = (message: unknown) => encodeMessage(method.requestType, message);
  const deserialize = (bytes: Buffer) => method.responseType.decode(bytes);
  const prepare = (options: CallOptions): [Metadata, { deadline?: number }] => {
    options.signal?.throwIfAborted();
    const metadata = new Metadata();
    for (const [key, value] of Object.entries(options.metadata ?? {})) metadata.set(key, value);
    return [metadata, options.deadlineMs === undefined ? {} : { deadline: systemClock.now() + options.deadlineMs }];
  };

  if (!method.requestStream && !method.responseStream) {
    return async (request: unknown, options: CallOptions = {}) => {
      const [metadata, callOptions] = prepare(options);
      return new Promise((resolve, reject) => {
        const call = client.makeUnaryRequest(path, serialize, deserialize, request, metadata, callOptions, (error, response) => {
          options.signal?.removeEventListener('abort', cancel);
          if (error) reject(options.signal?.aborted ? options.signal.reason : fromStatus(error));
          else resolve(response);
        });
        const cancel = () => call.cancel();
        options.signal?.addEventListener('abort', cancel, { once: true });
      });
    };
  }
  if (!method.requestStream) {
    return (request: unknown, options: CallOptions = {}) =>
      lazily(() => read(client.makeServerStreamRequest(path, serialize, deserialize, request, ...prepare(options)), options.signal));
  }
  if (!method.responseStream) throw new Error(`${path}: client streaming alone is not used by any service of ours`);
  return (requests: AsyncIterable<unknown>, options: CallOptions = {}) =>
    lazily(() => {
      const call = client.makeBidiStreamRequest(path, serialize, deserialize, ...prepare(options));
      let fault: unknown;
      void feed(call, requests).catch((error: unknown) => {
        fault = error;
        call.cancel();
      });
      return read(call, options.signal, () => fault);
    });
}

/** The call begins when it is first read from, and fails there too. */
function lazily<T>(open: () => AsyncIterable<T>): AsyncIterable<T> {
  return { [Symbol.asyncIterator]: () => open()[Symbol.asyncIterator]() };
}

async function* read(
  call: ClientReadableStream<unknown> | ClientDuplexStream<unknown, unknown>,
  signal: AbortSignal | undefined,
  fault: () => unknown = () => undefined,
): AsyncGenerator<unknown, void, void> {
  const cancel = () => call.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  // an error after the last read must not become an uncaught one
  call.on('error', () => {});
  try {
    yield* call.iterator({ destroyOnReturn: false });
  } catch (error) {
    signal?.throwIfAborted();
    throw fault() ?? fromStatus(error as ServiceError);
  } finally {
    signal?.removeEventListener('abort', cancel);
    call.cancel();
  }
}

async function feed(call: ClientDuplexStream<unknown, unknown>, requests: AsyncIterable<unknown>): Promise<void> {
  let open = true;
  const closed = new Promise<void>((resolve) => {
    const end = () => {
      open = false;
      resolve();
    };
    call.once('status', end);
    call.once('error', end);
  });
  const iterator = requests[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await Promise.race([iterator.next(), closed]);
      if (!next || next.done || !open) break;
      if (!call.write(next.value)) await Promise.race([new Promise((resolve) => call.once('drain', resolve)), closed]);
    }
  } finally {
    // never awaited: a source that waits for something of its own may not hold us up
    void iterator.return?.()?.then(undefined, () => {});
  }
  if (open) call.end();
}

function fromStatus(error: ServiceError): SpiffeError {
  if (error instanceof SpiffeError) return error;
  const [details] = error.metadata?.get('grpc-status-details-bin') ?? [];
  const code = typeof error.code === 'number' ? error.code : STATUS.UNKNOWN;
  return errorOfStatus(code, error.details ?? error.message, details instanceof Buffer ? details : undefined, error);
}

export interface SvidChannelSettings {
  /** Asked at each new connection: the newest SVID is shown (undefined: none, for attestation), the newest bundles judge. */
  readonly tls: () => Omit<TlsClientOptions, 'alpn' | 'signal'>;
}

/** Credentials for `openChannel`: SPIFFE's TLS by `tls.ts` below gRPC, so that the server is verified by the bundle of its own trust domain. */
export function svidCredentials(settings: SvidChannelSettings): ChannelCredentials {
  return tlsCredentials((socket) => connectTls(socket, { ...settings.tls(), alpn: ['h2'] }));
}

/** Credentials that run any handshake, told the host that the channel's target names; what it rejects with is the connection's failure. */
export function tlsCredentials(handshake: (socket: Socket, host: string) => Promise<TLSSocket>): ChannelCredentials {
  return new OwnTls(handshake);
}

/** grpc-js makes its TLS through members of its credentials that it marks as its own; pinned version, held by a test. */
class OwnTls extends ChannelCredentials {
  readonly #handshake: (socket: Socket, host: string) => Promise<TLSSocket>;
  readonly #call: CallCredentials;

  constructor(handshake: (socket: Socket, host: string) => Promise<TLSSocket>, call = CallCredentials.createEmpty()) {
    super();
    this.#handshake = handshake;
    this.#call = call;
  }

  override compose(call: CallCredentials): ChannelCredentials {
    return new OwnTls(this.#handshake, this.#call.compose(call));
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(target: { readonly path: string }): ReturnType<ChannelCredentials['_createSecureConnector']> {
    const handshake = this.#handshake;
    const call = this.#call;
    const [, bracketed, plain = ''] = /^(?:\[(.*)\]|(.*?))(?::\d+)?$/.exec(target.path) ?? [];
    return {
      connect: async (socket) => ({ socket: await handshake(socket, bracketed ?? plain), secure: true }),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => call,
      destroy: () => {},
    };
  }
}
