/** The X509-SVID profile (X509-SVID §2 to §5, Appendix A): one table, read by issuing, by loading one's own SVID and by judging a peer's. */
import { type Certificate, EKU, type KeyUsage } from './certificate.ts';
import { type Reason, SpiffeError } from '../errors.ts';
import { SpiffeId, type TrustDomain } from '../id.ts';

/** Where a rule holds. */
export type Stage =
  /** What we sign. */
  | 'issued'
  /** The SVID that we present. */
  | 'own'
  /** What a stranger presents: only what decides about trust; a foreign CA need not be an SVID (X509-10, AMB-12). */
  | 'peer';

export interface ProfileRule {
  /** In `docs/spec.md`'s numbering. */
  readonly rule: string;
  readonly kind: 'leaf' | 'authority';
  readonly reason: Reason;
  readonly stages: readonly Stage[];
  readonly why: string;
  /** Whether the certificate breaks the rule. */
  readonly broken: (certificate: Certificate) => boolean;
}

const ALWAYS: readonly Stage[] = ['issued', 'own', 'peer'];
const OURS: readonly Stage[] = ['issued', 'own'];
const ISSUED: readonly Stage[] = ['issued'];

const LEAF_USAGES: ReadonlySet<KeyUsage> = new Set(['digitalSignature', 'keyEncipherment', 'keyAgreement']);
const AUTHORITY_USAGES: ReadonlySet<KeyUsage> = new Set(['keyCertSign', 'cRLSign']);

const has = (certificate: Certificate, usage: KeyUsage) => certificate.keyUsage?.has(usage) === true;
const hasOther = (certificate: Certificate, allowed: ReadonlySet<KeyUsage>) =>
  certificate.keyUsage !== undefined && !certificate.keyUsage.isSubsetOf(allowed);

