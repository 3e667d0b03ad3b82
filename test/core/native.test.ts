import { spawn } from 'node:child_process';
import { mkdtempSync, readlinkSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { closeFd, isAlive, peerCredentials } from '../../core/native.ts';

let dir: string;
let server: Server;
let next: Promise<Socket>;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'native-'));
  server = createServer();
  next = new Promise((resolve) => server.once('connection', resolve));
  await new Promise<void>((resolve) => server.listen(join(dir, 's'), resolve));
});
afterEach(() => {
  server.close();
  rmSync(dir, { recursive: true });
});

const SCRIPT = `const s = require('node:net').connect(process.argv[1]); s.on('error', () => process.exit()); process.stdin.on('data', () => process.exit()).resume()`;
const connector = () => spawn(process.execPath, ['-e', SCRIPT, join(dir, 's')], { stdio: ['pipe', 'inherit', 'inherit'] });

test('the kernel names the process that connected, and its pidfd ends with it', async () => {
  const child = connector();
  const socket = await next;
  const peer = peerCredentials(socket);
  expect(peer).toMatchObject({ pid: child.pid, uid: process.getuid?.(), gid: process.getgid?.() });
  expect(readlinkSync(`/proc/self/fd/${peer.pidfd}`)).toContain('pidfd');
  expect(isAlive(peer.pidfd)).toBe(true);

  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.stdin.write('end');
  await ended;
  expect(isAlive(peer.pidfd)).toBe(false);
  closeFd(peer.pidfd);
  socket.destroy();
});

test('a caller that is gone is refused', async () => {
  const child = connector();
  const socket = await next;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.stdin.write('end');
  await ended;
  expect(() => peerCredentials(socket)).toThrow(
    expect.objectContaining({ code: 'UNAVAILABLE', message: expect.stringContaining('could not resolve caller information') }),
  );
  socket.destroy();
});

test('a connection that is closed is refused', async () => {
  const child = connector();
  const socket = await next;
  socket.destroy();
  expect(() => peerCredentials(socket)).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' }));
  child.kill();
});
