/** Addresses as a proxy's flags and files write them: `HOST:PORT`, `unix:PATH`, `systemd:NAME`, and the URL of a proxy on the way. Each parser throws SETTINGS_INVALID. */
import { isIP, isIPv4 } from 'node:net';
import { fail } from '../core/errors.ts';
import type { Address, ListenAddress, ViaProxy } from './settings.ts';

/** Of a status port: `plain` is `http://`, undefined what fits. */
export interface StatusAddress {
  readonly listen: ListenAddress;
  readonly scheme: 'http' | 'https' | undefined;
}

type TcpAddress = Extract<Address, { readonly kind: 'tcp' }>;

/** Without a host: on all addresses of the machine. Port 0: the system chooses. */
export function parseListenAddress(text: string): ListenAddress {
  const [kind, rest] = split(text);
  if (kind === 'unix') return unixAddress(rest, text);
  if (kind === 'launchd') throw invalid(text, LAUNCHD);
  if (kind === 'systemd') {
    if (!/^[^:\s]{1,255}$/.test(rest))
      throw invalid(text, 'wants the name of a socket, FileDescriptorName= of its unit, as in systemd:web');
    return { kind: 'systemd', name: rest };
  }
  return tcpAddress(text, { anyHost: true, leastPort: 0 });
}

export function parseTargetAddress(text: string): Address {
  const [kind, rest] = split(text);
  if (kind === 'unix') return unixAddress(rest, text);
  return parseTcpTarget(text);
}

export function parseTcpTarget(text: string): TcpAddress {
  const [kind] = split(text);
  if (kind === 'unix') throw invalid(text, 'TLS goes to HOST:PORT');
  if (kind !== undefined) throw invalid(text, `${kind}: is for sockets to listen on; nothing can be dialled there`);
  return tcpAddress(text, { anyHost: false, leastPort: 1 });
}

/** `[http(s)://]HOST:PORT`, `unix:PATH`, `systemd:NAME`. */
export function parseStatusAddress(text: string): StatusAddress {
  const [, scheme, rest = ''] = /^(https?):\/\/([\s\S]*)$/.exec(text) ?? [undefined, undefined, text];
  const listen = parseListenAddress(scheme === undefined ? text : rest.replace(/\/$/, ''));
  if (scheme !== undefined && listen.kind !== 'tcp') throw invalid(text, `${scheme}:// goes with HOST:PORT only`);
  return { listen, scheme: scheme as StatusAddress['scheme'] };
}

/** `http://[user:password@]HOST[:PORT]` (CONNECT) or `socks5://…`. */
export function parseViaProxy(text: string): ViaProxy {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  // the text may hold a password
  const refuse = (why: string) => fail('SETTINGS_INVALID', `the URL of the proxy on the way ${why}`);
  if (!url) throw refuse('is none: http://HOST:PORT or socks5://HOST:PORT');
  const [kind, preset] = VIA[url.protocol] ?? [];
  if (!kind || preset === undefined) throw refuse(`begins with ${JSON.stringify(url.protocol)}: it must begin with http:// or socks5://`);
  if (url.hostname === '') throw refuse('names no host');
  if (!/^\/?$/.test(url.pathname) || url.search || url.hash) throw refuse('must end after the port');
  return {
    kind,
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? preset : Number(url.port),
    user: url.username === '' ? undefined : decodeURIComponent(url.username),
    password: url.password === '' ? undefined : decodeURIComponent(url.password),
  };
}

const VIA: Readonly<Record<string, readonly [kind: ViaProxy['kind'], port: number]>> = {
  'http:': ['http', 80],
  'socks5:': ['socks5', 1080],
  'socks5h:': ['socks5', 1080],
};

/** Whether nobody outside of this machine can be at the other end. */
/** An address, or a network in CIDR notation, as it was written. */
export function parseNetwork(text: string): string {
  const [address = '', bits, more] = text.split('/');
  const family = isIP(address);
  if (family === 0 || more !== undefined || (bits !== undefined && !(/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128))))
    throw fail('SETTINGS_INVALID', `${JSON.stringify(text)}: expected an IP address or a network, such as 10.0.0.0/8`);
  return text;
}

export function isLocal(address: ListenAddress): boolean {
  // who opened systemd's socket has chosen its address
  if (address.kind !== 'tcp') return true;
  const { host } = address;
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

const LAUNCHD = 'launchd is of macOS, and this program runs on Linux: use systemd:NAME, HOST:PORT or unix:PATH';

function split(text: string): readonly [kind: 'unix' | 'systemd' | 'launchd' | undefined, rest: string] {
  const [, kind, rest = ''] = /^(unix|systemd|launchd):([\s\S]*)$/.exec(text) ?? [];
  return kind === undefined ? [undefined, text] : [kind as 'unix', rest];
}

/** The kernel keeps 108 bytes, the last of which is zero. */
const MAX_PATH_BYTES = 107;

function unixAddress(path: string, text: string): Address {
  if (path === '' || path.includes('\0')) throw invalid(text, 'wants a path, as in unix:/run/web.sock');
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) throw invalid(text, `the path of a socket has at most ${MAX_PATH_BYTES} bytes`);
  return { kind: 'unix', path };
}

function tcpAddress(text: string, { anyHost, leastPort }: { readonly anyHost: boolean; readonly leastPort: number }): TcpAddress {
  const [, v6, name = '', digits = ''] = /^(?:\[([^\]]*)\]|([^:[\]]*)):([0-9]{1,5})$/.exec(text) ?? [];
  const host = v6 ?? name;
  const port = digits === '' ? Number.NaN : Number(digits);
  if (!(port >= leastPort && port <= 65_535)) throw invalid(text, `expected HOST:PORT with a port of ${leastPort} to 65535`);
  if (v6 !== undefined && isIP(v6.split('%')[0] ?? '') !== 6) throw invalid(text, 'what stands in brackets must be an IPv6 address');
  if (v6 === undefined && host !== '' && !isIPv4(host) && !/^[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?$/.test(host))
    throw invalid(text, 'expected HOST:PORT with the name or the address of a host');
  if (host !== '') return { kind: 'tcp', host, port };
  if (anyHost) return { kind: 'tcp', host: '::', port };
  throw invalid(text, 'names no host');
}

function invalid(text: string, why: string): Error {
  return fail('SETTINGS_INVALID', `${JSON.stringify(text)}: ${why}`);
}
