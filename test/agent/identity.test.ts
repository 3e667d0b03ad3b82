/** Who the agent is, against a server that plays SPIRE's over real TLS; the time is the test's. */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AgentDisk } from '../../agent/disk.ts';
import { Identity } from '../../agent/identity.ts';
import { fail } from '../../core/errors.ts';
import { silent } from '../../core/log.ts';
import type { AgentKeyManager } from '../../core/plugin/key-manager.ts';
import { agentDisk } from '../../plugins/key-manager/disk.ts';
import { agentMemory } from '../../plugins/key-manager/memory.ts';
import { PermissionDeniedDetails_Reason as Reason } from '../../proto/gen/spire/api/types/status.ts';
import type { Bundle } from '../../spiffe/bundle/bundle.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import { Latest } from '../../spiffe/latest.ts';
import { lifetimes } from '../fakes/lifetimes.ts';
import { FakeClock } from '../fakes/clock.ts';
import { CountingLog } from '../fakes/log.ts';
import { AGENT, PlayedServer, refused } from './played-server.ts';
import { type Realm, realm, trustDomain } from './rig.ts';

const never = new AbortController().signal;
const MINUTE_MS = 60_000;
const POLL = { timeout: 10_000, interval: 10 };

let dir: string;
let clock: FakeClock;
let home: Realm;
let server: PlayedServer;
let log: CountingLog;
let stop: AbortController;
const open: Identity[] = [];
const running: Promise<unknown>[] = [];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'identity-'));
  clock = new FakeClock();
  home = await realm(trustDomain.name, clock.now());
  server = await PlayedServer.start(home, clock);
  log = new CountingLog();
  stop = new AbortController();
});
afterEach(async () => {
  stop.abort();
  await Promise.allSettled(running.splice(0));
  for (const identity of open.splice(0)) identity.close();
  await server.stop();
  rmSync(dir, { recursive: true });
});

interface Process {
  readonly identity: Identity;
  readonly keys: AgentKeyManager;
  readonly disk: AgentDisk;
  readonly bundle: () => Bundle | undefined;
}
interface ProcessOptions {
  readonly keys?: 'disk' | 'memory';
  /** What the operator gave it as the first trust. Default: the realm's own root. */
  readonly trusts?: Realm | 'anybody';
  readonly at?: PlayedServer;
}

const nextLife = lifetimes();

/** An agent's process as far as its identity goes; a second one is a restart. */
async function agent({ keys: kind = 'disk', trusts = home, at = server }: ProcessOptions = {}): Promise<Process> {
  const host = { trustDomain, log: silent, clock, signal: nextLife(), reloads: new Latest(0) };
  const keys = kind === 'disk' ? await agentDisk.start({ directory: dir }, host) : await agentMemory.start({}, host);
  const disk = await AgentDisk.open(dir);
  let bundle: Bundle | undefined;
  const identity = new Identity({
    trustDomain,
    server: { address: '127.0.0.1', port: at.port },
    disk,
    keys,
    attestor: { type: 'test', plugin: { payload: async () => Buffer.from('proof'), answer: async () => Buffer.alloc(0) } },
    bootstrap: async () => (trusts === 'anybody' ? undefined : trusts.bundle.x509.authorities),
    bundle: () => bundle,
    onBundle: (now) => {
      bundle = now;
    },
    clock,
    log,
  });
  open.push(identity);
  return { identity, keys, disk, bundle: () => bundle };
}

/** Attested, and renewing until the test ends; what ends it is in `ended`. */
async function serving(options: ProcessOptions = {}): Promise<Process & { readonly ended: Promise<unknown> }> {
  const one = await agent(options);
  await one.identity.start(stop.signal);
  const ended = one.identity.run(stop.signal).then(
    () => undefined,
    (error: unknown) => error,
  );
  running.push(ended);
  return { ...one, ended };
}

/** Lets time pass while the agent tries again and again, until the promise is settled. Gives how much of it that took. */
async function passUntilSettled(promise: Promise<unknown>): Promise<number> {
  const from = clock.monotonic();
  let settled = false;
  const done = () => {
    settled = true;
  };
  promise.then(done, done);
  while (!settled) {
    await expect.poll(() => settled || clock.waiting > 0, POLL).toBe(true);
    if (!settled) await clock.advance(500);
  }
  return clock.monotonic() - from;
}

