/** A proxy: identities, listeners and connections, from the first breath to the last byte. */
import type { Socket } from 'node:net';
import type { IntentionFile } from '../core/intention-file.ts';
import type { Log } from '../core/log.ts';
import type { AlarmClock } from '../spiffe/clock.ts';
import { SpiffeError } from '../spiffe/errors.ts';
import { type Access, admit } from './access.ts';
import type { Observer } from './connection.ts';
import { Connections } from './connections.ts';
import type { Admit, Identity } from './identity.ts';
import { Inbound } from './inbound.ts';
import { type Listening, type ListenParts, listen } from './listen.ts';
import { type CheckPlainPeer, Outbound } from './outbound.ts';
import { Relay } from './relay.ts';
import type { ListenerSettings, OutboundSettings, ProxySettings } from './settings.ts';

/** As ghostunnel calls them. */
export type ProxyState = 'initializing' | 'listening' | 'reloading' | 'stopping';

export interface ProxyParts {
  readonly settings: ProxySettings;
  /** By the names of `settings.identities`. Closed by the proxy. */
  readonly identities: ReadonlyMap<string, Identity>;
  /** Undefined: access flags alone decide. Closed by the proxy. */
  readonly intentions: IntentionFile | undefined;
  readonly observers: readonly Observer[];
  readonly listenParts: Omit<ListenParts, 'allowHalfOpen'>;
  /** For a listener whose plain side is not open to everybody. */
  readonly plainPeerCheck: (settings: OutboundSettings) => CheckPlainPeer | undefined;
  readonly log: Log;
  readonly clock: AlarmClock;
}

interface Served {
  readonly settings: ListenerSettings;
  readonly listening: Listening;
  readonly relay: Inbound | Outbound;
}

export class Proxy {
  readonly connections: Connections;
  readonly #parts: ProxyParts;
  readonly #relay: Relay;
  readonly #served: Served[] = [];
  /** By the name of the listener: what may change while it listens. */
  readonly #access = new Map<string, Access>();
  readonly #offs: (() => void)[] = [];
  #state: ProxyState = 'initializing';
  #lastReloadMs: number | undefined;
  #reloading: Promise<void> | undefined;

  constructor(parts: ProxyParts) {
    this.#parts = parts;
    const { settings, clock } = parts;
    this.connections = new Connections(clock, settings.limits, parts.observers);
    this.#relay = new Relay(this.connections, settings.timeouts, clock);
  }

  get state(): ProxyState {
    return this.#state;
  }

  /** When files were last read again, whether they were good or not; undefined: never. Milliseconds since 1970. */
  get lastReloadMs(): number | undefined {
    return this.#lastReloadMs;
  }

  get listening(): readonly Pick<Listening, 'address' | 'port'>[] {
    return this.#served.map(({ listening }) => listening);
  }

