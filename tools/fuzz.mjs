// `npm run fuzz`: the fuzzers of test/fuzz/targets, a minute each; `npm run fuzz -- jwt path --seconds 600` runs those named for as long.
// As many at a time as there are cores, or --jobs N; --seed N makes it again. What is found lies in .warifu/fuzz: --replay FILE with its target runs it once.
import { spawn } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { root } from './bootstrap.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '60' },
    jobs: { type: 'string', default: String(availableParallelism()) },
    seed: { type: 'string' },
    replay: { type: 'string' },
    // where to write how many targets passed and failed, with the members of vitest's report that CI reads
    counts: { type: 'string' },
  },
});

const folder = join(root, 'test', 'fuzz');
const all = readdirSync(join(folder, 'targets'))
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.slice(0, -3))
  .sort();

/** Runs one target in a process of its own; gives its report, the last line that it prints. */
function run(name) {
  const more = ['seed', 'replay'].flatMap((option) => (values[option] === undefined ? [] : [`--${option}`, values[option]]));
  const child = spawn(process.execPath, ['--no-warnings', join(folder, 'run.ts'), name, '--seconds', values.seconds, ...more], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text;
  });
  return new Promise((done) => {
    child.once('close', (code, signal) => {
      const lines = out.trimEnd().split('\n');
      let report;
      try {
        report = JSON.parse(lines.at(-1) ?? '');
        lines.pop();
      } catch {
        // it died, or replayed
      }
      done({ name, report, lines: lines.filter(Boolean), failed: code !== 0, how: signal ?? code });
    });
  });
}

function line({ name, report, failed, how }) {
  if (!report?.executions) return `${name.padEnd(12)} ${values.replay === undefined ? `ended by ${how} without a report` : how}`;
  const { executions, behaviours, covered, slowestMs, slowestBytes, findings, seed } = report;
  return [
    name.padEnd(12),
    `${executions.toLocaleString('en')} executions`.padStart(22),
    `${Math.round(executions / Number(values.seconds)).toLocaleString('en')}/s`.padStart(10),
    `${behaviours} behaviours`.padStart(17),
    `${(covered / 1024).toFixed(0)} KiB of source`.padStart(17),
    `slowest ${slowestMs.toFixed(1)} ms (${slowestBytes} B)`.padStart(28),
    `${findings} findings`.padStart(12),
    ` seed ${seed}`,
    ...(failed ? [' FAILED'] : []),
  ].join('');
}

const wanted = positionals.length > 0 ? positionals : all;
const strangers = wanted.filter((name) => !all.includes(name));
if (strangers.length > 0) {
  console.error(`no target ${strangers.join(', ')}; there are: ${all.join(', ')}`);
  process.exitCode = 2;
} else {
  const waiting = [...wanted];
  const counts = { passed: 0, failed: 0 };
  const worker = async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const done = await run(name);
      counts[done.failed ? 'failed' : 'passed']++;
      console.log([line(done), ...done.lines].join('\n'));
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, Number(values.jobs)) }, worker));
  console.log(`${counts.passed} passed, ${counts.failed} failed`);
  if (values.counts !== undefined) {
    const [numPassedTests, numFailedTests] = [counts.passed, counts.failed];
    writeFileSync(values.counts, JSON.stringify({ numPassedTests, numFailedTests, numPendingTests: 0, numTodoTests: 0, testResults: [] }));
  }
  if (counts.failed > 0) process.exitCode = 1;
}
