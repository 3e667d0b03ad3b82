/**
 * `npm start`: a whole installation on this machine, step by step: an enterprise PKI, the server below it, an agent, two workloads that get their identities
 * from a socket and speak mTLS, and a plain service between two proxies. With `--once` it proves that, and ends.
 */
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, linkSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { spawnSync } from 'node:child_process';
import { lockFile } from '../../core/lock-file.ts';
import { isCoded } from '../../core/errors.ts';
import { AgentDefinition } from '../../proto/gen/spire/api/server/agent/v1/agent.ts';
import { EntryDefinition } from '../../proto/gen/spire/api/server/entry/v1/entry.ts';
import type { Entry } from '../../proto/gen/spire/api/types/entry.ts';
import { systemClock } from '../../spiffe/clock.ts';
import { openChannel } from '../../spiffe/rpc/channel.ts';
import { enterprisePki } from './pki.ts';
import { Program } from './program.ts';
import { showProxies } from './proxies.ts';

const ROOT = resolve(import.meta.dirname, '..', '..');
const TRUST_DOMAIN = 'example.org';
/** What entries hang on: stays the same though each new token makes a new agent. */
const HOST = `spiffe://${TRUST_DOMAIN}/my-machine`;
const OK = 0;
const ALREADY_EXISTS = 6;

const once = process.argv.includes('--once');
const NODE = [process.execPath, '--disable-sigusr1'];
const WARIFU = [...NODE, join(ROOT, 'cli', 'warifu.mjs')] as const;

let step = 0;
const say = (text: string) => console.log(`\n${++step}. ${text}`);
const show = (text: string) => console.log(`   ${text}`);

interface Places {
  readonly data: string;
  /** Short: a socket's path has at most 107 bytes. Nobody but us can write there. */
  readonly run: string;
  readonly adminSocket: string;
  readonly agentSocket: string;
  readonly bin: string;
  release(): void;
}

/** The folder of the first run that is free: two may run side by side from one checkout. */
function claim(): Places {
  for (let number = 1; ; number++) {
    const data = join(ROOT, '.warifu', number === 1 ? 'start' : `start-${number}`);
    mkdirSync(data, { recursive: true, mode: 0o700 });
    try {
      const lock = lockFile(join(data, 'lock'), '`npm start` in this folder');
      const us = process.getuid?.() ?? 0;
      const run = join(tmpdir(), `warifu-${us}-${createHash('sha256').update(data).digest('hex').slice(0, 8)}`);
      mkdirSync(run, { recursive: true, mode: 0o755 });
      if (statSync(run).uid !== us) throw new Error(`${run} belongs to somebody else: remove it, or set TMPDIR`);
      const bin = join(data, 'bin');
      mkdirSync(bin, { recursive: true, mode: 0o755 });
      return {
        data,
        run,
        bin,
        adminSocket: join(run, 'admin', 'api.sock'),
        agentSocket: join(run, 'public', 'api.sock'),
        release: () => {
          rmSync(run, { recursive: true, force: true });
          lock.close();
        },
      };
    } catch (error) {
      if (!isCoded(error, 'FAILED_PRECONDITION') || number === 16) throw error;
    }
  }
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((done, refuse) => probe.once('error', refuse).listen(0, '127.0.0.1', done));
  const { port } = probe.address() as { port: number };
  await new Promise((done) => probe.close(done));
  return port;
}

/** A program of its own for the workload, so that its path tells the two apart whoever runs this: another name of the same file, or a copy. */
function programFor(places: Places, name: string): string {
  const path = join(places.bin, name);
  const { size } = statSync(process.execPath);
  if (existsSync(path) && statSync(path).size === size) return path;
  rmSync(path, { force: true });
  try {
    linkSync(process.execPath, path);
  } catch {
    copyFileSync(process.execPath, path);
  }
  return path;
}

function warifu(...args: string[]): string {
  const [command, ...before] = WARIFU;
  const { status, stdout, stderr } = spawnSync(command, [...before, ...args], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`warifu ${args.join(' ')} exits ${status}:\n${stdout}${stderr}`);
  return stdout;
}

