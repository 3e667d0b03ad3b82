/** PX-15, PX-29: what comes before TLS or in place of it. PROXY headers as haproxy's proxy-protocol.txt §2.1 and §2.2 have them. */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { NOBODY } from '../../proxy/access.ts';
import { ProxyHeaderError, readProxyHeader } from '../../proxy/proxy-protocol-in.ts';
import { plainProxyHeader } from '../../proxy/proxy-protocol.ts';
import { TlsClient } from '../../spiffe/tls/client.ts';
import { matchAny } from '../../spiffe/match.ts';
import { ask, backend, client, dial, hear, memorySource, server } from './rig.ts';

const SIGNATURE = '0d0a0d0a000d0a515549540a';
const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');
const v1 = (line: string) => Buffer.from(`${line}\r\n`);
const ENDS = { remoteAddress: '192.0.2.1', remotePort: 51_000, localAddress: '192.0.2.2', localPort: 443 };
const V1_LINE = 'PROXY TCP4 192.0.2.1 192.0.2.2 51000 443';

describe('a PROXY header, read', () => {
  test.each([
    ['version 1, IPv4', v1(V1_LINE), ENDS],
    [
      'version 1, IPv6',
      v1('PROXY TCP6 2001:db8::1 ::1 65535 0'),
      { remoteAddress: '2001:db8::1', remotePort: 65_535, localAddress: '::1', localPort: 0 },
    ],
    ['version 1, unknown', v1('PROXY UNKNOWN'), undefined],
    ['version 1, unknown with addresses, which are ignored', v1('PROXY UNKNOWN ffff::1 ffff::1 65535 65535'), undefined],
    ['version 2, IPv4', hex(`${SIGNATURE} 21 11 000c c0000201 c0000202 c738 01bb`), ENDS],
    [
      'version 2, IPv6, with a field',
      hex(`${SIGNATURE} 21 21 0028 20010db8000000000000000000000001 ${'00'.repeat(15)}01 0001 0002 02000161`),
      { remoteAddress: '2001:db8::1', remotePort: 1, localAddress: '::1', localPort: 2 },
    ],
    ['version 2, of the proxy itself: addresses are ignored', hex(`${SIGNATURE} 20 11 000c c0000201 c0000202 c738 01bb`), undefined],
    ['version 2, no family', hex(`${SIGNATURE} 21 00 0000`), undefined],
    ['version 2, over a UNIX socket', Buffer.concat([hex(`${SIGNATURE} 21 31 00d8`), Buffer.alloc(216)]), undefined],
  ])('%s', (_, header, value) => {
    const all = Buffer.concat([header, Buffer.from('PROXY')]);
    expect(readProxyHeader(all)).toEqual({ value, taken: header.length });
    // in whatever pieces it comes
    for (let length = 1; length < header.length; length++) expect(readProxyHeader(all.subarray(0, length))).toBeUndefined();
  });

  test.each([
    ['no header', Buffer.from('GET / HTTP/1.1\r\n')],
    ['TLS', hex('1603010200')],
    ['too long a line', v1(`${V1_LINE}${' '.repeat(80)}`)],
    ['a line without end', Buffer.alloc(200, 'PROXY TCP4 ')],
    ['an address of the other family', v1('PROXY TCP4 ::1 ::1 1 2')],
    ['no address', v1('PROXY TCP4 localhost 192.0.2.2 1 2')],
    ['a port that is none', v1('PROXY TCP4 192.0.2.1 192.0.2.2 65536 1')],
    ['a port with a leading zero', v1('PROXY TCP4 192.0.2.1 192.0.2.2 01 1')],
    ['a word too few', v1('PROXY TCP4 192.0.2.1 192.0.2.2 1')],
    ['a word too many', v1(`${V1_LINE} 9`)],
    ['two spaces', v1('PROXY TCP4  192.0.2.1 192.0.2.2 1 2')],
    ['a family of its own making', v1('PROXY TCP5 192.0.2.1 192.0.2.2 1 2')],
    ['a version of its own making', hex(`${SIGNATURE} 31 11 000c c0000201 c0000202 c738 01bb`)],
    ['a command of its own making', hex(`${SIGNATURE} 22 11 000c c0000201 c0000202 c738 01bb`)],
    ['UDP', hex(`${SIGNATURE} 21 12 000c c0000201 c0000202 c738 01bb`)],
    ['addresses cut short', hex(`${SIGNATURE} 21 11 000b c0000201 c0000202 c738 01`)],
    ['fields without end', hex(`${SIGNATURE} 21 11 ffff c0000201 c0000202 c738 01bb`)],
  ])('%s is refused', (_, bytes) => {
    expect(() => readProxyHeader(bytes)).toThrow(ProxyHeaderError);
  });

  test('what we write ourselves is read as it was; nothing throws anything else', () => {
    const port = fc.nat(65_535);
    fc.assert(
      fc.property(
        fc.constantFrom(fc.ipV4(), fc.ipV6()).chain((ip) => fc.tuple(ip, ip)),
        port,
        port,
        ([from, to], fromPort, toPort) => {
          const ends = { remoteAddress: from, remotePort: fromPort, localAddress: to, localPort: toPort };
          const read = readProxyHeader(plainProxyHeader(ends))?.value;
          expect(read && plainProxyHeader(read)).toEqual(plainProxyHeader(ends));
        },
      ),
    );
    fc.assert(
      fc.property(fc.constantFrom('', SIGNATURE, `${SIGNATURE}21`, '50524f585920'), fc.uint8Array({ maxLength: 300 }), (start, rest) => {
        try {
          readProxyHeader(Buffer.concat([hex(start), rest]));
        } catch (error) {
          expect(error).toBeInstanceOf(ProxyHeaderError);
        }
      }),
    );
  });
});

