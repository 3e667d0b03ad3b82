/** A real process of a story: its lines as they come, its end, and signals by its own id. Nothing outlives the test process. */
import { spawn, type ChildProcess } from 'node:child_process';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { Timeline } from './timeline.ts';

export interface End {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export interface DaemonOptions {
  readonly cwd?: string;
  /** Added to our environment; undefined takes a name away. */
  readonly env?: Readonly<{ [name: string]: string | undefined }>;
  readonly uid?: number;
  readonly gid?: number;
}

export class Daemon {
  /** Lines of stdout and stderr, as they came. */
  readonly lines = new Timeline<string>();
  readonly exited: Promise<End>;
  readonly name: string;
  readonly #child: ChildProcess;
  #end: End | undefined;

  constructor(name: string, command: readonly string[], options: DaemonOptions = {}) {
    this.name = name;
    const [file = '', ...args] = command;
    const { env, ...rest } = options;
    const child = spawn(file, args, { ...rest, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    running.add(child);
    for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', (line) => this.lines.push(line));
    this.exited = new Promise((resolve) => {
      const done = (end: End, why: string) => {
        running.delete(child);
        this.#end = end;
        this.lines.end(why);
        resolve(end);
      };
      child.once('error', (fault) => done({ code: null, signal: null }, `${name} did not start: ${fault.message}`));
      child.once('close', (code, signal) => done({ code, signal }, `${name} ended (${signal ?? code})`));
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Undefined while it runs. */
  get end(): End | undefined {
    return this.#end;
  }

  /** The first line at or after `from` that matches. */
  line(pattern: RegExp, options: { from?: number; withinMs?: number } = {}): Promise<string> {
    return this.lines.find((line) => pattern.test(line), { what: `${this.name} says ${pattern}`, ...options });
  }

  signal(signal: NodeJS.Signals): void {
    if (!this.#end) this.#child.kill(signal);
  }

  /** SIGTERM, then the end; SIGKILL when it takes longer than `withinMs` (default 10 s), which is an error. */
  async stop(withinMs = 10_000): Promise<End> {
    this.signal('SIGTERM');
    let hung = false;
    const timer = setTimeout(() => {
      hung = true;
      this.signal('SIGKILL');
    }, withinMs);
    const end = await this.exited;
    clearTimeout(timer);
    if (hung) throw new Error(`${this.name} did not end within ${withinMs} ms of SIGTERM; its last lines:\n${this.tail()}`);
    return end;
  }

  /** SIGKILL, as a crash. */
  async kill(): Promise<End> {
    this.signal('SIGKILL');
    return this.exited;
  }

  tail(count = 30): string {
    return this.lines.items.slice(-count).join('\n');
  }

  /** Resolves when the UNIX socket takes a connection; throws with the last lines when the process ends first or the time is over. */
  async accepts(socketPath: string, withinMs = 20_000): Promise<void> {
    const started = performance.now();
    while (!(await canConnect(socketPath))) {
      if (this.#end)
        throw new Error(
          `${this.name} ended (${this.#end.signal ?? this.#end.code}) before ${socketPath} took a connection:\n${this.tail()}`,
        );
      if (performance.now() - started > withinMs)
        throw new Error(`${this.name}: ${socketPath} takes no connection after ${withinMs} ms:\n${this.tail()}`);
      // a socket announces itself to nobody: asked again and again, until it answers
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

function canConnect(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
