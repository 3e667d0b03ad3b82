/** The file of intentions: what it may say in three formats, all that can be wrong with it, and what becomes of it while a program runs. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, truncateSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { IntentionFile, type IntentionFileOptions } from '../../core/intention-file.ts';
import { parseName, readIntentions } from '../../core/intention-settings.ts';
import { faultsOf } from '../../core/schema.ts';
import { type Format, parseSettings } from '../../core/settings-file.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { FakeClock } from '../fakes/clock.ts';
import { CountingLog } from '../fakes/log.ts';

const id = (path: string) => SpiffeId.parse(`spiffe://example.org/${path}`);
const HCL = `trust_domain = "example.org"
intention "web-db" {
  source      = "web"
  destination = "db"
  action      = "allow"
}
intention "no-far" {
  source      = "spiffe://far.test/**"
  destination = "ns/*/db"
  action      = "deny"
  shadow      = true
  description = "from May on"
}
default = "deny"
`;

const read = async (text: string, format: Format = 'hcl') => readIntentions(await parseSettings(text, 'x', format));

describe('what it says', () => {
  const texts: readonly (readonly [Format, string])[] = [
    ['hcl', HCL],
    [
      'yaml',
      `trust_domain: example.org
intention:
  no-far: { source: "spiffe://far.test/**", destination: ns/*/db, action: deny, shadow: true, description: from May on }
  web-db:
    source: web
    destination: db
    action: allow
default: deny
`,
    ],
    [
      'json',
      '{"trust_domain":"example.org","default":"deny","intention":{"web-db":{"source":"web","destination":"db","action":"allow"},' +
        '"no-far":{"source":"spiffe://far.test/**","destination":"ns/*/db","action":"deny","shadow":true,"description":"from May on"}}}',
    ],
  ];
  test.each(texts)('in %s', async (format, text) => {
    const { intentions, trustDomain } = await read(text, format);
    expect(trustDomain).toBe(TrustDomain.parse('example.org'));
    expect(intentions.default).toBe('deny');
    expect([...intentions.rules].sort((a, b) => (a.id < b.id ? -1 : 1))).toEqual([
      {
        id: 'no-far',
        source: 'spiffe://far.test/**',
        destination: 'spiffe://example.org/ns/*/db',
        action: 'deny',
        shadow: true,
        description: 'from May on',
      },
      { id: 'web-db', source: 'spiffe://example.org/web', destination: 'spiffe://example.org/db', action: 'allow', shadow: false },
    ]);
    expect(intentions.version).toBe((await read(HCL)).intentions.version);
  });

  test('no intention at all, but the default', async () => {
    expect((await read('default = "allow"')).intentions.check(id('web'), id('db')).allowed).toBe(true);
    expect((await read('default = "deny"')).intentions.check(id('web'), id('db')).allowed).toBe(false);
  });

  test('the command line knows the same short names', () => {
    const known = TrustDomain.parse('example.org');
    expect(String(parseName('ns/prod/web', known))).toBe('spiffe://example.org/ns/prod/web');
    expect(String(parseName('spiffe://far.test/web', known))).toBe('spiffe://far.test/web');
    for (const none of ['*', 'ns/*', 'spiffe://*/**', 'web/', '', '/web'])
      expect(() => parseName(none, known)).toThrowError(expect.objectContaining({ code: 'ID_INVALID' }));
    expect(() => parseName('web', undefined)).toThrow(/trust_domain/);
  });
});

const one = (source: string, destination = 'db', more = '') =>
  `trust_domain = "example.org"\ndefault = "deny"\nintention "x" { source = "${source}" destination = "${destination}" action = "allow" ${more} }`;

