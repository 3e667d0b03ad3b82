/**
 * Everybody can reach the TCP port. What comes there waits its turn, by its address, until it has shown who it is: so that no number of strangers slows those
 * who are inside, or keeps others out.
 */
import type { Socket } from 'node:net';
import type { Log } from '../core/log.ts';
import { Seldom } from '../core/seldom.ts';
import { type Release, Shares } from '../core/shares.ts';
import { Turns } from '../core/turns.ts';
import type { Clock } from '../spiffe/clock.ts';

export interface DoorwayBounds {
  /** Accepted, and nothing read yet or in its handshake. */
  readonly waiting: number;
  /** In its handshake. */
  readonly handshakes: number;
}

/** Handshakes begun in one turn of the event loop: each costs a millisecond of the thread that serves everybody. */
const BEGUN_AT_ONCE = 2;
/** Who has not come to his handshake by then has given up himself. */
const LONGEST_WAIT_MS = 20_000;

export class Doorway {
  readonly #waiting: Shares;
  readonly #handshakes: Shares;
  readonly #turns = new Turns(BEGUN_AT_ONCE);
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #seldom: Seldom;
  /** What each socket holds, by its two ends: TLS makes another object of it. */
  readonly #held = new Map<string, { readonly socket: Socket; readonly release: Release }>();

  constructor({ waiting, handshakes }: DoorwayBounds, clock: Clock, log: Log) {
    this.#waiting = new Shares(waiting);
    this.#handshakes = new Shares(handshakes);
    this.#clock = clock;
    this.#log = log;
    this.#seldom = new Seldom(clock, { everyMs: 60_000, atOnce: 20 });
  }

  /** A socket from which nothing was read. `begin` is called when its handshake may begin; a socket that may not even wait is destroyed. */
  enter(socket: Socket, begin: () => void): void {
    const party = networkOf(addressOf(socket));
    const release = this.#waiting.take(party);
    socket.on('error', () => {});
    if (!release) {
      const heldBack = this.#seldom.heldBack(party);
      if (heldBack !== undefined)
        this.#log.warn('Connections refused: too many unfinished handshakes of one address', {
          address: addressOf(socket),
          count: heldBack + 1,
        });
      socket.destroy();
      return;
    }
    const key = keyOf(socket);
    const gone = new AbortController();
    const leave = () => {
      gone.abort();
      // the next connection between the same two ends may have come before we hear that this one closed
      if (this.#held.get(key)?.socket === socket) this.#release(key);
    };
    this.#release(key);
    this.#held.set(key, { socket, release });
    socket.once('close', leave);
    this.#clock.sleep(LONGEST_WAIT_MS, gone.signal, { ref: false }).then(
      () => socket.destroy(),
      () => {},
    );
    void this.#wait(party, gone.signal).then(
      (slot) => {
        if (gone.signal.aborted) return slot();
        this.#held.set(key, {
          socket,
          release: () => {
            slot();
            release();
          },
        });
        begin();
        // it has its own time from here on
        return gone.abort();
      },
      () => {},
    );
  }

  /** Its handshake is over, however it ended. */
  done(socket: Socket): void {
    this.#release(keyOf(socket));
  }

  #release(key: string): void {
    this.#held.get(key)?.release();
    this.#held.delete(key);
  }

  async #wait(party: string, signal: AbortSignal): Promise<Release> {
    const slot = await this.#handshakes.wait(party, 1, signal);
    await this.#turns.take(party);
    return slot;
  }
}

/** IPv4 on a socket of both is told as IPv4. */
export function addressOf(socket: Socket): string {
  return (socket.remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '');
}

/** On whose account an address is: who has one of IPv6 has all 2^64 of its network. */
export function networkOf(address: string): string {
  if (!address.includes(':')) return address;
  const [head = '', tail] = address.split('%')[0]?.split('::') ?? [];
  const groups = head === '' ? [] : head.split(':');
  const missing = tail === undefined ? 0 : 8 - groups.length - (tail === '' ? 0 : tail.split(':').length);
  return `${[...groups, ...Array.from({ length: missing }, () => '0')].slice(0, 4).join(':')}::/64`;
}

function keyOf(socket: Socket): string {
  // one that listens on several addresses may see one peer's port on each of them
  return `${addressOf(socket)} ${socket.remotePort ?? 0} ${socket.localAddress ?? ''} ${socket.localPort ?? 0}`;
}