/** In the order in which they are told. The SPIFFE ID itself is read after these: see `leafId` and `authorityTrustDomain`. */
export const PROFILE: readonly ProfileRule[] = [
  // The leaf.
  { rule: 'X509-34', kind: 'leaf', reason: 'X509_LEAF_CA', stages: ALWAYS, why: 'the CA flag is set on a leaf', broken: (c) => c.isCa },
  {
    rule: 'X509-17',
    kind: 'leaf',
    reason: 'X509_LEAF_BASIC_CONSTRAINTS_MISSING',
    stages: ISSUED,
    why: 'basic constraints are missing',
    broken: (c) => !c.hasBasicConstraints,
  },
  {
    rule: 'X509-20',
    kind: 'leaf',
    reason: 'X509_KEY_USAGE_MISSING',
    stages: ALWAYS,
    why: 'the key usage extension is missing',
    broken: (c) => c.keyUsage === undefined,
  },
  {
    rule: 'X509-35',
    kind: 'leaf',
    reason: 'X509_LEAF_CERT_SIGN',
    stages: ALWAYS,
    why: 'key usage keyCertSign is set on a leaf',
    broken: (c) => has(c, 'keyCertSign'),
  },
  {
    rule: 'X509-36',
    kind: 'leaf',
    reason: 'X509_LEAF_CRL_SIGN',
    stages: ALWAYS,
    why: 'key usage cRLSign is set on a leaf',
    broken: (c) => has(c, 'cRLSign'),
  },
  {
    rule: 'X509-24',
    kind: 'leaf',
    reason: 'X509_LEAF_DIGITAL_SIGNATURE_MISSING',
    stages: ALWAYS,
    why: 'key usage digitalSignature is not set',
    broken: (c) => !has(c, 'digitalSignature'),
  },
  {
    rule: 'X509-25',
    kind: 'leaf',
    reason: 'X509_LEAF_KEY_USAGE_OTHER',
    stages: ISSUED,
    why: 'a key usage other than digitalSignature, keyEncipherment and keyAgreement',
    broken: (c) => hasOther(c, LEAF_USAGES),
  },
  {
    rule: 'X509-21',
    kind: 'leaf',
    reason: 'X509_KEY_USAGE_NOT_CRITICAL',
    stages: ISSUED,
    why: 'the key usage extension is not critical',
    broken: (c) => !c.keyUsageCritical,
  },
  {
    rule: 'X509-28',
    kind: 'leaf',
    reason: 'X509_LEAF_EKU_MISSING',
    stages: ISSUED,
    why: 'the extended key usage is missing',
    broken: (c) => c.extKeyUsage === undefined,
  },
  {
    rule: 'X509-30',
    kind: 'leaf',
    reason: 'X509_LEAF_EKU',
    stages: ALWAYS,
    why: 'the extended key usage lacks serverAuth or clientAuth',
    broken: (c) => c.extKeyUsage !== undefined && !(c.extKeyUsage.includes(EKU.serverAuth) && c.extKeyUsage.includes(EKU.clientAuth)),
  },
  {
    rule: 'X509-3',
    kind: 'leaf',
    reason: 'X509_URI_SAN_MISSING',
    stages: ALWAYS,
    why: 'no URI subject alternative name',
    broken: (c) => c.uris.length === 0,
  },
  {
    rule: 'X509-3',
    kind: 'leaf',
    reason: 'X509_URI_SAN_MANY',
    stages: ALWAYS,
    why: 'more than one URI subject alternative name',
    broken: (c) => c.uris.length > 1,
  },
  {
    rule: 'X509-8',
    kind: 'leaf',
    reason: 'X509_SAN_NOT_CRITICAL',
    stages: ISSUED,
    why: 'an empty subject beside a subject alternative name that is not critical',
    broken: (c) => c.subjectEmpty && !c.sanCritical,
  },
  // The signing certificate.
  {
    rule: 'X509-16',
    kind: 'authority',
    reason: 'X509_AUTHORITY_CA',
    stages: ALWAYS,
    why: 'the CA flag is not set on a signing certificate',
    broken: (c) => !c.isCa,
  },
  {
    rule: 'X509-16',
    kind: 'authority',
    reason: 'X509_AUTHORITY_BASIC_CONSTRAINTS_NOT_CRITICAL',
    stages: ISSUED,
    why: 'the basic constraints are not critical',
    broken: (c) => !c.basicConstraintsCritical,
  },
  {
    rule: 'X509-20',
    kind: 'authority',
    reason: 'X509_KEY_USAGE_MISSING',
    stages: OURS,
    why: 'the key usage extension is missing',
    broken: (c) => c.keyUsage === undefined,
  },
  // RFC 5280 §6.1.4 (n): if the extension is there, the bit must be.
  {
    rule: 'X509-22',
    kind: 'authority',
    reason: 'X509_AUTHORITY_CERT_SIGN_MISSING',
    stages: ALWAYS,
    why: 'key usage keyCertSign is not set on a signing certificate',
    broken: (c) => c.keyUsage !== undefined && !has(c, 'keyCertSign'),
  },
  {
    rule: 'X509-21',
    kind: 'authority',
    reason: 'X509_KEY_USAGE_NOT_CRITICAL',
    stages: ISSUED,
    why: 'the key usage extension is not critical',
    broken: (c) => !c.keyUsageCritical,
  },
  {
    rule: 'X509-49',
    kind: 'authority',
    reason: 'X509_AUTHORITY_KEY_USAGE_OTHER',
    stages: ISSUED,
    why: 'a key usage other than keyCertSign and cRLSign',
    broken: (c) => hasOther(c, AUTHORITY_USAGES),
  },
  {
    rule: 'X509-10',
    kind: 'authority',
    reason: 'X509_URI_SAN_MISSING',
    stages: ISSUED,
    why: 'no URI subject alternative name',
    broken: (c) => c.uris.length === 0,
  },
  {
    rule: 'X509-2',
    kind: 'authority',
    reason: 'X509_URI_SAN_MANY',
    stages: ISSUED,
    why: 'more than one URI subject alternative name',
    broken: (c) => c.uris.length > 1,
  },
  {
    rule: 'X509-8',
    kind: 'authority',
    reason: 'X509_SAN_NOT_CRITICAL',
    stages: ISSUED,
    why: 'an empty subject beside a subject alternative name that is not critical',
    broken: (c) => c.subjectEmpty && !c.sanCritical,
  },
];

