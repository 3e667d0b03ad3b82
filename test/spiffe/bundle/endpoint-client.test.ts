/** fetchBundle: over real sockets, from endpoints that are right and from those that are wrong in one way each. */
import { createServer, type AddressInfo, type Server } from 'node:net';
import tls from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Bundle } from '../../../spiffe/bundle/bundle.ts';
import type { HttpsSpiffe } from '../../../spiffe/bundle/endpoint-address.ts';
import { fetchBundle, type FetchBundleOptions } from '../../../spiffe/bundle/endpoint-client.ts';
import { MAX_BUNDLE_BYTES } from '../../../spiffe/jwt/jwt-bundle.ts';
import { FakeBundleEndpoint, type FakeWebCertificate } from '../../../spiffe/testing/bundle-endpoint.ts';
import { X509Bundle } from '../../../spiffe/x509/x509-bundle.ts';
import type { X509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { FakeClock } from '../../fakes/clock.ts';
import type { TestCertificate } from '../../fakes/ca.ts';
import { bundleOf, ENDPOINT_ID, NOW, ours, outcome, root, setOf, site, svid, theirs, webRoot } from './endpoint-rig.ts';

let publicRoot: TestCertificate;
let ourRoot: TestCertificate;
let theirRoot: TestCertificate;
let goodSite: FakeWebCertificate;
let goodSvid: X509Svid;
let web: FakeBundleEndpoint;
let spiffe: FakeBundleEndpoint;
const open: { close(): unknown }[] = [];

beforeAll(async () => {
  [publicRoot, ourRoot, theirRoot] = await Promise.all([webRoot(), root(ours), root(theirs)]);
  goodSite = await site(publicRoot);
  goodSvid = await svid(theirRoot);
});
beforeEach(async () => {
  web = await started({ web: goodSite });
  spiffe = await started({ svid: goodSvid });
});
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});

async function started(options: Parameters<typeof FakeBundleEndpoint.start>[0]): Promise<FakeBundleEndpoint> {
  const endpoint = await FakeBundleEndpoint.start({ bundle: bundleOf(theirs, [theirRoot], 1), ...options });
  open.push(endpoint);
  return endpoint;
}

/** A server of one kind of connection only. */
async function listening(server: Server): Promise<number> {
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  open.push(server);
  return (server.address() as AddressInfo).port;
}

const overWeb = (more: Partial<FetchBundleOptions> = {}) =>
  fetchBundle({ trustDomain: theirs, url: web.url, profile: { type: 'https_web', ca: publicRoot.pem }, ...more });
const overSpiffe = (more: Partial<FetchBundleOptions> = {}, profile: Partial<HttpsSpiffe> = {}) =>
  fetchBundle({
    trustDomain: theirs,
    url: spiffe.url,
    profile: {
      type: 'https_spiffe',
      endpointId: ENDPOINT_ID,
      bundles: setOf(bundleOf(theirs, [theirRoot])),
      ...profile,
    },
    ...more,
  });

