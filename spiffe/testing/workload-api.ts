/** A Workload API for tests, on a temporary UNIX socket: speaks the real wire to any client, and has bad days on command. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Http2Server, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  JWTBundlesResponse,
  JWTSVIDRequest,
  JWTSVIDResponse,
  SpiffeWorkloadAPIDefinition,
  ValidateJWTSVIDRequest,
  ValidateJWTSVIDResponse,
  X509BundlesResponse,
  X509SVIDResponse,
} from '../../proto/gen/spiffe/workload/workload.ts';
import { type Bundle, BundleSet } from '../bundle/bundle.ts';
import { SpiffeError } from '../errors.ts';
import { validateJwtSvidSync } from '../jwt/jwt-svid.ts';
import { FrameReader, frame } from '../rpc/frame.ts';
import type { X509Svid } from '../x509/x509-svid.ts';
import type { EphemeralTrustDomain, X509SvidOptions } from './trust-domain.ts';

/** One of the identities of who calls. */
export interface WorkloadIdentity extends Pick<X509SvidOptions, 'hint' | 'dnsNames' | 'ttlMs'> {
  /** With its leading slash. */
  readonly path: string;
  /** Of its tokens. Default: five minutes. */
  readonly jwtTtlMs?: number | undefined;
}

/** What the Workload API answers. */
export interface WorkloadState {
  /** Who calls, by path or with more; the first is the default identity. Default: `/workload`. None: as a process that nobody has registered. */
  readonly identities?: readonly (string | WorkloadIdentity)[] | undefined;
  /** Whom the workload trusts besides its own trust domain. Default: nobody. */
  readonly federated?: readonly (EphemeralTrustDomain | Bundle)[] | undefined;
}

/** A call as it came. */
export interface SeenCall {
  /** Such as `FetchX509SVID`. */
  readonly method: string;
  /** Of a JWT call: for whom, and whose. */
  readonly audience: readonly string[];
  readonly spiffeId: string;
  readonly headers: Readonly<IncomingHttpHeaders>;
  /** Aborts when the call is over, whoever ended it. */
  readonly signal: AbortSignal;
}

/** What every call is answered with in place of the truth. */
type Mood =
  | { readonly is: 'well' | 'stalled' }
  | { readonly is: 'refusing'; readonly status: number; readonly message: string }
  | { readonly is: 'garbled'; readonly bytes: Uint8Array };

/** gRPC statuses. */
const INVALID_ARGUMENT = 3;
const PERMISSION_DENIED = 7;
const UNIMPLEMENTED = 12;

const MAX_REQUEST_BYTES = 4 * 1024 * 1024;
const NO_IDENTITY = 'no identity issued';

/**
 * Answers all five RPCs for X.509 and JWT out of an `EphemeralTrustDomain`, and tells every open stream of each change. Has no identity to check: whoever can
 * open the socket is the workload. Who makes it disposes of it; the socket's folder goes then.
 */
export class FakeWorkloadApi {
  /** For `SPIFFE_ENDPOINT_SOCKET`; known and the same whether anybody listens or not. */
  readonly address: string;
  readonly trustDomain: EphemeralTrustDomain;
  /** Every call, refused ones too, in the order in which they came. */
  readonly calls: SeenCall[] = [];
  /** How many were made. */
  connections = 0;
  readonly #directory = mkdtempSync(join(tmpdir(), 'spiffe-'));
  readonly #path = join(this.#directory, 'api.sock');
  readonly #open = new Set<Call>();
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #watchers = new Set<() => void>();
  #identities: readonly WorkloadIdentity[] = [];
  #svids: readonly X509Svid[] = [];
  #federated: readonly (EphemeralTrustDomain | Bundle)[] = [];
  #mood: Mood = { is: 'well' };
  #server: Http2Server | undefined;

  /** Does not listen yet: `start` does, as late as the test likes. */
  constructor(trustDomain: EphemeralTrustDomain, state: WorkloadState = {}) {
    this.trustDomain = trustDomain;
    this.address = `unix://${this.#path}`;
    this.#take({ identities: state.identities ?? ['/workload'], federated: state.federated });
  }

  /** One that listens. */
  static start(trustDomain: EphemeralTrustDomain, state: WorkloadState = {}): Promise<FakeWorkloadApi> {
    return new FakeWorkloadApi(trustDomain, state).start();
  }

  /** What FetchX509SVID answers now. */
  get svids(): readonly X509Svid[] {
    return this.#svids;
  }

