/** The server goes away under the other's agent and comes back; the agent goes away and comes back from its disk. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { createPair, NAMES, otherThan, type Pair, type PairAgent, POLL, SIDES } from './pair.ts';

for (const server of SIDES) {
  const side = otherThan(server);
  for (const keyManager of ['disk', 'memory'] as const) {
    describe(`${NAMES[side]} agent on ${NAMES[server]} server, whose keys are on ${keyManager}`, () => {
      let pair: Pair;
      let agent: PairAgent;
      const kids = async () =>
        (JSON.parse(await pair.house.ok('server', 'bundle', 'show', '-format', 'spiffe')) as { keys: { kid?: string }[] }).keys.flatMap(
          ({ kid }) => (kid === undefined ? [] : [kid]),
        );

      beforeAll(async () => {
        pair = await createPair(server, { keyManager });
        agent = await pair.createAgent('agent', side);
        await pair.house.createEntry({ id: '/web', parent: agent.agent });
        await agent.start();
        await vi.waitFor(async () => expect(await agent.fetched()).toContain('spiffe://example.org/web\n'), POLL);
      });
      afterAll(() => pair?.close());

      test('while the server is away, what there is is served', async () => {
        await pair.server.kill();
        expect(await agent.fetched()).toContain('spiffe://example.org/web\n');
      });

      test('when it is back, entries and new keys reach the agent', async () => {
        const before = await agent.svids();
        await pair.startServer();
        await pair.house.createEntry({ id: '/late', parent: agent.agent });
        await expect.poll(() => agent.fetched(), POLL).toContain('spiffe://example.org/late\n');
        expect((await agent.svids()).find(({ spiffe_id }) => spiffe_id.endsWith('/web'))?.bundle).toBe(before[0]?.bundle);
        const [newest] = (await kids()).slice(-1);
        const jwt = () =>
          pair.run(side, ['agent', 'api', 'fetch', 'jwt', '-audience', 'db', '-spiffeID', 'spiffe://example.org/late'], { agent });
        await expect.poll(async () => (await jwt()).stdout, POLL).toContain(newest);
        expect(await kids()).toHaveLength(keyManager === 'disk' ? 1 : 2);
      });

      test('the agent comes back from its disk: its token is spent, and it needs none', async () => {
        const shown = () => pair.house.ok('server', 'agent', 'show', '-spiffeID', agent.id);
        const before = /Serial number.*/.exec(await shown())?.[0];
        await agent.process.kill();
        await agent.start();
        await expect.poll(() => agent.fetched(), POLL).toContain('spiffe://example.org/late\n');
        expect(await shown()).toContain(before);
      });
    });
  }
}
