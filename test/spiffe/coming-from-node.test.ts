/**
 * docs/coming-from-node.md: what goes wrong with the code before does so here, over real sockets, and does not with the code after, which serves the right
 * peer as the code before did. The code stands on the pages word for word.
 */
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, watch, writeFileSync, mkdirSync } from 'node:fs';
import { X509Certificate as X509 } from 'node:crypto';
import { createServer as createHttp } from 'node:http';
import { type Agent, createServer as createHttps, request } from 'node:https';
import type { AddressInfo, Server as NetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { connect } from 'node:tls';
import { Client, Server, type ChannelCredentials } from '@grpc/grpc-js';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { BundleSet } from '../../spiffe/bundle/bundle.ts';
import { X509MemorySource } from '../../spiffe/source/memory-source.ts';
import { validateJwtSvid } from '../../spiffe/jwt/jwt-svid.ts';
import { FakeBundleEndpoint } from '../../spiffe/testing/bundle-endpoint.ts';
import { EphemeralTrustDomain, type RawSvid } from '../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi } from '../../spiffe/testing/workload-api.ts';
import { grpcPeer } from '../../spiffe/tls/grpc.ts';
import { createSpiffeServer } from '../../spiffe/tls/server.ts';
import { matchAny } from '../../spiffe/match.ts';
import * as filesAfter from './coming-from/node/files-after.ts';
import * as filesBefore from './coming-from/node/files-before.ts';
import * as grpcAfter from './coming-from/node/grpc-after.ts';
import * as grpcBefore from './coming-from/node/grpc-before.ts';
import * as agentAfter from './coming-from/node/https-agent-after.ts';
import * as agentBefore from './coming-from/node/https-agent-before.ts';
import * as joseAfter from './coming-from/node/jose-after.ts';
import * as joseBefore from './coming-from/node/jose-before.ts';
import * as resolverAfter from './coming-from/node/jose-resolver-after.ts';
import * as syncAfter from './coming-from/node/jsonwebtoken-after.ts';
import * as serverAfter from './coming-from/node/tls-server-after.ts';
import * as serverBefore from './coming-from/node/tls-server-before.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const folder = mkdtempSync(join(tmpdir(), 'coming-from-'));
const ours = EphemeralTrustDomain.create('example.org');
const partner = EphemeralTrustDomain.create('partner.test');
const bundles = new BundleSet([ours.bundle, partner.bundle]);
const ca = [ours.bundle.x509.toPem(), partner.bundle.x509.toPem()];
const sourceOf = (path: string) => new X509MemorySource({ svid: ours.x509Svid(path), bundles });
/** Of an authority that we trust for its own trust domain, and in the name of ours. */
const forged = (path: string): RawSvid => partner.rawSvid(path, { uris: [`spiffe://example.org${path}`] });

const cleanup: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of cleanup.splice(0).reverse()) await end();
});
afterAll(() => rmSync(folder, { recursive: true }));

