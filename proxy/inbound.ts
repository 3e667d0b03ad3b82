/** TLS comes in, plain goes out to the target: a client is verified, and allowed, before the target hears of it. */
import { BlockList, isIPv6, type Socket } from 'node:net';
import type { AlarmClock } from '../spiffe/clock.ts';
import type { Connection } from './connection.ts';
import type { Connections } from './connections.ts';
import { Attempt } from './attempt.ts';
import { addressText, dial } from './dial.ts';
import { reasonOfClient } from './failure.ts';
import type { Admit, Identity, SecureAcceptor, Secured } from './identity.ts';
import { firstBytes, isTls } from './first-bytes.ts';
import { type Ends, plainProxyHeader, proxyHeader } from './proxy-protocol.ts';
import { readProxyHeader } from './proxy-protocol-in.ts';
import type { Reason } from './reasons.ts';
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

/** On a permissive port, who says nothing for so long waits for the server to speak first, as no TLS client does. */
const SILENCE_MS = 1_000;

export class Inbound {
  readonly #parts: InboundParts;
  readonly #believed: BlockList | undefined;
  #permissive: boolean;
  readonly #acceptor: SecureAcceptor;
  readonly #target: string;
  /** Handshakes that are under way. */
  readonly #shaking = new WeakMap<Socket, Connection>();
  /** What a PROXY header has told, by the accepted socket. */
  readonly #told = new WeakMap<Socket, Ends>();

  constructor(parts: InboundParts) {
    this.#parts = parts;
    const { settings, identity, admit, relay, timeouts, keep } = parts;
    this.#target = addressText(settings.target);
    this.#believed = settings.proxyFrom && networksOf(settings.proxyFrom);
    this.#permissive = settings.permissive ?? false;
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
    // the refusal, which says more, is told first
    socket.once('close', () => setImmediate(() => !connection.opened && connections.end(connection, 'TLS_HANDSHAKE')));
    const believed = this.#believed !== undefined && isIn(this.#believed, socket);
    if (believed || this.#permissive) return void this.#look(socket, connection, believed);
    return this.#shake(socket, connection);
  }

  /** One more than there may be. */
  turnAway(socket: Socket): void {
    const { connections, relay, settings } = this.#parts;
    const connection = connections.begin({ listener: settings.name, mode: 'server', socket, target: this.#target });
    relay.refuse(connection, 'LIMIT_CONNECTIONS', undefined, socket);
  }

  /** Whether the target can be connected. Throws why not. */
  async probe(signal: AbortSignal): Promise<void> {
    (await dial({ target: this.#parts.settings.target, allowHalfOpen: false, signal })).destroy();
  }

  recheck(): Promise<void> {
    return this.#acceptor.recheck();
  }

  /** Whether plain text is taken from now on. Where it is not, what is open of it ends. */
  set permissive(yes: boolean) {
    this.#permissive = yes;
    if (yes) return;
    const { connections, settings } = this.#parts;
    for (const connection of connections)
      if (connection.plaintext && connection.listener === settings.name) connection.pipe?.end('POLICY_CHANGED');
  }

  /** What comes before TLS, or in place of it. */
  async #look(socket: Socket, connection: Connection, believed: boolean): Promise<void> {
    const { relay } = this.#parts;
    let fault: Reason = 'PROXY_HEADER';
    try {
      if (believed) await this.#hear(socket, connection);
      fault = 'TLS_HANDSHAKE';
      if (this.#permissive && !(await this.#beginsTls(socket))) {
        connection.plaintext = true;
        return await this.#forward(socket, connection, (how) => how && plainProxyHeader(this.#told.get(socket) ?? socket));
      }
    } catch (error) {
      return relay.refuse(connection, socket.destroyed ? 'CLOSED' : fault, error, socket);
    }
    return this.#shake(socket, connection);
  }

  async #hear(socket: Socket, connection: Connection): Promise<void> {
    const { clock, timeouts } = this.#parts;
    const attempt = new Attempt(socket, timeouts.connectMs, clock);
    try {
      const ends = await firstBytes(socket, attempt.signal, readProxyHeader);
      if (!ends) return;
      this.#told.set(socket, ends);
      connection.comesFrom(ends);
    } finally {
      attempt.end();
    }
  }

  async #beginsTls(socket: Socket): Promise<boolean> {
    const attempt = new Attempt(socket, SILENCE_MS, this.#parts.clock);
    try {
      return await firstBytes(socket, attempt.signal, isTls);
    } catch (error) {
      if (attempt.timedOut) return false;
      throw error;
    } finally {
      attempt.end();
    }
  }

  #shake(socket: Socket, connection: Connection): void {
    this.#shaking.set(socket, connection);
    this.#acceptor.accept(socket);
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
    const { connections, relay } = this.#parts;
    const { socket } = secured;
    const connection = this.#take(socket);
    if (!connection) return void socket.destroy();
    connection.secured(secured, this.#parts.clock.monotonic());
    relay.watch(socket, connection);
    if (!connections.mayOpen(connection)) return relay.refuse(connection, 'LIMIT_PEER', undefined, socket);
    const ends = this.#told.get(acceptedOf(socket));
    return await this.#forward(socket, connection, (how) => how && proxyHeader(how, socket, secured, ends));
  }

  /** @param header for the target, where it is to have one */
  async #forward(
    socket: Socket,
    connection: Connection,
    header: (how: InboundSettings['proxyProtocol']) => Buffer | undefined,
  ): Promise<void> {
    const { clock, relay, settings, timeouts } = this.#parts;
    const attempt = new Attempt(socket, timeouts.connectMs, clock);
    let target: Socket | undefined;
    try {
      target = await dial({ target: settings.target, allowHalfOpen: true, signal: attempt.signal });
      const first = header(settings.proxyProtocol);
      if (first) target.write(first);
    } catch (error) {
      return relay.refuse(connection, attempt.reason ?? 'UPSTREAM_CONNECT', error, socket, target);
    } finally {
      attempt.end();
    }
    if (socket.destroyed) return relay.refuse(connection, 'CLOSED', undefined, target);
    return relay.join(connection, socket, target);
  }
}

/** Throws ERR_INVALID_ADDRESS for what is none; the settings have been checked. */
function networksOf(all: readonly string[]): BlockList {
  const list = new BlockList();
  for (const one of all) {
    const [address = '', bits] = one.split('/');
    const family = isIPv6(address) ? 'ipv6' : 'ipv4';
    if (bits === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(bits), family);
  }
  return list;
}

/** An IPv4 address that the kernel shows as IPv6 is in the networks of IPv4, too. */
function isIn(list: BlockList, { remoteAddress, remoteFamily }: Socket): boolean {
  return remoteAddress !== undefined && list.check(remoteAddress.split('%')[0] ?? '', remoteFamily === 'IPv6' ? 'ipv6' : 'ipv4');
}

/** Node makes another socket of the one that was accepted, and has no public name for it. What is not found here is served to nobody. */
function acceptedOf(socket: Socket): Socket {
  return (socket as { readonly _parent?: Socket })._parent ?? socket;
}
