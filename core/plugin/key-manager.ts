/** Keys of the server's CA: a key manager hands out `sign`, never a key. And the agent's, which must be able to do TLS. */
import type { KeyObject } from 'node:crypto';

export type KeyType = 'ec-p256' | 'ec-p384' | 'rsa-2048' | 'rsa-4096';
export const KEY_TYPES = ['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-4096'] as const satisfies readonly KeyType[];

export interface SignOptions {
  readonly hash: 'sha256' | 'sha384' | 'sha512';
  /** ECDSA only: `der` for X.509 (default), `ieee-p1363` for JWS. */
  readonly ecdsa?: 'der' | 'ieee-p1363';
  /** RSA only: PKCS#1 v1.5 (default) or PSS with a salt as long as the hash. */
  readonly rsa?: 'pkcs1' | 'pss';
}

/** A key that can sign and can't be read. */
export interface SigningKey {
  /** The slot's name: `x509-CA-A`, `JWT-Signer-B`. */
  readonly id: string;
  readonly type: KeyType;
  /** SubjectPublicKeyInfo. */
  readonly spkiDer: Buffer;
  /** Hashes and signs `data`. Rejects with UNAVAILABLE when the key is gone. */
  sign(data: Uint8Array, options: SignOptions): Promise<Buffer>;
}

export interface KeyManager {
  /** Makes a new key under `id`, in place of what was there. It is kept (on disk, if the manager keeps keys) before the promise resolves. */
  generate(id: string, type: KeyType): Promise<SigningKey>;
  get(id: string): SigningKey | undefined;
  list(): readonly SigningKey[];
}

/** The agent's own keys: they go into a TLS context, so they leave the manager; still only `agent/` sees them. */
export interface AgentKeyManager {
  /** `agent-svid-A` or `agent-svid-B`; kept before the promise resolves. */
  generate(id: string): Promise<KeyObject>;
  get(id: string): KeyObject | undefined;
  delete(id: string): Promise<void>;
}
