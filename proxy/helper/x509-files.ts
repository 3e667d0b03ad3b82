/** An X.509-SVID and its bundles as files, in each format; and what must hold before they may take the place of others. */
import { extname } from 'node:path';
import { fail } from '../../core/errors.ts';
import type { Bundle, BundleSet } from '../../spiffe/bundle/bundle.ts';
import { SpiffeError } from '../../spiffe/errors.ts';
import type { Certificate } from '../../spiffe/x509/certificate.ts';
import { formatPem } from '../../spiffe/x509/pem.ts';
import { verifyX509Svid, type X509Svid } from '../../spiffe/x509/x509-svid.ts';
import type { FileContent } from './files.ts';
import { writeKeystore, writeTruststore } from './pkcs12.ts';
import type { Selection, X509Output } from './settings.ts';

/** Throws NOT_FOUND. */
export function select<S extends { readonly hint: string; readonly id: { toString(): string } }>(svids: readonly S[], by: Selection): S {
  const { hint, spiffeId } = by;
  const found = svids.find((one) => (hint === undefined || one.hint === hint) && (!spiffeId || String(one.id) === String(spiffeId)));
  if (found) return found;
  const wanted = hint === undefined ? `the SPIFFE ID ${String(spiffeId)}` : `the hint ${JSON.stringify(hint)}`;
  const seen = svids.map((one) => (one.hint === '' ? String(one.id) : `${String(one.id)} (hint ${JSON.stringify(one.hint)})`)).join(', ');
  throw fail('NOT_FOUND', `no SVID with ${wanted} among those that this workload has: ${seen}`);
}

export interface X509Contents {
  readonly files: readonly FileContent[];
  /** When the first certificate that matters ends: the SVID itself. */
  readonly expiresMs: number;
}

/**
 * Throws SVID_EXPIRED, SVID_UNTRUSTED, SVID_INVALID or BUNDLE_MISSING for what would be worse than whatever is there: an SVID that has expired, that its
 * own trust domain's bundle does not bear out, or no bundle.
 * @param password of a keystore
 */
export function x509Files(output: X509Output, svid: X509Svid, bundles: BundleSet, nowMs: number, password = ''): X509Contents {
  verifyX509Svid(svid.chain, bundles, { nowMs });
  const own = bundles.get(svid.id.trustDomain) as Bundle;
  const others = [...bundles].filter((bundle) => !bundle.trustDomain.equals(own.trustDomain));
  return { files: RENDER[output.format]({ output, svid, own, others, nowMs, password }), expiresMs: svid.notAfterMs };
}

interface Parts {
  readonly output: X509Output;
  readonly svid: X509Svid;
  readonly own: Bundle;
  /** Federated; not empty ones only. */
  readonly others: readonly Bundle[];
  readonly nowMs: number;
  readonly password: string;
}

