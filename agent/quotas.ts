/** What callers of the public socket may use at a time and in a second, each party its part. */
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { Rate } from '../core/rate.ts';
import type { Gate } from '../core/rpc.ts';
import type { Peer } from '../core/rpc-types.ts';
import { Seldom } from '../core/seldom.ts';
import { type Release, Shares } from '../core/shares.ts';
import { Turns } from '../core/turns.ts';
import type { Clock } from '../spiffe/clock.ts';

export interface QuotaSettings {
  /** In all; each has a pidfd beside its socket. */
  readonly connections: number;
  readonly streams: number;
  /** Of one party; 0: no limit. */
  readonly messagesPerSecond: number;
}

/** Answers that wait for slow readers. */
const PENDING_BYTES = 256 * 1024 * 1024;
/** Attestors that look at something, at a time. */
const ATTESTATIONS = 256;
/** A connection that goes on asking after so many refusals ends. */
const MAX_REFUSALS = 1_000;

export class Quotas {
  readonly connections: Shares;
  readonly streams: Shares;
  readonly bytes = new Shares(PENDING_BYTES);
  readonly attestations = new Shares(ATTESTATIONS);
  readonly #messages: Rate;
  readonly #turns = new Turns();
  readonly #refusals = new WeakMap<object, number>();
  readonly #seldom: Seldom;
  readonly #clock: Clock;
  readonly #log: Log;

  constructor(settings: QuotaSettings, clock: Clock, log: Log) {
    this.connections = new Shares(settings.connections);
    this.streams = new Shares(settings.streams);
    this.#messages = new Rate(settings.messagesPerSecond, clock);
    this.#seldom = new Seldom(clock, { everyMs: 60_000, atOnce: 20 });
    this.#clock = clock;
    this.#log = log;
  }

  /** Says, now and then, that a party is refused. */
  refused(what: string, { pid, uid, party = '' }: { readonly pid: number; readonly uid: number; readonly party?: string }): void {
    const heldBack = this.#seldom.heldBack(`${what} ${party}`);
    if (heldBack !== undefined)
      this.#log.warn('Caller is over its share and refused', { type: what, pid, uid, party, count: heldBack + 1 });
  }

  /** For `RpcServerSettings.admit`. */
  readonly admit = (peer: Peer): Release => {
    if (peer.kind !== 'process' || peer.party === undefined) return () => {};
    const release = this.streams.take(peer.party);
    if (release) return release;
    this.#strike('streams', peer);
    throw fail('RESOURCE_EXHAUSTED', 'too many calls of this user and container at a time');
  };

  /** For `RpcServerSettings.spend`. */
  readonly spend = (peer: Peer, bytes: number, signal: AbortSignal): Promise<Release> | Release => {
    if (peer.kind !== 'process' || peer.party === undefined) return () => {};
    return this.bytes.wait(peer.party, bytes, signal);
  };

  /** Resolves when it is this call's turn. Throws RESOURCE_EXHAUSTED for a party that asks much more often than it may. */
  readonly turn: Gate = ({ peer, signal }) => {
    if (peer.kind !== 'process' || peer.party === undefined) return undefined;
    let waitMs: number | undefined;
    try {
      waitMs = this.#messages.take(peer.party);
    } catch (error) {
      this.#strike('messages', peer);
      throw error;
    }
    const { party } = peer;
    if (waitMs !== undefined)
      return this.#clock.sleep(waitMs, signal).then(async () => {
        await this.#turns.take(party);
        return undefined;
      });
    return this.#turns.take(party)?.then(() => undefined);
  };

  #strike(what: string, peer: Extract<Peer, { kind: 'process' }>): void {
    this.refused(what, peer);
    const count = (this.#refusals.get(peer.connection) ?? 0) + 1;
    this.#refusals.set(peer.connection, count);
    if (count > MAX_REFUSALS && 'destroy' in peer.connection) (peer.connection as { destroy(): void }).destroy();
  }
}
