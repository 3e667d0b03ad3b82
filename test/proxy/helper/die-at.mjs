// Preloaded by the crash tests of the helper's files: ends the process with SIGKILL before its nth step on the file system (DIE_AT). The product knows nothing of it.
import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

let left = Number(process.env['DIE_AT']);
const step = () => {
  if (--left === 0) process.kill(process.pid, 'SIGKILL');
};
/** Only from when the files are begun. */
let begun = false;
globalThis.begin = () => (begun = true);
const counted = (owner, names) => {
  for (const name of names) {
    const real = owner[name];
    owner[name] = function (...values) {
      if (begun) step();
      return real.apply(this, values);
    };
  }
};
const probe = await fs.open('/dev/null', 'r');
counted(Object.getPrototypeOf(probe), ['writeFile', 'chmod', 'chown', 'sync', 'close']);
await probe.close();
counted(fs, ['open', 'mkdir', 'chmod', 'chown', 'symlink', 'rename', 'link', 'unlink', 'rm', 'copyFile']);
syncBuiltinESMExports();
