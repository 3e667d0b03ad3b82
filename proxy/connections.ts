/** All connections of a proxy: how many there may be, who hears of them, and how they are ended together. */
import type { Clock } from '../spiffe/clock.ts';
import { Connection, type Mode, type Observer } from './connection.ts';
import type { Socket } from 'node:net';
import type { Reason } from './reasons.ts';
import type { Limits } from './settings.ts';

/** Each holds a descriptor: in the kernel's queue they would not, but nothing of a Node server leaves them there. */
const MAX_WAITING = 1_024;

export class Connections {
  readonly #clock: Clock;
  readonly #limits: Limits;
  readonly #observers: readonly Observer[];
  readonly #all = new Map<Connection, Socket>();
  readonly #perId = new Map<string, number>();
  /** Accepted, unread, and what takes them up. */
  readonly #waiting = new Map<Socket, () => void>();
  #last = 0;
  #second = 0;
  #inSecond = 0;

  constructor(clock: Clock, limits: Limits, observers: readonly Observer[]) {
    this.#clock = clock;
    this.#limits = limits;
    this.#observers = observers;
  }

  get size(): number {
    return this.#all.size;
  }

  /** Accepted, and unread until there is room. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** No more may be accepted now. */
  get full(): boolean {
    return this.#limits.maxConnections > 0 && this.#all.size >= this.#limits.maxConnections;
  }

  /** `take` is called when there is room again. False: too many wait for that already. */
  wait(socket: Socket, take: () => void): boolean {
    if (this.#waiting.size >= MAX_WAITING) return false;
    this.#waiting.set(socket, take);
    socket.once('close', () => this.#waiting.delete(socket));
    return true;
  }

  [Symbol.iterator](): IterableIterator<Connection> {
    return this.#all.keys();
  }

  /** A connection that was accepted just now. `end` must follow. */
  begin(about: { readonly listener: string; readonly mode: Mode; readonly socket: Socket; readonly target: string }): Connection {
    const connection = new Connection({
      ...about,
      id: (++this.#last).toString(36),
      startedMs: this.#clock.now(),
      started: this.#clock.monotonic(),
    });
    this.#all.set(connection, about.socket);
    this.#tell((observer) => observer.accepted?.(connection));
    return connection;
  }

  /** Whether one more handshake may begin in this second. */
  mayHandshake(): boolean {
    const { maxHandshakesPerSecond } = this.#limits;
    if (maxHandshakesPerSecond === 0) return true;
    const second = Math.floor(this.#clock.monotonic() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#inSecond = 0;
    }
    return ++this.#inSecond <= maxHandshakesPerSecond;
  }

  /** Counts the connection on its peer's account, until it ends. False: the peer has as many as it may have. */
  mayOpen(connection: Connection): boolean {
    const { maxConnectionsPerId } = this.#limits;
    const name = connection.peerName;
    if (maxConnectionsPerId === 0 || name === undefined) return true;
    const open = this.#perId.get(name) ?? 0;
    if (open >= maxConnectionsPerId) return false;
    this.#perId.set(name, open + 1);
    this.#counted.set(connection, name);
    return true;
  }

  readonly #counted = new WeakMap<Connection, string>();

  opened(connection: Connection): void {
    this.#tell((observer) => observer.opened?.(connection));
  }

  /** The first reason counts. */
  end(connection: Connection, reason: Reason, error?: unknown): void {
    if (!this.#all.delete(connection)) return;
    connection.reason ??= reason;
    connection.error ??= error;
    connection.durationMs = this.#clock.monotonic() - connection.started;
    const name = this.#counted.get(connection);
    if (name !== undefined) {
      const open = (this.#perId.get(name) ?? 1) - 1;
      if (open > 0) this.#perId.set(name, open);
      else this.#perId.delete(name);
    }
    this.#tell((observer) => observer.ended?.(connection));
    for (const [socket, take] of this.#waiting) {
      if (this.full) return;
      this.#waiting.delete(socket);
      take();
    }
  }

  /** Ends at once what has not been joined yet: who waits for room, handshakes, and targets that are being connected. */
  endUnopened(reason: Reason): void {
    for (const socket of this.#waiting.keys()) socket.destroy();
    this.#waiting.clear();
    for (const [connection, socket] of [...this.#all]) {
      if (connection.opened) continue;
      connection.reason ??= reason;
      socket.destroy();
    }
  }

  /** Ends every one at once. */
  destroyAll(reason: Reason): void {
    for (const [connection, socket] of [...this.#all]) {
      connection.reason ??= reason;
      if (connection.pipe) connection.pipe.destroy(reason);
      else socket.destroy();
    }
  }

  #tell(of: (observer: Observer) => void): void {
    for (const observer of this.#observers) {
      try {
        of(observer);
      } catch {
        // who watches must not break what is watched
      }
    }
  }
}
