/** A bundle endpoint for tests: a real server on 127.0.0.1 that answers as it is told to. */
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Server, Socket } from 'node:net';
import { BundleSet, type Bundle } from '../bundle/bundle.ts';
import { type Clock } from '../clock.ts';
import { MAX_BUNDLE_BYTES } from '../jwt/jwt-bundle.ts';
import { matchAny } from '../match.ts';
import { TlsServer } from '../tls/tls.ts';
import type { X509Svid } from '../x509/x509-svid.ts';

/** What a web site shows, PEM. The client must trust its issuer (`ca`). */
export interface FakeWebCertificate {
  readonly cert: string;
  readonly key: string;
}

/** How the endpoint proves itself, and what it serves. */
export interface FakeBundleEndpointOptions {
  /** `https_web`: a certificate, for `host`. */
  readonly web?: FakeWebCertificate | undefined;
  /** `https_spiffe`: an X.509-SVID. One of both must be given. */
  readonly svid?: X509Svid | undefined;
  /** How the URL names 127.0.0.1. Default `localhost`. */
  readonly host?: string | undefined;
  /** What it serves at first. Default: nothing, status 404. */
  readonly bundle?: Bundle | undefined;
  /** By which it tells time in a handshake. Default: the system's. */
  readonly clock?: Clock | undefined;
}

/** A request as it came. */
export interface FakeBundleRequest {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

type Listener = (request: IncomingMessage, response: ServerResponse) => void;

/** Listens on 127.0.0.1 until it is closed. Serves its bundle, or does as it was told last. */
export class FakeBundleEndpoint {
  /** Every request so far. */
  readonly requests: FakeBundleRequest[] = [];
  readonly #tls: TlsServer | undefined;
  readonly #listener: Server;
  readonly #host: string;
  readonly #sockets = new Set<Socket>();
  #bundle: Bundle | undefined;
  #answer: Listener = this.#serveBundle;
  #asked: (() => void)[] = [];

  private constructor({ web, svid, host = 'localhost', bundle, clock }: FakeBundleEndpointOptions) {
    this.#host = host;
    this.#bundle = bundle;
    const listener: Listener = (request, response) => this.#hear(request, response);
    if (svid) {
      const http = createHttpServer(listener);
      this.#tls = new TlsServer({
        svid,
        // no client has to show anything, and what one shows is not known here
        client: 'optional',
        bundles: new BundleSet(),
        authorize: matchAny(),
        ...(clock && { clock }),
        onConnection: (socket) => void http.emit('connection', socket),
      });
      this.#listener = this.#tls.server;
    } else if (web) {
      this.#listener = createHttpsServer({ ...web, minVersion: 'TLSv1.2' }, listener);
    } else {
      throw new TypeError('a fake bundle endpoint needs a certificate (web) or an X.509-SVID (svid)');
    }
    this.#listener.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => this.#sockets.delete(socket));
    });
  }

  /** One that listens. Who starts it closes it. Throws TypeError when it has neither a certificate nor an SVID to show. */
  static async start(options: FakeBundleEndpointOptions): Promise<FakeBundleEndpoint> {
    const fake = new FakeBundleEndpoint(options);
    await new Promise<void>((resolve, reject) => {
      fake.#listener.once('error', reject);
      fake.#listener.listen(0, '127.0.0.1', resolve);
    });
    return fake;
  }

  get port(): number {
    return (this.#listener.address() as AddressInfo).port;
  }

  /** With its port: for `EndpointAddress.url`. */
  get url(): string {
    return `https://${this.#host}:${this.port}/bundle`;
  }

  /** From now on it serves this bundle. */
  setBundle(bundle: Bundle): void {
    this.#bundle = bundle;
    this.resume();
  }

  /** Serves the bundle again, whatever it was told to do instead. */
  resume(): void {
    this.#answer = this.#serveBundle;
  }

  /** Answers with this status and nothing else. */
  fail(status = 503): void {
    this.#answer = (_, response) => void response.writeHead(status).end();
  }

  /** Takes requests and answers none of them; with `'body'` it sends the head and a first byte. */
  stall(after: 'request' | 'body' = 'request'): void {
    this.#answer = (_, response) => {
      if (after === 'body') response.writeHead(200, { 'content-type': 'application/json' }).write('{');
    };
  }

  /** Answers with more than anybody should read, without saying how much. */
  oversize(bytes = MAX_BUNDLE_BYTES + 1): void {
    this.#answer = (_, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      const chunk = Buffer.alloc(64 * 1024, ' ');
      let left = bytes;
      const more = () => {
        while (left > 0) {
          const part = chunk.subarray(0, Math.min(left, chunk.length));
          left -= part.length;
          if (!response.write(part)) return void response.once('drain', more);
        }
        response.end();
      };
      more();
    };
  }

  /** Sends everybody elsewhere; undefined: without saying where to. */
  redirect(location: string | undefined, status = 302): void {
    this.#answer = (_, response) => void response.writeHead(status, location === undefined ? {} : { location }).end();
  }

  /** Answers with this text, whatever it is. */
  serve(body: string | Uint8Array, headers: Readonly<Record<string, string>> = { 'content-type': 'application/json' }): void {
    this.#answer = (_, response) => void response.writeHead(200, { ...headers }).end(body);
  }

  /** Ends the connection instead of answering; with `'body'` in the middle of the answer. */
  hangUp(after: 'request' | 'body' = 'request'): void {
    this.#answer = (request, response) => {
      if (after === 'request') return void request.socket.destroy();
      response.writeHead(200, { 'content-length': 100 });
      return void response.write('{"keys":', () => request.socket.destroy());
    };
  }

  /** New connections of an `https_spiffe` endpoint see this SVID. Throws TypeError at an `https_web` endpoint. */
  rotate(svid: X509Svid): void {
    if (!this.#tls) throw new TypeError('the fake bundle endpoint shows the certificate of a web site, not an X.509-SVID');
    this.#tls.rotate(svid);
  }

  /** Resolves once there have been that many requests in all. */
  async requested(count: number): Promise<void> {
    while (this.requests.length < count) await new Promise<void>((resolve) => this.#asked.push(resolve));
  }

  /** Also cuts off who still waits for an answer. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#listener.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #hear(request: IncomingMessage, response: ServerResponse): void {
    this.requests.push({ method: request.method ?? '', path: request.url ?? '', headers: request.headers });
    this.#answer(request, response);
    const asked = this.#asked;
    this.#asked = [];
    for (const wake of asked) wake();
  }

  #serveBundle(_: IncomingMessage, response: ServerResponse): void {
    if (!this.#bundle) return void response.writeHead(404).end();
    response.writeHead(200, { 'content-type': 'application/json' }).end(this.#bundle.toJson());
  }
}
