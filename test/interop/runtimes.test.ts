/**
 * The package as its users get it, on other runtimes than the project's own: all of it on Node 22 and 26, its JWT half on Deno, Bun and workerd, which gives it WebCrypto
 * and nothing else. docs/runtimes.md says what each lacks; what it says is compared.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ROOT } from '../e2e/house.ts';
import { expand, readFile, type Row } from '../vectors/row.ts';

const SOURCES = join(import.meta.dirname, 'runtimes');
const CACHE = join(ROOT, '.warifu', 'interop', 'runtimes');
const MODULES = join(CACHE, 'node_modules');
const ARCH = process.arch === 'arm64' ? 'arm64' : 'x64';

/** Where the packages have their programs. */
const PROGRAMS = {
  'Node 22': [join(MODULES, `node22-linux-${ARCH}/bin/node`)],
  'Node 24': [process.execPath],
  'Node 26': [join(MODULES, `node26-linux-${ARCH}/bin/node`)],
  Deno: [join(MODULES, `@deno/linux-${ARCH}-glibc/deno`), 'run', '--no-prompt', '--allow-read', '--allow-env', '--node-modules-dir=manual'],
  Bun: [join(MODULES, `@oven/bun-linux-${ARCH === 'x64' ? 'x64' : 'aarch64'}/bin/bun`), 'run'],
} as const;
const WORKERD = join(MODULES, `@cloudflare/workerd-linux-${ARCH === 'x64' ? '64' : 'arm64'}/bin/workerd`);

const FAMILIES = ['spiffe-id', 'trust-domain', 'match', 'jwt-svid'] as const;
const ROWS: readonly (Row & { readonly family: string })[] = FAMILIES.flatMap((family) =>
  expand(readFile(family)).map((row) => ({ family, ...row })),
);

interface Verdict {
  readonly expect: 'accept' | 'reject';
  readonly sees?: string;
  readonly reason?: string;
}

/** What docs/runtimes.md says a runtime lacks: the algorithms, by the runtime's name. */
function lacks(runtime: string): readonly string[] {
  const page = readFileSync(join(ROOT, 'docs', 'runtimes.md'), 'utf8');
  const row = page.split('\n').find((line) => line.startsWith(`| ${runtime} `));
  if (row === undefined) throw new Error(`docs/runtimes.md has no row for ${runtime}`);
  return [...(row.split('|').at(-2) ?? '').matchAll(/`([A-Z]{2}\d{3})`/g)].map(([, name = '']) => name);
}

/** The algorithm that a token names; the rows that are refused for want of one are told by it. */
function algorithmOf(row: Row & { readonly family: string }): string | undefined {
  if (row.family !== 'jwt-svid') return undefined;
  try {
    const [head = ''] = (row.input as { readonly token: string }).token.split('.');
    return (JSON.parse(Buffer.from(head, 'base64url').toString()) as { readonly alg?: string }).alg;
  } catch {
    return undefined;
  }
}

/** Each vector as it must be judged where these algorithms are missing: a token of theirs is never accepted, and the runtime is named, not the token blamed. */
function expectVerdicts(verdicts: readonly Verdict[], missing: readonly string[]): void {
  expect(verdicts).toHaveLength(ROWS.length);
  const hit = new Set<string>();
  ROWS.forEach((row, index) => {
    const got = verdicts[index];
    const algorithm = algorithmOf(row);
    if (got?.reason === 'JWT_RUNTIME' && algorithm !== undefined && missing.includes(algorithm)) return void hit.add(algorithm);
    expect(got, row.name).toEqual(
      row.expect === 'accept' ? { expect: 'accept', sees: row.sees ?? got?.sees } : { expect: 'reject', reason: row.reason },
    );
  });
  expect([...hit].sort()).toEqual([...missing].sort());
}

