/**
 * gRPC over Node's own HTTP/2, for the Workload API: unary calls and server streams, no TLS, one connection. So the SDK needs no gRPC library, and starts in
 * half the time.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect as http2Connect, constants, type IncomingHttpHeaders } from 'node:http2';
import { connect, type NetConnectOpts } from 'node:net';
import { SpiffeError } from '../errors.ts';
import { type CallOptions, type Calls, type Channel, errorOfStatus, STATUS } from './calls.ts';
import { FrameReader, frame } from './frame.ts';
import { encodeMessage, type MethodDefinition, methodPath, type ServiceDefinition } from './service.ts';

export interface Http2CallOptions extends CallOptions {
  /** Whether the process stays alive for this call. Default true. */
  readonly ref?: boolean;
}

export interface Http2ChannelSettings {
  readonly address: { readonly path: string } | { readonly host: string; readonly port: number };
  /** The longest message that is taken, in bytes. Default 16 MiB: bundles of many trust domains come as one message. */
  readonly maxMessageBytes?: number;
}

const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
const CONNECT_MS = 20_000;

/** Bidirectional and client streams are not served: their calls throw UNIMPLEMENTED. */
export function openHttp2Channel(settings: Http2ChannelSettings): Channel {
  const connection = new Connection(settings);
  return {
    service: <D extends ServiceDefinition>(definition: D) =>
      Object.fromEntries(
        Object.entries(definition.methods).map(([name, method]) => [name, bind(connection, methodPath(definition, method), method)]),
      ) as Calls<D>,
    close: () => connection.close(),
  };
}

function bind(connection: Connection, path: string, method: MethodDefinition): unknown {
  const bytes = (request: unknown) => encodeMessage(method.requestType, request);
  if (method.requestStream) {
    return () => {
      throw new SpiffeError('UNIMPLEMENTED', undefined, `${path}: streams of requests are not carried here`);
    };
  }
  if (method.responseStream)
    return (request: unknown, options: Http2CallOptions = {}) => answers(connection, path, method, bytes(request), options);
  return async (request: unknown, options: Http2CallOptions = {}) => {
    let answer: { readonly value: unknown } | undefined;
    for await (const value of answers(connection, path, method, bytes(request), options)) {
      if (answer) throw errorOfStatus(STATUS.INTERNAL, `${path}: more than one answer`);
      answer = { value };
    }
    if (!answer) throw errorOfStatus(STATUS.INTERNAL, `${path}: no answer`);
    return answer.value;
  };
}

/** One call: its messages, then its status as the end or as the error. Begins when it is first read from. */
async function* answers(
  connection: Connection,
  path: string,
  method: MethodDefinition,
  request: Uint8Array,
  options: Http2CallOptions,
): AsyncGenerator<unknown, void, void> {
  const { signal, deadlineMs, ref = true } = options;
  signal?.throwIfAborted();
  const deadline = deadlineMs === undefined ? undefined : AbortSignal.timeout(deadlineMs);
  const release = connection.hold(ref);
  let stream: ClientHttp2Stream | undefined;
  const cancel = () => stream?.close(constants.NGHTTP2_CANCEL);
  const failed = (cause: unknown): unknown => {
    if (signal?.aborted) return signal.reason;
    if (deadline?.aborted) return new SpiffeError('DEADLINE_EXCEEDED', undefined, `${path}: no answer within ${deadlineMs} ms`);
    return cause instanceof SpiffeError ? cause : connection.failure(stream, cause);
  };
  try {
    stream = connection.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      'user-agent': 'warifu',
      te: 'trailers',
      ...(deadlineMs !== undefined && { 'grpc-timeout': `${Math.min(Math.ceil(deadlineMs), 99_999_999)}m` }),
      ...options.metadata,
    });
    signal?.addEventListener('abort', cancel, { once: true });
    deadline?.addEventListener('abort', cancel, { once: true });
    // what goes wrong after the last read is told by the reading, or by nobody
    stream.on('error', () => {});
    let head: IncomingHttpHeaders | undefined;
    let tail: IncomingHttpHeaders | undefined;
    stream.once('response', (headers) => (head = headers));
    stream.once('trailers', (headers) => (tail = headers));
    stream.end(frame(request));

    const reader = new FrameReader(connection.maxMessageBytes);
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      refuseStranger(head);
      for (const message of reader.read(chunk)) yield decode(path, method, message);
    }
    if (signal?.aborted || deadline?.aborted) throw failed(undefined);
    if (stream.rstCode !== constants.NGHTTP2_NO_ERROR) throw connection.failure(stream, undefined);
    refuseStranger(head);
    const status = tail ?? head;
    if (status?.['grpc-status'] === undefined) throw connection.failure(stream, undefined);
    const code = Number(status['grpc-status']);
    if (code !== STATUS.OK) throw errorOfStatus(code, wordsOf(status['grpc-message']), detailsOf(status['grpc-status-details-bin']));
    if (reader.pending > 0) throw errorOfStatus(STATUS.INTERNAL, `${path}: the answer ends within a message`);
  } catch (cause) {
    throw failed(cause);
  } finally {
    signal?.removeEventListener('abort', cancel);
    deadline?.removeEventListener('abort', cancel);
    if (stream && !stream.closed) cancel();
    release();
  }
}

