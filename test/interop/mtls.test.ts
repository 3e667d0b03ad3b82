/** mTLS between a Go, a Java and a Node process, each with its SVID from our agent, in every direction. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createRunningHouse, type Agent, type House } from '../e2e/house.ts';
import { startWorkload, type Follow, type Language, type Workload } from './setup.ts';

const LANGUAGES = ['go', 'java', 'node'] as const satisfies readonly Language[];
const id = (language: Language) => `spiffe://example.org/${language}`;
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
    await house.createEntry({ id: id(language), parent: agent, selectors: [workload.selector] });
    await workload.holds(agent.address, id(language));
  }
});
afterAll(async () => {
  for (const workload of workloads.values()) await workload.close();
  await house?.close();
});

for (const server of LANGUAGES) {
  describe(`a ${server} server that admits anybody of the trust domain`, () => {
    let open: Follow & { readonly to: string };
    beforeAll(async () => {
      open = await of(server).listen({ addr: agent.address, peer: '' });
    });
    afterAll(async () => {
      await open?.stop();
    });

    for (const client of LANGUAGES) {
      test(`and a ${client} client that wants just it know each other's SPIFFE ID`, async () => {
        const answer = await of(client).call('mtls.dial', { addr: agent.address, to: open.to, peer: id(server), message: 'hello' });
        expect(answer).toEqual({ peer: id(server), reply: `${id(client)} hello` });
      });

      test(`is refused by a ${client} client that wants somebody else`, async () => {
        await expect(
          of(client).call('mtls.dial', { addr: agent.address, to: open.to, peer: 'spiffe://example.org/somebody', message: 'hello' }),
        ).rejects.toThrow();
      });
    }
  });

  test(`a ${server} server that wants one client refuses the others and takes it`, async () => {
    const [wanted, other] = LANGUAGES.filter((language) => language !== server);
    if (!wanted || !other) throw new Error('three languages are needed');
    const strict = await of(server).listen({ addr: agent.address, peer: id(wanted) });
    await expect(of(other).call('mtls.dial', { addr: agent.address, to: strict.to, peer: id(server), message: 'hello' })).rejects.toThrow();
    const answer = await of(wanted).call('mtls.dial', { addr: agent.address, to: strict.to, peer: id(server), message: 'hello' });
    expect(answer.reply).toBe(`${id(wanted)} hello`);
    await strict.stop();
  });
}
