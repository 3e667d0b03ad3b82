/** No connection outlives the certificate that opened it: one wait for all of them, since there are thousands. */
import type { Socket } from 'node:net';
import type { Clock } from '../spiffe/clock.ts';

/** The wall clock may jump: nobody sleeps longer than this on its word. */
const LONGEST_SLEEP_MS = 60_000;

export class Endings {
  readonly #ends = new Map<Socket, number>();
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  #nextMs = Number.POSITIVE_INFINITY;
  #wake: AbortController | undefined;

  /** @param signal ends the wait; connections that there are then stay */
  constructor(clock: Clock, signal: AbortSignal) {
    this.#clock = clock;
    this.#signal = signal;
  }

  /** Destroys the socket at that time, or soon after a clock that jumped beyond it. */
  add(socket: Socket, notAfterMs: number): void {
    this.#ends.set(socket, notAfterMs);
    socket.once('close', () => {
      this.#ends.delete(socket);
      if (this.#ends.size === 0) this.#wake?.abort();
    });
    if (!this.#wake) void this.#run();
    else if (notAfterMs < this.#nextMs) this.#wake.abort();
  }

  async #run(): Promise<void> {
    while (this.#ends.size > 0 && !this.#signal.aborted) {
      const now = this.#clock.now();
      this.#nextMs = Number.POSITIVE_INFINITY;
      for (const [socket, end] of this.#ends) {
        if (end <= now) socket.destroy();
        else this.#nextMs = Math.min(this.#nextMs, end);
      }
      this.#wake = new AbortController();
      const either = AbortSignal.any([this.#signal, this.#wake.signal]);
      // it only ever fails because it was woken or stopped, which the loop looks at
      await this.#clock.sleep(Math.min(this.#nextMs - now, LONGEST_SLEEP_MS), either, { ref: false }).catch(() => {});
    }
    this.#wake = undefined;
  }
}
