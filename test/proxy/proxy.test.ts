/** The way of a connection through a proxy, both roles, over real sockets: who gets through, what each side hears of an end, and what ends with the identity. */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect as connectTcp, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { describe, expect, onTestFinished, test } from 'vitest';
import { NOBODY } from '../../proxy/access.ts';
import { parseUriPattern } from '../../proxy/uri-pattern.ts';
import { BundleSet } from '../../spiffe/bundle/bundle.ts';
import { EphemeralTrustDomain } from '../../spiffe/testing/trust-domain.ts';
import { ask, backend, client, dial, hear, memorySource, server, td } from './rig.ts';

const uris = (...patterns: string[]) => ({ ...NOBODY, uris: patterns.map(parseUriPattern) });

/** plain client → client → server → plain backend. */
async function pair(serve?: Parameters<typeof backend>[0], change: Parameters<typeof server>[3] = {}) {
  const behind = await backend(serve);
  const sources = { web: memorySource('/web'), db: memorySource('/db') };
  const inbound = await server(behind.port, sources.db, {}, change);
  const outbound = await client(inbound.port, sources.web, {}, change);
  return { behind, sources, inbound, outbound };
}

describe('two proxies', () => {
  test('carry what is said both ways, and know each other', async () => {
    const { inbound, outbound } = await pair();
    expect(await ask(outbound.port, 'hello')).toBe('hello');
    expect(await outbound.end()).toMatchObject({
      reason: 'CLOSED',
      peerName: 'spiffe://example.org/db',
      protocol: 'TLSv1.3',
      mode: 'client',
    });
    expect(await inbound.end()).toMatchObject({ reason: 'CLOSED', peerName: 'spiffe://example.org/web', mode: 'server' });
    expect(inbound.ended[0]?.pipe).toMatchObject({ bytesUp: 5, bytesDown: 5 });
  });

  test('lose and change no byte of 64 MiB each way at once', async () => {
    const { outbound } = await pair();
    const data = randomBytes(64 * 1024 * 1024);
    const socket = await dial(outbound.port);
    socket.end(data);
    const hash = createHash('sha256');
    for await (const chunk of socket) hash.update(chunk as Buffer);
    expect(hash.digest('hex')).toBe(createHash('sha256').update(data).digest('hex'));
  });

  test('what a backend says before it was asked arrives', async () => {
    const { outbound } = await pair((socket) => socket.end('welcome'));
    const socket = await dial(outbound.port);
    expect(await hear(socket)).toEqual({ said: 'welcome', end: 'end' });
  });
});

