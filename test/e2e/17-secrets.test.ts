/** Story 17: where secrets are, and where they are not: every file with its mode; no log line, error, metric, command line or environment shows one. */
import { createPrivateKey } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Daemon } from './daemon.ts';
import { type Agent, createHouse, freePort, type House, ROOT, WARIFU } from './house.ts';

interface Secret {
  readonly what: string;
  /** Each form in which it might be shown. */
  readonly forms: readonly Buffer[];
}

let house: House;
let agent: Agent;
let flagged: Agent;
let fromEnv: Agent;
let metricsPort: number;
let healthPort: number;
const secrets: Secret[] = [];
const shown: { readonly where: string; readonly text: string }[] = [];

const bytesIn = (what: string, bytes: Buffer): Secret => ({
  what,
  forms: [
    bytes,
    ...(['base64', 'base64url', 'hex'] as const).map((form) => Buffer.from(bytes.toString(form).replace(/=+$/, ''))),
    Buffer.from(bytes.toString('hex').toUpperCase()),
    // as PEM breaks its lines
    Buffer.from(
      bytes
        .toString('base64')
        .replace(/(.{64})/g, '$1\n')
        .split('\n')[1] ?? '',
    ),
  ].filter(({ length }) => length > 15),
});
const textIn = (what: string, text: string): Secret => ({ what, forms: [Buffer.from(text)] });
/** The private scalar or the whole of a PKCS#8 key. */
function keyIn(what: string, pem: string | Buffer): Secret {
  const key = Buffer.isBuffer(pem) ? createPrivateKey({ key: pem, format: 'der', type: 'pkcs8' }) : createPrivateKey(pem);
  const whole = bytesIn(what, key.export({ type: 'pkcs8', format: 'der' }));
  const { d } = key.export({ format: 'jwk' });
  return { what, forms: [...whole.forms, ...bytesIn(what, Buffer.from(d ?? '', 'base64url')).forms] };
}

beforeAll(async () => {
  [metricsPort, healthPort] = [await freePort(), await freePort()];
  house = await createHouse({ logLevel: 'TRACE', serverSettings: ['audit_log_enabled = true', 'log_format = "json"'] });
  writeFileSync(
    house.serverConf,
    `${readFileSync(house.serverConf, 'utf8')}
telemetry { Prometheus { port = ${metricsPort} } }
health_checks { listener_enabled = true  bind_port = ${healthPort} }
`,
  );
  secrets.push(keyIn('the intermediate’s key', readFileSync(house.pki.intermediateKey, 'utf8')));
  await house.startServer();
  agent = await house.createAgent('agent', { settings: [`admin_socket_path = "${join(house.dir, 'agent-admin', 'api.sock')}"`] });
  flagged = await house.createAgent('flagged');
  fromEnv = await house.createAgent('from-env', { process: { env: {} } });
  for (const one of [agent, flagged, fromEnv]) secrets.push(textIn(`the join token of ${one.name}`, one.id.split('/').at(-1) ?? ''));
  await agent.start();
  await house.createEntry({ id: '/web', parent: agent });
});
afterAll(() => house?.close());

const tokenOf = (one: Agent) => one.id.split('/').at(-1) ?? '';
const withoutToken = (one: Agent) => writeFileSync(one.conf, readFileSync(one.conf, 'utf8').replace(/^.*join_token = .*$/m, ''));
const ofProcess = (pid: number, file: string) => readFileSync(`/proc/${pid}/${file}`).toString('latin1');

/** What a workload gets is its own: the keys and tokens of the SVIDs. */
async function fetchSecrets(): Promise<void> {
  const x509 = JSON.parse(await house.ok('agent', 'api', 'fetch', 'x509', '-output', 'json', '-socketPath', agent.socketPath)) as {
    svids: { x509_svid_key: string }[];
  };
  secrets.push(keyIn('a workload’s key', Buffer.from(x509.svids[0]?.x509_svid_key ?? '', 'base64')));
  const jwt = JSON.parse(
    await house.ok('agent', 'api', 'fetch', 'jwt', '-audience', 'db', '-output', 'json', '-socketPath', agent.socketPath),
  ) as [{ svids: { svid: string }[] }];
  const token = jwt[0].svids[0]?.svid ?? '';
  secrets.push(textIn('a JWT-SVID', token), textIn('the signature of a JWT-SVID', token.split('.')[2] ?? ''));
  await house.run('agent', 'api', 'validate', 'jwt', '-audience', 'db', '-svid', token, '-socketPath', agent.socketPath);
  shown.push({
    where: 'a refusal of a token',
    text: (await house.run('agent', 'api', 'validate', 'jwt', '-audience', 'other', '-svid', token, '-socketPath', agent.socketPath))
      .stderr,
  });
}

/** Every private key in a JSON file of keys, whatever its form. */
function keysIn(what: string, path: string): void {
  const text = readFileSync(path, 'utf8');
  const found = [...text.matchAll(/"([A-Za-z0-9+/=]{80,})"/g)].flatMap(([, value = '']) => {
    try {
      return [keyIn(what, Buffer.from(value, 'base64'))];
    } catch {
      return [];
    }
  });
  expect(found.length, path).toBeGreaterThan(0);
  secrets.push(...found);
}

function* filesBelow(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* filesBelow(path);
    else if (entry.isFile()) yield path;
  }
}

