/** The first bytes of an accepted connection, read and put back: what they are decides what becomes of it. */
import type { Socket } from 'node:net';

export interface Judged<T> {
  readonly value: T;
  /** As many bytes are not put back. */
  readonly taken: number;
}

/**
 * Reads until `judge` says something; it is asked with all bytes so far, each time there are more. The socket is left paused, with what was not taken before it.
 * Throws what `judge` throws, an error when the connection ends before, and the signal's reason.
 */
export function firstBytes<T>(socket: Socket, signal: AbortSignal, judge: (bytes: Buffer) => Judged<T> | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    let bytes: Buffer = Buffer.alloc(0);
    const stop = () => {
      socket.off('data', more).off('end', ended).off('close', ended).pause();
      signal.removeEventListener('abort', late);
    };
    const give = (rest: Buffer) => {
      stop();
      if (rest.length > 0) socket.unshift(rest);
    };
    const more = (chunk: Buffer) => {
      bytes = bytes.length > 0 ? Buffer.concat([bytes, chunk]) : chunk;
      try {
        const judged = judge(bytes);
        if (!judged) return;
        give(bytes.subarray(judged.taken));
        resolve(judged.value);
      } catch (error) {
        stop();
        reject(error);
      }
    };
    const ended = () => {
      stop();
      reject(new Error('the connection ended before it had said what it is'));
    };
    const late = () => {
      give(bytes);
      reject(signal.reason);
    };
    if (signal.aborted) return reject(signal.reason);
    signal.addEventListener('abort', late, { once: true });
    socket.on('data', more).on('end', ended).on('close', ended);
    return void socket.resume();
  });
}

/** Content type of a handshake record (RFC 8446 §5.1), and the major version that all of TLS has. */
const HANDSHAKE = [0x16, 0x03] as const;

/** Whether a connection begins with TLS. Nothing that a person types and no text protocol begins so. */
export function isTls(bytes: Buffer): Judged<boolean> | undefined {
  if (bytes[0] !== HANDSHAKE[0]) return { value: false, taken: 0 };
  if (bytes.length < 2) return undefined;
  return { value: bytes[1] === HANDSHAKE[1], taken: 0 };
}
