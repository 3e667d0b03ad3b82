/** What one caller may use of the public socket, over real connections. */
import { afterEach, describe, expect, test } from 'vitest';
import { rpcStatusOf } from '../../spiffe/rpc/calls.ts';
import { createRig, registration, type Rig } from './rig.ts';

const metadata = { 'workload.spiffe.io': 'true' };
const RESOURCE_EXHAUSTED = 8;
let rig: Rig | undefined;
afterEach(async () => {
  await rig?.close();
  rig = undefined;
});

async function served(limits: { readonly streams?: number; readonly messagesPerSecond?: number }): Promise<Rig> {
  rig = await createRig({}, { connections: 4_096, streams: 16_384, messagesPerSecond: 0, ...limits });
  rig.workloads.replica.apply([registration('1', '/web')], []);
  rig.workloads.replica.synced();
  return rig;
}
const codeOf = (call: Promise<unknown>) =>
  call.then(
    () => 0,
    (error: unknown) => rpcStatusOf(error)?.code,
  );

describe('streams', () => {
  test('beyond a caller’s eighth are refused, and taken again when one of his has ended', async () => {
    const { calls } = await served({ streams: 16 });
    const stops = [new AbortController(), new AbortController()];
    const streams = stops.map(({ signal }) => calls.fetchX509SVID({}, { signal, metadata })[Symbol.asyncIterator]());
    for (const stream of streams) expect((await stream.next()).done).toBe(false);
    const once = () => {
      const stop = new AbortController();
      const first = calls.fetchX509SVID({}, { signal: stop.signal, metadata })[Symbol.asyncIterator]().next();
      return codeOf(first).finally(() => stop.abort());
    };
    expect(await once()).toBe(RESOURCE_EXHAUSTED);
    const token = { audience: 'a', svid: 'x' };
    // every RPC counts
    expect(await codeOf(calls.validateJWTSVID(token, { signal: AbortSignal.timeout(5_000), metadata }))).toBe(RESOURCE_EXHAUSTED);
    const ended = streams[0]?.next().catch(() => {});
    stops[0]?.abort();
    await ended;
    await expect.poll(once).toBe(0);
    stops[1]?.abort();
  });
});

describe('messages', () => {
  test('a second’s worth at once is answered; what comes much too often is refused; after a while it goes on', async () => {
    const { calls } = await served({ messagesPerSecond: 20 });
    const ask = () => codeOf(calls.fetchJWTSVID({ audience: ['a'], spiffeId: '' }, { signal: AbortSignal.timeout(10_000), metadata }));
    expect(await Promise.all(Array.from({ length: 20 }, ask))).toEqual(Array.from({ length: 20 }, () => 0));
    const codes = await Promise.all(Array.from({ length: 60 }, ask));
    expect(codes.filter((code) => code === RESOURCE_EXHAUSTED).length).toBeGreaterThan(30);
    expect(codes.filter((code) => code === 0).length).toBeGreaterThanOrEqual(20);
    await expect.poll(ask, { timeout: 5_000 }).toBe(0);
  });
});
