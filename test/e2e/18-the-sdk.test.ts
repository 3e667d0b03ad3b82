/** Story 18: who installs `@warifu/spiffe` gets JavaScript with types, one dependency, and each part by its own name; the JWT half loads nothing of Node. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ROOT } from './house.ts';

let folder: string;
let packed: readonly { path: string; size: number }[];

const npm = (cwd: string, ...args: string[]) =>
  execFileSync('npm', [...args, '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });

/** A module of a user's; gives what it prints, or its words on stderr. */
function run(source: string, ...flags: string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...flags, '--input-type=module', '-e', source], {
    cwd: folder,
    encoding: 'utf8',
  });
  return status === 0 ? stdout.trim() : stderr;
}

const { exports, peerDependencies, dependencies } = JSON.parse(readFileSync(join(ROOT, 'spiffe/package.json'), 'utf8')) as {
  exports: Record<string, string | { types: string; default: string }>;
  peerDependencies: Record<string, string>;
  dependencies: Record<string, string>;
};
const names = Object.entries(exports).flatMap(([subpath, target]) =>
  typeof target === 'object' ? [subpath.replace(/^\./, '@warifu/spiffe')] : [],
);
const NEEDS: Readonly<Record<string, string>> = {
  '@warifu/spiffe/grpc': '@grpc/grpc-js',
  '@warifu/spiffe/middleware/grpc': '@grpc/grpc-js',
  '@warifu/spiffe/undici': 'undici',
};

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'warifu-sdk-'));
  const answer = npm(join(ROOT, 'spiffe'), 'pack', '--json', '--pack-destination', folder);
  const [{ filename, files }] = JSON.parse(answer.slice(answer.indexOf('[\n'))) as [
    { filename: string; files: { path: string; size: number }[] },
  ];
  packed = files;
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }');
  npm(folder, 'install', '--ignore-scripts', '--omit=peer', join(folder, filename));
}, 180_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('it holds programs, their types, README and licence, and every file that its exports name', () => {
  const paths = packed.map(({ path }) => path);
  expect(paths.filter((path) => !/^(package\.json|README\.md|LICENSE|dist\/(spiffe|proto\/gen)\/.+\.(js|d\.ts))$/.test(path))).toEqual([]);
  const named = Object.values(exports).flatMap((one) => (typeof one === 'object' ? [one.types, one.default] : [one]));
  expect(named.map((one) => one.slice(2)).filter((one) => !paths.includes(one))).toEqual([]);
  expect(paths).toEqual(expect.arrayContaining(['README.md', 'LICENSE']));
  // of the protos, what the Workload API needs
  expect(paths.filter((path) => path.includes('/gen/spire/') || path.includes('/gen/warifu/'))).toEqual([]);
  console.log(`${paths.length} files, ${(packed.reduce((sum, { size }) => sum + size, 0) / 1024).toFixed(0)} KiB`);
});

test('with it comes one dependency', () => {
  const installed = readdirSync(join(folder, 'node_modules'), { recursive: true, encoding: 'utf8' }).filter(
    (path) => /(^|\/)(@[^/]+\/)?[^/@.][^/]*\/package\.json$/.test(path) && !path.includes('/dist/'),
  );
  expect(installed.map((path) => path.slice(0, -'/package.json'.length)).sort()).toEqual(
    [...Object.keys(dependencies), '@warifu/spiffe'].sort(),
  );
});

describe('each part', () => {
  test.each(names.filter((name) => !(name in NEEDS)))('%s is there', (name) => {
    expect(Number(run(`console.log(Object.keys(await import('${name}')).length)`))).toBeGreaterThan(0);
  });

  test.each(Object.entries(NEEDS))('%s says that it needs %s', (name, peer) => {
    expect(run(`await import('${name}')`)).toContain(`Cannot find package '${peer}'`);
    expect(peerDependencies[peer]).toBeDefined();
  });

  test('those are there with what they need', { timeout: 120_000 }, () => {
    const peers = [...new Set(Object.values(NEEDS))].map((peer) => {
      const { version } = JSON.parse(readFileSync(join(ROOT, 'node_modules', peer, 'package.json'), 'utf8')) as { version: string };
      return `${peer}@${version}`;
    });
    npm(folder, 'install', '--ignore-scripts', ...peers);
    for (const name of Object.keys(NEEDS))
      expect(Number(run(`console.log(Object.keys(await import('${name}')).length)`))).toBeGreaterThan(0);
  });
});

test('the JWT half loads no module of Node, no gRPC and no package', () => {
  const seen = (name: string) =>
    run(`
      import { registerHooks } from 'node:module';
      const seen = [];
      registerHooks({ resolve(specifier, context, next) { const found = next(specifier, context); seen.push(found.url); return found; } });
      await import('${name}');
      console.log(JSON.stringify(seen));`);
  const strangers = (name: string) => (JSON.parse(seen(name)) as string[]).filter((url) => !url.includes('/@warifu/spiffe/dist/spiffe/'));
  expect(strangers('@warifu/spiffe/jwt')).toEqual([]);
  expect(strangers('@warifu/spiffe/middleware/jwt')).toEqual([]);
  // the reader of loads sees what it should
  expect(strangers('@warifu/spiffe').some((url) => url.startsWith('node:'))).toBe(true);
});

test.each(['nodenext', 'bundler'])('a strict program compiles against its types (%s)', { timeout: 60_000 }, (resolution) => {
  writeFileSync(
    join(folder, 'user.ts'),
    `${names.map((name, i) => `import * as part${i} from '${name}';`).join('\n')}\nexport const all = [${names.map((_, i) => `part${i}`).join(', ')}];\nimport { SpiffeId } from '@warifu/spiffe';\n// @ts-expect-error: text is no SPIFFE ID\nexport const id: SpiffeId = 'spiffe://example.org/web';\n`,
  );
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        strict: true,
        exactOptionalPropertyTypes: true,
        noUncheckedIndexedAccess: true,
        skipLibCheck: true,
        noEmit: true,
        target: 'es2023',
        lib: ['es2023', 'esnext.disposable'],
        module: resolution === 'nodenext' ? 'nodenext' : 'esnext',
        moduleResolution: resolution,
        typeRoots: [join(ROOT, 'node_modules', '@types')],
        types: ['node'],
      },
      files: ['user.ts'],
    }),
  );
  const { status, stdout } = spawnSync(process.execPath, [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', folder], {
    encoding: 'utf8',
  });
  expect(stdout).toBe('');
  expect(status).toBe(0);
});
