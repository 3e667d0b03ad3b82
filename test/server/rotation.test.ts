/** The lives of our authorities, over a real store: what is prepared and activated when, what restarts and crashes leave, and what stays trusted. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createPublicKey } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { fail } from '../../core/errors.ts';
import { localSigningKey } from '../../core/local-key.ts';
import type { KeyManager } from '../../core/plugin/key-manager.ts';
import type { DirectAuthority, UpstreamAuthority } from '../../core/plugin/upstream-authority.ts';
import { parseCsr } from '../../core/x509/csr.ts';
import { issueX509Ca, issueX509Svid } from '../../core/x509/issue.ts';
import { generateEcKey, spkiDer } from '../../core/x509/key.ts';
import { serverDisk } from '../../plugins/key-manager/disk.ts';
import { serverMemory } from '../../plugins/key-manager/memory.ts';
import { activateAtMs, prepareAtMs, Rotation, type RotationParts, type RotationSettings } from '../../server/rotation.ts';
import { bundleOf } from '../../server/bundles.ts';
import { openSqlite } from '../../server/store/sqlite.ts';
import type { JournalRecord, Store, StoredBundle } from '../../server/store/store.ts';
import { Certificate } from '../../spiffe/x509/certificate.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { Latest } from '../../spiffe/latest.ts';
import { verifyX509Svid } from '../../spiffe/x509/x509-svid.ts';
import { NOW_MS, type TestCertificate, testCertificate, type TestCertificateOptions, testRoot } from '../fakes/ca.ts';
import { lifetimes } from '../fakes/lifetimes.ts';
import { FakeClock } from '../fakes/clock.ts';
import { CountingLog } from '../fakes/log.ts';
import { signingKey } from '../fakes/signing-key.ts';

const td = TrustDomain.parse('example.org');
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const YEARS = { notBeforeMs: NOW_MS - DAY_MS, notAfterMs: NOW_MS + 3650 * DAY_MS };

let folder: string;
let clock: FakeClock;
let store: Store;
let log: CountingLog;
let stop: AbortController;
let root: TestCertificate;
let running: Promise<void> | undefined;
beforeAll(async () => {
  root = await testRoot({ subject: 'CN=Root', uris: [], ...YEARS });
});
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'rotation-'));
  clock = new FakeClock(NOW_MS);
  store = await openSqlite(join(folder, 'db'), clock);
  log = new CountingLog();
  stop = new AbortController();
  running = undefined;
});
afterEach(async () => {
  stop.abort();
  await running?.catch(() => {});
  await store.close();
  rmSync(folder, { recursive: true });
});

const settings: RotationSettings = {
  trustDomain: td,
  caTtlMs: DAY_MS,
  caKeyType: 'ec-p256',
  jwtKeyType: 'ec-p256',
  caSubject: { country: ['US'], organization: ['SPIFFE'] },
  disableJwtSvids: false,
  bundleAnchor: 'root',
};

const host = () => ({ trustDomain: td, log, clock, signal: stop.signal, reloads: new Latest(0) });
const nextLife = lifetimes();
const diskKeys = () => serverDisk.start({ keys_path: join(folder, 'keys.json') }, { ...host(), signal: nextLife() });
const memoryKeys = () => serverMemory.start({}, host());

/** An external PKI that signs CAs below its root, unless it is away. */
class Pki {
  readonly rootsNow: Latest<readonly Buffer[]>;
  issuer: TestCertificate;
  away = false;

  constructor(issuer: TestCertificate) {
    this.issuer = issuer;
    this.rootsNow = new Latest([issuer.der]);
  }

  readonly upstream: UpstreamAuthority = {
    mode: 'ca-below',
    mintX509Ca: async (csrDer, ttlMs) => {
      if (this.away) throw fail('UNAVAILABLE', 'the PKI is away');
      const certificate = Certificate.parse(this.issuer.der);
      const { der } = await issueX509Ca({
        issuer: { certificate, key: signingKey(this.issuer.key) },
        key: { spkiDer: parseCsr(csrDer).spkiDer },
        trustDomain: td,
        subject: {},
        notBeforeMs: clock.now() - 10_000,
        notAfterMs: Math.min(clock.now() + ttlMs, certificate.notAfterMs),
      });
      return { chainDer: [der], rootsDer: this.rootsNow.value };
    },
    roots: (signal) => this.rootsNow.changes(signal),
  };
}

async function begin(
  keys: KeyManager,
  upstream: UpstreamAuthority,
  more: Partial<RotationSettings> = {},
  over: Partial<RotationParts> = {},
) {
  const rotation = new Rotation({ ...settings, ...more }, { store, keys, upstream, clock, log, ...over });
  await rotation.start(stop.signal);
  return rotation;
}

