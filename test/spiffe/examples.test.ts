/** The examples of the package's README do what they say, over real sockets, and stand there word for word. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { request } from 'node:https';
import type { AddressInfo, Server as NetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Client } from '@grpc/grpc-js';
import { getGlobalDispatcher, setGlobalDispatcher } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EphemeralTrustDomain } from '../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi } from '../../spiffe/testing/workload-api.ts';
import { grpcPeer } from '../../spiffe/tls/grpc.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const examples = join(import.meta.dirname, 'examples');
const folder = mkdtempSync(join(tmpdir(), 'examples-'));
const trustDomain = EphemeralTrustDomain.create('example.org');
const before = { ...process.env };
let api: FakeWorkloadApi;

beforeAll(async () => {
  api = await FakeWorkloadApi.start(trustDomain, { identities: ['/orders'] });
  process.env['SPIFFE_ENDPOINT_SOCKET'] = api.address;
  process.env['BUNDLE'] = join(folder, 'bundle.json');
  writeFileSync(join(folder, 'bundle.json'), trustDomain.bundle.toJson());
});
afterAll(async () => {
  process.env = before;
  await api[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

async function portOf(server: NetServer): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

test('jwt.ts: the right token names its caller, one for another audience does not', async () => {
  const { callerOf } = await import('./examples/jwt.ts');
  expect(String(await callerOf(trustDomain.jwtSvid('/web', { audience: 'orders' })))).toBe('spiffe://example.org/web');
  await expect(callerOf(trustDomain.jwtSvid('/web', { audience: 'else' }))).rejects.toMatchObject({ reason: 'JWT_AUD_UNEXPECTED' });
});

test('https.ts and fetch.ts: server and both clients', async () => {
  const { agent, server, source } = await import('./examples/https.ts');
  const port = await portOf(server);
  const answer = await new Promise<string>((done, fail) => {
    request({ host: '127.0.0.1', port, agent }, (response) => response.setEncoding('utf8').once('data', done))
      .once('error', fail)
      .end();
  });
  expect(answer).toBe('hello spiffe://example.org/orders');
  const plain = getGlobalDispatcher();
  const example = await import('./examples/fetch.ts');
  expect(await example.ask(`https://127.0.0.1:${port}/`)).toBe('hello spiffe://example.org/orders');
  // there is no identity without TLS
  await expect(example.ask(`http://127.0.0.1:${port}/`)).rejects.toThrow();
  const ours = getGlobalDispatcher();
  setGlobalDispatcher(plain);
  await expect(example.ask(`https://127.0.0.1:${port}/`)).rejects.toThrow();
  agent.destroy();
  await ours.destroy();
  server.closeAllConnections();
  server.close();
  await Promise.all([source.close(), example.source.close()]);
});

test('grpc.ts: a call and who makes it', async () => {
  const { credentials, listener, server, source } = await import('./examples/grpc.ts');
  const asIs = (bytes: Buffer) => bytes;
  const method = {
    path: '/test.Test/Who',
    requestStream: false,
    responseStream: false,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  } as const;
  server.addService({ who: method }, {
    who: (call: never, done: (error: null, value: Buffer) => void) => done(null, Buffer.from(String(grpcPeer(call)?.id))),
  } as never);
  const client = new Client(`127.0.0.1:${await portOf(listener)}`, credentials);
  const answer = await new Promise((done, fail) => {
    client.makeUnaryRequest(method.path, asIs, asIs, Buffer.alloc(0), (error, value) => (error ? fail(error) : done(String(value))));
  });
  expect(answer).toBe('spiffe://example.org/orders');
  client.close();
  server.forceShutdown();
  listener.close();
  await source.close();
});

const { exports } = JSON.parse(readFileSync(join(ROOT, 'spiffe/package.json'), 'utf8')) as {
  exports: Readonly<Record<string, { default: string } | string>>;
};

/** As a user would write it: the package, not our files. */
function published(source: string): string {
  return source
    .replace(/^\/\*\*.*\*\/\n/, '')
    .replaceAll(/'\.\.\/\.\.\/\.\.\/(spiffe\/[\w/-]+)\.ts'/g, (whole, file: string) => {
      const [subpath] = Object.entries(exports).find(([, one]) => typeof one === 'object' && one.default === `./dist/${file}.js`) ?? [];
      return subpath === undefined ? whole : `'${subpath.replace(/^\./, '@warifu/spiffe')}'`;
    })
    .trim();
}

describe('spiffe/README.md', () => {
  const blocks = [...readFileSync(join(ROOT, 'spiffe/README.md'), 'utf8').matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(([, block = '']) =>
    block.trim(),
  );
  const files = readdirSync(examples);
  for (const file of files) test(`has ${file}`, () => expect(blocks).toContain(published(readFileSync(join(examples, file), 'utf8'))));
  test('has no other code', () => expect(blocks).toHaveLength(files.length));
});
