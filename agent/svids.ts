/** X.509-SVIDs of workloads, in memory only: keys made here, signed by the server in batches, renewed before they end. */
import type { KeyObject } from 'node:crypto';
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { isStop } from '../core/tasks.ts';
import { buildCsr } from '../core/x509/csr.ts';
import { generateEcKey, generateKey, pkcs8Der } from '../core/x509/key.ts';
import type { Clock } from '../spiffe/clock.ts';
import { X509Svid } from '../spiffe/x509/x509-svid.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { Change, EntryCache, Registration } from './cache.ts';
import { backoffMs, renewAtMs } from './renewal.ts';

/** Ready to be sent. */
export interface Svid {
  readonly entryId: string;
  readonly revision: number;
  readonly spiffeId: string;
  /** Certificates one behind the other, leaf first. */
  readonly chainDer: Buffer;
  readonly keyPkcs8Der: Buffer;
  readonly notAfterMs: number;
  readonly renewAtMs: number;
}

/** One answer of the server: the chain, or why there is none. */
export type Signed = { readonly chain: readonly Certificate[] } | { readonly error: Error };

export type WorkloadKeyType = 'ec-p256' | 'ec-p384' | 'rsa-2048';

export interface SvidsOptions {
  readonly cache: EntryCache;
  /** In the order of the requests. Throws when the whole call failed. */
  readonly sign: (
    requests: readonly { readonly entryId: string; readonly csr: Buffer }[],
    signal: AbortSignal,
  ) => Promise<readonly Signed[]>;
  readonly clock: Clock;
  readonly log: Log;
  readonly keyType: WorkloadKeyType;
  /** Soft: SVIDs that somebody reads are always kept and made, others up to this number. */
  readonly maxSize: number;
  readonly availabilityTargetMs?: number | undefined;
  /** Whether SVIDs are made before somebody asks. Default true. */
  readonly prefetch?: boolean;
  /** Whether a stream shows the entry's SVID. */
  readonly isRead: (entryId: string) => boolean;
  /** These entries have another SVID, or none any more. */
  readonly onChange: (entryIds: readonly string[]) => void;
}

/** Between tries, when the server signs nothing. */
const AGAIN_MS = { first: 500, most: 60_000 };
const MAX_BATCH = 500;
/** Calls at one time: a single new entry need not wait behind a batch of hundreds. */
const MAX_CALLS = 3;
/** The wall clock may jump: nobody sleeps longer than this on its word. */
const LONGEST_SLEEP_MS = 30_000;

export class Svids {
  readonly #options: SvidsOptions;
  /** Least lately used first. */
  readonly #svids = new Map<string, Svid>();
  readonly #wanted = new Set<string>();
  readonly #signing = new Set<string>();
  /** Entries that the server would not sign, and when to ask again (monotonic). */
  readonly #refused = new Map<string, { readonly failures: number; readonly againAtMs: number }>();
  #batch = MAX_BATCH;
  #calls = 0;
  #failures = 0;
  #againAtMs = 0;
  #signal: AbortSignal | undefined;
  #wake = () => {};
  #pumping = false;

  constructor(options: SvidsOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#svids.size;
  }

