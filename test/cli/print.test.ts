/** SPIRE's words, to the letter; and where a command looks for its socket. */
import { describe, expect, test } from 'vitest';
import { codeName, counted, entryText, harmless, pem, type PrintableEntry, rpcErrorText, utcTime } from '../../cli/print.ts';
import { AGENT, resolveSocket, SERVER } from '../../cli/sockets.ts';

const entry: PrintableEntry = {
  id: 'e1',
  spiffeId: { trustDomain: 'example.org', path: '/web' },
  parentId: { trustDomain: 'example.org', path: '/spire/agent/join_token/x' },
  selectors: [{ type: 'unix', value: 'uid:1000' }],
  x509SvidTtl: 0,
  jwtSvidTtl: 0,
  federatesWith: [],
  admin: false,
  downstream: false,
  expiresAt: 0,
  dnsNames: [],
  revisionNumber: 0,
  storeSvid: false,
  hint: '',
};

describe('an entry', () => {
  test('of few words', () => {
    expect(entryText(entry)).toBe(`Entry ID                : e1
SPIFFE ID               : spiffe://example.org/web
Parent ID               : spiffe://example.org/spire/agent/join_token/x
Revision                : 0
X509-SVID TTL           : default
JWT-SVID TTL            : default
Selector                : unix:uid:1000

`);
  });

  test('with everything', () => {
    const everything: PrintableEntry = {
      ...entry,
      id: '',
      selectors: [
        { type: 'unix', value: 'uid:1' },
        { type: 'unix', value: 'gid:2' },
      ],
      x509SvidTtl: 60,
      jwtSvidTtl: 30,
      federatesWith: ['spiffe://a.test'],
      admin: true,
      downstream: true,
      expiresAt: 1552410266n,
      dnsNames: ['ca1', 'ca2'],
      revisionNumber: '7',
      storeSvid: true,
      hint: 'external',
      additionalAttributes: { disableX509SvidPrefetch: true, jwtSvidIncludeJti: true },
    };
    expect(entryText(everything)).toBe(`Entry ID                : (none)
SPIFFE ID               : spiffe://example.org/web
Parent ID               : spiffe://example.org/spire/agent/join_token/x
Revision                : 7
Downstream              : true
X509-SVID TTL           : 60
JWT-SVID TTL            : 30
Expiration time         : 2019-03-12 17:04:26 +0000 UTC
Selector                : unix:uid:1
Selector                : unix:gid:2
FederatesWith           : spiffe://a.test
DNS name                : ca1
DNS name                : ca2
Admin                   : true
StoreSvid               : true
Hint                    : external
DisableX509SvidPrefetch : true
JwtSvidIncludeJti       : true

`);
  });
});

test('counts, times, codes and failed calls are told as Go tells them', () => {
  expect([0, 1, 2].map((count) => counted(count, 'entry', 'entries'))).toEqual(['0 entries', '1 entry', '2 entries']);
  expect(utcTime(0)).toBe('1970-01-01 00:00:00 +0000 UTC');
  expect([0, 5, 6, 16, 99].map(codeName)).toEqual(['OK', 'NotFound', 'AlreadyExists', 'Unauthenticated', 'Code(99)']);
  expect(rpcErrorText(7, 'no identity issued')).toBe('rpc error: code = PermissionDenied desc = no identity issued');
});

test('what others chose keeps its words and loses its terminal commands', () => {
  expect(harmless('/opt/Größe/日本/web server')).toBe('/opt/Größe/日本/web server');
  expect(harmless('/a\u001b[2J\u009b1m\u007f\n\u2028\u202eb')).toBe('/a\\u{1b}[2J\\u{9b}1m\\u{7f}\\u{a}\\u{2028}\\u{202e}b');
});

test('PEM has lines of 64 characters and ends with a newline', () => {
  expect(pem('CERTIFICATE', Buffer.alloc(60, 0xff))).toBe(
    `-----BEGIN CERTIFICATE-----\n${'/'.repeat(64)}\n${'/'.repeat(16)}\n-----END CERTIFICATE-----\n`,
  );
});

describe('the socket', () => {
  const rows: readonly [what: string, socketPath: string, instance: string, env: Record<string, string>, path: string][] = [
    ['by default', SERVER.preset, '', {}, SERVER.preset],
    [
      'by flag, whatever else is set',
      '/x.sock',
      'i',
      { SPIRE_SERVER_PRIVATE_SOCKET: '/e', SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE: '/%i' },
      '/x.sock',
    ],
    [
      'by instance, every %i of it',
      SERVER.preset,
      'a',
      { SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE: '/%i/%i.sock', SPIRE_SERVER_PRIVATE_SOCKET: '/e' },
      '/a/a.sock',
    ],
    ['by environment', SERVER.preset, '', { SPIRE_SERVER_PRIVATE_SOCKET: '/e', SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE: '/%i' }, '/e'],
  ];
  for (const [what, socketPath, instance, env, path] of rows) {
    test(what, () => expect(resolveSocket(SERVER, { socketPath, instance }, env)).toBe(path));
  }

  test('an instance without a template is refused in the words of each program', () => {
    expect(() => resolveSocket(SERVER, { socketPath: SERVER.preset, instance: 'a' }, {})).toThrow(
      'you must define SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE to use the instance flag',
    );
    expect(() => resolveSocket(AGENT, { socketPath: AGENT.preset, instance: 'a' }, {})).toThrow(
      ' SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE environment variable must be defined when using the instance flag',
    );
    expect(() =>
      resolveSocket(SERVER, { socketPath: SERVER.preset, instance: 'a' }, { SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE: '/x' }),
    ).toThrow('failed to find %i in SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE');
  });
});
