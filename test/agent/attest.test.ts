import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readlinkSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Caller, CallerAttestor } from '../../agent/attest.ts';
import { silent } from '../../core/log.ts';
import { closeFd, peerCredentials } from '../../core/native.ts';
import { Shares } from '../../core/shares.ts';
import type { WorkloadAttestor } from '../../core/plugin/workload-attestor.ts';
import unix from '../../plugins/workload-attestor/unix.ts';
import { TrustDomain } from '../../spiffe/id.ts';
import { Latest } from '../../spiffe/latest.ts';
import { FakeClock } from '../fakes/clock.ts';

const never = new AbortController().signal;
let dir: string;
let server: Server;
let clock: FakeClock;
const children: ChildProcess[] = [];
const sockets: Socket[] = [];
const pidfds: number[] = [];

beforeEach(async () => {
  dir = mkdtempSync(join('/tmp', 'attest-'));
  clock = new FakeClock();
  server = createServer();
  await new Promise<void>((resolve) => server.listen({ path: join(dir, 's'), writableAll: true, readableAll: true }, resolve));
  chmodSync(dir, 0o755);
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const pidfd of pidfds.splice(0)) closeFd(pidfd);
  server.close();
  rmSync(dir, { recursive: true });
});

/** A process that connects and does what a line tells: `exec` becomes another program, `ids` another user, `end` ends. */
const SCRIPT = `
const [path, uid] = process.argv.slice(1);
if (uid) { process.setgroups([]); process.setgid(Number(uid)); process.setuid(Number(uid)); }
require('node:net').connect(path).on('error', () => {});
process.stdin.on('data', (line) => {
  if (String(line).startsWith('exec')) process.execve('/bin/sleep', ['sleep', '60']);
  if (String(line).startsWith('ids')) { process.setgid(4242); process.setuid(4242); console.log('done'); }
  if (String(line).startsWith('end')) process.exit();
});`;
type Child = ChildProcess & { stdin: NodeJS.WritableStream; stdout: NodeJS.ReadableStream };
async function connected(uid?: number): Promise<{ caller: Caller; child: Child }> {
  const next = once(server, 'connection');
  const args = ['--no-warnings', '-e', SCRIPT, join(dir, 's'), ...(uid === undefined ? [] : [String(uid)])];
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] }) as unknown as Child;
  children.push(child);
  const [socket] = (await next) as [Socket];
  sockets.push(socket);
  // the socket ends with an exec, and the pidfd does not
  const peer = peerCredentials(socket);
  pidfds.push(peer.pidfd);
  return { caller: { kind: 'process', ...peer, connection: socket }, child };
}

function counting(attest: WorkloadAttestor['attest'] = async () => ['a']): WorkloadAttestor & { calls: number } {
  const one = {
    calls: 0,
    attest: (...args: Parameters<WorkloadAttestor['attest']>) => {
      one.calls++;
      return attest(...args);
    },
  };
  return one;
}
const make = (attestors: Record<string, WorkloadAttestor>, log = silent) =>
  new CallerAttestor({ attestors: new Map(Object.entries(attestors)), underWay: new Shares(256), clock, log, timeoutMs: 1000 });

test('every attestor counts; selectors carry its name and come sorted, each once', async () => {
  const { caller } = await connected();
  const attested = await make({ b: counting(async () => ['2', '1', '2']), a: counting(async () => ['x']) }).attest(caller, never);
  expect(attested.selectors).toEqual([
    { type: 'a', value: 'x' },
    { type: 'b', value: '1' },
    { type: 'b', value: '2' },
  ]);
});

test('an answer stands for a second, for the same connection only', async () => {
  const { caller } = await connected();
  const attestor = counting();
  const attest = make({ a: attestor });
  await Promise.all([attest.attest(caller, never), attest.attest(caller, never)]);
  expect(attestor.calls).toBe(1);
  await clock.advance(999);
  await attest.attest(caller, never);
  expect(attestor.calls).toBe(1);
  await clock.advance(1);
  await attest.attest(caller, never);
  expect(attestor.calls).toBe(2);
  const other = await connected();
  await attest.attest(other.caller, never);
  expect(attestor.calls).toBe(3);
});

