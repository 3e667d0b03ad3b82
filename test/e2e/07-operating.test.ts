/** Story 7: what an operator sees and does while the programs run: probes, metrics, audit records, the log's level and file, reloads. */
import { copyFileSync, existsSync, readFileSync, renameSync, statSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Agent, createHouse, freePort, type House } from './house.ts';

let house: House;
let agent: Agent;
let [health, agentHealth, metrics] = [0, 0, 0];
const serverLog = () => join(house.dir, 'server.log');

beforeAll(async () => {
  [health, agentHealth, metrics] = await Promise.all([freePort(), freePort(), freePort()]);
  house = await createHouse({
    logLevel: 'INFO',
    serverSettings: ['audit_log_enabled = true', 'log_format = "json"'],
    serverPlugins: [
      '}',
      `health_checks { listener_enabled = true bind_address = "127.0.0.1" bind_port = "${health}" live_path = "/live" ready_path = "/ready" }`,
      `telemetry { Prometheus { host = "127.0.0.1" port = ${metrics} }`,
    ],
  });
});
afterAll(() => house?.close());

function fetched(port: number, path: string): Promise<{ readonly status: number; readonly body: string }> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body }));
    }).once('error', reject);
  });
}

const records = () =>
  readFileSync(serverLog(), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
const audits = () => records().filter(({ type }) => type === 'audit');

test('both start with health listeners and a log file of their own', async () => {
  await house.startServer('-logFile', serverLog());
  agent = await house.createAgent('agent', {
    plugins: ['}', `health_checks { listener_enabled = true bind_address = "127.0.0.1" bind_port = "${agentHealth}"`],
  });
  await agent.start();
  expect(statSync(serverLog()).mode & 0o007).toBe(0);
});

test('probes: /live and /ready say each part, other paths are 404', async () => {
  for (const path of ['/live', '/ready']) {
    expect(await fetched(health, path)).toEqual({
      status: 200,
      body: JSON.stringify({ server: {}, 'catalog.datastore': {}, 'server.ca': {}, 'server.ca.rotator': {} }),
    });
    // its socket is there before its entries are
    await expect
      .poll(() => fetched(agentHealth, path), { interval: 10, timeout: 5_000 })
      .toEqual({ status: 200, body: JSON.stringify({ agent: {} }) });
  }
  expect((await fetched(health, '/other')).status).toBe(404);
});

test("metrics have SPIRE's names", async () => {
  await house.createEntry({ id: '/web', parent: agent });
  const { status, body } = await fetched(metrics, '/metrics');
  expect(status).toBe(200);
  expect(body).toMatch(/^spire_server_rpc_entry_v1_entry_batch_create_entry\{status="OK",host="\w+"\} 1$/m);
  expect(body).toMatch(/^spire_server_rpc_agent_v1_agent_attest_agent\{status="OK",host="\w+"\} 1$/m);
  expect(body).toMatch(/^spire_server_rpc_agent_v1_agent_attest_agent_elapsed_time_count\{/m);
  expect(body).toMatch(/^spire_server_entry_entries_by_entryid_cache_count\{host="\w+"\} 1$/m);
  expect(body).toMatch(/^spire_server_uptime_in_ms\{/m);
});

test('audit records say who did what and how it ended: who on the socket by pid, uid and gid, who on TCP by address and SPIFFE ID', async () => {
  const created = audits().find(({ method }) => method === 'BatchCreateEntry');
  expect(created).toMatchObject({
    msg: 'API accessed',
    service: 'entry.v1.Entry',
    status: 'success',
    caller_uid: process.getuid?.(),
    caller_gid: process.getgid?.(),
  });
  expect(created?.['caller_pid']).toBeGreaterThan(1);
  expect(created?.['request_id']).toMatch(/^[0-9a-f-]{36}$/);
  expect(audits().find(({ method }) => method === 'AttestAgent')).toMatchObject({ status: 'success', caller_addr: '127.0.0.1' });
  await house.run('server', 'agent', 'show', '-spiffeID', 'spiffe://example.org/spire/agent/join_token/nobody');
  expect(audits().at(-1)).toMatchObject({
    method: 'GetAgent',
    status: 'error',
    status_code: 'NotFound',
    status_message: 'agent not found',
  });
});

test('a token that nobody has spent stands in no log line and no metric', async () => {
  const { value } = JSON.parse(await house.ok('server', 'token', 'generate', '-output', 'json')) as { value: string };
  expect(audits().at(-1)).toMatchObject({ method: 'CreateJoinToken', status: 'success' });
  expect(readFileSync(serverLog(), 'utf8')).not.toContain(value);
  expect((await fetched(metrics, '/metrics')).body).not.toContain(value);
});

test('the log level changes while the server runs', async () => {
  expect(await house.ok('server', 'logger', 'get')).toContain('info');
  expect(await house.ok('server', 'logger', 'set', '-level', 'debug')).toContain('debug');
  expect(await house.ok('server', 'logger', 'reset')).toContain('info');
});

test('SIGUSR2 opens the log file again after it was moved away', async () => {
  const moved = join(house.dir, 'server.log.1');
  renameSync(serverLog(), moved);
  house.server.signal('SIGUSR2');
  await expect.poll(() => existsSync(serverLog()), { interval: 10, timeout: 5_000 }).toBe(true);
  await house.ok('server', 'entry', 'count');
  await expect.poll(() => audits().at(-1), { interval: 10, timeout: 5_000 }).toMatchObject({ method: 'CountEntries' });
});

test('SIGUSR1 has the files of the PKI read again: a set that fits is taken over, one that does not changes nothing', async () => {
  const next = house.pki.issueIntermediate('next');
  copyFileSync(next.certificate, house.pki.intermediate);
  copyFileSync(next.key, house.pki.intermediateKey);
  house.server.signal('SIGUSR1');
  await expect
    .poll(() => records().map(({ msg }) => msg), { interval: 20, timeout: 10_000 })
    .toContain('Upstream authority files changed and were taken over');
  copyFileSync(house.pki.machineCa, house.pki.intermediate);
  house.server.signal('SIGUSR1');
  expect(await house.ok('server', 'x509', 'mint', '-spiffeID', 'spiffe://example.org/still')).toContain('BEGIN CERTIFICATE');
});
