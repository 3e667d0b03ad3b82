/** The address of the Workload API: SPIFFE Workload Endpoint §4. The rows without another source are go-spiffe's table of addresses (addr_test.go) and RFC 3986. */
import { isIP } from 'node:net';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Endpoint, endpointFromEnv, parseEndpoint } from '../../../spiffe/workload-api/endpoint.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';

const taken: readonly [address: string, endpoint: Endpoint][] = [
  ['unix:///run/agent/api.sock', { path: '/run/agent/api.sock' }],
  ['unix:/run/agent/api.sock', { path: '/run/agent/api.sock' }],
  ['unix:///a%20b/%C3%A9.sock', { path: '/a b/é.sock' }],
  ['unix:////run/api.sock', { path: '//run/api.sock' }],
  ['UNIX:///run/api.sock', { path: '/run/api.sock' }],
  ['tcp://1.2.3.4:5', { host: '1.2.3.4', port: 5 }],
  ['tcp://127.0.0.1:65535', { host: '127.0.0.1', port: 65535 }],
  ['tcp://[::1]:8000', { host: '::1', port: 8000 }],
];
for (const [address, endpoint] of taken) {
  test(`${address} is an endpoint (WE-12, WE-15)`, () => expect(parseEndpoint(address)).toEqual(endpoint));
}

const refused: readonly [address: string, reason: string, rule: string][] = [
  ['', 'ENDPOINT_SCHEME', 'WE-11'],
  ['\t', 'ENDPOINT_SCHEME', 'WE-11'],
  ['blah', 'ENDPOINT_SCHEME', 'WE-11'],
  ['/run/api.sock', 'ENDPOINT_SCHEME', 'WE-11'],
  [' unix:///run/api.sock', 'ENDPOINT_SCHEME', 'WE-11'],
  ['http://127.0.0.1:80', 'ENDPOINT_SCHEME', 'WE-11'],
  ['npipe:pipeName', 'ENDPOINT_SCHEME', 'WE-11'],
  ['unix-abstract:x', 'ENDPOINT_SCHEME', 'WE-11'],
  ['unix://host/abs/path', 'ENDPOINT_UNIX_AUTHORITY', 'WE-12'],
  ['unix://foo', 'ENDPOINT_UNIX_AUTHORITY', 'WE-12'],
  ['unix://john:doe@foo/path', 'ENDPOINT_UNIX_AUTHORITY', 'WE-12'],
  ['unix:', 'ENDPOINT_UNIX_PATH', 'WE-13'],
  ['unix://', 'ENDPOINT_UNIX_PATH', 'WE-13'],
  ['unix:opaque', 'ENDPOINT_UNIX_PATH', 'WE-13'],
  ['unix:../api.sock', 'ENDPOINT_UNIX_PATH', 'WE-13'],
  ['unix:@abstract', 'ENDPOINT_UNIX_PATH', 'WE-13'],
  ['unix:///a%', 'ENDPOINT_UNIX_PATH', 'WE-13'],
  ['unix:///a%ff', 'ENDPOINT_UNIX_PATH', 'WE-13'],
  ['unix:///a%00b', 'ENDPOINT_UNIX_PATH', 'WE-13'],
  ['unix:///a\nb', 'ENDPOINT_UNIX_PATH', 'WE-13'],
  [`unix:///${'x'.repeat(107)}`, 'ENDPOINT_UNIX_PATH', 'WE-13'],
  ['unix:///p?x', 'ENDPOINT_COMPONENT', 'WE-14'],
  ['unix:///p?', 'ENDPOINT_COMPONENT', 'WE-14'],
  ['unix:///p#f', 'ENDPOINT_COMPONENT', 'WE-14'],
  ['unix://foo?whatever', 'ENDPOINT_COMPONENT', 'WE-14'],
  ['tcp:opaque', 'ENDPOINT_TCP_HOST', 'WE-15'],
  ['tcp://', 'ENDPOINT_TCP_HOST', 'WE-15'],
  ['tcp://foo', 'ENDPOINT_TCP_HOST', 'WE-15'],
  ['tcp://foo:1', 'ENDPOINT_TCP_HOST', 'WE-15'],
  ['tcp://localhost:8000', 'ENDPOINT_TCP_HOST', 'WE-15'],
  ['tcp://::1:8000', 'ENDPOINT_TCP_HOST', 'WE-15'],
  ['tcp://[::1%25lo]:8000', 'ENDPOINT_TCP_HOST', 'WE-15'],
  ['tcp://[::1%lo]:8000', 'ENDPOINT_TCP_HOST', 'WE-15'],
  ['tcp://[127.0.0.1]:8000', 'ENDPOINT_TCP_HOST', 'WE-15'],
  ['tcp://0x7f.1:8000', 'ENDPOINT_TCP_HOST', 'WE-15'],
  ['tcp://1.2.3.4', 'ENDPOINT_TCP_PORT', 'WE-16'],
  ['tcp://1.2.3.4:', 'ENDPOINT_TCP_PORT', 'WE-16'],
  ['tcp://1.2.3.4:0', 'ENDPOINT_TCP_PORT', 'WE-16'],
  ['tcp://1.2.3.4:70000', 'ENDPOINT_TCP_PORT', 'WE-16'],
  ['tcp://1.2.3.4:5x', 'ENDPOINT_TCP_PORT', 'WE-16'],
  ['tcp://1.2.3.4:5/', 'ENDPOINT_COMPONENT', 'WE-17'],
  ['tcp://1.2.3.4:5/path', 'ENDPOINT_COMPONENT', 'WE-17'],
  ['tcp://1.2.3.4:5?whatever', 'ENDPOINT_COMPONENT', 'WE-17'],
  ['tcp://1.2.3.4:5#whatever', 'ENDPOINT_COMPONENT', 'WE-17'],
  ['tcp://u:p@1.2.3.4:5', 'ENDPOINT_COMPONENT', 'WE-17'],
  ['tcp://john:doe@1.2.3.4:5/path', 'ENDPOINT_COMPONENT', 'WE-17'],
];
for (const [address, reason, rule] of refused) {
  test(`${JSON.stringify(address.slice(0, 40))} is refused for ${reason} (${rule})`, () => {
    expect(refusal(() => parseEndpoint(address))).toMatchObject({ code: 'REQUEST_INVALID', reason });
  });
}

