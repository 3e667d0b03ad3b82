/** X.509 bundles (SPIFFE Trust Domain and Bundle §4): the authorities where certification paths of a trust domain may end. Immutable. */
import { type Reason, SpiffeError, under } from '../errors.ts';
import type { TrustDomain } from '../id.ts';
import { Certificate, splitCertificates } from './certificate.ts';
import { formatPem, parsePem } from './pem.ts';

/** Who has the X.509 authorities of a trust domain; undefined: nobody here trusts it. */
export interface X509BundleSource {
  /** Asked at each handshake; must not wait. What it throws comes through. */
  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined;
}

/** The X.509 authorities of one trust domain. */
export class X509Bundle implements X509BundleSource {
  readonly trustDomain: TrustDomain;
  /** In the order given, each once. Empty: nothing of this trust domain is trusted (TDB-19). */
  readonly authorities: readonly Certificate[];
  #bySubject: Map<string, Certificate[]> | undefined;

  /** An authority that comes twice counts once. Not judged: an authority is believed as it is. */
  constructor(trustDomain: TrustDomain, authorities: Iterable<Certificate>) {
    this.trustDomain = trustDomain;
    const seen = new Set<string>();
    const kept: Certificate[] = [];
    for (const authority of authorities) {
      if (seen.has(authority.sha256)) continue;
      seen.add(authority.sha256);
      kept.push(authority);
    }
    this.authorities = Object.freeze(kept);
  }

  /** @param der certificates one behind the other. Throws BUNDLE_INVALID. */
  static fromDer(trustDomain: TrustDomain, der: Uint8Array): X509Bundle {
    return new X509Bundle(
      trustDomain,
      under('BUNDLE_INVALID', `X.509 bundle of ${trustDomain}`, () => splitCertificates(der)),
    );
  }

  /** @param pem CERTIFICATE blocks only; an empty text is an empty bundle. Throws BUNDLE_INVALID. */
  static fromPem(trustDomain: TrustDomain, pem: string | Uint8Array): X509Bundle {
    return under('BUNDLE_INVALID', `X.509 bundle of ${trustDomain}`, () => {
      const blocks = parsePem(pem);
      const stranger = blocks.find((block) => block.label !== 'CERTIFICATE');
      if (stranger) throw invalid('PEM_MALFORMED', `a ${stranger.label} block where only certificates belong`);
      if (blocks.length === 0 && pem.toString().trim() !== '') throw invalid('PEM_MISSING', 'no PEM block found');
      return new X509Bundle(
        trustDomain,
        blocks.map((block) => Certificate.parse(block.der)),
      );
    });
  }

  /** Nothing of this trust domain is trusted. */
  get isEmpty(): boolean {
    return this.authorities.length === 0;
  }

  has(authority: Certificate): boolean {
    return this.withSubject(authority.subject).some((one) => one.equals(authority));
  }

  /** The authorities of that raw Name: where a path may end. */
  withSubject(subject: Buffer): readonly Certificate[] {
    if (!this.#bySubject) {
      this.#bySubject = new Map();
      for (const authority of this.authorities) {
        const key = authority.subject.toString('latin1');
        const list = this.#bySubject.get(key);
        if (list) list.push(authority);
        else this.#bySubject.set(key, [authority]);
      }
    }
    return this.#bySubject.get(subject.toString('latin1')) ?? [];
  }

  /** Undefined for every other trust domain. */
  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined {
    return this.trustDomain.equals(trustDomain) ? this : undefined;
  }

  /** One behind the other, in the order given; as the Workload API sends them. */
  toDer(): Buffer {
    return Buffer.concat(this.authorities.map((authority) => authority.raw));
  }

  /** In the order given; '' for an empty bundle. */
  toPem(): string {
    return this.authorities.map((authority) => formatPem('CERTIFICATE', authority.raw)).join('');
  }

  /** Same trust domain, same authorities in any order. */
  equals(other: X509Bundle): boolean {
    if (this === other) return true;
    if (!this.trustDomain.equals(other.trustDomain) || this.authorities.length !== other.authorities.length) return false;
    const mine = new Set(this.authorities.map((authority) => authority.sha256));
    return other.authorities.every((authority) => mine.has(authority.sha256));
  }
}

function invalid(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('BUNDLE_INVALID', reason, why);
}
