/** PX-15: PROXY protocol v2, byte for byte (haproxy's proxy-protocol.txt §2.2; 0xD0 is ztunnel's number for an identity). */
import type { TLSSocket } from 'node:tls';
import { describe, expect, test } from 'vitest';
import { proxyHeader } from '../../proxy/proxy-protocol.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import { Certificate } from '../../spiffe/x509/certificate.ts';
import { testCertificate } from '../fakes/ca.ts';

const SIGNATURE = '0d0a0d0a000d0a515549540a';

/** The members that are read. */
const socket = (
  members: Partial<Record<'remoteAddress' | 'localAddress' | 'alpnProtocol' | 'servername', string>> & {
    remotePort?: number;
    localPort?: number;
  },
) => ({ alpnProtocol: false, servername: false, getProtocol: () => 'TLSv1.3', ...members }) as unknown as TLSSocket;

const V4 = { remoteAddress: '192.0.2.1', remotePort: 51_000, localAddress: '192.0.2.2', localPort: 8443 };

describe('conn: addresses alone', () => {
  test('IPv4', () => {
    expect(proxyHeader('conn', socket(V4), { peer: undefined }).toString('hex')).toBe(`${SIGNATURE}2111000cc0000201c0000202c73820fb`);
  });
  test('IPv4 that the kernel shows as IPv6', () => {
    const mapped = { ...V4, remoteAddress: '::ffff:192.0.2.1', localAddress: '::ffff:192.0.2.2' };
    expect(proxyHeader('conn', socket(mapped), { peer: undefined })).toEqual(proxyHeader('conn', socket(V4), { peer: undefined }));
  });
  test('IPv6', () => {
    const v6 = { remoteAddress: '2001:db8::1', remotePort: 1, localAddress: '::1', localPort: 2 };
    expect(proxyHeader('conn', socket(v6), { peer: undefined }).toString('hex')).toBe(
      `${SIGNATURE}21210024${'20010db8000000000000000000000001'}${'00000000000000000000000000000001'}00010002`,
    );
  });
  test('a link-local address without its zone, and one in full', () => {
    const v6 = { remoteAddress: 'fe80::1%eth0', remotePort: 1, localAddress: '1:2:3:4:5:6:7:8', localPort: 2 };
    expect(proxyHeader('conn', socket(v6), { peer: undefined }).toString('hex')).toBe(
      `${SIGNATURE}21210024${'fe800000000000000000000000000001'}${'00010002000300040005000600070008'}00010002`,
    );
  });
  test('IPv6 whose end is written as IPv4, and one end of each family', () => {
    const v6 = { remoteAddress: '64:ff9b::192.0.2.1', remotePort: 1, localAddress: '::ffff:192.0.2.2', localPort: 2 };
    const bytes = `${SIGNATURE}21210024${'0064ff9b0000000000000000c0000201'}${'00000000000000000000ffffc0000202'}00010002`;
    expect(proxyHeader('conn', socket(v6), { peer: undefined }).toString('hex')).toBe(bytes);
    expect(proxyHeader('conn', socket({ ...v6, localAddress: '192.0.2.2' }), { peer: undefined }).toString('hex')).toBe(bytes);
  });
  test('UNIX: both names are empty', () => {
    expect(proxyHeader('conn', socket({}), { peer: undefined }).toString('hex')).toBe(`${SIGNATURE}213100d8${'00'.repeat(216)}`);
  });
});

describe('tls: what TLS has agreed on', () => {
  const tail = (header: Buffer) => header.subarray(16 + 12).toString('hex');

  test('version and flags, for a client that showed nothing', () => {
    // SSL { flags 01, verify 0, VERSION "TLS 1.3" }
    expect(tail(proxyHeader('tls', socket(V4), { peer: undefined }))).toBe(
      `20000f${'0100000000'}${'210007'}${Buffer.from('TLS 1.3').toString('hex')}`,
    );
  });

  test('ALPN and the name that was asked for come first, the SPIFFE ID last', async () => {
    const leaf = Certificate.parse((await testCertificate({ uris: ['spiffe://td/web'] })).der);
    const peer = { id: SpiffeId.parse('spiffe://td/web'), leaf };
    const hex = (text: string) => Buffer.from(text).toString('hex');
    expect(tail(proxyHeader('tls', socket({ ...V4, alpnProtocol: 'h2', servername: 'db' }), { peer }))).toBe(
      `010002${hex('h2')}020002${hex('db')}20000f0100000000210007${hex('TLS 1.3')}d0000f${hex('spiffe://td/web')}`,
    );
  });

  test('tls-full: common name and certificate too, and flags that say so', async () => {
    const { der } = await testCertificate({ uris: ['spiffe://td/web'], subject: 'CN=web' });
    const leaf = Certificate.parse(der);
    const header = proxyHeader('tls-full', socket(V4), { peer: { id: SpiffeId.parse('spiffe://td/web'), leaf } });
    const inner = header.subarray(16 + 12);
    expect(inner.subarray(0, 1).toString('hex')).toBe('20');
    expect(inner[3]).toBe(0x07);
    expect(header.includes(leaf.raw)).toBe(true);
    expect(header.readUInt16BE(14)).toBe(header.length - 16);
  });

  test('a name that would not fit is an error, and no header', () => {
    expect(() => proxyHeader('tls', socket({ ...V4, servername: 'x'.repeat(70_000) }), { peer: undefined })).toThrow(RangeError);
  });
});
