/** Files that commands write: keys and tokens for their owner alone, the rest for everybody; whole or not at all. */
import { randomBytes } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';

/** Mode 0600, whatever was there before. */
export function writePrivate(path: string, data: string): Promise<void> {
  return write(path, data, 0o600);
}

/** Mode 0644. */
export function writePublic(path: string, data: string): Promise<void> {
  return write(path, data, 0o644);
}

async function write(path: string, data: string, mode: number): Promise<void> {
  const fresh = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  // exclusive: nobody else's file or link is written through
  const file = await open(fresh, 'wx', mode).catch((error: NodeJS.ErrnoException) => {
    // the name that was asked for, not ours
    throw Object.assign(error, { path });
  });
  try {
    await file.chmod(mode);
    await file.writeFile(data);
    await file.sync();
    await file.close();
    await rename(fresh, path);
  } catch (error) {
    await file.close().catch(() => {});
    await rm(fresh, { force: true });
    throw error;
  }
}
