/** The program itself, as a process: what it says to an old Node, what it leaves on the disk, how soon it is there. */
import { spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { LEAVES } from '../../cli/commands.ts';
import { inspectorAsked } from '../../cli/inspector.ts';
import { main } from '../../cli/main.ts';
import { TestTerminal } from './terminal.ts';

const PROGRAM = resolve(import.meta.dirname, '../../cli/warifu.mjs');

let home = '';
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'warifu-home-'));
});
afterEach(() => rm(home, { recursive: true }));

function run(
  argv: readonly string[],
  options: { node?: readonly string[]; env?: Record<string, string> } = {},
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((done, failed) => {
    const child = spawn(process.execPath, [...(options.node ?? []), PROGRAM, ...argv], {
      env: { PATH: process.env['PATH'] ?? '', HOME: home, ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.once('error', failed);
    child.once('close', (code) => done({ code, stdout, stderr }));
  });
}

/** A Node that says to be of another version, before the program's first statement. */
const pretend = (version: string) => [
  '--import',
  `data:text/javascript,Object.defineProperty(process,'versions',{value:{...process.versions,node:'${version}'}})`,
];

describe('an older Node', () => {
  for (const version of ['18.20.4', '20.20.2', '22.11.0']) {
    test(`${version} is told so in one line, with exit code 1`, async () => {
      const { code, stdout, stderr } = await run(['--version'], { node: pretend(version) });
      expect({ code, stdout, lines: stderr.split('\n').length }).toEqual({ code: 1, stdout: '', lines: 2 });
      expect(stderr).toMatch(/^warifu needs Node\.js 22\.12 or newer; this is /);
    });
  }
  test('22.12.0 is new enough', async () => {
    expect(await run(['--version'], { node: pretend('22.12.0') })).toMatchObject({ code: 0, stderr: '' });
  });
});

describe('the cache of compiled code', () => {
  const folder = () => join(home, '.cache', 'warifu', 'compiled');

  test('is kept in the own home, for the owner alone', async () => {
    expect((await run(['--version'])).code).toBe(0);
    expect((await stat(folder())).mode & 0o777).toBe(0o700);
    expect(await readdir(folder())).not.toEqual([]);
  });

  test('is not read from a folder that others can write', async () => {
    await mkdir(folder(), { recursive: true });
    await chmod(folder(), 0o777);
    expect((await run(['--version'])).code).toBe(0);
    expect(await readdir(folder())).toEqual([]);
  });
});

test('a reader that has seen enough is no failure', async () => {
  const child = spawn('/bin/sh', ['-c', `"${process.execPath}" "${PROGRAM}" server entry create --help | true; echo done`], {
    env: { PATH: process.env['PATH'] ?? '', HOME: home },
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  await new Promise((done) => child.once('close', done));
  expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
});

describe('every command', () => {
  for (const { words, summary } of LEAVES) {
    test(`${words} has a help of its own`, async () => {
      const terminal = new TestTerminal();
      expect(await main([...words.split(' '), '--help'], terminal)).toBe(0);
      expect(terminal.stdout).toMatch(new RegExp(`^Usage: warifu ${words} \\[flags\\](?: [A-Z]+)*\\n`));
      expect(terminal.stdout).toMatch(/^ {2}--?\w+/m);
      expect(summary).not.toBe('');
    });
  }
});

describe("switches that open Node's inspector are seen", () => {
  const rows: readonly [execArgv: string[], nodeOptions: string, asked: string | undefined][] = [
    [[], '', undefined],
    [['--inspect'], '', '--inspect'],
    [['--inspect=0.0.0.0:1'], '', '--inspect'],
    [[], '--max-old-space-size=100 --inspect-brk=9', '--inspect-brk'],
    [[], '--inspect-wait', '--inspect-wait'],
    [['--inspect-publish-uid=http'], '', undefined],
    [['--disable-sigusr1'], '--enable-source-maps', undefined],
  ];
  for (const [execArgv, nodeOptions, asked] of rows) {
    test(JSON.stringify([execArgv, nodeOptions]), () => expect(inspectorAsked(execArgv, nodeOptions)).toBe(asked));
  }
});
