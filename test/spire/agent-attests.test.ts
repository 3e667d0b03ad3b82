/** An agent on the other's server, both ways: it attests, serves X.509- and JWT-SVIDs, follows its entries, and ends when it is banned. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createPair, NAMES, otherThan, type Pair, type PairAgent, POLL, SIDES } from './pair.ts';

for (const server of SIDES) {
  const side = otherThan(server);
  for (const attestor of ['join_token', 'x509pop'] as const) {
    describe(`${NAMES[side]} agent on ${NAMES[server]} server, by ${attestor}`, () => {
      let pair: Pair;
      let agent: PairAgent;

      beforeAll(async () => {
        pair = await createPair(server);
        agent = await pair.createAgent('agent', side, { attestor });
        await pair.house.createEntry({ id: '/web', parent: agent.agent, hint: 'first', more: ['-dns', 'web.example.org'] });
        await agent.start();
      });
      afterAll(() => pair?.close());

      test('it attests, and serves what an entry says', async () => {
        await expect.poll(() => agent.fetched(), POLL).toMatch(/spiffe:\/\/example\.org\/web\nHint:\s+first\n/);
        expect(await agent.svids()).toHaveLength(1);
        // a stock server has no push stream: then our agent polls
        if (side === 'warifu') expect(agent.process.tail(80)).toContain('The server has no push stream; polling');
      });

      test('the server lists it, with its selectors', async () => {
        const shown = await pair.house.ok('server', 'agent', 'show', '-spiffeID', agent.id);
        expect(shown).toContain(`Attestation type  : ${attestor}\n`);
        expect(shown).toContain(`Can re-attest     : ${attestor === 'x509pop'}\n`);
        if (attestor === 'x509pop') expect(shown).toContain('x509pop:subject:cn:agent\n');
      });

      test('JWT-SVIDs are signed, and validated by who is asked to', async () => {
        const fetched = await pair.run(side, ['agent', 'api', 'fetch', 'jwt', '-audience', 'db', '-output', 'json'], { agent });
        expect(fetched.code, fetched.stderr).toBe(0);
        const token = (JSON.parse(fetched.stdout) as [{ svids: [{ svid: string }] }])[0].svids[0].svid;
        const validated = (audience: string) =>
          pair.run(side, ['agent', 'api', 'validate', 'jwt', '-audience', audience, '-svid', token], { agent });
        expect((await validated('db')).code).toBe(0);
        expect((await validated('another')).code).toBe(1);
      });

      test('a new entry reaches it, its change and its deletion', async () => {
        const { house } = pair;
        const id = await house.createEntry({ id: '/late', parent: agent.agent });
        await expect.poll(() => agent.fetched(), POLL).toContain('spiffe://example.org/late\n');
        await house.ok(
          ...['server', 'entry', 'update', '-entryID', id, '-parentID', agent.id, '-spiffeID', 'spiffe://example.org/later'],
          ...['-selector', `unix:uid:${process.getuid?.()}`],
        );
        await expect.poll(() => agent.fetched(), POLL).toContain('spiffe://example.org/later\n');
        await house.deleteEntry(id);
        await expect.poll(() => agent.fetched(), POLL).not.toContain('spiffe://example.org/late');
      });

      test('who fits no entry is refused', async () => {
        const { house } = pair;
        const [{ id }] = (JSON.parse(await house.ok('server', 'entry', 'show', '-output', 'json')) as { entries: [{ id: string }] })
          .entries;
        await house.deleteEntry(id);
        await expect.poll(() => agent.fetched(), POLL).toMatch(/code = PermissionDenied desc = no identity issued\n$/);
      });

      test('it ends when it is banned, and may not come back', async () => {
        await pair.house.ok('server', 'agent', 'ban', '-spiffeID', agent.id);
        expect((await agent.process.exited).code).toBe(1);
        expect(agent.process.tail(20)).toContain('Agent is banned: removing SVID and shutting down');
        const again = agent.launch();
        await again.line(/agent is banned|join token does not exist or has already been used/);
        await again.stop();
      });
    });
  }
}
