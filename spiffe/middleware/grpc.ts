/** Calls of gRPC with a JWT-SVID (JWT-SVID §5.3): an interceptor for servers of grpc-js. `@warifu/spiffe/middleware/grpc`. */
import { type Metadata, type ServerInterceptor, ServerInterceptingCall, status } from '@grpc/grpc-js';
import { SpiffeError } from '../errors.ts';
import { type JwtCaller, remember } from './caller.ts';
import { type RefusalStatus, report } from './refusal.ts';
import { bearers, challenge, type RequireJwtSvidOptions } from './require-jwt-svid.ts';
import { proven, unproven, type Verdict } from './verdict.ts';

export { type JwtCaller, spiffeOf } from './caller.ts';
export type { RequireJwtSvidOptions } from './require-jwt-svid.ts';

/**
 * For `new Server({ interceptors: [requireJwtSvidOfCall(…)] })`: lets through calls with `authorization: Bearer <JWT-SVID>` in their metadata, judged as
 * `requireJwtSvid` judges requests; then `spiffeOf(call.metadata)` tells the handler who calls. UNAUTHENTICATED: nobody was proven; PERMISSION_DENIED: somebody
 * who may not; UNAVAILABLE: it could not be found out. Why is for `log` alone. Whoever sees a token can use it: serve over TLS. Throws REQUEST_INVALID at once for
 * options that would let nobody or anybody pass.
 */
export function requireJwtSvidOfCall(options: RequireJwtSvidOptions): ServerInterceptor {
  const { authorize, log } = options;
  if (typeof authorize !== 'function')
    throw new SpiffeError('REQUEST_INVALID', undefined, 'who may pass must be a matcher, such as memberOf(…)');
  const { callerOf } = bearers(options);
  const judge = (metadata: Metadata): Verdict<JwtCaller> => {
    try {
      return proven(callerOf(headerOf(metadata)), authorize);
    } catch (error) {
      return unproven(error, challenge);
    }
  };
  return (_, call) =>
    new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, pass) => {
            const { caller, refusal } = judge(metadata);
            if (refusal) {
              report(log, 'jwt', refusal, call.getPeer());
              call.sendStatus({ ...STATUS[refusal.status], metadata: null });
            } else {
              remember(caller, metadata);
              pass(metadata);
            }
          },
        }),
    });
}

/** Constant words, as `Refusal.body` has for HTTP. */
const STATUS: Readonly<Record<RefusalStatus, { readonly code: status; readonly details: string }>> = {
  401: { code: status.UNAUTHENTICATED, details: 'unauthenticated' },
  403: { code: status.PERMISSION_DENIED, details: 'forbidden' },
  503: { code: status.UNAVAILABLE, details: 'unavailable' },
};

/** Node's HTTP/2 hands on the first of several; where another does hand on more, the comma between them is in no token. */
function headerOf(metadata: Metadata): string | undefined {
  const values = metadata.get('authorization');
  return values.length === 0 ? undefined : values.join(',');
}
