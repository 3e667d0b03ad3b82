/** Who a caller is when he is another process than the one that speaks: real processes that connect, hand their socket over, become another program, or end. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Log, silent } from '../../core/log.ts';
import unix from '../../plugins/workload-attestor/unix.ts';
import { SpiffeWorkloadAPIDefinition } from '../../proto/gen/spiffe/workload/workload.ts';
import { systemClock } from '../../spiffe/clock.ts';
import { openChannel } from '../../spiffe/rpc/channel.ts';
import { type Calls } from '../../spiffe/rpc/calls.ts';
import { Latest } from '../../spiffe/latest.ts';
import { createRig, header, Reader, realm, registration, type Rig, trustDomain } from './rig.ts';

const POLL = { timeout: 10_000, interval: 10 };
/** Connects, as another user if told so, gives its socket away, and does what it is told. */
const SCRIPT = `
const [path, uid] = process.argv.slice(2);
if (uid) { process.setgroups([]); process.setgid(Number(uid)); process.setuid(Number(uid)); }
const socket = require('node:net').connect(path, () => process.send('connected', socket));
process.on('message', (word) => {
  if (word === 'exec') process.execve('/bin/sleep', ['sleep', '60']);
  if (word === 'again') process.execve(process.execPath, [process.execPath, '-e', 'setTimeout(() => {}, 60000)', 'again']);
});`;

let dir: string;
let rig: Rig;
/** Processes, each time that one was. */
let attested: (number | undefined)[];
const children: ChildProcess[] = [];
const channels: ReturnType<typeof openChannel>[] = [];
const proxies: { readonly server: Server; readonly passed: Socket }[] = [];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'callers-'));
  writeFileSync(join(dir, 'child.cjs'), SCRIPT);
  // hashing a whole Node is not what is shown here
  const settings = unix.settings.parse({ discover_workload_path: true, workload_size_limit: -1 });
  const host = { trustDomain, log: silent, clock: systemClock, signal: new AbortController().signal, reloads: new Latest(0) };
  attested = [];
  // told once somebody's selectors are known
  const log: Log = { ...silent, debug: (_, fields) => fields?.selectors && attested.push(fields.pid), with: () => log };
  rig = await createRig({
    log,
    attestors: new Map([
      ['unix', await unix.start(settings, host)],
      ['pid', { attest: async ({ pid }: { readonly pid: number }) => [String(pid)] }],
    ]),
  });
  // other users connect too
  chmodSync(dirname(dirname(rig.path)), 0o755);
  rig.workloads.replica.synced();
});
afterEach(async () => {
  for (const channel of channels.splice(0)) channel.close();
  for (const { server, passed } of proxies.splice(0)) {
    passed.destroy();
    server.close();
  }
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await rig.close();
  rmSync(dir, { recursive: true });
});

interface Connected {
  readonly child: ChildProcess;
  /** Over the socket that the child has connected and given to us: it has it no more. */
  readonly calls: Calls<typeof SpiffeWorkloadAPIDefinition>;
}

async function connected(uid?: number): Promise<Connected> {
  const child = fork(join(dir, 'child.cjs'), [rig.path, ...(uid === undefined ? [] : [String(uid)])], { execArgv: ['--no-warnings'] });
  children.push(child);
  const [, passed] = (await once(child, 'message')) as [string, Socket];
  passed.on('error', () => {});
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.pipe(passed).pipe(socket);
  });
  proxies.push({ server, passed });
  const path = join(dir, `${child.pid}.sock`);
  server.listen(path);
  await once(server, 'listening');
  const channel = openChannel({ target: `unix://${path}` });
  channels.push(channel);
  return { child, calls: channel.service(SpiffeWorkloadAPIDefinition) };
}

async function becomes(child: ChildProcess, word: 'exec' | 'again'): Promise<void> {
  const ended = once(child, 'disconnect');
  child.send(word);
  // its end of the channel closes with the exec
  await ended;
  if (word === 'exec') await expect.poll(() => readlinkSync(`/proc/${child.pid}/exe`), POLL).not.toBe(readlinkSync('/proc/self/exe'));
}

const NODE = `unix:path:${readlinkSync('/proc/self/exe')}`;
const apply = (...entries: ReturnType<typeof registration>[]) => rig.workloads.replica.apply(entries, []);
const ids = (answer: { readonly svids: readonly { readonly spiffeId: string }[] }) => answer.svids.map(({ spiffeId }) => spiffeId);
async function first(calls: Connected['calls']): Promise<readonly string[]> {
  const reader = new Reader(calls.fetchX509SVID({}, header));
  try {
    return ids(await reader.next());
  } finally {
    await reader.close();
  }
}