/** gRPC's status for an HTTP answer that is not gRPC's (gRPC's `http-grpc-status-mapping`). */
const OF_HTTP: Readonly<Record<number, number>> = { 400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14 };

function refuseStranger(head: IncomingHttpHeaders | undefined): void {
  if (!head || head['grpc-status'] !== undefined) return;
  const status = Number(head[':status']);
  if (status !== 200) throw errorOfStatus(OF_HTTP[status] ?? STATUS.UNKNOWN, `the server answers HTTP ${status}, not gRPC`);
  const type = head['content-type'] ?? '';
  if (!/^application\/grpc(?:[+;]|$)/.test(type))
    throw errorOfStatus(STATUS.UNKNOWN, `the server answers ${type || 'no content type'}, not gRPC`);
}

function decode(path: string, method: MethodDefinition, message: Uint8Array): unknown {
  try {
    return method.responseType.decode(message);
  } catch (cause) {
    throw errorOfStatus(STATUS.INTERNAL, `${path}: the answer is malformed`, undefined, cause);
  }
}

/** Percent-encoded; what is not well encoded is shown as it came. */
function wordsOf(header: string | string[] | undefined): string {
  const text = String(header ?? '');
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function detailsOf(header: string | string[] | undefined): Uint8Array | undefined {
  return typeof header === 'string' ? Buffer.from(header, 'base64') : undefined;
}

/** The status of a stream that was reset, by HTTP/2's error code (gRPC's `PROTOCOL-HTTP2`). */
const OF_RESET: Readonly<Record<number, number>> = {
  [constants.NGHTTP2_NO_ERROR]: STATUS.UNAVAILABLE,
  [constants.NGHTTP2_REFUSED_STREAM]: STATUS.UNAVAILABLE,
  [constants.NGHTTP2_CANCEL]: STATUS.CANCELLED,
  [constants.NGHTTP2_ENHANCE_YOUR_CALM]: 8,
  [constants.NGHTTP2_INADEQUATE_SECURITY]: 7,
};

/** The HTTP/2 session: made when needed, anew when it has ended. */
class Connection {
  readonly maxMessageBytes: number;
  readonly #address: Http2ChannelSettings['address'];
  #session: ClientHttp2Session | undefined;
  /** Why the newest session ended, when it did not end well. */
  #fault: unknown;
  #closed = false;
  #held = 0;

  constructor({ address, maxMessageBytes = MAX_MESSAGE_BYTES }: Http2ChannelSettings) {
    this.#address = address;
    this.maxMessageBytes = maxMessageBytes;
  }

  request(headers: Readonly<Record<string, string>>): ClientHttp2Stream {
    if (this.#closed) throw new SpiffeError('CLOSED', undefined, 'the channel is closed');
    if (!this.#session || this.#session.closed || this.#session.destroyed) this.#session = this.#connect();
    if (this.#held > 0) this.#session.ref();
    return this.#session.request({ ':scheme': 'http', ':authority': 'localhost', ...headers });
  }

  /** Keeps the process alive until released, when `ref`. */
  hold(ref: boolean): () => void {
    if (!ref) return () => {};
    this.#held++;
    return () => {
      if (--this.#held === 0) this.#session?.unref();
    };
  }

  close(): void {
    this.#closed = true;
    this.#session?.destroy();
  }

  failure(stream: ClientHttp2Stream | undefined, cause: unknown): SpiffeError {
    if (this.#closed) return new SpiffeError('CLOSED', undefined, 'the channel is closed', { cause });
    const where = 'path' in this.#address ? `unix://${this.#address.path}` : `tcp://${this.#address.host}:${this.#address.port}`;
    const session = stream?.session ?? this.#session;
    if (this.#fault !== undefined || !session || session.destroyed) {
      const why = this.#fault ?? cause;
      const words = why instanceof Error ? why.message : 'the connection ended';
      return errorOfStatus(STATUS.UNAVAILABLE, `the server at ${where} is not available: ${words}`, undefined, why);
    }
    const reset = stream?.rstCode ?? constants.NGHTTP2_NO_ERROR;
    return errorOfStatus(
      OF_RESET[reset] ?? STATUS.INTERNAL,
      `the server at ${where} ended the stream with HTTP/2 error ${reset}`,
      undefined,
      cause,
    );
  }

  #connect(): ClientHttp2Session {
    this.#fault = undefined;
    const socket = connect({ ...this.#address, autoSelectFamily: false } as NetConnectOpts);
    socket.setNoDelay(true);
    // a host that is gone says nothing
    socket.setKeepAlive(true, 30_000);
    const limit = AbortSignal.timeout(CONNECT_MS);
    const late = () => socket.destroy(new Error(`no connection within ${CONNECT_MS} ms`));
    limit.addEventListener('abort', late, { once: true });
    socket.once('connect', () => limit.removeEventListener('abort', late));
    const session = http2Connect('http://localhost', { createConnection: () => socket, settings: { enablePush: false } });
    session.unref();
    session.on('error', (error) => {
      if (session === this.#session) this.#fault = error;
    });
    session.on('goaway', (code) => {
      if (code !== constants.NGHTTP2_NO_ERROR && session === this.#session)
        this.#fault = new Error(`the server went away with HTTP/2 error ${code}`);
    });
    session.once('close', () => limit.removeEventListener('abort', late));
    return session;
  }
}
