/** Story 15: a workload gets no identity, and its operator asks why. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { join } from 'node:path';
import { type Agent, createHouse, type House, OUR_UID } from './house.ts';

let house: House;
let agent: Agent;
let admin: string;

beforeAll(async () => {
  house = await createHouse();
  await house.startServer();
  admin = join(house.dir, 'agent-admin', 'api.sock');
  agent = await house.createAgent('agent', { settings: [`admin_socket_path = "${admin}"`] });
  await agent.start();
  await house.createEntry({ id: '/far', parent: agent, selectors: ['unix:user:nobody-of-this-name', 'unix:gid:4242'] });
  await house.createEntry({ id: '/near', parent: agent, selectors: [OUR_UID, 'unix:gid:4242'] });
});
afterAll(() => house?.close());

const explain = (...more: string[]) => house.run('agent', 'explain', '-socketPath', admin, '-pid', String(process.pid), ...more);

test('the wire has three words; the log has what was seen and what is missing, once for a caller that asks again and again', async () => {
  for (let tries = 0; tries < 5; tries++) {
    const { code, stdout, stderr } = await house.run('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath);
    expect([code, stdout + stderr]).toEqual([1, expect.stringContaining('PermissionDenied desc = no identity issued')]);
  }
  const said = await agent.process.line(/No identity issued: no entry has only selectors that the caller has/);
  expect(said).toContain(OUR_UID);
  expect(said).toContain('spiffe://example.org/near lacks unix:gid:4242');
  expect(agent.process.tail(1_000).match(/No identity issued: /g)).toHaveLength(1);
});

test('explain names the nearest entry and the selector that it lacks; when it is there, the identity', async () => {
  const none = await explain();
  expect(none.code).toBe(2);
  expect(none.stdout).toContain('No identity');
  expect(none.stdout).toMatch(/Nearest:\n +SPIFFE ID +: spiffe:\/\/example\.org\/near\n.*\n +lacks +: unix:gid:4242\n +SPIFFE ID/);

  const id = await house.createEntry({ id: '/web', parent: agent });
  await expect.poll(async () => (await explain()).code).toBe(0);
  const json = JSON.parse((await explain('-output', 'json')).stdout) as { identities: { spiffe_id: string; x509_svid: string }[] };
  expect(json.identities).toMatchObject([{ spiffe_id: 'spiffe://example.org/web' }]);
  await house.deleteEntry(id);
});

test('of a process that is not there it says so', async () => {
  const { code, stderr } = await house.run('agent', 'explain', '-socketPath', admin, '-pid', String(2 ** 22 + 1));
  expect(code).toBe(1);
  expect(stderr).toContain('there is no process');
});
