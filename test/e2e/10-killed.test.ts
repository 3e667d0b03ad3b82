/** Story 10: killed in the middle. Whatever was answered is there after a restart; whatever was not is wholly there or not at all; and work goes on. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { diedThere, doomedAgent, doomedScript, doomedServer, type Place } from '../crash/doomed.ts';
import { type Agent, createHouse, type House, OUR_UID, ROOT, runToEnd } from './house.ts';

let house: House;
afterEach(() => house?.close());

const entries = async () => {
  const { entries: all } = JSON.parse(await house.ok('server', 'entry', 'show', '-output', 'json')) as {
    entries: { spiffe_id: { path: string } }[];
  };
  return all.map(({ spiffe_id: { path } }) => path).sort();
};
const create = (path: string) =>
  house.run(
    'server',
    'entry',
    'create',
    '-parentID',
    'spiffe://example.org/p',
    '-spiffeID',
    `spiffe://example.org${path}`,
    '-selector',
    OUR_UID,
  );
const fetched = async (agent: Agent) => (await house.run('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath)).stdout;

/** The server signs, and what it signs verifies with the bundle that it publishes; openssl says so. */
async function signs(): Promise<void> {
  const folder = join(house.dir, 'minted');
  mkdirSync(folder, { recursive: true });
  await house.ok('server', 'x509', 'mint', '-spiffeID', 'spiffe://example.org/minted', '-write', folder);
  const verified = await runToEnd([
    'openssl',
    'verify',
    '-CAfile',
    join(folder, 'bundle.pem'),
    '-untrusted',
    join(folder, 'svid.pem'),
    join(folder, 'svid.pem'),
  ]);
  expect(verified.stdout + verified.stderr).toContain('OK');
  const token = (await house.ok('server', 'jwt', 'mint', '-spiffeID', 'spiffe://example.org/minted', '-audience', 'a')).trim();
  const { kid } = JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString()) as { kid: string };
  expect(await house.ok('server', 'bundle', 'show', '-format', 'spiffe')).toContain(kid);
}

/** Nothing that a write left behind lies about. */
function noLeftovers(): void {
  const left = readdirSync(join(house.dir, 'server')).filter((name) => /\.tmp$|\.backup$/.test(name));
  expect(left).toEqual([]);
}

describe('the server, while an entry is created', () => {
  const INSERT = 'INSERT INTO entries';
  test.each<[where: string, place: Place, kept: boolean]>([
    ['after the row, before the commit', { on: 'sql', arm: INSERT, match: '^COMMIT', at: 'before' }, false],
    ['after the commit, before the answer', { on: 'sql', arm: INSERT, match: '^COMMIT', at: 'after' }, true],
  ])('%s', async (_, place, kept) => {
    house = await createHouse();
    await house.startServer();
    expect((await create('/before')).code).toBe(0);
    await house.server.stop();

    const doomed = doomedServer(house, place);
    await doomed.accepts(house.socketPath);
    const { code } = await create('/during');
    expect(code).not.toBe(0);
    await diedThere(doomed);

    await house.startServer();
    expect(await entries()).toEqual(kept ? ['/before', '/during'] : ['/before']);
    // who asks again gets one entry, not two
    await create('/during');
    expect(await entries()).toEqual(['/before', '/during']);
    await signs();
  });
});

