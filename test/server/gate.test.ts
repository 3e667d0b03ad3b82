/** What every call passes: SPIRE's rate limits per address, what is counted, and who did what in the audit record. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { fail } from '../../core/errors.ts';
import { createLog } from '../../core/log-output.ts';
import type { Metrics } from '../../core/metrics.ts';
import type { Gate } from '../../core/rpc.ts';
import type { CallContext, Peer } from '../../core/rpc-types.ts';
import { Callers } from '../../server/api/caller.ts';
import { Limits, type LimitSettings } from '../../server/api/limits.ts';
import { createGate } from '../../server/gate.ts';
import type { State } from '../../server/state.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import { entry, node } from '../contract/store.ts';
import { FakeClock } from '../fakes/clock.ts';

const AGENT = node('a').id;
const ATTEST = '/spire.api.server.agent.v1.Agent/AttestAgent';
const LIST = '/spire.api.server.agent.v1.Agent/ListAgents';

let folder: string;
let path: string;
let clock: FakeClock;
let limits: Limits;
let counted: string[];
let gate: Gate;

function open(settings: Partial<LimitSettings> & { readonly audit?: boolean } = {}): void {
  limits = new Limits({ attestation: true, signing: true, ...settings }, clock);
  const known = node('a', { current: { serial: '1', sha256: 'current', notAfterMs: clock.now() + 86_400_000 } });
  const state = {
    node: (id: string) => (id === AGENT ? known : undefined),
    entriesOf: (id: string) => (id === 'spiffe://example.org/down' ? [entry('down', { downstream: true })] : []),
  } as unknown as State;
  const callers = new Callers({ state, store: {} as never, clock, adminIds: [] });
  const metrics: Metrics = {
    call: (name, status, elapsedMs) => counted.push(`${name} ${status} ${elapsedMs}`),
    count: () => {},
    gauge: () => {},
  };
  const log = createLog({ level: 'debug', format: 'json', path, clock });
  gate = createGate({ callers, limits, metrics, clock, log, audit: settings.audit ?? true });
}
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'warifu-'));
  path = join(folder, 'log');
  clock = new FakeClock();
  counted = [];
  open();
});
afterEach(() => rmSync(folder, { recursive: true }));

const LOCAL: Peer = { kind: 'process', pid: 4711, uid: 1000, gid: 100, pidfd: -1, connection: {} };
const tls = (id?: string, address = '192.0.2.1', certificateSha256 = 'current'): Peer => ({
  kind: 'tls',
  address,
  id: id === undefined ? undefined : SpiffeId.parse(id),
  certificateSha256,
  notAfterMs: clock.now() + 86_400_000,
  connection: {},
});
const call = (method: string, peer: Peer, signal = new AbortController().signal): CallContext => ({
  method,
  peer,
  metadata: new Map(),
  signal,
});
const pass = async (context: CallContext, request?: unknown) => gate(context, request);
const lines = (): Record<string, unknown>[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Record<string, unknown>);

/** Whether it is through by now. */
async function through(passing: Promise<unknown>): Promise<boolean> {
  let done = false;
  const end = () => {
    done = true;
  };
  passing.then(end, end);
  for (let turn = 0; turn < 5; turn++) await setImmediate();
  return done;
}

