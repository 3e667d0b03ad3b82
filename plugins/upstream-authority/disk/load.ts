/** What the PKI team handed over, read as a set and tried out before it is used: each fault says what is wrong with which certificate, and what to ask for. */
import { X509Bundle } from '../../../spiffe/x509/x509-bundle.ts';
import { createHash, createPublicKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { checkPrivate } from '../../../core/durable-file.ts';
import { type CoreError, fail } from '../../../core/errors.ts';
import { localSigningKey } from '../../../core/local-key.ts';
import type { SigningKey } from '../../../core/plugin/key-manager.ts';
import { issueX509Ca, issueX509Svid, type Issuer } from '../../../core/x509/issue.ts';
import { generateEcKey, keyTypeOf, parsePrivateKeyPem, spkiDer } from '../../../core/x509/key.ts';
import { type Certificate, certificatesFromPem } from '../../../spiffe/x509/certificate.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { SpiffeId, type TrustDomain } from '../../../spiffe/id.ts';
import { isSelfSigned } from '../../../spiffe/x509/path.ts';
import { verifyX509Svid } from '../../../spiffe/x509/x509-svid.ts';
import type { DiskSettings } from './settings.ts';

export interface Loaded {
  readonly key: SigningKey;
  /** The issuing certificate, then its issuers, without the root. For a self-signed root: itself. */
  readonly chain: readonly Certificate[];
  readonly roots: readonly Certificate[];
  readonly selfSigned: boolean;
  readonly notBeforeMs: number;
  /** Of the first to end on the way up, the root too. */
  readonly notAfterMs: number;
  /** Tells one set of files from another. */
  readonly digest: string;
}

type Handed = Omit<Loaded, 'notAfterMs'>;

/** Throws SETTINGS_INVALID. */
export async function loadIntermediate(settings: DiskSettings, trustDomain: TrustDomain, nowMs: number): Promise<Loaded> {
  if (!settings.insecure_key_file_mode) await checkPrivate(settings.key_file_path, ', or set insecure_key_file_mode = true');
  const [certPem, keyPem, bundlePem] = await Promise.all([
    read(settings.cert_file_path),
    read(settings.key_file_path),
    settings.bundle_file_path === undefined ? undefined : read(settings.bundle_file_path),
  ]);
  const chain = certificates(settings.cert_file_path, certPem);
  const [issuing] = chain;
  if (!issuing)
    throw fault(
      `${settings.cert_file_path} holds no certificate: it must hold the issuing certificate, then its issuers up to but without the root`,
    );

  const privateKey = under(settings.key_file_path, () => parsePrivateKeyPem(keyPem));
  const type = keyTypeOf(privateKey);
  if (!type) throw fault(`${settings.key_file_path}: a key of a type that is not taken (ec-p256, ec-p384, rsa-2048 and rsa-4096 are)`);
  if (!createPublicKey(privateKey).export({ type: 'spki', format: 'der' }).equals(issuing.spkiDer)) {
    throw fault(
      `the key in ${settings.key_file_path} does not match ${issuing} in ${settings.cert_file_path}: ask the PKI team which key belongs to it`,
    );
  }

  const selfSigned = isSelfSigned(issuing);
  if (selfSigned && !settings.insecure_self_signed_root) {
    throw fault(
      `${issuing} is a self-signed root: ask the PKI team for an intermediate, or set insecure_self_signed_root = true if this file shall be the root of ${trustDomain}`,
    );
  }
  if (bundlePem === undefined && !selfSigned)
    throw fault('bundle_file_path is missing: it must name the roots that the chain in cert_file_path leads to');
  const roots =
    bundlePem !== undefined && settings.bundle_file_path !== undefined ? certificates(settings.bundle_file_path, bundlePem) : [issuing];
  if (roots.length === 0) throw fault(`${settings.bundle_file_path} holds no certificate`);

  const loaded: Handed = {
    key: localSigningKey('upstream', type, privateKey),
    chain: selfSigned ? [issuing] : chain.filter((one) => !roots.some((root) => root.equals(one))),
    roots,
    selfSigned,
    notBeforeMs: issuing.notBeforeMs,
    digest: createHash('sha256')
      .update(issuing.sha256)
      .update(chain.map((one) => one.sha256).join())
      .update(roots.map((one) => one.sha256).join())
      .digest('hex'),
  };
  const path = await tryOut(loaded, settings, trustDomain, nowMs);
  return { ...loaded, notAfterMs: Math.min(...path.map((one) => one.notAfterMs)) };
}

async function read(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((cause: Error) => {
    throw fail('SETTINGS_INVALID', `${path} cannot be read: ${cause.message}`, { cause });
  });
}

function under<T>(path: string, parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    throw fail('SETTINGS_INVALID', `${path}: ${(cause as Error).message}`, { cause });
  }
}

