/** The server's side of x509pop: a node is who its certificate says, if a PKI that we were told to trust signed it and the node holds its key. */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { type CoreError, fail } from '../../../core/errors.ts';
import type { AttestRequest, NodeAttestor } from '../../../core/plugin/node-attestor.ts';
import { definePlugin, type Host } from '../../../core/plugin/plugin.ts';
import { isStop } from '../../../core/tasks.ts';
import { Certificate, certificatesFromPem } from '../../../spiffe/x509/certificate.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { verifyCertificatePath } from '../../../spiffe/x509/path.ts';
import { authoritiesOf, selectorsOf, templateValues, uriSanSelectors } from './facts.ts';
import { checkAnswer, makeChallenge, readPayload } from './proof.ts';
import { DEFAULT_TEMPLATE, NAME, type ServerSettings, serverSettings } from './settings.ts';

export const serverX509pop = definePlugin({
  kind: 'server-node-attestor',
  name: NAME,
  settings: serverSettings,
  async start(settings, host): Promise<NodeAttestor> {
    const paths = settings.ca_bundle_path === undefined ? (settings.ca_bundle_paths ?? []) : [settings.ca_bundle_path];
    const reloads = host.reloads.value;
    const trusted = { roots: await loadRoots(paths) };
    void follow(paths, host, trusted, reloads).catch((error: unknown) => {
      if (!isStop(error, host.signal)) host.log.error('The CA bundle of a node attestor is no longer read again', { plugin: NAME, error });
    });
    const template = settings.agent_path_template ?? DEFAULT_TEMPLATE;
    return {
      async attest(request, challenge, signal) {
        const { roots } = trusted;
        const nowMs = host.clock.now();
        const [leaf, ...intermediates] = presented(request.payload, settings);
        if (!leaf) throw fail('REQUEST_INVALID', 'no certificate to attest');
        const path = verified(() => verifyCertificatePath(leaf, intermediates, roots, { nowMs }));
        if (settings.verify_client_ip) checkAddress(leaf, request);
        await prove(leaf, challenge, signal);

        const { trustDomain } = request;
        const sans = uriSanSelectors(leaf, trustDomain, (uri) =>
          host.log.warn('A URI of a node certificate has no key and value for a selector', { plugin: NAME, uri }),
        );
        const values = templateValues(leaf, trustDomain, sans);
        return {
          agentPath: under('DENIED', 'failed to make spiffe id', () => template.render(values, trustDomain)),
          selectors: selectorsOf(leaf, authoritiesOf(path, intermediates, roots, nowMs), sans),
          canReattest: true,
        };
      },
    };
  },
});

/** The node's certificate, then its intermediates; counted before they are read, and read before any signature is checked. Throws REQUEST_INVALID. */
function presented(payload: Buffer, { max_intermediates: most, max_rsa_key_size: maxBits }: ServerSettings): readonly Certificate[] {
  const all = under('REQUEST_INVALID', 'failed to unmarshal data', () => readPayload(payload));
  if (all.length - 1 > most) throw fail('REQUEST_INVALID', `too many intermediate certificates: at most ${most}`);
  return all.map((der, i) => {
    const certificate = under(
      'REQUEST_INVALID',
      `unable to parse ${i === 0 ? 'leaf certificate' : `intermediate certificate ${i - 1}`}`,
      () => Certificate.parse(der),
    );
    const { keyKind } = certificate;
    if ('bits' in keyKind && keyKind.bits > maxBits)
      throw fail(
        'REQUEST_INVALID',
        i === 0 ? 'leaf certificate key size too large' : `intermediate certificate ${i - 1} key size too large`,
      );
    // Text that is not what it says could be one name here and another one elsewhere.
    if (i === 0 && certificate.subjectName.flat().some(({ value }) => value.includes('\uFFFD')))
      throw fail('REQUEST_INVALID', 'unable to parse leaf certificate: a subject that is not UTF-8');
    return certificate;
  });
}

/** Through load balancers the address is theirs: for servers that nodes reach directly. */
function checkAddress(leaf: Certificate, { peerAddress }: AttestRequest): void {
  const address = peerAddress.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '');
  if (isIP(address) === 0 || new X509Certificate(leaf.raw).checkIP(address) === undefined)
    throw fail('DENIED', `client IP ${JSON.stringify(address)} does not match any certificate IP SAN`);
}

/** Asks for a signature over a nonce that was never used before. */
async function prove(leaf: Certificate, challenge: (question: Buffer) => Promise<Buffer>, signal: AbortSignal): Promise<void> {
  if (!leaf.keyUsage?.has('digitalSignature'))
    throw fail('DENIED', 'unable to generate challenge: certificate not intended for digital signature use');
  const question = under('DENIED', 'unable to generate challenge', () => makeChallenge(leaf.keyKind));
  const key = under('REQUEST_INVALID', 'unable to parse leaf certificate', () => leaf.publicKey);
  const answer = await challenge(question.message);
  signal.throwIfAborted();
  try {
    checkAnswer(answer, question, key, leaf.keyKind);
  } catch (error) {
    if (!(error instanceof SpiffeError) || error.code !== 'REQUEST_INVALID') throw error;
    throw fail('REQUEST_INVALID', `unable to unmarshal challenge response: ${error.message}`, { cause: error });
  }
}

function verified<T>(verify: () => T): T {
  return under('DENIED', 'certificate verification failed', verify);
}

/** What refuses, refuses as `code`, its words led by `what`. */
function under<T>(code: 'DENIED' | 'REQUEST_INVALID', what: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (!(cause instanceof SpiffeError)) throw cause;
    throw fail(code, `${what}: ${cause.message}`, { cause, ...(cause.reason !== undefined && { reason: String(cause.reason) }) });
  }
}

/** Reads the files again whenever the operator asks for it; files that do not fit leave everything as it was. @param seen the wishes that the files in use have fulfilled. */
async function follow(paths: readonly string[], host: Host, trusted: { roots: readonly Certificate[] }, seen: number): Promise<never> {
  let done = seen;
  for await (const wished of host.reloads.changes(host.signal)) {
    if (wished === done) continue;
    done = wished;
    try {
      trusted.roots = await loadRoots(paths);
      host.log.info('The CA bundle of a node attestor was read again', { plugin: NAME, count: trusted.roots.length });
    } catch (error) {
      host.log.error('The CA bundle of a node attestor cannot be used; going on with the one before', { plugin: NAME, error });
    }
  }
  throw host.signal.reason;
}

/** Throws SETTINGS_INVALID. */
async function loadRoots(paths: readonly string[]): Promise<readonly Certificate[]> {
  const all = new Map<string, Certificate>();
  for (const path of paths) {
    for (const one of await readRoots(path)) all.set(one.sha256, one);
  }
  const roots = [...all.values()];
  if (!roots.some((one) => one.isCa)) throw invalid(`${paths.join(', ')}: none of the certificates is a CA's`);
  return roots;
}

async function readRoots(path: string): Promise<readonly Certificate[]> {
  let found: readonly Certificate[];
  try {
    found = certificatesFromPem(await readFile(path));
  } catch (cause) {
    throw invalid(`unable to load trust bundle ${JSON.stringify(path)}: ${(cause as Error).message}`, cause);
  }
  if (found.length === 0) throw invalid(`unable to load trust bundle ${JSON.stringify(path)}: no certificates found in file`);
  return found;
}

function invalid(message: string, cause?: unknown): CoreError {
  return fail('SETTINGS_INVALID', message, cause === undefined ? {} : { cause });
}
