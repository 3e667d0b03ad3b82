/** Story 2: another user of the machine sends SIGUSR1, Node's way to open a debugger; nothing opens, in any phase. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Agent, createHouse, type House, runToEnd } from './house.ts';

let house: House;
let agent: Agent;

beforeAll(async () => {
  house = await createHouse();
});
afterAll(() => house.close());

/** Whether something listens where Node's inspector would. */
function inspectorListens(): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(9229, '127.0.0.1');
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
}

/**
 * Whether SIGUSR1 would still end the process: its Node has neither blocked nor handled it. That is so for a millisecond or two after any
 * program's start; nothing of it has run yet then.
 */
function isUnborn(pid: number): boolean {
  if (!readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('warifu.mjs')) return true;
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const bit = 1n << 9n;
  return ['SigBlk', 'SigIgn', 'SigCgt'].every(
    (name) => (BigInt(`0x${new RegExp(`${name}:\\s+(\\w+)`).exec(status)?.[1] ?? '0'}`) & bit) === 0n,
  );
}

/** Signals again and again, from the first moment that a signal does not end the process, until `phase` is over. */
async function pester(pid: number, phase: Promise<unknown>): Promise<boolean> {
  while (isUnborn(pid)) await new Promise((resolve) => setImmediate(resolve));
  let over = false;
  void phase.finally(() => {
    over = true;
  });
  let seen = false;
  while (!over) {
    try {
      process.kill(pid, 'SIGUSR1');
    } catch {
      break;
    }
    seen ||= await inspectorListens();
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return seen || inspectorListens();
}

test('a plain Node process does open it: the probe sees what it should', async () => {
  const plain = runToEnd([process.execPath, '-e', "process.kill(process.pid, 'SIGUSR1'); setTimeout(() => {}, 1500)"]);
  let seen = false;
  let over = false;
  void plain.finally(() => {
    over = true;
  });
  while (!over && !seen) {
    seen = await inspectorListens();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await plain;
  expect(seen).toBe(true);
});

test('the server opens none while it starts and runs', async () => {
  const starting = house.startServer();
  const { pid } = house.server;
  expect(await pester(pid, starting)).toBe(false);
  await starting;
});

test('the agent opens none while it starts and runs', async () => {
  agent = await house.createAgent();
  const daemon = agent.launch();
  expect(await pester(daemon.pid, daemon.accepts(agent.socketPath))).toBe(false);
  expect((await house.run('agent', 'healthcheck', '-socketPath', agent.socketPath)).code).toBe(0);
});

/** How many TCP sockets of that process wait for callers. */
function tcpListeners(pid: number): number {
  const own = new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
      } catch {
        // closed meanwhile
        return [];
      }
    }),
  );
  return ['tcp', 'tcp6'].flatMap((family) =>
    readFileSync(`/proc/${pid}/net/${family}`, 'utf8')
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .filter(([, , , state, , , , , , inode = '']) => state === '0A' && own.has(inode)),
  ).length;
}

test('WE-1, WE-2, WE-5: the agent listens on its UNIX socket alone, which no other host reaches; the server, its twin, on TCP too', () => {
  expect([tcpListeners(agent.process.pid), tcpListeners(house.server.pid)]).toEqual([0, 1]);
});

test('neither opens one while it drains', async () => {
  for (const daemon of [agent.process, house.server]) {
    const { pid } = daemon;
    expect(await pester(pid, daemon.stop())).toBe(false);
    expect(daemon.end?.code).toBe(0);
  }
});

test('a start that is told to open an inspector is refused', async () => {
  const { code, stderr } = await runToEnd([...house.program, 'server', 'run', '-config', house.serverConf], {
    env: { NODE_OPTIONS: '--inspect=127.0.0.1:0' },
  });
  expect(code).toBe(1);
  expect(stderr).toContain('insecure_allow_inspector');
});
