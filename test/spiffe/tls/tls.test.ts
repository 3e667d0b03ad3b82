/** TLS between two ends that trust by trust domain: who gets through, and who does not; over real sockets, also below gRPC. */
import { X509Bundle, type X509BundleSource } from '../../../spiffe/x509/x509-bundle.ts';
import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';
import { connect as plainConnect, type TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { silent } from '../../../core/log.ts';
import { createRpcServer, type RpcServer, service } from '../../../core/rpc.ts';
import { EntryDefinition } from '../../../proto/gen/spire/api/server/entry/v1/entry.ts';
import type { Clock } from '../../../spiffe/clock.ts';
import { systemClock } from '../../../spiffe/clock.ts';
import { openChannel, svidCredentials } from '../../../spiffe/rpc/channel.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { matchAny, matchId } from '../../../spiffe/match.ts';
import { type Authorize, connectTls, insecureConnectTls, tlsPeer, TlsServer } from '../../../spiffe/tls/tls.ts';
import { X509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { NOW_MS, type TestCertificate, testCertificate } from '../../fakes/ca.ts';

const clock: Clock = { ...systemClock, now: () => NOW_MS };
const expired: Clock = { ...systemClock, now: () => NOW_MS + 400 * 86_400_000 };
const ours = TrustDomain.parse('example.org');
const SERVER = 'spiffe://example.org/server';
const any = matchAny();
const only = matchId;

let root: TestCertificate;
let other: TestCertificate;
let bundles: X509BundleSource;
const svids: Record<string, X509Svid> = {};

function svidOf(...chain: TestCertificate[]): X509Svid {
  return X509Svid.fromPem(chain.map((one) => one.pem).join(''), chain[0]?.key.export({ type: 'pkcs8', format: 'pem' }));
}

let server: TlsServer;
let listener: Server;
let port: number;
let rpc: RpcServer;
const refusals: unknown[] = [];
let mode: 'required' | 'optional' = 'optional';
let servers: Record<'required' | 'optional', TlsServer>;

beforeAll(async () => {
  root = await testCertificate({ ca: true });
  other = await testCertificate({ ca: true, uris: ['spiffe://other.org'] });
  const middle = await testCertificate({ ca: true, issuer: root });
  const set = new Map([
    ['example.org', X509Bundle.fromPem(ours, root.pem)],
    ['other.org', X509Bundle.fromPem(TrustDomain.parse('other.org'), other.pem)],
  ]);
  bundles = { x509Bundle: (domain) => set.get(domain.name) };
  svids['server'] = svidOf(await testCertificate({ issuer: middle, uris: [SERVER] }), middle);
  svids['web'] = svidOf(await testCertificate({ issuer: root, uris: ['spiffe://example.org/web'] }));
  svids['federated'] = svidOf(await testCertificate({ issuer: other, uris: ['spiffe://other.org/web'] }));
  svids['forged'] = svidOf(await testCertificate({ issuer: other, uris: ['spiffe://example.org/web'] }));
  svids['stranger'] = svidOf(await testCertificate({ issuer: await testCertificate({ ca: true }), uris: ['spiffe://nowhere.org/web'] }));

  rpc = createRpcServer({
    log: silent,
    services: [service(EntryDefinition, { countEntries: async (_, { peer }) => ({ count: peer.kind === 'tls' && peer.id ? 2 : 1 }) })],
  });
  const make = (client: 'required' | 'optional') =>
    new TlsServer({
      svid: svids['server'] as X509Svid,
      bundles,
      authorize: any,
      clock,
      client,
      alpn: ['h2', 'echo'],
      onRefused: (error) => refusals.push(error),
      onConnection: (socket) => {
        const peer = tlsPeer(socket);
        if (socket.alpnProtocol === 'h2') {
          return rpc.accept(socket, {
            kind: 'tls',
            address: '',
            id: peer?.id,
            certificateSha256: peer?.certificateSha256 ?? '',
            notAfterMs: 0,
            connection: socket,
          });
        }
        socket.end(`you are ${peer?.id ?? 'nobody'}`);
      },
    });
  servers = { required: make('required'), optional: make('optional') };
  server = servers.optional;
  listener = createServer((socket: Socket) => servers[mode].accept(socket));
  await new Promise<void>((done) => listener.listen(0, '127.0.0.1', done));
  port = (listener.address() as AddressInfo).port;
});
afterAll(() => {
  rpc.close();
  listener.close();
});

/** What the server says to us, or the refusal of either end. In TLS 1.3 a client is connected before the server has judged it. */
async function talk(
  svid: string | undefined,
  how: { authorize?: Authorize; bundles?: X509BundleSource; clock?: Clock } = {},
): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  const tls = await connectTls(socket, {
    svid: svid === undefined ? undefined : svids[svid],
    bundles,
    authorize: any,
    clock,
    alpn: ['echo'],
    ...how,
  });
  return hear(tls);
}

async function hear(tls: TLSSocket): Promise<string> {
  let heard = '';
  try {
    for await (const chunk of tls) heard += String(chunk);
  } catch {
    // a reset is the server's way to refuse
  }
  return heard || 'nothing';
}

describe('WAPI-19, X509-39: a client is who its own trust domain says', () => {
  test('of our trust domain', async () => expect(await talk('web')).toBe('you are spiffe://example.org/web'));
  test('of a federated one, as its own ID', async () => expect(await talk('federated')).toBe('you are spiffe://other.org/web'));
  test('nobody, where a certificate is optional', async () => expect(await talk(undefined)).toBe('you are nobody'));

  const refused: [what: string, svid: string | undefined, mode: typeof mode][] = [
    ['our ID signed by the federated authority', 'forged', 'optional'],
    ['WAPI-20: a trust domain that has no bundle here', 'stranger', 'optional'],
    ['no certificate where one is required', undefined, 'required'],
  ];
  for (const [what, svid, how] of refused) {
    test(`not ${what}`, async () => {
      mode = how;
      const before = refusals.length;
      expect(await talk(svid)).toBe('nothing');
      expect(refusals.length).toBe(before + 1);
      mode = 'optional';
    });
  }

  test('required and shown: it gets through', async () => {
    mode = 'required';
    expect(await talk('web')).toBe('you are spiffe://example.org/web');
    mode = 'optional';
  });
});

describe('a client judges the server before it says a word', () => {
  test('the right one passes', async () => expect(await talk('web', { authorize: only(SERVER) })).toBe('you are spiffe://example.org/web'));
  test('another ID is refused', async () => {
    await expect(talk('web', { authorize: only('spiffe://example.org/spire/server') })).rejects.toMatchObject({ code: 'DENIED' });
  });
  test('a server without a bundle is refused', async () => {
    await expect(talk('web', { bundles: { x509Bundle: () => undefined } })).rejects.toMatchObject({ code: 'BUNDLE_MISSING' });
  });
  test('an expired one is refused', async () => {
    await expect(talk('web', { clock: expired })).rejects.toMatchObject({ code: 'SVID_EXPIRED' });
  });
});

test('a session is never resumed, even by a client that tries: each connection is judged by itself', async () => {
  const open = (session?: Buffer) =>
    new Promise<{ reused: boolean; session: Buffer | undefined }>((done, failed) => {
      let given: Buffer | undefined;
      const socket = plainConnect({
        port,
        host: '127.0.0.1',
        ALPNProtocols: ['echo'],
        rejectUnauthorized: false,
        ...(session && { session }),
      });
      socket.on('session', (one: Buffer) => {
        given = one;
      });
      socket.once('error', failed);
      socket.on('data', () => {});
      socket.once('end', () => done({ reused: socket.isSessionReused(), session: given }));
    });
  const first = await open();
  expect(first.session).toBeDefined();
  expect(await open(first.session)).toMatchObject({ reused: false });
});

test('after a rotation new connections see the new SVID', async () => {
  const before = svids['server'] as X509Svid;
  const renewed = svidOf(await testCertificate({ issuer: root, uris: ['spiffe://example.org/renewed'] }));
  server.rotate(renewed);
  expect(await talk('web', { authorize: only('spiffe://example.org/renewed') })).toBe('you are spiffe://example.org/web');
  // what was not passed again is still in force
  expect(await talk('forged')).toBe('nothing');
  server.rotate(before);
  expect(await talk('web', { authorize: only(SERVER) })).toBe('you are spiffe://example.org/web');
});

test('an insecure handshake takes any chain, but only under the expected name', async () => {
  const go = (expected: string) =>
    insecureConnectTls(connect(port, '127.0.0.1'), { expected: SpiffeId.parse(expected), svid: undefined, alpn: ['echo'] });
  const tls = await go(SERVER);
  expect(String(tlsPeer(tls)?.id)).toBe(SERVER);
  tls.destroy();
  await expect(go('spiffe://example.org/spire/server')).rejects.toMatchObject({ code: 'SVID_UNTRUSTED' });
});

describe('below gRPC', () => {
  const count = async (svid: X509Svid | undefined, authorize: Authorize) => {
    const channel = openChannel({
      target: `127.0.0.1:${port}`,
      credentials: svidCredentials({ tls: () => ({ svid, bundles, authorize, clock }) }),
    });
    try {
      return (await channel.service(EntryDefinition).countEntries({ filter: undefined }, { deadlineMs: 5_000 })).count;
    } finally {
      channel.close();
    }
  };
  test('the handler knows the verified caller', async () => expect(await count(svids['web'], only(SERVER))).toBe(2));
  test('and a caller that showed nothing', async () => expect(await count(undefined, only(SERVER))).toBe(1));
  test('a wrong server is never spoken to', async () => {
    await expect(count(svids['web'], only('spiffe://example.org/x'))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
});
