/** Story 4: a node is no longer trusted. Banned, it stops within two seconds and stays out; evicted, it comes back only if it can prove itself again. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Agent, createHouse, type House } from './house.ts';

let house: House;
let joined: Agent;
let machine: Agent;

beforeAll(async () => {
  house = await createHouse();
  await house.startServer();
  joined = await house.createAgent('joined');
  machine = await house.createAgent('machine', { attestor: 'x509pop' });
  await Promise.all([joined.start(), machine.start()]);
  for (const agent of [joined, machine]) await house.createEntry({ id: `/at-${agent.name}`, parent: agent });
});
afterAll(() => house.close());

const fetched = (agent: Agent) => house.run('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath);

test('before: both serve', async () => {
  expect((await fetched(joined)).stdout).toContain('/at-joined');
  expect((await fetched(machine)).stdout).toContain('/at-machine');
});

test('an evicted agent that can prove itself again does so, and goes on serving', async () => {
  const from = machine.process.lines.length;
  expect(await house.ok('server', 'agent', 'evict', '-spiffeID', machine.id)).toContain('Agent evicted successfully');
  await machine.process.line(/Node attestation was successful/, { from });
  expect(machine.process.end).toBeUndefined();
  expect((await fetched(machine)).stdout).toContain('/at-machine');
});

test('an evicted agent that cannot prove itself again stops and says why', async () => {
  const at = performance.now();
  await house.ok('server', 'agent', 'evict', '-spiffeID', joined.id);
  const { code } = await joined.process.exited;
  expect(performance.now() - at).toBeLessThan(5_000);
  expect(code).toBe(1);
});

test('a banned agent drops its SVID and stops; started again it stays out', async () => {
  await house.ok('server', 'agent', 'ban', '-spiffeID', machine.id);
  await machine.process.line(/Agent is banned: removing SVID and shutting down/);
  expect((await machine.process.exited).code).toBe(1);
  expect(
    existsSync(join(machine.dataDir, 'agent-data.json')) && (await house.ok('server', 'agent', 'show', '-spiffeID', machine.id)),
  ).not.toContain('Serial number');
  const again = machine.launch();
  expect((await again.exited).code).toBe(1);
});
