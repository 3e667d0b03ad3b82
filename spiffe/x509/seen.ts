/** Peers come back: a certificate that was verified before is not read again, and its signature not checked again. Whether it may be used now is judged anew each time. */
import { hash } from 'node:crypto';
import { Certificate } from './certificate.ts';

/** As many peers, with their intermediates, as one server has to do with at a time. */
const MAX_SEEN = 256;

/** By the SHA-256 of the DER; the one that was not asked for the longest first. */
const seen = new Map<string, Certificate>();

/** One certificate, read or known. Throws as `Certificate.parse`. */
export function seenCertificate(der: Uint8Array): Certificate {
  return seen.get(hash('sha256', der, 'hex')) ?? Certificate.parse(der);
}

/** Keeps what a path was found through. Only that: whoever is refused can't fill the memory with certificates that he makes up. */
export function keepSeen(chain: readonly Certificate[]): void {
  for (const certificate of chain) {
    // to the end: it was asked for just now
    seen.delete(certificate.sha256);
    seen.set(certificate.sha256, certificate);
  }
  for (const oldest of seen.keys()) {
    if (seen.size <= MAX_SEEN) return;
    seen.delete(oldest);
  }
}

/** Signatures that were found good. Both certificates never change, so neither does that. */
const good = new WeakMap<Certificate, WeakSet<Certificate>>();

/** `check`, asked once for what it says yes to. */
export function signatureKnown(child: Certificate, issuer: Certificate, check: () => boolean): boolean {
  if (good.get(child)?.has(issuer)) return true;
  if (!check()) return false;
  const issuers = good.get(child) ?? new WeakSet();
  good.set(child, issuers.add(issuer));
  return true;
}
