#!/usr/bin/env node
// The program's first file: plain JavaScript, so that an old Node can read far enough to be told. Then it starts cli/main.

// SIGUSR1 must never open Node's inspector (docs/decisions/inspector.md): handled from the very first statement on.
process.on('SIGUSR1', function () {});

const version = process.versions.node.split('.').map(Number);
const group = process.argv[2];
const isProxy = group === 'proxy' && process.argv[3] !== 'validate';
const isDaemon =
  ((group === 'server' || group === 'agent') && process.argv[3] === 'run') ||
  isProxy ||
  (group === 'helper' && process.argv[3] !== 'check');
// a request to read files again that comes before there is anything to read is no reason to die
if (isProxy) process.on('SIGHUP', function () {});

if (version[0] < 22 || (version[0] === 22 && version[1] < 12)) {
  process.stderr.write(
    'warifu needs Node.js 22.12 or newer; this is ' + process.version + ': install a newer one, or run warifu by its path\n',
  );
  process.exit(1);
} else {
  if (isDaemon) closeInspectorForGood();
  // not imported above: imports run before any statement
  const fs = process.getBuiltinModule('node:fs');
  // a daemon starts seldom, and would keep what it read of the cache
  if (!isDaemon) keepCompiled(fs);
  // a checkout runs its sources, an installed package what was built of them
  const source = new URL('./main.ts', import.meta.url);
  const built = new URL('../dist/cli/main.js', import.meta.url);
  import((fs.existsSync(source) ? source : built).href).then(
    function (main) {
      return main.start();
    },
    function (error) {
      process.stderr.write('Error: warifu could not be loaded: ' + (error && error.stack ? error.stack : error) + '\n');
      process.exitCode = 1;
    },
  );
}

/**
 * Becomes, in place, a Node whose inspector no signal can open; the process stays the same, and what a signal may have opened in the
 * few milliseconds before our first statement is gone with the program that opened it.
 * Where Node can't do that, cli/inspector.ts closes it.
 */
function closeInspectorForGood() {
  // a connection leaves little behind, and there are many sidecars on a machine
  const light = isProxy ? ['--max-semi-space-size=1'] : [];
  const flag = '--disable-sigusr1';
  if (process.execArgv.indexOf(flag) >= 0 || !process.allowedNodeEnvironmentFlags.has(flag) || typeof process.execve !== 'function') return;
  if (/(^|\s)--disable-sigusr1(\s|$)/.test(process.env.NODE_OPTIONS || '')) return;
  process.execve(process.execPath, [process.execPath, flag].concat(light, process.execArgv, process.argv.slice(1)), process.env);
}

/** Node's cache of compiled code makes the command line start sooner. Never in Node's own place below /tmp, where others could leave code for us. */
function keepCompiled(fs) {
  const nodeModule = process.getBuiltinModule('node:module');
  if (!nodeModule.enableCompileCache || process.env.NODE_COMPILE_CACHE || process.env.NODE_DISABLE_COMPILE_CACHE) return;
  try {
    const us = process.geteuid();
    const home = process.getBuiltinModule('node:os').homedir();
    if (fs.lstatSync(home).uid !== us) return;
    const folder = (process.env.XDG_CACHE_HOME || home + '/.cache') + '/warifu/compiled';
    fs.mkdirSync(folder, { recursive: true, mode: 448 });
    const found = fs.lstatSync(folder);
    if (found.isDirectory() && found.uid === us && (found.mode & 18) === 0) nodeModule.enableCompileCache(folder);
  } catch {
    // no cache then: it only saves time
  }
}
