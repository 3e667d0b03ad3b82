/**
 * Rotation under load: requests go on all the time over each wrapper of the SDK, with ourselves and with go-spiffe at the other end, with SVIDs of 20 s from our server
 * and agent, and the root is replaced half-way. Not one request fails, and every connection of ours is younger than its SVID. 60 s; `WARIFU_W7_SECONDS=180` for the long form.
 */
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { matchId } from '../../spiffe/match.ts';
import { X509Source } from '../../spiffe/source/x509-source.ts';
import { type Agent, createRunningHouse, type House } from '../e2e/house.ts';
import { createPki } from '../e2e/pki.ts';
import { pause, serverOf, type Wrapper, WRAPPERS } from '../spiffe/tls/wrappers.ts';
import { type ForeignClient, type Listening, startWorkload, type Workload } from './setup.ts';

const SECONDS = Number(process.env['WARIFU_W7_SECONDS'] ?? 60);
const ID = 'spiffe://example.org/node';
const GO_ID = 'spiffe://example.org/go';
/** Each of go-spiffe's clients asks so often, whatever becomes of the question before. */
const PER_SECOND = 50;
/** For each wrapper; each waits this long between an answer and its next question. */
const ASKERS = 4;
const PAUSE_MS = 40;

let house: House;
let agent: Agent;
let source: X509Source;
let go: Workload;

beforeAll(async () => {
  go = await startWorkload('go');
  ({ house, agent } = await createRunningHouse({ caTtl: '60s', x509SvidTtl: '20s', agent: { attestor: 'x509pop' } }));
  await house.createEntry({ id: '/node', parent: agent, selectors: [`unix:path:${process.execPath}`] });
  await house.createEntry({ id: '/go', parent: agent, selectors: [go.selector] });
  source = await X509Source.open({ address: agent.address, backoff: () => 100, signal: AbortSignal.timeout(30_000) });
});
afterAll(async () => {
  await source?.close();
  await go?.close();
  await house?.close();
});

/** A server or client of ours with its counterpart of go-spiffe. */
interface Pair {
  readonly what: string;
  /** Ends when the time is over; gives how many questions were answered. */
  readonly run: (failures: string[]) => Promise<number>;
}

const goesOn = (started: number) => performance.now() - started < SECONDS * 1_000;
const since = (started: number) => `${((performance.now() - started) / 1000).toFixed(1)} s`;
const wordsOf = (error: unknown) => `${String(error)} ${String((error as Error).cause ?? '')}`;

/** Our server, asked by go-spiffe. */
function askedByGo(wrapper: Wrapper, kind: ForeignClient['kind']): Pair {
  const what = `${wrapper.name}, go-spiffe asks`;
  return {
    what,
    async run(failures) {
      const serving = await serverOf(wrapper).serve({ source, authorize: matchId(GO_ID) });
      const answer = await go.call('wrapper.steady', {
        addr: agent.address,
        mode: 'mtls',
        peer: ID,
        kind,
        to: `127.0.0.1:${serving.port}`,
        message: `you are ${GO_ID}`,
        perSecond: PER_SECOND,
        durationMs: SECONDS * 1_000,
      });
      failures.push(...answer.failures.map(({ message }) => `${what}: ${message}`));
      failures.push(...serving.refused.map((error) => `${what}, refused: ${wordsOf(error)}`));
      await serving.close();
      console.log(`${what}: ${answer.asked} asked, ${answer.failed} failed, median ${answer.medianMs} ms, worst ${answer.maxMs} ms`);
      return answer.asked - answer.failed;
    },
  };
}

/** go-spiffe's server, asked by us. */
function asksGo(wrapper: Wrapper, serving: () => Listening): Pair {
  const what = `${wrapper.name}, go-spiffe answers`;
  return {
    what,
    async run(failures) {
      const started = performance.now();
      const asking = await wrapper.client({ source, authorize: matchId(GO_ID) }, Number(serving().to.split(':').at(-1)));
      let answers = 0;
      while (goesOn(started)) {
        try {
          expect(await asking.ask(10)).toBe(`you are ${ID}`);
          answers++;
        } catch (error) {
          failures.push(`${since(started)}, ${what}: ${wordsOf(error)}`);
        }
        await pause(PAUSE_MS);
      }
      await asking.close();
      console.log(`${what}: ${answers} answers`);
      return answers;
    },
  };
}

