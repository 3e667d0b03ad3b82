/** A whole installation for a story: an enterprise PKI, a server, agents, the command line; real processes, own sockets, own folders. */
import { randomUUID } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Daemon, type DaemonOptions, type End } from './daemon.ts';
import { createPki, type IntermediateOptions, type Pki } from './pki.ts';

export const ROOT = resolve(import.meta.dirname, '..', '..');
/** How `warifu` is started: this very Node on the checkout's own program. */
export const WARIFU: readonly string[] = [process.execPath, '--disable-sigusr1', join(ROOT, 'cli', 'warifu.mjs')];

export interface HouseOptions {
  /** Default `example.org`. */
  readonly trustDomain?: string;
  /** Default: `ec-p256` under a CA that allows a CA below. */
  readonly intermediate?: IntermediateOptions;
  /** Signs with the intermediate itself (`sign_directly`). Default false. */
  readonly signDirectly?: boolean;
  /** Default `disk`. */
  readonly keyManager?: 'disk' | 'memory';
  /** SPIRE's durations; default: the program's own. */
  readonly x509SvidTtl?: string;
  readonly jwtSvidTtl?: string;
  readonly caTtl?: string;
  /** More lines for the `server { }` block, and more plugins. */
  readonly serverSettings?: readonly string[];
  readonly serverPlugins?: readonly string[];
  /** Another program to run, such as a built one. Default `WARIFU`. */
  readonly program?: readonly string[];
  readonly logLevel?: string;
  /** How the server's process is started. */
  readonly serverProcess?: DaemonOptions;
}

export interface AgentOptions {
  /** Default `join_token`: it can't attest again. `x509pop` can. */
  readonly attestor?: 'join_token' | 'x509pop';
  readonly keyManager?: 'disk' | 'memory';
  readonly settings?: readonly string[];
  readonly plugins?: readonly string[];
  readonly process?: DaemonOptions;
  /** Whether `unix` tells path and hash of programs. Default true. */
  readonly discoverPath?: boolean;
}

export interface EntryOptions {
  /** A path such as `/web` (of our trust domain) or a whole SPIFFE ID. */
  readonly id: string;
  /** Default: the agent `parent`'s SPIFFE ID. */
  readonly parent: Agent | string;
  /** Default: the caller's own uid, `unix:uid:<ours>`. */
  readonly selectors?: readonly string[];
  readonly x509SvidTtlSeconds?: number;
  readonly jwtSvidTtlSeconds?: number;
  readonly hint?: string;
  readonly more?: readonly string[];
}

export interface Output extends End {
  readonly stdout: string;
  readonly stderr: string;
}

export interface House {
  readonly dir: string;
  readonly trustDomain: string;
  readonly pki: Pki;
  /** The admin API's socket. */
  readonly socketPath: string;
  readonly port: number;
  readonly serverConf: string;
  readonly program: readonly string[];
  /** The server's process of now; throws when none was started. */
  readonly server: Daemon;

  /** Starts the server and waits until its admin socket answers. Not while one runs. */
  startServer(...args: string[]): Promise<Daemon>;
  /** Settings and folders of a new agent; start it with `start()`. */
  createAgent(name?: string, options?: AgentOptions): Promise<Agent>;

  /** Runs `warifu …` and gives what it wrote, whatever its exit code. Below `server …` the socket is named for you. */
  run(...args: string[]): Promise<Output>;
  /** The same, and throws unless it exits 0. */
  ok(...args: string[]): Promise<string>;
  /** Creates an entry by the command line; gives its id. */
  createEntry(entry: EntryOptions): Promise<string>;
  deleteEntry(id: string): Promise<void>;

  /** Stops every process. */
  stop(): Promise<void>;
  /** Stops every process and removes the folder. Safe to call twice; call it in afterAll. */
  close(): Promise<void>;
}

export interface Agent {
  readonly name: string;
  /** Its SPIFFE ID. */
  readonly id: string;
  readonly dir: string;
  readonly dataDir: string;
  /** The Workload API's socket, as a path and as SPIFFE_ENDPOINT_SOCKET has it. */
  readonly socketPath: string;
  readonly address: string;
  readonly conf: string;
  readonly process: Daemon;
  /** Starts it and waits until its Workload API takes connections. */
  start(...args: string[]): Promise<Daemon>;
  /** Starts it and does not wait: for agents that must not come up. */
  launch(...args: string[]): Daemon;
}

/** A TCP port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((done, fail) => probe.once('error', fail).listen(0, '127.0.0.1', done));
  const address = probe.address();
  await new Promise((done) => probe.close(done));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Runs a program to its end; stdout and stderr apart. */
