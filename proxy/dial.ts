/** Connecting a target: TCP, a UNIX socket, or TCP through an HTTP or SOCKS5 proxy on the way. */
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import { SpiffeError } from '../spiffe/errors.ts';
import type { Address, ViaProxy } from './settings.ts';

export interface DialTarget {
  readonly target: Address;
  readonly via?: ViaProxy | undefined;
  /** Of the socket. False for TLS, whose handshake must not outlive an end from the other side. */
  readonly allowHalfOpen: boolean;
  readonly signal: AbortSignal;
}

/** A connected socket without delay; closed when the signal aborts before it is there. Throws what the system says; UNAVAILABLE for what the proxy on the way says; the signal's reason. */
export async function dial({ target, via, allowHalfOpen, signal }: DialTarget): Promise<Socket> {
  if (!via) return connected(target, allowHalfOpen, signal);
  if (target.kind !== 'tcp') throw new SpiffeError('REQUEST_INVALID', undefined, `no proxy leads to ${addressText(target)}`);
  const socket = await connected({ kind: 'tcp', host: via.host, port: via.port }, allowHalfOpen, signal);
  try {
    const talk = new Talk(socket, signal);
    await (via.kind === 'http' ? askHttp(talk, target, via) : askSocks5(talk, target, via));
    talk.done();
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

function connected(target: Address, allowHalfOpen: boolean, signal: AbortSignal): Promise<Socket> {
  const options: NetConnectOpts = target.kind === 'unix' ? { path: target.path } : { host: target.host, port: target.port, noDelay: true };
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const socket = connect({ ...options, allowHalfOpen });
    const end = (error: unknown) => {
      signal.removeEventListener('abort', abort);
      socket.destroy();
      reject(error);
    };
    const abort = () => end(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    socket.once('error', end);
    socket.once('connect', () => {
      signal.removeEventListener('abort', abort);
      socket.off('error', end);
      resolve(socket);
    });
    return undefined;
  });
}

/** As the settings name it. */
export function addressText(address: Address | { readonly kind: 'systemd'; readonly name: string }): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  if (address.kind === 'systemd') return `systemd:${address.name}`;
  return `${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}

/** More than any proxy has to say before it connects. */
const MAX_ANSWER_BYTES = 16 * 1024;

/** What is said with the proxy on the way, byte by byte, so that what follows its answer is left for TLS. */
class Talk {
  readonly #socket: Socket;
  readonly #signal: AbortSignal;

  constructor(socket: Socket, signal: AbortSignal) {
    this.#socket = socket;
    this.#signal = signal;
    socket.on('error', nobodyElse);
  }

  say(words: Buffer): void {
    this.#socket.write(words);
  }

  async hear(bytes: number): Promise<Buffer> {
    for (;;) {
      const heard = this.#socket.read(bytes) as Buffer | null;
      if (heard?.length === bytes) return heard;
      if (this.#socket.readableEnded || this.#socket.destroyed || heard) throw unable('it has ended the connection');
      await this.#more();
    }
  }

  async hearUntil(end: string): Promise<string> {
    let heard = '';
    while (!heard.endsWith(end)) {
      if (heard.length >= MAX_ANSWER_BYTES) throw unable(`its answer is longer than ${MAX_ANSWER_BYTES} bytes`);
      heard += (await this.hear(1)).toString('latin1');
    }
    return heard;
  }

  /** The socket is for TLS from here on. Throws when the proxy has said more than it was asked: TLS servers wait to be spoken to. */
  done(): void {
    if (this.#socket.readableLength > 0) throw unable('it sent more than an answer');
    this.#socket.off('error', nobodyElse);
  }

  #more(): Promise<void> {
    const socket = this.#socket;
    const signal = this.#signal;
    return new Promise((resolve, reject) => {
      const off = () => {
        signal.removeEventListener('abort', abort);
        for (const event of NEWS) socket.off(event, wake);
      };
      const wake = () => {
        off();
        resolve();
      };
      const abort = () => {
        off();
        reject(signal.reason);
      };
      if (signal.aborted) return abort();
      signal.addEventListener('abort', abort, { once: true });
      for (const event of NEWS) socket.on(event, wake);
      return undefined;
    });
  }
}

const NEWS = ['readable', 'end', 'close'] as const;

/** An error is followed by `close`, which is waited for. */
function nobodyElse(): void {}

/** RFC 9110 §9.3.6. */
async function askHttp(talk: Talk, target: { readonly host: string; readonly port: number }, via: ViaProxy): Promise<void> {
  const to = addressText({ kind: 'tcp', ...target });
  const credentials =
    via.user === undefined ? '' : `Proxy-Authorization: Basic ${Buffer.from(`${via.user}:${via.password ?? ''}`).toString('base64')}\r\n`;
  talk.say(Buffer.from(`CONNECT ${to} HTTP/1.1\r\nHost: ${to}\r\n${credentials}\r\n`));
  const [, code = '', words = ''] = /^HTTP\/1\.[01] (\d{3})([^\r\n]*)\r\n/.exec(await talk.hearUntil('\r\n\r\n')) ?? [];
  if (!code.startsWith('2')) throw unable(code === '' ? 'it does not speak HTTP' : `it answers ${code}${words}`);
}

const SOCKS_REPLIES: Readonly<Record<number, string>> = {
  1: 'general failure',
  2: 'not allowed by its rules',
  3: 'network unreachable',
  4: 'host unreachable',
  5: 'connection refused',
  6: 'it took too long',
  7: 'it knows no such command',
  8: 'it knows no such kind of address',
};

/** RFC 1928, RFC 1929. The proxy resolves the name. */
async function askSocks5(talk: Talk, target: { readonly host: string; readonly port: number }, via: ViaProxy): Promise<void> {
  const withPassword = via.user !== undefined;
  talk.say(Buffer.from(withPassword ? [5, 2, 0, 2] : [5, 1, 0]));
  const [version, method] = await talk.hear(2);
  if (version !== 5) throw unable('it does not speak SOCKS5');
  if (method === 2 && withPassword) {
    const [user, password] = [Buffer.from(via.user ?? ''), Buffer.from(via.password ?? '')];
    if (user.length > 255 || password.length > 255) throw unable('user and password have 255 bytes at most');
    talk.say(Buffer.concat([Buffer.from([1, user.length]), user, Buffer.from([password.length]), password]));
    const [, refused] = await talk.hear(2);
    if (refused !== 0) throw unable('it refuses user and password');
  } else if (method !== 0) throw unable('it wants another kind of authentication');
  const host = Buffer.from(target.host);
  if (host.length > 255) throw unable('the name of the target is longer than 255 bytes');
  const port = Buffer.alloc(2);
  port.writeUInt16BE(target.port);
  talk.say(Buffer.concat([Buffer.from([5, 1, 0, 3, host.length]), host, port]));
  const [, reply = 1, , kind] = await talk.hear(4);
  if (reply !== 0) throw unable(SOCKS_REPLIES[reply] ?? `it answers ${reply}`);
  const length = kind === 1 ? 4 : kind === 4 ? 16 : kind === 3 ? ((await talk.hear(1))[0] ?? 0) : undefined;
  if (length === undefined) throw unable('it answers with an unknown kind of address');
  await talk.hear(length + 2);
}

function unable(why: string): SpiffeError {
  return new SpiffeError('UNAVAILABLE', undefined, `the proxy on the way: ${why}`);
}
