/** The SPIFFE Workload API: who calls is attested, sees what is registered for it, and is told of every change. */
import { isCoded, fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { CallContext, Implementation } from '../core/rpc-types.ts';
import { Seldom } from '../core/seldom.ts';
import { selectorKey } from '../core/selector.ts';
import {
  JWTBundlesResponse,
  type JWTSVIDRequest,
  type JWTSVIDResponse,
  type SpiffeWorkloadAPIDefinition,
  type ValidateJWTSVIDRequest,
  type ValidateJWTSVIDResponse,
  X509BundlesResponse,
  X509SVIDResponse,
} from '../proto/gen/spiffe/workload/workload.ts';
import { BundleSet } from '../spiffe/bundle/bundle.ts';
import type { Clock } from '../spiffe/clock.ts';
import { SpiffeError } from '../spiffe/errors.ts';
import { IdError, SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { isJsonArray, type JsonValue } from '../spiffe/json.ts';
import { type JwtSvid, validateJwtSvidSync } from '../spiffe/jwt/jwt-svid.ts';
import { Encoded, encodeMessage } from '../spiffe/rpc/service.ts';
import type { Attested, Caller, CallerAttestor } from './attest.ts';
import type { Near, Registration } from './cache.ts';
import { nearText } from './explain.ts';
import type { JwtCache } from './jwt-cache.ts';
import { sameProcess } from './process.ts';
import { rpcErrorText } from './server-client.ts';
import type { View, Views } from './views.ts';

export interface WorkloadApiOptions {
  readonly trustDomain: TrustDomain;
  readonly attestor: CallerAttestor;
  readonly views: Views;
  /** The entries that come nearest to these selectors. */
  readonly nearest: (selectors: ReadonlySet<string>) => readonly Near[];
  readonly jwts: JwtCache;
  readonly clock: Clock;
  readonly log: Log;
  /** Whether callers without an identity may read the own bundle. */
  readonly allowUnauthenticatedVerifiers: boolean;
  /** Claims of other trust domains' tokens that are told beside `sub`, `aud` and `exp`. */
  readonly allowedForeignJwtClaims: readonly string[];
}

/** Full names of the methods that need the header. */
const PREFIX = '/SpiffeWorkloadAPI/';
const HEADER = 'workload.spiffe.io';
/** How long a caller waits for the agent's first word from its server. */
const FIRST_SYNC_MS = 5_000;
/** SPIRE's words: its clients and scripts know them. */
const NOBODY = 'no identity issued';
const DONE = new Error('the agent has heard from its server');

/** What a browser could be tricked into sending lacks this header (WE-8). Throws REQUEST_INVALID; methods of other services need none. */
export function checkHeader({ method, metadata }: Pick<CallContext, 'method' | 'metadata'>): void {
  if (!method.startsWith(PREFIX)) return;
  const values = metadata.get(HEADER) ?? [];
  if (values.length !== 1 || values[0] !== 'true') throw fail('REQUEST_INVALID', 'security header missing from request');
}

export class WorkloadApi {
  readonly #options: WorkloadApiOptions;
  readonly #seldom: Seldom;
  #ready = false;
  #ended: Error | undefined;

  /** Without the WIT profile: its methods answer UNIMPLEMENTED. `checkHeader` must have run before. */
  readonly implementation: Implementation<typeof SpiffeWorkloadAPIDefinition> = {
    fetchX509SVID: (_, context) => this.#watch(context, x509Svids),
    fetchX509Bundles: (_, context) => this.#watch(context, (view) => this.#bundles(view, 'x509-bundles', x509Bundles)),
    fetchJWTBundles: (_, context) => this.#watch(context, (view) => this.#bundles(view, 'jwt-bundles', jwtBundles)),
    fetchJWTSVID: (request, context) => this.#fetchJwt(request, context),
    validateJWTSVID: (request, context) => this.#validateJwt(request, context),
  };

  constructor(options: WorkloadApiOptions) {
    this.#options = options;
    this.#seldom = new Seldom(options.clock, { everyMs: 60_000, atOnce: 30 });
  }

  /** Entries and bundles are as the server has them: until then nobody is told that there is nothing. */
  ready(): void {
    if (this.#ready) return;
    this.#ready = true;
    this.#options.views.changedAll();
  }

  get isReady(): boolean {
    return this.#ready && !this.#ended;
  }

  /** Ends every stream with this error, and refuses every later call with it. */
  end(error: Error): void {
    if (this.#ended) return;
    this.#ended = error;
    this.#options.views.changedAll();
  }

  /**
   * A stream of answers: the whole state at once, then whenever it is another (WAPI-9 to 11), never an equal one twice.
   * @param make gives undefined while there is nothing to say yet; throws to end the stream.
   */
  async *#watch(context: CallContext, make: (view: View, first: boolean) => Buffer | undefined): AsyncGenerator<Encoded, void, void> {
    const { views, log } = this.#options;
    const { signal } = context;
    const { caller, attested } = await this.#attest(context);
    const view = views.open(attested.key, selectorsOf(attested));
    try {
      // whoever waited may have become somebody else meanwhile
      let fresh = this.#ready;
      await this.#untilReady(view, signal);
      let last: Buffer | undefined;
      for (;;) {
        // taken before anything is looked at: what changes meanwhile is seen in the next turn
        const seen = view.generation;
        this.#refuseEnded();
        const message = make(view, last === undefined);
        if (message && !last?.equals(message)) {
          if (!fresh) await this.#attestAgain(caller, attested, signal);
          // attesting took its time: what is sent is what is true now
          if (view.generation !== seen) continue;
          last = message;
          log.debug('Workload API update', { method: context.method, pid: caller.pid, count: view.identities.length });
          yield new Encoded(message);
        }
        fresh = false;
        await view.next(seen, signal);
      }
    } catch (error) {
      this.#sayWhy(error, context, attested);
      throw error;
    } finally {
      views.close(view);
    }
  }

  #bundles(view: View, kind: string, make: (view: View) => Buffer): Buffer {
    if (view.identities.length === 0 && !this.#options.allowUnauthenticatedVerifiers) throw fail('DENIED', NOBODY);
    return view.make(kind, () => make(view));
  }

  async #fetchJwt({ audience, spiffeId }: JWTSVIDRequest, context: CallContext): Promise<JWTSVIDResponse> {
    const { jwts, log } = this.#options;
    const { signal } = context;
    if (audience.length === 0 || audience.includes('')) throw fail('REQUEST_INVALID', 'audience must be specified');
    const only = spiffeId === '' ? undefined : requestedId(spiffeId);
    return await this.#once(context, async (view, { pid }) => {
      const wanted = view.identities.filter((one) => only === undefined || one.spiffeId.equals(only));
      if (wanted.length === 0) throw fail('DENIED', NOBODY);
      const tokens = await Promise.all(wanted.map((one) => this.#token(jwts, one, audience, signal)));
      // the entry may have gone while the server was asked
      this.#refuseEnded();
      const still = new Set(view.identities.map(({ id, spiffeId: now }) => `${id} ${now}`));
      const svids = wanted.flatMap((one, index) => {
        if (!still.has(`${one.id} ${one.spiffeId}`)) return [];
        log.debug('Fetched JWT SVID', { method: context.method, spiffe_id: one.spiffeId.toString(), entry_id: one.id, pid });
        return [{ spiffeId: one.spiffeId.toString(), svid: tokens[index] ?? '', hint: one.hint }];
      });
      if (svids.length === 0) throw fail('DENIED', NOBODY);
      return { svids };
    });
  }

  async #token(jwts: JwtCache, identity: Registration, audience: readonly string[], signal: AbortSignal): Promise<string> {
    try {
      return await jwts.fetch(identity, audience, signal);
    } catch (error) {
      signal.throwIfAborted();
      this.#options.log.warn('Could not fetch JWT-SVID', { spiffe_id: identity.spiffeId.toString(), entry_id: identity.id, error });
      throw fail('UNAVAILABLE', `could not fetch JWT-SVID: ${rpcErrorText(error)}`, { cause: error });
    }
  }

  /** Needs no identity: a caller without one knows the own trust domain alone. */
  async #validateJwt({ audience, svid: token }: ValidateJWTSVIDRequest, context: CallContext): Promise<ValidateJWTSVIDResponse> {
    const { clock, log } = this.#options;
    if (audience === '') throw fail('REQUEST_INVALID', 'audience must be specified');
    if (token === '') throw fail('REQUEST_INVALID', 'svid must be specified');
    return await this.#once(context, async (view, { pid }) => {
      const { own, federated } = view.sight();
      try {
        const bundles = new BundleSet([own, ...federated]);
        const svid = validateJwtSvidSync(token, { audience, bundles, clock, kid: 'optional' });
        return { spiffeId: svid.id.toString(), claims: this.#claimsOf(svid) };
      } catch (error) {
        if (!(error instanceof SpiffeError)) throw error;
        log.debug('Failed to validate JWT', { pid, error });
        // whatever is wrong with it, it is what the caller gave us (WAPI-55)
        throw fail('REQUEST_INVALID', error.message, { cause: error });
      }
    });
  }

  /** Of another trust domain only what every JWT-SVID has, and what the operator allows. */
  #claimsOf({ id, claims, audience }: JwtSvid): Record<string, unknown> {
    const { trustDomain, allowedForeignJwtClaims } = this.#options;
    const told = (name: string) =>
      id.memberOf(trustDomain) || ['sub', 'aud', 'exp'].includes(name) || allowedForeignJwtClaims.includes(name);
    const named = Object.entries(claims).filter(([name]) => told(name));
    return Object.fromEntries(named.map(([name, value]) => [name, name === 'aud' ? [...audience] : plain(value)]));
  }

  /** One answer from the caller's view. */
  async #once<T>(context: CallContext, answer: (view: View, caller: Caller) => Promise<T>): Promise<T> {
    const { views } = this.#options;
    const { caller, attested } = await this.#attest(context);
    const view = views.open(attested.key, selectorsOf(attested));
    try {
      const fresh = this.#ready;
      await this.#untilReady(view, context.signal);
      if (!fresh) await this.#attestAgain(caller, attested, context.signal);
      this.#refuseEnded();
      return await answer(view, caller);
    } catch (error) {
      this.#sayWhy(error, context, attested);
      throw error;
    } finally {
      views.close(view);
    }
  }

  /** The caller gets SPIRE's three words; what was seen and what was missing is for whoever reads the log. A caller asks again and again: it is said now and then. */
  #sayWhy(error: unknown, { method, peer }: CallContext, { key, selectors }: Attested): void {
    const { nearest, log } = this.#options;
    if (!isCoded(error, 'DENIED') || this.#ended || peer.kind !== 'process') return;
    const heldBack = this.#seldom.heldBack(`${peer.uid} ${key}`);
    if (heldBack === undefined) return;
    const near = nearest(new Set(selectors.map(selectorKey)));
    log.info('No identity issued: no entry has only selectors that the caller has', {
      method,
      pid: peer.pid,
      uid: peer.uid,
      count: heldBack + 1,
      selectors: selectors.map(selectorKey),
      nearest: near.map(nearText),
    });
  }

  async #attest({ peer, signal, method }: CallContext): Promise<{ caller: Caller; attested: Attested }> {
    if (peer.kind !== 'process') throw fail('UNAVAILABLE', 'workload attestation failed');
    this.#refuseEnded();
    const attested = await this.#options.attestor.attest(peer, signal);
    this.#options.log.debug('PID attested to have selectors', { method, pid: peer.pid, selectors: attested.selectors.map(selectorKey) });
    return { caller: peer, attested };
  }

  /** A process that became another program or user since its stream began is asked anew; with other selectors it is somebody else. */
  async #attestAgain(caller: Caller, before: Attested, signal: AbortSignal): Promise<void> {
    const { attestor, log } = this.#options;
    if (sameProcess(attestor.look(caller), before.process)) return;
    const now = await attestor.attest(caller, signal);
    if (now.key === before.key) return;
    log.info('Caller became another program; its stream ends', { pid: caller.pid });
    throw fail('DENIED', NOBODY);
  }

  #refuseEnded(): void {
    if (this.#ended) throw this.#ended;
  }

  /** Before the first word from the server nothing is known of anybody: neither a yes nor a no. */
  async #untilReady(view: View, signal: AbortSignal): Promise<void> {
    if (this.#ready) return;
    signal.throwIfAborted();
    const late = new AbortController();
    const abort = () => late.abort(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    this.#options.clock.sleep(FIRST_SYNC_MS, late.signal, { ref: false }).then(
      () => late.abort(fail('UNAVAILABLE', 'the agent has heard nothing from its server yet')),
      () => {},
    );
    try {
      while (!this.#ready) {
        this.#refuseEnded();
        await view.next(view.generation, late.signal);
      }
    } finally {
      signal.removeEventListener('abort', abort);
      late.abort(DONE);
    }
  }
}

