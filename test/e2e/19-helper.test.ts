/** Story 19: the helper beside a real server and agent: it writes, renews, ends as it is told, and leaves whole files whatever becomes of it. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { Rig, triple, until } from '../proxy/helper/rig.ts';
import { Daemon } from './daemon.ts';
import { type Agent, createHouse, type House, runToEnd, WARIFU } from './house.ts';

let house: House;
let agent: Agent;
beforeAll(async () => {
  house = await createHouse({ x509SvidTtl: '20s' });
  await house.startServer();
  agent = await house.createAgent('one', { attestor: 'x509pop' });
  await agent.start();
  await house.createEntry({ id: '/web', parent: agent });
});
afterAll(() => house.close());

let folders = 0;
/** A folder for files and a configuration that has it as cert_dir. */
function settle(more = ''): { readonly dir: string; readonly conf: string } {
  const dir = join(house.dir, `files-${++folders}`);
  mkdirSync(dir);
  const conf = join(house.dir, `helper-${folders}.conf`);
  writeFileSync(conf, `agent_address = "${agent.socketPath}"\n${triple(dir)}\n${more}\n`);
  return { dir, conf };
}
const leafOf = (dir: string) => X509Svid.fromPem(readFileSync(join(dir, 'svid.pem')), readFileSync(join(dir, 'svid_key.pem'))).leaf;

const running: Daemon[] = [];
function helper(conf: string, options: { readonly before?: readonly string[]; readonly args?: readonly string[] } = {}): Daemon {
  const daemon = new Daemon('helper', [...(options.before ?? []), ...WARIFU, 'helper', '-config', conf, ...(options.args ?? [])]);
  running.push(daemon);
  return daemon;
}
afterEach(async () => {
  for (const daemon of running.splice(0)) if (!daemon.end) await daemon.kill();
});

describe('HP-6 init', () => {
  test('ends with 0 when the files are there, and they are good', async () => {
    const { dir, conf } = settle();
    const { code, stderr } = await runToEnd([...WARIFU, 'helper', '-config', conf, '-daemon-mode=false']);
    expect([code, stderr.includes('Every output is written')]).toEqual([0, true]);
    expect(leafOf(dir).uris).toEqual(['spiffe://example.org/web']);
    const checked = await runToEnd([...WARIFU, 'helper', 'check', dir]);
    expect([checked.code, checked.stdout.includes('The files are good.')]).toEqual([0, true]);
  });

  test('has an exit code for each thing that can be in the way', async () => {
    const { dir, conf } = settle('init_timeout = "1s"');
    const code = async (text: string) => {
      writeFileSync(conf, text);
      return (await runToEnd([...WARIFU, 'helper', '-config', conf, '-daemon-mode=false', '-wait', '1s'])).code;
    };
    const good = readFileSync(conf, 'utf8');
    expect(await code(`${good} nonsense = 1`)).toBe(2);
    expect(await code(good.replace(agent.socketPath, join(house.dir, 'none.sock')))).toBe(3);
    expect(await code(`${good} spiffe_id = "spiffe://example.org/none"`)).toBe(4);
    mkdirSync(join(dir, 'svid.pem', 'in-the-way'), { recursive: true });
    expect(await code(good)).toBe(5);
    rmSync(join(dir, 'svid.pem'), { recursive: true });
    expect(await code(good)).toBe(0);
  });

  test('waits for the socket and the entry', async () => {
    const late = await house.createAgent('late', { attestor: 'x509pop' });
    const { dir, conf } = settle();
    writeFileSync(conf, readFileSync(conf, 'utf8').replace(agent.socketPath, late.socketPath));
    const init = helper(conf, { args: ['-daemon-mode=false', '-wait', '60s'] });
    await init.line(/No newer files/);
    await late.start();
    await house.createEntry({ id: '/late', parent: late });
    expect((await init.exited).code).toBe(0);
    expect(leafOf(dir).uris).toEqual(['spiffe://example.org/late']);
    await late.process.stop();
  });
});