/** TLS over a connection on which something was said before; the end of what the backend says. */
async function overTls(socket: Socket, words: string): Promise<string> {
  const web = new TlsClient({ source: memorySource('/web'), authorize: matchAny() });
  const tls = await web.connect({ socket, host: 'db', port: 0, signal: AbortSignal.timeout(5_000) });
  onTestFinished(() => void tls.destroy());
  tls.write(words);
  const [chunk] = (await once(tls, 'data')) as [Buffer];
  tls.end();
  return String(chunk);
}

describe('from those whose PROXY header is believed', () => {
  const BELIEVED = { proxyFrom: ['192.0.2.0/24', '127.0.0.1'] };

  test.each([
    ['version 1', v1(V1_LINE)],
    ['version 2', plainProxyHeader(ENDS)],
  ])('%s: the client is who it says, in our log and in our own header to the target', async (_, header) => {
    const behind = await backend((socket) => socket.once('data', (chunk: Buffer) => socket.end(chunk.toString('hex'))));
    const inbound = await server(behind.port, memorySource('/db'), { ...BELIEVED, proxyProtocol: 'conn' });
    const socket = await dial(inbound.port);
    socket.write(header);
    expect(await overTls(socket, 'x')).toMatch(new RegExp(`^${plainProxyHeader(ENDS).toString('hex')}`));
    expect(await inbound.end()).toMatchObject({
      from: '192.0.2.1:51000',
      via: expect.stringMatching(/^127\.0\.0\.1:\d+$/) as unknown,
      peerName: 'spiffe://example.org/web',
      reason: 'CLOSED',
    });
  });

  test('header and handshake in one piece, and byte by byte', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), BELIEVED);
    const pieces = await dial(inbound.port);
    pieces.setNoDelay(true);
    for (const byte of v1(V1_LINE)) pieces.write(Buffer.of(byte));
    expect(await overTls(pieces, 'in pieces')).toBe('in pieces');
    const whole = await dial(inbound.port);
    whole.cork();
    whole.write(v1(V1_LINE));
    setImmediate(() => whole.uncork());
    expect(await overTls(whole, 'in one')).toBe('in one');
  });

  test('a header that names nobody: the client is who is connected', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), BELIEVED);
    const socket = await dial(inbound.port);
    socket.write(v1('PROXY UNKNOWN'));
    expect(await overTls(socket, 'hello')).toBe('hello');
    expect(await inbound.end()).toMatchObject({ from: expect.stringMatching(/^127\.0\.0\.1:/) as unknown, via: undefined });
  });

  test.each([
    ['no header', () => Buffer.alloc(0)],
    ['a malformed one', () => v1('PROXY TCP4 nobody nowhere 1 2')],
  ])('%s is refused, and the target hears of nobody', async (_, header) => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), BELIEVED);
    const socket = await dial(inbound.port);
    socket.write(header());
    await expect(overTls(socket, 'hello')).rejects.toThrow();
    expect(await inbound.end()).toMatchObject({ reason: 'PROXY_HEADER' });
    expect(behind.sockets).toHaveLength(0);
  });

  test('who does not say anything is refused when the time is over', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), BELIEVED, { timeouts: { connectMs: 100 } });
    expect(await hear(await dial(inbound.port))).toMatchObject({ said: '' });
    expect(await inbound.end()).toMatchObject({ reason: 'PROXY_HEADER' });
  });

  test('from nobody else: whoever is not named speaks TLS at once, and a header of his is no TLS', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), { proxyFrom: ['192.0.2.0/24', '2001:db8::/32'] });
    expect(await overTls(await dial(inbound.port), 'hello')).toBe('hello');
    const forger = await dial(inbound.port);
    forger.write(v1(V1_LINE));
    await expect(overTls(forger, 'hello')).rejects.toThrow();
    expect(await inbound.end(({ reason }) => reason === 'TLS_HANDSHAKE')).toMatchObject({
      from: expect.stringMatching(/^127\.0\.0\.1:/) as unknown,
    });
    expect(behind.sockets).toHaveLength(1);
  });
});

