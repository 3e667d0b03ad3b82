// `npm start`: installs what is missing, then runs the whole on this machine and shows each step. `--once`: proves itself and exits 0.
import { install, run } from './bootstrap.mjs';

await install(console.log);
process.exitCode = await run(['tools/start/start.ts', ...process.argv.slice(2)]);