describe('PX-11 an end is passed on', () => {
  test('as a half-close from the client: the answer that comes after it arrives', async () => {
    const { outbound } = await pair((socket) => {
      let heard = '';
      socket.on('data', (data) => (heard += String(data)));
      socket.on('end', () => socket.end(`you said ${heard}`));
    });
    expect(await ask(outbound.port, 'all of it')).toBe('you said all of it');
  });

  test('as a half-close from the backend: what is said after it arrives', async () => {
    const { behind, outbound } = await pair((socket) => socket.end('bye'));
    const socket = await dial(outbound.port);
    expect(await hear(socket)).toEqual({ said: 'bye', end: 'end' });
    socket.end('one more thing');
    const [at] = behind.sockets;
    let heard = '';
    for await (const data of at ?? []) heard += String(data);
    expect(heard).toBe('one more thing');
    expect(await outbound.end()).toMatchObject({ reason: 'CLOSED' });
  });

  test('as a reset from the client', async () => {
    const { behind, inbound, outbound } = await pair();
    const socket = await dial(outbound.port);
    socket.write('x');
    await once(socket, 'data');
    const [at] = behind.sockets;
    const failed = new Promise<string>((done) => at?.once('error', (error: NodeJS.ErrnoException) => done(error.code ?? '')));
    socket.resetAndDestroy();
    expect(await failed).toBe('ECONNRESET');
    expect(await outbound.end()).toMatchObject({ reason: 'RESET', fault: 'none' });
    expect(await inbound.end()).toMatchObject({ reason: 'RESET' });
  });

  test('as a reset from the backend', async () => {
    const { outbound } = await pair((socket) => socket.once('data', () => socket.resetAndDestroy()));
    const socket = await dial(outbound.port);
    socket.write('x');
    expect((await hear(socket)).end).toBe('reset');
  });

  test('one side that does not follow is ended when --close-timeout is over', async () => {
    const { outbound } = await pair(() => {}, { timeouts: { closeMs: 100 } });
    const socket = await dial(outbound.port);
    socket.end('x');
    expect((await hear(socket)).end).not.toBe('open');
    expect(await outbound.end()).toMatchObject({ reason: 'TIMEOUT_CLOSE' });
  });

  test('with --close-timeout 0 the first end ends both', async () => {
    const { outbound } = await pair(() => {}, { timeouts: { closeMs: 0 } });
    const socket = await dial(outbound.port);
    socket.end('x');
    await hear(socket);
    expect(await outbound.end()).toMatchObject({ reason: 'CLOSED' });
  });

  test('between UNIX sockets at both ends, too', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'proxy-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    await backend((socket) => socket.on('end', () => socket.end('late')).resume(), { path: join(folder, 'back.sock') });
    const inbound = await server(0, memorySource('/db'), { target: { kind: 'unix', path: join(folder, 'back.sock') } });
    await client(inbound.port, memorySource('/web'), { listen: { kind: 'unix', path: join(folder, 'front.sock') } });
    const socket = await dial({ path: join(folder, 'front.sock') });
    socket.end('x');
    expect(await hear(socket)).toEqual({ said: 'late', end: 'end' });
  });
});