async function portOf(server: NetServer): Promise<number> {
  server.listen(0, '127.0.0.1');
  cleanup.push(() => server.close());
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** What a server says to a client that shows this; '' when it ends the connection. */
function told(port: number, { key, cert }: { readonly key: string; readonly cert: string }): Promise<string> {
  return new Promise((done) => {
    let text = '';
    const socket = connect({ port, host: '127.0.0.1', key, cert, rejectUnauthorized: false });
    socket.setEncoding('utf8').on('data', (part: string) => (text += part));
    socket.on('error', () => undefined).once('close', () => done(text));
  });
}

function asked(port: number, agent: Agent): Promise<string> {
  return new Promise((done, fail) => {
    request({ host: '127.0.0.1', port, agent }, (response) => {
      let text = '';
      response
        .setEncoding('utf8')
        .on('data', (part: string) => (text += part))
        .once('end', () => done(text));
    })
      .once('error', fail)
      .end();
  });
}

const shown = ({ keyPem, certificatesPem }: RawSvid) => ({ key: keyPem, cert: certificatesPem });
const own = (path: string) => {
  const { key, certificates } = ours.x509Svid(path).toPem();
  return { key, cert: certificates };
};
const us = own('/web');

describe('tls.createServer with requestCert', () => {
  test.each([
    ['before', () => serverBefore.server(us.key, us.cert, ca), 'welcome'],
    ['after', () => serverAfter.server(sourceOf('/db')), ''],
  ] as const)('%s: our caller is welcome; is who a partner vouches for in our name?', async (_, made, heard) => {
    const port = await portOf(made());
    expect(await told(port, own('/web'))).toBe('welcome');
    expect(await told(port, shown(forged('/web')))).toBe(heard);
    expect(await told(port, own('/else'))).not.toBe('welcome');
    // no SVIDs, though our own authority signed them
    for (const broken of [{ ca: true }, { keyUsage: ['digitalSignature', 'keyCertSign'] }] as const)
      expect(await told(port, shown(ours.rawSvid('/web', broken)))).toBe(heard);
  });
});

describe('https.Agent with checkServerIdentity', () => {
  const serverOf = (svid: { readonly key: string; readonly cert: string }) => createHttps(svid, (_, res) => res.end('order 1'));
  test('before: a server that a partner vouches for in our name is asked', async () => {
    const agent = agentBefore.agent(us.key, us.cert, ca);
    cleanup.push(() => agent.destroy());
    expect(await asked(await portOf(serverOf(own('/orders'))), agent)).toBe('order 1');
    expect(await asked(await portOf(serverOf(shown(forged('/orders')))), agent)).toBe('order 1');
    await expect(asked(await portOf(serverOf(own('/else'))), agent)).rejects.toThrow(/another server/);
  });
  test('before: a resumed session is not judged', async () => {
    const agent = agentBefore.agent(us.key, us.cert, ca);
    cleanup.push(() => agent.destroy());
    let judged = 0;
    const { checkServerIdentity } = agent.options;
    agent.options.checkServerIdentity = (host, certificate) => {
      judged++;
      return checkServerIdentity?.(host, certificate);
    };
    const port = await portOf(serverOf(own('/orders')));
    for (let i = 0; i < 3; i++) {
      await asked(port, agent);
      agent.destroy();
    }
    expect(judged).toBe(1);
  });
  test('after: neither such a server nor another one is asked', async () => {
    const agent = agentAfter.agent(sourceOf('/web'));
    cleanup.push(() => agent.destroy());
    expect(await asked(await portOf(serverOf(own('/orders'))), agent)).toBe('order 1');
    await expect(asked(await portOf(serverOf(shown(forged('/orders')))), agent)).rejects.toMatchObject({ reason: 'X509_ISSUER_UNKNOWN' });
    await expect(asked(await portOf(serverOf(own('/else'))), agent)).rejects.toMatchObject({ reason: 'ID_NOT_ALLOWED' });
  });
});

const good = ours.jwtSvid('/web', { audience: 'orders' });
/** What is no JWT-SVID for us, though one of our authorities signed it. */
const bad = new Map([
  ['without exp', { claims: { exp: undefined }, reason: 'JWT_EXP_MISSING' }],
  ['of another trust domain', { claims: { sub: 'spiffe://partner.test/web' }, reason: 'JWT_AUTHORITY_UNKNOWN' }],
  ['whose sub is no SPIFFE ID', { claims: { sub: 'admin' }, reason: 'JWT_SUB' }],
  ['of another typ', { header: { typ: 'at+jwt' }, reason: 'JWT_TYP' }],
] as const);
const badToken = (name: string) => ours.jwtSvid('/web', { audience: 'orders', ...bad.get(name as 'without exp') });

describe('jose.jwtVerify with createRemoteJWKSet', () => {
  async function published(jwks: string): Promise<string> {
    return `http://127.0.0.1:${await portOf(createHttp((_, res) => res.setHeader('content-type', 'application/json').end(jwks)))}`;
  }
  const before = async () => joseBefore.callers(await published(ours.bundle.jwt.toJwks()));
  async function after() {
    const endpoint = async (trustDomain: EphemeralTrustDomain) => {
      const fake = await FakeBundleEndpoint.start({ svid: trustDomain.x509Svid('/endpoint'), bundle: trustDomain.bundle });
      cleanup.push(() => fake[Symbol.asyncDispose]());
      const profile = { type: 'https_spiffe', endpointId: trustDomain.id('/endpoint'), bundles } as const;
      return { trustDomain: trustDomain.trustDomain, url: fake.url, profile };
    };
    const callers = joseAfter.callers(await endpoint(ours), await endpoint(partner));
    cleanup.push(() => callers.bundles.close());
    await callers.bundles.ready(AbortSignal.timeout(10_000));
    return callers.callerOf;
  }

  test('the right token names its caller', async () => {
    expect(await (await before())(good)).toBe('spiffe://example.org/web');
    expect(String(await (await after())(good))).toBe('spiffe://example.org/web');
    expect(await resolverAfter.callerOf(good, bundles)).toBe('spiffe://example.org/web');
    const theirs = partner.jwtSvid('/web', { audience: 'orders' });
    expect(String(await (await after())(theirs))).toBe('spiffe://partner.test/web');
    await expect((await before())(theirs)).rejects.toThrow();
  });
  test.each([...bad])('before, a token %s passes; after, it does not', async (name, { reason }) => {
    const token = badToken(name);
    await expect((await before())(token)).resolves.toBeDefined();
    await expect((await after())(token)).rejects.toMatchObject({ reason });
  });
  test('before: a SPIFFE bundle document has no key for it', async () => {
    await expect(joseBefore.callers(await published(ours.bundle.toJson()))(good)).rejects.toMatchObject({
      code: 'ERR_JWKS_NO_MATCHING_KEY',
    });
  });
  test('after, with jose: each of them is refused, and one that is good for ever is not', async () => {
    for (const [name] of bad) await expect(resolverAfter.callerOf(badToken(name), bundles)).rejects.toThrow();
    const long = ours.jwtSvid('/web', { audience: 'orders', ttlMs: 20 * 365 * 86_400_000 });
    await expect(resolverAfter.callerOf(long, bundles)).resolves.toBe('spiffe://example.org/web');
    await expect(validateJwtSvid(long, { audience: 'orders', bundles, maxLifetimeMs: 3_600_000 })).rejects.toMatchObject({
      reason: 'JWT_LIFETIME',
    });
  });
});

test('jsonwebtoken: after, without waiting, by a file', () => {
  const file = join(folder, 'bundle.json');
  writeFileSync(file, ours.bundle.toJson());
  const callerOf = syncAfter.callers(file);
  expect(String(callerOf(good))).toBe('spiffe://example.org/web');
  for (const [name] of bad)
    expect(() => callerOf(badToken(name))).toThrow(expect.objectContaining({ code: expect.stringMatching(/^(?:SVID|BUNDLE)_/) }));
});

describe('fs.watch on PEM files', () => {
  /** As Kubernetes does it: the files are links into a folder behind a link, which is replaced. */
  function put(directory: string, version: string, { key, cert }: { readonly key: string; readonly cert: string }): void {
    const files = { 'svid_key.pem': key, 'svid.pem': cert, 'svid_bundle.pem': ours.bundle.x509.toPem() };
    mkdirSync(join(directory, version), { recursive: true });
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, version, name), text);
    symlinkSync(version, join(directory, '..new'));
    renameSync(join(directory, '..new'), join(directory, '..data'));
    for (const name of Object.keys(files)) if (!readdirSync(directory).includes(name)) symlinkSync(`..data/${name}`, join(directory, name));
  }
  /** The certificate that a server shows. */
  function serial(port: number, client = own('/web')): Promise<string> {
    return new Promise((done, fail) => {
      const socket = connect({ port, host: '127.0.0.1', ...client, rejectUnauthorized: false }, () => {
        done(socket.getPeerCertificate().serialNumber.toLowerCase());
        socket.destroy();
      });
      socket.once('error', fail);
    });
  }
  const serialOf = (cert: string) => new RegExp(`^0*${new X509(cert).serialNumber.toLowerCase()}$`);

  test('before: the second swap goes unseen; certificate and key of two moments end the process', async () => {
    const directory = mkdtempSync(join(folder, 'before-'));
    const [first, second, third] = [own('/files'), own('/files'), own('/files')];
    put(directory, 'v1', first);
    const { reload, server, watcher } = filesBefore.serve(directory);
    cleanup.push(() => watcher.close());
    const port = await portOf(server);
    expect(await serial(port)).toMatch(serialOf(first.cert));
    put(directory, 'v2', second);
    expect(await serial(port)).toMatch(serialOf(first.cert));
    // only that the old file goes is seen
    const gone = once(watcher, 'change', { signal: AbortSignal.timeout(5000) });
    rmSync(join(directory, 'v1'), { recursive: true });
    await gone;
    expect(await serial(port)).toMatch(serialOf(second.cert));
    let events = 0;
    watcher.on('change', () => events++);
    put(directory, 'v3', third);
    rmSync(join(directory, 'v2'), { recursive: true });
    // a change that is seen for certain, and after the swap
    const witness = join(folder, 'witness');
    writeFileSync(witness, '');
    const other = watch(witness);
    cleanup.push(() => other.close());
    const seen = once(other, 'change', { signal: AbortSignal.timeout(5000) });
    writeFileSync(witness, 'seen');
    await seen;
    expect(events).toBe(0);
    expect(await serial(port)).toMatch(serialOf(second.cert));
    writeFileSync(join(directory, 'v3', 'svid_key.pem'), second.key);
    expect(reload).toThrow(/key values mismatch/);
  });

  test('after: the swap is seen, and certificate and key come from one moment', async () => {
    const directory = mkdtempSync(join(folder, 'after-'));
    const [first, second] = [own('/files'), own('/files')];
    put(directory, 'v1', first);
    const { server, source } = await filesAfter.serve(directory, AbortSignal.timeout(10_000));
    cleanup.push(() => source.close());
    const port = await portOf(server);
    expect(await serial(port)).toMatch(serialOf(first.cert));
    const changed = new Promise<void>((done) => {
      source.onChange(done);
    });
    put(directory, 'v2', second);
    await changed;
    expect(await serial(port)).toMatch(serialOf(second.cert));
    // half of a new set: what there was stays
    writeFileSync(join(directory, 'v2', 'svid_key.pem'), first.key);
    expect(await serial(port)).toMatch(serialOf(second.cert));
  });
});

