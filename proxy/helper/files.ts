/** Sets of files that change at once: whoever reads finds the old ones or the new ones, whole, whatever happens while we write. */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import {
  chmod,
  chown,
  copyFile,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  unlink,
} from 'node:fs/promises';
import { join } from 'node:path';
import { fail } from '../../core/errors.ts';
import type { Ownership } from './accounts.ts';

export interface FileContent {
  /** Without a folder. */
  readonly name: string;
  readonly data: Buffer;
  readonly mode: number;
  /** Holds a private key: comes last where files are renamed one by one. */
  readonly secret: boolean;
}

export interface Place {
  readonly directory: string;
  /** Of the output: names its folders of generations. */
  readonly name: string;
  /**
   * `link`: the files are links into a folder, and that folder is swapped by one rename: all of them change at once.
   * `rename`: plain files, each renamed into place, keys last; each is whole, but a crash in between leaves some old and some new, until the next start mends it.
   */
  readonly atomic: 'link' | 'rename';
  readonly ownership: Ownership;
}

/**
 * Brings the files into their place. Mode and owner are set before there is any content, whatever the umask; content is on disk before it is seen.
 * What is the same already is not written, only its mode and owner are put right. False: nothing was to be done.
 * Throws STORE_FAILED; then the old files are all there, or, where only the last flush of the folder failed, all new ones.
 */
