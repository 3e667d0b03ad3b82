/** The external PKI that our X.509 authority is rooted in. */
import type { SigningKey } from './key-manager.ts';

/** A CA certificate issued below the external PKI. */
export interface X509CaChain {
  /** The CA certificate, then its issuers up to but without the root. */
  readonly chainDer: readonly Buffer[];
  /** The roots to publish in our bundle. At least one. */
  readonly rootsDer: readonly Buffer[];
}

/** The external PKI's own intermediate, lent for signing: the key stays in the plugin (`sign_directly`). */
export interface DirectAuthority extends X509CaChain {
  readonly key: SigningKey;
}

export type UpstreamAuthority = CaBelow | Direct;

/** SPIRE's way: signs a CA of our own below it. */
export interface CaBelow {
  readonly mode: 'ca-below';
  /** The CSR's only URI SAN is `spiffe://<trust domain>`. Throws UNAVAILABLE (try again) or FAILED_PRECONDITION (a person must act). */
  mintX509Ca(csrDer: Buffer, preferredTtlMs: number, signal: AbortSignal): Promise<X509CaChain>;
  /**
   * The certificates, DER, whose keys only this server holds and which sign its CAs: what is issued below them is this trust domain's. Now, then whenever they
   * change; the first at once. Left out: the external PKI signs for others with them too. Ends by throwing the signal's reason.
   */
  ownIssuers?(signal: AbortSignal): AsyncIterable<readonly Buffer[]>;
  /** The roots now, then whenever they change. Ends by throwing the signal's reason. */
  roots(signal: AbortSignal): AsyncIterable<readonly Buffer[]>;
}

/** We sign with what we were handed; there is no CA of ours, and none below us. */
export interface Direct {
  readonly mode: 'direct';
  /** The authority now, then each new one (or the same key with a renewed certificate). Ends by throwing the signal's reason. */
  authorities(signal: AbortSignal): AsyncIterable<DirectAuthority>;
}