beforeAll(() => {
  const lock = readFileSync(join(SOURCES, 'package-lock.json'));
  const stamp = join(CACHE, 'built-from');
  const wanted = createHash('sha256').update(lock).digest('hex');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    rmSync(CACHE, { recursive: true, force: true });
    mkdirSync(CACHE, { recursive: true });
    for (const name of ['package.json', 'package-lock.json']) cpSync(join(SOURCES, name), join(CACHE, name));
    const done = spawnSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: CACHE,
      encoding: 'utf8',
    });
    if (done.status !== 0) throw new Error(`npm can't install the runtimes: ${done.stderr}`);
    writeFileSync(stamp, wanted);
  }
  // the package, made anew
  for (const name of readdirSync(CACHE)) if (name.endsWith('.tgz')) rmSync(join(CACHE, name));
  const packed = spawnSync('npm', ['pack', '--silent', '--pack-destination', CACHE], { cwd: join(ROOT, 'spiffe'), encoding: 'utf8' });
  if (packed.status !== 0) throw new Error(`npm pack: ${packed.stderr}`);
  const into = join(MODULES, '@warifu', 'spiffe');
  rmSync(into, { recursive: true, force: true });
  mkdirSync(into, { recursive: true });
  const unpacked = spawnSync('tar', ['-xzf', packedFile(), '--strip-components=1', '-C', into], { encoding: 'utf8' });
  if (unpacked.status !== 0) throw new Error(`tar: ${unpacked.stderr}`);
  for (const name of readdirSync(SOURCES)) if (name.endsWith('.mjs')) cpSync(join(SOURCES, name), join(CACHE, name));
}, 300_000);

/** Of the package as it is now. */
function packedFile(): string {
  const file = readdirSync(CACHE).find((name) => name.endsWith('.tgz'));
  if (file === undefined) throw new Error('there is no packed file');
  return join(CACHE, file);
}

function run(command: readonly string[], stdin = ''): unknown {
  const [file = '', ...args] = command;
  const { status, stdout, stderr, signal } = spawnSync(file, args, {
    cwd: CACHE,
    input: stdin,
    encoding: 'utf8',
    timeout: 60_000,
    maxBuffer: 64 * 1024 * 1024,
    env: { PATH: process.env['PATH'] ?? '', HOME: CACHE, NO_COLOR: '1' },
  });
  if (status !== 0) throw new Error(`${command.join(' ')} ended with ${signal ?? status}: ${stderr.slice(-4_000)}`);
  return JSON.parse(stdout);
}

describe.each(Object.entries(PROGRAMS))('%s', (name, command) => {
  test(`judges ${ROWS.length} vectors of IDs, matchers and JWT-SVIDs as it must`, () => {
    const rows = ROWS.map(({ family, input }) => ({ family, input }));
    expectVerdicts(run([...command, join(CACHE, 'judge.mjs')], JSON.stringify(rows)) as Verdict[], lacks(name));
  });
});

describe.each(['Node 22', 'Node 24', 'Node 26'] as const)('%s', (name) => {
  test('runs every part of the package: sources, https, fetch, HTTP/2, gRPC, JWT-SVIDs; a stranger is refused by each', () => {
    const me = 'spiffe://example.org/web';
    expect(run([...PROGRAMS[name], join(CACHE, 'whole.mjs')])).toEqual({
      node: expect.stringMatching(new RegExp(`^${name.slice(5)}\\.`)) as unknown,
      svids: [me],
      https: [`you are ${me}`, 'refused: DENIED'],
      fetch: [`you are ${me}`, 'refused: DENIED'],
      undici: [`you are ${me}`, 'refused: DENIED'],
      http2: [`you are ${me}`, 'refused: DENIED'],
      grpc: [`you are ${me}`, 'refused: UNAVAILABLE'],
      jwt: [me, 'refused: SVID_INVALID'],
      bundles: 1,
      rotated: 'spiffe://example.org/next',
    });
  });
});