async function bundle(): Promise<StoredBundle> {
  const found = await store.bundles.get('example.org');
  if (!found) throw new Error('no bundle');
  return found;
}
const rootsOf = async () => (await bundle()).x509Authorities.map(({ der }) => der);
const kidsOf = async () => (await bundle()).jwtAuthorities.map(({ keyId }) => keyId);
const journal = async (kind: JournalRecord['kind']) => (await store.journals.load()).filter((record) => record.kind === kind);
const statuses = async (kind: JournalRecord['kind']) => (await journal(kind)).map(({ status }) => status).sort();

function goTo(ms: number): void {
  clock.jump(ms - clock.now());
}

function run(rotation: Rotation): void {
  running = rotation.run(stop.signal);
}

/** Lets the tick come as often as it would in this time. */
async function pass(ms: number): Promise<void> {
  for (let gone = 0; gone < ms; gone += 10_000) {
    await clock.advance(10_000);
    // the tick and the pruning wait again
    while (clock.waiting < 2) await setImmediate();
  }
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await setImmediate();
}

describe('SPIRE’s fractions of the lifetime', () => {
  test.each([
    ['a day', DAY_MS, 12 * HOUR_MS, 4 * HOUR_MS],
    ['an hour', HOUR_MS, 30 * MINUTE_MS, 10 * MINUTE_MS],
    ['42 days', 42 * DAY_MS, 21 * DAY_MS, 7 * DAY_MS],
    ['60 days', 60 * DAY_MS, 30 * DAY_MS, 7 * DAY_MS],
    ['a year', 365 * DAY_MS, 30 * DAY_MS, 7 * DAY_MS],
  ])('an authority of %s', (_, lifetimeMs, preparedBefore, activeBefore) => {
    const life = { issuedAtMs: NOW_MS, notAfterMs: NOW_MS + lifetimeMs };
    expect(life.notAfterMs - prepareAtMs(life)).toBe(preparedBefore);
    expect(life.notAfterMs - activateAtMs(life)).toBe(activeBefore);
  });
});

