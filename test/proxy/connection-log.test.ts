/** Lines about connections: what stands in them, which are held back, and that nobody's words forge one. */
import { describe, expect, test } from 'vitest';
import { createProxyLog } from '../../cli/proxy-log.ts';
import { NOBODY } from '../../proxy/access.ts';
import type { Connection } from '../../proxy/connection.ts';
import { connectionLog, type ConnectionLogOptions, fieldsOf } from '../../proxy/connection-log.ts';
import { parseUriPattern } from '../../proxy/uri-pattern.ts';
import { systemClock } from '../../spiffe/clock.ts';
import { FakeClock } from '../fakes/clock.ts';
import { ask, backend, client, dial, hear, memorySource, server } from './rig.ts';
import { INTENTIONS, intentionFile } from './traffic.ts';

interface Line {
  readonly level: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

function log(options: Partial<ConnectionLogOptions> = {}) {
  const lines: Line[] = [];
  const observer = connectionLog({
    log: { line: (level, message, fields) => void lines.push({ level, message, fields }) },
    clock: systemClock,
    connections: 'all',
    quiet: new Set(),
    format: 'json',
    ...options,
  });
  return { lines, observers: observer ? [observer] : [] };
}

/** One good connection, one whose client is a stranger, one that is no TLS, one whose target is gone. */
async function traffic(observers: ReturnType<typeof log>['observers']) {
  const behind = await backend();
  const access = { ...NOBODY, uris: [parseUriPattern('spiffe://example.org/web')] };
  const inbound = await server(behind.port, memorySource('/db'), { access }, { observers });
  const good = await client(inbound.port, memorySource('/web'));
  expect(await ask(good.port, 'hello')).toBe('hello');
  await inbound.end((one) => one.reason === 'CLOSED');
  const stranger = await client(inbound.port, memorySource('/stranger'));
  await ask(stranger.port, 'hello');
  await inbound.end((one) => one.reason === 'POLICY_DENIED');
  const plain = await dial(inbound.port);
  plain.end('GET / HTTP/1.1\r\n\r\n');
  await hear(plain);
  await inbound.end((one) => one.reason === 'TLS_HANDSHAKE');
  behind.server.close();
  for (const socket of behind.sockets) socket.destroy();
  await ask(good.port, 'hello');
  await inbound.end((one) => one.reason === 'UPSTREAM_CONNECT');
}

test('one line for each connection: verdict, reason, who, by what, how much, how long', async () => {
  const { lines, observers } = log();
  await traffic(observers);
  expect(lines.map(({ level, message, fields }) => [level, message, fields['verdict'], fields['reason']])).toEqual([
    ['info', 'closed pipe', 'allowed', 'CLOSED'],
    ['warn', 'error on TLS handshake', 'denied', 'POLICY_DENIED'],
    ['warn', 'error on TLS handshake', 'failed', 'TLS_HANDSHAKE'],
    ['error', 'error on dial', 'failed', 'UPSTREAM_CONNECT'],
  ]);
  const [good, stranger, plain] = lines.map(({ fields }) => fields);
  expect(good).toMatchObject({
    listener: 'in',
    mode: 'server',
    fault: 'none',
    peer: 'spiffe://example.org/web',
    own: 'spiffe://example.org/db',
    tls: 'TLSv1.3',
    by: 'URI spiffe://example.org/web',
    bytes_up: 5,
    bytes_down: 5,
  });
  for (const name of [
    'from',
    'target',
    'handshake_ms',
    'duration_ms',
    'peer_serial',
    'peer_expires_at',
    'own_serial',
    'own_expires_at',
    'connection',
  ])
    expect(good).toHaveProperty(name);
  expect(stranger).toMatchObject({ peer: 'spiffe://example.org/stranger', fault: 'policy' });
  expect(stranger).not.toHaveProperty('bytes_up');
  expect(plain).not.toHaveProperty('peer');
});

describe('which are told', () => {
  const told = async (options: Partial<ConnectionLogOptions>) => {
    const { lines, observers } = log(options);
    await traffic(observers);
    return lines.map(({ message }) => message);
  };
  test.each([
    ['errors alone', { connections: 'errors' }, ['error on TLS handshake', 'error on TLS handshake', 'error on dial']],
    ['none', { connections: 'off' }, []],
    ['--quiet=all: none', { quiet: new Set(['all']) }, []],
    ['--quiet=conns', { quiet: new Set(['conns']) }, ['error on TLS handshake', 'error on TLS handshake', 'error on dial']],
    ['--quiet=conn-errs', { quiet: new Set(['conn-errs']) }, ['closed pipe', 'error on TLS handshake', 'error on TLS handshake']],
    ['--quiet=handshake-errs', { quiet: new Set(['handshake-errs']) }, ['closed pipe', 'error on dial']],
    [
      "as text the beginning, too, in ghostunnel's words",
      { format: 'text' },
      ['opening pipe', 'closed pipe', 'error on TLS handshake', 'error on TLS handshake', 'error on dial'],
    ],
  ] as const)('%s', async (_, options, messages) => {
    expect(await told(options as Partial<ConnectionLogOptions>)).toEqual(messages);
  });
});

test('the intention that decided is named, whether it allowed, refused or is in trial', async () => {
  const { lines, observers } = log();
  const behind = await backend();
  const intentions = await intentionFile(INTENTIONS);
  const inbound = await server(behind.port, memorySource('/db'), { access: NOBODY }, { observers, intentions });
  for (const path of ['/web', '/stranger']) {
    const { port } = await client(inbound.port, memorySource(path));
    await ask(port, 'x');
  }
  await inbound.end((one) => one.reason === 'POLICY_DENIED');
  const { version } = intentions.intentions;
  expect(lines.map(({ fields }) => [fields['verdict'], fields['intention'], fields['shadow'], fields['policy_version']])).toEqual([
    ['allowed', 'all-db', 'no-web', version],
    ['denied', 'not-this', undefined, version],
  ]);
});

describe('nobody forges a line', () => {
  const hostile = 'x\n{"level":"error","msg":"forged"}\u2028\u001b[2J\u202egpj.exe" verdict=allowed';
  const refused = {
    id: '1',
    listener: 'in',
    mode: 'server',
    from: '192.0.2.1:1',
    target: 't',
    opened: false,
    fault: 'client',
    reason: 'CERTIFICATE_REFUSED',
    peer: { id: undefined, leaf: { subjectText: `CN=${hostile}`, serialHex: '01', notAfterMs: 0 } },
    error: new Error(hostile),
  };
  const connection = refused as unknown as Connection;
  const failed = (error: Error) => fieldsOf({ ...refused, error } as unknown as Connection)['error'];

  test.each(['text', 'json'] as const)('%s', (format) => {
    let written = '';
    const out = { writableLength: 0, write: (line: string) => (written += line) };
    const observer = connectionLog({
      log: createProxyLog({ format, priorities: false, silent: false, clock: systemClock, out }),
      clock: systemClock,
      connections: 'all',
      quiet: new Set(),
      format,
    });
    observer?.ended?.(connection);
    expect(written.split('\n')).toHaveLength(2);
    expect(written.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}]/u);
    expect(written).toContain('forged');
    if (format === 'json')
      expect(JSON.parse(written)).toMatchObject({ level: 'warning', msg: 'error on TLS handshake', verdict: 'denied' });
    else expect(written).toMatch(/^time="[^"]*" level=warning msg="error on TLS handshake"/);
  });

