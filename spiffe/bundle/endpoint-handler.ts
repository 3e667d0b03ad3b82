/** A bundle endpoint's answers, for node:http and for what speaks the Fetch API. Who serves brings the TLS: a certificate of a web site, or an X.509-SVID. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { SpiffeError } from '../errors.ts';
import type { TrustDomain } from '../id.ts';
import type { Logger } from '../logger.ts';
import type { Bundle } from './bundle.ts';

/** What is served. */
export interface BundleHandlerOptions {
  /** Whose bundle is served. */
  readonly trustDomain: TrustDomain;
  /** Asked at each request, so that nothing older than the newest is served (FED-26): a `BundleSet`, a source, or what you have. */
  readonly bundles: { get(trustDomain: TrustDomain): Bundle | undefined };
  /** Told what callers are not. Default: nobody. */
  readonly log?: Logger | undefined;
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array<ArrayBuffer>;
}

const NOTHING = new Uint8Array(0);

/**
 * For `createServer(…)` of node:https, or a route of Express; any path. GET and HEAD only, else 405; 404 without a bundle, 500 when asking for it failed. Asks no
 * caller who it is (FED-25, FED-47).
 */
export function bundleHandler(options: BundleHandlerOptions): (request: IncomingMessage, response: ServerResponse) => void {
  const answer = answers(options);
  return (request, response) => {
    const { status, headers, body } = answer(request.method ?? '');
    response.writeHead(status, { ...headers, 'content-length': body.length });
    response.end(request.method === 'HEAD' ? undefined : body);
  };
}

/** The same as a function of requests: Hono, Deno, Bun and the like. */
export function bundleFetchHandler(options: BundleHandlerOptions): (request: Request) => Response {
  const answer = answers(options);
  return (request) => {
    const { status, headers, body } = answer(request.method);
    return new Response(request.method === 'HEAD' ? null : body, {
      status,
      headers: { ...headers, 'content-length': String(body.length) },
    });
  };
}

function answers({ trustDomain, bundles, log }: BundleHandlerOptions): (method: string) => Answer {
  let last: { readonly bundle: Bundle; readonly body: Uint8Array<ArrayBuffer> } | undefined;
  const failed = (status: number, error: SpiffeError): Answer => {
    try {
      log?.error('Bundle endpoint has no bundle to serve', { trust_domain: trustDomain.name, status, error });
    } catch {
      // a logger that fails is no reason to tell the caller more
    }
    return { status, headers: NOT_KEPT, body: NOTHING };
  };
  return (method) => {
    if (method !== 'GET' && method !== 'HEAD') return { status: 405, headers: { ...NOT_KEPT, allow: 'GET, HEAD' }, body: NOTHING };
    try {
      const bundle = bundles.get(trustDomain);
      if (!bundle) return failed(404, new SpiffeError('BUNDLE_MISSING', undefined, `no bundle of ${trustDomain}`));
      if (!bundle.trustDomain.equals(trustDomain))
        throw new SpiffeError('INTERNAL', 'FED_TRUST_DOMAIN', `asked for the bundle of ${trustDomain}, got that of ${bundle.trustDomain}`);
      if (last?.bundle !== bundle) last = { bundle, body: new TextEncoder().encode(bundle.toJson()) };
      return { status: 200, headers: { ...NOT_KEPT, 'content-type': 'application/json' }, body: last.body };
    } catch (error) {
      return failed(500, error instanceof SpiffeError ? error : new SpiffeError('INTERNAL', undefined, String(error), { cause: error }));
    }
  };
}

/** FED-26: no cache on the way may answer with an older one. */
const NOT_KEPT = { 'cache-control': 'no-store' } as const;
