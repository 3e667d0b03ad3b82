/** No connection outlives the certificates that opened it: one wait for all of them, since there are thousands. */
import type { Socket } from 'node:net';
import type { Clock } from '../clock.ts';

/** The wall clock may jump: nobody sleeps longer than this on its word. */
const LONGEST_SLEEP_MS = 60_000;

export interface Ending {
  /** The socket is destroyed then, or soon after a clock that jumped beyond it. */
  readonly endMs: number;
  /** Before it ends the peer is told, once, by `drain`: what is under way may end well, and nothing new begins. */
  readonly drainMs?: number | undefined;
  readonly drain?: (() => void) | undefined;
}

interface Planned extends Ending {
  /** Taken away once it was called. */
  readonly drain: (() => void) | undefined;
}

export class Endings {
  readonly #ends = new Map<Socket, Planned>();
  readonly #clock: Clock;
  readonly #signal: AbortSignal | undefined;
  #nextMs = Number.POSITIVE_INFINITY;
  #wake: AbortController | undefined;

  /** @param signal ends the wait; connections that there are then stay */
  constructor(clock: Clock, signal?: AbortSignal) {
    this.#clock = clock;
    this.#signal = signal;
  }

  get size(): number {
    return this.#ends.size;
  }

  /** Plans an ending. A second one for the same socket counts where it is sooner. */
  add(socket: Socket, ending: Ending): void {
    if (socket.destroyed) return;
    const before = this.#ends.get(socket);
    const planned: Planned = before ? sooner(before, ending) : { drain: undefined, ...ending };
    this.#ends.set(socket, planned);
    if (!before) {
      socket.once('close', () => {
        this.#ends.delete(socket);
        if (this.#ends.size === 0) this.#wake?.abort();
      });
    }
    if (!this.#wake) void this.#run();
    else if (nextOf(planned) < this.#nextMs) this.#wake.abort();
  }

  async #run(): Promise<void> {
    while (this.#ends.size > 0 && !this.#signal?.aborted) {
      const now = this.#clock.now();
      this.#nextMs = Number.POSITIVE_INFINITY;
      for (const [socket, planned] of this.#ends) {
        if (planned.endMs <= now) {
          socket.destroy();
          continue;
        }
        let left = planned;
        if (planned.drain && (planned.drainMs ?? Number.POSITIVE_INFINITY) <= now) {
          left = { ...planned, drain: undefined };
          this.#ends.set(socket, left);
          try {
            planned.drain();
          } catch {
            socket.destroy();
          }
        }
        this.#nextMs = Math.min(this.#nextMs, nextOf(left));
      }
      if (this.#ends.size === 0) break;
      this.#wake = new AbortController();
      const either = this.#signal ? AbortSignal.any([this.#signal, this.#wake.signal]) : this.#wake.signal;
      // it only ever fails because it was woken or stopped, which the loop looks at
      await this.#clock.sleep(Math.min(this.#nextMs - now, LONGEST_SLEEP_MS), either, { ref: false }).catch(() => {});
    }
    this.#wake = undefined;
  }
}

function sooner(before: Planned, ending: Ending): Planned {
  return {
    endMs: Math.min(before.endMs, ending.endMs),
    drainMs: Math.min(before.drainMs ?? Number.POSITIVE_INFINITY, ending.drainMs ?? Number.POSITIVE_INFINITY),
    // undefined when it was called already
    drain: before.drain,
  };
}

function nextOf({ endMs, drainMs, drain }: Planned): number {
  return drain && drainMs !== undefined ? Math.min(endMs, drainMs) : endMs;
}
