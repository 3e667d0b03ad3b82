/** A socket for drivers: dialled, verified and authorized before a byte of what the driver writes is sent. */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { X509Identity } from '../source/x509-identity.ts';
import { TlsClient } from '../tls/client.ts';
import { type Authorize, tlsPeerOver } from '../tls/tls.ts';

/** By what the server is judged. */
export type SocketSettings = (
  | {
      readonly mode?: 'mtls' | undefined;
      /** Who the server may be. */
      readonly authorize: Authorize;
    }
  /** The server has a certificate of the Web PKI, or one of `roots` (PEM), for the host that is dialled. */
  | { readonly mode: 'mtls-web'; readonly roots?: string | readonly string[] | undefined; readonly authorize?: undefined }
) & {
  /** Default: the system's. */
  readonly clock?: Clock | undefined;
  /** Connections stay when an SVID ends or the server's trust goes. Default false: they end with it. */
  readonly keep?: boolean | undefined;
  /** Told of connections that end because trust has gone. Default: nobody. */
  readonly log?: Logger | undefined;
};

/** Longer than this nobody waits for a TCP connection and what is said before TLS. */
export const DIAL_MS = 10_000;

type Prepare = (tcp: Socket, signal: AbortSignal) => Promise<void>;

/** Dials as `connectSpiffe` does, and gives up after `DIAL_MS`. Throws REQUEST_INVALID when something is missing. */
export function dialler(
  source: X509Identity,
  settings: SocketSettings,
  prepare?: Prepare,
): (host: string, port: number, signal: AbortSignal) => Promise<TLSSocket> {
  const client = new TlsClient({ source, ...settings });
  return async (host, port, stop) => {
    const limit = AbortSignal.timeout(DIAL_MS);
    const signal = AbortSignal.any([stop, limit]);
    try {
      return await client.connect({ host, port, signal, prepare: prepare && ((tcp) => prepare(tcp, signal)) });
    } catch (error) {
      if (stop.aborted || !limit.aborted) throw error;
      throw new SpiffeError('UNAVAILABLE', undefined, `no connection to ${host}:${port} within ${DIAL_MS} ms`, { cause: error });
    }
  };
}

/** Has those members of `net.Socket` that drivers use. Who asks for it ends it. */
export class VerifiedSocket extends Duplex {
  readonly #dial: ReturnType<typeof dialler>;
  readonly #stop = new AbortController();
  /** What is done to the connection once it is there. */
  readonly #later: ((tls: TLSSocket) => void)[] = [];
  /** Of the write that waits for it. */
  #held: ((error: Error) => void) | undefined;
  #tls: TLSSocket | undefined;
  #ended = false;
  connecting = false;

  constructor(dial: ReturnType<typeof dialler>) {
    super({ allowHalfOpen: false });
    this.#dial = dial;
  }

  /** Emits `connect` once the server is verified and authorized, else `error`. */
  connect(port: number, host = 'localhost'): this {
    if (this.connecting || this.#tls) throw new SpiffeError('REQUEST_INVALID', undefined, 'the socket was connected before');
    if (typeof port !== 'number') {
      this.destroy(new SpiffeError('REQUEST_INVALID', undefined, `there is no TLS over the UNIX socket ${String(port)}`));
      return this;
    }
    this.connecting = true;
    this.#dial(host, port, this.#stop.signal).then(
      (tls) => this.#open(tls),
      (error: unknown) => this.destroy(error instanceof Error ? error : new Error(String(error))),
    );
    return this;
  }

  setNoDelay(on?: boolean): this {
    this.#then((tls) => tls.setNoDelay(on));
    return this;
  }

  setKeepAlive(on?: boolean, initialDelayMs?: number): this {
    this.#then((tls) => tls.setKeepAlive(on, initialDelayMs));
    return this;
  }

  ref(): this {
    this.#then((tls) => tls.ref());
    return this;
  }

  unref(): this {
    this.#then((tls) => tls.unref());
    return this;
  }

  get remoteAddress(): string | undefined {
    return this.#tls?.remoteAddress;
  }

  get remotePort(): number | undefined {
    return this.#tls?.remotePort;
  }

  #then(act: (tls: TLSSocket) => void): void {
    if (this.#tls) act(this.#tls);
    else this.#later.push(act);
  }

  #open(tls: TLSSocket): void {
    if (this.destroyed) return void tls.destroy();
    this.#tls = tls;
    this.connecting = false;
    tlsPeerOver(this, tls);
    tls.on('data', (data: Buffer) => {
      if (!this.push(data)) tls.pause();
    });
    tls.on('end', () => {
      this.#ended = true;
      this.push(null);
    });
    tls.on('error', (error) => this.destroy(error));
    tls.on('close', () => {
      // without a farewell: some drivers listen for errors alone
      if (!this.#ended) this.destroy(new SpiffeError('UNAVAILABLE', undefined, 'the connection has ended'));
    });
    this.emit('connect');
    for (const act of this.#later.splice(0)) act(tls);
  }

  override _read(): void {
    this.#tls?.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (!this.#tls) this.#held = done;
    this.#then((tls) => {
      this.#held = undefined;
      tls.write(chunk, done);
    });
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#then((tls) => tls.end(() => done()));
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const reason = error ?? new SpiffeError('CANCELLED', undefined, 'the socket was closed');
    this.#stop.abort(reason);
    this.#later.length = 0;
    this.#held?.(reason);
    this.#tls?.destroy();
    done(error);
  }
}
