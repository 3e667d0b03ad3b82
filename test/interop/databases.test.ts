/**
 * Real databases, SVIDs of 20 s from our server and agents on both ends. The database has its SVID in files, the client by the SDK. PostgreSQL by client certificate,
 * Redis and MariaDB by theirs; pools go on while every certificate changes. Kafka and MongoDB have no package in Debian: see test/spiffe/databases.
 */
import { Redis } from 'ioredis';
import { createConnection, createPool } from 'mysql2/promise';
import { Client, Pool, type PoolConfig } from 'pg';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { ioredisOptions } from '../../spiffe/databases/redis.ts';
import { pgOptions } from '../../spiffe/databases/postgres.ts';
import { mysql2Options, tlsOptions } from '../../spiffe/databases/tls-options.ts';
import { matchId } from '../../spiffe/match.ts';
import type { X509Identity } from '../../spiffe/source/x509-identity.ts';
import { X509Source } from '../../spiffe/source/x509-source.ts';
import { type Agent, createRunningHouse, type House } from '../e2e/house.ts';
import { pause } from '../spiffe/tls/wrappers.ts';
import { type Database, startMariadb, startPostgres, startRedis } from './databases-servers.ts';

/** Each certificate of 20 s changes at least twice in it. */
const SECONDS = Number(process.env['WARIFU_DATABASES_SECONDS'] ?? 45);
const DATABASE_ID = 'spiffe://example.org/postgres';
const authorize = matchId(DATABASE_ID);
/** What our server writes for an entry whose first DNS name is this. */
const subject = (commonName: string) => `/C=US/O=SPIRE/CN=${commonName}`;

let house: House;
let applications: Agent;
/** Of the database, of the application that may, and of one that may not. */
let database: X509Source;
let orders: X509Source;
let intruder: X509Source;
let postgres: Database;
let redis: Database;
let mariadb: Database;

const openSource = (agent: Agent, hint: string) =>
  X509Source.open({ address: agent.address, hint, backoff: () => 100, signal: AbortSignal.timeout(30_000) });

beforeAll(async () => {
  let databases: Agent;
  ({ house, agent: databases } = await createRunningHouse({ x509SvidTtl: '20s' }));
  applications = await house.createAgent('applications');
  await applications.start();
  const selectors = [`unix:path:${process.execPath}`];
  // the name that clients dial
  await house.createEntry({ id: '/postgres', parent: databases, selectors, hint: 'database', more: ['-dns', 'localhost'] });
  await house.createEntry({ id: '/intruder', parent: databases, selectors, hint: 'intruder', more: ['-dns', 'intruder.example.org'] });
  await house.createEntry({ id: '/orders', parent: applications, selectors, hint: 'orders', more: ['-dns', 'orders.example.org'] });
  [database, intruder, orders] = await Promise.all([
    openSource(databases, 'database'),
    openSource(databases, 'intruder'),
    openSource(applications, 'orders'),
  ]);
  postgres = await startPostgres(database, {
    ident: ['spiffe  orders.example.org    orders', 'spiffe  intruder.example.org  guest'],
    setup: ['CREATE ROLE orders LOGIN', 'CREATE ROLE guest LOGIN', 'CREATE TABLE seen (n int)', 'GRANT ALL ON seen TO orders'],
  });
  redis = await startRedis(database);
  mariadb = await startMariadb(database, [
    `CREATE USER orders@'%' REQUIRE SUBJECT '${subject('orders.example.org')}'`,
    `CREATE USER anybody@'%' REQUIRE X509`,
  ]);
});
afterAll(async () => {
  for (const one of [postgres, redis, mariadb]) await one?.close();
  for (const one of [database, orders, intruder]) await one?.close();
  await house?.close();
});

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'no error',
    (error: unknown) => error,
  );

const WAYS = {
  pgOptions: (source: X509Identity, who = authorize): PoolConfig => pgOptions(source, { authorize: who }),
  tlsOptions: (source: X509Identity, who = authorize): PoolConfig => ({ ssl: tlsOptions(source, { authorize: who }) }),
} as const;

