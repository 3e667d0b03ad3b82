/** Whether a folder of identity files is good, whoever wrote them: keys fit, chains end in a bundle, nothing has expired, nobody can read or write what he should not. */
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fail } from '../../core/errors.ts';
import { Bundle } from '../../spiffe/bundle/bundle.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { parseJwtSvidUnverified } from '../../spiffe/jwt/jwt-svid.ts';
import { Certificate } from '../../spiffe/x509/certificate.ts';
import { verifyCertificatePath } from '../../spiffe/x509/path.ts';
import { parsePem } from '../../spiffe/x509/pem.ts';

export interface Finding {
  readonly file: string;
  readonly severity: 'fault' | 'warning';
  readonly what: string;
}

export interface CheckedFile {
  readonly file: string;
  /** `svid`, `key`, `svid+key`, `bundle`, `token`, `bundle document`, `keystore`, `other`. */
  readonly kind: string;
  readonly id: string | undefined;
  readonly expiresMs: number | undefined;
  readonly mode: number;
}

export interface Report {
  readonly files: readonly CheckedFile[];
  readonly findings: readonly Finding[];
}

/** One file, read. */
interface Seen {
  readonly file: string;
  readonly mode: number;
  readonly certificates: readonly Certificate[];
  readonly keys: readonly KeyObject[];
  readonly token: { readonly id: SpiffeId; readonly expiresMs: number } | undefined;
  readonly kind: string;
  readonly fault: string | undefined;
}

/** Beyond it a file is no identity. */
const MAX_BYTES = 4 * 1024 * 1024;
/** What is left of a lifetime when renewal, which comes at half, must have failed. */
const WARNING_PART = 1 / 3;

/** Links are followed; names that begin with a dot are left out. Throws NOT_FOUND when the folder can't be read. */
export async function checkFolder(directory: string, nowMs: number): Promise<Report> {
  const names = await readdir(directory).catch((cause: Error) => {
    throw fail('NOT_FOUND', `the folder ${JSON.stringify(directory)} can't be read: ${cause.message}`, { cause });
  });
  const findings: Finding[] = [];
  const say = (severity: Finding['severity']) => (file: string, what: string) => void findings.push({ file, severity, what });
  const [fault, warning] = [say('fault'), say('warning')];
  const folderMode = (await stat(directory)).mode;
  if ((folderMode & 0o022) !== 0 && (folderMode & 0o1000) === 0)
    fault('.', `mode ${octal(folderMode)} lets others put their own files here`);

  const all: Seen[] = [];
  for (const name of names.filter((one) => !one.startsWith('.')).sort()) {
    const seen = await read(directory, name).catch((error: Error) => {
      fault(name, error.message);
      return undefined;
    });
    if (seen) all.push(seen);
  }
  for (const one of all) {
    if (one.fault !== undefined) fault(one.file, one.fault);
    if ((one.mode & 0o022) !== 0) fault(one.file, `mode ${octal(one.mode)} lets others write to it`);
    if (one.keys.length > 0 && (one.mode & 0o004) !== 0) fault(one.file, `mode ${octal(one.mode)} lets everybody read a private key`);
    // what is inside can't be seen without its password
    if (one.kind === 'keystore' && !/trust/i.test(one.file) && (one.mode & 0o004) !== 0)
      fault(one.file, `mode ${octal(one.mode)} lets everybody read a keystore`);
    if (one.token && (one.mode & 0o004) !== 0) warning(one.file, `mode ${octal(one.mode)} lets everybody read a token`);
    if (one.token && one.token.expiresMs <= nowMs) fault(one.file, `the token expired at ${iso(one.token.expiresMs)}`);
  }
  const bundles = all.filter((one) => one.kind === 'bundle');
  for (const one of bundles) {
    const domains = new Set(one.certificates.map(trustDomainOf).filter((name) => name !== undefined));
    if (domains.size > 1)
      fault(
        one.file,
        `authorities of several trust domains (${[...domains].sort().join(', ')}): each of them can vouch for identities of the others`,
      );
    for (const authority of one.certificates)
      if (authority.notAfterMs <= nowMs) warning(one.file, `the authority ${authority} expired at ${iso(authority.notAfterMs)}`);
  }
  for (const one of all.filter(({ kind }) => kind.startsWith('svid'))) {
    const [leaf, ...intermediates] = one.certificates as [Certificate, ...Certificate[]];
    const leftMs = leaf.notAfterMs - nowMs;
    if (leftMs <= 0) fault(one.file, `expired at ${iso(leaf.notAfterMs)}`);
    else if (leaf.notBeforeMs > nowMs) fault(one.file, `is valid only from ${iso(leaf.notBeforeMs)} on`);
    else if (leftMs < (leaf.notAfterMs - leaf.notBeforeMs) * WARNING_PART)
      warning(one.file, `ends soon, at ${iso(leaf.notAfterMs)}, and was not renewed`);
    const keyed = all.filter(({ keys }) => keys.some((key) => belongs(key, leaf)));
    if (one.keys.length > 0 && !keyed.includes(one)) fault(one.file, 'its private key is not that of its certificate');
    else if (keyed.length === 0) fault(one.file, 'no file here holds its private key');
    const own = trustDomainOf(leaf);
    const trusted = bundles.filter(
      ({ file }) => own === undefined || !file.endsWith('.trust-bundle.pem') || file === `${own}.trust-bundle.pem`,
    );
    if (trusted.length === 0) fault(one.file, 'no file here holds a bundle of its trust domain');
    else if (leftMs > 0) {
      try {
        verifyCertificatePath(
          leaf,
          intermediates,
          trusted.flatMap((bundle) => bundle.certificates),
          { nowMs },
        );
      } catch (error) {
        fault(one.file, (error as Error).message);
      }
    }
  }
  const leaves = all.filter(({ kind }) => kind.startsWith('svid')).map(({ certificates }) => certificates[0] as Certificate);
  for (const one of all.filter(({ kind }) => kind === 'key'))
    if (!one.keys.some((key) => leaves.some((leaf) => belongs(key, leaf))))
      fault(one.file, 'no certificate here belongs to this private key');
  if (!all.some(({ kind }) => kind !== 'other')) fault('.', 'no identity files here');
  return { files: all.map(asChecked), findings };
}

