/**
 * A guard of requests, in the shape of each framework. No framework is imported, nor any of Node's modules: their requests and answers are described by the few
 * members that are used.
 */
import { SpiffeError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { Matcher } from '../match.ts';
import { remember, type SpiffeCaller } from './caller.ts';
import { type Refusal, report } from './refusal.ts';
import { proven, unproven, type Verdict } from './verdict.ts';

/** Node's request, of HTTP/1 or (its compatibility API) HTTP/2, also as Express and Connect dress it. */
export interface NodeRequest {
  readonly headers: { readonly [name: string]: string | readonly string[] | undefined };
  readonly rawHeaders: readonly string[];
  readonly socket: { readonly remoteAddress?: string | undefined };
}

export interface NodeResponse {
  statusCode: number;
  readonly headersSent: boolean;
  setHeader(name: string, value: string): unknown;
  end(body: string): unknown;
}

interface UpgradeSocket {
  on(event: 'error', listener: () => void): unknown;
  end(text: string, done: () => void): unknown;
  destroy(): unknown;
}

interface FastifyRequest {
  readonly raw: NodeRequest;
}

interface FastifyReply {
  code(status: number): unknown;
  headers(headers: Record<string, string>): unknown;
  send(body: string): unknown;
}

interface KoaContext {
  readonly req: NodeRequest;
  readonly request: object;
  readonly state: object;
  status: number;
  body: unknown;
  set(headers: Record<string, string>): unknown;
}

/** Hono's context, on any runtime. */
export interface HonoContext {
  readonly req: { readonly raw: { readonly headers: { get(name: string): string | null } } };
  /** On Node, by @hono/node-server: `{ incoming, outgoing }`. */
  readonly env: unknown;
  readonly set: (key: never, value: never) => void;
}

/** `new Hono<{ Variables: SpiffeVariables }>()` types `c.get('spiffe')`. */
export interface SpiffeVariables<C extends SpiffeCaller = SpiffeCaller> {
  spiffe: C;
}

/** Lets through who has proven an identity that the matcher allows, and answers everybody else. */
export interface Guard<C extends SpiffeCaller> {
  /** Express and Connect: `app.use(guard)`. Then `req.spiffe`. */
  (request: NodeRequest, response: NodeResponse, next: () => void): void;
  /** Plain `http` and `http2`: `createServer(guard.http((req, res) => …))`. Then `req.spiffe`. */
  readonly http: <Q extends NodeRequest, S extends NodeResponse>(
    listener: (request: Q & { readonly spiffe: C }, response: S) => void,
  ) => (request: Q, response: S) => void;
  /** WebSockets and their like, which Node hands past every middleware: `server.on('upgrade', guard.upgrade((req, socket, head) => …))`. */
  readonly upgrade: <Q extends NodeRequest, D extends UpgradeSocket, H>(
    listener: (request: Q & { readonly spiffe: C }, socket: D, head: H) => void,
  ) => (request: Q, socket: D, head: H) => void;
  /** A hook: `app.addHook('onRequest', guard.fastify)`, or a route's `{ onRequest: guard.fastify }`. Then `request.spiffe`. No plugin: `register` would guard nothing outside of it. */
  readonly fastify: (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) => void;
  /** `app.use(guard.koa)`. Then `ctx.state.spiffe`. */
  readonly koa: (context: KoaContext, next: () => Promise<unknown>) => Promise<void>;
  /** `app.use(guard.hono)`. Then `c.get('spiffe')`. */
  readonly hono: (context: HonoContext, next: () => Promise<void>) => Promise<Response | void>;
}

/** What a guard goes by. `node` and `web` say who sent a request, or throw. */
export interface Proof<C extends SpiffeCaller> {
  readonly node: (request: NodeRequest) => C;
  readonly web: (context: HonoContext) => C | Promise<C>;
  readonly authorize: Matcher;
  /** What a caller that has proven nothing is asked for. */
  readonly challenge: (error: SpiffeError) => string;
  /** For the log. */
  readonly via: 'x509' | 'jwt';
  readonly log: Logger | undefined;
}

export function guard<C extends SpiffeCaller>(proof: Proof<C>): Guard<C> {
  const { authorize, challenge, via, log } = proof;
  if (typeof authorize !== 'function')
    throw new SpiffeError('REQUEST_INVALID', undefined, 'who may pass must be a matcher, such as memberOf(…)');

  /** Never throws. What is refused is in the log. */
  const judge = (request: NodeRequest): Verdict<C> => {
    let verdict: Verdict<C>;
    try {
      verdict = proven(proof.node(request), authorize);
    } catch (error) {
      verdict = unproven(error, challenge);
    }
    if (verdict.refusal) report(log, via, verdict.refusal, addressOf(request));
    return verdict;
  };

  const judgeWeb = async (context: HonoContext): Promise<Verdict<C>> => {
    let verdict: Verdict<C>;
    try {
      verdict = proven(await proof.web(context), authorize);
    } catch (error) {
      verdict = unproven(error, challenge);
    }
    if (verdict.refusal) report(log, via, verdict.refusal, addressOf(incomingOf(context)));
    return verdict;
  };

  const connect = (request: NodeRequest, response: NodeResponse, next: () => void): void => {
    const { caller, refusal: refused } = judge(request);
    if (refused) return answer(response, refused);
    remember(caller, request);
    show(request, caller);
    next();
  };

  return Object.assign(connect, {
    http:
      <Q extends NodeRequest, S extends NodeResponse>(listener: (request: Q & { readonly spiffe: C }, response: S) => void) =>
      (request: Q, response: S): void =>
        connect(request, response, () => listener(request as Q & { readonly spiffe: C }, response)),

    upgrade:
      <Q extends NodeRequest, D extends UpgradeSocket, H>(listener: (request: Q & { readonly spiffe: C }, socket: D, head: H) => void) =>
      (request: Q, socket: D, head: H): void => {
        const { caller, refusal: refused } = judge(request);
        if (refused) return answerUpgrade(socket, refused);
        remember(caller, request);
        show(request, caller);
        listener(request as Q & { readonly spiffe: C }, socket, head);
      },

    fastify: (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void): void => {
      if (typeof request?.raw !== 'object' || typeof reply?.send !== 'function')
        return done(
          new SpiffeError('REQUEST_INVALID', undefined, 'this guard is a hook, no plugin: app.addHook("onRequest", guard.fastify)'),
        );
      const { caller, refusal: refused } = judge(request.raw);
      if (refused) {
        reply.code(refused.status);
        reply.headers(refused.headers);
        reply.send(refused.body);
        return;
      }
      remember(caller, request.raw, request);
      show(request, caller);
      done();
    },

    koa: async (context: KoaContext, next: () => Promise<unknown>): Promise<void> => {
      const { caller, refusal: refused } = judge(context.req);
      if (refused) {
        context.status = refused.status;
        context.body = refused.body;
        context.set(refused.headers);
        return;
      }
      remember(caller, context.req, context, context.request);
      show(context.state, caller);
      await next();
    },

    hono: async (context: HonoContext, next: () => Promise<void>): Promise<Response | void> => {
      const { caller, refusal: refused } = await judgeWeb(context);
      if (refused) return new Response(refused.body, { status: refused.status, headers: refused.headers });
      remember(caller, context.req.raw, context, context.req);
      (context.set as (key: string, value: SpiffeCaller) => void)('spiffe', caller);
      await next();
    },
  });
}

/** Nobody writes over it but a later guard. */
function show(target: object, caller: SpiffeCaller): void {
  Object.defineProperty(target, 'spiffe', { value: caller, enumerable: true, configurable: true, writable: false });
}

function answer(response: NodeResponse, { status, headers, body }: Refusal): void {
  // somebody has begun to answer before he asked who is there: nothing more of it
  if (response.headersSent) return void response.end('');
  response.statusCode = status;
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  response.end(body);
}

const PHRASES: Readonly<Record<Refusal['status'], string>> = { 401: 'Unauthorized', 403: 'Forbidden', 503: 'Service Unavailable' };

function answerUpgrade(socket: UpgradeSocket, { status, headers, body }: Refusal): void {
  // Node listens no more, and an error that nobody hears ends the process
  socket.on('error', () => {});
  const lines = Object.entries({ ...headers, connection: 'close' }).map(([name, value]) => `${name}: ${value}`);
  socket.end([`HTTP/1.1 ${status} ${PHRASES[status]}`, ...lines, '', body].join('\r\n'), () => socket.destroy());
}

/** Node's request behind a context of Hono; undefined on runtimes that have none. */
export function incomingOf({ env }: HonoContext): NodeRequest | undefined {
  const { incoming } = (typeof env === 'object' && env !== null ? env : {}) as { readonly incoming?: NodeRequest };
  return Array.isArray(incoming?.rawHeaders) ? incoming : undefined;
}

/** For the log. A socket that is gone may refuse to be asked. */
function addressOf(request: NodeRequest | undefined): string | undefined {
  try {
    return request?.socket.remoteAddress;
  } catch {
    return undefined;
  }
}

/** The one value of a header; undefined when it was not sent. A header that came twice is refused by `repeated`: Node would keep one, or join both. */
export function oneHeader(request: NodeRequest, name: string, repeated: () => SpiffeError): string | undefined {
  const { rawHeaders } = request;
  let lines = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (rawHeaders[i]?.toLowerCase() === name) lines++;
  }
  const value = request.headers[name];
  if (lines > 1 || (value !== undefined && typeof value !== 'string')) throw repeated();
  return value;
}
