/** Who sent a request, as the middleware has proven it. Kept beside the request, where no header and no body reaches. */
import type { SpiffeId } from '../id.ts';
import type { JsonObject } from '../json.ts';
import type { JwtSvid } from '../jwt/jwt-svid.ts';

/** The other end of the TLS connection. */
export interface X509Caller {
  readonly via: 'x509';
  readonly id: SpiffeId;
  /** Of the leaf's DER, hex. */
  readonly certificateSha256: string;
  /** When the certificate ends, in milliseconds since 1970. */
  readonly notAfterMs: number;
}

/** Who a trusted proxy says is at the other end of its own TLS connection. */
export interface ForwardedCaller {
  readonly via: 'xfcc';
  readonly id: SpiffeId;
  /** The proxy: the other end of our TLS connection. */
  readonly proxy: X509Caller;
  /** As the proxy says; hex. */
  readonly certificateSha256: string | undefined;
}

/** Whoever sent a JWT-SVID that is meant for us. */
export interface JwtCaller {
  readonly via: 'jwt';
  readonly id: SpiffeId;
  readonly svid: JwtSvid;
  readonly claims: JsonObject;
}

/** Who sent a request: `via` says how that was proven. */
export type SpiffeCaller = X509Caller | ForwardedCaller | JwtCaller;
/** `x509`: by the TLS connection; `xfcc`: by a trusted proxy's word; `jwt`: by a JWT-SVID. */
export type Via = SpiffeCaller['via'];
/** Who sent a request, when it is known how that was proven. */
export type CallerVia<V extends Via> = Extract<SpiffeCaller, { readonly via: V }>;

/** The newest last. */
const callers = new WeakMap<object, Map<Via, SpiffeCaller>>();

/**
 * Who sent this request: what the last middleware that let it through has proven, or with `via` what was proven in that way.
 * Takes the request or context of any of the frameworks. undefined: no middleware of ours has let it through.
 */
export function spiffeOf(request: object): SpiffeCaller | undefined;
export function spiffeOf<V extends Via>(request: object, via: V): CallerVia<V> | undefined;
export function spiffeOf(request: object, via?: Via): SpiffeCaller | undefined {
  const known = callers.get(request);
  return via === undefined ? [...(known?.values() ?? [])].at(-1) : known?.get(via);
}

/** For the adapters: `objects` are faces of one request, the innermost first. */
export function remember(caller: SpiffeCaller, ...objects: readonly [object, ...object[]]): void {
  const known = callers.get(objects[0]) ?? new Map<Via, SpiffeCaller>();
  known.delete(caller.via);
  known.set(caller.via, caller);
  for (const one of objects) callers.set(one, known);
}