const RENDER: Readonly<Record<X509Output['format'], (parts: Parts) => FileContent[]>> = {
  pem(parts) {
    const { output, svid } = parts;
    const [leaf, ...intermediates] = current(svid.chain, parts);
    const chain = output.intermediatesInBundle ? [leaf] : [leaf, ...intermediates];
    return [
      text(output.names.svid, pemOf(chain), output.certMode.bits),
      ...bundleFiles(output.names.bundle, parts, output.intermediatesInBundle ? intermediates : []),
      secret(output.names.key, svid.toPem().key, output),
    ];
  },

  combined(parts) {
    const { output, svid } = parts;
    const [leaf, ...intermediates] = current(svid.chain, parts);
    const chain = output.intermediatesInBundle ? [leaf] : [leaf, ...intermediates];
    return [
      ...bundleFiles(output.names.bundle, parts, output.intermediatesInBundle ? intermediates : []),
      secret(output.names.combined, svid.toPem().key + pemOf(chain), output),
    ];
  },

  /** SPIFFE Filesystem Delivery (a draft): key and chain in one file, the key first, and a file for each trust domain. */
  folder(parts) {
    const { output, svid, own, others } = parts;
    const bundleOf = (bundle: Bundle) => {
      const pem = pemOf(authoritiesOf(bundle, parts));
      return text(`${bundle.trustDomain}${output.names.trustBundleSuffix}`, pem, output.certMode.bits);
    };
    const pem = svid.toPem().key + pemOf(current(svid.chain, parts));
    return [bundleOf(own), ...trusted(others, parts).map(bundleOf), secret(output.names.credentialBundle, pem, output)];
  },

  pkcs12(parts) {
    const { output, svid, own, others, password } = parts;
    const truststore = (name: string, bundle: Bundle): FileContent => {
      const entries = authoritiesOf(bundle, parts).map((one, index) => ({ der: one.raw, alias: `${bundle.trustDomain}-${index}` }));
      return { name, data: writeTruststore(entries, password), mode: output.certMode.bits, secret: false };
    };
    const chainDer = current(svid.chain, parts).map((one) => one.raw);
    const keystore = writeKeystore({ keyPkcs8Der: svid.keyPkcs8Der(), chainDer, alias: 'spiffe' }, password);
    const separate = output.federated === 'separate' ? trusted(others, parts) : [];
    return [
      truststore(output.names.truststore, own),
      ...separate.map((bundle) => truststore(besideName(output.names.truststore, bundle), bundle)),
      { name: output.names.keystore, data: keystore, mode: output.keyMode.bits, secret: true },
    ];
  },
};

/** The bundle's file, and those of federated trust domains. */
function bundleFiles(name: string, parts: Parts, intermediates: readonly Certificate[]): FileContent[] {
  const { output, own, others } = parts;
  const federated = output.federated === 'none' ? [] : trusted(others, parts);
  const merged = output.federated === 'merged' ? federated.flatMap((bundle) => authoritiesOf(bundle, parts)) : [];
  const separate = output.federated === 'separate' ? federated : [];
  return [
    text(name, pemOf([...authoritiesOf(own, parts), ...intermediates, ...merged]), output.certMode.bits),
    ...separate.map((bundle) => text(besideName(name, bundle), pemOf(authoritiesOf(bundle, parts)), output.certMode.bits)),
  ];
}

/** `svid_bundle.pem` → `svid_bundle.other.org.pem`. */
function besideName(name: string, { trustDomain }: Bundle): string {
  const ending = extname(name);
  return `${name.slice(0, name.length - ending.length)}.${trustDomain}${ending}`;
}

/** Those that have an authority: an empty file would be taken for a broken one. */
function trusted(bundles: readonly Bundle[], parts: Parts): Bundle[] {
  return bundles.filter((bundle) => current(bundle.x509.authorities, parts).length > 0);
}

/** Throws BUNDLE_MISSING rather than giving none. */
function authoritiesOf(bundle: Bundle, parts: Parts): readonly Certificate[] {
  const authorities = current(bundle.x509.authorities, parts);
  if (authorities.length === 0)
    throw new SpiffeError(
      'BUNDLE_MISSING',
      'X509_BUNDLE_EMPTY',
      `the bundle of ${bundle.trustDomain} has no authority that has not expired`,
    );
  return authorities;
}

/** `omit_expired`. */
function current<C extends readonly Certificate[]>(certificates: C, { output, nowMs }: Parts): readonly [Certificate, ...Certificate[]] {
  const kept = output.omitExpired ? certificates.filter((one) => one.notAfterMs > nowMs) : certificates;
  return kept as readonly Certificate[] as readonly [Certificate, ...Certificate[]];
}

function pemOf(certificates: readonly Certificate[]): string {
  return certificates.map((one) => formatPem('CERTIFICATE', one.raw)).join('');
}

function text(name: string, pem: string, mode: number): FileContent {
  return { name, data: Buffer.from(pem), mode, secret: false };
}

function secret(name: string, pem: string, output: X509Output): FileContent {
  return { name, data: Buffer.from(pem), mode: output.keyMode.bits, secret: true };
}
