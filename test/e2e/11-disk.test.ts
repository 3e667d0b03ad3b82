/** Story 11: bad days of a disk. It is full, read-only, corrupt, locked by another, or of a newer program: a clear error, nothing half written, and what runs goes on answering. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { type Agent, createHouse, type House, OUR_UID, ROOT } from './house.ts';

let house: House;
const mounted: string[] = [];
let helper: ChildProcess | undefined;
afterEach(async () => {
  helper?.kill('SIGKILL');
  helper = undefined;
  // its processes first, then what is mounted below its folder
  await house?.stop();
  for (const at of mounted.splice(0)) execFileSync('umount', ['-l', at]);
  await house?.close();
});

/** A small disk of its own; needs root, as CI has it. */
function disk(at: string, size: string): void {
  mount(['-t', 'tmpfs', '-o', `size=${size},mode=700`, 'tmpfs'], at);
}

function mount(args: readonly string[], at: string): void {
  mkdirSync(at, { recursive: true, mode: 0o700 });
  execFileSync('mount', [...args, at]);
  mounted.push(at);
}

/** One with a real file system on it; gives the file that holds it. */
function ext4(at: string): string {
  const image = `${at}.img`;
  execFileSync('truncate', ['-s', '24M', image]);
  execFileSync('mkfs.ext4', ['-q', image]);
  mount(['-o', 'loop,errors=remount-ro', image], at);
  return image;
}

