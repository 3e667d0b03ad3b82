/** What the helper starts and tells: commands, signals, pid files, requests; and how it ends. */
import { chmodSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { spawn, type ChildProcess } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Rig, triple, until } from './rig.ts';

let rig: Rig;
let dir: string;
let log: string;
beforeEach(async () => {
  rig = new Rig({ identities: ['/web'] });
  await rig.api.start();
  dir = rig.folder('d');
  log = join(rig.directory, 'log');
});
afterEach(() => rig[Symbol.asyncDispose]());

const lines = () => (existsSync(log) ? rig.read('log').split('\n').filter(Boolean) : []);
const pids = (word: string) =>
  lines()
    .filter((line) => line.startsWith(`${word} `))
    .map((line) => Number(line.split(' ')[1]));
const alive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};
/** A program that tells what it gets: `on` its start, `got` a signal. */
const program = (name: string, more = 'while :; do sleep 0.02; done') => {
  const path = rig.write(
    name,
    `#!/bin/sh
trap 'echo "hup $$" >> ${log}' HUP
trap 'echo "usr1 $$" >> ${log}' USR1
trap 'echo "term $$" >> ${log}; exit 7' TERM
echo "on $$ $*" >> ${log}
test -s ${dir}/svid_key.pem && echo "files $$" >> ${log}
${more}
`,
  );
  chmodSync(path, 0o755);
  return path;
};

describe('HP-8 cmd', { timeout: 20_000 }, () => {
  test('starts once its files are there, with its arguments, gets renew_signal at each renewal, and ends with the helper', async () => {
    const helper = await rig.start(`${triple(dir)} cmd = "${program('p')}" cmd_args = "a \\"b c\\"" renew_signal = "SIGHUP"`);
    const [pid = 0] = await until('started', () => pids('files').length === 1 && pids('on'));
    expect(lines()[0]).toBe(`on ${pid} a b c`);
    rig.api.renew();
    await until('signalled', () => pids('hup').length === 1);
    rig.api.renew();
    await until('signalled', () => pids('hup').length === 2);
    expect(pids('hup')).toEqual([pid, pid]);
    expect(await helper.stop()).toBe(0);
    expect(pids('term')).toEqual([pid]);
    expect(alive(pid)).toBe(false);
  });

  test('that has exited is started again at the next renewal', async () => {
    await rig.start(`${triple(dir)} cmd = "${program('p', 'exit 0')}"`);
    await until('started', () => pids('on').length === 1);
    const [first = 0] = pids('on');
    await until('ended', () => !alive(first));
    rig.api.renew();
    await until('started again', () => pids('on').length === 2);
  });

  test('with on_exit restart is started again at once', async () => {
    const helper = await rig.start(`${triple(dir)} cmd = "${program('p', 'exit 3')}" on_exit = "restart" restart_delay = "10ms"`);
    await until('started thrice', () => pids('on').length >= 3);
    expect(await helper.stop()).toBe(0);
    const count = pids('on').length;
    expect(new Set(pids('on')).size).toBe(count);
    expect(pids('on').some(alive)).toBe(false);
  });

  test.each([
    ['a code', 'exit 23', 23],
    ['a signal', 'kill -KILL $$', 137],
  ])('with on_exit exit ends the helper with its own end: %s', async (_, how, code) => {
    const helper = await rig.start(`${triple(dir)} command = ["${program('p', how)}"] on_exit = "exit"`);
    expect(await helper.code).toBe(code);
  });

  test('with on_exit exit gives 127 when it can not be started; without, the files are kept all the same', async () => {
    const wrapper = await rig.start(`${triple(dir)} command = ["${rig.directory}/none"] on_exit = "exit"`);
    expect(await wrapper.code).toBe(127);
    const helper = await rig.start(`${triple(rig.folder('e'))} command = ["${rig.directory}/none"]`);
    await until('files and a line', () => existsSync(join(rig.directory, 'e', 'svid.pem')) && helper.log.errors > 0);
    expect(await helper.stop()).toBe(0);
  });

  test('that ignores SIGTERM is killed in time: the helper ends with 0 within a second', async () => {
    const deaf = program('p', 'trap "" TERM; echo "deaf $$" >> ' + log + '; while :; do sleep 0.02; done');
    const helper = await rig.start(`${triple(dir)} cmd = "${deaf}"`);
    const [pid = 0] = await until('deaf', () => pids('deaf').length === 1 && pids('deaf'));
    const at = performance.now();
    expect(await helper.stop()).toBe(0);
    expect(performance.now() - at).toBeLessThan(1_000);
    expect(alive(pid)).toBe(false);
  });
});

