/** The three ways of taking part in SPIFFE TLS: what each end shows, and by what it judges the other. */
import { SpiffeError } from '../errors.ts';
import type { X509Identity } from '../source/x509-identity.ts';
import type { X509BundleSource } from '../x509/x509-bundle.ts';
import type { Authorize, WebCertificate } from './tls.ts';

/** What a client shows, and by what it judges the server. */
export type ClientMode =
  /** Both ends show an X509-SVID. */
  | { readonly mode?: 'mtls' | undefined; readonly source: X509Identity; readonly authorize: Authorize }
  /** The server shows an X509-SVID, and we show nothing. */
  | { readonly mode: 'tls'; readonly source: X509BundleSource & Partial<Pick<X509Identity, 'onChange'>>; readonly authorize: Authorize }
  /** The server has a certificate of the Web PKI for the host that is dialled, and we show our X509-SVID. `roots`: PEM; default: those that Node comes with. */
  | {
      readonly mode: 'mtls-web';
      readonly source: X509Identity;
      readonly roots?: string | readonly string[] | undefined;
      readonly authorize?: undefined;
    };

/** What a server shows, and by what it judges its clients. */
export type ServerMode =
  /** Both ends show an X509-SVID. */
  | { readonly mode?: 'mtls' | undefined; readonly source: X509Identity; readonly authorize: Authorize }
  /** We show our X509-SVID; no client is asked for anything. */
  | { readonly mode: 'tls'; readonly source: X509Identity; readonly authorize?: undefined }
  /** We show a certificate of the Web PKI (asked for at each connection), and clients show an X509-SVID. */
  | {
      readonly mode: 'mtls-web';
      readonly source: X509BundleSource & Partial<Pick<X509Identity, 'onChange'>>;
      readonly certificate: () => WebCertificate;
      readonly authorize: Authorize;
    };

/** The one mode in which the other end has no SPIFFE ID, and there is nobody to authorize. */
const WITHOUT_AUTHORIZER = { client: 'mtls-web', server: 'tls' } as const;

/** For those whom no compiler warns: nobody is let in because a word was misspelt or left out. Throws REQUEST_INVALID. */
export function checkMode(
  role: keyof typeof WITHOUT_AUTHORIZER,
  settings: { readonly mode?: unknown; readonly source?: unknown; readonly authorize?: unknown },
): void {
  const { mode = 'mtls', source, authorize } = settings;
  if (mode !== 'mtls' && mode !== 'tls' && mode !== 'mtls-web')
    throw new SpiffeError('REQUEST_INVALID', undefined, `the mode must be mtls, tls or mtls-web, saw ${String(mode)}`);
  if (typeof source !== 'object' || source === null) throw new SpiffeError('REQUEST_INVALID', undefined, 'the source is missing');
  if (mode !== WITHOUT_AUTHORIZER[role] && typeof authorize !== 'function') {
    throw new SpiffeError('REQUEST_INVALID', undefined, "authorize is missing: say who may, such as matchId('spiffe://example.org/web')");
  }
}
