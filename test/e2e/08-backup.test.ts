/** Story 8: a backup is made while the server runs, and put back: tokens of then are void, and agents that stayed connected end up with what it says. */
import { copyFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Agent, createRunningHouse, type House } from './house.ts';

let house: House;
let agent: Agent;
let copy: string;
const datastore = () => join(house.dir, 'server', 'datastore.sqlite3');
const sequence = async () =>
  (JSON.parse(await house.ok('server', 'bundle', 'show', '-format', 'spiffe')) as { spiffe_sequence: number }).spiffe_sequence;
const fetched = async () => (await house.run('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath)).stdout;

beforeAll(async () => {
  ({ house, agent } = await createRunningHouse());
  copy = join(house.dir, 'copy.sqlite3');
});
afterAll(() => house?.close());

let token: string;
let sequenceBefore: number;
let kept: string;

test('the copy is made while entries are written, for its owner alone, and never over another file', async () => {
  kept = await house.createEntry({ id: '/kept', parent: agent });
  token = (JSON.parse(await house.ok('server', 'token', 'generate', '-output', 'json')) as { value: string }).value;
  const writing = house.createEntry({ id: '/meanwhile', parent: 'spiffe://example.org/nobody' });
  expect(await house.ok('server', 'backup', '-out', copy)).toMatch(/^Backup of \d+ bytes written to /);
  await writing;
  expect(statSync(copy).mode & 0o777).toBe(0o600);
  const again = await house.run('server', 'backup', '-out', copy);
  expect(again.code).toBe(1);
  expect(again.stderr).toContain(`open ${copy}: file exists`);
});

test('put back, it counts: what came later is gone, what went later is there again, also for an agent that stayed', async () => {
  await house.createEntry({ id: '/later', parent: agent });
  await house.deleteEntry(kept);
  await expect.poll(fetched, { interval: 50, timeout: 10_000 }).toContain('/later');
  expect(await fetched()).not.toContain('/kept');

  sequenceBefore = await sequence();
  await house.server.stop();
  for (const side of ['-wal', '-shm']) rmSync(datastore() + side, { force: true });
  copyFileSync(copy, datastore());
  await house.startServer('-restored');
  await house.server.line(/Started from a restored datastore.*count=1/);

  await expect.poll(fetched, { interval: 50, timeout: 20_000 }).toContain('/kept');
  expect(await fetched()).not.toContain('/later');
  expect(agent.process.end).toBeUndefined();
});

test('TDB-8, TDB-9: the sequence of our bundle is beyond any that it had before, and stays there', async () => {
  const now = await sequence();
  expect(now).toBeGreaterThan(sequenceBefore);
  await house.server.stop();
  await house.startServer();
  expect(await sequence()).toBeGreaterThanOrEqual(now);
});

test('a token that was unspent in the backup is void; a new one is good', async () => {
  const thief = await house.createAgent('thief');
  const daemon = thief.launch('-joinToken', token);
  await daemon.line(/join token does not exist or has already been used/);
  await daemon.stop().catch(() => daemon.kill());
  const honest = await house.createAgent('honest');
  await honest.start();
  expect((await house.ok('server', 'agent', 'count')).trim()).toMatch(/^2 /);
});