  /** The newest, unless it has ended. One of another SPIFFE ID is never given: the entry changed, and its new SVID is on the way. */
  get(registration: Registration): Svid | undefined {
    const svid = this.#svids.get(registration.id);
    if (!svid || svid.notAfterMs <= this.#options.clock.now()) return undefined;
    return svid.spiffeId === registration.spiffeId.toString() ? svid : undefined;
  }

  /** Whether the server would not sign it: nobody need wait for this one. */
  isRefused(entryId: string): boolean {
    return this.#refused.has(entryId);
  }

  /** Somebody reads these: what is missing is signed now, and they are the last to go. */
  want(registrations: readonly Registration[]): void {
    for (const registration of registrations) {
      const svid = this.#svids.get(registration.id);
      if (svid) {
        this.#svids.delete(registration.id);
        this.#svids.set(registration.id, svid);
      }
      if (!this.get(registration)) this.#wanted.add(registration.id);
    }
    this.#pump();
  }

  /** Entries changed: SVIDs of those that are gone go too, those of changed ones are made anew. */
  applied(changes: readonly Change[]): void {
    for (const { before, after } of changes) {
      if (before) this.#refused.delete(before.id);
      if (!after || after.storeSvid) {
        if (before) this.#forget(before.id);
        continue;
      }
      const svid = this.#svids.get(after.id);
      if (svid && svid.spiffeId !== after.spiffeId.toString()) this.#svids.delete(after.id);
      if ((svid && svid.revision !== after.revision) || this.#options.isRead(after.id) || (this.#prefetches(after) && this.#room() > 0)) {
        if (svid?.revision !== after.revision || svid.spiffeId !== after.spiffeId.toString()) this.#wanted.add(after.id);
      }
    }
    this.#shrink();
    this.#pump();
  }

  /** The server is there again: what waited for that is tried at once. */
  retry(): void {
    this.#failures = 0;
    this.#againAtMs = 0;
    for (const id of this.#refused.keys()) this.#wanted.add(id);
    this.#refused.clear();
    this.#pump();
  }

  /** Drops every SVID and key: this agent may serve no more. */
  clear(): void {
    const ids = [...this.#svids.keys()];
    this.#svids.clear();
    this.#wanted.clear();
    this.#options.onChange(ids);
  }

  /** Renews until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    this.#signal = signal;
    const { clock } = this.#options;
    try {
      for (;;) {
        this.#due();
        this.#pump();
        const woken = new AbortController();
        this.#wake = () => woken.abort();
        const either = AbortSignal.any([signal, woken.signal]);
        await clock.sleep(this.#untilNext(), either).catch((error: unknown) => {
          if (!isStop(error, woken.signal)) signal.throwIfAborted();
        });
        signal.throwIfAborted();
      }
    } finally {
      this.#signal = undefined;
    }
  }

  #prefetches({ prefetch }: Registration): boolean {
    return prefetch && (this.#options.prefetch ?? true);
  }

  #room(): number {
    return this.#options.maxSize - this.#svids.size - this.#wanted.size;
  }

  /** Renewals whose time has come, ends, and second tries. */
  #due(): void {
    const { clock, cache } = this.#options;
    const now = clock.now();
    const ended: string[] = [];
    for (const svid of this.#svids.values()) {
      if (svid.renewAtMs <= now) this.#wanted.add(svid.entryId);
      if (svid.notAfterMs > now) continue;
      ended.push(svid.entryId);
      this.#svids.delete(svid.entryId);
    }
    for (const [id, { againAtMs }] of this.#refused) if (againAtMs <= clock.monotonic() && cache.get(id)) this.#wanted.add(id);
    if (ended.length > 0) this.#options.onChange(ended);
  }

  #untilNext(): number {
    const { clock } = this.#options;
    let next = LONGEST_SLEEP_MS;
    const now = clock.now();
    for (const svid of this.#svids.values()) {
      // what is being renewed has only its end to wait for
      const at = this.#wanted.has(svid.entryId) || this.#signing.has(svid.entryId) ? svid.notAfterMs : svid.renewAtMs;
      next = Math.min(next, at - now);
    }
    const monotonic = clock.monotonic();
    for (const { againAtMs } of this.#refused.values()) if (againAtMs > monotonic) next = Math.min(next, againAtMs - monotonic);
    if (this.#wanted.size > 0 && this.#againAtMs > monotonic) next = Math.min(next, this.#againAtMs - monotonic);
    return Math.max(next, 1);
  }

  /** In a moment: whoever is telling us of changes is not done, and what is read goes first. */
  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    queueMicrotask(() => {
      this.#pumping = false;
      this.#start();
    });
  }

  #start(): void {
    const signal = this.#signal;
    if (!signal || signal.aborted) return;
    while (this.#calls < MAX_CALLS && this.#options.clock.monotonic() >= this.#againAtMs) {
      const batch = this.#take();
      if (batch.length === 0) break;
      this.#calls++;
      this.#sign(batch, signal)
        .catch((error: unknown) => {
          if (!isStop(error, signal)) this.#options.log.error('Failed to sign X509-SVIDs', { error });
        })
        .finally(() => {
          this.#calls--;
          for (const { id } of batch) this.#signing.delete(id);
          this.#wake();
          this.#pump();
        });
    }
  }

  /** What to sign next: first what somebody waits for. */
  #take(): Registration[] {
    const { cache, isRead, clock } = this.#options;
    const urgent: Registration[] = [];
    const others: Registration[] = [];
    for (const id of this.#wanted) {
      const registration = cache.get(id);
      const refused = this.#refused.get(id);
      if (!registration || registration.storeSvid) this.#wanted.delete(id);
      else if (this.#signing.has(id) || (refused && refused.againAtMs > clock.monotonic())) continue;
      else if (isRead(id)) urgent.push(registration);
      else others.push(registration);
      if (urgent.length >= this.#batch) break;
    }
    const batch = [...urgent, ...others].slice(0, this.#batch);
    for (const { id } of batch) {
      this.#wanted.delete(id);
      this.#signing.add(id);
    }
    return batch;
  }

  async #sign(batch: readonly Registration[], signal: AbortSignal): Promise<void> {
    const { sign, log, clock } = this.#options;
    let signed: readonly Signed[];
    const keys: KeyObject[] = [];
    try {
      const requests: { entryId: string; csr: Buffer }[] = [];
      for (const [index, { id, spiffeId }] of batch.entries()) {
        // other callers are served between a few of them
        if (index % 16 === 15) await new Promise((resolve) => setImmediate(resolve));
        const key = await this.#newKey();
        keys.push(key);
        requests.push({ entryId: id, csr: buildCsr({ key, uri: spiffeId.toString() }) });
        log.info('Creating X509-SVID', { spiffe_id: spiffeId.toString(), entry_id: id });
      }
      signed = await sign(requests, signal);
      if (signed.length !== batch.length) throw fail('UNAVAILABLE', `the server answered ${signed.length} of ${batch.length} requests`);
    } catch (error) {
      for (const { id } of batch) this.#wanted.add(id);
      if (signal.aborted) throw error;
      this.#batch = Math.max(1, this.#batch >> 1);
      this.#failures++;
      this.#againAtMs = clock.monotonic() + Math.min(backoffMs(this.#failures, AGAIN_MS.first, AGAIN_MS.most), this.#patienceMs(batch));
      log.warn('X509-SVIDs were not signed; trying again', { count: batch.length, error });
      return;
    }
    this.#failures = 0;
    this.#againAtMs = 0;
    this.#batch = Math.min(MAX_BATCH, this.#batch * 2);
    const changed: string[] = [];
    for (const [index, asked] of batch.entries()) {
      const [answer, key] = [signed[index], keys[index]];
      // whoever waits for several is told of one that is not coming, too
      if (answer && key && (this.#keep(asked, answer, key) || this.isRefused(asked.id))) changed.push(asked.id);
    }
    this.#shrink();
    if (changed.length > 0) this.#options.onChange(changed);
  }

  /** Of SVIDs that end soon: a server that comes back must be asked while they still hold. */
  #patienceMs(batch: readonly Registration[]): number {
    const now = this.#options.clock.now();
    const left = batch.flatMap(({ id }) => this.#svids.get(id)?.notAfterMs ?? []).filter((notAfterMs) => notAfterMs > now);
    return left.length === 0 ? AGAIN_MS.most : Math.max(AGAIN_MS.first, (Math.min(...left) - now) / 10);
  }

  async #newKey(): Promise<KeyObject> {
    const { keyType } = this.#options;
    return keyType === 'rsa-2048' ? generateKey(keyType) : generateEcKey(keyType);
  }

  #keep(asked: Registration, answer: Signed, key: KeyObject): boolean {
    const { cache, log, clock, availabilityTargetMs } = this.#options;
    const now = cache.get(asked.id);
    // deleted while it was signed
    if (!now || now.storeSvid) return false;
    try {
      if ('error' in answer) throw answer.error;
      const svid = X509Svid.of(answer.chain, key);
      if (!svid.id.equals(asked.spiffeId)) throw fail('SVID_INVALID', `the server signed ${svid.id} for ${asked.spiffeId}`);
      if (svid.notAfterMs <= clock.now()) throw fail('SVID_EXPIRED', 'what the server signed is over already: compare the clocks of both');
      this.#refused.delete(asked.id);
      if (now.revision !== asked.revision || !now.spiffeId.equals(asked.spiffeId)) this.#wanted.add(asked.id);
      if (!now.spiffeId.equals(asked.spiffeId)) return false;
      this.#svids.delete(asked.id);
      this.#svids.set(asked.id, {
        entryId: asked.id,
        revision: asked.revision,
        spiffeId: svid.id.toString(),
        chainDer: svid.chainDer(),
        keyPkcs8Der: pkcs8Der(key),
        notAfterMs: svid.notAfterMs,
        renewAtMs: renewAtMs(svid, { targetMs: availabilityTargetMs, receivedMs: clock.now() }),
      });
      return true;
    } catch (error) {
      const failures = (this.#refused.get(asked.id)?.failures ?? 0) + 1;
      this.#refused.set(asked.id, { failures, againAtMs: clock.monotonic() + backoffMs(failures, 500, 60_000) });
      log.error('X509-SVID was not signed', { entry_id: asked.id, spiffe_id: asked.spiffeId.toString(), error });
      return false;
    }
  }

  #forget(id: string): void {
    this.#wanted.delete(id);
    this.#svids.delete(id);
  }

  /** Down to the limit, the least lately used first, never one that somebody reads. */
  #shrink(): void {
    if (this.#svids.size <= this.#options.maxSize) return;
    for (const id of this.#svids.keys()) {
      if (this.#svids.size <= this.#options.maxSize) return;
      if (!this.#options.isRead(id)) this.#svids.delete(id);
    }
  }
}