describe('createSsl of grpc-js', () => {
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
  function served(): Server {
    const server = new Server();
    server.addService({ who: method }, {
      who: (call: never, done: (error: null, value: Buffer) => void) => done(null, Buffer.from(String(grpcPeer(call)?.id ?? 'somebody'))),
    } as never);
    cleanup.push(() => server.forceShutdown());
    return server;
  }
  async function who(port: number, credentials: ChannelCredentials): Promise<string> {
    const client = new Client(`127.0.0.1:${port}`, credentials);
    try {
      return await new Promise((done, fail) => {
        client.makeUnaryRequest(method.path, asIs, asIs, Buffer.alloc(0), { deadline: Date.now() + 10_000 }, (error, value) =>
          error ? fail(error) : done(String(value)),
        );
      });
    } finally {
      client.close();
    }
  }
  const anchors = Buffer.from(ca.join(''));
  const before = ({ key, cert }: { readonly key: string; readonly cert: string }) =>
    [Buffer.from(key), Buffer.from(cert), anchors] as const;
  async function bound(svid: { readonly key: string; readonly cert: string }): Promise<number> {
    const server = served();
    return new Promise((done, fail) => {
      server.bindAsync('127.0.0.1:0', grpcBefore.serverCredentials(...before(svid)), (error, port) => (error ? fail(error) : done(port)));
    });
  }

  test('before: who a partner vouches for in our name calls, and is called; nobody knows who calls', async () => {
    const port = await bound(own('/orders'));
    expect(await who(port, grpcBefore.clientCredentials(...before(own('/web'))))).toBe('somebody');
    expect(await who(port, grpcBefore.clientCredentials(...before(shown(forged('/web')))))).toBe('somebody');
    expect(await who(await bound(shown(forged('/orders'))), grpcBefore.clientCredentials(...before(own('/web'))))).toBe('somebody');
  });
  test('after: neither, and the handler knows', async () => {
    const port = await portOf(grpcAfter.listener(served(), sourceOf('/orders')));
    expect(await who(port, grpcAfter.clientCredentials(sourceOf('/web')))).toBe('spiffe://example.org/web');
    await expect(who(port, grpcBefore.clientCredentials(...before(shown(forged('/web')))))).rejects.toMatchObject({ code: 14 });
    await expect(who(await bound(shown(forged('/orders'))), grpcAfter.clientCredentials(sourceOf('/web')))).rejects.toMatchObject({
      code: 14,
    });
  });
});

