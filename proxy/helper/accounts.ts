/** Users and groups by name or number, out of the machine's files. */
import { readFile } from 'node:fs/promises';
import { fail } from '../../core/errors.ts';

export interface Ownership {
  /** Undefined: left as it is. */
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

/** Throws SETTINGS_INVALID for a name that the machine's files don't have: accounts of a directory service go by number. */
export async function ownershipOf(owner: string | undefined, group: string | undefined): Promise<Ownership> {
  return { uid: await numberOf('owner', '/etc/passwd', owner), gid: await numberOf('group', '/etc/group', group) };
}

async function numberOf(key: string, file: string, name: string | undefined): Promise<number | undefined> {
  if (name === undefined) return undefined;
  if (/^[0-9]{1,10}$/.test(name)) return Number(name);
  const lines = (await readFile(file, 'utf8').catch(() => '')).split('\n').map((line) => line.split(':'));
  const number = Number(lines.find(([known]) => known === name)?.[2] ?? Number.NaN);
  if (!Number.isSafeInteger(number))
    throw fail('SETTINGS_INVALID', `${key}: there is no ${JSON.stringify(name)} in ${file}; a number will do too`);
  return number;
}
