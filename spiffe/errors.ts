/** How this house refuses: one class, a coarse code that drives the gRPC status, a fine reason that names the rule. */

/** Coarse: what kind of failure it is. Stable. Codes that only programs know are in `core/errors.ts`. */
export type Code =
  | 'ID_INVALID'
  | 'SVID_INVALID'
  | 'SVID_EXPIRED'
  | 'SVID_UNTRUSTED'
  | 'BUNDLE_INVALID'
  | 'BUNDLE_MISSING'
  | 'REQUEST_INVALID'
  | 'NOT_FOUND'
  | 'DENIED'
  | 'UNAVAILABLE'
  | 'CLOSED';

/**
 * Fine: which rule was broken. One per rule; what tests and docs name. A new rule adds a row here.
 * Prefix says the family: ID_ (SPIFFE-ID), DER_, X509_ (X509-SVID), JWT_ (JWT-SVID), BUNDLE_, ENDPOINT_ (Workload Endpoint), WAPI_.
 */
export type Reason =
  | 'ID_EMPTY'
  | 'ID_SCHEME'
  | 'ID_TRUST_DOMAIN_MISSING'
  | 'ID_TRUST_DOMAIN_CHAR'
  | 'ID_TRUST_DOMAIN_TOO_LONG'
  | 'ID_PATH_CHAR'
  | 'ID_PATH_NO_LEADING_SLASH'
  | 'ID_PATH_EMPTY_SEGMENT'
  | 'ID_PATH_DOT_SEGMENT'
  | 'ID_PATH_TRAILING_SLASH'
  | 'ID_TOO_LONG'
  | 'ID_NOT_MEMBER';

export class SpiffeError<C extends string = Code, R extends string = string> extends Error {
  override readonly name = 'SpiffeError';
  readonly code: C;
  readonly reason: R | undefined;

  /** @param message lower case, no period: the thing, what was wrong, what was seen, what to do. Goes on the wire; `cause` never does. */
  constructor(code: C, reason: R | undefined, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.reason = reason;
  }
}
