/** KeyManager "memory": keys that sign, and are gone with the process. */
import { createPublicKey, verify } from 'node:crypto';
import { expect, test } from 'vitest';
import { silent } from '../../../core/log.ts';
import { KEY_TYPES } from '../../../core/plugin/key-manager.ts';
import { keyTypeOf } from '../../../core/x509/key.ts';
import { agentMemory, serverMemory } from '../../../plugins/key-manager/memory.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { Latest } from '../../../spiffe/latest.ts';
import { FakeClock } from '../../fakes/clock.ts';

const host = {
  trustDomain: TrustDomain.parse('example.org'),
  log: silent,
  clock: new FakeClock(),
  signal: new AbortController().signal,
  reloads: new Latest(0),
};

test.each(KEY_TYPES)('makes an %s key that signs and is found again', { timeout: 60_000 }, async (type) => {
  const keys = await serverMemory.start({}, host);
  const key = await keys.generate('x509-CA-A', type);
  expect([key.id, key.type, keyTypeOf(key.spkiDer)]).toEqual(['x509-CA-A', type, type]);
  expect(keys.get('x509-CA-A')).toBe(key);
  const data = Buffer.from('to be signed');
  const publicKey = createPublicKey({ key: key.spkiDer, format: 'der', type: 'spki' });
  expect(verify('sha256', data, publicKey, await key.sign(data, { hash: 'sha256' }))).toBe(true);
});

test('a key is replaced under its own id alone, and nothing gives the private key away', async () => {
  const keys = await serverMemory.start({}, host);
  const [a, b] = [await keys.generate('A', 'ec-p256'), await keys.generate('B', 'ec-p256')];
  const other = await keys.generate('A', 'ec-p384');
  expect(keys.list()).toEqual([other, b]);
  expect(keys.get('A')?.spkiDer.equals(a.spkiDer)).toBe(false);
  expect(keys.get('C')).toBeUndefined();
  expect(Object.keys(a).sort()).toEqual(['id', 'sign', 'spkiDer', 'type']);
});

test('another start knows nothing of the keys of before', async () => {
  await (await serverMemory.start({}, host)).generate('A', 'ec-p256');
  expect((await serverMemory.start({}, host)).list()).toEqual([]);
});

test('an agent’s keys are made, found and deleted', async () => {
  const keys = await agentMemory.start({}, host);
  const key = await keys.generate('agent-svid-A');
  expect(key.asymmetricKeyType).toBe('ec');
  expect(keys.get('agent-svid-A')).toBe(key);
  await keys.delete('agent-svid-A');
  await keys.delete('agent-svid-A');
  expect(keys.get('agent-svid-A')).toBeUndefined();
});
