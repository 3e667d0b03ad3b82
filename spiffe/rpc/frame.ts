/** gRPC's framing of messages (PROTOCOL-HTTP2): one octet of flags, four of length, the message. */
import { errorOfStatus, STATUS } from './calls.ts';

const HEAD = 5;

/** @param message uncompressed */
export function frame(message: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(HEAD + message.length);
  framed[0] = 0;
  framed.writeUInt32BE(message.length, 1);
  framed.set(message, HEAD);
  return framed;
}

/** Takes octets as they come, gives whole messages. */
export class FrameReader {
  readonly #maxBytes: number;
  #chunks: Buffer[] = [];
  /** Octets of a message that is not whole yet. */
  pending = 0;

  /** @param maxBytes of one message; a longer one is refused when its length is read, before it is held */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Throws RESOURCE_EXHAUSTED for a message that is too long, UNIMPLEMENTED for a compressed one: nobody was told that we could read it. */
  *read(chunk: Buffer): Generator<Buffer, void, void> {
    this.#chunks.push(chunk);
    this.pending += chunk.length;
    while (this.pending >= HEAD) {
      const head = this.#peek(HEAD);
      const length = head.readUInt32BE(1);
      if (head[0] !== 0) throw errorOfStatus(STATUS.UNIMPLEMENTED, 'the server compresses its messages, which nobody asked for');
      if (length > this.#maxBytes) throw errorOfStatus(8, `a message of ${length} bytes, more than ${this.#maxBytes}`);
      if (this.pending < HEAD + length) return;
      yield this.#take(HEAD + length).subarray(HEAD);
    }
  }

  #peek(length: number): Buffer {
    const [first] = this.#chunks;
    if (first && first.length >= length) return first;
    return (this.#chunks = [Buffer.concat(this.#chunks)])[0] as Buffer;
  }

  #take(length: number): Buffer {
    const all = this.#peek(length);
    this.pending -= length;
    const rest = all.subarray(length);
    this.#chunks.shift();
    if (rest.length > 0) this.#chunks.unshift(rest);
    return all.subarray(0, length);
  }
}
