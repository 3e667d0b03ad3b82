/** What is tried for somebody who waits, such as reaching a target: until the time is over, or he has left. */
import type { Socket } from 'node:net';
import type { AlarmClock } from '../spiffe/clock.ts';
import type { Reason } from './reasons.ts';

/** Made once: each of these errors would cost more than the connection that it ends. */
const LEFT = new Error('who wanted the connection has left');
const TOO_LONG = new Error('it took too long');

export class Attempt {
  readonly #stop = new AbortController();
  readonly #callOff: () => void;
  readonly #socket: Socket;
  readonly #left = () => this.#stop.abort(LEFT);

  /** @param socket of who waits; `end` must follow */
  constructor(socket: Socket, limitMs: number, clock: AlarmClock) {
    this.#socket = socket.once('close', this.#left);
    this.#callOff = clock.after(limitMs, () => this.#stop.abort(TOO_LONG));
  }

  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  get timedOut(): boolean {
    return this.signal.aborted && this.signal.reason === TOO_LONG;
  }

  /** Why it was given up; undefined when it was not. */
  get reason(): Reason | undefined {
    if (!this.signal.aborted) return undefined;
    return this.timedOut ? 'UPSTREAM_TIMEOUT' : 'CLOSED';
  }

  end(): void {
    this.#callOff();
    this.#socket.off('close', this.#left);
  }
}
