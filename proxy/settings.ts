/** What a proxy runs. Made of ghostunnel's flags (cli/proxy-flags.ts) or of a file, and checked before it comes here. Durations are in milliseconds. */
import type { Access } from './access.ts';

export type Address =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

/** `systemd`: a socket that systemd has opened, by its name (LISTEN_FDNAMES). */
export type ListenAddress = Address | { readonly kind: 'systemd'; readonly name: string };

/** HTTP CONNECT or SOCKS5, on the way to a target. */
export interface ViaProxy {
  readonly kind: 'http' | 'socks5';
  readonly host: string;
  readonly port: number;
  readonly user?: string | undefined;
  readonly password?: string | undefined;
}

/** Where our certificates, and the authorities to judge peers by, come from. */
export type IdentitySettings =
  | {
      readonly kind: 'workload-api';
      /** Default: SPIFFE_ENDPOINT_SOCKET. */
      readonly address?: string | undefined;
      /** Which of several identities. Default: the default one. */
      readonly hint?: string | undefined;
      readonly spiffeId?: string | undefined;
    }
  /** A folder that a helper keeps: SVID, key and bundle in PEM. */
  | { readonly kind: 'spiffe-files'; readonly directory: string }
  /** Certificates without SPIFFE IDs: PEM or PKCS#12 files, a file of authorities or those that Node comes with. */
  | {
      readonly kind: 'pki';
      readonly keystore?: string | undefined;
      readonly certificate?: string | undefined;
      readonly key?: string | undefined;
      readonly storepass?: string | undefined;
      readonly authorities?: string | undefined;
    };

/** Who may connect to the plain side of a client: empty lists are no condition. */
export interface PlainPeers {
  readonly uids: readonly number[];
  readonly gids: readonly number[];
}

interface Common {
  /** In logs and metrics. */
  readonly name: string;
  readonly listen: ListenAddress;
  /** Key of `ProxySettings.identities`. */
  readonly identity: string;
  readonly access: Access;
}

/** TLS comes in, plain goes out. */
export interface InboundSettings extends Common {
  readonly mode: 'server';
  readonly target: Address;
  /** False: no client is asked for a certificate. */
  readonly authenticate: boolean;
  /** PROXY protocol v2 towards the target; undefined: none. */
  readonly proxyProtocol?: 'conn' | 'tls' | 'tls-full' | undefined;
  /** Whose PROXY header is believed, and demanded: addresses, or networks in CIDR notation. Nobody else's is read. */
  readonly proxyFrom?: readonly string[] | undefined;
  /** Both TLS and plain text are taken on this port, for the time of a migration. */
  readonly permissive?: boolean | undefined;
}

/** Plain comes in, TLS goes out. */
export interface OutboundSettings extends Common {
  readonly mode: 'client';
  readonly target: { readonly kind: 'tcp'; readonly host: string; readonly port: number };
  /** False: we show no certificate. */
  readonly authenticate: boolean;
  /** Sent as SNI, and the name that a certificate without SPIFFE ID must have. Default: the target's host. */
  readonly serverName?: string | undefined;
  readonly via?: ViaProxy | undefined;
  readonly plainPeers: PlainPeers;
}

export type ListenerSettings = InboundSettings | OutboundSettings;

export interface Limits {
  /** Open connections; 0: no limit. Beyond it nobody is accepted, and the kernel's queue fills. */
  readonly maxConnections: number;
  /** Of one SPIFFE ID; 0: no limit. Beyond it a connection is refused. */
  readonly maxConnectionsPerId: number;
  /** Begun in one second; 0: no limit. Beyond it a connection is refused. */
  readonly maxHandshakesPerSecond: number;
}

export interface Timeouts {
  /** Connecting, and each handshake. */
  readonly connectMs: number;
  /** After one side has ended; 0: at once. */
  readonly closeMs: number;
  /** Of a connection; 0: no limit. */
  readonly lifetimeMs: number;
  /** Without a byte in either direction; 0: no limit. */
  readonly idleMs: number;
  /** After the wish to stop. */
  readonly shutdownMs: number;
  /** TCP keep-alive probes begin after this time without a byte; 0: none. */
  readonly keepAliveMs: number;
}

export interface ProxySettings {
  /** At least one. */
  readonly listeners: readonly ListenerSettings[];
  readonly identities: ReadonlyMap<string, IdentitySettings>;
  readonly limits: Limits;
  readonly timeouts: Timeouts;
  /** Connections outlive the SVIDs and the trust that opened them. */
  readonly keepConnections: boolean;
  /** For the first SVID; 0: for ever. */
  readonly identityTimeoutMs: number;
  /** Files are read again this often; 0: only when asked to. */
  readonly reloadMs: number;
}
