/** Certification paths (RFC 5280 §6): from a leaf over presented intermediates, in any order, to a trusted authority. Bounded work. */
import { keyKindText, keyWeakness } from '../key-kind.ts';
import { type Certificate, GENERAL_NAME, type NameConstraints } from './certificate.ts';
import { type Code, type Reason, SpiffeError } from '../errors.ts';
import { profileFault } from './profile.ts';
import { signatureKnown } from './seen.ts';
import { fits, verifySignature } from './signature-algorithm.ts';
import { comparableRdns, EMAIL_ADDRESS, readName } from './x500-name.ts';

/** Leaf and intermediates that a peer may present. */
export const MAX_PRESENTED = 8;
/** Signature checks for one leaf: what a stranger with cross-signed certificates may make us do. */
export const MAX_SIGNATURES = 16;

export interface PathOptions {
  /** Milliseconds since 1970. */
  readonly nowMs: number;
  /** The path must contain one of these issuers (told by name and key), be it an intermediate or the authority. */
  readonly through?: readonly Certificate[];
}

/** Where paths may end. */
export interface Anchors {
  withSubject(subject: Buffer): readonly Certificate[];
}

export interface Fault {
  readonly code: Code;
  readonly reason: Reason;
  readonly why: string;
}

/** An extra rule for presented intermediates. */
export type IntermediateRule = (certificate: Certificate) => { readonly reason: Reason; readonly why: string } | undefined;

/**
 * Checks a leaf without the SPIFFE profile: dates, key, critical extensions, and a path to one of `roots`.
 * @returns leaf, intermediates, authority. Throws SVID_EXPIRED for the leaf's dates, SVID_UNTRUSTED with the reason of the nearest miss.
 */
export function verifyCertificatePath(
  leaf: Certificate,
  intermediates: readonly Certificate[],
  roots: readonly Certificate[],
  options: PathOptions,
): readonly Certificate[] {
  return findPath(leaf, intermediates, { withSubject: (subject) => roots.filter((root) => root.subject.equals(subject)) }, options);
}

export function findPath(
  leaf: Certificate,
  intermediates: readonly Certificate[],
  anchors: Anchors,
  options: PathOptions,
  rule?: IntermediateRule,
): readonly Certificate[] {
  if (intermediates.length >= MAX_PRESENTED)
    throw new SpiffeError('SVID_INVALID', 'X509_CHAIN_TOO_LONG', `more than ${MAX_PRESENTED} certificates`);
  const fault = leafFault(leaf, options.nowMs);
  if (fault) throw new SpiffeError(fault.code, fault.reason, `${leaf}: ${fault.why}`);
  const search = new Search(intermediates, anchors, options, rule);
  if (search.climb(leaf)) return search.path;
  throw search.refusal(leaf);
}