test('secrets are made and used: SVIDs are fetched, tokens spent in every way there is, errors provoked', async () => {
  await fetchSecrets();
  keysIn('a key of the server', join(house.dir, 'server', 'keys.json'));
  keysIn('the agent’s own key', join(agent.dataDir, 'keys.json'));

  withoutToken(flagged);
  await flagged.start('-joinToken', tokenOf(flagged));
  withoutToken(fromEnv);
  const env = new Daemon('from-env', [...WARIFU, 'agent', 'run', '-config', fromEnv.conf], {
    cwd: house.dir,
    env: { WARIFU_JOIN_TOKEN: tokenOf(fromEnv) },
  });
  await env.line(/Node attestation was successful/);
  for (const pid of [house.server.pid, agent.process.pid, flagged.process.pid, env.pid])
    for (const file of ['cmdline', 'environ', 'status']) shown.push({ where: `/proc/${pid}/${file}`, text: ofProcess(pid, file) });
  await env.stop();
  shown.push({ where: 'the log of the agent whose token came by the environment', text: env.tail(100_000) });

  // a token that is spent, by another key
  const thief = await house.createAgent('thief');
  writeFileSync(thief.conf, readFileSync(thief.conf, 'utf8').replace(tokenOf(thief), tokenOf(flagged)));
  await thief.launch().line(/Failed to attest/i);
  await thief.process.kill();
  shown.push({ where: 'the log of a thief of a token', text: thief.process.tail(100_000) });

  for (const [where, url] of [
    ['metrics', `http://127.0.0.1:${metricsPort}/metrics`],
    ['ready', `http://127.0.0.1:${healthPort}/ready`],
  ] as const)
    shown.push({ where, text: await (await fetch(url)).text() });
  for (const args of [
    ['server', 'agent', 'list', '-output', 'json'],
    ['server', 'entry', 'show', '-output', 'json'],
    ['server', 'bundle', 'show', '-format', 'spiffe'],
    ['agent', 'explain', '-pid', String(process.pid), '-socketPath', join(house.dir, 'agent-admin', 'api.sock')],
  ])
    shown.push({ where: args.join(' '), text: (await house.run(...args)).stdout });
  shown.push({ where: 'the server’s log', text: house.server.tail(100_000) });
  for (const one of [agent, flagged]) shown.push({ where: `the log of ${one.name}`, text: one.process.tail(100_000) });
});

describe('nothing that is shown holds', () => {
  /** An agent's ID by join token names the token that it was attested with, as SPIRE's does: spent then, and no secret any more. */
  const withoutIds = (text: string) => text.replaceAll(/\/spire\/agent\/join_token\/[0-9a-f-]{36}/g, '/spire/agent/join_token/ID');

  test('a key, a token or a JWT-SVID', () => {
    const found = shown.flatMap(({ where, text }) => {
      const bytes = Buffer.from(withoutIds(text), 'latin1');
      return secrets.filter(({ forms }) => forms.some((form) => bytes.includes(form))).map(({ what }) => `${where} shows ${what}`);
    });
    expect(found).toEqual([]);
    // and the search finds what is there
    expect(secrets.length).toBeGreaterThan(8);
    expect(shown.find(({ where }) => where === 'the server’s log')?.text).toContain('/spire/agent/join_token/');
    expect(shown.find(({ where }) => where === 'metrics')?.text).toContain('spire_server');
  });
});

describe('files', () => {
  /** As docs/operating.md lists them. */
  const holders: readonly [file: RegExp, mode: number][] = [
    [/^server\/keys\.json$/, 0o600],
    [/^server\/datastore\.sqlite3(-wal|-shm)?$/, 0o600],
    [/^[a-z-]+\/data\/keys\.json$/, 0o600],
    // the operator's own
    [/^[a-z-]+\/agent\.conf$/, 0o600],
    [/^pki\//, 0o600],
  ];

  test('that hold a secret are those of the list, and only their owner reads them', () => {
    const found = [...filesBelow(house.dir)].flatMap((path) => {
      const bytes = readFileSync(path);
      const name = relative(house.dir, path);
      // whose proof is a token keeps its name in the agent's ID
      const text = path.endsWith('agent-data.json') ? Buffer.alloc(0) : bytes;
      return secrets.some(({ forms }) => forms.some((form) => text.includes(form))) ? [{ name, mode: statSync(path).mode & 0o777 }] : [];
    });
    expect(found.map(({ name }) => name)).toEqual(expect.arrayContaining(['server/keys.json', 'agent/data/keys.json']));
    const strange = found.filter(({ name, mode }) => !holders.some(([file, allowed]) => file.test(name) && mode === allowed));
    expect(strange).toEqual([]);
  });

  test('that the programs made are closed to others, whatever is in them', () => {
    const open = ['server', 'agent/data', 'flagged/data'].flatMap((folder) =>
      [...filesBelow(join(house.dir, folder))]
        .filter((path) => (statSync(path).mode & 0o077) !== 0)
        .map((path) => relative(house.dir, path)),
    );
    expect(open).toEqual([]);
    expect([...filesBelow(join(house.dir, 'server'))].length).toBeGreaterThan(2);
  });
});

test('no process of ours leaves a core file, and none can be looked into by another of its user', async () => {
  for (const pid of [house.server.pid, agent.process.pid]) expect(ofProcess(pid, 'limits')).toMatch(/Max core file size +0 +0 /);
  // the kernel gives what can't be dumped to root, so that not even its own user opens its memory
  const nobody = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
  const ordinary = new Daemon('ordinary', [process.execPath, '--disable-sigusr1', '-e', probe()], { cwd: ROOT, ...nobody });
  await ordinary.line(/^ready/);
  expect(statSync(`/proc/${ordinary.pid}/environ`).uid).toBe(0);
  await ordinary.kill();
});

/** The daemons' own first step, in a process of an ordinary user. */
function probe(): string {
  return `import(${JSON.stringify(join(ROOT, 'core', 'native.ts'))}).then(({ keepMemoryPrivate }) => { keepMemoryPrivate(); console.log('ready'); setInterval(() => {}, 60_000); })`;
}
