/** The handlers of a bundle endpoint: what they answer, and to whom they tell why not. */
import { createServer as createHttp, type RequestListener } from 'node:http';
import { createServer as createHttps } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Bundle, BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { fetchBundle } from '../../../spiffe/bundle/endpoint-client.ts';
import { bundleFetchHandler, bundleHandler, type BundleHandlerOptions } from '../../../spiffe/bundle/endpoint-handler.ts';
import { matchAny } from '../../../spiffe/match.ts';
import { TlsServer } from '../../../spiffe/tls/tls.ts';
import type { TestCertificate } from '../../fakes/ca.ts';
import { bundleOf, ENDPOINT_ID, ours, root, setOf, site, svid, theirs, webRoot } from './endpoint-rig.ts';

let theirRoot: TestCertificate;
let nextRoot: TestCertificate;
let publicRoot: TestCertificate;
let bundle: Bundle;
const open: { close(): unknown }[] = [];

beforeAll(async () => {
  [theirRoot, nextRoot, publicRoot] = await Promise.all([root(theirs), root(theirs), webRoot()]);
  bundle = bundleOf(theirs, [theirRoot], 5, 60);
});
afterEach(() => {
  for (const one of open.splice(0)) one.close();
});

async function listening(server: Server): Promise<number> {
  open.push(server);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return (server.address() as AddressInfo).port;
}

type Ask = (method: string, path?: string) => Promise<Response>;
const DOORS: Readonly<Record<string, (options: BundleHandlerOptions) => Promise<Ask>>> = {
  'node:http': async (options) => {
    const port = await listening(createHttp(bundleHandler(options)));
    return (method, path = '/') => fetch(`http://127.0.0.1:${port}${path}`, { method });
  },
  'the Fetch API': async (options) => {
    const handler = bundleFetchHandler(options);
    return async (method, path = '/') => handler(new Request(`https://partner.example${path}`, { method }));
  },
};

for (const [door, opened] of Object.entries(DOORS)) {
  describe(`over ${door}`, () => {
    test('FED-1 FED-27 FED-28 FED-49 FED-50 GET gives the bundle document as JSON in UTF-8, at any path, to anybody', async () => {
      const ask = await opened({ trustDomain: theirs, bundles: setOf(bundle) });
      for (const path of ['/', '/bundle.json?x=y']) {
        const answer = await ask('GET', path);
        const body = Buffer.from(await answer.arrayBuffer());
        expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'application/json']);
        expect(answer.headers.get('content-length')).toBe(String(body.length));
        expect(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body)).toBe(bundle.toJson());
      }
    });

    test('HEAD gives the same without the document', async () => {
      const ask = await opened({ trustDomain: theirs, bundles: setOf(bundle) });
      const [head, get] = [await ask('HEAD'), await ask('GET')];
      expect([head.status, await head.text()]).toEqual([200, '']);
      for (const name of ['content-type', 'content-length', 'cache-control']) expect(head.headers.get(name)).toBe(get.headers.get(name));
    });

    test('FED-1 any other method is refused, and told which are not', async () => {
      const ask = await opened({ trustDomain: theirs, bundles: setOf(bundle) });
      for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
        const answer = await ask(method);
        expect([method, answer.status, answer.headers.get('allow'), await answer.text()]).toEqual([method, 405, 'GET, HEAD', '']);
      }
      expect((await ask('GET')).status).toBe(200);
    });

    test('FED-26 FED-48 each answer is the newest, and no cache on the way may keep it', async () => {
      let newest = setOf(bundle);
      const ask = await opened({ trustDomain: theirs, bundles: { get: (trustDomain) => newest.get(trustDomain) } });
      const first = await ask('GET');
      expect([await first.text(), first.headers.get('cache-control')]).toEqual([bundle.toJson(), 'no-store']);
      const next = bundleOf(theirs, [theirRoot, nextRoot], 6);
      newest = setOf(next);
      expect(await (await ask('GET')).text()).toBe(next.toJson());
    });

    test('without a bundle 404, when asking for it fails 500; the log hears why, the caller nothing', async () => {
      const heard: unknown[] = [];
      const hear = (_: string, fields?: object) => void heard.push(fields);
      const log = { debug: hear, info: hear, warn: hear, error: hear };
      const none = await opened({ trustDomain: theirs, bundles: new BundleSet(), log });
      const fails = await opened({ trustDomain: theirs, log, bundles: { get: () => raise(new Error('the store is closed')) } });
      const wrong = await opened({ trustDomain: theirs, log, bundles: { get: () => bundleOf(ours, []) } });
      for (const [ask, status, why] of [
        [none, 404, { code: 'BUNDLE_MISSING' }],
        [fails, 500, { code: 'INTERNAL', message: expect.stringContaining('the store is closed') as unknown }],
        [wrong, 500, { reason: 'FED_TRUST_DOMAIN' }],
      ] as const) {
        for (const method of ['GET', 'HEAD']) {
          const answer = await ask(method);
          expect([answer.status, await answer.text(), answer.headers.get('content-type')]).toEqual([status, '', null]);
          expect(heard.at(-1)).toMatchObject({ trust_domain: 'partner.example', status, error: why });
        }
      }
      expect(heard).toHaveLength(6);
      const good = await opened({ trustDomain: theirs, bundles: setOf(bundle), log });
      expect((await good('GET')).status).toBe(200);
      expect(heard).toHaveLength(6);
    });

    test('neither silence nor a logger that fails changes the answer', async () => {
      const broken = () => raise(new Error('disk full'));
      for (const log of [undefined, { debug: broken, info: broken, warn: broken, error: broken }]) {
        const ask = await opened({ trustDomain: theirs, bundles: new BundleSet(), log });
        expect((await ask('GET')).status).toBe(404);
      }
    });

    test('an empty bundle is one: it says that nothing of the trust domain is to be believed', async () => {
      const ask = await opened({ trustDomain: theirs, bundles: setOf(bundleOf(theirs, [])) });
      expect(await (await ask('GET')).json()).toEqual({ keys: [] });
    });
  });
}

describe('a client of ours gets what a handler of ours serves', () => {
  const served = (): RequestListener => bundleHandler({ trustDomain: theirs, bundles: setOf(bundle) });

  test('FED-15 FED-25 over https_web, without a certificate of its own', async () => {
    const port = await listening(createHttps(await site(publicRoot), served()));
    const url = `https://localhost:${port}/`;
    expect((await fetchBundle({ trustDomain: theirs, url, profile: { type: 'https_web', ca: publicRoot.pem } })).equals(bundle)).toBe(true);
  });

  test('FED-15 FED-46 FED-47 over https_spiffe, without a certificate of its own', async () => {
    const http = createHttp(served());
    const tls = new TlsServer({
      svid: await svid(theirRoot),
      client: 'optional',
      bundles: setOf(),
      authorize: matchAny(),
      onConnection: (socket) => void http.emit('connection', socket),
    });
    const url = `https://localhost:${await listening(tls.server)}/`;
    const profile = { type: 'https_spiffe', endpointId: ENDPOINT_ID, bundles: setOf(bundle) } as const;
    expect((await fetchBundle({ trustDomain: theirs, url, profile })).equals(bundle)).toBe(true);
  });
});

function raise(error: Error): never {
  throw error;
}