  test('a lack of descriptors is told in the words that are looked for', () => {
    const error = Object.assign(new Error('connect EMFILE 127.0.0.1:80'), { code: 'EMFILE' });
    expect(failed(error)).toMatch(/too many open files$/);
    expect(failed(new Error('x'))).toBe('x');
  });

  test('a value of a megabyte is cut', () => {
    expect(String(failed(new Error('y'.repeat(1_000_000)))).length).toBeLessThan(3_000);
  });
});

test('a storm of failures is told in a hundred lines and a count, also when it is over; another reason is told all the same', async () => {
  const clock = new FakeClock();
  const { lines, observers } = log({ clock });
  const fails = (reason: string, fault: string) =>
    observers[0]?.ended?.({ id: '1', mode: 'server', opened: false, reason, fault, from: '', target: '' } as unknown as Connection);
  for (let n = 0; n < 10_000; n++) fails('TLS_HANDSHAKE', 'client');
  fails('UPSTREAM_CONNECT', 'upstream');
  expect(lines).toHaveLength(101);
  await clock.advance(10_000);
  expect(lines).toHaveLength(102);
  expect(lines.at(-1)?.fields).toEqual({ reason: 'TLS_HANDSHAKE', fault: 'client', count: 9_900 });
  await clock.advance(20_000);
  expect(lines).toHaveLength(102);
  fails('TLS_HANDSHAKE', 'client');
  expect(lines).toHaveLength(103);
});
