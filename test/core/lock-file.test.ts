/** One program per folder, between real processes: who comes second is refused and told who is there; however the first one ends, the lock is free. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type LockFile, lockFile } from '../../core/lock-file.ts';
import { SpiffeError } from '../../spiffe/errors.ts';

let dir: string;
let path: string;
const ends: (() => void)[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lock-'));
  path = join(dir, 'data', 'db.lock');
});
afterEach(() => {
  for (const end of ends.splice(0)) end();
  rmSync(dir, { recursive: true });
});

function lock(): LockFile {
  const held = lockFile(path, 'the data of a test');
  ends.push(() => held.close());
  return held;
}

function refusal(): string {
  try {
    lock();
    return '';
  } catch (error) {
    expect(error).toBeInstanceOf(SpiffeError);
    expect((error as SpiffeError).code).toBe('FAILED_PRECONDITION');
    return (error as Error).message;
  }
}

const MODULE = JSON.stringify(new URL('../../core/lock-file.ts', import.meta.url).href);

/** Another process that holds the lock, and (if asked) leaves a process of its own behind when it is killed. */
async function holder(leavesChild = false): Promise<{ readonly pid: number; readonly childPid: number; kill(): Promise<void> }> {
  const child = spawn(
    process.execPath,
    [
      '--input-type=module',
      '--eval',
      `import { spawn } from 'node:child_process';
       const { lockFile } = await import(${MODULE});
       lockFile(${JSON.stringify(path)}, 'the data of a test');
       const left = ${leavesChild} ? spawn('sleep', ['60'], { stdio: 'ignore', detached: true }).pid : 0;
       console.log('locked', left);
       setInterval(() => {}, 1000);`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  ends.push(() => child.kill('SIGKILL'));
  const [said] = (await once(child.stdout, 'data')) as [Buffer];
  return {
    pid: child.pid ?? 0,
    childPid: Number(/locked (\d+)/.exec(String(said))?.[1]),
    async kill() {
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

test('a second process is refused and told the pid of the first; kill -9 frees the lock', { timeout: 20_000 }, async () => {
  const first = await holder();
  expect(refusal()).toContain(`the data of a test is in use by process ${first.pid}`);
  // asking changed nothing
  expect(readFileSync(path, 'utf8')).toBe(`${first.pid}\n`);
  expect(refusal()).toContain(String(first.pid));
  await first.kill();
  expect(refusal()).toBe('');
  expect(readFileSync(path, 'utf8')).toBe(`${process.pid}\n`);
});

test('what the holder started and left behind does not hold the lock', { timeout: 20_000 }, async () => {
  const first = await holder(true);
  ends.push(() => process.kill(first.childPid, 'SIGKILL'));
  expect(refusal()).toContain(String(first.pid));
  await first.kill();
  expect(() => process.kill(first.childPid, 0)).not.toThrow();
  expect(refusal()).toBe('');
});

test('of many that start at once exactly one gets it', { timeout: 30_000 }, async () => {
  const script = `const { lockFile } = await import(${MODULE});
    try { lockFile(${JSON.stringify(path)}, 'x'); console.log('got'); } catch { console.log('refused'); }
    setInterval(() => {}, 1000);`;
  const said: string[] = [];
  for (let i = 0; i < 4; i++) {
    const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    ends.push(() => child.kill('SIGKILL'));
    child.stdout.on('data', (data: Buffer) => said.push(String(data).trim()));
  }
  while (said.length < 4) await setImmediate();
  expect(said.sort()).toEqual(['got', 'refused', 'refused', 'refused']);
});

test('the same process is refused too, until it lets go; letting go twice lets go of nothing else', () => {
  const first = lock();
  expect(refusal()).toContain(`process ${process.pid}`);
  first.close();
  const second = lock();
  first.close();
  expect(refusal()).toContain(`process ${process.pid}`);
  second.close();
  expect(refusal()).toBe('');
});

test('a file left by one that is gone is no lock, and is private', () => {
  lock().close();
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(statSync(join(dir, 'data')).mode & 0o777).toBe(0o700);
  writeFileSync(path, '999999\nwith more lines\n');
  expect(refusal()).toBe('');
  expect(readFileSync(path, 'utf8')).toBe(`${process.pid}\n`);
});