const ROWS = {
  leaf: { issued: rows('leaf', 'issued'), own: rows('leaf', 'own'), peer: rows('leaf', 'peer') },
  authority: { issued: rows('authority', 'issued'), own: rows('authority', 'own'), peer: rows('authority', 'peer') },
} as const;

function rows(kind: ProfileRule['kind'], stage: Stage): readonly ProfileRule[] {
  return PROFILE.filter((rule) => rule.kind === kind && rule.stages.includes(stage));
}

/** The first rule that the certificate breaks, or undefined. */
export function profileFault(certificate: Certificate, kind: ProfileRule['kind'], stage: Stage): ProfileRule | undefined {
  return ROWS[kind][stage].find((rule) => rule.broken(certificate));
}

/**
 * Judges a leaf and reads its SPIFFE ID: rules, grammar, and a path that is not empty (X509-38).
 * Throws SVID_INVALID with the reason of the rule, or of the grammar (ID_…).
 */
export function leafId(certificate: Certificate, stage: Stage): SpiffeId {
  const fault = profileFault(certificate, 'leaf', stage);
  if (fault) throw refuse(certificate, fault.reason, fault.why);
  const id = readId(certificate, certificate.uris[0] as string);
  if (id.path === '') throw refuse(certificate, 'X509_LEAF_PATH_MISSING', `the SPIFFE ID ${id} has no path`);
  return id;
}

/**
 * Judges a signing certificate. `trustDomain` given: its SPIFFE ID, if it has one, must be that trust domain's, without a path (X509-11, X509-12);
 * URIs of other schemes are another PKI's business. Not for trust anchors: those are believed as they are (AMB-2).
 * Throws SVID_INVALID.
 */
export function checkAuthority(certificate: Certificate, stage: Stage, trustDomain?: TrustDomain): void {
  const fault = profileFault(certificate, 'authority', stage) ?? (trustDomain && authorityIdFault(certificate, trustDomain));
  if (fault) throw refuse(certificate, fault.reason, fault.why);
}

/** Why the SPIFFE ID of a signing certificate forbids it in this trust domain, or undefined. */
export function authorityIdFault(
  certificate: Certificate,
  trustDomain: TrustDomain,
): { readonly reason: Reason; readonly why: string } | undefined {
  for (const uri of certificate.uris) {
    if (!/^spiffe:/i.test(uri)) continue;
    let id: SpiffeId;
    try {
      id = SpiffeId.parse(uri);
    } catch (error) {
      return { reason: (error as SpiffeError<'ID_INVALID', Reason>).reason ?? 'ID_SCHEME', why: (error as Error).message };
    }
    if (id.path !== '') return { reason: 'X509_AUTHORITY_PATH', why: `the SPIFFE ID ${id} of a signing certificate has a path` };
    if (!id.memberOf(trustDomain))
      return { reason: 'X509_AUTHORITY_TRUST_DOMAIN', why: `a signing certificate of ${id} in trust domain ${trustDomain}` };
  }
  return undefined;
}

function readId(certificate: Certificate, uri: string): SpiffeId {
  try {
    return SpiffeId.parse(uri);
  } catch (error) {
    throw refuse(certificate, (error as SpiffeError<'ID_INVALID', Reason>).reason ?? 'ID_SCHEME', (error as Error).message);
  }
}

function refuse(certificate: Certificate, reason: Reason, why: string): SpiffeError {
  return new SpiffeError('SVID_INVALID', reason, `${certificate}: ${why}`);
}
