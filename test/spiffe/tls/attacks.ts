/** What must be refused by every wrapper, whoever shows it. */
import { NOW_MS, type TestCertificate, type TestCertificateOptions } from '../../fakes/ca.ts';

const DAY_MS = 86_400_000;
/** Who is expected at the other end. */
export const PEER = 'spiffe://example.org/peer';

/** What the peer shows in each attack, and the reason for which it is refused. Source: the list, X509-SVID §4 and §5. */
export interface Attack {
  readonly what: string;
  readonly reason: string;
  readonly leaf: (roots: Roots) => TestCertificateOptions | undefined;
}
export interface Roots {
  readonly ours: TestCertificate;
  readonly federated: TestCertificate;
  readonly nobodys: TestCertificate;
}

export const ATTACKS: readonly Attack[] = [
  {
    what: 'a trust domain that has no bundle',
    reason: 'X509_BUNDLE_MISSING',
    leaf: ({ nobodys }) => ({ issuer: nobodys, uris: ['spiffe://nowhere.org/peer'] }),
  },
  {
    what: 'an unknown authority under our name',
    reason: 'X509_ISSUER_UNKNOWN',
    leaf: ({ nobodys }) => ({ issuer: nobodys, uris: [PEER] }),
  },
  {
    what: 'a federated authority signing our domain',
    reason: 'X509_ISSUER_UNKNOWN',
    leaf: ({ federated }) => ({ issuer: federated, uris: [PEER] }),
  },
  {
    what: 'our authority signing a federated domain',
    reason: 'X509_ISSUER_UNKNOWN',
    leaf: ({ ours }) => ({ issuer: ours, uris: ['spiffe://far.org/peer'] }),
  },
  { what: 'another id', reason: 'ID_NOT_ALLOWED', leaf: ({ ours }) => ({ issuer: ours, uris: ['spiffe://example.org/other'] }) },
  {
    what: 'expired',
    reason: 'X509_EXPIRED',
    leaf: ({ ours }) => ({ issuer: ours, uris: [PEER], notBeforeMs: NOW_MS - DAY_MS, notAfterMs: NOW_MS - 1000 }),
  },
  {
    what: 'not yet valid',
    reason: 'X509_NOT_YET_VALID',
    leaf: ({ ours }) => ({ issuer: ours, uris: [PEER], notBeforeMs: NOW_MS + 60_000, notAfterMs: NOW_MS + DAY_MS }),
  },
  {
    what: 'without digitalSignature',
    reason: 'X509_LEAF_DIGITAL_SIGNATURE_MISSING',
    leaf: ({ ours }) => ({ issuer: ours, uris: [PEER], usages: ['keyAgreement'] }),
  },
  {
    what: 'with keyCertSign',
    reason: 'X509_LEAF_CERT_SIGN',
    leaf: ({ ours }) => ({ issuer: ours, uris: [PEER], usages: ['digitalSignature', 'keyCertSign'] }),
  },
  { what: 'two URIs', reason: 'X509_URI_SAN_MANY', leaf: ({ ours }) => ({ issuer: ours, uris: [PEER, 'spiffe://example.org/admin'] }) },
  {
    what: 'no URI, a DNS name instead',
    reason: 'X509_URI_SAN_MISSING',
    leaf: ({ ours }) => ({ issuer: ours, uris: [], dns: ['localhost'] }),
  },
  {
    what: 'a leaf that is a CA',
    reason: 'X509_LEAF_CA',
    leaf: ({ ours }) => ({ issuer: ours, uris: [PEER], ca: true, usages: ['digitalSignature'] }),
  },
  {
    what: 'a trust domain without a path',
    reason: 'X509_LEAF_PATH_MISSING',
    leaf: ({ ours }) => ({ issuer: ours, uris: ['spiffe://example.org'] }),
  },
  { what: 'no certificate', reason: 'X509_CHAIN_EMPTY', leaf: () => undefined },
];
