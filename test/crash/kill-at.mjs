// Preloaded into a real process by the stories of crashes (`node --import …`): it ends the process with SIGKILL at one place of its work. The product knows nothing of it.
//
// WARIFU_KILL_AT: JSON.
//   on     sql: a statement is run · exec: a script of SQL · rename: a file is renamed · sign: a signature is made · write: any commit or rename
//   match  what is looked at: the statement's text, the rename's target
//   arm    counts only from when a statement of this kind was run
//   at     before | after
//   nth    which one, default the first
import crypto from 'node:crypto';
import fs from 'node:fs/promises';
import { createRequire, syncBuiltinESMExports } from 'node:module';

const rule = JSON.parse(process.env['WARIFU_KILL_AT'] ?? '{}');
const match = new RegExp(rule.match ?? '', 'i');
const arm = rule.arm === undefined ? undefined : new RegExp(rule.arm, 'i');
let armed = arm === undefined;
let left = rule.nth ?? 1;

function reached(on, at, text) {
  if (rule.on !== on || (rule.at ?? 'before') !== at || !armed || !match.test(text)) return;
  left--;
  if (left > 0) return;
  process.kill(process.pid, 'SIGKILL');
}

/** Runs `work` between the two moments of one place. */
function around(places, text, work) {
  for (const on of places) reached(on, 'before', text);
  const done = work();
  if (done instanceof Promise)
    return done.then((value) => {
      for (const on of places) reached(on, 'after', text);
      return value;
    });
  for (const on of places) reached(on, 'after', text);
  return done;
}

const Sqlite = createRequire(import.meta.url)('better-sqlite3');
const { prepare, exec } = Sqlite.prototype;
Sqlite.prototype.prepare = function (text) {
  const statement = prepare.call(this, text);
  const { run } = statement;
  statement.run = (...values) => {
    const places = /^COMMIT/i.test(text) ? ['sql', 'write'] : ['sql'];
    const result = around(places, text, () => run.apply(statement, values));
    if (arm?.test(text)) armed = true;
    return result;
  };
  return statement;
};
Sqlite.prototype.exec = function (text) {
  return around(['exec'], text, () => exec.call(this, text));
};

const { rename } = fs;
fs.rename = (from, to) => around(['rename', 'write'], String(to), () => rename(from, to));
const { sign } = crypto;
crypto.sign = (...values) => around(['sign'], '', () => sign(...values));
syncBuiltinESMExports();
