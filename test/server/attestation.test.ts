/** How a node becomes an agent: join tokens above all, which belong to the first key that spends them. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { silent } from '../../core/log.ts';
import type { NodeAttestor } from '../../core/plugin/node-attestor.ts';
import { buildCsr } from '../../core/x509/csr.ts';
import { type AttestationParts, attestNode } from '../../server/attestation.ts';
import { createMemory, type Memory } from '../../server/memory.ts';
import { openSqlite } from '../../server/store/sqlite.ts';
import type { Store } from '../../server/store/store.ts';
import { TrustDomain } from '../../spiffe/id.ts';
import { testAuthority } from '../fakes/authority.ts';
import { FakeClock } from '../fakes/clock.ts';

const trustDomain = TrustDomain.parse('example.org');
const NO_SUCH_TOKEN = 'failed to attest: join token does not exist or has already been used';

let folder: string;
let clock: FakeClock;
let store: Store;
let memory: Memory;
let parts: AttestationParts;
const attestors = new Map<string, NodeAttestor>();

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'warifu-'));
  clock = new FakeClock();
  store = await openSqlite(join(folder, 'db'), clock);
  memory = await createMemory({ store, clock, log: silent, trustDomain });
  const { authority } = await testAuthority(clock);
  attestors.clear();
  parts = { store, state: memory, authority, trustDomain, clock, log: silent, attestors };
});
afterEach(async () => {
  memory.close();
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const never = new AbortController().signal;
const noQuestion = () => Promise.reject(new Error('asked without need'));
const csrOf = (key: KeyObject) => buildCsr({ key });

function attest(token: string, key: KeyObject) {
  return attestNode(
    parts,
    { type: 'join_token', payload: Buffer.from(token), csrDer: csrOf(key), peerAddress: '192.0.2.1' },
    noQuestion,
    never,
  );
}
const createToken = (value: string, ttlMs = 60_000) => store.tokens.create({ value, expiresAtMs: clock.now() + ttlMs });

describe('a join token', () => {
  test('makes the agent that is named after it, and its certificate is the one that speaks for the agent', async () => {
    await createToken('good');
    const { id, svid, canReattest } = await attest('good', newKey());
    expect(String(id)).toBe('spiffe://example.org/spire/agent/join_token/good');
    expect(canReattest).toBe(false);
    const node = memory.node(String(id));
    expect(node?.current?.sha256).toBe(svid.certificate.sha256);
    expect(node?.current?.serial).toBe(svid.certificate.serialNumber);
  });

  test('is spent by the first key: another key is refused, the same key gets the same agent again', async () => {
    await createToken('one');
    const first = newKey();
    await attest('one', first);
    await expect(attest('one', newKey())).rejects.toMatchObject({ code: 'REQUEST_INVALID', message: NO_SUCH_TOKEN });
    const again = await attest('one', first);
    expect(String(again.id)).toBe('spiffe://example.org/spire/agent/join_token/one');
    expect(memory.nodeCount).toBe(1);
    expect(memory.node(String(again.id))?.current?.sha256).toBe(again.svid.certificate.sha256);
  });

  test('that many spend at the same instant makes exactly one agent, of one key', async () => {
    await createToken('race');
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => attest('race', newKey())));
    const won = results.filter((one) => one.status === 'fulfilled');
    expect(won).toHaveLength(1);
    for (const one of results) if (one.status === 'rejected') expect(one.reason).toMatchObject({ message: NO_SUCH_TOKEN });
    expect(memory.node('spiffe://example.org/spire/agent/join_token/race')?.current?.sha256).toBe(won[0]?.value.svid.certificate.sha256);
  });

  test('that ended, or never was, is refused and makes no agent', async () => {
    await createToken('short', 1_000);
    await clock.advance(1_000);
    const key = newKey();
    await expect(attest('short', key)).rejects.toMatchObject({ code: 'REQUEST_INVALID', message: 'join token expired' });
    await expect(attest('never', key)).rejects.toMatchObject({ code: 'REQUEST_INVALID', message: NO_SUCH_TOKEN });
    expect(memory.nodeCount).toBe(0);
  });

  test('does not bring an evicted agent back, not even with the key that spent it', async () => {
    await createToken('gone');
    const key = newKey();
    const { id } = await attest('gone', key);
    await memory.settled((await store.nodes.delete(String(id))).seq);
    await expect(attest('gone', key)).rejects.toMatchObject({ message: NO_SUCH_TOKEN });
    expect(memory.nodeCount).toBe(0);
  });

  test('does not bring a banned agent back', async () => {
    await createToken('bad');
    const key = newKey();
    const { id } = await attest('bad', key);
    await memory.settled((await store.nodes.update(String(id), (node) => ({ ...node, banned: true, current: undefined }))).seq);
    await expect(attest('bad', key)).rejects.toMatchObject({ code: 'DENIED', message: 'failed to attest: agent is banned' });
  });

  test('with a request that its key did not sign is not spent', async () => {
    await createToken('kept');
    const key = newKey();
    const forged = Buffer.from(csrOf(key));
    forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1;
    const proof = { type: 'join_token', payload: Buffer.from('kept'), csrDer: forged, peerAddress: '' };
    await expect(attestNode(parts, proof, noQuestion, never)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    await expect(attest('kept', key)).resolves.toBeDefined();
  });
});

describe('an attestor', () => {
  const prove = (type: string, key = newKey(), signal = never) =>
    attestNode(
      parts,
      { type, payload: Buffer.from('x'), csrDer: csrOf(key), peerAddress: '192.0.2.1' },
      async () => Buffer.from('answer'),
      signal,
    );
  const says = (agentPath: string, more: Partial<Awaited<ReturnType<NodeAttestor['attest']>>> = {}): NodeAttestor => ({
    attest: async (_, challenge) => {
      expect(String(await challenge(Buffer.from('question')))).toBe('answer');
      return { agentPath, selectors: ['b', 'a', 'a'], canReattest: true, ...more };
    },
  });

  test('gives the agent its selectors, each once, under its own type', async () => {
    attestors.set('test', says('/spire/agent/test/node'));
    const { id, canReattest } = await prove('test');
    expect(canReattest).toBe(true);
    expect(memory.node(String(id))?.selectors).toEqual([
      { type: 'test', value: 'a' },
      { type: 'test', value: 'b' },
    ]);
  });

  test('that nobody configured is FAILED_PRECONDITION', async () => {
    await expect(prove('unknown')).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: 'error getting node attestor: could not find node attestor type "unknown"',
    });
  });

  for (const path of ['/spire/agent/other/node', '/spire/server', '/web', '/spire/agent/test/../server', '/spire/agent/testy/node']) {
    test(`that speaks for ${path} is refused, and nothing is written`, async () => {
      attestors.set('test', says(path));
      await expect(prove('test')).rejects.toMatchObject({ code: 'INTERNAL' });
      expect(memory.nodeCount).toBe(0);
    });
  }

  test('of another type does not take over an agent', async () => {
    attestors.set('test', says('/spire/agent/test/node'));
    const { id } = await prove('test');
    await memory.settled((await store.nodes.update(String(id), (node) => ({ ...node, attestationType: 'older' }))).seq);
    await expect(prove('test')).rejects.toMatchObject({ code: 'DENIED' });
  });

  test('may have things used once: a second time is refused', async () => {
    attestors.set('test', says('/spire/agent/test/node', { spend: ['nonce-1'] }));
    await prove('test');
    await expect(prove('test')).rejects.toMatchObject({ code: 'DENIED', message: 'failed to attest: this proof has been used before' });
    attestors.set('test', says('/spire/agent/test/node', { spend: ['nonce-2'] }));
    await expect(prove('test')).resolves.toBeDefined();
  });

  test('that breaks tells the caller nothing of what broke', async () => {
    attestors.set('test', { attest: () => Promise.reject(new TypeError('secret of the inside')) });
    await expect(prove('test')).rejects.toMatchObject({ code: 'INTERNAL', message: 'nodeattestor(test): internal error' });
  });

  test('whose node never answers is given up after 30 s', async () => {
    attestors.set('test', { attest: () => new Promise(() => {}) });
    const proving = expect(prove('test')).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    await clock.advance(30_000);
    await proving;
    expect(memory.nodeCount).toBe(0);
  });

  test('whose caller goes away ends with it', async () => {
    const stop = new AbortController();
    attestors.set('test', { attest: () => new Promise(() => {}) });
    const proving = expect(prove('test', newKey(), stop.signal)).rejects.toThrow('gone');
    stop.abort(new Error('gone'));
    await proving;
  });
});
