/**
 * A mutation fuzzer: takes members of a corpus, changes them, runs the target, and keeps what reaches something new: source that was not reached before (V8's
 * block coverage), or another behaviour as the target tells it. What throws anything but a coded error, or takes too long, is a finding.
 */
import { createHash } from 'node:crypto';
import { Session } from 'node:inspector';
import { isCoded } from '../../core/errors.ts';
import { dictionary, type Mutation, PLAIN } from './mutations.ts';
import { Random } from './random.ts';

export interface Target {
  /** Well formed, and near it: what is changed first. */
  readonly seeds: readonly Buffer[];
  /** Words of the format. */
  readonly words?: readonly (string | Buffer)[];
  /** Changes that know the format; made as often as all the others together. */
  readonly mutations?: readonly Mutation[];
  /** Longest input. Default 64 KiB. */
  readonly maxBytes?: number;
  /** An input that takes longer is a finding. Default 250 ms. */
  readonly limitMs?: number;
  /**
   * Runs one input and says in few words what became of it; two inputs of which the same is said behave alike. A coded error thrown is a behaviour as
   * well; every other error is a finding, and so is `wrong` of an oracle.
   */
  readonly run: (input: Buffer) => string | Promise<string>;
}

/** An oracle disagrees. */
export class Wrong extends Error {
  override readonly name = 'Wrong';
}

/** @param why constant: two findings with one text are one */
export function wrong(why: string, ...detail: readonly unknown[]): Wrong {
  return new Wrong(why, { cause: detail.map((one) => (one instanceof Error ? (one.stack ?? one.message) : String(one)).slice(0, 2000)) });
}

export interface Finding {
  readonly target: string;
  readonly seed: number;
  readonly execution: number;
  readonly what: string;
  readonly stack: string;
  readonly inputBase64: string;
}

export interface Report {
  readonly executions: number;
  readonly behaviours: number;
  readonly corpus: number;
  /** Characters of our sources that were run. */
  readonly covered: number;
  readonly slowestMs: number;
  readonly slowestBytes: number;
}

export interface FuzzOptions {
  readonly name: string;
  readonly seed: number;
  readonly seconds: number;
  /** Told before an input is run, so that somebody else can tell what it was when it does not end. */
  readonly running: (input: Buffer) => void;
  readonly found: (finding: Finding) => void;
  readonly progress: (report: Report) => void;
}

const BATCH = 16;
const MAX_CORPUS = 4096;
const MAX_FINDINGS = 20;
const MAX_FAMILY = 24;

