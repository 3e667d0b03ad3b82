// `npm run test:spire -- --bin DIR [--table FILE]`: the stories beside SPIRE's own binaries, `DIR/spire-server` and `DIR/spire-agent`.
// FILE gets a table of what each command answers. Not part of CI: the binaries are not built here.
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { install, run } from './bootstrap.mjs';

const { values, positionals } = parseArgs({
  options: { bin: { type: 'string' }, table: { type: 'string' } },
  allowPositionals: true,
  strict: false,
});
const folder = typeof values.bin === 'string' ? resolve(values.bin) : undefined;
if (!folder || !['spire-server', 'spire-agent'].every((name) => existsSync(join(folder, name)))) {
  console.error('npm run test:spire -- --bin DIR: DIR must hold spire-server and spire-agent');
  process.exitCode = 1;
} else {
  await install();
  process.exitCode = await run(['node_modules/vitest/vitest.mjs', 'run', '--project', 'spire', ...positionals], {
    env: { WARIFU_SPIRE_BIN: folder, ...(typeof values.table === 'string' && { WARIFU_SPIRE_TABLE: resolve(values.table) }) },
  });
}
