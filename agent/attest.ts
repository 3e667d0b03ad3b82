/** Who a caller is, as selectors: asked of every workload attestor, and believed only if the process was the same before and after. */
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { isAlive } from '../core/native.ts';
import type { WorkloadAttestor } from '../core/plugin/workload-attestor.ts';
import type { Peer } from '../core/rpc-types.ts';
import { type Selector, selectorKey } from '../core/selector.ts';
import type { Shares } from '../core/shares.ts';
import type { Clock } from '../spiffe/clock.ts';
import { type ProcessState, readProcess, sameProcess } from './process.ts';

/** A caller on a UNIX socket. */
export type Caller = Extract<Peer, { kind: 'process' }>;

export interface Attested {
  /** Sorted, each once. */
  readonly selectors: readonly Selector[];
  /** Equal exactly when the selectors are. */
  readonly key: string;
  /** What the process was while the attestors looked. */
  readonly process: ProcessState;
}

export interface AttestorFailure {
  /** Its name. */
  readonly attestor: string;
  readonly error: unknown;
}

export interface AttestorOptions {
  /** By the name that its selectors' type becomes. */
  readonly attestors: ReadonlyMap<string, WorkloadAttestor>;
  /** How many may be under way, of each party its part. */
  readonly underWay: Shares;
  readonly clock: Clock;
  readonly log: Log;
  /** Of one attestor. Default 10 s. */
  readonly timeoutMs?: number;
}

/** How long an answer stands for the same connection, start time and executable. */
const KEPT_MS = 1_000;
/** SPIRE's words: its clients' logs are searched for them. */
const FAILED = 'workload attestation failed';

/** One for all: who was answered needs no error of his own. */
const ANSWERED = new Error('the attestor has answered');
/** An attestation is for whoever asks next too: it does not end with one caller. */
const NEVER = new AbortController().signal;

interface Kept {
  readonly attested: Promise<Attested>;
  readonly process: ProcessState;
  readonly atMs: number;
}

export class CallerAttestor {
  readonly #options: AttestorOptions;
  /** By connection, whose pidfd names one process for its life. */
  readonly #kept = new WeakMap<object, Kept>();

  constructor(options: AttestorOptions) {
    this.#options = options;
  }

  /** Throws UNAVAILABLE when nobody can tell: the process is gone or changed meanwhile, or every attestor failed. No facts is an empty list. */
  async attest(caller: Caller, signal: AbortSignal): Promise<Attested> {
    const now = this.look(caller);
    const kept = this.#kept.get(caller.connection);
    const age = kept ? this.#options.clock.monotonic() - kept.atMs : 0;
    let attested = kept?.attested;
    if (!kept || !attested || age >= KEPT_MS || !sameProcess(kept.process, now)) {
      attested = this.#attest(caller, now);
      this.#kept.set(caller.connection, { attested, process: now, atMs: this.#options.clock.monotonic() });
      // a failure is nobody's to keep
      attested.catch(() => this.#kept.delete(caller.connection));
    }
    return until(attested, signal);
  }

  /** As `attest`, anew, and with what each attestor failed with; where all of them failed, nothing was found. */
  async explain(
    caller: Caller,
    signal: AbortSignal,
  ): Promise<{ readonly selectors: readonly Selector[]; readonly failures: readonly AttestorFailure[] }> {
    const before = this.look(caller);
    const asked = await until(this.#ask(caller), signal);
    if (!sameProcess(before, this.look(caller))) throw fail('UNAVAILABLE', 'the process became another program meanwhile; ask again');
    return asked;
  }

  /** The process as it is now. Throws UNAVAILABLE when it is gone, or no longer runs under the ids that it connected with. */
  look(caller: Caller): ProcessState {
    const state = readProcess(caller.pid);
    // only now that it was read: what was read belongs to the process that the pidfd names if that one still lives
    if (!isAlive(caller.pidfd)) throw fail('UNAVAILABLE', FAILED, { cause: new Error(`process ${caller.pid} ended`) });
    if (state.uid !== caller.uid || state.gid !== caller.gid) {
      this.#options.log.warn('Caller runs under other ids than it connected with', { pid: caller.pid, uid: state.uid, gid: state.gid });
      throw fail('UNAVAILABLE', FAILED, { cause: new Error(`process ${caller.pid} changed its ids`) });
    }
    return state;
  }

  async #attest(caller: Caller, first: ProcessState): Promise<Attested> {
    const release = await this.#options.underWay.wait(caller.party ?? '', 1, NEVER);
    try {
      return await this.#inTurn(caller, first);
    } finally {
      release();
    }
  }

  async #inTurn(caller: Caller, first: ProcessState): Promise<Attested> {
    let before = first;
    for (let tries = 0; tries < 2; tries++) {
      const { selectors, failures } = await this.#ask(caller);
      for (const { attestor, error } of failures)
        this.#options.log.error('Failed to collect all selectors for PID', { pid: caller.pid, plugin: attestor, error });
      if (failures.length > 0 && failures.length === this.#options.attestors.size) throw fail('UNAVAILABLE', FAILED);
      const after = this.look(caller);
      if (sameProcess(before, after)) return { selectors, key: selectors.map(selectorKey).join('\n'), process: after };
      before = after;
    }
    this.#options.log.warn('Caller changed while it was attested', { pid: caller.pid });
    throw fail('UNAVAILABLE', FAILED);
  }

  /** All side by side; those that fail are told and the others count, as in SPIRE. */
  async #ask({
    pid,
    uid,
    gid,
    party,
  }: Caller): Promise<{ readonly selectors: readonly Selector[]; readonly failures: readonly AttestorFailure[] }> {
    const { attestors } = this.#options;
    const all = await Promise.allSettled(
      Array.from(attestors, async ([type, attestor]) => {
        const values = await this.#bounded((signal) => attestor.attest({ pid, uid, gid, party }, signal));
        return values.map((value): Selector => ({ type, value }));
      }),
    );
    const names = [...attestors.keys()];
    const found = new Map<string, Selector>();
    const failures: AttestorFailure[] = [];
    for (const [index, one] of all.entries()) {
      if (one.status === 'fulfilled') for (const selector of one.value) found.set(selectorKey(selector), selector);
      else failures.push({ attestor: names[index] ?? '', error: one.reason });
    }
    return { selectors: [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, selector]) => selector), failures };
  }

  async #bounded<T>(ask: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { clock, timeoutMs = 10_000 } = this.#options;
    const stop = new AbortController();
    const answer = ask(stop.signal);
    const late = clock.sleep(timeoutMs, stop.signal, { ref: false }).then(
      () => {
        const error = fail('DEADLINE_EXCEEDED', `the attestor took longer than ${timeoutMs} ms`);
        stop.abort(error);
        throw error;
      },
      // stopped: the answer is there
      () => new Promise<never>(() => {}),
    );
    try {
      return await Promise.race([answer, late]);
    } finally {
      stop.abort(ANSWERED);
      answer.catch(() => {});
    }
  }
}

/** The promise, or the signal's reason if that comes first; the work goes on for whoever else waits for it. */
export function until<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
    return undefined;
  });
}