describe('PX-29 a permissive port', () => {
  test('takes plain text and TLS, and says which it was', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), { permissive: true });
    expect(await ask(inbound.port, 'GET / HTTP/1.1')).toBe('GET / HTTP/1.1');
    expect(await inbound.end()).toMatchObject({ plaintext: true, peerName: undefined, protocol: undefined, reason: 'CLOSED' });
    const outbound = await client(inbound.port, memorySource('/web'));
    expect(await ask(outbound.port, 'secret')).toBe('secret');
    expect(await inbound.end(({ plaintext }) => !plaintext)).toMatchObject({ peerName: 'spiffe://example.org/web' });
  });

  test('(its negative twin: a strict port takes no plain text)', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'));
    expect(await ask(inbound.port, 'GET / HTTP/1.1')).toBe('');
    expect(behind.sockets).toHaveLength(0);
  });

  test('changes no byte of either', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), { permissive: true });
    const outbound = await client(inbound.port, memorySource('/web'));
    const data = randomBytes(8 * 1024 * 1024);
    data[0] = 0x17;
    for (const port of [inbound.port, outbound.port]) {
      const socket = await dial(port);
      socket.end(data);
      const hash = createHash('sha256');
      for await (const chunk of socket) hash.update(chunk as Buffer);
      expect(hash.digest('hex')).toBe(createHash('sha256').update(data).digest('hex'));
    }
  });

  test('a client that waits for the server to speak first is taken for plain, within its bound', async () => {
    const behind = await backend((socket) => socket.end('220 ready'));
    const inbound = await server(behind.port, memorySource('/db'), { permissive: true });
    expect(await hear(await dial(inbound.port))).toMatchObject({ said: '220 ready' });
  });

  test('what begins like TLS and is none is not handed on as plain text', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), { permissive: true });
    const socket = await dial(inbound.port);
    socket.end(hex('1603010005 0100000100'));
    expect((await hear(socket)).said).not.toContain('\x16\x03\x01\x00\x05');
    expect(await inbound.end()).toMatchObject({ plaintext: false });
    expect(behind.sockets).toHaveLength(0);
  });

  test('a peer that is not allowed stays out by TLS', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), {
      permissive: true,
      access: NOBODY,
    });
    const outbound = await client(inbound.port, memorySource('/web'));
    expect(await ask(outbound.port, 'hello')).toBe('');
    expect(behind.sockets).toHaveLength(0);
  });

  test('becomes strict without a restart: plain text that is open ends, TLS goes on; and permissive again', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), { permissive: true });
    const [plain, tls] = [await dial(inbound.port), await dial((await client(inbound.port, memorySource('/web'))).port)];
    for (const socket of [plain, tls]) {
      socket.write('1');
      await once(socket, 'data');
    }
    const heard = hear(plain);
    await inbound.proxy.adjust([{ ...inbound.settings, permissive: false }]);
    expect(await heard).toMatchObject({ said: '' });
    expect(await inbound.end()).toMatchObject({ plaintext: true, reason: 'POLICY_CHANGED' });
    expect(await ask(inbound.port, 'plain')).toBe('');
    tls.write('2');
    expect(String((await once(tls, 'data'))[0])).toBe('2');
    await inbound.proxy.adjust([{ ...inbound.settings, permissive: true }]);
    expect(await ask(inbound.port, 'plain')).toBe('plain');
  });

  test('behind one whose PROXY header is believed, both', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), { permissive: true, proxyFrom: ['127.0.0.1'] });
    const plain = await dial(inbound.port);
    plain.end(Buffer.concat([v1(V1_LINE), Buffer.from('hello')]));
    expect((await hear(plain)).said).toBe('hello');
    expect(await inbound.end()).toMatchObject({ plaintext: true, from: '192.0.2.1:51000' });
    const tls = await dial(inbound.port);
    tls.write(v1(V1_LINE));
    expect(await overTls(tls, 'hello')).toBe('hello');
  });
});

test('other access flags than before: connections that they forbid end, and nobody new of those comes in', async () => {
  const behind = await backend();
  const inbound = await server(behind.port, memorySource('/db'));
  const outbound = await client(inbound.port, memorySource('/web'));
  const socket = await dial(outbound.port);
  socket.write('1');
  await once(socket, 'data');
  // another listener's rules are not its own
  await inbound.proxy.adjust([{ ...inbound.settings, name: 'other', access: NOBODY }]);
  socket.write('2');
  expect(String((await once(socket, 'data'))[0])).toBe('2');
  const heard = hear(socket);
  await inbound.proxy.adjust([{ ...inbound.settings, access: NOBODY }]);
  await heard;
  expect(await inbound.end()).toMatchObject({ reason: 'POLICY_CHANGED' });
  expect(await ask(outbound.port, 'again')).toBe('');
});

test('PX-12 more than 1,024 that wait for room are turned away, and those that wait are served in turn', async () => {
  const behind = await backend();
  const inbound = await server(behind.port, memorySource('/db'), { permissive: true }, { limits: { maxConnections: 1 } });
  const first = await dial(inbound.port);
  first.write('1');
  await once(first, 'data');
  const waiting = await Promise.all(Array.from({ length: 1_024 }, () => dial(inbound.port)));
  const late = await dial(inbound.port);
  late.write('late');
  expect((await hear(late)).said).toBe('');
  expect(await inbound.end()).toMatchObject({ reason: 'LIMIT_CONNECTIONS' });
  first.end();
  const [second] = waiting as [Socket];
  second.end('2');
  expect((await hear(second)).said).toBe('2');
});