describe('HP-9 a pid file', { timeout: 20_000 }, () => {
  const children: ChildProcess[] = [];
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
  });
  const begin = async (name: string) => {
    const known = pids('on').length;
    children.push(spawn(program(name), { stdio: 'ignore' }));
    return await until('it runs', () => pids('on')[known]);
  };

  test('that comes late, then names a successor: both are signalled', async () => {
    const first = await begin('one');
    await rig.start(`${triple(dir)} pid_file_name = "${rig.directory}/pid" renew_signal = "SIGHUP"`);
    await until('files', () => existsSync(join(dir, 'svid.pem')));
    rig.write('pid', `${first}\n`);
    await until('signalled', () => pids('hup').includes(first));
    const second = await begin('two');
    rig.write('pid', String(second));
    await until('its successor too', () => pids('hup').includes(second));
    expect(pids('hup').filter((pid) => pid === first)).toHaveLength(1);
  });

  test.each(['1', '0', '-1', 'x', `${process.pid}`])('that says %s signals nobody', async (said) => {
    const child = await begin('one');
    rig.write('pid', said);
    const helper = await rig.start(
      `${triple(dir)} hook "h" { signal = "SIGHUP" pid_file = "${rig.directory}/pid" debounce = "0s" } hook "after" { command = ["touch", "${rig.directory}/after"] }`,
    );
    await until('another hook', () => existsSync(join(rig.directory, 'after')));
    expect(pids('hup')).toEqual([]);
    rig.write('pid', String(child));
    await until('the twin: a good id is signalled', () => pids('hup').includes(child));
    expect(await helper.stop()).toBe(0);
  });
});