function selectorsOf({ selectors }: Attested): ReadonlySet<string> {
  return new Set(selectors.map(selectorKey));
}

function requestedId(text: string): SpiffeId {
  try {
    return SpiffeId.parse(text);
  } catch (error) {
    if (!isCoded(error)) throw error;
    throw fail('REQUEST_INVALID', `invalid requested SPIFFE ID: ${error instanceof IdError ? error.why : error.message}`, { cause: error });
  }
}

/**
 * The first answer has all identities. Later ones have those whose SVIDs are there: a stream that waited for one that is being signed
 * would not tell of another that was taken away.
 */
function x509Svids(view: View, first: boolean): Buffer | undefined {
  if (view.identities.length === 0) throw fail('DENIED', NOBODY);
  const { ready, more } = view.svids();
  if (ready.length === 0 || (first && more)) return undefined;
  return view.make('x509-svids', () => {
    const { own, federated } = view.sight();
    const bundle = own.x509.toDer();
    return encodeMessage(X509SVIDResponse, {
      svids: ready.map(([{ hint }, { spiffeId, chainDer, keyPkcs8Der }]) => ({
        spiffeId,
        x509Svid: chainDer,
        x509SvidKey: keyPkcs8Der,
        bundle,
        hint,
      })),
      crl: [],
      federatedBundles: Object.fromEntries(
        federated.filter(({ x509 }) => !x509.isEmpty).map(({ trustDomain, x509 }) => [trustDomain.id.toString(), x509.toDer()]),
      ),
    } satisfies X509SVIDResponse);
  });
}

/** The own one always; of others those in which there is something to trust: an absent one is as good as an empty one, and no client stumbles over it. */
function x509Bundles(view: View): Buffer {
  const { own, federated } = view.sight();
  const told = [own, ...federated.filter(({ x509 }) => !x509.isEmpty)];
  return encodeMessage(X509BundlesResponse, {
    crl: [],
    bundles: Object.fromEntries(told.map(({ trustDomain, x509 }) => [trustDomain.id.toString(), x509.toDer()])),
  } satisfies X509BundlesResponse);
}

function jwtBundles(view: View): Buffer {
  const { own, federated } = view.sight();
  return encodeMessage(JWTBundlesResponse, {
    bundles: Object.fromEntries([own, ...federated].map(({ trustDomain, jwt }) => [trustDomain.id.toString(), Buffer.from(jwt.toJwks())])),
  } satisfies JWTBundlesResponse);
}

/** As google.protobuf.Struct can carry it: its numbers are doubles. */
function plain(value: JsonValue): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (value === null || typeof value !== 'object') return value;
  if (isJsonArray(value)) return value.map(plain);
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, plain(one)]));
}
