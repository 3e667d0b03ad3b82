/** What a program was told from outside changes nothing: NODE_TLS_REJECT_UNAUTHORIZED, and what connection strings say of TLS. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createConnection } from 'mysql2';
import { Redis } from 'ioredis';
import { describe, expect, onTestFinished, test } from 'vitest';
import { ioredisOptions } from '../../../spiffe/databases/redis.ts';
import { mongodbOptions, mysql2Options } from '../../../spiffe/databases/tls-options.ts';
import { closing, failure, material, settings, words } from './rig.ts';
import { PREFACES, trap } from './trap.ts';
import { mongo, nameOf, PASSWORD, USER, WAYS } from './ways.ts';

const { bundles, shown, source } = await material();
const POLL = { timeout: 10_000 };
const STRANGER = 'an unknown authority under our name';

/** Every way in a process of its own, with that environment, towards servers that all show the same; gives what each server heard. */
async function elsewhere(what: string) {
  const folder = mkdtempSync(join(tmpdir(), 'databases-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const { certificates, key } = source.svid.toPem();
  writeFileSync(join(folder, 'svid.pem'), certificates);
  writeFileSync(join(folder, 'svid_key.pem'), key, { mode: 0o600 });
  writeFileSync(join(folder, 'svid_bundle.pem'), bundles.x509Bundle(source.svid.id.trustDomain)?.toPem() ?? '');
  const servers = await Promise.all(WAYS.map((way) => trap(shown(what), PREFACES[way.preface])));
  const child = spawn(process.execPath, [join(import.meta.dirname, 'elsewhere.ts'), folder, ...servers.map(({ port }) => String(port))], {
    env: { ...process.env, NODE_TLS_REJECT_UNAUTHORIZED: '0' },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  onTestFinished(() => void child.kill());
  return { servers, child };
}

describe('with NODE_TLS_REJECT_UNAUTHORIZED=0', () => {
  test('every way still talks to the right server', async () => {
    const { servers } = await elsewhere('good');
    for (const server of servers) await expect.poll(() => words(server.received), { timeout: 20_000 }).toContain(USER);
  }, 30_000);

  test('no way says a word to another, and a bare node:tls there would', async () => {
    const { servers, child } = await elsewhere(STRANGER);
    let told = '';
    child.stdout.on('data', (data: Buffer) => (told += String(data)));
    expect((await once(child, 'close'))[0]).toBe(0);
    const lines = told.trim().split('\n');
    expect(lines.shift()).toBe('bare node:tls: talks');
    expect(lines).toHaveLength(WAYS.length);
    for (const [at, way] of WAYS.entries())
      expect(lines[at]).toMatch(new RegExp(`^${nameOf(way)}: .*(?:certificate|authority|issuer|trust)`));
    expect(servers.map(({ received }) => words(received)).filter((said) => said.includes(USER))).toEqual([]);
  }, 30_000);
});

describe('a connection string', () => {
  test.each(['&tlsInsecure=true', '&tlsAllowInvalidCertificates=true', '&tls=false'])(
    'of mongodb with `%s` beside mongodbOptions lets no other server in',
    async (query) => {
      const server = await trap(shown(STRANGER));
      const told = await failure(
        (async () => {
          const client = closing(mongo(mongodbOptions(source, settings), server.port, query), () => server.drop());
          await client.ask();
        })(),
      );
      expect(told).toMatch(/unable to get local issuer certificate|tls/i);
      expect(words(server.received)).toBe('');
      expect(words(server.plain)).toBe('');
    },
  );

  test('of mysql2 with an `ssl` of its own beside mysql2Options lets no other server in', async () => {
    const server = await trap(shown(STRANGER), PREFACES.mysql);
    const ssl = encodeURIComponent(JSON.stringify({ rejectUnauthorized: false }));
    const client = createConnection({
      uri: `mysql://${USER}:${PASSWORD}@localhost:${server.port}/?ssl=${ssl}`,
      ssl: mysql2Options(source),
    });
    const [error] = (await once(client, 'error')) as [Error];
    expect(error.message).toContain('unable to verify the first certificate');
    expect(words(server.received)).toBe('');
    expect(words(server.plain)).not.toContain(USER);
  });

  test.each(['redis', 'rediss'])('of ioredis with %s:// beside ioredisOptions changes nothing', async (scheme) => {
    const server = await trap(shown(STRANGER));
    const client = new Redis(`${scheme}://${USER}:${PASSWORD}@localhost:${server.port}`, {
      ...ioredisOptions(source, settings),
      retryStrategy: null,
    });
    onTestFinished(() => client.disconnect());
    const [error] = (await once(client, 'error')) as [Error];
    expect(error).toMatchObject({ reason: 'X509_ISSUER_UNKNOWN' });
    expect(words(server.received)).toBe('');
    server.show(shown('good'));
    void client.connect().catch(() => {});
    await expect.poll(() => words(server.received), POLL).toContain(USER);
    server.drop();
  });
});