test('a socket that was passed on speaks as the process that connected it, not as the one that has it', async () => {
  const { child, calls } = await connected();
  apply(
    registration('1', '/connected', { selectors: [`pid:${child.pid}`] }),
    registration('2', '/has-it-now', { selectors: [`pid:${process.pid}`] }),
  );
  expect(await first(calls)).toEqual(['spiffe://example.org/connected']);
  // our own connection is ours
  expect(await first(rig.calls)).toEqual(['spiffe://example.org/has-it-now']);
});

describe('a stream whose process has become another program', () => {
  test('ends at the next push: what is new is not for it', async () => {
    apply(registration('1', '/web', { selectors: [NODE] }));
    const { child, calls } = await connected();
    const stream = new Reader(calls.fetchX509SVID({}, header));
    expect(ids(await stream.next())).toEqual(['spiffe://example.org/web']);
    await becomes(child, 'exec');
    apply(registration('2', '/db', { selectors: [NODE] }));
    await expect(stream.next()).rejects.toMatchObject({ code: 'DENIED' });
    // nor does it get anything when it asks anew
    await expect(first(calls)).rejects.toMatchObject({ code: 'DENIED' });
  });

  test('and of bundles too', async () => {
    apply(registration('1', '/web', { selectors: [NODE] }));
    const { child, calls } = await connected();
    const stream = new Reader(calls.fetchX509Bundles({}, header));
    await stream.next();
    await becomes(child, 'exec');
    rig.workloads.replica.applyBundles([(await realm(trustDomain.name)).bundle], [], false);
    await expect(stream.next()).rejects.toMatchObject({ code: 'DENIED' });
  });

  for (const exec of [true, false])
    test(
      exec ? 'gets nothing that it had waited for as the program before' : '(one that has not gets what it had waited for)',
      async () => {
        rig.online = false;
        apply(registration('1', '/web', { selectors: [NODE] }));
        const { child, calls } = await connected();
        const stream = new Reader(calls.fetchX509SVID({}, header));
        const answer = stream.next();
        answer.catch(() => {});
        await expect.poll(() => attested, POLL).toEqual([child.pid]);
        if (exec) await becomes(child, 'exec');
        rig.online = true;
        rig.workloads.svids.retry();
        if (exec) await expect(answer).rejects.toMatchObject({ code: 'DENIED' });
        else expect(ids(await answer)).toEqual(['spiffe://example.org/web']);
      },
    );

  test('that has the same selectors goes on', async () => {
    const { child, calls } = await connected();
    const mine = { selectors: [NODE] };
    apply(registration('1', '/web', mine));
    const stream = new Reader(calls.fetchX509SVID({}, header));
    await stream.next();
    await becomes(child, 'again');
    apply(registration('2', '/db', mine));
    expect(ids(await stream.next())).toEqual(['spiffe://example.org/web', 'spiffe://example.org/db']);
    await stream.close();
  });
});

test('a process that is gone gets nothing more by whoever has its socket', async () => {
  apply(registration('1', '/web', { selectors: [NODE] }));
  const { child, calls } = await connected();
  const stream = new Reader(calls.fetchX509SVID({}, header));
  await stream.next();
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
  apply(registration('2', '/db', { selectors: [NODE] }));
  await expect(stream.next()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await expect(first(calls)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await expect(calls.fetchJWTSVID({ audience: ['a'], spiffeId: '' }, header)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

const uid = process.getuid?.() ?? 0;
const [root, other] = [uid === 0, uid === 0 ? 65_534 : uid];
const whose = root
  ? 'another user has identities of his own, and none of ours'
  : 'a process has the identities of its user (as root: of another one)';
test(`WE-19: ${whose}`, async () => {
  apply(
    registration('1', '/us', { selectors: [`unix:uid:${uid}`] }),
    registration('2', '/them', { selectors: [`unix:uid:${other}`, NODE] }),
    registration('3', '/nobody', { selectors: [`unix:uid:${other + 1}`] }),
  );
  const { child, calls } = await connected(root ? other : undefined);
  expect(await first(calls)).toEqual(root ? ['spiffe://example.org/them'] : ['spiffe://example.org/us', 'spiffe://example.org/them']);
  const ours = await first(rig.calls);
  expect(ours).toContain('spiffe://example.org/us');
  expect(ours.includes('spiffe://example.org/them')).toBe(!root);
  expect(child.exitCode).toBeNull();
});
