/** Plain comes in, TLS goes out: the server is verified, and allowed, before a byte of the local program's is sent. */
import type { Socket } from 'node:net';
import type { AlarmClock } from '../spiffe/clock.ts';
import type { PlainPeer } from './connection.ts';
import type { Connections } from './connections.ts';
import { Attempt } from './attempt.ts';
import { addressText, dial } from './dial.ts';
import { reasonOfServer } from './failure.ts';
import type { Admit, Identity, SecureDialler } from './identity.ts';
import type { Relay } from './relay.ts';
import type { OutboundSettings, Timeouts } from './settings.ts';

/** Who connects, if he may; throws POLICY_DENIED's or PLAIN_PEER_UNKNOWN's error. Asked at accept, before anything is read. */
export type CheckPlainPeer = (socket: Socket) => PlainPeer | undefined;

export interface OutboundParts {
  readonly settings: OutboundSettings;
  readonly identity: Identity;
  readonly admit: Admit;
  /** Undefined: whoever can connect may. */
  readonly checkPlainPeer: CheckPlainPeer | undefined;
  readonly connections: Connections;
  readonly relay: Relay;
  readonly timeouts: Timeouts;
  readonly keep: boolean;
  readonly clock: AlarmClock;
}

export class Outbound {
  readonly #parts: OutboundParts;
  readonly #dialler: SecureDialler;
  readonly #target: string;

  constructor(parts: OutboundParts) {
    this.#parts = parts;
    const { settings, identity, admit, relay, keep } = parts;
    this.#target = addressText(settings.target);
    this.#dialler = identity.dialler({
      admit,
      authenticate: settings.authenticate,
      keep,
      serverName: settings.serverName ?? settings.target.host,
      onExpiring: relay.onExpiring,
      onUntrusted: relay.onUntrusted,
    });
  }

  /** An accepted connection that was not read from. */
  async accept(socket: Socket): Promise<void> {
    const { checkPlainPeer, clock, connections, relay, settings, timeouts } = this.#parts;
    const connection = connections.begin({ listener: settings.name, mode: 'client', socket, target: this.#target });
    socket.on('error', () => {});
    if (checkPlainPeer) {
      try {
        connection.plainPeer = checkPlainPeer(socket);
      } catch (error) {
        return relay.refuse(connection, isDenied(error) ? 'PLAIN_PEER_DENIED' : 'PLAIN_PEER_UNKNOWN', error, socket);
      }
    }
    if (!connections.mayHandshake()) return relay.refuse(connection, 'LIMIT_HANDSHAKES', undefined, socket);
    const attempt = new Attempt(socket, timeouts.connectMs, this.#parts.clock);
    const { signal } = attempt;
    let phase: 'connect' | 'tls' = 'connect';
    let target: Socket | undefined;
    try {
      target = await dial({ target: settings.target, via: settings.via, allowHalfOpen: false, signal });
      phase = 'tls';
      const secured = await this.#dialler.secure(target, signal);
      target = secured.socket;
      connection.secured(secured, clock.monotonic());
      relay.watch(secured.socket, connection);
      if (!connections.mayOpen(connection)) return relay.refuse(connection, 'LIMIT_PEER', undefined, socket, target);
    } catch (error) {
      return relay.refuse(connection, attempt.reason ?? reasonOfServer(error, phase), error, socket, target);
    } finally {
      attempt.end();
    }
    if (socket.destroyed) return relay.refuse(connection, 'CLOSED', undefined, target);
    return relay.join(connection, socket, target);
  }

  /** One more than there may be. */
  turnAway(socket: Socket): void {
    const { connections, relay, settings } = this.#parts;
    const connection = connections.begin({ listener: settings.name, mode: 'client', socket, target: this.#target });
    relay.refuse(connection, 'LIMIT_CONNECTIONS', undefined, socket);
  }

  /** Whether the target can be connected, and is who it must be. Throws why not. */
  async probe(signal: AbortSignal): Promise<void> {
    const { target, via } = this.#parts.settings;
    const socket = await dial({ target, via, allowHalfOpen: false, signal });
    try {
      (await this.#dialler.secure(socket, signal)).socket.destroy();
    } finally {
      socket.destroy();
    }
  }

  recheck(): Promise<void> {
    return this.#dialler.recheck();
  }
}

function isDenied(error: unknown): boolean {
  return (error as { readonly code?: unknown } | null | undefined)?.code === 'DENIED';
}