export async function writeFiles(place: Place, files: readonly FileContent[]): Promise<boolean> {
  try {
    return await (place.atomic === 'link' && files.length > 1 ? swapFolder(place, files) : renameEach(place, files));
  } catch (cause) {
    throw fail('STORE_FAILED', `files of output ${place.name} could not be written to ${place.directory}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** Takes away what a crash in the middle of `writeFiles` left. Only while nobody else writes there. */
export async function removeLeftovers(place: Place): Promise<void> {
  const current = await readlink(join(place.directory, linkOf(place))).catch(() => undefined);
  for (const name of await readdir(place.directory).catch(() => [])) {
    const stray = isGeneration(place, name) && name !== current;
    if (stray || isStaged(place, name)) await rm(join(place.directory, name), { recursive: true, force: true }).catch(() => {});
  }
}

/** The link to the folder of the newest generation: `..web`. */
const linkOf = ({ name }: Place) => `..${name}`;
const newSuffix = () => randomBytes(6).toString('hex');
/** `..web.0123456789ab`, a folder. */
const isGeneration = ({ name }: Place, entry: string) =>
  entry.startsWith(`..${name}.`) && /^[0-9a-f]{12}$/.test(entry.slice(name.length + 3));
/** `..web.tmp.0123456789ab`: a file or link on its way. */
const isStaged = ({ name }: Place, entry: string) => entry.startsWith(`..${name}.tmp.`);
const stagedOf = ({ name }: Place) => `..${name}.tmp.${newSuffix()}`;

async function swapFolder(place: Place, files: readonly FileContent[]): Promise<boolean> {
  const { directory } = place;
  const linkName = linkOf(place);
  const at = (...names: string[]) => join(directory, ...names);
  const before = await readlink(at(linkName)).catch(orUndefined);
  if (before !== undefined && (await isSame(place, at(before), files))) return await mend(place, files, (name) => at(before, name));

  const generation = `${linkName}.${newSuffix()}`;
  await mkdir(at(generation), { mode: 0o700 });
  let swapped = false;
  try {
    for (const file of files) await writeNew(at(generation, file.name), file, place.ownership);
    // its files' modes say who may read them; until now nobody could so much as look
    await chmod(at(generation), 0o755);
    await syncFolder(at(generation));
    if (before === undefined) await adopt(place, files);
    // links to names that are not there yet lead nowhere until the swap: then all files are there at once
    for (const { name } of files) await pointTo(place, name, join(linkName, name));
    await pointTo(place, linkName, generation);
    swapped = true;
    await syncFolder(directory);
  } catch (error) {
    // once it is linked to, it is what everybody reads
    if (!swapped) await rm(at(generation), { recursive: true, force: true });
    throw error;
  }
  await removeOld(place, files, generation, before);
  return true;
}

/** Plain files of another writer become our first generation, so that they too are left all at once. */
async function adopt(place: Place, files: readonly FileContent[]): Promise<void> {
  const { directory } = place;
  const found: string[] = [];
  for (const { name } of files) {
    const kind = await lstat(join(directory, name)).catch(orUndefined);
    if (kind?.isDirectory()) throw new Error(`${name} is a folder`);
    if (kind?.isFile()) found.push(name);
  }
  if (found.length === 0) return;
  const generation = `${linkOf(place)}.${newSuffix()}`;
  await mkdir(join(directory, generation), { mode: 0o755 });
  await chmod(join(directory, generation), 0o755);
  for (const name of found) {
    const [from, to] = [join(directory, name), join(directory, generation, name)];
    // a file of somebody else's may not be linked to
    await link(from, to).catch(async () => {
      await copyFile(from, to);
      await chmod(to, (await stat(from)).mode & 0o777);
    });
  }
  await syncFolder(join(directory, generation));
  await pointTo(place, linkOf(place), generation);
}

/** Makes `name` a link to `target`, at once, whatever it was. */
async function pointTo(place: Place, name: string, target: string): Promise<void> {
  const path = join(place.directory, name);
  if ((await readlink(path).catch(() => undefined)) === target) return;
  const staged = join(place.directory, stagedOf(place));
  await symlink(target, staged);
  try {
    await rename(staged, path);
  } catch (error) {
    await unlink(staged).catch(() => {});
    throw error;
  }
}

/** Links to files that are no more, and all generations but this one and the one before it, whose readers may still be at it. What can't be removed now is the next time. */
async function removeOld(place: Place, files: readonly FileContent[], generation: string, before: string | undefined): Promise<void> {
  const { directory } = place;
  const names = new Set(files.map(({ name }) => name));
  for (const entry of await readdir(directory)) {
    const path = join(directory, entry);
    if (isGeneration(place, entry)) {
      if (entry !== generation && entry !== before) await rm(path, { recursive: true, force: true }).catch(() => {});
    } else if (!names.has(entry) && !entry.startsWith('..') && (await readlink(path).catch(() => '')) === join(linkOf(place), entry)) {
      await unlink(path).catch(() => {});
    }
  }
}

async function renameEach(place: Place, files: readonly FileContent[]): Promise<boolean> {
  const { directory } = place;
  const sorted = [...files.filter((file) => !file.secret), ...files.filter((file) => file.secret)];
  const changed: FileContent[] = [];
  for (const file of sorted) if (!(await hasContent(join(directory, file.name), file))) changed.push(file);
  const rest = sorted.filter((file) => !changed.includes(file));
  const mended = await mend(place, rest, (name) => join(directory, name));
  if (changed.length === 0) return mended;
  const staged: [from: string, to: string][] = [];
  try {
    for (const file of changed) {
      const from = join(directory, stagedOf(place));
      staged.push([from, join(directory, file.name)]);
      await writeNew(from, file, place.ownership);
    }
    for (const [from, to] of staged) await rename(from, to);
  } catch (error) {
    for (const [from] of staged) await rm(from, { force: true }).catch(() => {});
    throw error;
  }
  await syncFolder(directory);
  // of the other way of writing, if that was used before
  const link = join(directory, linkOf(place));
  if (await readlink(link).catch(() => undefined)) {
    await unlink(link);
    await removeOld(place, files, '', undefined);
  }
  return true;
}

/** A file that nobody can have opened before it has its owner and its mode. */
async function writeNew(path: string, { data, mode }: FileContent, { uid, gid }: Ownership): Promise<void> {
  const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
  try {
    if (uid !== undefined || gid !== undefined) await file.chown(uid ?? (await file.stat()).uid, gid ?? (await file.stat()).gid);
    await file.chmod(mode);
    await file.writeFile(data);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Whether the folder holds these files and no others, and each of them is linked to. */
async function isSame(place: Place, folder: string, files: readonly FileContent[]): Promise<boolean> {
  const entries = await readdir(folder).catch(() => []);
  if (entries.length !== files.length) return false;
  for (const file of files) {
    if (!(await hasContent(join(folder, file.name), file))) return false;
    const target = await readlink(join(place.directory, file.name)).catch(() => undefined);
    if (target !== join(linkOf(place), file.name)) return false;
  }
  return true;
}

async function hasContent(path: string, { data }: FileContent): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined);
  if (!found?.isFile() || found.size !== data.length) return false;
  return (await readFile(path).catch(() => undefined))?.equals(data) ?? false;
}

/** Puts modes and owners right. */
async function mend(place: Place, files: readonly FileContent[], pathOf: (name: string) => string): Promise<boolean> {
  const { uid, gid } = place.ownership;
  let mended = false;
  for (const { name, mode } of files) {
    const path = pathOf(name);
    const found = await stat(path);
    if ((uid !== undefined && found.uid !== uid) || (gid !== undefined && found.gid !== gid)) {
      await chown(path, uid ?? found.uid, gid ?? found.gid);
      mended = true;
    }
    if ((found.mode & 0o7777) !== mode) {
      await chmod(path, mode);
      mended = true;
    }
  }
  return mended;
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** What is not there, or is no link. */
function orUndefined(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT' && error.code !== 'EINVAL') throw error;
}
