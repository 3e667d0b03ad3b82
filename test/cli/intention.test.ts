/** `intention …`: verdicts with their exit codes, lists, and files that are wrong; the same answers as the engine for 1,000 calls. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { main } from '../../cli/main.ts';
import { Intentions } from '../../core/intention.ts';
import { intentionSettings } from '../../core/intention-settings.ts';
import { keysOf } from '../../core/schema.ts';
import { PAIRS, RULES } from '../core/intention-corpus.ts';
import { TestTerminal } from './terminal.ts';

const folder = mkdtempSync(join(tmpdir(), 'intention-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const good = write(
  'good.hcl',
  `trust_domain = "example.org"
intention "web-db"    { source = "web" destination = "db" action = "allow" }
intention "no-batch"  { source = "web" destination = "db" action = "deny" shadow = true description = "from May on\\u001b[2J" }
intention "nobody-db" { source = "spiffe://*/**" destination = "db" action = "deny" }
default = "deny"
`,
);

async function run(words: string, options: { file?: string; env?: Record<string, string> } = {}) {
  const terminal = new TestTerminal(options.env ? { env: options.env } : {});
  const code = await main(['intention', ...words.split(' '), ...(options.env ? [] : ['-file', options.file ?? good])], terminal);
  return { code, stdout: terminal.stdout, stderr: terminal.stderr };
}

describe('check', () => {
  test('allowed is exit code 0 and one line with the intention and the reason', async () => {
    expect(await run('check web db')).toEqual({
      code: 0,
      stdout:
        'allowed: spiffe://example.org/web may call spiffe://example.org/db: intention web-db allows spiffe://example.org/web to call spiffe://example.org/db, ' +
        'and comes before nobody-db, since its destination is the same and its source less exact; in trial, intention no-batch would deny it\n',
      stderr: '',
    });
  });

  test('denied is exit code 1', async () => {
    expect(await run('check spiffe://far.test/x spiffe://example.org/db')).toEqual({
      code: 1,
      stdout:
        'denied: spiffe://far.test/x may not call spiffe://example.org/db: intention nobody-db denies spiffe://*/** to call spiffe://example.org/db, the only one that matches\n',
      stderr: '',
    });
    expect(await run('check db web')).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/no intention matches, and the default is deny\n$/),
    });
  });

  test('-explain adds a line for each intention', async () => {
    const { code, stdout } = await run('check -explain web db');
    expect(code).toBe(0);
    expect(stdout.split('\n').slice(1)).toEqual([
      '  no-batch is in trial and would decide: deny',
      '  web-db decides: allow',
      '  nobody-db comes after web-db: its destination is the same and its source less exact',
      '',
    ]);
  });

  test('-o json is one stable line', async () => {
    const { code, stdout } = await run('check web db -o json');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\{"allowed":true,"source":"spiffe:\/\/example\.org\/web","destination":.*\}\n$/);
    const told: unknown = JSON.parse(stdout);
    expect(told).toEqual({
      allowed: true,
      source: 'spiffe://example.org/web',
      destination: 'spiffe://example.org/db',
      intention: {
        id: 'web-db',
        source: 'spiffe://example.org/web',
        destination: 'spiffe://example.org/db',
        action: 'allow',
        shadow: false,
        description: '',
      },
      shadow: expect.objectContaining({ id: 'no-batch', action: 'deny', shadow: true }) as unknown,
      why: expect.stringMatching(/may call/) as unknown,
      default: 'deny',
      version: expect.stringMatching(/^[0-9a-f]{16}$/) as unknown,
    });
    expect(JSON.parse((await run('check db web -output json')).stdout)).toMatchObject({ allowed: false, intention: null, shadow: null });
    expect(JSON.parse((await run('check db web -explain -o json')).stdout)).toMatchObject({
      explanations: expect.arrayContaining([
        { intention: 'web-db', matches: false, why: 'is about another source and another destination' },
      ]) as unknown,
    });
  });

  /** Nothing on standard output: what can't be said is neither yes nor no. */
  const unsaid: readonly [words: string, stderr: RegExp, file?: string][] = [
    ['check web', /^DESTINATION is missing\n/],
    ['check', /^SOURCE is missing\n/],
    ['check web db cache', /^unexpected argument "cache"/],
    ['check web db -explan', /did you mean -explain\?/],
    ['check web db -o yaml', /unknown format option/],
    ['check web db -o json -output pretty', /already been set/],
    ['check * db', /^Error: "\*": says not whether other trust domains are meant/],
    ['check web db/', /^Error: .*trailing slash/],
    ['check web ns/*', /^Error: .*limited to letters/],
    ['check spiffe://Example.org/web db', /^Error: .*lowercase/],
    ['check web db', /^Error: could not find config file .*: please use the -file flag or WARIFU_INTENTIONS\n$/, join(folder, 'none.hcl')],
    [
      'check web db',
      /^Error: .*bad\.hcl: default: must be configured\n.*bad\.hcl:1:\d+: intention\.x\.action/,
      write('bad.hcl', 'intention "x" { source = "spiffe://a/b" destination = "spiffe://a/c" action = "yes" }'),
    ],
    ['check web db', /^Error: .*short\.hcl:?.*|"web": a short name needs a trust_domain/, write('short.hcl', 'default = "allow"')],
  ];
  for (const [words, stderr, file] of unsaid) {
    test(`${words}${file ? ` by ${file.split('/').at(-1)}` : ''}: exit code 2, and nothing is said`, async () => {
      expect(await run(words, file === undefined ? {} : { file })).toEqual({
        code: 2,
        stdout: '',
        stderr: expect.stringMatching(stderr) as unknown,
      });
    });
  }

  test('help is given behind the operands too', async () => {
    for (const words of ['check --help', 'check web -h', 'check web db -help'])
      expect(await run(words)).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/^Usage: warifu intention check \[flags\] SOURCE DESTINATION\n/) as unknown,
      });
    expect((await run('check web db -- --help')).code).toBe(2);
  });

  test('the file comes from -file, else from WARIFU_INTENTIONS', async () => {
    const other = write('other.hcl', 'trust_domain = "example.org"\ndefault = "allow"\n');
    expect((await run('check db web', { env: { WARIFU_INTENTIONS: other } })).code).toBe(0);
    expect((await run(`check db web -file ${good}`, { env: { WARIFU_INTENTIONS: other } })).code).toBe(1);
  });

  test('of 1,000 calls it says what the engine says', async () => {
    const blocks = RULES.map(
      ({ id, source, destination, action, shadow }) =>
        `intention "${id}" { source = "${source}" destination = "${destination}" action = "${action}" shadow = ${shadow} }\n`,
    );
    const file = write('corpus.hcl', `${blocks.join('')}default = "deny"\n`);
    const engine = Intentions.from(RULES, { default: 'deny' });
    const answers = { allowed: 0, denied: 0 };
    for (const [source, destination] of PAIRS) {
      const verdict = engine.check(source, destination);
      answers[verdict.allowed ? 'allowed' : 'denied']++;
      const { code, stdout } = await run(`check ${source} ${destination} -o json`, { file });
      expect(code).toBe(verdict.allowed ? 0 : 1);
      expect(JSON.parse(stdout)).toMatchObject({
        allowed: verdict.allowed,
        intention: verdict.rule ? { id: verdict.rule.id } : null,
        shadow: verdict.shadow ? { id: verdict.shadow.id } : null,
        why: verdict.why,
        version: engine.version,
      });
    }
    expect(answers.allowed * answers.denied).toBeGreaterThan(0);
  }, 60_000);
});

const TABLE = `ACTION        SOURCE                    DESTINATION              INTENTION
deny (trial)  spiffe://example.org/web  spiffe://example.org/db  no-batch: from May on\\u{1b}[2J
allow         spiffe://example.org/web  spiffe://example.org/db  web-db
deny          spiffe://*/**             spiffe://example.org/db  nobody-db
deny          whatever else                                      (default)
`;

describe('list, match and validate', () => {
  test('list has all, the most exact first, and nothing that a terminal would obey', async () => {
    expect(await run('list')).toEqual({ code: 0, stdout: TABLE, stderr: '' });
  });

  test('in JSON all keys are always there', async () => {
    const { stdout } = await run('list -o json');
    expect(JSON.parse(stdout)).toEqual({
      intentions: [
        expect.objectContaining({ id: 'no-batch', shadow: true, description: 'from May on\u001b[2J' }),
        {
          id: 'web-db',
          source: 'spiffe://example.org/web',
          destination: 'spiffe://example.org/db',
          action: 'allow',
          shadow: false,
          description: '',
        },
        expect.objectContaining({ id: 'nobody-db' }),
      ],
      default: 'deny',
      version: expect.stringMatching(/^[0-9a-f]{16}$/) as unknown,
    });
  });

  test('match has those about one end', async () => {
    expect((await run('match -destination db')).stdout).toBe(TABLE);
    const ids = async (words: string) =>
      (JSON.parse((await run(`${words} -o json`)).stdout) as { readonly intentions: readonly { readonly id: string }[] }).intentions.map(
        (one) => one.id,
      );
    expect(await ids('match -source api')).toEqual(['nobody-db']);
    expect(await ids('match -source web')).toEqual(['no-batch', 'web-db', 'nobody-db']);
    expect(await ids('match -destination cache')).toEqual([]);
  });

  test.each(['match', 'match -source web -destination db', 'match -source web/', 'match -destination ns/*', 'list web', 'validate x'])(
    '%s is refused with exit code 1',
    async (words) => {
      expect(await run(words)).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/\S/) as unknown });
    },
  );

  test('validate tells what there is, or everything that is wrong', async () => {
    expect(await run('validate')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(
        /^The file is valid: 3 intentions, 1 of them in trial, default deny, version [0-9a-f]{16}\.\n$/,
      ) as unknown,
    });
    expect(JSON.parse((await run('validate -o json')).stdout)).toMatchObject({ valid: true, intentions: 3, in_trial: 1, default: 'deny' });
    const { code, stdout, stderr } = await run('validate', { file: join(folder, 'bad.hcl') });
    expect([code, stdout, stderr.trim().split('\n').length]).toEqual([1, '', 2]);
  });
});

describe('docs/intentions.md', () => {
  const page = readFileSync(resolve(import.meta.dirname, '../../docs/intentions.md'), 'utf8');
  const block = (language: string) => new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``).exec(page)?.[1] ?? '';
  const file = write('page.hcl', block('hcl'));

  test('its file says the same in HCL and in YAML', async () => {
    const version = async (path: string) =>
      (JSON.parse((await run('validate -o json', { file: path })).stdout) as { readonly version: string }).version;
    expect(await version(file)).toBe(await version(write('page.yaml', block('yaml'))));
  });

  test('its answers are those of the program', async () => {
    const shown = [...block('console').matchAll(/^\$ warifu intention (.*)\n((?:[^$].*\n)+)/gm)];
    expect(shown).toHaveLength(3);
    for (const [, words = '', answer = ''] of shown) expect((await run(words, { file })).stdout).toBe(answer);
  });

  test('its keys are those of the schema', () => {
    const told = [...page.matchAll(/^\| `([\w.*]+)` \| (?:required|`false`|) *\|/gm)].map(([, key]) => key);
    const keys = ['intention.*', ...keysOf(intentionSettings()).filter((key) => key !== 'intention')];
    expect(new Set(told)).toEqual(new Set(keys));
    expect(told).toHaveLength(keys.length);
  });
});
