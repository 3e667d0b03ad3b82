/** Story 6: who installs the package gets the programs, what they need, and nothing else; it runs without the checkout. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createRunningHouse, ROOT, runToEnd } from './house.ts';

let folder: string;
let packed: readonly string[];
let program: string;

const npm = (cwd: string, ...args: string[]) =>
  execFileSync('npm', [...args, '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'warifu-package-'));
  // what `npm run build` and the lifecycle say goes before the answer
  const answer = npm(ROOT, 'pack', '--json', '--pack-destination', folder);
  const [{ filename, files }] = JSON.parse(answer.slice(answer.indexOf('[\n'))) as [{ filename: string; files: { path: string }[] }];
  packed = files.map(({ path }) => path);
  writeFileSync(join(folder, 'package.json'), '{ "private": true }');
  npm(folder, 'install', '--ignore-scripts', join(folder, filename));
  program = join(folder, 'node_modules', 'warifu', 'cli', 'warifu.mjs');
}, 180_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('it holds the programs and their docs, no tests, tools, sources or Node', () => {
  expect(packed).toEqual(
    expect.arrayContaining(['package.json', 'cli/warifu.mjs', 'dist/cli/main.js', 'dist/server/server.js', 'LICENSE', 'README.md']),
  );
  expect(
    packed.filter((path) => !/^(package\.json|LICENSE|README\.md|CHANGELOG\.md|cli\/warifu\.mjs|(dist|conf|docs)\/)/.test(path)),
  ).toEqual([]);
  expect(packed.filter((path) => path.endsWith('.ts'))).toEqual([]);
});

test('with it come its dependencies and no second Node, nor anything that only developers need', () => {
  const installed = readdirSync(join(folder, 'node_modules'));
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { dependencies: Record<string, string> };
  for (const name of Object.keys(dependencies)) expect(existsSync(join(folder, 'node_modules', name)), name).toBe(true);
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as { packages: Record<string, { dev?: boolean }> };
  const nameOf = (path: string) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
  const entries = Object.entries(lock.packages).filter(([path]) => path.includes('node_modules/'));
  const theirs = new Set(entries.filter(([, { dev }]) => !dev).map(([path]) => nameOf(path)));
  const onlyForUs = entries.map(([path]) => nameOf(path)).filter((name) => !theirs.has(name));
  expect(onlyForUs).toContain('vitest');
  expect(onlyForUs.filter((name) => existsSync(join(folder, 'node_modules', name)))).toEqual([]);
  expect(installed.filter((name) => /^node(-(linux|darwin|win))?/.test(name) && !/^node-(addon|gyp|api)/.test(name))).toEqual([]);
});

test('a server and an agent of it give a process its identity', async () => {
  const { house, agent } = await createRunningHouse({ program: [process.execPath, '--disable-sigusr1', program] });
  try {
    await house.createEntry({ id: '/packed', parent: agent });
    expect(await house.ok('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath)).toContain('spiffe://example.org/packed');
  } finally {
    await house.close();
  }
});

test('the command is on the path of whoever installs it', async () => {
  const { code, stdout } = await runToEnd([process.execPath, join(folder, 'node_modules', '.bin', 'warifu'), '--version']);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^\d+\.\d+\.\d+/);
});