describe('PX-3, PX-4 who is not let through', () => {
  test('a client that no flag allows: the backend hears nothing of it', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), { access: uris('spiffe://example.org/web') });
    const good = await client(inbound.port, memorySource('/web'));
    const bad = await client(inbound.port, memorySource('/evil'));
    expect(await ask(bad.port, 'let me in')).toBe('');
    expect(await inbound.end()).toMatchObject({ reason: 'POLICY_DENIED', fault: 'policy', opened: false });
    expect(behind.sockets).toHaveLength(0);
    expect(await ask(good.port, 'hello')).toBe('hello');
  });

  test('a server that no flag allows: nothing is said to it', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'));
    const bad = await client(inbound.port, memorySource('/web'), { access: uris('spiffe://example.org/other') });
    expect(await ask(bad.port, 'secret')).toBe('');
    expect(await bad.end()).toMatchObject({ reason: 'UPSTREAM_REFUSED', opened: false });
    const good = await client(inbound.port, memorySource('/web'), { access: uris('spiffe://example.org/db') });
    expect(await ask(good.port, 'hello')).toBe('hello');
    await expect.poll(() => inbound.proxy.connections.size).toBe(0);
    expect(inbound.ended.map(({ pipe }) => pipe?.bytesUp ?? 0).sort((a, b) => a - b)).toEqual([0, 'hello'.length]);
  });

  test('who has an authority of a federated trust domain sign our name', async () => {
    const far = EphemeralTrustDomain.create('far.org');
    const behind = await backend();
    const both = new BundleSet([far.bundle, td.bundle]);
    const db = memorySource('/db');
    db.set({ bundles: both });
    const inbound = await server(behind.port, db);
    const stranger = EphemeralTrustDomain.create('example.org');
    const forged = memorySource('/web', stranger);
    forged.set({ bundles: both });
    const bad = await client(inbound.port, forged);
    expect(await ask(bad.port, 'x')).toBe('');
    expect(await inbound.end()).toMatchObject({ reason: 'CERTIFICATE_REFUSED', error: { code: 'SVID_UNTRUSTED' } });
    const federated = memorySource('/web', far);
    federated.set({ bundles: both });
    const good = await client(inbound.port, federated);
    expect(await ask(good.port, 'hello')).toBe('hello');
  });

  test('who shows no certificate', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'));
    const tls = connectTls({ port: inbound.port, host: '127.0.0.1', rejectUnauthorized: false });
    tls.on('error', () => {});
    tls.once('secureConnect', () => tls.write('GET / HTTP/1.1\r\n\r\n'));
    await new Promise((done) => tls.once('close', done));
    expect(await inbound.end()).toMatchObject({ reason: 'CERTIFICATE_REFUSED' });
    expect(behind.sockets).toHaveLength(0);
  });

  test('plain text on the TLS port, a port scan, half a handshake', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), {}, { timeouts: { connectMs: 300 } });
    const http = connectTcp(inbound.port, '127.0.0.1', () => http.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'));
    http.on('error', () => {}).resume();
    await new Promise((done) => http.once('close', done));
    expect(await inbound.end()).toMatchObject({ reason: 'TLS_HANDSHAKE', fault: 'client' });
    const scan = connectTcp(inbound.port, '127.0.0.1', () => scan.destroy());
    const half = connectTcp(inbound.port, '127.0.0.1', () => half.write(Buffer.from('1603010200', 'hex')));
    half.on('error', () => {}).resume();
    expect(await inbound.end(({ reason }) => reason === 'TLS_TIMEOUT')).toMatchObject({ fault: 'client' });
    await expect.poll(() => inbound.proxy.connections.size).toBe(0);
    expect(behind.sockets).toHaveLength(0);
    const good = await client(inbound.port, memorySource('/web'));
    expect(await ask(good.port, 'hello')).toBe('hello');
  });

  test('a target that is not there, and one that hangs', async () => {
    const closed = createServer().listen(0, '127.0.0.1');
    await once(closed, 'listening');
    const { port } = closed.address() as { port: number };
    await new Promise((done) => closed.close(done));
    const inbound = await server(port, memorySource('/db'));
    const outbound = await client(inbound.port, memorySource('/web'));
    expect(await ask(outbound.port, 'x')).toBe('');
    expect(await inbound.end()).toMatchObject({ reason: 'UPSTREAM_CONNECT', fault: 'upstream' });
    // it takes the connection, and never says a word of TLS
    const deaf = await backend(() => {});
    const waiting = await client(deaf.port, memorySource('/web'), {}, { timeouts: { connectMs: 200 } });
    expect(await ask(waiting.port, 'x')).toBe('');
    expect(await waiting.end()).toMatchObject({ reason: 'UPSTREAM_TIMEOUT' });
  });
});

describe('PX-34 one side alone shows an SVID', () => {
  test('a server that asks no client for a certificate, a client that shows none', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), { authenticate: false });
    const outbound = await client(inbound.port, memorySource('/web'), { authenticate: false, access: uris('spiffe://example.org/db') });
    expect(await ask(outbound.port, 'hello')).toBe('hello');
    expect(await inbound.end()).toMatchObject({ peer: undefined, peerName: undefined });
    const wrong = await client(inbound.port, memorySource('/web'), { authenticate: false, access: uris('spiffe://example.org/other') });
    expect(await ask(wrong.port, 'x')).toBe('');
  });
});

