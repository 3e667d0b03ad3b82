/** Log lines in SPIRE's two shapes: each one line whatever is in it, no stack for those who only watch, a level and a file that can change while the program runs. */
import { mkdtempSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { fail } from '../../core/errors.ts';
import type { Level } from '../../core/log.ts';
import { createLog, type LogSettings } from '../../core/log-output.ts';
import { Latest } from '../../spiffe/latest.ts';
import { FakeClock } from '../fakes/clock.ts';

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'log-'));
  path = join(dir, 'made', 'server.log');
});
afterEach(() => rmSync(dir, { recursive: true }));

const TIME = '2026-06-01T12:00:00.000Z';

function open(settings: Partial<LogSettings> = {}) {
  return createLog({ level: 'info', format: 'text', path, clock: new FakeClock(Date.parse(TIME)), ...settings });
}

const lines = (file = path): string[] => readFileSync(file, 'utf8').split('\n').slice(0, -1);
const parsed = (): Record<string, unknown>[] => lines().map((line) => JSON.parse(line) as Record<string, unknown>);

describe('text', () => {
  test('is logrus’ shape: time, level, message, then the fields by their names', () => {
    const log = open();
    log.info('Starting server', { version: '1.2.3', trust_domain: 'example.org', data_dir: '/var/lib/x y' });
    log.warn('Slow', { elapsed_ms: 12.5, expires_at: new Date(Date.parse(TIME)) });
    expect(lines()).toEqual([
      `time="${TIME}" level=info msg="Starting server" data_dir="/var/lib/x y" trust_domain=example.org version=1.2.3`,
      `time="${TIME}" level=warning msg=Slow elapsed_ms=12.5 expires_at="${TIME}"`,
    ]);
  });

  test('is one line whatever a field holds: nobody forges a second one', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string(), (uri, message) => {
        rmSync(path, { force: true });
        open().info(message, { uri, selectors: [uri] });
        const [line, ...more] = readFileSync(path, 'utf8').split('\n');
        expect(more).toEqual(['']);
        expect(line?.startsWith(`time="${TIME}" level=info msg=`)).toBe(true);
      }),
      { numRuns: 200 },
    );
    rmSync(path, { force: true });
    open().info('x', { uri: 'a"\nlevel=error msg=forged \u001b[2J\u2028\u007f\u009b1m' });
    expect(lines()).toHaveLength(1);
    expect(lines()[0]).toContain('forged \\u001b[2J');
    expect(lines()[0]).not.toMatch(/\p{Cc}/u);
  });
});

describe('JSON', () => {
  test('has the same names, levels as logrus writes them, and dates as RFC 3339', () => {
    const log = open({ format: 'json', level: 'trace' });
    log
      .with({ trust_domain: 'example.org' })
      .info('Hello', { count: 3, expires_at: new Date(Date.parse(TIME)), spiffe_id: undefined as never });
    for (const level of ['error', 'warn', 'info', 'debug', 'trace'] as const) log[level]('x');
    const [first, ...rest] = parsed();
    expect(first).toEqual({ level: 'info', time: TIME, trust_domain: 'example.org', count: 3, expires_at: TIME, msg: 'Hello' });
    expect(rest.map(({ level }) => level)).toEqual(['error', 'warning', 'info', 'debug', 'trace']);
  });

  test('a field named as the line’s own level stands beside it, as in logrus', () => {
    open({ format: 'json' }).info('SetLogLevel Called', { level: 'debug' });
    expect(lines()[0]?.match(/"level"/g)).toHaveLength(1);
    expect(parsed()).toMatchObject([{ level: 'info', 'fields.level': 'debug' }]);
    rmSync(path);
    open().info('SetLogLevel Called', { level: 'debug' });
    expect(lines()).toEqual([`time="${TIME}" level=info msg="SetLogLevel Called" fields.level=debug`]);
  });
});

