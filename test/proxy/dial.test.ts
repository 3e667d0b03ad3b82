/** PX-1: through an HTTP or a SOCKS5 proxy on the way, over real sockets: what follows its answer is TLS with the target, and nothing else. */
import { once } from 'node:events';
import { createServer as createHttp, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { describe, expect, onTestFinished, test } from 'vitest';
import { dial } from '../../proxy/dial.ts';
import type { ViaProxy } from '../../proxy/settings.ts';
import { ask, backend, client, memorySource, server } from './rig.ts';

const signal = () => AbortSignal.timeout(5_000);
const listening = async (server: { listen(port: number, host: string): unknown; address(): unknown; close(): unknown }) => {
  server.listen(0, '127.0.0.1');
  await once(server as never, 'listening');
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
};

/** Node's own HTTP server as a proxy that wants a password. */
async function httpProxy(answer: (request: IncomingMessage, socket: Duplex) => void) {
  const server = createHttp();
  server.on('connect', (request: IncomingMessage, socket: Duplex) => answer(request, socket));
  return listening(server);
}

const joined = (socket: Duplex, to: string) => {
  const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(to) ?? [];
  const target = connect(Number(port), host, () => socket.write('HTTP/1.1 200 Connection established\r\n\r\n'));
  for (const one of [socket, target]) one.on('error', () => {});
  target.pipe(socket);
  socket.pipe(target);
};

/** A proxy of RFC 1928 that wants user and password, knows names and IPv4, and connects. */
async function socksProxy(): Promise<number> {
  const take = async (socket: Socket, bytes: number): Promise<Buffer> => {
    for (;;) {
      const found = socket.read(bytes) as Buffer | null;
      if (found) return found;
      await once(socket, 'readable');
    }
  };
  return listening(
    createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {});
      void (async () => {
        const [, count = 0] = await take(socket, 2);
        const methods = await take(socket, count);
        if (!methods.includes(2)) return void socket.end(Buffer.from([5, 0xff]));
        socket.write(Buffer.from([5, 2]));
        const user = await take(socket, (await take(socket, 2))[1] ?? 0);
        const password = await take(socket, (await take(socket, 1))[0] ?? 0);
        const good = String(user) === 'me' && String(password) === 'secret';
        socket.write(Buffer.from([1, good ? 0 : 1]));
        if (!good) return void socket.end();
        await take(socket, 4);
        const host = String(await take(socket, (await take(socket, 1))[0] ?? 0));
        const port = (await take(socket, 2)).readUInt16BE();
        const target = connect({ port, host, allowHalfOpen: true });
        target.on('error', () => void socket.end(Buffer.from([5, 5, 0, 1, 0, 0, 0, 0, 0, 0])));
        target.once('connect', () => {
          socket.write(Buffer.from([5, 0, 0, 1, 127, 0, 0, 1, 0, 0]));
          target.pipe(socket);
          socket.pipe(target);
        });
        return undefined;
      })();
    }),
  );
}

const via = (kind: ViaProxy['kind'], port: number, more: Partial<ViaProxy> = {}): ViaProxy => ({ kind, host: '127.0.0.1', port, ...more });
const PASSWORD = { user: 'me', password: 'secret' };

async function through(way: ViaProxy) {
  const behind = await backend();
  const inbound = await server(behind.port, memorySource('/db'));
  return client(inbound.port, memorySource('/web'), { via: way });
}

test('HTTP CONNECT, with a password: what is said arrives', async () => {
  const seen: unknown[] = [];
  const port = await httpProxy((request, socket) => {
    seen.push(request.headers['proxy-authorization']);
    joined(socket, request.url ?? '');
  });
  expect(await ask((await through(via('http', port, PASSWORD))).port, 'hello')).toBe('hello');
  expect(seen).toEqual([`Basic ${Buffer.from('me:secret').toString('base64')}`]);
});

test('SOCKS5, with a password: what is said arrives', async () => {
  expect(await ask((await through(via('socks5', await socksProxy(), PASSWORD))).port, 'hello')).toBe('hello');
});

describe('is refused, and nothing is said to the target', () => {
  const cases: readonly (readonly [what: string, way: () => Promise<ViaProxy>, words: RegExp])[] = [
    [
      'by a proxy that wants another password',
      async () => via('http', await httpProxy((_, socket) => void socket.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n'))),
      /407 Proxy Authentication Required/,
    ],
    [
      'by a proxy that says more than an answer',
      async () => via('http', await httpProxy((_, socket) => void socket.write('HTTP/1.1 200 OK\r\n\r\nand something else'))),
      /sent more than an answer/,
    ],
    [
      'by a proxy that never ends its answer',
      async () => via('http', await httpProxy((_, socket) => void socket.write(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(20_000)}`))),
      /longer than 16384 bytes/,
    ],
    ['by a proxy that hangs up', async () => via('http', await httpProxy((_, socket) => void socket.end())), /ended the connection/],
    [
      'by what is no HTTP proxy',
      async () => via('http', await listening(createServer((socket) => void socket.end('SSH-2.0-x\r\n\r\n')))),
      /does not speak HTTP/,
    ],
    [
      'by a SOCKS5 proxy with the wrong password',
      async () => via('socks5', await socksProxy(), { ...PASSWORD, password: 'x' }),
      /refuses user/,
    ],
    ['by a SOCKS5 proxy without one', async () => via('socks5', await socksProxy()), /another kind of authentication/],
    [
      'by what is no SOCKS5 proxy',
      async () => via('socks5', await listening(createServer((socket) => void socket.end('HTTP/1.1 400 x\r\n\r\n')))),
      /does not speak SOCKS5/,
    ],
  ];
  for (const [what, way, words] of cases) {
    test(what, async () => {
      const target = { kind: 'tcp', host: '127.0.0.1', port: 1 } as const;
      await expect(dial({ target, via: await way(), allowHalfOpen: false, signal: signal() })).rejects.toThrow(words);
    });
  }

  test('by a SOCKS5 proxy that can’t reach the target', async () => {
    const target = { kind: 'tcp', host: '127.0.0.1', port: 1 } as const;
    const way = via('socks5', await socksProxy(), PASSWORD);
    await expect(dial({ target, via: way, allowHalfOpen: false, signal: signal() })).rejects.toThrow('connection refused');
  });

  test('when the proxy says nothing until the time is over', async () => {
    const port = await listening(createServer(() => {}));
    const target = { kind: 'tcp', host: '127.0.0.1', port: 1 } as const;
    const limit = AbortSignal.timeout(100);
    await expect(dial({ target, via: via('http', port), allowHalfOpen: false, signal: limit })).rejects.toMatchObject({
      name: 'TimeoutError',
    });
  });
});
