/** KeyManager "disk": keys that outlive the process, in a file that only its owner reads and that no crash leaves half written. */
import { createPublicKey, generateKeyPairSync, verify } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { silent } from '../../../core/log.ts';
import { KEY_TYPES } from '../../../core/plugin/key-manager.ts';
import { agentDisk, serverDisk } from '../../../plugins/key-manager/disk.ts';
import { SpiffeError } from '../../../spiffe/errors.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { Latest } from '../../../spiffe/latest.ts';
import { lifetimes } from '../../fakes/lifetimes.ts';
import { FakeClock } from '../../fakes/clock.ts';

const host = {
  trustDomain: TrustDomain.parse('example.org'),
  log: silent,
  clock: new FakeClock(),
  signal: new AbortController().signal,
  reloads: new Latest(0),
};

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'keys-'));
  path = join(dir, 'keys.json');
});
afterEach(() => rmSync(dir, { recursive: true }));

const nextLife = lifetimes();
const start = () => serverDisk.start({ keys_path: path }, { ...host, signal: nextLife() });
const startAgent = () => agentDisk.start({ directory: dir }, { ...host, signal: nextLife() });

/** '' when it starts. */
async function refusal(run: () => Promise<unknown> = start, code = 'SETTINGS_INVALID'): Promise<string> {
  try {
    await run();
    return '';
  } catch (error) {
    expect(error).toBeInstanceOf(SpiffeError);
    expect((error as SpiffeError<string>).code).toBe(code);
    return (error as Error).message;
  }
}

test('keys of every type are found again after a restart, and sign as before', { timeout: 60_000 }, async () => {
  const before = await start();
  for (const type of KEY_TYPES) await before.generate(`slot-${type}`, type);
  const after = await start();
  expect(after.list().map(({ id }) => id)).toEqual(KEY_TYPES.map((type) => `slot-${type}`));
  for (const type of KEY_TYPES) {
    const key = after.get(`slot-${type}`);
    expect(key?.type).toBe(type);
    expect(key?.spkiDer).toEqual(before.get(`slot-${type}`)?.spkiDer);
    const data = Buffer.from('to be signed');
    const signature = (await key?.sign(data, { hash: 'sha256' })) ?? Buffer.alloc(0);
    const publicKey = createPublicKey({ key: key?.spkiDer ?? Buffer.alloc(0), format: 'der', type: 'spki' });
    expect(verify('sha256', data, publicKey, signature)).toBe(true);
  }
});

test('a key is on disk before its maker gets it, and takes the place of the one of before', async () => {
  const keys = await start();
  const first = await keys.generate('A', 'ec-p256');
  expect((await start()).get('A')?.spkiDer).toEqual(first.spkiDer);
  const second = await keys.generate('A', 'ec-p256');
  expect((await start()).list().map(({ spkiDer }) => spkiDer)).toEqual([second.spkiDer]);
});

test('many keys made at once are all there', async () => {
  const keys = await start();
  await Promise.all(Array.from({ length: 20 }, (_, i) => keys.generate(`slot-${i}`, 'ec-p256')));
  expect((await start()).list()).toHaveLength(20);
});