describe('while an agent attests', () => {
  test('token spent, before the agent’s row: the token is good for another try', async () => {
    house = await createHouse();
    await house.startServer();
    const agent = await house.createAgent();
    await house.server.stop();
    const doomed = doomedServer(house, { on: 'sql', match: 'UPDATE join_tokens SET spent_by', at: 'after' });
    await doomed.accepts(house.socketPath);
    agent.launch();
    await diedThere(doomed);
    await house.startServer();
    await agent.process.line(/Node attestation was successful/, { withinMs: 30_000 });
    await house.createEntry({ id: '/web', parent: agent });
    await expect.poll(() => fetched(agent), { timeout: 10_000 }).toContain('/web');
    const { agents } = JSON.parse(await house.ok('server', 'agent', 'list', '-output', 'json')) as { agents: object[] };
    expect(agents).toHaveLength(1);
  });

  test('answer received, before the agent’s SVID is on disk: the same key spends the same token once more; another key does not', async () => {
    house = await createHouse();
    await house.startServer();
    const agent = await house.createAgent();
    await diedThere(doomedAgent(house, agent, { on: 'rename', match: 'agent-data\\.json$', at: 'before' }));
    expect(readdirSync(agent.dataDir)).not.toContain('agent-data.json');
    await agent.start();
    await house.createEntry({ id: '/web', parent: agent });
    await expect.poll(() => fetched(agent), { timeout: 10_000 }).toContain('/web');
    expect(readdirSync(agent.dataDir).filter((name) => name.endsWith('.tmp'))).toEqual([]);

    const thief = await house.createAgent('thief');
    const token = agent.id.split('/').at(-1) ?? '';
    writeFileSync(thief.conf, readFileSync(thief.conf, 'utf8').replace(/join_token = "[^"]*"/, `join_token = "${token}"`));
    await thief.launch().line(/failed to attest/i);
    await thief.process.kill();
  });
});

describe('the server, while it makes its authorities', () => {
  test.each<[where: string, place: Place]>([
    ['key made, before the journal', { on: 'rename', match: 'keys\\.json$', at: 'after' }],
    ['during the rename of keys: written, not renamed', { on: 'rename', match: 'keys\\.json$', at: 'before' }],
    ['during the rename of keys, the second key', { on: 'rename', match: 'keys\\.json$', at: 'before', nth: 2 }],
    ['journal written, before activation', { on: 'sql', arm: 'INTO journal', match: '^COMMIT', at: 'after' }],
    ['bundle written, before the journal', { on: 'sql', arm: 'INTO bundles', match: '^COMMIT', at: 'after' }],
  ])('at its first start: %s', async (_, place) => {
    house = await createHouse();
    await diedThere(doomedServer(house, place));
    await house.startServer();
    await signs();
    noLeftovers();
    // and once more, from what this start made of it
    await house.server.stop();
    await house.startServer();
    await signs();
  });

  test.each<[where: string, place: Place]>([
    ['key made, before the journal', { on: 'rename', match: 'keys\\.json$', at: 'after' }],
    ['bundle written, before the push', { on: 'sql', arm: 'INTO bundles', match: '^COMMIT', at: 'after' }],
    ['journal written, before activation', { on: 'sql', arm: 'INTO journal', match: '^COMMIT', at: 'after' }],
  ])('at a rotation: %s', async (_, place) => {
    house = await createHouse({ caTtl: '20s', x509SvidTtl: '10s' });
    await house.startServer();
    const agent = await house.createAgent('agent', { attestor: 'x509pop' });
    await agent.start();
    await house.createEntry({ id: '/web', parent: agent });
    await expect.poll(() => fetched(agent)).toContain('/web');
    await house.server.stop();
    // what it loads is there: the first of these writes is the rotation's
    await diedThere(doomedServer(house, place));
    await house.startServer();
    await signs();
    // what the agent has verifies: its own command does that before it prints
    const id = await house.createEntry({ id: '/late', parent: agent });
    await expect.poll(() => fetched(agent), { timeout: 20_000 }).toContain('/late');
    await house.deleteEntry(id);
    const { code, stderr } = await house.run('agent', 'api', 'fetch', 'jwt', '-audience', 'a', '-socketPath', agent.socketPath);
    expect(code, stderr).toBe(0);
    noLeftovers();
  });

  test('during a batch of 500 SVIDs: the agent asks the next server, and serves all of them', async () => {
    house = await createHouse();
    await house.startServer();
    const agent = await house.createAgent();
    await agent.start();
    await house.server.stop();
    const doomed = doomedServer(house, { on: 'sign', nth: 250, at: 'after' });
    await doomed.accepts(house.socketPath);
    const file = join(house.dir, 'entries.json');
    const many = Array.from({ length: 500 }, (_, n) => ({
      parent_id: agent.id,
      spiffe_id: `spiffe://example.org/many/${n}`,
      selectors: [{ type: 'unix', value: OUR_UID.slice('unix:'.length) }],
    }));
    writeFileSync(file, JSON.stringify({ entries: many }));
    expect((await house.run('server', 'entry', 'create', '-data', file)).code).toBe(0);
    await diedThere(doomed);
    await house.startServer();
    expect(await entries()).toHaveLength(500);
    await expect.poll(async () => (await fetched(agent)).match(/SPIFFE ID:/g)?.length ?? 0, { timeout: 30_000, interval: 500 }).toBe(500);
  });
});

describe('the datastore, while its schema is made', () => {
  test.each<[where: string, place: Place]>([
    ['in a step, before it is committed', { on: 'exec', match: 'CREATE TABLE first', at: 'after' }],
    ['between two steps', { on: 'exec', match: 'CREATE TABLE second', at: 'before' }],
    ['in the second step', { on: 'exec', match: 'CREATE TABLE second', at: 'after' }],
  ])('%s', async (_, place) => {
    const folder = mkdtempSync(join(tmpdir(), 'warifu-migrate-'));
    try {
      const path = join(folder, 'db');
      await diedThere(doomedScript('migrate.ts', [path], place));
      const { stdout, stderr } = await runToEnd([process.execPath, join(ROOT, 'test', 'crash', 'migrate.ts'), path]);
      expect(stdout.trim(), stderr).toBe('first,schema_version,second {"version":2,"rows":2}');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('wherever it is written', () => {
  test('killed before and after each write of a first start, an entry and an attestation, the next start goes on', async () => {
    house = await createHouse();
    const agent = await house.createAgent('agent', { attestor: 'x509pop' });
    const nothingYet = () => {
      for (const folder of [join(house.dir, 'server'), agent.dataDir])
        for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
    };
    let places = 0;
    for (let nth = 1; ; nth++) {
      let died = false;
      for (const at of ['before', 'after'] as const) {
        nothingYet();
        const doomed = doomedServer(house, { on: 'write', nth, at });
        const ready = await doomed.accepts(house.socketPath).then(
          () => true,
          () => false,
        );
        const answered = ready && (await create('/sweep')).code === 0;
        const daemon = agent.launch();
        if (ready) await Promise.race([doomed.exited, daemon.line(/Node attestation was successful/).catch(() => {})]);
        died =
          doomed.end?.signal === 'SIGKILL' ||
          (await Promise.race([doomed.exited.then(() => true), new Promise<false>((done) => setTimeout(done, 500, false))]));
        if (!died) await doomed.stop();
        else expect((await doomed.exited).signal, doomed.tail()).toBe('SIGKILL');

        await house.startServer();
        await daemon.line(/Node attestation was successful/, { withinMs: 20_000 });
        if (answered) expect(await entries()).toEqual(['/sweep']);
        await signs();
        noLeftovers();
        await daemon.stop();
        await house.server.stop();
        places += died ? 1 : 0;
      }
      if (!died) break;
    }
    // keys, bundle, journal, entry, agent: more than a handful
    expect(places).toBeGreaterThan(16);
    console.log(`${places} places`);
  }, 180_000);
});
