/** The bundle API: our own bundle, and those of others, kept as they were given or refused with the reason. */
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { silent } from '../../../core/log.ts';
import type { CallContext } from '../../../core/rpc-types.ts';
import { BatchDeleteFederatedBundleRequest_Mode as Mode } from '../../../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import { Bundle as Message, BundleMask } from '../../../proto/gen/spire/api/types/bundle.ts';
import { createBundleApi } from '../../../server/api/bundle.ts';
import { createBundles } from '../../../server/bundles.ts';
import { createMemory, type Memory } from '../../../server/memory.ts';
import { openSqlite } from '../../../server/store/sqlite.ts';
import type { Store } from '../../../server/store/store.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { Encoded } from '../../../spiffe/rpc/service.ts';
import { entry } from '../../contract/store.ts';
import { type TestCertificate, testRoot } from '../../fakes/ca.ts';
import { FakeClock } from '../../fakes/clock.ts';

const trustDomain = TrustDomain.parse('example.org');
const CALL = {} as CallContext;
const newSpki = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' });

let folder: string;
let store: Store;
let memory: Memory;
let api: ReturnType<typeof createBundleApi>;
let root: TestCertificate;
beforeAll(async () => {
  root = await testRoot();
});
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'warifu-'));
  const clock = new FakeClock();
  store = await openSqlite(join(folder, 'db'), clock);
  memory = await createMemory({ store, clock, log: silent, trustDomain });
  api = createBundleApi({ store, state: memory, trustDomain, bundles: createBundles({ store, state: memory, trustDomain }) });
});
afterEach(async () => {
  memory.close();
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

/** The answer as a message: no handler here gives bytes. */
async function ask<T>(answer: Promise<T | Encoded> | undefined): Promise<T> {
  const given = await answer;
  if (given === undefined || given instanceof Encoded) return expect.fail('no message');
  return given;
}
const other = (over: Parameters<typeof Message.fromPartial>[0] = {}) =>
  Message.fromPartial({ trustDomain: 'other.org', x509Authorities: [{ asn1: root.der }], refreshHint: 60, ...over });
const set = async (...bundle: Message[]) => (await ask(api.batchSetFederatedBundle?.({ bundle, outputMask: undefined }, CALL))).results;
const get = (name: string) => ask(api.getFederatedBundle?.({ trustDomain: name, outputMask: undefined }, CALL));
const newest = async () => (await store.changes.bounds()).newest;

describe('our own', () => {
  const append = (over: { x509?: Buffer[]; jwt?: { publicKey: Buffer; keyId: string }[] }) =>
    ask(
      api.appendBundle?.(
        {
          x509Authorities: (over.x509 ?? []).map((asn1) => ({ asn1, tainted: false })),
          jwtAuthorities: (over.jwt ?? []).map((one) => ({ ...one, expiresAt: 0, tainted: false })),
          witAuthorities: [],
          outputMask: undefined,
        },
        CALL,
      ),
    );
  const own = (outputMask?: BundleMask) => ask(api.getBundle?.({ outputMask }, CALL));

  test('is not there before its first authority; then anybody reads it, masked as he likes', async () => {
    await expect(own()).rejects.toMatchObject({ code: 'NOT_FOUND', message: 'bundle not found' });
    await append({ x509: [root.der], jwt: [{ publicKey: newSpki(), keyId: 'k' }] });
    const whole = await own();
    expect([whole.trustDomain, whole.x509Authorities.length, whole.jwtAuthorities.length]).toEqual(['example.org', 1, 1]);
    const masked = await own(BundleMask.fromPartial({ x509Authorities: true }));
    expect([masked.trustDomain, masked.x509Authorities.length, masked.jwtAuthorities.length]).toEqual(['example.org', 1, 0]);
  });

  test('takes an authority once, and a second time changes nothing', async () => {
    const first = await append({ x509: [root.der] });
    const before = await newest();
    expect((await append({ x509: [root.der, root.der] })).sequenceNumber).toBe(first.sequenceNumber);
    expect(await newest()).toBe(before);
  });

  test('never has two keys under one id: whoever adds the second could sign for the first', async () => {
    const publicKey = newSpki();
    await append({ jwt: [{ publicKey, keyId: 'k' }] });
    await expect(append({ jwt: [{ publicKey: newSpki(), keyId: 'k' }] })).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    await expect(append({ jwt: [{ publicKey, keyId: 'k' }] })).resolves.toBeDefined();
  });

  test('takes nothing malformed, and nothing is written', async () => {
    await append({ x509: [root.der] });
    const before = await newest();
    for (const bad of [
      {},
      { x509: [Buffer.from('junk')] },
      { x509: [Buffer.concat([root.der, Buffer.from([0])])] },
      { jwt: [{ publicKey: Buffer.from('junk'), keyId: 'k' }] },
      { jwt: [{ publicKey: newSpki(), keyId: '' }] },
    ]) {
      await expect(append(bad)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    }
    expect(await newest()).toBe(before);
  });

  test('is not for the calls that speak of others', async () => {
    const [refused] = await set(other({ trustDomain: 'example.org' }));
    expect(refused?.status).toEqual({ code: 3, message: "setting a federated bundle for the server's own trust domain is not allowed" });
    await expect(get('example.org')).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  });
});

describe('those of others', () => {
  test('are created once, updated by mask, set whole; equal content writes nothing', async () => {
    const create = async () => (await ask(api.batchCreateFederatedBundle?.({ bundle: [other()], outputMask: undefined }, CALL))).results[0];
    expect((await create())?.status).toEqual({ code: 0, message: 'OK' });
    expect((await create())?.status).toEqual({ code: 6, message: 'bundle already exists' });

    const inputMask = BundleMask.fromPartial({ refreshHint: true });
    const update = async (bundle: Message) =>
      (await ask(api.batchUpdateFederatedBundle?.({ bundle: [bundle], inputMask, outputMask: undefined }, CALL))).results[0];
    expect((await update(other({ refreshHint: 5, x509Authorities: [] })))?.bundle).toMatchObject({
      refreshHint: 5,
      x509Authorities: [{ asn1: root.der }],
    });
    expect((await update(other({ trustDomain: 'nobody.org' })))?.status).toEqual({ code: 5, message: 'bundle not found' });

    const sequence = (await get('other.org')).sequenceNumber;
    await set(other({ refreshHint: 7 }));
    expect((await get('other.org')).sequenceNumber).toBeGreaterThan(sequence);
  });

  test('that are malformed are refused one by one, the rest is taken', async () => {
    const results = await set(
      other({ trustDomain: 'Bad.org' }),
      other({ x509Authorities: [{ asn1: Buffer.from('junk') }] }),
      other({ refreshHint: -1 }),
      other({ jwtAuthorities: ['k', 'k'].map((keyId) => ({ keyId, publicKey: newSpki() })) }),
      other(),
    );
    expect(results.map(({ status }) => status?.code)).toEqual([3, 3, 3, 3, 0]);
    expect(await ask(api.countBundles?.({}, CALL))).toEqual({ count: 1 });
  });

  test('are listed by name, page by page, our own never among them', async () => {
    for (const name of ['c.org', 'a.org', 'b.org']) await set(other({ trustDomain: name }));
    await store.bundles.update('example.org', () => ({
      trustDomain: 'example.org',
      x509Authorities: [],
      jwtAuthorities: [],
      refreshHintSeconds: 0,
      sequence: 0,
    }));
    const found: string[] = [];
    for (let pageToken = '', pages = 0; pages < 5; pages++) {
      const page = await ask(api.listFederatedBundles?.({ pageSize: 2, pageToken, outputMask: undefined }, CALL));
      found.push(...page.bundles.map((one) => one.trustDomain));
      if (page.nextPageToken === '') break;
      pageToken = page.nextPageToken;
    }
    expect(found).toEqual(['a.org', 'b.org', 'c.org']);
    await expect(
      ask(api.listFederatedBundles?.({ pageSize: 2, pageToken: 'Bad Token', outputMask: undefined }, CALL)),
    ).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  });

  describe('with an entry that federates', () => {
    beforeEach(async () => {
      await set(other());
      const [outcome] = await store.entries.create([entry('linked', { federatesWith: [TrustDomain.parse('other.org')] })]);
      if (outcome?.ok) await memory.settled(outcome.seq);
    });
    const remove = async (mode: Mode) =>
      (await ask(api.batchDeleteFederatedBundle?.({ trustDomains: ['other.org'], mode }, CALL))).results[0]?.status;

    test('RESTRICT keeps both', async () => {
      expect(await remove(Mode.RESTRICT)).toEqual({
        code: 9,
        message: 'failed to delete federated bundle: cannot delete bundle; federated with 1 registration entries',
      });
      expect([memory.entryCount, memory.bundle('other.org')?.trustDomain]).toEqual([1, 'other.org']);
    });

    test('DELETE takes the entry too', async () => {
      expect(await remove(Mode.DELETE)).toEqual({ code: 0, message: 'OK' });
      expect([memory.entryCount, memory.bundle('other.org')]).toEqual([0, undefined]);
    });

    test('DISSOCIATE takes the link from it', async () => {
      expect(await remove(Mode.DISSOCIATE)).toEqual({ code: 0, message: 'OK' });
      expect(memory.entry('linked')?.federatesWith).toEqual([]);
      expect(await remove(Mode.DISSOCIATE)).toEqual({ code: 5, message: 'bundle not found' });
    });

    test('a mode that is none is refused', async () => {
      await expect(remove(9 as Mode)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    });
  });
});
