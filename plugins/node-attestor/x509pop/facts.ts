/** What a verified certificate says of its node: SPIRE's selectors, and the values of path templates. */
import { createHash } from 'node:crypto';
import type { TemplateValues } from '../../../core/path-template.ts';
import type { Certificate } from '../../../spiffe/x509/certificate.ts';
import type { TrustDomain } from '../../../spiffe/id.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { sameAuthority, verifyCertificatePath } from '../../../spiffe/x509/path.ts';
import { type Name, readName } from '../../../spiffe/x509/x500-name.ts';
import { NAME } from './settings.ts';

/** SHA-1 of the DER, lower-case hex: a name of SPIRE's choosing, not a signature. */
export function fingerprint(certificate: Certificate): string {
  return createHash('sha1').update(certificate.raw).digest('hex');
}

/** Lower-case hex of whole octets. */
function serialNumberHex({ serialHex }: Certificate): string {
  return serialHex.length % 2 === 0 ? serialHex : `0${serialHex}`;
}

/** `x509pop://<trust domain>/<key>/<value>` alternative names; the last of one key wins, as in SPIRE. @param strange is told those without a key or a value. */
export function uriSanSelectors(
  { uris }: Certificate,
  trustDomain: TrustDomain,
  strange: (uri: string) => void,
): ReadonlyMap<string, string> {
  const prefix = `${NAME}://${trustDomain}/`;
  const selectors = new Map<string, string>();
  for (const uri of uris) {
    // the scheme alone knows no case
    if (uri.slice(0, NAME.length).toLowerCase() + uri.slice(NAME.length, prefix.length) !== prefix) continue;
    const [, key, value] = /^([^/]+)\/(.+)$/s.exec(decoded(uri.slice(prefix.length).replace(/[?#].*$/s, ''))) ?? [];
    if (key === undefined || value === undefined) strange(uri);
    else selectors.set(key, value);
  }
  return selectors;
}

/** Percent-decoded, without slashes around it; '' for what is malformed. */
function decoded(path: string): string {
  let text: string;
  try {
    text = decodeURIComponent(path);
  } catch {
    return '';
  }
  let [from, to] = [0, text.length];
  while (from < to && text[from] === '/') from++;
  while (to > from && text[to - 1] === '/') to--;
  return text.slice(from, to);
}

/** @param authorities everything above the leaf on any of its paths. */
export function selectorsOf(leaf: Certificate, authorities: readonly Certificate[], sans: ReadonlyMap<string, string>): readonly string[] {
  const commonName = lastOf(leaf.subjectName, '2.5.4.3');
  return [
    ...(commonName === '' ? [] : [`subject:cn:${commonName}`]),
    ...authorities.map((one) => `ca:fingerprint:${fingerprint(one)}`),
    `serialnumber:${serialNumberHex(leaf)}`,
    ...[...sans].map(([key, value]) => `san:${key}:${value}`),
  ];
}

/**
 * Every intermediate and root that lies on some path of the leaf, each once: SPIRE tells the fingerprints of all paths, and which of them is found
 * first must not decide what a node may have.
 * @param found one path, leaf first.
 */
export function authoritiesOf(
  found: readonly Certificate[],
  intermediates: readonly Certificate[],
  roots: readonly Certificate[],
  nowMs: number,
): readonly Certificate[] {
  const [leaf, ...above] = found;
  if (!leaf) return [];
  const all = new Map(above.map((one) => [one.sha256, one]));
  const look = (through: readonly Certificate[], anchors: readonly Certificate[], demanded?: Certificate) => {
    try {
      const path = verifyCertificatePath(leaf, through, anchors, { nowMs, ...(demanded && { through: [demanded] }) });
      for (const one of path.slice(1)) all.set(one.sha256, one);
    } catch (error) {
      if (!(error instanceof SpiffeError)) throw error;
    }
  };
  const issuers = [leaf, ...intermediates].map((one) => one.issuer);
  for (const root of roots) if (!all.has(root.sha256) && issuers.some((issuer) => issuer.equals(root.subject))) look(intermediates, [root]);
  for (const one of intermediates) {
    if (all.has(one.sha256)) continue;
    // without its doubles, so that the path runs through this very certificate
    const others = (some: readonly Certificate[]) => some.filter((other) => other === one || !sameAuthority(other, one));
    look(others(intermediates), others(roots), one);
  }
  return [...all.values()];
}

export function templateValues(leaf: Certificate, trustDomain: TrustDomain, sans: ReadonlyMap<string, string>): TemplateValues {
  return {
    PluginName: NAME,
    TrustDomain: trustDomain.name,
    Fingerprint: fingerprint(leaf),
    SerialNumberHex: serialNumberHex(leaf),
    SerialNumber: leaf.serialNumber,
    Subject: nameValues(leaf.subjectName),
    Issuer: nameValues(readName(leaf.issuer)),
    DNSNames: leaf.dnsNames,
    URISanSelectors: sans,
  };
}

/** As Go's pkix.Name: of two names and serial numbers the last, of the others all. */
function nameValues(name: Name): TemplateValues {
  const all = (oid: string) => name.flat().flatMap((attribute) => (attribute.oid === oid ? [attribute.value] : []));
  return {
    CommonName: lastOf(name, '2.5.4.3'),
    SerialNumber: lastOf(name, '2.5.4.5'),
    Country: all('2.5.4.6'),
    Organization: all('2.5.4.10'),
    OrganizationalUnit: all('2.5.4.11'),
    Locality: all('2.5.4.7'),
    Province: all('2.5.4.8'),
    StreetAddress: all('2.5.4.9'),
    PostalCode: all('2.5.4.17'),
  };
}

function lastOf(name: Name, oid: string): string {
  return name.flat().findLast((attribute) => attribute.oid === oid)?.value ?? '';
}
