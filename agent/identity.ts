/** Who the agent itself is: its SVID and key, how it gets them, keeps them and loses them, and the connection that it makes with them. */
import { type X509BundleSource } from '../spiffe/x509/x509-bundle.ts';
import { createPublicKey, type KeyObject } from 'node:crypto';
import { fail, isCoded } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { AgentKeyManager } from '../core/plugin/key-manager.ts';
import type { AgentNodeAttestor } from '../core/plugin/node-attestor.ts';
import { buildCsr } from '../core/x509/csr.ts';
import { Bundle } from '../spiffe/bundle/bundle.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';
import { SpiffeError } from '../spiffe/errors.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { Latest } from '../spiffe/latest.ts';
import { verifyX509Svid, X509Svid } from '../spiffe/x509/x509-svid.ts';
import type { AgentDisk } from './disk.ts';
import { backoffMs, renewAtMs } from './renewal.ts';
import { ServerConnection, standingOf } from './server-client.ts';

export interface IdentityOptions {
  readonly trustDomain: TrustDomain;
  readonly server: { readonly address: string; readonly port: number };
  readonly disk: AgentDisk;
  readonly keys: AgentKeyManager;
  readonly attestor: { readonly type: string; readonly plugin: AgentNodeAttestor };
  /** The first trust, asked for when none is on disk; undefined: `insecure_bootstrap`. */
  readonly bootstrap: () => Promise<readonly Certificate[] | undefined>;
  /** The own bundle as it is now, once the agent has one. */
  readonly bundle: () => Bundle | undefined;
  readonly onBundle: (bundle: Bundle) => void;
  readonly availabilityTargetMs?: number | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

const SLOTS = ['agent-svid-A', 'agent-svid-B'] as const;
/** As SPIRE: then it is the supervisor's turn. */
const GIVE_UP_MS = 60_000;
/** Calls under way on a connection of the identity before. */
const GRACE_MS = 30_000;
/** The wall clock may jump: nobody sleeps longer than this on its word. */
const LONGEST_SLEEP_MS = 30_000;
/** Beyond this it is worth a word. The server dates SVIDs back by ten seconds. */
const SKEW_MS = 30_000;
const BACKDATE_MS = 10_000;

export class Identity {
  readonly #options: IdentityOptions;
  #state: { readonly svid: X509Svid; readonly slot: string; readonly renewAtMs: number } | undefined;
  #connections: Latest<ServerConnection> | undefined;
  #attesting: Promise<void> | undefined;
  #ended: Error | undefined;
  /** Ends `run`. */
  readonly #end = new AbortController();
  #lastRefusal = '';

  constructor(options: IdentityOptions) {
    this.#options = options;
  }