  /** Listens; after `stop`, at the same address. Throws what Node does when the socket cannot be made. */
  async start(): Promise<this> {
    if (this.#server) return this;
    const server = createServer();
    this.#server = server;
    server.on('session', (session) => {
      this.connections++;
      this.#sessions.add(session);
      session.once('close', () => this.#sessions.delete(session));
    });
    // a client that breaks off is no fault of the test's
    server.on('sessionError', () => {});
    server.on('stream', (stream, headers) => this.#accept(stream, headers));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.#path, resolve);
    });
    return this;
  }

  /** Cuts every connection and stops listening; the socket is gone when this resolves. */
  async stop(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    this.#server = undefined;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    this.drop();
    await closed;
  }

  /** Cuts every connection, and goes on listening. */
  drop(): void {
    for (const session of this.#sessions) session.destroy();
  }

  /** What is given takes the place of what was, with new SVIDs for the identities; open streams are told. */
  set(state: WorkloadState): void {
    this.#take(state);
    this.push();
  }

  /** New SVIDs for the same identities, by the newest authorities; open streams are told. */
  renew(): void {
    this.set({ identities: this.#identities });
  }

  /** New authorities, and new SVIDs by them; open streams are told. The old authorities stay in the bundle until `trustDomain.retire()` and `push()`. */
  rotate(): void {
    this.trustDomain.rotate();
    this.renew();
  }

  /** Tells open streams how things are: after a change of a trust domain itself. */
  push(): void {
    for (const call of this.#open) this.#answer(call);
  }

  /** From now on every call is refused, the open ones too, as when an operator has deleted the registration. */
  deny(): void {
    this.refuse(PERMISSION_DENIED, NO_IDENTITY);
  }

  /** From now on every call ends with this status of gRPC, the open ones too: 14 for a server that is not ready, 3, 12, … */
  refuse(status: number, message: string): void {
    this.#be({ is: 'refusing', status, message });
  }

  /** From now on calls are taken, and nothing is answered or told. */
  stall(): void {
    this.#be({ is: 'stalled' });
  }

  /**
   * From now on every answer is malformed; open streams get one at once.
   * @param how `fields`: a message that lacks every field that it must have. `octets`: no message at all.
   */
  garble(how: 'fields' | 'octets' = 'fields'): void {
    this.#be({ is: 'garbled', bytes: Buffer.from(how === 'fields' ? '' : '0aff', 'hex') });
  }

  /** Ends `deny`, `refuse`, `stall` and `garble`: calls are answered again, and streams that are still open are told how things are. */
  resume(): void {
    this.#be({ is: 'well' });
  }

  /** Resolves once this method has been called so often in all. Throws the signal's reason. */
  async called(method: string, times = 1, signal?: AbortSignal): Promise<void> {
    while (this.calls.filter((call) => call.method === method).length < times) {
      signal?.throwIfAborted();
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.#watchers.delete(wake);
          signal?.removeEventListener('abort', wake);
          resolve();
        };
        this.#watchers.add(wake);
        signal?.addEventListener('abort', wake, { once: true });
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #take({ identities, federated }: WorkloadState): void {
    if (identities) {
      this.#identities = identities.map((one) => (typeof one === 'string' ? { path: one } : one));
      this.#svids = this.#identities.map(({ path, hint, dnsNames, ttlMs }) => this.trustDomain.x509Svid(path, { hint, dnsNames, ttlMs }));
    }
    if (federated) this.#federated = federated;
  }

  #be(mood: Mood): void {
    this.#mood = mood;
    this.push();
  }

  #accept(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    const path = headers[':path'] ?? '';
    const method = path.slice(path.lastIndexOf('/') + 1);
    const call = new Call(stream, method, headers);
    stream.once('close', () => this.#open.delete(call));
    const reader = new FrameReader(MAX_REQUEST_BYTES);
    stream.on('data', (chunk: Buffer) => {
      if (call.request) return;
      try {
        for (const message of reader.read(chunk)) call.request ??= Buffer.from(message);
        if (!call.request) return;
        this.#see(call);
      } catch {
        call.end(INVALID_ARGUMENT, 'malformed request');
      }
    });
  }

  #see(call: Call): void {
    const { audience = [], spiffeId = '' } = call.method === 'FetchJWTSVID' ? JWTSVIDRequest.decode(call.bytes) : {};
    const { method, headers, signal } = call;
    this.calls.push({ method, audience, spiffeId, headers, signal });
    this.#open.add(call);
    for (const wake of [...this.#watchers]) wake();
    // joined by `, ` when it comes twice
    if (headers['workload.spiffe.io'] !== 'true') call.end(INVALID_ARGUMENT, 'security header missing from request');
    else if (!(headers[':path'] ?? '').startsWith(`/${SpiffeWorkloadAPIDefinition.fullName}/`)) call.end(UNIMPLEMENTED, 'unknown service');
    else this.#answer(call);
  }

  #answer(call: Call): void {
    const mood = this.#mood;
    if (mood.is === 'stalled') return;
    if (mood.is === 'refusing') return call.end(mood.status, mood.message);
    try {
      call.send(mood.is === 'garbled' ? mood.bytes : this.#truth(call));
      if (call.method === 'FetchJWTSVID' || call.method === 'ValidateJWTSVID') call.end(0, '');
    } catch (error) {
      if (error instanceof Refusal) call.end(error.status, error.message);
      else throw error;
    }
  }

  #truth(call: Call): Uint8Array {
    if (this.#identities.length === 0) throw new Refusal(PERMISSION_DENIED, NO_IDENTITY);
    const others = this.#federated.map((one) => ('bundle' in one ? one.bundle : one));
    const all = [this.trustDomain.bundle, ...others];
    switch (call.method) {
      case 'FetchX509SVID':
        return X509SVIDResponse.encode({
          svids: this.#svids.map((svid) => ({
            spiffeId: svid.id.toString(),
            x509Svid: svid.chainDer(),
            x509SvidKey: svid.keyPkcs8Der(),
            bundle: this.trustDomain.bundle.x509.toDer(),
            hint: svid.hint,
          })),
          crl: [],
          federatedBundles: byId(others, (bundle) => bundle.x509.toDer()),
        }).finish();
      case 'FetchX509Bundles':
        return X509BundlesResponse.encode({ crl: [], bundles: byId(all, (bundle) => bundle.x509.toDer()) }).finish();
      case 'FetchJWTBundles':
        return JWTBundlesResponse.encode({ bundles: byId(all, (bundle) => Buffer.from(bundle.jwt.toJwks())) }).finish();
      case 'FetchJWTSVID':
        return this.#tokens(JWTSVIDRequest.decode(call.bytes));
      case 'ValidateJWTSVID':
        return this.#validated(ValidateJWTSVIDRequest.decode(call.bytes), new BundleSet(all));
      default:
        throw new Refusal(UNIMPLEMENTED, `${call.method} is not served here`);
    }
  }

  #tokens({ audience, spiffeId }: JWTSVIDRequest): Uint8Array {
    if (audience.length === 0 || audience.includes('')) throw new Refusal(INVALID_ARGUMENT, 'audience must be specified');
    const asked = this.#identities.filter(({ path }) => spiffeId === '' || this.trustDomain.id(path).toString() === spiffeId);
    if (asked.length === 0) throw new Refusal(PERMISSION_DENIED, NO_IDENTITY);
    const svids = asked.map(({ path, hint = '', jwtTtlMs }) => ({
      spiffeId: this.trustDomain.id(path).toString(),
      svid: this.trustDomain.jwtSvid(path, { audience, ttlMs: jwtTtlMs }),
      hint,
    }));
    return JWTSVIDResponse.encode({ svids }).finish();
  }

  #validated({ audience, svid: token }: ValidateJWTSVIDRequest, bundles: BundleSet): Uint8Array {
    if (audience === '' || token === '') throw new Refusal(INVALID_ARGUMENT, `${audience === '' ? 'audience' : 'svid'} must be specified`);
    try {
      const { id, claims } = validateJwtSvidSync(token, { audience, bundles, clock: this.trustDomain.clock });
      return ValidateJWTSVIDResponse.encode({ spiffeId: id.toString(), claims: { ...claims } }).finish();
    } catch (error) {
      if (!(error instanceof SpiffeError)) throw error;
      throw new Refusal(INVALID_ARGUMENT, error.message);
    }
  }
}

