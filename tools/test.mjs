// `npm test`: everything that needs no other toolchain. Types, lint, format, then the unit and contract tests.
import { install, run } from './bootstrap.mjs';

await install();
const check = await run(['tools/check.mjs']);
const tests = await run(['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit', ...process.argv.slice(2)]);
process.exitCode = check || tests;
