// `npm run bench`: the benchmarks of bench/, one after the other. `npm run bench -- codec figures/latency` runs those named; what begins with a dash is handed on to each.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './bootstrap.mjs';

/** Shared by the figures; nothing to run. */
const PARTS = ['figures/agents', 'figures/figure', 'figures/spire', 'proxy/contestants', 'proxy/load'];

const folder = join(root, 'bench');
const all = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.slice(0, -3))
  .filter((name) => !PARTS.includes(name))
  .sort();

const args = process.argv.slice(2);
const firstOption = args.findIndex((arg) => arg.startsWith('-'));
const names = firstOption < 0 ? args : args.slice(0, firstOption);
const options = firstOption < 0 ? [] : args.slice(firstOption);

const strangers = names.filter((name) => !all.includes(name));
if (strangers.length > 0) {
  console.error(`no benchmark ${strangers.join(', ')}; there are: ${all.join(', ')}`);
  process.exitCode = 2;
} else {
  for (const name of names.length > 0 ? names : all) {
    console.log(`\n${name}`);
    const { status } = spawnSync(process.execPath, [join(folder, `${name}.ts`), ...options], { stdio: 'inherit' });
    if (status !== 0) process.exitCode = 1;
  }
}