  /** What is missing before it can serve: SVIDs, bundles, rules; undefined when nothing is. */
  get waitingFor(): string | undefined {
    for (const identity of this.#parts.identities.values()) if (identity.waitingFor !== undefined) return identity.waitingFor;
    return this.#state === 'listening' || this.#state === 'reloading' ? undefined : this.#state;
  }

  /** Waits for identities, then listens. What went wrong is thrown, and nothing is left open. */
  async start(signal: AbortSignal): Promise<void> {
    const { settings, identities, intentions } = this.#parts;
    const limit = settings.identityTimeoutMs > 0 ? AbortSignal.any([signal, AbortSignal.timeout(settings.identityTimeoutMs)]) : signal;
    try {
      await Promise.all([...identities.values()].map((identity) => identity.ready(limit)));
      for (const one of settings.listeners) this.#served.push(await this.#serve(one));
    } catch (error) {
      await this.#stopListening();
      throw error;
    }
    const recheck = () => void this.recheck();
    if (intentions) this.#offs.push(intentions.onChange(recheck));
    this.#state = 'listening';
  }

  /** Whether each target can be connected, and is who it must be. Throws why the first one is not. */
  async probe(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#served.map(({ relay }) => relay.probe(signal)));
  }

  /** Judges the peers of all connections anew. */
  async recheck(): Promise<void> {
    await Promise.all(this.#served.map(({ relay }) => relay.recheck()));
  }

  /** From now on these say who may, and where plain text is taken; listeners are known by their names, and nothing else of them is looked at. */
  async adjust(listeners: readonly ListenerSettings[]): Promise<void> {
    for (const { settings, relay } of this.#served) {
      const next = listeners.find(({ name, mode }) => name === settings.name && mode === settings.mode);
      if (!next) continue;
      this.#access.set(next.name, next.access);
      if (relay instanceof Inbound && next.mode === 'server') relay.permissive = next.permissive ?? false;
    }
    await this.recheck();
  }

  /** Reads files again; what is broken is told in the log, and what was read before stays in use. While it stops, nothing. */
  reload(): Promise<void> {
    if (this.#state === 'stopping' || this.#state === 'initializing') return Promise.resolve();
    this.#reloading ??= this.#reload().finally(() => (this.#reloading = undefined));
    return this.#reloading;
  }

  async #reload(): Promise<void> {
    const { identities, intentions, log, clock } = this.#parts;
    this.#state = 'reloading';
    for (const identity of identities.values()) {
      try {
        await identity.reload();
      } catch (error) {
        log.error('error reloading certificates: those that were read before stay in use', { error });
      }
    }
    await intentions?.reload();
    if (intentions?.fault) log.error('error reloading intentions: those that were read before stay in use', { error: intentions.fault });
    await this.recheck();
    this.#lastReloadMs = clock.now();
    if (this.#state === 'reloading') this.#state = 'listening';
  }

  /**
   * Accepts no more, gives up handshakes, and waits until every connection has ended, or the time is over, or `force` aborts. True: all had ended by themselves.
   */
  async stop(force: AbortSignal): Promise<boolean> {
    const { settings, identities, intentions, clock } = this.#parts;
    this.#state = 'stopping';
    await this.#stopListening();
    this.connections.endUnopened('SHUTDOWN');
    const limitMs = clock.monotonic() + settings.timeouts.shutdownMs;
    while (this.connections.size > 0 && clock.monotonic() < limitMs && !force.aborted) {
      await clock.sleep(Math.min(50, Math.max(1, limitMs - clock.monotonic())), force).catch(() => {});
    }
    const drained = this.connections.size === 0;
    this.connections.destroyAll('SHUTDOWN');
    for (const off of this.#offs) off();
    await Promise.all([...identities.values()].map((identity) => identity.close()));
    await intentions?.close();
    return drained;
  }

  async #stopListening(): Promise<void> {
    // a server of node:net is closed only when its connections are: that is waited for elsewhere
    for (const { listening } of this.#served) void listening.close();
  }

  async #serve(settings: ListenerSettings): Promise<Served> {
    const { identities, listenParts, plainPeerCheck, clock } = this.#parts;
    const { timeouts, keepConnections: keep } = this.#parts.settings;
    const identity = identities.get(settings.identity);
    if (!identity) throw new SpiffeError('INTERNAL', undefined, `no identity ${settings.identity}`);
    const common = {
      identity,
      admit: this.#admit(settings, identity),
      connections: this.connections,
      relay: this.#relay,
      timeouts,
      keep,
      clock,
    };
    const relay =
      settings.mode === 'server'
        ? new Inbound({ ...common, settings })
        : new Outbound({ ...common, settings, checkPlainPeer: plainPeerCheck(settings) });
    // who may connect is asked who he is then
    const asked = settings.mode === 'client' && (settings.plainPeers.uids.length > 0 || settings.plainPeers.gids.length > 0);
    const how = { ...listenParts, allowHalfOpen: settings.mode === 'client', unixMode: asked ? 0o666 : 0o600 };
    const listening = await listen(settings.listen, how, (socket) => this.#accept(socket, relay));
    return { settings, listening, relay };
  }

  #accept(socket: Socket, relay: Inbound | Outbound): void {
    // a reset that nobody hears would end the program
    socket.on('error', () => {});
    if (!this.connections.full) return void relay.accept(socket);
    // it waits, unread, until another has ended
    if (!this.connections.wait(socket, () => void relay.accept(socket))) relay.turnAway(socket);
  }

  /** An intention has a source and a destination: who of both ends we are depends on the way. */
  #admit(settings: ListenerSettings, identity: Identity): Admit {
    const { intentions } = this.#parts;
    return (peer) => {
      const own = identity.own?.id;
      const ends =
        settings.mode === 'server'
          ? { ...(peer.id && { source: peer.id }), ...(own && { destination: own }) }
          : { ...(own && { source: own }), ...(peer.id && { destination: peer.id }) };
      return admit(this.#access.get(settings.name) ?? settings.access, peer, ends, intentions?.intentions);
    };
  }
}
