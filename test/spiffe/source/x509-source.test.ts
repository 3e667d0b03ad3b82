/** X509Source against a Workload API that comes late, goes, comes back, lies, refuses and rotates. */
import { describe, expect, test } from 'vitest';
import { TrustDomain } from '../../../spiffe/id.ts';
import { X509Source } from '../../../spiffe/source/x509-source.ts';
import { WorkloadApiClient } from '../../../spiffe/workload-api/client.ts';
import { verifyX509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { change, closing, failure, refusal, RETRY_MS, until, workload } from './rig.ts';

const far = TrustDomain.parse('far.org');

describe('the newest SVID', () => {
  test('is there once ready, with the bundles to judge peers by', async () => {
    const { clock, domain, far: other, options, api } = await workload();
    api.set({ federated: [other] });
    const source = closing(await X509Source.open(options));
    expect(source.svid.id.toString()).toBe('spiffe://example.org/web');
    expect(verifyX509Svid(source.svid.chain, source, { nowMs: clock.now() }).id.path).toBe('/web');
    expect(source.x509Bundle(far)?.equals(other.bundle.x509)).toBe(true);
    expect(source.x509Bundle(TrustDomain.parse('nobody.org'))).toBeUndefined();
    expect([
      source.context.svids.length,
      source.waitingFor,
      domain.bundle.x509.equals(source.x509Bundle(domain.trustDomain) as never),
    ]).toEqual([1, undefined, true]);
  });

  test('follows renewal and rotation, and bundles that are told no more are gone (WAPI-16)', async () => {
    const { far: other, options, api } = await workload();
    api.set({ federated: [other] });
    const source = closing(await X509Source.open(options));
    const first = source.svid;
    let changed = change(source);
    api.rotate();
    await changed;
    expect(source.svid.equals(first)).toBe(false);
    expect(source.svid.equals(api.svids[0] as typeof first)).toBe(true);
    changed = change(source);
    api.set({ federated: [] });
    await changed;
    expect(source.x509Bundle(far)).toBeUndefined();
  });

  test('expired, is not given: SVID_EXPIRED, until a newer one comes', async () => {
    const { clock, options, api } = await workload({ identities: [{ path: '/web', ttlMs: 20_000 }] });
    const source = closing(await X509Source.open(options));
    clock.jump(19_999);
    expect(source.svid.id.path).toBe('/web');
    clock.jump(1);
    expect(refusal(() => source.svid)).toMatchObject({ code: 'SVID_EXPIRED', reason: 'X509_EXPIRED' });
    expect(source.waitingFor).toMatch(/expired at/);
    const ready = source.ready();
    api.renew();
    await ready;
    expect(source.svid.id.path).toBe('/web');
  });

  test('is what a memory of `onChange` hears of, until it is taken back; a listener that throws harms nobody', async () => {
    const { options, api } = await workload();
    const source = closing(await X509Source.open(options));
    const heard: string[] = [];
    source.onChange(() => {
      throw new Error('mine');
    });
    const off = source.onChange(() => heard.push(source.svid.id.path));
    let changed = change(source);
    api.set({ identities: ['/admin'] });
    await changed;
    off();
    changed = change(source);
    api.set({ identities: ['/web'] });
    await changed;
    expect(heard).toEqual(['/admin']);
  });
});

describe('which SVID', () => {
  const identities = [{ path: '/web' }, { path: '/admin', hint: 'internal' }];

  test('is the first, the one with the hint, or what `pick` takes (WAPI-78)', async () => {
    const { options } = await workload({ identities });
    const paths = await Promise.all(
      [{}, { hint: 'internal' }, { pick: (svids: readonly { readonly id: { readonly path: string } }[]) => svids.at(-1) as never }].map(
        async (choice) => closing(await X509Source.open({ ...options, ...choice })).svid.id.path,
      ),
    );
    expect(paths).toEqual(['/web', '/admin', '/admin']);
  });

  test('with a hint that nothing has is none, and never another one; ready waits for it (WAPI-80)', async () => {
    const { options, api } = await workload({ identities });
    const source = closing(new X509Source({ ...options, hint: 'external' }));
    const ready = source.ready();
    await change(source);
    expect(refusal(() => source.svid)).toMatchObject({ code: 'NOT_FOUND', message: 'no X.509-SVID has the hint "external"' });
    expect(source.waitingFor).toMatch(/^no X\.509-SVID from .* yet: no X\.509-SVID has the hint "external"$/);
    expect(source.context.svids).toHaveLength(2);
    api.set({ identities: [...identities, { path: '/new', hint: 'external' }] });
    await ready;
    expect(source.svid.id.path).toBe('/new');
  });

  test('is none when `pick` takes none or throws; `pick` is asked once per answer', async () => {
    const { options } = await workload({ identities });
    let asked = 0;
    const none = closing(
      new X509Source({
        ...options,
        pick: () => {
          asked++;
          return undefined;
        },
      }),
    );
    const broken = closing(
      new X509Source({
        ...options,
        pick: () => {
          throw new Error('not mine');
        },
      }),
    );
    await Promise.all([none, broken].map(change));
    expect(refusal(() => none.svid)).toMatchObject({ code: 'NOT_FOUND', message: 'no X.509-SVID was chosen' });
    expect(refusal(() => none.svid)).toMatchObject({ code: 'NOT_FOUND' });
    expect(asked).toBe(1);
    expect(refusal(() => broken.svid)).toMatchObject({ message: 'not mine' });
  });
});

describe('a bad day of the agent', () => {
  test('an agent that starts late is found (WE-24)', async () => {
    const { clock, options, api } = await workload({ late: true });
    const source = closing(new X509Source(options));
    const ready = source.ready();
    await until(() => clock.waiting === 2);
    expect(refusal(() => source.svid)).toMatchObject({ code: 'UNAVAILABLE' });
    await api.start();
    await clock.advance(RETRY_MS);
    await ready;
    expect(source.svid.id.path).toBe('/web');
  });

  test('an agent that restarts is found again; the SVID at hand serves meanwhile (WAPI-8)', async () => {
    const { clock, options, api, told } = await workload();
    const source = closing(await X509Source.open(options));
    const before = source.svid;
    await api.stop();
    await until(() => clock.waiting === 1);
    await clock.advance(RETRY_MS);
    await until(() => clock.waiting === 1);
    expect(source.svid).toBe(before);
    expect(told).toMatchObject(Array(2).fill({ message: 'Workload API: no news of X.509-SVIDs', error: { code: 'UNAVAILABLE' } }));
    await api.start();
    api.set({ identities: ['/after'] });
    const changed = change(source);
    await clock.advance(RETRY_MS);
    await changed;
    expect(source.svid.id.path).toBe('/after');
  });

  test('connections that are cut are made again', async () => {
    const { clock, options, api } = await workload();
    const source = closing(await X509Source.open(options));
    api.drop();
    await until(() => clock.waiting === 1);
    const changed = change(source);
    await clock.advance(RETRY_MS);
    await changed;
    expect(api.connections).toBe(2);
  });

  for (const how of ['fields', 'octets'] as const) {
    test(`an answer that is malformed in its ${how} never takes the place of a good one, and the next good one is taken (WAPI-18)`, async () => {
      const { clock, options, api, told } = await workload();
      const source = closing(await X509Source.open(options));
      const before = source.svid;
      api.garble(how);
      await until(() => told.length === 1);
      expect(told[0]?.error).toMatchObject({ code: how === 'fields' ? 'SVID_INVALID' : 'INTERNAL' });
      expect([source.svid, source.waitingFor]).toEqual([before, undefined]);
      const changed = change(source);
      api.resume();
      await clock.advance(RETRY_MS);
      await changed;
      expect(source.svid.id.path).toBe('/web');
    });
  }

  test('DENIED takes SVID and bundles away, and a later answer brings them back (WAPI-34)', async () => {
    const { clock, domain, options, api } = await workload();
    const source = closing(await X509Source.open(options));
    let changed = change(source);
    api.deny();
    await changed;
    expect(refusal(() => source.svid)).toMatchObject({ code: 'DENIED', message: expect.stringContaining('no identity issued') });
    expect(refusal(() => source.context)).toMatchObject({ code: 'DENIED' });
    expect(source.x509Bundle(domain.trustDomain)).toBeUndefined();
    api.resume();
    changed = change(source);
    await clock.advance(RETRY_MS);
    await changed;
    expect(source.svid.id.path).toBe('/web');
    expect(source.x509Bundle(domain.trustDomain)).toBeDefined();
  });

  test('UNAVAILABLE, unlike DENIED, takes nothing away', async () => {
    const { clock, domain, options, api, told } = await workload();
    const source = closing(await X509Source.open(options));
    api.refuse(14, 'not ready');
    await until(() => clock.waiting === 1);
    expect(told).toMatchObject([{ error: { code: 'UNAVAILABLE', message: 'not ready' } }]);
    expect([source.svid.id.path, source.x509Bundle(domain.trustDomain)?.isEmpty]).toEqual(['/web', false]);
  });

  for (const [status, code, requirement] of [
    [3, 'REQUEST_INVALID', 'WE-22'],
    [12, 'UNIMPLEMENTED', 'WE-27'],
  ] as const) {
    test(`${code} ends it: who waits hears of it at once, and nothing is asked again (${requirement})`, async () => {
      const { clock, options, api } = await workload();
      api.refuse(status, 'never');
      const source = closing(new X509Source(options));
      expect(await failure(source.ready())).toMatchObject({ code, message: 'never' });
      expect(refusal(() => source.svid)).toMatchObject({ code });
      await clock.advance(10 * RETRY_MS);
      expect(api.calls).toHaveLength(1);
    });
  }
});

describe('ready', () => {
  test('called off, says what it waited for and the newest failure, with the reason as cause', async () => {
    const { clock, options, api } = await workload({ late: true });
    const source = closing(new X509Source(options));
    const stop = new AbortController();
    const waited = failure(source.ready(stop.signal));
    await until(() => clock.waiting === 2);
    const reason = new Error('enough');
    stop.abort(reason);
    expect(await waited).toMatchObject({ code: 'UNAVAILABLE', cause: reason });
    expect(await waited).toMatchObject({
      message: expect.stringMatching(`^no X.509-SVID from the Workload API at ${api.address} yet: .*ENOENT`),
    });
    await api.start();
    api.deny();
    await clock.advance(RETRY_MS);
    await until(() => clock.waiting === 1);
    expect(await failure(source.ready(AbortSignal.abort()))).toMatchObject({
      code: 'DENIED',
      message: `no X.509-SVID from the Workload API at ${api.address} yet: no identity issued`,
    });
    expect(source.waitingFor).toMatch(/yet: no identity issued$/);
  });

  test('without a failure yet, says so', async () => {
    const { options, api } = await workload();
    api.stall();
    const source = closing(new X509Source(options));
    expect(await failure(source.ready(AbortSignal.abort()))).toMatchObject({
      code: 'UNAVAILABLE',
      message: `no X.509-SVID from the Workload API at ${api.address} yet`,
    });
    expect(refusal(() => source.svid)).toMatchObject({ code: 'UNAVAILABLE' });
  });

  test('of a source that has its SVID resolves, even called off; of many callers each', async () => {
    const { options } = await workload();
    const source = closing(new X509Source(options));
    await Promise.all([source.ready(), source.ready(), source.ready(new AbortController().signal)]);
    await source.ready(AbortSignal.abort());
  });

  test('of `open` called off closes the source', async () => {
    const { options, api } = await workload();
    api.stall();
    const stop = new AbortController();
    const opened = failure(X509Source.open({ ...options, signal: stop.signal }));
    await api.called('FetchX509SVID');
    stop.abort();
    expect(await opened).toMatchObject({ code: 'UNAVAILABLE' });
    await until(() => api.calls[0]?.signal.aborted === true);
  });
});

describe('for await', () => {
  test('gives the answer now, then each newer one, and ends when the source is closed', async () => {
    const { options, api } = await workload();
    const source = closing(await X509Source.open(options));
    const seen: string[] = [];
    const done = (async () => {
      for await (const { svids } of source) {
        seen.push(svids.map((svid) => svid.id.path).join());
        if (seen.length === 1) api.set({ identities: ['/web', '/admin'] });
        else void source.close();
      }
    })();
    await done;
    expect(seen).toEqual(['/web', '/web,/admin']);
  });

  test('may be left, while others go on; a slow reader gets the newest', async () => {
    const { options, api } = await workload();
    const source = closing(await X509Source.open(options));
    const slow = source[Symbol.asyncIterator]();
    await slow.next();
    for await (const _ of source) break;
    for (const path of ['/a', '/b', '/c']) {
      const changed = change(source);
      api.set({ identities: [path] });
      await changed;
    }
    expect((await slow.next()).value).toMatchObject({ svids: [{ id: { path: '/c' } }] });
  });

  test('with a signal ends with its reason', async () => {
    const { options } = await workload();
    const source = closing(await X509Source.open(options));
    const stop = new AbortController();
    const reason = new Error('enough');
    const read = (async () => {
      for await (const _ of source.changes(stop.signal)) queueMicrotask(() => stop.abort(reason));
    })();
    expect(await failure(read)).toBe(reason);
  });
});

describe('a closed source', () => {
  test('throws CLOSED at every use, also to those who wait, and lets its connection go', async () => {
    const { options, api, domain } = await workload();
    const source = await X509Source.open(options);
    const waiting = new X509Source({ ...options, hint: 'nothing' });
    const waited = failure(waiting.ready());
    await api.called('FetchX509SVID', 2);
    await Promise.all([source.close(), waiting.close()]);
    expect(await waited).toMatchObject({ code: 'CLOSED' });
    for (const use of [() => source.svid, () => source.context, () => source.x509Bundle(domain.trustDomain)])
      expect(refusal(use)).toMatchObject({ code: 'CLOSED' });
    expect(await failure(source.ready())).toMatchObject({ code: 'CLOSED' });
    expect(source.waitingFor).toBe('the X.509 source is closed');
    for await (const _ of source) throw new Error('gave something');
    await source.close();
    await until(() => api.calls.every(({ signal }) => signal.aborted));
  });

  test('is what leaving its block makes of it', async () => {
    const { options } = await workload();
    let kept: X509Source;
    {
      await using source = await X509Source.open(options);
      kept = source;
    }
    expect(refusal(() => kept.svid)).toMatchObject({ code: 'CLOSED' });
  });

  test('leaves a shared client open, and a closed client ends its sources', async () => {
    const { options } = await workload();
    const client = new WorkloadApiClient(options);
    const [one, two] = await Promise.all([X509Source.open({ ...options, client }), X509Source.open({ ...options, client })]);
    await one.close();
    expect(two.svid.id.path).toBe('/web');
    expect((await client.fetchX509Svid()).id.path).toBe('/web');
    const changed = change(two);
    client.close();
    await changed;
    expect(refusal(() => two.svid)).toMatchObject({ code: 'CLOSED' });
    await two.close();
  });

  test('is not made at all of a malformed address', () => {
    expect(refusal(() => new X509Source({ address: 'http://x' }))).toMatchObject({ code: 'REQUEST_INVALID', reason: 'ENDPOINT_SCHEME' });
  });
});

test('a logger that throws stops nothing', async () => {
  const { clock, options, api } = await workload({ late: true });
  const log = {
    debug() {},
    info() {},
    warn() {
      throw new Error('disk full');
    },
    error() {},
  };
  const source = closing(new X509Source({ ...options, log }));
  const ready = source.ready();
  await until(() => clock.waiting === 2);
  await api.start();
  await clock.advance(RETRY_MS);
  await ready;
});
