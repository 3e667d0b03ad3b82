import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readlinkSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { closeFd, isAlive, peerCredentials, reapChild } from '../../core/native.ts';

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

describe('sd_notify', () => {
  const SAY = `import { notifySystemd } from ${JSON.stringify(join(import.meta.dirname, '../../core/native.ts'))}; console.log(notifySystemd('READY=1\\nSTATUS=here'))`;
  /** What a listener of datagrams (Python's: Node has none for UNIX sockets) hears when a process of ours speaks to `variable`. */
  async function heard(name: string, variable: string | undefined): Promise<{ said: string; told: string }> {
    const ear = spawn(
      'python3',
      [
        '-c',
        `import socket, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.bind(sys.argv[1].replace('@', '\\0', 1))\nprint('bound', flush=True)\nprint(s.recv(4096).decode(), flush=True)`,
        name,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    let told = '';
    ear.stdout.setEncoding('utf8').on('data', (text: string) => (told += text));
    const closed = once(ear, 'close');
    await once(ear.stdout, 'data');
    const env = { ...process.env };
    delete env['NOTIFY_SOCKET'];
    const mouth = spawn(process.execPath, ['--input-type=module', '-e', SAY], {
      env: { ...env, ...(variable !== undefined && { NOTIFY_SOCKET: variable }) },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let said = '';
    mouth.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
    await once(mouth, 'close');
    if (said.trim() !== 'true') ear.kill();
    await closed;
    return { said: said.trim(), told: told.replace('bound\n', '').trim() };
  }

  test('reaches a socket with a path, and an abstract one', async () => {
    const path = join(dir, 'notify');
    expect(await heard(path, path)).toEqual({ said: 'true', told: 'READY=1\nSTATUS=here' });
    const abstract = `@warifu-${process.pid}-notify`;
    expect(await heard(abstract, abstract)).toEqual({ said: 'true', told: 'READY=1\nSTATUS=here' });
  });

  test('says that nobody was reached without a variable, with one that names no socket, or one that nobody reads', async () => {
    const path = join(dir, 'notify');
    expect(await heard(path, undefined)).toEqual({ said: 'false', told: '' });
    expect(await heard(`${path}2`, 'vsock:2:1234')).toEqual({ said: 'false', told: '' });
    expect(await heard(`${path}3`, join(dir, 'nobody'))).toEqual({ said: 'false', told: '' });
  });
});

test('a child of ours that has ended and that nobody waits for is reaped, one that lives or is another process’s is not', async () => {
  expect(reapChild(process.pid)).toBe(false);
  // this child’s own child is orphaned to nobody here: only process 1 sees that, which the helper’s tests show
  const child = connector();
  await next;
  expect(reapChild(child.pid ?? 0)).toBe(false);
  child.kill();
});
