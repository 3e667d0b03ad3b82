/** Wrapper × attack: what must be refused is refused by every wrapper, as server and as client, and not a byte of it reaches the user's code. See docs/tls.md. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AddressInfo, connect, createServer } from 'node:net';
import { connect as tlsConnect, createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { Bundle, BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { systemClock } from '../../../spiffe/clock.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { matchAny, matchId } from '../../../spiffe/match.ts';
import { X509MemorySource } from '../../../spiffe/source/memory-source.ts';
import { X509Bundle } from '../../../spiffe/x509/x509-bundle.ts';
import { X509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { NOW_MS, type TestCertificate, testCertificate, testRoot } from '../../fakes/ca.ts';
import { ATTACKS, PEER, type Roots } from './attacks.ts';
import { pause, serverOf, WRAPPERS } from './wrappers.ts';

const clock = { ...systemClock, now: () => NOW_MS };

let own: X509Svid;
let source: X509MemorySource;
const shown = new Map<string, { cert: string; key: string } | undefined>();

const pemOf = (one: TestCertificate) => ({ cert: one.pem, key: one.key.export({ type: 'pkcs8', format: 'pem' }) as string });

beforeAll(async () => {
  const roots: Roots = { ours: await testRoot(), federated: await testRoot({ uris: ['spiffe://far.org'] }), nobodys: await testRoot() };
  const bundle = (name: string, root: TestCertificate) => {
    const trustDomain = TrustDomain.parse(name);
    return new Bundle(trustDomain, { x509Authorities: X509Bundle.fromPem(trustDomain, root.pem).authorities });
  };
  const me = await testCertificate({ issuer: roots.ours, uris: ['spiffe://example.org/me'] });
  own = X509Svid.fromPem(me.pem, pemOf(me).key);
  source = new X509MemorySource(
    { svid: own, bundles: new BundleSet([bundle('example.org', roots.ours), bundle('far.org', roots.federated)]) },
    clock,
  );
  for (const { what, leaf } of ATTACKS) {
    const options = leaf(roots);
    shown.set(what, options && pemOf(await testCertificate(options)));
  }
  shown.set('good', pemOf(await testCertificate({ issuer: roots.ours, uris: [PEER] })));
});

const settings = () => ({ source, authorize: matchId(PEER), clock });

/** Somebody with a certificate and no scruples: OpenSSL's verdict is off, and it talks at once. */
async function intrude(port: number, what: string, alpn: readonly string[], words: Buffer): Promise<string> {
  const tcp = connect(port, '127.0.0.1');
  tcp.on('error', () => {});
  const tls = tlsConnect({
    socket: tcp,
    ...shown.get(what),
    rejectUnauthorized: false,
    ...(alpn.length > 0 && { ALPNProtocols: [...alpn] }),
  });
  let heard = '';
  tls.on('error', () => {});
  // in the very turn in which the handshake ends, so that the words travel with it
  tls.once('secureConnect', () => tls.write(words));
  tls.on('data', (data: Buffer) => (heard += String(data)));
  const limit = setTimeout(() => tcp.destroy(), 500);
  await once(tls, 'close').catch(() => {});
  clearTimeout(limit);
  return heard;
}