function writeSettings(
  places: Places,
  pki: Awaited<ReturnType<typeof enterprisePki>>,
  port: number,
): { readonly server: string; readonly agent: string } {
  const [server, agent] = [join(places.data, 'server.conf'), join(places.data, 'agent.conf')];
  writeFileSync(
    server,
    `server {
    trust_domain = "${TRUST_DOMAIN}"
    bind_address = "127.0.0.1"
    bind_port = "${port}"
    socket_path = "${places.adminSocket}"
    data_dir = "${join(places.data, 'server')}"
}
plugins {
    KeyManager "disk" { plugin_data { keys_path = "${join(places.data, 'server', 'keys.json')}" } }
    UpstreamAuthority "disk" {
        plugin_data {
            cert_file_path = "${pki.intermediatePem}"
            key_file_path = "${pki.intermediateKeyPem}"
            bundle_file_path = "${pki.rootPem}"
        }
    }
    NodeAttestor "join_token" { plugin_data {} }
}
`,
  );
  writeFileSync(
    agent,
    `agent {
    trust_domain = "${TRUST_DOMAIN}"
    server_address = "127.0.0.1"
    server_port = "${port}"
    socket_path = "${places.agentSocket}"
    data_dir = "${join(places.data, 'agent')}"
    trust_bundle_path = "${pki.rootPem}"
}
plugins {
    KeyManager "disk" { plugin_data { directory = "${join(places.data, 'agent')}" } }
    NodeAttestor "join_token" { plugin_data {} }
    WorkloadAttestor "unix" { plugin_data { discover_workload_path = true } }
}
`,
  );
  return { server, agent };
}

function entryOf(id: string, path: string, programPath: string): Entry {
  const spiffeId = (of: string) => ({ trustDomain: TRUST_DOMAIN, path: of });
  return {
    id,
    spiffeId: spiffeId(path),
    parentId: spiffeId(HOST.slice(`spiffe://${TRUST_DOMAIN}`.length)),
    selectors: [{ type: 'unix', value: `path:${programPath}` }],
    x509SvidTtl: 0,
    jwtSvidTtl: 0,
    federatesWith: [],
    admin: false,
    downstream: false,
    expiresAt: 0,
    dnsNames: [],
    revisionNumber: 0,
    storeSvid: false,
    hint: '',
    createdAt: 0,
    additionalAttributes: undefined,
  };
}

type Event = { readonly event: string } & Readonly<Record<string, unknown>>;
const isEvent = (line: string, wanted: (event: Event) => boolean) => line.startsWith('{') && wanted(JSON.parse(line) as Event);
const eventOf = (program: Program, wanted: (event: Event) => boolean, seen = true) =>
  program.line((line) => isEvent(line, wanted), 20_000, seen).then((line) => JSON.parse(line) as Event);
const has = (id: string) => (event: Event) => event.event === 'svids' && (event['ids'] as string[]).includes(id);

