/**
 * Handing a connection on to Node's HTTP/2, which resets every stream whose `:authority` is no host before any code of ours runs. gRPC for Java sends the
 * socket's path there. So we look at the connection until its first header block: a good one, and the socket goes on untouched; else the inbound half goes
 * through a stream that writes header blocks anew. On a UNIX socket the authority means nothing: who calls is told by the kernel.
 */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { fail } from '../core/errors.ts';
import type { Clock } from '../spiffe/clock.ts';
import { encodePlain, type Field, HpackDecoder } from './hpack.ts';

export interface HandOnOptions {
  readonly clock: Clock;
  /** The preface must be there by then, else the connection ends. Default 10 s. */
  readonly prefaceMs?: number;
  /** After the preface, without a header block for so long, the connection is handed on to be repaired when one comes: a client may connect before it calls. Default 1 s. */
  readonly lookMs?: number;
  /** What is kept while looking. Default 64 KiB; more, and it is handed on to be repaired. */
  readonly lookBytes?: number;
}

/** One for all: an error for each would cost more than the rest of the look. */
const DONE = new Error('the connection was handed on');
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');
const FRAME_HEADER = 9;
const TYPE = { headers: 1, settings: 4, continuation: 9 } as const;
const FLAG = { ack: 1, endStream: 1, endHeaders: 4, padded: 8, priority: 32 } as const;
const EMPTY = Buffer.alloc(0);
const EMPTY_SETTINGS = Buffer.from([0, 0, 0, TYPE.settings, 0, 0, 0, 0, 0]);
/** What HTTP/2 allows unless told otherwise; Node tells nothing else. */
const MAX_FRAME_BYTES = 16 * 1024;
/** Of one header block, over all its frames. */
const MAX_BLOCK_BYTES = 64 * 1024;
/** What nghttp2 takes as an authority. */
const AUTHORITY = /^[A-Za-z0-9\-._~%:@[\]!$&'()*+,;=]+$/;

/**
 * Gives the socket itself, or a stream that repairs what comes from it. Nothing but what a client may send is repaired: malformed frames and header blocks end
 * the connection. Rejects with REQUEST_INVALID or DEADLINE_EXCEEDED when the connection was ended; the socket is destroyed then.
 */
export function handOn(
  socket: Socket,
  { clock, prefaceMs = 10_000, lookMs = 1_000, lookBytes = 64 * 1024 }: HandOnOptions,
): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const timer = new AbortController();
    let seen: Buffer = Buffer.alloc(0);
    /** What `seen` is the beginning of: a client that sends octet by octet must not make us copy all of it for each. */
    let room: Buffer = seen;
    let at = PREFACE.length;
    let asked = false;
    let answered = false;

    const keep = (chunk: Buffer) => {
      const length = seen.length + chunk.length;
      if (length > room.length) {
        room = Buffer.allocUnsafeSlow(2 * length);
        room.set(seen);
      }
      room.set(chunk, seen.length);
      seen = room.subarray(0, length);
    };
    const stop = () => {
      socket.off('readable', look);
      socket.off('close', closed);
      socket.off('end', closed);
      timer.abort(DONE);
    };
    const native = () => {
      stop();
      socket.unshift(seen);
      resolve(socket);
    };
    const repaired = () => {
      stop();
      const connection = new RepairedConnection(socket, seen, asked && !answered);
      // malformed from the first block on: it has closed already, and who got it now would wait for that for ever
      if (connection.destroyed) reject(connection.errored ?? malformed('the connection was ended'));
      else resolve(connection);
    };
    const refuse = (error: Error) => {
      stop();
      socket.destroy();
      reject(error);
    };
    const closed = () => refuse(fail('CANCELLED', 'the connection ended before it said anything'));
    const look = () => {
      for (let chunk = socket.read() as Buffer | null; chunk; chunk = socket.read() as Buffer | null) keep(chunk);
      const start = Math.min(seen.length, PREFACE.length);
      if (seen.compare(PREFACE, 0, start, 0, start) !== 0) return refuse(fail('REQUEST_INVALID', 'not HTTP/2'));
      while (seen.length >= at + FRAME_HEADER) {
        const end = at + FRAME_HEADER + seen.readUIntBE(at, 3);
        const type = seen[at + 3];
        if (type === TYPE.headers) {
          if (seen.length < end) break;
          return isGood(seen.subarray(at, end)) && asked === answered ? native() : repaired();
        }
        if (seen.length < end) break;
        if (asked && !answered && isSettingsAnswer(seen.subarray(at, end))) {
          // the answer to our own SETTINGS, of which Node knows nothing
          answered = true;
          seen.copy(seen, at, end);
          seen = seen.subarray(0, seen.length - (end - at));
        } else {
          at = end;
        }
      }
      if (seen.length > lookBytes) return repaired();
      if (!asked && seen.length >= PREFACE.length) {
        // gRPC for Go sends no header block before it has the server's SETTINGS; empty ones promise nothing
        asked = true;
        socket.write(EMPTY_SETTINGS);
      }
      return undefined;
    };

    socket.on('readable', look);
    socket.on('close', closed);
    socket.on('end', closed);
    const wait = async () => {
      await clock.sleep(lookMs, timer.signal, { ref: false });
      if (seen.length >= PREFACE.length) return repaired();
      await clock.sleep(Math.max(0, prefaceMs - lookMs), timer.signal, { ref: false });
      if (seen.length >= PREFACE.length) return repaired();
      return refuse(fail('DEADLINE_EXCEEDED', `no HTTP/2 preface within ${prefaceMs} ms`));
    };
    // it only ever fails because it was stopped
    wait().catch(() => {});
    look();
  });
}

