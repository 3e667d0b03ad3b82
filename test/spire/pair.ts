/** A house of which either side is SPIRE's own: its server or ours, its agents or ours, its command line or ours on their sockets. */
import { join } from 'node:path';
import { Daemon } from '../e2e/daemon.ts';
import { type Agent, type AgentOptions, createHouse, type House, type HouseOptions, type Output, runToEnd } from '../e2e/house.ts';

const bin = process.env['WARIFU_SPIRE_BIN'];
if (!bin) throw new Error('run it by `npm run test:spire -- --bin DIR`');
const PROGRAMS = { server: join(bin, 'spire-server'), agent: join(bin, 'spire-agent') } as const;

export type Side = 'spire' | 'warifu';
export const SIDES = ['spire', 'warifu'] as const satisfies readonly Side[];
export const otherThan = (side: Side): Side => (side === 'spire' ? 'warifu' : 'spire');

export const NAMES: Readonly<Record<Side, string>> = { spire: "SPIRE's", warifu: 'our' };

/** As long as a stock agent may take to poll, and a little. */
export const POLL = { interval: 200, timeout: 40_000 };

export interface Pair {
  readonly house: House;
  readonly server: Daemon;
  startServer(...args: string[]): Promise<void>;
  /** Folders and settings of an agent that is `side`'s program; starts nothing. */
  createAgent(name: string, side: Side, options?: AgentOptions): Promise<PairAgent>;
  /** Runs a command of the program that `args` begin with, `server …` or `agent …`, whatever its exit code; its socket is named for you. */
  run(side: Side, args: readonly string[], how?: RunOptions): Promise<Output>;
  /** The same for one that does not end by itself; it ends with the pair. */
  spawn(side: Side, args: readonly string[]): Daemon;
  close(): Promise<void>;
}

export interface RunOptions {
  readonly input?: string;
  /** Whose Workload API is meant; without one, the server's socket is. */
  readonly agent?: Pick<Agent, 'socketPath'>;
  /** Names no socket. */
  readonly bare?: boolean;
}

export interface PairAgent extends Pick<Agent, 'id' | 'name' | 'dir' | 'dataDir' | 'conf' | 'socketPath'> {
  readonly side: Side;
  /** For `house.createEntry`. */
  readonly agent: Agent;
  readonly process: Daemon;
  launch(): Daemon;
  start(): Promise<Daemon>;
  /** What `api fetch x509` says, both streams, asked by the agent's own command line. */
  fetched(): Promise<string>;
  /** The SVIDs that it serves now. */
  svids(): Promise<readonly ServedSvid[]>;
}

/** As `api fetch x509 -output json` has it: DER in base64. */
export interface ServedSvid {
  readonly spiffe_id: string;
  readonly x509_svid: string;
  readonly bundle: string;
}

/** @param side whose server it is; it is started. */
export async function createPair(side: Side, options: HouseOptions & { readonly settings?: (conf: string) => string } = {}): Promise<Pair> {
  const house = await createHouse(options);
  const daemons: Daemon[] = [];
  let server: Daemon | undefined;
  if (options.settings) {
    const { readFileSync, writeFileSync } = await import('node:fs');
    writeFileSync(house.serverConf, options.settings(readFileSync(house.serverConf, 'utf8')));
  }

  const launch = (name: string, command: readonly string[]) => {
    const daemon = new Daemon(name, command, { cwd: house.dir });
    daemons.push(daemon);
    return daemon;
  };

  const command = (whose: Side, [program = '', ...words]: readonly string[]): readonly string[] => {
    if (program !== 'server' && program !== 'agent') throw new Error(`server or agent, not ${program}`);
    return whose === 'spire' ? [PROGRAMS[program], ...words] : [...house.program, program, ...words];
  };
  const run: Pair['run'] = (whose, [program = '', ...rest], how = {}) => {
    const speaks = !how.bare && !rest.includes('-socketPath');
    const socket = speaks ? (how.agent?.socketPath ?? house.socketPath) : undefined;
    // before the other flags: the last one may lack its value
    const flags = rest.findIndex((word) => word.startsWith('-'));
    const at = flags < 0 ? rest.length : flags;
    const words = [...rest.slice(0, at), ...(socket === undefined ? [] : ['-socketPath', socket]), ...rest.slice(at)];
    return runToEnd(command(whose, [program, ...words]), { cwd: house.dir, ...(how.input !== undefined && { input: how.input }) });
  };

  const pair: Pair = {
    house,
    run,
    spawn: (whose, args) => launch(args.slice(0, 3).join(' '), command(whose, args)),
    get server() {
      if (!server) throw new Error('the server was not started');
      return server;
    },
    async startServer(...args) {
      if (side === 'warifu') server = await house.startServer(...args);
      else {
        server = launch('spire-server', [PROGRAMS.server, 'run', '-config', house.serverConf, ...args]);
        await server.accepts(house.socketPath);
      }
    },
    async createAgent(name, whose, wanted) {
      const agent = await house.createAgent(name, wanted);
      let daemon: Daemon | undefined;
      const made: PairAgent = {
        ...{ id: agent.id, name, dir: agent.dir, dataDir: agent.dataDir, conf: agent.conf, socketPath: agent.socketPath },
        side: whose,
        agent,
        get process() {
          if (!daemon) throw new Error(`agent ${name} was not started`);
          return daemon;
        },
        launch() {
          daemon = whose === 'warifu' ? agent.launch() : launch(name, [PROGRAMS.agent, 'run', '-config', agent.conf]);
          return daemon;
        },
        async start() {
          const started = made.launch();
          await started.accepts(agent.socketPath);
          return started;
        },
        async fetched() {
          const { stdout, stderr } = await run(whose, ['agent', 'api', 'fetch', 'x509'], { agent });
          return stdout + stderr;
        },
        async svids() {
          const { code, stdout, stderr } = await run(whose, ['agent', 'api', 'fetch', 'x509', '-output', 'json'], { agent });
          if (code !== 0) throw new Error(`api fetch x509 exits ${code}: ${stderr}`);
          return (JSON.parse(stdout) as { svids: ServedSvid[] }).svids;
        },
      };
      return made;
    },
    async close() {
      for (const daemon of daemons.filter((one) => !one.end).reverse()) await daemon.stop().catch(() => daemon.kill());
      await house.close();
    },
  };
  try {
    await pair.startServer();
  } catch (fault) {
    await pair.close();
    throw fault;
  }
  return pair;
}
