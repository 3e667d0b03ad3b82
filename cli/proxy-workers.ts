/**
 * Several processes that accept side by side. The first one opens the sockets, through node:cluster, and hands their descriptors on; it serves no connection itself.
 * A worker that dies takes its own connections with it, and no others; another takes its place.
 */
import cluster, { type Worker } from 'node:cluster';
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { Clock } from '../spiffe/clock.ts';

export type Order = 'stop' | 'force' | 'reload';

/** From the first process. */
type Down = { readonly order: Order } | { readonly ask: number; readonly what: 'report' | 'probe' };
/** From a worker. An answer has `fault` in place of a report when it went wrong. */
type Up<Report> =
  | { readonly ready: readonly string[] }
  | { readonly ask: number; readonly report?: Report | undefined; readonly fault?: string | undefined };
type Answer<Report> = { readonly report?: Report | undefined; readonly fault?: string | undefined };

export interface WorkersOptions {
  readonly count: number;
  readonly log: Log;
  readonly clock: Clock;
}

/** Those that said nothing for so long are left out of what is told of all. */
const ANSWER_MS = 1_000;
/** Before a worker that died is replaced: twice as long each time, unless it had lived for a while. */
const AGAIN = { firstMs: 100, mostMs: 30_000, livedMs: 60_000 };

interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
}

