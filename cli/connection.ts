/** A command's connection to a server or an agent, through its UNIX socket. Failures are told as SPIRE's users know them. */
import { type CoreCode, fail } from '../core/errors.ts';
import type { SpiffeError } from '../spiffe/errors.ts';
import { openChannel } from '../spiffe/rpc/channel.ts';
import { type CallOptions, type Channel, rpcStatusOf } from '../spiffe/rpc/calls.ts';
import type { MethodDefinition, Request, Response, ServiceDefinition } from '../spiffe/rpc/service.ts';
import { rpcErrorText } from './print.ts';
import { resolveSocket, SERVER } from './sockets.ts';
import type { Terminal } from './terminal.ts';

type Unary = MethodDefinition & { readonly requestStream: false; readonly responseStream: false };
type Stream = MethodDefinition & { readonly requestStream: false; readonly responseStream: true };

export interface Connection {
  /** Throws `rpc error: code = … desc = …`, under our own code for it. */
  call<M extends Unary>(service: ServiceDefinition, method: M, request: Request<M>, options?: Options): Promise<Response<M>>;
  /** The same for an answer that is a stream. */
  stream<M extends Stream>(service: ServiceDefinition, method: M, request: Request<M>, options?: Options): AsyncIterable<Response<M>>;
  /** Prints an answer as JSON and gives exit code 0. */
  print<M extends MethodDefinition>(service: ServiceDefinition, method: M, answer: Response<M>): Promise<number>;
}

export interface Options {
  /** From now; none unless given. */
  readonly timeoutMs?: number;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** Connects to the server that the flags name, and closes the connection after `use`. */
export async function withServer<T>(
  flags: { readonly socketPath: string; readonly instance: string },
  terminal: Terminal,
  use: (server: Connection) => Promise<T>,
): Promise<T> {
  return await connect(resolveSocket(SERVER, flags, terminal.env), terminal, use);
}

/** @param socketPath absolute */
export async function connect<T>(socketPath: string, terminal: Terminal, use: (connection: Connection) => Promise<T>): Promise<T> {
  const channel = openChannel({ target: `unix:${socketPath}` });
  try {
    return await use(connectionOver(channel, socketPath, terminal));
  } finally {
    channel.close();
  }
}

function connectionOver(channel: Channel, socketPath: string, terminal: Terminal): Connection {
  const optionsOf = ({ timeoutMs, metadata }: Options = {}): CallOptions => ({
    signal: terminal.signal,
    ...(timeoutMs !== undefined && { deadlineMs: timeoutMs }),
    ...(metadata && { metadata }),
  });
  /** Says whether the time is over that a call had from now. */
  const startTimer = ({ timeoutMs = Number.POSITIVE_INFINITY }: Options = {}): (() => boolean) => {
    const startedMs = terminal.clock.monotonic();
    return () => terminal.clock.monotonic() - startedMs >= timeoutMs;
  };
  /** The method of the channel's service, found by its definition. */
  const methodOf = (service: ServiceDefinition, method: MethodDefinition): unknown => {
    const name = Object.entries(service.methods).find(([, one]) => one === method)?.[0] ?? '';
    return (channel.service(service) as Readonly<Record<string, unknown>>)[name];
  };
  return {
    async call<M extends Unary>(service: ServiceDefinition, method: M, request: Request<M>, options?: Options) {
      const send = methodOf(service, method) as (request: Request<M>, options: CallOptions) => Promise<Response<M>>;
      const isOver = startTimer(options);
      try {
        return await send(request, optionsOf(options));
      } catch (error) {
        throw told(error, socketPath, isOver());
      }
    },
    async *stream<M extends Stream>(service: ServiceDefinition, method: M, request: Request<M>, options?: Options) {
      const open = methodOf(service, method) as (request: Request<M>, options: CallOptions) => AsyncIterable<Response<M>>;
      const isOver = startTimer(options);
      try {
        yield* open(request, optionsOf(options));
      } catch (error) {
        throw told(error, socketPath, isOver());
      }
    },
    async print(service, method, answer) {
      const { printJson } = await import('./json-output.ts');
      return await printJson(terminal, service, method, answer);
    },
  };
}

const DIAL_FAULTS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory',
  ECONNREFUSED: 'connection refused',
  EACCES: 'permission denied',
  ENOTSOCK: 'connection refused',
};

/** The error in the words of Go's gRPC; what is no answer of the other side stays as it is. */
function told(error: unknown, socketPath: string, isOver: boolean): unknown {
  const status = rpcStatusOf(error);
  if (!status) return error;
  // our own timer, or the other side's, who may see the end first and cancels
  if ((status.code === 4 && status.text.startsWith('Deadline exceeded after')) || (status.code === 1 && isOver)) {
    return fail('UNAVAILABLE', rpcErrorText(4, 'context deadline exceeded'), { cause: error });
  }
  const errno = status.code === 14 ? /\bconnect (E[A-Z]+)\b/.exec(status.text)?.[1] : undefined;
  const fault = errno === undefined ? undefined : DIAL_FAULTS[errno];
  const text =
    fault === undefined
      ? status.text
      : `connection error: desc = "transport: Error while dialing: dial unix ${socketPath}: connect: ${fault}"`;
  const { code } = error as SpiffeError<CoreCode>;
  const made = fail(code, rpcErrorText(status.code, text), { cause: error });
  return made;
}

/** gRPC's own word for a failed call, without Go's frame; undefined when `error` is none. */
export function statusOf(error: unknown): { readonly code: number; readonly text: string } | undefined {
  return error instanceof Error ? rpcStatusOf(error.cause) : undefined;
}