/** A process that ends when the server has heard of its key, and has got nothing for it. */
async function startAndCrash(heard: number): Promise<void> {
  server.refusals.set('AttestAgent', crash);
  const end = new AbortController();
  const started = (await agent()).identity.start(end.signal);
  started.catch(() => {});
  await expect.poll(() => server.heard.length, POLL).toBe(heard);
  end.abort();
  await expect(started).rejects.toThrow();
  server.refusals.clear();
}

const spki = (key: KeyObject) => createPublicKey(key).export({ type: 'spki', format: 'der' });
const methods = () => server.heard.map(({ method }) => method);
const crash = fail('UNAVAILABLE', 'the connection was lost');
const keyFile = () => join(dir, 'keys.json');
const keysOnDisk = () =>
  existsSync(keyFile()) ? Object.values((JSON.parse(readFileSync(keyFile(), 'utf8')) as { keys: object }).keys) : [];
/** As the disk key manager writes them. */
const isOnDisk = (keys: AgentKeyManager, key: Buffer) =>
  ['agent-svid-A', 'agent-svid-B'].some((slot) => {
    const one = keys.get(slot);
    return (
      one !== undefined && spki(one).equals(key) && keysOnDisk().includes(one.export({ type: 'pkcs8', format: 'der' }).toString('base64'))
    );
  });