export async function fuzz(target: Target, options: FuzzOptions): Promise<Report> {
  const random = new Random(options.seed);
  const maxBytes = target.maxBytes ?? 64 * 1024;
  const limitMs = target.limitMs ?? 250;
  const plain = target.words ? [...PLAIN, dictionary(target.words), dictionary(target.words), dictionary(target.words)] : PLAIN;
  const own = target.mutations ?? [];
  const coverage = new Coverage();
  const behaviours = new Set<string>();
  const families = new Map<string, number>();
  const corpus: Buffer[] = [];
  const findings = new Set<string>();
  let executions = 0;
  let slowestMs = 0;
  let slowestBytes = 0;
  const report = (): Report => ({
    executions,
    behaviours: behaviours.size,
    corpus: corpus.length,
    covered: coverage.covered,
    slowestMs,
    slowestBytes,
  });

  const tell = async (input: Buffer, what: string, error: unknown) => {
    if (findings.has(what) || findings.size >= MAX_FINDINGS) return;
    findings.add(what);
    const small = await shorter(target, input, what);
    options.found({
      target: options.name,
      seed: options.seed,
      execution: executions,
      what,
      stack: errorText(error),
      inputBase64: small.toString('base64'),
    });
  };

  /** Whether it behaved as none before. */
  const execute = async (input: Buffer): Promise<boolean> => {
    options.running(input);
    executions++;
    const started = performance.now();
    let behaviour: string;
    try {
      const result = target.run(input);
      behaviour = typeof result === 'string' ? result : await result;
    } catch (error) {
      if (!isCoded(error)) {
        await tell(input, faultOf(error), error);
        return false;
      }
      behaviour = behaviourOf(error);
    }
    let took = performance.now() - started;
    if (took > slowestMs && took > 1) {
      // the machine may have been busy with something else
      for (let again = 0; again < 3 && took > slowestMs; again++) took = Math.min(took, await time(target, input));
      if (took > slowestMs) [slowestMs, slowestBytes] = [took, input.length];
      if (took > limitMs) await tell(input, `slow: more than ${limitMs} ms`, new Error(`${took.toFixed(0)} ms for ${input.length} bytes`));
    }
    if (behaviours.has(behaviour)) return false;
    // messages that quote their input in part would be new for ever
    const family = behaviour.slice(0, 24);
    const size = families.get(family) ?? 0;
    if (size >= MAX_FAMILY) return false;
    families.set(family, size + 1);
    behaviours.add(behaviour);
    return true;
  };

  const keep = (input: Buffer) => {
    if (corpus.length < MAX_CORPUS) corpus.push(Buffer.from(input));
    else corpus[target.seeds.length + random.int(MAX_CORPUS - target.seeds.length)] = Buffer.from(input);
  };

  const make = (): Buffer => {
    // the newest are where something new is near
    const any = () =>
      corpus[random.oneIn(3) ? corpus.length - 1 - random.int(Math.min(32, corpus.length)) : random.int(corpus.length)] as Buffer;
    // long ones cost the time of many short ones
    const pick = () => {
      const one = any();
      if (one.length < 4096 || random.oneIn(8)) return one;
      const other = any();
      return other.length < one.length ? other : one;
    };
    let input = pick();
    for (let times = random.size(6); times > 0; times--) {
      const other = pick();
      const mutation = own.length > 0 && random.oneIn(2) ? random.pick(own) : random.pick(plain);
      let changed: Buffer;
      try {
        changed = mutation(random, input, other);
      } catch (error) {
        // the changes themselves are recursive
        if (error instanceof RangeError) break;
        throw error;
      }
      if (changed.length > maxBytes) break;
      input = changed;
    }
    return input;
  };

  for (const seed of target.seeds) {
    await execute(seed);
    keep(seed);
  }
  coverage.take();

  const ends = performance.now() + options.seconds * 1000;
  let told = performance.now();
  for (let now = told; now < ends && findings.size < MAX_FINDINGS; now = performance.now()) {
    const batch = Array.from({ length: BATCH }, make);
    const fresh: boolean[] = [];
    for (const input of batch) fresh.push(await execute(input));
    const reached = coverage.take();
    for (const [i, input] of batch.entries()) {
      if (fresh[i]) keep(input);
    }
    if (reached) {
      coverage.forget();
      for (const [i, input] of batch.entries()) {
        await execute(input);
        if (coverage.take() && !fresh[i]) keep(input);
      }
    }
    if (now - told > 1000) {
      told = now;
      options.progress(report());
      // lets messages out, and what waits in
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  return report();
}

async function time(target: Target, input: Buffer): Promise<number> {
  const started = performance.now();
  try {
    await target.run(input);
  } catch {
    // told before
  }
  return performance.now() - started;
}

/** Runs one input as a fuzzer would; what was wrong with it, or undefined. */
export async function faultOfInput(target: Target, input: Buffer): Promise<string | undefined> {
  const started = performance.now();
  try {
    await target.run(input);
  } catch (error) {
    if (!isCoded(error)) return faultOf(error);
  }
  return performance.now() - started > (target.limitMs ?? 250) ? 'slow' : undefined;
}

/** Takes parts out as long as the same finding remains. */
async function shorter(target: Target, input: Buffer, what: string): Promise<Buffer> {
  if (what.startsWith('slow')) return input;
  let small = Buffer.from(input);
  const ends = performance.now() + 3000;
  for (let piece = small.length >> 1; piece >= 1; piece >>= 1) {
    for (let at = 0; at < small.length && performance.now() < ends; ) {
      const less = Buffer.concat([small.subarray(0, at), small.subarray(at + piece)]);
      if ((await faultOfInput(target, less)) === what) small = less;
      else at += piece;
    }
  }
  return small;
}

function behaviourOf(error: { readonly code: string; readonly reason?: string | undefined; readonly message: string }): string {
  return `${error.code} ${error.reason ?? ''} ${shape(error.message)}`;
}

/** What kind of failure: name, text without its particulars, and where. */
function faultOf(error: unknown): string {
  if (!(error instanceof Error)) return `not an error: ${typeof error}`;
  const where = /\n\s+at (.*)/.exec(error.stack ?? '')?.[1]?.replace(/\(?file:\/\/.*\/(?=[^/]+$)/, '') ?? '';
  return `${error.name}: ${shape(error.message)}${error instanceof Wrong || error.message.includes('call stack') ? '' : ` at ${where}`}`;
}

/** A message without what differs from input to input. */
export function shape(message: string): string {
  return message
    .slice(0, 400)
    .replace(/"(?:[^"\\]|\\.)*"?/g, '""')
    .replace(/[0-9a-f]{6,}/gi, '#')
    .replace(/\d+/g, '#')
    .slice(0, 160);
}

function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? '' : `\ncause: ${Array.isArray(error.cause) ? error.cause.join('\n') : String(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`.slice(0, 6000);
}

/** A number of things, told roughly: 0, 1, 2, 3–4, 5–8, … */
export function about(count: number): number {
  return count < 3 ? count : 2 ** Math.ceil(Math.log2(count));
}

/** Which characters of our sources were run, from the profiler of this thread. */
class Coverage {
  readonly #session = new Session();
  readonly #scripts = new Map<string, Uint8Array>();
  #before: { readonly seen: Uint8Array; readonly from: number; readonly to: number }[] = [];
  covered = 0;

  constructor() {
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: false, detailed: true });
  }

  /** Whether something was run since the last time that had never been run before. */
  take(): boolean {
    let fresh = false;
    this.#before = [];
    this.#session.post('Profiler.takePreciseCoverage', (_error, { result }) => {
      for (const script of result) {
        if (!OWN.test(script.url)) continue;
        for (const { ranges } of script.functions) {
          const [whole] = ranges;
          if (!whole || whole.count === 0) continue;
          const seen = this.#seen(script.url, whole.endOffset);
          const here = new Uint8Array(whole.endOffset - whole.startOffset);
          // in each other, the outer ones first
          for (const { startOffset, endOffset, count } of ranges)
            here.fill(count === 0 ? 0 : 1, startOffset - whole.startOffset, endOffset - whole.startOffset);
          let from = -1;
          for (let i = 0; i <= here.length; i++) {
            const isNew = here[i] === 1 && seen[whole.startOffset + i] === 0;
            if (isNew && from < 0) from = i;
            else if (!isNew && from >= 0) {
              seen.fill(1, whole.startOffset + from, whole.startOffset + i);
              this.covered += i - from;
              this.#before.push({ seen, from: whole.startOffset + from, to: whole.startOffset + i });
              from = -1;
              fresh = true;
            }
          }
        }
      }
    });
    return fresh;
  }

  /** Takes back what the last `take` found, so that the inputs of a batch can be told apart. */
  forget(): void {
    for (const { seen, from, to } of this.#before) {
      seen.fill(0, from, to);
      this.covered -= to - from;
    }
  }

  #seen(url: string, end: number): Uint8Array {
    const old = this.#scripts.get(url);
    if (old && old.length >= end) return old;
    const larger = new Uint8Array(Math.max(64 * 1024, end * 2));
    if (old) larger.set(old);
    this.#scripts.set(url, larger);
    return larger;
  }
}

const OWN = /\/(?:spiffe|core|server|agent|plugins|cli|proto\/gen)\/[^?]*\.ts/;

/** So that one thing found twice has one name. */
export function nameOf(finding: Finding): string {
  return `${finding.target}-${createHash('sha256').update(finding.what).digest('hex').slice(0, 8)}`;
}
