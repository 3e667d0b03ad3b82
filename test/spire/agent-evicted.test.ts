/** An agent that the other's server forgets: one that can attest again does so, one that can't ends. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createPair, NAMES, otherThan, type Pair, type PairAgent, POLL, SIDES } from './pair.ts';

for (const server of SIDES) {
  const side = otherThan(server);
  describe(`${NAMES[side]} agent on ${NAMES[server]} server`, () => {
    let pair: Pair;
    const create = async (name: string, attestor: 'join_token' | 'x509pop'): Promise<PairAgent> => {
      const agent = await pair.createAgent(name, side, { attestor });
      await pair.house.createEntry({ id: `/${name}`, parent: agent.agent });
      await agent.start();
      await expect.poll(() => agent.fetched(), POLL).toContain(`spiffe://example.org/${name}\n`);
      return agent;
    };
    const shown = async (agent: PairAgent) => (await pair.house.run('server', 'agent', 'show', '-spiffeID', agent.id)).stdout;
    const serial = (text: string) => /Serial number +: (\d+)/.exec(text)?.[1];

    beforeAll(async () => {
      pair = await createPair(server);
    });
    afterAll(() => pair?.close());

    test('by join token: it ends, and its token is worth nothing any more', async () => {
      const agent = await create('once', 'join_token');
      await pair.house.ok('server', 'agent', 'evict', '-spiffeID', agent.id);
      expect((await agent.process.exited).code).toBe(1);
      expect(await shown(agent)).toBe('');
      const again = agent.launch();
      await again.line(/join token does not exist or has already been used/);
      await again.stop();
    });

    test('by x509pop: it attests again under the same SPIFFE ID, and serves on', async () => {
      const agent = await create('often', 'x509pop');
      const before = serial(await shown(agent));
      await pair.house.ok('server', 'agent', 'evict', '-spiffeID', agent.id);
      await expect.poll(async () => serial(await shown(agent)), POLL).toMatch(/^\d+$/);
      expect(serial(await shown(agent))).not.toBe(before);
      await pair.house.createEntry({ id: '/after', parent: agent.agent });
      await expect.poll(() => agent.fetched(), POLL).toContain('spiffe://example.org/after\n');
      expect(agent.process.end).toBeUndefined();
    });

    test('by x509pop: one that was banned attests again only when it is evicted', async () => {
      const agent = await create('banned', 'x509pop');
      await pair.house.ok('server', 'agent', 'ban', '-spiffeID', agent.id);
      expect((await agent.process.exited).code).toBe(1);
      expect((await agent.launch().exited).code).toBe(1);
      await pair.house.ok('server', 'agent', 'evict', '-spiffeID', agent.id);
      await agent.start();
      await expect.poll(() => agent.fetched(), POLL).toContain('spiffe://example.org/banned\n');
    });
  });
}
