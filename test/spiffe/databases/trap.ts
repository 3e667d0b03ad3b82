/** A server of the attacker's: says what a database says before TLS, shows what it was given, and writes down all that it is told. */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { onTestFinished } from 'vitest';

/** PEM. */
export interface Shown {
  readonly cert: string;
  readonly key: string;
}

/** What is said in plain before TLS begins; resolves when the handshake may. Gives what the client said. */
export type Preface = (socket: Socket) => Promise<Buffer>;

/** MySQL's greeting, "Protocol::HandshakeV10": capabilities 4.1 protocol, TLS, a password's method, a database's name. */
const GREETING = ((): Buffer => {
  const capabilities = Buffer.alloc(4);
  capabilities.writeUInt32LE(0x1 | 0x8 | 0x200 | 0x800 | 0x8000 | 0x80000);
  const payload = Buffer.concat([
    Buffer.from('\x0a8.0.36\0\x01\0\0\0saltsalt\0', 'latin1'),
    capabilities.subarray(0, 2),
    Buffer.from([45, 2, 0]),
    capabilities.subarray(2),
    Buffer.from([21]),
    Buffer.alloc(10),
    Buffer.from('saltsaltsalt\0mysql_native_password\0'),
  ]);
  return Buffer.concat([Buffer.from([payload.length, 0, 0, 0]), payload]);
})();

/** The first so many octets; what came with them is left for TLS. */
async function read(socket: Socket, length: number): Promise<Buffer> {
  for (;;) {
    const octets = socket.read(length) as Buffer | null;
    if (octets) return octets;
    await once(socket, 'readable');
  }
}

export const PREFACES = {
  none: async () => Buffer.alloc(0),
  /** SSLRequest, and `S`. */
  postgres: async (socket: Socket) => {
    const request = await read(socket, 8);
    // who begins with something else is heard out, and gets no TLS
    if (request.toString('hex') === '0000000804d2162f') socket.write('S');
    return request;
  },
  /** The greeting, and SSLRequest: a header of 4 octets and 32 more. */
  mysql: async (socket: Socket) => {
    socket.write(GREETING);
    return read(socket, 36);
  },
} as const satisfies Readonly<Record<string, Preface>>;

export interface Trap {
  readonly port: number;
  /** Octets in plain, before TLS. */
  readonly plain: Buffer[];
  /** What came out of TLS. */
  readonly received: Buffer[];
  /** Each handshake that ended: who the client said it is (SHA-256 of its certificate), and whether a session was resumed. */
  readonly handshakes: { readonly sha256: string | undefined; readonly resumed: boolean }[];
  /** How many connections are open. */
  readonly open: number;
  /** From now on this is shown. */
  show(shown: Shown): void;
  /** Ends every connection. */
  drop(): void;
}

/** Ends with the test. */
export async function trap(shown: Shown, preface: Preface = PREFACES.none): Promise<Trap> {
  const plain: Buffer[] = [];
  const received: Buffer[] = [];
  const handshakes: Trap['handshakes'] = [];
  const sockets = new Set<Socket>();
  const tls = createTlsServer({ ...shown, requestCert: true, rejectUnauthorized: false, sessionIdContext: 'trap' });
  tls.on('tlsClientError', () => {});
  tls.on('secureConnection', (socket: TLSSocket) => {
    const sha256 = socket.getPeerX509Certificate()?.fingerprint256.replaceAll(':', '').toLowerCase();
    handshakes.push({ sha256, resumed: socket.isSessionReused() });
    socket.on('data', (data: Buffer) => received.push(data)).on('error', () => {});
  });
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => {});
    preface(socket)
      .then((said) => {
        plain.push(said);
        tls.emit('connection', socket);
      })
      .catch(() => socket.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const drop = () => {
    for (const socket of sockets) socket.destroy();
  };
  onTestFinished(() => {
    drop();
    server.close();
  });
  return {
    port: (server.address() as AddressInfo).port,
    plain,
    received,
    handshakes,
    get open() {
      return sockets.size;
    },
    show: (next) => tls.setSecureContext(next),
    drop,
  };
}

/** A server that talks in plain alone: answers the first words with these, and writes down all. */
export async function plainServer(answer: string | Buffer): Promise<{ readonly port: number; readonly received: Buffer[] }> {
  const received: Buffer[] = [];
  const server = createServer((socket) => {
    socket
      .once('data', () => socket.write(answer))
      .on('data', (data) => received.push(data))
      .on('error', () => {});
    onTestFinished(() => void socket.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return { port: (server.address() as AddressInfo).port, received };
}