describe('HP-13 as a daemon', () => {
  test('renews before the end, through a restart of the agent, and an entry that is deleted takes no files away', async () => {
    const { dir, conf } = settle(
      'health_checks { listener_enabled = true socket_path = "probes.sock" }'.replace('probes.sock', join(house.dir, 'probes.sock')),
    );
    const daemon = helper(conf);
    await daemon.line(/Every output is written/);
    const first = leafOf(dir);
    await until('renewed', () => leafOf(dir).serialNumber !== first.serialNumber, 30_000);
    expect(Date.now()).toBeLessThan(first.notAfterMs);
    const second = leafOf(dir);
    await agent.process.stop();
    await agent.start();
    await until('renewed', () => leafOf(dir).serialNumber !== second.serialNumber, 30_000);
    const entry =
      (await house.ok('server', 'entry', 'show', '-spiffeID', 'spiffe://example.org/web')).match(/Entry ID\s+: (\S+)/)?.[1] ?? '';
    const from = daemon.lines.length;
    await house.deleteEntry(entry);
    await daemon.line(/No newer files/, { from });
    expect(leafOf(dir).uris).toEqual(['spiffe://example.org/web']);
    const third = leafOf(dir).serialNumber;
    await house.createEntry({ id: '/web', parent: agent });
    await until('renewed', () => leafOf(dir).serialNumber !== third, 30_000);
    expect((await daemon.stop(1_000)).code).toBe(0);
  });

  test.each(['SIGTERM', 'SIGINT'] as const)(
    'ends with 0 within a second of %s, with files and while it waits for them; SIGHUP ends nothing',
    async (name) => {
      const good = settle();
      const waiting = settle();
      writeFileSync(waiting.conf, readFileSync(waiting.conf, 'utf8').replace(agent.socketPath, join(house.dir, 'none.sock')));
      for (const [conf, ready] of [
        [good.conf, /Every output is written/],
        [waiting.conf, /No newer files/],
      ] as const) {
        const daemon = helper(conf);
        await daemon.line(ready);
        daemon.signal('SIGHUP');
        expect(await Promise.race([daemon.exited, new Promise((done) => setTimeout(() => done('runs'), 200))])).toBe('runs');
        const at = performance.now();
        daemon.signal(name);
        expect((await daemon.exited).code).toBe(0);
        expect(performance.now() - at).toBeLessThan(1_000);
      }
      const init = helper(waiting.conf, { args: ['-daemon-mode=false'] });
      await init.line(/No newer files/);
      init.signal(name);
      expect((await init.exited).code).toBe(name === 'SIGTERM' ? 143 : 130);
    },
  );

  test('as a wrapper hands signals on, and its exit code is that of the command', async () => {
    const { dir, conf } =
      settle(`command = ["sh", "-c", "trap 'echo got hup' HUP; trap 'echo got term; exit 9' TERM; test -s $WARIFU_DIRECTORY/svid_key.pem && echo up; while :; do sleep 0.02; done"]
on_exit = "exit"`);
    const daemon = helper(conf);
    await daemon.line(/^up$/);
    expect(leafOf(dir).uris).toEqual(['spiffe://example.org/web']);
    daemon.signal('SIGHUP');
    await daemon.line(/^got hup$/);
    daemon.signal('SIGTERM');
    await daemon.line(/^got term$/);
    expect((await daemon.exited).code).toBe(9);
  });
});

describe('HP-13 as process 1', () => {
  test('reaps orphans, hands signals on and gives the exit code of its command', async () => {
    // the orphans' parent ends before them: they become children of process 1
    const script = `for n in 1 2 3 4 5; do (sh -c 'sleep 0.3' & ) ; done
trap 'echo got usr2' USR2; trap 'exit 5' TERM
sleep 1.5; echo "zombies $(cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | grep -c '^Z')"; echo "first $(tr '\\0' ' ' </proc/1/cmdline)"
while :; do sleep 0.02; done`;
    const file = join(house.dir, 'orphans.sh');
    writeFileSync(file, script);
    const { conf } = settle(`command = ["sh", "${file}"]\non_exit = "exit"\nlog_level = "debug"`);
    const outer = helper(conf, { before: ['unshare', '-pf', '--mount-proc', '--kill-child'] });
    expect(await outer.line(/^first /)).toContain('warifu');
    expect(await outer.line(/^zombies /)).toBe('zombies 0');
    const inner = execFileSync('ps', ['-o', 'pid=', '--ppid', String(outer.pid)], { encoding: 'utf8' }).trim();
    process.kill(Number(inner), 'SIGUSR2');
    await outer.line(/^got usr2$/);
    process.kill(Number(inner), 'SIGTERM');
    expect((await outer.exited).code).toBe(5);
    expect(outer.lines.items.filter((line) => line.includes('Orphan reaped')).length).toBeGreaterThanOrEqual(5);
  });
});