/** An open connection through both, and how it ends. */
async function opened(of: Awaited<ReturnType<typeof pair>>) {
  const socket = connectTcp(of.outbound.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write('x');
  await once(socket, 'data');
  return { socket, end: new Promise((done) => socket.once('close', done)) };
}

describe('PX-7, PX-8 a live connection', () => {
  test('ends within two seconds of its peer’s authority, and says why; one that is trusted goes on', async () => {
    const both = await pair();
    const { end } = await opened(both);
    const other = EphemeralTrustDomain.create('example.org');
    both.sources.db.set({ bundles: other.bundle });
    await end;
    expect(await both.inbound.end()).toMatchObject({ reason: 'TRUST_REMOVED', fault: 'policy' });
  });

  test('ends within two seconds when our own identity is taken back', async () => {
    const both = await pair();
    const { end } = await opened(both);
    both.sources.web.forget();
    await end;
    expect(await both.outbound.end()).toMatchObject({ reason: 'IDENTITY_TAKEN_BACK' });
  });

  test('ends when a rule has changed, and only if it forbids it', async () => {
    const behind = await backend();
    let allowed = true;
    const access = { ...NOBODY, uris: [{ text: 'test', matches: () => allowed }] };
    const inbound = await server(behind.port, memorySource('/db'), { access });
    const outbound = await client(inbound.port, memorySource('/web'));
    const socket = connectTcp(outbound.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write('x');
    await once(socket, 'data');
    await inbound.proxy.recheck();
    socket.write('y');
    await once(socket, 'data');
    allowed = false;
    const end = new Promise((done) => socket.once('close', done));
    await inbound.proxy.recheck();
    await end;
    expect(await inbound.end()).toMatchObject({ reason: 'POLICY_CHANGED' });
  });

  test('ends with an SVID, when it is quiet before that; with --rotation=keep it stays', async () => {
    const short = () => td.x509Svid('/web', { ttlMs: 1_500 });
    for (const keepConnections of [false, true]) {
      const both = await pair(undefined, { keepConnections });
      both.sources.web.set({ svid: short() });
      const { socket, end } = await opened(both);
      both.sources.web.set({ svid: td.x509Svid('/web') });
      if (keepConnections) {
        await Promise.race([end.then(() => Promise.reject(new Error('it ended'))), new Promise((done) => setTimeout(done, 2_000))]);
        socket.write('still');
        await once(socket, 'data');
        expect(both.outbound.ended).toEqual([]);
      } else {
        await end;
        expect((await both.outbound.end()).reason).toMatch(/^SVID_EXPIRE/);
        // the next one is made with the next SVID
        await opened(both);
      }
    }
  });

  test('ends when it is older than it may get, and when no byte has passed for too long', async () => {
    const old = await pair(undefined, { timeouts: { lifetimeMs: 150 } });
    await (await opened(old)).end;
    expect((await old.outbound.end()).reason).toBe('TIMEOUT_LIFETIME');
    const idle = await pair(undefined, { timeouts: { idleMs: 150 } });
    await (await opened(idle)).end;
    expect((await idle.outbound.end()).reason).toBe('TIMEOUT_IDLE');
  });
});

describe('PX-12 limits', () => {
  test('beyond --max-concurrent-conns one waits, and is served when another has ended', async () => {
    const both = await pair(undefined, {});
    const limited = await client(both.inbound.port, both.sources.web, {}, { limits: { maxConnections: 1 } });
    const first = await dial(limited.port);
    first.write('1');
    await once(first, 'data');
    const second = await dial(limited.port);
    second.write('2');
    let heard = false;
    const answer = once(second, 'data').then(() => (heard = true));
    first.write('1');
    await once(first, 'data');
    expect(heard).toBe(false);
    first.destroy();
    expect(await answer).toBe(true);
  });

  test('one peer at its limit does not affect another', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), {}, { limits: { maxConnectionsPerId: 1 } });
    const greedy = await client(inbound.port, memorySource('/greedy'));
    const modest = await client(inbound.port, memorySource('/modest'));
    const one = await dial(greedy.port);
    one.write('x');
    await once(one, 'data');
    expect(await ask(greedy.port, 'more')).toBe('');
    expect(await inbound.end()).toMatchObject({ reason: 'LIMIT_PEER' });
    expect(await ask(modest.port, 'hello')).toBe('hello');
    one.destroy();
    await inbound.end(({ opened }) => opened);
    expect(await ask(greedy.port, 'again')).toBe('again');
  });

  test('more handshakes in one second than may be are refused', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'), {}, { limits: { maxHandshakesPerSecond: 2 } });
    const outbound = await client(inbound.port, memorySource('/web'));
    const answers = await Promise.all(Array.from({ length: 12 }, () => ask(outbound.port, 'x')));
    expect(answers).toContain('x');
    expect(answers).toContain('');
    expect(inbound.ended.some(({ reason }) => reason === 'LIMIT_HANDSHAKES')).toBe(true);
  });
});