describe.each(Object.entries(WAYS))('PostgreSQL by %s', (_, way) => {
  const query = async (options: PoolConfig, user = 'orders') => {
    const client = new Client({ host: 'localhost', port: postgres.port, user, database: 'postgres', ...options });
    client.on('error', () => {});
    try {
      await client.connect();
      const { rows } = await client.query<{
        readonly user: string;
        readonly ssl: boolean;
        readonly version: string;
        readonly client_dn: string;
      }>('SELECT current_user AS user, ssl, version, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()');
      return rows[0];
    } finally {
      await client.end();
    }
  };

  test('takes the CN of our SVID for the user that it is mapped to, and sees the subject alone, never the SPIFFE ID', async () => {
    expect(await query(way(orders))).toEqual({ user: 'orders', ssl: true, version: 'TLSv1.3', client_dn: subject('orders.example.org') });
  });

  test('refuses a CN that is mapped to another user, and takes it for that one', async () => {
    expect(await failure(query(way(intruder)))).toMatchObject({
      message: expect.stringContaining('certificate authentication failed for user "orders"') as string,
    });
    expect(await query(way(intruder), 'guest')).toMatchObject({ user: 'guest', client_dn: subject('intruder.example.org') });
  });

  test('is refused by us when it is another than we want, before it hears who we are', async () => {
    const from = postgres.process.lines.items.length;
    const error = await failure(query(way(orders, matchId('spiffe://example.org/elsewhere'))));
    expect(error).toMatchObject({ code: 'DENIED', reason: 'ID_NOT_ALLOWED' });
    await query(way(orders));
    await postgres.process.line(/connection authorized: user=orders/, { from, withinMs: 10_000 });
    expect(postgres.process.lines.items.slice(from).filter((line) => /user=/.test(line))).toHaveLength(1);
  });
});

test('PostgreSQL takes no connection over TCP without a certificate, nor one in plain', async () => {
  const to = { host: 'localhost', port: postgres.port, user: 'orders', database: 'postgres' };
  const ca = orders.x509Bundle(orders.svid.id.trustDomain)?.toPem() ?? '';
  const bare = new Client({ ...to, ssl: { ca } });
  bare.on('error', () => {});
  expect(await failure(bare.connect())).toMatchObject({
    message: expect.stringContaining('requires a valid client certificate') as string,
  });
  const plain = new Client(to);
  expect(await failure(plain.connect())).toMatchObject({ message: expect.stringContaining('no pg_hba.conf entry') as string });
});

test('the example of the README: a pool by PGHOST and PGUSER', async () => {
  const before = { ...process.env };
  Object.assign(process.env, {
    SPIFFE_ENDPOINT_SOCKET: applications.address,
    PGHOST: 'localhost',
    PGPORT: String(postgres.port),
    PGUSER: 'orders',
    PGDATABASE: 'postgres',
  });
  onTestFinished(() => void (process.env = before));
  const example = await import('../spiffe/examples/postgres.ts');
  const { rows } = await example.pool.query<{ readonly user: string }>('SELECT current_user AS user');
  expect(rows).toEqual([{ user: 'orders' }]);
  await example.pool.end();
  await example.source.close();
});

describe('Redis by ioredisOptions', () => {
  const client = (source: X509Identity, who = authorize) => {
    const one = new Redis({
      host: 'localhost',
      port: redis.port,
      retryStrategy: null,
      lazyConnect: true,
      ...ioredisOptions(source, { authorize: who }),
    });
    one.on('error', () => {});
    onTestFinished(() => one.disconnect());
    return one;
  };

  test('answers us', async () => {
    expect(await client(orders).ping()).toBe('PONG');
  });

  test('is refused by us when it is another than we want', async () => {
    const one = client(orders, matchId('spiffe://example.org/elsewhere'));
    const told = new Promise((done) => one.once('error', done));
    await failure(one.connect());
    expect(await told).toMatchObject({ code: 'DENIED', reason: 'ID_NOT_ALLOWED' });
  });

  test('refuses who shows no certificate', async () => {
    const from = redis.process.lines.items.length;
    const ca = orders.x509Bundle(orders.svid.id.trustDomain)?.toPem() ?? '';
    const one = new Redis({ host: 'localhost', port: redis.port, tls: { ca }, retryStrategy: null, lazyConnect: true });
    one.on('error', () => {});
    onTestFinished(() => one.disconnect());
    // what the client hears of it depends on what comes first, the alert or the end of the connection
    expect(await failure(one.connect())).toBeInstanceOf(Error);
    await redis.process.line(/peer did not return a certificate/, { from, withinMs: 10_000 });
  });
});