export async function runToEnd(command: readonly string[], options: DaemonOptions & { readonly input?: string } = {}): Promise<Output> {
  const { spawn } = await import('node:child_process');
  const { input, env, ...rest } = options;
  const [file = '', ...args] = command;
  return new Promise((done, fail) => {
    const child = spawn(file, args, { ...rest, env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.once('error', fail);
    child.once('close', (code, signal) => done({ code, signal, stdout, stderr }));
    // a program that reads no input may be gone before we have written: that is its right
    child.stdin.on('error', () => {});
    child.stdin.end(input ?? '');
  });
}

export const OUR_UID = `unix:uid:${process.getuid?.() ?? 0}`;

/** Makes folders, PKI and settings; starts nothing yet. */
export async function createHouse(options: HouseOptions = {}): Promise<House> {
  const { trustDomain = 'example.org', program = WARIFU, logLevel = 'DEBUG' } = options;
  const dir = mkdtempSync(join(tmpdir(), 'warifu-story-'));
  // other users of the machine must reach the Workload API below
  chmodSync(dir, 0o755);
  const pki = createPki(join(dir, 'pki'), options.signDirectly ? { pathlen: 0, ...options.intermediate } : options.intermediate);
  const port = await freePort();
  const socketPath = join(dir, 'admin', 'api.sock');
  const serverConf = join(dir, 'server.conf');
  for (const folder of ['server', 'admin']) mkdirSync(join(dir, folder), { mode: 0o700 });

  const setting = (name: string, value: string | undefined) => (value === undefined ? [] : [`${name} = ${JSON.stringify(value)}`]);
  writeFileSync(
    serverConf,
    `server {
  bind_address = "127.0.0.1"
  bind_port = "${port}"
  socket_path = "${socketPath}"
  trust_domain = "${trustDomain}"
  data_dir = "${join(dir, 'server')}"
  log_level = "${logLevel}"
  ${[
    ...setting('default_x509_svid_ttl', options.x509SvidTtl),
    ...setting('default_jwt_svid_ttl', options.jwtSvidTtl),
    ...setting('ca_ttl', options.caTtl),
    ...(options.serverSettings ?? []),
  ].join('\n  ')}
}
plugins {
  DataStore "sql" {
    plugin_data {
      database_type = "sqlite3"
      connection_string = "${join(dir, 'server', 'datastore.sqlite3')}"
    }
  }
  KeyManager ${options.keyManager === 'memory' ? '"memory" { plugin_data {} }' : `"disk" { plugin_data { keys_path = "${join(dir, 'server', 'keys.json')}" } }`}
  NodeAttestor "join_token" { plugin_data {} }
  NodeAttestor "x509pop" { plugin_data { ca_bundle_path = "${pki.machineCa}" } }
  UpstreamAuthority "disk" {
    plugin_data {
      cert_file_path = "${pki.intermediate}"
      key_file_path = "${pki.intermediateKey}"
      bundle_file_path = "${pki.root}"
      ${options.signDirectly ? 'sign_directly = true' : ''}
    }
  }
  ${(options.serverPlugins ?? []).join('\n  ')}
}
`,
  );

  let server: Daemon | undefined;
  const agents: Agent[] = [];
  const everything: Daemon[] = [];
  const launch = (name: string, args: readonly string[], how?: DaemonOptions) => {
    const daemon = new Daemon(name, [...program, ...args], { cwd: dir, ...how });
    everything.push(daemon);
    return daemon;
  };

  const run = (...args: string[]) => {
    const words = args.filter((word) => !word.startsWith('-'));
    const speaks = args[0] === 'server' && !['run', 'validate'].includes(words[1] ?? '') && !args.some((a) => /^--?socketPath/.test(a));
    return runToEnd([...program, ...args, ...(speaks ? ['-socketPath', socketPath] : [])], { cwd: dir });
  };
  const ok = async (...args: string[]) => {
    const output = await run(...args);
    if (output.code !== 0) {
      throw new Error(
        `warifu ${args.join(' ')} exits ${output.signal ?? output.code}:\n${output.stdout}${output.stderr}\nserver:\n${server?.tail() ?? ''}`,
      );
    }
    return output.stdout;
  };
  const spiffeId = (id: string) => (id.startsWith('/') ? `spiffe://${trustDomain}${id}` : id);

  const house: House = {
    dir,
    trustDomain,
    pki,
    socketPath,
    port,
    serverConf,
    program,
    run,
    ok,
    get server() {
      if (!server) throw new Error('the server was not started');
      return server;
    },

    async startServer(...args) {
      if (server && !server.end) throw new Error('a server is running');
      server = launch('server', ['server', 'run', '-config', serverConf, ...args], options.serverProcess);
      await server.accepts(socketPath);
      return server;
    },

    async createAgent(name = 'agent', wanted = {}) {
      const { attestor = 'join_token' } = wanted;
      const home = join(dir, name);
      const [dataDir, open] = [join(home, 'data'), join(home, 'public')];
      mkdirSync(home, { mode: 0o755 });
      mkdirSync(dataDir, { mode: 0o700 });
      mkdirSync(open, { mode: 0o755 });
      const conf = join(home, 'agent.conf');
      const socket = join(open, 'api.sock');

      let id: string;
      let proof: string;
      let token: string | undefined;
      if (attestor === 'join_token') {
        const answer = JSON.parse(await ok('server', 'token', 'generate', '-output', 'json')) as { value: string };
        token = answer.value;
        id = `spiffe://${trustDomain}/spire/agent/join_token/${token}`;
        proof = 'NodeAttestor "join_token" { plugin_data {} }';
      } else {
        const machine = pki.machine(name);
        id = `spiffe://${trustDomain}/spire/agent/x509pop/${machine.sha1}`;
        proof = `NodeAttestor "x509pop" { plugin_data {\n    private_key_path = "${machine.key}"\n    certificate_path = "${machine.certificate}"\n  } }`;
      }
      const keys = wanted.keyManager === 'memory' ? '"memory" { plugin_data {} }' : `"disk" { plugin_data { directory = "${dataDir}" } }`;
      writeFileSync(
        conf,
        `agent {
  data_dir = "${dataDir}"
  server_address = "127.0.0.1"
  server_port = "${port}"
  socket_path = "${socket}"
  trust_bundle_path = "${pki.root}"
  trust_domain = "${trustDomain}"
  log_level = "${logLevel}"
  ${token === undefined ? '' : `join_token = "${token}"`}
  ${(wanted.settings ?? []).join('\n  ')}
}
plugins {
  ${proof}
  KeyManager ${keys}
  WorkloadAttestor "unix" { plugin_data { discover_workload_path = ${wanted.discoverPath ?? true} } }
  ${(wanted.plugins ?? []).join('\n  ')}
}
`,
        { mode: 0o600 },
      );

      let daemon: Daemon | undefined;
      const agent: Agent = {
        name,
        id,
        dir: home,
        dataDir,
        socketPath: socket,
        address: `unix://${socket}`,
        conf,
        get process() {
          if (!daemon) throw new Error(`agent ${name} was not started`);
          return daemon;
        },
        launch(...args) {
          if (daemon && !daemon.end) throw new Error(`agent ${name} is running`);
          daemon = launch(name, ['agent', 'run', '-config', conf, ...args], wanted.process);
          return daemon;
        },
        async start(...args) {
          const started = agent.launch(...args);
          await started.accepts(socket);
          return started;
        },
      };
      agents.push(agent);
      return agent;
    },

    async createEntry(entry) {
      const parent = typeof entry.parent === 'string' ? spiffeId(entry.parent) : entry.parent.id;
      const number = (flag: string, value: number | undefined) => (value === undefined ? [] : [flag, String(value)]);
      const output = await ok(
        'server',
        'entry',
        'create',
        '-output',
        'json',
        '-parentID',
        parent,
        '-spiffeID',
        spiffeId(entry.id),
        ...(entry.selectors ?? [OUR_UID]).flatMap((selector) => ['-selector', selector]),
        ...number('-x509SVIDTTL', entry.x509SvidTtlSeconds),
        ...number('-jwtSVIDTTL', entry.jwtSvidTtlSeconds),
        ...(entry.hint === undefined ? [] : ['-hint', entry.hint]),
        ...(entry.more ?? []),
      );
      const answer = JSON.parse(output) as { results: [{ entry: { id: string } }] };
      return answer.results[0].entry.id;
    },

    async deleteEntry(id) {
      await ok('server', 'entry', 'delete', '-entryID', id);
    },

    async stop() {
      // the agents first, so that none of them logs a server that went away
      for (const daemon of everything.filter((one) => !one.end).reverse()) await daemon.stop().catch(() => daemon.kill());
    },

    async close() {
      await house.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
  return house;
}

/** A house with a server and one agent running: what most stories begin with. */
export async function createRunningHouse(
  options: HouseOptions & { readonly agent?: AgentOptions } = {},
): Promise<{ house: House; agent: Agent }> {
  const house = await createHouse(options);
  try {
    await house.startServer();
    const agent = await house.createAgent('agent', options.agent);
    await agent.start();
    return { house, agent };
  } catch (fault) {
    await house.close();
    throw fault;
  }
}

/** A name that no other run uses. */
export function uniquePath(prefix: string): string {
  return `/${prefix}-${randomUUID().slice(0, 8)}`;
}
