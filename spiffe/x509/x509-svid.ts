/** X.509-SVIDs: our own, with its key; and a peer's, judged by the bundle of its own trust domain. */
import { type X509BundleSource } from './x509-bundle.ts';
import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { inspect } from 'node:util';
import { Certificate, splitCertificates } from './certificate.ts';
import { type Reason, SpiffeError, under } from '../errors.ts';
import type { SpiffeId } from '../id.ts';
import { keyWeakness } from '../key-kind.ts';
import { findPath, MAX_PRESENTED, type PathOptions } from './path.ts';
import { formatPem, parsePem } from './pem.ts';
import { authorityIdFault, checkAuthority, leafId } from './profile.ts';
import { keepSeen, seenCertificate } from './seen.ts';

export { verifyCertificatePath } from './path.ts';

/** An SVID that can be presented: certificates, leaf first, and the leaf's private key. Immutable; shows no key to a logger. */
export class X509Svid {
  readonly id: SpiffeId;
  /** Leaf first, then the intermediates in order. */
  readonly chain: readonly Certificate[];
  /** What the server calls this SVID for the workload to choose by; '' for none. */
  readonly hint: string;
  readonly #privateKey: KeyObject;

  private constructor(id: SpiffeId, chain: readonly Certificate[], privateKey: KeyObject, hint: string) {
    this.id = id;
    this.chain = Object.freeze([...chain]);
    this.#privateKey = privateKey;
    this.hint = hint;
  }

  /** Checks profile (own SVID) and that key and leaf belong together; not the path, since that is the peer's question. Throws SVID_INVALID. */
  static of(chain: readonly Certificate[], privateKey: KeyObject, hint = ''): X509Svid {
    const [leaf, ...issuers] = chain;
    if (!leaf) throw invalid('X509_CHAIN_EMPTY', 'no certificates found');
    if (chain.length > MAX_PRESENTED) throw invalid('X509_CHAIN_TOO_LONG', `more than ${MAX_PRESENTED} certificates`);
    const id = leafId(leaf, 'own');
    for (const issuer of issuers) checkAuthority(issuer, 'own');
    for (const certificate of chain) {
      // No peer of ours, nor go-spiffe's, would believe it: who presents it should hear of it first.
      const weakness = keyWeakness(certificate.keyKind);
      if (weakness) throw invalid(weakness.reason, `${certificate}: ${weakness.why}`);
    }
    if (privateKey.type !== 'private') throw invalid('KEY_MALFORMED', 'the key is not a private key');
    if (!createPublicKey(privateKey).export({ type: 'spki', format: 'der' }).equals(leaf.spkiDer)) {
      throw invalid('KEY_MISMATCH', `the private key is not that of ${leaf}`);
    }
    return new X509Svid(id, chain, privateKey, hint);
  }

  /** @param chainDer certificates one behind the other, leaf first. @param pkcs8Der unencrypted. Throws SVID_INVALID. */
  static fromDer(chainDer: Uint8Array, pkcs8Der: Uint8Array, hint = ''): X509Svid {
    const chain = under('SVID_INVALID', 'X.509-SVID', () => splitCertificates(chainDer));
    return X509Svid.of(chain, readPkcs8(Buffer.from(pkcs8Der)), hint);
  }

  /** Certificates and one PKCS#8 key, in one text or two, in any order among each other. Throws SVID_INVALID. */
  static fromPem(certificates: string | Uint8Array, key: string | Uint8Array = certificates, hint = ''): X509Svid {
    return under('SVID_INVALID', 'X.509-SVID', () => {
      const chain = parsePem(certificates).filter((block) => block.label === 'CERTIFICATE');
      if (chain.length === 0) throw invalid('PEM_MISSING', 'no certificates found');
      const keys = parsePem(key).filter((block) => block.label === 'PRIVATE KEY');
      const [first] = keys;
      if (!first) throw invalid('PEM_MISSING', 'no private key found');
      if (keys.length > 1) throw invalid('PEM_MALFORMED', 'more than one private key found');
      return X509Svid.of(
        chain.map((block) => Certificate.parse(block.der)),
        readPkcs8(first.der),
        hint,
      );
    });
  }

  get leaf(): Certificate {
    return this.chain[0] as Certificate;
  }

  /** Of the leaf, in milliseconds since 1970. */
  get notBeforeMs(): number {
    return this.leaf.notBeforeMs;
  }

  /** Of the leaf, in milliseconds since 1970. */
  get notAfterMs(): number {
    return this.leaf.notAfterMs;
  }

  /** For who signs with it. Keep it out of logs: nothing here shows it. */
  get privateKey(): KeyObject {
    return this.#privateKey;
  }

  /** One behind the other, leaf first. */
  chainDer(): Buffer {
    return Buffer.concat(this.chain.map((certificate) => certificate.raw));
  }

