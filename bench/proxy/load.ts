/** The load: a backend and a client with mutual TLS, in a process of their own. Speaks JSON lines with whoever started it. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { connect, createSecureContext, type TLSSocket } from 'node:tls';

interface Order {
  readonly do: 'requests' | 'connections' | 'download' | 'idle' | 'steady' | 'drop';
  readonly port: number;
  readonly count?: number;
  readonly width?: number;
  readonly bytes?: number;
  readonly perSecond?: number;
  readonly plain?: boolean;
}

const [certificate = '', key = ''] = process.argv.slice(2);
const context = createSecureContext({ cert: readFileSync(certificate), key: readFileSync(key), minVersion: 'TLSv1.3' });

const KIB = Buffer.alloc(1024, 'x');
/** What the backend answers: as much for each KiB, or as many bytes as four octets say behind a zero. */
const backend = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => {});
  let first = true;
  socket.on('data', (data: Buffer) => {
    if (first && data[0] === 0) return stream(socket, data.readUIntBE(1, 6));
    first = false;
    socket.write(data);
    return undefined;
  });
});
backend.listen(0, '127.0.0.1');
await once(backend, 'listening');

const BLOCK = Buffer.alloc(256 * 1024, 'y');
function stream(socket: Socket, bytes: number): void {
  let left = bytes;
  const go = () => {
    while (left > 0) {
      const piece = left < BLOCK.length ? BLOCK.subarray(0, left) : BLOCK;
      left -= piece.length;
      if (!socket.write(piece)) return void socket.once('drain', go);
    }
    socket.end();
  };
  go();
}

async function open(port: number, plain = false): Promise<Socket> {
  const tcp = connectTcp({ port, host: '127.0.0.1', noDelay: true });
  if (plain) {
    await once(tcp, 'connect');
    return tcp.on('error', () => {});
  }
  const tls: TLSSocket = connect({
    socket: tcp,
    secureContext: context,
    rejectUnauthorized: false,
    // the same for all, whatever newer ones a contestant may know
    ecdhCurve: 'X25519',
    ciphers: 'TLS_AES_128_GCM_SHA256',
  } as never);
  await once(tls, 'secureConnect');
  return tls.on('error', () => {});
}

/** Writes a KiB and resolves when as much has come back. */
function ask(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    let left = KIB.length;
    const heard = (data: Buffer) => {
      left -= data.length;
      if (left > 0) return;
      off();
      resolve();
    };
    const closed = () => {
      off();
      reject(new Error('closed'));
    };
    const off = () => socket.off('data', heard).off('close', closed);
    socket.on('data', heard).once('close', closed);
    socket.write(KIB);
  });
}

const idle: Socket[] = [];
const ways: Readonly<Record<Order['do'], (order: Order) => Promise<object>>> = {
  async requests({ port, count = 0, width = 1, plain }) {
    const sockets = await Promise.all(Array.from({ length: width }, () => open(port, plain)));
    let left = count;
    await Promise.all(
      sockets.map(async (socket) => {
        while (left-- > 0) await ask(socket);
      }),
    );
    for (const socket of sockets) socket.destroy();
    return {};
  },
  async connections({ port, count = 0, width = 1, plain }) {
    let left = count;
    await Promise.all(
      Array.from({ length: width }, async () => {
        while (left-- > 0) {
          const socket = await open(port, plain);
          await ask(socket);
          socket.end();
          await once(socket, 'close');
        }
      }),
    );
    return {};
  },
  async download({ port, bytes = 0, width = 1, plain }) {
    await Promise.all(
      Array.from({ length: width }, async () => {
        const socket = await open(port, plain);
        const order = Buffer.alloc(7);
        order.writeUIntBE(Math.floor(bytes / width), 1, 6);
        socket.write(order);
        socket.resume();
        await once(socket, 'close');
        if (socket.bytesRead < Math.floor(bytes / width)) throw new Error(`${socket.bytesRead} bytes came`);
      }),
    );
    return {};
  },
  async idle({ port, count = 0, plain }) {
    for (let n = 0; n < count; n += 50) idle.push(...(await Promise.all(Array.from({ length: 50 }, () => open(port, plain)))));
    return { open: idle.length };
  },
  async drop() {
    for (const socket of idle.splice(0)) socket.destroy();
    return {};
  },
  /** An open loop: each request is due at its time, whatever became of those before; the wait for it counts. */
  async steady({ port, count = 0, width = 8, perSecond = 1000, plain }) {
    const sockets = await Promise.all(Array.from({ length: width }, () => open(port, plain)));
    const free = [...sockets];
    const due: number[] = [];
    const took: number[] = [];
    const started = performance.now();
    let begun = 0;
    await new Promise<void>((done) => {
      const next = () => {
        for (;;) {
          const socket = due.length > 0 ? free.pop() : undefined;
          const at = socket && due.shift();
          if (!socket || at === undefined) return;
          void ask(socket).then(() => {
            took.push(performance.now() - at);
            free.push(socket);
            if (took.length === count) return done();
            next();
            return undefined;
          });
        }
      };
      const timer = setInterval(() => {
        const now = performance.now();
        while (begun < count && started + (begun * 1000) / perSecond <= now) due.push(started + (begun++ * 1000) / perSecond);
        next();
        if (begun === count) clearInterval(timer);
      }, 1);
    });
    for (const socket of sockets) socket.destroy();
    took.sort((a, b) => a - b);
    const share = (part: number) => took[Math.floor((took.length - 1) * part)];
    return { medianMs: share(0.5), p99Ms: share(0.99), maxMs: share(1) };
  },
};

console.log(JSON.stringify({ backend: (backend.address() as AddressInfo).port }));
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line) as Order;
  try {
    console.log(JSON.stringify(await ways[order.do](order)));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
process.exit(0);
