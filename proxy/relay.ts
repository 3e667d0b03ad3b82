/** What both directions share: a connection that is verified is joined with its target, watched, and ended when it must be. */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { AlarmClock } from '../spiffe/clock.ts';
import type { Connection } from './connection.ts';
import type { Connections } from './connections.ts';
import { reasonOfEnd } from './failure.ts';
import type { Watch } from './identity.ts';
import { Pipe } from './pipe.ts';
import type { Reason } from './reasons.ts';
import type { Timeouts } from './settings.ts';

/** How long a connection that is about to end must be quiet: a part of what is left of it, within bounds. */
const QUIET = { part: 1 / 20, minMs: 5, maxMs: 1_000 };

/** Joins verified connections with their targets, and ends them: on time, when trust goes, or when they are quiet before that. */
export class Relay implements Watch {
  readonly #connections: Connections;
  readonly #timeouts: Timeouts;
  readonly #clock: AlarmClock;
  readonly #of = new WeakMap<TLSSocket, Connection>();

  constructor(connections: Connections, timeouts: Timeouts, clock: AlarmClock) {
    this.#connections = connections;
    this.#timeouts = timeouts;
    this.#clock = clock;
  }

  /** From now on the news about this TLS connection is the connection's. */
  watch(socket: TLSSocket, connection: Connection): void {
    this.#of.set(socket, connection);
  }

  /** @param from who connected to us; @param to the target */
  join(connection: Connection, from: Socket, to: Socket): void {
    const { closeMs, idleMs, keepAliveMs, lifetimeMs } = this.#timeouts;
    // those of TLS were not, before
    from.allowHalfOpen = true;
    to.allowHalfOpen = true;
    let endLifetime: (() => void) | undefined;
    const pipe = new Pipe(from, to, {
      closeMs,
      clock: this.#clock,
      onEnd: (reason, error) => {
        endLifetime?.();
        this.#connections.end(connection, reason, error);
      },
    });
    connection.pipe = pipe;
    for (const socket of [from, to]) if (keepAliveMs > 0) socket.setKeepAlive(true, keepAliveMs);
    if (lifetimeMs > 0) endLifetime = this.#clock.after(lifetimeMs, () => pipe.end('TIMEOUT_LIFETIME'));
    // each byte passes here, whichever way it goes
    if (idleMs > 0) from.setTimeout(idleMs, () => pipe.end('TIMEOUT_IDLE'));
    this.#connections.opened(connection);
  }

  onExpiring = (socket: TLSSocket, endMs: number): void => {
    const connection = this.#of.get(socket);
    if (!connection || connection.reason) return;
    const { pipe } = connection;
    // what comes after this word ends it
    connection.reason = 'SVID_EXPIRED';
    if (!pipe) return;
    const quietMs = () => Math.min(QUIET.maxMs, Math.max(QUIET.minMs, (endMs - this.#clock.now()) * QUIET.part));
    const end = () => {
      connection.reason = 'SVID_EXPIRES';
      pipe.end('SVID_EXPIRES');
    };
    let callOff = this.#clock.after(quietMs(), end);
    pipe.onActivity = () => {
      callOff();
      callOff = this.#clock.after(quietMs(), end);
    };
    socket.once('close', () => callOff());
  };

  onUntrusted = (socket: TLSSocket, error: unknown): void => {
    const connection = this.#of.get(socket);
    if (!connection) return;
    connection.reason = reasonOfEnd(error);
    connection.error = error;
  };

  /** Ends what was never joined. */
  refuse(connection: Connection, reason: Reason, error: unknown, ...sockets: readonly (Socket | undefined)[]): void {
    for (const socket of sockets) socket?.destroy();
    this.#connections.end(connection, reason, error);
  }
}