  /** The private key, PKCS#8, unencrypted. */
  keyPkcs8Der(): Buffer {
    return this.#privateKey.export({ type: 'pkcs8', format: 'der' });
  }

  /** The chain, leaf first, and the private key, PKCS#8, unencrypted. */
  toPem(): { readonly certificates: string; readonly key: string } {
    return {
      certificates: this.chain.map((certificate) => formatPem('CERTIFICATE', certificate.raw)).join(''),
      key: formatPem('PRIVATE KEY', this.keyPkcs8Der()),
    };
  }

  /** Same certificates, same key, same hint. */
  equals(other: X509Svid): boolean {
    return (
      this === other ||
      (this.hint === other.hint &&
        this.chain.length === other.chain.length &&
        this.chain.every((certificate, i) => certificate.equals(other.chain[i] as Certificate)) &&
        this.#privateKey.equals(other.#privateKey))
    );
  }

  /** Without the key. */
  toJSON(): { readonly id: string; readonly hint: string; readonly notAfter: string; readonly serialNumber: string } {
    return {
      id: this.id.toString(),
      hint: this.hint,
      notAfter: new Date(this.notAfterMs).toISOString(),
      serialNumber: this.leaf.serialNumber,
    };
  }

  [inspect.custom](): string {
    return `X509Svid(${this.id}, until ${new Date(this.notAfterMs).toISOString()}, key not shown)`;
  }
}

/** A peer whose certificates were judged good. */
export interface VerifiedX509Svid {
  readonly id: SpiffeId;
  /** Leaf, the intermediates that were used, the authority of the bundle. */
  readonly chain: readonly Certificate[];
}

/**
 * Judges what a peer presents (X509-SVID §5): the profile of the leaf, then the bundle of the trust domain that its ID names, then a path.
 * @param presented DER or parsed, leaf first, the rest in any order; at most 8.
 * Throws SVID_INVALID, SVID_EXPIRED, SVID_UNTRUSTED, or BUNDLE_MISSING when nobody here trusts that domain.
 */
export function verifyX509Svid(
  presented: readonly (Uint8Array | Certificate)[],
  bundles: X509BundleSource,
  options: PathOptions,
): VerifiedX509Svid {
  if (presented.length === 0) throw invalid('X509_CHAIN_EMPTY', 'no certificates presented');
  if (presented.length > MAX_PRESENTED) throw invalid('X509_CHAIN_TOO_LONG', `more than ${MAX_PRESENTED} certificates presented`);
  const [leaf, ...intermediates] = under('SVID_INVALID', 'X.509-SVID', () =>
    presented.map((one) => (one instanceof Certificate ? one : seenCertificate(one))),
  ) as [Certificate, ...Certificate[]];
  const id = leafId(leaf, 'peer');
  // Only now that the trust domain is known: with pooled authorities any trust domain could vouch for any other (X509-39).
  const bundle = bundles.x509Bundle(id.trustDomain);
  if (!bundle)
    throw new SpiffeError(
      'BUNDLE_MISSING',
      'X509_BUNDLE_MISSING',
      `no X.509 bundle found for trust domain ${JSON.stringify(id.trustDomain.name)}`,
    );
  if (!bundle.trustDomain.equals(id.trustDomain))
    throw new SpiffeError(
      'BUNDLE_MISSING',
      'X509_BUNDLE_MISSING',
      `the source answered with the bundle of ${bundle.trustDomain} for ${id.trustDomain}`,
    );
  if (bundle.isEmpty)
    throw new SpiffeError('SVID_UNTRUSTED', 'X509_BUNDLE_EMPTY', `the X.509 bundle of ${id.trustDomain} has no authorities`);
  const chain = findPath(leaf, intermediates, bundle, options, (certificate) => authorityIdFault(certificate, id.trustDomain));
  // the authority is the bundle's
  keepSeen(chain.slice(0, -1));
  return { id, chain };
}

function invalid(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('SVID_INVALID', reason, why);
}

function readPkcs8(der: Buffer): KeyObject {
  let key: KeyObject;
  try {
    key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  } catch (cause) {
    throw new SpiffeError('SVID_INVALID', 'KEY_MALFORMED', 'the private key is not PKCS#8', { cause });
  }
  if (!isWhole(key)) throw invalid('KEY_MALFORMED', 'the private key does not sign for the public key that comes with it');
  return key;
}

/** OpenSSL believes the public half that is written beside a private one: with another there, every handshake of ours would fail. */
function isWhole(key: KeyObject): boolean {
  const hash = key.asymmetricKeyType === 'ed25519' ? null : 'sha256';
  try {
    return verify(hash, PROBE, createPublicKey(key), sign(hash, PROBE, key));
  } catch {
    return false;
  }
}

const PROBE = Buffer.from('does this key sign for its other half');
