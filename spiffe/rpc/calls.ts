/** What a caller of gRPC sees, whatever carries it: calls as promises and async iterables, and the statuses that end them. */
import { Any } from '../../proto/gen/google/protobuf/any.ts';
import { Status as RpcStatusMessage } from '../../proto/gen/google/rpc/status.ts';
import { type Code, SpiffeError } from '../errors.ts';
import type { MethodDefinition, Request, Response, ServiceDefinition } from './service.ts';

export interface CallOptions {
  /** Cancels the call; the promise or iteration then throws the signal's reason. */
  readonly signal?: AbortSignal;
  readonly metadata?: Readonly<Record<string, string>>;
  /** From now. Default: none. */
  readonly deadlineMs?: number;
}

type Method<M extends MethodDefinition> = M['responseStream'] extends true
  ? M['requestStream'] extends true
    ? (requests: AsyncIterable<Request<M>>, options?: CallOptions) => AsyncIterable<Response<M>>
    : (request: Request<M>, options?: CallOptions) => AsyncIterable<Response<M>>
  : (request: Request<M>, options?: CallOptions) => Promise<Response<M>>;

export type Calls<D extends ServiceDefinition> = { readonly [K in keyof D['methods']]: Method<D['methods'][K]> };

/** A channel: one connection, made when first needed, shared by every service called through it. Who opens it closes it. */
export interface Channel {
  service<D extends ServiceDefinition>(definition: D): Calls<D>;
  /** Ends the connection; calls under way fail. */
  close(): void;
}

/** The numbers of gRPC's statuses that we name. */
export const STATUS = { OK: 0, CANCELLED: 1, UNKNOWN: 2, INTERNAL: 13, UNIMPLEMENTED: 12, UNAVAILABLE: 14 } as const;

/** Each gRPC status as one of our codes, by its number; the wire's own words stay the message. */
const CODES: readonly Code[] = [
  'INTERNAL',
  'CANCELLED',
  'INTERNAL',
  'REQUEST_INVALID',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'REQUEST_INVALID',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'INTERNAL',
  'UNAUTHENTICATED',
];

/** What the other side said, word for word: gRPC's number, its text, and the details it attached. */
export interface RpcStatus {
  readonly code: number;
  readonly text: string;
  readonly details: readonly Any[];
}

const answers = new WeakMap<object, RpcStatus>();

/** The status behind an error that a call threw; undefined when the error is our own. */
export function rpcStatusOf(error: unknown): RpcStatus | undefined {
  return typeof error === 'object' && error !== null ? answers.get(error) : undefined;
}

/** The error that a status other than OK is. @param details the bytes of `grpc-status-details-bin` */
export function errorOfStatus(code: number, text: string, details?: Uint8Array, cause?: unknown): SpiffeError {
  const made = new SpiffeError(CODES[code] ?? 'INTERNAL', undefined, text, { cause });
  answers.set(made, { code, text, details: details ? readDetails(details) : [] });
  return made;
}

function readDetails(bytes: Uint8Array): readonly Any[] {
  try {
    return RpcStatusMessage.decode(bytes).details;
  } catch {
    // details only add to the code: malformed ones are none
    return [];
  }
}
