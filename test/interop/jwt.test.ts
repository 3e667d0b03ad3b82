/** A JWT-SVID fetched by a workload in one language is validated by another's library, in every pair. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createRunningHouse, type Agent, type House } from '../e2e/house.ts';
import { startWorkload, type Language, type Workload } from './setup.ts';

const LANGUAGES = ['go', 'java', 'python', 'node'] as const satisfies readonly Language[];
let house: House;
let agent: Agent;
const workloads = new Map<Language, Workload>();
const of = (language: Language): Workload => {
  const workload = workloads.get(language);
  if (!workload) throw new Error(`${language} was not started`);
  return workload;
};

beforeAll(async () => {
  ({ house, agent } = await createRunningHouse());
  for (const language of LANGUAGES) {
    const workload = await startWorkload(language);
    workloads.set(language, workload);
    await house.createEntry({ id: `/${language}`, parent: agent, selectors: [workload.selector] });
    await workload.holds(agent.address, `spiffe://example.org/${language}`);
  }
});
afterAll(async () => {
  for (const workload of workloads.values()) await workload.close();
  await house?.close();
});

for (const minter of LANGUAGES) {
  test(`a JWT-SVID of ${minter} holds for every other language, by the Workload API and by its own library`, async () => {
    const addr = agent.address;
    const { svids } = await of(minter).call('jwt.fetch', { addr, audience: ['db'] });
    const token = svids[0]?.token ?? '';
    for (const validator of LANGUAGES) {
      expect((await of(validator).call('jwt.validate', { addr, token, audience: ['db'] })).id).toBe(`spiffe://example.org/${minter}`);
      expect((await of(validator).call('jwt.source', { addr, token, audience: ['db'] })).id).toBe(`spiffe://example.org/${minter}`);
      await expect(of(validator).call('jwt.validate', { addr, token, audience: ['web'] })).rejects.toThrow();
      await expect(of(validator).call('jwt.source', { addr, token, audience: ['web'] })).rejects.toThrow();
    }
  });
}
