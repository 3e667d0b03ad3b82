/** Keys in a file of mode 0600, in SPIRE's form: `{"keys": {"<id>": "<base64 of PKCS#8>"}}`. A restart goes on with the same keys. */
import type { KeyObject } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { checkPrivate, removeLeftovers, writeDurably } from '../../core/durable-file.ts';
import { fail } from '../../core/errors.ts';
import { localSigningKey } from '../../core/local-key.ts';
import { lockFile } from '../../core/lock-file.ts';
import type { SigningKey } from '../../core/plugin/key-manager.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { generateKey, keyTypeOf, parsePkcs8, pkcs8Der } from '../../core/x509/key.ts';

const file = z.strictObject({ keys: z.record(z.string(), z.base64()) });

/** The file's keys, written whole at each change before the change is seen. */
class KeyFile {
  readonly keys: Map<string, KeyObject>;
  readonly #path: string;
  #writing: Promise<void> = Promise.resolve();

  private constructor(path: string, keys: Map<string, KeyObject>) {
    this.#path = path;
    this.keys = keys;
  }

  /** Ours until the program stops: of two that wrote it, each would lose the other's keys. Throws FAILED_PRECONDITION with the other's pid. */
  static async open(path: string, what: string, signal: AbortSignal): Promise<KeyFile> {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const lock = lockFile(`${path}.lock`, what);
    try {
      await removeLeftovers(path);
      const opened = await KeyFile.#read(path);
      signal.addEventListener('abort', () => lock.close(), { once: true });
      return opened;
    } catch (error) {
      lock.close();
      throw error;
    }
  }

  static async #read(path: string): Promise<KeyFile> {
    await checkPrivate(path);
    const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw fail('SETTINGS_INVALID', `${path} cannot be read: ${error.message}`, { cause: error });
    });
    const keys = new Map<string, KeyObject>();
    if (text !== undefined) {
      for (const [id, pkcs8] of Object.entries(read(path, text))) keys.set(id, readKey(path, id, pkcs8));
    }
    return new KeyFile(path, keys);
  }

  /** One change after the other; a failed write changes nothing. */
  change(edit: (keys: Map<string, KeyObject>) => void): Promise<void> {
    const done = this.#writing.then(async () => {
      const next = new Map(this.keys);
      edit(next);
      const keys = Object.fromEntries([...next].map(([id, key]) => [id, pkcs8Der(key).toString('base64')]));
      await writeDurably(this.#path, `${JSON.stringify({ keys }, null, '\t')}\n`);
      this.keys.clear();
      for (const [id, key] of next) this.keys.set(id, key);
    });
    this.#writing = done.catch(() => {});
    return done;
  }
}

function read(path: string, text: string): Record<string, string> {
  try {
    return file.parse(JSON.parse(text)).keys;
  } catch (cause) {
    // the cause could quote the file: it stays inside
    throw fail(
      'SETTINGS_INVALID',
      `${path} is not a key file ({"keys": {"<id>": "<base64>"}}): restore it, or move it away to begin with new keys`,
      { cause },
    );
  }
}

function readKey(path: string, id: string, pkcs8: string): KeyObject {
  try {
    return parsePkcs8(Buffer.from(pkcs8, 'base64'));
  } catch (cause) {
    const why = (cause as Error).message;
    throw fail('SETTINGS_INVALID', `${path}: key ${JSON.stringify(id)}: ${why}; restore the file, or move it away to begin with new keys`, {
      cause,
    });
  }
}

export const serverDisk = definePlugin({
  kind: 'server-key-manager',
  name: 'disk',
  settings: z.strictObject({ keys_path: z.string().min(1) }),
  async start({ keys_path }, { signal }) {
    const kept = await KeyFile.open(keys_path, 'the key file of a server', signal);
    const signers = new Map<string, SigningKey>();
    const offer = (id: string, key: KeyObject): SigningKey => {
      const type = keyTypeOf(key);
      if (!type) throw fail('SETTINGS_INVALID', `${keys_path}: key ${JSON.stringify(id)} is of a type that signs nothing here`);
      const signer = localSigningKey(id, type, key);
      signers.set(id, signer);
      return signer;
    };
    for (const [id, key] of kept.keys) offer(id, key);
    return {
      async generate(id, type) {
        const key = await generateKey(type);
        await kept.change((keys) => keys.set(id, key));
        return offer(id, key);
      },
      get: (id) => signers.get(id),
      list: () => [...signers.values()],
    };
  },
});

export const agentDisk = definePlugin({
  kind: 'agent-key-manager',
  name: 'disk',
  settings: z.strictObject({ directory: z.string().min(1) }),
  async start({ directory }, { signal }) {
    const kept = await KeyFile.open(join(directory, 'keys.json'), 'the key file of an agent', signal);
    return {
      async generate(id) {
        const key = await generateKey('ec-p256');
        await kept.change((keys) => keys.set(id, key));
        return key;
      },
      get: (id) => kept.keys.get(id),
      delete: (id) => kept.change((keys) => keys.delete(id)),
    };
  },
});
