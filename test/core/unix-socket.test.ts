import { chmodSync, chownSync, existsSync, lstatSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { silent } from '../../core/log.ts';
import type { PeerCredentials } from '../../core/native.ts';
import { listenUnix, type UnixListener } from '../../core/unix-socket.ts';

let dir: string;
const open: UnixListener[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'unix-'));
});
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
  rmSync(dir, { recursive: true });
});

async function listen(path: string, mode = 0o777, seen: PeerCredentials[] = []): Promise<UnixListener> {
  const listener = await listenUnix({
    path,
    mode,
    directoryMode: 0o755,
    maxConnections: 100,
    log: silent,
    onConnection: (socket, peer) => {
      seen.push(peer);
      socket.end('hello');
    },
  });
  open.push(listener);
  return listener;
}

async function greeting(path: string): Promise<string> {
  const socket = connect(path);
  socket.setEncoding('utf8');
  let text = '';
  for await (const part of socket) text += String(part);
  return text;
}

test('makes what is missing on the way, sets the mode, tells who connects, and leaves nothing behind', async () => {
  const path = join(dir, 'a/b/api.sock');
  const seen: PeerCredentials[] = [];
  const listener = await listen(path, 0o770, seen);
  expect(lstatSync(path).mode & 0o777).toBe(0o770);
  expect(lstatSync(join(dir, 'a')).mode & 0o777).toBe(0o755);
  expect(await greeting(path)).toBe('hello');
  expect(seen).toMatchObject([{ pid: process.pid }]);
  await listener.close();
  expect(existsSync(path)).toBe(false);
});

test('a live socket is never removed; a dead one is', async () => {
  const path = join(dir, 'api.sock');
  const child = spawn(
    process.execPath,
    [
      '-e',
      `require('node:net').createServer((s) => s.on('error', () => {}).end('other')).listen(process.argv[1], () => console.log('up'))`,
      path,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  await once(child.stdout, 'data');
  await expect(listen(path)).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
    message: expect.stringContaining('another process listens there'),
  });
  expect(await greeting(path)).toBe('other');
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
  expect(existsSync(path)).toBe(true);
  await listen(path);
  expect(await greeting(path)).toBe('hello');
});

test('of many that start at once beside a dead socket exactly one listens', async () => {
  const path = join(dir, 'api.sock');
  const child = spawn(process.execPath, [
    '-e',
    `require('node:net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`,
    path,
  ]);
  await once(child, 'exit');
  const all = await Promise.allSettled(Array.from({ length: 8 }, () => listen(path)));
  expect(all.filter((one) => one.status === 'fulfilled')).toHaveLength(1);
  expect(await greeting(path)).toBe('hello');
});

test('a file that is no socket stays, and is refused', async () => {
  const path = join(dir, 'api.sock');
  writeFileSync(path, 'precious');
  await expect(listen(path)).rejects.toMatchObject({ code: 'SETTINGS_INVALID', message: expect.stringContaining('not a socket') });
  expect(existsSync(path)).toBe(true);
});

const unsafe: [what: string, prepare: () => string][] = [
  ['that others can write to', () => mode('open', 0o777)],
  ['that a group can write to', () => mode('group', 0o775)],
  ['that is sticky and holds the socket itself', () => mode('sticky', 0o1777)],
  [
    'below one that others can write to',
    () => {
      const open = mode('open', 0o777);
      mkdirSync(join(open, 'ours'), { mode: 0o755 });
      return join(open, 'ours');
    },
  ],
  [
    'reached by a link through one that others can write to',
    () => {
      symlinkSync(mode('open', 0o777), join(dir, 'link'));
      return join(dir, 'link');
    },
  ],
];
function mode(name: string, bits: number): string {
  mkdirSync(join(dir, name));
  chmodSync(join(dir, name), bits);
  return join(dir, name);
}
for (const [what, prepare] of unsafe) {
  test(`a directory ${what} is refused`, async () => {
    await expect(listen(join(prepare(), 'api.sock'))).rejects.toMatchObject({
      code: 'SETTINGS_INVALID',
      message: expect.stringContaining('lets others write'),
    });
  });
}

test('a sticky directory may be on the way, and a link of ours too', async () => {
  const sticky = mode('sticky', 0o1777);
  mkdirSync(join(sticky, 'ours'), { mode: 0o755 });
  symlinkSync('sticky/ours', join(dir, 'link'));
  await listen(join(dir, 'link/api.sock'));
  expect(await greeting(join(sticky, 'ours/api.sock'))).toBe('hello');
});

test.runIf(process.getuid?.() === 0)('a directory of another user is refused', async () => {
  const other = mode('other', 0o755);
  chownSync(other, 12345, 12345);
  await expect(listen(join(other, 'api.sock'))).rejects.toMatchObject({
    code: 'SETTINGS_INVALID',
    message: expect.stringContaining('belongs to user 12345'),
  });
});

test('a path that the kernel would cut is refused', async () => {
  await expect(listen(join(dir, 'x'.repeat(108)))).rejects.toMatchObject({ code: 'SETTINGS_INVALID' });
});
