/** Proxies in this process, over real sockets: identities of an ephemeral trust domain, a backend, and what a client hears. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type NetConnectOpts, type Server, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import { silent } from '../../core/log.ts';
import { type Access, NOBODY } from '../../proxy/access.ts';
import type { Connection } from '../../proxy/connection.ts';
import { Proxy, type ProxyParts } from '../../proxy/proxy.ts';
import { plainPeerCheck } from '../../proxy/plain-peer.ts';
import type { InboundSettings, Limits, OutboundSettings, ProxySettings, Timeouts } from '../../proxy/settings.ts';
import { WorkloadIdentity } from '../../proxy/workload-identity.ts';
import { type Clock, systemClock } from '../../spiffe/clock.ts';
import { X509MemorySource } from '../../spiffe/source/memory-source.ts';
import { EphemeralTrustDomain } from '../../spiffe/testing/trust-domain.ts';

export const td = EphemeralTrustDomain.create('example.org');
export const ALL: Access = { ...NOBODY, all: true };

/** What may be changed while the proxy runs. */
export function memorySource(path = '/web', of: EphemeralTrustDomain = td): X509MemorySource {
  return new X509MemorySource({ svid: of.x509Svid(path), bundles: of.bundle });
}

export function identityOf(source: X509MemorySource, clock: Clock = systemClock): WorkloadIdentity {
  return new WorkloadIdentity(source, clock);
}

export interface Running<S extends InboundSettings | OutboundSettings = InboundSettings | OutboundSettings> {
  readonly settings: S;
  readonly proxy: Proxy;
  readonly port: number;
  /** Every connection that has ended, the newest last. */
  readonly ended: Connection[];
  /** Resolves with the next connection that ends and satisfies `wanted`, or has. */
  end(wanted?: (connection: Connection) => boolean): Promise<Connection>;
}

export type Change = Partial<Omit<ProxyParts, 'settings'>> & {
  readonly timeouts?: Partial<Timeouts>;
  readonly limits?: Partial<Limits>;
  readonly keepConnections?: boolean;
};

const TIMEOUTS: Timeouts = { connectMs: 10_000, closeMs: 60_000, lifetimeMs: 0, idleMs: 0, shutdownMs: 5_000, keepAliveMs: 0 };
const LIMITS: Limits = { maxConnections: 0, maxConnectionsPerId: 0, maxHandshakesPerSecond: 0 };

async function run<S extends InboundSettings | OutboundSettings>(
  listener: S,
  identity: ProxyParts['identities'],
  change: Change,
): Promise<Running<S>> {
  const ended: Connection[] = [];
  const waiting = new Set<() => void>();
  const { timeouts, limits, keepConnections = false, ...parts } = change;
  const settings: ProxySettings = {
    listeners: [listener],
    identities: new Map(),
    limits: { ...LIMITS, ...limits },
    timeouts: { ...TIMEOUTS, ...timeouts },
    keepConnections,
    identityTimeoutMs: 5_000,
    reloadMs: 0,
  };
  const proxy = new Proxy({
    settings,
    identities: identity,
    intentions: undefined,
    listenParts: { inherited: () => -1 },
    plainPeerCheck,
    log: silent,
    clock: systemClock,
    ...parts,
    observers: [
      {
        ended(connection) {
          ended.push(connection);
          for (const wake of waiting) wake();
        },
      },
      ...(parts.observers ?? []),
    ],
  });
  await proxy.start(AbortSignal.timeout(10_000));
  const force = AbortSignal.abort();
  onTestFinished(async () => void (await proxy.stop(force)));
  return {
    settings: listener,
    proxy,
    port: proxy.listening[0]?.port ?? 0,
    ended,
    async end(wanted = () => true) {
      for (;;) {
        const found = ended.find(wanted);
        if (found) return found;
        await new Promise<void>((resolve) => {
          const wake = () => {
            waiting.delete(wake);
            resolve();
          };
          waiting.add(wake);
        });
      }
    },
  };
}

const LOOPBACK = { kind: 'tcp', host: '127.0.0.1', port: 0 } as const;
const to = (port: number) => ({ kind: 'tcp', host: '127.0.0.1', port }) as const;

/** TLS in, plain out to `port`. */
export function server(
  port: number,
  source: X509MemorySource,
  more: Partial<InboundSettings> = {},
  change: Change = {},
): Promise<Running<InboundSettings>> {
  const settings: InboundSettings = {
    mode: 'server',
    name: 'in',
    listen: LOOPBACK,
    identity: 'own',
    access: ALL,
    target: to(port),
    authenticate: true,
    ...more,
  };
  return run(settings, new Map([['own', identityOf(source)]]), change);
}

/** Plain in, TLS out to `port`. */
export function client(
  port: number,
  source: X509MemorySource,
  more: Partial<OutboundSettings> = {},
  change: Change = {},
): Promise<Running<OutboundSettings>> {
  const settings: OutboundSettings = {
    mode: 'client',
    name: 'out',
    listen: LOOPBACK,
    identity: 'own',
    access: ALL,
    target: to(port),
    authenticate: true,
    plainPeers: { uids: [], gids: [] },
    ...more,
  };
  return run(settings, new Map([['own', identityOf(source)]]), change);
}

/** A program that speaks plain; `sockets` are its connections, the newest last. */
export async function backend(
  serve: (socket: Socket) => void = (socket) => socket.pipe(socket),
  listen: string | { path: string } = '127.0.0.1',
) {
  const sockets: Socket[] = [];
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    serve(socket);
  });
  if (typeof listen === 'string') server.listen(0, listen);
  else server.listen(listen);
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address() as AddressInfo | string;
  return { server, sockets, port: typeof address === 'string' ? 0 : address.port };
}

/** A plain connection that can be half closed. */
export async function dial(where: number | NetConnectOpts): Promise<Socket> {
  const socket = connect({
    ...(typeof where === 'number' ? { port: where, host: '127.0.0.1' } : where),
    allowHalfOpen: true,
  } as NetConnectOpts);
  onTestFinished(() => void socket.destroy());
  await once(socket, 'connect');
  socket.on('error', () => {});
  return socket;
}

/** Everything that is said until the end; how it ended. */
export async function hear(socket: Socket): Promise<{ readonly said: string; readonly end: 'end' | 'reset' | 'closed' }> {
  const chunks: Buffer[] = [];
  let end: 'end' | 'reset' | 'closed' = 'closed';
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  await new Promise<void>((resolve) => {
    socket.once('end', () => {
      end = 'end';
      resolve();
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNRESET' || error.code === 'EPIPE') end = 'reset';
    });
    socket.once('close', () => resolve());
  });
  return { said: Buffer.concat(chunks).toString(), end };
}

export async function ask(port: number, words: string): Promise<string> {
  const socket = await dial(port);
  socket.end(words);
  return (await hear(socket)).said;
}
