/** What is installed is what was looked at: every version pinned, every package known by its hash, and nothing runs when it is installed. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';

const read = (file: string) => JSON.parse(readFileSync(resolve(import.meta.dirname, '..', file), 'utf8')) as unknown;

interface Locked {
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly link?: boolean;
  readonly hasInstallScript?: boolean;
  readonly dev?: boolean;
  readonly optional?: boolean;
}
const lock = read('package-lock.json') as { readonly lockfileVersion: number; readonly packages: Readonly<Record<string, Locked>> };
const installed = Object.entries(lock.packages).filter(([path, { link }]) => path.startsWith('node_modules/') && !link);

test('every dependency is named with one version', () => {
  for (const file of ['package.json', 'spiffe/package.json', 'tools/runtime/package.json']) {
    const manifest = read(file) as Readonly<Record<string, Readonly<Record<string, string>> | undefined>>;
    // not peers': those are the user's, and of any version that works
    for (const kind of ['dependencies', 'devDependencies', 'optionalDependencies'])
      for (const [name, version] of Object.entries(manifest[kind] ?? {})) expect(version, `${file}: ${name}`).toMatch(/^\d+\.\d+\.\d+$/);
  }
});

test('every package that is installed is known by its version and hash', () => {
  expect(lock.lockfileVersion).toBe(3);
  expect(installed.length).toBeGreaterThan(100);
  const unknown = installed.filter(([, { version, integrity }]) => !version || !integrity?.startsWith('sha512-'));
  // tools of other platforms than the one that the lockfile was made on: no part of the product, and none of this machine
  expect(unknown.filter(([, { dev, optional }]) => !(dev && optional)).map(([path]) => path)).toEqual([]);
});

test('nothing that the product needs has a script to run at its installation', () => {
  const scripted = installed.filter(([, { hasInstallScript, dev }]) => hasInstallScript && !dev).map(([path]) => path);
  expect(scripted.sort()).toEqual(NOT_NEEDED);
});
/** `npm ci --ignore-scripts`, which is how CI installs, gives a working tree: koffi's binary is in its package, and protobufjs only compares version numbers. */
const NOT_NEEDED = ['node_modules/@grpc/proto-loader/node_modules/protobufjs', 'node_modules/koffi'];
