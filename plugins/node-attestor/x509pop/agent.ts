/** The node's side of x509pop: shows a certificate that the node was given, and signs with its key. */
import type { KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { checkPrivate } from '../../../core/durable-file.ts';
import { fail } from '../../../core/errors.ts';
import { definePlugin } from '../../../core/plugin/plugin.ts';
import { parsePrivateKeyPem, spkiDer } from '../../../core/x509/key.ts';
import { type Certificate, certificatesFromPem } from '../../../spiffe/x509/certificate.ts';
import { MAX_PRESENTED } from '../../../spiffe/x509/path.ts';
import { answerChallenge, writePayload } from './proof.ts';
import { type AgentSettings, agentSettings, NAME } from './settings.ts';

interface Held {
  readonly key: KeyObject;
  readonly leaf: Certificate;
  readonly payload: Buffer;
}

export const agentX509pop = definePlugin({
  kind: 'agent-node-attestor',
  name: NAME,
  settings: agentSettings,
  async start(settings, host) {
    await checkPrivate(settings.private_key_path).catch((error: unknown) =>
      host.log.warn('The key that proves which node this is can be read by others', { error, path: settings.private_key_path }),
    );
    /** What the last payload showed: the answer is signed with the key that belongs to it, whatever the files say by then. */
    let shown = await load(settings);
    return {
      async payload(signal) {
        signal.throwIfAborted();
        shown = await load(settings);
        return shown.payload;
      },
      async answer(challenge) {
        return answerChallenge(challenge, shown.key, shown.leaf.keyKind);
      },
    };
  },
});

/** Throws SETTINGS_INVALID. */
async function load({ private_key_path: keyPath, certificate_path: path, intermediates_path: morePath }: AgentSettings): Promise<Held> {
  const key = await read(keyPath, parsePrivateKeyPem);
  const own = await read(path, certificatesFromPem);
  const more = morePath === undefined ? [] : await read(morePath, certificatesFromPem);
  const [leaf] = own;
  if (!leaf) throw fail('SETTINGS_INVALID', `${path} holds no certificate: it must begin with the node's own`);
  if (morePath !== undefined && more.length === 0) throw fail('SETTINGS_INVALID', `${morePath} holds no certificate`);
  if (!spkiDer(key).equals(leaf.spkiDer)) throw fail('SETTINGS_INVALID', `the key in ${keyPath} does not match ${leaf} in ${path}`);
  if (leaf.keyKind.type !== 'rsa' && leaf.keyKind.type !== 'ec')
    throw fail('SETTINGS_INVALID', `${leaf} in ${path}: x509pop takes RSA and EC keys`);
  if (!leaf.keyUsage?.has('digitalSignature'))
    throw fail(
      'SETTINGS_INVALID',
      `${leaf} in ${path} lacks the key usage digitalSignature: no server takes it; ask the PKI team for one with it`,
    );
  const all = [...own, ...more];
  if (all.length > MAX_PRESENTED)
    throw fail('SETTINGS_INVALID', `${path} holds ${all.length} certificates, with intermediates: at most ${MAX_PRESENTED} may be shown`);
  return { key, leaf, payload: writePayload(all.map((one) => one.raw)) };
}

async function read<T>(path: string, parse: (pem: string) => T): Promise<T> {
  try {
    return parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw fail('SETTINGS_INVALID', `${path} cannot be read: ${(cause as Error).message}`, { cause });
  }
}