/** Writes until there is no room; removing the file makes room again. */
function fill(at: string): string {
  const path = join(at, 'filler');
  const file = openSync(path, 'w');
  try {
    for (const size of [65_536, 4_096, 512, 1])
      for (;;) {
        try {
          writeSync(file, Buffer.alloc(size));
        } catch {
          break;
        }
      }
  } finally {
    closeSync(file);
  }
  return path;
}

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
const paths = async () => {
  const { entries } = JSON.parse(await house.ok('server', 'entry', 'show', '-output', 'json')) as {
    entries: { spiffe_id: { path: string } }[];
  };
  return entries.map(({ spiffe_id: { path } }) => path).sort();
};
const fetched = async (agent: Agent) => (await house.run('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath)).stdout;
const datastore = () => join(house.dir, 'server', 'datastore.sqlite3');

/** A program that is none of ours and has the database for itself, until it is ended. */
async function lock(): Promise<void> {
  const sqlite = createRequire(import.meta.url).resolve('better-sqlite3');
  helper = spawn(
    process.execPath,
    [
      '-e',
      `const db = require(${JSON.stringify(sqlite)})(${JSON.stringify(datastore())}); db.exec('BEGIN EXCLUSIVE'); console.log('locked'); setInterval(() => {}, 1000);`,
    ],
    {
      cwd: ROOT,
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  if (!helper.stdout) throw new Error('no output');
  await once(helper.stdout, 'data');
}

describe('a running server', () => {
  const begin = async () => {
    await house.startServer();
    const agent = await house.createAgent('agent', { attestor: 'x509pop' });
    await agent.start();
    await house.createEntry({ id: '/web', parent: agent });
    await expect.poll(() => fetched(agent)).toContain('/web');
    return agent;
  };
  /** Whoever only reads is answered, an agent's SVIDs are signed, and at once. */
  const reads = async (agent: Agent) => {
    const from = performance.now();
    expect(await paths()).toContain('/web');
    expect((await house.run('server', 'x509', 'mint', '-spiffeID', 'spiffe://example.org/m')).code).toBe(0);
    expect(await fetched(agent)).toContain('/web');
    expect(performance.now() - from).toBeLessThan(3_000);
  };

  test('whose disk is full says so, answers reads, and writes again when there is room; nothing is half written', async () => {
    house = await createHouse({ logLevel: 'INFO' });
    disk(join(house.dir, 'server'), '4m');
    const agent = await begin();
    const filler = fill(join(house.dir, 'server'));
    const refused = await create('/full');
    expect(refused.code).toBe(1);
    expect(refused.stdout + refused.stderr).toContain('the disk is full');
    await reads(agent);
    rmSync(filler);
    expect((await create('/room')).code).toBe(0);
    expect(await paths()).toEqual(['/room', '/web']);
    await house.server.kill();
    await house.startServer();
    expect(await paths()).toEqual(['/room', '/web']);
  });

  test('whose disk the kernel made read-only after an error says so and answers reads; on a disk in order all is there', async () => {
    house = await createHouse({ logLevel: 'INFO' });
    const image = ext4(join(house.dir, 'server'));
    const agent = await begin();
    const device = execFileSync('findmnt', ['-no', 'SOURCE', join(house.dir, 'server')], { encoding: 'utf8' }).trim();
    writeFileSync(`/sys/fs/ext4/${basename(device)}/trigger_fs_error`, '1');
    const refused = await create('/read-only');
    expect(refused.code).toBe(1);
    expect(refused.stdout + refused.stderr).toMatch(/datastore .*: (read-only|on a read-only file system|the disk fails)/);
    await reads(agent);
    await house.server.kill();
    execFileSync('umount', [mounted.pop() ?? '']);
    // 1: errors were found and corrected
    try {
      execFileSync('fsck.ext4', ['-fy', image], { stdio: 'ignore' });
    } catch (error) {
      expect((error as { status: number }).status).toBe(1);
    }
    mount(['-o', 'loop', image], join(house.dir, 'server'));
    await house.startServer();
    expect((await create('/writable')).code).toBe(0);
    expect(await paths()).toEqual(['/web', '/writable']);
  });

  test('whose database another program has locked answers reads meanwhile, says so after a while, and goes on when it is free', async () => {
    house = await createHouse({ logLevel: 'INFO' });
    const agent = await begin();
    await lock();
    const slow = create('/locked');
    await reads(agent);
    const refused = await slow;
    expect(refused.code).toBe(1);
    expect(refused.stdout + refused.stderr).toContain('locked by another program');
    // one that waits is written when the other lets go
    const waiting = create('/waited');
    await new Promise((done) => setTimeout(done, 700));
    helper?.kill('SIGKILL');
    expect((await waiting).code).toBe(0);
    expect(await paths()).toEqual(['/waited', '/web']);
  });
});

test('a server whose datastore another program has locked starts, since it need not write, and answers reads', async () => {
  house = await createHouse({ logLevel: 'INFO' });
  await house.startServer();
  expect((await create('/kept')).code).toBe(0);
  await house.server.stop();
  await lock();
  await house.startServer();
  expect(await paths()).toEqual(['/kept']);
});

describe('a server does not start, and says why, when its datastore', () => {
  const started = async (spoil: (path: string) => void) => {
    house = await createHouse({ logLevel: 'INFO' });
    await house.startServer();
    expect((await create('/kept')).code).toBe(0);
    await house.server.stop();
    spoil(datastore());
    return house.run('server', 'run', '-config', house.serverConf);
  };
  const rows: readonly [what: string, spoil: (path: string) => void, words: RegExp][] = [
    ['is no database', (path) => writeFileSync(path, 'not a database, whatever it was '.repeat(300)), /not a database: restore a backup/],
    [
      'is corrupt in the middle',
      (path) => {
        const file = openSync(path, 'r+');
        for (let at = 4_096; at < statSync(path).size; at += 4_096) writeSync(file, Buffer.alloc(2_000, 0x5a), 0, 2_000, at);
        closeSync(file);
      },
      /corrupt: restore a backup|malformed/,
    ],
    [
      'is of a newer version',
      (path) =>
        execFileSync(process.execPath, [
          '-e',
          `require(${JSON.stringify(createRequire(import.meta.url).resolve('better-sqlite3'))})(${JSON.stringify(path)}).exec('INSERT INTO schema_version VALUES (99)')`,
        ]),
      /made by a newer Warifu/,
    ],
  ];
  for (const [what, spoil, words] of rows) {
    test(what, async () => {
      const { code, stdout, stderr } = await started(spoil);
      expect(code).toBe(1);
      expect(stdout + stderr).toMatch(words);
    });
  }

  test('is on a full disk; with room it starts', async () => {
    house = await createHouse({ logLevel: 'INFO' });
    disk(join(house.dir, 'server'), '256k');
    const filler = fill(join(house.dir, 'server'));
    const { code, stdout, stderr } = await house.run('server', 'run', '-config', house.serverConf);
    expect(code).toBe(1);
    expect(stdout + stderr).toMatch(/no space left|the disk is full/i);
    rmSync(filler);
    execFileSync('mount', ['-o', 'remount,size=8m', join(house.dir, 'server')]);
    await house.startServer();
    expect((await create('/kept')).code).toBe(0);
  });
});

test('an agent whose disk is full goes on serving what it has, says so, and leaves no half file; with room it renews', async () => {
  house = await createHouse({ logLevel: 'INFO', serverSettings: ['agent_ttl = "20s"'] });
  await house.startServer();
  const agent = await house.createAgent('agent', { attestor: 'x509pop' });
  disk(agent.dataDir, '1m');
  await agent.start();
  await house.createEntry({ id: '/web', parent: agent });
  await expect.poll(() => fetched(agent)).toContain('/web');
  const kept = readFileSync(join(agent.dataDir, 'agent-data.json'), 'utf8');
  const filler = fill(agent.dataDir);
  await agent.process.line(/Failed to (rotate agent SVID|re-attest).*(ENOSPC|no space)/i, { withinMs: 30_000 });
  expect(await fetched(agent)).toContain('/web');
  expect(readFileSync(join(agent.dataDir, 'agent-data.json'), 'utf8')).toBe(kept);
  const from = agent.process.lines.length;
  rmSync(filler);
  await agent.process.line(/Node attestation was successful|Agent SVID renewed/, { from, withinMs: 30_000 });
  expect(JSON.parse(readFileSync(join(agent.dataDir, 'agent-data.json'), 'utf8'))).toHaveProperty('svid');
  expect(await fetched(agent)).toContain('/web');
});
