/** The server's doors over real sockets: who may come in by his certificate, for how long, and what it costs to stand in the doorway. */
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as plainTls, type TLSSocket } from 'node:tls';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { silent } from '../../core/log.ts';
import type { Peer } from '../../core/rpc-types.ts';
import { createRpcServer, type RpcServer, service } from '../../core/rpc.ts';
import { AgentDefinition } from '../../proto/gen/spire/api/server/agent/v1/agent.ts';
import { BundleDefinition } from '../../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import { Bundle as BundleMessage } from '../../proto/gen/spire/api/types/bundle.ts';
import { Callers } from '../../server/api/caller.ts';
import { createStrangersRpc, listenAdmin, listenTls, type TlsListener, type TlsListenerParts } from '../../server/listeners.ts';
import type { State } from '../../server/state.ts';
import { Bundle, BundleSet } from '../../spiffe/bundle/bundle.ts';
import { Certificate } from '../../spiffe/x509/certificate.ts';
import { openChannel, tlsCredentials } from '../../spiffe/rpc/channel.ts';
import { type Channel } from '../../spiffe/rpc/calls.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { connectTls } from '../../spiffe/tls/tls.ts';
import { X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { NOW_MS, type TestCertificate, testCertificate, testRoot } from '../fakes/ca.ts';
import { FakeClock } from '../fakes/clock.ts';

const trustDomain = TrustDomain.parse('example.org');
const SERVER = 'spiffe://example.org/spire/server';
const OPERATOR = 'spiffe://other.test/operator';
const HOUR_MS = 3_600_000;

let ours: TestCertificate;
let bundles: BundleSet;
const svids = new Map<string, X509Svid>();
const svid = (name: string): X509Svid => svids.get(name) ?? expect.fail(name);

function svidOf(...chain: TestCertificate[]): X509Svid {
  const [leaf] = chain;
  if (!leaf) throw new Error('no leaf');
  return X509Svid.of(
    chain.map(({ der }) => Certificate.parse(der)),
    leaf.key,
  );
}
const bundleOf = (name: string, root: TestCertificate) =>
  new Bundle(TrustDomain.parse(name), { x509Authorities: [Certificate.parse(root.der)], jwtAuthorities: [] });

beforeAll(async () => {
  // the enterprise's root, our intermediate below it, and those of others
  const root = await testRoot({ uris: [] });
  ours = await testCertificate({ ca: true, issuer: root, subject: 'CN=ours' });
  const sibling = await testCertificate({ ca: true, issuer: root, subject: 'CN=sibling' });
  const namesake = await testCertificate({ ca: true, issuer: root, subject: 'CN=ours' });
  const foreign = await testRoot({ uris: ['spiffe://other.test'] });
  const stranger = await testRoot();
  const leaf = (issuer: TestCertificate, id: string, over: Parameters<typeof testCertificate>[0] = {}) =>
    testCertificate({ issuer, uris: [id], ...over });
  bundles = new BundleSet([bundleOf('example.org', root), bundleOf('other.test', foreign)]);
  const web = 'spiffe://example.org/web';
  const made: Record<string, TestCertificate[]> = {
    server: [await leaf(ours, SERVER), ours],
    'newer server': [await leaf(ours, SERVER), ours],
    ours: [await leaf(ours, web), ours],
    sibling: [await leaf(sibling, web), sibling],
    // what we are called, with another key; and our certificate shown beside a path that does not pass it
    namesake: [await leaf(namesake, web), namesake],
    'sibling that shows ours': [await leaf(sibling, web), sibling, ours],
    'root itself': [await leaf(root, web)],
    stranger: [await leaf(stranger, web), stranger],
    operator: [await leaf(foreign, OPERATOR)],
    'other foreigner': [await leaf(foreign, 'spiffe://other.test/operator/2')],
    'foreign CA in our name': [await leaf(foreign, web)],
    expired: [await leaf(ours, web, { notAfterMs: NOW_MS - 1_000 }), ours],
    'not yet valid': [await leaf(ours, web, { notBeforeMs: NOW_MS + HOUR_MS / 2 }), ours],
  };
  for (const [name, chain] of Object.entries(made)) svids.set(name, svidOf(...chain));
});

let clock: FakeClock;
let rpc: RpcServer;
let listener: TlsListener;
let stop: AbortController;
let peers: Peer[];
const sockets = new Set<Socket>();

async function listen(over: Partial<TlsListenerParts> = {}): Promise<TlsListener> {
  const state = { node: () => undefined, entriesOf: () => [] } as unknown as State;
  const callers = new Callers({ state, store: {} as never, clock, adminIds: [SpiffeId.parse(OPERATOR)] });
  rpc = createRpcServer({
    log: silent,
    gate: async (context) => {
      peers.push(context.peer);
      await callers.check(context);
      return undefined;
    },
    services: [
      service(AgentDefinition, { countAgents: async () => ({ count: 7 }), async *attestAgent() {} }),
      service(BundleDefinition, { getBundle: async () => BundleMessage.fromPartial({ trustDomain: 'example.org' }) }),
    ],
  });
  return listenTls({
    address: '127.0.0.1',
    port: 0,
    rpc,
    strangers: rpc,
    isKnown: (id) => String(id) === OPERATOR,
    svid: svid('server'),
    bundles,
    trustDomain,
    issuers: () => [Certificate.parse(ours.der)],
    isForeignAdmin: (id) => callers.isForeignAdmin(id),
    clock,
    log: silent,
    signal: stop.signal,
    ...over,
  });
}
beforeEach(async () => {
  clock = new FakeClock(NOW_MS);
  stop = new AbortController();
  peers = [];
  listener = await listen();
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  stop.abort();
  rpc.close();
  await listener.close();
});

async function tcp(from = '127.0.0.1'): Promise<Socket> {
  const socket = connect({ port: listener.port, host: '127.0.0.1', localAddress: from });
  sockets.add(socket);
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}
async function shake(name: string | undefined, from?: string): Promise<TLSSocket> {
  return connectTls(await tcp(from), {
    svid: name === undefined ? undefined : svid(name),
    bundles,
    clock,
    alpn: ['h2'],
    authorize: (id) => {
      if (String(id) !== SERVER) throw new Error(String(id));
    },
  });
}
/** In TLS 1.3 a client is done before the server has judged it: whether the server speaks HTTP/2 then, or hangs up. */
function answered(tls: TLSSocket): Promise<boolean> {
  return new Promise((resolve) => {
    tls.on('error', () => {});
    tls.once('data', () => resolve(true));
    tls.once('close', () => resolve(false));
  });
}
const accepted = async (name: string | undefined, from?: string): Promise<boolean> => {
  const tls = await shake(name, from);
  const answer = await answered(tls);
  tls.destroy();
  return answer;
};
/** However it ends: in good order, or reset. */
const closed = (socket: Socket) =>
  new Promise<void>((resolve) => {
    if (socket.closed) return resolve();
    socket.on('error', () => {});
    socket.once('close', () => resolve());
    return undefined;
  });

describe('who may come in', () => {
  test.each([
    ['nobody in particular, without a certificate', undefined, true],
    ['a certificate that our own authority issued', 'ours', true],
    ['one of a sibling intermediate below the same root, in our name', 'sibling', false],
    ['one of an intermediate that calls itself as ours does', 'namesake', false],
    ['one of a sibling that shows our certificate too', 'sibling that shows ours', false],
    ['one that the root issued itself', 'root itself', false],
    ['one of an authority that nobody knows', 'stranger', false],
    ['one of another trust domain that admin_ids names', 'operator', true],
    ['one of another trust domain that it does not name', 'other foreigner', false],
    ['one of another trust domain’s authority, in our name', 'foreign CA in our name', false],
    ['one that has ended', 'expired', false],
    ['one that has not begun', 'not yet valid', false],
  ])('%s', async (_, name, wanted) => {
    expect(await accepted(name)).toBe(wanted);
  });

  test('an authority of before counts as long as it is one of ours', async () => {
    await listener.close();
    rpc.close();
    let issuers: Certificate[] = [];
    listener = await listen({ issuers: () => issuers });
    expect(await accepted('ours')).toBe(false);
    issuers = [Certificate.parse(ours.der)];
    expect(await accepted('ours')).toBe(true);
  });

  test('only TLS 1.3, and only HTTP/2', async () => {
    const attempt = (options: object) =>
      new Promise<string>((resolve) => {
        const tls = plainTls({ port: listener.port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'], ...options });
        sockets.add(tls);
        tls.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
        tls.once('close', () => resolve('closed'));
        tls.once('data', () => resolve(tls.getProtocol() ?? ''));
      });
    expect(await attempt({})).toBe('TLSv1.3');
    expect(await attempt({ maxVersion: 'TLSv1.2' })).toBe('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
    expect(await attempt({ ALPNProtocols: ['http/1.1'] })).not.toBe('TLSv1.3');
    expect(await attempt({ ALPNProtocols: undefined })).toBe('closed');
  });

  test('new connections see the server’s new SVID, those that are open stay', async () => {
    const open = await shake(undefined);
    expect(await answered(open)).toBe(true);
    const shown = async () => {
      const socket = await tcp();
      let sha256 = '';
      const tls = await connectTls(socket, {
        svid: undefined,
        bundles,
        clock,
        alpn: ['h2'],
        authorize: (_, peer) => void (sha256 = peer.certificateSha256),
      });
      tls.destroy();
      return sha256;
    };
    expect(await shown()).toBe(svid('server').chain[0]?.sha256);
    listener.rotate(svid('newer server'));
    expect(await shown()).toBe(svid('newer server').chain[0]?.sha256);
    expect(open.destroyed).toBe(false);
  });

  test('an address that is taken is a fault that names it', async () => {
    const other = createServer();
    other.listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    await expect(listen({ port })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining(`unable to listen on 127.0.0.1:${port}`) as string,
    });
    other.close();
  });
});

describe('over gRPC', () => {
  let channel: Channel;
  afterEach(() => channel.close());
  const call = (name: string | undefined) => {
    channel = openChannel({
      target: `dns:///127.0.0.1:${listener.port}`,
      credentials: tlsCredentials((socket) =>
        connectTls(socket, { svid: name === undefined ? undefined : svid(name), bundles, clock, alpn: ['h2'], authorize: () => {} }),
      ),
    });
    return { agent: channel.service(AgentDefinition), bundle: channel.service(BundleDefinition) };
  };
  async function* nothing(): AsyncGenerator<never, void, void> {}

  test('who shows no certificate may attest and read the bundle, and nothing else', async () => {
    const { agent, bundle } = call(undefined);
    for await (const _ of agent.attestAgent(nothing())) expect.fail('no answer was asked for');
    expect((await bundle.getBundle({ outputMask: undefined })).trustDomain).toBe('example.org');
    await expect(agent.countAgents({ filter: undefined })).rejects.toMatchObject({
      code: 'DENIED',
      message: 'authorization denied for method /spire.api.server.agent.v1.Agent/CountAgents',
    });
    expect(peers.at(-1)).toMatchObject({ kind: 'tls', address: '127.0.0.1', id: undefined, certificateSha256: '' });
  });

  test('whom admin_ids names may operate, by the certificate that he showed', async () => {
    const { agent } = call('operator');
    expect(await agent.countAgents({ filter: undefined })).toEqual({ count: 7 });
    const [peer] = peers;
    expect(peer).toMatchObject({ kind: 'tls', certificateSha256: svid('operator').chain[0]?.sha256, notAfterMs: NOW_MS + HOUR_MS });
    expect(peer?.kind === 'tls' && String(peer.id)).toBe(OPERATOR);
  });

  test('a workload of ours comes in, and may do no more than anybody', async () => {
    const { agent, bundle } = call('ours');
    expect((await bundle.getBundle({ outputMask: undefined })).trustDomain).toBe('example.org');
    await expect(agent.countAgents({ filter: undefined })).rejects.toMatchObject({ code: 'DENIED' });
  });
});

describe('once inside', () => {
  test('a peer that is known has 32 connections at a time, everybody else an eighth of those of strangers; others are not concerned', async () => {
    const open: TLSSocket[] = [];
    for (let i = 0; i < 32; i++) {
      const tls = await shake('operator');
      expect(await answered(tls)).toBe(true);
      open.push(tls);
    }
    expect(await accepted('operator')).toBe(false);
    expect(await accepted('ours')).toBe(true);
    expect(await accepted(undefined)).toBe(true);
    open[0]?.destroy();
    await expect.poll(() => accepted('operator')).toBe(true);
  });

  test('strangers are served apart: a call of theirs is small, and few are under way at a time', async () => {
    rpc.close();
    await listener.close();
    const strangers = createStrangersRpc({
      services: [
        service(AgentDefinition, {
          async *attestAgent(requests) {
            for await (const _ of requests) yield { step: undefined };
          },
        }),
        service(BundleDefinition, { getBundle: async () => BundleMessage.fromPartial({ trustDomain: 'example.org' }) }),
      ],
      gate: async () => undefined,
      log: silent,
    });
    listener = await listen({ strangers });
    const channelOf = (name: string | undefined) =>
      openChannel({
        target: `dns:///127.0.0.1:${listener.port}`,
        credentials: tlsCredentials((socket) =>
          connectTls(socket, { svid: name === undefined ? undefined : svid(name), bundles, clock, alpn: ['h2'], authorize: () => {} }),
        ),
      });
    const [stranger, operator] = [channelOf(undefined), channelOf('operator')];
    const stop = new AbortController();
    async function* large(bytes: number) {
      yield { step: { $case: 'params' as const, params: { data: { type: 't', payload: Buffer.alloc(bytes) }, params: undefined } } };
      await once(stop.signal, 'abort').catch(() => {});
    }
    try {
      const refused = (async () => {
        for await (const _ of stranger.service(AgentDefinition).attestAgent(large(200 * 1024), { signal: AbortSignal.timeout(5_000) }));
      })();
      await expect(refused).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
      expect((await stranger.service(BundleDefinition).getBundle({ outputMask: undefined })).trustDomain).toBe('example.org');
      expect(await operator.service(AgentDefinition).countAgents({ filter: undefined })).toEqual({ count: 7 });
    } finally {
      stop.abort();
      stranger.close();
      operator.close();
      strangers.close();
    }
  });
});

describe('a connection ends', () => {
  test('when the certificate that opened it ends, and not before; one without a certificate stays', async () => {
    const [ofWorkload, ofNobody] = [await shake('ours'), await shake(undefined)];
    expect([await answered(ofWorkload), await answered(ofNobody)]).toEqual([true, true]);
    await clock.advance(HOUR_MS - 1_000);
    expect(ofWorkload.destroyed).toBe(false);
    await clock.advance(1_000);
    await closed(ofWorkload);
    expect(ofNobody.destroyed).toBe(false);
  });

  test('soon after a wall clock that jumped beyond the end', async () => {
    const tls = await shake('ours');
    expect(await answered(tls)).toBe(true);
    clock.jump(2 * HOUR_MS);
    await clock.advance(60_000);
    await closed(tls);
  });

  test('and nobody waits for its certificate any more', async () => {
    const tls = await shake('ours');
    expect(await answered(tls)).toBe(true);
    expect(clock.waiting).toBe(1);
    tls.destroy();
    while (clock.waiting > 0) await new Promise((resolve) => setImmediate(resolve));
  });
});

describe('who stands in the doorway', () => {
  test('waits while 32 of his address are in their handshake, and keeps nobody of another address waiting', async () => {
    const inside = await shake('ours');
    expect(await answered(inside)).toBe(true);
    const silent: Socket[] = [];
    for (let i = 0; i < 32; i++) silent.push(await tcp());
    let came = false;
    const late = accepted('ours').then((is) => {
      came = is;
    });
    // many times over, those of another address are served meanwhile
    for (let i = 0; i < 20; i++) expect(await accepted('ours', '127.0.0.2')).toBe(true);
    expect(came).toBe(false);
    expect(inside.destroyed).toBe(false);
    silent[0]?.destroy();
    await late;
    expect(came).toBe(true);
  });

  test('is turned away when an eighth of all who may wait are of his address; others are not', async () => {
    await listener.close();
    rpc.close();
    listener = await listen({ halfOpen: 800 });
    const silent: Socket[] = [];
    for (let i = 0; i < 100; i++) silent.push(await tcp());
    await closed((await tcp()).resume());
    expect(silent.filter((one) => one.destroyed)).toHaveLength(0);
    expect(await accepted('ours', '127.0.0.2')).toBe(true);
  });

  test.each([
    ['silent', () => {}],
    [
      'slow, with a byte now and then',
      (socket: Socket) => {
        const bytes = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, ...Array.from({ length: 400 }, () => 0)];
        const timer = setInterval(() => socket.write(Buffer.from([bytes.shift() ?? 0])), 20);
        socket.once('close', () => clearInterval(timer));
      },
    ],
  ])('and is %s is sent away after the time for a handshake', async (_, behave) => {
    await listener.close();
    rpc.close();
    listener = await listen({ handshakeMs: 300 });
    const socket = (await tcp()).resume();
    behave(socket);
    await Promise.race([closed(socket), once(AbortSignal.timeout(3_000), 'abort').then(() => expect.fail('still there'))]);
    expect(await accepted('ours')).toBe(true);
  });

  test('and speaks no TLS is sent away, and does no harm', async () => {
    const socket = (await tcp()).resume();
    socket.write('GET / HTTP/1.1\r\n\r\n');
    await closed(socket);
    expect(await accepted('ours')).toBe(true);
  });
});

test('the admin socket is for its owner and group, and tells who called', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'warifu-'));
  const path = join(folder, 'private', 'api.sock');
  const admin = await listenAdmin({ path, rpc, log: silent });
  const channel = openChannel({ target: `unix://${path}` });
  try {
    expect([statSync(path).mode & 0o777, statSync(join(folder, 'private')).mode & 0o777]).toEqual([0o770, 0o750]);
    expect(await channel.service(AgentDefinition).countAgents({ filter: undefined })).toEqual({ count: 7 });
    expect(peers.at(-1)).toMatchObject({ kind: 'process', pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
  } finally {
    channel.close();
    await admin.close();
    rmSync(folder, { recursive: true });
  }
});