describe.each(WRAPPERS.filter((one) => one.serve).map((one) => [one.name, one] as const))('a server of %s', (_, wrapper) => {
  test('lets the right client in, whose first words travel with the handshake', async () => {
    const serving = await serverOf(wrapper).serve(settings());
    onTestFinished(() => serving.close());
    const heard = await intrude(serving.port, 'good', wrapper.alpn, wrapper.firstWords);
    expect(heard.length).toBeGreaterThan(0);
    if (wrapper.name !== 'grpc') expect(serving.delivered).toContain(`you are ${PEER}`);
    expect(serving.refused).toEqual([]);
  });

  test.each(ATTACKS)('refuses $what ($reason), and its user hears nothing', async ({ what, reason }) => {
    const serving = await serverOf(wrapper).serve(settings());
    onTestFinished(() => serving.close());
    expect(await intrude(serving.port, what, wrapper.alpn, wrapper.firstWords)).toBe('');
    expect(serving.delivered).toEqual([]);
    expect(serving.refused).toMatchObject([{ reason }]);
  });

  test('resumes nothing', async () => {
    const serving = await serverOf(wrapper).serve(settings());
    onTestFinished(() => serving.close());
    const sessions: Buffer[] = [];
    const dial = async (session?: Buffer) => {
      const tls = tlsConnect({
        port: serving.port,
        host: '127.0.0.1',
        ...shown.get('good'),
        rejectUnauthorized: false,
        ...(session && { session }),
        ...(wrapper.alpn.length > 0 && { ALPNProtocols: [...wrapper.alpn] }),
      });
      tls.on('session', (one) => sessions.push(one)).on('error', () => {});
      await once(tls, 'secureConnect');
      tls.write(wrapper.firstWords);
      await once(tls, 'data');
      const seen = { reused: tls.isSessionReused(), protocol: tls.getProtocol() };
      tls.destroy();
      return seen;
    };
    expect(await dial()).toEqual({ reused: false, protocol: 'TLSv1.3' });
    // OpenSSL sends tickets for a cache that Node does not have: nobody can use them
    for (const session of [...sessions]) expect(await dial(session)).toEqual({ reused: false, protocol: 'TLSv1.3' });
    expect(serving.refused).toEqual([]);
  });

  test('offers no early data, in whatever ticket it sends (0-RTT)', async () => {
    const serving = await serverOf(wrapper).serve(settings());
    onTestFinished(() => serving.close());
    const folder = mkdtempSync(join(tmpdir(), 'early-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const good = shown.get('good');
    writeFileSync(join(folder, 'both.pem'), `${good?.cert}${good?.key}`);
    const args = ['s_client', '-connect', `127.0.0.1:${serving.port}`, '-cert', join(folder, 'both.pem')];
    const child = spawn('openssl', wrapper.alpn.length > 0 ? [...args, '-alpn', wrapper.alpn.join()] : args);
    let words = '';
    child.stdout.on('data', (data: Buffer) => (words += String(data)));
    child.stdin.write(wrapper.firstWords);
    // it tells of tickets when it ends, and ends when it has nothing more to send
    setTimeout(() => child.stdin.end(), 300);
    await once(child, 'close');
    expect(new Set(words.match(/Max Early Data: .*/g))).toEqual(new Set(['Max Early Data: 0']));
  });

  test('refuses plain text, and who leaves in the middle', async () => {
    const serving = await serverOf(wrapper).serve({ ...settings(), handshakeMs: 300 });
    onTestFinished(() => serving.close());
    const tcp = connect(serving.port, '127.0.0.1', () => tcp.write(wrapper.firstWords));
    tcp.on('error', () => {}).resume();
    await once(tcp, 'close');
    const hello = connect(serving.port, '127.0.0.1', () => hello.end(Buffer.from('160301', 'hex')));
    hello.on('error', () => {}).resume();
    await once(hello, 'close');
    expect(serving.delivered).toEqual([]);
    expect(serving.refused).toHaveLength(2);
  });
});

/** A server of the attacker's that writes down what it is sent. */
async function trap(what: string, alpn: readonly string[]) {
  const received: Buffer[] = [];
  const server = createTlsServer({
    ...shown.get(what),
    requestCert: true,
    rejectUnauthorized: false,
    ...(alpn.length > 0 && { ALPNProtocols: [...alpn] }),
  });
  const sockets: { destroy(): void }[] = [];
  server.on('connection', (socket) => sockets.push(socket));
  server.on('tlsClientError', () => {});
  server.on('secureConnection', (socket: TLSSocket) => {
    socket.on('data', (data: Buffer) => received.push(data)).on('error', () => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, received };
}

const failure = (promise: Promise<unknown>) =>
  promise.then(
    (value) => value,
    (error: unknown) => error,
  );

/** The refusal, wherever the wrapped library put it. */
function reasonOf(error: unknown): string {
  const found: string[] = [];
  for (let one = error; one instanceof Error; one = one.cause)
    found.push(String((one as { reason?: unknown }).reason ?? ''), one.message, String((one as { details?: unknown }).details ?? ''));
  return found.join(' | ');
}

describe.each(WRAPPERS.map((one) => [one.name, one] as const))('a client of %s', (client, wrapper) => {
  test('talks to the right server', async () => {
    const { port, received } = await trap('good', wrapper.alpn);
    const asking = await wrapper.client(settings(), port);
    void failure(asking.ask());
    await expect.poll(() => received.length).toBeGreaterThan(0);
    await asking.close();
  });

  test.each(ATTACKS.filter(({ what }) => what !== 'no certificate'))(
    'refuses $what ($reason), and says nothing to it',
    async ({ what, reason }) => {
      const { port, received } = await trap(what, wrapper.alpn);
      const error = await failure(
        (async () => {
          const asking = await wrapper.client(settings(), port);
          onTestFinished(() => void asking.close());
          return asking.ask();
        })(),
      );
      expect(error).toBeInstanceOf(Error);
      // grpc-js hands on the words alone
      expect(reasonOf(error)).toMatch(
        client === 'grpc' ? /SPIFFE|trust domain|not allowed|certificate|authorit|issuer|issued|bundle/i : reason,
      );
      await pause(20);
      expect(received).toEqual([]);
    },
  );

  test('says nothing in plain text', async () => {
    const received: Buffer[] = [];
    const plain = createServer((socket) => socket.on('data', (data) => received.push(data)).on('error', () => {}));
    plain.listen(0, '127.0.0.1');
    await once(plain, 'listening');
    onTestFinished(() => void plain.close());
    const asking = wrapper
      .client(settings(), (plain.address() as AddressInfo).port)
      .then((one) => (onTestFinished(() => void one.close()), one.ask()));
    void failure(asking);
    await expect.poll(() => received.length).toBeGreaterThan(0);
    // a TLS record of a handshake, and nothing before it
    expect(Buffer.concat(received)[0]).toBe(0x16);
  });

  test('makes no connection without an SVID of its own', async () => {
    const { port } = await trap('good', wrapper.alpn);
    const empty = new X509MemorySource(undefined, clock);
    const error = await failure(
      (async () => {
        const asking = await wrapper.client({ source: empty, authorize: matchAny(), clock }, port);
        onTestFinished(() => void asking.close());
        return asking.ask();
      })(),
    );
    expect(reasonOf(error)).toContain('no X.509-SVID was set yet');
  });
});