describe('both profiles', () => {
  for (const [name, fetch, endpoint] of [
    ['https_web', overWeb, () => web],
    ['https_spiffe', overSpiffe, () => spiffe],
  ] as const) {
    describe(name, () => {
      test('FED-1 FED-14 a GET gets the bundle, of the trust domain that was named', async () => {
        const bundle = await fetch();
        expect(bundle.trustDomain).toBe(theirs);
        expect(bundle.equals(bundleOf(theirs, [theirRoot], 1))).toBe(true);
        expect(endpoint().requests.map(({ method, path }) => `${method} ${path}`)).toEqual(['GET /bundle']);
      });

      test('the host of the request is that of the URL, with its port; the query goes along', async () => {
        await fetch({ url: `${endpoint().url}?of=us#part` });
        expect(endpoint().requests[0]).toMatchObject({ path: '/bundle?of=us', headers: { host: `localhost:${endpoint().port}` } });
      });

      const statuses = [201, 204, 206, 304, 400, 401, 404, 500, 503];
      test(`FED-1 only status 200 is an answer: not ${statuses.join(', ')}`, async () => {
        for (const status of statuses) {
          endpoint().fail(status);
          expect(`${status}: ${await outcome(fetch())}`).toBe(`${status}: UNAVAILABLE FED_STATUS`);
        }
        endpoint().resume();
        expect(await outcome(fetch())).toBe('bundle of partner.example');
      });

      const wrong: [string, string | Uint8Array, string][] = [
        ['nothing', '', 'BUNDLE_INVALID JSON_SYNTAX'],
        ['a web page', '<html></html>', 'BUNDLE_INVALID JSON_SYNTAX'],
        ['no keys', '{"spiffe_sequence":1}', 'BUNDLE_INVALID BUNDLE_KEYS_MISSING'],
        ['keys null', '{"keys":null}', 'BUNDLE_INVALID BUNDLE_KEYS_MISSING'],
        ['keys twice', '{"keys":[],"keys":[]}', 'BUNDLE_INVALID JSON_DUPLICATE'],
        ['a byte order mark', '\ufeff{"keys":[]}', 'BUNDLE_INVALID JSON_SYNTAX'],
        ['UTF-16', Buffer.from('{"keys":[]}', 'utf16le'), 'BUNDLE_INVALID JSON_SYNTAX'],
        ['a fraction for a sequence', '{"keys":[],"spiffe_sequence":1.5}', 'BUNDLE_INVALID BUNDLE_SEQUENCE'],
      ];
      test(`is read strictly: not ${wrong.map(([what]) => what).join(', ')}`, async () => {
        for (const [what, body, refusal] of wrong) {
          endpoint().serve(body);
          expect(`${what}: ${await outcome(fetch())}`).toBe(`${what}: ${refusal}`);
        }
        endpoint().serve('{"keys":[]}', { 'content-type': 'text/plain' });
        expect(await outcome(fetch())).toBe('bundle of partner.example');
      });

      test('what is longer than the limit is refused before it is read whole, whether it says so or not', async () => {
        endpoint().oversize();
        expect(await outcome(fetch())).toBe('UNAVAILABLE FED_TOO_LARGE');
        endpoint().oversize(2 ** 40);
        expect(await outcome(fetch())).toBe('UNAVAILABLE FED_TOO_LARGE');
        endpoint().serve(' '.repeat(MAX_BUNDLE_BYTES + 1));
        expect(await outcome(fetch())).toBe('UNAVAILABLE FED_TOO_LARGE');
        endpoint().serve('{"keys":[]}'.padEnd(1000));
        expect(await outcome(fetch({ maxBytes: 999 }))).toBe('UNAVAILABLE FED_TOO_LARGE');
        expect(await outcome(fetch({ maxBytes: 1000 }))).toBe('bundle of partner.example');
      });

      test('an answer that breaks off is none', async () => {
        endpoint().hangUp();
        expect(await outcome(fetch())).toBe('UNAVAILABLE FED_BROKEN_OFF');
        endpoint().hangUp('body');
        expect(await outcome(fetch())).toBe('UNAVAILABLE FED_BROKEN_OFF');
        endpoint().resume();
        expect(await outcome(fetch())).toBe('bundle of partner.example');
      });

      for (const after of ['request', 'body'] as const) {
        test(`takes 30 seconds at the most, also when the endpoint is stuck after the ${after}`, async () => {
          const clock = new FakeClock(NOW);
          endpoint().stall(after);
          const fetched = outcome(fetch({ clock }));
          await endpoint().requested(1);
          await clock.advance(29_999);
          expect(clock.waiting).toBe(1);
          await clock.advance(1);
          expect(await fetched).toBe('DEADLINE_EXCEEDED FED_TIMEOUT');
          expect(clock.waiting).toBe(0);
        });
      }

      test('a server that accepts and says nothing is given up as well', async () => {
        const clock = new FakeClock(NOW);
        let connected = () => {};
        const connection = new Promise<void>((resolve) => (connected = resolve));
        const sockets: { destroy(): void }[] = [];
        const port = await listening(createServer((socket) => connected() ?? sockets.push(socket.on('error', () => {}))));
        const fetched = outcome(fetch({ clock, url: `https://localhost:${port}/`, timeoutMs: 500 }));
        await connection;
        await clock.advance(500);
        expect(await fetched).toBe('DEADLINE_EXCEEDED FED_TIMEOUT');
        for (const socket of sockets) socket.destroy();
      });

      test('ends with the reason of its signal, before and while it waits; leaves no timer', async () => {
        const clock = new FakeClock(NOW);
        const reason = new Error('enough');
        await expect(fetch({ clock, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
        expect(endpoint().requests).toEqual([]);
        const stop = new AbortController();
        endpoint().stall();
        const fetched = fetch({ clock, signal: stop.signal });
        void endpoint()
          .requested(1)
          .then(() => stop.abort(reason));
        await expect(fetched).rejects.toBe(reason);
        expect(clock.waiting).toBe(0);
      });

      test('says that nobody listens, and where', async () => {
        const port = await listening(createServer());
        await open.pop()?.close();
        const fetched = fetch({ url: `https://localhost:${port}/bundle?secret` });
        await expect(fetched).rejects.toThrow(`bundle endpoint https://localhost:${port}/bundle: cannot be reached: `);
        await expect(fetched).rejects.not.toThrow('secret');
        expect(await outcome(fetched)).toBe('UNAVAILABLE FED_UNREACHABLE');
      });

      test('says that what listens does not speak TLS', async () => {
        const port = await listening(createServer((socket) => void socket.on('error', () => {}).end('SSH-2.0-x\r\n')));
        expect(await outcome(fetch({ url: `https://localhost:${port}/` }))).toMatch(/^UNAUTHENTICATED FED_TLS$/);
      });
    });
  }

  const urls: [string, string, string][] = [
    ['FED-20 FED-38', 'http://localhost/bundle', 'FED_URL_SCHEME'],
    ['FED-20 FED-38', 'spiffe://partner.example/bundle', 'FED_URL_SCHEME'],
    ['FED-20 FED-38', 'localhost/bundle', 'FED_URL_SCHEME'],
    ['FED-20 FED-38', 'https:/localhost/bundle', 'FED_URL_SCHEME'],
    ['FED-20 FED-38', '//localhost/bundle', 'FED_URL_SCHEME'],
    ['FED-21 FED-39', 'https://u:p@localhost/bundle', 'FED_URL_USERINFO'],
    ['FED-21 FED-39', 'https://u@localhost/bundle', 'FED_URL_USERINFO'],
    ['FED-21 FED-39', 'https://@localhost/bundle', 'FED_URL_USERINFO'],
    ['FED-21 FED-39', 'https://:@localhost/bundle', 'FED_URL_USERINFO'],
    ['', '', 'FED_URL'],
    ['', 'https://', 'FED_URL'],
    ['', 'https:///localhost/', 'FED_URL'],
    ['', 'https://?x', 'FED_URL'],
    ['', 'https://localhost:99999/', 'FED_URL'],
    ['', 'https://localhost:0/', 'FED_URL'],
    ['', ' https://localhost/', 'FED_URL'],
    ['', 'https://local\thost/', 'FED_URL'],
    ['', 'https://localhost\\@evil/', 'FED_URL'],
    ['', 'https://exämple.org/', 'FED_URL'],
  ];
  for (const [ids, url, reason] of urls) {
    test(`${ids} no endpoint: ${JSON.stringify(url)}`.trim(), async () => {
      expect(await outcome(overWeb({ url }))).toBe(`REQUEST_INVALID ${reason}`);
      expect(await outcome(overSpiffe({ url }))).toBe(`REQUEST_INVALID ${reason}`);
    });
  }

  test('FED-20 FED-21 a URL object is held to the same', async () => {
    expect(await outcome(overWeb({ url: new URL(web.url) }))).toBe('bundle of partner.example');
    expect(await outcome(overWeb({ url: new URL(web.url.replace('https:', 'http:')) }))).toBe('REQUEST_INVALID FED_URL_SCHEME');
    expect(await outcome(overWeb({ url: new URL(web.url.replace('//', '//u@')) }))).toBe('REQUEST_INVALID FED_URL_USERINFO');
  });

  test('FED-17 FED-33 FED-57 the trust domain is named by the caller, and guessed from nothing', async () => {
    expect(await outcome(overWeb({ trustDomain: undefined as never }))).toBe('REQUEST_INVALID FED_TRUST_DOMAIN');
    expect(await outcome(overSpiffe({ trustDomain: undefined as never }))).toBe('REQUEST_INVALID FED_TRUST_DOMAIN');
    expect(await outcome(overWeb({ trustDomain: 'Partner.example' }))).toBe('ID_INVALID ID_TRUST_DOMAIN_CHAR');
    expect([...web.requests, ...spiffe.requests]).toEqual([]);
    expect(await outcome(overWeb({ trustDomain: 'other.example' }))).toBe('bundle of other.example');
  });

  test('FED-17 FED-65 so is the profile: there is no default, and no other is tried', async () => {
    for (const profile of [undefined, {}, { type: 'https' }, { type: 'HTTPS_WEB' }])
      expect(await outcome(overWeb({ profile: profile as never }))).toBe('REQUEST_INVALID FED_PROFILE');
    expect(web.requests).toEqual([]);
    // https_spiffe to a web site, https_web to an SVID: refused by what they show, and once
    expect(await outcome(overSpiffe({ url: web.url }))).toBe('SVID_INVALID X509_URI_SAN_MISSING');
    expect(await outcome(overWeb({ url: spiffe.url, profile: { type: 'https_web', ca: theirRoot.pem } }))).toBe('UNAUTHENTICATED FED_TLS');
    expect([...web.requests, ...spiffe.requests]).toEqual([]);
  });

  test('limits are held to their range', async () => {
    for (const limits of [
      { timeoutMs: 0 },
      { timeoutMs: Number.NaN },
      { maxBytes: MAX_BUNDLE_BYTES + 1 },
      { maxRedirects: -1 },
      { maxRedirects: 11 },
    ])
      expect(await outcome(overWeb(limits))).toBe('REQUEST_INVALID FED_LIMIT');
    expect(await outcome(overWeb({ timeoutMs: 3_600_000, maxBytes: MAX_BUNDLE_BYTES, maxRedirects: 10 }))).toBe(
      'bundle of partner.example',
    );
  });
});

describe('https_web', () => {
  test('FED-22 FED-32 needs nothing else; without `ca` it is judged by the authorities that Node brings', async () => {
    expect(await outcome(overWeb({ profile: { type: 'https_web' } }))).toBe('UNAUTHENTICATED FED_TLS');
    expect(web.requests).toEqual([]);
    expect(await outcome(overWeb())).toBe('bundle of partner.example');
  });

  const certificates: [string, () => Promise<FakeWebCertificate>, string][] = [
    ['one of a trusted authority, for this host', () => site(publicRoot), 'bundle of partner.example'],
    [
      'the name as CN, without any alternative name',
      () => site(publicRoot, { dns: [], subject: 'CN=localhost' }),
      'bundle of partner.example',
    ],
    ['another host', () => site(publicRoot, { dns: ['example.com'] }), 'UNAUTHENTICATED FED_TLS'],
    [
      'this host as CN beside another alternative name',
      () => site(publicRoot, { dns: ['a.test'], subject: 'CN=localhost' }),
      'UNAUTHENTICATED FED_TLS',
    ],
    ['self-signed', () => site(undefined), 'UNAUTHENTICATED FED_TLS'],
    ['an authority that is not trusted', async () => site(await webRoot()), 'UNAUTHENTICATED FED_TLS'],
    ['expired', () => site(publicRoot, { notAfterMs: NOW - 60_000 }), 'UNAUTHENTICATED FED_TLS'],
    ['not yet valid', () => site(publicRoot, { notBeforeMs: NOW + 3_600_000 }), 'UNAUTHENTICATED FED_TLS'],
    ['for clients only', () => site(publicRoot, { purposes: ['1.3.6.1.5.5.7.3.2'] }), 'UNAUTHENTICATED FED_TLS'],
  ];
  for (const [what, made, result] of certificates) {
    test(`FED-32 the certificate: ${what}: ${result}`, async () => {
      const endpoint = await started({ web: await made() });
      expect(await outcome(overWeb({ url: endpoint.url }))).toBe(result);
      expect(endpoint.requests.length).toBe(result.startsWith('bundle') ? 1 : 0);
    });
  }

  test('FED-32 holds even where the environment tells Node to take any certificate', async () => {
    const bad = await started({ web: await site(publicRoot, { dns: ['example.com'] }) });
    const before = process.env['NODE_TLS_REJECT_UNAUTHORIZED'];
    process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0';
    try {
      expect(await outcome(overWeb({ url: bad.url }))).toBe('UNAUTHENTICATED FED_TLS');
      expect(await outcome(overWeb({ profile: { type: 'https_web' } }))).toBe('UNAUTHENTICATED FED_TLS');
      expect(await outcome(overWeb())).toBe('bundle of partner.example');
    } finally {
      if (before === undefined) delete process.env['NODE_TLS_REJECT_UNAUTHORIZED'];
      else process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = before;
    }
  });

  test('`ca` holds certificates and nothing else; an empty one is not "those that Node brings"', async () => {
    const key = goodSite.key;
    for (const [ca, refusal] of [
      ['', 'FED_CA'],
      ['no certificate', 'FED_CA'],
      [publicRoot.pem + key, 'FED_CA'],
      [publicRoot.pem.replace('END', 'EMD'), 'PEM_MALFORMED'],
    ] as const)
      expect(await outcome(overWeb({ profile: { type: 'https_web', ca } }))).toBe(`REQUEST_INVALID ${refusal}`);
    const ca = Buffer.from((await webRoot()).pem + publicRoot.pem);
    expect(await outcome(overWeb({ profile: { type: 'https_web', ca } }))).toBe('bundle of partner.example');
  });

  test('TLS 1.2 is the oldest, even where Node was told to take older ones', async () => {
    const { DEFAULT_CIPHERS, DEFAULT_MIN_VERSION } = tls;
    Object.assign(tls, { DEFAULT_CIPHERS: 'DEFAULT:@SECLEVEL=0', DEFAULT_MIN_VERSION: 'TLSv1' });
    try {
      for (const [version, result] of [
        ['TLSv1.1', 'UNAUTHENTICATED FED_TLS'],
        ['TLSv1.2', 'bundle of partner.example'],
        ['TLSv1.3', 'bundle of partner.example'],
      ] as const) {
        const server = tls
          .createServer(
            { ...goodSite, minVersion: version, maxVersion: version },
            (socket) => void socket.on('error', () => {}).end('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"keys":[]}'),
          )
          .on('tlsClientError', () => {});
        const url = `https://localhost:${await listening(server)}/`;
        expect(`${version} ${await outcome(overWeb({ url }))}`).toBe(`${version} ${result}`);
      }
    } finally {
      Object.assign(tls, { DEFAULT_CIPHERS, DEFAULT_MIN_VERSION });
    }
  });

  describe('redirects', () => {
    for (const status of [301, 302, 303, 307, 308]) {
      test(`FED-34 FED-36 FED-37 ${status} is followed, for this fetch alone`, async () => {
        const target = await started({ web: goodSite, bundle: bundleOf(theirs, [theirRoot], 7) });
        web.redirect(target.url, status);
        expect((await overWeb()).sequence).toBe(7n);
        web.resume();
        expect((await overWeb()).sequence).toBe(1n);
        expect([web.requests.length, target.requests.length]).toEqual([2, 1]);
      });
    }

    test('FED-34 it may be relative, and have a query', async () => {
      web.redirect('/other?a=b#c');
      expect(await outcome(overWeb())).toBe('UNAVAILABLE FED_REDIRECTS');
      expect(web.requests.map(({ path }) => path)).toEqual(['/bundle', '/other?a=b', '/other?a=b', '/other?a=b']);
    });

    const nowhere: [string, (url: string) => string | undefined][] = [
      ['http', (url) => url.replace('https:', 'http:')],
      ['a user', (url) => url.replace('//', '//u:p@')],
      ['an empty user', (url) => url.replace('//', '//@')],
      ['spiffe', () => 'spiffe://partner.example/bundle'],
      ['a file', () => 'file:///etc/passwd'],
      ['no URL', () => 'https://['],
      ['nowhere', () => undefined],
    ];
    for (const [what, to] of nowhere) {
      test(`FED-34 one to ${what} is not followed`, async () => {
        const target = await started({ web: goodSite });
        web.redirect(to(target.url));
        expect(await outcome(overWeb())).toBe('UNAVAILABLE FED_REDIRECT');
        expect(target.requests).toEqual([]);
        web.redirect(target.url);
        expect(await outcome(overWeb())).toBe('bundle of partner.example');
      });
    }

    test('FED-34 three are followed unless told otherwise, and none for ever', async () => {
      web.redirect(web.url);
      expect(await outcome(overWeb())).toBe('UNAVAILABLE FED_REDIRECTS');
      expect(web.requests.length).toBe(4);
      expect(await outcome(overWeb({ maxRedirects: 0 }))).toBe('UNAVAILABLE FED_REDIRECTS');
      expect(web.requests.length).toBe(5);
      const target = await started({ web: goodSite });
      web.redirect(target.url);
      expect(await outcome(overWeb({ maxRedirects: 1 }))).toBe('bundle of partner.example');
    });

    test('FED-35 the target is verified like the first', async () => {
      const bad = await started({ web: await site(publicRoot, { dns: ['example.com'] }) });
      web.redirect(bad.url);
      expect(await outcome(overWeb())).toBe('UNAUTHENTICATED FED_TLS');
      expect(bad.requests).toEqual([]);
    });

    test('time and size are bounded for all of them together', async () => {
      const clock = new FakeClock(NOW);
      const target = await started({ web: goodSite });
      web.redirect(target.url);
      target.stall();
      const fetched = outcome(overWeb({ clock }));
      await target.requested(1);
      expect(clock.waiting).toBe(1);
      await clock.advance(30_000);
      expect(await fetched).toBe('DEADLINE_EXCEEDED FED_TIMEOUT');
    });
  });
});

describe('https_spiffe', () => {
  test('FED-40 FED-41 needs the ID of the endpoint and a bundle to know it by', async () => {
    expect(await outcome(overSpiffe({}, { endpointId: undefined as never }))).toBe('REQUEST_INVALID FED_ENDPOINT_ID');
    expect(await outcome(overSpiffe({}, { endpointId: 'partner.example' }))).toBe('ID_INVALID ID_SCHEME');
    expect(await outcome(overSpiffe({}, { bundles: undefined as never }))).toBe('REQUEST_INVALID FED_ENDPOINT_BUNDLES');
    expect(spiffe.requests).toEqual([]);
    expect(await outcome(overSpiffe())).toBe('bundle of partner.example');
  });

  test('FED-42 FED-43 that bundle may have come as a SPIFFE bundle document or as PEM', async () => {
    const json = bundleOf(theirs, [theirRoot], 1).toJson();
    expect(await outcome(overSpiffe({}, { bundles: Bundle.fromJson(theirs, json) }))).toBe('bundle of partner.example');
    expect(await outcome(overSpiffe({}, { bundles: X509Bundle.fromPem(theirs, theirRoot.pem) }))).toBe('bundle of partner.example');
  });

  test("FED-44 without the bundle of the endpoint's trust domain no connection is opened, and the refusal names it", async () => {
    const elsewhere = await started({ svid: await svid(ourRoot, 'spiffe://example.org/bundles') });
    const known = { endpointId: 'spiffe://example.org/bundles', bundles: setOf(bundleOf(theirs, [theirRoot])) };
    const fetched = overSpiffe({ url: elsewhere.url }, known);
    await expect(fetched).rejects.toThrow('no bundle of example.org');
    expect(await outcome(fetched)).toBe('BUNDLE_MISSING X509_BUNDLE_MISSING');
    const bundles = setOf(bundleOf(ours, [ourRoot]));
    expect(await outcome(overSpiffe({ url: elsewhere.url }, { ...known, bundles }))).toBe('bundle of partner.example');
  });

  const shown: [string, () => Promise<X509Svid>, string][] = [
    ['exactly that ID', () => svid(theirRoot), 'bundle of partner.example'],
    ['another path', () => svid(theirRoot, 'spiffe://partner.example/web'), 'DENIED ID_NOT_ALLOWED'],
    ['a longer path', () => svid(theirRoot, `${ENDPOINT_ID}/x`), 'DENIED ID_NOT_ALLOWED'],
    ['another trust domain', () => svid(ourRoot, 'spiffe://example.org/bundle-endpoint'), 'DENIED ID_NOT_ALLOWED'],
    ['that ID, signed by another trust domain', () => svid(ourRoot), 'SVID_UNTRUSTED X509_ISSUER_UNKNOWN'],
    ['expired', () => svid(theirRoot, ENDPOINT_ID, { notAfterMs: NOW - 60_000 }), 'SVID_EXPIRED X509_EXPIRED'],
  ];
  for (const [what, made, result] of shown) {
    test(`FED-12 FED-54 the endpoint shows ${what}: ${result}`, async () => {
      const endpoint = await started({ svid: await made() });
      const bundles = setOf(bundleOf(theirs, [theirRoot]), bundleOf(ours, [ourRoot]));
      expect(await outcome(overSpiffe({ url: endpoint.url }, { bundles }))).toBe(result);
      expect(endpoint.requests.length).toBe(result.startsWith('bundle') ? 1 : 0);
    });
  }

  test('FED-54 a certificate of a web site is none, whoever issued it', async () => {
    const endpoint = await started({ web: await site(theirRoot) });
    expect(await outcome(overSpiffe({ url: endpoint.url }))).toBe('SVID_INVALID X509_URI_SAN_MISSING');
    expect(endpoint.requests).toEqual([]);
  });

  test('FED-54 the host of the URL is only where it is', async () => {
    const endpoint = await started({ svid: goodSvid, host: '127.0.0.1' });
    expect(await outcome(overSpiffe({ url: endpoint.url }))).toBe('bundle of partner.example');
    expect(endpoint.requests[0]?.headers['host']).toBe(`127.0.0.1:${endpoint.port}`);
  });

  test("an empty bundle of the endpoint's trust domain lets nobody through", async () => {
    expect(await outcome(overSpiffe({}, { bundles: setOf(bundleOf(theirs, [])) }))).toBe('SVID_UNTRUSTED X509_BUNDLE_EMPTY');
  });

  test('FED-59 FED-61 a redirect is not followed, so that nobody else ever answers', async () => {
    const target = await started({ svid: goodSvid });
    for (const status of [301, 302, 307, 308]) {
      spiffe.redirect(target.url, status);
      expect(await outcome(overSpiffe())).toBe('UNAVAILABLE FED_REDIRECT');
    }
    expect(target.requests).toEqual([]);
    expect(await outcome(overSpiffe({ url: target.url }))).toBe('bundle of partner.example');
  });
});

afterAll(() => expect(open).toEqual([]));
