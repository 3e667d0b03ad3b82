/**
 * Rotation under load: requests go on all the time over each wrapper of the SDK, with SVIDs of 20 s from our server and agent, and the root is replaced half-way.
 * Not one request fails, and every connection is younger than its SVID. 60 s; `WARIFU_W7_SECONDS=180` for the long form.
 */
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { matchId } from '../../spiffe/match.ts';
import { X509Source } from '../../spiffe/source/x509-source.ts';
import { type Agent, createRunningHouse, type House } from '../e2e/house.ts';
import { createPki } from '../e2e/pki.ts';
import { pause, serverOf, WRAPPERS } from '../spiffe/tls/wrappers.ts';

const SECONDS = Number(process.env['WARIFU_W7_SECONDS'] ?? 60);
const ID = 'spiffe://example.org/node';
/** For each wrapper; each waits this long between an answer and its next question. */
const ASKERS = 4;
const PAUSE_MS = 40;

let house: House;
let agent: Agent;
let source: X509Source;

beforeAll(async () => {
  ({ house, agent } = await createRunningHouse({ caTtl: '60s', x509SvidTtl: '20s', agent: { attestor: 'x509pop' } }));
  await house.createEntry({ id: '/node', parent: agent, selectors: [`unix:path:${process.execPath}`] });
  source = await X509Source.open({ address: agent.address, backoff: () => 100, signal: AbortSignal.timeout(30_000) });
});
afterAll(async () => {
  await source?.close();
  await house?.close();
});

test(
  `no request of ${SECONDS} s fails over https, http2, undici and gRPC: SVIDs of 20 s, another root half-way`,
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
    const goesOn = () => performance.now() - started < SECONDS * 1_000;
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
        while (goesOn()) {
          try {
            expect(await one.asking.ask(10)).toBe(`you are ${ID}`);
            one.answers++;
          } catch (error) {
            failures.push(
              `${((performance.now() - started) / 1000).toFixed(1)} s, ${one.wrapper.name}: ${String(error)} ${String((error as Error).cause ?? '')}`,
            );
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
    await Promise.all([...load, handover]);
    for (const { wrapper, answers, connections } of all)
      console.log(`${wrapper.name.padEnd(7)} ${answers} answers, ${(answers / SECONDS).toFixed(0)}/s, over ${connections()} connections`);
    for (const { wrapper, serving } of all) for (const error of serving.refused) failures.push(`${wrapper.name} refused: ${String(error)}`);
    console.log(`${failures.length} failed; ${svids.size} SVIDs, ${roots.size} roots`);
    for (const { asking, serving } of all) {
      await asking.close();
      await serving.close();
    }
    expect(failures).toEqual([]);
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