async function main(signal: AbortSignal): Promise<void> {
  const places = claim();
  const programs: Program[] = [];
  const start = (name: string, command: readonly string[], env: NodeJS.ProcessEnv = {}) => {
    const [file = '', ...args] = command;
    const program = new Program(name, file, args, env);
    programs.push(program);
    return program;
  };
  try {
    const pki = await enterprisePki(join(places.data, 'pki'), systemClock.now());
    say(`The company's PKI: a root, and the intermediate that its people hand over${pki.madeNow ? '' : ' (from the last run)'}`);
    show(`root          ${pki.rootPem}`);
    show(`intermediate  ${pki.intermediatePem}`);

    const port = await freePort();
    const settings = writeSettings(places, pki, port);
    say('The server, its CA below that intermediate');
    show(`warifu server run -config ${settings.server}`);
    const startedAt = systemClock.monotonic();
    const server = start('the server', [...WARIFU, 'server', 'run', '-config', settings.server]);
    await server.line((line) => line.includes('Starting Server APIs') && line.includes('network=unix'));
    show(`ready after ${Math.round(systemClock.monotonic() - startedAt)} ms, agents come to 127.0.0.1:${port}`);

    const channel = openChannel({ target: `unix://${places.adminSocket}` });
    const [agents, entries] = [channel.service(AgentDefinition), channel.service(EntryDefinition)];
    say('A join token for this machine, and an agent that proves with it what it is');
    show(`warifu server token generate -spiffeID ${HOST}`);
    const { value: token } = await agents.createJoinToken({
      ttl: 600,
      token: '',
      agentId: { trustDomain: TRUST_DOMAIN, path: '/my-machine' },
    });
    show(`warifu agent run -config ${settings.agent}`);
    const agent = start('the agent', [...WARIFU, 'agent', 'run', '-config', settings.agent], { WARIFU_JOIN_TOKEN: token });
    await agent.line((line) => line.includes('Starting Workload'));

    say('Registration entries: which process is who (here by the path of its program)');
    const [web, db] = [programFor(places, 'web'), programFor(places, 'db')];
    const [webId, dbId] = [`spiffe://${TRUST_DOMAIN}/web`, `spiffe://${TRUST_DOMAIN}/db`];
    const create = async (...wanted: Entry[]) => {
      const { results } = await entries.batchCreateEntry({ entries: wanted, outputMask: undefined });
      for (const { status } of results)
        if (status?.code !== OK && status?.code !== ALREADY_EXISTS) throw new Error(`the entry was refused: ${status?.message}`);
    };
    // what an interrupted run may have left
    await entries.batchDeleteEntry({ ids: ['start-canary'] });
    await create(entryOf('start-web', '/web', web), entryOf('start-db', '/db', db));
    show(`${webId}  unix:path:${web}`);
    show(`${dbId}   unix:path:${db}`);

    say('Two workloads, without a secret in any file: they ask the Workload API who they are');
    const env = { SPIFFE_ENDPOINT_SOCKET: `unix://${places.agentSocket}` };
    const source = join(import.meta.dirname, 'workload.ts');
    const webProgram = start('web', [web, source], env);
    const dbProgram = start('db', [db, source], env);
    for (const [program, id] of [
      [webProgram, webId],
      [dbProgram, dbId],
    ] as const) {
      const { until } = await eventOf(program, has(id));
      show(`${program.name} (pid ${program.pid}) is ${id} until ${String(until)}`);
    }

    say('mTLS between them: each verifies the other, web also sends a JWT-SVID that db validates');
    dbProgram.say(`serve ${webId}`);
    const { port: dbPort } = await eventOf(dbProgram, ({ event }) => event === 'serving');
    webProgram.say(`call ${String(dbPort)} ${dbId}`);
    const answer = await eventOf(webProgram, ({ event }) => event === 'answer' || event === 'failed');
    if (answer['line'] !== `hello ${webId}; your token says ${webId}` || answer['peer'] !== dbId)
      throw new Error(`mTLS failed: ${JSON.stringify(answer)}\n${dbProgram.tail}`);
    show(`${String(answer['peer'])} answers: ${String(answer['line'])}`);

    say('A change of an entry reaches the workload whose stream is open');
    const canary = `spiffe://${TRUST_DOMAIN}/web-canary`;
    const times = { created: 0, deleted: 0 };
    for (const what of ['created', 'deleted'] as const) {
      const arrived = eventOf(webProgram, (event) => event.event === 'svids' && has(canary)(event) === (what === 'created'), false);
      const at = systemClock.monotonic();
      if (what === 'created') await create(entryOf('start-canary', '/web-canary', web));
      else await entries.batchDeleteEntry({ ids: ['start-canary'] });
      await arrived;
      times[what] = systemClock.monotonic() - at;
    }
    show(`created → ${canary} is there after ${times.created.toFixed(1)} ms; deleted → gone after ${times.deleted.toFixed(1)} ms`);
    channel.close();

    say('A plain HTTP service behind a proxy, called by a program that knows nothing of TLS through another');
    await showProxies({
      folder: places.data,
      trustDomain: TRUST_DOMAIN,
      start: (who, ...words) => start(`${who}'s proxy`, [who === 'web' ? web : db, ...WARIFU.slice(1), ...words], env),
      show,
    });

    if (once) {
      say('The same by the command line');
      const listed = warifu('server', 'entry', 'show', '-socketPath', places.adminSocket);
      if (!listed.includes(webId) || !listed.includes(dbId)) throw new Error(`entry show does not list the entries:\n${listed}`);
      show('warifu server entry show lists both');
      console.log('\nAll of it works.');
      return;
    }
    const command = `node ${join(ROOT, 'cli', 'warifu.mjs')}`;
    console.log(`
Everything runs until you press Ctrl-C. In a second terminal (Node 22.12 or newer; or ${process.execPath}):

   ${command} server entry show -socketPath ${places.adminSocket}
   ${command} server agent list -socketPath ${places.adminSocket}
   ${command} server entry create -socketPath ${places.adminSocket} \\
       -parentID ${HOST} -spiffeID spiffe://${TRUST_DOMAIN}/me -selector unix:uid:${process.getuid?.() ?? 0}
   ${command} agent api fetch x509 -socketPath ${places.agentSocket}
   ${command} agent api watch -socketPath ${places.agentSocket}
   ${command} server bundle show -socketPath ${places.adminSocket}
`);
    await Promise.race([
      new Promise((done) => signal.addEventListener('abort', done, { once: true })),
      ...programs.map(async (program) => {
        const code = await program.ended;
        if (!signal.aborted) throw new Error(`${program.name} ended with exit code ${code}; its last lines:\n${program.tail}`);
      }),
    ]);
    console.log('\nStopping.');
  } catch (error) {
    if (signal.aborted) return;
    throw new Error(`${(error as Error).message}\n${programs.map((one) => `--- ${one.name}\n${one.tail}`).join('\n')}`, { cause: error });
  } finally {
    for (const program of programs.reverse()) await program.stop();
    places.release();
  }
}

const stop = new AbortController();
let stoppedAt = 0;
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    // npm hands on what the terminal has sent us already; who presses again later is in a hurry
    if (stop.signal.aborted && systemClock.monotonic() - stoppedAt > 1_000) process.exit(130);
    stoppedAt ||= systemClock.monotonic();
    stop.abort(new Error(name));
  });
}
await main(stop.signal).catch((error: unknown) => {
  console.error(`\nnpm start failed: ${(error as Error).message}`);
  process.exitCode = 1;
});
