// Types, lint and format. Each runs even if another failed: all faults at once.
import { spawnSync } from 'node:child_process';
import { root } from './bootstrap.mjs';

const checks = [
  ['types', process.execPath, 'node_modules/typescript/bin/tsc', '-p', 'tsconfig.json'],
  ['lint', 'oxlint', '--type-aware', '--deny-warnings'],
  ['format', 'biome', 'format', '--log-level=warn'],
];
let failed = 0;
for (const [name, command, ...args] of checks) {
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, PATH: `${root}/node_modules/.bin:${process.env.PATH}` },
  });
  if (status !== 0) failed++;
  console.error(`${status === 0 ? 'ok    ' : 'FAILED'} ${name}${error ? `: ${error.message}` : ''}`);
}
process.exitCode = failed ? 1 : 0;