function certificates(path: string, pem: string): readonly Certificate[] {
  return under(path, () => certificatesFromPem(pem));
}

function fault(message: string): CoreError {
  return fail('SETTINGS_INVALID', message);
}

/** What to ask for, by the rule of path validation that failed. */
const ADVICE: Readonly<Record<string, string>> = {
  X509_ISSUER_EXPIRED: 'ask the PKI team for a renewed certificate',
  X509_ISSUER_NOT_YET_VALID: 'wait until it is valid, or set the clock right',
  X509_ISSUER_UNKNOWN: 'cert_file_path must hold the whole chain without the root, bundle_file_path the root that it leads to',
  X509_SIGNATURE: 'a certificate of that name is there, but it is another one: ask the PKI team for the root that signed this chain',
  X509_OUTSIDE_NAME_CONSTRAINTS: 'its name constraints forbid our SPIFFE IDs: ask the PKI team to permit the URI host of the trust domain',
};

/**
 * Issues an SVID (and a CA, if we shall make one) with keys that are thrown away, and verifies it as any peer would: no rule is written twice.
 * Gives the issuing certificate and what is above it, up to the root.
 */
async function tryOut(loaded: Handed, settings: DiskSettings, trustDomain: TrustDomain, nowMs: number): Promise<readonly Certificate[]> {
  const [issuing] = loaded.chain;
  if (!issuing)
    throw fault(`${settings.cert_file_path} holds only what ${settings.bundle_file_path} holds too: it must begin with the intermediate`);
  if (!issuing.isCa)
    throw fault(`${issuing} is no CA certificate (basic constraints CA:FALSE): ask the PKI team for an intermediate CA with keyCertSign`);
  if (issuing.keyUsage && !issuing.keyUsage.has('keyCertSign'))
    throw fault(`${issuing} lacks the key usage keyCertSign: ask the PKI team for an intermediate CA with it`);
  if (!settings.sign_directly && issuing.pathLen === 0) {
    throw fault(
      `${issuing} has pathlen:0 and allows no CA below it: set sign_directly = true so that SVIDs are signed with it, or ask the PKI team for an intermediate with pathlen:1 or more`,
    );
  }
  const times = { notBeforeMs: Math.max(nowMs - 1000, issuing.notBeforeMs), notAfterMs: Math.min(nowMs + 60_000, issuing.notAfterMs) };
  if (nowMs < issuing.notBeforeMs)
    throw fault(`${issuing} is not valid before ${new Date(issuing.notBeforeMs).toISOString()}: ${ADVICE['X509_ISSUER_NOT_YET_VALID']}`);
  if (!issuing.isWithinValidity(nowMs))
    throw fault(`${issuing} expired at ${new Date(issuing.notAfterMs).toISOString()}: ${ADVICE['X509_ISSUER_EXPIRED']}`);
  try {
    const chain = [...loaded.chain];
    let issuer: Issuer = { certificate: issuing, key: loaded.key };
    if (!settings.sign_directly) {
      const key = localSigningKey('trial', 'ec-p256', generateEcKey());
      const { certificate } = await issueX509Ca({ issuer, key, trustDomain, subject: CA_SUBJECT, ...times });
      issuer = { certificate, key };
      chain.unshift(certificate);
    }
    const { certificate } = await issueX509Svid({
      issuer,
      spkiDer: spkiDer(generateEcKey()),
      spiffeId: SpiffeId.of(trustDomain, '/trial'),
      ...times,
    });
    // of two roots that both fit, the one that lasts
    const roots = [...loaded.roots].sort((a, b) => b.notAfterMs - a.notAfterMs);
    const bundle = X509Bundle.fromDer(trustDomain, Buffer.concat(roots.map((one) => one.raw)));
    const verified = verifyX509Svid([certificate, ...(loaded.selfSigned ? chain.slice(0, -1) : chain)], bundle, { nowMs });
    return verified.chain.slice(settings.sign_directly ? 1 : 2);
  } catch (cause) {
    if (!(cause instanceof SpiffeError)) throw cause;
    const advice =
      ADVICE[cause.reason ?? ''] ??
      (cause.reason === 'X509_PATH_LEN' ? pathLenAdvice(settings) : 'ask the PKI team for an intermediate CA without it');
    throw fail('SETTINGS_INVALID', `${settings.cert_file_path} cannot issue for ${trustDomain}: ${cause.message}; ${advice}`, { cause });
  }
}

/** SPIRE's default: name constraints on directory names look at it. */
const CA_SUBJECT = { country: ['US'], organization: ['SPIFFE'] };

function pathLenAdvice({ sign_directly }: DiskSettings): string {
  return sign_directly
    ? 'ask the PKI team for a chain whose path lengths allow it'
    : 'set sign_directly = true, or ask the PKI team for path lengths that allow one more CA';
}