describe('HP-2 files', () => {
  test('stay when the disk is full, and are new once there is room', async () => {
    const { dir, conf } = settle();
    expect(process.getuid?.()).toBe(0);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=128k', 'tmpfs', dir]);
    try {
      const daemon = helper(conf);
      await daemon.line(/Every output is written/);
      const first = leafOf(dir);
      spawnSync('dd', ['if=/dev/zero', `of=${join(dir, 'filler')}`, 'bs=1k', 'count=1000'], { stdio: 'ignore' });
      await daemon.line(/Files not written.*ENOSPC|ENOSPC/, { withinMs: 30_000 });
      expect(leafOf(dir).serialNumber).toBe(first.serialNumber);
      rmSync(join(dir, 'filler'));
      await until('written', () => leafOf(dir).serialNumber !== first.serialNumber, 30_000);
      expect((await daemon.stop(1_000)).code).toBe(0);
    } finally {
      execFileSync('umount', ['-l', dir]);
    }
  });

  test('stay when the folder is read-only, and are new once it is not', async () => {
    const { dir, conf } = settle();
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', dir]);
    try {
      const daemon = helper(conf);
      await daemon.line(/Every output is written/);
      const first = leafOf(dir);
      execFileSync('mount', ['-o', 'remount,ro', dir]);
      await daemon.line(/EROFS/, { withinMs: 30_000 });
      expect(leafOf(dir).serialNumber).toBe(first.serialNumber);
      execFileSync('mount', ['-o', 'remount,rw', dir]);
      await until('written', () => leafOf(dir).serialNumber !== first.serialNumber, 30_000);
    } finally {
      for (const daemon of running.splice(0)) if (!daemon.end) await daemon.kill();
      execFileSync('umount', ['-l', dir]);
    }
  });
});

describe('HP-2 beside a Workload API that pushes without end', () => {
  let rig: Rig;
  afterEach(() => rig[Symbol.asyncDispose]());
  /** What a reader finds by one look at the link: a key that fits its certificate, both of the same writing. */
  const whole = (dir: string) => {
    const folder = realpathSync(join(dir, '..x509'));
    return X509Svid.fromPem(readFileSync(join(folder, 'svid.pem')), readFileSync(join(folder, 'svid_key.pem'))).leaf.serialNumber;
  };

  test('killed at any moment it leaves a whole generation, and nothing else after its next start', async () => {
    rig = new Rig({ identities: ['/web'] });
    await rig.api.start();
    const dir = rig.folder('d');
    const first = await rig.run(`${triple(dir)} daemon_mode = false`);
    expect(first.code).toBe(0);
    for (let round = 0; round < 10; round++) {
      const daemon = rig.spawn(triple(dir));
      await daemon.line(/Every output is written/);
      const pushing = setInterval(() => rig.api.renew(), 3);
      await new Promise((done) => setTimeout(done, 20 + Math.random() * 80));
      await daemon.kill();
      clearInterval(pushing);
      expect(whole(dir)).toMatch(/^\d+$/);
    }
    expect((await rig.run(`${triple(dir)} daemon_mode = false`)).code).toBe(0);
    expect(readdirSync(dir).filter((name) => name.includes('.tmp.'))).toEqual([]);
    expect(readdirSync(dir).filter((name) => name.startsWith('..x509.')).length).toBeLessThanOrEqual(2);
  });

  test('100 renewals in three formats under readers in a loop: not one torn read', async () => {
    const { rotate } = await import('../../bench/figures/helper.ts');
    rig = new Rig({ identities: ['/web'] });
    await rig.api.start();
    const { rotations, reads, torn } = await rotate(rig, 100);
    expect({ rotations, torn }).toEqual({ rotations: 100, torn: 0 });
    expect(reads).toBeGreaterThan(1_000);
  });
});