function leafFault(leaf: Certificate, nowMs: number): Fault | undefined {
  if (nowMs < leaf.notBeforeMs)
    return { code: 'SVID_EXPIRED', reason: 'X509_NOT_YET_VALID', why: `not valid before ${iso(leaf.notBeforeMs)}` };
  if (!leaf.isWithinValidity(nowMs)) return { code: 'SVID_EXPIRED', reason: 'X509_EXPIRED', why: `expired at ${iso(leaf.notAfterMs)}` };
  if (leaf.unknownCritical.length > 0)
    return { code: 'SVID_INVALID', reason: 'X509_UNKNOWN_CRITICAL', why: `unknown critical extension ${leaf.unknownCritical.join(', ')}` };
  const weakness = keyWeakness(leaf.keyKind);
  return weakness && { code: 'SVID_INVALID', ...weakness };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

/** Depth first. Nothing is climbed from before its signature is checked, so that made-up certificates cost their maker a signature each. */
class Search {
  readonly path: Certificate[] = [];
  readonly #intermediates: readonly Certificate[];
  readonly #anchors: Anchors;
  readonly #options: PathOptions;
  readonly #rule: IntermediateRule | undefined;
  #signatures = 0;
  /** The first miss that was more than a wrong name: what the person who reads the message must mend. */
  #miss: { readonly reason: Reason; readonly why: string } | undefined;

  constructor(intermediates: readonly Certificate[], anchors: Anchors, options: PathOptions, rule: IntermediateRule | undefined) {
    this.#intermediates = intermediates;
    this.#anchors = anchors;
    this.#options = options;
    this.#rule = rule;
  }

  /** Adds `child` and everything above it to the path, or leaves the path as it was. */
  climb(child: Certificate): boolean {
    this.path.push(child);
    for (const anchor of this.#anchors.withSubject(child.issuer)) {
      if (!this.#issued(anchor, child)) continue;
      this.path.push(anchor);
      if (this.#isThrough()) return true;
      this.path.pop();
      this.#missed('X509_NOT_THROUGH', 'the path does not pass through a demanded issuer');
    }
    for (const intermediate of this.#intermediates) {
      if (!intermediate.subject.equals(child.issuer) || this.path.some((one) => sameAuthority(one, intermediate))) continue;
      if (this.#issued(intermediate, child, this.#rule) && this.climb(intermediate)) return true;
    }
    this.path.pop();
    return false;
  }

  /** What to tell when no path was found. */
  refusal(leaf: Certificate): SpiffeError {
    const { reason, why } = this.#miss ?? { reason: 'X509_ISSUER_UNKNOWN', why: 'signed by an unknown authority' };
    return new SpiffeError('SVID_UNTRUSTED', reason, `${leaf}: could not verify the certificate chain: ${why}`);
  }

  #isThrough(): boolean {
    const { through } = this.#options;
    return through === undefined || this.path.slice(1).some((one) => through.some((issuer) => sameAuthority(one, issuer)));
  }

  #missed(reason: Reason, why: string): void {
    this.#miss ??= { reason, why };
  }

  /** Whether `issuer`, whose name fits, may have signed `child`, and did. */
  #issued(issuer: Certificate, child: Certificate, rule?: IntermediateRule): boolean {
    // Two key identifiers that differ mean another key of the same name: not a fault, just not this one.
    if (child.aki && issuer.ski && !child.aki.equals(issuer.ski)) return false;
    const fault = this.#issuerFault(issuer, child) ?? rule?.(issuer);
    if (fault) {
      this.#missed(fault.reason, `${issuer}: ${fault.why}`);
      return false;
    }
    if (this.#signatures >= MAX_SIGNATURES)
      throw new SpiffeError('SVID_UNTRUSTED', 'X509_WORK_LIMIT', `more than ${MAX_SIGNATURES} signatures to check`);
    this.#signatures++;
    if (signatureKnown(child, issuer, () => isSignedBy(child, issuer))) return true;
    this.#missed('X509_SIGNATURE', `${child}: the signature is not that of ${issuer}`);
    return false;
  }

  #issuerFault(issuer: Certificate, child: Certificate): { readonly reason: Reason; readonly why: string } | undefined {
    const { nowMs } = this.#options;
    const broken = profileFault(issuer, 'authority', 'peer');
    if (broken) return broken;
    if (nowMs < issuer.notBeforeMs) return { reason: 'X509_ISSUER_NOT_YET_VALID', why: `not valid before ${iso(issuer.notBeforeMs)}` };
    if (!issuer.isWithinValidity(nowMs)) return { reason: 'X509_ISSUER_EXPIRED', why: `expired at ${iso(issuer.notAfterMs)}` };
    if (issuer.unknownCritical.length > 0)
      return { reason: 'X509_UNKNOWN_CRITICAL', why: `unknown critical extension ${issuer.unknownCritical.join(', ')}` };
    // Every CA between this one and the leaf counts, as in Go; RFC 5280 would let self-issued ones pass.
    if (issuer.pathLen !== undefined && this.path.length - 1 > issuer.pathLen) {
      return { reason: 'X509_PATH_LEN', why: `pathlen:${issuer.pathLen} with ${this.path.length - 1} signing certificates below it` };
    }
    const weakness = keyWeakness(issuer.keyKind);
    if (weakness) return weakness;
    if (!child.signatureAlgorithm || !fits(child.signatureAlgorithm, issuer.keyKind)) {
      return {
        reason: 'X509_SIGNATURE_ALGORITHM',
        why: `a signature ${child.signatureAlgorithmName} with its key of ${keyKindText(issuer.keyKind)} is not accepted`,
      };
    }
    if (issuer.nameConstraints) {
      for (const certificate of this.path) {
        const why = outside(certificate, issuer.nameConstraints);
        if (why) return { reason: 'X509_OUTSIDE_NAME_CONSTRAINTS', why };
      }
    }
    return undefined;
  }
}

/** One CA: the same name and the same key, whatever else was renewed. */
export function sameAuthority(a: Certificate, b: Certificate): boolean {
  return a === b || (a.subject.equals(b.subject) && a.spkiDer.equals(b.spkiDer));
}

/** The signature alone: no names, no dates, no flags. */
export function isSignedBy(child: Certificate, issuer: Certificate): boolean {
  const algorithm = child.signatureAlgorithm;
  if (!algorithm || !fits(algorithm, issuer.keyKind) || keyWeakness(issuer.keyKind)) return false;
  try {
    return verifySignature(algorithm, child.tbs, issuer.publicKey, child.signature);
  } catch {
    // The issuer's key does not lie on its curve.
    return false;
  }
}

/** Self-signed: name and signature. */
export function isSelfSigned(certificate: Certificate): boolean {
  return certificate.selfIssued && isSignedBy(certificate, certificate);
}

/**
 * Why a certificate's names lie outside, or undefined (RFC 5280 §4.2.1.10). Where readers differ the narrow reading permits and the wide one
 * excludes: RFC 5280 and OpenSSL take `a.test` for that host alone, Go for all below it too.
 */
function outside(certificate: Certificate, constraints: NameConstraints): string | undefined {
  const { permitted, excluded } = constraints;
  for (const uri of certificate.uris) {
    if (permitted.uris.length + excluded.uris.length === 0) break;
    const host = uriHost(uri);
    if (host === undefined) return `the URI ${uri} has no host that name constraints could be held against`;
    if (
      permitted.uris.length > 0 &&
      !permitted.uris.some((base) => (base.startsWith('.') ? host.endsWith(base) && host !== base : host === base))
    ) {
      return `the URI ${uri} is not in the permitted names`;
    }
    if (excluded.uris.some((base) => isBelow(host, base))) return `the URI ${uri} is in the excluded names`;
  }
  for (const name of certificate.dnsNames) {
    const host = name.toLowerCase();
    if (permitted.dns.length > 0 && !permitted.dns.some((base) => isBelow(host, base)))
      return `the DNS name ${name} is not in the permitted names`;
    // A wildcard stands for every host below it: it must not reach into what is excluded either.
    if (excluded.dns.some((base) => isBelow(host, base) || (host.startsWith('*.') && isBelow(base.replace(/^\./, ''), host.slice(2))))) {
      return `the DNS name ${name} is in the excluded names`;
    }
  }
  const directories = certificate.subjectEmpty ? certificate.directoryNames : [certificate.subject, ...certificate.directoryNames];
  if (permitted.directories.length + excluded.directories.length > 0) {
    for (const directory of directories) {
      const rdns = comparableRdns(directory);
      const within = (base: Buffer) => comparableRdns(base).every((rdn, i) => rdn === rdns[i]);
      if (permitted.directories.length > 0 && !permitted.directories.some(within)) return 'the subject is not in the permitted names';
      if (excluded.directories.some(within)) return 'the subject is in the excluded names';
    }
  }
  for (const tag of new Set([...permitted.others, ...excluded.others])) {
    const inSubject =
      tag === GENERAL_NAME.email && readName(certificate.subject).some((rdn) => rdn.some((attribute) => attribute.oid === EMAIL_ADDRESS));
    if (certificate.sanTags.has(tag) || inSubject) return 'a name of a form whose constraints are not supported';
  }
  return undefined;
}

function isBelow(host: string, base: string): boolean {
  const bare = base.startsWith('.') ? base.slice(1) : base;
  return bare === '' || host === bare || host.endsWith(`.${bare}`);
}

/** The host of any URI with an authority; undefined where there is none, or an IP literal. */
function uriHost(uri: string): string | undefined {
  const authority = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([^/?#]*)/.exec(uri)?.[1];
  if (authority === undefined) return undefined;
  const host = authority.slice(authority.lastIndexOf('@') + 1).replace(/:\d*$/, '');
  return host === '' || host.startsWith('[') ? undefined : host.toLowerCase();
}
