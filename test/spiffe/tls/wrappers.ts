/** Every wrapper of TLS as one shape, server and client, so that one table of attacks is held against all of them. */
import { once } from 'node:events';
import type { RequestListener } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { AddressInfo, Server as NetServer } from 'node:net';
import { Client, Metadata, Server as GrpcServer } from '@grpc/grpc-js';
import { fetch as undiciFetch } from 'undici';
import { connectSpiffe, type TlsClientSettings } from '../../../spiffe/tls/client.ts';
import { grpcChannelCredentials, grpcListener, grpcPeer } from '../../../spiffe/tls/grpc.ts';
import { connectHttp2, createHttp2Server } from '../../../spiffe/tls/http2.ts';
import { createHttpsServer, SpiffeHttpsAgent } from '../../../spiffe/tls/https.ts';
import { createSpiffeServer, type TlsServerSettings } from '../../../spiffe/tls/server.ts';
import { tlsPeer } from '../../../spiffe/tls/tls.ts';
import { SpiffeDispatcher } from '../../../spiffe/tls/undici.ts';

export interface Serving {
  readonly server: NetServer;
  readonly port: number;
  /** What reached the user's code: one row for each connection, request, stream or call. */
  readonly delivered: string[];
  /** What was refused, as `tlsClientError` tells. */
  readonly refused: unknown[];
  close(): Promise<void>;
}

export interface Asking {
  /** One question over it; the answer names who asked, as the server saw it. `wait`: the server answers only after so many milliseconds. */
  ask(wait?: number): Promise<string>;
  close(): void | Promise<void>;
}

export interface Wrapper {
  readonly name: string;
  /** What a client says first, octet by octet, when it does not wait to be told anything. */
  readonly firstWords: Buffer;
  readonly alpn: readonly string[];
  /** Undefined: this wrapper has no server of its own, and is asked by the one of `https`. */
  serve?(settings: TlsServerSettings): Promise<Serving>;
  client(settings: TlsClientSettings, port: number): Promise<Asking>;
}

const answer = (who: unknown) => `you are ${String(who ?? 'nobody')}`;
const pause = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

async function serving(server: NetServer, delivered: string[], end: () => void = () => {}): Promise<Serving> {
  const refused: unknown[] = [];
  const sockets = new Set<{ destroy(): void }>();
  server.on('tlsClientError', (error) => refused.push(error));
  server.on('connection', (socket) => sockets.add(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    server,
    port: (server.address() as AddressInfo).port,
    delivered,
    refused,
    async close() {
      end();
      for (const socket of sockets) socket.destroy();
      await new Promise((done) => server.close(done));
    },
  };
}

const onRequest =
  (delivered: string[]): RequestListener =>
  (request, response) => {
    const who = answer(tlsPeer(request)?.id);
    delivered.push(who);
    request.resume();
    setTimeout(() => response.end(who), Number(request.headers['x-wait'] ?? 0));
  };

const HTTP1 = Buffer.from('GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n');
/** The preface, empty SETTINGS, and HEADERS (static table alone: GET https /) that open stream 1 and end it. */
const HTTP2 = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  Buffer.from('000000040000000000', 'hex'),
  Buffer.from('00000601050000000182878441 0178'.replaceAll(' ', ''), 'hex'),
]);

