/**
 * SPIRE's own binaries beside ours, in every pair: its agent on our server, our agent on its server, its command line on our sockets and ours on its.
 * They are not part of this repository: `npm run test:spire -- --bin DIR` says where they are. Without them the suite fails.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Daemon } from '../e2e/daemon.ts';
import { type Agent, createHouse, type House, runToEnd } from '../e2e/house.ts';

const bin = process.env['WARIFU_SPIRE_BIN'];
if (!bin) throw new Error('run it by `npm run test:spire -- --bin DIR`');
const SERVER = join(bin, 'spire-server');
const AGENT = join(bin, 'spire-agent');

/** As long as a stock agent may take to poll. */
const POLL = { interval: 200, timeout: 30_000 };

const stock = async (program: string, ...args: string[]) => {
  const { code, stdout, stderr } = await runToEnd([program, ...args]);
  return { code, text: stdout + stderr };
};

describe("SPIRE's agent on our server", () => {
  let house: House;
  let agent: Agent;
  let daemon: Daemon;
  const fetched = async () => (await stock(AGENT, 'api', 'fetch', 'x509', '-socketPath', agent.socketPath)).text;

  beforeAll(async () => {
    house = await createHouse();
    await house.startServer();
    agent = await house.createAgent();
    await house.createEntry({ id: '/web', parent: agent });
    daemon = new Daemon('spire-agent', [AGENT, 'run', '-config', agent.conf], { cwd: house.dir });
    await daemon.accepts(agent.socketPath);
  });
  afterAll(async () => {
    await daemon?.stop().catch(() => daemon.kill());
    await house?.close();
  });

  test('attests with a join token and serves what an entry says', async () => {
    await expect.poll(fetched, POLL).toContain('spiffe://example.org/web');
    expect(await house.ok('server', 'agent', 'list')).toContain(agent.id);
  });

  test('has JWT-SVIDs signed', async () => {
    const { code, text } = await stock(AGENT, 'api', 'fetch', 'jwt', '-audience', 'db', '-socketPath', agent.socketPath);
    expect(code, text).toBe(0);
    expect(text).toContain('token(spiffe://example.org/web)');
  });

  test('polls a new entry, and its deletion', async () => {
    const id = await house.createEntry({ id: '/late', parent: agent });
    await expect.poll(fetched, POLL).toContain('spiffe://example.org/late');
    await house.deleteEntry(id);
    await expect.poll(fetched, POLL).not.toContain('spiffe://example.org/late');
  });

  test('ends when it is banned', async () => {
    await house.ok('server', 'agent', 'ban', '-spiffeID', agent.id);
    await daemon.line(/Agent is banned: removing SVID and shutting down/, { withinMs: 30_000 });
    expect((await daemon.exited).code).toBe(1);
  });
});

describe("SPIRE's command line on our sockets", () => {
  let house: House;
  let agent: Agent;
  const spire = (...args: string[]) => stock(SERVER, ...args, '-socketPath', house.socketPath);

  beforeAll(async () => {
    house = await createHouse();
    await house.startServer();
    agent = await house.createAgent();
    await agent.start();
  });
  afterAll(() => house?.close());

  const rows: readonly [what: string, args: readonly string[], words: RegExp][] = [
    ['healthcheck', ['healthcheck'], /Server is healthy/],
    ['bundle show', ['bundle', 'show'], /BEGIN CERTIFICATE/],
    [
      'entry create',
      ['entry', 'create', '-parentID', 'spiffe://example.org/p', '-spiffeID', 'spiffe://example.org/c', '-selector', 'unix:uid:1'],
      /Revision +: 0/,
    ],
    [
      'entry create of a similar one',
      ['entry', 'create', '-parentID', 'spiffe://example.org/p', '-spiffeID', 'spiffe://example.org/c', '-selector', 'unix:uid:1'],
      /similar entry already exists/,
    ],
    ['entry show', ['entry', 'show'], /Found 1 entry/],
    ['entry count', ['entry', 'count'], /1 registration entry/],
    ['agent list', ['agent', 'list'], /Found 1 attested agent/],
    ['token generate', ['token', 'generate'], /Token: /],
    ['x509 mint', ['x509', 'mint', '-spiffeID', 'spiffe://example.org/m'], /X509-SVID:/],
    ['jwt mint', ['jwt', 'mint', '-spiffeID', 'spiffe://example.org/m', '-audience', 'a'], /^ey/m],
    ['logger get', ['logger', 'get'], /Logger Level : debug/],
  ];
  for (const [what, args, words] of rows) {
    test(what, async () => {
      expect((await spire(...args)).text).toMatch(words);
    });
  }

  test('api fetch and healthcheck on our agent', async () => {
    await house.createEntry({ id: '/here', parent: agent });
    expect((await stock(AGENT, 'api', 'fetch', 'x509', '-socketPath', agent.socketPath)).text).toContain('spiffe://example.org/here');
    expect((await stock(AGENT, 'healthcheck', '-socketPath', agent.socketPath)).code).toBe(0);
  });
});

describe("our agent and command line on SPIRE's server", () => {
  let house: House;
  let agent: Agent;
  let server: Daemon;
  const fetched = async () => (await house.run('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath)).stdout;

  beforeAll(async () => {
    house = await createHouse();
    server = new Daemon('spire-server', [SERVER, 'run', '-config', house.serverConf], { cwd: house.dir });
    await server.accepts(house.socketPath);
    agent = await house.createAgent();
    await house.createEntry({ id: '/web', parent: agent });
    await agent.start();
  });
  afterAll(async () => {
    await server?.stop().catch(() => server.kill());
    await house?.close();
  });

  test('the agent attests, polls since there is no push stream, and serves', async () => {
    await expect.poll(fetched, POLL).toContain('spiffe://example.org/web');
    expect(agent.process.tail(50)).toContain('The server has no push stream; polling');
    const id = await house.createEntry({ id: '/late', parent: agent });
    await expect.poll(fetched, POLL).toContain('spiffe://example.org/late');
    await house.deleteEntry(id);
    await expect.poll(fetched, POLL).not.toContain('spiffe://example.org/late');
  });

  test('JWT-SVIDs come and validate', async () => {
    const out = await house.ok('agent', 'api', 'fetch', 'jwt', '-audience', 'db', '-output', 'json', '-socketPath', agent.socketPath);
    const token = (JSON.parse(out) as [{ svids: [{ svid: string }] }])[0].svids[0].svid;
    const validated = await house.run(
      'agent',
      'api',
      'validate',
      'jwt',
      '-audience',
      'db',
      '-svid',
      token,
      '-socketPath',
      agent.socketPath,
    );
    expect(validated.code, validated.stderr).toBe(0);
  });

  test('the command line shows what is there', async () => {
    expect(await house.ok('server', 'entry', 'show')).toContain('Found 1 entry');
    expect(await house.ok('server', 'agent', 'list')).toContain(agent.id);
    expect(await house.ok('server', 'bundle', 'show')).toContain(readFileSync(house.pki.root, 'utf8').split('\n')[1] ?? '?');
    expect((await house.run('server', 'healthcheck')).code).toBe(0);
  });

  test('the agent ends when it is banned', async () => {
    await house.ok('server', 'agent', 'ban', '-spiffeID', agent.id);
    expect((await agent.process.exited).code).toBe(1);
    expect(agent.process.tail(20)).toContain('Agent is banned: removing SVID and shutting down');
  });
});
