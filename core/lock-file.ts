/** One program per folder: a file that is locked as long as the program lives, with its pid inside for whoever comes second. */
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { fail } from './errors.ts';
import { lockFd } from './native.ts';

export interface LockFile {
  /** Lets go; a second time does nothing. The file stays: removing it would let two programs hold two files of one name. */
  close(): void;
}

/** @param what in words: `the data of a Warifu server`. Throws FAILED_PRECONDITION naming the holder's pid; UNAVAILABLE without the native edge. */
export function lockFile(path: string, what: string): LockFile {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const fd = openSync(path, 'a+', 0o600);
  try {
    if (!lockFd(fd)) {
      const holder = readFileSync(path, 'utf8').trim();
      throw fail('FAILED_PRECONDITION', `${path}: ${what} is in use by process ${holder || '(unknown)'}: stop it first`);
    }
    ftruncateSync(fd);
    writeSync(fd, `${process.pid}\n`);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  let open = true;
  return {
    close() {
      if (open) closeSync(fd);
      open = false;
    },
  };
}
