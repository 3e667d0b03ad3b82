/** Connections that last: rotation without a failed request, ends with the SVIDs and with the trust, three modes. Over real sockets; the wall clock is real, the certificates short. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { Bundle, BundleSet } from '../../../spiffe/bundle/bundle.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { matchAny, matchId } from '../../../spiffe/match.ts';
import { X509MemorySource } from '../../../spiffe/source/memory-source.ts';
import { connectSpiffe, TlsClient } from '../../../spiffe/tls/client.ts';
import { Endings } from '../../../spiffe/tls/endings.ts';
import { tlsPeer } from '../../../spiffe/tls/tls.ts';
import { X509Bundle } from '../../../spiffe/x509/x509-bundle.ts';
import { X509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { type TestCertificate, testCertificate, testKeys, testRoot } from '../../fakes/ca.ts';
import { FakeClock } from '../../fakes/clock.ts';
import { pause, serverOf, WRAPPERS } from './wrappers.ts';

const td = TrustDomain.parse('example.org');
const HOUR_MS = 3_600_000;
let root: TestCertificate;
let other: TestCertificate;
const keys = testKeys();

const bundleOf = (...roots: TestCertificate[]) =>
  new BundleSet([new Bundle(td, { x509Authorities: X509Bundle.fromPem(td, roots.map((one) => one.pem).join('')).authorities })]);

/** Lasts `ms` from now; certificates count in whole seconds. */
async function svid(path: string, ms = HOUR_MS, issuer = root): Promise<X509Svid> {
  const leaf = await testCertificate({
    issuer,
    uris: [`spiffe://example.org${path}`],
    keys: await keys,
    notBeforeMs: Date.now() - 60_000,
    notAfterMs: Date.now() + ms,
  });
  return X509Svid.fromPem(leaf.pem, leaf.key.export({ type: 'pkcs8', format: 'pem' }));
}

beforeAll(async () => {
  const dates = { notBeforeMs: Date.now() - HOUR_MS, notAfterMs: Date.now() + 24 * HOUR_MS };
  root = await testRoot(dates);
  other = await testRoot(dates);
});

/** @param keep which side lets connections live as long as its user wants */
async function pair(wrapper: (typeof WRAPPERS)[number], lifetimeMs = HOUR_MS, keep: boolean | 'server' = false) {
  const server = new X509MemorySource({ svid: await svid('/server', lifetimeMs), bundles: bundleOf(root) });
  const client = new X509MemorySource({ svid: await svid('/client', lifetimeMs), bundles: bundleOf(root) });
  const serving = await serverOf(wrapper).serve({ source: server, authorize: matchAny(), keep: keep !== false });
  onTestFinished(() => serving.close());
  const asking = await wrapper.client(
    { source: client, authorize: matchId('spiffe://example.org/server'), keep: keep === true },
    serving.port,
  );
  onTestFinished(() => asking.close());
  return { server, client, serving, asking };
}