describe('HP-8 hooks', { timeout: 20_000 }, () => {
  const record = (name: string) =>
    `command = ["sh", "-c", "echo ${name} $WARIFU_EVENT $WARIFU_OUTPUT $WARIFU_KIND $SPIFFE_ID $WARIFU_FILES >> ${log}"]`;

  test('run after a renewal, once for outputs that come together, and know which files', async () => {
    await rig.start(`${triple(dir)} jwt_bundle_file_name = "b.json" hook "all" { ${record('all')} debounce = "400ms" }`);
    const [line = ''] = await until('run', () => lines().length === 1 && lines());
    expect(line).toMatch(/^all renewed (x509,jwt-bundle|jwt-bundle,x509) /);
    for (const name of ['svid.pem', 'svid_key.pem', 'svid_bundle.pem', 'b.json']) expect(line).toContain(join(dir, name));
    rig.api.renew();
    await until('run again', () => lines().length === 2);
    expect(lines()[1]).toMatch(/^all renewed x509 x509 spiffe:\/\/example\.org\/web /);
  });

  test('are for the kinds and outputs that they name', async () => {
    const e = rig.folder('e');
    await rig.start(`${triple(dir)}
jwt_svids = [{ jwt_audience = "a", jwt_svid_file_name = "token" }]
output "second" { format = "combined" directory = "${e}" }
hook "jwt" { kinds = ["jwt"] debounce = "0s" ${record('jwt')} }
hook "second" { outputs = ["second"] debounce = "0s" ${record('second')} }`);
    await until('both', () => lines().length === 2);
    expect(
      lines()
        .map((line) => line.split(' ').slice(0, 4).join(' '))
        .sort(),
    ).toEqual(['jwt renewed jwt-0 jwt', 'second renewed second x509']);
  });

  test('that take too long are ended with all that they started; the next one runs', async () => {
    await rig.start(
      `${triple(dir)} hook "slow" { timeout = "300ms" debounce = "0s" command = ["sh", "-c", "echo on $$ >> ${log}; sleep 60 & echo child $! >> ${log}; wait"] }`,
    );
    const [leader = 0, child = 0] = await until('begun', () => pids('child').length === 1 && [...pids('on'), ...pids('child')]);
    await until('ended', () => !alive(leader) && !alive(child));
    rig.api.renew();
    await until('begun again', () => pids('child').length === 2);
  });

  test('that post tell the change, and a bad answer is a failure', async () => {
    const bodies: string[] = [];
    let status = 204;
    const server = createServer((request, response) => {
      let body = '';
      request.setEncoding('utf8').on('data', (text: string) => (body += text));
      request.on('end', () => {
        bodies.push(body);
        response.writeHead(status).end();
      });
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    try {
      const { port } = server.address() as AddressInfo;
      const helper = await rig.start(`${triple(dir)} hook "post" { http_post = "http://127.0.0.1:${port}/reload" debounce = "0s" }`);
      await until('posted', () => bodies.length === 1);
      const told = JSON.parse(bodies[0] ?? '') as { changes: { event: string; output: string; spiffe_id: string; files: string[] }[] };
      expect(told.changes).toMatchObject([{ event: 'renewed', output: 'x509', spiffe_id: 'spiffe://example.org/web' }]);
      expect(helper.log.errors).toBe(0);
      status = 500;
      rig.api.renew();
      await until('a failure is told', () => helper.log.errors === 1);
    } finally {
      server.close();
    }
  });
});

describe('HP-11 probes', { timeout: 20_000 }, () => {
  const ask = async (port: number, path: string, method = 'GET') => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method });
    return { status: response.status, text: await response.text() };
  };

  test('are ready once every output is written, live while writes succeed, and metrics say when files end', async () => {
    const { freePort } = await import('../../e2e/house.ts');
    const port = await freePort();
    rig.api.deny();
    const helper = await rig.start(
      `${triple(dir)} health_checks { listener_enabled = true bind_port = ${port} } hook "h" { command = ["false"] debounce = "0s" }`,
    );
    await until('refused', () => helper.log.warnings > 0);
    expect((await ask(port, '/live')).status).toBe(200);
    const before = await ask(port, '/ready');
    expect(before.status).toBe(503);
    expect(JSON.parse(before.text)).toMatchObject({ health: { file_write_statuses: { x509_write_status: 'unwritten' } } });
    rig.api.resume();
    await until('files', () => existsSync(join(dir, 'svid.pem')));
    await until('the hook has failed', () => helper.log.errors > 0);
    const after = await ask(port, '/ready');
    expect(after.status).toBe(200);
    expect(JSON.parse(after.text)).toMatchObject({ status: 'OK', health: { file_write_statuses: { x509_write_status: 'written' } } });
    const { text } = await ask(port, '/metrics');
    const value = (name: string) => Number(new RegExp(`^${name.replaceAll(/[{}"]/g, '\\$&')} (\\S+)$`, 'm').exec(text)?.[1]);
    expect(value('warifu_helper_ready')).toBe(1);
    expect(value('warifu_helper_output_expiry_timestamp_seconds{output="x509",kind="x509"}')).toBe(
      (rig.api.svids[0]?.notAfterMs ?? 0) / 1000,
    );
    expect(value('warifu_helper_output_writes_total{output="x509",kind="x509"}')).toBe(1);
    expect(value('warifu_helper_hook_runs_total{hook="h",result="error"}')).toBe(1);
    expect((await ask(port, '/live', 'POST')).status).toBe(405);
    expect((await ask(port, '/none')).status).toBe(404);
    rmSync(join(dir, 'svid.pem'));
    mkdirSync(join(dir, 'svid.pem', 'in-the-way'), { recursive: true });
    rig.api.renew();
    await until('a write has failed', () => helper.log.errors > 1);
    expect((await ask(port, '/live')).status).toBe(503);
    rmSync(join(dir, 'svid.pem'), { recursive: true });
    for (let status = 503, n = 0; status !== 200 && n < 200; n++) {
      status = (await ask(port, '/live')).status;
      if (n === 199) expect(status).toBe(200);
      await new Promise((done) => setTimeout(done, 20));
    }
    rig.api.deny();
    await until('taken back', () => helper.log.warnings > 1);
    for (let status = 200, n = 0; status !== 503 && n < 200; n++) {
      status = (await ask(port, '/ready')).status;
      if (n === 199) expect(status).toBe(503);
      await new Promise((done) => setTimeout(done, 20));
    }
  });
});
