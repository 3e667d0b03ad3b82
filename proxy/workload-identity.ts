/** An identity from the Workload API, or from files that a helper keeps: every peer is judged by SPIFFE's rules. */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../spiffe/clock.ts';
import { SpiffeError } from '../spiffe/errors.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { X509Identity } from '../spiffe/source/x509-identity.ts';
import { TlsClient } from '../spiffe/tls/client.ts';
import { TlsAcceptor } from '../spiffe/tls/server.ts';
import { type Authorize, type TlsPeer, tlsPeer } from '../spiffe/tls/tls.ts';
import type { X509Bundle } from '../spiffe/x509/x509-bundle.ts';
import type { X509Svid } from '../spiffe/x509/x509-svid.ts';
import type { Admission, Peer } from './access.ts';
import type { AcceptOptions, Admit, Authority, DialOptions, Identity, Own, SecureAcceptor, Secured, SecureDialler } from './identity.ts';

/** What every source of SVIDs can do besides. */
export interface Source extends X509Identity {
  readonly waitingFor: string | undefined;
  /** The newest answer, where one brings all bundles. Throws while there is none. */
  readonly context?: { readonly bundles: Iterable<{ readonly x509: X509Bundle }> };
  ready(signal?: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

export class WorkloadIdentity implements Identity {
  readonly #source: Source;
  readonly #clock: Clock;

  /** Closes the source when it is closed. */
  constructor(source: Source, clock: Clock) {
    this.#source = source;
    this.#clock = clock;
  }

  get own(): Own | undefined {
    try {
      return ownOf(this.#source.svid);
    } catch {
      return undefined;
    }
  }

  get authorities(): readonly Authority[] {
    try {
      const { svid, context } = this.#source;
      const own = this.#source.x509Bundle(svid.id.trustDomain);
      const bundles = context ? [...context.bundles].map(({ x509 }) => x509) : own ? [own] : [];
      return bundles.flatMap(({ trustDomain, authorities }) =>
        authorities.map(({ ski, sha256, notAfterMs }) => ({
          trustDomain: trustDomain.name,
          authorityId: ski?.toString('hex') ?? sha256,
          notAfterMs,
        })),
      );
    } catch {
      return [];
    }
  }

  get waitingFor(): string | undefined {
    return this.#source.waitingFor;
  }

  acceptor(options: AcceptOptions): SecureAcceptor {
    const source = this.#source;
    const admissions = new Admissions(options.admit);
    const { keep, handshakeMs, onConnection, onExpiring, onRefused, onUntrusted } = options;
    const how = { source, handshakeMs, keep, clock: this.#clock, onUntrusted };
    return new TlsAcceptor(options.authenticate ? { ...how, authorize: admissions.authorize } : { ...how, mode: 'tls' }, {
      onConnection: (socket, shown) => {
        onConnection({ ...admissions.of(socket), own: 'leaf' in shown ? ownOf(shown) : undefined });
        return (endMs) => onExpiring(socket, endMs);
      },
      onRefused,
    });
  }

  dialler(options: DialOptions): SecureDialler {
    const source = this.#source;
    const admissions = new Admissions(options.admit);
    const { authenticate, keep, onExpiring, onUntrusted, serverName } = options;
    const how = { source, authorize: admissions.authorize, clock: this.#clock, keep, onUntrusted };
    const client = new TlsClient(authenticate ? how : { ...how, mode: 'tls' });
    return {
      async secure(socket: Socket, signal: AbortSignal): Promise<Secured> {
        const own = authenticate ? ownOf(source.svid) : undefined;
        const tls = await client.connect({
          socket,
          signal,
          host: serverName,
          port: 0,
          onDrain: onExpiring,
        });
        return { ...admissions.of(tls), own };
      },
      recheck: () => client.recheck(),
    };
  }

  ready(signal: AbortSignal): Promise<void> {
    return this.#source.ready(signal);
  }

  /** The source hears of changes by itself. */
  async reload(): Promise<void> {}

  onChange(listener: () => void): () => void {
    return this.#source.onChange(listener);
  }

  close(): Promise<void> {
    return this.#source.close();
  }
}

function ownOf({ id, leaf, notAfterMs }: X509Svid): Own {
  return { id, serialHex: leaf.serialHex, notAfterMs };
}

/** Asks who may, and keeps the answer beside the peer it was given for. */
class Admissions {
  readonly #admit: Admit;
  readonly #given = new WeakMap<TlsPeer, Admission>();

  constructor(admit: Admit) {
    this.#admit = admit;
  }

  readonly authorize: Authorize = (id: SpiffeId, peer: TlsPeer): void => {
    const [leaf] = peer.chain;
    if (!leaf) throw new SpiffeError('SVID_INVALID', 'X509_CHAIN_EMPTY', 'the peer showed no certificate');
    this.#given.set(peer, this.#admit({ id, leaf }));
  };

  of(socket: TLSSocket): { readonly socket: TLSSocket; readonly peer: Peer | undefined; readonly admission: Admission | undefined } {
    const peer = tlsPeer(socket);
    const [leaf] = peer?.chain ?? [];
    return { socket, peer: peer && leaf && { id: peer.id, leaf }, admission: peer && this.#given.get(peer) };
  }
}
