// `npm run build:sdk`: `@warifu/spiffe` as plain JavaScript with its types in spiffe/dist, what that package ships.
import { spawnSync } from 'node:child_process';
import { copyFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './bootstrap.mjs';

const out = join(root, 'spiffe', 'dist');
rmSync(out, { recursive: true, force: true });
const { status } = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.sdk.json'], {
  cwd: root,
  stdio: 'inherit',
});
// the compiler rewrites imports in the programs alone, and leaves the sources' endings in the types
for (const name of readdirSync(out, { recursive: true, encoding: 'utf8' })) {
  if (!name.endsWith('.d.ts')) continue;
  const file = join(out, name);
  writeFileSync(file, readFileSync(file, 'utf8').replace(/(\bfrom |\bimport\()(['"])(\.[^'"]+)\.ts\2/g, '$1$2$3.js$2'));
}
copyFileSync(join(root, 'LICENSE'), join(root, 'spiffe', 'LICENSE'));
process.exitCode = status ?? 1;
