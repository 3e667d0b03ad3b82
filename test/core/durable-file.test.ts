/** Files that survive a crash in the middle: a reader sees the old one or the new one, whole, whenever the writer is killed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkPrivate, writeDurably } from '../../core/durable-file.ts';

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'durable-'));
  path = join(dir, 'file');
});
afterEach(() => rmSync(dir, { recursive: true }));

describe('writing', () => {
  test('makes or replaces the file, and leaves nothing beside it', async () => {
    await writeDurably(path, 'first');
    expect(readFileSync(path, 'utf8')).toBe('first');
    await writeDurably(path, Buffer.from([0, 1, 255]));
    expect(readFileSync(path)).toEqual(Buffer.from([0, 1, 255]));
    expect(readdirSync(dir)).toEqual(['file']);
  });

  test('gives the new file its mode whatever the old one had: 0600 unless told otherwise', async () => {
    writeFileSync(path, 'open to all', { mode: 0o666 });
    chmodSync(path, 0o666);
    await writeDurably(path, 'x');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await writeDurably(path, 'x', 0o640);
    expect(statSync(path).mode & 0o777).toBe(0o640);
  });

  test('never writes into the file of before: who has it open, or another name for it, keeps the old text', async () => {
    await writeDurably(path, 'old');
    linkSync(path, join(dir, 'other-name'));
    await writeDurably(path, 'new');
    expect(readFileSync(join(dir, 'other-name'), 'utf8')).toBe('old');
    expect(readFileSync(path, 'utf8')).toBe('new');
  });

  test('a write that fails says which file, and leaves the old one and no remains', async () => {
    await expect(writeDurably(join(dir, 'missing', 'file'), 'x')).rejects.toMatchObject({ code: 'STORE_FAILED' });
    mkdirSync(join(path, 'in-the-way'), { recursive: true });
    await expect(writeDurably(path, 'x')).rejects.toThrow(path);
    expect(existsSync(join(path, 'in-the-way'))).toBe(true);
    expect(readdirSync(dir)).toEqual(['file']);
  });

  test('killed at any moment, the writer leaves one whole text', { timeout: 30_000 }, async () => {
    const module = JSON.stringify(new URL('../../core/durable-file.ts', import.meta.url).href);
    const size = 300_000;
    await writeDurably(path, '0'.repeat(size));
    for (let round = 0; round < 5; round++) {
      const child = spawn(
        process.execPath,
        [
          '--input-type=module',
          '--eval',
          `const { writeDurably } = await import(${module});
           console.log('on');
           for (let i = 0; ; i++) await writeDurably(${JSON.stringify(path)}, String(i % 10).repeat(${size}));`,
        ],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      await once(child.stdout, 'data');
      for (let turn = 0; turn < 200 * (round + 1); turn++) await setImmediate();
      child.kill('SIGKILL');
      await once(child, 'exit');
      const text = readFileSync(path, 'utf8');
      expect(text).toBe(text.slice(0, 1).repeat(size));
    }
  });
});

describe('a file with a private key', () => {
  test.each([0o600, 0o400, 0o700])('of mode %o is taken', async (mode) => {
    writeFileSync(path, 'key');
    chmodSync(path, mode);
    await expect(checkPrivate(path)).resolves.toBeUndefined();
  });

  test.each([0o640, 0o620, 0o610, 0o604, 0o602, 0o601])('of mode %o is refused, with the way out', async (mode) => {
    writeFileSync(path, 'key');
    chmodSync(path, mode);
    await expect(checkPrivate(path, ', or pray')).rejects.toMatchObject({
      code: 'SETTINGS_INVALID',
      message: `${path} holds a private key and has mode ${mode.toString(8)}: others can get at it; chmod 600 it, or pray`,
    });
  });

  test('is judged behind a symbolic link, whose own mode says nothing', async () => {
    writeFileSync(path, 'key', { mode: 0o600 });
    symlinkSync(path, join(dir, 'link'));
    await expect(checkPrivate(join(dir, 'link'))).resolves.toBeUndefined();
    chmodSync(path, 0o644);
    await expect(checkPrivate(join(dir, 'link'))).rejects.toMatchObject({ code: 'SETTINGS_INVALID' });
  });

  test('that is not there is no fault; a path that cannot be walked is', async () => {
    await expect(checkPrivate(path)).resolves.toBeUndefined();
    writeFileSync(path, '');
    await expect(checkPrivate(join(path, 'below-a-file'))).rejects.toMatchObject({ code: 'SETTINGS_INVALID' });
  });
});