const faulty: readonly [what: string, text: string, faults: readonly RegExp[]][] = [
  ['no default', 'trust_domain = "example.org"', [/^x: default: must be configured$/]],
  ['an empty file', '', [/^x: default: must be configured$/]],
  ['a default that is neither', 'default = "Deny"', [/^x:1:1: default: expected one of allow, deny/]],
  ['an action that is neither', one('web').replace('"allow"', '"permit"'), [/^x:3:\d+: intention\.x\.action: expected one of allow, deny/]],
  ['a key that is not known', one('web', 'db', 'shadwo = true'), [/intention\.x\.shadwo: unknown key: did you mean "shadow"\?$/]],
  ['a lone star', one('*'), [/intention\.x\.source: .*spiffe:\/\/example\.org\/\*\*.*spiffe:\/\/\*\/\*\*/]],
  ['two lone stars', one('web', '**'), [/intention\.x\.destination: .*spiffe:\/\/\*\/\*\*/]],
  ['a star that stands for a trust domain', one('spiffe://*/web'), [/intention\.x\.source: /]],
  ['a star that stands for a part of a segment', one('web-*'), [/intention\.x\.source: /]],
  ['two stars before the end', one('web', 'a/**/b'), [/intention\.x\.destination: /]],
  ['a short name that begins with a star', one('*/web'), [/begins with a letter/]],
  ['a short name that begins with a slash', one('/web'), [/begins with a letter/]],
  ['a slash at the end', one('web/'), [/trailing slash/]],
  ['an empty segment', one('web//x'), [/empty segments/]],
  ['a percent sign', one('web%2fx'), [/limited to letters/]],
  ['an ID without its scheme', one('example.org/web'), [/did you mean "spiffe:\/\/example\.org\/web"\?$/]],
  ['another scheme', one('https://example.org/web'), [/scheme/]],
  ['a trust domain in upper case', one('spiffe://Example.org/web'), [/lowercase/]],
  [
    'a short name without a trust domain',
    'default = "deny"\nintention "x" { source = "web" destination = "spiffe://a/b" action = "allow" }',
    [/needs a trust_domain/],
  ],
  ['a trust domain that is none: said once', one('web').replace('example.org', 'Example'), [/^x:1:1: trust_domain: /]],
  ['an id with a space', one('web').replace('"x"', '"x y"'), [/intention\.x y: an id is /]],
  ['an intention without a name', one('web').replace('"x"', ''), [/intention\.source/, /intention\.destination/, /intention\.action/]],
  [
    'two of the same ends, short and long',
    `${one('web')}\nintention "y" { source = "spiffe://example.org/web" destination = "db" action = "deny" }`,
    [/^x:4:\d+: intention\.y: the same source and destination as x/],
  ],
  [
    'one that stands twice',
    `${one('web')}\nintention "x" { source = "api" destination = "db" action = "deny" }`,
    [/set twice/, /set twice/, /set twice/],
  ],
  [
    'several at once',
    `trust_domain = "example.org"
intention "a" { source = "*" destination = "db/" action = "allow" }
intention "b" { source = "web" destination = "db" action = "alow" }
intention "c" { source = "web" destination = "db" action = "deny" }
`,
    [
      /^x: default/,
      /^x:2:\d+: intention\.a\.source/,
      /^x:2:\d+: intention\.a\.destination/,
      /^x:3:\d+: intention\.b\.action/,
      /^x:4:\d+: intention\.c: the same/,
    ],
  ],
  ['no HCL', 'default = "deny"\nintention "x" {', [/^x:2:\d+: /]],
];
describe('refused with its place', () => {
  for (const [what, text, words] of faulty) {
    test(what, async () => {
      const error: unknown = await read(text).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'SETTINGS_INVALID' });
      const lines = (error as Error).message.split('\n');
      expect(lines).toHaveLength(words.length);
      for (const [i, line] of lines.entries()) expect(line).toMatch(words[i] ?? /^$/);
      expect(faultsOf(error).length).toBe(what === 'no HCL' ? 0 : words.length);
    });
  }
  test('and what differs from these by the fault alone is not', async () => {
    for (const text of [
      one('web'),
      one('spiffe://example.org/**'),
      one('spiffe://*/**'),
      one('ns/*'),
      one('web', 'a/**'),
      one('web', 'db', 'shadow = true'),
    ])
      expect((await read(text)).intentions.rules).toHaveLength(1);
  });
});

const POLL_MS = 1000;
const allow = (...ids: string[]) =>
  `trust_domain = "example.org"\n${ids.map((name) => `intention "${name}" { source = "${name}" destination = "db" action = "allow" }\n`).join('')}default = "deny"\n`;

