// Every part of the package with the testing kit, on whichever Node runs this. Prints what each part saw, one JSON object.
import { once } from 'node:events';
import { request } from 'node:https';
import { loadPackageDefinition, Metadata, Server } from '@grpc/grpc-js';
import { BundleSource, JwtSource, matchId, WorkloadApiClient, X509Source } from '@warifu/spiffe';
import { grpcChannelCredentials, grpcListener, grpcPeer } from '@warifu/spiffe/grpc';
import { connectHttp2, createHttp2Server } from '@warifu/spiffe/http2';
import { createHttpsServer, SpiffeHttpsAgent } from '@warifu/spiffe/https';
import { EphemeralTrustDomain, FakeWorkloadApi } from '@warifu/spiffe/testing';
import { tlsPeer } from '@warifu/spiffe/tls';
import { SpiffeDispatcher } from '@warifu/spiffe/undici';
import { setGlobalDispatcher, fetch as undiciFetch } from 'undici';
import { validateJwtSvid } from '@warifu/spiffe/jwt';

process.on('unhandledRejection', (error) => {
  console.error('unhandled', error);
  process.exit(3);
});

const td = EphemeralTrustDomain.create('example.org');
const api = await FakeWorkloadApi.start(td, { identities: ['/web'] });
const options = { address: api.address };
const saw = { node: process.versions.node };

const client = new WorkloadApiClient(options);
saw.svids = (await client.fetchX509Context()).svids.map(({ id }) => String(id));
client.close();

const source = await X509Source.open(options);
const good = { source, authorize: matchId('spiffe://example.org/web') };
const bad = { source, authorize: matchId('spiffe://example.org/somebody') };
const told = async (run) => {
  try {
    return await run();
  } catch (error) {
    return `refused: ${error.code ?? error.cause?.code}`;
  }
};
const answer = (req, res) => res.end(`you are ${tlsPeer(req)?.id}`);
const listen = async (server) => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server.address().port;
};

const https = createHttpsServer(good, answer);
const httpsPort = await listen(https);
const get = (how) =>
  new Promise((done, failed) => {
    const agent = new SpiffeHttpsAgent(how);
    request({ host: '127.0.0.1', port: httpsPort, agent }, async (res) => {
      let text = '';
      for await (const chunk of res) text += chunk;
      agent.destroy();
      done(text);
    })
      .on('error', failed)
      .end();
  });
saw.https = [await told(() => get(good)), await told(() => get(bad))];

// the fetch of this Node, and undici's own
const nodeFetch = async (how) => {
  const dispatcher = new SpiffeDispatcher(how);
  setGlobalDispatcher(dispatcher);
  try {
    return await (await fetch(`https://127.0.0.1:${httpsPort}/`)).text();
  } finally {
    await dispatcher.close();
  }
};
const ownFetch = async (how) => {
  const dispatcher = new SpiffeDispatcher(how);
  try {
    return await (await undiciFetch(`https://127.0.0.1:${httpsPort}/`, { dispatcher })).text();
  } finally {
    await dispatcher.close();
  }
};
saw.fetch = [await told(() => nodeFetch(good)), await told(() => nodeFetch(bad))];
saw.undici = [await told(() => ownFetch(good)), await told(() => ownFetch(bad))];

const http2 = createHttp2Server(good, answer);
const http2Port = await listen(http2);
const ask2 = async (how) => {
  const session = await connectHttp2(`https://127.0.0.1:${http2Port}`, how);
  const stream = session.request({ ':path': '/' });
  let text = '';
  for await (const chunk of stream.setEncoding('utf8')) text += chunk;
  session.close();
  return text;
};
saw.http2 = [await told(() => ask2(good)), await told(() => ask2(bad))];

const bytes = { requestSerialize: (x) => x, requestDeserialize: (x) => x, responseSerialize: (x) => x, responseDeserialize: (x) => x };
const definition = { Ask: { path: '/t.T/Ask', requestStream: false, responseStream: false, ...bytes } };
const server = new Server();
server.addService(definition, { Ask: (call, done) => done(null, Buffer.from(`you are ${grpcPeer(call)?.id}`)) });
const grpc = grpcListener(server, good);
const grpcPort = await listen(grpc);
const { T } = loadPackageDefinition({ T: definition });
const call = (how) =>
  new Promise((done, failed) => {
    const stub = new T(`127.0.0.1:${grpcPort}`, grpcChannelCredentials(how));
    stub.Ask(Buffer.alloc(0), new Metadata(), { deadline: Date.now() + 3_000 }, (error, reply) => {
      stub.close();
      if (error) failed(Object.assign(new Error(error.message), { code: 'UNAVAILABLE' }));
      else done(String(reply));
    });
  });
saw.grpc = [await told(() => call(good)), await told(() => call(bad))];

const jwt = new JwtSource(options);
await jwt.ready();
const { token } = await jwt.fetch({ audience: 'db' });
const bundles = new BundleSource(options);
await bundles.ready();
saw.jwt = [
  await told(async () => String((await validateJwtSvid(token, { audience: 'db', bundles: jwt })).id)),
  await told(async () => String((await validateJwtSvid(token, { audience: 'other', bundles: jwt })).id)),
];
saw.bundles = bundles.bundles.size;

api.set({ identities: ['/next'] });
for await (const { svid } of source) if (svid?.id?.path === '/next' || source.svid.id.path === '/next') break;
saw.rotated = String(source.svid.id);

for (const one of [source, jwt, bundles]) await one.close();
server.forceShutdown();
grpc.close();
http2.close();
https.close();
https.closeAllConnections();
await api.stop();
console.log(JSON.stringify(saw));
