/** PROXY protocol, version 2, towards a target: who is at the other end of the TLS connection (haproxy's proxy-protocol.txt §2.2). */
import { isIPv6, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Secured } from './identity.ts';

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
const TYPE = {
  alpn: 0x01,
  authority: 0x02,
  ssl: 0x20,
  sslVersion: 0x21,
  sslCommonName: 0x22,
  sslClientCertificate: 0x28,
  spiffeId: 0xd0,
} as const;

/** Both ends of a connection, named as a socket does; without addresses over a UNIX socket. */
export type Ends = Partial<Pick<Socket, 'remoteAddress' | 'remotePort' | 'localAddress' | 'localPort'>>;

/** Addresses alone. Throws for an address that it can't write. */
export function plainProxyHeader(ends: Ends): Buffer {
  return header(addressesOf(ends), []);
}

/**
 * @param how `conn`: addresses alone; `tls`: with what TLS has agreed on and the SPIFFE ID; `tls-full`: with the client's certificate.
 * @param ends where the socket's own are not those of the client
 * Throws for an address that it can't write.
 */
export function proxyHeader(
  how: 'conn' | 'tls' | 'tls-full',
  socket: TLSSocket,
  { peer }: Pick<Secured, 'peer'>,
  ends: Ends = socket,
): Buffer {
  const addresses = addressesOf(ends);
  const tlvs: Buffer[] = [];
  if (how !== 'conn') {
    if (socket.alpnProtocol) tlvs.push(tlv(TYPE.alpn, Buffer.from(socket.alpnProtocol)));
    const name = (socket as { readonly servername?: string | false }).servername;
    if (name) tlvs.push(tlv(TYPE.authority, Buffer.from(name)));
    const full = how === 'tls-full' && peer !== undefined;
    const inner = [tlv(TYPE.sslVersion, Buffer.from((socket.getProtocol() ?? '').replace('TLSv', 'TLS ')))];
    if (full) {
      const commonName = peer.leaf.subjectName.flat().findLast(({ oid }) => oid === '2.5.4.3')?.value;
      if (commonName !== undefined) inner.push(tlv(TYPE.sslCommonName, Buffer.from(commonName)));
      inner.push(tlv(TYPE.sslClientCertificate, peer.leaf.raw));
    }
    // PP2_CLIENT_SSL, and with a certificate CERT_CONN and CERT_SESS; verify 0: it was verified
    const flags = full ? 0x07 : 0x01;
    tlvs.push(tlv(TYPE.ssl, Buffer.concat([Buffer.from([flags, 0, 0, 0, 0]), ...inner])));
    if (peer?.id) tlvs.push(tlv(TYPE.spiffeId, Buffer.from(String(peer.id))));
  }
  return header(addresses, tlvs);
}

function header(addresses: ReturnType<typeof addressesOf>, tlvs: readonly Buffer[]): Buffer {
  const body = Buffer.concat([addresses.bytes, ...tlvs]);
  if (body.length > 0xffff) throw new RangeError(`a PROXY header of ${body.length} bytes: 65535 at most`);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(body.length);
  return Buffer.concat([SIGNATURE, Buffer.from([0x21, addresses.family]), length, body]);
}

function tlv(type: number, value: Buffer): Buffer {
  if (value.length > 0xffff) throw new RangeError(`a PROXY header field of ${value.length} bytes: 65535 at most`);
  const head = Buffer.alloc(3);
  head.writeUInt8(type, 0);
  head.writeUInt16BE(value.length, 1);
  return Buffer.concat([head, value]);
}

function addressesOf({ remoteAddress, remotePort, localAddress, localPort }: Ends): {
  readonly family: number;
  readonly bytes: Buffer;
} {
  // over a UNIX socket: both names are empty
  if (remoteAddress === undefined || localAddress === undefined) return { family: 0x31, bytes: Buffer.alloc(216) };
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(remotePort ?? 0, 0);
  ports.writeUInt16BE(localPort ?? 0, 2);
  const v6 = [remoteAddress, localAddress].some((address) => isIPv6(address) && !isMapped(address));
  const write = v6 ? ipv6Bytes : ipv4Bytes;
  return { family: v6 ? 0x21 : 0x11, bytes: Buffer.concat([write(remoteAddress), write(localAddress), ports]) };
}

function isMapped(address: string): boolean {
  return address.startsWith('::ffff:') && address.includes('.');
}

function ipv4Bytes(address: string): Buffer {
  return Buffer.from(
    address
      .replace(/^::ffff:/, '')
      .split('.')
      .map(Number),
  );
}

/** As the kernel writes it: no zone matters to the target. */
function ipv6Bytes(address: string): Buffer {
  if (!isIPv6(address)) return ipv6Bytes(`::ffff:${address}`);
  // the last four bytes may be written as IPv4
  const hex = (address.split('%')[0] ?? '').replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...bytes: string[]) =>
    [bytes.slice(0, 2), bytes.slice(2, 4)].map(([high, low]) => (Number(high) * 256 + Number(low)).toString(16)).join(':'),
  );
  const [left = '', right] = hex.split('::');
  const words = (text: string) => (text === '' ? [] : text.split(':').map((word) => Number.parseInt(word, 16)));
  const head = words(left);
  const tail = right === undefined ? [] : words(right);
  const all = [...head, ...Array.from({ length: 8 - head.length - tail.length }, () => 0), ...tail];
  const bytes = Buffer.alloc(16);
  all.forEach((word, i) => bytes.writeUInt16BE(word, 2 * i));
  return bytes;
}