describe('the level', () => {
  const order: readonly Level[] = ['error', 'warn', 'info', 'debug', 'trace'];
  const said = (log: ReturnType<typeof open>): string[] => {
    rmSync(path, { force: true });
    const fresh = open({ format: 'json', level: log.level });
    for (const level of order) fresh[level as 'info'](level);
    return parsed().map(({ msg }) => String(msg));
  };

  test('lets through what is as bad, and nothing at panic', () => {
    for (const [i, level] of order.entries()) expect(said(open({ level }))).toEqual(order.slice(0, i + 1));
    expect(said(open({ level: 'fatal' }))).toEqual([]);
    expect(said(open({ level: 'panic' }))).toEqual([]);
  });

  test('changes while the program runs, for logs made before too; the one at launch is remembered', () => {
    const log = open({ format: 'json' });
    const plugin = log.with({ plugin: 'disk' });
    plugin.debug('unheard');
    log.level = 'debug';
    plugin.debug('heard');
    expect([log.level, log.launchLevel]).toEqual(['debug', 'info']);
    log.level = 'error';
    plugin.warn('unheard');
    log.level = log.launchLevel;
    plugin.info('again');
    expect(parsed().map(({ msg }) => msg)).toEqual(['heard', 'again']);
  });
});

describe('an error', () => {
  const trouble = () => fail('STORE_FAILED', 'the file could not be written', { cause: new Error('ENOSPC: secret place') });

  test('is its words at info: no stack, no cause', () => {
    open({ format: 'json' }).error('Failed', { error: trouble() });
    expect(parsed()).toMatchObject([{ error: 'the file could not be written' }]);
    expect(lines()[0]).not.toMatch(/ at |log-output\.test/);
  });

  test('brings its causes at debug', () => {
    open({ format: 'json', level: 'debug' }).error('Failed', { error: trouble() });
    expect(String(parsed()[0]?.['error'])).toContain('the file could not be written: ENOSPC: secret place');
  });

  test('that nobody expected says where it came from, in one frame', () => {
    open({ format: 'json' }).error('Failed', { error: new TypeError('x is not a function') });
    const words = String(parsed()[0]?.['error']);
    expect(words).toContain('x is not a function (at ');
    expect(words.match(/\bat /g)).toHaveLength(1);
  });

  test('of several things is all their words; what is no error is its text', () => {
    const log = open({ format: 'json' });
    log.error('Failed', { error: new AggregateError([trouble(), fail('DENIED', 'no')], 'two') });
    log.error('Failed', { error: 'only a text' });
    expect(parsed().map(({ error }) => error)).toEqual(['the file could not be written; no', 'only a text']);
  });
});

describe('the file', () => {
  test('is made with its folder, readable by owner and group, and is added to', () => {
    open().info('one');
    open().info('two');
    expect(lines()).toHaveLength(2);
    expect(statSync(path).mode & 0o777 & ~0o022).toBe(0o640);
  });

  test('is opened anew after others renamed it', async () => {
    const reopens = new Latest(0);
    const log = open({ reopens });
    log.info('one');
    renameSync(path, `${path}.1`);
    log.info('two');
    reopens.set(1);
    while (!existing(path)) await setImmediate();
    log.info('three');
    expect(lines(`${path}.1`).map((line) => /msg=(\w+)/.exec(line)?.[1])).toEqual(['one', 'two']);
    expect(lines().map((line) => /msg=(\w+)/.exec(line)?.[1])).toEqual(['three']);
  });

  test('source locations name file and line of the call', () => {
    open({ format: 'json', sourceLocation: true }).info('here');
    expect(String(parsed()[0]?.['file'])).toMatch(/^log-output\.test\.ts:\d+$/);
  });

  test('on a full disk breaks nobody who has something to say', () => {
    const log = open({ path: '/dev/full' });
    for (let i = 0; i < 1000; i++) expect(() => log.error('Failed', { uri: 'x'.repeat(10_000) })).not.toThrow();
  });
});

function existing(file: string): boolean {
  try {
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
