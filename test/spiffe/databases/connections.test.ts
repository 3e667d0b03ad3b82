/** What each connection of a driver's goes by, whatever came before: the newest SVID and bundle, no resumed session, nothing without an identity. */
import { connect as tlsConnect } from 'node:tls';
import { once } from 'node:events';
import { Cluster, Redis } from 'ioredis';
import { createPool } from 'mysql2';
import { describe, expect, onTestFinished, test } from 'vitest';
import { ioredisOptions } from '../../../spiffe/databases/redis.ts';
import { mysql2Options, tlsOptions } from '../../../spiffe/databases/tls-options.ts';
import { BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { systemClock } from '../../../spiffe/clock.ts';
import type { X509Identity } from '../../../spiffe/source/x509-identity.ts';
import { X509MemorySource } from '../../../spiffe/source/memory-source.ts';
import { matchId } from '../../../spiffe/match.ts';
import { PEER } from '../tls/attacks.ts';
import { testCertificate, testRoot } from '../../fakes/ca.ts';
import { bundleOf, closing, failure, material, pemOf, settings, svidOf, today, words } from './rig.ts';
import { plainServer, PREFACES, type Shown, trap } from './trap.ts';
import { DATABASE, mysql, nameOf, PASSWORD, pg, QUERY, USER, type Way, WAYS } from './ways.ts';

const { roots, leaf, bundles, shown, source } = await material();
const POLL = { timeout: 10_000 };
const HOUR_MS = 3_600_000;
const SECRETS = [USER, PASSWORD, DATABASE, QUERY];

/** A source of its own, for a test that changes it. */
const ownSource = () => new X509MemorySource({ svid: source.svid, bundles });

async function open(way: Way, from: X509Identity, what: Shown) {
  const server = await trap(what, PREFACES[way.preface]);
  const client = way.client(from, settings, server.port);
  closing(client, () => server.drop());
  return { server, client };
}

const EACH = WAYS.map((way) => [nameOf(way), way] as const);

describe.each(EACH)('%s', (_, way) => {
  test('shows the newest SVID in a new connection, and trusts the newest bundle and no older', async () => {
    const mine = ownSource();
    const { server, client } = await open(way, mine, shown('good'));
    void failure(client.ask());
    await expect.poll(() => words(server.received), POLL).toContain(USER);
    const before = mine.svid.leaf.sha256;

    const root = await testRoot(today({}));
    const svid = svidOf(await leaf({ issuer: root, uris: ['spiffe://example.org/me'] }));
    mine.set({ svid, bundles: new BundleSet([bundleOf('example.org', root)]) });
    server.show(pemOf(await leaf({ issuer: root, uris: [PEER] })));
    server.received.length = 0;
    server.drop();
    void failure(client.ask());
    await expect.poll(() => words(server.received), POLL).toContain(USER);
    const shas = server.handshakes.map(({ sha256 }) => sha256);
    expect([shas[0], shas.at(-1)]).toEqual([before, svid.leaf.sha256]);

    server.show(shown('good'));
    server.received.length = 0;
    server.drop();
    // a driver that comes back by itself first hears that it was dropped
    await expect.poll(() => failure(client.ask()), POLL).toMatch(/certificate/);
    expect(words(server.received)).toBe('');
  });

  test('resumes no session', async () => {
    const { server, client } = await open(way, source, shown('good'));
    for (const times of [1, 2, 3]) {
      void failure(client.ask());
      await expect.poll(() => words(server.received), POLL).toContain(USER);
      server.received.length = 0;
      expect(server.handshakes.length).toBeGreaterThanOrEqual(times);
      server.drop();
    }
    expect(server.handshakes.filter(({ resumed }) => resumed)).toEqual([]);
  });

  test('fails while there is no SVID and no bundle, and says nothing; then the same client gets through', async () => {
    const mine = new X509MemorySource();
    const { server, client } = await open(way, mine, shown('good'));
    expect(await failure(client.ask())).toMatch(way.judge === 'us' ? /no X.509-SVID was set yet/ : /certificate|no X.509-SVID/);
    expect(words(server.received)).toBe('');
    for (const secret of SECRETS) expect(words(server.plain)).not.toContain(secret);
    mine.set({ svid: source.svid, bundles });
    void failure(client.ask());
    await expect.poll(() => words(server.received), POLL).toContain(USER);
  });

  test('fails when there is an SVID and no bundle, and says nothing', async () => {
    const { server, client } = await open(way, new X509MemorySource({ svid: source.svid, bundles: new BundleSet([]) }), shown('good'));
    expect(await failure(client.ask())).toMatch(
      way.judge === 'us' ? /no X.509 bundle found for trust domain "example.org"/ : /certificate/,
    );
    expect(words(server.received)).toBe('');
    for (const secret of SECRETS) expect(words(server.plain)).not.toContain(secret);
  });

  test('talks TLS alone, to a server that does not', async () => {
    const { port, received } = await plainServer('+OK\r\n');
    const client = closing(way.client(source, settings, port));
    if (way.preface === 'mysql') {
      // it waits to be greeted
      expect(received).toEqual([]);
      return;
    }
    void failure(client.ask());
    await expect.poll(() => received.length, POLL).toBeGreaterThan(0);
    const said = Buffer.concat(received);
    if (way.preface === 'postgres') expect(said.toString('hex')).toBe('0000000804d2162f');
    else expect(said[0]).toBe(0x16);
    for (const secret of SECRETS) expect(words(received)).not.toContain(secret);
  });

  test(`${way.judge === 'driver' ? 'a gap: does not trust' : 'trusts'} an authority of the bundle that another has signed`, async () => {
    const authority = await testCertificate(today({ issuer: roots.ours, ca: true }));
    const mine = ownSource();
    mine.set({ bundles: new BundleSet([bundleOf('example.org', authority)]) });
    const { server, client } = await open(way, mine, pemOf(await leaf({ issuer: authority, uris: [PEER] })));
    const answer = failure(client.ask());
    if (way.judge !== 'driver') return expect.poll(() => words(server.received), POLL).toContain(USER);
    expect(await answer).toContain('unable to get issuer certificate');
    expect(words(server.received)).toBe('');
  });

  /** A client that has had an SVID, which has expired; its bundle stays. */
  const expired = async () => {
    let later = 0;
    const mine = new X509MemorySource({ svid: source.svid, bundles }, { ...systemClock, now: () => systemClock.now() + later });
    const { server, client } = await open(way, mine, shown('good'));
    void failure(client.ask());
    await expect.poll(() => words(server.received), POLL).toContain(USER);
    later = 2 * HOUR_MS;
    server.drop();
    server.received.length = 0;
    return { server, client };
  };
  if (way.judge === 'driver')
    test('a gap: without an SVID it talks to a server of the trust domain, as nobody', async () => {
      const { server, client } = await expired();
      void failure(client.ask());
      await expect.poll(() => words(server.received), POLL).toContain(USER);
      expect(server.handshakes.at(-1)?.sha256).toBeUndefined();
    });
  else
    test('fails when our own SVID has expired and the bundle is there, and says nothing', async () => {
      const { server, client } = await expired();
      await expect.poll(() => failure(client.ask()), POLL).toContain('our own X.509-SVID spiffe://example.org/me expired');
      expect(words(server.received)).toBe('');
    });

  test(
    way.judge === 'us'
      ? 'ends soon after our identity was taken back'
      : 'a gap: a connection that is open stays when our identity is taken back, and only a new one fails',
    async () => {
      const mine = ownSource();
      const { server, client } = await open(way, mine, shown('good'));
      const [ours] = WAYS.filter(({ judge }) => judge === 'us');
      const beside = await open(ours as Way, mine, shown('good'));
      for (const one of [{ server, client }, beside]) {
        void failure(one.client.ask());
        await expect.poll(() => words(one.server.received), POLL).toContain(USER);
      }
      const before = server.open;
      mine.forget();
      // by then each of ours would have ended
      await expect.poll(() => beside.server.open, POLL).toBe(0);
      if (way.judge === 'us') return expect.poll(() => server.open, POLL).toBe(0);
      expect(server.open).toBe(before);
      server.received.length = 0;
      server.drop();
      await expect.poll(() => failure(client.ask()), POLL).toMatch(/certificate|taken back/);
      expect(words(server.received)).toBe('');
    },
  );
});

describe('this server resumes sessions when it is asked to', () => {
  test('by node:tls', async () => {
    const server = await trap(shown('good'));
    const to = { port: server.port, host: '127.0.0.1', rejectUnauthorized: false };
    const first = tlsConnect(to).resume();
    const [session] = (await once(first, 'session')) as [Buffer];
    expect(first.isSessionReused()).toBe(false);
    first.destroy();
    const second = tlsConnect({ ...to, session }).resume();
    await once(second, 'secureConnect');
    expect(second.isSessionReused()).toBe(true);
    second.destroy();
  });

  test('by mysql2 with an `ssl` that never changes, which then judges nothing', async () => {
    const server = await trap(shown('good'), PREFACES.mysql);
    const pool = createPool({ host: 'localhost', port: server.port, user: USER, ssl: { ca: roots.ours.pem, verifyIdentity: true } });
    onTestFinished(() => pool.end(() => {}));
    await expect
      .poll(() => {
        server.drop();
        pool.query(QUERY, () => {});
        return server.handshakes.some(({ resumed }) => resumed);
      }, POLL)
      .toBe(true);
    server.drop();
  });
});

describe('tlsOptions names one trust domain', () => {
  const far = async () => pemOf(await leaf({ issuer: roots.federated, uris: ['spiffe://far.org/db'] }));
  const authorize = matchId('spiffe://far.org/db');

  test('another than our own, when it is given', async () => {
    const server = await trap(await far(), PREFACES.postgres);
    const client = closing(pg({ ssl: tlsOptions(source, { authorize, trustDomain: 'far.org' }) }, server.port), () => server.drop());
    void failure(client.ask());
    await expect.poll(() => words(server.received), POLL).toContain(USER);
  });

  test('our own when none is, whatever `authorize` would allow', async () => {
    const server = await trap(await far(), PREFACES.postgres);
    const client = closing(pg({ ssl: tlsOptions(source, { authorize }) }, server.port));
    expect(await failure(client.ask())).toContain('unable to get local issuer certificate');
    expect(words(server.received)).toBe('');
  });
});

describe('ioredis', () => {
  const cluster = async (what: string) => {
    const server = await trap(shown(what));
    const client = new Cluster([{ host: 'localhost', port: server.port }], {
      clusterRetryStrategy: () => null,
      lazyConnect: true,
      redisOptions: { username: USER, password: PASSWORD, ...ioredisOptions(source, settings) },
    });
    client.on('error', () => {});
    onTestFinished(() => {
      server.drop();
      client.disconnect();
    });
    return { server, client };
  };

  test('of a cluster talks to the right server', async () => {
    const { server, client } = await cluster('good');
    client.connect().catch(() => {});
    await expect.poll(() => words(server.received), POLL).toContain(USER);
  });

  test('of a cluster says nothing to another', async () => {
    const { server, client } = await cluster('another id');
    expect(await failure(client.connect())).not.toBe('no error');
    await expect.poll(() => server.open, POLL).toBe(0);
    expect(server.plain.length).toBeGreaterThan(0);
    expect(words(server.received)).toBe('');
  });

  test.each([
    ['a UNIX socket', { path: '/run/redis.sock' }],
    ['sentinels', { sentinels: [{ host: 'localhost', port: 26_379 }], name: 'primary' }],
  ])('with %s there is no connection, and the reason is told', async (_, to) => {
    const client = new Redis({ ...to, retryStrategy: null, lazyConnect: true, ...ioredisOptions(source, settings) });
    const told = once(client, 'error');
    client.connect().catch(() => {});
    expect(await told).toMatchObject([{ code: 'REQUEST_INVALID' }]);
  });
});

describe('mysql2 compares names', () => {
  const named = async (dns: string, host: string) => {
    const server = await trap(pemOf(await leaf({ issuer: roots.ours, uris: [PEER], dns: [dns] })), PREFACES.mysql);
    return { server, client: closing(mysql({ ssl: mysql2Options(source) }, server.port, host), () => server.drop()) };
  };

  test('with the one that is dialled', async () => {
    const { server, client } = await named('db.example.org', 'localhost');
    expect(await failure(client.ask())).toContain("Host: localhost. is not in the cert's altnames");
    expect(words(server.received)).toBe('');
  });

  test('a gap: with `localhost`, when an IP address is dialled', async () => {
    const { server, client } = await named('localhost', '127.0.0.1');
    void failure(client.ask());
    await expect.poll(() => words(server.received), POLL).toContain(USER);
  });
});