describe('MariaDB by mysql2Options', () => {
  const who = async (source: X509Identity, user: string) => {
    const one = await createConnection({ host: 'localhost', port: mariadb.port, user, ssl: mysql2Options(source) });
    try {
      const [rows] = await one.query(
        "SELECT CURRENT_USER() AS user, VARIABLE_VALUE AS version FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'Ssl_version'",
      );
      return rows;
    } finally {
      await one.end();
    }
  };

  test('takes us for the user of our subject', async () => {
    expect(await who(orders, 'orders')).toEqual([{ user: 'orders@%', version: 'TLSv1.3' }]);
  });

  test('refuses another subject for that user, and takes it where any certificate will do', async () => {
    expect(await failure(who(intruder, 'orders'))).toMatchObject({ code: 'ER_ACCESS_DENIED_ERROR' });
    expect(await who(intruder, 'anybody')).toEqual([{ user: 'anybody@%', version: 'TLSv1.3' }]);
  });
});

test(
  `no query of ${SECONDS} s fails while every SVID of 20 s changes: pools of pg, ioredis and mysql2`,
  async () => {
    const started = performance.now();
    const goesOn = () => performance.now() - started < SECONDS * 1_000;
    const failures: string[] = [];
    const svids = new Set<string>();
    const off = orders.onChange(() => void svids.add(orders.svid.leaf.sha256));
    const reloadsBefore = [postgres, redis, mariadb].map(({ reloads }) => reloads);

    const pools = Object.fromEntries(
      Object.entries(WAYS).map(([name, way]) => {
        const pool = new Pool({ host: 'localhost', port: postgres.port, user: 'orders', database: 'postgres', max: 4, ...way(orders) });
        pool.on('error', (error) => failures.push(`${name}, idle: ${error.message}`));
        return [name, pool] as const;
      }),
    );
    const cache = new Redis({ host: 'localhost', port: redis.port, retryStrategy: () => 20, ...ioredisOptions(orders, { authorize }) });
    cache.on('error', (error) => failures.push(`ioredis: ${error.message}`));
    const sql = createPool({ host: 'localhost', port: mariadb.port, user: 'orders', connectionLimit: 4, ssl: mysql2Options(orders) });
    const questions: Readonly<Record<string, () => Promise<unknown>>> = {
      ...Object.fromEntries(Object.entries(pools).map(([name, pool]) => [name, () => pool.query('INSERT INTO seen VALUES (1)')])),
      ioredis: () => cache.incr('seen'),
      mysql2: () => sql.query('SELECT 1'),
    };
    const answers: Record<string, number> = {};
    await Promise.all(
      Object.entries(questions).flatMap(([name, ask]) =>
        Array.from({ length: 4 }, async () => {
          while (goesOn()) {
            try {
              await ask();
              answers[name] = (answers[name] ?? 0) + 1;
            } catch (error) {
              failures.push(`${((performance.now() - started) / 1_000).toFixed(1)} s, ${name}: ${String(error)}`);
            }
            await pause(20);
          }
        }),
      ),
    );
    const shown = Number(await cache.get('seen'));
    for (const pool of Object.values(pools)) await pool.end();
    cache.disconnect();
    await sql.end();
    off();
    await Promise.all([postgres, redis, mariadb].map((one) => one.settled()));
    const reloads = [postgres, redis, mariadb].map((one, at) => one.reloads - (reloadsBefore[at] ?? 0));
    console.log(
      `${JSON.stringify(answers)}; ${svids.size} SVIDs, ${reloads.join(', ')} reloads; ${shown} counted by Redis; ${failures.length} failed`,
    );
    expect(failures).toEqual([]);
    for (const name of Object.keys(questions)) expect(answers[name]).toBeGreaterThan(SECONDS * 20);
    expect(svids.size).toBeGreaterThanOrEqual(2);
    for (const count of reloads) expect(count).toBeGreaterThanOrEqual(2);
  },
  (SECONDS + 60) * 1_000,
);

test('the server shows its newest SVID to a new connection', async () => {
  await postgres.settled();
  let seen = '';
  const client = new Client({
    host: 'localhost',
    port: postgres.port,
    user: 'orders',
    database: 'postgres',
    ...pgOptions(orders, { authorize: (id, { certificateSha256 }) => ((seen = certificateSha256), String(id) === DATABASE_ID) }),
  });
  await client.connect();
  expect(seen).toBe(database.svid.leaf.sha256);
  await client.end();
});