describe('the file', () => {
  test('has mode 0600, whatever the umask, in a folder of mode 0700 if we make it', async () => {
    path = join(dir, 'made', 'keys.json');
    const umask = process.umask(0);
    try {
      await (await start()).generate('A', 'ec-p256');
    } finally {
      process.umask(umask);
    }
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(join(dir, 'made')).mode & 0o777).toBe(0o700);
    expect(readdirSync(join(dir, 'made'))).toEqual(['keys.json', 'keys.json.lock']);
  });

  test.each([0o644, 0o640, 0o620, 0o604, 0o666])('of mode %o is refused: others can get at it', async (mode) => {
    await (await start()).generate('A', 'ec-p256');
    expect(await refusal()).toBe('');
    chmodSync(path, mode);
    expect(await refusal()).toContain(`${path} holds a private key and has mode ${mode.toString(8)}`);
    expect(await refusal(startAgent)).toContain('chmod 600');
  });

  const key = () => generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey.export({ type: 'pkcs8', format: 'der' });
  const ed25519 = () => generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'der' });
  const keyFile = (bytes: Buffer) => JSON.stringify({ keys: { 'x509-CA-A': bytes.toString('base64') } });
  test.each([
    ['is empty', () => ''],
    ['is cut off', () => keyFile(key()).slice(0, -10)],
    ['is no JSON object', () => '[]'],
    ['has a key that nobody knows', () => '{"keys":{},"more":1}'],
    ['holds what is no base64', () => '{"keys":{"A":"***"}}'],
    ['holds what is no key', () => keyFile(Buffer.from('no key'))],
    ['holds a key that is cut off', () => keyFile(key().subarray(0, -3))],
    ['holds a key of a type that signs nothing here', () => keyFile(ed25519())],
  ])('that %s is refused by its name and left as it is', async (_, text) => {
    writeFileSync(path, keyFile(key()), { mode: 0o600 });
    expect(await refusal()).toBe('');
    const broken = text();
    writeFileSync(path, broken);
    expect(await refusal()).toContain(path);
    expect(readFileSync(path, 'utf8')).toBe(broken);
  });

  test('a fault names the slot and shows none of its bytes', async () => {
    const secret = key().subarray(0, -3).toString('base64');
    writeFileSync(path, JSON.stringify({ keys: { 'x509-CA-A': secret } }), { mode: 0o600 });
    const message = await refusal();
    expect(message).toContain('"x509-CA-A"');
    expect(message).toContain('move it away');
    expect(message).not.toContain(secret.slice(0, 12));
    writeFileSync(path, `{"keys": "${secret}"}`);
    expect(await refusal()).not.toContain(secret.slice(0, 12));
  });

  test('a crash in the middle of a write leaves a file beside it that harms nothing', async () => {
    const first = await (await start()).generate('A', 'ec-p256');
    writeFileSync(`${path}.0123456789ab.tmp`, '{"keys": {"A": "MIG');
    const after = await start();
    expect(after.get('A')?.spkiDer).toEqual(first.spkiDer);
    const second = await after.generate('A', 'ec-p256');
    expect((await start()).get('A')?.spkiDer).toEqual(second.spkiDer);
  });

  test('a write that fails changes nothing, in memory and on disk', async () => {
    const keys = await start();
    const first = await keys.generate('A', 'ec-p256');
    // a folder can't be renamed over
    rmSync(path);
    mkdirSync(join(path, 'in-the-way'), { recursive: true });
    await expect(keys.generate('A', 'ec-p256')).rejects.toMatchObject({ code: 'STORE_FAILED' });
    expect(keys.get('A')).toBe(first);
    expect(readdirSync(dir)).toEqual(['keys.json', 'keys.json.lock']);
    rmSync(path, { recursive: true });
    await keys.generate('B', 'ec-p256');
    expect((await start()).list().map(({ id, spkiDer }) => [id, spkiDer])).toEqual(keys.list().map(({ id, spkiDer }) => [id, spkiDer]));
  });
});

test('an agent’s keys outlive it until they are deleted', async () => {
  const before = await startAgent();
  const key = await before.generate('agent-svid-A');
  await before.generate('agent-svid-B');
  const after = await startAgent();
  expect(after.get('agent-svid-A')?.equals(key)).toBe(true);
  await after.delete('agent-svid-A');
  await after.delete('agent-svid-A');
  const last = await startAgent();
  expect(last.get('agent-svid-A')).toBeUndefined();
  expect(last.get('agent-svid-B')).toBeDefined();
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test('of two programs with one key file the second is refused and told who has it; after the first ended it may start', async () => {
  const first = new AbortController();
  const manager = await serverDisk.start({ keys_path: path }, { ...host, signal: first.signal });
  await manager.generate('x509-CA-A', 'ec-p256');
  expect(await refusal(() => serverDisk.start({ keys_path: path }, host), 'FAILED_PRECONDITION')).toContain(
    `in use by process ${process.pid}`,
  );
  first.abort();
  const next = await start();
  expect(next.list().map(({ id }) => id)).toEqual(['x509-CA-A']);
});