describe('PX-10 stopping', () => {
  test('transfers that are under way end well, nobody new is let in', async () => {
    const data = randomBytes(8 * 1024 * 1024);
    const { outbound } = await pair((socket) => void socket.once('data', () => socket.end(data)));
    const socket = await dial(outbound.port);
    socket.write('send');
    await once(socket, 'readable');
    const drained = outbound.proxy.stop(new AbortController().signal);
    expect(outbound.proxy.state).toBe('stopping');
    await expect(dial(outbound.port)).rejects.toThrow('ECONNREFUSED');
    let bytes = 0;
    for await (const chunk of socket) bytes += (chunk as Buffer).length;
    socket.end();
    expect(bytes).toBe(data.length);
    expect(await drained).toBe(true);
  });

  test('what does not end in time is cut, and that is told', async () => {
    const both = await pair(undefined, { timeouts: { shutdownMs: 100 } });
    const { end } = await opened(both);
    expect(await both.outbound.proxy.stop(new AbortController().signal)).toBe(false);
    await end;
    expect(await both.outbound.end()).toMatchObject({ reason: 'SHUTDOWN' });
  });

  test('handshakes are given up at once', async () => {
    const { inbound } = await pair();
    const half = connectTcp(inbound.port, '127.0.0.1');
    half.on('error', () => {}).resume();
    await once(half, 'connect');
    await expect.poll(() => inbound.proxy.connections.size).toBe(1);
    const closed = new Promise((done) => half.once('close', done));
    expect(await inbound.proxy.stop(new AbortController().signal)).toBe(true);
    await closed;
    expect(await inbound.end()).toMatchObject({ reason: 'SHUTDOWN' });
  });
});

describe('the plain side', () => {
  const own = process.getuid?.() ?? -1;

  test('is for the users that it was opened for; others are refused before a byte is read', async () => {
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'));
    const mine = await client(inbound.port, memorySource('/web'), { plainPeers: { uids: [own], gids: [] } });
    expect(await ask(mine.port, 'hello')).toBe('hello');
    expect(await mine.end()).toMatchObject({ plainPeer: { uid: own } });
    const theirs = await client(inbound.port, memorySource('/web'), { plainPeers: { uids: [own + 1], gids: [] } });
    const before = inbound.ended.length + inbound.proxy.connections.size;
    expect(await ask(theirs.port, 'secret')).toBe('');
    expect(await theirs.end()).toMatchObject({ reason: 'PLAIN_PEER_DENIED', fault: 'policy' });
    expect(inbound.ended.length + inbound.proxy.connections.size).toBeLessThanOrEqual(before);
  });

  test('over a UNIX socket groups count, too', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'proxy-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const behind = await backend();
    const inbound = await server(behind.port, memorySource('/db'));
    const gid = process.getgid?.() ?? -1;
    const at = async (name: string, gids: number[]) => {
      const path = join(folder, name);
      const running = await client(inbound.port, memorySource('/web'), { listen: { kind: 'unix', path }, plainPeers: { uids: [], gids } });
      const socket = await dial({ path });
      socket.end('hello');
      return { running, said: (await hear(socket)).said };
    };
    expect((await at('mine', [gid])).said).toBe('hello');
    const { running, said } = await at('theirs', [gid + 1]);
    expect(said).toBe('');
    expect(await running.end()).toMatchObject({ reason: 'PLAIN_PEER_DENIED' });
  });

  test('groups over TCP are refused at start: the kernel tells only the user', async () => {
    await expect(client(1, memorySource('/web'), { plainPeers: { uids: [], gids: [1] } })).rejects.toMatchObject({
      code: 'SETTINGS_INVALID',
    });
  });
});
