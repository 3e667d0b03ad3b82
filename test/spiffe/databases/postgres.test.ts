/** What comes before TLS with PostgreSQL, and connection strings that would rather have none. */
import { Pool } from 'pg';
import { describe, expect, test } from 'vitest';
import { BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { pgOptions } from '../../../spiffe/databases/postgres.ts';
import { tlsOptions } from '../../../spiffe/databases/tls-options.ts';
import { X509MemorySource } from '../../../spiffe/source/memory-source.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { closing, failure, material, settings, words } from './rig.ts';
import { plainServer, PREFACES, trap } from './trap.ts';
import { DATABASE, PASSWORD, pg, USER } from './ways.ts';

const { shown, source } = await material();
const POLL = { timeout: 10_000 };
const WITH = {
  pgOptions: () => pgOptions(source, settings),
  tlsOptions: () => ({ ssl: tlsOptions(source, settings) }),
} as const;

/** Answers to SSLRequest, and what is said of them: by us; by pg. CVE-2021-23222: what comes with the `S` would be taken for the server's words after TLS. */
const ANSWERS: readonly (readonly [what: string, answer: string, us: string, pg: string])[] = [
  ['that there is no TLS', 'N', 'the server has no TLS', 'does not support SSL'],
  [
    'S and words that are to pass for what comes after TLS',
    'SR\0\0\0\x08\0\0\0\0',
    'sent more than an answer',
    'error establishing an SSL',
  ],
  ['an error', 'E\0\0\0\x08oh\0\0', 'does not answer as PostgreSQL does', 'error establishing an SSL'],
  ['something else', 'HTTP/1.1 400 Bad Request\r\n\r\n', 'does not answer as PostgreSQL does', 'error establishing an SSL'],
];

describe.each(['pgOptions', 'tlsOptions'] as const)('%s', (by) => {
  test.each(ANSWERS)('refuses %s', async (_, answer, us, theirs) => {
    const { port, received } = await plainServer(Buffer.from(answer, 'latin1'));
    const client = closing(pg(WITH[by](), port));
    expect(await failure(client.ask())).toContain(by === 'pgOptions' ? us : theirs);
    expect(Buffer.concat(received).toString('hex')).toBe('0000000804d2162f');
  });
});

/** A server that must be refused, or the right one, dialled by a connection string. */
async function byString(by: keyof typeof WITH, query: string, what: string) {
  const server = await trap(shown(what), PREFACES.postgres);
  const client = pg(
    { connectionString: `postgres://${USER}:${PASSWORD}@localhost:${server.port}/${DATABASE}${query}`, ...WITH[by]() },
    server.port,
  );
  return { server, client: closing(client, () => server.drop()) };
}

const STRINGS = ['', '?sslmode=disable', '?sslmode=no-verify', '?sslmode=require', '?sslmode=verify-full', '?ssl=0', '?ssl=no-verify'];

describe('a connection string beside pgOptions', () => {
  test.each(STRINGS)('`%s` lets no other server in', async (query) => {
    const { server, client } = await byString('pgOptions', query, 'another id');
    expect(await failure(client.ask())).toContain('is not allowed');
    expect(words(server.plain)).toBe('\0\0\0\x08\x04\xd2\x16\x2f');
    expect(words(server.received)).toBe('');
  });

  test.each(['', '?sslmode=disable', '?ssl=0'])('`%s` says nothing of ssl, and the right server is talked to', async (query) => {
    const { server, client } = await byString('pgOptions', query, 'good');
    void failure(client.ask());
    await expect.poll(() => words(server.received), POLL).toContain(USER);
    expect(words(server.plain)).toBe('\0\0\0\x08\x04\xd2\x16\x2f');
  });

  test.each(['?sslmode=require', '?sslmode=no-verify'])('`%s` asks for TLS within TLS, which no server has', async (query) => {
    const { server, client } = await byString('pgOptions', query, 'good');
    void failure(client.ask());
    await expect.poll(() => words(server.received), POLL).toBe('\0\0\0\x08\x04\xd2\x16\x2f');
  });
});

describe('a connection string beside tlsOptions', () => {
  test('without a word of ssl lets no other server in', async () => {
    const { server, client } = await byString('tlsOptions', '', 'another id');
    expect(await failure(client.ask())).toContain('is not allowed');
    expect(words(server.received)).toBe('');
  });

  test.each(['?sslmode=no-verify', '?ssl=no-verify'])('a gap: `%s` takes its place, and any server is talked to', async (query) => {
    const { server, client } = await byString('tlsOptions', query, 'an unknown authority under our name');
    void failure(client.ask());
    await expect.poll(() => words(server.received), POLL).toContain(USER);
  });

  test.each(['?sslmode=disable', '?ssl=0'])('a gap: `%s` takes its place, and there is no TLS', async (query) => {
    const { port, received } = await plainServer('');
    const client = pg(
      { connectionString: `postgres://${USER}:${PASSWORD}@localhost:${port}/${DATABASE}${query}`, ...WITH.tlsOptions() },
      port,
    );
    void failure(client.ask());
    await expect.poll(() => words(received), POLL).toContain(USER);
  });
});

describe('a pool keeps no connection until its SVID ends', () => {
  const DAY_MS = 86_400_000;
  const domain = EphemeralTrustDomain.create('example.org');
  const lifeOf = (source: X509MemorySource, keep = false) => new Pool(pgOptions(source, { ...settings, keep })).options.maxLifetimeSeconds;
  const lasting = (ms: number) => {
    const nowMs = domain.clock.now();
    const svid = domain.x509Svid('/me', { notBeforeMs: nowMs, notAfterMs: nowMs + ms });
    return new X509MemorySource({ svid, bundles: new BundleSet([domain.bundle]) });
  };

  // in whole seconds, as certificates are
  test('but for 30 % of its life', () => expect(lifeOf(lasting(3_600_000))).toBeCloseTo(1_080, 0));
  test('and for a day at most', () => expect(lifeOf(lasting(365 * DAY_MS))).toBe(86_400));
  test('without an SVID nothing is known of its life', () => expect(lifeOf(new X509MemorySource())).toBe(0));
  test('unless connections are to stay', () => expect(lifeOf(lasting(3_600_000), true)).toBe(0));
});
