/** A gRPC server for connections that we accept ourselves: handlers as promises and async iterables, the caller told by what cannot be forged. */
import type { EventEmitter } from 'node:events';
import type { Duplex, Readable } from 'node:stream';
import {
  experimental,
  Metadata,
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  type ServerUnaryCall,
  type ServerWritableStream,
  status as Status,
  type StatusObject,
  type UntypedHandleCall,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { Status as RpcStatus } from '../proto/gen/google/rpc/status.ts';
import { SpiffeError } from '../spiffe/errors.ts';
import { Encoded, encodeMessage, type MethodDefinition, methodPath, type ServiceDefinition } from '../spiffe/rpc/service.ts';
import { type CoreCode, detailsOf, fail } from './errors.ts';
import type { Log } from './log.ts';
import type { CallContext, Implementation, Peer } from './rpc-types.ts';

/** gRPC status of each code. A new code that has no row here does not compile. */
export const STATUS: Readonly<Record<CoreCode, number>> = {
  ID_INVALID: Status.INVALID_ARGUMENT,
  SVID_INVALID: Status.INVALID_ARGUMENT,
  BUNDLE_INVALID: Status.INVALID_ARGUMENT,
  REQUEST_INVALID: Status.INVALID_ARGUMENT,
  SETTINGS_INVALID: Status.FAILED_PRECONDITION,
  SVID_EXPIRED: Status.UNAUTHENTICATED,
  SVID_UNTRUSTED: Status.UNAUTHENTICATED,
  UNAUTHENTICATED: Status.UNAUTHENTICATED,
  BUNDLE_MISSING: Status.NOT_FOUND,
  NOT_FOUND: Status.NOT_FOUND,
  ALREADY_EXISTS: Status.ALREADY_EXISTS,
  DENIED: Status.PERMISSION_DENIED,
  FAILED_PRECONDITION: Status.FAILED_PRECONDITION,
  RESOURCE_EXHAUSTED: Status.RESOURCE_EXHAUSTED,
  ABORTED: Status.ABORTED,
  UNIMPLEMENTED: Status.UNIMPLEMENTED,
  UNAVAILABLE: Status.UNAVAILABLE,
  CLOSED: Status.UNAVAILABLE,
  DEADLINE_EXCEEDED: Status.DEADLINE_EXCEEDED,
  CANCELLED: Status.CANCELLED,
  STORE_FAILED: Status.INTERNAL,
  INTERNAL: Status.INTERNAL,
};

/** Those that Go spells in its own way. */
const NAMED: Readonly<Record<string, string>> = { OK: 'OK', CANCELLED: 'Canceled' };

/** The name of each gRPC status as gRPC's Go library writes it: `PermissionDenied`. */
export function statusName(code: number): string {
  return STATUS_NAMES.get(code) ?? 'Unknown';
}

const STATUS_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(Status)
    .filter((entry): entry is [string, number] => typeof entry[1] === 'number')
    .map(([words, code]) => [
      code,
      NAMED[words] ?? words.replace(/_?([A-Z])([A-Z]*)/g, (_, first: string, rest: string) => first + rest.toLowerCase()),
    ]),
);

/** How a call ended; what is measured, logged and audited. */
export interface Outcome {
  /** gRPC status code; 0: OK. */
  readonly code: number;
  readonly message: string;
  readonly error: unknown;
}

/** Runs before each handler: throws to refuse. For a unary or server-stream call `request` is the message, else undefined. What it gives is called once with the outcome. */
export type Gate = (
  context: CallContext,
  request: unknown,
) => void | ((outcome: Outcome) => void) | Promise<undefined | ((outcome: Outcome) => void)>;

export interface Service<D extends ServiceDefinition = ServiceDefinition> {
  readonly definition: D;
  readonly implementation: Implementation<D>;
}

/** Keeps the types of definition and implementation together in a list of services. */
export function service<D extends ServiceDefinition>(definition: D, implementation: Implementation<D>): Service {
  return { definition, implementation };
}