test('one that fails is passed over, all failing is UNAVAILABLE, and no attestor gives no selectors', async () => {
  const { caller } = await connected();
  const broken = counting(() => Promise.reject(new Error('no')));
  expect((await make({ broken, a: counting() }).attest(caller, never)).selectors).toEqual([{ type: 'a', value: 'a' }]);
  await expect(make({ broken, other: broken }).attest(caller, never)).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    message: 'workload attestation failed',
  });
  expect((await make({ a: counting(async () => []) }).attest(caller, never)).selectors).toEqual([]);
});

test('one that hangs is cut off and told so; the others count', async () => {
  const { caller } = await connected();
  let told = false;
  const hanging = counting((_, signal) => new Promise(() => signal.addEventListener('abort', () => (told = true))));
  const attested = make({ hanging, a: counting() }).attest(caller, never);
  await clock.advance(1000);
  expect((await attested).selectors).toEqual([{ type: 'a', value: 'a' }]);
  expect(told).toBe(true);
});

test('WAPI-6: a caller that is dead is refused, before and after the attestors looked', async () => {
  const { caller, child } = await connected();
  const attestor = counting(async () => {
    child.stdin.write('end\n');
    await once(child, 'exit');
    return ['a'];
  });
  await expect(make({ a: attestor }).attest(caller, never)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  expect(attestor.calls).toBe(1);
  await expect(make({ a: counting() }).attest(caller, never)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

test('a caller that execs while it is looked at is looked at once more; one that does it again is refused', async () => {
  const first = await connected();
  let execs = 0;
  const exec = async () => {
    if (execs++ === 0) {
      first.child.stdin.write('exec\n');
      await expect.poll(() => readlinkSync(`/proc/${first.child.pid}/exe`)).toContain('sleep');
    }
    return ['a'];
  };
  const attestor = counting(exec);
  expect((await make({ a: attestor }).attest(first.caller, never)).selectors).toHaveLength(1);
  expect(attestor.calls).toBe(2);
});

test('what was kept does not outlive an exec', async () => {
  const { caller, child } = await connected();
  const attest = make({
    unix: await unix.start(unix.settings.parse({ discover_workload_path: true }), {
      trustDomain: TrustDomain.parse('a'),
      log: silent,
      clock,
      signal: never,
      reloads: new Latest(0),
    }),
  });
  const before = await attest.attest(caller, never);
  child.stdin.write('exec\n');
  await expect.poll(() => readlinkSync(`/proc/${child.pid}/exe`)).toContain('sleep');
  const after = await attest.attest(caller, never);
  expect(after.key).not.toBe(before.key);
  expect(after.selectors.some(({ value }) => /^path:.*sleep/.test(value))).toBe(true);
});

const root = process.getuid?.() === 0;
test.runIf(root)('WE-19: two users are two callers', async () => {
  const attest = make({
    unix: await unix.start(unix.settings.parse({}), {
      trustDomain: TrustDomain.parse('a'),
      log: silent,
      clock,
      signal: never,
      reloads: new Latest(0),
    }),
  });
  const us = await connected();
  const them = await connected(4343);
  expect(them.caller).toMatchObject({ uid: 4343, gid: 4343 });
  expect((await attest.attest(us.caller, never)).selectors).toContainEqual({ type: 'unix', value: 'uid:0' });
  const theirs = await attest.attest(them.caller, never);
  expect(theirs.selectors).toContainEqual({ type: 'unix', value: 'uid:4343' });
  expect(theirs.selectors).not.toContainEqual({ type: 'unix', value: 'uid:0' });
});

test.runIf(root)('a caller that changed its ids since it connected is refused', async () => {
  const { caller, child } = await connected();
  const attest = make({ a: counting() });
  await attest.attest(caller, never);
  child.stdin.write('ids\n');
  await once(child.stdout, 'data');
  await expect(attest.attest(caller, never)).rejects.toMatchObject({ code: 'UNAVAILABLE', message: 'workload attestation failed' });
});

test('who goes away does not wait', async () => {
  const { caller } = await connected();
  const stop = new AbortController();
  const waiting = make({ hanging: counting(() => new Promise(() => {})) }).attest(caller, stop.signal);
  stop.abort(new Error('gone'));
  await expect(waiting).rejects.toThrow('gone');
});
