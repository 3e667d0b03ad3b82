/** The examples of docs/middleware.md do what they say, stand there word for word, and the half for other runtimes loads none of Node. */
import { readdirSync, readFileSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { dirname, join, relative, resolve } from 'node:path';
import { Client, credentials, Metadata, ServerCredentials, status } from '@grpc/grpc-js';
import { getRequestListener } from '@hono/node-server';
import { afterAll, describe, expect, test } from 'vitest';
import { TrustDomain } from '../../../spiffe/id.ts';
import { systemClock } from '../../../spiffe/clock.ts';
import { matchAny } from '../../../spiffe/match.ts';
import { TlsServer } from '../../../spiffe/tls/tls.ts';
import { X509Bundle } from '../../../spiffe/x509/x509-bundle.ts';
import { X509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { testCertificate } from '../../fakes/ca.ts';
import { orders as envoy } from './examples/envoy.ts';
import { orders as express } from './examples/express.ts';
import { orders as fastify } from './examples/fastify.ts';
import { orders as grpc, whoCalls } from './examples/grpc.ts';
import { orders as hono } from './examples/hono.ts';
import { orders as http } from './examples/http.ts';
import { orders as koa } from './examples/koa.ts';
import { orders as mtls } from './examples/mtls.ts';
import { ask, bundles, closeAll, listen, rawAsk, serve, token as tokenOf } from './rig.ts';

const ROOT = resolve(import.meta.dirname, '../../..');
const examples = join(import.meta.dirname, 'examples');

// the examples go by the system's clock
const nowMs = systemClock.now();
const span = { notBeforeMs: nowMs - 60_000, notAfterMs: nowMs + 600_000 };
const token = (change: { sub?: string } = {}) => tokenOf({ exp: Math.floor(nowMs / 1000) + 300, ...change });
afterAll(closeAll);

const withTokens: readonly [name: string, port: () => Promise<number>][] = [
  ['http.ts', () => listen((socket) => server.emit('connection', socket))],
  ['express.ts', () => serve(express(bundles))],
  ['koa.ts', () => serve(koa(bundles).callback())],
  ['hono.ts', () => serve(getRequestListener(hono(bundles).fetch))],
];
const server = http(bundles);

describe('with a JWT-SVID', () => {
  for (const [name, open] of withTokens) {
    test(name, async () => {
      const port = await open();
      expect(await ask(port, { authorization: `Bearer ${await token()}` })).toMatchObject({
        status: 200,
        body: 'hello spiffe://example.org/web',
      });
      expect(await ask(port)).toMatchObject({ status: 401 });
    });
  }
  test('fastify.ts', async () => {
    const app = fastify(bundles);
    const port = Number(new URL(await app.listen({ port: 0, host: '127.0.0.1' })).port);
    expect(await ask(port, { authorization: `Bearer ${await token()}` })).toMatchObject({
      status: 200,
      body: 'hello spiffe://example.org/web',
    });
    expect(await ask(port)).toMatchObject({ status: 401 });
    await app.close();
  });
  test('grpc.ts', async () => {
    const service = grpc(bundles);
    const asIs = (bytes: Buffer) => bytes;
    const codec = { requestSerialize: asIs, requestDeserialize: asIs, responseSerialize: asIs, responseDeserialize: asIs };
    service.addService(
      { Who: { path: '/test.Test/Who', requestStream: false, responseStream: false, ...codec } },
      {
        Who: (call: Parameters<typeof whoCalls>[0], done: (error: null, value: Buffer) => void) =>
          done(null, Buffer.from(`hello ${whoCalls(call)}`)),
      },
    );
    const port = await new Promise<number>((done, fail) => {
      service.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error ? fail(error) : done(bound)));
    });
    const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
    const call = (metadata: Metadata) =>
      new Promise<string>((done, fail) => {
        client.makeUnaryRequest('/test.Test/Who', asIs, asIs, Buffer.alloc(0), metadata, (error, value) =>
          error ? fail(error) : done(String(value)),
        );
      });
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${await token()}`);
    expect(await call(metadata)).toBe('hello spiffe://example.org/web');
    await expect(call(new Metadata())).rejects.toMatchObject({ code: status.UNAUTHENTICATED });
    client.close();
    service.forceShutdown();
  });
  test('express.ts: /admin is for one', async () => {
    const port = await serve(express(bundles));
    const as = async (sub: string) => ({ authorization: `Bearer ${await token({ sub })}` });
    expect(await ask(port, await as('spiffe://example.org/admin'), undefined, '/admin')).toMatchObject({ status: 200 });
    expect(await ask(port, await as('spiffe://example.org/web'), undefined, '/admin')).toMatchObject({ status: 403 });
  });
  test('http.ts: an upgrade', async () => {
    const port = await listen((socket) => server.emit('connection', socket));
    const upgrade = (header: string) => rawAsk(port, `GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: hello\r\n${header}\r\n`);
    expect(await upgrade(`Authorization: Bearer ${await token()}\r\n`)).toMatch(/^HTTP\/1.1 101 .*hello spiffe:\/\/example.org\/web$/s);
    expect(await upgrade('')).toMatch(/^HTTP\/1.1 401 /);
  });
});

describe('with a certificate', () => {
  const made = async (uri: string, issuer: Awaited<ReturnType<typeof testCertificate>>) => {
    const { pem, key } = await testCertificate({ issuer, uris: [uri], ...span });
    return { cert: pem, key: String(key.export({ type: 'pkcs8', format: 'pem' })) };
  };
  async function open(listener: RequestListener) {
    const root = await testCertificate({ ca: true, ...span });
    const own = await made('spiffe://example.org/orders', root);
    const { createServer } = await import('node:http');
    const inner = createServer(listener);
    const tls = new TlsServer({
      svid: X509Svid.fromPem(own.cert, own.key),
      bundles: X509Bundle.fromPem(TrustDomain.parse('example.org'), root.pem),
      authorize: matchAny(),
      clock: systemClock,
      client: 'required',
      onConnection: (socket) => void inner.emit('connection', socket),
    });
    const as = (uri: string) => made(uri, root);
    return { port: await listen((socket) => tls.accept(socket)), as };
  }
  test('mtls.ts', async () => {
    const { port, as } = await open(mtls());
    expect(await ask(port, {}, await as('spiffe://example.org/ns/shop/sa/web'))).toMatchObject({
      body: 'hello spiffe://example.org/ns/shop/sa/web',
    });
    expect(await ask(port, {}, await as('spiffe://example.org/ns/other/sa/web'))).toMatchObject({ status: 403 });
  });
  test('envoy.ts', async () => {
    const { port, as } = await open(envoy());
    const says = { 'x-forwarded-client-cert': 'By=spiffe://example.org/envoy;URI=spiffe://example.org/ns/shop/sa/web' };
    expect(await ask(port, says, await as('spiffe://example.org/envoy'))).toMatchObject({
      body: 'hello spiffe://example.org/ns/shop/sa/web through spiffe://example.org/envoy',
    });
    expect(await ask(port, {}, await as('spiffe://example.org/envoy'))).toMatchObject({ status: 401 });
    expect(await ask(port, says, await as('spiffe://example.org/ns/shop/sa/db'))).toMatchObject({
      body: 'hello spiffe://example.org/ns/shop/sa/db',
    });
    expect(await ask(port, says, await as('spiffe://example.org/ns/other/sa/web'))).toMatchObject({ status: 403 });
  });
});

/** As a user would write it: the package, not our files. */
function published(source: string): string {
  return source
    .replace(/^\/\*\*.*\*\/\n/, '')
    .replaceAll(/'\.\.\/\.\.\/\.\.\/\.\.\/spiffe\/middleware\/index\.ts'/g, "'@warifu/spiffe/middleware'")
    .replaceAll(/'\.\.\/\.\.\/\.\.\/\.\.\/spiffe\/middleware\/(jwt|grpc)\.ts'/g, "'@warifu/spiffe/middleware/$1'")
    .replaceAll(/'\.\.\/\.\.\/\.\.\/\.\.\/spiffe\/[\w/-]+\.ts'/g, "'@warifu/spiffe'")
    .trim();
}

describe('docs/middleware.md', () => {
  const blocks = [...readFileSync(join(ROOT, 'docs/middleware.md'), 'utf8').matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(([, block = '']) =>
    block.trim(),
  );
  const files = readdirSync(examples);
  for (const file of files) {
    test(`has ${file}`, () => expect(blocks).toContain(published(readFileSync(join(examples, file), 'utf8'))));
  }
  test('has no other code', () => expect(blocks).toHaveLength(files.length));
});

/** The files that are loaded with this one; imports of types are gone by then. */
function loaded(file: string, seen = new Set<string>()): Set<string> {
  if (seen.has(file)) return seen;
  seen.add(file);
  const text = readFileSync(join(ROOT, file), 'utf8');
  for (const [, what = '', from = ''] of text.matchAll(/^(?:import|export) (?!type\b)([^;]*?from )?'([^']+)'/gm)) {
    const typesOnly =
      /^\{[^}]*\} from $/.test(what) &&
      what
        .slice(1, what.indexOf('}'))
        .split(',')
        .every((one) => /^\s*(type |$)/.test(one));
    if (typesOnly) continue;
    if (from.startsWith('.')) loaded(relative(ROOT, resolve(ROOT, dirname(file), from)), seen);
    else seen.add(from);
  }
  return seen;
}

test('the JWT half loads none of Node’s modules and none of anybody’s packages; the whole does load TLS', () => {
  const strangers = (file: string) => [...loaded(file)].filter((one) => !one.endsWith('.ts'));
  expect(strangers('spiffe/middleware/jwt.ts')).toEqual([]);
  expect(loaded('spiffe/middleware/jwt.ts')).toContain('spiffe/jwt/jwt-svid.ts');
  expect(strangers('spiffe/middleware/index.ts')).toContain('node:tls');
});
