import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { silent } from '../../../core/log.ts';
import unix from '../../../plugins/workload-attestor/unix.ts';
import { systemClock } from '../../../spiffe/clock.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { Latest } from '../../../spiffe/latest.ts';

const never = new AbortController().signal;
const host = { trustDomain: TrustDomain.parse('example.org'), log: silent, clock: systemClock, signal: never, reloads: new Latest(0) };
const start = (settings: object = {}) => unix.start(unix.settings.parse(settings), host);
const self = { pid: process.pid, uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };

test('ids and the names that the files give them', async () => {
  const selectors = await (await start()).attest(self, never);
  expect(selectors).toContain(`uid:${self.uid}`);
  expect(selectors).toContain(`gid:${self.gid}`);
  const [name] =
    readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .find((line) => line.split(':')[2] === String(self.uid))
      ?.split(':') ?? [];
  if (name) expect(selectors).toContain(`user:${name}`);
  for (const gid of /^Groups:(.*)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]?.match(/\d+/g) ?? [])
    expect(selectors).toContain(`supplementary_gid:${gid}`);
  expect(selectors.some((selector) => /^(path|sha256):/.test(selector))).toBe(false);
});

test('with discover_workload_path also path and hash of the program', async () => {
  const selectors = await (await start({ discover_workload_path: true })).attest(self, never);
  const path = realpathSync(process.execPath);
  expect(selectors).toContain(`path:${path}`);
  expect(selectors).toContain(`sha256:${createHash('sha256').update(readFileSync(path)).digest('hex')}`);
});

test('a program over the limit fails; below zero there is no hash', async () => {
  await expect((await start({ discover_workload_path: true, workload_size_limit: 1000 })).attest(self, never)).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    message: expect.stringMatching(/exceeds size limit \(\d+ > 1000\)/),
  });
  const selectors = await (await start({ discover_workload_path: true, workload_size_limit: -1 })).attest(self, never);
  expect(selectors).toContain(`path:${realpathSync(process.execPath)}`);
  expect(selectors.some((selector) => selector.startsWith('sha256:'))).toBe(false);
});

test('the hash is that of the running file, also when another lies under its path now', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'unix-'));
  const path = join(dir, 'program');
  copyFileSync('/bin/sleep', path);
  chmodSync(path, 0o755);
  const hash = createHash('sha256').update(readFileSync(path)).digest('hex');
  const child = spawn(path, ['60']);
  await once(child, 'spawn');
  try {
    const attestor = await start({ discover_workload_path: true });
    const process = { ...self, pid: child.pid ?? 0 };
    expect(await attestor.attest(process, never)).toContain(`sha256:${hash}`);
    rmSync(path);
    copyFileSync('/bin/true', path);
    const after = await attestor.attest(process, never);
    expect(after).toContain(`sha256:${hash}`);
    expect(after).toContain(`path:${path} (deleted)`);
  } finally {
    child.kill();
    rmSync(dir, { recursive: true });
  }
});

test('a process that is gone cannot be told', async () => {
  const child = spawn('/bin/true');
  await once(child, 'exit');
  await expect((await start()).attest({ ...self, pid: child.pid ?? 0 }, never)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

test.runIf(process.getuid?.() === 0)('another user has other selectors', async () => {
  const child = spawn('setpriv', ['--reuid=12345', '--regid=12346', '--groups=12347,0', 'sh', '-c', 'echo up; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  try {
    const selectors = await (await start()).attest({ pid: child.pid ?? 0, uid: 12345, gid: 12346 }, never);
    expect(selectors).toEqual(['uid:12345', 'gid:12346', 'supplementary_gid:0', 'supplementary_group:root', 'supplementary_gid:12347']);
  } finally {
    child.kill();
  }
});

test('unknown settings are refused', () => {
  expect(unix.settings.safeParse({ discover_path: true }).success).toBe(false);
});
