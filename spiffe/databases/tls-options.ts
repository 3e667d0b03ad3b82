/** TLS options for drivers that make their connections themselves: getters, so that each new connection of a pool shows the newest SVID and trusts the authorities of now. */
import { checkServerIdentity, type DetailedPeerCertificate, type PeerCertificate, type SecureContext } from 'node:tls';
import type { Clock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';
import { TrustDomain } from '../id.ts';
import type { Logger } from '../logger.ts';
import type { X509Identity } from '../source/x509-identity.ts';
import { tell } from '../source/x509-source.ts';
import { anchoredContext, type Authorize, judgeServerIdentity, VERDICT_ON, type VerdictOn, VERSIONS } from '../tls/tls.ts';
import { formatPem } from '../x509/pem.ts';
import type { X509Bundle } from '../x509/x509-bundle.ts';
import type { X509Svid } from '../x509/x509-svid.ts';

/** By whose authorities the server is judged. */
export interface AnchorOptions {
  /** The one trust domain that the server may be of; its authorities alone become `ca`. Default: that of our own SVID. */
  readonly trustDomain?: TrustDomain | string | undefined;
  /** Told when a connection begins that can only fail, because there is no SVID or bundle: OpenSSL has no words for that. Default: nobody. */
  readonly log?: Logger | undefined;
}

/** Who the server may be, besides. */
export interface TlsOptionsSettings extends AnchorOptions {
  /** Who the server may be. */
  readonly authorize: Authorize;
  /** By which the server's SVID is judged. Default: the system's. */
  readonly clock?: Clock | undefined;
}

/** What node:tls calls before a byte of the driver's is sent; an error ends the connection. */
type CheckServerIdentity = (host: string, certificate: PeerCertificate) => Error | undefined;

interface Pem {
  /** PEM. Undefined while there is no SVID: then the server is not told who we are. */
  readonly key: string | undefined;
  readonly cert: string | undefined;
}

export interface AnchoredPem extends Pem {
  /** PEM of each authority; another array at each reading. Empty while there is no bundle: then nobody is trusted. */
  readonly ca: string[];
}

/** What `tlsOptions` gives: options of `tls.connect` whose getters give what holds now. */
export interface TlsOptions extends AnchoredPem, VerdictOn {
  readonly checkServerIdentity: CheckServerIdentity;
  /** An authority of a bundle may be one that another has signed. */
  readonly allowPartialTrustChain: true;
  readonly minVersion: 'TLSv1.3';
  readonly maxVersion: 'TLSv1.3';
}

/**
 * Options of `tls.connect` towards a server with an X.509-SVID. OpenSSL trusts the authorities of one trust domain; then `checkServerIdentity` judges the chain
 * anew, by the profile, the bundle and `authorize`, in place of the host's name. The getters never throw: drivers read them where an exception would end the
 * process. What is missing makes the connection fail instead. Throws REQUEST_INVALID when something is missing from the settings, ID_INVALID.
 */
export function tlsOptions(source: X509Identity, settings: TlsOptionsSettings): TlsOptions {
  const anchors = new Anchors(source, settings);
  return {
    get key() {
      return anchors.now().key;
    },
    get cert() {
      return anchors.now().cert;
    },
    get ca() {
      return [...anchors.now().ca];
    },
    checkServerIdentity: judging(anchors, settings),
    allowPartialTrustChain: true,
    ...VERDICT_ON,
    ...VERSIONS,
  };
}

/** By whose authorities a server without an SVID is judged. */
export interface WebTlsOptionsSettings {
  /** PEM of the authorities of the server's certificate. Default: those that Node comes with. */
  readonly roots?: string | readonly string[] | undefined;
  /** See `AnchorOptions`. Default: nobody. */
  readonly log?: Logger | undefined;
}

/** What `webTlsOptions` gives: options of `tls.connect` whose getters give what holds now. */
export interface WebTlsOptions extends Pem, VerdictOn {
  /** PEM; left out: those that Node comes with. */
  readonly ca?: string[];
  readonly checkServerIdentity: CheckServerIdentity;
  readonly minVersion: 'TLSv1.2';
}

/**
 * The same towards a server with a certificate of the Web PKI or of a company, judged by its authority, dates and the host's name. We show our X.509-SVID.
 * Throws REQUEST_INVALID when something is missing from the settings.
 */
export function webTlsOptions(source: X509Identity, settings: WebTlsOptionsSettings = {}): WebTlsOptions {
  const anchors = new Anchors(source, settings);
  const { roots } = settings;
  return {
    get key() {
      return anchors.now().key;
    },
    get cert() {
      return anchors.now().cert;
    },
    ...(roots !== undefined && { ca: typeof roots === 'string' ? [roots] : [...roots] }),
    checkServerIdentity: (host, certificate) => anchors.now().fault ?? checkServerIdentity(host, certificate),
    ...VERDICT_ON,
    minVersion: 'TLSv1.2',
  };
}

/** What `mongodbOptions` gives. */
export interface MongodbOptions extends VerdictOn {
  readonly tls: true;
  readonly secureContext: SecureContext;
  readonly checkServerIdentity: CheckServerIdentity;
}

/**
 * As `tlsOptions`, for `new MongoClient(url, options)`: it reads `key`, `cert` and `ca` once, when it is made, and keeps a context for each connection to ask.
 * Throws as `tlsOptions`.
 */
export function mongodbOptions(source: X509Identity, settings: TlsOptionsSettings): MongodbOptions {
  const anchors = new Anchors(source, settings);
  return {
    tls: true,
    secureContext: {
      get context(): unknown {
        return anchors.context().context;
      },
    },
    checkServerIdentity: judging(anchors, settings),
    ...VERDICT_ON,
  };
}

/** What `mysql2Options` gives. */
export interface Mysql2Options extends VerdictOn {
  /** As `TlsOptions`; mysql2's own types do not say that it may be undefined. */
  readonly key?: string;
  /** PEM, leaf first. */
  readonly cert?: string;
  readonly ca: string[];
  readonly verifyIdentity: true;
  readonly minVersion: 'TLSv1.3';
}

/**
 * For `ssl` of mysql2, which asks nobody about the server: any SVID of the trust domain that has the host as a DNS name passes. See docs/databases.md.
 * Throws ID_INVALID.
 */
export function mysql2Options(source: X509Identity, settings: AnchorOptions = {}): Mysql2Options {
  const anchors = new Anchors(source, settings);
  return {
    get key() {
      return anchors.now().key as string;
    },
    get cert() {
      return anchors.now().cert as string;
    },
    // never the same array twice: mysql2 resumes sessions, unjudged and as who we were, while nothing of this changes
    get ca() {
      return [...anchors.now().ca];
    },
    verifyIdentity: true,
    minVersion: VERSIONS.minVersion,
    ...VERDICT_ON,
  };
}

/** For a driver that takes texts and nothing else: what holds now, to be given anew at each change of the source. Throws as `source.svid`; BUNDLE_MISSING. */
export function pemOptions(
  source: X509Identity,
  settings: AnchorOptions = {},
): { readonly key: string; readonly cert: string; readonly ca: string } {
  const { key, cert, ca, fault } = new Anchors(source, settings).now();
  if (key === undefined || cert === undefined || fault) throw fault ?? new SpiffeError('UNAVAILABLE', undefined, 'there is no X.509-SVID');
  return { key, cert, ca: ca.join('') };
}

function judging(anchors: Anchors, { authorize, clock }: TlsOptionsSettings): CheckServerIdentity {
  if (typeof authorize !== 'function')
    throw new SpiffeError(
      'REQUEST_INVALID',
      undefined,
      "authorize is missing: say who may, such as matchId('spiffe://example.org/postgres')",
    );
  return (_, certificate) => {
    try {
      const { fault, bundle } = anchors.now();
      if (fault) return fault;
      judgeServerIdentity(certificate as DetailedPeerCertificate, {
        bundles: { x509Bundle: (trustDomain) => bundle?.x509Bundle(trustDomain) },
        authorize,
        ...(clock && { clock }),
      });
      return undefined;
    } catch (error) {
      return asError(error);
    }
  };
}

interface Now extends Pem {
  readonly ca: readonly string[];
  readonly svid: X509Svid | undefined;
  readonly bundle: X509Bundle | undefined;
  /** Why a connection that begins now must fail. */
  readonly fault: Error | undefined;
}

/** What a connection that begins now shows, and by whom it judges. */
class Anchors {
  readonly #source: X509Identity;
  readonly #log: Logger | undefined;
  readonly #given: TrustDomain | undefined;
  /** Of the last SVID that there was, so that its absence is the one thing missing. */
  #own: TrustDomain | undefined;
  #last: Now | undefined;
  #context: { readonly of: Now; readonly context: SecureContext } | undefined;

  constructor(source: X509Identity, { trustDomain, log }: AnchorOptions) {
    if (typeof source !== 'object' || source === null) throw new SpiffeError('REQUEST_INVALID', undefined, 'the source is missing');
    this.#source = source;
    this.#log = log;
    this.#given = typeof trustDomain === 'string' ? TrustDomain.parse(trustDomain) : trustDomain;
  }

  now(): Now {
    const [svid, noSvid] = attempt(() => this.#source.svid);
    this.#own = svid?.id.trustDomain ?? this.#own;
    const trustDomain = this.#given ?? this.#own;
    const [bundle, noBundle] = attempt(() => trustDomain && this.#source.x509Bundle(trustDomain)?.x509Bundle(trustDomain));
    const fault = noSvid ?? noBundle ?? (bundle ? undefined : missing(trustDomain));
    const last = this.#last;
    if (last && last.svid === svid && last.bundle === bundle && last.fault?.message === fault?.message) return last;
    const pem = svid?.toPem();
    const now: Now = {
      key: pem?.key,
      cert: pem?.certificates,
      ca: bundle?.authorities.map((one) => formatPem('CERTIFICATE', one.raw)) ?? [],
      svid,
      bundle,
      fault,
    };
    this.#last = now;
    if (fault) tell(this.#log, 'Connections to a server that takes our X.509-SVID can only fail now', fault);
    return now;
  }

  context(): SecureContext {
    const now = this.now();
    if (this.#context?.of !== now) this.#context = { of: now, context: anchoredContext(now.svid, now.ca) };
    return this.#context.context;
  }
}

function missing(trustDomain: TrustDomain | undefined): SpiffeError {
  return new SpiffeError(
    'BUNDLE_MISSING',
    'X509_BUNDLE_MISSING',
    `no X.509 bundle found for ${trustDomain ? `trust domain ${JSON.stringify(trustDomain.name)}` : 'the trust domain of our own SVID'}`,
  );
}

/** What it gives, or how it failed. */
function attempt<T>(get: () => T): readonly [T, undefined] | readonly [undefined, Error] {
  try {
    return [get(), undefined];
  } catch (error) {
    return [undefined, asError(error)];
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
