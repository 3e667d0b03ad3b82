// Completes package-lock.json with the optional packages of other platforms that a registry mirror may lack, so that `npm ci` accepts it everywhere. Run after `npm install PACKAGE`.
import { readFileSync, writeFileSync } from 'node:fs';
const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'));
const ps = lock.packages;
const has = (name) => Object.keys(ps).some((p) => p === `node_modules/${name}`);
for (const v of Object.values({ ...ps }))
  for (const [name, version] of Object.entries(v.optionalDependencies ?? {})) {
    if (has(name)) continue;
    const os = (/(android|darwin|win32|freebsd|openharmony|linux)/.exec(name) ?? [])[1],
      cpu = (/(arm64|x64|ia32|ppc64|riscv64|s390x)/.exec(name) ?? ['', 'arm'])[1];
    const libc = os === 'linux' ? [/musl/.test(name) ? 'musl' : 'glibc'] : undefined;
    if (!os) throw new Error(name);
    ps[`node_modules/${name}`] = {
      version: version.replace(/^[\^~]/, ''),
      cpu: [cpu],
      ...(v.dev && { dev: true }),
      ...(libc && { libc }),
      optional: true,
      os: [os],
    };
  }
lock.packages = Object.fromEntries(Object.entries(ps).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync('package-lock.json', JSON.stringify(lock, null, 2) + '\n');