describe.each(WRAPPERS.map((one) => [one.name, one] as const))('%s', (name, wrapper) => {
  test('answers over one connection again and again', async () => {
    const { asking, serving } = await pair(wrapper);
    let connections = 0;
    serving.server.on('connection', () => connections++);
    for (let i = 0; i < 5; i++) expect(await asking.ask()).toBe('you are spiffe://example.org/client');
    // a pool of undici's may have opened a second one before the first was free
    expect(connections).toBeLessThanOrEqual(name === 'undici' ? 2 : 1);
  });

  test('shows the newest SVID at each new connection, and needs no new one for that', async () => {
    const { server, client, serving } = await pair(wrapper);
    server.set({ svid: await svid('/renamed') });
    client.set({ svid: await svid('/also-renamed') });
    const asking = await wrapper.client({ source: client, authorize: matchId('spiffe://example.org/renamed') }, serving.port);
    onTestFinished(() => asking.close());
    expect(await asking.ask()).toBe('you are spiffe://example.org/also-renamed');
  });

  // a bare TLS connection has nobody who could make a new one
  if (name !== 'tls')
    test.each([
      ['', false],
      [', and the server never says that it is about to end', true],
    ])('fails no request while SVIDs of 4 s are renewed every 2 s%s', { timeout: 20_000 }, async (_, silent) => {
      const { server, client, serving, asking } = await pair(wrapper, 4_000, silent ? 'server' : false);
      let connections = 0;
      serving.server.on('connection', () => connections++);
      const stop = Date.now() + 5_000;
      const renewing = (async () => {
        while (Date.now() < stop) {
          await pause(2_000);
          server.set({ svid: await svid('/server', 4_000) });
          client.set({ svid: await svid('/client', 4_000) });
        }
      })();
      let answers = 0;
      const askers = Array.from({ length: 16 }, async () => {
        for (; Date.now() < stop; answers++) {
          expect(await asking.ask(5)).toBe('you are spiffe://example.org/client');
          await pause(20 * Math.random());
          // an event loop that stands still now and then: what is decided in one turn meets what is asked in the same
          if (Math.random() < 0.02) for (const until = Date.now() + 60; Date.now() < until; );
        }
      });
      await Promise.all(askers);
      await renewing;
      expect(answers).toBeGreaterThan(200);
      expect(connections).toBeGreaterThanOrEqual(2);
    });

  if (name === 'tls')
    test('ends when an SVID does, and stays with `keep`', { timeout: 10_000 }, async () => {
      const ended = async (keep: boolean) => {
        const { asking } = await pair(wrapper, 2_500, keep);
        expect(await asking.ask()).toBe('you are spiffe://example.org/client');
        await pause(3_000);
        return asking.ask().then(
          () => 'lives',
          () => 'ended',
        );
      };
      expect(await Promise.all([ended(false), ended(true)])).toEqual(['ended', 'lives']);
    });

  test('ends what a request hangs on within a second of the trust: the client’s authority is gone', { timeout: 10_000 }, async () => {
    const { server, asking } = await pair(wrapper);
    expect(await asking.ask()).toBe('you are spiffe://example.org/client');
    const hanging = asking.ask(60_000).then(
      () => 'answered',
      () => 'ended',
    );
    await pause(50);
    const at = Date.now();
    server.set({ bundles: bundleOf(other) });
    expect(await hanging).toBe('ended');
    expect(Date.now() - at).toBeLessThan(2_000);
    // the other connections of a pool
    await pause(1_000);
    await expect(asking.ask()).rejects.toThrow();
    server.set({ bundles: bundleOf(other, root) });
  });

  test('an added authority, or one that is renewed, ends nothing', async () => {
    const { server, client, asking } = await pair(wrapper);
    const hanging = asking.ask(1_200);
    await pause(50);
    server.set({ bundles: bundleOf(root, other) });
    client.set({ bundles: bundleOf(other, root) });
    expect(await hanging).toBe('you are spiffe://example.org/client');
  });

  test('an identity that was taken back ends what it opened', { timeout: 10_000 }, async () => {
    const { client, asking } = await pair(wrapper);
    expect(await asking.ask()).toBe('you are spiffe://example.org/client');
    const hanging = asking.ask(60_000).then(
      () => 'answered',
      () => 'ended',
    );
    await pause(50);
    client.forget();
    expect(await hanging).toBe('ended');
  });
});

