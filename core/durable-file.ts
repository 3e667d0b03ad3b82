/** Files that survive a crash in the middle of a write: whole old or whole new, and on disk when the promise resolves. */
import { randomBytes } from 'node:crypto';
import { open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { fail } from './errors.ts';

/** Replaces `path` at once: a new file beside it, synced, renamed over it, the folder synced. @param mode default 0600. */
export async function writeDurably(path: string, data: string | Uint8Array, mode = 0o600): Promise<void> {
  const beside = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const file = await open(beside, 'wx', mode);
    try {
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(beside, path);
  } catch (cause) {
    await rm(beside, { force: true });
    throw fail('STORE_FAILED', `${path} could not be written: ${(cause as Error).message}`, { cause });
  }
  await syncFolder(dirname(path));
}

/** Takes away what a crash in the middle of `writeDurably` left beside `path`; it may hold what the file holds. Only while nobody else writes it. */
export async function removeLeftovers(path: string): Promise<void> {
  const [folder, name] = [dirname(path), basename(path)];
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  const ours = names.filter((one) => one.startsWith(`${name}.`) && /^[0-9a-f]{12}\.tmp$/.test(one.slice(name.length + 1)));
  await Promise.all(ours.map((one) => rm(join(folder, one), { force: true })));
}

/** A rename is only on disk once its folder is. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Throws SETTINGS_INVALID when others than the owner can read or write the file. A missing file is no fault. */
export async function checkPrivate(path: string, wayOut = ''): Promise<void> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw fail('SETTINGS_INVALID', `${path} cannot be read: ${error.message}`, { cause: error });
  });
  if (found && (found.mode & 0o077) !== 0) {
    throw fail(
      'SETTINGS_INVALID',
      `${path} holds a private key and has mode ${(found.mode & 0o777).toString(8)}: others can get at it; chmod 600 it${wayOut}`,
    );
  }
}
