/** Each framework behind a guard, as its users would set it up, on real sockets; and what a client needs: tokens, certificates, raw requests. */
import { generateKeyPairSync, sign } from 'node:crypto';
import { createServer, type IncomingMessage, request, type RequestListener, Server as HttpServer, type ServerResponse } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { type AddressInfo, connect, createServer as createListener, type Server, type Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { getRequestListener } from '@hono/node-server';
import express from 'express';
import fastify from 'fastify';
import { Hono } from 'hono';
import Koa from 'koa';
import { Bundle, BundleSet, jwtAuthority } from '../../../spiffe/bundle/bundle.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { signJwtSvid } from '../../../spiffe/jwt/sign-jwt-svid.ts';
import type { Logger } from '../../../spiffe/logger.ts';
import { type SpiffeCaller, spiffeOf } from '../../../spiffe/middleware/caller.ts';
import type { Guard, SpiffeVariables } from '../../../spiffe/middleware/guard.ts';
import { NOW_MS } from '../../fakes/ca.ts';

export const clock = { now: () => NOW_MS };
const NOW_S = NOW_MS / 1000;

/** What a handler behind the guard says: who it was told, and where it stands beside the request. */
function who(shown: SpiffeCaller | undefined, request: object): string {
  const kept = spiffeOf(request);
  return shown !== undefined && shown === kept ? `${kept.id} via ${kept.via}` : `shown ${shown?.id}, kept ${kept?.id}`;
}

type AnyGuard = Guard<SpiffeCaller>;
/** Sets a service up whose every request passes the guards, in this order. */
export type Framework = (...guards: readonly AnyGuard[]) => Promise<RequestListener> | RequestListener;

/** Fastify wants a server; what it would listen to is asked for here. */
async function ofFastify(...guards: readonly AnyGuard[]): Promise<RequestListener> {
  let listener: RequestListener = () => {};
  const app = fastify({
    serverFactory: (handler) => {
      listener = handler;
      return createServer(listener);
    },
  });
  for (const guard of guards) app.addHook('onRequest', guard.fastify);
  app.all('/*', async (request) => who((request as { spiffe?: SpiffeCaller }).spiffe, request));
  await app.ready();
  return listener;
}

export const FRAMEWORKS: Readonly<Record<string, Framework>> = {
  http: (...guards) =>
    guards.reduceRight<RequestListener>(
      (listener, guard) => guard.http((request: IncomingMessage, response: ServerResponse) => listener(request, response as never)),
      (request, response) => {
        response.end(who((request as { spiffe?: SpiffeCaller }).spiffe, request));
      },
    ),
  express: (...guards) => {
    const app = express();
    for (const guard of guards) app.use(guard);
    app.use((request, response) => {
      response.send(who((request as { spiffe?: SpiffeCaller }).spiffe, request));
    });
    return app;
  },
  fastify: ofFastify,
  koa: (...guards) => {
    const app = new Koa<{ spiffe?: SpiffeCaller }>();
    for (const guard of guards) app.use(guard.koa);
    app.use((context) => {
      context.body = who(context.state.spiffe, context);
    });
    return app.callback();
  },
  hono: (...guards) => {
    const app = new Hono<{ Variables: SpiffeVariables }>();
    for (const guard of guards) app.use(guard.hono);
    app.all('*', (c) => c.text(who(c.get('spiffe'), c)));
    return getRequestListener(app.fetch);
  },
};

const open: (Server | HttpServer)[] = [];

/** @param accept what is done with each connection; for a listener of requests see `serve`. */
export async function listen(accept: (socket: Socket) => void): Promise<number> {
  const listener = createListener(accept);
  await new Promise<void>((done) => listener.listen(0, '127.0.0.1', done));
  open.push(listener);
  return (listener.address() as AddressInfo).port;
}

export function serve(listener: RequestListener, options: { readonly maxHeaderSize?: number } = {}): Promise<number> {
  const server = createServer(options, listener);
  return listen((socket) => server.emit('connection', socket));
}

export function closeAll(): void {
  for (const one of open.splice(0)) one.close();
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: string;
}

export function ask(
  port: number,
  headers: Record<string, string | string[]> = {},
  client?: { cert: string; key: string },
  path = '/',
): Promise<Answer> {
  return new Promise((done, failed) => {
    const how = { port, host: '127.0.0.1', headers, agent: false, path };
    const sent = client ? httpsRequest({ ...how, ...(client.cert !== '' && client), rejectUnauthorized: false }) : request(how);
    sent.once('error', failed);
    sent.once('response', (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => (body += text));
      response.once('error', failed);
      response.once('end', () => done({ status: response.statusCode ?? 0, headers: response.headers, body }));
    });
    sent.end();
  });
}

/** What comes back for these bytes, until the other end closes. */
export function rawAsk(port: number, text: string, client?: { cert: string; key: string }): Promise<string> {
  return new Promise((done, failed) => {
    const socket = client ? tlsConnect({ port, host: '127.0.0.1', ...client, rejectUnauthorized: false }) : connect(port, '127.0.0.1');
    let heard = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => (heard += chunk));
    socket.once('end', () => socket.end());
    socket.once('close', () => done(heard));
    socket.once('error', (error) => (heard === '' ? failed(error) : done(heard)));
    socket.write(text);
  });
}

/** The status of every answer in a raw conversation. */
export function statuses(heard: string): number[] {
  return [...heard.matchAll(/HTTP\/1\.[01] (\d{3}) /g)].map(([, status]) => Number(status));
}

const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const foreign = generateKeyPairSync('ec', { namedCurve: 'P-256' });

/** Of two trust domains; of any other there is none. */
export const bundles = new BundleSet([
  new Bundle(TrustDomain.parse('example.org'), { jwtAuthorities: [jwtAuthority('one', keys.publicKey)] }),
  new Bundle(TrustDomain.parse('other.org'), { jwtAuthorities: [jwtAuthority('one', foreign.publicKey)] }),
]);

export async function token(
  change: { sub?: string; aud?: string[]; exp?: number; nbf?: number } = {},
  key = keys.privateKey,
): Promise<string> {
  const claims = { sub: 'spiffe://example.org/web', aud: ['orders'], exp: NOW_S + 300, ...change };
  const made = await signJwtSvid({ alg: 'ES256', kid: 'one', claims }, async (data) =>
    sign('sha256', data, { key, dsaEncoding: 'ieee-p1363' }),
  );
  return made.token;
}

export const foreignKey = foreign.privateKey;
export { NOW_S };

export interface Line {
  readonly level: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export function keptLog(): Logger & { readonly lines: Line[] } {
  const lines: Line[] = [];
  const at =
    (level: string) =>
    (message: string, fields: object = {}) =>
      void lines.push({ level, message, fields: { ...fields } });
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}
