/** A child process of `npm start`: its lines, its end, and a way to stop it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

export class Program {
  readonly name: string;
  readonly ended: Promise<number>;
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #waiting = new Set<(line: string | undefined) => void>();

  constructor(name: string, command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}, show?: (line: string) => void) {
    this.name = name;
    // a group of its own: Ctrl-C reaches us alone, and we stop it in its turn
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env }, detached: true });
    const orphan = () => this.#child.kill('SIGKILL');
    process.once('exit', orphan);
    this.#child.once('close', () => process.off('exit', orphan));
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (!stream) continue;
      createInterface({ input: stream }).on('line', (line) => {
        this.#lines.push(line);
        if (this.#lines.length > 200) this.#lines.shift();
        show?.(line);
        for (const wake of this.#waiting) wake(line);
      });
    }
    this.ended = new Promise((done) => {
      this.#child.once('error', (error) => {
        this.#lines.push(String(error));
        done(127);
      });
      this.#child.once('close', (code) => done(code ?? 1));
    });
    void this.ended.then(() => {
      for (const wake of this.#waiting) wake(undefined);
    });
  }

  get tail(): string {
    return this.#lines.slice(-15).join('\n');
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  say(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** The first line from now on (or among those already seen) that `is` accepts. Rejects when the program ends first, or after `limitMs`. */
  line(is: (line: string) => boolean, limitMs = 20_000, seen = true): Promise<string> {
    const known = seen ? this.#lines.find(is) : undefined;
    if (known !== undefined) return Promise.resolve(known);
    return new Promise((resolve, reject) => {
      const end = (why: string) => {
        this.#waiting.delete(look);
        clearTimeout(timer);
        reject(new Error(`${this.name} ${why}; its last lines:\n${this.tail}`));
      };
      const look = (line: string | undefined) => {
        if (line === undefined) return end('ended');
        if (!is(line)) return;
        this.#waiting.delete(look);
        clearTimeout(timer);
        resolve(line);
      };
      const timer = setTimeout(() => end(`said nothing of what was awaited for ${limitMs} ms`), limitMs);
      this.#waiting.add(look);
    });
  }

  /** SIGTERM, and SIGKILL if that did not end it within 10 s. */
  async stop(): Promise<void> {
    this.#child.stdin?.end();
    this.#child.kill('SIGTERM');
    const hurry = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
    await this.ended;
    clearTimeout(hurry);
  }
}
