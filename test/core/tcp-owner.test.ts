/** Whose process connects over loopback: the kernel's word, over real sockets of real users. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { tcpOwnerUid } from '../../core/tcp-owner.ts';

const OWN = process.getuid?.() ?? -1;
const NOBODY = 65_534;

async function listening(host: string) {
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
  server.listen(0, host);
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const accepted = async () => {
    const [socket] = (await once(server, 'connection')) as [Socket];
    socket.on('error', () => {});
    onTestFinished(() => void socket.destroy());
    return socket;
  };
  return { port: (server.address() as AddressInfo).port, accepted };
}

function dial(port: number, host: string): Socket {
  const socket = connect({ port, host, allowHalfOpen: true });
  socket.on('error', () => {});
  onTestFinished(() => void socket.destroy());
  return socket;
}

describe('the owner is told', () => {
  for (const [listen, to] of [
    ['127.0.0.1', '127.0.0.1'],
    ['::1', '::1'],
    ['::', '127.0.0.1'],
    ['::', '::1'],
    ['0.0.0.0', '127.0.0.2'],
  ] as const) {
    test(`listening on ${listen}, connected to ${to}`, async () => {
      const { port, accepted } = await listening(listen);
      const waiting = accepted();
      dial(port, to);
      expect(tcpOwnerUid(await waiting)).toBe(OWN);
    });
  }

  test('of a program that has ended its half', async () => {
    const { port, accepted } = await listening('127.0.0.1');
    const waiting = accepted();
    const client = dial(port, '127.0.0.1');
    const socket = await waiting;
    client.end();
    await once(client, 'finish');
    expect(tcpOwnerUid(socket)).toBe(OWN);
  });

  test.runIf(OWN === 0)('of another user’s process', async () => {
    const { port, accepted } = await listening('127.0.0.1');
    const waiting = accepted();
    const other = spawn(process.execPath, ['-e', `require('net').connect(${port}, '127.0.0.1')`], {
      uid: NOBODY,
      gid: NOBODY,
      stdio: 'ignore',
    });
    onTestFinished(() => void other.kill('SIGKILL'));
    expect(tcpOwnerUid(await waiting)).toBe(NOBODY);
  });
});

describe('nobody is told, root least of all', () => {
  test('when the program has closed its end: the kernel would say user 0', async () => {
    const { port, accepted } = await listening('127.0.0.1');
    const waiting = accepted();
    const client = dial(port, '127.0.0.1');
    const socket = await waiting;
    client.destroy();
    await once(client, 'close');
    expect(() => tcpOwnerUid(socket)).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' }));
  });

  test('when the program was killed', async () => {
    const { port, accepted } = await listening('127.0.0.1');
    const waiting = accepted();
    const other = spawn(process.execPath, ['-e', `require('net').connect(${port}, '127.0.0.1')`], { stdio: 'ignore' });
    const socket = await waiting;
    expect(tcpOwnerUid(socket)).toBe(OWN);
    other.kill('SIGKILL');
    await once(other, 'close');
    expect(() => tcpOwnerUid(socket)).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' }));
  });

  test('when the connection comes from an address that is not loopback', () => {
    const socket = { remoteAddress: '192.0.2.9', remotePort: 40_000, localAddress: '192.0.2.1', localPort: 8443 } as Socket;
    expect(() => tcpOwnerUid(socket)).toThrow('192.0.2.9 is no loopback address');
  });

  test('when our own end is closed', async () => {
    const { port, accepted } = await listening('127.0.0.1');
    const waiting = accepted();
    dial(port, '127.0.0.1');
    const socket = await waiting;
    socket.destroy();
    expect(() => tcpOwnerUid(socket)).toThrow('the connection is closed');
  });
});
