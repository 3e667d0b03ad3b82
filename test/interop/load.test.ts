/** Many at once: 200 connections and 2,000 calls from Go and from Java, and clients that fetch and cancel for ever. Not one error. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createRunningHouse, type Agent, type House } from '../e2e/house.ts';
import { startWorkload, type Workload } from './setup.ts';

let house: House;
let agent: Agent;
beforeAll(async () => {
  // the debug log of every call is not what this story measures
  ({ house, agent } = await createRunningHouse({ logLevel: 'INFO' }));
  await house.createEntry({ id: '/load', parent: agent });
});
afterAll(async () => {
  await house?.close();
});

for (const language of ['go', 'java'] as const) {
  describe(language, () => {
    let workload: Workload;
    beforeAll(async () => {
      workload = await startWorkload(language);
      await workload.holds(agent.address, 'spiffe://example.org/load');
    });
    afterAll(async () => {
      await workload?.close();
    });

    for (const kind of ['x509', 'jwt'] as const) {
      test(`2,000 ${kind} calls over 200 connections at once all succeed`, async () => {
        const answer = await workload.call('load', { addr: agent.address, kind, calls: 2_000, connections: 200, audience: ['db'] });
        expect(answer.failures).toEqual([]);
        expect(answer.good).toBe(2_000);
      });
    }

    test('8,000 fetches that each cancel their stream keep the one connection they share', async () => {
      for (let round = 0; round < 8; round++) {
        const answer = await workload.call('load', { addr: agent.address, kind: 'x509', calls: 1_000, connections: 1 });
        expect(answer.failures).toEqual([]);
        expect(answer.good).toBe(1_000);
      }
    });
  });
}
