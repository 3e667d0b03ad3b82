/** Whose process is at the other end of a TCP connection within this machine: the kernel's word about that end's socket (sock_diag(7)). Linux only. */
import { isIPv6, type Socket } from 'node:net';
import { fail } from './errors.ts';
import { askSocketDiagnostics } from './native.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const IPPROTO_TCP = 6;
const NLM_F_REQUEST = 1;
const NLMSG_ERROR = 2;
const SOCK_DIAG_BY_FAMILY = 20;
/** struct nlmsghdr, struct inet_diag_req_v2. */
const REQUEST_BYTES = 16 + 56;
/** Where inet_diag_msg has what we want, behind nlmsghdr. */
const AT = { state: 17, uid: 16 + 64, inode: 16 + 68 } as const;

/** States in which a program still holds the socket: established, half closed by either side. */
const HELD = new Set([1, 4, 5, 8]);

let sequence = 0;

/**
 * The user who opened the other end of a connection that was accepted just now, from a loopback address of this network namespace. Throws UNAVAILABLE when that
 * can't be told: it comes from elsewhere, or its program has closed it or is gone. The kernel says user 0 of a socket that nobody holds any more: that is never
 * taken for root.
 */
export function tcpOwnerUid(socket: Socket): number {
  const { remoteAddress = '', remotePort, localAddress = '', localPort } = socket;
  if (remotePort === undefined || localPort === undefined) throw unknown('the connection is closed');
  if (!isLoopback(remoteAddress)) throw unknown(`${remoteAddress} is no loopback address: its owner is not known here`);
  const asked = ++sequence & 0x7fffffff;
  const answer = askSocketDiagnostics(
    requestOf({ address: remoteAddress, port: remotePort }, { address: localAddress, port: localPort }, asked),
  );
  if (answer.length < 16 || answer.readUInt32LE(8) !== asked) throw unknown('the kernel answered something else');
  const type = answer.readUInt16LE(4);
  if (type === NLMSG_ERROR) throw unknown(`the kernel knows no such socket (error ${-answer.readInt32LE(16)})`);
  if (type !== SOCK_DIAG_BY_FAMILY || answer.length < AT.inode + 4) throw unknown('the kernel answered something else');
  const state = answer[AT.state] ?? 0;
  if (!HELD.has(state) || answer.readUInt32LE(AT.inode) === 0) throw unknown(`its program has closed it (state ${state})`);
  return answer.readUInt32LE(AT.uid);
}

interface End {
  readonly address: string;
  readonly port: number;
}

/** About the socket whose own end is `local`, as that side sees it. */
function requestOf(local: End, remote: End, seq: number): Buffer {
  const request = Buffer.alloc(REQUEST_BYTES);
  request.writeUInt32LE(REQUEST_BYTES, 0);
  request.writeUInt16LE(SOCK_DIAG_BY_FAMILY, 4);
  request.writeUInt16LE(NLM_F_REQUEST, 6);
  request.writeUInt32LE(seq, 8);
  const v6 = isIPv6(local.address) && !isMapped(local.address);
  request[16] = v6 ? AF_INET6 : AF_INET;
  request[17] = IPPROTO_TCP;
  // every state
  request.writeUInt32LE(0xffffffff, 20);
  request.writeUInt16BE(local.port, 24);
  request.writeUInt16BE(remote.port, 26);
  addressBytes(local.address).copy(request, 28);
  addressBytes(remote.address).copy(request, 44);
  // INET_DIAG_NOCOOKIE
  request.fill(0xff, 64, 72);
  return request;
}

function isMapped(address: string): boolean {
  return address.startsWith('::ffff:') && address.includes('.');
}

function isLoopback(address: string): boolean {
  return address === '::1' || /^(::ffff:)?127\./.test(address);
}

/** Of loopback addresses there is one in IPv6. */
function addressBytes(address: string): Buffer {
  if (address === '::1') return Buffer.from([...new Uint8Array(15), 1]);
  const bytes = address
    .replace(/^::ffff:/, '')
    .split('.')
    .map(Number);
  if (bytes.length !== 4) throw unknown(`${address} is no loopback address`);
  return Buffer.from(bytes);
}

function unknown(why: string): Error {
  return fail('UNAVAILABLE', `could not tell whose process connects: ${why}`);
}