test(
  `no request of ${SECONDS} s fails over https, http2, undici and gRPC, among ourselves and with go-spiffe: SVIDs of 20 s, another root half-way`,
  async () => {
    const svids = new Set<string>();
    const roots = new Set<string>();
    const look = () => {
      const { svid } = source;
      svids.add(svid.leaf.sha256);
      for (const root of source.x509Bundle(svid.id.trustDomain)?.authorities ?? []) roots.add(root.sha256);
    };
    look();
    source.onChange(look);
    const started = performance.now();
    const failures: string[] = [];
    // a bare socket has nobody who could make a new one
    const all = await Promise.all(
      WRAPPERS.filter(({ name }) => name !== 'tls').map(async (wrapper) => {
        const serving = await serverOf(wrapper).serve({ source, authorize: matchId(ID) });
        let connections = 0;
        serving.server.on('connection', () => connections++);
        const asking = await wrapper.client({ source, authorize: matchId(ID) }, serving.port);
        return { wrapper, serving, asking, answers: 0, connections: () => connections };
      }),
    );
    const load = all.flatMap((one) =>
      Array.from({ length: ASKERS }, async () => {
        while (goesOn(started)) {
          try {
            expect(await one.asking.ask(10)).toBe(`you are ${ID}`);
            one.answers++;
          } catch (error) {
            failures.push(`${since(started)}, ${one.wrapper.name}: ${wordsOf(error)}`);
          }
          await pause(PAUSE_MS);
        }
      }),
    );
    const handover = (async () => {
      await pause(SECONDS * 500);
      const next = createPki(join(house.dir, 'next'));
      copyFileSync(next.root, house.pki.root);
      copyFileSync(next.intermediate, house.pki.intermediate);
      copyFileSync(next.intermediateKey, house.pki.intermediateKey);
    })();
    const goTls = { addr: agent.address, mode: 'mtls', peer: ID, quiet: true } as const;
    const [http, grpc] = await Promise.all([go.serve({ ...goTls, kind: 'http' }), go.serve({ ...goTls, kind: 'grpc' })]);
    const pairs = WRAPPERS.flatMap((wrapper): Pair[] => {
      if (wrapper.name === 'tls') return [];
      const theirs = asksGo(wrapper, () => (wrapper.name === 'grpc' ? grpc : http));
      return wrapper.serve ? [theirs, askedByGo(wrapper, wrapper.name as 'https' | 'http2' | 'grpc')] : [theirs];
    });
    const answered = await Promise.all(pairs.map(({ run }) => run(failures)));
    await Promise.all([...load, handover]);
    await Promise.all([http.stop(), grpc.stop()]);
    for (const { wrapper, answers, connections } of all)
      console.log(`${wrapper.name.padEnd(7)} ${answers} answers, ${(answers / SECONDS).toFixed(0)}/s, over ${connections()} connections`);
    for (const { wrapper, serving } of all) for (const error of serving.refused) failures.push(`${wrapper.name} refused: ${String(error)}`);
    console.log(`${failures.length} failed; ${svids.size} SVIDs, ${roots.size} roots`);
    for (const { asking, serving } of all) {
      await asking.close();
      await serving.close();
    }
    expect(failures).toEqual([]);
    expect(pairs).toHaveLength(7);
    for (const count of answered) expect(count).toBeGreaterThan(SECONDS * 10);
    for (const { answers, connections } of all) {
      expect(answers).toBeGreaterThan(SECONDS * 20);
      // each lasts for less than an SVID
      expect(connections()).toBeGreaterThanOrEqual(SECONDS / 20);
    }
    expect(svids.size).toBeGreaterThanOrEqual(SECONDS / 20);
    expect(roots.size).toBe(2);
  },
  (SECONDS + 60) * 1_000,
);
