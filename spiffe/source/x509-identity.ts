/** What TLS needs to know: who we are, and by whom a peer is judged. Every source of X.509-SVIDs is one. */
import type { Clock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';
import type { X509BundleSource } from '../x509/x509-bundle.ts';
import type { X509Svid } from '../x509/x509-svid.ts';

/** Who we are, and by whom peers are judged: every source of X.509-SVIDs, or one of your own. */
export interface X509Identity extends X509BundleSource {
  /** The SVID to show now. Throws UNAVAILABLE (none yet), DENIED (taken back), NOT_FOUND (none with that hint), SVID_EXPIRED, CLOSED. */
  readonly svid: X509Svid;
  /** Calls the listener right after each change of the SVID or of a bundle; gives what takes that back. */
  onChange(listener: () => void): () => void;
}

/** Throws SVID_EXPIRED: nobody would take it, and a peer's refusal says less. */
export function unexpired(svid: X509Svid, clock: Clock): X509Svid {
  if (svid.notAfterMs > clock.now()) return svid;
  throw new SpiffeError(
    'SVID_EXPIRED',
    'X509_EXPIRED',
    `our own X.509-SVID ${svid.id} expired at ${new Date(svid.notAfterMs).toISOString()}, and no newer one has come`,
  );
}