export interface RpcServerSettings {
  readonly services: readonly Service[];
  readonly gate?: Gate;
  readonly log: Log;
  /** Default 4 MiB, as gRPC's. */
  readonly maxMessageBytes?: number;
  /** Per connection. Default 1000, on local sockets 4000. */
  readonly maxConcurrentStreams?: number;
  /** A connection is asked to go away after this long, so that clients spread anew and show their newest certificate. Default: never. */
  readonly maxConnectionAgeMs?: number;
  /** A connection without a stream ends after this long. Default: never. */
  readonly maxConnectionIdleMs?: number;
  /**
   * For local sockets: clients that fetch and cancel for ever keep their connection. Node's guard against rapid resets would end it after about
   * a thousand; on TCP the guard stays.
   */
  readonly allowManyResets?: boolean;
  /** Called when a stream is opened, before any of its messages is read: throws to refuse it. What it gives is called once when the stream has ended. */
  readonly admit?: (peer: Peer) => () => void;
  /** Called before a ready-made message of a stream is written: resolves when so many bytes may wait for the peer to read them, and gives what to call when they are gone. */
  readonly spend?: (peer: Peer, bytes: number, signal: AbortSignal) => Promise<() => void> | (() => void);
}

export interface RpcServer {
  /** Serves a connection. The socket is ours from now on; it is destroyed when the server closes. */
  accept(socket: Duplex, peer: Peer): void;
  /** Ends every connection after its calls under way, at the latest after `graceMs` (then they are cut). */
  drain(graceMs: number): Promise<void>;
  close(): void;
}

const PEER = Symbol('peer');
type PeerMetadata = Metadata & { [PEER]?: Peer };

export function createRpcServer(settings: RpcServerSettings): RpcServer {
  const server = new Server({
    'grpc.enable_channelz': 0,
    'grpc.max_receive_message_length': settings.maxMessageBytes ?? 4 * 1024 * 1024,
    'grpc.max_send_message_length': -1,
    'grpc.max_concurrent_streams': settings.maxConcurrentStreams ?? (settings.allowManyResets ? LOCAL_STREAMS : 1000),
    ...(settings.maxConnectionAgeMs === undefined
      ? {}
      : { 'grpc.max_connection_age_ms': settings.maxConnectionAgeMs, 'grpc.max_connection_age_grace_ms': 30_000 }),
    ...(settings.maxConnectionIdleMs === undefined ? {} : { 'grpc.max_connection_idle_ms': settings.maxConnectionIdleMs }),
  });
  if (settings.allowManyResets) allowManyResets(server);
  for (const { definition, implementation } of settings.services) addService(server, definition, implementation, settings);

  const open = new Set<Duplex>();
  return {
    accept(socket, peer) {
      // Its close has been told already: nothing would ever end the session that is made for it.
      if (socket.destroyed) return;
      const told = (_: unknown, call: ConstructorParameters<typeof ServerInterceptingCall>[0]) => {
        let ended = () => {};
        return new ServerInterceptingCall(call, {
          start: (next) =>
            next({
              onReceiveMetadata: (metadata: PeerMetadata, pass) => {
                try {
                  ended = settings.admit?.(peer) ?? ended;
                } catch (error) {
                  return call.sendStatus(toStatus(error));
                }
                // a symbol can't come from the wire
                metadata[PEER] = peer;
                return pass(metadata);
              },
              onCancel: () => ended(),
            }),
          sendStatus: (status, next) => {
            ended();
            next(status);
          },
        });
      };
      const injector = server.createConnectionInjector(
        experimental.createServerCredentialsWithInterceptors(ServerCredentials.createInsecure(), [told]),
      );
      open.add(socket);
      socket.once('close', () => {
        open.delete(socket);
        injector.destroy();
      });
      socket.on('error', () => socket.destroy());
      injector.injectConnection(socket);
    },
    drain: (graceMs) =>
      new Promise((resolve) => {
        const cut = AbortSignal.timeout(graceMs);
        const end = () => {
          server.forceShutdown();
          for (const socket of open) socket.destroy();
          resolve();
        };
        cut.addEventListener('abort', end, { once: true });
        server.tryShutdown(() => {
          cut.removeEventListener('abort', end);
          for (const socket of open) socket.destroy();
          resolve();
        });
      }),
    close() {
      server.forceShutdown();
      for (const socket of open) socket.destroy();
    },
  };
}

const LOCAL_STREAMS = 4_000;
/** Of one connection's streams and what they hold. Node's own 10 MiB end a connection at about a thousand calls. */
const LOCAL_SESSION_MIB = 32;