/** An open file, and what becomes of it. */
async function follow(text: string, options: Partial<IntentionFileOptions> = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'intentions-'));
  const path = join(folder, 'intentions.hcl');
  writeFileSync(path, text);
  const clock = new FakeClock();
  const log = new CountingLog();
  const file = await IntentionFile.open({ path, clock, log, pollMs: POLL_MS, ...options });
  let changes = 0;
  file.onChange(() => changes++);
  onTestFinished(async () => {
    await file.close();
    rmSync(folder, { recursive: true });
  });
  /** What the clock has to do until the file has been looked at, and found quiet. */
  const idle = async (waiting: () => boolean) => {
    while (!waiting()) await new Promise((resolve) => setImmediate(resolve));
  };
  return {
    file,
    path,
    folder,
    log,
    changes: () => changes,
    /** Lets it look once more; `meanwhile` happens between its look and its read. */
    async look(meanwhile?: () => void) {
      await idle(() => clock.waiting === 1);
      await clock.advance(POLL_MS);
      // it sleeps until the file is quiet, or until its next look when nothing has changed: both by the clock
      await idle(() => clock.waiting === 1);
      meanwhile?.();
      await clock.advance(200);
      await idle(() => clock.waiting === 1);
    },
    may: (source: string) => file.intentions.check(id(source), id('db')).allowed,
    replace(more: string) {
      writeFileSync(`${path}.new`, more);
      renameSync(`${path}.new`, path);
    },
  };
}

describe('while a program runs', () => {
  test('a new file is taken at the next look, and told', async () => {
    const { file, may, look, replace, changes } = await follow(allow('web'));
    expect([may('web'), may('api'), file.fault]).toEqual([true, false, undefined]);
    const before = file.intentions;
    replace(allow('api'));
    await look();
    expect([may('web'), may('api'), changes()]).toEqual([false, true, 1]);
    expect(before.check(id('web'), id('db')).allowed).toBe(true);
  });

  test('a file that says the same in other words is no change', async () => {
    const { file, look, replace, changes } = await follow(allow('web', 'api'));
    const { version } = file.intentions;
    replace(`# words\n${allow('api', 'web')}`);
    await look();
    expect([file.intentions.version, changes(), file.fault]).toEqual([version, 0, undefined]);
  });

  test('symlinks of a volume of Kubernetes, swapped, are a new file', async () => {
    const { folder, path, look, may } = await follow(allow('web'));
    const version = (name: string, text: string) => {
      mkdirSync(join(folder, name));
      writeFileSync(join(folder, name, 'intentions.hcl'), text);
    };
    version('one', allow('web'));
    version('two', allow('api'));
    symlinkSync('one', join(folder, 'data'));
    unlinkSync(path);
    symlinkSync('data/intentions.hcl', path);
    await look();
    expect(may('web')).toBe(true);
    symlinkSync('two', join(folder, 'next'));
    renameSync(join(folder, 'next'), join(folder, 'data'));
    await look();
    expect([may('web'), may('api')]).toEqual([false, true]);
  });

  test('one of the same length, written in place with the old time, is seen', async () => {
    const { path, look, may } = await follow(allow('web'));
    const then = new Date(2026, 0, 1);
    utimesSync(path, then, then);
    await look();
    writeFileSync(path, allow('api'));
    utimesSync(path, then, then);
    await look();
    expect([may('web'), may('api')]).toEqual([false, true]);
  });

  const bad: readonly [what: string, make: (path: string) => void][] = [
    ['cut off', (path) => truncateSync(path, 80)],
    ['empty', (path) => truncateSync(path, 0)],
    ['wrong', (path) => writeFileSync(path, allow('*'))],
    ['not text', (path) => writeFileSync(path, Buffer.from([0xff, 0xfe, 0]))],
    ['too large', (path) => truncateSync(path, 9 << 20)],
    ['gone', (path) => unlinkSync(path)],
    ['a folder', (path) => (unlinkSync(path), mkdirSync(path))],
    ['a pipe', (path) => (unlinkSync(path), void execFileSync('mkfifo', [path]))],
    ['a link to itself', (path) => (unlinkSync(path), symlinkSync(path, path))],
  ];
  for (const [what, make] of bad) {
    test(`a file that is ${what} leaves in force what was read before, with a reason, told once; the next good one is taken`, async () => {
      const { file, path, look, may, log, changes } = await follow(allow('web', 'api'));
      make(path);
      await look();
      await look();
      expect([may('web'), may('api'), may('else'), changes()]).toEqual([true, true, false, 0]);
      expect(file.fault).toMatchObject({ code: 'SETTINGS_INVALID', message: expect.stringContaining(path) });
      expect(log.errors).toBe(1);
      rmSync(path, { recursive: true, force: true });
      writeFileSync(path, allow('api'));
      await look();
      expect([may('web'), may('api'), changes(), file.fault]).toEqual([false, true, 1, undefined]);
    });
  }

  test('a file that is still being written is not read, though what is there of it could be', async () => {
    const { file, path, look, may, changes } = await follow(allow('web', 'api'));
    const whole =
      'default = "allow"\nintention "no" { source = "spiffe://example.org/web" destination = "spiffe://example.org/db" action = "deny" }\n';
    // its first line alone would let everybody in
    writeFileSync(path, whole.slice(0, whole.indexOf('\n') + 1));
    await look(() => writeFileSync(path, whole.slice(0, 60)));
    expect([may('else'), changes()]).toEqual([false, 0]);
    expect(file.fault?.message).toMatch(/is being written/);
    await look(() => writeFileSync(path, whole));
    expect([may('else'), changes()]).toEqual([false, 0]);
    await look();
    expect([may('else'), may('web'), changes(), file.fault]).toEqual([true, false, 1, undefined]);
  });

  test('a listener that throws keeps none of the others from hearing; one that has left hears nothing', async () => {
    const { file, look, replace, changes } = await follow(allow('web'));
    let heard = 0;
    file.onChange(() => {
      throw new Error('mine');
    });
    const off = file.onChange(() => heard++);
    replace(allow('api'));
    await look();
    off();
    replace(allow('web'));
    await look();
    expect([heard, changes()]).toEqual([1, 2]);
  });
});

