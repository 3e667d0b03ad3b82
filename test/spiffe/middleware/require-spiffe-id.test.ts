/** Requests of a TLS peer, in every framework, over real TLS: who passes, who does not, and what a header can say about it. */
import { createServer, type RequestListener } from 'node:http';
import { connect as connectHttp2, createServer as createHttp2 } from 'node:http2';
import { connect, type TLSSocket } from 'node:tls';
import { Hono } from 'hono';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { matchAny, matchId, matchPattern, memberOf } from '../../../spiffe/match.ts';
import { spiffeOf } from '../../../spiffe/middleware/caller.ts';
import { requireJwtSvid } from '../../../spiffe/middleware/require-jwt-svid.ts';
import { requireSpiffeId, type RequireSpiffeIdOptions } from '../../../spiffe/middleware/require-spiffe-id.ts';
import { tlsPeer, TlsServer } from '../../../spiffe/tls/tls.ts';
import { X509Bundle, type X509BundleSource } from '../../../spiffe/x509/x509-bundle.ts';
import { X509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { systemClock } from '../../../spiffe/clock.ts';
import { NOW_MS, type TestCertificate, testCertificate } from '../../fakes/ca.ts';
import {
  type Answer,
  ask,
  bundles as jwtBundles,
  clock,
  closeAll,
  foreignKey,
  FRAMEWORKS,
  keptLog,
  listen,
  rawAsk,
  serve,
  statuses,
  token,
} from './rig.ts';

interface Client {
  readonly cert: string;
  readonly key: string;
}
const NOBODY: Client = { cert: '', key: '' };
const CHALLENGE = 'X509-SVID realm="spiffe"';
const HASH = '468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688';

const log = keptLog();
const options: RequireSpiffeIdOptions = { clock, log };
const web = matchPattern('spiffe://example.org/web/**');

let server: X509Svid;
let x509Bundles: X509BundleSource;
let clients: Readonly<Record<'web' | 'admin' | 'proxy' | 'federated' | 'stranger', Client>>;

const pem = ({ key }: TestCertificate) => String(key.export({ type: 'pkcs8', format: 'pem' }));
const shown = (one: TestCertificate): Client => ({ cert: one.pem, key: pem(one) });

beforeAll(async () => {
  const root = await testCertificate({ ca: true });
  const other = await testCertificate({ ca: true, uris: ['spiffe://other.org'] });
  const own = await testCertificate({ issuer: root, uris: ['spiffe://example.org/server'] });
  server = X509Svid.fromPem(own.pem, pem(own));
  const set = new Map([
    ['example.org', X509Bundle.fromPem(TrustDomain.parse('example.org'), root.pem)],
    ['other.org', X509Bundle.fromPem(TrustDomain.parse('other.org'), other.pem)],
  ]);
  x509Bundles = { x509Bundle: ({ name }) => set.get(name) };
  const leaf = async (uri: string, issuer = root) => shown(await testCertificate({ issuer, uris: [uri] }));
  clients = {
    web: await leaf('spiffe://example.org/web/1'),
    admin: await leaf('spiffe://example.org/admin'),
    proxy: await leaf('spiffe://example.org/proxy'),
    federated: await leaf('spiffe://other.org/web/1', other),
    stranger: await leaf('spiffe://nowhere.org/web/1', await testCertificate({ ca: true })),
  };
});
afterEach(() => void log.lines.splice(0));
afterAll(closeAll);

/** A TLS server that verifies whoever shows a certificate, and hands everybody else on too. */
async function serveTls(handOn: (socket: TLSSocket) => void, alpn?: readonly string[]): Promise<number> {
  const tls = new TlsServer({
    svid: server,
    bundles: x509Bundles,
    authorize: matchAny(),
    clock: { ...systemClock, now: clock.now },
    client: 'optional',
    ...(alpn && { alpn }),
    onConnection: handOn,
  });
  return listen((socket) => tls.accept(socket));
}

function serveHttps(listener: RequestListener): Promise<number> {
  const http = createServer(listener);
  return serveTls((socket) => http.emit('connection', socket));
}

function expectRefusal(answer: Answer, status: 401 | 403 | 503): void {
  const body = { 401: '{"error":"unauthenticated"}', 403: '{"error":"forbidden"}', 503: '{"error":"unavailable"}' }[status];
  expect([answer.status, answer.body, answer.headers['www-authenticate']]).toEqual([status, body, status === 401 ? CHALLENGE : undefined]);
  expect(answer.headers['cache-control']).toBe('no-store');
}

const reasons = () => log.lines.splice(0).map(({ fields }) => fields['reason']);

for (const [name, framework] of Object.entries(FRAMEWORKS)) {
  describe(`${name}: the peer of the connection`, () => {
    let port: number;
    beforeAll(async () => {
      port = await serveHttps(await framework(requireSpiffeId(web, options)));
    });

    test('passes, and the handler knows who it is', async () => {
      expect(await ask(port, {}, clients.web)).toMatchObject({ status: 200, body: 'spiffe://example.org/web/1 via x509' });
      expect(log.lines).toEqual([]);
    });
    test('401 without a certificate', async () => {
      expectRefusal(await ask(port, {}, NOBODY), 401);
      expect(log.lines).toMatchObject([
        { level: 'warn', fields: { status: 401, via: 'x509', reason: 'X509_CHAIN_EMPTY', peer_address: '127.0.0.1' } },
      ]);
    });
    test('401 on a connection that has no TLS, or whose TLS is somebody else’s', async () => {
      expectRefusal(await ask(await serve(await framework(requireSpiffeId(matchAny(), options)))), 401);
      const { createServer: createHttps } = await import('node:https');
      const plain = createHttps(
        { ...server.toPem(), cert: server.toPem().certificates, requestCert: true, rejectUnauthorized: false },
        await framework(requireSpiffeId(matchAny(), options)),
      );
      const somewhere = await listen((socket) => plain.emit('connection', socket));
      expectRefusal(await ask(somewhere, {}, clients.web), 401);
      expect(reasons()).toEqual(['X509_CHAIN_EMPTY', 'X509_CHAIN_EMPTY']);
    });
    test('403 for an identity that may not, of our trust domain or another', async () => {
      expectRefusal(await ask(port, {}, clients.admin), 403);
      expectRefusal(await ask(port, {}, clients.federated), 403);
      expect(log.lines.map(({ fields }) => [fields['reason'], fields['spiffe_id']])).toEqual([
        ['ID_NOT_ALLOWED', 'spiffe://example.org/admin'],
        ['ID_NOT_ALLOWED', 'spiffe://other.org/web/1'],
      ]);
    });
    test('an identity of a trust domain that nobody trusts never gets as far as a request', async () => {
      await expect(ask(port, {}, clients.stranger)).rejects.toThrow();
      expect(log.lines).toEqual([]);
    });

    test('401 once its certificate has ended, on the same connection', async () => {
      let nowMs = NOW_MS;
      const aging = await serveHttps(await framework(requireSpiffeId(web, { log, clock: { now: () => nowMs } })));
      const socket = connect({ port: aging, host: '127.0.0.1', ...clients.web, rejectUnauthorized: false });
      socket.setEncoding('utf8');
      const next = async () => {
        let heard = '';
        socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
        while (!/\r\n\r\n.+/.test(heard)) heard += await new Promise<string>((done) => socket.once('data', done));
        return statuses(heard);
      };
      expect(await next()).toEqual([200]);
      nowMs += 3_600_000;
      expect(await next()).toEqual([200]);
      nowMs += 1;
      expect(await next()).toEqual([401]);
      nowMs = Number.NaN;
      expect(await next()).toEqual([401]);
      socket.destroy();
      expect(reasons()).toEqual(['X509_EXPIRED', 'X509_EXPIRED']);
    });

    test('503 when the clock fails', async () => {
      const broken = await serveHttps(
        await framework(
          requireSpiffeId(web, {
            log,
            clock: {
              now: () => {
                throw new Error('no battery');
              },
            },
          }),
        ),
      );
      expectRefusal(await ask(broken, {}, clients.web), 503);
    });

    test('x-forwarded-client-cert says nothing unless it was asked for', async () => {
      const says = { 'x-forwarded-client-cert': 'By=spiffe://example.org/proxy;URI=spiffe://example.org/web/2' };
      expect(await ask(port, says, clients.web)).toMatchObject({ status: 200, body: 'spiffe://example.org/web/1 via x509' });
      expectRefusal(await ask(port, says, clients.admin), 403);
      expectRefusal(await ask(port, says, NOBODY), 401);
    });
  });

  describe(`${name}: somebody behind a trusted proxy`, () => {
    let one: number;
    let appending: number;
    beforeAll(async () => {
      const trusted = matchId('spiffe://example.org/proxy');
      one = await serveHttps(await framework(requireSpiffeId(web, { ...options, forwarded: { trusted } })));
      appending = await serveHttps(await framework(requireSpiffeId(web, { ...options, forwarded: { trusted, elements: 'last' } })));
    });
    const says = (value: string | string[]) => ({ 'x-forwarded-client-cert': value });
    const OWN = `By=spiffe://example.org/proxy;Hash=${HASH}`;

    test('passes as who the proxy says', async () => {
      expect(await ask(one, says(`${OWN};URI=spiffe://example.org/web/2`), clients.proxy)).toMatchObject({
        status: 200,
        body: 'spiffe://example.org/web/2 via xfcc',
      });
      expect(log.lines).toEqual([]);
    });
    test('is refused as who the proxy says', async () => {
      expectRefusal(await ask(one, says(`${OWN};URI=spiffe://example.org/admin`), clients.proxy), 403);
      expect(log.lines[0]?.fields).toMatchObject({ spiffe_id: 'spiffe://example.org/admin' });
    });
    test('who comes directly is himself, whatever he sends', async () => {
      for (const value of [`${OWN};URI=spiffe://example.org/web/2`, 'rubbish', '"']) {
        expect(await ask(one, says(value), clients.web)).toMatchObject({ body: 'spiffe://example.org/web/1 via x509' });
        expectRefusal(await ask(one, says(value), clients.admin), 403);
        expectRefusal(await ask(one, says(value), NOBODY), 401);
      }
    });
    test('a proxy that says nothing speaks for nobody, not for itself', async () => {
      const everybody = await serveHttps(
        await framework(requireSpiffeId(matchAny(), { ...options, forwarded: { trusted: matchId('spiffe://example.org/proxy') } })),
      );
      expectRefusal(await ask(everybody, {}, clients.proxy), 401);
      expect(reasons()).toEqual(['XFCC_MISSING']);
      expect(await ask(everybody, {}, clients.admin)).toMatchObject({ status: 200 });
    });
    test('a trusted matcher that fails trusts nobody', async () => {
      const failing = () => {
        throw new Error('no');
      };
      const port = await serveHttps(await framework(requireSpiffeId(web, { ...options, forwarded: { trusted: failing } })));
      expectRefusal(await ask(port, says(`${OWN};URI=spiffe://example.org/web/2`), clients.proxy), 403);
      expect(log.lines[0]?.fields).toMatchObject({ spiffe_id: 'spiffe://example.org/proxy' });
    });

    const GOOD = `${OWN};URI=spiffe://example.org/web/2`;
    const wrong: readonly [what: string, value: string, reason: string][] = [
      ['rubbish', 'rubbish', 'XFCC_SYNTAX'],
      ['an empty header', '', 'XFCC_SYNTAX'],
      ['no URI', OWN, 'XFCC_URI'],
      ['two elements', `${GOOD},${GOOD}`, 'XFCC_ELEMENTS'],
      ['a quote left open', `Subject="${GOOD}`, 'XFCC_SYNTAX'],
      ['a URI behind a DNS name', `${OWN};DNS=a;URI=spiffe://example.org/web/2`, 'XFCC_KEY'],
      ['the word of another proxy', `By=spiffe://example.org/web/1;URI=spiffe://example.org/web/2`, 'XFCC_BY'],
    ];
    for (const [what, value, reason] of wrong) {
      test(`401 for ${what}`, async () => {
        expectRefusal(await ask(one, says(value), clients.proxy), 401);
        expect(reasons()).toEqual([reason]);
      });
    }
    test('401 for two such headers, though Node joins them into one', async () => {
      const line = `X-Forwarded-Client-Cert: ${GOOD}\r\n`;
      const request = (headers: string) => `GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${headers}\r\n`;
      for (const port of [one, appending]) {
        expect(statuses(await rawAsk(port, request(line + line), clients.proxy))).toEqual([401]);
        expect(statuses(await rawAsk(port, request(line), clients.proxy))).toEqual([200]);
      }
      expect(reasons()).toEqual(['XFCC_REPEATED', 'XFCC_REPEATED']);
    });

    test('of a proxy that appends, its own element is heard, whatever the client sent before', async () => {
      const mallory = `${OWN};URI=spiffe://example.org/mallory`;
      for (const before of [GOOD, `${GOOD},${GOOD}`, `Subject="a,b";URI=spiffe://example.org/web/2`])
        expectRefusal(await ask(appending, says(`${before},${mallory}`), clients.proxy), 403);
      expect(log.lines.splice(0).map(({ fields }) => fields['spiffe_id'])).toEqual(
        Array.from({ length: 3 }, () => 'spiffe://example.org/mallory'),
      );
      for (const before of [`${OWN};Subject="`, `${GOOD};DNS="`, `Subject="\\`, '"', `{"elements":[]}`, ''])
        expectRefusal(await ask(appending, says(`${before},${mallory}`), clients.proxy), 401);
      expect(await ask(appending, says(`${mallory},${GOOD}`), clients.proxy)).toMatchObject({
        body: 'spiffe://example.org/web/2 via xfcc',
      });
    });
  });

  describe(`${name}: a peer and a token`, () => {
    let port: number;
    beforeAll(async () => {
      const jwt = requireJwtSvid({ audience: 'orders', bundles: jwtBundles, clock, log, authorize: memberOf('example.org') });
      port = await serveHttps(await framework(requireSpiffeId(web, options), jwt));
    });
    test('both must pass; the later says who calls', async () => {
      const bearer = { authorization: `Bearer ${await token()}` };
      expect(await ask(port, bearer, clients.web)).toMatchObject({ status: 200, body: 'spiffe://example.org/web via jwt' });
      expectRefusal(await ask(port, bearer, NOBODY), 401);
      expectRefusal(await ask(port, bearer, clients.admin), 403);
      expect((await ask(port, {}, clients.web)).status).toBe(401);
      expect((await ask(port, { authorization: `Bearer ${await token({}, foreignKey)}` }, clients.web)).status).toBe(401);
    });
  });
}

test('of two guards each keeps what it has proven', async () => {
  const jwt = requireJwtSvid({ audience: 'orders', bundles: jwtBundles, clock, authorize: memberOf('example.org') });
  const port = await serveHttps(
    requireSpiffeId(web, options).http(
      jwt.http((request, response) => {
        const { certificateSha256 } = spiffeOf(request, 'x509') ?? {};
        expect(certificateSha256).toBe(tlsPeer(request.socket)?.certificateSha256);
        expect(spiffeOf(request, 'jwt')?.claims['aud']).toEqual(['orders']);
        response.end(
          [spiffeOf(request, 'x509')?.id, spiffeOf(request, 'jwt')?.id, spiffeOf(request, 'xfcc')?.id, spiffeOf(request)?.id].join(' '),
        );
      }),
    ),
  );
  const { body } = await ask(port, { authorization: `Bearer ${await token()}` }, clients.web);
  expect(body).toBe('spiffe://example.org/web/1 spiffe://example.org/web  spiffe://example.org/web');
});

test('nobody is known of a request that no guard has seen, or has refused', async () => {
  const seen: unknown[] = [];
  const guard = requireSpiffeId(web, options);
  const port = await serveHttps((request, response) => {
    seen.push(spiffeOf(request));
    guard(request, response, () => {});
    seen.push(spiffeOf(request));
  });
  await ask(port, {}, clients.admin);
  expect(seen).toEqual([undefined, undefined]);
});

describe('HTTP/2, whose requests see the socket only through a Proxy', () => {
  let port: number;
  beforeAll(async () => {
    const http2 = createHttp2(requireSpiffeId(web, options).http((request, response) => response.end(String(request.spiffe.id))));
    port = await serveTls((socket) => http2.emit('connection', socket), ['h2']);
  });
  const get = async (client: Client): Promise<{ status: number; body: string }> => {
    const socket = connect({
      port,
      host: '127.0.0.1',
      ...(client.cert !== '' && client),
      ALPNProtocols: ['h2'],
      rejectUnauthorized: false,
    });
    const session = connectHttp2('https://localhost', { createConnection: () => socket });
    try {
      const stream = session.request({ ':path': '/' });
      let status = 0;
      stream.once('response', (headers) => (status = Number(headers[':status'])));
      let body = '';
      for await (const chunk of stream) body += String(chunk);
      return { status, body };
    } finally {
      session.close();
    }
  };
  test('the peer passes', async () => expect(await get(clients.web)).toEqual({ status: 200, body: 'spiffe://example.org/web/1' }));
  test('another does not', async () => expect(await get(clients.admin)).toEqual({ status: 403, body: '{"error":"forbidden"}' }));
  test('nobody does not', async () => expect(await get(NOBODY)).toEqual({ status: 401, body: '{"error":"unauthenticated"}' }));
});

test('Hono without Node sees no connection: 503, and the log says why', async () => {
  const app = new Hono();
  app.use(requireSpiffeId(matchAny(), options).hono);
  app.get('/', (c) => c.text('in'));
  for (const env of [undefined, {}, { incoming: 'a binding of that name' }, { incoming: { socket: {} } }]) {
    expect((await app.fetch(new Request('http://a/'), env)).status).toBe(503);
    expect(log.lines.splice(0)).toMatchObject([{ level: 'error', fields: { code: 'UNIMPLEMENTED' } }]);
  }
});

test('a matcher must be one, for callers and for proxies', () => {
  expect(() => requireSpiffeId(undefined as never)).toThrow(SpiffeError);
  expect(() => requireSpiffeId('spiffe://example.org/web' as never)).toThrow(SpiffeError);
  expect(() => requireSpiffeId(web, { forwarded: {} as never })).toThrow(SpiffeError);
  expect(() => requireSpiffeId(web, { forwarded: { trusted: 'spiffe://example.org/proxy' as never } })).toThrow(SpiffeError);
  expect(typeof requireSpiffeId(web)).toBe('function');
});