function deferred<T>(): Deferred<T> {
  let [resolve, reject]: [(value: T) => void, (error: unknown) => void] = [() => {}, () => {}];
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

/** Of the process that was started. `Report` is what a worker tells of itself. */
export class Workers<Report> {
  readonly #options: WorkersOptions;
  readonly #workers = new Set<Worker>();
  readonly #asked = new Map<number, (worker: Worker, answer: Answer<Report>) => void>();
  readonly #ready = deferred<readonly string[]>();
  readonly #ended = deferred<boolean>();
  #waiting: number;
  #lastAsk = 0;
  #stopping = false;
  #clean = true;
  #backoffMs = AGAIN.firstMs;
  /** How many have taken a dead one's place. */
  replaced = 0;

  /** Starts them at once. */
  constructor(options: WorkersOptions) {
    this.#options = options;
    this.#waiting = options.count;
    // each accepts by itself: a descriptor handed on for each connection would cost more than it balances
    cluster.schedulingPolicy = cluster.SCHED_NONE;
    cluster.setupPrimary({ execArgv: process.execArgv, args: process.argv.slice(2) });
    for (let n = 0; n < options.count; n++) this.#fork();
  }

  /** What they listen on, when all do. Rejects with FAILED_PRECONDITION when one could not start; then none is left. */
  get ready(): Promise<readonly string[]> {
    return this.#ready.promise;
  }

  /** When the last has ended. True: every connection of every one had ended by itself. */
  get ended(): Promise<boolean> {
    return this.#ended.promise;
  }

  get alive(): number {
    return this.#workers.size;
  }

  order(order: Order): void {
    if (order !== 'reload') this.#stopping = true;
    for (const worker of this.#workers) tell(worker, { order });
    if (this.#workers.size === 0) this.#ended.resolve(this.#clean);
  }

  /** What each tells of itself now. Those that are late are left out. */
  async reports(): Promise<readonly Report[]> {
    const limit = new AbortController();
    const late = this.#options.clock.sleep(ANSWER_MS, limit.signal, { ref: false }).catch(() => {});
    const answers = await this.#ask([...this.#workers], 'report', late);
    limit.abort();
    return answers.flatMap(({ report }) => (report === undefined ? [] : [report]));
  }

  /** One of them reaches for the targets. Throws what it met, or the signal's reason. */
  async probe(signal: AbortSignal): Promise<void> {
    const [one] = this.#workers;
    if (!one) throw fail('UNAVAILABLE', 'no worker lives');
    const [answer] = await this.#ask([one], 'probe', new Promise((done) => signal.addEventListener('abort', () => done(), { once: true })));
    signal.throwIfAborted();
    if (answer?.fault !== undefined) throw fail('UNAVAILABLE', answer.fault);
  }

  async #ask(whom: readonly Worker[], what: 'report' | 'probe', late: Promise<void>): Promise<readonly Answer<Report>[]> {
    const id = ++this.#lastAsk;
    const answers = new Map<Worker, Answer<Report>>();
    const all = deferred<void>();
    this.#asked.set(id, (worker, answer) => {
      answers.set(worker, answer);
      if (answers.size >= whom.length) all.resolve();
    });
    for (const worker of whom) tell(worker, { ask: id, what });
    if (whom.length > 0) await Promise.race([all.promise, late]);
    this.#asked.delete(id);
    return [...answers.values()];
  }

  #fork(): void {
    const { clock } = this.#options;
    // words to systemd are for the first process alone
    const worker = cluster.fork({ NOTIFY_SOCKET: '', WATCHDOG_USEC: '' });
    const started = clock.monotonic();
    this.#workers.add(worker);
    let ready = false;
    worker.on('message', (message: Up<Report>) => {
      if ('ask' in message) return this.#asked.get(message.ask)?.(worker, message);
      ready = true;
      if (--this.#waiting === 0) this.#ready.resolve(message.ready);
      return undefined;
    });
    worker.on('error', () => {});
    worker.once('exit', (code, signal) => {
      this.#workers.delete(worker);
      if (!this.#stopping) return void this.#replace(worker, ready, clock.monotonic() - started, signal ?? `exit code ${code}`);
      this.#clean &&= code === 0;
      if (this.#workers.size === 0) this.#ended.resolve(this.#clean);
      return undefined;
    });
  }

  async #replace(worker: Worker, ready: boolean, livedMs: number, how: string): Promise<void> {
    const { clock, log } = this.#options;
    const pid = worker.process.pid ?? 0;
    if (this.#waiting > 0 && !ready) {
      // what is wrong with it, it has said itself
      this.order('force');
      return this.#ready.reject(fail('FAILED_PRECONDITION', `a worker could not start (${how})`));
    }
    if (livedMs > AGAIN.livedMs) this.#backoffMs = AGAIN.firstMs;
    log.error('a worker has died, and its connections with it: another takes its place', { pid, error: new Error(how) });
    const waitMs = this.#backoffMs;
    this.#backoffMs = Math.min(AGAIN.mostMs, 2 * waitMs);
    await clock.sleep(waitMs);
    if (this.#stopping) return;
    this.replaced++;
    this.#fork();
  }
}

function tell(worker: Worker, message: Down): void {
  // it may have died just now
  if (worker.isConnected()) worker.send(message, () => {});
}

/** Whether this process is one of several, and not the first. */
export function isWorker(): boolean {
  return cluster.isWorker;
}

/** In a worker: what the first process wants. It ends when that one does. */
export function serveFirst<Report>(handlers: {
  readonly onOrder: (order: Order) => void;
  readonly report: () => Report | Promise<Report>;
  readonly probe: (signal: AbortSignal) => Promise<void>;
}): void {
  const answer = async ({ ask, what }: Extract<Down, { readonly ask: number }>) => {
    try {
      if (what === 'report') say<Report>({ ask, report: await handlers.report() });
      else await handlers.probe(AbortSignal.timeout(ANSWER_MS * 10)).then(() => say<Report>({ ask }));
    } catch (error) {
      say<Report>({ ask, fault: error instanceof Error ? error.message : String(error) });
    }
  };
  process.on('message', (message: Down) => {
    if ('order' in message) handlers.onOrder(message.order);
    else void answer(message);
  });
}

/** In a worker: it accepts. */
export function tellReady(listening: readonly string[]): void {
  say({ ready: listening });
}

function say<Report>(message: Up<Report>): void {
  process.send?.(message, undefined, {}, () => {});
}
