/** Live connections: each ends with the SVIDs and the trust that opened it, after its user was told. */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { type Clock, systemClock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { requireMatch } from '../match.ts';
import type { X509Identity } from '../source/x509-identity.ts';
import type { X509BundleSource } from '../x509/x509-bundle.ts';
import { verifyX509Svid, type X509Svid } from '../x509/x509-svid.ts';
import { Endings } from './endings.ts';
import { type Authorize, tlsPeer } from './tls.ts';

/** Part of a connection's life after which its user is told to make a new one: the client well before the server, since a server that tells leaves requests in doubt that are on their way. */
const DRAIN_FROM = { client: 0.6, server: 0.85 } as const;
/** The tells are spread over this part of the life, lest all connections that began together end together. */
const SPREAD = 0.1;
/** When trust is gone the user is told at once, and the connection ends after half of this time to all of it. */
const UNTRUSTED_END_MS = 1_000;
/** Connections that are judged anew between two turns of the event loop. */
const TURN = 50;

export interface LiveOptions {
  /** What may change: our own SVID, and the bundles that peers are judged by. */
  readonly source: X509BundleSource & Partial<Pick<X509Identity, 'onChange' | 'svid'>>;
  /** Undefined: the peer has no SPIFFE ID, and is not judged again. */
  readonly authorize: Authorize | undefined;
  readonly role: keyof typeof DRAIN_FROM;
  readonly clock?: Clock | undefined;
  /** Connections live as long as their user wants, whatever happens to SVIDs and trust. Default false. */
  readonly keep?: boolean | undefined;
  /** From 0 to 1. Default `Math.random`. */
  readonly random?: (() => number) | undefined;
  readonly log?: Logger | undefined;
  /** Told why a connection that was good ends within a second: its peer, or our own identity, is not trusted any more. */
  readonly onUntrusted?: ((socket: TLSSocket, error: unknown) => void) | undefined;
}

interface Live {
  readonly socket: TLSSocket;
  readonly drain: ((endMs: number) => void) | undefined;
}

export class LiveConnections {
  readonly #options: LiveOptions;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #endings: Endings;
  readonly #live = new Map<Socket, Live>();
  #off: (() => void) | undefined;
  #judging: Promise<void> | undefined;
  #again = false;

  constructor(options: LiveOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#endings = new Endings(this.#clock);
  }

  get size(): number {
    return this.#live.size;
  }

  /**
   * @param own when what we showed ends, in milliseconds since 1970; undefined: we showed no SVID
   * @param drain tells the user that this connection takes nothing new, and when it ends; without it, the connection just ends
   */
  add(socket: TLSSocket, own: number | undefined, drain?: (endMs: number) => void): void {
    const { keep, role, source } = this.#options;
    if (keep || socket.destroyed) return;
    const peer = tlsPeer(socket);
    const endMs = Math.min(own ?? Number.POSITIVE_INFINITY, ...(peer?.chain.map((one) => one.notAfterMs) ?? []));
    this.#live.set(socket, { socket, drain });
    socket.once('close', () => {
      this.#live.delete(socket);
      if (this.#live.size === 0) {
        this.#off?.();
        this.#off = undefined;
      }
    });
    // nobody hears of us while we have no connection
    this.#off ??= source.onChange?.(() => void this.recheck());
    if (endMs === Number.POSITIVE_INFINITY) return;
    const left = endMs - this.#clock.now();
    this.#endings.add(socket, {
      endMs,
      drainMs: endMs - left * (1 - DRAIN_FROM[role] - SPREAD * this.#random()),
      drain: drain && (() => drain(endMs)),
    });
  }

  /** Judges every peer anew, by the bundles of now and the authorizer; those that are not trusted any more end within a second. Done by itself at every change of the source. */
  recheck(): Promise<void> {
    this.#again = true;
    this.#judging ??= this.#judge().finally(() => (this.#judging = undefined));
    return this.#judging;
  }

  async #judge(): Promise<void> {
    while (this.#again) {
      this.#again = false;
      const takenBack = this.#takenBack();
      let turn = 0;
      for (const live of [...this.#live.values()]) {
        if (turn++ % TURN === TURN - 1) await new Promise((resolve) => setImmediate(resolve));
        if (live.socket.destroyed) continue;
        const fault = takenBack ?? this.#fault(live.socket);
        if (fault) this.#untrusted(live, fault);
      }
    }
  }

  /** DENIED: the identity that we showed was taken back. That none is there for another reason says nothing of the one that we showed. */
  #takenBack(): unknown {
    try {
      return void (this.#options.source.svid satisfies X509Svid | undefined);
    } catch (error) {
      return error instanceof SpiffeError && error.code === 'DENIED' ? error : undefined;
    }
  }

  #fault(socket: TLSSocket): unknown {
    const { authorize, source } = this.#options;
    const peer = tlsPeer(socket);
    if (!peer || !authorize) return undefined;
    try {
      const { id } = verifyX509Svid(peer.chain, source, { nowMs: this.#clock.now() });
      requireMatch(authorize, id, peer);
      return undefined;
    } catch (error) {
      // a source that its owner closed says nothing of its peers
      return error instanceof SpiffeError && error.code === 'CLOSED' ? undefined : error;
    }
  }

  #untrusted({ socket, drain }: Live, error: unknown): void {
    const now = this.#clock.now();
    try {
      this.#options.log?.info('Connection ends: its peer, or our own identity, is not trusted any more', {
        peer: String(tlsPeer(socket)?.id ?? ''),
        error,
      });
      this.#options.onUntrusted?.(socket, error);
    } catch {
      // both are the user's
    }
    const endMs = now + UNTRUSTED_END_MS * (0.5 + 0.5 * this.#random());
    this.#endings.add(socket, { endMs, drainMs: now, drain: drain && (() => drain(endMs)) });
  }
}
