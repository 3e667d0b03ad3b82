/** Story 3: programs die and come back; identities stay, secrets are spent once, a second instance is refused. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Agent, createRunningHouse, type House } from './house.ts';

let house: House;
let agent: Agent;

beforeAll(async () => {
  ({ house, agent } = await createRunningHouse());
  await house.createEntry({ id: '/web', parent: agent });
});
afterAll(() => house.close());

const authority = async () =>
  (JSON.parse(await house.ok('server', 'bundle', 'show', '-format', 'spiffe')) as { keys: { kid?: string }[] }).keys.map((key) => key.kid);
const fetched = () => house.run('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath);

test('a second server on the same state refuses to start and names the first by pid', async () => {
  const second = await house.run('server', 'run', '-config', house.serverConf);
  expect(second.code).toBe(1);
  expect(second.stderr + second.stdout).toContain(String(house.server.pid));
});

test('a second agent on the same data_dir refuses to start and names the first by pid', async () => {
  const second = await house.run('agent', 'run', '-config', agent.conf);
  expect(second.code).toBe(1);
  expect(second.stderr + second.stdout).toContain(String(agent.process.pid));
  expect((await fetched()).code).toBe(0);
});

test('a server killed and started again has the same authorities and the same entries', async () => {
  const before = await authority();
  await house.server.kill();
  await house.startServer();
  expect(await authority()).toEqual(before);
  expect(await house.ok('server', 'entry', 'show')).toContain('spiffe://example.org/web');
});

test('an agent killed and started again needs no new token', async () => {
  await agent.process.kill();
  await agent.start();
  expect((await fetched()).stdout).toContain('spiffe://example.org/web');
});

test('a join token that another node spent is worth nothing', async () => {
  const thief = await house.createAgent('thief');
  // the first agent's settings name the token that it spent
  const { readFileSync, writeFileSync } = await import('node:fs');
  const spent = /join_token = "([^"]+)"/.exec(readFileSync(agent.conf, 'utf8'))?.[1] ?? '';
  writeFileSync(thief.conf, readFileSync(thief.conf, 'utf8').replace(/join_token = "[^"]+"/, `join_token = "${spent}"`));
  const daemon = thief.launch();
  await daemon.line(/join token does not exist or has already been used/);
  await daemon.stop();
  expect((await house.ok('server', 'agent', 'count')).trim()).toMatch(/^1 /);
});

test('both end with code 0 on SIGTERM', async () => {
  expect((await agent.process.stop()).code).toBe(0);
  expect((await house.server.stop()).code).toBe(0);
});
