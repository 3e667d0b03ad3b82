/** Two sockets joined: what one says the other is told, until both have ended. */
import { Socket } from 'node:net';
import type { AlarmClock } from '../spiffe/clock.ts';
import type { Reason } from './reasons.ts';

export interface PipeOptions {
  /** How long one side may go on when the other has ended; 0: not at all. */
  readonly closeMs: number;
  readonly clock: AlarmClock;
  /** Called once, when both sockets are closed or about to be. */
  readonly onEnd: (reason: Reason, error: Error | undefined) => void;
}

/** What is on its way to a side that is to end has this long to leave, unless `closeMs` says otherwise. */
const FAREWELL_MS = 1_000;

/** Resets and broken pipes are how programs end; only what else goes wrong is an error. */
const USUAL = new Set(['ECONNRESET', 'EPIPE', 'ECONNABORTED', 'ERR_STREAM_PREMATURE_CLOSE']);

/**
 * Both sockets must have been opened with `allowHalfOpen`, and neither read from. An end on one side is passed on as a half-close, a reset as a reset; what a slow
 * side has not taken is not read from the other.
 */
export class Pipe {
  /** From `a` to `b`, and back. */
  bytesUp = 0;
  bytesDown = 0;
  /** Called at each piece that passes. Only while somebody wants to know. */
  onActivity: (() => void) | undefined;
  readonly #a: Socket;
  readonly #b: Socket;
  readonly #options: PipeOptions;
  #reason: Reason | undefined;
  #error: Error | undefined;
  #callOff: (() => void) | undefined;
  #open = 2;
  #told = false;

  constructor(a: Socket, b: Socket, options: PipeOptions) {
    this.#a = a;
    this.#b = b;
    this.#options = options;
    this.#watch(a, b);
    this.#watch(b, a);
    a.on('data', (chunk: Buffer) => {
      this.bytesUp += chunk.length;
      this.onActivity?.();
      if (!b.write(chunk)) a.pause();
    });
    b.on('data', (chunk: Buffer) => {
      this.bytesDown += chunk.length;
      this.onActivity?.();
      if (!a.write(chunk)) b.pause();
    });
    // what has ended before it was joined tells nobody of it any more
    for (const [one, other] of [
      [a, b],
      [b, a],
    ] as const) {
      if (one.closed) this.#closed(other);
      else if (one.readableEnded) this.#ended(one, other);
      one.resume();
    }
  }

  /** Ends both sides, telling them; what is on its way to a side that reads still arrives. The first reason counts. */
  end(reason: Reason): void {
    this.#reason ??= reason;
    for (const socket of [this.#a, this.#b]) {
      // what is not read turns the farewell into a reset, which takes back what was said before
      socket.removeAllListeners('data').removeAllListeners('drain').resume();
      socket.end();
    }
    this.#limit(Math.min(FAREWELL_MS, this.#options.closeMs || FAREWELL_MS));
  }

  /** Ends both sides at once. The first reason counts. */
  destroy(reason: Reason): void {
    this.#reason ??= reason;
    this.#a.destroy();
    this.#b.destroy();
  }

  #watch(from: Socket, to: Socket): void {
    from.on('drain', () => to.resume());
    from.on('end', () => this.#ended(from, to));
    from.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== undefined && USUAL.has(error.code)) this.#reason ??= 'RESET';
      else this.#error ??= error;
      if (error.code === 'ECONNRESET') reset(to);
      else to.destroy();
    });
    from.on('close', () => this.#closed(to));
  }

  #ended(from: Socket, to: Socket): void {
    to.end();
    if (to.readableEnded) return;
    if (this.#options.closeMs === 0) this.end('CLOSED');
    else if (!from.destroyed) this.#limit(this.#options.closeMs);
  }

  #limit(ms: number): void {
    this.#callOff ??= this.#options.clock.after(ms, () => this.destroy('TIMEOUT_CLOSE'));
  }

  #closed(other: Socket): void {
    this.#open--;
    // nobody is left to hear it; what was said to it before still arrives
    if (!other.destroyed) {
      other.destroySoon();
      this.#limit(this.#options.closeMs || FAREWELL_MS);
    }
    if (this.#open > 0 || this.#told) return;
    this.#told = true;
    this.#callOff?.();
    this.#options.onEnd(this.#reason ?? (this.#error ? 'RESET' : 'CLOSED'), this.#error);
  }
}

/** Under TLS lies the TCP connection, for which Node has no public name; where it has none at all, the connection ends without a farewell. */
function reset(socket: Socket): void {
  const below = (socket as { readonly _parent?: Socket | null })._parent ?? socket;
  if (below.remoteFamily !== undefined && !below.destroyed) below.resetAndDestroy();
  socket.destroy();
}
