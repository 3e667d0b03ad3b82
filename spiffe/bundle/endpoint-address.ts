/** Where a trust domain's bundle is to be had, and how who serves it proves itself (SPIFFE Federation §5.1): checked before anything is opened. */
import { type Reason, SpiffeError, under } from '../errors.ts';
import { SpiffeId, TrustDomain } from '../id.ts';
import { formatPem, parsePem } from '../x509/pem.ts';
import type { X509BundleSource } from '../x509/x509-bundle.ts';

/** The endpoint shows a certificate as web sites do, for the host of its URL. */
export interface HttpsWeb {
  readonly type: 'https_web';
  /** PEM: the authorities that may have issued it, instead of those that Node brings. */
  readonly ca?: string | Uint8Array | undefined;
}

/** The endpoint shows an X.509-SVID. The host of its URL says only where it is. */
export interface HttpsSpiffe {
  readonly type: 'https_spiffe';
  /** The SPIFFE ID that the endpoint must show, exactly. */
  readonly endpointId: SpiffeId | string;
  /** Must have the bundle of the trust domain of `endpointId`, from elsewhere. */
  readonly bundles: X509BundleSource;
}

/** How who serves a bundle proves itself. Always given: neither is tried in place of the other. */
export type EndpointProfile = HttpsWeb | HttpsSpiffe;

/** Where a trust domain's bundle is to be had (FED-17). */
export interface EndpointAddress {
  /** Whose bundle it is. Never guessed from the URL or the endpoint's ID (FED-65). */
  readonly trustDomain: TrustDomain | string;
  /** `https`, without a user. Port, path and query are free; a fragment is dropped. */
  readonly url: URL | string;
  readonly profile: EndpointProfile;
}

/** An address that was checked. */
export interface Endpoint {
  readonly trustDomain: TrustDomain;
  readonly url: URL;
  readonly profile:
    | { readonly type: 'https_web'; readonly ca: string | undefined }
    | { readonly type: 'https_spiffe'; readonly endpointId: SpiffeId; readonly bundles: X509BundleSource };
}

/** Throws REQUEST_INVALID or ID_INVALID. */
export function checkEndpoint({ trustDomain, url, profile }: EndpointAddress): Endpoint {
  // callers without types are refused like everybody else (FED-33, FED-57)
  if (typeof trustDomain !== 'string' && !(trustDomain instanceof TrustDomain))
    throw invalid('FED_TRUST_DOMAIN', 'bundle endpoint: no trust domain is given; it is never guessed from the URL');
  const checked = { trustDomain: typeof trustDomain === 'string' ? TrustDomain.parse(trustDomain) : trustDomain, url: endpointUrl(url) };
  const type: unknown = profile?.type;
  if (profile?.type === 'https_web') return { ...checked, profile: { type: 'https_web', ca: authorities(profile.ca) } };
  if (profile?.type !== 'https_spiffe')
    throw invalid('FED_PROFILE', `bundle endpoint profile: wants https_web or https_spiffe, saw ${JSON.stringify(type)}`);
  const { endpointId, bundles } = profile;
  if (typeof endpointId !== 'string' && !(endpointId instanceof SpiffeId))
    throw invalid('FED_ENDPOINT_ID', 'bundle endpoint: https_spiffe needs the SPIFFE ID of the endpoint');
  if (typeof bundles?.x509Bundle !== 'function')
    throw invalid('FED_ENDPOINT_BUNDLES', `bundle endpoint ${endpointId}: https_spiffe needs a bundle of its trust domain to begin with`);
  const id = typeof endpointId === 'string' ? SpiffeId.parse(endpointId) : endpointId;
  return { ...checked, profile: { type: 'https_spiffe', endpointId: id, bundles } };
}

/** FED-20, 21, 38, 39. What `URL` would quietly mend is refused. Throws REQUEST_INVALID. */
export function endpointUrl(given: URL | string, base?: URL): URL {
  const text = String(given);
  const refuse = (reason: Reason, why: string) => invalid(reason, `bundle endpoint URL: ${why}`);
  if (!/^[\x21-\x5b\x5d-\x7e]+$/.test(text)) throw refuse('FED_URL', 'is empty, or has a character that no URL has');
  if (!base && !/^https:\/\//i.test(text)) throw refuse('FED_URL_SCHEME', 'wants https://…');
  if (/^(?:[a-z][a-z0-9+.-]*:)?\/\/(?:[/?#]|$)/i.test(text)) throw refuse('FED_URL', 'has no host');
  // looked for in the text: URL drops an empty user
  if (/^(?:[a-z][a-z0-9+.-]*:)?\/\/[^/?#]*@/i.test(text)) throw refuse('FED_URL_USERINFO', 'must not have a user');
  if (!URL.canParse(text, base?.href)) throw refuse('FED_URL', 'is not a URL');
  const url = new URL(text, base);
  if (url.protocol !== 'https:') throw refuse('FED_URL_SCHEME', `wants https, saw ${url.protocol.slice(0, -1)}`);
  if (url.username !== '' || url.password !== '') throw refuse('FED_URL_USERINFO', 'must not have a user');
  if (url.port === '0') throw refuse('FED_URL', 'has port 0');
  url.hash = '';
  return url;
}

/** The URL for messages: a query may hold what nobody else should read. */
export function shownUrl(url: URL): string {
  return url.origin + url.pathname;
}

/** As one text, of certificates only: Node takes an empty text for "those that Node brings", and passes over what is none. */
function authorities(pem: string | Uint8Array | undefined): string | undefined {
  if (pem === undefined) return undefined;
  return under('REQUEST_INVALID', 'bundle endpoint: ca', () => {
    const blocks = parsePem(pem);
    if (blocks.length === 0) throw invalid('FED_CA', 'no certificate found');
    const stranger = blocks.find(({ label }) => label !== 'CERTIFICATE');
    if (stranger) throw invalid('FED_CA', `a ${stranger.label} block where only certificates belong`);
    return blocks.map(({ label, der }) => formatPem(label, der)).join('');
  });
}

function invalid(reason: Reason, words: string): SpiffeError {
  return new SpiffeError('REQUEST_INVALID', reason, words);
}