test('go-spiffe: the example dials', async () => {
  const api = await FakeWorkloadApi.start(ours, { identities: ['/web'] });
  cleanup.push(() => api[Symbol.asyncDispose]());
  const address = process.env['SPIFFE_ENDPOINT_SOCKET'];
  process.env['SPIFFE_ENDPOINT_SOCKET'] = api.address;
  try {
    const { dial, source } = await import('./coming-from/go-spiffe/dial.ts');
    cleanup.push(() => source.close());
    const server = (path: string) => createSpiffeServer({ source: sourceOf(path), authorize: matchAny() }, (socket) => socket.end('hello'));
    const socket = await dial('127.0.0.1', await portOf(server('/db')));
    const [hello] = (await once(socket.setEncoding('utf8'), 'data')) as [string];
    expect(hello).toBe('hello');
    await expect(dial('127.0.0.1', await portOf(server('/else')))).rejects.toMatchObject({ reason: 'ID_NOT_ALLOWED' });
  } finally {
    if (address === undefined) delete process.env['SPIFFE_ENDPOINT_SOCKET'];
    else process.env['SPIFFE_ENDPOINT_SOCKET'] = address;
  }
});

const { exports } = JSON.parse(readFileSync(join(ROOT, 'spiffe/package.json'), 'utf8')) as {
  exports: Readonly<Record<string, { default: string } | string>>;
};

/** As a user would write it: the package, not our files. */
function published(source: string): string {
  return source
    .replaceAll(/'(?:\.\.\/)+(spiffe\/[\w/-]+)\.ts'/g, (whole, file: string) => {
      const [subpath] = Object.entries(exports).find(([, one]) => typeof one === 'object' && one.default === `./dist/${file}.js`) ?? [];
      return subpath === undefined ? whole : `'${subpath.replace(/^\./, '@warifu/spiffe')}'`;
    })
    .trim();
}

describe.each([
  ['docs/coming-from-node.md', 'node'],
  ['docs/coming-from-go-spiffe.md', 'go-spiffe'],
])('%s', (page, name) => {
  const blocks = [...readFileSync(join(ROOT, page), 'utf8').matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(([, block = '']) => block.trim());
  const examples = join(import.meta.dirname, 'coming-from', name);
  const files = readdirSync(examples);
  for (const file of files) test(`has ${file}`, () => expect(blocks).toContain(published(readFileSync(join(examples, file), 'utf8'))));
  test('has no other code', () => expect(blocks).toHaveLength(files.length));
});
