/** Every form in which the Workload API's address comes, and which counts. */
import { describe, expect, test } from 'vitest';
import { systemClock } from '../../../spiffe/clock.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi } from '../../../spiffe/testing/workload-api.ts';
import { addressOf, choose, endpointsOf } from '../../../proxy/helper/endpoint.ts';

const forms: readonly (readonly [written: string, address: string])[] = [
  ['/run/agent/api.sock', 'unix:///run/agent/api.sock'],
  ['/run/an agent/a#b%c.sock', 'unix:///run/an%20agent/a%23b%25c.sock'],
  ['api.sock', `unix://${process.cwd().split('/').map(encodeURIComponent).join('/')}/api.sock`],
  ['unix:/run/agent/api.sock', 'unix:/run/agent/api.sock'],
  ['unix:///run/agent/api.sock', 'unix:///run/agent/api.sock'],
  ['tcp://127.0.0.1:8000', 'tcp://127.0.0.1:8000'],
  ['tcp://[::1]:8000', 'tcp://[::1]:8000'],
];
const malformed = ['unix://run/api.sock', 'unix:api.sock', 'tcp://localhost:8000', 'tcp://127.0.0.1', 'http://127.0.0.1:8000', 'npipe://x'];

describe('HP-5 an address', () => {
  for (const [written, address] of forms) test(`${written} is taken`, () => expect(addressOf(written)).toBe(address));
  for (const written of malformed)
    test(`${written} is refused`, () => expect(() => addressOf(written)).toThrow(expect.objectContaining({ code: 'REQUEST_INVALID' })));
});

describe('HP-5 which address counts', () => {
  const env = { SPIFFE_ENDPOINT: 'unix:///a,unix:///b', SPIFFE_ENDPOINT_SOCKET: 'unix:///c' };
  const rows: readonly (readonly [
    what: string,
    configured: string | undefined,
    env: Record<string, string>,
    addresses: string[],
    skipped?: string[],
  ])[] = [
    ['the file’s, before the environment’s', '/file', env, ['unix:///file']],
    ['SPIFFE_ENDPOINT’s, in their order, before SPIFFE_ENDPOINT_SOCKET’s', undefined, env, ['unix:///a', 'unix:///b']],
    ['SPIFFE_ENDPOINT_SOCKET’s', undefined, { SPIFFE_ENDPOINT_SOCKET: 'unix:///c' }, ['unix:///c']],
    ['SPIFFE_ENDPOINT_SOCKET’s bare path', undefined, { SPIFFE_ENDPOINT_SOCKET: '/c' }, ['unix:///c']],
    ['SPIRE’s default', undefined, {}, ['unix:///tmp/spire-agent/public/api.sock']],
    [
      'SPIRE’s default, of empty variables',
      undefined,
      { SPIFFE_ENDPOINT: ' ', SPIFFE_ENDPOINT_SOCKET: '' },
      ['unix:///tmp/spire-agent/public/api.sock'],
    ],
    [
      'those of a list that are ours, spaces around them and all',
      undefined,
      { SPIFFE_ENDPOINT: 'file:///creds , tcp://127.0.0.1:1,, broker:x , UNIX:///d' },
      ['tcp://127.0.0.1:1', 'UNIX:///d'],
      ['file:///creds', 'broker:x'],
    ],
  ];
  for (const [what, configured, variables, addresses, skipped = []] of rows)
    test(what, () => expect(endpointsOf(configured, variables)).toEqual({ addresses, skipped }));

  test('a list in which nothing is ours, or something is malformed, is refused', () => {
    for (const list of ['file:///creds', 'unix:///a,tcp://name:1'])
      expect(() => endpointsOf(undefined, { SPIFFE_ENDPOINT: list })).toThrow(expect.objectContaining({ code: 'REQUEST_INVALID' }));
  });
});

test('HP-5 of a list the first address that answers is used, as soon as one does', async () => {
  const td = EphemeralTrustDomain.create('example.org');
  await using first = new FakeWorkloadApi(td);
  await using second = await FakeWorkloadApi.start(td);
  const { signal } = new AbortController();
  expect(await choose([first.address, second.address], systemClock, signal)).toBe(second.address);
  await first.start();
  expect(await choose([first.address, second.address], systemClock, signal)).toBe(first.address);
  await first.stop();
  await second.stop();
  const choosing = choose([first.address, second.address], systemClock, signal);
  await second.start();
  expect(await choosing).toBe(second.address);
});
