// Makes a checkout ready to run: dependencies installed, the pinned Node found. Plain JavaScript that Node 20 can run, and nothing but Node.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';

export const root = resolve(import.meta.dirname ?? new URL('.', import.meta.url).pathname, '..');
const STAMP = join(root, 'node_modules', '.warifu-installed');
const LOCK = join(root, '.warifu', 'installing');

/** The lockfile's digest: what node_modules was made from. */
function wanted() {
  return createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
}

function installed() {
  return existsSync(STAMP) && readFileSync(STAMP, 'utf8') === wanted();
}

function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** One installer at a time in one checkout: a second start waits for the first. */
async function alone(work) {
  mkdirSync(join(root, '.warifu'), { recursive: true });
  for (;;) {
    try {
      writeFileSync(LOCK, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
      const holder = Number(existsSync(LOCK) ? readFileSync(LOCK, 'utf8') : '');
      if (holder > 0 && !alive(holder)) rmSync(LOCK, { force: true });
      else await new Promise((done) => setTimeout(done, 200));
    }
  }
  try {
    await work();
  } finally {
    rmSync(LOCK, { force: true });
  }
}

/** Installs what package-lock.json names, without running any install script, if it is not there yet. */
export async function install(say = console.error) {
  if (installed()) return;
  await alone(async () => {
    if (installed()) return;
    say('installing dependencies (npm ci --ignore-scripts)');
    // Node 20 is only the launcher here; what runs afterwards is the pinned Node, so npm's word about engines would mislead
    const done = spawnSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: root,
      stdio: ['ignore', 2, 2],
    });
    if (done.status !== 0) throw new Error(`npm ci failed with ${done.status ?? done.signal ?? done.error}`);
    writeFileSync(STAMP, wanted());
  });
}

/** The path of the pinned Node's binary. */
export function runtime() {
  const require = createRequire(join(root, 'tools', 'runtime', 'package.json'));
  for (const name of [`node-${process.platform}-${process.arch}`, `node-bin-${process.platform}-${process.arch}`]) {
    try {
      const path = join(require.resolve(`${name}/package.json`), '..', 'bin', 'node');
      if (existsSync(path)) return path;
    } catch {
      // not the package of this platform
    }
  }
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > 22 || (major === 22 && minor >= 12)) return process.execPath;
  throw new Error(`no Node package for ${process.platform}-${process.arch}, and this Node (${process.version}) is older than 22.12`);
}

/** Runs a program on the pinned Node with our stdio, hands signals on, and gives its exit code. */
export function run(args, options = {}) {
  return new Promise((done, failed) => {
    const path = `${join(root, 'node_modules', '.bin')}:${process.env.PATH ?? ''}`;
    const child = spawn(runtime(), ['--disable-sigusr1', ...args], {
      cwd: root,
      stdio: 'inherit',
      ...options,
      env: { ...process.env, PATH: path, ...options.env },
    });
    const pass = (signal) => child.kill(signal);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, pass);
    child.once('error', failed);
    child.once('exit', (code, signal) => {
      for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.off(name, pass);
      done(code ?? (signal === 'SIGINT' ? 130 : 1));
    });
  });
}