/** A status other than OK. */
class Refusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** One call that is open: answers as gRPC frames them, then a status in the trailers. */
class Call {
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
  request: Buffer | undefined;
  readonly #stream: ServerHttp2Stream;
  readonly #over = new AbortController();
  #status: { readonly status: number; readonly message: string } | undefined;

  constructor(stream: ServerHttp2Stream, method: string, headers: IncomingHttpHeaders) {
    this.#stream = stream;
    this.method = method;
    this.headers = headers;
    stream.once('close', () => this.#over.abort());
    // reset by the client, or cut with the connection
    stream.on('error', () => {});
    stream.on('wantTrailers', () => stream.sendTrailers(trailers(this.#status ?? { status: 0, message: '' })));
  }

  get signal(): AbortSignal {
    return this.#over.signal;
  }

  /** Of the request. */
  get bytes(): Buffer {
    return this.request ?? Buffer.alloc(0);
  }

  send(message: Uint8Array): void {
    if (this.#ended) return;
    if (!this.#stream.headersSent) this.#stream.respond(HEAD, { waitForTrailers: true });
    this.#stream.write(frame(message));
  }

  end(status: number, message: string): void {
    if (this.#ended) return;
    this.#status = { status, message };
    if (this.#stream.headersSent) this.#stream.end();
    else this.#stream.respond({ ...HEAD, ...trailers(this.#status) }, { endStream: true });
  }

  get #ended(): boolean {
    return this.#status !== undefined || this.#stream.destroyed || this.#stream.closed;
  }
}

const HEAD = { ':status': 200, 'content-type': 'application/grpc' } as const;

function trailers({ status, message }: { readonly status: number; readonly message: string }): Record<string, string> {
  return { 'grpc-status': String(status), ...(message !== '' && { 'grpc-message': encodeURIComponent(message) }) };
}

function byId(bundles: readonly Bundle[], form: (bundle: Bundle) => Buffer): { [key: string]: Buffer } {
  return Object.fromEntries(bundles.map((bundle) => [bundle.trustDomain.id.toString(), form(bundle)]));
}
