/**
 * Runs one target: node test/fuzz/run.ts TARGET [--seconds N] [--seed N] [--out DIR] [--replay FILE]. The target works in a thread of its own; this one
 * watches that it goes on, and writes down what was found. Exit code 1: something was. The last line is the report as JSON.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { faultOfInput, type Finding, fuzz, nameOf, type Report, type Target } from './fuzzer.ts';

/** An input that is at work for so long has no end. */
const HANG_MS = 15_000;
const MAX_INPUT = 4 * 1024 * 1024;
/** What one thread may hold; the inputs are small. */
const MAX_HEAP_MB = 512;
const MAX_RSS = 1.5 * 2 ** 30;

interface Order {
  readonly name: string;
  readonly seed: number;
  readonly seconds: number;
  /** The count of executions, the length of the input, and from byte 8 on the input at work. */
  readonly shared: SharedArrayBuffer;
}

type Message = { readonly kind: 'found'; readonly finding: Finding } | { readonly kind: 'progress' | 'end'; readonly report: Report };

async function load(name: string): Promise<Target> {
  const { default: make } = (await import(`./targets/${name}.ts`)) as { readonly default: () => Target | Promise<Target> };
  return make();
}

async function work({ name, seed, seconds, shared }: Order): Promise<void> {
  const state = new Int32Array(shared, 0, 2);
  const bytes = new Uint8Array(shared, 8);
  const say = (message: Message) => parentPort?.postMessage(message);
  // a promise that nobody keeps must not end the thread: the watcher says that it has no end
  const awake = setInterval(() => {}, 1000);
  const report = await fuzz(await load(name), {
    name,
    seed,
    seconds,
    running(input) {
      bytes.set(input.length > MAX_INPUT ? input.subarray(0, MAX_INPUT) : input);
      state[1] = Math.min(input.length, MAX_INPUT);
      Atomics.add(state, 0, 1);
    },
    found: (finding) => say({ kind: 'found', finding }),
    progress: (now) => say({ kind: 'progress', report: now }),
  });
  clearInterval(awake);
  say({ kind: 'end', report });
}

async function watch(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      seconds: { type: 'string', default: '60' },
      seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
      out: { type: 'string', default: join('.warifu', 'fuzz') },
      replay: { type: 'string' },
    },
  });
  const [name = ''] = positionals;
  const out = resolve(values.out);
  if (values.replay !== undefined) {
    const input = Buffer.from((JSON.parse(readFileSync(values.replay, 'utf8')) as Finding).inputBase64, 'base64');
    const what = await faultOfInput(await load(name), input);
    console.log(what ?? 'nothing wrong');
    process.exitCode = what === undefined ? 0 : 1;
    return;
  }
  const seed = Number(values.seed);
  const shared = new SharedArrayBuffer(8 + MAX_INPUT);
  const state = new Int32Array(shared, 0, 2);
  const order: Order = { name, seed, seconds: Number(values.seconds), shared };
  const worker = new Worker(new URL(import.meta.url), { workerData: order, resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB } });
  let report: Report | undefined;
  let findings = 0;
  const found = (finding: Finding) => {
    findings++;
    mkdirSync(out, { recursive: true });
    const file = join(out, `${nameOf(finding)}.json`);
    writeFileSync(file, `${JSON.stringify(finding, null, 2)}\n`);
    console.log(`${name}: ${finding.what}\n  ${file}`);
  };
  const atWork = (what: string, stack: string) =>
    found({
      target: name,
      seed,
      execution: Atomics.load(state, 0),
      what,
      stack,
      inputBase64: Buffer.from(new Uint8Array(shared, 8, state[1])).toString('base64'),
    });

  await new Promise<void>((done) => {
    let last = -1;
    let since = performance.now();
    const eyes = setInterval(() => {
      const now = Atomics.load(state, 0);
      // before the first input the seeds are made
      if (now !== last || now === 0) [last, since] = [now, performance.now()];
      else if (performance.now() - since > HANG_MS) {
        atWork('no end', `still at work after ${HANG_MS} ms`);
        void worker.terminate();
      }
      if (process.memoryUsage.rss() > MAX_RSS) {
        atWork('memory without bound', `${process.memoryUsage.rss()} bytes resident`);
        void worker.terminate();
      }
    }, 500);
    worker.on('message', (message: Message) => {
      if (message.kind === 'found') return found(message.finding);
      report = message.report;
      if (message.kind === 'end') void worker.terminate();
    });
    worker.on('error', (error: Error) => atWork(`the thread died: ${error.name}: ${error.message.slice(0, 100)}`, error.stack ?? ''));
    worker.on('exit', () => {
      clearInterval(eyes);
      done();
    });
  });
  console.log(JSON.stringify({ target: name, seed, findings, ...report }));
  process.exitCode = findings > 0 || !report || report.executions === 0 ? 1 : 0;
}

if (isMainThread) await watch();
else await work(workerData as Order);
