/** The first trust of an agent: from a file, or from a real https server whose CA is one of the process's own roots for the time of the test. */
import { MAX_BUNDLE_BYTES } from '../../spiffe/jwt/jwt-bundle.ts';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type RequestListener, createServer as createHttpServer } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { bootstrapBundle } from '../../agent/bootstrap.ts';
import { agentSettings } from '../../agent/settings.ts';
import { systemClock } from '../../spiffe/clock.ts';
import { TrustDomain } from '../../spiffe/id.ts';
import { formatPem } from '../../spiffe/x509/pem.ts';
import { type TestCertificate, testCertificate, testRoot } from '../fakes/ca.ts';
import { type Realm, realm } from './rig.ts';

const never = new AbortController().signal;
const trustDomain = TrustDomain.parse('example.org');
const HOUR_MS = 3_600_000;

let dir: string;
let home: Realm;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'bootstrap-'));
  home = await realm('example.org');
});
afterAll(() => rmSync(dir, { recursive: true }));

type Given = Partial<Parameters<typeof bootstrapBundle>[0]>;
const bootstrap = (given: Given, signal = never) =>
  bootstrapBundle(
    {
      trust_domain: trustDomain,
      trust_bundle_path: undefined,
      trust_bundle_url: undefined,
      trust_bundle_format: 'pem',
      insecure_bootstrap: false,
      ...given,
    },
    signal,
  );
const pem = () => home.bundle.x509.authorities.map(({ raw }) => formatPem('CERTIFICATE', raw)).join('');
const wanted = () => home.bundle.x509.authorities.map(({ sha256 }) => sha256);
async function got(given: Given): Promise<readonly string[] | undefined> {
  return (await bootstrap(given))?.map(({ sha256 }) => sha256);
}

test('insecure_bootstrap has none', async () => {
  expect(await bootstrap({ insecure_bootstrap: true })).toBeUndefined();
});

describe('trust_bundle_path', () => {
  const file = (text: string | Buffer) => {
    const path = join(dir, 'bundle');
    writeFileSync(path, text);
    return path;
  };

  test('is a file of PEM certificates', async () => {
    expect(await got({ trust_bundle_path: file(pem()) })).toEqual(wanted());
  });

  test('is a SPIFFE bundle, whose X.509 authorities count', async () => {
    expect(await got({ trust_bundle_path: file(home.bundle.toJson()), trust_bundle_format: 'spiffe' })).toEqual(wanted());
  });

  const jwtOnly = JSON.stringify({ keys: [] });
  const bad: readonly (readonly [string, 'pem' | 'spiffe', () => string | Buffer])[] = [
    ['empty', 'pem', () => ''],
    ['of the other format', 'pem', () => home.bundle.toJson()],
    ['of the other format', 'spiffe', pem],
    ['cut off', 'pem', () => pem().slice(0, -40)],
    ['a key', 'pem', () => formatPem('PRIVATE KEY', Buffer.from('x'))],
    ['without an X.509 authority', 'spiffe', () => jwtOnly],
    ['too large', 'pem', () => Buffer.concat([Buffer.from(pem()), Buffer.alloc(MAX_BUNDLE_BYTES, '\n')])],
  ];
  for (const [name, format, text] of bad)
    test(`${name}, read as ${format}: is refused with its name`, async () => {
      const path = file(text());
      await expect(bootstrap({ trust_bundle_path: path, trust_bundle_format: format })).rejects.toMatchObject({
        code: 'SETTINGS_INVALID',
        message: expect.stringContaining(path) as string,
      });
    });

  test('that is not there is refused', async () => {
    await expect(bootstrap({ trust_bundle_path: join(dir, 'none') })).rejects.toMatchObject({ code: 'SETTINGS_INVALID' });
  });
});

