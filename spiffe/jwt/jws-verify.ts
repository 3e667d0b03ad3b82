/** The signature of a JWS by a JWT authority: through node:crypto where there is one, through WebCrypto everywhere else. Keys are imported once. */
import type { KeyObject } from 'node:crypto';
import { SpiffeError } from '../errors.ts';
import { JWT_ALGORITHMS, type JwtAlgorithmName } from './jwt-algorithm.ts';
import type { JwtAuthority } from './jwt-bundle.ts';

/** Not imported: this file must load where there is no such module. */
const node = typeof process === 'undefined' ? undefined : process.getBuiltinModule?.('node:crypto');

/** Whether signatures can be checked without waiting. */
export const canVerifySync = node !== undefined;

const keyObjects = new WeakMap<JwtAuthority, KeyObject>();

/** Checks a signature; the caller has asked `jwtAlgorithmFits`. Throws UNIMPLEMENTED where there is no node:crypto. */
export function verifyJwsSync(name: JwtAlgorithmName, data: Uint8Array, authority: JwtAuthority, signature: Uint8Array): boolean {
  if (!node) throw new SpiffeError('UNIMPLEMENTED', undefined, 'this runtime checks signatures asynchronously only');
  const { hash, signatureBytes, pss } = JWT_ALGORITHMS[name];
  if (signatureBytes !== undefined && signature.length !== signatureBytes) return false;
  let key = keyObjects.get(authority);
  if (!key) {
    key = node.createPublicKey({ format: 'jwk', key: authority.jwk });
    keyObjects.set(authority, key);
  }
  try {
    if (signatureBytes !== undefined) return node.verify(hash, data, { key, dsaEncoding: 'ieee-p1363' }, signature);
    const { RSA_PKCS1_PSS_PADDING: padding, RSA_PSS_SALTLEN_DIGEST: saltLength } = node.constants;
    return node.verify(hash, data, pss ? { key, padding, saltLength } : key, signature);
  } catch {
    return false;
  }
}

/** The same through WebCrypto. */
export async function verifyJwsWeb(
  name: JwtAlgorithmName,
  data: Uint8Array,
  authority: JwtAuthority,
  signature: Uint8Array,
): Promise<boolean> {
  const { hash, signatureBytes, pss, key } = JWT_ALGORITHMS[name];
  if (signatureBytes !== undefined && signature.length !== signatureBytes) return false;
  const webHash = `SHA-${hash.slice(3)}`;
  try {
    const imported = await webKey(name, authority, webHash);
    const parameters =
      key.type === 'ec'
        ? { name: 'ECDSA', hash: webHash }
        : pss
          ? { name: 'RSA-PSS', saltLength: Number(hash.slice(3)) / 8 }
          : { name: 'RSASSA-PKCS1-v1_5' };
    return await crypto.subtle.verify(parameters, imported, signature, data);
  } catch {
    return false;
  }
}

type WebKey = Awaited<ReturnType<typeof crypto.subtle.importKey>>;

const webKeys = new WeakMap<JwtAuthority, Map<JwtAlgorithmName, Promise<WebKey>>>();

/** By algorithm, since WebCrypto binds an RSA key to its hash and padding. */
function webKey(name: JwtAlgorithmName, authority: JwtAuthority, hash: string): Promise<WebKey> {
  let byAlgorithm = webKeys.get(authority);
  if (!byAlgorithm) webKeys.set(authority, (byAlgorithm = new Map()));
  let key = byAlgorithm.get(name);
  if (!key) {
    const { key: kind, pss } = JWT_ALGORITHMS[name];
    const parameters =
      kind.type === 'ec' ? { name: 'ECDSA', namedCurve: kind.curve } : { name: pss ? 'RSA-PSS' : 'RSASSA-PKCS1-v1_5', hash };
    key = crypto.subtle.importKey('jwk', { ...authority.jwk }, parameters, false, ['verify']);
    byAlgorithm.set(name, key);
  }
  return key;
}