describe('the modes', () => {
  const web = async () => {
    const ca = await testRoot({ uris: [], notBeforeMs: Date.now() - HOUR_MS, notAfterMs: Date.now() + HOUR_MS });
    const certificate = async (dns: string[]) => {
      const one = await testCertificate({ issuer: ca, uris: [], dns, notBeforeMs: Date.now() - HOUR_MS, notAfterMs: Date.now() + HOUR_MS });
      return { cert: one.pem, key: one.key.export({ type: 'pkcs8', format: 'pem' }) as string };
    };
    return { roots: ca.pem, certificate };
  };

  test.each(WRAPPERS.map((one) => [one.name, one] as const))(
    'tls over %s: the client shows nothing, and the server is judged',
    async (_, wrapper) => {
      const source = new X509MemorySource({ svid: await svid('/server'), bundles: bundleOf(root) });
      const serving = await serverOf(wrapper).serve({ mode: 'tls', source });
      onTestFinished(() => serving.close());
      const asking = await wrapper.client(
        { mode: 'tls', source: bundleOf(root), authorize: matchId('spiffe://example.org/server') },
        serving.port,
      );
      onTestFinished(() => asking.close());
      expect(await asking.ask()).toBe('you are nobody');
      const wrong = (async () =>
        (await wrapper.client({ mode: 'tls', source: bundleOf(other), authorize: matchAny() }, serving.port)).ask())();
      await expect(wrong).rejects.toThrow();
    },
  );

  test('mtls-web over https: the server shows a web certificate for the host that was dialled, the client its SVID', async () => {
    const { roots, certificate } = await web();
    const source = new X509MemorySource({ svid: await svid('/client'), bundles: bundleOf(root) });
    const good = await certificate(['localhost']);
    const serving = await serverOf(WRAPPERS[0] as (typeof WRAPPERS)[number]).serve({
      mode: 'mtls-web',
      source,
      certificate: () => good,
      authorize: matchId('spiffe://example.org/client'),
    });
    onTestFinished(() => serving.close());
    const dial = { mode: 'mtls-web', source, host: 'localhost', port: serving.port } as const;
    const socket = await connectSpiffe({ ...dial, roots });
    expect(tlsPeer(socket)).toBeUndefined();
    socket.write('0\n');
    expect(String((await once(socket, 'data'))[0])).toBe('you are spiffe://example.org/client\n');
    socket.destroy();
    // the authorities that Node comes with, another authority, another name
    await expect(connectSpiffe(dial)).rejects.toThrow();
    await expect(connectSpiffe({ ...dial, roots: root.pem })).rejects.toThrow();
    await expect(connectSpiffe({ ...dial, roots, host: '127.0.0.1' })).rejects.toThrow();
    expect(serving.delivered).toHaveLength(1);
    // no SVID shown to it
    const bare = connect(serving.port, '127.0.0.1');
    bare.on('error', () => {}).end('x');
    await once(bare.resume(), 'close');
  });

  test('nobody is let in because a word was misspelt or left out', async () => {
    const source = new X509MemorySource({ svid: await svid('/server'), bundles: bundleOf(root) });
    for (const settings of [
      { source },
      { source, mode: 'mtls' },
      { source, authorize: 'spiffe://example.org/x' },
      { authorize: matchAny() },
      { source, authorize: matchAny(), mode: 'mTLS' },
    ]) {
      expect(() => new TlsClient(settings as never)).toThrowError(expect.objectContaining({ code: 'REQUEST_INVALID' }));
      await expect((async () => serverOf(WRAPPERS[0] as never).serve(settings as never))()).rejects.toMatchObject({
        code: 'REQUEST_INVALID',
      });
    }
    expect(() => new TlsClient({ source, authorize: matchAny() })).not.toThrow();
  });
});

describe('endings', () => {
  const fake = () => {
    const listeners: (() => void)[] = [];
    const socket = {
      destroyed: false,
      once: (_: string, listener: () => void) => listeners.push(listener),
      destroy: () => ((socket.destroyed = true), listeners.forEach((one) => one())),
    };
    return socket;
  };

  test('tell first, once, and destroy then; a clock that jumps is believed within a minute', async () => {
    const clock = new FakeClock();
    const endings = new Endings(clock);
    const [a, b] = [fake(), fake()];
    let told = 0;
    endings.add(a as never, { endMs: clock.now() + 100_000, drainMs: clock.now() + 70_000, drain: () => told++ });
    endings.add(b as never, { endMs: clock.now() + 10 * HOUR_MS });
    await clock.advance(69_999);
    expect([told, a.destroyed]).toEqual([0, false]);
    await clock.advance(2);
    expect([told, a.destroyed]).toEqual([1, false]);
    await clock.advance(30_000);
    expect([told, a.destroyed, b.destroyed, endings.size]).toEqual([1, true, false, 1]);
    clock.jump(10 * HOUR_MS);
    await clock.advance(60_000);
    expect([b.destroyed, endings.size, clock.waiting]).toEqual([true, 0, 0]);
  });

  test('a second plan counts where it is sooner', async () => {
    const clock = new FakeClock();
    const endings = new Endings(clock);
    const socket = fake();
    let told = 0;
    endings.add(socket as never, { endMs: clock.now() + 100_000, drainMs: clock.now() + 70_000, drain: () => told++ });
    endings.add(socket as never, { endMs: clock.now() + 5_000, drainMs: clock.now() + 1_000 });
    endings.add(socket as never, { endMs: clock.now() + 200_000 });
    await clock.advance(1_000);
    expect([told, socket.destroyed]).toEqual([1, false]);
    await clock.advance(4_000);
    expect([told, socket.destroyed]).toEqual([1, true]);
  });
});
