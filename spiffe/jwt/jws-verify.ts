/** The signature of a JWS by a JWT authority: through node:crypto where there is one that can, through WebCrypto everywhere else. Keys are imported once. */
import type { KeyObject } from 'node:crypto';
import { asciiBytes, base64url } from '../base64.ts';
import { SpiffeError } from '../errors.ts';
import { derOfSignature } from './ecdsa-signature.ts';
import { JWT_ALGORITHMS, type JwtAlgorithmName } from './jwt-algorithm.ts';
import { JwtAuthority } from './jwt-bundle.ts';
import { KNOWN_ANSWERS, KNOWN_WORDS } from './known-answers.ts';

/** Not imported: this file must load where there is no such module. */
const node = typeof process === 'undefined' ? undefined : process.getBuiltinModule?.('node:crypto');

/**
 * A runtime's "no" counts only once it has said "yes" to a known answer of the same algorithm; what it throws is no word on the signature at all: workerd's
 * node:crypto throws at r‖s and PSS, Deno at RSA keys beyond 4096 bits. Asked after the first "no" of each algorithm, never on the way to a "yes".
 */
const nodeCan = new Map<JwtAlgorithmName, boolean>();
const webCan = new Map<JwtAlgorithmName, Promise<boolean>>();

/** Checks a signature, without waiting where that can be; the caller has asked `jwtAlgorithmFits`. Throws or rejects with UNIMPLEMENTED where this runtime cannot tell. */
export function verifyJws(
  name: JwtAlgorithmName,
  data: Uint8Array,
  authority: JwtAuthority,
  signature: Uint8Array,
): boolean | Promise<boolean> {
  if (!hasLength(name, authority, signature)) return false;
  return byNode(name, data, authority, signature) ?? byWeb(name, data, authority, signature);
}

/** The same. Throws UNIMPLEMENTED where node:crypto is missing, or cannot. */
export function verifyJwsSync(name: JwtAlgorithmName, data: Uint8Array, authority: JwtAuthority, signature: Uint8Array): boolean {
  if (!node) throw new SpiffeError('UNIMPLEMENTED', 'JWT_RUNTIME', 'this runtime checks signatures asynchronously only');
  if (!hasLength(name, authority, signature)) return false;
  const good = byNode(name, data, authority, signature);
  if (good === undefined)
    throw new SpiffeError('UNIMPLEMENTED', 'JWT_RUNTIME', `the node:crypto of this runtime can't check ${name} with this key`);
  return good;
}

/** As RFC 7518 §3.4 and RFC 8017 §8 ask before anything else. A signature in DER has another length, or fails. */
function hasLength(name: JwtAlgorithmName, { kind }: JwtAuthority, { length }: Uint8Array): boolean {
  return length === (kind.type === 'rsa' ? Math.ceil(kind.bits / 8) : JWT_ALGORITHMS[name].signatureBytes);
}

function knownAnswer(name: JwtAlgorithmName): [JwtAlgorithmName, Uint8Array, JwtAuthority, Uint8Array] {
  const { jwk, signature } = KNOWN_ANSWERS[name];
  return [name, asciiBytes(KNOWN_WORDS), JwtAuthority.fromJwk(name, jwk), base64url(signature) ?? new Uint8Array()];
}

const keyObjects = new WeakMap<JwtAuthority, KeyObject>();

/** Undefined: cannot tell. */
function byNode(name: JwtAlgorithmName, data: Uint8Array, authority: JwtAuthority, signature: Uint8Array): boolean | undefined {
  if (!node || nodeCan.get(name) === false) return undefined;
  try {
    if (nodeVerifies(node, name, data, authority, signature)) return true;
    let can = nodeCan.get(name);
    if (can === undefined) {
      can = nodeVerifies(node, ...knownAnswer(name));
      nodeCan.set(name, can);
    }
    return can ? false : undefined;
  } catch {
    return undefined;
  }
}

function nodeVerifies(
  { createPublicKey, verify, constants }: typeof import('node:crypto'),
  name: JwtAlgorithmName,
  data: Uint8Array,
  authority: JwtAuthority,
  signature: Uint8Array,
): boolean {
  const { hash, pss, key: kind } = JWT_ALGORITHMS[name];
  let key = keyObjects.get(authority);
  if (!key) {
    key = createPublicKey({ format: 'jwk', key: authority.jwk });
    keyObjects.set(authority, key);
  }
  // the key bare, not in an object of options: that costs node:crypto another 12 µs (docs/decisions/sign-without-options.md)
  if (kind.type === 'ec') return verify(hash, data, key, derOfSignature(signature));
  const { RSA_PKCS1_PSS_PADDING: padding, RSA_PSS_SALTLEN_DIGEST: saltLength } = constants;
  return verify(hash, data, pss ? { key, padding, saltLength } : key, signature);
}

async function byWeb(name: JwtAlgorithmName, data: Uint8Array, authority: JwtAuthority, signature: Uint8Array): Promise<boolean> {
  try {
    if (await webVerifies(name, data, authority, signature)) return true;
    let can = webCan.get(name);
    if (!can) webCan.set(name, (can = webVerifies(...knownAnswer(name))));
    if (await can) return false;
  } catch (cause) {
    throw new SpiffeError('UNIMPLEMENTED', 'JWT_RUNTIME', `this runtime can't check ${name} with this key`, { cause });
  }
  throw new SpiffeError('UNIMPLEMENTED', 'JWT_RUNTIME', `this runtime can't check ${name}`);
}

async function webVerifies(name: JwtAlgorithmName, data: Uint8Array, authority: JwtAuthority, signature: Uint8Array): Promise<boolean> {
  const { hash, pss, key } = JWT_ALGORITHMS[name];
  const webHash = `SHA-${hash.slice(3)}`;
  const imported = await webKey(name, authority, webHash);
  const parameters =
    key.type === 'ec'
      ? { name: 'ECDSA', hash: webHash }
      : pss
        ? { name: 'RSA-PSS', saltLength: Number(hash.slice(3)) / 8 }
        : { name: 'RSASSA-PKCS1-v1_5' };
  return crypto.subtle.verify(parameters, imported, signature, data);
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