describe('at a start', () => {
  test('with nothing on disk it attests; its key is on disk before the server hears of it, its SVID and the bundle after', async () => {
    const { identity, keys, bundle } = await agent();
    let early: boolean | undefined;
    server.onHeard = () => {
      const [heard] = server.heard;
      early = heard && isOnDisk(keys, heard.key);
      expect(existsSync(join(dir, 'agent-data.json'))).toBe(false);
    };
    await identity.start(never);
    expect(early).toBe(true);
    expect(server.heard).toMatchObject([{ method: 'AttestAgent', caller: undefined }]);
    expect(identity.svid.id.equals(AGENT)).toBe(true);
    expect(bundle()?.x509.equals(home.bundle.x509)).toBe(true);
    const { data } = await AgentDisk.open(dir);
    expect(data.svid.map(({ sha256 }) => sha256)).toEqual(identity.svid.chain.map(({ sha256 }) => sha256));
    expect(data.bundle.map(({ sha256 }) => sha256)).toEqual(home.bundle.x509.authorities.map(({ sha256 }) => sha256));
  });

  test('with its SVID and key on disk it asks nobody, even while the server is away', async () => {
    const before = await agent();
    await before.identity.start(never);
    await server.stop();
    const { identity, bundle } = await agent();
    await identity.start(never);
    expect(identity.svid.leaf.sha256).toBe(before.identity.svid.leaf.sha256);
    expect(bundle()?.x509.equals(home.bundle.x509)).toBe(true);
    expect(methods()).toEqual(['AttestAgent']);
  });

  test('after a crash between its key and its SVID it attests again with the same key', async () => {
    await startAndCrash(1);
    const again = await agent();
    await again.identity.start(never);
    const [before, after] = server.heard;
    expect(server.heard).toHaveLength(2);
    expect(after?.key.equals(before?.key ?? Buffer.alloc(0))).toBe(true);
    expect(spki(again.identity.svid.privateKey).equals(after?.key ?? Buffer.alloc(0))).toBe(true);
  });

  for (const [name, lose] of [
    ['its SVID has expired', () => clock.jump(2 * 3_600_000)],
    ['its key is lost', () => rmSync(keyFile())],
  ] as const) {
    test(`when ${name} it attests with a new key`, async () => {
      const before = await agent();
      await before.identity.start(never);
      lose();
      const { identity } = await agent();
      await identity.start(never);
      expect(methods()).toEqual(['AttestAgent', 'AttestAgent']);
      const [old, now] = server.heard;
      expect(now?.key.equals(old?.key ?? Buffer.alloc(0))).toBe(false);
    });

    // its key is in the one slot, or in the other
    for (const renewals of [0, 1])
      test(`when ${name} after ${renewals} renewals, and a crash comes before the new SVID, the new key is the one that attests again`, async () => {
        const { identity, ended } = await serving();
        for (let count = 0; count < renewals; count++) {
          const old = identity.svid;
          await clock.advance(34 * MINUTE_MS);
          await expect.poll(() => identity.svid !== old, POLL).toBe(true);
        }
        stop.abort();
        await ended;
        const { length } = server.heard;
        lose();
        await startAndCrash(length + 1);
        await (await agent()).identity.start(never);
        const [tried, again] = server.heard.slice(length);
        expect(server.heard).toHaveLength(length + 2);
        expect(again?.key.equals(tried?.key ?? Buffer.alloc(0))).toBe(true);
        expect(server.heard.slice(0, length).some(({ key }) => key.equals(again?.key ?? Buffer.alloc(0)))).toBe(false);
      });
  }

  test('keys in memory: a restart attests', async () => {
    await (await agent({ keys: 'memory' })).identity.start(never);
    await (await agent({ keys: 'memory' })).identity.start(never);
    expect(methods()).toEqual(['AttestAgent', 'AttestAgent']);
  });

  test('each try asks with the same key: an answer that was lost costs no agent', async () => {
    const { identity } = await agent();
    server.refusals.set('AttestAgent', crash);
    server.onHeard = () => {
      if (server.heard.length === 3) server.refusals.clear();
    };
    const started = identity.start(never);
    await passUntilSettled(started);
    await started;
    expect(new Set(server.heard.map(({ key }) => key.toString('hex'))).size).toBe(1);
  });

  test('each try asks with the same key with an SVID of yesterday on disk too', async () => {
    await (await agent()).identity.start(never);
    clock.jump(2 * 3_600_000);
    server.refusals.set('AttestAgent', crash);
    server.onHeard = () => {
      if (server.heard.length === 4) server.refusals.clear();
    };
    const started = (await agent()).identity.start(never);
    await passUntilSettled(started);
    await started;
    expect(new Set(server.heard.map(({ key }) => key.toString('hex'))).size).toBe(2);
  });

  test('while the server is away it tries for a minute, then says what went wrong', async () => {
    await server.stop();
    const { identity } = await agent();
    const started = identity.start(never);
    started.catch(() => {});
    const took = await passUntilSettled(started);
    await expect(started).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(took).toBeGreaterThanOrEqual(MINUTE_MS);
    expect(took).toBeLessThan(80_000);
  });

  test('a server that comes back within that minute is found', async () => {
    await server.stop();
    const { identity } = await agent();
    const started = identity.start(never);
    started.catch(() => {});
    await expect.poll(() => clock.waiting, POLL).toBeGreaterThan(0);
    await server.listen();
    expect(await passUntilSettled(started)).toBeLessThan(MINUTE_MS);
    expect(identity.svid.id.equals(AGENT)).toBe(true);
  });

  test('a server that refuses the proof is not asked again', async () => {
    server.refusals.set('AttestAgent', fail('DENIED', 'no such token'));
    const { identity } = await agent();
    await expect(identity.start(never)).rejects.toMatchObject({
      code: 'DENIED',
      message: expect.stringContaining('no such token') as string,
    });
    expect(methods()).toEqual(['AttestAgent']);
  });

  test('an SVID that is none of an agent is not taken', async () => {
    server.agentId = SpiffeId.of(trustDomain, '/web');
    const { identity } = await agent();
    const started = identity.start(never);
    started.catch(() => {});
    await passUntilSettled(started);
    await expect(started).rejects.toMatchObject({ code: 'SVID_INVALID' });
    expect(existsSync(join(dir, 'agent-data.json'))).toBe(false);
  });
});

