/** PX-14: what strangers do to the port of a proxy, as a process. Whatever they do, a connection that is open goes on, a new one is served, and nothing reaches the program behind. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { systemClock } from '../../spiffe/clock.ts';
import { matchAny } from '../../spiffe/match.ts';
import { EphemeralTrustDomain } from '../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi } from '../../spiffe/testing/workload-api.ts';
import { TlsClient } from '../../spiffe/tls/client.ts';
import { Daemon } from '../e2e/daemon.ts';
import { WARIFU } from '../e2e/house.ts';
import { memorySource } from './rig.ts';

const td = EphemeralTrustDomain.create('example.org');
const HANDSHAKE_MS = 2_000;

let api: FakeWorkloadApi;
let behind: Server;
/** What the program behind was told. */
let heard: string[] = [];
let proxy: Daemon;
let port: number;
let client: TlsClient;
/** Open from before the first stranger to after the last. */
let kept: TLSSocket;
const sockets: Socket[] = [];

beforeAll(async () => {
  api = await FakeWorkloadApi.start(td, { identities: ['/db'] });
  behind = createServer((socket) => socket.on('error', () => {}).on('data', (data) => void (heard.push(String(data)), socket.write(data))));
  behind.listen(0, '127.0.0.1');
  await once(behind, 'listening');
  proxy = new Daemon('proxy', [
    ...WARIFU,
    ...['proxy', 'server', '--listen', '127.0.0.1:0', '--target', `127.0.0.1:${(behind.address() as AddressInfo).port}`],
    ...['--use-workload-api-addr', api.address, '--allow-uri', 'spiffe://example.org/web', '--log-format', 'json'],
    ...['--connect-timeout', `${HANDSHAKE_MS}ms`],
  ]);
  const { address } = JSON.parse(await proxy.line(/"listening for connections"/)) as { address: string };
  port = Number(address.split(':').pop());
  client = new TlsClient({ source: memorySource('/web', td), authorize: matchAny() });
  kept = await open();
}, 30_000);
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  // the twin of every case
  expect(await echo(kept)).toBe('still here');
  const fresh = await open();
  expect(await echo(fresh)).toBe('still here');
  fresh.destroy();
  expect(heard.filter((words) => words !== 'still here')).toEqual([]);
  heard = [];
});
afterAll(async () => {
  kept?.destroy();
  await proxy?.stop();
  await api?.stop();
  behind?.close();
});

const open = () => client.connect({ host: '127.0.0.1', port, signal: AbortSignal.timeout(20_000) });

async function echo(socket: Socket): Promise<string> {
  const answer = once(socket, 'data', { signal: AbortSignal.timeout(5_000) });
  socket.write('still here');
  return String((await answer)[0]);
}

function stranger(words: Buffer | string = ''): Socket {
  const socket = connect(port, '127.0.0.1');
  sockets.push(socket);
  socket.on('error', () => {}).write(words);
  return socket;
}

const closed = (socket: Socket) => (socket.closed ? Promise.resolve() : new Promise<void>((done) => socket.once('close', () => done())));
const descriptors = () => readdirSync(`/proc/${proxy.pid}/fd`).length;
/** The beginning of a ClientHello that says it is 65,532 bytes long. */
const HELLO = Buffer.from('16030140000100fffc0303', 'hex');

test.each([
  ['a port scan', ''],
  ['plain HTTP', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'],
  ['junk', Buffer.alloc(100_000, 7)],
  ['a record of TLS that is too long', Buffer.from('1603017fff', 'hex')],
  ['an alert', Buffer.from('15030100020228', 'hex')],
  ['application data before a handshake', Buffer.from('1703030005', 'hex')],
])('%s', async (_, words) => {
  const socket = stranger(words);
  if (words === '') socket.end();
  await closed(socket.resume());
});

test('a ClientHello of 64 KiB, byte by byte, is over when its time is', async () => {
  const socket = stranger(HELLO);
  socket.setNoDelay(true);
  const from = performance.now();
  void (async () => {
    while (!socket.destroyed) {
      socket.write(Buffer.of(0));
      await systemClock.sleep(1);
    }
  })();
  await closed(socket.resume());
  expect(performance.now() - from).toBeLessThan(HANDSHAKE_MS + 8_000);
}, 20_000);

test('2,000 that say nothing or half a word are held, served around, and let go', async () => {
  const before = descriptors();
  const all = Array.from({ length: 2_000 }, (_, n) => stranger(n % 2 ? HELLO : ''));
  await Promise.all(all.map(async (socket) => socket.connecting && once(socket, 'connect')));
  const fresh = await open();
  expect(await echo(fresh)).toBe('still here');
  fresh.destroy();
  heard = [];
  await Promise.all(all.map((socket) => closed(socket.resume())));
  // what it keeps for itself
  for (const from = performance.now(); descriptors() > before + 5; await systemClock.sleep(50))
    if (performance.now() - from > 5_000) throw new Error(`${descriptors()} descriptors are open, ${before} were`);
}, 60_000);

test('without descriptors it waits, and goes on when there are some again', async () => {
  const limit = (count: number) => execFileSync('prlimit', ['--pid', String(proxy.pid), `--nofile=${count}:`]);
  limit(descriptors() + 20);
  const all = Array.from({ length: 60 }, () => stranger());
  await Promise.all(all.map((socket) => closed(socket.resume())));
  expect(await echo(kept)).toBe('still here');
  heard = [];
  limit(1_024);
}, 60_000);

describe('TLS that is not ours', () => {
  const { certificates, key } = td.x509Svid('/web').toPem();
  const refused = async (options: ConnectionOptions) => {
    const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false, cert: certificates, key, ...options });
    sockets.push(socket);
    const words: string[] = [];
    socket.on('error', (error) => words.push(String(error))).on('secureConnect', () => socket.write('let me in'));
    await closed(socket.resume());
    return words.join();
  };

  test.each(['TLSv1', 'TLSv1.1', 'TLSv1.2'] as const)('%s', async (version) => {
    expect(await refused({ minVersion: version, maxVersion: version, ciphers: 'DEFAULT@SECLEVEL=0' })).toMatch(
      /protocol version|EPROTO|alert/i,
    );
  });

  test('a chain of 100', async () => {
    const others = Array.from({ length: 99 }, (_, n) => td.x509Svid(`/${n}`).toPem().certificates);
    await refused({ cert: certificates + others.join('') });
    await proxy.line(/"CERTIFICATE_REFUSED"|"TLS_HANDSHAKE"/);
  });

  test('a certificate of a megabyte', async () => {
    const uris = Array.from({ length: 17_000 }, (_, n) => `https://example.org/${'x'.repeat(40)}${n}`);
    const { chainDer, certificatesPem, keyPem } = td.rawSvid('/web', { uris });
    expect(chainDer[0]?.length).toBeGreaterThan(1_000_000);
    await refused({ cert: certificatesPem, key: keyPem });
    await proxy.line(/"CERTIFICATE_REFUSED"|"TLS_HANDSHAKE"/);
  });

  test('(its positive twin: the same certificate over TLS 1.3 is let in)', async () => {
    const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false, cert: certificates, key, minVersion: 'TLSv1.3' });
    sockets.push(socket);
    await once(socket, 'secureConnect');
    expect(await echo(socket)).toBe('still here');
  });
});
