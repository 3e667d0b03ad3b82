/** Files change at once or not at all, whatever ends the writer, and have their modes and owners before anybody can look. */
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type FileContent, type Place, removeLeftovers, writeFiles } from '../../../proxy/helper/files.ts';
import { markedFiles, placeOf } from './marked-files.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'files-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const NOBODY = { uid: undefined, gid: undefined };
const place = (atomic: Place['atomic'] = 'link', ownership: Place['ownership'] = NOBODY): Place => ({
  directory,
  name: 'web',
  atomic,
  ownership,
});
const file = (name: string, text: string, mode = 0o644): FileContent => ({ name, data: Buffer.from(text), mode, secret: mode === 0o600 });
const set = (text: string) => [file('a.pem', `a ${text}`), file('b.pem', `b ${text}`), file('key.pem', `key ${text}`, 0o600)];
const read = (name: string) => readFileSync(join(directory, name), 'utf8');
const modeOf = (name: string) => (statSync(join(directory, name)).mode & 0o7777).toString(8);
const inodes = () => ['a.pem', 'b.pem', 'key.pem'].map((name) => statSync(join(directory, name)).ino);

for (const atomic of ['link', 'rename'] as const) {
  describe(`HP-2 files by ${atomic}`, () => {
    test('are written, then replaced', async () => {
      expect(await writeFiles(place(atomic), set('old'))).toBe(true);
      expect(['a.pem', 'b.pem', 'key.pem'].map(read)).toEqual(['a old', 'b old', 'key old']);
      expect(await writeFiles(place(atomic), set('new'))).toBe(true);
      expect(['a.pem', 'b.pem', 'key.pem'].map(read)).toEqual(['a new', 'b new', 'key new']);
    });

    test('are left alone when nothing has changed', async () => {
      await writeFiles(place(atomic), set('same'));
      const before = inodes();
      expect(await writeFiles(place(atomic), set('same'))).toBe(false);
      expect(inodes()).toEqual(before);
      await writeFiles(place(atomic), set('other'));
      expect(inodes()).not.toEqual(before);
    });

    test('HP-3 have their modes whatever the umask, at every write, and are put right when somebody has changed them', async () => {
      for (const umask of [0o000, 0o077, 0o777]) {
        const before = process.umask(umask);
        try {
          await writeFiles(place(atomic), [
            file('a.pem', `a ${umask}`, 0o444),
            file('b.pem', `b ${umask}`, 0o640),
            file('key.pem', `k ${umask}`, 0o400),
          ]);
        } finally {
          process.umask(before);
        }
        expect(['a.pem', 'b.pem', 'key.pem'].map(modeOf)).toEqual(['444', '640', '400']);
      }
      chmodSync(join(directory, 'key.pem'), 0o666);
      await writeFiles(place(atomic), [file('a.pem', 'a 511', 0o444), file('b.pem', 'b 511', 0o640), file('key.pem', 'k 511', 0o400)]);
      expect(modeOf('key.pem')).toBe('400');
    });

    test('HP-3 have their owner and group', async () => {
      // another account where we may give files away, ours elsewhere
      const root = process.getuid?.() === 0;
      const [uid, gid] = root ? [65_534, 65_534] : [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
      await writeFiles(place(atomic, { uid: undefined, gid }), [file('a.pem', 'a', 0o640), file('key.pem', 'k', 0o640)]);
      expect(statSync(join(directory, 'key.pem'))).toMatchObject({ uid: process.getuid?.(), gid });
      await writeFiles(place(atomic, { uid, gid }), [file('a.pem', 'a', 0o640), file('key.pem', 'k', 0o640)]);
      expect(statSync(join(directory, 'key.pem'))).toMatchObject({ uid, gid });
      await writeFiles(place(atomic, { uid, gid }), [file('a.pem', 'a2', 0o640), file('key.pem', 'k2', 0o640)]);
      expect(statSync(join(directory, 'key.pem'))).toMatchObject({ uid, gid });
    });

    test('stay as they were when the new ones cannot be written', async () => {
      await writeFiles(place(atomic), set('old'));
      rmSync(join(directory, 'b.pem'));
      mkdirSync(join(directory, 'b.pem', 'in-the-way'), { recursive: true });
      await expect(writeFiles(place(atomic), set('new'))).rejects.toThrow(expect.objectContaining({ code: 'STORE_FAILED' }));
      expect(read('key.pem')).toBe('key old');
      expect(readdirSync(directory).filter((name) => name.includes('.tmp.'))).toEqual([]);
    });

    test('of a crash leave nothing behind after the next start', async () => {
      await writeFiles(place(atomic), set('old'));
      mkdirSync(join(directory, '..web.0123456789ab'));
      writeFileSync(join(directory, '..web.0123456789ab', 'key.pem'), 'a key');
      writeFileSync(join(directory, '..web.tmp.0123456789ab'), 'a key');
      writeFileSync(join(directory, '..other.0123456789ab'), 'of another output');
      await removeLeftovers(place(atomic));
      const left = readdirSync(directory);
      expect(left).not.toContain('..web.0123456789ab');
      expect(left).not.toContain('..web.tmp.0123456789ab');
      expect(left).toContain('..other.0123456789ab');
      expect(read('key.pem')).toBe('key old');
    });
  });
}

describe('HP-2 by link', () => {
  test('all files change by one rename: they lie in one folder, and the one before it is kept for those who still read', async () => {
    await writeFiles(place(), set('1'));
    const first = dirname(realpathSync(join(directory, 'a.pem')));
    await writeFiles(place(), set('2'));
    const second = dirname(realpathSync(join(directory, 'a.pem')));
    expect(['b.pem', 'key.pem'].map((name) => dirname(realpathSync(join(directory, name))))).toEqual([second, second]);
    expect(readFileSync(join(first, 'key.pem'), 'utf8')).toBe('key 1');
    await writeFiles(place(), set('3'));
    expect(existsSync(first)).toBe(false);
    expect(existsSync(second)).toBe(true);
  });

  test('a file that is there no more goes, a new one comes', async () => {
    await writeFiles(place(), [...set('1'), file('other.org.pem', 'x')]);
    await writeFiles(place(), [...set('2'), file('third.org.pem', 'y')]);
    expect(
      readdirSync(directory)
        .filter((name) => !name.startsWith('..'))
        .sort(),
    ).toEqual(['a.pem', 'b.pem', 'key.pem', 'third.org.pem']);
  });

  test("plain files of another writer's are taken over, as a set", async () => {
    for (const name of ['a.pem', 'b.pem', 'key.pem']) writeFileSync(join(directory, name), `${name} theirs`);
    await writeFiles(place(), set('ours'));
    expect(read('key.pem')).toBe('key ours');
    expect(lstatSync(join(directory, 'key.pem')).isSymbolicLink()).toBe(true);
  });

  test('links are relative: the folder may be mounted elsewhere', async () => {
    await writeFiles(place(), set('1'));
    expect(readlinkSync(join(directory, 'a.pem'))).toBe('..web/a.pem');
    expect(readlinkSync(join(directory, '..web'))).toMatch(/^\.\.web\.[0-9a-f]{12}$/);
  });

  test('a set of one file needs none: it is renamed', async () => {
    await writeFiles(place(), [file('token', 'x', 0o600)]);
    expect(readdirSync(directory)).toEqual(['token']);
  });

  test('goes over to rename, and back', async () => {
    await writeFiles(place('link'), set('1'));
    await writeFiles(place('rename'), set('2'));
    expect(readdirSync(directory).sort()).toEqual(['a.pem', 'b.pem', 'key.pem']);
    await writeFiles(place('link'), set('3'));
    expect(read('b.pem')).toBe('b 3');
  });
});

const NAMES = ['svid.pem', 'svid_bundle.pem', 'svid_key.pem'];
/** What a reader finds: the marker of each file that is there and whole. */
function found(): string[] {
  return NAMES.map((name) => {
    if (!existsSync(join(directory, name))) return 'none';
    const lines = read(name).split('\n');
    const whole = lines.length === 501 && new Set(lines.slice(0, 500)).size === 1 && lines[0]?.endsWith(name);
    return whole ? (lines[0]?.split(' ')[0] ?? '') : 'torn';
  });
}
const SCRIPT = join(import.meta.dirname, 'write-once.ts');
const PRELOAD = join(import.meta.dirname, 'die-at.mjs');
/** In a process that ends before its nth step; false: it came to its own end. */
function dies(mark: string, atomic: string, dieAt: number): boolean {
  const args = ['--import', PRELOAD, SCRIPT, directory, atomic, mark];
  const { status, signal, stderr } = spawnSync(process.execPath, args, {
    env: { ...process.env, DIE_AT: String(dieAt) },
    encoding: 'utf8',
  });
  if (signal !== 'SIGKILL' && status !== 0) throw new Error(stderr);
  return signal === 'SIGKILL';
}
const write = (mark: string, atomic: 'link' | 'rename') => writeFiles(placeOf(directory, atomic), markedFiles(mark));

describe('HP-2 a crash at any step', { timeout: 120_000 }, () => {
  const cases: readonly (readonly [what: string, atomic: 'link' | 'rename', begin: () => Promise<unknown>, old: string])[] = [
    ['of the first write', 'link', async () => {}, 'none'],
    ['of a renewal', 'link', () => write('old', 'link'), 'old'],
    ["of taking over plain files of another writer's", 'link', () => write('old', 'rename'), 'old'],
  ];
  for (const [what, atomic, begin, old] of cases) {
    test(`${what} leaves all files old or all new, and the next start mends the rest`, async () => {
      let steps = 0;
      const seen = new Set<string>();
      for (let died = true; died; ) {
        rmSync(directory, { recursive: true, force: true });
        mkdirSync(directory);
        await begin();
        died = dies('new', atomic, ++steps);
        const [first = '', ...others] = found();
        expect([`after ${steps - 1} steps`, ...others]).toEqual([`after ${steps - 1} steps`, first, first]);
        expect([old, 'new']).toContain(first);
        seen.add(first);
        await write('again', atomic);
        expect(found()).toEqual(['again', 'again', 'again']);
      }
      // it did die at many places, on both sides of the change
      expect(steps).toBeGreaterThan(20);
      expect([...seen].sort()).toEqual([old, 'new'].sort());
    });
  }

  test('by rename: each file is whole, the key is the last to change, and the next start mends the rest', async () => {
    for (let died = true, steps = 1; died; steps++) {
      rmSync(directory, { recursive: true, force: true });
      mkdirSync(directory);
      await write('old', 'rename');
      died = dies('new', 'rename', steps);
      const [svid, bundle, key] = found();
      expect([svid, bundle, key]).not.toContain('torn');
      if (key === 'new') expect([svid, bundle]).toEqual(['new', 'new']);
      await write('again', 'rename');
      expect(found()).toEqual(['again', 'again', 'again']);
    }
  });
});

test('HP-2 a writer that is killed at any time, again and again, never shows a reader files of two sets', {
  timeout: 120_000,
}, async () => {
  await write('first', 'link');
  let reads = 0;
  let stop = false;
  const reader = (async () => {
    while (!stop) {
      // one look at the link says which set it is; its files are read from there
      const folder = realpathSync(join(directory, '..x509'));
      const markers = NAMES.map((name) => readFileSync(join(folder, name), 'utf8').split(' ')[0]);
      expect(new Set(markers).size).toBe(1);
      reads++;
      await new Promise((done) => setImmediate(done));
    }
  })();
  for (let round = 0; round < 25; round++) {
    const child = spawn(process.execPath, [SCRIPT, directory, 'link', `round${round}`], { stdio: 'ignore' });
    const ended = new Promise((done) => child.once('close', done));
    // anywhere in its life, from before it begins until after its end
    await new Promise((done) => setTimeout(done, 60 + Math.random() * 120));
    child.kill('SIGKILL');
    await ended;
  }
  stop = true;
  await reader;
  expect(reads).toBeGreaterThan(1_000);
});