describe('a CA of ours below the PKI', () => {
  test('the first start makes both authorities and publishes what verifies them', async () => {
    const rotation = await begin(await memoryKeys(), new Pki(root).upstream);
    expect(await rootsOf()).toEqual([root.der]);
    expect(rotation.x509?.id).toBe(rotation.x509?.certificate.ski?.toString('hex'));
    expect(rotation.activeX509.value).toBe(rotation.x509);
    expect(rotation.x509?.notAfterMs).toBe(NOW_MS + DAY_MS);
    expect(rotation.jwt?.notAfterMs).toBe(NOW_MS + DAY_MS);
    expect((await bundle()).jwtAuthorities).toEqual([
      { keyId: rotation.jwt?.id, spkiDer: rotation.jwt?.key.spkiDer, notAfterMs: NOW_MS + DAY_MS, tainted: false },
    ]);
    expect(rotation.jwt?.id).toMatch(/^[A-Za-z0-9]{32}$/);
    expect(rotation.jwt?.key.spkiDer.equals(rotation.x509?.key.spkiDer ?? Buffer.alloc(0))).toBe(false);
    expect([await statuses('x509'), await statuses('jwt')]).toEqual([['active'], ['active']]);
  });

  test('FED-3 the successors are prepared at half of the lifetime and sign from a sixth before its end', async () => {
    const rotation = await begin(await memoryKeys(), new Pki(root).upstream);
    const { x509, jwt } = rotation;
    goTo(NOW_MS + 12 * HOUR_MS);
    await rotation.rotate(stop.signal);
    expect([await statuses('x509'), await statuses('jwt')]).toEqual([['active'], ['active']]);
    goTo(NOW_MS + 12 * HOUR_MS + 1_000);
    await rotation.rotate(stop.signal);
    expect([await statuses('x509'), await statuses('jwt')]).toEqual([
      ['active', 'prepared'],
      ['active', 'prepared'],
    ]);
    expect([rotation.x509, rotation.jwt]).toEqual([x509, jwt]);
    // those who verify know the next key eight hours before it signs
    expect(await kidsOf()).toHaveLength(2);
    goTo(NOW_MS + 20 * HOUR_MS);
    await rotation.rotate(stop.signal);
    expect([rotation.x509, rotation.jwt]).toEqual([x509, jwt]);
    goTo(NOW_MS + 20 * HOUR_MS + 1_000);
    await rotation.rotate(stop.signal);
    expect(rotation.x509?.id).not.toBe(x509?.id);
    expect(rotation.activeX509.value).toBe(rotation.x509);
    expect(await kidsOf()).toEqual([jwt?.id, rotation.jwt?.id]);
    expect([await statuses('x509'), await statuses('jwt')]).toEqual([
      ['active', 'old'],
      ['active', 'old'],
    ]);
  });

  test('issuers() are all that may have issued something alive, so that a sibling under the same root is told from us', async () => {
    const rotation = await begin(await memoryKeys(), new Pki(root).upstream);
    const first = rotation.x509?.certificate.raw;
    goTo(NOW_MS + 21 * HOUR_MS);
    await rotation.rotate(stop.signal);
    const ders = rotation.issuers().map(({ raw }) => raw);
    expect(ders).toHaveLength(2);
    expect(ders).toContainEqual(first);
    expect(ders).toContainEqual(rotation.x509?.certificate.raw);
    expect(ders).not.toContainEqual(root.der);
  });

  test('announced are they and what the upstream signs nothing else with, before any of them signs; what has ended is not', async () => {
    const pki = new Pki(root);
    const own = new Latest<readonly Buffer[]>([root.der]);
    const rotation = await begin(await memoryKeys(), {
      ...pki.upstream,
      ownIssuers: (signal: AbortSignal) => own.changes(signal),
    } as UpstreamAuthority);
    const first = rotation.x509?.certificate.raw;
    expect(rotation.announced.value.map(({ raw }) => raw)).toEqual([root.der, first]);
    goTo(NOW_MS + 13 * HOUR_MS);
    await rotation.rotate(stop.signal);
    expect(rotation.x509?.certificate.raw).toEqual(first);
    expect(rotation.announced.value).toHaveLength(3);
    goTo(NOW_MS + 25 * HOUR_MS);
    await rotation.rotate(stop.signal);
    expect(rotation.announced.value.map(({ raw }) => raw)).not.toContainEqual(first);
    expect(rotation.announced.value.map(({ raw }) => raw)).toContainEqual(rotation.x509?.certificate.raw);
    run(rotation);
    const other = await testRoot({ uris: [], ...YEARS });
    own.set([other.der]);
    await until(() => rotation.announced.value.some(({ raw }) => raw.equals(other.der)));
    expect(rotation.announced.value.map(({ raw }) => raw)).not.toContainEqual(root.der);
  });

  test('X509-45 bundle_anchor intermediate: what signs our CA is the bundle, and the CA alone follows the leaf', async () => {
    const middle = await testCertificate({ ca: true, uris: [], subject: 'CN=Middle', issuer: root, ...YEARS });
    const pki = new Pki(middle);
    const upstream = {
      ...pki.upstream,
      mintX509Ca: async (csr: Buffer, ttlMs: number, signal: AbortSignal) => {
        if (pki.upstream.mode !== 'ca-below') throw new Error('no');
        const { chainDer } = await pki.upstream.mintX509Ca(csr, ttlMs, signal);
        return { chainDer: [...chainDer, middle.der], rootsDer: [root.der] };
      },
    } as UpstreamAuthority;
    const rotation = await begin(await memoryKeys(), upstream, { bundleAnchor: 'intermediate' });
    expect(await rootsOf()).toEqual([middle.der]);
    expect(rotation.x509?.chain).toHaveLength(1);
    // its twin: the root
    const other = await openSqlite(join(folder, 'other'), clock);
    const plain = await begin(await memoryKeys(), upstream, {}, { store: other });
    expect((await other.bundles.get('example.org'))?.x509Authorities.map(({ der }) => der)).toEqual([root.der]);
    expect(plain.x509?.chain).toHaveLength(2);
    await other.close();
  });

  test('what ended while the machine slept is replaced at the first tick', async () => {
    const rotation = await begin(await memoryKeys(), new Pki(root).upstream);
    goTo(NOW_MS + 13 * HOUR_MS);
    await rotation.rotate(stop.signal);
    goTo(NOW_MS + 10 * DAY_MS);
    await rotation.rotate(stop.signal);
    expect(rotation.x509?.notAfterMs).toBe(NOW_MS + 11 * DAY_MS);
    expect(rotation.jwt?.notAfterMs).toBe(NOW_MS + 11 * DAY_MS);
  });

  test('disable_jwt_svids makes no JWT key', async () => {
    const rotation = await begin(await memoryKeys(), new Pki(root).upstream, { disableJwtSvids: true });
    await rotation.rotate(stop.signal);
    expect(rotation.jwt).toBeUndefined();
    expect(await kidsOf()).toEqual([]);
  });

  test('an authority ends with the first above it, the root too', async () => {
    const brief = await testRoot({ subject: 'CN=Brief', uris: [], notBeforeMs: NOW_MS - DAY_MS, notAfterMs: NOW_MS + 5 * HOUR_MS });
    const policy = await testCertificate({ ca: true, uris: [], issuer: brief, ...YEARS });
    const key = signingKey((await testRoot()).key);
    const ca = await issueX509Ca({
      issuer: { certificate: Certificate.parse(policy.der), key: signingKey(policy.key) },
      key,
      trustDomain: td,
      subject: {},
      notBeforeMs: NOW_MS - 10_000,
      notAfterMs: NOW_MS + 100 * DAY_MS,
    });
    const given: DirectAuthority = { key: { ...key, id: 'x', type: 'ec-p256' }, chainDer: [ca.der, policy.der], rootsDer: [brief.der] };
    const rotation = await begin(await memoryKeys(), direct(new Latest(given)));
    expect(rotation.x509?.notAfterMs).toBe(NOW_MS + 5 * HOUR_MS);
    // a cross-certificate of the same root that lasts: then that one counts
    const lasting = await testRoot({ subject: 'CN=Brief', keys: brief.keys, uris: [], ...YEARS });
    const again = await begin(await memoryKeys(), direct(new Latest({ ...given, rootsDer: [brief.der, lasting.der] })));
    expect(again.x509?.notAfterMs).toBe(NOW_MS + 100 * DAY_MS);
  });

  test('what nobody could verify never signs: a chain that does not lead to the roots that came with it', async () => {
    const pki = new Pki(root);
    pki.rootsNow.set([(await testRoot({ uris: [], ...YEARS })).der]);
    await expect(begin(await memoryKeys(), pki.upstream)).rejects.toMatchObject({ code: 'SVID_UNTRUSTED' });
    pki.rootsNow.set([root.der]);
    await expect(begin(await memoryKeys(), pki.upstream)).resolves.toBeDefined();
  });

  test('a new root of the PKI is published as soon as it is known', async () => {
    const pki = new Pki(root);
    run(await begin(await memoryKeys(), pki.upstream));
    const second = await testRoot({ uris: [], ...YEARS });
    pki.rootsNow.set([root.der, second.der]);
    await until(async () => (await rootsOf()).length === 2);
    expect(await rootsOf()).toEqual([root.der, second.der]);
  });

  test('a new root that could not be published is published at a later tick', async () => {
    const pki = new Pki(root);
    let full = false;
    const bundles: Store['bundles'] = {
      ...store.bundles,
      update: async (name, change) => {
        if (full) throw fail('STORE_FAILED', 'disk full');
        return store.bundles.update(name, change);
      },
    };
    run(await begin(await memoryKeys(), pki.upstream, {}, { store: { bundles, journals: store.journals } }));
    await pass(10_000);
    full = true;
    const second = await testRoot({ uris: [], ...YEARS });
    pki.rootsNow.set([root.der, second.der]);
    await pass(20_000);
    expect(await rootsOf()).toEqual([root.der]);
    full = false;
    await pass(10_000);
    expect(await rootsOf()).toEqual([root.der, second.der]);
  });

  test('ill after more than ten failures in a row, well after one success; what was active signs all along', async () => {
    const pki = new Pki(root);
    const rotation = await begin(await memoryKeys(), pki.upstream);
    const { x509 } = rotation;
    goTo(NOW_MS + 13 * HOUR_MS);
    pki.away = true;
    run(rotation);
    await pass(100_000);
    expect([rotation.healthy, log.errors]).toEqual([true, 10]);
    await pass(10_000);
    expect(rotation.healthy).toBe(false);
    expect(rotation.x509).toBe(x509);
    pki.away = false;
    await pass(10_000);
    expect(rotation.healthy).toBe(true);
    expect(await statuses('x509')).toEqual(['active', 'prepared']);
  });
});