export const WRAPPERS: readonly Wrapper[] = [
  {
    name: 'tls',
    firstWords: Buffer.from('0\n'),
    alpn: [],
    async serve(settings) {
      const delivered: string[] = [];
      const server = createSpiffeServer(settings, (socket) => {
        socket.on('error', () => {});
        const who = answer(tlsPeer(socket)?.id);
        socket.on('data', (data) => {
          delivered.push(who);
          setTimeout(() => socket.writable && socket.write(`${who}\n`), Number(String(data)));
        });
      });
      return serving(server, delivered);
    },
    async client(settings, port) {
      const socket = await connectSpiffe({ ...settings, host: '127.0.0.1', port });
      socket.on('error', () => {});
      return {
        async ask(wait = 0) {
          if (socket.destroyed) throw new Error('the connection has ended');
          socket.write(`${wait}\n`);
          const [data] = (await Promise.race([
            once(socket, 'data'),
            once(socket, 'close').then(() => Promise.reject(new Error('the connection ended'))),
          ])) as [Buffer];
          return String(data).trim();
        },
        close: () => void socket.destroy(),
      };
    },
  },
  {
    name: 'https',
    firstWords: HTTP1,
    alpn: ['http/1.1'],
    async serve(settings) {
      const delivered: string[] = [];
      return serving(createHttpsServer(settings, onRequest(delivered)), delivered);
    },
    async client(settings, port) {
      const agent = new SpiffeHttpsAgent(settings);
      return {
        ask: (wait = 0) =>
          new Promise((resolve, reject) => {
            const asked = httpsRequest({ host: '127.0.0.1', port, agent, headers: { 'x-wait': String(wait) } }, (response) => {
              response.setEncoding('utf8').on('data', resolve).on('error', reject);
            });
            asked.on('error', reject).end();
          }),
        close: () => agent.destroy(),
      };
    },
  },
  {
    name: 'http2',
    firstWords: HTTP2,
    alpn: ['h2'],
    async serve(settings) {
      const delivered: string[] = [];
      const server = createHttp2Server(settings, onRequest(delivered) as never);
      server.on('sessionError', () => {});
      return serving(server, delivered);
    },
    async client(settings, port) {
      let session = await connectHttp2(`https://127.0.0.1:${port}`, settings);
      session.on('error', () => {});
      return {
        async ask(wait = 0) {
          if (session.closed || session.destroyed) {
            session = await connectHttp2(`https://127.0.0.1:${port}`, settings);
            session.on('error', () => {});
          }
          const stream = session.request({ 'x-wait': String(wait) });
          let text = '';
          for await (const chunk of stream) text += String(chunk);
          if (text === '') throw new Error('no answer');
          return text;
        },
        close: () => session.destroy(),
      };
    },
  },
  {
    name: 'undici',
    firstWords: HTTP1,
    alpn: ['http/1.1'],
    async client(settings, port) {
      const dispatcher = new SpiffeDispatcher(settings);
      return {
        async ask(wait = 0) {
          const response = await undiciFetch(`https://127.0.0.1:${port}/`, { dispatcher, headers: { 'x-wait': String(wait) } });
          return response.text();
        },
        close: () => dispatcher.destroy(),
      };
    },
  },
  {
    name: 'grpc',
    firstWords: HTTP2,
    alpn: ['h2'],
    async serve(settings) {
      const delivered: string[] = [];
      const server = new GrpcServer();
      server.addService(
        { Who: { path: '/test.Test/Who', requestStream: false, responseStream: false, ...CODEC } },
        {
          Who: (call: { metadata: Metadata; request: Buffer }, done: (error: null, value: Buffer) => void) => {
            const who = answer(grpcPeer(call)?.id);
            delivered.push(who);
            setTimeout(() => done(null, Buffer.from(who)), Number(String(call.request)));
          },
        },
      );
      return serving(grpcListener(server, settings), delivered, () => server.forceShutdown());
    },
    async client(settings, port) {
      const client = new Client(`127.0.0.1:${port}`, grpcChannelCredentials(settings), {
        'grpc.use_local_subchannel_pool': 1,
        'grpc.enable_channelz': 0,
      });
      return {
        ask: (wait = 0) =>
          new Promise((resolve, reject) => {
            client.makeUnaryRequest(
              '/test.Test/Who',
              CODEC.requestSerialize,
              CODEC.responseDeserialize,
              Buffer.from(String(wait)),
              (error, value) => (error ? reject(error) : resolve(String(value))),
            );
          }),
        close: () => client.close(),
      };
    },
  },
];

const asIs = (bytes: Buffer): Buffer => bytes;
const CODEC = { requestSerialize: asIs, requestDeserialize: asIs, responseSerialize: asIs, responseDeserialize: asIs };

export const BY_NAME: Readonly<Record<string, Wrapper>> = Object.fromEntries(WRAPPERS.map((one) => [one.name, one]));

/** The wrapper whose server answers this one's client. */
export function serverOf(wrapper: Wrapper): Required<Pick<Wrapper, 'serve'>> & Wrapper {
  const own = wrapper.serve ? wrapper : BY_NAME['https'];
  if (!own?.serve) throw new Error(`nobody serves ${wrapper.name}`);
  return own as Required<Pick<Wrapper, 'serve'>> & Wrapper;
}

export { pause };
