/** A process that uses the Workload API badly, as its first argument says, on the socket that its second names; it says `ready` when it has begun, and lives until it is ended. */
import { connect as connectHttp2 } from 'node:http2';
import { connect, type Socket } from 'node:net';

const [, , how = '', path = ''] = process.argv;
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');
const EMPTY_SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
const REQUEST = Buffer.alloc(5);

const counts = { closed: 0, refused: 0, answered: 0, open: 0 };
process.on('message', () => process.send?.(counts));

function dial(count: number, say: (socket: Socket) => void): void {
  for (let n = 0; n < count; n++) {
    const socket = connect(path, () => say(socket));
    counts.open++;
    socket.on('error', () => {});
    socket.on('close', () => {
      counts.closed++;
      counts.open--;
    });
  }
}

/** One header block frame: HEADERS, or CONTINUATION when it goes on. */
function frame(type: number, flags: number, stream: number, body: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(body.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, body]);
}

function streams(count: number, { read }: { readonly read: boolean }): void {
  const session = connectHttp2('http://localhost', {
    createConnection: () => connect(path),
    settings: { initialWindowSize: read ? 65_535 : 0 },
  });
  session.on('error', () => {});
  session.on('close', () => {
    counts.closed++;
  });
  for (let n = 0; n < count; n++) {
    const stream = session.request({
      ':method': 'POST',
      ':path': '/SpiffeWorkloadAPI/FetchX509SVID',
      'content-type': 'application/grpc',
      te: 'trailers',
      'workload.spiffe.io': 'true',
    });
    stream.on('response', (headers) => {
      if (headers['grpc-status'] === undefined || headers['grpc-status'] === '0') counts.answered++;
      else counts.refused++;
    });
    stream.on('error', () => {
      counts.refused++;
    });
    stream.end(REQUEST);
    if (read) stream.resume();
  }
}

switch (how) {
  case 'silent':
    dial(1_000, () => {});
    break;
  case 'half a frame':
    dial(200, (socket) => socket.write(Buffer.concat([PREFACE, EMPTY_SETTINGS, Buffer.from([0, 0, 100, 1, 4])])));
    break;
  case 'a header of 1 MiB':
    dial(20, (socket) => {
      socket.write(Buffer.concat([PREFACE, EMPTY_SETTINGS]));
      const piece = Buffer.alloc(16_000, 0x40);
      socket.write(frame(1, 0, 1, piece));
      for (let sent = piece.length; sent < 1024 * 1024; sent += piece.length) socket.write(frame(9, 0, 1, piece));
    });
    break;
  case '2,000 streams':
    streams(2_000, { read: true });
    break;
  case '2,000 streams that read nothing':
    streams(2_000, { read: false });
    break;
  case 'calls without end': {
    const session = connectHttp2('http://localhost', { createConnection: () => connect(path) });
    session.on('error', () => {});
    session.on('close', () => process.exit(0));
    const call = () => {
      const stream = session.request({
        ':method': 'POST',
        ':path': '/SpiffeWorkloadAPI/FetchX509SVID',
        'content-type': 'application/grpc',
        te: 'trailers',
        'workload.spiffe.io': 'true',
      });
      stream.on('error', () => {});
      stream.once('data', () => {
        counts.answered++;
        stream.close(8);
      });
      stream.once('close', call);
      stream.end(REQUEST);
    };
    for (let n = 0; n < 500; n++) call();
    break;
  }
  default:
    throw new Error(`no such way: ${how}`);
}
setTimeout(() => process.send?.('ready'), 300);
setInterval(() => {}, 60_000);