describe('workerd', () => {
  /** Every module that this one imports, itself first. */
  function modulesFrom(file: string, seen = new Set<string>()): ReadonlySet<string> {
    if (seen.has(file)) return seen;
    seen.add(file);
    for (const [, specifier = ''] of readFileSync(file, 'utf8').matchAll(/^(?:import|export)\s[^;]*?from\s+'([^']+)'/gms)) {
      if (specifier.startsWith('.')) modulesFrom(resolve(dirname(file), specifier), seen);
      else if (specifier !== '@warifu/spiffe/jwt') throw new Error(`${file} imports ${specifier}, which a bare runtime does not have`);
    }
    return seen;
  }

  let port: number;
  let folder: string;
  let stop: () => Promise<void>;

  beforeAll(async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    ({ port } = server.address() as AddressInfo);
    await new Promise((done) => void server.close(done));
    folder = mkdtempSync(join(tmpdir(), 'warifu-workerd-'));
    const jwt = join(MODULES, '@warifu/spiffe/dist/spiffe/jwt/index.js');
    const worker = readFileSync(join(CACHE, 'worker.mjs'), 'utf8').replace('@warifu/spiffe/jwt', `./${relative(CACHE, jwt)}`);
    const modules = [
      { name: 'worker.mjs', text: worker },
      ...[join(CACHE, 'verdicts.mjs'), ...modulesFrom(jwt)].map((file) => ({
        name: relative(CACHE, file),
        text: readFileSync(file, 'utf8'),
      })),
    ];
    modules.forEach(({ text }, index) => writeFileSync(join(folder, `${index}.js`), text));
    writeFileSync(
      join(folder, 'config.capnp'),
      `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .main)],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")],
);
const main :Workerd.Worker = (
  compatibilityDate = "2024-01-01",
  modules = [${modules.map(({ name }, index) => `(name = "${name}", esModule = embed "${index}.js")`).join(', ')}],
);
`,
    );
    const child = spawn(WORKERD, ['serve', '--verbose', join(folder, 'config.capnp'), 'config'], { stdio: ['ignore', 'pipe', 'pipe'] });
    let words = '';
    for (const out of [child.stdout, child.stderr]) out.on('data', (data: Buffer) => (words += String(data)));
    const ended = once(child, 'exit');
    stop = async () => {
      child.kill('SIGKILL');
      await ended;
    };
    for (const from = performance.now(); ; ) {
      const answered = await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body: '[]' }).catch(() => undefined);
      if (answered?.ok) break;
      if (child.exitCode !== null || performance.now() - from > 20_000)
        throw new Error(`workerd does not serve: ${words} ${answered?.status} ${await answered?.text()}`);
      await new Promise((done) => setTimeout(done, 50));
    }
  });
  afterAll(async () => {
    await stop?.();
    rmSync(folder, { recursive: true, force: true });
  });

  test(`judges ${ROWS.length} vectors with WebCrypto alone`, async () => {
    const rows = ROWS.map(({ family, input }) => ({ family, input }));
    const answer = await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body: JSON.stringify(rows) });
    expect(answer.status).toBe(200);
    expectVerdicts((await answer.json()) as Verdict[], lacks('workerd'));
  });
});

describe('the packed package', () => {
  const tool = (name: string, ...args: readonly string[]) =>
    spawnSync(process.execPath, [join(MODULES, name), ...args], { cwd: CACHE, encoding: 'utf8', env: { ...process.env, NO_COLOR: '1' } });

  test('publint finds nothing', () => {
    const { status, stdout, stderr } = tool('publint/src/cli.js', 'run', packedFile(), '--strict');
    expect(`${stdout}${stderr}`).toContain('All good!');
    expect(status).toBe(0);
  });

  // its users write ES modules: what `require` and resolution from before `exports` would find is not promised
  test('arethetypeswrong finds nothing', () => {
    const { status, stdout } = tool('@arethetypeswrong/cli/dist/index.js', packedFile(), '--profile', 'esm-only', '--format', 'json');
    const { analysis } = JSON.parse(stdout) as { analysis: { types: unknown; problems?: readonly { kind: string }[] } };
    expect(analysis.types).toMatchObject({ kind: 'included' });
    expect((analysis.problems ?? []).filter(({ kind }) => kind !== 'NoResolution' && kind !== 'CJSResolvesToESM')).toEqual([]);
    expect(status).toBe(0);
  });
});