describe('a restart', () => {
  test('with keys on disk goes on with the same authorities, the prepared ones too', async () => {
    const pki = new Pki(root);
    const before = await begin(await diskKeys(), pki.upstream);
    goTo(NOW_MS + 13 * HOUR_MS);
    await before.rotate(stop.signal);
    const kids = await kidsOf();
    pki.away = true; // and needs nobody for it
    const after = await begin(await diskKeys(), pki.upstream);
    expect([after.x509?.id, after.jwt?.id]).toEqual([before.x509?.id, before.jwt?.id]);
    expect([after.x509?.issuedAtMs, after.x509?.notAfterMs]).toEqual([NOW_MS, NOW_MS + DAY_MS]);
    expect(after.x509?.chain.map(({ raw }) => raw)).toEqual(before.x509?.chain.map(({ raw }) => raw));
    goTo(NOW_MS + 21 * HOUR_MS);
    await after.rotate(stop.signal);
    expect(after.x509?.id).not.toBe(before.x509?.id);
    expect(after.jwt?.id).toBe(kids[1]);
    expect(await kidsOf()).toEqual(kids);
  });

  test('FED-5 with keys in memory makes new ones; the old JWT key stays in the bundle until it ends, the old CA among the issuers', async () => {
    const pki = new Pki(root);
    const before = await begin(await memoryKeys(), pki.upstream);
    const after = await begin(await memoryKeys(), pki.upstream);
    expect(after.x509?.id).not.toBe(before.x509?.id);
    expect(await kidsOf()).toEqual([before.jwt?.id, after.jwt?.id]);
    expect(after.issuers().map(({ raw }) => raw)).toContainEqual(before.x509?.certificate.raw);
    expect([await statuses('x509'), await statuses('jwt')]).toEqual([
      ['active', 'old'],
      ['active', 'old'],
    ]);
    goTo(NOW_MS + 36 * HOUR_MS);
    await after.prune();
    expect(await kidsOf()).toHaveLength(2);
    goTo(NOW_MS + 49 * HOUR_MS);
    await after.rotate(stop.signal);
    await after.prune();
    expect(await kidsOf()).toEqual([after.jwt?.id]);
  });

  test('with other keys in the same slots (a backup of another day) never signs with a key that the bundle does not know', async () => {
    const keys = await diskKeys();
    const before = await begin(keys, new Pki(root).upstream);
    for (const { id, type } of keys.list()) await keys.generate(id, type);
    const after = await begin(await diskKeys(), new Pki(root).upstream);
    expect(after.x509?.id).not.toBe(before.x509?.id);
    expect(after.jwt?.id).not.toBe(before.jwt?.id);
    expect((await bundle()).jwtAuthorities.at(-1)).toMatchObject({ keyId: after.jwt?.id, spkiDer: after.jwt?.key.spkiDer });
  });

  test('after the end of everything makes new ones', async () => {
    const before = await begin(await diskKeys(), new Pki(root).upstream);
    goTo(NOW_MS + 2 * DAY_MS);
    const after = await begin(await diskKeys(), new Pki(root).upstream);
    expect(after.x509?.id).not.toBe(before.x509?.id);
    expect(after.jwt?.id).not.toBe(before.jwt?.id);
    expect(after.x509?.notAfterMs).toBe(NOW_MS + 3 * DAY_MS);
  });

  test('a CA whose root is no longer in the bundle is not used again: nobody could verify what it signs', async () => {
    const before = await begin(await diskKeys(), new Pki(root).upstream);
    const second = await testRoot({ uris: [], ...YEARS });
    await store.bundles.update('example.org', (own) => own && { ...own, x509Authorities: [{ der: second.der, tainted: false }] });
    const after = await begin(await diskKeys(), new Pki(second).upstream);
    expect(after.x509?.id).not.toBe(before.x509?.id);
    expect(await rootsOf()).toEqual([second.der]);
  });

  test('FED-4 a crash at any write leaves nothing signed by a key that nobody was told of, and the next start signs', {
    timeout: 30_000,
  }, async () => {
    for (let crashAt = 1; ; crashAt++) {
      await store.close();
      rmSync(folder, { recursive: true });
      goTo(NOW_MS);
      store = await openSqlite(join(folder, 'db'), clock);
      let writes = 0;
      const crash = () => {
        if (++writes >= crashAt) throw fail('STORE_FAILED', 'the lights went out');
      };
      const dying: RotationParts['store'] = {
        bundles: { ...store.bundles, update: async (name, change) => (crash(), store.bundles.update(name, change)) },
        journals: { ...store.journals, save: async (record) => (crash(), store.journals.save(record)) },
      };
      let signing: { x509: Buffer | undefined; jwt: string | undefined } = { x509: undefined, jwt: undefined };
      const told = async (rotation: Rotation) => {
        const { x509Authorities, jwtAuthorities } = await bundle();
        for (const sha256 of rotation.x509?.rootsSha256 ?? [])
          expect(x509Authorities.map(({ der }) => Certificate.parse(der).sha256)).toContain(sha256);
        if (rotation.jwt)
          expect(jwtAuthorities).toContainEqual(expect.objectContaining({ keyId: rotation.jwt.id, spkiDer: rotation.jwt.key.spkiDer }));
        if (rotation.x509) expect(rotation.issuers().map(({ raw }) => raw)).toContainEqual(rotation.x509.certificate.raw);
      };
      const life = async () => {
        const rotation = new Rotation(settings, { store: dying, keys: await diskKeys(), upstream: new Pki(root).upstream, clock, log });
        const note = () => {
          signing = { x509: rotation.x509?.certificate.raw, jwt: rotation.jwt?.id };
        };
        try {
          await rotation.start(stop.signal);
          for (const hours of [0, 13, 21, 34, 42]) {
            goTo(NOW_MS + hours * HOUR_MS);
            await rotation.rotate(stop.signal);
            note();
            await told(rotation);
          }
        } finally {
          note();
        }
      };
      const survived = await life().then(
        () => true,
        (error: unknown) => {
          if ((error as { code?: string }).code !== 'STORE_FAILED') throw error;
          return false;
        },
      );
      const after = await begin(await diskKeys(), new Pki(root).upstream);
      await told(after);
      expect(after.x509 && after.jwt).toBeDefined();
      expect(await statuses('x509').then((all) => all.filter((one) => one === 'active'))).toHaveLength(1);
      if (signing.jwt) expect(await kidsOf()).toContain(signing.jwt);
      if (signing.x509) expect(after.issuers().map(({ raw }) => raw)).toContainEqual(signing.x509);
      if (survived) break;
      expect(crashAt).toBeLessThan(100);
    }
  });
});

