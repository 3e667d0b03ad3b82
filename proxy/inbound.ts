/** TLS comes in, plain goes out to the target: a client is verified, and allowed, before the target hears of it. */
import type { Socket } from 'node:net';
import type { AlarmClock } from '../spiffe/clock.ts';
import type { Connection } from './connection.ts';
import type { Connections } from './connections.ts';
import { Attempt } from './attempt.ts';
import { addressText, dial } from './dial.ts';
import { reasonOfClient } from './failure.ts';
import type { Admit, Identity, SecureAcceptor, Secured } from './identity.ts';
import { proxyHeader } from './proxy-protocol.ts';
import type { Relay } from './relay.ts';
import type { InboundSettings, Timeouts } from './settings.ts';

export interface InboundParts {
  readonly settings: InboundSettings;
  readonly identity: Identity;
  readonly admit: Admit;
  readonly connections: Connections;
  readonly relay: Relay;
  readonly timeouts: Timeouts;
  readonly keep: boolean;
  readonly clock: AlarmClock;
}

export class Inbound {
  readonly #parts: InboundParts;
  readonly #acceptor: SecureAcceptor;
  readonly #target: string;
  /** Handshakes that are under way. */
  readonly #shaking = new WeakMap<Socket, Connection>();

  constructor(parts: InboundParts) {
    this.#parts = parts;
    const { settings, identity, admit, relay, timeouts, keep } = parts;
    this.#target = addressText(settings.target);
    this.#acceptor = identity.acceptor({
      admit,
      authenticate: settings.authenticate,
      handshakeMs: timeouts.connectMs,
      keep,
      onConnection: (secured) => void this.#secured(secured),
      onRefused: (error, socket) => this.#refused(error, socket),
      onExpiring: relay.onExpiring,
      onUntrusted: relay.onUntrusted,
    });
  }

  /** An accepted connection that was not read from. */
  accept(socket: Socket): void {
    const { connections, relay, settings } = this.#parts;
    const connection = connections.begin({ listener: settings.name, mode: 'server', socket, target: this.#target });
    if (!connections.mayHandshake()) return relay.refuse(connection, 'LIMIT_HANDSHAKES', undefined, socket);
    this.#shaking.set(socket, connection);
    // the refusal, which says more, is told first
    socket.once('close', () => setImmediate(() => !connection.opened && connections.end(connection, 'TLS_HANDSHAKE')));
    this.#acceptor.accept(socket);
    return undefined;
  }

  recheck(): Promise<void> {
    return this.#acceptor.recheck();
  }

  #take(socket: Socket): Connection | undefined {
    const accepted = acceptedOf(socket);
    const connection = this.#shaking.get(accepted);
    this.#shaking.delete(accepted);
    return connection;
  }

  #refused(error: unknown, socket: Socket): void {
    const connection = this.#take(socket);
    socket.destroy();
    if (connection) this.#parts.relay.refuse(connection, reasonOfClient(error), error);
  }

  async #secured(secured: Secured): Promise<void> {
    const { connections, relay, settings, timeouts } = this.#parts;
    const { socket } = secured;
    const connection = this.#take(socket);
    if (!connection) return void socket.destroy();
    connection.secured(secured, this.#parts.clock.monotonic());
    relay.watch(socket, connection);
    if (!connections.mayOpen(connection)) return relay.refuse(connection, 'LIMIT_PEER', undefined, socket);
    const attempt = new Attempt(socket, timeouts.connectMs, this.#parts.clock);
    let target: Socket | undefined;
    try {
      target = await dial({ target: settings.target, allowHalfOpen: true, signal: attempt.signal });
      if (settings.proxyProtocol) target.write(proxyHeader(settings.proxyProtocol, socket, secured));
    } catch (error) {
      return relay.refuse(connection, attempt.reason ?? 'UPSTREAM_CONNECT', error, socket, target);
    } finally {
      attempt.end();
    }
    if (socket.destroyed) return relay.refuse(connection, 'CLOSED', undefined, target);
    return relay.join(connection, socket, target);
  }
}

/** Node makes another socket of the one that was accepted, and has no public name for it. What is not found here is served to nobody. */
function acceptedOf(socket: Socket): Socket {
  return (socket as { readonly _parent?: Socket })._parent ?? socket;
}