/** On a stream it is none: Node ends the connection for that. */
function isSettingsAnswer(frame: Buffer): boolean {
  return (
    frame[3] === TYPE.settings &&
    frame.length === FRAME_HEADER &&
    ((frame[4] as number) & FLAG.ack) !== 0 &&
    (frame.readUInt32BE(5) & 0x7fffffff) === 0
  );
}

/** Whether Node takes the request as it is. What we can't tell from one frame goes the careful way. */
function isGood(frame: Buffer): boolean {
  try {
    if (((frame[4] as number) & FLAG.endHeaders) === 0) return false;
    return isServable(new HpackDecoder().decode(fragment(frame)));
  } catch {
    return false;
  }
}

function isServable(fields: readonly Field[]): boolean {
  const authorities = fields.filter(([name]) => name === ':authority');
  return authorities.length === 1 && AUTHORITY.test(authorities[0]?.[1] ?? '');
}

/** The header block fragment in a HEADERS or CONTINUATION frame. */
function fragment(frame: Buffer): Buffer {
  let from = FRAME_HEADER;
  let to = frame.length;
  const flags = frame[4] as number;
  if (frame[3] === TYPE.headers) {
    if ((flags & FLAG.padded) !== 0) {
      to -= frame[from] ?? 0;
      from += 1;
    }
    if ((flags & FLAG.priority) !== 0) from += 5;
  }
  if (from > to) throw malformed('padding longer than its frame');
  return frame.subarray(from, to);
}

/** A header list with an authority that Node takes. Two authorities stay two: Node refuses that. */
function repair(fields: readonly Field[]): readonly Field[] {
  if (isServable(fields)) return fields;
  const pseudo = fields.filter(([name]) => name.startsWith(':'));
  const authority: Field = [':authority', 'localhost'];
  // trailers have no pseudo fields, and get none
  if (pseudo.length === 0) return fields;
  const rest = fields.filter(([name]) => !name.startsWith(':') && name !== 'host');
  if (pseudo.filter(([name]) => name === ':authority').length > 1) return fields;
  return [...pseudo.filter(([name]) => name !== ':authority'), authority, ...rest];
}

/** A connection whose inbound header blocks are written anew, without tables. It holds no more than what came at once, one header list and what Node has not read. */
class RepairedConnection extends Duplex {
  readonly #socket: Socket;
  readonly #decoder = new HpackDecoder();
  /** What came and was not written yet: less than a header frame, or what was there when Node wanted no more. */
  #rest: Buffer = EMPTY;
  /** Node wants no more: a few octets can stand for a long header list, so each block asks anew. */
  #full = false;
  #ended = false;
  #preface = true;
  /** Octets of a frame that goes through as it is. */
  #through = 0;
  #block: { readonly flags: number; readonly stream: number; readonly parts: Buffer[]; bytes: number } | undefined;
  #dropAnswer: boolean;

