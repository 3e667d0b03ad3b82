/** Every driver with every way of ours to give it TLS, as one shape, so that one table of attacks is held against all of them. */
import { Redis } from 'ioredis';
import { Kafka, logLevel } from 'kafkajs';
import { MongoClient } from 'mongodb';
import { createPool, type PoolOptions } from 'mysql2';
import { Pool } from 'pg';
import { kafkajsOptions } from '../../../spiffe/databases/kafka.ts';
import { pgOptions } from '../../../spiffe/databases/postgres.ts';
import { ioredisOptions } from '../../../spiffe/databases/redis.ts';
import { mongodbOptions, mysql2Options, tlsOptions, type TlsOptionsSettings } from '../../../spiffe/databases/tls-options.ts';
import type { X509Identity } from '../../../spiffe/source/x509-identity.ts';
import type { PREFACES } from './trap.ts';

/** In the first words of each driver, and nowhere before TLS. */
export const USER = 'app-user';
export const PASSWORD = 'app-secret';
export const DATABASE = 'app-data';
export const QUERY = 'SELECT secret_column';

export interface Client {
  /** One connection more, and a question over it; rejects with what the driver says when it comes to nothing. */
  ask(): Promise<unknown>;
  close(): void | Promise<void>;
}

/**
 * Who judges the server. `us`: the socket is ours. `driver and us`: OpenSSL in the driver, by the authorities of one trust domain, then we, before a word is sent.
 * `driver`: OpenSSL and Node's comparison of names, and nobody asks us.
 */
export type Judge = 'us' | 'driver and us' | 'driver';

export interface Way {
  readonly driver: string;
  readonly by: string;
  readonly judge: Judge;
  readonly preface: keyof typeof PREFACES;
  client(source: X509Identity, settings: TlsOptionsSettings, port: number): Client;
}

/** The name that is dialled. */
const host = 'localhost';

/** Not handled a moment later, it would end the process; whoever awaits it still hears. */
function heard<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

export function pg(options: object, port: number): Client {
  const pool = new Pool({ host, port, user: USER, password: PASSWORD, database: DATABASE, ...options });
  pool.on('error', () => {});
  return { ask: () => heard(pool.query(QUERY)), close: () => heard(pool.end()).catch(() => {}) };
}

export function redis(options: object, port: number): Client {
  const client = new Redis({ host, port, username: USER, password: PASSWORD, lazyConnect: true, retryStrategy: () => 10, ...options });
  client.on('error', () => {});
  return {
    ask: () =>
      heard(
        new Promise((resolve, reject) => {
          client.once('error', reject).once('ready', resolve);
          // dropped by the server it comes back by itself
          if (client.status === 'wait') client.connect().catch(() => {});
        }),
      ),
    close: () => client.disconnect(),
  };
}

export function kafka(options: object, port: number): Client {
  const made = new Kafka({
    clientId: USER,
    brokers: [`${host}:${port}`],
    logLevel: logLevel.NOTHING,
    connectionTimeout: 5_000,
    retry: { retries: 0 },
    ...options,
  });
  const all: { disconnect(): Promise<void> }[] = [];
  return {
    ask() {
      const admin = made.admin();
      all.push(admin);
      return heard(admin.connect());
    },
    close: async () => void (await Promise.allSettled(all.map((one) => one.disconnect()))),
  };
}

export function mongo(options: object, port: number, query = ''): Client {
  const client = new MongoClient(`mongodb://${USER}:${PASSWORD}@${host}:${port}/${DATABASE}?directConnection=true${query}`, {
    // in the words with which it asks after the server, before any password
    appName: USER,
    heartbeatFrequencyMS: 500,
    ...options,
  });
  let connecting: Promise<unknown> | undefined;
  return {
    // dropped by the server it comes back by itself; what it has tried it tells by events, and goes on
    ask: () =>
      heard(
        new Promise((resolve, reject) => {
          client.once('serverHeartbeatFailed', ({ failure }) => reject(failure)).once('serverHeartbeatSucceeded', resolve);
          connecting ??= heard(client.connect());
        }),
      ),
    close: () => client.close(),
  };
}

export function mysql(options: PoolOptions, port: number, at = host): Client {
  const pool = createPool({ host: at, port, user: USER, password: PASSWORD, database: DATABASE, ...options });
  return {
    ask: () =>
      heard(
        new Promise((resolve, reject) =>
          pool.query(QUERY, (error: Error | null, rows: unknown) => (error ? reject(error) : resolve(rows))),
        ),
      ),
    close: () => pool.end(() => {}),
  };
}

export const WAYS: readonly Way[] = [
  {
    driver: 'pg',
    by: 'pgOptions',
    judge: 'us',
    preface: 'postgres',
    client: (source, settings, port) => pg(pgOptions(source, settings), port),
  },
  {
    driver: 'ioredis',
    by: 'ioredisOptions',
    judge: 'us',
    preface: 'none',
    client: (source, settings, port) => redis(ioredisOptions(source, settings), port),
  },
  {
    driver: 'kafkajs',
    by: 'kafkajsOptions',
    judge: 'us',
    preface: 'none',
    client: (source, settings, port) => kafka(kafkajsOptions(source, settings), port),
  },
  {
    driver: 'pg',
    by: 'tlsOptions',
    judge: 'driver and us',
    preface: 'postgres',
    client: (source, settings, port) => pg({ ssl: tlsOptions(source, settings) }, port),
  },
  {
    driver: 'ioredis',
    by: 'tlsOptions',
    judge: 'driver and us',
    preface: 'none',
    client: (source, settings, port) => redis({ tls: tlsOptions(source, settings) }, port),
  },
  {
    driver: 'kafkajs',
    by: 'tlsOptions',
    judge: 'driver and us',
    preface: 'none',
    client: (source, settings, port) => kafka({ ssl: tlsOptions(source, settings) }, port),
  },
  {
    driver: 'mongodb',
    by: 'mongodbOptions',
    judge: 'driver and us',
    preface: 'none',
    client: (source, settings, port) => mongo(mongodbOptions(source, settings), port),
  },
  {
    driver: 'mysql2',
    by: 'mysql2Options',
    judge: 'driver',
    preface: 'mysql',
    // whom it may talk to it can't be told
    client: (source, settings, port) => mysql({ ssl: mysql2Options(source, { log: settings.log }) }, port),
  },
];

export const nameOf = ({ driver, by }: Way): string => `${driver} by ${by}`;