test('the longest path that a socket can have is taken', () => {
  const path = `/${'x'.repeat(106)}`;
  expect(parseEndpoint(`unix://${path}`)).toEqual({ path });
});

test('a refusal says what was seen', () => {
  expect(refusal(() => parseEndpoint('tcp://localhost:8000'))?.message).toBe(
    'Workload API address "tcp://localhost:8000": the host must be an IP address, IPv6 in brackets, saw "localhost"',
  );
});

test('SPIFFE_ENDPOINT_SOCKET is read when nothing is given (WE-10)', () => {
  expect(endpointFromEnv({ SPIFFE_ENDPOINT_SOCKET: 'unix:///run/api.sock' })).toEqual({ path: '/run/api.sock' });
  for (const environment of [{}, { SPIFFE_ENDPOINT_SOCKET: '' }]) {
    expect(refusal(() => endpointFromEnv(environment))).toMatchObject({ code: 'REQUEST_INVALID', reason: 'ENDPOINT_MISSING' });
  }
  const malformed = refusal(() => endpointFromEnv({ SPIFFE_ENDPOINT_SOCKET: '/run/api.sock' }));
  expect(malformed?.message).toContain('SPIFFE_ENDPOINT_SOCKET "/run/api.sock"');
});

test('any text is an endpoint or a SpiffeError, and an endpoint never names a host', () => {
  const text = fc.oneof(fc.string({ unit: 'binary' }), fc.stringMatching(/^(unix|tcp):[/a-z0-9.:@%?#[\]]{0,20}$/));
  fc.assert(
    fc.property(text, (address) => {
      try {
        const endpoint = parseEndpoint(address);
        if ('path' in endpoint) expect(endpoint.path).toMatch(/^\/[^\0]*$/);
        else expect([isIP(endpoint.host) > 0, endpoint.port > 0]).toEqual([true, true]);
      } catch (error) {
        if (!(error instanceof SpiffeError)) throw error;
      }
    }),
  );
});

function refusal(work: () => unknown): SpiffeError | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    return error as SpiffeError;
  }
}
