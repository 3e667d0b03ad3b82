/** PROXY protocol, versions 1 and 2, from whoever stands before us: who connected to him (haproxy's proxy-protocol.txt §2). */
import { isIPv4, isIPv6, SocketAddress } from 'node:net';
import type { Judged } from './first-bytes.ts';
import type { Ends } from './proxy-protocol.ts';

const V2 = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
const V1 = Buffer.from('PROXY ');
/** §2.1: no line of version 1 is longer, with its CR LF. */
const MAX_V1 = 107;
/** Of version 2, with its fields; what is more is no header that anybody sends. */
const MAX_V2 = 4_096;
const HEAD_V2 = 16;

export class ProxyHeaderError extends Error {}

/** Undefined: the bytes are a part of a header. The value is undefined when the header names nobody: a check of the proxy's own. Throws ProxyHeaderError. */
export function readProxyHeader(bytes: Buffer): Judged<Ends | undefined> | undefined {
  if (startsWith(bytes, V2)) return bytes.length < HEAD_V2 ? undefined : readV2(bytes);
  if (startsWith(bytes, V1)) return bytes.length < V1.length ? undefined : readV1(bytes);
  throw new ProxyHeaderError('it did not begin with a PROXY header');
}

/** As far as there are bytes. */
function startsWith(bytes: Buffer, signature: Buffer): boolean {
  const length = Math.min(bytes.length, signature.length);
  return bytes.subarray(0, length).equals(signature.subarray(0, length));
}

function readV1(bytes: Buffer): Judged<Ends | undefined> | undefined {
  const end = bytes.subarray(0, MAX_V1).indexOf('\r\n');
  if (end < 0) {
    if (bytes.length >= MAX_V1) throw new ProxyHeaderError(`its PROXY header is longer than ${MAX_V1} bytes`);
    return undefined;
  }
  const taken = end + 2;
  const [, family, from = '', to = '', fromPort = '', toPort = '', ...more] = bytes.subarray(0, end).toString('latin1').split(' ');
  // what follows UNKNOWN is to be ignored
  if (family === 'UNKNOWN') return { value: undefined, taken };
  const is = family === 'TCP4' ? isIPv4 : family === 'TCP6' ? isIPv6 : undefined;
  const [remotePort, localPort] = [portOf(fromPort), portOf(toPort)];
  if (!is?.(from) || !is(to) || remotePort === undefined || localPort === undefined || more.length > 0)
    throw new ProxyHeaderError('its PROXY header is malformed');
  return { value: { remoteAddress: from, remotePort, localAddress: to, localPort }, taken };
}

function portOf(text: string): number | undefined {
  const port = /^(0|[1-9]\d{0,4})$/.test(text) ? Number(text) : 65_536;
  return port > 65_535 ? undefined : port;
}

const COMMANDS = { 0x20: 'LOCAL', 0x21: 'PROXY' } as const;
/** Transport: over TCP, by its addresses' length. */
const FAMILIES = { 0x11: 4, 0x21: 16 } as const;
/** UNSPEC and UNIX: accepted, and they name nobody. */
const NAMELESS = new Set([0x00, 0x31, 0x32]);

function readV2(bytes: Buffer): Judged<Ends | undefined> | undefined {
  const command = COMMANDS[bytes.readUInt8(12) as keyof typeof COMMANDS] as 'LOCAL' | 'PROXY' | undefined;
  const family = bytes.readUInt8(13);
  const taken = HEAD_V2 + bytes.readUInt16BE(14);
  if (command === undefined) throw new ProxyHeaderError('its PROXY header is of no known version or command');
  if (taken > MAX_V2) throw new ProxyHeaderError(`its PROXY header is longer than ${MAX_V2} bytes`);
  const size = FAMILIES[family as keyof typeof FAMILIES] as 4 | 16 | undefined;
  if (command === 'PROXY' && size === undefined && !NAMELESS.has(family))
    throw new ProxyHeaderError('its PROXY header is of a family that is not TCP');
  if (command === 'PROXY' && size !== undefined && taken - HEAD_V2 < 2 * size + 4)
    throw new ProxyHeaderError('its PROXY header is cut short');
  if (bytes.length < taken) return undefined;
  if (command === 'LOCAL' || size === undefined) return { value: undefined, taken };
  const at = (offset: number) => HEAD_V2 + offset;
  return {
    value: {
      remoteAddress: addressOf(bytes.subarray(at(0), at(size))),
      remotePort: bytes.readUInt16BE(at(2 * size)),
      localAddress: addressOf(bytes.subarray(at(size), at(2 * size))),
      localPort: bytes.readUInt16BE(at(2 * size + 2)),
    },
    taken,
  };
}

function addressOf(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.');
  const words = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16));
  return new SocketAddress({ address: words.join(':'), family: 'ipv6' }).address;
}
