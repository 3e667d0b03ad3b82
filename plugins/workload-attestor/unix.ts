/** Selectors of a process from what the kernel says of it: ids from /proc/PID/status, names from /etc/passwd and /etc/group, path and hash of its program. */
import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { z } from 'zod';
import { fail } from '../../core/errors.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { Rate } from '../../core/rate.ts';

const settings = z.strictObject({
  /** Adds `path` and `sha256`. */
  discover_workload_path: z.boolean().default(false),
  /** Bytes. Programs larger than this are not attested; 0: no limit; below 0: no hash. */
  workload_size_limit: z.number().int().default(0),
  /** Ours. Of the programs of one user and container; 0: no limit. */
  max_hashed_bytes_per_second: z
    .int()
    .min(0, 'must not be negative')
    .default(256 * 1024 * 1024),
});

export default definePlugin({
  kind: 'workload-attestor',
  name: 'unix',
  settings,

  async start({ discover_workload_path: discoverPath, workload_size_limit: sizeLimit, max_hashed_bytes_per_second: perSecond }, { clock }) {
    const users = new Names('/etc/passwd');
    const groups = new Names('/etc/group');
    const hashes = new Hashes(sizeLimit, new Rate(perSecond, clock));
    return {
      async attest({ pid, party = '' }, signal) {
        const { uid, gid, supplementary } = ids(pid);
        const named = (prefix: string, name: string | undefined) => (name === undefined ? [] : [`${prefix}:${name}`]);
        const selectors = [
          `uid:${uid}`,
          ...named('user', users.get(uid)),
          `gid:${gid}`,
          ...named('group', groups.get(gid)),
          ...supplementary.flatMap((id) => [`supplementary_gid:${id}`, ...named('supplementary_group', groups.get(id))]),
        ];
        if (!discoverPath) return selectors;
        selectors.push(`path:${pathOf(pid)}`);
        if (sizeLimit >= 0) selectors.push(`sha256:${await hashes.of(pid, party, signal)}`);
        return selectors;
      },
    };
  },
});

function ids(pid: number): { uid: string; gid: string; supplementary: readonly string[] } {
  const status = read(pid, () => readFileSync(`/proc/${pid}/status`, 'latin1'));
  // real, effective, saved, filesystem: the effective one is what the kernel obeys
  const [, uid, gid] = /^Uid:\s+\d+\s+(\d+).*\nGid:\s+\d+\s+(\d+)/m.exec(status) ?? [];
  const groups = /^Groups:(.*)$/m.exec(status)?.[1];
  if (!uid || !gid || groups === undefined) throw fail('UNAVAILABLE', `process ${pid}: no ids in /proc/${pid}/status`);
  return { uid, gid, supplementary: groups.match(/\d+/g) ?? [] };
}

function pathOf(pid: number): string {
  return read(pid, () => readlinkSync(`/proc/${pid}/exe`));
}

function read<T>(pid: number, what: () => T): T {
  try {
    return what();
  } catch (cause) {
    throw fail('UNAVAILABLE', `process ${pid}: ${(cause as Error).message}`, { cause });
  }
}

/** Names by id, as a file of `name:password:id:…` gives them; the first of several wins, as in libc. Read again when the file has changed. */
class Names {
  readonly #path: string;
  #names = new Map<string, string>();
  #version = '';

  constructor(path: string) {
    this.#path = path;
  }

  get(id: string): string | undefined {
    try {
      const { ino, size, mtimeNs, ctimeNs } = statSync(this.#path, { bigint: true });
      const version = `${ino} ${size} ${mtimeNs} ${ctimeNs}`;
      if (version !== this.#version) {
        this.#names = parseNames(readFileSync(this.#path, 'utf8'));
        this.#version = version;
      }
    } catch {
      // a machine without the file has no names
      this.#names = new Map();
      this.#version = '';
    }
    return this.#names.get(id);
  }
}

function parseNames(text: string): Map<string, string> {
  const names = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [name, , id] = line.split(':');
    if (name && id && /^\d+$/.test(id) && !names.has(id)) names.set(id, name);
  }
  return names;
}

/** How many programs' hashes are kept. */
const KEPT = 512;

/** SHA-256 of what processes execute, each file read once until it changes. */
class Hashes {
  readonly #limit: number;
  readonly #rate: Rate;
  /** By device, inode, size and times; ctime is one that nobody can set. Oldest use first. */
  readonly #known = new Map<string, string>();
  /** Files that are being read, of each party for itself: nobody waits for what another has used up. */
  readonly #reading = new Map<string, Promise<string>>();

  constructor(limit: number, rate: Rate) {
    this.#limit = limit;
    this.#rate = rate;
  }

  /** Through /proc/PID/exe: the file itself, whatever its name shows now, in whatever mount namespace. */
  async of(pid: number, party: string, signal: AbortSignal): Promise<string> {
    const path = `/proc/${pid}/exe`;
    const key = read(pid, () => versionOf(statSync(path, { bigint: true })));
    const known = this.#known.get(key);
    if (known !== undefined) {
      this.#keep(key, known);
      return known;
    }
    const mine = `${party} ${key}`;
    let reading = this.#reading.get(mine);
    if (!reading) {
      reading = this.#hash(pid, path, key, party, signal).finally(() => this.#reading.delete(mine));
      this.#reading.set(mine, reading);
    }
    try {
      const hash = await reading;
      this.#keep(key, hash);
      return hash;
    } catch (error) {
      // somebody else's time was up, ours is not
      if (!signal.aborted && isAbort(error)) return this.of(pid, party, signal);
      throw error;
    }
  }

  #keep(key: string, hash: string): void {
    this.#known.delete(key);
    this.#known.set(key, hash);
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= KEPT) break;
      this.#known.delete(oldest);
    }
  }

  async #hash(pid: number, path: string, key: string, party: string, signal: AbortSignal): Promise<string> {
    const file = await open(path).catch((cause: unknown) => {
      throw fail('UNAVAILABLE', `process ${pid}: ${(cause as Error).message}`, { cause });
    });
    try {
      const before = await file.stat({ bigint: true });
      if (versionOf(before) !== key) throw fail('UNAVAILABLE', `process ${pid}: its program changed while it was looked at`);
      if (this.#limit > 0 && before.size > BigInt(this.#limit))
        throw fail('UNAVAILABLE', `workload ${pathOf(pid)} exceeds size limit (${before.size} > ${this.#limit})`);
      const hash = createHash('sha256');
      const chunk = Buffer.allocUnsafe(128 * 1024);
      // each read is a turn of the event loop: other callers are served meanwhile
      for (;;) {
        signal.throwIfAborted();
        const { bytesRead } = await file.read(chunk, 0, chunk.length);
        if (bytesRead === 0) break;
        hash.update(chunk.subarray(0, bytesRead));
        await this.#rate.wait(party, bytesRead, signal);
      }
      if (versionOf(await file.stat({ bigint: true })) !== key)
        throw fail('UNAVAILABLE', `process ${pid}: its program changed while it was read`);
      return hash.digest('hex');
    } finally {
      await file.close();
    }
  }
}

function versionOf(file: { dev: bigint; ino: bigint; size: bigint; mtimeNs: bigint; ctimeNs: bigint }): string {
  return `${file.dev}:${file.ino} ${file.size} ${file.mtimeNs} ${file.ctimeNs}`;
}

function isAbort(error: unknown): boolean {
  return !(error instanceof Error) || error.name === 'AbortError' || (error as { code?: string }).code === 'DEADLINE_EXCEEDED';
}