describe('trust_bundle_url', () => {
  let web: TestCertificate;
  let servers: Server[];
  const roots = getCACertificates('default');

  beforeAll(async () => {
    const now = systemClock.now();
    web = await testRoot({ subject: 'CN=web', notBeforeMs: now - HOUR_MS, notAfterMs: now + HOUR_MS });
    setDefaultCACertificates([...roots, web.pem]);
  });
  afterAll(() => setDefaultCACertificates(roots));
  beforeEach(() => {
    servers = [];
  });
  afterEach(() => {
    for (const server of servers) {
      server.closeAllConnections();
      server.close();
    }
  });

  async function serve(answer: RequestListener, { issuer = web, name = 'localhost' } = {}): Promise<string> {
    const now = systemClock.now();
    const { pem: cert, key } = await testCertificate({
      issuer,
      uris: [],
      dns: [name],
      notBeforeMs: now - HOUR_MS,
      notAfterMs: now + HOUR_MS,
    });
    const server = createServer({ cert, key: key.export({ type: 'pkcs8', format: 'pem' }) }, answer);
    servers.push(server);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return `https://localhost:${(server.address() as AddressInfo).port}/bundle`;
  }
  const page =
    (text: () => string): RequestListener =>
    (_, response) =>
      void response.end(text());
  const refused = (url: string, words: string | RegExp) =>
    expect(bootstrap({ trust_bundle_url: url })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringMatching(words) as string,
    });

  test('is a page of PEM certificates, or a SPIFFE bundle', async () => {
    expect(await got({ trust_bundle_url: await serve(page(pem)) })).toEqual(wanted());
    const spiffe = await serve(page(() => home.bundle.toJson()));
    expect(await got({ trust_bundle_url: spiffe, trust_bundle_format: 'spiffe' })).toEqual(wanted());
  });

  test('is believed only from who the web’s roots say it is', async () => {
    const now = systemClock.now();
    const other = await testRoot({ subject: 'CN=other', notBeforeMs: now - HOUR_MS, notAfterMs: now + HOUR_MS });
    await refused(await serve(page(pem), { issuer: other }), /could not download/);
    await refused(await serve(page(pem), { name: 'elsewhere.test' }), /could not download/);
  });

  test('is not looked for where a redirect points', async () => {
    let followed = false;
    const target = await serve((_, response) => {
      followed = true;
      response.end(pem());
    });
    await refused(await serve((_, response) => void response.writeHead(302, { location: target }).end(pem())), /status 302/);
    expect(followed).toBe(false);
  });

  test('with another status than 200 is none, whatever its body', async () => {
    for (const status of [204, 404, 500]) {
      await refused(
        await serve((_, response) => void response.writeHead(status).end(status === 204 ? undefined : pem())),
        `status ${status}`,
      );
    }
  });

  test('is read no further than the bound, however much comes', async () => {
    let ended: Promise<unknown> | undefined;
    const url = await serve((_, response) => {
      ended = once(response, 'close');
      response.write(pem());
      const more = () => {
        while (!response.destroyed && response.write(Buffer.alloc(64 * 1024, '\n')));
      };
      response.on('drain', more);
      more();
    });
    await refused(url, /larger than/);
    await ended;
  });

  test('that is cut off is none', async () => {
    await refused(
      await serve((request, response) => {
        response.writeHead(200, { 'content-length': pem().length + 10 });
        response.write(pem(), () => request.socket.destroy());
      }),
      /could not download/,
    );
  });

  test('that is no bundle is none: the page of a proxy may be another one next time', async () => {
    await refused(await serve(page(() => '<html>')), /could not parse/);
    await refused(await serve(page(() => '')), /could not parse/);
  });

  test('where nobody answers is given up when the agent stops', async () => {
    const stop = new AbortController();
    const url = await serve(() => stop.abort(new Error('stopping')));
    await expect(bootstrap({ trust_bundle_url: url }, stop.signal)).rejects.toThrow('stopping');
  });

  test('where nobody listens, or somebody without TLS, is none', async () => {
    const plain = createHttpServer(page(pem));
    plain.listen(0, '127.0.0.1');
    await once(plain, 'listening');
    const { port } = plain.address() as AddressInfo;
    await refused(`https://localhost:${port}/`, /could not download/);
    const closed = once(plain, 'close');
    plain.closeAllConnections();
    plain.close();
    await closed;
    await refused(`https://localhost:${port}/`, /could not download/);
  });
});

describe('the settings', () => {
  const parse = (more: Readonly<Record<string, unknown>>) =>
    agentSettings.safeParse({
      agent: { trust_domain: 'example.org', server_address: 'localhost', server_port: 8081, ...more },
      plugins: [],
    });
  const sources = { trust_bundle_path: '/b', trust_bundle_url: 'https://localhost/', insecure_bootstrap: true };

  test('take one source of trust', () => {
    for (const [key, value] of Object.entries(sources)) expect(parse({ [key]: value }).error).toBeUndefined();
  });

  test('take no page that is not https', () => {
    for (const url of ['http://localhost/', 'file:///etc/ssl/cert.pem', 'localhost', ''])
      expect(parse({ trust_bundle_url: url }).success).toBe(false);
  });

  test('take neither none nor two', () => {
    expect(parse({}).success).toBe(false);
    expect(parse({ ...sources, trust_bundle_url: undefined }).success).toBe(false);
    expect(parse({ ...sources, insecure_bootstrap: false }).success).toBe(false);
  });

  test('know two formats', () => {
    expect(parse({ trust_bundle_path: '/b', trust_bundle_format: 'spiffe' }).success).toBe(true);
    expect(parse({ trust_bundle_path: '/b', trust_bundle_format: 'jwks' }).success).toBe(false);
  });
});
