/** Redis through `ioredis`: its connections are made and verified by us. */
import { Socket } from 'node:net';
import { SpiffeError } from '../errors.ts';
import type { X509Identity } from '../source/x509-identity.ts';
import { dialler, type SocketSettings } from './verified-socket.ts';

/** What `ioredisOptions` gives, to be spread into those of `new Redis`. */
export interface IoredisOptions {
  /** A class. ioredis declares its type with private members, which nothing but its own base class fits: hence the type that fits everything. */
  readonly Connector: never;
}

interface Target {
  readonly host?: string;
  readonly port?: number | string;
  readonly path?: string;
  readonly sentinels?: unknown;
}

/** For `new Redis`, in place of `tls`; in a cluster, for `redisOptions`. Throws REQUEST_INVALID when something is missing. */
export function ioredisOptions(source: X509Identity, settings: SocketSettings): IoredisOptions {
  const dial = dialler(source, settings);
  return {
    Connector: class {
      /** ioredis tells it when it was given a socket that has ended. */
      firstError: Error | undefined;
      readonly #to: Target;
      #stop = new AbortController();
      #socket: Socket | undefined;

      constructor(to: Target) {
        this.#to = to;
      }

      check(): boolean {
        return true;
      }

      async connect(): Promise<Socket> {
        this.#stop = new AbortController();
        this.firstError = undefined;
        try {
          if (this.#to.path) throw new SpiffeError('REQUEST_INVALID', undefined, `there is no TLS over the UNIX socket ${this.#to.path}`);
          // or it would be `localhost`, which nobody has named
          if (this.#to.sentinels) throw new SpiffeError('REQUEST_INVALID', undefined, 'ioredisOptions ask no sentinels: name the server');
          this.#socket = await dial(this.#to.host ?? 'localhost', Number(this.#to.port ?? 6379), this.#stop.signal);
        } catch (error) {
          // to throw would be its last attempt; a socket that has ended is followed by its usual ones
          this.firstError = error instanceof Error ? error : new Error(String(error));
          this.#socket = new Socket().destroy();
        }
        return this.#socket;
      }

      disconnect(): void {
        this.#stop.abort();
        this.#socket?.destroySoon();
      }
    } as never,
  };
}