async function read(directory: string, file: string): Promise<Seen | undefined> {
  const path = join(directory, file);
  const found = await stat(path);
  if (found.isDirectory()) return undefined;
  if (!found.isFile()) throw new Error('is no file');
  const empty = { file, mode: found.mode & 0o7777, certificates: [], keys: [], token: undefined, fault: undefined };
  if (found.size > MAX_BYTES) return { ...empty, kind: 'other' };
  const data = await readFile(path);
  if (/\.(p12|pfx|jks)$/.test(file)) return { ...empty, kind: 'keystore', fault: data.length === 0 ? 'is empty' : undefined };
  if (data.length === 0) return { ...empty, kind: 'other', fault: 'is empty' };
  const text = data.toString('latin1');
  try {
    if (text.includes('-----BEGIN ')) return { ...empty, ...readPem(data) };
    if (file.endsWith('.json')) return { ...empty, kind: documentKind(data) };
    if (/^[\w-]+\.[\w-]+\.[\w-]+\s*$/.test(text)) {
      const { id, expiresMs } = parseJwtSvidUnverified(text.trim());
      return { ...empty, kind: 'token', token: { id, expiresMs } };
    }
  } catch (error) {
    return { ...empty, kind: 'other', fault: (error as Error).message };
  }
  return { ...empty, kind: 'other' };
}

function readPem(data: Buffer): Pick<Seen, 'certificates' | 'keys' | 'kind'> {
  const blocks = parsePem(data);
  const certificates = blocks.filter(({ label }) => label === 'CERTIFICATE').map(({ der }) => Certificate.parse(der));
  const keys = blocks
    .filter(({ label }) => label.endsWith('PRIVATE KEY'))
    .map(({ label, der }) =>
      createPrivateKey({ key: der, format: 'der', type: label === 'PRIVATE KEY' ? 'pkcs8' : label.startsWith('EC') ? 'sec1' : 'pkcs1' }),
    );
  const hasLeaf = certificates[0] !== undefined && !certificates[0].isCa;
  const kind = hasLeaf ? (keys.length > 0 ? 'svid+key' : 'svid') : certificates.length > 0 ? 'bundle' : keys.length > 0 ? 'key' : 'other';
  return { certificates, keys, kind };
}

/** Throws for what is no JSON. */
function documentKind(data: Buffer): string {
  const document = JSON.parse(data.toString('utf8')) as unknown;
  if (typeof document !== 'object' || document === null) return 'other';
  if ('keys' in document) {
    Bundle.fromJson(TrustDomain.parse('checked'), data);
    return 'bundle document';
  }
  return 'other';
}

function asChecked({ file, kind, certificates, token, mode }: Seen): CheckedFile {
  const [first] = certificates;
  const isSvid = kind.startsWith('svid') && first;
  const id = token
    ? String(token.id)
    : isSvid
      ? (idOf(first) ?? String(first))
      : kind === 'bundle' && first
        ? trustDomainOf(first)
        : undefined;
  return { file, kind, id, expiresMs: token?.expiresMs ?? (isSvid ? first.notAfterMs : undefined), mode };
}

function idOf(certificate: Certificate): string | undefined {
  return certificate.uris.find((uri) => SpiffeId.is(uri));
}

function trustDomainOf(certificate: Certificate): string | undefined {
  const id = idOf(certificate);
  return id === undefined ? undefined : SpiffeId.parse(id).trustDomain.name;
}

function belongs(key: KeyObject, leaf: Certificate): boolean {
  return createPublicKey(key).export({ type: 'spki', format: 'der' }).equals(leaf.spkiDer);
}

function octal(mode: number): string {
  return `0${(mode & 0o7777).toString(8)}`;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