/** grpc-js hands its own options to Node's HTTP/2 server and has no word for these. A version that lacks the member fails at start, not in silence. */
function allowManyResets(server: Server): void {
  const { commonServerOptions } = server as unknown as { commonServerOptions?: Record<string, unknown> };
  if (typeof commonServerOptions !== 'object')
    throw fail('INTERNAL', 'grpc-js has no commonServerOptions: the local socket would drop busy clients');
  // a caller that cancels many at once is ahead of us: to us they are open still, and over the bounds that he keeps
  Object.assign(commonServerOptions, {
    streamResetBurst: 1_000_000,
    streamResetRate: 1_000_000,
    maxSessionRejectedStreams: 1_000_000,
    maxSessionMemory: LOCAL_SESSION_MIB,
  });
}

/** What every kind of call has. */
type Call = EventEmitter & { readonly metadata: Metadata };
type Anything = (request: unknown, context: CallContext) => Promise<unknown> & AsyncIterable<unknown>;

function addService(
  server: Server,
  definition: ServiceDefinition,
  implementation: Implementation<ServiceDefinition>,
  settings: RpcServerSettings,
): void {
  const methods = Object.entries(definition.methods);
  const untyped: UntypedServiceImplementation = {};
  for (const [name, method] of methods) {
    const handler = implementation[name] as Anything | undefined;
    const path = methodPath(definition, method);
    const missing = fail('UNIMPLEMENTED', `method ${method.name} not implemented`);
    const run: Anything = handler
      ? (request, context) => handler.call(implementation, request, context)
      : () => Promise.reject(missing) as never;
    untyped[name] = method.responseStream && handler ? serveStream(path, method, run, settings) : serveOne(path, method, run, settings);
  }
  server.addService(
    Object.fromEntries(
      methods.map(([name, method]) => [
        name,
        {
          path: methodPath(definition, method),
          requestStream: method.requestStream,
          responseStream: method.responseStream,
          requestSerialize: (message: unknown) => encodeMessage(method.requestType, message),
          requestDeserialize: (bytes: Buffer) => method.requestType.decode(bytes),
          responseSerialize: (message: unknown) => encodeMessage(method.responseType, message),
          responseDeserialize: (bytes: Buffer) => method.responseType.decode(bytes),
        },
      ]),
    ),
    untyped,
  );
}

/** One answer; also how a method that is not there, whatever its shape, says so. */
function serveOne(path: string, method: MethodDefinition, run: Anything, settings: RpcServerSettings): UntypedHandleCall {
  return (call: Call, answer?: (error: Partial<StatusObject> | null, value?: unknown) => void): void => {
    const { context, finish } = begin(path, call);
    const request = method.requestStream ? undefined : (call as ServerUnaryCall<unknown, unknown>).request;
    const input = method.requestStream ? requestsOf(call as unknown as Readable) : request;
    const respond = answer ?? ((error: Partial<StatusObject> | null) => call.emit('error', error));
    void guarded(settings, context, request, () => run(input, context)).then(
      (value) => {
        finish();
        respond(null, value);
      },
      (error: unknown) => {
        finish();
        respond(toStatus(error));
      },
    );
  };
}

function serveStream(path: string, method: MethodDefinition, run: Anything, settings: RpcServerSettings): UntypedHandleCall {
  return (call: ServerWritableStream<unknown, unknown>): void => {
    const { context: told, finish } = begin(path, call);
    const stop = new Stop();
    told.signal.addEventListener('abort', () => stop.with(told.signal.reason), { once: true });
    const context: CallContext = { ...told, cut: (error) => stop.with(error) };
    // a reset under our writes is told by 'cancelled'; the stream's own error says nothing more
    call.on('error', () => {});
    const request = method.requestStream ? undefined : call.request;
    const input = method.requestStream ? requestsOf(call as unknown as Readable) : request;
    const spend = (bytes: number) => settings.spend?.(context.peer, bytes, context.signal);
    void guarded(settings, context, request, () => pump(call, run(input, context), stop, spend)).then(
      () => {
        finish();
        call.end();
      },
      (error: unknown) => {
        finish();
        call.emit('error', toStatus(error));
      },
    );
  };
}

