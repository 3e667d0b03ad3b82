/** Who a proxy is towards the network, and by what it judges the other end: by SPIFFE, or by a company's PKI without SPIFFE IDs. */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { SpiffeId } from '../spiffe/id.ts';
import type { Admission, Peer } from './access.ts';

/** Judges a peer whose certificate was verified: throws DENIED, or says why it may. Asked again whenever something has changed. */
export type Admit = (peer: Peer) => Admission;

/** A verified connection. */
export interface Secured {
  readonly socket: TLSSocket;
  /** Undefined: it showed no certificate, and none was asked for. */
  readonly peer: Peer | undefined;
  readonly admission: Admission | undefined;
  /** Of what we showed; undefined: nothing. */
  readonly own: Own | undefined;
}

/** What we show. */
export interface Own {
  readonly id: SpiffeId | undefined;
  /** Lower-case hex. */
  readonly serialHex: string;
  readonly notAfterMs: number;
}

/** What becomes of connections when SVIDs, trust and rules change. */
export interface Watch {
  /** A good connection should end when it is quiet: an SVID that opened it ends at `endMs`, and the connection with it. */
  readonly onExpiring: (socket: TLSSocket, endMs: number) => void;
  /** It ends within a second, for this reason. */
  readonly onUntrusted: (socket: TLSSocket, error: unknown) => void;
}

export interface AcceptOptions extends Watch {
  readonly admit: Admit;
  /** False: no client is asked for a certificate. */
  readonly authenticate: boolean;
  readonly handshakeMs: number;
  /** Connections outlive SVIDs and trust. */
  readonly keep: boolean;
  readonly onConnection: (secured: Secured) => void;
  readonly onRefused: (error: unknown, socket: Socket) => void;
}

export interface SecureAcceptor {
  /** Makes a TLS connection of a TCP connection from which nothing was read. */
  accept(socket: Socket): void;
  /** Judges the peers of all live connections anew. */
  recheck(): Promise<void>;
}

export interface DialOptions extends Watch {
  readonly admit: Admit;
  /** False: we show no certificate. */
  readonly authenticate: boolean;
  readonly keep: boolean;
  /** Sent as SNI; what a certificate without SPIFFE ID must be for. */
  readonly serverName: string;
}

export interface SecureDialler {
  /** TLS over a connected socket. Throws what refuses the server; no byte is sent before. */
  secure(socket: Socket, signal: AbortSignal): Promise<Secured>;
  recheck(): Promise<void>;
}

/** A trust domain's authority, by which its members are judged. */
export interface Authority {
  readonly trustDomain: string;
  /** Lower-case hex of its subject key id. */
  readonly authorityId: string;
  readonly notAfterMs: number;
}

export interface Identity {
  /** Those that are known now: of our own trust domain and of those that ours is federated with. */
  readonly authorities?: readonly Authority[] | undefined;
  /** What we would show now; undefined while there is nothing, or where we show nothing. */
  readonly own: Own | undefined;
  /** What is missing before connections can be served; undefined when nothing is. */
  readonly waitingFor: string | undefined;
  acceptor(options: AcceptOptions): SecureAcceptor;
  dialler(options: DialOptions): SecureDialler;
  /** Resolves when connections can be served; throws what was waited for when the signal aborts. */
  ready(signal: AbortSignal): Promise<void>;
  /** Reads its files again. Throws what is wrong with them; what was read before stays in use then. */
  reload(): Promise<void>;
  onChange(listener: () => void): () => void;
  close(): Promise<void>;
}