function direct(authorities: Latest<DirectAuthority>): UpstreamAuthority {
  return { mode: 'direct', authorities: (signal) => authorities.changes(signal) };
}

function lend(chain: readonly TestCertificate[], roots: readonly TestCertificate[]): DirectAuthority {
  const [first] = chain;
  if (!first) throw new Error('no chain');
  return {
    key: localSigningKey('upstream', 'ec-p256', first.key),
    chainDer: chain.map(({ der }) => der),
    rootsDer: roots.map(({ der }) => der),
  };
}

describe('signing directly with what was handed over', () => {
  const intermediate = (options: TestCertificateOptions = {}) =>
    testCertificate({
      ca: true,
      pathLen: 0,
      uris: [],
      issuer: root,
      notBeforeMs: NOW_MS - DAY_MS,
      notAfterMs: NOW_MS + 10 * DAY_MS,
      ...options,
    });

  test('it is adopted as it is; JWT keys are our own', async () => {
    const given = await intermediate();
    const rotation = await begin(await memoryKeys(), direct(new Latest(lend([given], [root]))));
    expect(rotation.x509?.id).toBe(given.keyIdentifier);
    expect(rotation.x509?.chain.map(({ raw }) => raw)).toEqual([given.der]);
    expect(rotation.x509?.notAfterMs).toBe(NOW_MS + 10 * DAY_MS);
    expect(await rootsOf()).toEqual([root.der]);
    expect(rotation.jwt?.notAfterMs).toBe(NOW_MS + DAY_MS);
    goTo(NOW_MS + 13 * HOUR_MS);
    await rotation.rotate(stop.signal);
    expect([await statuses('x509'), await statuses('jwt')]).toEqual([['active'], ['active', 'prepared']]);
  });

  test('a renewed certificate over the same key is the same authority, renewed in place', async () => {
    const first = await intermediate({ subject: 'CN=Ours' });
    const offered = new Latest(lend([first], [root]));
    const rotation = await begin(await memoryKeys(), direct(offered));
    run(rotation);
    const renewed = await intermediate({ subject: 'CN=Ours', keys: first.keys, notAfterMs: NOW_MS + 20 * DAY_MS });
    offered.set(lend([renewed], [root]));
    await until(() => rotation.x509?.notAfterMs === NOW_MS + 20 * DAY_MS);
    expect(rotation.x509?.id).toBe(first.keyIdentifier);
    expect(rotation.x509?.certificate.raw).toEqual(renewed.der);
    expect(await journal('x509')).toMatchObject([{ status: 'active', authorityId: first.keyIdentifier, notAfterMs: NOW_MS + 20 * DAY_MS }]);
    expect(rotation.issuers()).toHaveLength(1);
  });

  test('renewed under another name, what was issued under the old one is still ours', async () => {
    const first = await intermediate({ subject: 'CN=Old Name' });
    const offered = new Latest(lend([first], [root]));
    const rotation = await begin(await memoryKeys(), direct(offered));
    run(rotation);
    const renewed = await intermediate({ subject: 'CN=New Name', keys: first.keys });
    offered.set(lend([renewed], [root]));
    await until(async () => (await statuses('x509')).includes('prepared'));
    await pass(10_000);
    expect(rotation.x509?.certificate.raw).toEqual(renewed.der);
    expect(rotation.x509?.id).toBe(first.keyIdentifier);
    expect(
      rotation
        .issuers()
        .map(({ subjectText }) => subjectText)
        .sort(),
    ).toEqual(['CN=New Name', 'CN=Old Name']);
  });

  test('a renewed certificate further up is taken over too', async () => {
    const policy = await testCertificate({ ca: true, uris: [], subject: 'CN=Policy', issuer: root, notAfterMs: NOW_MS + DAY_MS });
    const first = await intermediate({ issuer: policy });
    const offered = new Latest(lend([first, policy], [root]));
    const rotation = await begin(await memoryKeys(), direct(offered));
    expect(rotation.x509?.notAfterMs).toBe(NOW_MS + DAY_MS);
    run(rotation);
    const renewed = await testCertificate({ ca: true, uris: [], subject: 'CN=Policy', keys: policy.keys, issuer: root, ...YEARS });
    offered.set(lend([first, renewed], [root]));
    await until(() => rotation.x509?.notAfterMs === NOW_MS + 10 * DAY_MS);
    expect(rotation.x509?.chain.map(({ raw }) => raw)).toEqual([first.der, renewed.der]);
  });

  test('a new key under the same root is announced one tick before it signs; the old one is among the issuers', async () => {
    const [first, second] = [await intermediate(), await intermediate()];
    const offered = new Latest(lend([first], [root]));
    const rotation = await begin(await memoryKeys(), direct(offered));
    run(rotation);
    offered.set(lend([second], [root]));
    await until(async () => (await statuses('x509')).includes('prepared'));
    expect(rotation.announced.value.map(({ raw }) => raw)).toEqual([first.der, second.der]);
    expect(rotation.x509?.id).toBe(first.keyIdentifier);
    await pass(10_000);
    expect(rotation.x509?.id).toBe(second.keyIdentifier);
    expect(await statuses('x509')).toEqual(['active', 'old']);
    expect(rotation.issuers()).toHaveLength(2);
  });

  test('under a new root it is prepared first: those who verify hear of the root one tick before anything is signed under it', async () => {
    const first = await intermediate();
    const next = await testRoot({ uris: [], ...YEARS });
    const second = await intermediate({ issuer: next });
    const offered = new Latest(lend([first], [root]));
    const rotation = await begin(await memoryKeys(), direct(offered));
    run(rotation);
    await clock.advance(5_000);
    offered.set(lend([second], [next]));
    await until(async () => (await statuses('x509')).includes('prepared'));
    expect(await rootsOf()).toEqual([root.der, next.der]);
    // the tick that comes five seconds after is too soon
    await pass(10_000);
    expect(rotation.x509?.id).toBe(first.keyIdentifier);
    expect(await statuses('x509')).toEqual(['active', 'prepared']);
    await pass(10_000);
    expect(rotation.x509?.id).toBe(second.keyIdentifier);
    expect(await rootsOf()).toEqual([root.der, next.der]);
  });

  test('an old root stays trusted until the last thing under it has ended, and a day longer for clocks that are behind', async () => {
    const first = await intermediate();
    const next = await testRoot({ uris: [], ...YEARS });
    const offered = new Latest(lend([first], [root]));
    const rotation = await begin(await memoryKeys(), direct(offered));
    run(rotation);
    const last = await intermediate({ issuer: next, notAfterMs: NOW_MS + 100 * DAY_MS });
    offered.set(lend([last], [next]));
    await pass(30_000);
    expect(rotation.x509?.id).toBe(last.keyIdentifier);
    goTo(NOW_MS + 11 * DAY_MS - 1_000);
    await rotation.prune();
    expect(await rootsOf()).toEqual([root.der, next.der]);
    goTo(NOW_MS + 11 * DAY_MS);
    await rotation.prune();
    expect(await rootsOf()).toEqual([next.der]);
  });

  test('the same key under a new root: the old root goes when what hung on it has ended', async () => {
    const first = await intermediate();
    const next = await testRoot({ uris: [], ...YEARS });
    const offered = new Latest(lend([first], [root]));
    const rotation = await begin(await memoryKeys(), direct(offered));
    run(rotation);
    offered.set(
      lend([await intermediate({ issuer: next, keys: first.keys, subject: first.subject, notAfterMs: NOW_MS + 100 * DAY_MS })], [next]),
    );
    await pass(30_000);
    expect(rotation.x509?.notAfterMs).toBe(NOW_MS + 100 * DAY_MS);
    await rotation.prune();
    expect(await rootsOf()).toEqual([root.der, next.der]);
    goTo(NOW_MS + 11 * DAY_MS + 1_000);
    await rotation.prune();
    expect(await rootsOf()).toEqual([next.der]);
  });

  test('what could not be taken over is tried again at each tick', async () => {
    const [first, second] = [await intermediate(), await intermediate()];
    const offered = new Latest(lend([first], [root]));
    let full = false;
    let saved = 0;
    const journals = {
      ...store.journals,
      save: async (record: JournalRecord) => {
        saved++;
        if (full) throw fail('STORE_FAILED', 'disk full');
        await store.journals.save(record);
      },
    };
    const rotation = await begin(await memoryKeys(), direct(offered), {}, { store: { bundles: store.bundles, journals } });
    run(rotation);
    full = true;
    offered.set(lend([second], [root]));
    await pass(30_000);
    expect(rotation.x509?.id).toBe(first.keyIdentifier);
    full = false;
    await pass(20_000);
    expect(rotation.x509?.id).toBe(second.keyIdentifier);
    // once, and no more
    const before = saved;
    await pass(30_000);
    expect(saved).toBe(before);
  });

  test('bundle_anchor intermediate: the bundle has it and no root, and an SVID carries no certificate but its own', async () => {
    const given = await intermediate({ pathLen: 0 });
    const rotation = await begin(await memoryKeys(), direct(new Latest(lend([given], [root]))), { bundleAnchor: 'intermediate' });
    expect(await rootsOf()).toEqual([given.der]);
    expect(rotation.x509?.chain).toEqual([]);
    expect(rotation.x509?.notAfterMs).toBe(NOW_MS + 10 * DAY_MS);
    const svid = await issueX509Svid({
      issuer: { certificate: Certificate.parse(given.der), key: signingKey(given.key) },
      spkiDer: spkiDer(createPublicKey(generateEcKey())),
      spiffeId: SpiffeId.of(td, '/web'),
      notBeforeMs: NOW_MS,
      notAfterMs: NOW_MS + HOUR_MS,
    });
    const stored = await bundle();
    expect(String(verifyX509Svid([svid.certificate], bundleOf(stored), { nowMs: NOW_MS }).id)).toBe('spiffe://example.org/web');
  });

  test('bundle_anchor intermediate: the next one is in the bundle one tick before it signs, and the old one stays while something below it lives', async () => {
    const [first, second] = [await intermediate(), await intermediate({ notAfterMs: NOW_MS + 100 * DAY_MS })];
    const offered = new Latest(lend([first], [root]));
    const rotation = await begin(await memoryKeys(), direct(offered), { bundleAnchor: 'intermediate' });
    run(rotation);
    offered.set(lend([second], [root]));
    await until(async () => (await statuses('x509')).includes('prepared'));
    expect(await rootsOf()).toEqual([first.der, second.der]);
    expect(rotation.x509?.id).toBe(first.keyIdentifier);
    await pass(10_000);
    expect(rotation.x509?.id).toBe(second.keyIdentifier);
    goTo(NOW_MS + 11 * DAY_MS + 1_000);
    await rotation.prune();
    expect(await rootsOf()).toEqual([second.der]);
  });

  test('replaced while the server was down: the new one signs, one only is active', async () => {
    const [first, second] = [await intermediate(), await intermediate()];
    await begin(await diskKeys(), direct(new Latest(lend([first], [root]))));
    const rotation = await begin(await diskKeys(), direct(new Latest(lend([second], [root]))));
    expect(rotation.x509?.id).toBe(second.keyIdentifier);
    expect(await statuses('x509')).toEqual(['active', 'old']);
    expect(rotation.issuers()).toHaveLength(2);
  });
});