async function pump(
  call: ServerWritableStream<unknown, unknown>,
  answers: AsyncIterable<unknown>,
  stop: Stop,
  spend: (bytes: number) => Promise<() => void> | (() => void) | undefined,
): Promise<void> {
  const iterator = answers[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await stop.unless(iterator.next());
      if (next.done) return;
      const { value } = next;
      const spent = spend(value instanceof Encoded ? value.bytes.length : 0);
      const gone = spent instanceof Promise ? await stop.unless(spent) : spent;
      try {
        // one at a time: what is not written yet can still be replaced by something newer
        await stop.unless(new Promise((resolve) => call.write(value, resolve)));
      } finally {
        gone?.();
      }
    }
  } finally {
    // the generator may be waiting for something of its own: told to end, not waited for
    void iterator.return?.()?.then(undefined, () => {});
  }
}

/** Ends whoever waits. Unlike `Promise.race` with a promise that stays pending, it keeps nothing of what was waited for before. */
class Stop {
  #stopped: { readonly error: unknown } | undefined;
  #reject: ((error: unknown) => void) | undefined;

  with(error: unknown): void {
    this.#stopped ??= { error };
    this.#reject?.(this.#stopped.error);
  }

  unless<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      promise.then(resolve, reject);
      if (this.#stopped) reject(this.#stopped.error);
    });
  }
}

/** The gate, then the handler, then what the gate wanted to know of the end. */
async function guarded<T>(settings: RpcServerSettings, context: CallContext, request: unknown, handle: () => Promise<T>): Promise<T> {
  let tell: ((outcome: Outcome) => void) | undefined | void;
  try {
    tell = await settings.gate?.(context, request);
    const value = await handle();
    tell?.({ code: 0, message: 'OK', error: undefined });
    return value;
  } catch (error) {
    const { code, details } = toStatus(error);
    tell?.({ code, message: details, error });
    if (!(error instanceof SpiffeError) && !context.signal.aborted) settings.log.error('Call failed', { method: context.method, error });
    throw error;
  }
}

/** One for all: a stack would cost more than the rest of a call's end, and say nothing. */
const GONE = fail('CANCELLED', 'the caller went away');

function begin(path: string, call: Call): { context: CallContext; finish: () => void } {
  const metadata: PeerMetadata = call.metadata;
  const peer = metadata[PEER];
  if (!peer) throw fail('INTERNAL', 'a call without a peer');
  const stop = new AbortController();
  const cancelled = () => stop.abort(GONE);
  call.once('cancelled', cancelled);
  const values = new Map<string, string[]>();
  for (const key of Object.keys(metadata.getMap())) {
    values.set(
      key,
      [...metadata.get(key)].filter((value) => typeof value === 'string'),
    );
  }
  return { context: { method: path, peer, metadata: values, signal: stop.signal }, finish: () => call.off('cancelled', cancelled) };
}

/**
 * By hand: the stream's own iterator destroys it when we end it with an error, and with it answers that the caller has yet to read, so that he
 * would never hear of the end.
 */
async function* requestsOf(call: Readable): AsyncGenerator<unknown, void, void> {
  let wake = () => {};
  let broken = call.destroyed;
  const stir = () => wake();
  const broke = () => {
    broken = true;
    wake();
  };
  call.on('readable', stir).on('end', stir).on('error', broke).on('close', broke);
  try {
    for (;;) {
      const request: unknown = broken ? null : call.read();
      if (request !== null) yield request;
      else if (call.readableEnded) return;
      else if (broken) throw fail('CANCELLED', 'the caller went away');
      else
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    }
  } finally {
    call.off('readable', stir).off('end', stir).off('error', broke).off('close', broke);
  }
}

/** What a caller may know. The cause stays with us: it goes to the log and never on the wire. */
export function toStatus(error: unknown): { code: number; details: string; metadata?: Metadata } {
  if (!(error instanceof SpiffeError)) return { code: Status.INTERNAL, details: 'internal error' };
  const code = STATUS[(error as SpiffeError<CoreCode>).code] ?? Status.INTERNAL;
  const details = detailsOf(error);
  if (details.length === 0) return { code, details: error.message };
  const metadata = new Metadata();
  const message = RpcStatus.encode({
    code,
    message: error.message,
    details: details.map(({ typeUrl, value }) => ({ typeUrl, value: Buffer.from(value) })),
  }).finish();
  metadata.set('grpc-status-details-bin', Buffer.from(message));
  return { code, details: error.message, metadata };
}
