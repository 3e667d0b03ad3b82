/** The address of the Workload API: SPIFFE Workload Endpoint §4. The rows without another source are go-spiffe's table of addresses (addr_test.go) and RFC 3986. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { endpointFromEnv, parseEndpoint } from '../../../spiffe/workload-api/endpoint.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';

const taken: readonly [address: string, target: string][] = [
  ['unix:///run/agent/api.sock', 'unix:///run/agent/api.sock'],
  ['unix:/run/agent/api.sock', 'unix:///run/agent/api.sock'],
  ['unix:///a%20b/%C3%A9.sock', 'unix:///a b/é.sock'],
  ['unix:////run/api.sock', 'unix:////run/api.sock'],
  ['UNIX:///run/api.sock', 'unix:///run/api.sock'],
  ['tcp://1.2.3.4:5', 'ipv4:1.2.3.4:5'],
  ['tcp://127.0.0.1:65535', 'ipv4:127.0.0.1:65535'],
  ['tcp://[::1]:8000', 'ipv6:[::1]:8000'],
];
for (const [address, target] of taken) {
  test(`${address} is an endpoint (WE-12, WE-15)`, () => expect(parseEndpoint(address)).toEqual({ target }));
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
  expect(parseEndpoint(`unix://${path}`)).toEqual({ target: `unix://${path}` });
});

test('a refusal says what was seen', () => {
  expect(refusal(() => parseEndpoint('tcp://localhost:8000'))?.message).toBe(
    'Workload API address "tcp://localhost:8000": the host must be an IP address, IPv6 in brackets, saw "localhost"',
  );
});

test('SPIFFE_ENDPOINT_SOCKET is read when nothing is given (WE-10)', () => {
  expect(endpointFromEnv({ SPIFFE_ENDPOINT_SOCKET: 'unix:///run/api.sock' })).toEqual({ target: 'unix:///run/api.sock' });
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
        expect(parseEndpoint(address).target).toMatch(/^(unix:\/\/\/[^\0]*|ipv4:[0-9.]+:[0-9]+|ipv6:\[[0-9a-fA-F:.]+\]:[0-9]+)$/);
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