  constructor(socket: Socket, first: Buffer, dropAnswer: boolean) {
    super({ allowHalfOpen: true });
    this.#socket = socket;
    this.#dropAnswer = dropAnswer;
    // it may end before whoever asked for it has heard of it
    this.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      if (!this.#take(chunk)) socket.pause();
    });
    socket.on('end', () => {
      this.#ended = true;
      if (!this.#full) this.push(null);
    });
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => this.destroy());
    if (!this.#take(first)) socket.pause();
    else socket.resume();
  }

  override _read(): void {
    if (this.#full) {
      this.#full = false;
      if (!this.#take(EMPTY)) return;
      if (this.#ended) this.push(null);
    }
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#socket.write(Buffer.concat(chunks.map(({ chunk }) => chunk)), done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end(() => done());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }

  /** Whether Node wants more. */
  #take(chunk: Buffer): boolean {
    try {
      this.#full = !this.#frames(chunk);
      return !this.#full;
    } catch (error) {
      this.destroy(error as Error);
      return false;
    }
  }

  #frames(chunk: Buffer): boolean {
    let bytes = this.#rest.length === 0 ? chunk : chunk.length === 0 ? this.#rest : Buffer.concat([this.#rest, chunk]);
    let more = true;
    if (this.#preface) {
      if (bytes.length < PREFACE.length) {
        this.#rest = bytes;
        return true;
      }
      more = this.push(bytes.subarray(0, PREFACE.length));
      bytes = bytes.subarray(PREFACE.length);
      this.#preface = false;
    }
    for (;;) {
      if (this.#through > 0 && bytes.length > 0) {
        const part = bytes.subarray(0, this.#through);
        this.#through -= part.length;
        bytes = bytes.subarray(part.length);
        more = this.push(part);
      }
      if (!more || bytes.length < FRAME_HEADER) break;
      const length = FRAME_HEADER + bytes.readUIntBE(0, 3);
      const type = bytes[3];
      const header = type === TYPE.headers || type === TYPE.continuation;
      if (this.#block && type !== TYPE.continuation) throw malformed('a header block was interrupted');
      if (header && length - FRAME_HEADER > MAX_FRAME_BYTES) throw malformed('a frame is too large');
      if (header || (this.#dropAnswer && type === TYPE.settings && length === FRAME_HEADER)) {
        if (bytes.length < length) break;
      } else {
        this.#through = length;
        continue;
      }
      const frame = bytes.subarray(0, length);
      if (header) {
        bytes = bytes.subarray(length);
        more = this.#header(frame);
      } else if (isSettingsAnswer(frame)) {
        bytes = bytes.subarray(length);
        this.#dropAnswer = false;
      } else {
        this.#through = length;
      }
    }
    // a view into a large chunk would keep all of it, and for long if the rest is still to come
    this.#rest = more ? Buffer.from(bytes) : bytes;
    return more;
  }

  #header(frame: Buffer): boolean {
    const flags = frame[4] as number;
    const stream = frame.readUInt32BE(5) & 0x7fffffff;
    if (frame[3] === TYPE.headers) this.#block = { flags: flags & FLAG.endStream, stream, parts: [], bytes: 0 };
    const block = this.#block;
    if (!block || block.stream !== stream) throw malformed('a continuation of nothing');
    const part = fragment(frame);
    block.bytes += part.length;
    // an empty frame costs its sender nothing, and us a slot
    if (block.bytes > MAX_BLOCK_BYTES || block.parts.length >= 64) throw malformed('a header block is too large');
    block.parts.push(Buffer.from(part));
    if ((flags & FLAG.endHeaders) === 0) return true;
    this.#block = undefined;
    const out = encodePlain(repair(this.#decoder.decode(Buffer.concat(block.parts))));
    let more = true;
    for (let at = 0; at === 0 || at < out.length; at += MAX_FRAME_BYTES) {
      const piece = out.subarray(at, at + MAX_FRAME_BYTES);
      const head = Buffer.alloc(FRAME_HEADER);
      head.writeUIntBE(piece.length, 0, 3);
      head[3] = at === 0 ? TYPE.headers : TYPE.continuation;
      head[4] = (at === 0 ? block.flags : 0) | (at + MAX_FRAME_BYTES >= out.length ? FLAG.endHeaders : 0);
      head.writeUInt32BE(stream, 5);
      more = this.push(Buffer.concat([head, piece]));
    }
    return more;
  }
}

function malformed(why: string): Error {
  return fail('REQUEST_INVALID', `HTTP/2: ${why}`);
}
