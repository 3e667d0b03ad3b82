/** Good files are never left for worse ones, whatever the Workload API says; what could not be written is tried again, and whoever follows is told. */
import { readdirSync, rmSync, statSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { fail } from '../../../core/errors.ts';
import { type Change, Keeper, type Offer } from '../../../proxy/helper/keeper.ts';
import { alarmOf, nextAlarmMs, Status } from '../../../proxy/helper/status.ts';
import { systemClock } from '../../../spiffe/clock.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { X509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { CountingLog } from '../../fakes/log.ts';
import { Rig, triple, until } from './rig.ts';

let rig: Rig;
beforeEach(async () => {
  rig = new Rig({ identities: ['/web'] });
  await rig.api.start();
});
afterEach(() => rig[Symbol.asyncDispose]());

const serial = () => X509Svid.fromPem(rig.read('d', 'svid.pem'), rig.read('d', 'svid_key.pem')).leaf.serialNumber;

describe('HP-12 good files stay', () => {
  const rows: readonly (readonly [what: string, worsen: () => void])[] = [
    ['the identity is taken back', () => rig.api.deny()],
    ['answers lack what they must have', () => rig.api.garble('fields')],
    ['answers are no messages', () => rig.api.garble('octets')],
    ['the SVID that comes has expired', () => rig.api.set({ identities: [{ path: '/web', ttlMs: -1_000 }] })],
    ['there is another identity in its place', () => rig.api.set({ identities: ['/other'] })],
  ];
  for (const [what, worsen] of rows) {
    test(`when ${what}; and what is good again replaces them`, async () => {
      const dir = rig.folder('d');
      const helper = await rig.start(`${triple(dir)} spiffe_id = "spiffe://example.org/web"`);
      const first = await until('files', serial);
      worsen();
      await until('the helper says so', () => helper.log.warnings > 0);
      expect(serial()).toBe(first);
      rig.api.resume();
      rig.api.set({ identities: ['/web'] });
      await until('newer files', () => serial() !== first);
      expect(await helper.stop()).toBe(0);
    });
  }

  test('when the agent is gone, and are newer when it is back', async () => {
    const dir = rig.folder('d');
    const helper = await rig.start(triple(dir));
    const first = await until('files', serial);
    await rig.api.stop();
    await until('the helper says so', () => helper.log.warnings > 0);
    expect(serial()).toBe(first);
    await rig.api.start();
    rig.api.renew();
    await until('newer files', () => serial() !== first);
  });

  test('when an agent comes with an SVID that was made earlier and ends sooner, while its bundles are taken; one made later is taken however short its life is', async () => {
    let at = Date.now() - 1_200_000;
    const back = new Rig({}, EphemeralTrustDomain.create('example.org', { clock: { now: () => at } }));
    try {
      at = Date.now();
      back.api.set({ identities: ['/web'] });
      await back.api.start();
      const dir = back.folder('d');
      const read = () => X509Svid.fromPem(back.read('d', 'svid.pem'), back.read('d', 'svid_key.pem')).leaf;
      await back.start(`${triple(dir)} include_federated_domains = true`);
      const first = await until('files', read);
      at = Date.now() - 600_000;
      back.api.set({ identities: ['/web'], federated: [EphemeralTrustDomain.create('other.org')] });
      expect(back.api.svids[0]?.notAfterMs).toBeLessThan(first.notAfterMs);
      await until('the new bundle', () => back.read('d', 'svid_bundle.other.org.pem') !== '');
      expect(read().serialNumber).toBe(first.serialNumber);
      at = Date.now() + 1_000;
      back.api.set({ identities: [{ path: '/web', ttlMs: 60_000 }] });
      await until('the new SVID', () => read().serialNumber !== first.serialNumber);
      expect(read().notAfterMs).toBeLessThan(first.notAfterMs);
    } finally {
      await back[Symbol.asyncDispose]();
    }
  });
});

describe('HP-12 the end that comes near', () => {
  const one = { expiresMs: 30_000, lifetimeMs: 30_000 } as Parameters<typeof alarmOf>[0];
  test.each([
    [0, 'none'],
    [19_999, 'none'],
    [20_000, 'warning'],
    [26_999, 'warning'],
    [27_000, 'alarm'],
    [40_000, 'alarm'],
  ] as const)('%d ms into 30 s: %s', (nowMs, alarm) => expect(alarmOf(one, nowMs)).toBe(alarm));
  test('is looked at when it changes', () => {
    expect([0, 20_000, 27_000, 30_000].map((nowMs) => nextAlarmMs(one, nowMs))).toEqual([20_000, 27_000, 30_000, Number.POSITIVE_INFINITY]);
    expect(alarmOf({ ...one, expiresMs: undefined }, 1)).toBe('none');
  });

  test('is told to hooks that ask, and logged as an error, when nothing newer comes', async () => {
    const dir = rig.folder('d');
    rig.api.set({ identities: [{ path: '/web', ttlMs: 3_000 }] });
    const helper = await rig.start(`${triple(dir)}
hook "alarm" { events = ["expiring"] debounce = "0s" command = ["sh", "-c", "echo $WARIFU_EVENT >> ${rig.directory}/told"] }`);
    await until('files', serial);
    await rig.api.stop();
    await until('the hook runs', () => rig.read('told').startsWith('expiring\n'));
    await until('it is an error by then', () => helper.log.errors > 0);
    expect(serial()).toBeTruthy();
  });
});

describe('HP-2 a keeper', () => {
  let status: Status;
  let told: Change[];
  let stop: AbortController;
  let done: Promise<unknown>;
  const begin = (directory: string): Keeper => {
    status = new Status([{ name: 'web', kind: 'x509', path: directory }]);
    told = [];
    stop = new AbortController();
    const place = { name: 'web', directory, atomic: 'link', ownership: { uid: undefined, gid: undefined } } as const;
    const keeper = new Keeper(place, 'x509', { status, log: new CountingLog(), clock: systemClock, tell: (change) => told.push(change) });
    done = keeper.run(stop.signal).catch(() => {});
    return keeper;
  };
  afterEach(async () => {
    stop?.abort();
    await done;
  });
  const offer = (text: string): Offer => ({
    spiffeId: undefined,
    expiresMs: undefined,
    lifetimeMs: undefined,
    files: () => ['a', 'b'].map((name) => ({ name, data: Buffer.from(text), mode: 0o644, secret: false })),
  });

  test('tells of each change once; of files that it finds good at its start too, as whoever wrote them may have died before telling', async () => {
    const dir = rig.folder('k');
    const first = begin(dir);
    first.offer(offer('1'));
    await until('told', () => told.length === 1);
    first.offer(offer('1'));
    first.offer(offer('2'));
    await until('told', () => told.length === 2);
    stop.abort();
    await done;
    const inode = statSync(join(dir, 'a')).ino;
    const second = begin(dir);
    second.offer(offer('2'));
    await until('told', () => told.length === 1);
    second.offer(offer('2'));
    second.offer(offer('3'));
    await until('written', () => rig.read('k', 'a') === '3');
    await until('told', () => told.length === 2);
    expect(told.every(({ event }) => event === 'renewed')).toBe(true);
    expect(statSync(join(dir, 'a')).ino).not.toBe(inode);
    expect(status.of('web').writes).toBe(1);
  });

  test('tries again what could not be written, and gives way to what is newer', async () => {
    const dir = rig.folder('k');
    const keeper = begin(dir);
    keeper.offer(offer('1'));
    await until('written', () => rig.read('k', 'a') === '1');
    rmSync(join(dir, 'b'));
    mkdirSync(join(dir, 'b', 'in-the-way'), { recursive: true });
    keeper.offer(offer('2'));
    await until('failed', () => status.of('web').failures > 0);
    expect(status).toMatchObject({ live: false, complete: false });
    keeper.offer(offer('3'));
    rmSync(join(dir, 'b'), { recursive: true });
    await until('written', () => rig.read('k', 'b') === '3');
    await until('told', () => told.length === 2);
    expect(status).toMatchObject({ live: true, complete: true });
    expect(readdirSync(dir).filter((name) => name.includes('.tmp.'))).toEqual([]);
  });

  test('writes nothing for an offer that is worse, and counts it', async () => {
    const dir = rig.folder('k');
    const keeper = begin(dir);
    keeper.offer(offer('1'));
    await until('written', () => rig.read('k', 'a') === '1');
    keeper.offer({
      ...offer('2'),
      files() {
        throw fail('BUNDLE_MISSING', 'no bundle');
      },
    });
    await until('refused', () => status.of('web').refusals === 1);
    expect(rig.read('k', 'a')).toBe('1');
    expect(status.of('web').lack?.code).toBe('BUNDLE_MISSING');
    expect(told).toHaveLength(1);
  });
});
