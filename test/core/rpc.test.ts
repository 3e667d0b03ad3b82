/** The gRPC server and client of the house, over a real UNIX socket. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fail } from '../../core/errors.ts';
import { silent } from '../../core/log.ts';
import { createRpcServer, type Outcome, type RpcServer, service } from '../../core/rpc.ts';
import { AgentDefinition } from '../../proto/gen/spire/api/server/agent/v1/agent.ts';
import { CountEntriesRequest, EntryDefinition } from '../../proto/gen/spire/api/server/entry/v1/entry.ts';
import { PermissionDeniedDetails } from '../../proto/gen/spire/api/types/status.ts';
import { SpiffeWorkloadAPIDefinition, X509SVIDResponse } from '../../proto/gen/spiffe/workload/workload.ts';
import { openChannel } from '../../spiffe/rpc/channel.ts';
import { type Channel, rpcStatusOf } from '../../spiffe/rpc/calls.ts';
import { Encoded } from '../../spiffe/rpc/service.ts';

const dir = mkdtempSync(join(tmpdir(), 'warifu-rpc-'));
const path = join(dir, 's.sock');
let rpc: RpcServer;
let listener: Server;
let channel: Channel;
const outcomes: Outcome[] = [];
const seen = { returned: 0, aborted: 0, connections: 0, pids: new Set<number>(), first: [] as WeakRef<object>[] };
const gates = { deny: false };

beforeAll(async () => {
  rpc = createRpcServer({
    log: silent,
    allowManyResets: true,
    gate: (context, _request) => {
      if (context.peer.kind === 'process') seen.pids.add(context.peer.pid);
      if (gates.deny) throw fail('DENIED', 'the gate is shut');
      return (outcome: Outcome) => void outcomes.push(outcome);
    },
    services: [
      service(EntryDefinition, {
        async countEntries(request) {
          if (request.filter?.byHint === 'crash') throw new Error('a secret of ours');
          return { count: 7 };
        },
        async getEntry(_request, { signal }) {
          await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
          seen.aborted++;
          throw signal.reason;
        },
        async *syncAuthorizedEntries(requests) {
          for await (const { ids } of requests) yield { entryRevisions: [], entries: [], more: ids.length > 0 };
        },
      }),
      service(AgentDefinition, {
        async renewAgent() {
          throw fail('DENIED', 'agent is banned', {
            details: [
              {
                typeUrl: 'type.googleapis.com/spire.api.types.PermissionDeniedDetails',
                value: PermissionDeniedDetails.encode({ reason: 4 }).finish(),
              },
            ],
          });
        },
      }),
      service(SpiffeWorkloadAPIDefinition, {
        async *fetchX509SVID(_request, { metadata, signal }) {
          const answer = X509SVIDResponse.fromPartial({ svids: [{ spiffeId: metadata.get('workload.spiffe.io')?.join() ?? '' }] });
          try {
            yield answer;
            yield new Encoded(Buffer.from(X509SVIDResponse.encode(answer).finish()));
            await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
          } finally {
            seen.returned++;
          }
        },
        async *fetchX509Bundles() {
          for (let i = 0; i < 1000; i++) {
            const answer = { crl: [], bundles: { [`spiffe://td${i}`]: Buffer.alloc(4096) } };
            if (i < 100) seen.first.push(new WeakRef(answer));
            yield answer;
          }
        },
      }),
    ],
  });
  listener = createServer((socket: Socket) => {
    const connection = { number: ++seen.connections };
    rpc.accept(socket, { kind: 'process', pid: 4711, uid: 1, gid: 2, pidfd: -1, connection });
  });
  await new Promise<void>((done) => listener.listen(path, done));
  channel = openChannel({ target: `unix://${path}` });
});
afterAll(async () => {
  channel.close();
  rpc.close();
  await new Promise((done) => listener.close(done));
  rmSync(dir, { recursive: true });
});

const entries = () => channel.service(EntryDefinition);
const workload = () => channel.service(SpiffeWorkloadAPIDefinition);
const refused = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no error',
    (error: unknown) => error,
  );

describe('a call', () => {
  test('is answered, and the handler knows who called', async () => {
    expect(await entries().countEntries({ filter: undefined })).toEqual({ count: 7 });
    expect([...seen.pids]).toEqual([4711]);
    expect(outcomes.at(-1)).toMatchObject({ code: 0, message: 'OK' });
  });

  test('an unexpected failure says nothing of what went wrong inside', async () => {
    const error = await refused(entries().countEntries(CountEntriesRequest.fromPartial({ filter: { byHint: 'crash' } })));
    expect(error).toMatchObject({ code: 'INTERNAL', message: 'internal error' });
  });

  test('a method that is not there is UNIMPLEMENTED, whatever its shape', async () => {
    expect(await refused(entries().listEntries({ filter: undefined, outputMask: undefined, pageSize: 0, pageToken: '' }))).toMatchObject({
      code: 'UNIMPLEMENTED',
    });
    const stream = async () => {
      for await (const _ of workload().fetchWITSVID({ spiffeId: '' }));
    };
    expect(await refused(stream())).toMatchObject({ code: 'UNIMPLEMENTED' });
  });

  test('a refusal carries its code, its words and its details', async () => {
    const error = await refused(channel.service(AgentDefinition).renewAgent({ params: undefined }));
    expect(error).toMatchObject({ code: 'DENIED', message: 'agent is banned' });
    const [detail] = rpcStatusOf(error)?.details ?? [];
    expect(detail?.typeUrl).toBe('type.googleapis.com/spire.api.types.PermissionDeniedDetails');
    expect(PermissionDeniedDetails.decode(detail?.value ?? Buffer.alloc(0)).reason).toBe(4);
  });

  test('the gate refuses before the handler runs', async () => {
    gates.deny = true;
    expect(await refused(entries().countEntries({ filter: undefined }))).toMatchObject({ code: 'DENIED', message: 'the gate is shut' });
    gates.deny = false;
    expect(await entries().countEntries({ filter: undefined })).toEqual({ count: 7 });
  });

  test('ends at both ends when the caller aborts it', async () => {
    const stop = new AbortController();
    const before = seen.aborted;
    const call = refused(entries().getEntry({ id: 'x', outputMask: undefined }, { signal: stop.signal }));
    await entries().countEntries({ filter: undefined });
    stop.abort(new Error('enough'));
    expect(await call).toMatchObject({ message: 'enough' });
    while (seen.aborted === before) await entries().countEntries({ filter: undefined });
  });

  test('ends at both ends when its deadline passes', async () => {
    const before = seen.aborted;
    expect(await refused(entries().getEntry({ id: 'x', outputMask: undefined }, { deadlineMs: 30 }))).toMatchObject({
      code: 'DEADLINE_EXCEEDED',
    });
    while (seen.aborted === before) await entries().countEntries({ filter: undefined });
  });
});

describe('a stream', () => {
  test('gives messages, encoded already or not, and its handler ends with its reader', async () => {
    const before = seen.returned;
    const got: string[] = [];
    for await (const { svids } of workload().fetchX509SVID({}, { metadata: { 'workload.spiffe.io': 'true' } })) {
      got.push(svids[0]?.spiffeId ?? '');
      if (got.length === 2) break;
    }
    expect(got).toEqual(['true', 'true']);
    while (seen.returned === before) await entries().countEntries({ filter: undefined });
  });

  test('waits for a slow reader and loses nothing', async () => {
    let count = 0;
    for await (const { bundles } of workload().fetchX509Bundles({})) {
      expect(Object.keys(bundles)).toEqual([`spiffe://td${count++}`]);
      if (count % 100 === 0) await entries().countEntries({ filter: undefined });
    }
    expect(count).toBe(1000);
  });

  test('keeps nothing of what it has written while it stays open', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    seen.first.length = 0;
    let count = 0;
    for await (const _ of workload().fetchX509Bundles({})) {
      if (++count < 900) continue;
      await entries().countEntries({ filter: undefined });
      collect();
      break;
    }
    expect(seen.first).toHaveLength(100);
    expect(seen.first.filter((one) => one.deref())).toEqual([]);
  });

  test('goes both ways', async () => {
    const more: boolean[] = [];
    async function* requests() {
      for (const ids of [['a'], [], ['b']]) yield { outputMask: undefined, ids };
    }
    for await (const answer of entries().syncAuthorizedEntries(requests())) more.push(answer.more);
    expect(more).toEqual([true, false, true]);
  });

  test('NODE-12c: three thousand fetched and cancelled on one connection keep it', { timeout: 60_000 }, async () => {
    const before = seen.connections;
    for (let i = 0; i < 3000; i++) {
      for await (const _ of workload().fetchX509SVID({})) break;
    }
    expect(await entries().countEntries({ filter: undefined })).toEqual({ count: 7 });
    expect(seen.connections).toBe(before);
  });
});