describe('asked to', () => {
  test('it reads at once, and does not look by itself where that is switched off', async () => {
    const { file, path, may, changes, replace } = await follow(allow('web'), { pollMs: 0 });
    replace(allow('api'));
    await file.reload();
    expect([may('web'), may('api'), changes(), file.fault]).toEqual([false, true, 1, undefined]);
    writeFileSync(path, 'default =');
    await file.reload();
    expect([may('api'), changes()]).toEqual([true, 1]);
    expect(file.fault).toMatchObject({ code: 'SETTINGS_INVALID' });
    unlinkSync(path);
    await file.reload();
    expect(file.fault?.message).toMatch(/no such file/);
  });

  test('twice at once it ends with the newest', async () => {
    const { file, may, replace } = await follow(allow('web'), { pollMs: 0 });
    replace(allow('api'));
    const first = file.reload();
    replace(allow('batch'));
    await Promise.all([first, file.reload()]);
    expect([may('web'), may('api'), may('batch')]).toEqual([false, false, true]);
  });

  test('after the end nothing is read any more, and what was read stays', async () => {
    const { file, may, replace, changes } = await follow(allow('web'));
    await file.close();
    replace(allow('api'));
    await file.reload();
    await file.close();
    expect([may('web'), may('api'), changes()]).toEqual([true, false, 0]);
  });
});

describe('at the start', () => {
  test.each([
    ['that is wrong, with every fault', (path: string) => writeFileSync(path, allow('*', '**').replace('default', 'defalt')), 6],
    ['that is not there', (path: string) => rmSync(path, { force: true }), 1],
    ['that is a folder', (path: string) => mkdirSync(path), 1],
  ])('a file %s is refused', async (_, make, lines) => {
    const folder = mkdtempSync(join(tmpdir(), 'intentions-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'intentions.hcl');
    make(path);
    const error: unknown = await IntentionFile.open({ path }).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'SETTINGS_INVALID' });
    expect((error as Error).message.split('\n')).toHaveLength(lines);
    expect((error as Error).message).toContain(path);
  });
});