describe('who the server is', () => {
  async function refusedBy(options: ProcessOptions): Promise<void> {
    const { identity } = await agent(options);
    const started = identity.start(never);
    started.catch(() => {});
    await passUntilSettled(started);
    await expect(started).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(log.errors).toBe(1);
    expect(existsSync(join(dir, 'agent-data.json'))).toBe(false);
  }

  test('one of another CA is not spoken to', async () => {
    await refusedBy({ trusts: await realm(trustDomain.name, clock.now()) });
    expect(server.heard).toEqual([]);
  });

  test('one of another SPIFFE ID is not spoken to, not even with insecure_bootstrap', async () => {
    const web = await PlayedServer.start(home, clock, { path: '/web' });
    try {
      await refusedBy({ at: web });
      log.errors = 0;
      await refusedBy({ at: web, trusts: 'anybody' });
      expect(web.heard).toEqual([]);
    } finally {
      await web.stop();
    }
  });

  test('insecure_bootstrap takes any CA, says so, and from then on knows the server by the bundle that it was given', async () => {
    const { identity, bundle } = await agent({ trusts: 'anybody' });
    await identity.start(never);
    expect(log.warnings).toBe(1);
    expect(bundle()?.x509.equals(home.bundle.x509)).toBe(true);
    await identity.connections.value.postStatus('1', never);
    const port = server.port;
    await server.stop();
    const impostor = await PlayedServer.start(await realm(trustDomain.name, clock.now()), clock);
    try {
      expect(impostor.port).not.toBe(port);
      // what is on disk outweighs insecure_bootstrap
      const restarted = await agent({ trusts: 'anybody', at: impostor });
      await restarted.identity.start(never);
      await expect(restarted.identity.connections.value.postStatus('1', never)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
      expect(impostor.connections.size).toBe(0);
    } finally {
      await impostor.stop();
    }
  });
});

describe('clocks that differ', () => {
  test('are told of when the SVID that comes is dated five minutes ahead, and it is used all the same', async () => {
    server.aheadMs = 5 * MINUTE_MS;
    const { identity } = await agent();
    await identity.start(never);
    expect(log.warnings).toBe(1);
    expect(identity.svid.notBeforeMs).toBeGreaterThan(clock.now());
  });

  test('by ten seconds are not worth a word', async () => {
    server.aheadMs = 10_000;
    await (await agent()).identity.start(never);
    expect(log.warnings).toBe(0);
  });

  test('are told of when the server’s certificate is not valid yet', async () => {
    const ahead = await PlayedServer.start(home, clock, {
      life: { notBeforeMs: clock.now() + MINUTE_MS, notAfterMs: clock.now() + 60 * MINUTE_MS },
    });
    try {
      const { identity } = await agent({ at: ahead });
      const started = identity.start(never);
      started.catch(() => {});
      await expect.poll(() => log.errors, POLL).toBe(1);
      await passUntilSettled(started);
      // once it is valid there is nothing to say
      expect(log.errors).toBe(1);
      await started.catch(() => {});
    } finally {
      await ahead.stop();
    }
  });
});

describe('renewal', () => {
  test('comes between 45 and 55 of a hundred parts of the lifetime, with a new key in the other slot and over the old identity', async () => {
    const { identity, keys } = await serving();
    const old = identity.svid;
    await clock.advance(26 * MINUTE_MS);
    expect(methods()).toEqual(['AttestAgent']);
    await clock.advance(8 * MINUTE_MS);
    await expect.poll(() => identity.svid !== old, POLL).toBe(true);
    expect(methods()).toEqual(['AttestAgent', 'RenewAgent']);
    expect(server.heard[1]?.caller?.equals(AGENT)).toBe(true);
    const slots = ['agent-svid-A', 'agent-svid-B'].map((slot) => keys.get(slot)).map((key) => key && spki(key).toString('hex'));
    expect(slots).toEqual([spki(old.privateKey).toString('hex'), spki(identity.svid.privateKey).toString('hex')]);
    expect(keysOnDisk()).toHaveLength(2);
    const restarted = await agent();
    await restarted.identity.start(never);
    expect(restarted.identity.svid.leaf.sha256).toBe(identity.svid.leaf.sha256);
  });

  test('opens a new connection at once, and closes the old one half a minute later: calls under way end well', async () => {
    const { identity } = await serving();
    const old = identity.connections.value;
    await old.postStatus('1', never);
    await expect.poll(() => server.connections.size, POLL).toBe(1);
    const [socket] = server.connections;
    await clock.advance(34 * MINUTE_MS);
    await expect.poll(() => identity.connections.value !== old, POLL).toBe(true);
    await identity.connections.value.postStatus('1', never);
    await clock.advance(29_000);
    await old.postStatus('1', never);
    expect(server.connections.size).toBe(2);
    await clock.advance(1_000);
    await expect.poll(() => [...server.connections].includes(socket as object), POLL).toBe(false);
    await identity.connections.value.postStatus('1', never);
  });

  test('of an agent that can attest again is an attestation', async () => {
    server.reattestable = true;
    const { identity } = await serving();
    const old = identity.svid;
    await clock.advance(34 * MINUTE_MS);
    await expect.poll(() => identity.svid !== old, POLL).toBe(true);
    expect(methods()).toEqual(['AttestAgent', 'AttestAgent']);
    const [first, second] = server.heard;
    expect(second?.key.equals(first?.key ?? Buffer.alloc(0))).toBe(false);
  });

  test('is tried again while the server fails; the old SVID serves on', async () => {
    const { identity } = await serving();
    const old = identity.svid;
    server.refusals.set('RenewAgent', crash);
    await clock.advance(34 * MINUTE_MS);
    await expect.poll(() => log.errors, POLL).toBeGreaterThan(0);
    expect(identity.svid).toBe(old);
    expect(identity.ended).toBeUndefined();
    server.refusals.clear();
    await expect
      .poll(async () => {
        await clock.advance(1_000);
        return identity.svid !== old;
      }, POLL)
      .toBe(true);
  });

  test('that does not come until the end ends an agent that cannot attest again', async () => {
    const { identity, ended, keys } = await serving();
    server.refusals.set('RenewAgent', crash);
    await expect
      .poll(async () => {
        await clock.advance(60_000);
        return identity.ended !== undefined;
      }, POLL)
      .toBe(true);
    expect(await ended).toMatchObject({ code: 'DENIED' });
    expect(clock.now()).toBeGreaterThanOrEqual(identity.svid.notAfterMs);
    expect(keys.get('agent-svid-A')).toBeUndefined();
  });

  test('under another name is not taken', async () => {
    const { identity } = await serving();
    const old = identity.svid;
    server.agentId = SpiffeId.of(trustDomain, '/spire/agent/test/b');
    await clock.advance(34 * MINUTE_MS);
    await expect.poll(() => log.errors, POLL).toBeGreaterThan(0);
    expect(identity.svid).toBe(old);
  });
});

describe('an agent that the server no longer knows as it was', () => {
  async function told(reason: Reason, one: Process): Promise<void> {
    server.refusals.set('PostStatus', refused(reason));
    const connection = one.identity.connections.value;
    const error: unknown = await connection.postStatus('1', never).catch((thrown: unknown) => thrown);
    server.refusals.delete('PostStatus');
    await one.identity.report(error, connection, stop.signal);
  }
  const nothingLeft = ({ keys }: Process) => {
    expect(existsSync(join(dir, 'agent-data.json'))).toBe(false);
    expect(keysOnDisk()).toEqual([]);
    expect([keys.get('agent-svid-A'), keys.get('agent-svid-B')]).toEqual([undefined, undefined]);
  };

  for (const reattestable of [false, true]) {
    test(`banned: ends, with keys and file removed${reattestable ? ', though it could attest again' : ''}`, async () => {
      server.reattestable = reattestable;
      const one = await serving();
      await told(Reason.AGENT_BANNED, one);
      expect(await one.ended).toMatchObject({ code: 'DENIED' });
      nothingLeft(one);
      expect(methods()).toEqual(['AttestAgent']);
    });
  }

  for (const name of ['AGENT_EXPIRED', 'AGENT_NOT_ATTESTED', 'AGENT_NOT_ACTIVE', 'AGENT_MUST_REATTEST'] as const) {
    test(`${name}: attests again in place if it can`, async () => {
      server.reattestable = true;
      const one = await serving();
      const old = one.identity.svid;
      await told(Reason[name], one);
      expect(one.identity.ended).toBeUndefined();
      expect(one.identity.svid.leaf.sha256).not.toBe(old.leaf.sha256);
      expect(methods()).toEqual(['AttestAgent', 'AttestAgent']);
      expect((await AgentDisk.open(dir)).data.svid[0]?.sha256).toBe(one.identity.svid.leaf.sha256);
    });

    test(`${name}: ends, with keys and file removed, if it cannot`, async () => {
      const one = await serving();
      await told(Reason[name], one);
      expect(await one.ended).toMatchObject({ code: 'DENIED' });
      nothingLeft(one);
    });
  }

  test('that ends while it renews leaves nothing of the renewal', async () => {
    const one = await serving();
    let ending: Promise<void> | undefined;
    server.onHeard = () => {
      ending = told(Reason.AGENT_BANNED, one);
    };
    await clock.advance(34 * MINUTE_MS);
    await one.ended;
    await ending;
    expect(methods()).toEqual(['AttestAgent', 'RenewAgent']);
    nothingLeft(one);
  });

  test('that ends while a key is made leaves no key', async () => {
    const one = await serving();
    const { keys } = one;
    const generate = keys.generate.bind(keys);
    const made = new Promise<void>((resolve) => {
      keys.generate = async (slot) => {
        await told(Reason.AGENT_BANNED, one);
        const key = await generate(slot);
        resolve();
        return key;
      };
    });
    await clock.advance(34 * MINUTE_MS);
    await made;
    await one.ended;
    expect(methods()).toEqual(['AttestAgent']);
    nothingLeft(one);
  });

  test('that may not attest again either ends', async () => {
    server.reattestable = true;
    const one = await serving();
    server.refusals.set('AttestAgent', fail('DENIED', 'not this one'));
    await told(Reason.AGENT_NOT_ATTESTED, one);
    expect(await one.ended).toMatchObject({ code: 'DENIED' });
    nothingLeft(one);
  });

  test('whose attestation fails for another reason stays what it is', async () => {
    server.reattestable = true;
    const one = await serving();
    server.refusals.set('AttestAgent', crash);
    await told(Reason.AGENT_NOT_ATTESTED, one);
    expect(one.identity.ended).toBeUndefined();
    expect(existsSync(join(dir, 'agent-data.json'))).toBe(true);
  });

  test('attests once for all who hear of it at the same time', async () => {
    server.reattestable = true;
    const one = await serving();
    await Promise.all([told(Reason.AGENT_NOT_ATTESTED, one), told(Reason.AGENT_NOT_ATTESTED, one)]);
    expect(methods()).toEqual(['AttestAgent', 'AttestAgent']);
  });

  test('is not ended by what an older connection hears, nor by a refusal without a reason', async () => {
    const one = await serving();
    const older = one.identity.connections.value;
    await clock.advance(34 * MINUTE_MS);
    await expect.poll(() => one.identity.connections.value !== older, POLL).toBe(true);
    server.refusals.set('PostStatus', refused(Reason.AGENT_BANNED));
    const error: unknown = await older.postStatus('1', never).catch((thrown: unknown) => thrown);
    await one.identity.report(error, older, never);
    await one.identity.report(fail('DENIED', 'no'), one.identity.connections.value, never);
    expect(one.identity.ended).toBeUndefined();
    // the positive twin: the same words over the connection of now
    await one.identity.report(error, one.identity.connections.value, never);
    expect(one.identity.ended).toBeDefined();
  });
});

describe('once the server has told by whom it is issued', () => {
  let ours: Realm;
  let sibling: Realm;
  beforeEach(async () => {
    await server.stop();
    [ours, sibling] = await Promise.all([home.below('Ours'), home.below('Sibling')]);
    server = await PlayedServer.start(ours, clock);
  });
  /** What the connection of now says to a call, against whoever plays the server. */
  const called = (one: Process) =>
    one.identity.connections.value.postStatus('1', never).then(
      () => 'answered',
      () => 'refused',
    );
  const pinned = async (options: ProcessOptions = {}) => {
    const one = await agent(options);
    await one.identity.start(never);
    await one.disk.update({ issuers: [ours.issuer] });
    return one;
  };
  const restartedAt = (at: PlayedServer, options: ProcessOptions = {}) => agent({ at, ...options });

  test('another CA below the same root may not be the server; before it was told, it may', async () => {
    const other = await PlayedServer.start(sibling, clock);
    try {
      const first = await agent();
      await first.identity.start(never);
      const unpinned = await restartedAt(other);
      await unpinned.identity.start(never);
      expect(await called(unpinned)).toBe('answered');

      await pinned();
      const again = await restartedAt(other);
      await again.identity.start(never);
      expect(await called(again)).toBe('refused');
      expect(log.errors).toBe(1);
      const home = await restartedAt(server);
      await home.identity.start(never);
      expect(await called(home)).toBe('answered');
    } finally {
      await other.stop();
    }
  });

  test('nor attest it anew when its own SVID has ended', async () => {
    await pinned();
    clock.jump(2 * 3_600_000);
    const other = await PlayedServer.start(sibling, clock);
    try {
      const { identity } = await restartedAt(other);
      const failed = expect(identity.start(never)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
      await passUntilSettled(failed);
      await failed;
      expect(other.heard).toEqual([]);
    } finally {
      await other.stop();
    }
    const { identity } = await restartedAt(server);
    await identity.start(never);
    expect(String(identity.svid.id)).toBe(String(AGENT));
  });

  test('to bootstrap anew forgets it', async () => {
    const one = await pinned();
    await one.disk.remove();
    const other = await PlayedServer.start(sibling, clock);
    try {
      const again = await restartedAt(other);
      await again.identity.start(never);
      expect(await called(again)).toBe('answered');
      expect(again.disk.data.issuers).toEqual([]);
    } finally {
      await other.stop();
    }
  });
});
