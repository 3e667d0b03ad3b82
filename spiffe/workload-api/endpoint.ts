/** The address of the Workload API (SPIFFE Workload Endpoint §4): `unix:///path` or `tcp://ip:port`, given or from the environment. */
import { isIPv4, isIPv6 } from 'node:net';
import { type Reason, SpiffeError } from '../errors.ts';

/** Names no host: nothing is ever looked up. */
export type Endpoint = { readonly path: string } | { readonly host: string; readonly port: number };

export const ENDPOINT_VARIABLE = 'SPIFFE_ENDPOINT_SOCKET';

/** sun_path, with its NUL: a longer one would be cut by some systems, and name another socket. */
const MAX_PATH_BYTES = 107;
const SCHEME = /^([A-Za-z][A-Za-z0-9+.-]*):(.*)$/s;

/** The endpoint that SPIFFE_ENDPOINT_SOCKET names (WE-10). Throws REQUEST_INVALID when it is unset, empty or malformed. */
export function endpointFromEnv(environment: Readonly<Record<string, string | undefined>> = process.env): Endpoint {
  const text = environment[ENDPOINT_VARIABLE];
  if (text === undefined || text === '') {
    throw new SpiffeError(
      'REQUEST_INVALID',
      'ENDPOINT_MISSING',
      `no Workload API address: ${ENDPOINT_VARIABLE} is ${text === '' ? 'empty' : 'not set'}, and no address was given; such as unix:///run/agent/api.sock`,
    );
  }
  return parse(text, ENDPOINT_VARIABLE);
}

/** An address as the specification writes it. @param text such as `unix:///run/agent/api.sock` or `tcp://127.0.0.1:8000`. Throws REQUEST_INVALID. */
export function parseEndpoint(text: string): Endpoint {
  return parse(text, 'Workload API address');
}

function parse(text: string, what: string): Endpoint {
  const refuse = (reason: Reason, why: string) => {
    const seen = text.length > 200 ? `${JSON.stringify(text.slice(0, 200))}…` : JSON.stringify(text);
    return new SpiffeError('REQUEST_INVALID', reason, `${what} ${seen}: ${why}`);
  };
  // RFC 3986 §3.1: a scheme is written in either case.
  const [, scheme = '', rest = ''] = SCHEME.exec(text) ?? [];
  switch (scheme.toLowerCase()) {
    case 'unix':
      return { path: unixPath(rest, refuse) };
    case 'tcp':
      return tcpAddress(rest, refuse);
    default:
      throw refuse('ENDPOINT_SCHEME', `the scheme must be unix or tcp, saw ${scheme === '' ? 'none' : JSON.stringify(scheme)}`);
  }
}

type Refuse = (reason: Reason, why: string) => SpiffeError;

function unixPath(rest: string, refuse: Refuse): string {
  noMore(rest, 'a unix address has a path and nothing else', refuse);
  const [authority, encoded] = hierarchy(rest);
  if (authority !== undefined && authority !== '') {
    throw refuse(
      'ENDPOINT_UNIX_AUTHORITY',
      `a unix address has no host, saw ${JSON.stringify(authority)}; three slashes begin a path: unix:///path`,
    );
  }
  if (encoded === '') throw refuse('ENDPOINT_UNIX_PATH', 'the path is missing');
  if (!encoded.startsWith('/')) throw refuse('ENDPOINT_UNIX_PATH', `the path must be absolute, saw ${JSON.stringify(encoded)}`);
  let path: string;
  try {
    path = decodeURIComponent(encoded);
  } catch {
    throw refuse('ENDPOINT_UNIX_PATH', 'the path has a malformed percent-encoding');
  }
  if (/\p{Cc}/u.test(path)) throw refuse('ENDPOINT_UNIX_PATH', 'the path has a control character');
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) throw refuse('ENDPOINT_UNIX_PATH', `the path is longer than ${MAX_PATH_BYTES} bytes`);
  return path;
}

function tcpAddress(rest: string, refuse: Refuse): Endpoint {
  noMore(rest, 'a tcp address has an IP and a port and nothing else', refuse);
  const [authority, path] = hierarchy(rest);
  if (authority === undefined) throw refuse('ENDPOINT_TCP_HOST', 'two slashes begin the host: tcp://127.0.0.1:8000');
  if (path !== '') throw refuse('ENDPOINT_COMPONENT', `a tcp address has no path, saw ${JSON.stringify(path)}`);
  if (authority.includes('@')) throw refuse('ENDPOINT_COMPONENT', 'a tcp address has no user');
  const [, bracketed, plain = '', port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(.*))?$/s.exec(authority) ?? [];
  const host = bracketed ?? plain;
  // a zone (%eth0) is no part of an IP address in a URI
  const known = bracketed === undefined ? isIPv4(host) : isIPv6(host) && !host.includes('%');
  if (!known)
    throw refuse('ENDPOINT_TCP_HOST', `the host must be an IP address, IPv6 in brackets, saw ${JSON.stringify(host || authority)}`);
  if (port === undefined) throw refuse('ENDPOINT_TCP_PORT', 'the port is missing');
  if (!/^[1-9][0-9]{0,4}$/.test(port) || Number(port) > 65_535) {
    throw refuse('ENDPOINT_TCP_PORT', `the port must be a number from 1 to 65535, saw ${JSON.stringify(port)}`);
  }
  return { host, port: Number(port) };
}

function noMore(rest: string, why: string, refuse: Refuse): void {
  const stranger = /[?#]/.exec(rest)?.[0];
  if (stranger) throw refuse('ENDPOINT_COMPONENT', `${why}, saw a ${stranger === '?' ? 'query' : 'fragment'}`);
}

/** Authority (undefined without the two slashes) and path. */
function hierarchy(rest: string): [authority: string | undefined, path: string] {
  if (!rest.startsWith('//')) return [undefined, rest];
  const slash = rest.indexOf('/', 2);
  return slash < 0 ? [rest.slice(2), ''] : [rest.slice(2, slash), rest.slice(slash)];
}
