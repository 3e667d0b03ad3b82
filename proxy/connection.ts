/** One connection through the proxy, from the moment it was accepted: what is known of it, and how it ended. */
import type { Socket } from 'node:net';
import type { Admission, Peer } from './access.ts';
import type { Own, Secured } from './identity.ts';
import type { Ends } from './proxy-protocol.ts';
import type { Pipe } from './pipe.ts';
import { type Fault, type Reason, REASONS } from './reasons.ts';

/** Who connected to the plain side of a client, where that was asked. */
export interface PlainPeer {
  readonly uid: number;
  readonly gid: number | undefined;
  readonly pid: number | undefined;
}

export type Mode = 'server' | 'client';

export class Connection {
  readonly id: string;
  readonly listener: string;
  readonly mode: Mode;
  readonly startedMs: number;
  /** From a clock that never jumps. */
  readonly started: number;
  /** Who connected: `IP:port`, or `unix`. */
  from: string;
  /** Who stands between: the address that a PROXY header came from. */
  via: string | undefined;
  /** Where to: as the settings name it. */
  readonly target: string;
  peer: Peer | undefined;
  own: Own | undefined;
  plainPeer: PlainPeer | undefined;
  admission: Admission | undefined;
  /** Such as `TLSv1.3`; undefined until the handshake is over. */
  protocol: string | undefined;
  handshakeMs: number | undefined;
  /** Taken on a permissive port without TLS. */
  plaintext = false;
  pipe: Pipe | undefined;
  reason: Reason | undefined;
  error: unknown;
  durationMs: number | undefined;

  constructor(about: {
    readonly id: string;
    readonly listener: string;
    readonly mode: Mode;
    readonly startedMs: number;
    readonly started: number;
    readonly socket: Socket;
    readonly target: string;
  }) {
    this.id = about.id;
    this.listener = about.listener;
    this.mode = about.mode;
    this.startedMs = about.startedMs;
    this.started = about.started;
    this.target = about.target;
    this.from = remoteText(about.socket);
  }

  /** What a PROXY header has told. */
  comesFrom(ends: Ends): void {
    this.via = this.from;
    this.from = remoteText(ends);
  }

  /** What the handshake has shown. */
  secured({ socket, peer, admission, own }: Secured, monotonicMs: number): void {
    this.peer = peer;
    this.admission = admission;
    this.own = own;
    this.protocol = socket.getProtocol() ?? undefined;
    this.handshakeMs = monotonicMs - this.started;
  }

  /** It was joined, and both ends talked or could have. */
  get opened(): boolean {
    return this.pipe !== undefined;
  }

  get fault(): Fault {
    return REASONS[this.reason ?? 'INTERNAL'].fault;
  }

  /** The SPIFFE ID of the other end of TLS, or its subject; undefined when it showed no certificate. */
  get peerName(): string | undefined {
    return this.peer && String(this.peer.id ?? this.peer.leaf.subjectText);
  }
}

/** Hears of each connection: logs, metrics. What it throws is dropped. */
export interface Observer {
  /** A TCP or UNIX connection was accepted. */
  accepted?(connection: Connection): void;
  /** Its handshake is over, and it is joined with its target. */
  opened?(connection: Connection): void;
  /** It is over: `opened` says whether it ever was more than an attempt, `reason` why it ended. */
  ended?(connection: Connection): void;
}

function remoteText({ remoteAddress, remotePort }: Ends): string {
  if (remoteAddress === undefined) return 'unix';
  return `${remoteAddress.includes(':') ? `[${remoteAddress}]` : remoteAddress}:${remotePort}`;
}