  /** After `start`. */
  get svid(): X509Svid {
    if (!this.#state) throw fail('FAILED_PRECONDITION', 'the agent has no SVID');
    return this.#state.svid;
  }

  /** A new one with each new SVID. */
  get connections(): Latest<ServerConnection> {
    if (!this.#connections) throw fail('FAILED_PRECONDITION', 'the agent has no SVID');
    return this.#connections;
  }

  get reattestable(): boolean {
    return this.#options.disk.data.reattestable;
  }

  /** Why the agent serves no more; undefined while it does. */
  get ended(): Error | undefined {
    return this.#ended;
  }

  /** Takes what is on disk, or attests. Throws DENIED when the server refuses, and what went wrong last after a minute of tries. */
  async start(signal: AbortSignal): Promise<void> {
    const { disk, log, trustDomain, onBundle } = this.#options;
    if (disk.data.bundle.length > 0) {
      log.info('Bundle loaded', { trust_domain: trustDomain.name });
      onBundle(new Bundle(trustDomain, { x509Authorities: disk.data.bundle }));
    } else {
      log.info('Bundle is not found');
    }
    const kept = this.#load();
    if (kept) {
      this.#use(kept.svid, kept.slot, undefined, signal);
      log.info('SVID loaded', { spiffe_id: kept.svid.id.toString(), expires_at: new Date(kept.svid.notAfterMs) });
      return;
    }
    log.info('SVID is not found. Starting node attestation');
    await this.#attestUntilDone(signal);
  }

  /** Renews until the signal aborts. Throws when the agent may serve no more. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    const either = AbortSignal.any([signal, this.#end.signal]);
    try {
      for (let failures = 0; ; ) {
        const at = this.#state?.renewAtMs ?? 0;
        const wait = failures > 0 ? backoffMs(failures, 5_000, 120_000) : at - clock.now();
        await clock.sleep(Math.min(Math.max(wait, 0), failures > 0 ? wait : LONGEST_SLEEP_MS), either);
        if (clock.now() < (this.#state?.renewAtMs ?? 0)) continue;
        try {
          await this.#renew(either);
          failures = 0;
        } catch (error) {
          either.throwIfAborted();
          failures++;
          log.error('Failed to rotate agent SVID', { error });
          await this.report(error, this.connections.value, signal);
          if (this.svid.notAfterMs <= clock.now() && !this.reattestable)
            await this.#stop('Agent SVID has expired: removing SVID and shutting down');
        }
      }
    } catch (error) {
      if (this.#ended) throw this.#ended;
      throw error;
    }
  }

  /**
   * Told of an error of a call, it looks whether the server has said that this agent is no longer what it was: then it attests again in place, or ends.
   * What an older connection heard does not count: its certificate may just have been replaced.
   */
  async report(error: unknown, connection: ServerConnection, signal: AbortSignal): Promise<void> {
    const standing = standingOf(error);
    const { log } = this.#options;
    if (!standing || this.#ended || connection !== this.#connections?.value) return;
    if (standing === 'banned') {
      await this.#stop('Agent is banned: removing SVID and shutting down');
      return;
    }
    if (!this.reattestable) {
      await this.#stop('Agent needs to re-attest: removing SVID and shutting down');
      return;
    }
    log.warn('Agent needs to re-attest; will attempt to re-attest', { error });
    try {
      await this.#again(signal);
    } catch (failure) {
      signal.throwIfAborted();
      if (isCoded(failure, 'DENIED')) await this.#stop(refusal(failure));
      else log.error('Failed to re-attest', { error: failure });
    }
  }

  close(): void {
    this.#connections?.value.close();
  }

  #load(): { svid: X509Svid; slot: string } | undefined {
    const { disk, keys, clock, log } = this.#options;
    const { svid: chain, bundle } = disk.data;
    const [leaf] = chain;
    if (!leaf || bundle.length === 0) {
      if (SLOTS.some((slot) => keys.get(slot))) log.warn('Keys recovered, but no SVID found');
      return undefined;
    }
    const kept = this.#keptKey(leaf);
    if (!kept) {
      log.warn('SVID recovered, but no SVID key found. Generating new keypair');
      return undefined;
    }
    if (leaf.notAfterMs <= clock.now()) {
      log.warn('SVID key recovered, but SVID is expired. Generating new keypair', { expires_at: new Date(leaf.notAfterMs) });
      return undefined;
    }
    return { svid: X509Svid.of(chain, kept.key), slot: kept.slot };
  }

  async #attestUntilDone(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    const startedAt = clock.monotonic();
    for (let failures = 1; ; failures++) {
      try {
        await this.#attest(signal);
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (isCoded(error, 'DENIED', 'SETTINGS_INVALID') || clock.monotonic() - startedAt >= GIVE_UP_MS) throw attestFailure(error);
        log.warn('Failed to attest; trying again', { error: attestFailure(error) });
      }
      await clock.sleep(backoffMs(failures, 500, 10_000), signal);
    }
  }

  /** Anew, whatever there is: once for all who want it at the same time. */
  #again(signal: AbortSignal): Promise<void> {
    this.#attesting ??= this.#attest(signal).finally(() => {
      this.#attesting = undefined;
    });
    return this.#attesting;
  }

  async #attest(signal: AbortSignal): Promise<void> {
    const { attestor, disk, log, trustDomain, onBundle } = this.#options;
    const { slot, key } = await this.#attestationKey();
    const trusted = await this.#trusted();
    // to bootstrap is to begin anew: nothing is known of the server but what the operator gave
    if (!this.#options.bundle() && disk.data.issuers.length > 0) await disk.update({ issuers: [] });
    const connection = this.#connect(undefined, trusted);
    try {
      const { chain, reattestable } = await connection.attest(attestor.type, attestor.plugin, buildCsr({ key }), signal);
      const bundle = await connection.ownBundle(signal).catch((error: unknown) => {
        signal.throwIfAborted();
        if (!trusted) throw error;
        return new Bundle(trustDomain, { x509Authorities: trusted.x509Bundle(trustDomain)?.authorities ?? [] });
      });
      const svid = X509Svid.of(chain, key);
      this.#check(svid, bundle);
      await disk.update({ svid: chain, bundle: bundle.x509.authorities, reattestable });
      onBundle(bundle);
      this.#use(svid, slot, this.#options.clock.now(), signal);
      log.info('Node attestation was successful', { spiffe_id: svid.id.toString(), expires_at: new Date(svid.notAfterMs) });
    } finally {
      connection.close();
    }
  }

  /**
   * On disk before the server hears of it: after an answer that was lost, or a crash before it came, the same key may spend the same token once more.
   * So at a start a key that belongs to no SVID is one that an attestation has begun with, and no other such key is left beside it.
   */
  async #attestationKey(): Promise<{ slot: string; key: KeyObject }> {
    const { disk, keys } = this.#options;
    if (this.#state) {
      const slot = this.#otherSlot();
      return { slot, key: await this.#generate(slot) };
    }
    const [slot, other] = SLOTS;
    const kept = this.#keptKey(disk.data.svid[0]);
    const begun = kept ? undefined : keys.get(slot);
    if (begun) return { slot, key: begun };
    const key = await this.#generate(slot);
    if (keys.get(other)) await keys.delete(other);
    return { slot, key };
  }

  /** Throws when the agent has ended meanwhile: then no key of its is to be left. */
  async #generate(slot: string): Promise<KeyObject> {
    const { keys } = this.#options;
    const key = await keys.generate(slot);
    if (!this.#ended) return key;
    await keys.delete(slot);
    throw this.#ended;
  }

  /** The key of an SVID. */
  #keptKey(leaf: Certificate | undefined): { slot: string; key: KeyObject } | undefined {
    for (const slot of SLOTS) {
      const key = this.#options.keys.get(slot);
      if (leaf && key && spkiOf(key).equals(leaf.spkiDer)) return { slot, key };
    }
    return undefined;
  }

  async #trusted(): Promise<X509BundleSource | undefined> {
    const { bundle, bootstrap, log, trustDomain } = this.#options;
    const known = bundle();
    if (known) return known;
    const authorities = await bootstrap();
    if (authorities) return new Bundle(trustDomain, { x509Authorities: authorities });
    log.warn('Insecure bootstrap enabled; skipping server certificate verification');
    return undefined;
  }

  async #renew(signal: AbortSignal): Promise<void> {
    if (this.reattestable) {
      await this.#again(signal);
      return;
    }
    const { disk, log, bundle } = this.#options;
    const slot = this.#otherSlot();
    const key = await this.#generate(slot);
    const chain = await this.connections.value.renew(buildCsr({ key }), signal);
    const svid = X509Svid.of(chain, key);
    if (!svid.id.equals(this.svid.id)) throw fail('SVID_INVALID', `the server renewed ${this.svid.id} as ${svid.id}`);
    const known = bundle();
    if (known) this.#check(svid, known);
    await disk.update({ svid: chain });
    this.#use(svid, slot, this.#options.clock.now(), signal);
    log.info('Agent SVID renewed', { spiffe_id: svid.id.toString(), expires_at: new Date(svid.notAfterMs) });
  }

  /** What the server gave us must be an agent's SVID that others will accept. */
  #check(svid: X509Svid, bundle: X509BundleSource): void {
    const { trustDomain, clock, log } = this.#options;
    if (!svid.id.memberOf(trustDomain) || !svid.id.path.startsWith('/spire/agent/'))
      throw fail('SVID_INVALID', `the server gave us ${svid.id}, which is no agent of ${trustDomain}`);
    const skew = svid.notBeforeMs + BACKDATE_MS - clock.now();
    if (Math.abs(skew) > SKEW_MS)
      log.warn(
        `Clocks differ: this machine is about ${Math.round(Math.abs(skew) / 1000)} s ${skew > 0 ? 'behind' : 'ahead of'} the server`,
        { spiffe_id: svid.id.toString() },
      );
    // judged at the time that the server believes in
    verifyX509Svid(svid.chain, bundle, { nowMs: Math.min(Math.max(clock.now(), svid.notBeforeMs), svid.notAfterMs) });
  }

  #use(svid: X509Svid, slot: string, receivedMs: number | undefined, signal: AbortSignal): void {
    this.#state = {
      svid,
      slot,
      renewAtMs: renewAtMs(svid, { targetMs: this.#options.availabilityTargetMs, ...(receivedMs !== undefined && { receivedMs }) }),
    };
    const connection = this.#connect(svid, { x509Bundle: (domain) => this.#options.bundle()?.x509Bundle(domain) });
    const old = this.#connections?.value;
    if (this.#connections) this.#connections.set(connection);
    else this.#connections = new Latest(connection);
    if (old) {
      const close = () => old.close();
      this.#options.clock.sleep(GRACE_MS, signal, { ref: false }).then(close, close);
    }
  }

  #connect(svid: X509Svid | undefined, bundles: X509BundleSource | undefined): ServerConnection {
    const { server, trustDomain, clock, log } = this.#options;
    return new ServerConnection({
      ...server,
      trustDomain,
      svid,
      bundles: bundles && (() => bundles),
      issuers: () => this.#options.disk.data.issuers,
      clock,
      log,
      onRefused: (error) => this.#sayRefusal(error),
    });
  }

  /** Each reason once: the connection is tried again all the time. */
  #sayRefusal(error: unknown): void {
    const words = error instanceof Error ? error.message : String(error);
    if (words === this.#lastRefusal) return;
    this.#lastRefusal = words;
    const reason = error instanceof SpiffeError ? (error.reason ?? '') : '';
    this.#options.log.error(
      /NOT_YET_VALID|EXPIRED/.test(reason)
        ? "The server's certificate is not valid at this machine's time: compare the clocks of both"
        : reason === 'X509_NOT_THROUGH'
          ? "The server's certificate was issued by none of the authorities that the server told of before: another CA below the same root pretends to be the server, or the server's authority was replaced while this agent was away; only in the second case stop the agent, remove its data_dir and start it to bootstrap anew"
          : 'Failed to verify the server',
      { address: `${this.#options.server.address}:${this.#options.server.port}`, error },
    );
  }

  #otherSlot(): string {
    return this.#state?.slot === SLOTS[0] ? SLOTS[1] : SLOTS[0];
  }

  /** What is said first stays the reason. */
  async #stop(why: string): Promise<void> {
    if (this.#ended) return;
    const { disk, keys, log } = this.#options;
    this.#ended = fail('DENIED', why);
    log.error(why, { agent_id: this.svid.id.toString() });
    try {
      await disk.remove();
      for (const slot of SLOTS) if (keys.get(slot)) await keys.delete(slot);
    } catch (error) {
      log.error('Failed to remove the SVID and keys of the agent', { error });
    } finally {
      this.#end.abort(this.#ended);
    }
  }
}

function spkiOf(key: KeyObject): Buffer {
  return createPublicKey(key).export({ type: 'spki', format: 'der' });
}

/** SPIRE's words. */
function attestFailure(error: unknown): Error {
  const words = error instanceof Error ? error.message : String(error);
  return fail(isCoded(error) ? error.code : 'UNAVAILABLE', `failed to attest: ${words}`, { cause: error });
}

function refusal(error: Error): string {
  return `Agent may not attest again (${error.message}): removing SVID and shutting down`;
}
