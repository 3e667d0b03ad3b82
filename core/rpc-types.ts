/** Who calls, and what a handler of a gRPC method gets and gives; told from the service's generated definition. */
import type { SpiffeId } from '../spiffe/id.ts';
import type { Encoded, MethodDefinition, Request, Response, ServiceDefinition } from '../spiffe/rpc/service.ts';

/** Who is at the other end of a connection. Told once, at accept, by what cannot be forged. */
export type Peer =
  /** A process on this machine, through a UNIX socket. Who accepted the connection closes `pidfd` with it. */
  | {
      readonly kind: 'process';
      readonly pid: number;
      readonly uid: number;
      readonly gid: number;
      readonly pidfd: number;
      /** On whose account its calls are, where callers are told apart. */
      readonly party?: string;
      readonly connection: object;
    }
  /** A TLS peer. `id` undefined: it showed no certificate (which only attestation and bundle reading allow). */
  | {
      readonly kind: 'tls';
      readonly address: string;
      readonly id: SpiffeId | undefined;
      readonly certificateSha256: string;
      readonly notAfterMs: number;
      readonly connection: object;
    };

export interface CallContext {
  /** `/package.Service/Method`. */
  readonly method: string;
  readonly peer: Peer;
  /** Lower-case names; every value of the request's metadata that is text. */
  readonly metadata: ReadonlyMap<string, readonly string[]>;
  /** Aborts when the caller cancels, its deadline passes, its connection ends or the server stops. */
  readonly signal: AbortSignal;
  /** Of a stream of answers: ends it with this error at once, even while the caller reads nothing. Absent: end it by throwing. */
  readonly cut?: (error: unknown) => void;
}

/** A server-stream or bidirectional handler's generator is `return()`ed when the caller goes away; a slow reader makes it wait. */
export type Handler<M extends MethodDefinition> = M['responseStream'] extends true
  ? M['requestStream'] extends true
    ? (requests: AsyncIterable<Request<M>>, context: CallContext) => AsyncIterable<Response<M> | Encoded>
    : (request: Request<M>, context: CallContext) => AsyncIterable<Response<M> | Encoded>
  : M['requestStream'] extends true
    ? (requests: AsyncIterable<Request<M>>, context: CallContext) => Promise<Response<M> | Encoded>
    : (request: Request<M>, context: CallContext) => Promise<Response<M> | Encoded>;

/** A whole service; a method left out answers UNIMPLEMENTED. */
export type Implementation<D extends ServiceDefinition> = { readonly [K in keyof D['methods']]?: Handler<D['methods'][K]> };
