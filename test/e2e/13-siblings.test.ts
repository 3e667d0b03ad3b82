/** Story 13: another CA below the same enterprise root issues certificates in our name. It is not us: no server, no agent, no admin, no downstream server. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildCaCsr } from '../../core/x509/issue.ts';
import { localSigningKey } from '../../core/local-key.ts';
import { generateEcKey } from '../../core/x509/key.ts';
import { EntryDefinition } from '../../proto/gen/spire/api/server/entry/v1/entry.ts';
import { SVIDDefinition } from '../../proto/gen/spire/api/server/svid/v1/svid.ts';
import { Bundle } from '../../spiffe/bundle/bundle.ts';
import { certificatesFromPem } from '../../spiffe/x509/certificate.ts';
import { openChannel, svidCredentials } from '../../spiffe/rpc/channel.ts';
import { type Channel, rpcStatusOf } from '../../spiffe/rpc/calls.ts';
import { TrustDomain } from '../../spiffe/id.ts';
import { X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { Daemon } from './daemon.ts';
import { type Agent, createHouse, type House, WARIFU } from './house.ts';

let house: House;
let agent: Agent;
let sibling: { readonly certificate: string; readonly key: string };
const trustDomain = TrustDomain.parse('example.org');
const ADMIN = 'spiffe://example.org/operator';
const DOWNSTREAM = 'spiffe://example.org/downstream';
const channels: Channel[] = [];

beforeAll(async () => {
  house = await createHouse({ signDirectly: true });
  sibling = house.pki.issueIntermediate('sibling');
  await house.startServer();
  agent = await house.createAgent('machine', { attestor: 'x509pop' });
  await agent.start();
  await house.createEntry({ id: '/web', parent: agent });
  await house.createEntry({ id: ADMIN, parent: agent, selectors: ['unix:uid:4242'], more: ['-admin'] });
  await house.createEntry({ id: DOWNSTREAM, parent: agent, selectors: ['unix:uid:4242'], more: ['-downstream'] });
});
afterAll(async () => {
  for (const channel of channels) channel.close();
  await house?.close();
});

const bundle = () => new Bundle(trustDomain, { x509Authorities: certificatesFromPem(readFileSync(house.pki.root)) });

/** A client that shows this leaf, with its issuer behind it. */
function showing(leaf: { readonly certificate: string; readonly key: string }, issuer: string): Channel {
  const svid = X509Svid.fromPem(`${readFileSync(leaf.certificate, 'utf8')}${readFileSync(issuer, 'utf8')}`, readFileSync(leaf.key, 'utf8'));
  const credentials = svidCredentials({ tls: () => ({ svid, bundles: bundle(), authorize: () => {} }) });
  const channel = openChannel({ target: `127.0.0.1:${house.port}`, credentials });
  channels.push(channel);
  return channel;
}

const options = () => ({ signal: AbortSignal.timeout(20_000), deadlineMs: 5_000 });
const outcome = (call: Promise<unknown>) =>
  call.then(
    () => 'OK',
    (error: unknown) => rpcStatusOf(error)?.text ?? String(error),
  );
const count = (channel: Channel) => outcome(channel.service(EntryDefinition).countEntries({ filter: undefined }, options()));
const authorized = (channel: Channel) =>
  outcome(channel.service(EntryDefinition).getAuthorizedEntries({ outputMask: undefined }, options()));

async function downstreamCa(channel: Channel): Promise<string> {
  const csr = await buildCaCsr({ key: localSigningKey('x509-CA-A', 'ec-p256', generateEcKey()), trustDomain, subject: {} });
  return outcome(channel.service(SVIDDefinition).newDownstreamX509CA({ csr, preferredTtl: 0 }, options()));
}

describe('who calls the server', () => {
  const forged = (name: string, id: string, serial?: string) =>
    showing(house.pki.issueLeaf(`forged-${name}`, { issuer: sibling, id, ...(serial && { serial }) }), sibling.certificate);
  const genuine = (name: string, id: string) => {
    const issuer = { certificate: house.pki.intermediate, key: house.pki.intermediateKey };
    return showing(house.pki.issueLeaf(name, { issuer, id }), issuer.certificate);
  };

  test('an admin of the sibling is nobody; one that our own CA issued is one', async () => {
    expect(await count(forged('admin', ADMIN))).not.toBe('OK');
    expect(await count(genuine('admin', ADMIN))).toBe('OK');
  });

  test('a downstream server of the sibling gets no CA; ours is let in as far as the path lengths allow', async () => {
    expect(await downstreamCa(forged('downstream', DOWNSTREAM))).not.toMatch(/OK|path length/);
    expect(await downstreamCa(genuine('downstream', DOWNSTREAM))).toMatch(/path length/);
  });

  test('an agent of the sibling with the same ID and the same serial number is not that agent', async () => {
    const listed = JSON.parse(await house.ok('server', 'agent', 'list', '-output', 'json')) as {
      agents: { x509svid_serial_number: string }[];
    };
    const serial = BigInt(listed.agents[0]?.x509svid_serial_number ?? '0').toString(16);
    expect(await authorized(forged('agent', agent.id, serial))).not.toBe('OK');
    // nor is a certificate that our own CA issued to somebody else in its name
    expect(await authorized(genuine('agent', agent.id))).toContain('authorization denied');
    // the agent itself is served all the while
    const id = await house.createEntry({ id: '/late', parent: agent });
    await expect
      .poll(async () => (await house.run('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath)).stdout)
      .toContain('/late');
    await house.deleteEntry(id);
  });
});

test('a server of the sibling, at the same address and with the same name, is not spoken to; ours is, when it is back', async () => {
  await agent.process.line(/Issuing authorities of the server pinned/);
  await house.server.stop();
  const conf = join(house.dir, 'sibling.conf');
  writeFileSync(
    conf,
    readFileSync(house.serverConf, 'utf8')
      .replaceAll(house.pki.intermediateKey, sibling.key)
      .replaceAll(house.pki.intermediate, sibling.certificate)
      .replaceAll(join(house.dir, 'server'), join(house.dir, 'sibling'))
      .replaceAll(join(house.dir, 'admin'), join(house.dir, 'sibling-admin')),
  );
  // two that have never talked to a server: the one was given the root, the other the intermediate
  const fresh = await house.createAgent('fresh', { attestor: 'x509pop' });
  const careful = await house.createAgent('careful', { attestor: 'x509pop' });
  writeFileSync(careful.conf, readFileSync(careful.conf, 'utf8').replace(house.pki.root, house.pki.intermediate));
  const from = agent.process.lines.length;
  const forged = new Daemon('sibling', [...WARIFU, 'server', 'run', '-config', conf], { cwd: house.dir });
  try {
    await forged.accepts(join(house.dir, 'sibling-admin', 'api.sock'));
    await agent.process.line(/was issued by none of the authorities that the server told of before/, { from });
    // which is what the page on siblings warns of
    await fresh.start();
    careful.launch();
    await careful.process.line(/Failed to verify the server/);
    expect((await house.run('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath)).stdout).toContain('/web');
    // started again it still knows
    await agent.process.stop();
    agent.launch();
    await agent.process.line(/was issued by none of the authorities that the server told of before/);
  } finally {
    await forged.stop();
  }
  await house.startServer();
  await careful.process.line(/Node attestation was successful/, { withinMs: 20_000 });
  const id = await house.createEntry({ id: '/again', parent: agent });
  await expect
    .poll(async () => (await house.run('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath)).stdout, { timeout: 20_000 })
    .toContain('/again');
  await house.deleteEntry(id);
});
