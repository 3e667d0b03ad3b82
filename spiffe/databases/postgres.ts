/** PostgreSQL through `pg`: its socket is ours, TLS included, so that not even the user's name goes to a server that was not verified. */
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { SpiffeError } from '../errors.ts';
import type { X509Identity } from '../source/x509-identity.ts';
import { dialler, type SocketSettings, VerifiedSocket } from './verified-socket.ts';

/** What `pgOptions` gives, to be spread into those of `new Client` and `new Pool`. */
export interface PgOptions {
  /** TLS is below the protocol: `pg` must ask for none. */
  readonly ssl: false;
  readonly stream: () => Duplex;
  /** A pool lends a connection no more after this; one that is lent out ends when it comes back. 0: no limit. */
  readonly maxLifetimeSeconds: number;
}

/**
 * A new connection shows an SVID that has at least half of its life before it, or so; so has the server's. A pool's own limit is the one thing that ends a
 * connection between two queries, and at 60 % of that half nothing is cut off in the middle.
 */
const POOL_LIFE = 0.3;
/** A day. A timer of more than 24 days would end at once. */
const MAX_POOL_LIFE_SECONDS = 86_400;

/**
 * For `new Pool` and `new Client`. A connection string beside it must say nothing of `ssl`. `maxLifetimeSeconds` goes by the SVID of now: make it when the source
 * is ready. Throws REQUEST_INVALID when something is missing.
 */
export function pgOptions(source: X509Identity, settings: SocketSettings): PgOptions {
  const dial = dialler(source, settings, askForTls);
  return { ssl: false, stream: () => new VerifiedSocket(dial), maxLifetimeSeconds: settings.keep ? 0 : poolLife(source) };
}

function poolLife(source: X509Identity): number {
  try {
    const { notBeforeMs, notAfterMs } = source.svid;
    return Math.min(((notAfterMs - notBeforeMs) / 1_000) * POOL_LIFE, MAX_POOL_LIFE_SECONDS);
  } catch {
    // without an SVID no connection will be made; whoever makes one later is told by docs/databases.md
    return 0;
  }
}

/** Length 8, code 80877103: "Message Formats" of PostgreSQL's protocol. */
const SSL_REQUEST = Buffer.from('0000000804d2162f', 'hex');

/** Resolves when the server is ready for the handshake. */
function askForTls(tcp: Socket, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (error: unknown) => {
      off();
      reject(error);
    };
    const abort = () => end(signal.reason);
    const closed = () => end(new SpiffeError('UNAVAILABLE', undefined, 'the server ended the connection when it was asked for TLS'));
    const answered = (answer: Buffer) => {
      // what comes next is for TLS to read
      tcp.pause();
      const text = answer.toString('latin1');
      if (text === 'S') {
        off();
        return resolve();
      }
      // more than the one letter may be the words of somebody in the middle, to be taken for the server's after the handshake (CVE-2021-23222)
      const why = text.startsWith('S') ? 'sent more than an answer' : text === 'N' ? 'has no TLS' : 'does not answer as PostgreSQL does';
      end(new SpiffeError('UNAVAILABLE', undefined, `the server ${why}`));
    };
    const off = () => {
      signal.removeEventListener('abort', abort);
      tcp.off('data', answered).off('error', end).off('close', closed);
    };
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    tcp.on('data', answered).on('error', end).on('close', closed);
    tcp.write(SSL_REQUEST);
  });
}
