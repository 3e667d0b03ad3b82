/** What an agent keeps over a restart: its own SVID, the bundle and by whom the server is issued, in SPIRE's file and form. Its key is the key manager's. */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { removeLeftovers, writeDurably } from '../core/durable-file.ts';
import { fail } from '../core/errors.ts';
import { Certificate } from '../spiffe/x509/certificate.ts';

export interface AgentData {
  /** Leaf first; empty: not attested. */
  readonly svid: readonly Certificate[];
  /** X.509 authorities of the own trust domain; empty: not known. */
  readonly bundle: readonly Certificate[];
  readonly reattestable: boolean;
  /** The authorities by one of which the server must have been issued; empty: it has not told them. */
  readonly issuers: readonly Certificate[];
}

const NOTHING: AgentData = { svid: [], bundle: [], reattestable: false, issuers: [] };

const certificates = z
  .array(z.base64())
  .nullish()
  .transform((list) => (list ?? []).map((text) => Certificate.parse(Buffer.from(text, 'base64'))));

/** SPIRE keeps more in it; what we do not know is not read. */
const file = z.object({ svid: certificates, bundle: certificates, reattestable: z.boolean().default(false), issuers: certificates });

export class AgentDisk {
  readonly path: string;
  #data: AgentData = NOTHING;
  #writing: Promise<void> = Promise.resolve();
  #removed = false;

  private constructor(path: string) {
    this.path = path;
  }

  /** Throws SETTINGS_INVALID when the file is there and can't be understood. */
  static async open(dataDir: string): Promise<AgentDisk> {
    const disk = new AgentDisk(join(dataDir, 'agent-data.json'));
    await removeLeftovers(disk.path);
    try {
      disk.#data = file.parse(JSON.parse(await readFile(disk.path, 'utf8')));
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'ENOENT')
        throw fail('SETTINGS_INVALID', `${disk.path} cannot be read: ${(cause as Error).message}; remove it to attest anew`, { cause });
    }
    return disk;
  }

  get data(): AgentData {
    return this.#data;
  }

  /** Resolves when it is on disk. Does nothing once it was removed: who ends may be overtaken by a renewal that was under way. */
  update(change: Partial<AgentData>): Promise<void> {
    if (this.#removed) return this.#writing;
    this.#data = { ...this.#data, ...change };
    const { svid, bundle, reattestable, issuers } = this.#data;
    const base64 = (list: readonly Certificate[]) => list.map((certificate) => certificate.raw.toString('base64'));
    const text = JSON.stringify({
      svid: base64(svid),
      bundle: base64(bundle),
      reattestable,
      ...(issuers.length > 0 && { issuers: base64(issuers) }),
    });
    const written = this.#writing.then(() => writeDurably(this.path, text, 0o600));
    this.#writing = written.catch(() => {});
    return written;
  }

  /** The agent is trusted no more: its SVID goes, and with it the bundle. Nothing is kept from then on. */
  async remove(): Promise<void> {
    this.#removed = true;
    this.#data = NOTHING;
    await this.#writing;
    await rm(this.path, { force: true });
  }
}
