// Runs a program of the checkout on the pinned Node, installing first what is missing: node tools/with-runtime.mjs FILE [ARGUMENT …]
import { install, run } from './bootstrap.mjs';

await install();
process.exitCode = await run(process.argv.slice(2));