describe('pruning the bundle', () => {
  test('never takes the last authority, however long ago it ended', async () => {
    const brief = await testRoot({ uris: [], notBeforeMs: NOW_MS - DAY_MS, notAfterMs: NOW_MS + DAY_MS });
    const pki = new Pki(brief);
    await begin(await diskKeys(), pki.upstream);
    goTo(NOW_MS + 400 * DAY_MS);
    const idle = new Rotation(settings, { store, keys: await memoryKeys(), upstream: pki.upstream, clock, log });
    await idle.prune();
    expect(await rootsOf()).toEqual([brief.der]);
  });

  test('a root that an operator added stays until it expires', async () => {
    const rotation = await begin(await memoryKeys(), new Pki(root).upstream);
    const added = await testRoot({ uris: [], notAfterMs: NOW_MS + 5 * DAY_MS });
    await store.bundles.update(
      'example.org',
      (own) => own && { ...own, x509Authorities: [...own.x509Authorities, { der: added.der, tainted: false }] },
    );
    goTo(NOW_MS + 5 * DAY_MS);
    await rotation.prune();
    expect(await rootsOf()).toEqual([root.der, added.der]);
    goTo(NOW_MS + 6 * DAY_MS + 1_000);
    await rotation.prune();
    expect(await rootsOf()).toEqual([root.der]);
  });

  test('the journal forgets what ended two weeks ago', async () => {
    const rotation = await begin(await memoryKeys(), new Pki(root).upstream);
    goTo(NOW_MS + 21 * HOUR_MS);
    await rotation.rotate(stop.signal);
    goTo(NOW_MS + 15 * DAY_MS - 1_000);
    await rotation.prune();
    expect(await statuses('x509')).toEqual(['active', 'old']);
    goTo(NOW_MS + 15 * DAY_MS);
    await rotation.prune();
    expect(await statuses('x509')).toEqual(['active']);
    expect(rotation.issuers()).toHaveLength(1);
  });
});