describe('a rate limit', () => {
  test('of attestation lets one a second through from each address; who is early waits for his turn', async () => {
    expect(await through(pass(call(ATTEST, tls())))).toBe(true);
    const [second, third] = [pass(call(ATTEST, tls())), pass(call(ATTEST, tls()))];
    expect(await through(pass(call(ATTEST, tls(undefined, '192.0.2.2'))))).toBe(true);
    await clock.advance(999);
    expect([await through(second), await through(third)]).toEqual([false, false]);
    await clock.advance(1);
    expect([await through(second), await through(third)]).toEqual([true, false]);
    await clock.advance(1_000);
    expect(await through(third)).toBe(true);
  });

  test('is not for the admin socket', async () => {
    for (let i = 0; i < 5; i++) expect(await through(pass(call(ATTEST, LOCAL)))).toBe(true);
  });

  test('can be put out, each by its setting; those that SPIRE has always on stay', async () => {
    open({ attestation: false, signing: false });
    for (let i = 0; i < 5; i++) expect(await through(pass(call(ATTEST, tls())))).toBe(true);
    const renew = call('/spire.api.server.agent.v1.Agent/RenewAgent', tls(AGENT));
    for (let i = 0; i < 501; i++) await pass(renew);
    const status = call('/spire.api.server.agent.v1.Agent/PostStatus', tls(AGENT));
    for (let i = 0; i < 10; i++) await pass(status);
    expect(await through(pass(status))).toBe(false);
  });

  test('of signing is one for renewal and downstream CAs together, 500 a second', async () => {
    for (let i = 0; i < 499; i++) await pass(call('/spire.api.server.agent.v1.Agent/RenewAgent', tls(AGENT)));
    const downstream = call('/spire.api.server.svid.v1.SVID/NewDownstreamX509CA', tls('spiffe://example.org/down'));
    expect(await through(pass(downstream))).toBe(true);
    const late = pass(downstream);
    expect(await through(late)).toBe(false);
    await clock.advance(2);
    expect(await through(late)).toBe(true);
  });

  test('refuses more at once than a second’s worth, in SPIRE’s words', async () => {
    const never = new AbortController().signal;
    await limits.take('csr', '192.0.2.9', 500, never);
    await expect(limits.take('csr', '192.0.2.8', 501, never)).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      message: 'rate (501) exceeds burst size (500)',
    });
  });

  test('gives back the turn of a caller that leaves; that is no fault of ours', async () => {
    await pass(call(ATTEST, tls()));
    const leaves = new AbortController();
    const waits = pass(call(ATTEST, tls(), leaves.signal));
    const refused = expect(waits).rejects.toMatchObject({
      code: 'CANCELLED',
      message: 'rejecting request due to attest agent rate limiting: the caller went away',
    });
    leaves.abort(fail('CANCELLED', 'the caller went away'));
    await refused;
    await clock.advance(1_000);
    expect(await through(pass(call(ATTEST, tls())))).toBe(true);
    expect(counted.at(-1)).toBe('rpc.agent.v1.agent.attest_agent Canceled 0');
  });

  test('keeps nothing of an address that was quiet long enough, whatever it did before', async () => {
    const never = new AbortController().signal;
    for (let i = 0; i < 100; i++) {
      const address = `192.0.2.${i}`;
      const taken = [limits.take('attestation', address, 1, never), limits.take('attestation', address, 1, never)];
      await clock.advance(1_000);
      await Promise.all(taken);
    }
    await clock.advance(60_000);
    await limits.take('attestation', '198.51.100.1', 1, never);
    expect(limits.size).toBe(1);
  });

  test('a wall clock that jumps gives nobody more', async () => {
    await pass(call(ATTEST, tls()));
    clock.jump(86_400_000);
    expect(await through(pass(call(ATTEST, tls())))).toBe(false);
  });

  test('comes after the look at who calls: a caller that is refused takes nobody’s turn', async () => {
    const status = '/spire.api.server.agent.v1.Agent/PostStatus';
    for (let i = 0; i < 20; i++)
      await expect(pass(call(status, tls(AGENT, '192.0.2.1', 'other')))).rejects.toMatchObject({ code: 'DENIED' });
    expect(await through(pass(call(status, tls(AGENT))))).toBe(true);
  });
});

describe('an audit record', () => {
  test('of the admin socket says which process: pid, uid and gid', async () => {
    const told = await pass(call(LIST, LOCAL));
    await clock.advance(12);
    told?.({ code: 0, message: 'OK', error: undefined });
    const [line] = lines();
    expect(line).toEqual({
      level: 'info',
      time: expect.any(String) as string,
      msg: 'API accessed',
      type: 'audit',
      request_id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
      service: 'agent.v1.Agent',
      method: 'ListAgents',
      caller_pid: 4711,
      caller_uid: 1000,
      caller_gid: 100,
      status: 'success',
    });
    expect(counted).toEqual(['rpc.agent.v1.agent.list_agents OK 12']);
  });

  test('of a TLS peer says its SPIFFE ID and address, and how it ended', async () => {
    await expect(pass(call(LIST, tls(AGENT)))).rejects.toMatchObject({ code: 'DENIED' });
    const [line] = lines();
    expect(line).toMatchObject({
      type: 'audit',
      service: 'agent.v1.Agent',
      method: 'ListAgents',
      caller_addr: '192.0.2.1',
      caller_id: AGENT,
      status: 'error',
      status_code: 'PermissionDenied',
      status_message: `authorization denied for method ${LIST}`,
    });
    expect(line).not.toHaveProperty('caller_pid');
    expect(counted).toEqual(['rpc.agent.v1.agent.list_agents PermissionDenied 0']);
  });

  test('of one without a certificate names no one; never a token, a CSR, metadata or the cause of a fault', async () => {
    const request = { params: { data: { payload: 'the-join-token' }, params: { csr: 'the-csr' } } };
    const context = { ...call(ATTEST, tls()), metadata: new Map([['authorization', ['the-secret']]]) };
    const told = await pass(context, request);
    told?.({ code: 13, message: 'internal error', error: new Error('the-cause with the-join-token') });
    const [line] = lines();
    expect(line).toMatchObject({ caller_addr: '192.0.2.1', status: 'error', status_code: 'Internal', status_message: 'internal error' });
    expect(line).not.toHaveProperty('caller_id');
    expect(readFileSync(path, 'utf8')).not.toMatch(/the-(join-token|csr|secret|cause)/);
  });

  test('has an id of its own, and is not made of health checks', async () => {
    for (let i = 0; i < 3; i++) (await pass(call(LIST, LOCAL)))?.({ code: 0, message: 'OK', error: undefined });
    (await pass(call('/grpc.health.v1.Health/Check', LOCAL)))?.({ code: 0, message: 'OK', error: undefined });
    expect(new Set(lines().map(({ request_id: id }) => id)).size).toBe(3);
    expect(counted).toHaveLength(4);
  });

  test('is not written unless it was asked for; a refusal is told at debug all the same', async () => {
    open({ audit: false });
    (await pass(call(LIST, LOCAL)))?.({ code: 0, message: 'OK', error: undefined });
    await expect(pass(call(LIST, tls()))).rejects.toMatchObject({ code: 'DENIED' });
    expect(lines().map(({ level, msg, type }) => [level, msg, type])).toEqual([['debug', 'Call refused', undefined]]);
  });
});
