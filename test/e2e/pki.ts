/** An enterprise's PKI, made by openssl and by nothing of ours: a root, the intermediate it hands to us, and certificates of machines. */
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export type KeyType = 'ec-p256' | 'ec-p384' | 'rsa-2048' | 'rsa-4096';

export interface Pki {
  /** PEM files. `chain` holds the intermediate followed by nothing; the root stands alone in `root`. */
  readonly root: string;
  readonly intermediate: string;
  readonly intermediateKey: string;
  /** The CA that machines' certificates come from (x509pop). */
  readonly machineCa: string;
  /** A machine's certificate and key, signed by `machineCa`. */
  machine(name: string): { readonly certificate: string; readonly key: string; readonly sha1: string };
  /** Whatever an intermediate signs: a leaf with this SPIFFE ID, whoever it belongs to. `serial`: hex, without it one of openssl's choice. */
  issueLeaf(
    name: string,
    options: { readonly issuer: { readonly certificate: string; readonly key: string }; readonly id: string; readonly serial?: string },
  ): { readonly certificate: string; readonly key: string };
  /** A further intermediate under the same root. `key`: over an existing key, as a renewal. */
  issueIntermediate(name: string, options?: IntermediateOptions): { readonly certificate: string; readonly key: string };
}

export interface IntermediateOptions {
  readonly keyType?: KeyType;
  /** Default: none, so a CA below is allowed. 0 forbids it. */
  readonly pathlen?: number;
  readonly days?: number;
  readonly key?: string;
  /** More lines of the extension section, as openssl's configuration writes them. */
  readonly extensions?: readonly string[];
}

function openssl(...groups: readonly (readonly string[])[]): void {
  const args = groups.flat();
  try {
    execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (cause) {
    throw new Error(`openssl ${args.join(' ')} failed; the stories need the program openssl on the PATH`, { cause });
  }
}

const NEW_KEY: Readonly<{ [K in KeyType]: readonly string[] }> = {
  'ec-p256': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  'ec-p384': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-384'],
  'rsa-2048': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'],
  'rsa-4096': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:4096'],
};

/** Makes the PKI's files below `dir` (created, 0755; keys 0600). */
export function createPki(dir: string, options: IntermediateOptions = {}): Pki {
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  const at = (name: string) => join(dir, name);

  const newKey = (name: string, type: KeyType): string => {
    const file = at(`${name}.key`);
    openssl(['genpkey', ...NEW_KEY[type], '-out', file]);
    chmodSync(file, 0o600);
    return file;
  };

  const selfSigned = (name: string, subject: string): { certificate: string; key: string } => {
    const key = newKey(name, 'ec-p256');
    const certificate = at(`${name}.pem`);
    openssl(
      ['req', '-x509', '-new', '-key', key, '-sha256', '-days', '30', '-subj', subject, '-out', certificate],
      ['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
      ['-addext', 'subjectKeyIdentifier=hash'],
    );
    return { certificate, key };
  };

  const signed = (
    name: string,
    issuer: { certificate: string; key: string },
    key: string,
    subject: string,
    extensions: readonly string[],
    days = 10,
    serial?: string,
  ): string => {
    const [csr, rules, certificate] = [at(`${name}.csr`), at(`${name}.ext`), at(`${name}.pem`)];
    writeFileSync(rules, `${extensions.join('\n')}\n`);
    openssl(['req', '-new', '-key', key, '-subj', subject, '-out', csr]);
    openssl(
      [
        'x509',
        '-req',
        '-in',
        csr,
        '-CA',
        issuer.certificate,
        '-CAkey',
        issuer.key,
        '-sha256',
        ...(serial ? ['-set_serial', `0x${serial}`] : ['-CAcreateserial']),
      ],
      ['-days', String(days), '-extfile', rules, '-out', certificate],
    );
    return certificate;
  };

  const root = selfSigned('root', '/C=JP/O=Example Holdings/CN=Example Enterprise Root');
  const machines = selfSigned('machines', '/C=JP/O=Example Holdings/CN=Example Machines');

  const issueIntermediate = (name: string, wanted: IntermediateOptions = {}) => {
    const key = wanted.key ?? newKey(name, wanted.keyType ?? 'ec-p256');
    const limit = wanted.pathlen === undefined ? '' : `,pathlen:${wanted.pathlen}`;
    const extensions = [
      `basicConstraints=critical,CA:TRUE${limit}`,
      'keyUsage=critical,keyCertSign,cRLSign',
      'subjectKeyIdentifier=hash',
      'authorityKeyIdentifier=keyid',
      ...(wanted.extensions ?? []),
    ];
    const certificate = signed(name, root, key, `/C=JP/O=Example Holdings/CN=Example Workloads ${name}`, extensions, wanted.days);
    return { certificate, key };
  };

  const first = issueIntermediate('intermediate', options);
  return {
    root: root.certificate,
    intermediate: first.certificate,
    intermediateKey: first.key,
    machineCa: machines.certificate,
    issueIntermediate,
    issueLeaf(name, { issuer, id, serial }) {
      const key = newKey(name, 'ec-p256');
      const extensions = [
        'basicConstraints=critical,CA:FALSE',
        'keyUsage=critical,digitalSignature',
        'extendedKeyUsage=serverAuth,clientAuth',
        'subjectKeyIdentifier=hash',
        'authorityKeyIdentifier=keyid',
        `subjectAltName=URI:${id}`,
      ];
      return { certificate: signed(name, issuer, key, '/O=Somebody', extensions, 1, serial), key };
    },
    machine(name) {
      const key = newKey(`machine-${name}`, 'ec-p256');
      const certificate = signed(`machine-${name}`, machines, key, `/O=Example Holdings/CN=${name}`, [
        'basicConstraints=critical,CA:FALSE',
        'keyUsage=critical,digitalSignature',
      ]);
      const sha1 = new X509Certificate(readFileSync(certificate)).fingerprint.replaceAll(':', '').toLowerCase();
      return { certificate, key, sha1 };
    },
  };
}
