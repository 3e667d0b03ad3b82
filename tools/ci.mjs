// What CI runs: `npm test`, `npm start -- --once`, the end-to-end stories, the interop suite, the fuzzers. Each stage runs whatever the others did;
// a stage that ran no test, or could not run, is a failure. Closes with the line `N passed, N failed`.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root } from './bootstrap.mjs';

const scratch = mkdtempSync(join(tmpdir(), 'warifu-ci-'));
let passed = 0;
let failed = 0;

function stage(name, command, args, { counts } = {}) {
  console.log(`\n=== ${name}: ${[command, ...args].join(' ')}`);
  const started = performance.now();
  const { status, signal, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  let [good, bad] = [0, 0];
  if (counts) {
    try {
      const report = JSON.parse(readFileSync(counts, 'utf8'));
      good = report.numPassedTests;
      bad =
        report.numFailedTests +
        report.testResults.filter((file) => file.status === 'failed' && file.assertionResults.every((test) => test.status === 'passed'))
          .length;
      // a skipped test is one that nobody notices
      bad += report.numPendingTests + report.numTodoTests;
    } catch {
      bad = 1;
    }
    if (good + bad === 0) bad = 1;
  } else if (status === 0) good = 1;
  if (status !== 0 && bad === 0) bad = 1;
  passed += good;
  failed += bad;
  console.log(
    `=== ${name}: ${bad ? 'FAILED' : 'ok'} (${good} passed, ${bad} failed) in ${((performance.now() - started) / 1000).toFixed(0)} s${error ? ` ${error.message}` : signal ? ` ${signal}` : ''}`,
  );
}

const reporters = (file) => ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`];
const unit = join(scratch, 'unit.json');
const e2e = join(scratch, 'e2e.json');
const interop = join(scratch, 'interop.json');
const fuzz = join(scratch, 'fuzz.json');
/** What the stories need besides Node: a clock that can be set, what makes and mounts a small disk, databases. Without them those stories fail, and say so. */
function installPrograms() {
  const needed = [
    ['faketime', ['/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1', '/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1']],
    ['e2fsprogs', ['/sbin/mkfs.ext4', '/usr/sbin/mkfs.ext4']],
    ['openssl', ['/usr/bin/openssl']],
    // of whichever version the system has
    ['postgresql', Array.from({ length: 15 }, (_, at) => `/usr/lib/postgresql/${at + 13}/bin/postgres`)],
    ['redis-server', ['/usr/bin/redis-server']],
    ['mariadb-server', ['/usr/sbin/mariadbd']],
    ['nginx-light', ['/usr/sbin/nginx']],
    ['curl', ['/usr/bin/curl']],
    ['postgresql-client', ['/usr/bin/psql']],
    ['redis-tools', ['/usr/bin/redis-cli']],
    // of its tools `systemd-analyze`, which needs no running systemd
    ['systemd', ['/usr/bin/systemd-analyze']],
  ];
  const missing = needed.filter(([, files]) => !files.some((file) => existsSync(file))).map(([name]) => name);
  if (missing.length === 0) return;
  const as = process.getuid?.() === 0 ? [] : ['sudo', '-n'];
  for (const args of [
    ['update', '-q'],
    ['install', '-qy', '--no-install-recommends', ...missing],
  ])
    spawnSync([...as, 'apt-get'][0], [...as, 'apt-get', ...args].slice(1), {
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    });
}

installPrograms();
stage('npm test', 'npm', ['test', '--', ...reporters(unit)], { counts: unit });
stage('npm start', 'npm', ['start', '--', '--once']);
stage('end to end', 'npm', ['run', 'test:e2e', '--', ...reporters(e2e)], { counts: e2e });
stage('interop', 'npm', ['run', 'test:interop', '--', ...reporters(interop)], { counts: interop });
// a minute for each target, two at a time; each is one test
stage('fuzzing', 'npm', ['run', 'fuzz', '--', '--seconds', '60', '--jobs', '2', `--counts=${fuzz}`], { counts: fuzz });
rmSync(scratch, { recursive: true, force: true });
console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
